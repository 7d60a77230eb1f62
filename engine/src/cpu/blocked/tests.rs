//! Convolutions whose weights are new in each run, and the gradients of weights, against their definitions.

use super::*;
use crate::cpu::gemm::Floats;
use crate::cpu::window::Window;
use crate::cpu::{Arena, Io, Kernel, Post, View, ViewMut};
use crate::ir::DType;

fn window(input: [usize; 2], size: [usize; 2], stride: usize, dilation: usize, pad: usize) -> Window {
    let reach = |a: usize| (size[a] - 1) * dilation + 1;
    let along = |a: usize| {
        (input[a] + 2 * pad)
            .checked_sub(reach(a))
            .map_or(0, |n| n / stride + 1)
    };
    Window {
        input: input.to_vec(),
        output: vec![along(0), along(1)],
        size: size.to_vec(),
        strides: vec![stride; 2],
        dilations: vec![dilation; 2],
        pads: vec![pad; 2],
    }
}

fn shape(images: usize, groups: usize, inputs: usize, outputs: usize, window: Window) -> Shape {
    Shape {
        images,
        groups,
        inputs,
        outputs,
        window,
        post: Post::NONE,
    }
}

/// Images, groups, channels of a group in and out; image, window, stride, dilation and border.
type Case = ([usize; 4], [usize; 2], [usize; 2], [usize; 3]);

const CASES: &[Case] = &[
    ([3, 1, 20, 37], [9, 11], [3, 3], [1, 1, 1]),
    ([1, 1, 16, 16], [4, 4], [3, 3], [1, 1, 1]),
    ([9, 1, 33, 18], [3, 5], [3, 3], [1, 1, 0]),
    ([17, 1, 16, 64], [7, 7], [3, 3], [1, 1, 1]),
    ([1, 1, 150, 17], [5, 6], [3, 3], [1, 1, 2]),
    ([2, 1, 40, 70], [31, 35], [3, 3], [1, 1, 1]),
    ([2, 1, 24, 33], [13, 12], [3, 3], [2, 1, 1]),
    ([2, 1, 17, 32], [12, 14], [3, 2], [1, 2, 2]),
    ([11, 1, 18, 20], [5, 6], [1, 1], [1, 1, 0]),
    ([2, 1, 32, 16], [9, 9], [1, 1], [2, 1, 0]),
    ([2, 2, 16, 32], [9, 8], [3, 3], [1, 1, 1]),
    ([2, 1, 3, 20], [19, 17], [7, 7], [2, 1, 3]),
    ([9, 1, 1, 16], [12, 12], [5, 5], [1, 1, 0]),
    ([10, 20, 1, 1], [9, 7], [3, 3], [1, 1, 1]),
    ([1, 48, 1, 1], [10, 12], [5, 5], [2, 2, 2]),
    ([0, 1, 16, 16], [5, 5], [3, 3], [1, 1, 1]),
    ([2, 1, 16, 16], [2, 2], [3, 3], [1, 1, 0]),
];

fn of(&([n, g, i, o], image, size, [stride, dilation, pad]): &Case) -> Shape {
    shape(n, g, i, o, window(image, size, stride, dilation, pad))
}

fn noise(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / (1u32 << 31) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Each product of the convolution: of which images's elements, weights and outputs.
fn products(s: &Shape, mut each: impl FnMut(usize, usize, usize)) {
    let w = &s.window;
    for image in 0..s.images {
        for o in 0..s.groups * s.outputs {
            for c in 0..s.inputs {
                let channel = (image * s.groups + o / s.outputs) * s.inputs + c;
                for at in 0..w.positions() {
                    for (tap, under) in w.covered(at) {
                        each(
                            channel * w.plane() + under,
                            (o * s.inputs + c) * w.taps() + tap,
                            (image * s.groups * s.outputs + o) * w.positions() + at,
                        );
                    }
                }
            }
        }
    }
}

fn packed(x: &[f32], sizes: [usize; 3]) -> Vec<f32> {
    let [images, channels, pixels] = sizes;
    let mut y = vec![f32::NAN; images * channels.next_multiple_of(BLOCK) * pixels];
    pack(x, &mut y, sizes, &Pool::new(1));
    y
}

fn unpacked(x: &[f32], sizes: [usize; 3]) -> Vec<f32> {
    let mut y = vec![0.0; sizes.iter().product()];
    unpack(x, &mut y, sizes, &Pool::new(1));
    y
}

/// The output of `len` floats; memory holds NaN before.
fn run(kernel: &dyn Kernel, inputs: &[&[f32]], len: usize, threads: usize) -> Vec<f32> {
    let held: Vec<_> = inputs.iter().map(|x| Floats::whole(x, 1)).collect();
    let dims: Vec<_> = inputs.iter().map(|x| [x.len()]).collect();
    let each = held.iter().zip(&dims);
    let inputs: Vec<_> = each
        .map(|(x, d)| Some(View::new(DType::F32, d, bytemuck::cast_slice(&x.slice()[..d[0]]))))
        .collect();
    let mut y = Floats::zeros(len);
    y.slice_mut().fill(f32::NAN);
    let mut scratch = Arena::new(kernel.scratch(threads));
    bytemuck::cast_slice_mut(scratch.bytes_mut()).fill(f32::NAN);
    let size = [len];
    let out = ViewMut::new(
        DType::F32,
        &size,
        bytemuck::cast_slice_mut(&mut y.slice_mut()[..len]),
    );
    let mut io = Io {
        inputs: &inputs,
        outputs: &mut [Some(out)],
        scratch: scratch.bytes_mut(),
        pool: &Pool::new(threads),
    };
    kernel.run(&mut io).unwrap();
    y.slice()[..len].to_vec()
}

/// What `kernel` makes on one thread, which must be what it makes on three.
fn made(kernel: &dyn Kernel, inputs: &[&[f32]], len: usize) -> Vec<f32> {
    let (one, three) = (run(kernel, inputs, len, 1), run(kernel, inputs, len, 3));
    let bits = |y: &[f32]| y.iter().map(|y| y.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&one), bits(&three), "1 and 3 threads");
    one
}

/// Compares relative to the largest that is expected.
fn near(got: &[f32], want: &[f64], what: &str) {
    let largest = want.iter().fold(1.0f64, |a, b| a.max(b.abs()));
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let far = (f64::from(got) - want).abs() / largest;
        assert!(far < 1e-5, "{what}, element {i}: {got}, expected {want}");
    }
}

/// Images with their channels in blocks, unless rows are read.
fn image(s: &Shape, x: &[f32], rows: bool) -> Vec<f32> {
    match rows {
        true => x.to_vec(),
        false => packed(x, [s.images, s.groups * s.inputs, s.window.plane()]),
    }
}

struct Data {
    x: Vec<f32>,
    w: Vec<f32>,
    y: Vec<f32>,
}

fn data(s: &Shape) -> Data {
    let outputs = s.groups * s.outputs;
    Data {
        x: noise(s.images * s.groups * s.inputs * s.window.plane(), 1),
        w: noise(outputs * s.depth(), 2),
        y: noise(s.images * outputs * s.window.positions(), 3),
    }
}

#[test]
fn fresh_weights_are_those_of_the_run() {
    for case in CASES {
        let s = of(case);
        let (d, outputs) = (data(&s), s.groups * s.outputs);
        let bias = noise(outputs, 4);
        let mut want: Vec<f64> = (0..d.y.len())
            .map(|i| bias[i / s.window.positions() % outputs].into())
            .collect();
        products(&s, |x, w, y| want[y] += f64::from(d.x[x]) * f64::from(d.w[w]));
        let mut kernels = vec![];
        match Depthwise::fits(&s) {
            true => kernels.push(("depthwise", Fresh::depthwise(s.clone(), Origin::new(&s)))),
            false => kernels.push(("direct", Fresh::direct(s.clone()))),
        }
        if Winograd::fits(&s) {
            for (name, four) in [("winograd2", false), ("winograd4", true)] {
                kernels.push((name, Fresh::winograd(s.clone(), Origin::new(&s), four)));
            }
        }
        let sizes = [s.images, outputs, s.window.positions()];
        for (name, kernel) in kernels {
            let x = image(&s, &d.x, name == "direct" && Direct::reads_rows(&s));
            let len = s.images * outputs.next_multiple_of(BLOCK) * s.window.positions();
            let y = made(&kernel.with(Some(2), false), &[&x, &d.w, &bias], len);
            near(&unpacked(&y, sizes), &want, &format!("{case:?} {name}"));
        }
    }
}

#[test]
fn the_gradient_of_the_image_is_the_transpose() {
    for case in CASES {
        // The image of the transpose is the gradient of the output.
        let s = of(case);
        let turned = Shape {
            inputs: s.outputs,
            outputs: s.inputs,
            ..s.clone()
        };
        let phases = Phase::all(&turned);
        let single = Phase::depthwise(&turned);
        if (phases.is_empty() && single.is_none()) || s.images * s.window.positions() == 0 {
            continue;
        }
        let d = data(&s);
        let mut want = vec![0.0; d.x.len()];
        products(&s, |x, w, y| want[x] += f64::from(d.y[y]) * f64::from(d.w[w]));
        let mut kernels = vec![];
        if let Some(p) = single {
            kernels.push(Fresh::depthwise(p.shape().clone(), p.origin()));
        } else {
            let each = phases
                .iter()
                .map(|p| (p.dense(None), p.shape().clone(), p.origin()));
            kernels.push(Fresh::phases(each));
        }
        let steps = phases
            .first()
            .filter(|p| phases.len() == 1 && Winograd::fits(p.shape()));
        for four in steps.iter().flat_map(|_| [false, true]) {
            kernels.extend(steps.map(|p| Fresh::winograd(p.shape().clone(), p.origin(), four)));
        }
        let sizes = [s.images, s.groups * s.inputs, s.window.plane()];
        let dy = packed(&d.y, [s.images, s.groups * s.outputs, s.window.positions()]);
        for (i, kernel) in kernels.iter().enumerate() {
            let len = s.images * sizes[1].next_multiple_of(BLOCK) * sizes[2];
            let dx = made(kernel, &[&dy, &d.w], len);
            near(&unpacked(&dx, sizes), &want, &format!("{case:?} {i}"));
        }
    }
}

/// The kernels for the gradient of the weights, and whether they read rows.
fn gradients(s: &Shape) -> Vec<(Gradient, bool)> {
    if Depthwise::fits(s) {
        return vec![(Gradient::depthwise(s.clone()), false)];
    }
    let mut all = vec![(Gradient::direct(s.clone()), Direct::reads_rows(s))];
    if Winograd::fits(s) {
        all.push((Gradient::winograd(s.clone()), false));
    }
    all
}

#[test]
fn gradients_of_weights_are_sums_over_all_pixels() {
    for case in CASES {
        let s = of(case);
        let d = data(&s);
        let mut want = vec![0.0; d.w.len()];
        products(&s, |x, w, y| want[w] += f64::from(d.x[x]) * f64::from(d.y[y]));
        let dy = packed(&d.y, [s.images, s.groups * s.outputs, s.window.positions()]);
        for (i, (kernel, rows)) in gradients(&s).iter().enumerate() {
            let dw = made(kernel, &[&image(&s, &d.x, *rows), &dy], want.len());
            near(&dw, &want, &format!("{case:?} {i}"));
        }
    }
}

#[test]
fn what_is_no_number_reaches_the_gradient() {
    for case in CASES.iter().filter(|c| c.0[0] > 0) {
        let s = of(case);
        let mut d = data(&s);
        if d.y.is_empty() {
            continue;
        }
        let last = d.y.len() - 1;
        d.y[last] = f32::NAN;
        let mut hit = vec![false; d.w.len()];
        products(&s, |_, w, y| hit[w] |= y == last);
        let dy = packed(&d.y, [s.images, s.groups * s.outputs, s.window.positions()]);
        for (kernel, rows) in gradients(&s) {
            let dw = made(&kernel, &[&image(&s, &d.x, rows), &dy], d.w.len());
            let missed = dw.iter().zip(&hit).position(|(w, &hit)| hit && !w.is_nan());
            assert_eq!(missed, None, "{case:?}");
            // Other outputs have no part in it.
            let other = &dw[..(s.groups * s.outputs - 1) * s.depth()];
            assert!(other.iter().all(|w| w.is_finite()), "{case:?}");
        }
    }
}
