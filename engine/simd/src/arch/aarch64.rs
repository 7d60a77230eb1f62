//! NEON, which every 64-bit ARM processor has.

use core::arch::aarch64::*;
use core::arch::asm;

use super::register_methods;
use crate::dispatch::Vectorised;
use crate::isa::Simd;

/// Proves NEON.
#[derive(Clone, Copy)]
pub(crate) struct Neon(());

impl Neon {
    pub(crate) fn available() -> bool {
        std::arch::is_aarch64_feature_detected!("neon")
    }

    #[target_feature(enable = "neon")]
    pub(crate) fn enter<V: Vectorised>(v: V) -> V::Out {
        v.run(Neon(()))
    }
}

/// For each set of lanes: in its lanes the bytes of the floats that are next, in the others what is behind all.
static PLACES: [[u8; 16]; 16] = places();

const fn places() -> [[u8; 16]; 16] {
    let mut all = [[0xff; 16]; 16];
    let mut at = 0;
    while at < 16 * 16 {
        let (bits, byte) = (at / 16, at % 16);
        let lane = byte / 4;
        if bits >> lane & 1 == 1 {
            let before = (bits & ((1usize << lane) - 1)).count_ones() as usize;
            all[bits][byte] = (4 * before + byte % 4) as u8;
        }
        at += 1;
    }
    all
}

impl Simd for Neon {
    type F32 = float32x4_t;
    type I32 = int32x4_t;
    type Mask = uint32x4_t;

    const NAME: &'static str = "neon";
    const LANES: usize = 4;
    const REGS: usize = 32;

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> float32x4_t {
        // SAFETY: the token proves NEON; the caller says that 4 floats are readable.
        unsafe { vld1q_f32(p) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: float32x4_t) {
        // SAFETY: the token proves NEON; the caller says that 4 floats are writable.
        unsafe { vst1q_f32(p, v) }
    }

    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize) -> float32x4_t {
        debug_assert!(n <= 4);
        // SAFETY: the token proves NEON; the caller says that the first `n` are readable, and each arm loads just these.
        unsafe {
            let zero = vdupq_n_f32(0.0);
            match n {
                0 => zero,
                1 => vld1q_lane_f32::<0>(p, zero),
                2 => vcombine_f32(vld1_f32(p), vdup_n_f32(0.0)),
                3 => vld1q_lane_f32::<2>(p.add(2), vcombine_f32(vld1_f32(p), vdup_n_f32(0.0))),
                _ => vld1q_f32(p),
            }
        }
    }

    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize, v: float32x4_t) {
        debug_assert!(n <= 4);
        // SAFETY: the token proves NEON; the caller says that the first `n` are writable, and each arm stores just these.
        unsafe {
            match n {
                0 => {}
                1 => vst1q_lane_f32::<0>(p, v),
                2 => vst1_f32(p, vget_low_f32(v)),
                3 => {
                    vst1_f32(p, vget_low_f32(v));
                    vst1q_lane_f32::<2>(p.add(2), v);
                }
                _ => vst1q_f32(p, v),
            }
        }
    }

    #[inline(always)]
    fn prefetch(self, p: *const f32) {
        // SAFETY: a prefetch is a hint and faults on no address.
        unsafe { asm!("prfm pldl2keep, [{p}]", p = in(reg) p, options(nostack, readonly, preserves_flags)) }
    }

    #[inline(always)]
    fn prefetch_near(self, p: *const f32) {
        // SAFETY: a prefetch is a hint and faults on no address.
        unsafe { asm!("prfm pldl1keep, [{p}]", p = in(reg) p, options(nostack, readonly, preserves_flags)) }
    }

    #[inline(always)]
    unsafe fn expand(self, p: *const f32, bits: u32) -> float32x4_t {
        // SAFETY: the token proves NEON; the caller says that 4 floats are readable, and a row of the table has 16 bytes.
        unsafe {
            let places = vld1q_u8(PLACES[(bits & 0xf) as usize].as_ptr());
            vreinterpretq_f32_u8(vqtbl1q_u8(vld1q_u8(p.cast()), places))
        }
    }

    #[inline(always)]
    unsafe fn gather(self, p: *const f32, index: *const u8, skip: uint32x4_t) -> float32x4_t {
        let mut out = [0f32; 4];
        // SAFETY: the token proves NEON; the caller says that the indices are readable, and the floats that are not skipped.
        unsafe {
            let mut skipped = [0u32; 4];
            vst1q_u32(skipped.as_mut_ptr(), skip);
            for (lane, out) in out.iter_mut().enumerate() {
                if skipped[lane] == 0 {
                    *out = *p.add(usize::from(*index.add(lane)));
                }
            }
            vld1q_f32(out.as_ptr())
        }
    }

    register_methods! {
        fn splat(x: f32) -> float32x4_t { vdupq_n_f32(x) }
        fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t { vaddq_f32(a, b) }
        fn sub(a: float32x4_t, b: float32x4_t) -> float32x4_t { vsubq_f32(a, b) }
        fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t { vmulq_f32(a, b) }
        fn div(a: float32x4_t, b: float32x4_t) -> float32x4_t { vdivq_f32(a, b) }
        fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t { vfmaq_f32(c, a, b) }
        // `fmin` and `fmax` would return the NaN, not the second operand.
        fn min(a: float32x4_t, b: float32x4_t) -> float32x4_t { vbslq_f32(vcltq_f32(a, b), a, b) }
        fn max(a: float32x4_t, b: float32x4_t) -> float32x4_t { vbslq_f32(vcgtq_f32(a, b), a, b) }
        fn abs(a: float32x4_t) -> float32x4_t { vabsq_f32(a) }
        fn neg(a: float32x4_t) -> float32x4_t { vnegq_f32(a) }
        fn sqrt(a: float32x4_t) -> float32x4_t { vsqrtq_f32(a) }
        fn round(a: float32x4_t) -> float32x4_t { vrndnq_f32(a) }
        fn floor(a: float32x4_t) -> float32x4_t { vrndmq_f32(a) }
        fn sum(a: float32x4_t) -> f32 { vaddvq_f32(a) }
        fn greatest(a: float32x4_t) -> f32 { vmaxnmvq_f32(a) }
        fn zip_first(a: float32x4_t, b: float32x4_t) -> float32x4_t { vzip1q_f32(a, b) }
        fn zip_last(a: float32x4_t, b: float32x4_t) -> float32x4_t { vzip2q_f32(a, b) }
        fn lt(a: float32x4_t, b: float32x4_t) -> uint32x4_t { vcltq_f32(a, b) }
        fn eq(a: float32x4_t, b: float32x4_t) -> uint32x4_t { vceqq_f32(a, b) }
        fn mask(bits: u32) -> uint32x4_t {
            vtstq_u32(vdupq_n_u32(bits), vld1q_u32([1, 2, 4, 8].as_ptr()))
        }
        fn select(m: uint32x4_t, a: float32x4_t, b: float32x4_t) -> float32x4_t { vbslq_f32(m, a, b) }
        fn splat_i32(x: i32) -> int32x4_t { vdupq_n_s32(x) }
        fn add_i32(a: int32x4_t, b: int32x4_t) -> int32x4_t { vaddq_s32(a, b) }
        fn sub_i32(a: int32x4_t, b: int32x4_t) -> int32x4_t { vsubq_s32(a, b) }
        fn and_i32(a: int32x4_t, b: int32x4_t) -> int32x4_t { vandq_s32(a, b) }
        fn or_i32(a: int32x4_t, b: int32x4_t) -> int32x4_t { vorrq_s32(a, b) }
        fn shl_i32<const N>(a: int32x4_t) -> int32x4_t { vshlq_n_s32::<N>(a) }
        fn shr_i32<const N>(a: int32x4_t) -> int32x4_t { vshrq_n_s32::<N>(a) }
        fn to_i32(a: float32x4_t) -> int32x4_t { vcvtnq_s32_f32(a) }
        fn to_f32(a: int32x4_t) -> float32x4_t { vcvtq_f32_s32(a) }
        fn bits(a: float32x4_t) -> int32x4_t { vreinterpretq_s32_f32(a) }
        fn from_bits(a: int32x4_t) -> float32x4_t { vreinterpretq_f32_s32(a) }
        fn dot_pairs(sum: int32x4_t, a: int32x4_t, b: int32x4_t) -> int32x4_t {
            {
                let (a, b) = (vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b));
                let low = vmull_s16(vget_low_s16(a), vget_low_s16(b));
                vaddq_s32(sum, vpaddq_s32(low, vmull_high_s16(a, b)))
            }
        }
    }

    #[inline(always)]
    unsafe fn load_pairs(self, p: *const i8) -> int32x4_t {
        // SAFETY: the token proves NEON; the caller says that 8 bytes are readable.
        unsafe { vreinterpretq_s32_s16(vmovl_s8(vld1_s8(p))) }
    }
}
