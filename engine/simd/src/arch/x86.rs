//! AVX-512 and AVX2.

use core::arch::x86_64::*;

use super::register_methods;
use crate::dispatch::Vectorised;
use crate::isa::Simd;

/// Proves AVX-512 F, BW, VL and DQ, and what AVX2 does.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

/// Proves AVX2, FMA and POPCNT.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx512 {
    pub(crate) fn available() -> bool {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && Avx2::available()
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,popcnt")]
    pub(crate) fn enter<V: Vectorised>(v: V) -> V::Out {
        v.run(Avx512(()))
    }
}

impl Avx2 {
    pub(crate) fn available() -> bool {
        is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("popcnt")
    }

    #[target_feature(enable = "avx2,fma,popcnt")]
    pub(crate) fn enter<V: Vectorised>(v: V) -> V::Out {
        v.run(Avx2(()))
    }
}

/// For each set of lanes: in its lanes their number among them, in the others -1.
static PLACES: [[i8; 8]; 256] = places();

const fn places() -> [[i8; 8]; 256] {
    let mut all = [[-1; 8]; 256];
    let mut at = 0;
    while at < 256 * 8 {
        let (bits, lane) = (at / 8, at % 8);
        if bits >> lane & 1 == 1 {
            all[bits][lane] = (bits & ((1 << lane) - 1)).count_ones() as i8;
        }
        at += 1;
    }
    all
}

/// [`PLACES`] of the lanes `bits`.
#[inline]
#[target_feature(enable = "avx2")]
fn places8(bits: u32) -> __m256i {
    let row = i64::from_le_bytes(PLACES[(bits & 0xff) as usize].map(i8::cast_unsigned));
    _mm256_cvtepi8_epi32(_mm_cvtsi64_si128(row))
}

const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
const DOWN: i32 = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;

/// Lanes `0..n`
#[inline(always)]
fn first16(n: usize) -> __mmask16 {
    debug_assert!(n <= 16);
    ((1u32 << n) - 1) as __mmask16
}

/// All bits of lanes `0..n`
#[inline]
#[target_feature(enable = "avx2")]
fn first8(n: usize) -> __m256i {
    debug_assert!(n <= 8);
    _mm256_cmpgt_epi32(
        _mm256_set1_epi32(n as i32),
        _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
    )
}

#[inline]
#[target_feature(enable = "avx2")]
fn sum8(a: __m256) -> f32 {
    let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
    let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
    _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn greatest8(a: __m256) -> f32 {
    let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
    let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
    _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)))
}

impl Simd for Avx512 {
    type F32 = __m512;
    type I32 = __m512i;
    type Mask = __mmask16;

    const NAME: &'static str = "avx512";
    const LANES: usize = 16;
    const REGS: usize = 32;

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m512 {
        // SAFETY: the token proves AVX-512; the caller says that 16 floats are readable.
        unsafe { _mm512_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: __m512) {
        // SAFETY: the token proves AVX-512; the caller says that 16 floats are writable.
        unsafe { _mm512_storeu_ps(p, v) }
    }

    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize) -> __m512 {
        // SAFETY: the token proves AVX-512; the caller says that the lanes of the mask are readable.
        unsafe { _mm512_maskz_loadu_ps(first16(n), p) }
    }

    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize, v: __m512) {
        // SAFETY: the token proves AVX-512; the caller says that the lanes of the mask are writable.
        unsafe { _mm512_mask_storeu_ps(p, first16(n), v) }
    }

    /// By quarters of four columns: each is read as four vectors of a quarter of every fourth row, so that what is left to do stays
    /// within quarters of vectors.
    #[inline(always)]
    unsafe fn load_turned(self, rows: &[*const f32; 16]) -> [__m512; 16] {
        let mut turned = [self.splat(0.0); 16];
        for column in (0..16).step_by(4) {
            // SAFETY: the token proves AVX-512; the caller says that 16 floats of each row are readable.
            unsafe {
                let four = |row: usize| _mm_loadu_ps(rows[row].add(column));
                let mut part = [self.splat(0.0); 4];
                for (k, part) in part.iter_mut().enumerate() {
                    let low = _mm512_insertf32x4::<1>(_mm512_castps128_ps512(four(k)), four(4 + k));
                    *part = _mm512_insertf32x4::<3>(_mm512_insertf32x4::<2>(low, four(8 + k)), four(12 + k));
                }
                let a = _mm512_castps_pd(_mm512_unpacklo_ps(part[0], part[1]));
                let b = _mm512_castps_pd(_mm512_unpacklo_ps(part[2], part[3]));
                let c = _mm512_castps_pd(_mm512_unpackhi_ps(part[0], part[1]));
                let d = _mm512_castps_pd(_mm512_unpackhi_ps(part[2], part[3]));
                turned[column] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
                turned[column + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
                turned[column + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(c, d));
                turned[column + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(c, d));
            }
        }
        turned
    }

    #[inline(always)]
    fn prefetch(self, p: *const f32) {
        // SAFETY: a prefetch is a hint and faults on no address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }

    #[inline(always)]
    fn prefetch_near(self, p: *const f32) {
        // SAFETY: a prefetch is a hint and faults on no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }

    #[inline(always)]
    unsafe fn expand(self, p: *const f32, bits: u32) -> __m512 {
        // The form that reads memory itself is slower.
        // SAFETY: the token proves AVX-512; the caller says that 16 floats are readable.
        unsafe { _mm512_maskz_expand_ps(bits as __mmask16, _mm512_loadu_ps(p)) }
    }

    #[inline(always)]
    unsafe fn gather(self, p: *const f32, index: *const u8, skip: __mmask16) -> __m512 {
        // SAFETY: the token proves AVX-512; the caller says that the indices are readable, and the floats that are not skipped.
        unsafe {
            let index = _mm512_cvtepu8_epi32(_mm_loadu_si128(index.cast()));
            _mm512_mask_i32gather_ps::<4>(_mm512_setzero_ps(), !skip, index, p)
        }
    }

    register_methods! {
        fn splat(x: f32) -> __m512 { _mm512_set1_ps(x) }
        fn add(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn sub(a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
        fn mul(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn div(a: __m512, b: __m512) -> __m512 { _mm512_div_ps(a, b) }
        fn fma(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        fn min(a: __m512, b: __m512) -> __m512 { _mm512_min_ps(a, b) }
        fn max(a: __m512, b: __m512) -> __m512 { _mm512_max_ps(a, b) }
        fn abs(a: __m512) -> __m512 { _mm512_abs_ps(a) }
        fn neg(a: __m512) -> __m512 { _mm512_xor_ps(a, _mm512_set1_ps(-0.0)) }
        fn sqrt(a: __m512) -> __m512 { _mm512_sqrt_ps(a) }
        fn round(a: __m512) -> __m512 { _mm512_roundscale_ps::<NEAREST>(a) }
        fn floor(a: __m512) -> __m512 { _mm512_roundscale_ps::<DOWN>(a) }
        fn sum(a: __m512) -> f32 {
            sum8(_mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a)))
        }
        fn greatest(a: __m512) -> f32 {
            greatest8(_mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a)))
        }
        fn zip_first(a: __m512, b: __m512) -> __m512 {
            _mm512_permutex2var_ps(a, _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0), b)
        }
        fn zip_last(a: __m512, b: __m512) -> __m512 {
            _mm512_permutex2var_ps(a, _mm512_set_epi32(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8), b)
        }
        fn lt(a: __m512, b: __m512) -> __mmask16 { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b) }
        fn eq(a: __m512, b: __m512) -> __mmask16 { _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b) }
        fn select(m: __mmask16, a: __m512, b: __m512) -> __m512 { _mm512_mask_blend_ps(m, b, a) }
        fn splat_i32(x: i32) -> __m512i { _mm512_set1_epi32(x) }
        fn add_i32(a: __m512i, b: __m512i) -> __m512i { _mm512_add_epi32(a, b) }
        fn sub_i32(a: __m512i, b: __m512i) -> __m512i { _mm512_sub_epi32(a, b) }
        fn and_i32(a: __m512i, b: __m512i) -> __m512i { _mm512_and_si512(a, b) }
        fn or_i32(a: __m512i, b: __m512i) -> __m512i { _mm512_or_si512(a, b) }
        // The immediate forms ask for an unsigned constant, which stable Rust cannot make of `N`; these become them.
        fn shl_i32<const N>(a: __m512i) -> __m512i { _mm512_sllv_epi32(a, _mm512_set1_epi32(N)) }
        fn shr_i32<const N>(a: __m512i) -> __m512i { _mm512_srav_epi32(a, _mm512_set1_epi32(N)) }
        fn to_i32(a: __m512) -> __m512i { _mm512_cvtps_epi32(a) }
        fn to_f32(a: __m512i) -> __m512 { _mm512_cvtepi32_ps(a) }
        fn bits(a: __m512) -> __m512i { _mm512_castps_si512(a) }
        fn from_bits(a: __m512i) -> __m512 { _mm512_castsi512_ps(a) }
        fn dot_pairs(sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
            _mm512_add_epi32(sum, _mm512_madd_epi16(a, b))
        }
    }

    #[inline(always)]
    fn mask(self, bits: u32) -> __mmask16 {
        bits as __mmask16
    }

    #[inline(always)]
    unsafe fn load_pairs(self, p: *const i8) -> __m512i {
        // SAFETY: the token proves AVX-512; the caller says that 32 bytes are readable.
        unsafe { _mm512_cvtepi8_epi16(_mm256_loadu_si256(p.cast())) }
    }
}

impl Simd for Avx2 {
    type F32 = __m256;
    type I32 = __m256i;
    type Mask = __m256;

    const NAME: &'static str = "avx2";
    const LANES: usize = 8;
    const REGS: usize = 16;

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m256 {
        // SAFETY: the token proves AVX2; the caller says that 8 floats are readable.
        unsafe { _mm256_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: __m256) {
        // SAFETY: the token proves AVX2; the caller says that 8 floats are writable.
        unsafe { _mm256_storeu_ps(p, v) }
    }

    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize) -> __m256 {
        // SAFETY: the token proves AVX2; the caller says that the lanes of the mask are readable.
        unsafe { _mm256_maskload_ps(p, first8(n)) }
    }

    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize, v: __m256) {
        // SAFETY: the token proves AVX2; the caller says that the lanes of the mask are writable.
        unsafe { _mm256_maskstore_ps(p, first8(n), v) }
    }

    #[inline(always)]
    fn prefetch(self, p: *const f32) {
        // SAFETY: a prefetch is a hint and faults on no address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }

    #[inline(always)]
    fn prefetch_near(self, p: *const f32) {
        // SAFETY: a prefetch is a hint and faults on no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }

    #[inline(always)]
    unsafe fn expand(self, p: *const f32, bits: u32) -> __m256 {
        // SAFETY: the token proves AVX2; the caller says that 8 floats are readable.
        unsafe {
            let places = places8(bits);
            let there = _mm256_cmpgt_epi32(places, _mm256_set1_epi32(-1));
            _mm256_and_ps(
                _mm256_permutevar8x32_ps(_mm256_loadu_ps(p), places),
                _mm256_castsi256_ps(there),
            )
        }
    }

    #[inline(always)]
    unsafe fn gather(self, p: *const f32, index: *const u8, skip: __m256) -> __m256 {
        // SAFETY: the token proves AVX2; the caller says that the indices are readable, and the floats that are not skipped.
        unsafe {
            let index = _mm256_cvtepu8_epi32(_mm_loadl_epi64(index.cast()));
            let wanted = _mm256_andnot_si256(_mm256_castps_si256(skip), _mm256_set1_epi32(-1));
            _mm256_mask_i32gather_ps::<4>(_mm256_setzero_ps(), p, index, _mm256_castsi256_ps(wanted))
        }
    }

    register_methods! {
        fn splat(x: f32) -> __m256 { _mm256_set1_ps(x) }
        fn add(a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) }
        fn sub(a: __m256, b: __m256) -> __m256 { _mm256_sub_ps(a, b) }
        fn mul(a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
        fn div(a: __m256, b: __m256) -> __m256 { _mm256_div_ps(a, b) }
        fn fma(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fmadd_ps(a, b, c) }
        fn min(a: __m256, b: __m256) -> __m256 { _mm256_min_ps(a, b) }
        fn max(a: __m256, b: __m256) -> __m256 { _mm256_max_ps(a, b) }
        fn abs(a: __m256) -> __m256 { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
        fn neg(a: __m256) -> __m256 { _mm256_xor_ps(a, _mm256_set1_ps(-0.0)) }
        fn sqrt(a: __m256) -> __m256 { _mm256_sqrt_ps(a) }
        fn round(a: __m256) -> __m256 { _mm256_round_ps::<NEAREST>(a) }
        fn floor(a: __m256) -> __m256 { _mm256_round_ps::<DOWN>(a) }
        fn sum(a: __m256) -> f32 { sum8(a) }
        fn greatest(a: __m256) -> f32 { greatest8(a) }
        fn zip_first(a: __m256, b: __m256) -> __m256 {
            _mm256_permute2f128_ps::<0x20>(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b))
        }
        fn zip_last(a: __m256, b: __m256) -> __m256 {
            _mm256_permute2f128_ps::<0x31>(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b))
        }
        fn lt(a: __m256, b: __m256) -> __m256 { _mm256_cmp_ps::<_CMP_LT_OQ>(a, b) }
        fn eq(a: __m256, b: __m256) -> __m256 { _mm256_cmp_ps::<_CMP_EQ_OQ>(a, b) }
        fn mask(bits: u32) -> __m256 {
            _mm256_castsi256_ps(_mm256_cmpgt_epi32(places8(bits), _mm256_set1_epi32(-1)))
        }
        fn select(m: __m256, a: __m256, b: __m256) -> __m256 { _mm256_blendv_ps(b, a, m) }
        fn splat_i32(x: i32) -> __m256i { _mm256_set1_epi32(x) }
        fn add_i32(a: __m256i, b: __m256i) -> __m256i { _mm256_add_epi32(a, b) }
        fn sub_i32(a: __m256i, b: __m256i) -> __m256i { _mm256_sub_epi32(a, b) }
        fn and_i32(a: __m256i, b: __m256i) -> __m256i { _mm256_and_si256(a, b) }
        fn or_i32(a: __m256i, b: __m256i) -> __m256i { _mm256_or_si256(a, b) }
        fn shl_i32<const N>(a: __m256i) -> __m256i { _mm256_slli_epi32::<N>(a) }
        fn shr_i32<const N>(a: __m256i) -> __m256i { _mm256_srai_epi32::<N>(a) }
        fn to_i32(a: __m256) -> __m256i { _mm256_cvtps_epi32(a) }
        fn to_f32(a: __m256i) -> __m256 { _mm256_cvtepi32_ps(a) }
        fn bits(a: __m256) -> __m256i { _mm256_castps_si256(a) }
        fn from_bits(a: __m256i) -> __m256 { _mm256_castsi256_ps(a) }
        fn dot_pairs(sum: __m256i, a: __m256i, b: __m256i) -> __m256i {
            _mm256_add_epi32(sum, _mm256_madd_epi16(a, b))
        }
    }

    #[inline(always)]
    unsafe fn load_pairs(self, p: *const i8) -> __m256i {
        // SAFETY: the token proves AVX2; the caller says that 16 bytes are readable.
        unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(p.cast())) }
    }
}
