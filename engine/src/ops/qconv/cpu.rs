//! Kernels of convolutions of bytes.

use std::sync::Arc;

use secateur_simd::dispatch;

use super::{INTEGER, LINEAR, Places, factor, of_channels};
use crate::cpu::elementwise::Inside;
use crate::cpu::int8::{Matrix, Multiply, Products, Requantise, pack, packed_len};
use crate::cpu::moves::{chunks, short};
use crate::cpu::window::Window;
use crate::cpu::{Candidate, Cost, Io, Kernel, Order, Pool};
use crate::ir::DType;
use crate::ops::conv::{Sizes, sizes};
use crate::ops::qmatmul::byte;
use crate::ops::{NodeRef, OpError};

/// A convolution of bytes.
struct Bytes {
    at: Places,
    sizes: Sizes,
    /// Image and weights have a sign.
    signed: [bool; 2],
    /// Image and weights have zero points.
    zeros: [bool; 2],
    bias: bool,
    packed: Option<Arc<Vec<u8>>>,
}

/// What a run reads beside image and weights.
struct Params {
    zero: i32,
    zeros: Vec<i32>,
    bias: Vec<i32>,
}

fn wide(signed: bool, b: u8) -> i32 {
    if signed { i32::from(b as i8) } else { b.into() }
}

impl Bytes {
    fn new(n: &NodeRef, at: Places) -> Option<Bytes> {
        let (x, w, y) = (n.dims(0)?, n.dims(at.w)?, n.out_dims(0)?);
        let sizes = sizes(n, at.w, &x, &w).ok()?;
        if sizes.window.is_wide()
            || y[2..] != sizes.window.output
            || !byte(n.dtype(0)?)
            || !byte(n.dtype(at.w)?)
        {
            return None;
        }
        packed_len(sizes.inputs.checked_mul(sizes.window.taps())?, sizes.outputs)?
            .checked_mul(sizes.groups)?;
        let mut made = Bytes {
            at,
            signed: [0, at.w].map(|i| n.dtype(i) == Some(DType::I8)),
            zeros: at.zeros.map(|i| n.has(i)),
            bias: n.has(at.bias),
            sizes,
            packed: None,
        };
        if !made.direct() {
            made.packed = n.konst(at.w).map(|t| {
                let order = Order {
                    name: format!("int8 conv {} {}", made.sizes.groups, made.signed[1]),
                    parts: vec![made.packed_bytes()],
                    ..Order::default()
                };
                n.packed(at.w, &order, || {
                    let mut all = vec![0; made.packed_bytes()];
                    made.pack(t.bytes(), &mut all, &Pool::new(1));
                    all
                })
            });
        }
        Some(made)
    }

    /// Whether a group has one output channel, for which a panel would be a waste.
    fn direct(&self) -> bool {
        self.sizes.outputs == 1
    }

    fn depth(&self) -> usize {
        self.sizes.inputs * self.sizes.window.taps()
    }

    fn packed_bytes(&self) -> usize {
        packed_len(self.depth(), self.sizes.outputs).unwrap_or(0) * self.sizes.groups
    }

    fn pack(&self, w: &[u8], out: &mut [u8], pool: &Pool) {
        let (depth, len) = (self.depth(), self.packed_bytes() / self.sizes.groups);
        for g in 0..self.sizes.groups {
            let matrix = Matrix {
                bytes: w,
                start: g * self.sizes.outputs * depth,
                row: 1,
                col: depth,
                signed: self.signed[1],
            };
            pack(
                matrix,
                depth,
                self.sizes.outputs,
                &mut out[g * len..][..len],
                pool,
            );
        }
    }

    fn scratch(&self) -> usize {
        match self.packed.is_some() || self.direct() {
            true => 0,
            false => self.packed_bytes(),
        }
    }

    fn reads(&self, i: usize) -> bool {
        i != self.at.w || self.packed.is_none()
    }

    fn cost(&self) -> Cost {
        let s = &self.sizes;
        let of = |x: &[usize]| x.iter().map(|&x| x as f64).product::<f64>();
        let channels = of(&[s.images, s.groups, s.outputs, s.window.positions()]);
        Cost {
            flops: 2.0 * channels * self.depth() as f64,
            bytes: of(&[s.images, s.groups, s.inputs, s.window.plane()]) + channels,
            efficiency: if self.direct() { 0.1 } else { 0.5 },
        }
    }

    fn params(&self, io: &Io) -> Result<Params, OpError> {
        let channels = self.sizes.groups * self.sizes.outputs;
        let zero = |i: usize| {
            let bytes: &[u8] = if self.zeros[i] {
                io.input(self.at.zeros[i]).bytes()
            } else {
                &[0]
            };
            bytes.iter().map(|&b| wide(self.signed[i], b)).collect::<Vec<_>>()
        };
        let (x, zeros) = (zero(0), zero(1));
        of_channels(x.len(), 1)?;
        of_channels(zeros.len(), channels)?;
        let bias = match self.bias {
            true => io.input(self.at.bias).slice::<i32>().to_vec(),
            false => vec![0; channels],
        };
        Ok(Params {
            zero: x[0],
            zeros,
            bias,
        })
    }

    /// Convolves; `finish` makes results of sums of one output channel for each, from that number on, or of one channel.
    fn run<T: Copy + Default + Send>(
        &self,
        io: &mut Io,
        finish: impl Fn(usize, bool, &[i32], &mut [T]) + Sync,
        out: impl FnOnce(&mut Io) -> *mut T,
    ) -> Result<(), OpError> {
        let (params, s, pool) = (self.params(io)?, &self.sizes, io.pool);
        let (x, len) = (io.input(0).bytes(), io.output(0).len());
        let y = out(io);
        // SAFETY: the output has that many elements of this type, and nobody else has them while the kernel runs.
        let y = unsafe { std::slice::from_raw_parts_mut(y, len) };
        if self.direct() {
            let w = io.input(self.at.w).bytes();
            self.directly(x, w, &params, y, pool, &finish);
            return Ok(());
        }
        if self.packed.is_none() {
            self.pack(io.input(self.at.w).bytes(), io.scratch, pool);
        }
        let packed: &[u8] = match &self.packed {
            Some(p) => p,
            None => io.scratch,
        };
        let (matrix, positions) = (self.packed_bytes() / s.groups, s.window.positions());
        let starts = (0..s.images * s.groups).map(|p| [p % s.groups * matrix, p * s.outputs * positions]);
        let products = Products {
            m: positions,
            n: s.outputs,
            k: self.depth(),
            starts: starts.collect(),
            row: 1,
            col: positions,
        };
        let by = By {
            bytes: self,
            x,
            params: &params,
            finish,
            out: std::marker::PhantomData::<fn() -> T>,
        };
        products.run(packed, &by, y, pool);
        Ok(())
    }

    /// Group by group, element of the window by element.
    fn directly<T: Copy + Default + Send>(
        &self,
        x: &[u8],
        w: &[u8],
        params: &Params,
        y: &mut [T],
        pool: &Pool,
        finish: &(impl Fn(usize, bool, &[i32], &mut [T]) + Sync),
    ) {
        let (s, depth) = (&self.sizes, self.depth());
        let (window, channels) = (&s.window, s.groups);
        let (plane, taps) = (window.plane(), window.taps());
        chunks(pool, y, window.positions(), &|channel, y| {
            let o = channel % channels;
            let zero = params.zeros[o % params.zeros.len()];
            let mut sums = vec![params.bias[o]; y.len()];
            for c in 0..s.inputs {
                let image = &x[(channel * s.inputs + c) * plane..][..plane];
                for tap in 0..taps {
                    let weight = wide(self.signed[1], w[o * depth + c * taps + tap]) - zero;
                    Tap {
                        window,
                        tap,
                        weight,
                        zero: params.zero,
                    }
                    .add(self.signed[0], image, &mut sums);
                }
            }
            finish(o, true, &sums, y);
        });
    }
}

/// One element of a window with its weight.
struct Tap<'a> {
    window: &'a Window,
    tap: usize,
    weight: i32,
    zero: i32,
}

impl Tap<'_> {
    /// Adds its share to `sums`, one for each position.
    fn add(&self, signed: bool, image: &[u8], sums: &mut [i32]) {
        let w = self.window;
        let Some(last) = w.size.len().checked_sub(1) else {
            return;
        };
        let outer = Window {
            input: w.input[..last].to_vec(),
            output: w.output[..last].to_vec(),
            size: w.size[..last].to_vec(),
            strides: w.strides[..last].to_vec(),
            dilations: w.dilations[..last].to_vec(),
            pads: w.pads[..last].to_vec(),
        };
        let (across, step, wide_in) = (w.output[last], w.strides[last], w.input[last]);
        let ahead = self.tap % w.size[last] * w.dilations[last];
        // Position `p` is over `p * step + ahead - pad`.
        let first = w.pads[last].saturating_sub(ahead).div_ceil(step).min(across);
        let end = (wide_in + w.pads[last])
            .saturating_sub(ahead)
            .div_ceil(step)
            .min(across);
        let (weight, zero) = (self.weight, self.zero);
        for (row, sums) in sums.chunks_exact_mut(across.max(1)).enumerate() {
            let Some(under) = outer.under(row, self.tap / w.size[last]) else {
                continue;
            };
            if first >= end {
                continue;
            }
            let from = &image[under * wide_in + first * step + ahead - w.pads[last]..];
            let sums = &mut sums[first..end];
            dispatch(Inside(
                #[inline(always)]
                || match (signed, step) {
                    (false, 1) => sums
                        .iter_mut()
                        .zip(from)
                        .for_each(|(s, &x)| *s += weight * (i32::from(x) - zero)),
                    (true, 1) => sums
                        .iter_mut()
                        .zip(from)
                        .for_each(|(s, &x)| *s += weight * (i32::from(x as i8) - zero)),
                    _ => sums
                        .iter_mut()
                        .zip(from.iter().step_by(step))
                        .for_each(|(s, &x)| *s += weight * (wide(signed, x) - zero)),
                },
            ));
        }
    }
}

struct By<'a, F, T> {
    bytes: &'a Bytes,
    x: &'a [u8],
    params: &'a Params,
    finish: F,
    out: std::marker::PhantomData<fn() -> T>,
}

impl<F: Fn(usize, bool, &[i32], &mut [T]) + Sync, T: Copy + Default + Send> Multiply for By<'_, F, T> {
    type Out = T;

    fn left(&self, product: usize, row: usize, to: &mut [i16]) {
        let (s, signed) = (&self.bytes.sizes, self.bytes.signed[0]);
        let (plane, taps) = (s.window.plane(), s.window.taps());
        let image = &self.x[product * s.inputs * plane..][..s.inputs * plane];
        let zero = self.params.zero;
        for tap in 0..taps {
            let each = to.iter_mut().skip(tap).step_by(taps);
            match s.window.under(row, tap) {
                Some(under) => {
                    let from = image.iter().skip(under).step_by(plane);
                    each.zip(from)
                        .for_each(|(y, &x)| *y = (wide(signed, x) - zero) as i16);
                }
                // The border is as much as the zero point.
                None => each.for_each(|y| *y = 0),
            }
        }
    }

    fn zero(&self, product: usize, col: usize) -> i32 {
        let s = &self.bytes.sizes;
        let o = product % s.groups * s.outputs + col;
        let zero = self.params.zeros[o % self.params.zeros.len()];
        if self.bytes.signed[1] { zero } else { zero - 128 }
    }

    fn finish(&self, product: usize, _: usize, col: usize, sums: &[i32], to: &mut [T]) {
        let s = &self.bytes.sizes;
        let o = product % s.groups * s.outputs + col;
        let mut all = [0i32; crate::cpu::int8::WIDE];
        let all = &mut all[..sums.len()];
        for ((a, &sum), &bias) in all.iter_mut().zip(sums).zip(&self.params.bias[o..]) {
            *a = sum.wrapping_add(bias);
        }
        (self.finish)(o, false, all, to);
    }
}

fn name(n: &NodeRef, at: Places, bytes: &Bytes) -> String {
    let of = |i| n.dtype(i).map_or(String::new(), short);
    let variant = if bytes.direct() { ".direct" } else { "" };
    let op = n.node().op.to_lowercase();
    format!("{op}.{}.{}.{}{variant}", of(0), of(at.w), secateur_simd::isa())
}

struct Integer(Bytes);

impl Kernel for Integer {
    fn scratch(&self, _: usize) -> usize {
        self.0.scratch()
    }

    fn reads(&self, i: usize) -> bool {
        self.0.reads(i)
    }

    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        let copy = |_: usize, _: bool, sums: &[i32], to: &mut [i32]| to.copy_from_slice(sums);
        self.0.run(io, copy, |io| io.output(0).ptr())
    }
}

pub(super) fn integer(n: &NodeRef) -> Option<Candidate> {
    let bytes = Bytes::new(n, INTEGER)?;
    Some(Candidate::new(
        name(n, INTEGER, &bytes),
        bytes.cost(),
        Integer(bytes),
    ))
}

struct Linear {
    bytes: Bytes,
    signed: bool,
}

impl Kernel for Linear {
    fn scratch(&self, _: usize) -> usize {
        self.bytes.scratch()
    }

    fn reads(&self, i: usize) -> bool {
        self.bytes.reads(i)
    }

    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        let scale = |i: usize| io.input(i).slice::<f32>();
        let (&[sx, ..], sw, &[sy, ..], &[zero, ..]) = (scale(1), scale(4), scale(6), io.input(7).bytes())
        else {
            return Err(OpError::new("a tensor without a scale"));
        };
        of_channels(sw.len(), self.bytes.sizes.groups * self.bytes.sizes.outputs)?;
        let factors: Vec<_> = sw.iter().map(|&w| factor(sx, w, sy)).collect();
        let requantise = Requantise {
            zero: wide(self.signed, zero),
            signed: self.signed,
        };
        let finish = |o: usize, one: bool, sums: &[i32], to: &mut [u8]| {
            let factors = match (factors.len(), one) {
                (1, _) => &factors[..],
                (_, true) => &factors[o..=o],
                (_, false) => &factors[o..o + sums.len()],
            };
            requantise.row(sums, factors, to);
        };
        self.bytes.run(io, finish, |io| io.output(0).start())
    }
}

pub(super) fn linear(n: &NodeRef) -> Option<Candidate> {
    if n.dtype(1)? != DType::F32 || n.dtype(4)? != DType::F32 || n.dtype(6)? != DType::F32 {
        return None;
    }
    let kernel = Linear {
        bytes: Bytes::new(n, LINEAR)?,
        signed: n.dtype(7)? == DType::I8,
    };
    let name = name(n, LINEAR, &kernel.bytes);
    Some(Candidate::new(name, kernel.bytes.cost(), kernel))
}
