//! Reductions: folding a tensor along some of its axes.

mod cut;
mod folds;

use std::marker::PhantomData;

use secateur_simd::{Simd, Vectorised, dispatch};

use super::blocks::Block;
use super::elementwise::{Ptr, raw_source, raw_target, source, target};
use super::{Io, Kernel};
pub use cut::Cut;
use cut::WIDE;
pub use folds::*;

/// Elements that are added up before their sum joins a greater one.
const FEW: usize = 1024;

/// Turns the fold of some elements, of which `.1` is the number and `.2` the shift, into the result.
pub type Finish = fn(f64, usize, f64) -> f64;

/// The fold of `x`.
pub fn fold_run<J: Join>(x: &[f32]) -> f32 {
    struct Run<'a, J>(&'a [f32], PhantomData<J>);
    impl<J: Join> Vectorised for Run<'_, J> {
        type Out = f64;
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> f64 {
            // SAFETY: the elements are those of a slice.
            unsafe { run::<S, J, Itself>(s, self.0.as_ptr(), self.0.len(), 0.0) }
        }
    }
    dispatch(Run(x, PhantomData::<J>)) as f32
}

/// Folds floats.
pub fn floats<J: Join, T: Term>(cut: Cut, finish: Finish) -> Box<dyn Kernel> {
    Box::new(move |io: &mut Io| {
        let x = source::<f32>(io, 0, cut.len());
        let out = target::<f32>(io, 0, cut.outputs());
        io.pool.run(cut.tasks(), &|task| {
            dispatch(Floats {
                cut: &cut,
                task,
                x,
                out,
                finish,
                fold: PhantomData::<(J, T)>,
            });
        });
    })
}

struct Floats<'a, J, T> {
    cut: &'a Cut,
    task: usize,
    x: Ptr<f32>,
    out: Ptr<f32>,
    finish: Finish,
    fold: PhantomData<(J, T)>,
}

impl<J: Join, T: Term> Vectorised for Floats<'_, J, T> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let each = self.cut.each();
        self.cut.task(
            self.task,
            #[inline(always)]
            // SAFETY: the pieces are within the tensors whose sizes were checked; no two tasks share one.
            |to, from, columns| unsafe {
                let (x, out) = (self.x.get().add(from), self.out.get().add(to));
                let finish = |sum: f64, out: *mut f32| {
                    let shift = if T::SHIFTED { shift_of(*out) } else { 0.0 };
                    *out = (self.finish)(sum, each, shift.into()) as f32;
                };
                match self.cut.columns {
                    1 => finish(one::<S, J, T>(s, self.cut, x, out), out),
                    _ => {
                        let mut c = 0;
                        while c < columns {
                            c += vectors::<S, J, T>(s, self.cut, x.add(c), out.add(c), columns - c, &finish);
                        }
                    }
                }
            },
        );
    }
}

/// Where to measure from, so that nothing is lost by infinity minus infinity.
#[inline(always)]
fn shift_of(greatest: f32) -> f32 {
    if greatest.is_finite() { greatest } else { 0.0 }
}

/// The fold of all runs of one result.
///
/// # Safety
///
/// The runs are readable from `x` on, and `out` is readable.
#[inline(always)]
unsafe fn one<S: Simd, J: Join, T: Term>(s: S, cut: &Cut, x: *const f32, out: *const f32) -> f64 {
    // SAFETY: as the caller says.
    let shift = if T::SHIFTED {
        // SAFETY: as the caller says.
        shift_of(unsafe { *out })
    } else {
        0.0
    };
    if cut.run < 8 {
        // SAFETY: as the caller says.
        return unsafe { short::<J, T>(cut, x, shift) };
    }
    let mut total = J::START;
    cut.rows(
        #[inline(always)]
        |at| {
            for k in (0..cut.run).step_by(FEW) {
                // SAFETY: as the caller says.
                let part = unsafe { run::<S, J, T>(s, x.add(at + k), FEW.min(cut.run - k), shift) };
                total = J::real(total, part);
            }
        },
    );
    total
}

/// The same for runs of a few elements.
///
/// # Safety
///
/// The runs are readable from `x` on.
#[inline(always)]
unsafe fn short<J: Join, T: Term>(cut: &Cut, x: *const f32, shift: f32) -> f64 {
    let mut total = J::START;
    cut.rows(
        #[inline(always)]
        |at| {
            for i in at..at + cut.run {
                // SAFETY: as the caller says.
                let x = unsafe { *x.add(i) };
                total = J::real(total, T::real(x.into(), shift.into()));
            }
        },
    );
    total
}

/// The fold of `n` neighbours.
///
/// # Safety
///
/// They are readable.
#[inline(always)]
unsafe fn run<S: Simd, J: Join, T: Term>(s: S, x: *const f32, n: usize, shift: f32) -> f64 {
    let start = s.splat(J::START as f32);
    let shift = s.splat(shift);
    let mut acc = [start; 4];
    let mut i = 0;
    // SAFETY: as the caller says.
    unsafe {
        while i + 4 * S::LANES <= n {
            for (k, acc) in acc.iter_mut().enumerate() {
                *acc = J::join(s, *acc, T::term(s, s.load(x.add(i + k * S::LANES)), shift));
            }
            i += 4 * S::LANES;
        }
        while i + S::LANES <= n {
            acc[0] = J::join(s, acc[0], T::term(s, s.load(x.add(i)), shift));
            i += S::LANES;
        }
    }
    if i < n {
        // Elements that change nothing fill the last vector.
        let idle = if J::START == 0.0 { T::ZERO } else { J::START as f32 };
        let mut rest = [idle; 64];
        assert!(S::LANES <= rest.len());
        // SAFETY: as the caller says; fewer elements are left than a vector has.
        unsafe {
            rest.as_mut_ptr().copy_from_nonoverlapping(x.add(i), n - i);
            acc[0] = J::join(s, acc[0], T::term(s, s.load(rest.as_ptr()), shift));
        }
    }
    let acc = J::join(s, J::join(s, acc[0], acc[1]), J::join(s, acc[2], acc[3]));
    lanes::<S, J>(s, acc)
}

/// The fold of all lanes.
#[inline(always)]
fn lanes<S: Simd, J: Join>(s: S, v: S::F32) -> f64 {
    let mut all = [0.0f32; 64];
    assert!(S::LANES <= all.len());
    // SAFETY: the array has as many floats as a vector, or more.
    unsafe { s.store(all.as_mut_ptr(), v) };
    all[..S::LANES]
        .iter()
        .fold(J::START, |a, &b| J::real(a, b.into()))
}

/// Folds up to four vectors of columns, of which `columns` are left, and returns how many columns that were.
///
/// # Safety
///
/// The rows are readable from `x` on, and the columns are readable and writable at `out`.
#[inline(always)]
unsafe fn vectors<S: Simd, J: Join, T: Term>(
    s: S,
    cut: &Cut,
    x: *const f32,
    out: *mut f32,
    columns: usize,
    finish: &impl Fn(f64, *mut f32),
) -> usize {
    let start = s.splat(J::START as f32);
    let full = columns >= 4 * S::LANES;
    let n = if full { 4 * S::LANES } else { columns.min(S::LANES) };
    let count = if full { 4 } else { 1 };
    let (mut acc, mut total, mut rows) = ([start; 4], [start; 4], 0);
    let mut shift = [s.splat(0.0); 4];
    // SAFETY: as the caller says, and `n` columns are left.
    unsafe {
        if T::SHIFTED {
            let mut from = [0.0f32; 256];
            (0..n).for_each(|i| from[i] = shift_of(*out.add(i)));
            (0..count).for_each(|k| shift[k] = s.load(from.as_ptr().add(k * S::LANES)));
        }
        cut.rows(
            #[inline(always)]
            |at| {
                let x = x.add(at);
                if full {
                    for k in 0..4 {
                        acc[k] = J::join(s, acc[k], T::term(s, s.load(x.add(k * S::LANES)), shift[k]));
                    }
                } else {
                    acc[0] = J::join(s, acc[0], T::term(s, s.load_first(x, n), shift[0]));
                }
                rows += 1;
                if rows % WIDE == 0 {
                    for (total, acc) in total.iter_mut().zip(&mut acc) {
                        *total = J::join(s, *total, *acc);
                        *acc = start;
                    }
                }
            },
        );
        let mut sums = [0.0f32; 256];
        for k in 0..count {
            s.store(sums.as_mut_ptr().add(k * S::LANES), J::join(s, total[k], acc[k]));
        }
        (0..n).for_each(|i| finish(sums[i].into(), out.add(i)));
    }
    n
}

/// Folds elements of other types as doubles.
pub fn reals<J: Join, T: Term>(cut: Cut, block: Block<f64>, finish: Finish) -> Box<dyn Kernel> {
    let each = cut.each();
    let fold = Slow {
        shifted: T::SHIFTED,
        start: J::START,
        step: |a, x, shift: f64| {
            let shift = if shift.is_finite() { shift } else { 0.0 };
            J::real(a, T::real(x, shift))
        },
        finish: move |sum, shift: f64| finish(sum, each, if shift.is_finite() { shift } else { 0.0 }),
    };
    slow(cut, block, fold)
}

/// Folds integers exactly; the result is brought into `range` in the end.
pub fn ints<J: Join, T: Term>(
    cut: Cut,
    block: Block<i128>,
    range: Option<(i128, i128)>,
    mean: bool,
) -> Box<dyn Kernel> {
    let each = if mean { cut.each() as i128 } else { 1 };
    let fold = Slow {
        shifted: false,
        start: J::NONE,
        step: |a, x, _| J::int(a, T::int(x)),
        finish: move |sum: i128, _| {
            let y = sum.checked_div(each).unwrap_or(0);
            range.map_or(y, |(low, high)| y.clamp(low, high))
        },
    };
    slow(cut, block, fold)
}

#[derive(Clone, Copy)]
struct Slow<W, Step, Last> {
    shifted: bool,
    start: W,
    step: Step,
    finish: Last,
}

fn slow<W: Copy + Default + Send + Sync + 'static>(
    cut: Cut,
    block: Block<W>,
    fold: Slow<
        W,
        impl Fn(W, W, W) -> W + Copy + Send + Sync + 'static,
        impl Fn(W, W) -> W + Copy + Send + Sync + 'static,
    >,
) -> Box<dyn Kernel> {
    Box::new(move |io: &mut Io| {
        let x = raw_source(io, 0, cut.len(), block.bytes());
        let out = raw_target(io, 0, cut.outputs(), block.bytes());
        io.pool.run(cut.tasks(), &|task| {
            let (mut few, mut acc, mut shift) =
                ([W::default(); WIDE], [fold.start; WIDE], [W::default(); WIDE]);
            // SAFETY: the pieces are within the tensors whose sizes were checked; no two tasks share one.
            cut.task(task, |to, from, columns| unsafe {
                acc.fill(fold.start);
                if fold.shifted {
                    block.fetch(out, to, 1, &mut shift[..columns]);
                }
                match cut.columns {
                    1 => cut.rows(|at| {
                        for k in (0..cut.run).step_by(WIDE) {
                            let few = &mut few[..WIDE.min(cut.run - k)];
                            block.fetch(x, from + at + k, 1, few);
                            acc[0] = few.iter().fold(acc[0], |a, &x| (fold.step)(a, x, shift[0]));
                        }
                    }),
                    _ => cut.rows(|at| {
                        block.fetch(x, from + at, 1, &mut few[..columns]);
                        for i in 0..columns {
                            acc[i] = (fold.step)(acc[i], few[i], shift[i]);
                        }
                    }),
                }
                for i in 0..columns {
                    acc[i] = (fold.finish)(acc[i], shift[i]);
                }
                block.put(&acc[..columns], out, to);
            });
        });
    })
}
