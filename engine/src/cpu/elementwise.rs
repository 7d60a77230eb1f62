//! Loops over tensors, element by element.
//!
//! Functions of floats run inside [`dispatch`], where the compiler vectorises plain arithmetic with the best set; what
//! needs more than that is written with [`Simd`] as an [`ActFn`]. Other types are compiled once, for the least set.

use bytemuck::Pod;
use secateur_simd::{Simd, Vectorised, dispatch};

use super::act::ActFn;
use super::walk::{CHUNK, Walk};
use super::{Io, Kernel, View};

/// A pointer into memory whose parts go to different threads.
pub(crate) struct Ptr<T>(*mut T);

impl<T> Clone for Ptr<T> {
    fn clone(&self) -> Ptr<T> {
        *self
    }
}
impl<T> Copy for Ptr<T> {}
// SAFETY: only a number; whoever uses it says why no two threads meet.
unsafe impl<T: Send> Send for Ptr<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Ptr<T> {}

impl<T> Ptr<T> {
    pub(crate) fn new(start: *mut T) -> Ptr<T> {
        Ptr(start)
    }

    pub(crate) fn get(self) -> *mut T {
        self.0
    }
}

/// Input `i`, which has `len` elements of `bytes` bytes.
pub(crate) fn raw_source(io: &Io, i: usize, len: usize, bytes: usize) -> Ptr<u8> {
    let x: View = io.input(i);
    assert_eq!(x.dtype().bits(), 8 * bytes, "element size of input {i}");
    assert_eq!(x.len(), len, "elements of input {i}");
    assert!(
        x.start().addr().is_multiple_of(bytes.min(8)),
        "alignment of input {i}"
    );
    Ptr(x.start().cast_mut())
}

/// Output `i`, which has `len` elements of `bytes` bytes.
pub(crate) fn raw_target(io: &mut Io, i: usize, len: usize, bytes: usize) -> Ptr<u8> {
    let y = io.output(i);
    assert_eq!(y.dtype().bits(), 8 * bytes, "element size of output {i}");
    assert_eq!(y.len(), len, "elements of output {i}");
    assert!(
        y.start().addr().is_multiple_of(bytes.min(8)),
        "alignment of output {i}"
    );
    Ptr(y.start())
}

/// The elements of input `i` as values of the size of `T`, whatever they mean.
pub(crate) fn source<T: Pod>(io: &Io, i: usize, len: usize) -> Ptr<T> {
    Ptr(raw_source(io, i, len, size_of::<T>()).0.cast())
}

/// The elements of output `i` as values of the size of `T`, whatever they mean.
pub(crate) fn target<T: Pod>(io: &mut Io, i: usize, len: usize) -> Ptr<T> {
    Ptr(raw_target(io, i, len, size_of::<T>()).0.cast())
}

/// Whether an element of input `i` has no bit set, as the integer 0.
pub fn has_zero(io: &Io, i: usize) -> bool {
    let x = io.input(i);
    let size = x.dtype().bits() / 8;
    let p = raw_source(io, i, x.len(), size);
    // SAFETY: these are all bytes of the input, and nobody writes them now.
    let bytes = unsafe { std::slice::from_raw_parts(p.get(), x.len() * size) };
    size != 0 && bytes.chunks_exact(size).any(|e| e.iter().all(|&b| b == 0))
}

/// Whether `f` holds of an element of input `i`.
pub fn any<T: Pod>(io: &Io, i: usize, f: impl Fn(T) -> bool) -> bool {
    let len = io.input(i).len();
    let p = source::<T>(io, i, len);
    // SAFETY: these are all elements of the input, and nobody writes them now.
    let x = unsafe { std::slice::from_raw_parts(p.get(), len) };
    x.iter().any(|&x| f(x))
}

/// A function of one element.
pub trait Func<A, U>: Fn(A) -> U + Copy + Send + Sync + 'static {}
impl<A, U, F: Fn(A) -> U + Copy + Send + Sync + 'static> Func<A, U> for F {}

/// A function of two elements.
pub trait Func2<A, B, U>: Fn(A, B) -> U + Copy + Send + Sync + 'static {}
impl<A, B, U, F: Fn(A, B) -> U + Copy + Send + Sync + 'static> Func2<A, B, U> for F {}

/// Runs `f` inside [`dispatch`].
pub(crate) struct Inside<F>(pub(crate) F);

impl<F: FnOnce()> Vectorised for Inside<F> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        (self.0)()
    }
}

/// `out = f(x0, x1)` for floats, broadcast along `walk`; either input may be overwritten in place.
pub fn zip_floats<U: Pod + Send>(walk: Walk<2>, f: impl Func2<f32, f32, U>) -> Box<dyn Kernel> {
    Box::new(move |io: &mut Io| {
        let [a, b] = walk.lens();
        let (a, b) = (source::<f32>(io, 0, a), source::<f32>(io, 1, b));
        let out = target::<U>(io, 0, walk.len());
        zip_dispatched(io, &walk, [a, b], out, f);
    })
}

/// `out = f(x0, x1)`, broadcast along `walk`; either input may be overwritten in place. Truth values are `u8`.
pub fn zip<A: Pod + Send, B: Pod + Send, U: Pod + Send>(
    walk: Walk<2>,
    f: impl Func2<A, B, U>,
) -> Box<dyn Kernel> {
    Box::new(move |io: &mut Io| {
        let [a, b] = walk.lens();
        let (a, b) = (source::<A>(io, 0, a), source::<B>(io, 1, b));
        let out = target::<U>(io, 0, walk.len());
        io.pool
            .run(walk.tasks(), &|task| zip_task(&walk, task, a, b, out, f));
    })
}

fn zip_dispatched<U: Pod + Send>(
    io: &Io,
    walk: &Walk<2>,
    [a, b]: [Ptr<f32>; 2],
    out: Ptr<U>,
    f: impl Func2<f32, f32, U>,
) {
    io.pool.run(walk.tasks(), &|task| {
        dispatch(Inside(
            #[inline(always)]
            || zip_task(walk, task, a, b, out, f),
        ))
    });
}

/// The part `task` of `out = f(a, b)` along `walk`.
#[inline(always)]
fn zip_task<A: Pod, B: Pod, U: Pod>(
    walk: &Walk<2>,
    task: usize,
    a: Ptr<A>,
    b: Ptr<B>,
    out: Ptr<U>,
    f: impl Func2<A, B, U>,
) {
    let steps = walk.steps();
    walk.pieces(
        task,
        #[inline(always)]
        // SAFETY: the walk stays within tensors of the sizes that were checked; no two pieces of a result overlap, and
        // an input that shares its memory is read at the position that is written next.
        |o, [i, j], n| unsafe { zip_row(a.get().add(i), b.get().add(j), steps, out.get().add(o), n, f) },
    )
}

/// # Safety
///
/// `n` elements are readable at `a` and `b` (1 where the step is 0) and writable at `out`.
#[inline(always)]
unsafe fn zip_row<A: Copy, B: Copy, U>(
    a: *const A,
    b: *const B,
    steps: [usize; 2],
    out: *mut U,
    n: usize,
    f: impl Fn(A, B) -> U,
) {
    // SAFETY: as the caller says; `n` is not 0, since a walk has no empty pieces.
    unsafe {
        match steps {
            [1, 1] => (0..n).for_each(|i| *out.add(i) = f(*a.add(i), *b.add(i))),
            [1, _] => {
                let y = *b;
                (0..n).for_each(|i| *out.add(i) = f(*a.add(i), y));
            }
            [_, step] => {
                let x = *a;
                (0..n).for_each(|i| *out.add(i) = f(x, *b.add(i * step)));
            }
        }
    }
}

/// `out = x0 ? x1 : x2`, broadcast along `walk`, for elements of the size of `T`; inputs 1 and 2 may be overwritten in
/// place.
pub fn pick<T: Pod + Send>(walk: Walk<3>) -> Box<dyn Kernel> {
    Box::new(move |io: &mut Io| {
        let [c, a, b] = walk.lens();
        let c = source::<u8>(io, 0, c);
        let (a, b) = (source::<T>(io, 1, a), source::<T>(io, 2, b));
        let out = target::<T>(io, 0, walk.len());
        io.pool.run(walk.tasks(), &|task| match size_of::<T>() {
            4 => dispatch(Inside(
                #[inline(always)]
                || pick_task(&walk, task, c, a, b, out),
            )),
            _ => pick_task(&walk, task, c, a, b, out),
        });
    })
}

/// The part `task` of `out = c ? a : b` along `walk`.
#[inline(always)]
fn pick_task<T: Pod>(walk: &Walk<3>, task: usize, c: Ptr<u8>, a: Ptr<T>, b: Ptr<T>, out: Ptr<T>) {
    let [sc, sa, sb] = walk.steps();
    walk.pieces(
        task,
        #[inline(always)]
        // SAFETY: the walk stays within tensors of the sizes that were checked, whose pieces do not overlap; an input
        // that shares its memory is read at the position that is written next.
        |o, [k, i, j], n| unsafe {
            let (c, out) = (c.get().add(k), out.get().add(o));
            let (a, b) = (a.get().add(i), b.get().add(j));
            match sc {
                0 if *c != 0 => (0..n).for_each(|i| *out.add(i) = *a.add(i * sa)),
                0 => (0..n).for_each(|i| *out.add(i) = *b.add(i * sb)),
                _ => pick_row(c, a, b, [sa, sb], out, n),
            }
        },
    )
}

/// # Safety
///
/// `n` elements are readable at `c`, and at `a` and `b` (1 where the step is 0), and writable at `out`.
#[inline(always)]
unsafe fn pick_row<T: Copy>(
    c: *const u8,
    a: *const T,
    b: *const T,
    steps: [usize; 2],
    out: *mut T,
    n: usize,
) {
    for at in (0..n).step_by(READ) {
        let live = READ.min(n - at);
        // SAFETY: as the caller says.
        unsafe {
            let (c, a) = (
                some(c.add(at), 1, live),
                some(a.add(at * steps[0]), steps[0], live),
            );
            let mut y = some(b.add(at * steps[1]), steps[1], live);
            for i in 0..READ {
                y[i] = if c[i] != 0 { a[i] } else { y[i] };
            }
            if live == READ {
                out.add(at).cast::<[T; READ]>().write_unaligned(y);
            } else {
                (0..live).for_each(|i| *out.add(at + i) = y[i]);
            }
        }
    }
}

/// Elements that are read before any of them is written: where an input is overwritten, no vectors would be made else.
const READ: usize = 16;

/// `n` elements from `p` on, or again and again the one there is.
///
/// # Safety
///
/// They are readable, and `n` is 1 to [`READ`].
#[inline(always)]
unsafe fn some<T: Copy>(p: *const T, step: usize, n: usize) -> [T; READ] {
    // SAFETY: as the caller says.
    unsafe {
        let mut all = [*p; READ];
        if step == 1 && n == READ {
            all = p.cast::<[T; READ]>().read_unaligned();
        } else if step == 1 {
            (0..n).for_each(|i| all[i] = *p.add(i));
        }
        all
    }
}

/// `out = f(x0, x1, x2)`, broadcast along `walk`; each input may be overwritten in place.
pub fn zip3<T: Pod + Send>(
    walk: Walk<3>,
    f: impl Fn(T, T, T) -> T + Copy + Send + Sync + 'static,
) -> Box<dyn Kernel> {
    Box::new(move |io: &mut Io| {
        let lens = walk.lens();
        let x = [0, 1, 2].map(|i| source::<T>(io, i, lens[i]));
        let out = target::<T>(io, 0, walk.len());
        io.pool.run(walk.tasks(), &|task| {
            dispatch(Inside(
                #[inline(always)]
                || zip3_task(&walk, task, x, out, f),
            ))
        });
    })
}

/// The part `task` of `out = f(x0, x1, x2)` along `walk`.
#[inline(always)]
fn zip3_task<T: Pod>(walk: &Walk<3>, task: usize, x: [Ptr<T>; 3], out: Ptr<T>, f: impl Fn(T, T, T) -> T) {
    let steps = walk.steps();
    walk.pieces(
        task,
        #[inline(always)]
        |o, at, n| {
            // SAFETY: the walk stays within tensors of the sizes that were checked, whose pieces do not overlap; an input
            // that shares its memory is read at the position that is written next.
            unsafe {
                let [a, b, c] = [0, 1, 2].map(|i| x[i].get().add(at[i]));
                let out = out.get().add(o);
                match steps {
                    [1, 1, 1] => (0..n).for_each(|i| *out.add(i) = f(*a.add(i), *b.add(i), *c.add(i))),
                    [0, 1, 1] => {
                        let a = *a;
                        (0..n).for_each(|i| *out.add(i) = f(a, *b.add(i), *c.add(i)));
                    }
                    [p, q, r] => {
                        (0..n).for_each(|i| *out.add(i) = f(*a.add(i * p), *b.add(i * q), *c.add(i * r)));
                    }
                }
            }
        },
    )
}

/// `out = f(x0)` for `len` elements; the input may be overwritten in place. Truth values are `u8`.
pub fn each<A: Pod + Send, U: Pod + Send>(len: usize, f: impl Func<A, U>) -> Box<dyn Kernel> {
    Box::new(move |io: &mut Io| {
        let (x, out) = (source::<A>(io, 0, len), target::<U>(io, 0, len));
        io.pool.run(len.div_ceil(CHUNK), &|task| {
            for i in task * CHUNK..len.min((task + 1) * CHUNK) {
                // SAFETY: within both; no other task has it, and it is read before it is written.
                unsafe { *out.get().add(i) = f(*x.get().add(i)) };
            }
        });
    })
}

/// An [`ActFn`] on its way to [`dispatch`].
struct Lanes<M> {
    map: M,
    from: *const f32,
    to: *mut f32,
    len: usize,
}

impl<M: ActFn> Vectorised for Lanes<M> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (from, to) = (self.from, self.to);
        let even = self.len - self.len % S::LANES;
        // SAFETY: whoever made it says that `len` floats are readable at `from` and writable at `to`.
        unsafe {
            for i in (0..even).step_by(S::LANES) {
                s.store(to.add(i), self.map.apply(s, s.load(from.add(i))));
            }
            let rest = self.len - even;
            let x = s.load_first(from.add(even), rest);
            s.store_first(to.add(even), rest, self.map.apply(s, x));
        }
    }
}

/// `x[i] = map(x[i])`
pub fn map_slice(x: &mut [f32], map: impl ActFn) {
    let (to, len) = (x.as_mut_ptr(), x.len());
    dispatch(Lanes {
        map,
        from: to,
        to,
        len,
    });
}

/// `out = map(x0)` for `len` floats; the input may be overwritten in place.
pub fn map(len: usize, map: impl ActFn + 'static) -> Box<dyn Kernel> {
    Box::new(move |io: &mut Io| {
        let (x, out) = (source::<f32>(io, 0, len), target::<f32>(io, 0, len));
        io.pool.run(len.div_ceil(CHUNK), &|task| {
            let start = task * CHUNK;
            // SAFETY: the chunk is within both, and no other task has it.
            let (from, to) = unsafe { (x.get().add(start), out.get().add(start)) };
            dispatch(Lanes {
                map,
                from,
                to,
                len: CHUNK.min(len - start),
            });
        });
    })
}
