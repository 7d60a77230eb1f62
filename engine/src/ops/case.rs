//! Cases: examples of operators as data, read by tests, benches and comparisons.

use crate::ir::{Attr, AttrValue, Tensor};

/// One example: inputs and attributes, and how closely kernels must agree with the reference.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is special about it.
    pub name: &'static str,
    /// The version at which the operator's domain is imported.
    pub opset: i64,
    /// The node's attributes.
    pub attrs: Vec<Attr>,
    /// The inputs; `None` where an optional one is left out.
    pub inputs: Vec<Option<Tensor>>,
    /// Which inputs are known before the model runs.
    pub konst: Vec<usize>,
    /// The number of outputs asked for.
    pub outputs: usize,
    /// Greatest absolute difference from the reference.
    pub atol: f64,
    /// Greatest relative difference from the reference, in addition.
    pub rtol: f64,
}

impl Case {
    /// A case at the newest opset, with one output, to be met exactly.
    pub fn new(name: &'static str, inputs: impl IntoIterator<Item = Tensor>) -> Case {
        Case {
            name,
            opset: 27,
            attrs: vec![],
            inputs: inputs.into_iter().map(Some).collect(),
            konst: vec![],
            outputs: 1,
            atol: 0.0,
            rtol: 0.0,
        }
    }

    /// With attribute `name`.
    pub fn attr(mut self, name: &'static str, value: impl Into<AttrValue>) -> Case {
        self.attrs.push(Attr::new(name, value));
        self
    }

    /// At version `opset`.
    pub fn opset(self, opset: i64) -> Case {
        Case { opset, ..self }
    }

    /// With `inputs` known before the model runs.
    pub fn konst(self, inputs: &[usize]) -> Case {
        Case {
            konst: inputs.to_vec(),
            ..self
        }
    }

    /// With input `i` left out.
    pub fn without(mut self, i: usize) -> Case {
        self.inputs[i] = None;
        self
    }

    /// With `n` outputs.
    pub fn outputs(self, n: usize) -> Case {
        Case { outputs: n, ..self }
    }

    /// Met within `atol + rtol * |reference|`.
    pub fn within(self, atol: f64, rtol: f64) -> Case {
        Case { atol, rtol, ..self }
    }
}

/// Floats that look random, uniform in `[-2, 2)`, the same for the same `seed` everywhere.
pub fn floats(dims: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u32 << 22) as f32 - 2.0
    };
    Tensor::of(
        dims,
        (0..dims.iter().product()).map(|_| next()).collect::<Vec<f32>>(),
    )
}

/// [`floats`] of which a share `zeros` is zero.
pub fn few_floats(dims: &[usize], seed: u64, zeros: f64) -> Tensor {
    let (x, there) = (floats(dims, seed), floats(dims, seed + 1000));
    let both = x.elements::<f32>().unwrap_or_default();
    let both = both
        .iter()
        .zip(there.elements::<f32>().unwrap_or_default().to_vec());
    let bound = 4.0 * zeros as f32 - 2.0;
    Tensor::of(
        dims,
        both.map(|(&x, y)| if y < bound { 0.0 } else { x }).collect(),
    )
}

/// [`floats`] with NaN, both infinities, both zeros, a denormal and the extremes in front, as far as they fit.
pub fn odd_floats(dims: &[usize], seed: u64) -> Tensor {
    let odd = [
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        0.0,
        -0.0,
        1e-40,
        f32::MAX,
        f32::MIN,
        0.5,
        -0.5,
    ];
    let usual = floats(dims, seed)
        .elements::<f32>()
        .map(std::borrow::Cow::into_owned)
        .unwrap_or_default();
    let data = usual
        .into_iter()
        .enumerate()
        .map(|(i, x)| odd.get(i).copied().unwrap_or(x));
    Tensor::of(dims, data.collect::<Vec<f32>>())
}

/// [`odd_floats`] without what overflows when it is squared.
pub fn tame_floats(dims: &[usize], seed: u64) -> Tensor {
    let all = odd_floats(dims, seed);
    let tame = |x: &f32| if x.is_finite() { x.clamp(-80.0, 80.0) } else { *x };
    let data = all.elements::<f32>().unwrap_or_default();
    Tensor::of(dims, data.iter().map(tame).collect())
}
