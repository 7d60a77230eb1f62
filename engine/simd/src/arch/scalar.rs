//! Plain Rust, for processors without a set of their own and as the meaning the others are tested against.

use std::array::from_fn;

use crate::dispatch::Vectorised;
use crate::isa::Simd;

/// Proves nothing: four lanes in an array, in loops that the compiler can turn into the target's baseline vectors.
#[derive(Clone, Copy)]
pub(crate) struct Scalar(());

impl Scalar {
    #[inline]
    pub(crate) fn enter<V: Vectorised>(v: V) -> V::Out {
        v.run(Scalar(()))
    }
}

/// The nearest integer, ties to even, without the call that `round_ties_even` is on a plain x86-64.
#[inline(always)]
fn round(x: f32) -> f32 {
    const NO_FRACTION: f32 = 8388608.0; // 2^23
    let shift = NO_FRACTION.copysign(x);
    if x.abs() < NO_FRACTION {
        ((x + shift) - shift).copysign(x)
    } else {
        x
    }
}

#[inline(always)]
fn floor(x: f32) -> f32 {
    let nearest = round(x);
    if nearest > x { nearest - 1.0 } else { nearest }
}

impl Simd for Scalar {
    type F32 = [f32; 4];
    type I32 = [i32; 4];
    type Mask = [bool; 4];

    const NAME: &'static str = "scalar";
    const LANES: usize = 4;
    const REGS: usize = 16;

    #[inline(always)]
    fn splat(self, x: f32) -> [f32; 4] {
        [x; 4]
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> [f32; 4] {
        // SAFETY: the caller says that four floats are readable.
        unsafe { p.cast::<[f32; 4]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: [f32; 4]) {
        // SAFETY: the caller says that four floats are writable.
        unsafe { p.cast::<[f32; 4]>().write_unaligned(v) }
    }

    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize) -> [f32; 4] {
        let mut v = [0.0; 4];
        for (i, x) in v.iter_mut().enumerate().take(n) {
            // SAFETY: the caller says that the first `n` are readable.
            *x = unsafe { p.add(i).read_unaligned() };
        }
        v
    }

    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize, v: [f32; 4]) {
        for (i, x) in v.into_iter().enumerate().take(n) {
            // SAFETY: the caller says that the first `n` are writable.
            unsafe { p.add(i).write_unaligned(x) }
        }
    }

    #[inline(always)]
    fn prefetch(self, _: *const f32) {}

    #[inline(always)]
    fn prefetch_near(self, _: *const f32) {}

    #[inline(always)]
    unsafe fn expand(self, p: *const f32, bits: u32) -> [f32; 4] {
        let mut next = 0;
        self.mask(bits).map(|there| {
            let at = next;
            next += usize::from(there);
            // SAFETY: at most three lanes are before this one, and the caller says that four floats are readable.
            if there { unsafe { *p.add(at) } } else { 0.0 }
        })
    }

    #[inline(always)]
    unsafe fn gather(self, p: *const f32, index: *const u8, skip: [bool; 4]) -> [f32; 4] {
        // SAFETY: the caller says that the indices are readable, and the floats that are not skipped.
        from_fn(|i| unsafe {
            if skip[i] {
                0.0
            } else {
                *p.add(usize::from(*index.add(i)))
            }
        })
    }

    #[inline(always)]
    fn add(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        from_fn(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn sub(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        from_fn(|i| a[i] - b[i])
    }

    #[inline(always)]
    fn mul(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn div(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        from_fn(|i| a[i] / b[i])
    }

    #[inline(always)]
    fn fma(self, a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        from_fn(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    fn min(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn max(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn abs(self, a: [f32; 4]) -> [f32; 4] {
        a.map(f32::abs)
    }

    #[inline(always)]
    fn neg(self, a: [f32; 4]) -> [f32; 4] {
        a.map(|x| -x)
    }

    #[inline(always)]
    fn sqrt(self, a: [f32; 4]) -> [f32; 4] {
        a.map(f32::sqrt)
    }

    #[inline(always)]
    fn round(self, a: [f32; 4]) -> [f32; 4] {
        a.map(round)
    }

    #[inline(always)]
    fn floor(self, a: [f32; 4]) -> [f32; 4] {
        a.map(floor)
    }

    #[inline(always)]
    fn sum(self, a: [f32; 4]) -> f32 {
        (a[0] + a[2]) + (a[1] + a[3])
    }

    #[inline(always)]
    fn greatest(self, a: [f32; 4]) -> f32 {
        a[0].max(a[2]).max(a[1].max(a[3]))
    }

    #[inline(always)]
    fn zip_first(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        [a[0], b[0], a[1], b[1]]
    }

    #[inline(always)]
    fn zip_last(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        [a[2], b[2], a[3], b[3]]
    }

    #[inline(always)]
    fn lt(self, a: [f32; 4], b: [f32; 4]) -> [bool; 4] {
        from_fn(|i| a[i] < b[i])
    }

    #[inline(always)]
    fn eq(self, a: [f32; 4], b: [f32; 4]) -> [bool; 4] {
        from_fn(|i| a[i] == b[i])
    }

    #[inline(always)]
    fn mask(self, bits: u32) -> [bool; 4] {
        from_fn(|i| bits >> i & 1 == 1)
    }

    #[inline(always)]
    fn select(self, m: [bool; 4], a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        from_fn(|i| if m[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn splat_i32(self, x: i32) -> [i32; 4] {
        [x; 4]
    }

    #[inline(always)]
    fn add_i32(self, a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        from_fn(|i| a[i].wrapping_add(b[i]))
    }

    #[inline(always)]
    fn sub_i32(self, a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        from_fn(|i| a[i].wrapping_sub(b[i]))
    }

    #[inline(always)]
    fn and_i32(self, a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        from_fn(|i| a[i] & b[i])
    }

    #[inline(always)]
    fn or_i32(self, a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        from_fn(|i| a[i] | b[i])
    }

    #[inline(always)]
    fn shl_i32<const N: i32>(self, a: [i32; 4]) -> [i32; 4] {
        a.map(|x| x << N)
    }

    #[inline(always)]
    fn shr_i32<const N: i32>(self, a: [i32; 4]) -> [i32; 4] {
        a.map(|x| x >> N)
    }

    #[inline(always)]
    fn to_i32(self, a: [f32; 4]) -> [i32; 4] {
        a.map(|x| round(x) as i32)
    }

    #[inline(always)]
    fn to_f32(self, a: [i32; 4]) -> [f32; 4] {
        a.map(|x| x as f32)
    }

    #[inline(always)]
    fn bits(self, a: [f32; 4]) -> [i32; 4] {
        a.map(|x| x.to_bits().cast_signed())
    }

    #[inline(always)]
    fn from_bits(self, a: [i32; 4]) -> [f32; 4] {
        a.map(|x| f32::from_bits(x.cast_unsigned()))
    }

    #[inline(always)]
    unsafe fn load_pairs(self, p: *const i8) -> [i32; 4] {
        // SAFETY: the caller says that 8 bytes are readable.
        let at = |i: usize| i32::from(unsafe { *p.add(i) });
        from_fn(|i| at(2 * i) & 0xffff | at(2 * i + 1) << 16)
    }

    #[inline(always)]
    fn dot_pairs(self, sum: [i32; 4], a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        let low = |x: i32| i32::from(x as i16);
        from_fn(|i| {
            let high = (a[i] >> 16).wrapping_mul(b[i] >> 16);
            let both = (low(a[i]) * low(b[i])).wrapping_add(high);
            sum[i].wrapping_add(both)
        })
    }
}
