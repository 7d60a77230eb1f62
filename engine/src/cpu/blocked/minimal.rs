//! Minimal filters: what takes tiles to the points of Winograd's method and back.

use secateur_simd::Simd;

pub(super) const A: f64 = std::f64::consts::FRAC_1_SQRT_2;
pub(super) const B: f64 = std::f64::consts::SQRT_2;

/// Tiles of `M × M` outputs from `N × N` inputs.
pub(super) trait Minimal<const N: usize, const M: usize> {
    /// The points, without infinity, with the factor that the weights are divided by.
    const POINTS: &'static [(f64, f64)];
    /// Along one axis, inputs at the points.
    fn input<S: Simd>(s: S, d: [S::F32; N]) -> [S::F32; N];
    /// Along one axis, outputs from products at the points.
    fn output<S: Simd>(s: S, m: [S::F32; N]) -> [S::F32; M];
}

pub(super) struct F2;

impl Minimal<4, 2> for F2 {
    const POINTS: &'static [(f64, f64)] = &[(0.0, 1.0), (1.0, 2.0), (-1.0, 2.0)];

    #[inline(always)]
    fn input<S: Simd>(s: S, [a, b, c, d]: [S::F32; 4]) -> [S::F32; 4] {
        [s.sub(a, c), s.add(b, c), s.sub(c, b), s.sub(d, b)]
    }

    #[inline(always)]
    fn output<S: Simd>(s: S, [a, b, c, d]: [S::F32; 4]) -> [S::F32; 2] {
        [s.add(s.add(a, b), c), s.add(s.sub(b, c), d)]
    }
}

pub(super) struct F4;

impl Minimal<6, 4> for F4 {
    const POINTS: &'static [(f64, f64)] = &[(0.0, 1.0), (A, -1.5), (-A, -1.5), (B, 6.0), (-B, 6.0)];

    #[inline(always)]
    fn input<S: Simd>(s: S, d: [S::F32; 6]) -> [S::F32; 6] {
        let k = |x: f64| s.splat(x as f32);
        // Even and odd parts of what the two pairs of points have in common.
        let (even, odd) = (s.fma(k(-2.0), d[2], d[4]), s.fma(k(-B), d[1], s.mul(k(A), d[3])));
        let (even2, odd2) = (s.fma(k(-0.5), d[2], d[4]), s.fma(k(-A), d[1], s.mul(k(B), d[3])));
        [
            s.add(s.fma(k(-2.5), d[2], d[0]), d[4]),
            s.add(even, odd),
            s.sub(even, odd),
            s.add(even2, odd2),
            s.sub(even2, odd2),
            s.add(s.fma(k(-2.5), d[3], d[1]), d[5]),
        ]
    }

    #[inline(always)]
    fn output<S: Simd>(s: S, m: [S::F32; 6]) -> [S::F32; 4] {
        let k = |x: f64| s.splat(x as f32);
        let (p, q) = (s.add(m[1], m[2]), s.add(m[3], m[4]));
        let (r, t) = (s.sub(m[1], m[2]), s.sub(m[3], m[4]));
        [
            s.add(s.add(m[0], p), q),
            s.fma(k(B), t, s.mul(k(A), r)),
            s.fma(k(2.0), q, s.mul(k(0.5), p)),
            s.add(s.fma(k(B * B * B), t, s.mul(k(A * A * A), r)), m[5]),
        ]
    }
}
