//! Casting on the CPU.
//!
//! Frequent pairs are converted at once; the others by way of blocks of `f64`, or of `i64` between integers.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use secateur_simd::{Simd, Vectorised, dispatch, isa};

use crate::cpu::moves::{chunks, short};
use crate::cpu::{Candidate, Cost, Io, Pool, View, ViewMut};
use crate::ir::small::{self, to_bf16, to_f16};
use crate::ir::{DType, Element};
use crate::ops::NodeRef;

use super::{Mode, USUAL};

/// Elements that one task converts.
const PART: usize = 16 << 10;

/// Elements in a block of the detour.
const BLOCK: usize = 512;

type Kernel = fn(&Pool, &View, &mut ViewMut);

pub(super) fn cast(n: &NodeRef, mode: Mode) -> Option<Candidate> {
    let (from, to) = (n.dtype(0)?, n.out_dtype(0)?);
    let count = crate::ir::count(&n.out_dims(0)?)?;
    let bytes = from.bytes(count)?.checked_add(to.bytes(count)?)?;
    let name = |how: &str| format!("cast.{}.{}{how}", short(from), short(to));
    if from == to {
        let run = move |io: &mut Io| {
            let x = io.input(0);
            io.output(0).bytes().copy_from_slice(x.bytes());
        };
        return Some(Candidate::new(name(".copy"), Cost::bytes(bytes), run));
    }
    if let Some(direct) = direct(from, to) {
        let run = move |io: &mut Io| {
            let (pool, x) = (io.pool, io.input(0));
            direct(pool, &x, io.output(0));
        };
        return Some(Candidate::new(
            name(&format!(".{}", isa())),
            Cost::bytes(bytes),
            run,
        ));
    }
    let detour = detour(from, to, mode)?;
    let bytes_of = move |d: DType, elements: usize| elements * d.bits() / 8;
    let run = move |io: &mut Io| {
        let (pool, x) = (io.pool, io.input(0).bytes());
        chunks(pool, io.output(0).bytes(), bytes_of(to, PART), &|part, y| {
            let x = &x[part * bytes_of(from, PART)..];
            let blocks = y
                .chunks_mut(bytes_of(to, BLOCK))
                .zip(x.chunks(bytes_of(from, BLOCK)));
            blocks.for_each(|(y, x)| detour.run(x, y));
        });
    };
    Some(Candidate::new(name(""), Cost::bytes(2 * bytes), run))
}

/// `y[i] = f(x[i])`, compiled for the instruction set in use.
struct Map<'a, A, B, F> {
    x: &'a [A],
    y: &'a mut [B],
    f: F,
}

impl<A: Copy, B, F: Fn(A) -> B> Vectorised for Map<'_, A, B, F> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (y, &x) in self.y.iter_mut().zip(self.x) {
            *y = (self.f)(x);
        }
    }
}

fn map<A: Element, B: Element>(pool: &Pool, x: &[A], y: &mut [B], f: impl Fn(A) -> B + Copy + Sync) {
    chunks(pool, y, PART, &|part, y| {
        let x = &x[part * PART..][..y.len()];
        dispatch(Map { x, y, f });
    });
}

/// The elements of a view, those of a `bool` one as bytes.
fn elements<'a, T: Element>(x: &View<'a>) -> &'a [T] {
    bytemuck::cast_slice(x.bytes())
}

fn direct(from: DType, to: DType) -> Option<Kernel> {
    use DType::{BF16, Bool, F16, F32, F64, I8, I32, I64, U8, U64};
    macro_rules! to {
        ($a:ty, $b:ty, $f:expr) => {
            |pool, x, y| map::<$a, $b>(pool, elements(x), bytemuck::cast_slice_mut(y.bytes()), $f)
        };
    }
    Some(match (from, to) {
        (F32, I32) => to!(f32, i32, |x| x as i32),
        (F32, I64) => to!(f32, i64, |x| x as i64),
        (F32, U8) => to!(f32, u8, |x| x as u8),
        (F32, I8) => to!(f32, i8, |x| x as i8),
        (F32, F64) => to!(f32, f64, |x| x.into()),
        (F32, Bool) => to!(f32, u8, |x| u8::from(x != 0.0)),
        (F32, BF16) => to!(f32, bf16, bf16::from_f32),
        (F64, F32) => to!(f64, f32, |x| x as f32),
        (BF16, F32) => to!(bf16, f32, |x: bf16| f32::from_bits(u32::from(x.to_bits()) << 16)),
        (I32, F32) => to!(i32, f32, |x| x as f32),
        (I32, I64) => to!(i32, i64, |x| x.into()),
        (I32, Bool) => to!(i32, u8, |x| u8::from(x != 0)),
        (I64, Bool) => to!(i64, u8, |x| u8::from(x != 0)),
        (I64, F32) => to!(i64, f32, |x| x as f32),
        (I64, I32) => to!(i64, i32, |x| x as i32),
        (U64, F32) => to!(u64, f32, |x| x as f32),
        (U8, F32) => to!(u8, f32, |x| x.into()),
        (I8, F32) => to!(i8, f32, |x| x.into()),
        (Bool, F32) => to!(u8, f32, |x| f32::from(u8::from(x != 0))),
        (Bool, I32) => to!(u8, i32, |x| i32::from(x != 0)),
        (Bool, I64) => to!(u8, i64, |x| i64::from(x != 0)),
        (F16, F32) => |pool, x, y| {
            let x = elements::<f16>(x);
            chunks(pool, y.slice::<f32>(), PART, &|part, y| {
                x[part * PART..][..y.len()].convert_to_f32_slice(y);
            });
        },
        (F32, F16) => |pool, x, y| {
            let x = elements::<f32>(x);
            chunks(pool, y.slice::<f16>(), PART, &|part, y| {
                y.convert_from_f32_slice(&x[part * PART..][..y.len()]);
            });
        },
        _ => return None,
    })
}

type Read<T> = Box<dyn Fn(&[u8], &mut [T]) + Send + Sync>;
type Write<T> = Box<dyn Fn(&[T], &mut [u8]) + Send + Sync>;

/// By way of a type that holds every element of both.
enum Detour {
    Real(Read<f64>, Write<f64>),
    Int(Read<i64>, Write<i64>),
}

impl Detour {
    fn run(&self, x: &[u8], y: &mut [u8]) {
        match self {
            Detour::Real(read, write) => through(x, y, read, write),
            Detour::Int(read, write) => through(x, y, read, write),
        }
    }
}

fn through<T: Copy + Default>(x: &[u8], y: &mut [u8], read: &Read<T>, write: &Write<T>) {
    let mut block = [T::default(); BLOCK];
    read(x, &mut block);
    write(&block, y);
}

fn detour(from: DType, to: DType, mode: Mode) -> Option<Detour> {
    let exact = |d: DType| d.is_int() || d == DType::Bool;
    if exact(from) && exact(to) {
        let both = |d: DType| match d.bits() < 8 {
            true => Some((
                spread(d, move |c| small::widened(d, c).into()),
                gathered(d, |x: i64| x as u8),
            )),
            false => ints(d),
        };
        return Some(Detour::Int(both(from)?.0, both(to)?.1));
    }
    Some(Detour::Real(real(from, mode)?.0, real(to, mode)?.1))
}

/// How elements of type `d` are read and written as `f64`.
fn real(d: DType, mode: Mode) -> Option<(Read<f64>, Write<f64>)> {
    match d {
        _ if small::is_small(d) => Some((
            spread(d, move |c| small::decode(d, c)),
            gathered(d, move |x| mode.code(d, x)),
        )),
        _ if d.is_int() && d.bits() < 8 => Some((
            spread(d, move |c| small::widened(d, c).into()),
            gathered(d, |x: f64| x as i64 as u8),
        )),
        _ => reals(d),
    }
}

/// Reads elements of at most 8 bits.
fn spread<T: Copy + Send + Sync + 'static>(d: DType, f: impl Fn(u8) -> T) -> Read<T> {
    let bits = d.bits();
    let table: Vec<T> = (0..1usize << bits).map(|c| f(c as u8)).collect();
    Box::new(move |x, y| {
        let (per, mask) = (8 / bits, table.len() - 1);
        for (y, &byte) in y.chunks_mut(per).zip(x) {
            for (k, y) in y.iter_mut().enumerate() {
                *y = table[usize::from(byte) >> (k * bits) & mask];
            }
        }
    })
}

/// Writes elements of at most 8 bits.
fn gathered<T: Copy>(d: DType, f: impl Fn(T) -> u8 + Send + Sync + 'static) -> Write<T> {
    let bits = d.bits();
    let mask = (0xffu16 >> (8 - bits)) as u8;
    Box::new(move |x, y| {
        for (y, x) in y.iter_mut().zip(x.chunks(8 / bits)) {
            *y = x.iter().rev().fold(0, |b, &x| {
                let b = u16::from(b) << bits;
                b as u8 | f(x) & mask
            });
        }
    })
}

/// Numbers of type `dtype` as `f64`; empty for other types.
pub(in crate::ops) fn widened(dtype: DType, x: &[u8]) -> Vec<f64> {
    let Some((read, _)) = real(dtype, USUAL) else {
        return vec![];
    };
    let mut wide = vec![0.0; x.len() * 8 / dtype.bits()];
    read(x, &mut wide);
    wide
}

fn read<A: Element, T>(x: &[u8], y: &mut [T], f: impl Fn(A) -> T) {
    let x: &[A] = bytemuck::cast_slice(x);
    y.iter_mut().zip(x).for_each(|(y, &x)| *y = f(x));
}

fn write<B: Element, T: Copy>(x: &[T], y: &mut [u8], f: impl Fn(T) -> B) {
    let y: &mut [B] = bytemuck::cast_slice_mut(y);
    y.iter_mut().zip(x).for_each(|(y, &x)| *y = f(x));
}

macro_rules! table {
    ($name:ident, $wide:ty, $truth:expr; $($d:ident $t:ty: $into:expr, $out:expr;)*) => {
        fn $name(d: DType) -> Option<(Read<$wide>, Write<$wide>)> {
            let both: (fn(&[u8], &mut [$wide]), fn(&[$wide], &mut [u8])) = match d {
                $(DType::$d => (|x, y| read::<$t, _>(x, y, $into), |x, y| write::<$t, _>(x, y, $out)),)*
                DType::Bool => (|x, y| read::<u8, _>(x, y, |x| (x != 0) as u8 as $wide), |x, y| write(x, y, $truth)),
                _ => return None,
            };
            Some((Box::new(both.0), Box::new(both.1)))
        }
    };
}
table! { reals, f64, |x: f64| u8::from(x != 0.0);
    F32 f32: |x| x.into(), |x| x as f32;
    F64 f64: |x| x, |x| x;
    F16 f16: f16::to_f64, to_f16;
    BF16 bf16: bf16::to_f64, to_bf16;
    U8 u8: |x| x.into(), |x| x as u8;
    I8 i8: |x| x.into(), |x| x as i8;
    U16 u16: |x| x.into(), |x| x as u16;
    I16 i16: |x| x.into(), |x| x as i16;
    U32 u32: |x| x.into(), |x| x as u32;
    I32 i32: |x| x.into(), |x| x as i32;
    U64 u64: |x| x as f64, |x| x as u64;
    I64 i64: |x| x as f64, |x| x as i64;
}
table! { ints, i64, |x: i64| u8::from(x != 0);
    U8 u8: |x| x.into(), |x| x as u8;
    I8 i8: |x| x.into(), |x| x as i8;
    U16 u16: |x| x.into(), |x| x as u16;
    I16 i16: |x| x.into(), |x| x as i16;
    U32 u32: |x| x.into(), |x| x as u32;
    I32 i32: |x| x.into(), |x| x as i32;
    U64 u64: |x| x as i64, |x| x as u64;
    I64 i64: |x| x, |x| x;
}
