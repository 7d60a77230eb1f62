use super::*;

fn reference(act: Act, x: f64) -> f64 {
    let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let gate = |a: f32, b: f32, x: f64| (f64::from(a) * x + f64::from(b)).clamp(0.0, 1.0);
    let cut = |x: f64, below: f64| if x < 0.0 { below } else { x };
    match act {
        Act::None => x,
        Act::Relu => cut(x, 0.0),
        Act::Clip { lo, hi } => {
            if x.is_nan() {
                x
            } else {
                x.max(lo.into()).min(hi.into())
            }
        }
        Act::LeakyRelu { alpha } => cut(x, f64::from(alpha) * x),
        Act::ThresholdedRelu { alpha } => {
            if x.is_nan() || x > alpha.into() {
                x
            } else {
                0.0
            }
        }
        Act::HardSigmoid { alpha, beta } => gate(alpha, beta, x),
        Act::HardSwish => x * gate(1.0 / 6.0, 0.5, x),
        Act::Sigmoid => sigmoid(x),
        Act::Tanh => x.tanh(),
        Act::Silu { alpha } => x * sigmoid(f64::from(alpha) * x),
        // The error function is tested where it is written; this is good to 1e-7.
        Act::Gelu => x * 0.5 * (1.0 + erf(x / 2f64.sqrt())),
        Act::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            x * 0.5 * (1.0 + inner.tanh())
        }
        Act::Elu { alpha } => cut(x, f64::from(alpha) * x.exp_m1()),
        Act::Celu { alpha } => cut(x, f64::from(alpha) * (x / f64::from(alpha)).exp_m1()),
        Act::Selu { alpha, gamma } => f64::from(gamma) * cut(x, f64::from(alpha) * x.exp_m1()),
        Act::Softplus => softplus(x),
        Act::Softsign => x / (1.0 + x.abs()),
        Act::Mish => x * softplus(x).tanh(),
    }
}

/// By its integral, Simpson's rule.
fn erf(x: f64) -> f64 {
    let (n, x) = (4000, x.clamp(-6.0, 6.0));
    let f = |i: usize| (-(x * i as f64 / n as f64).powi(2)).exp();
    let inner: f64 = (1..n).map(|i| f(i) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
    (f(0) + inner + f(n)) * x / n as f64 / 3.0 * 2.0 / std::f64::consts::PI.sqrt()
}

const ALL: &[Act] = &[
    Act::None,
    Act::Relu,
    Act::Clip { lo: -0.5, hi: 6.0 },
    Act::LeakyRelu { alpha: 0.1 },
    Act::ThresholdedRelu { alpha: 0.5 },
    Act::HardSigmoid {
        alpha: 0.2,
        beta: 0.4,
    },
    Act::HardSwish,
    Act::Sigmoid,
    Act::Tanh,
    Act::Silu { alpha: 1.0 },
    Act::Silu { alpha: 1.5 },
    Act::Gelu,
    Act::GeluTanh,
    Act::Elu { alpha: 0.7 },
    Act::Celu { alpha: 2.0 },
    Act::Selu {
        alpha: 1.6,
        gamma: 1.05,
    },
    Act::Softplus,
    Act::Softsign,
    Act::Mish,
];

#[test]
fn activations_are_near_their_formulas() {
    let x: Vec<f32> = (-400..400)
        .map(|i| i as f32 * 0.037)
        .chain([f32::NAN, -1e-6, 1e-6])
        .collect();
    for &act in ALL {
        let mut y = x.clone();
        // SAFETY: one row of the vector.
        unsafe { Post::from(act).apply_rows(y.as_mut_ptr(), 0, 1, x.len()) };
        for (&x, &y) in x.iter().zip(&y) {
            let want = reference(act, x.into());
            let near = (f64::from(y) - want).abs() <= 1e-6 * want.abs() + 3e-7 * f64::from(x.abs().max(0.01));
            assert!(
                near || (y.is_nan() && want.is_nan()),
                "{act:?}({x}) = {y}, expected {want}"
            );
        }
    }
}

#[test]
fn names_return() {
    for &act in ALL.iter().filter(|a| **a != Act::None) {
        let (name, params) = act.name().unwrap();
        assert_eq!(Act::named(name, &params), Some(act));
    }
    assert_eq!(Act::named("Clip", &[1.0]), None);
}

#[test]
fn scale_and_shift_come_last() {
    let mut y: Vec<f32> = (-9..12).map(|i| i as f32).collect();
    let post = Post {
        act: Act::Relu,
        scale: 2.0,
        shift: -1.0,
    };
    assert!(post.ending().is_some());
    // SAFETY: one row.
    unsafe { post.apply_rows(y.as_mut_ptr(), 0, 1, y.len()) };
    let want = (-9..12).map(|i| 2.0 * i.max(0) as f32 - 1.0);
    assert!(y.iter().copied().eq(want), "{y:?}");
}

#[test]
fn rows_leave_what_is_between() {
    let mut y = [-1.0; 60];
    // SAFETY: rows at 0, 20 and 40.
    unsafe { Post::from(Act::Relu).apply_rows(y.as_mut_ptr(), 20, 3, 17) };
    assert!(
        y.iter()
            .enumerate()
            .all(|(i, &y)| y == if i % 20 < 17 { 0.0 } else { -1.0 })
    );
}
