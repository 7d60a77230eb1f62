//! Element types that are rare: a few elements at a time are converted to a wider type, computed and converted back.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use num_traits::ToPrimitive;

use super::act::ActFn;
use super::elementwise::{Ptr, map_slice, raw_source, raw_target};
use super::number::{ByType, Int, Real, by_type};
use super::walk::{CHUNK, Walk};
use super::{Io, Kernel};
use crate::ir::{DType, Element};

/// Elements that are converted at a time.
const FEW: usize = 256;

/// How elements of one type become elements of the type `W` and back.
pub struct Block<W: 'static> {
    bytes: usize,
    load: unsafe fn(*const u8, &mut [W]),
    store: unsafe fn(&[W], *mut u8),
}

impl<W> Clone for Block<W> {
    fn clone(&self) -> Block<W> {
        *self
    }
}
impl<W> Copy for Block<W> {}

/// The floats of type `dtype`, computed as `f32`; `None` unless they are `f16` or `bf16`.
pub fn floats(dtype: DType) -> Option<Block<f32>> {
    fn of<T: Element>(load: unsafe fn(*const u8, &mut [f32]), store: unsafe fn(&[f32], *mut u8)) -> Block<f32>
    where
        [T]: HalfFloatSliceExt,
    {
        Block {
            bytes: size_of::<T>(),
            load,
            store,
        }
    }
    match dtype {
        DType::F16 => Some(of::<f16>(load_half::<f16>, store_half::<f16>)),
        DType::BF16 => Some(of::<bf16>(load_half::<bf16>, store_half::<bf16>)),
        _ => None,
    }
}

/// The integers of type `dtype`; `None` if it is none of 8 to 64 bits.
pub fn ints(dtype: DType) -> Option<Block<i128>> {
    fn of<T: Int>() -> Block<i128> {
        Block {
            bytes: size_of::<T>(),
            // SAFETY: the caller says that as many elements are readable as the slice has.
            load: |from, to| unsafe { load_each(from, to, T::wide) },
            // SAFETY: the caller says that as many elements are writable as the slice has.
            store: |from, to| unsafe { store_each(from, to, T::narrow) },
        }
    }
    Some(match dtype {
        DType::U8 => of::<u8>(),
        DType::I8 => of::<i8>(),
        DType::U16 => of::<u16>(),
        DType::I16 => of::<i16>(),
        DType::U32 => of::<u32>(),
        DType::I32 => of::<i32>(),
        DType::U64 => of::<u64>(),
        DType::I64 => of::<i64>(),
        _ => return None,
    })
}

/// The numbers of type `dtype`, computed as doubles; `None` if it is no numeric type of 8 to 64 bits.
pub fn doubles(dtype: DType) -> Option<Block<f64>> {
    struct Make;
    impl ByType for Make {
        type Out = Block<f64>;
        fn real<T: Real>(self) -> Block<f64> {
            Block {
                bytes: size_of::<T>(),
                // SAFETY: the caller says that as many elements are readable as the slice has.
                load: |from, to| unsafe { load_each(from, to, |x: T| x.wide().to_f64().unwrap_or(f64::NAN)) },
                // SAFETY: the caller says that as many elements are writable as the slice has.
                store: |from, to| unsafe { store_each(from, to, T::rounded) },
            }
        }
        fn int<T: Int>(self) -> Block<f64> {
            Block {
                bytes: size_of::<T>(),
                // SAFETY: the caller says that as many elements are readable as the slice has.
                load: |from, to| unsafe { load_each(from, to, |x: T| x.wide() as f64) },
                // SAFETY: the caller says that as many elements are writable as the slice has.
                store: |from, to| unsafe { store_each(from, to, saturated::<T>) },
            }
        }
    }
    by_type(dtype, Make)
}

/// `x` without its fraction, or the nearest number of the type; 0 for NaN.
fn saturated<T: Int>(x: f64) -> T {
    T::narrow((x as i128).clamp(T::min_value().wide(), T::max_value().wide()))
}

/// # Safety
///
/// As many elements as `to` has are readable at `from`, and aligned.
unsafe fn load_each<T: Element, W>(from: *const u8, to: &mut [W], f: impl Fn(T) -> W) {
    // SAFETY: as the caller says.
    let from = unsafe { std::slice::from_raw_parts(from.cast::<T>(), to.len()) };
    to.iter_mut().zip(from).for_each(|(t, &x)| *t = f(x));
}

/// # Safety
///
/// As many elements as `from` has are writable at `to`, and aligned.
unsafe fn store_each<T: Element, W: Copy>(from: &[W], to: *mut u8, f: impl Fn(W) -> T) {
    // SAFETY: as the caller says.
    let to = unsafe { std::slice::from_raw_parts_mut(to.cast::<T>(), from.len()) };
    to.iter_mut().zip(from).for_each(|(t, &x)| *t = f(x));
}

/// Truth values, which stay what they are.
pub fn truths() -> Block<u8> {
    Block {
        bytes: 1,
        // SAFETY: the caller says that as many bytes are readable as the slice has.
        load: |from, to| unsafe { to.as_mut_ptr().copy_from(from, to.len()) },
        // SAFETY: the caller says that as many bytes are writable as the slice has.
        store: |from, to| unsafe { to.copy_from(from.as_ptr(), from.len()) },
    }
}

/// # Safety
///
/// As many elements as `to` has are readable at `from`, and aligned.
unsafe fn load_half<T: Element>(from: *const u8, to: &mut [f32])
where
    [T]: HalfFloatSliceExt,
{
    // SAFETY: as the caller says.
    let from = unsafe { std::slice::from_raw_parts(from.cast::<T>(), to.len()) };
    from.convert_to_f32_slice(to);
}

/// # Safety
///
/// As many elements as `from` has are writable at `to`, and aligned.
unsafe fn store_half<T: Element>(from: &[f32], to: *mut u8)
where
    [T]: HalfFloatSliceExt,
{
    // SAFETY: as the caller says.
    let to = unsafe { std::slice::from_raw_parts_mut(to.cast::<T>(), from.len()) };
    to.convert_from_f32_slice(from);
}

impl<W: Copy + Default> Block<W> {
    /// Bytes of an element.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Writes `from` from element `at` on.
    ///
    /// # Safety
    ///
    /// The elements are within `out`, and nobody else has them.
    pub(crate) unsafe fn put(&self, from: &[W], out: Ptr<u8>, at: usize) {
        // SAFETY: as the caller says.
        unsafe { (self.store)(from, out.get().add(at * self.bytes)) }
    }

    /// Fills `to` from element `at` on, or with it where `step` is 0.
    ///
    /// # Safety
    ///
    /// The elements are within `x`.
    pub(crate) unsafe fn fetch(&self, x: Ptr<u8>, at: usize, step: usize, to: &mut [W]) {
        // SAFETY: as the caller says.
        let from = unsafe { x.get().add(at * self.bytes) };
        match step {
            // SAFETY: as the caller says.
            1 => unsafe { (self.load)(from, to) },
            _ => {
                let mut one = [W::default()];
                // SAFETY: as the caller says.
                unsafe { (self.load)(from, &mut one) };
                to.fill(one[0]);
            }
        }
    }
}

/// `out = f(x0, x1)`, broadcast along `walk`; either input may be overwritten in place.
pub fn zip<W: Copy + Default + Send + Sync, U: Copy + Default>(
    walk: Walk<2>,
    (from, to): (Block<W>, Block<U>),
    f: impl Fn(W, W) -> U + Copy + Send + Sync + 'static,
) -> Box<dyn Kernel> {
    zip_mixed(walk, [from; 2], to, f)
}

/// The same for inputs of two types.
pub fn zip_mixed<W: Copy + Default + Send + Sync, U: Copy + Default>(
    walk: Walk<2>,
    [left, right]: [Block<W>; 2],
    to: Block<U>,
    f: impl Fn(W, W) -> U + Copy + Send + Sync + 'static,
) -> Box<dyn Kernel> {
    Box::new(move |io: &mut Io| {
        let [a, b] = walk.lens();
        let (a, b) = (
            raw_source(io, 0, a, left.bytes),
            raw_source(io, 1, b, right.bytes),
        );
        let out = raw_target(io, 0, walk.len(), to.bytes);
        let [sa, sb] = walk.steps();
        io.pool.run(walk.tasks(), &|task| {
            let (mut x, mut y, mut z) = ([W::default(); FEW], [W::default(); FEW], [U::default(); FEW]);
            walk.pieces(task, |o, [i, j], n| {
                for k in (0..n).step_by(FEW) {
                    let m = FEW.min(n - k);
                    // SAFETY: the walk stays within tensors of the sizes that were checked.
                    unsafe {
                        left.fetch(a, i + k * sa, sa, &mut x[..m]);
                        right.fetch(b, j + k * sb, sb, &mut y[..m]);
                    }
                    let pairs = x.iter().zip(&y).take(m);
                    z.iter_mut().zip(pairs).for_each(|(z, (&x, &y))| *z = f(x, y));
                    // SAFETY: as above; no other task has this part of the result.
                    unsafe { (to.store)(&z[..m], out.get().add((o + k) * to.bytes)) };
                }
            })
        });
    })
}

/// Calls `f` with `len` elements, a few at a time, and writes back what it leaves; the input may be overwritten in place.
fn update<W: Copy + Default + Send + Sync>(
    len: usize,
    block: Block<W>,
    f: impl Fn(&mut [W]) + Send + Sync + 'static,
) -> Box<dyn Kernel> {
    Box::new(move |io: &mut Io| {
        let (x, out) = (
            raw_source(io, 0, len, block.bytes),
            raw_target(io, 0, len, block.bytes),
        );
        io.pool.run(len.div_ceil(CHUNK), &|task| {
            let mut few = [W::default(); FEW];
            let end = len.min((task + 1) * CHUNK);
            for i in (task * CHUNK..end).step_by(FEW) {
                let few = &mut few[..FEW.min(end - i)];
                // SAFETY: within the input.
                unsafe { block.fetch(x, i, 1, few) };
                f(few);
                // SAFETY: within the output, and no other task has this part of it.
                unsafe { (block.store)(few, out.get().add(i * block.bytes)) };
            }
        });
    })
}

/// `out = map(x0)` for `len` elements; the input may be overwritten in place.
pub fn map(len: usize, block: Block<f32>, map: impl ActFn + 'static) -> Box<dyn Kernel> {
    update(len, block, move |x| map_slice(x, map))
}

/// `out = f(x0)` for `len` elements; the input may be overwritten in place.
pub fn each<W: Copy + Default + Send + Sync>(
    len: usize,
    block: Block<W>,
    f: impl Fn(W) -> W + Send + Sync + 'static,
) -> Box<dyn Kernel> {
    update(len, block, move |x| x.iter_mut().for_each(|x| *x = f(*x)))
}
