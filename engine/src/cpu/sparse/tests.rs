use std::sync::Arc;

use super::*;
use crate::cpu::act::Act;
use crate::cpu::blocked;
use crate::cpu::conv::{self, Images, Shape};
use crate::cpu::gemm::Floats;
use crate::cpu::{Arena, Packed};
use crate::ir::Bytes;
use crate::ops::case::floats;

fn data(len: usize, seed: u64) -> Vec<f32> {
    floats(&[len], seed).elements::<f32>().unwrap().into_owned()
}

/// Zeros in about `share` of the places, in columns of `rows` rows.
fn pruned(mut w: Vec<f32>, cols: usize, share: f64, rows: usize) -> Vec<f32> {
    let draw = data(w.len().div_ceil(rows) + cols, 77);
    for (i, w) in w.iter_mut().enumerate() {
        let at = i / cols / rows * cols + i % cols;
        if (f64::from(draw[at]) * 1e3).rem_euclid(1.0) < share {
            *w = 0.0;
        }
    }
    w
}

fn shape(counts: [usize; 4], axes: &[[usize; 6]], act: Act) -> Shape {
    Shape {
        post: act.into(),
        ..conv::tests::shape(counts, axes)
    }
}

/// What a convolution makes of images row by row, and what is added there.
struct Conv {
    shape: Shape,
    x: Vec<f32>,
    w: Vec<f32>,
    bias: Vec<f32>,
    residual: Vec<f32>,
}

impl Conv {
    fn new(shape: Shape, share: f64, rows: usize) -> Conv {
        let s = &shape;
        let outputs = s.groups * s.outputs;
        Conv {
            x: data(s.images * s.groups * s.inputs * s.window.plane(), 1),
            w: pruned(data(outputs * s.depth(), 2), s.depth(), share, rows),
            bias: data(outputs, 3),
            residual: data(s.images * outputs * s.window.positions(), 4),
            shape,
        }
    }

    fn channels(&self) -> [usize; 2] {
        [self.shape.inputs, self.shape.outputs].map(|c| c * self.shape.groups)
    }

    fn zeros(&self) -> Zeros {
        Zeros::count(&self.w, Matrix::rows(self.channels()[1], self.shape.depth()))
    }

    /// By definition, skipping what is multiplied by zero.
    fn expected(&self) -> Vec<f32> {
        let (s, [inputs, outputs]) = (&self.shape, self.channels());
        let plane = s.window.positions();
        let mut all = vec![0f32; self.residual.len()];
        for (i, y) in all.iter_mut().enumerate() {
            let (image, o, at) = (i / plane / outputs, i / plane % outputs, i % plane);
            let mut sum = f64::from(self.bias[o]) + f64::from(self.residual[i]);
            for (c, t) in (0..s.inputs).flat_map(|c| (0..s.window.taps()).map(move |t| (c, t))) {
                let w = self.w[(o * s.inputs + c) * s.window.taps() + t];
                let Some(under) = s.window.under(at, t).filter(|_| w != 0.0) else {
                    continue;
                };
                let channel = image * inputs + o / s.outputs * s.inputs + c;
                sum += f64::from(w) * f64::from(self.x[channel * s.window.plane() + under]);
            }
            *y = sum as f32;
        }
        // SAFETY: it is one row.
        unsafe { s.post.apply_rows(all.as_mut_ptr(), 0, 1, all.len()) };
        all
    }

    /// By the kernel, on so many threads.
    fn made(&self, threads: usize) -> Vec<f32> {
        let (s, [inputs, outputs], pool) = (&self.shape, self.channels(), Pool::new(threads));
        let plan = Plan::conv(s, &self.zeros(), None).unwrap();
        let code = Arc::new(Code::new(&self.w, plan.cut()));
        let product = Product::new(plan, code);
        let x = match Plan::reads_rows(s) {
            true => Floats::whole(&self.x, BLOCK),
            false => packed(&self.x, [s.images, inputs, s.window.plane()]),
        };
        let sizes = [s.images, outputs, s.window.positions()];
        let residual = packed(&self.residual, sizes);
        let bias = Floats::whole(&self.bias, 2 * BLOCK);
        // What was there before must not matter.
        let mut y = Floats::zeros(residual.slice().len());
        y.slice_mut().fill(f32::NAN);
        let mut scratch = Arena::new(product.scratch(threads));
        bytemuck::cast_slice_mut(scratch.bytes_mut()).fill(f32::NAN);
        let images = Images {
            x: x.slice().as_ptr(),
            w: std::ptr::null(),
            bias: bias.slice().as_ptr(),
            residual: residual.slice().as_ptr(),
            y: y.slice_mut().as_mut_ptr(),
        };
        // SAFETY: all is of the sizes of the shape.
        unsafe { product.convolve(images, scratch.bytes_mut(), &pool) };
        let mut rows = vec![0.0; self.residual.len()];
        blocked::unpack(y.slice(), &mut rows, sizes, &pool);
        let live = s.images * outputs.next_multiple_of(BLOCK) * s.window.positions();
        let ends = y.slice()[..live].chunks(BLOCK).enumerate();
        for (i, lanes) in ends {
            let block = i / s.window.positions() % outputs.div_ceil(BLOCK);
            let behind = (outputs - block * BLOCK).min(BLOCK)..;
            assert!(
                lanes[behind].iter().all(|&x| x == 0.0),
                "lanes behind the last channel"
            );
        }
        rows
    }
}

fn packed(x: &[f32], sizes: [usize; 3]) -> Floats {
    let [images, channels, pixels] = sizes;
    let mut y = Floats::zeros(images * channels.next_multiple_of(BLOCK) * pixels);
    blocked::pack(x, y.slice_mut(), sizes, &Pool::new(1));
    y
}

fn close(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (&a, &b)) in got.iter().zip(want).enumerate() {
        assert!(
            (a - b).abs() <= 1e-4 * b.abs().max(1.0),
            "{what}: {a} for {b} at {i}"
        );
    }
}

fn shapes() -> Vec<Shape> {
    let (relu, none) = (Act::Relu, Act::None);
    let silu = Act::named("Elu", &[1.0]).unwrap_or(Act::HardSwish);
    vec![
        shape([1, 1, 16, 16], &[[5, 1, 1, 1, 0, 0], [7, 1, 1, 1, 0, 0]], none),
        shape([2, 1, 33, 70], &[[6, 1, 1, 1, 0, 0], [5, 1, 1, 1, 0, 0]], silu),
        shape([1, 1, 40, 24], &[[9, 1, 2, 1, 0, 0], [8, 1, 3, 1, 1, 0]], relu),
        shape([1, 1, 16, 32], &[[40, 1, 1, 1, 0, 0], [41, 1, 1, 1, 0, 0]], relu),
        shape([1, 1, 20, 18], &[[7, 3, 1, 1, 1, 1], [9, 3, 1, 1, 1, 1]], silu),
        shape([3, 1, 17, 16], &[[5, 3, 1, 1, 1, 1], [4, 3, 1, 1, 1, 1]], relu),
        shape([1, 1, 16, 20], &[[7, 3, 2, 1, 1, 1], [10, 3, 2, 1, 1, 0]], none),
        shape([2, 1, 16, 16], &[[9, 5, 1, 1, 0, 0], [11, 5, 1, 1, 0, 0]], none),
        shape([1, 1, 18, 16], &[[13, 3, 1, 2, 2, 2], [12, 2, 3, 3, 4, 1]], none),
        shape([1, 1, 3, 20], &[[23, 7, 3, 1, 2, 3], [21, 7, 4, 1, 3, 1]], relu),
        shape([2, 1, 1, 8], &[[6, 3, 1, 1, 1, 1], [6, 3, 1, 1, 1, 1]], relu),
        shape([1, 2, 32, 16], &[[6, 3, 1, 1, 1, 1], [6, 3, 1, 1, 1, 1]], relu),
        shape([2, 3, 16, 32], &[[4, 1, 1, 1, 0, 0], [9, 1, 1, 1, 0, 0]], silu),
        shape([1, 1, 24, 16], &[[19, 3, 1, 1, 1, 1]], none),
        shape([2, 1, 16, 16], &[[18, 4, 2, 1, 3, 0]], relu),
        // Each image by itself, for its planes are large.
        shape([2, 1, 16, 16], &[[66, 3, 1, 1, 1, 1], [65, 3, 1, 1, 1, 1]], none),
        // A window larger than the image.
        shape([1, 1, 16, 16], &[[3, 5, 1, 1, 2, 2], [2, 7, 1, 1, 3, 3]], none),
        // Several blocks of rows, several parts.
        shape([1, 1, 300, 600], &[[3, 1, 1, 1, 0, 0], [5, 1, 1, 1, 0, 0]], relu),
        shape([1, 1, 96, 130], &[[6, 3, 1, 1, 1, 1], [6, 3, 1, 1, 1, 1]], none),
    ]
}

#[test]
fn convolutions_are_those_of_all_weights() {
    for s in shapes() {
        for (share, rows) in [(0.15, 1), (0.9, 1), (1.0, 1), (0.8, 4)] {
            let conv = Conv::new(s.clone(), share, rows);
            let what = format!("{s:?} with {share} zeros by {rows}");
            let (one, three) = (conv.made(1), conv.made(3));
            close(&one, &conv.expected(), &what);
            assert_eq!(one, three, "{what}, on three threads");
        }
    }
}

#[test]
fn blocks_of_four_rows_are_found() {
    let s = shape([1, 1, 64, 64], &[[4, 1, 1, 1, 0, 0]], Act::None);
    let kind = |share, rows| {
        Plan::conv(&s, &Conv::new(s.clone(), share, rows).zeros(), None)
            .unwrap()
            .cut()
            .kind
    };
    assert_eq!(kind(0.7, 4), Kind::Quads);
    assert_eq!(kind(0.7, 1), Kind::Pairs);
    assert_eq!(kind(0.95, 4), Kind::Quads);
}

#[test]
fn weights_stay_small_in_memory() {
    let s = shape(
        [1, 1, 256, 256],
        &[[4, 3, 1, 1, 1, 1], [4, 3, 1, 1, 1, 1]],
        Act::None,
    );
    for (share, rows, most) in [(0.5, 1, 0.75), (0.9, 1, 0.25), (0.9, 4, 0.15)] {
        let conv = Conv::new(s.clone(), share, rows);
        let plan = Plan::conv(&s, &conv.zeros(), None).unwrap();
        let bytes = Code::new(&conv.w, plan.cut()).bytes() as f64;
        let dense = 4.0 * conv.w.len() as f64;
        assert!(
            bytes < most * dense,
            "{share} by {rows}: {} of dense",
            bytes / dense
        );
    }
}

#[test]
fn what_meets_zeros_is_not_looked_at() {
    for s in shapes() {
        for rows in [1, 4] {
            let mut conv = Conv::new(s.clone(), 0.7, rows);
            // No output reads the first channels of a group.
            let (depth, taps) = (s.depth(), s.window.taps());
            conv.w.chunks_exact_mut(depth).for_each(|w| w[..taps].fill(0.0));
            let (plane, channels) = (s.window.plane(), conv.channels()[0]);
            for (i, x) in conv.x.iter_mut().enumerate() {
                if i / plane % channels % s.inputs == 0 {
                    *x = [f32::NAN, f32::INFINITY][i % 2];
                }
            }
            close(&conv.made(2), &conv.expected(), &format!("{s:?}"));
        }
    }
}

#[test]
fn rows_of_matrices_are_multiplied() {
    for (m, k, n) in [
        (1, 5, 3),
        (7, 16, 16),
        (64, 100, 33),
        (130, 70, 257),
        (300, 200, 40),
        (17, 513, 600),
    ] {
        for (share, rows, turned) in [(0.3, 1, false), (0.8, 1, true), (0.97, 1, false), (0.6, 4, true)] {
            let full = pruned(data(k * n, 5), k, share, rows);
            let mut w = full.clone();
            let mut matrix = Matrix::rows(n, k);
            if turned {
                (0..n * k).for_each(|i| w[i % k * n + i / k] = full[i]);
                matrix = Matrix {
                    rows: n,
                    cols: k,
                    row: 1,
                    col: n,
                    taps: 1,
                };
            }
            let zeros = Zeros::count(&w, matrix);
            assert_eq!(zeros.live, full.iter().filter(|&&w| w != 0.0).count());
            let plan = Plan::rows(Rows {
                from: (0..m).map(|i| (i * k) as u32).collect(),
                to: (0..m).map(|i| (i * n) as u32).collect(),
                matrix,
                zeros,
                post: Act::named("Elu", &[1.0]).unwrap_or(Act::Relu).into(),
            });
            let plan = plan.unwrap();
            let (x, residual, bias) = (data(m * k, 6), data(n, 7), data(n, 8));
            // A residual that all rows share, by its places.
            let places = plan.places(vec![0; m]);
            let code = Code::new(&w, plan.cut());
            let post = plan.post;
            let product = Product::new(plan, Arc::new(code));
            let mut y = vec![f32::NAN; m * n];
            let mut scratch = Arena::new(product.scratch(2));
            bytemuck::cast_slice_mut(scratch.bytes_mut()).fill(f32::NAN);
            let given = |x: &[f32], at| Some(Addend { x: x.as_ptr(), at });
            let all = Operands {
                x: x.as_ptr(),
                y: y.as_mut_ptr(),
                add: [given(&bias, At::Nowhere), given(&residual, At::Places(&places))],
            };
            // SAFETY: all is of the sizes that were planned.
            unsafe { product.run(all, scratch.bytes_mut(), &Pool::new(2)) };
            let mut want = vec![0f32; m * n];
            for (i, y) in want.iter_mut().enumerate() {
                let (r, c) = (i / n, i % n);
                let sum: f64 = (0..k)
                    .map(|j| f64::from(x[r * k + j]) * f64::from(full[c * k + j]))
                    .sum();
                *y = (sum + f64::from(bias[c]) + f64::from(residual[c])) as f32;
            }
            // SAFETY: it is one row.
            unsafe { post.apply_rows(want.as_mut_ptr(), 0, 1, want.len()) };
            close(&y, &want, &format!("{m}x{k}x{n}, {share} zeros"));
        }
    }
}

#[test]
fn a_cache_that_lies_is_refused() {
    let conv = Conv::new(shapes().pop().unwrap(), 0.8, 1);
    let plan = Plan::conv(&conv.shape, &conv.zeros(), None).unwrap();
    let code = Code::new(&conv.w, plan.cut());
    let limits = plan.cut().order().limits;
    let parts = || code.parts().iter().map(|p| p.to_vec()).collect::<Vec<_>>();
    let read = |parts: Vec<Vec<u8>>| {
        let parts: Vec<Bytes> = parts.into_iter().map(Bytes::new).collect();
        Code::from_parts(&parts).filter(|code| code.keeps(&limits))
    };
    assert!(read(parts()).is_some());
    // Kind, starts, heads, weights, places; those of weights are any numbers.
    for (part, at) in [(0, 0), (1, 12), (1, 20), (2, 1), (2, 4), (4, 1), (4, 7)] {
        let mut wrong = parts();
        wrong[part][at] ^= 0x40;
        assert!(read(wrong).is_none(), "part {part}, byte {at}");
    }
    for part in 1..5 {
        let mut short = parts();
        let half = short[part].len() / 2 / 64 * 64;
        short[part].truncate(half);
        assert!(read(short).is_none(), "part {part} cut short");
    }
}
