//! Normalisation of rows to mean 0 and variance 1, or to mean square 1.

use std::borrow::Cow;

use secateur_simd::{Simd, Vectorised, dispatch};

use super::act::ActFn;
use super::arg::Along;
use super::blocks::{self, Block};
use super::elementwise::{Ptr, raw_source, raw_target, source, target};
use super::rowwise::{RowFn, map_rows, update_rows};
use super::{Io, Kernel};
use crate::ir::DType;
use crate::ops::OpError;

/// A row with its mean subtracted (if `centred`), divided by its deviation, times `scale`, plus `bias`.
#[derive(Clone, Copy)]
struct Layer<'a> {
    /// What is added to the variance.
    epsilon: f32,
    /// Whether the mean is subtracted.
    centred: bool,
    /// As long as a row.
    scale: &'a [f32],
    /// As long as a row, or left out.
    bias: Option<&'a [f32]>,
    /// Where the mean and the reciprocal of the deviation of each row go, if somebody wants them.
    seen: Option<&'a (dyn Fn(usize, f64, f64) + Sync)>,
}

impl RowFn for Layer<'_> {
    #[inline(always)]
    unsafe fn row<S: Simd>(self, s: S, row: usize, from: *const f32, to: *mut f32, n: usize) {
        // SAFETY: as the caller says.
        unsafe {
            let (mean, inverse) = moments(s, from, n, self.centred, self.epsilon);
            if let Some(seen) = self.seen {
                seen(row, mean, inverse);
            }
            let (mean, inverse) = (s.splat(mean as f32), s.splat(inverse as f32));
            let (scale, bias) = (self.scale, self.bias);
            assert!(scale.len() == n && bias.is_none_or(|b| b.len() == n));
            for i in (0..n).step_by(S::LANES) {
                let m = S::LANES.min(n - i);
                let x = s.sub(load(s, from.add(i), m), mean);
                let (x, w) = (s.mul(x, inverse), load(s, scale.as_ptr().add(i), m));
                let y = match bias {
                    Some(b) => s.fma(x, w, load(s, b.as_ptr().add(i), m)),
                    None => s.mul(x, w),
                };
                store(s, to.add(i), m, y);
            }
        }
    }
}

/// # Safety
///
/// `n` floats are readable at `p`.
#[inline(always)]
pub(super) unsafe fn load<S: Simd>(s: S, p: *const f32, n: usize) -> S::F32 {
    // SAFETY: as the caller says.
    unsafe {
        if n == S::LANES {
            s.load(p)
        } else {
            s.load_first(p, n)
        }
    }
}

/// # Safety
///
/// `n` floats are writable at `p`.
#[inline(always)]
pub(super) unsafe fn store<S: Simd>(s: S, p: *mut f32, n: usize, v: S::F32) {
    // SAFETY: as the caller says.
    unsafe {
        if n == S::LANES {
            s.store(p, v)
        } else {
            s.store_first(p, n, v)
        }
    }
}

/// The mean of `n` floats (0 unless `centred`), and the reciprocal of the root of their variance plus `epsilon`.
///
/// # Safety
///
/// They are readable.
#[inline(always)]
pub(super) unsafe fn moments<S: Simd>(
    s: S,
    x: *const f32,
    n: usize,
    centred: bool,
    epsilon: f32,
) -> (f64, f64) {
    let of = n as f64;
    // SAFETY: as the caller says.
    unsafe {
        let mean = match centred {
            true => total(s, x, n, Itself) / of,
            false => 0.0,
        };
        let squares = total(s, x, n, SquareFrom(mean as f32));
        // What rounding the mean to a float has added.
        let rounded = mean - f64::from(mean as f32);
        let variance = squares / of - rounded * rounded;
        (mean, 1.0 / (variance + f64::from(epsilon)).sqrt())
    }
}

#[derive(Clone, Copy)]
struct Itself;
impl ActFn for Itself {
    #[inline(always)]
    fn apply<S: Simd>(self, _: S, x: S::F32) -> S::F32 {
        x
    }
}

/// The square of the distance from a number.
#[derive(Clone, Copy)]
struct SquareFrom(f32);
impl ActFn for SquareFrom {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        let d = s.sub(x, s.splat(self.0));
        s.mul(d, d)
    }
}

/// The sum of `f(x)`, in which at most 1024 floats are added up before their sum joins a greater one.
///
/// # Safety
///
/// `n` floats are readable at `x`.
#[inline(always)]
unsafe fn total<S: Simd>(s: S, x: *const f32, n: usize, f: impl ActFn) -> f64 {
    const FEW: usize = 1024;
    let mut all = 0.0;
    for start in (0..n).step_by(FEW) {
        let end = n.min(start + FEW);
        let mut acc = [s.splat(0.0); 4];
        let mut i = start;
        // SAFETY: as the caller says.
        unsafe {
            while i + 4 * S::LANES <= end {
                for (k, acc) in acc.iter_mut().enumerate() {
                    *acc = s.add(*acc, f.apply(s, s.load(x.add(i + k * S::LANES))));
                }
                i += 4 * S::LANES;
            }
            while i + S::LANES <= end {
                acc[0] = s.add(acc[0], f.apply(s, s.load(x.add(i))));
                i += S::LANES;
            }
            let sum = s.add(s.add(acc[0], acc[1]), s.add(acc[2], acc[3]));
            all += f64::from(s.sum(sum));
            if i < end {
                let mut rest = [0.0f32; 64];
                assert!(S::LANES <= rest.len());
                s.store(rest.as_mut_ptr(), f.apply(s, s.load_first(x.add(i), end - i)));
                all += f64::from(rest[..end - i].iter().sum::<f32>());
            }
        }
    }
    all
}

/// Normalises groups of channels, each of `area` floats: a group is `channels` of them. `affine` tells the factor and the
/// summand of a channel, the channels of all groups counted through. Input 0 may be overwritten in place.
fn groups(
    io: &mut Io,
    [groups, channels, area]: [usize; 3],
    epsilon: f32,
    affine: &(dyn Fn(usize) -> (f32, f32) + Sync),
) {
    let each = channels * area;
    let x = source::<f32>(io, 0, groups * each);
    let out = target::<f32>(io, 0, groups * each);
    io.pool.run(groups, &|g| {
        dispatch(Group {
            // SAFETY: the group is within both, whose sizes were checked; no other task has it.
            from: unsafe { x.get().add(g * each) },
            // SAFETY: as above.
            to: unsafe { out.get().add(g * each) },
            size: [channels, area],
            first: g * channels,
            epsilon,
            affine,
        });
    });
}

struct Group<'a> {
    from: *const f32,
    to: *mut f32,
    size: [usize; 2],
    first: usize,
    epsilon: f32,
    affine: &'a (dyn Fn(usize) -> (f32, f32) + Sync),
}

impl Vectorised for Group<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let [channels, area] = self.size;
        // SAFETY: whoever made it says that the group is readable and writable.
        unsafe {
            let (mean, inverse) = moments(s, self.from, channels * area, true, self.epsilon);
            for c in 0..channels {
                let (scale, bias) = (self.affine)(self.first + c);
                let (mean, bias) = (s.splat(mean as f32), s.splat(bias));
                let factor = s.splat((inverse * f64::from(scale)) as f32);
                for i in (0..area).step_by(S::LANES) {
                    let m = S::LANES.min(area - i);
                    let at = c * area + i;
                    let x = s.sub(load(s, self.from.add(at), m), mean);
                    store(s, self.to.add(at), m, s.fma(x, factor, bias));
                }
            }
        }
    }
}

/// Normalisation of rows as a kernel: of input 0, with the scale input 1 and perhaps the bias input 2. Outputs 1 and 2
/// are the mean and the reciprocal of the deviation, if somebody wants them.
pub struct LayerKernel {
    /// The element type.
    pub dtype: DType,
    /// The number of rows.
    pub rows: usize,
    /// What is added to the variance.
    pub epsilon: f32,
    /// Whether the mean is subtracted.
    pub centred: bool,
    /// For each element of a row, the element of the scale that it is multiplied by.
    pub scale: Vec<usize>,
    /// The same for the bias; `None` where there is none.
    pub bias: Option<Vec<usize>>,
}

impl Kernel for LayerKernel {
    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        let notes = [1, 2].map(|i| Note::of(io, i, self.rows));
        let seen = |row: usize, mean: f64, inverse: f64| {
            for (note, x) in notes.iter().zip([mean, inverse]) {
                note.iter().for_each(|n| n.put(row, x));
            }
        };
        if self.dtype == DType::F32 {
            let scale = spread(io, 1, &self.scale);
            let bias = self.bias.as_ref().map(|b| spread(io, 2, b));
            let layer = Layer {
                epsilon: self.epsilon,
                centred: self.centred,
                scale: &scale,
                bias: bias.as_deref(),
                seen: notes.iter().any(Option::is_some).then_some(&seen),
            };
            map_rows(io, self.rows, scale.len(), layer);
        } else if let Some(block) = blocks::doubles(self.dtype) {
            self.doubles(io, block, &seen);
        }
        Ok(())
    }
}

impl LayerKernel {
    fn doubles(&self, io: &mut Io, block: Block<f64>, seen: &(dyn Fn(usize, f64, f64) + Sync)) {
        let scale = doubles_of(io, 1, &self.scale);
        let bias = self.bias.as_ref().map(|b| doubles_of(io, 2, b));
        let along = Along {
            outer: self.rows,
            size: scale.len(),
            inner: 1,
        };
        update_rows(io, along, block, &|row, x| {
            let (mean, inverse) = doubles_moments(x, self.centred, self.epsilon.into());
            seen(row, mean, inverse);
            for (i, x) in x.iter_mut().enumerate() {
                *x = (*x - mean) * inverse * scale[i] + bias.as_ref().map_or(0.0, |b| b[i]);
            }
        });
    }
}

/// The mean (0 unless `centred`), and the reciprocal of the root of the variance plus `epsilon`.
pub fn doubles_moments(x: &[f64], centred: bool, epsilon: f64) -> (f64, f64) {
    let n = x.len() as f64;
    let mean = if centred { x.iter().sum::<f64>() / n } else { 0.0 };
    let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

/// The floats of input `i` in the order of `index`, copied only where that is another.
fn spread<'a>(io: &Io<'a>, i: usize, index: &[usize]) -> Cow<'a, [f32]> {
    let all = io.input(i).slice::<f32>();
    match index.iter().enumerate().all(|(i, &j)| i == j) && index.len() == all.len() {
        true => Cow::Borrowed(all),
        false => Cow::Owned(index.iter().map(|&j| all[j]).collect()),
    }
}

/// The numbers of input `i` in the order of `index`.
fn doubles_of(io: &Io, i: usize, index: &[usize]) -> Vec<f64> {
    let view = io.input(i);
    let Some(block) = blocks::doubles(view.dtype()) else {
        return vec![f64::NAN; index.len()];
    };
    let from = raw_source(io, i, view.len(), block.bytes());
    let mut all = vec![0.0; view.len()];
    // SAFETY: these are all elements of the input.
    unsafe { block.fetch(from, 0, 1, &mut all) };
    index.iter().map(|&j| all[j]).collect()
}

/// An output that has one number for each row.
struct Note {
    to: Ptr<u8>,
    block: Block<f64>,
    rows: usize,
}

impl Note {
    fn of(io: &mut Io, i: usize, rows: usize) -> Option<Note> {
        let block = blocks::doubles(io.outputs.get(i)?.as_ref()?.dtype())?;
        let to = raw_target(io, i, rows, block.bytes());
        Some(Note { to, block, rows })
    }

    fn put(&self, row: usize, x: f64) {
        assert!(row < self.rows, "row");
        // SAFETY: within the output, and each row is handled by one task.
        unsafe { self.block.put(&[x], self.to, row) };
    }
}

/// Normalisation of groups of channels as a kernel, with a scale and a bias (inputs 1 and 2).
pub struct GroupKernel {
    /// The element type.
    pub dtype: DType,
    /// Groups, channels of a group, elements of a channel.
    pub size: [usize; 3],
    /// What is added to the variance.
    pub epsilon: f32,
    /// For each channel of all groups, the element of the scale and the bias that belongs to it.
    pub affine: Vec<usize>,
}

impl Kernel for GroupKernel {
    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        let affine = [1, 2].map(|i| doubles_of(io, i, &self.affine));
        let [outer, channels, area] = self.size;
        if self.dtype == DType::F32 {
            let affine = |c: usize| (affine[0][c] as f32, affine[1][c] as f32);
            groups(io, self.size, self.epsilon, &affine);
            return Ok(());
        }
        let Some(block) = blocks::doubles(self.dtype) else {
            return Ok(());
        };
        let along = Along {
            outer,
            size: channels * area,
            inner: 1,
        };
        update_rows(io, along, block, &|g, x| {
            let (mean, inverse) = doubles_moments(x, true, self.epsilon.into());
            for (i, x) in x.iter_mut().enumerate() {
                let c = g * channels + i / area;
                *x = (*x - mean) * inverse * affine[0][c] + affine[1][c];
            }
        });
        Ok(())
    }
}
