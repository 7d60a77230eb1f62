use std::sync::Arc;
use std::time::Instant;

use super::product::Weights;
use super::*;
use crate::cpu::gemm::{Bands, Strides};
use crate::cpu::{Arena, Pool};
use crate::ops::case::floats;

fn data(len: usize, seed: u64) -> Vec<f32> {
    floats(&[len], seed).elements::<f32>().unwrap().into_owned()
}

/// `[images, groups, inputs, outputs]` and for each axis `[input, size, stride, dilation, pad before, pad after]`.
pub(crate) fn shape(counts: [usize; 4], axes: &[[usize; 6]]) -> Shape {
    let all = |i: usize| axes.iter().map(|a| a[i]).collect::<Vec<_>>();
    let out = |a: &[usize; 6]| (a[0] + a[4] + a[5] - a[3] * (a[1] - 1) - 1) / a[2] + 1;
    Shape {
        images: counts[0],
        groups: counts[1],
        inputs: counts[2],
        outputs: counts[3],
        window: Window {
            input: all(0),
            output: axes.iter().map(out).collect(),
            size: all(1),
            strides: all(2),
            dilations: all(3),
            pads: all(4),
        },
        post: Post::NONE,
    }
}

fn index(mut i: usize, sizes: &[usize]) -> Vec<usize> {
    let mut out = vec![0; sizes.len()];
    for (slot, &size) in out.iter_mut().zip(sizes).rev() {
        *slot = i % size;
        i /= size;
    }
    out
}

fn naive(s: &Shape, x: &[f32], w: &[f32], bias: &[f32]) -> Vec<f64> {
    let win = &s.window;
    let mut y = vec![];
    for (image, group, o) in (0..s.images)
        .flat_map(|i| (0..s.groups).map(move |g| (i, g)))
        .flat_map(|(i, g)| (0..s.outputs).map(move |o| (i, g, o)))
    {
        let out = group * s.outputs + o;
        for at in 0..win.positions() {
            let at = index(at, &win.output);
            let mut sum = f64::from(bias[out]);
            for (c, tap) in (0..s.inputs).flat_map(|c| (0..win.taps()).map(move |t| (c, t))) {
                let taps = index(tap, &win.size);
                let places = (0..at.len()).map(|a| win.place(a, at[a], taps[a]));
                let Some(places) = places.collect::<Option<Vec<_>>>() else {
                    continue;
                };
                let place = places.iter().zip(&win.input).fold(0, |i, (p, size)| i * size + p);
                let channel = (image * s.groups + group) * s.inputs + c;
                let weight = (out * s.inputs + c) * win.taps() + tap;
                sum += f64::from(x[channel * win.plane() + place]) * f64::from(w[weight]);
            }
            y.push(sum);
        }
    }
    y
}

struct Data {
    x: Vec<f32>,
    w: Vec<f32>,
    bias: Vec<f32>,
}

impl Data {
    fn new(s: &Shape) -> Data {
        let outputs = s.groups * s.outputs;
        Data {
            x: data(s.images * s.groups * s.inputs * s.window.plane(), 1),
            w: data(outputs * s.depth(), 2),
            bias: data(outputs, 3),
        }
    }

    fn packed(&self, s: &Shape) -> Weights {
        let size = (s.outputs, s.depth());
        Weights::Packed(Arc::new(Bands::new(
            &self.w,
            s.groups,
            size,
            Strides::rows(s.depth()),
        )))
    }

    fn images(&self, y: &mut [f32]) -> Images {
        Images {
            x: self.x.as_ptr(),
            w: std::ptr::null(),
            bias: self.bias.as_ptr(),
            residual: std::ptr::null(),
            y: y.as_mut_ptr(),
        }
    }

    fn run(&self, s: &Shape, kernel: &Kernel, threads: usize) -> Vec<f32> {
        let mut y = vec![f32::NAN; s.images * s.groups * s.outputs * s.window.positions()];
        let pool = Pool::new(threads);
        let (images, scratch) = (self.images(&mut y), |n: usize| Arena::new(n));
        // SAFETY: the vectors are as large as the shape says.
        unsafe {
            match kernel {
                Kernel::Product(k) => {
                    k.run(
                        images,
                        &self.w,
                        scratch(k.scratch(pool.threads())).bytes_mut(),
                        &pool,
                    );
                }
                Kernel::Depthwise(k) => {
                    k.run(
                        images,
                        &self.w,
                        scratch(k.scratch(pool.threads())).bytes_mut(),
                        &pool,
                    );
                }
            }
        }
        y
    }
}

enum Kernel {
    Product(Convolution),
    Depthwise(Depthwise),
}

#[test]
fn every_way_gives_the_naive_sums() {
    let shapes = [
        shape([1, 1, 5, 7], &[[9, 3, 1, 1, 1, 1], [8, 3, 1, 1, 1, 1]]),
        shape([2, 1, 40, 30], &[[13, 1, 1, 1, 0, 0], [5, 1, 1, 1, 0, 0]]),
        shape([1, 1, 130, 50], &[[7, 3, 1, 1, 1, 1], [7, 3, 1, 1, 1, 1]]),
        shape([3, 2, 3, 14], &[[9, 3, 2, 1, 1, 0], [12, 4, 3, 2, 5, 2]]),
        shape([1, 1, 3, 13], &[[40, 7, 2, 1, 3, 3], [50, 7, 2, 1, 3, 3]]),
        shape(
            [1, 1, 2, 3],
            &[[4, 2, 1, 1, 0, 1], [5, 3, 2, 1, 1, 1], [6, 2, 1, 3, 2, 2]],
        ),
        shape([2, 3, 2, 2], &[[11, 5, 1, 2, 4, 4]]),
        shape([2, 7, 1, 1], &[[9, 3, 1, 1, 1, 1], [8, 3, 1, 1, 1, 1]]),
        shape([1, 5, 1, 2], &[[15, 3, 2, 1, 0, 1], [16, 3, 2, 1, 0, 1]]),
        shape([1, 4, 1, 1], &[[9, 5, 1, 2, 4, 4], [21, 5, 3, 1, 7, 1]]),
        shape([1, 3, 1, 1], &[[30, 4, 2, 1, 1, 1]]),
        shape([1, 3, 1, 1], &[[6, 1, 3, 1, 0, 0], [6, 1, 2, 1, 0, 0]]),
        shape([1, 2, 1, 1], &[[2, 3, 2, 1, 2, 4], [1, 2, 1, 1, 3, 3]]),
    ];
    for s in shapes {
        let d = Data::new(&s);
        let want = naive(&s, &d.x, &d.w, &d.bias);
        let mut kernels = vec![
            Kernel::Product(Convolution::new(s.clone(), d.packed(&s))),
            Kernel::Product(Convolution::new(s.clone(), Weights::Plain)),
        ];
        kernels.extend(Depthwise::new(s.clone()).map(Kernel::Depthwise));
        for k in &kernels {
            let got = d.run(&s, k, 1);
            for (i, (&g, &w)) in got.iter().zip(&want).enumerate() {
                assert!(
                    (f64::from(g) - w).abs() < 2e-4,
                    "{s:?}, element {i}: {g}, expected {w}"
                );
            }
            assert_eq!(got, d.run(&s, k, 3), "{s:?}");
        }
    }
}

/// Prints GFLOP/s of one thread for the layers of ResNet-50 and MobileNetV2.
#[test]
#[ignore = "a measurement"]
fn speed() {
    let square = |counts, size, k, stride| {
        let pad = k / 2;
        shape(counts, &[[size, k, stride, 1, pad, pad]; 2])
    };
    let layers = [
        ("stem 7x7 s2 3>64 @224", square([1, 1, 3, 64], 224, 7, 2)),
        ("1x1 64>64 @56", square([1, 1, 64, 64], 56, 1, 1)),
        ("1x1 64>256 @56", square([1, 1, 64, 256], 56, 1, 1)),
        ("1x1 256>64 @56", square([1, 1, 256, 64], 56, 1, 1)),
        ("3x3 64 @56", square([1, 1, 64, 64], 56, 3, 1)),
        ("3x3 s2 128 @56", square([1, 1, 128, 128], 56, 3, 2)),
        ("3x3 128 @28", square([1, 1, 128, 128], 28, 3, 1)),
        ("1x1 512>128 @28", square([1, 1, 512, 128], 28, 1, 1)),
        ("1x1 128>512 @28", square([1, 1, 128, 512], 28, 1, 1)),
        ("1x1 s2 256>512 @56", square([1, 1, 256, 512], 56, 1, 2)),
        ("3x3 256 @14", square([1, 1, 256, 256], 14, 3, 1)),
        ("1x1 1024>256 @14", square([1, 1, 1024, 256], 14, 1, 1)),
        ("1x1 256>1024 @14", square([1, 1, 256, 1024], 14, 1, 1)),
        ("3x3 s2 512 @14", square([1, 1, 512, 512], 14, 3, 2)),
        ("3x3 512 @7", square([1, 1, 512, 512], 7, 3, 1)),
        ("1x1 2048>512 @7", square([1, 1, 2048, 512], 7, 1, 1)),
        ("1x1 512>2048 @7", square([1, 1, 512, 2048], 7, 1, 1)),
        ("dw 32 @112", square([1, 32, 1, 1], 112, 3, 1)),
        ("dw s2 96 @112", square([1, 96, 1, 1], 112, 3, 2)),
        ("dw 192 @28", square([1, 192, 1, 1], 28, 3, 1)),
        ("dw 576 @14", square([1, 576, 1, 1], 14, 3, 1)),
        ("dw 960 @7", square([1, 960, 1, 1], 7, 3, 1)),
    ];
    for (name, s) in layers {
        let d = Data::new(&s);
        let kernel = match Depthwise::new(s.clone()) {
            Some(k) => Kernel::Depthwise(k),
            None => Kernel::Product(Convolution::new(s.clone(), d.packed(&s))),
        };
        let pool = Pool::new(1);
        let mut y = vec![0.0; s.images * s.groups * s.outputs * s.window.positions()];
        let images = d.images(&mut y);
        let mut scratch = Arena::new(match &kernel {
            Kernel::Product(k) => k.scratch(1),
            Kernel::Depthwise(k) => k.scratch(1),
        });
        let once = || {
            let begun = Instant::now();
            // SAFETY: the vectors are as large as the shape says.
            unsafe {
                match &kernel {
                    Kernel::Product(k) => k.run(images, &d.w, scratch.bytes_mut(), &pool),
                    Kernel::Depthwise(k) => k.run(images, &d.w, scratch.bytes_mut(), &pool),
                }
            }
            begun.elapsed().as_secs_f64()
        };
        let best = std::iter::repeat_with(once).take(40).fold(1.0, f64::min);
        println!(
            "{name}: {:.0} us, {:.0} GFLOP/s",
            best * 1e6,
            2.0 * s.work() / best * 1e-9
        );
    }
}
