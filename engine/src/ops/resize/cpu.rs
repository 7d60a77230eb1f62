//! Resizing on the CPU, slab by slab: what one place of the first axis that changes is made of.

use secateur_simd::{Simd, Vectorised, dispatch, isa};

use super::coords::{Mode, Taps};
use super::{Plan, pixels, plan, weighable};
use crate::cpu::blocked;
use crate::cpu::copy::steps;
use crate::cpu::moves::{chunks, short, width};
use crate::cpu::{Candidate, Cost, Io, Pool, View, ViewMut};
use crate::ir::{DType, Tensor, count};
use crate::ops::NodeRef;

/// Bytes of the result that one task makes, about.
const TASK: usize = 64 << 10;

pub(super) fn resize(n: &NodeRef) -> Option<Vec<Candidate>> {
    let dtype = n.dtype(0)?;
    let from = n.dims(0)?;
    let op = n.node().op.to_lowercase();
    let rows = kernel(&op, plan(n).ok()??, &from, dtype)?;
    let blocks = || {
        let mut plan = plan(n).ok()??;
        let from = blocked::dims(&from).filter(|_| dtype == DType::F32 && plan.style.extrapolation == 0.0)?;
        let channels = plan.axes.iter().any(|(axis, _)| *axis < 2);
        plan.to = blocked::dims(&plan.to).filter(|_| !channels)?;
        Some(kernel(&format!("{op}.blocks"), plan, &from, dtype)?.blocked(&[0], true))
    };
    Some([rows].into_iter().chain(blocks()).collect())
}

fn kernel(op: &str, plan: Plan, from: &[usize], dtype: DType) -> Option<Candidate> {
    let width = width(dtype)?;
    let bytes = |dims: &[usize]| count(dims)?.checked_mul(width);
    let cost = Cost::bytes(bytes(from)?.checked_add(bytes(&plan.to)?)?);
    if matches!(plan.style.mode, Mode::Nearest(_)) || plan.axes.is_empty() {
        let nearest = NearestKernel::new(&plan, from, dtype)?;
        let name = format!("{op}.{}.nearest", short(dtype));
        let run = move |io: &mut Io| {
            let (pool, x) = (io.pool, io.input(0).bytes());
            nearest.run(pool, x, io.output(0).bytes());
        };
        return Some(Candidate::new(name, cost, run));
    }
    if !weighable(dtype) {
        return None;
    }
    let kind = if plan.style.mode == Mode::Linear {
        "linear"
    } else {
        "cubic"
    };
    let weighted = Weighted::new(plan, from);
    let name = match dtype {
        DType::F32 => format!("{op}.f32.{kind}.{}", isa()),
        _ => format!("{op}.{}.{kind}", short(dtype)),
    };
    let run = move |io: &mut Io| {
        let (pool, x) = (io.pool, io.input(0));
        weighted.run(pool, &x, io.output(0));
    };
    Some(Candidate::new(name, cost, run))
}

/// Picks pixels of any type.
struct NearestKernel {
    /// For each axis but the last, the offset in bytes of each place; `OUTSIDE` where it is outside.
    outer: Vec<Vec<usize>>,
    row: Row,
    /// Bytes of an element.
    width: usize,
    outside: Vec<u8>,
}

const OUTSIDE: usize = usize::MAX;

/// The last axis.
enum Row {
    /// It stays.
    Same(usize),
    /// Each element twice.
    Twice(usize),
    /// By places.
    Picked(Vec<usize>),
}

impl Row {
    fn len(&self) -> usize {
        match self {
            Row::Same(n) => *n,
            Row::Twice(n) => 2 * n,
            Row::Picked(p) => p.len(),
        }
    }
}

impl NearestKernel {
    fn new(plan: &Plan, from: &[usize], dtype: DType) -> Option<NearestKernel> {
        let width = width(dtype)?;
        let steps = steps(from);
        let places = |a: usize| match plan.axes.iter().find(|(axis, _)| *axis == a) {
            None => (0..plan.to[a]).collect(),
            Some((_, t)) => {
                let pixels = t.index.iter().zip(&t.outside);
                pixels
                    .map(|(&i, &out)| if out { OUTSIDE } else { i })
                    .collect::<Vec<_>>()
            }
        };
        let outer = (0..from.len().saturating_sub(1)).map(|a| {
            let by = steps[a] as usize * width;
            let scaled = |i: usize| if i == OUTSIDE { i } else { i * by };
            places(a).into_iter().map(scaled).collect()
        });
        let outer = outer.collect();
        let row = match from.len().checked_sub(1) {
            None => Row::Same(1),
            Some(last) => {
                let picked = places(last);
                let len = from[last];
                match () {
                    _ if picked.iter().copied().eq(0..len) => Row::Same(len),
                    _ if picked.iter().copied().eq((0..2 * len).map(|i| i / 2)) => Row::Twice(len),
                    _ => Row::Picked(picked),
                }
            }
        };
        let outside = Tensor::rounded(dtype, &[], &[plan.style.extrapolation.into()]);
        Some(NearestKernel {
            outer,
            row,
            width,
            outside: outside.map_or(vec![0; width], |t| t.bytes().to_vec()),
        })
    }

    fn run(&self, pool: &Pool, x: &[u8], y: &mut [u8]) {
        let row = self.row.len() * self.width;
        if y.is_empty() {
            return;
        }
        let each = (TASK / row).max(1);
        chunks(pool, y, each * row, &|part, y| {
            let mut last = None;
            for r in 0..y.len() / row {
                let at = self.offset(part * each + r);
                if r > 0 && last == Some(at) {
                    y.copy_within((r - 1) * row..r * row, r * row);
                    continue;
                }
                last = Some(at);
                let y = &mut y[r * row..(r + 1) * row];
                match (at, self.width) {
                    (OUTSIDE, _) => y
                        .chunks_mut(self.width)
                        .for_each(|y| y.copy_from_slice(&self.outside)),
                    (_, 1) => self.fill::<1>(&x[at..], y),
                    (_, 2) => self.fill::<2>(&x[at..], y),
                    (_, 4) => self.fill::<4>(&x[at..], y),
                    (_, 8) => self.fill::<8>(&x[at..], y),
                    _ => self.fill::<16>(&x[at..], y),
                }
            }
        });
    }

    /// Where the source of row `r` starts, in bytes.
    fn offset(&self, mut r: usize) -> usize {
        let mut at = 0;
        for places in self.outer.iter().rev() {
            match places[r % places.len()] {
                OUTSIDE => return OUTSIDE,
                place => at += place,
            }
            r /= places.len();
        }
        at
    }

    fn fill<const N: usize>(&self, x: &[u8], y: &mut [u8]) {
        let (x, y) = (x.as_chunks::<N>().0, y.as_chunks_mut::<N>().0);
        match &self.row {
            Row::Same(n) => y.copy_from_slice(&x[..*n]),
            Row::Twice(_) => {
                for (y, x) in y.as_chunks_mut::<2>().0.iter_mut().zip(x) {
                    *y = [*x, *x];
                }
            }
            Row::Picked(places) => {
                for (y, &i) in y.iter_mut().zip(places) {
                    match i {
                        OUTSIDE => y.copy_from_slice(&self.outside),
                        i => *y = x[i],
                    }
                }
            }
        }
    }
}

/// One axis that changes, within a slab.
struct Pass {
    /// Places of the axes before it, within the slab.
    outer: usize,
    from: usize,
    to: usize,
    /// Elements behind each place.
    inner: usize,
    taps: Taps,
}

/// Weighs pixels, in single precision; double precision for `f64`.
struct Weighted {
    passes: Vec<Pass>,
    /// Elements of the source of a slab, and of the result.
    slab: (usize, usize),
    outside: f32,
}

impl Weighted {
    fn new(plan: Plan, from: &[usize]) -> Weighted {
        let mut dims = from.to_vec();
        let slab = plan.axes.first().map_or(0, |(a, _)| a + 1);
        let mut passes: Vec<Pass> = vec![];
        for (a, taps) in plan.axes {
            passes.push(Pass {
                outer: dims[slab.min(a)..a].iter().product(),
                from: dims[a],
                to: plan.to[a],
                inner: dims[a + 1..].iter().product(),
                taps,
            });
            dims[a] = plan.to[a];
        }
        let first = passes.first().map_or(0, |p| p.from * p.inner);
        Weighted {
            slab: (first, plan.to[slab..].iter().product()),
            passes,
            outside: plan.style.extrapolation,
        }
    }

    fn run(&self, pool: &Pool, x: &View, y: &mut ViewMut) {
        match x.dtype() {
            DType::F32 => self.slabs::<f32>(pool, x.slice(), y.slice()),
            DType::F64 => self.slabs::<f64>(pool, x.slice(), y.slice()),
            dtype => self.converted(pool, dtype, x.bytes(), y),
        }
    }

    /// Types that are not computed in, by way of `f64`.
    fn converted(&self, pool: &Pool, dtype: DType, x: &[u8], y: &mut ViewMut) {
        let wide = crate::ops::cast::widened(dtype, x);
        let mut result = vec![0f64; y.len()];
        self.slabs::<f64>(pool, &wide, &mut result);
        if let Some(t) = pixels(dtype, y.dims(), result) {
            y.bytes().copy_from_slice(t.bytes());
        }
    }

    fn slabs<T: Pixel>(&self, pool: &Pool, x: &[T], y: &mut [T]) {
        let Some((first, rest)) = self.passes.split_first() else {
            return;
        };
        if y.is_empty() {
            return;
        }
        let each = (TASK / (self.slab.1 * size_of::<T>())).max(1);
        chunks(pool, y, each * self.slab.1, &|part, y| {
            let (mut a, mut b) = (vec![], vec![]);
            for (r, y) in y.chunks_mut(self.slab.1).enumerate() {
                let (outer, j) = ((part * each + r) / first.to, (part * each + r) % first.to);
                let x = &x[outer * self.slab.0..][..self.slab.0];
                if rest.is_empty() {
                    self.line(first, j, x, y);
                    continue;
                }
                a.resize(first.inner, T::default());
                self.line(first, j, x, &mut a);
                for (i, pass) in rest.iter().enumerate() {
                    if i + 1 == rest.len() {
                        self.pass(pass, &a, y);
                    } else {
                        b.resize(pass.outer * pass.to * pass.inner, T::default());
                        self.pass(pass, &a, &mut b);
                        std::mem::swap(&mut a, &mut b);
                    }
                }
            }
        });
    }

    fn pass<T: Pixel>(&self, p: &Pass, x: &[T], y: &mut [T]) {
        for (x, y) in x.chunks(p.from * p.inner).zip(y.chunks_mut(p.to * p.inner)) {
            match p.inner {
                1 => {
                    dispatch(Across { taps: &p.taps, x, y });
                    let outside = p.taps.outside.iter().zip(y).filter(|(out, _)| **out);
                    outside.for_each(|(_, y)| *y = T::of(self.outside));
                }
                inner => {
                    for (j, y) in y.chunks_mut(inner).enumerate() {
                        self.line(p, j, x, y);
                    }
                }
            }
        }
    }

    /// Place `j` of an axis, with all that is behind it.
    fn line<T: Pixel>(&self, p: &Pass, j: usize, x: &[T], y: &mut [T]) {
        if p.taps.outside[j] {
            return y.fill(T::of(self.outside));
        }
        let taps = j * p.taps.taps..(j + 1) * p.taps.taps;
        dispatch(Along {
            index: &p.taps.index[taps.clone()],
            weight: &p.taps.weight[taps],
            x,
            y,
        });
    }
}

/// A type that is computed in.
trait Pixel: Copy + Default + Send + Sync + std::ops::Mul<Output = Self> + std::ops::Add<Output = Self> {
    fn of(x: f32) -> Self;
}

impl Pixel for f32 {
    #[inline(always)]
    fn of(x: f32) -> f32 {
        x
    }
}

impl Pixel for f64 {
    #[inline(always)]
    fn of(x: f32) -> f64 {
        x.into()
    }
}

/// `y = sum of weight * line`, for lines of `x` as long as `y`.
struct Along<'a, T> {
    index: &'a [usize],
    weight: &'a [f32],
    x: &'a [T],
    y: &'a mut [T],
}

impl<T: Pixel> Vectorised for Along<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let n = self.y.len();
        let line = |t: usize| (&self.x[self.index[t] * n..][..n], T::of(self.weight[t]));
        match self.index.len() {
            2 => {
                let ((a, u), (b, v)) = (line(0), line(1));
                for ((y, &a), &b) in self.y.iter_mut().zip(a).zip(b) {
                    *y = u * a + v * b;
                }
            }
            taps => {
                let (a, u) = line(0);
                self.y.iter_mut().zip(a).for_each(|(y, &a)| *y = u * a);
                for t in 1..taps {
                    let (a, u) = line(t);
                    self.y.iter_mut().zip(a).for_each(|(y, &a)| *y = *y + u * a);
                }
            }
        }
    }
}

/// `y[j] = sum of weight[j] * x[index[j]]`.
struct Across<'a, T> {
    taps: &'a Taps,
    x: &'a [T],
    y: &'a mut [T],
}

impl<T: Pixel> Vectorised for Across<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let n = self.taps.taps;
        let x = self.x;
        if n == 2 {
            let pairs = self.taps.index.as_chunks::<2>().0.iter();
            let weights = self.taps.weight.as_chunks::<2>().0;
            for ((y, &[i, j]), &[u, v]) in self.y.iter_mut().zip(pairs).zip(weights) {
                *y = T::of(u) * x[i] + T::of(v) * x[j];
            }
            return;
        }
        let all = self.taps.index.chunks(n).zip(self.taps.weight.chunks(n));
        for (y, (index, weight)) in self.y.iter_mut().zip(all) {
            let products = index.iter().zip(weight).map(|(&i, &w)| T::of(w) * x[i]);
            *y = products.fold(T::default(), |sum, p| sum + p);
        }
    }
}
