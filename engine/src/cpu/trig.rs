//! Sine and cosine of vectors.

use secateur_simd::Simd;

/// Beyond this the reduction to a quarter turn is left to the scalar functions.
const FAR: f32 = 8192.0;

/// `sin(x + shift * π / 2)` within 1.5e-7 or, where the result is larger than that, 3 ulp.
///
/// `x` is reduced by the nearest multiple `n` of π / 2 in three steps, whose first two have so few bits that their
/// products with `n` are exact without a fused multiply-add too; then minimax polynomials on `|r| <= π / 4`.
#[inline(always)]
pub fn sin_shifted<S: Simd>(s: S, x: S::F32, shift: i32) -> S::F32 {
    // NaN goes with what is far: a maximum may be either of a number and NaN.
    let near = s.lt(s.abs(x), s.splat(FAR));
    let y = near_sin(s, x, shift);
    if s.greatest(s.select(near, s.splat(0.0), s.splat(1.0))) > 0.0 {
        let scalar: fn(f32) -> f32 = if shift == 0 { f32::sin } else { f32::cos };
        // What is near must not depend on what stands beside it.
        return s.select(near, y, by_lane(s, x, scalar));
    }
    y
}

/// The same where no lane is far.
#[inline(always)]
fn near_sin<S: Simd>(s: S, x: S::F32, shift: i32) -> S::F32 {
    let n = s.round(s.mul(x, s.splat(std::f32::consts::FRAC_2_PI)));
    let r = s.fma(n, s.splat(-1.570_312_5), x);
    let r = s.fma(n, s.splat(-4.837_513e-4), r);
    let r = s.fma(n, s.splat(-7.549_79e-8), r);
    let z = s.mul(r, r);
    let p = s.fma(z, s.splat(-1.951_7e-4), s.splat(8.332_17e-3));
    let p = s.fma(z, p, s.splat(-0.166_666_55));
    let sin = s.fma(s.mul(r, z), p, r);
    let q = s.fma(z, s.splat(2.443_241_3e-5), s.splat(-1.388_731e-3));
    let q = s.fma(z, q, s.splat(4.166_664_6e-2));
    let cos = s.fma(s.mul(z, z), q, s.fma(z, s.splat(-0.5), s.splat(1.0)));
    let quarter = s.add_i32(s.to_i32(n), s.splat_i32(shift));
    let odd = s.to_f32(s.and_i32(quarter, s.splat_i32(1)));
    let y = s.select(s.eq(odd, s.splat(1.0)), cos, sin);
    let sign = s.shl_i32::<30>(s.and_i32(quarter, s.splat_i32(2)));
    s.mul(y, s.from_bits(s.or_i32(sign, s.bits(s.splat(1.0)))))
}

/// `f` of each lane.
#[inline(always)]
pub fn by_lane<S: Simd>(s: S, x: S::F32, f: impl Fn(f32) -> f32) -> S::F32 {
    let mut lanes = [0.0; 64];
    assert!(S::LANES <= lanes.len());
    // SAFETY: the array has as many floats as a vector, or more.
    unsafe {
        s.store(lanes.as_mut_ptr(), x);
        lanes[..S::LANES].iter_mut().for_each(|x| *x = f(*x));
        s.load(lanes.as_ptr())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::act::ActFn;
    use crate::cpu::elementwise::map_slice;

    #[derive(Clone, Copy)]
    struct Shifted(i32);
    impl ActFn for Shifted {
        #[inline(always)]
        fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
            sin_shifted(s, x, self.0)
        }
    }

    #[test]
    fn both_are_near_the_truth() {
        let x: Vec<f32> = (-60_000..60_000).map(|i| i as f32 * 0.140_123).collect();
        for (shift, f) in [(0, f64::sin as fn(f64) -> f64), (1, f64::cos)] {
            let mut y = x.clone();
            map_slice(&mut y, Shifted(shift));
            for (x, y) in x.iter().zip(y) {
                let want = f((*x).into());
                let error = (f64::from(y) - want).abs();
                assert!(
                    error <= 1.5e-7 + 3.0 * 6e-8 * want.abs(),
                    "{x}: {y}, expected {want}"
                );
            }
        }
    }

    #[test]
    fn far_angles_stand_beside_nan() {
        for nan in 0..16 {
            for far in (0..16).filter(|&far| far != nan) {
                let mut y = [0.5; 16];
                (y[nan], y[far]) = (f32::NAN, f32::MAX);
                map_slice(&mut y, Shifted(1));
                assert!(
                    y[nan].is_nan() && (y[far] - f32::MAX.cos()).abs() < 1e-6,
                    "{nan} {far}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_angle_gives_nan() {
        let mut y = [f32::INFINITY, f32::NAN, 1e30, 0.0];
        map_slice(&mut y, Shifted(0));
        assert!(y[0].is_nan() && y[1].is_nan() && y[2].abs() <= 1.0 && y[3] == 0.0);
    }
}
