//! Each function with each set against a 64-bit reference.

use std::collections::BTreeMap;

use super::*;
use crate::dispatch::{Vectorised, each_isa};

#[derive(Clone, Copy, Debug)]
enum Function {
    Exp,
    Log,
    Tanh,
    Sigmoid,
    Erf,
}

use Function::{Erf, Exp, Log, Sigmoid, Tanh};

impl Function {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        match self {
            Exp => exp(s, x),
            Log => log(s, x),
            Tanh => tanh(s, x),
            Sigmoid => sigmoid(s, x),
            Erf => erf(s, x),
        }
    }

    fn tolerance(self) -> f64 {
        match self {
            Exp => EXP_ULP,
            Log => LOG_ULP,
            Tanh => TANH_ULP,
            Sigmoid => SIGMOID_ULP,
            Erf => ERF_ULP,
        }
    }

    fn reference(self, x: f64) -> f64 {
        match self {
            Exp => x.exp(),
            Log => x.ln(),
            Tanh => x.tanh(),
            Sigmoid if x < 0.0 => x.exp() / (1.0 + x.exp()),
            Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Erf => erf_reference(x),
        }
    }
}

/// Abramowitz and Stegun, *Handbook of Mathematical Functions*, 7.1.6 for small arguments, 7.1.14 for great ones.
fn erf_reference(x: f64) -> f64 {
    let a = x.abs();
    if a.is_nan() {
        a
    } else if a < 2.5 {
        let (mut term, mut sum, mut n) = (x, 0.0, 0.0);
        while sum + term != sum {
            sum += term;
            n += 1.0;
            term *= 2.0 * x * x / (2.0 * n + 1.0);
        }
        // The loop ends at once where `x` is a zero, of either sign.
        if x == 0.0 {
            x
        } else {
            sum * (-x * x).exp() * std::f64::consts::FRAC_2_SQRT_PI
        }
    } else if a < 6.0 {
        let fraction = (1..60).rev().fold(a, |f, k| a + f64::from(k) / 2.0 / f);
        (1.0 - (-a * a).exp() / (fraction * std::f64::consts::PI.sqrt())).copysign(x)
    } else {
        1f64.copysign(x)
    }
}

#[test]
fn the_reference_of_erf_is_right() {
    for (x, y) in [
        (0.0, 0.0),
        (0.1, 0.1124629160182849),
        (0.5, 0.5204998778130465),
        (1.0, 0.8427007929497149),
        (2.0, 0.9953222650189527),
        (2.4, 0.9993114861033549),
        (2.5, 0.999593047982555),
        (3.0, 0.9999779095030014),
        (4.0, 0.9999999845827421),
    ] {
        assert!(
            (erf_reference(x) - y).abs() < 1e-15,
            "erf({x}) = {}",
            erf_reference(x)
        );
        assert_eq!(erf_reference(-x), -erf_reference(x));
    }
}

/// How far `got` is from `want`, in ulp of `want` as a 32-bit float.
fn error(got: f32, want: f64) -> f64 {
    let nearest = want as f32;
    let agree = if want.is_nan() {
        got.is_nan()
    } else {
        f64::from(got) == want
    };
    if agree || nearest.is_infinite() && got == nearest {
        return 0.0;
    }
    if !got.is_finite() || !nearest.is_finite() {
        return f64::INFINITY;
    }
    let exponent = (want.to_bits() >> 52 & 0x7ff) as i32 - 1023;
    (f64::from(got) - want).abs() / 2f64.powi(exponent.max(-126) - 23)
}

#[derive(Clone)]
struct Apply<'a> {
    function: Function,
    x: &'a [f32],
}

impl Vectorised for Apply<'_> {
    type Out = Vec<f32>;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<f32> {
        let mut y = vec![0.0; self.x.len()];
        for i in (0..y.len()).step_by(S::LANES) {
            let n = S::LANES.min(y.len() - i);
            // SAFETY: `i + n` is within both.
            unsafe {
                let v = self.function.of(s, s.load_first(self.x.as_ptr().add(i), n));
                s.store_first(y.as_mut_ptr().add(i), n, v);
            }
        }
        y
    }
}

/// The greatest error seen with each set, and where.
type Worst = BTreeMap<&'static str, (f64, f32)>;

fn measure(function: Function, x: &[f32], worst: &mut Worst) {
    let want: Vec<f64> = x.iter().map(|&x| function.reference(f64::from(x))).collect();
    let bounded = matches!(function, Tanh | Sigmoid | Erf);
    each_isa(Apply { function, x }, |isa, got| {
        let worst = worst.entry(isa).or_default();
        for ((&x, &want), got) in x.iter().zip(&want).zip(got) {
            let error = error(got, want);
            let place = || format!("{isa}: {function:?}({x:e}) = {got:e}, {error} ulp from {want:e}");
            assert!(error <= function.tolerance(), "{}", place());
            assert!(!bounded || got.is_nan() || got.abs() <= 1.0, "{}", place());
            if error > worst.0 {
                *worst = (error, x);
            }
        }
    });
}

/// Measures every `stride`th of all floats.
fn sweep(function: Function, stride: u32) {
    let mut worst = Worst::new();
    let mut bits = (0..=u32::MAX).step_by(stride as usize).map(f32::from_bits);
    loop {
        let x: Vec<f32> = bits.by_ref().take(1 << 16).collect();
        if x.is_empty() {
            break;
        }
        measure(function, &x, &mut worst);
    }
    println!("{function:?}: {worst:?}");
}

/// About 200,000 floats
const SAMPLE: u32 = 21_467;

/// Where something changes: the ends of ranges, the ends of denormals, the middles between two multiples of ln 2.
#[test]
fn edges_keep_their_word() {
    let edges = [
        0.0,
        f32::MIN_POSITIVE,
        0.1732868,
        0.3465736,
        0.6666667,
        1.0,
        1.3333334,
        3.95,
        9.010913,
        10.0,
        87.33655,
        88.72284,
        103.97208,
        f32::MAX,
    ];
    for function in [Exp, Log, Tanh, Sigmoid, Erf] {
        for edge in edges {
            let near = edge.to_bits().saturating_sub(2000)..=edge.to_bits() + 2000;
            let x: Vec<f32> = near.map(f32::from_bits).flat_map(|x| [x, -x]).collect();
            measure(function, &x, &mut Worst::new());
        }
    }
}

#[test]
fn exp_keeps_its_word() {
    sweep(Exp, SAMPLE);
}

#[test]
fn log_keeps_its_word() {
    sweep(Log, SAMPLE);
}

#[test]
fn tanh_keeps_its_word() {
    sweep(Tanh, SAMPLE);
}

#[test]
fn sigmoid_keeps_its_word() {
    sweep(Sigmoid, SAMPLE);
}

#[test]
fn erf_keeps_its_word() {
    sweep(Erf, SAMPLE);
}

#[test]
#[ignore = "all 2^32 floats"]
fn exp_of_all_floats() {
    sweep(Exp, 1);
}

#[test]
#[ignore = "all 2^32 floats"]
fn log_of_all_floats() {
    sweep(Log, 1);
}

#[test]
#[ignore = "all 2^32 floats"]
fn tanh_of_all_floats() {
    sweep(Tanh, 1);
}

#[test]
#[ignore = "all 2^32 floats"]
fn sigmoid_of_all_floats() {
    sweep(Sigmoid, 1);
}

#[test]
#[ignore = "all 2^32 floats"]
fn erf_of_all_floats() {
    sweep(Erf, 1);
}

#[test]
fn special_values() {
    const INF: f32 = f32::INFINITY;
    const NAN: f32 = f32::NAN;
    let table: [(Function, &[(f32, f32)]); 5] = [
        (
            Exp,
            &[
                (0.0, 1.0),
                (-0.0, 1.0),
                (1e-45, 1.0),
                (88.72284, INF),
                (INF, INF),
                (-103.97207, 1e-45),
                (-104.0, 0.0),
                (f32::MAX, INF),
                (f32::MIN, 0.0),
                (-INF, 0.0),
                (NAN, NAN),
            ],
        ),
        (
            Log,
            &[
                (1.0, 0.0),
                (0.0, -INF),
                (-0.0, -INF),
                (-1e-45, NAN),
                (-1.0, NAN),
                (-INF, NAN),
                (1e-45, -103.27893),
                (INF, INF),
                (NAN, NAN),
            ],
        ),
        (
            Tanh,
            &[
                (0.0, 0.0),
                (-0.0, -0.0),
                (1e-45, 1e-45),
                (-20.0, -1.0),
                (INF, 1.0),
                (-INF, -1.0),
                (NAN, NAN),
            ],
        ),
        (
            Sigmoid,
            &[
                (0.0, 0.5),
                (-0.0, 0.5),
                (17.5, 1.0),
                (-103.97207, 1e-45),
                (INF, 1.0),
                (-INF, 0.0),
                (NAN, NAN),
                (-NAN, NAN),
            ],
        ),
        (
            Erf,
            &[
                (0.0, 0.0),
                (-0.0, -0.0),
                (1e-45, 1e-45),
                (-5.0, -1.0),
                (INF, 1.0),
                (-INF, -1.0),
                (NAN, NAN),
            ],
        ),
    ];
    for (function, rows) in table {
        let x: Vec<_> = rows.iter().map(|row| row.0).collect();
        each_isa(Apply { function, x: &x }, |isa, got| {
            for (&(x, want), got) in rows.iter().zip(got) {
                let same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
                assert!(same, "{isa}: {function:?}({x:e}) = {got:e}, not {want:e}");
            }
        });
    }
}

#[derive(Clone)]
struct Extremes(f32, f32);

impl Vectorised for Extremes {
    type Out = (f32, f32);

    fn run<S: Simd>(self, s: S) -> (f32, f32) {
        let (a, b) = (s.splat(self.0), s.splat(self.1));
        let first = |v| {
            let mut first = 0.0;
            // SAFETY: one float is asked for.
            unsafe { s.store_first(&mut first, 1, v) };
            first
        };
        (first(min_nan(s, a, b)), first(max_nan(s, a, b)))
    }
}

#[test]
fn min_and_max_propagate_nan() {
    for (a, b) in [(1.0, 2.0), (2.0, 1.0), (f32::NEG_INFINITY, 5.0), (1e-45, -1e-45)] {
        each_isa(Extremes(a, b), |isa, got| {
            assert_eq!(got, (a.min(b), a.max(b)), "{isa}: {a}, {b}")
        });
    }
    for (a, b) in [
        (f32::NAN, 1.0),
        (1.0, f32::NAN),
        (f32::NAN, f32::NAN),
        (f32::NAN, f32::INFINITY),
    ] {
        each_isa(Extremes(a, b), |isa, got| {
            assert!(got.0.is_nan() && got.1.is_nan(), "{isa}: {a}, {b}")
        });
    }
}
