//! The functions that recurrent layers apply to their gates.

use crate::cpu::Act;
use crate::ops::{NodeRef, OpError};

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Squash {
    /// One that kernels have.
    Act(Act),
    /// `alpha x + beta`
    Affine(f32, f32),
    /// `alpha tanh(beta x)`
    ScaledTanh(f32, f32),
}

/// The names, and defaults of alpha and beta where they have them.
const NAMES: [(&str, &[f32]); 11] = [
    ("Affine", &[1.0, 0.0]),
    ("Elu", &[1.0]),
    ("HardSigmoid", &[0.2, 0.5]),
    ("LeakyRelu", &[0.01]),
    ("Relu", &[]),
    ("ScaledTanh", &[1.0, 1.0]),
    ("Sigmoid", &[]),
    ("Softplus", &[]),
    ("Softsign", &[]),
    ("Tanh", &[]),
    ("ThresholdedRelu", &[1.0]),
];

/// The functions of each of `directions` directions, `defaults` where the node does not name them.
///
/// # Errors
///
/// If one is unknown, or their number is another.
pub(super) fn functions(
    n: &NodeRef,
    defaults: &[&str],
    directions: usize,
) -> Result<Vec<Vec<Squash>>, OpError> {
    let given = n.strings("activations")?.filter(|l| !l.is_empty());
    let names: Vec<String> = match given {
        Some(l) => l
            .iter()
            .map(|s| String::from_utf8_lossy(s).into_owned())
            .collect(),
        None => defaults
            .repeat(directions)
            .iter()
            .map(|s| (*s).to_owned())
            .collect(),
    };
    if names.len() != defaults.len() * directions {
        return Err(OpError::new(format!(
            "attribute \"activations\" is {names:?}; expected {} for each of {directions} directions",
            defaults.len()
        )));
    }
    let mut alphas = n.floats("activation_alpha")?.unwrap_or(&[]).iter().copied();
    let mut betas = n.floats("activation_beta")?.unwrap_or(&[]).iter().copied();
    let mut all = vec![];
    for name in &names {
        let known = NAMES.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        let (name, defaults) =
            known.ok_or_else(|| OpError::new(format!("{name:?} is no activation of a recurrent layer")))?;
        let given = defaults.iter().enumerate().map(|(i, default)| {
            let next = if i == 0 { alphas.next() } else { betas.next() };
            next.unwrap_or(*default)
        });
        let parameters: Vec<f32> = given.collect();
        all.push(match (*name, &parameters[..]) {
            ("Affine", &[a, b]) => Squash::Affine(a, b),
            ("ScaledTanh", &[a, b]) => Squash::ScaledTanh(a, b),
            (name, parameters) => Squash::Act(
                Act::named(name, parameters)
                    .ok_or_else(|| OpError::new(format!("{name:?} is no activation")))?,
            ),
        });
    }
    Ok(all.chunks(defaults.len()).map(<[Squash]>::to_vec).collect())
}

impl Squash {
    /// Its exact value.
    pub(super) fn exact(self, x: f64) -> f64 {
        let wide = f64::from;
        match self {
            Squash::Affine(a, b) => wide(a) * x + wide(b),
            Squash::ScaledTanh(a, b) => wide(a) * (wide(b) * x).tanh(),
            Squash::Act(act) => match act {
                Act::Elu { alpha } if x < 0.0 => wide(alpha) * x.exp_m1(),
                Act::HardSigmoid { alpha, beta } => (wide(alpha) * x + wide(beta)).clamp(0.0, 1.0),
                Act::LeakyRelu { alpha } if x < 0.0 => wide(alpha) * x,
                Act::Relu if x < 0.0 => 0.0,
                Act::Relu => x,
                Act::Sigmoid => 1.0 / (1.0 + (-x).exp()),
                Act::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
                Act::Softsign => x / (1.0 + x.abs()),
                Act::Tanh => x.tanh(),
                Act::ThresholdedRelu { alpha } if x <= wide(alpha) => 0.0,
                _ => x,
            },
        }
    }

    /// Applies it to each element.
    pub(super) fn apply(self, x: &mut [f32]) {
        match self {
            Squash::Affine(a, b) => x.iter_mut().for_each(|x| *x = a * *x + b),
            Squash::ScaledTanh(a, b) => {
                x.iter_mut().for_each(|x| *x *= b);
                Squash::Act(Act::Tanh).apply(x);
                x.iter_mut().for_each(|x| *x *= a);
            }
            Squash::Act(act) => act.apply(x),
        }
    }
}
