//! Batch normalisation folded into the convolution before it.

use crate::expr::{Builder, Call, Ex};
use crate::ir::{DType, Tensor, ValueId};
use crate::opt::{Match, Pattern, Rule, Scope, Site, Why};

/// `BatchNormalization(Conv(x, w, b))` becomes `Conv(x, w', b')` with, for each output channel `o`,
/// `w'[o] = w[o]·scale[o]/√(var[o]+ε)` and `b'[o] = (b[o]-mean[o])·scale[o]/√(var[o]+ε) + bias[o]`, computed in `f64`.
///
/// Not if a weight or a statistic is not constant, in training mode, if the weights have another reader that needs them
/// as they are (they are then copied, which would make the model larger), or in another type than `float`.
pub(super) struct ConvBatchNorm;

impl Rule for ConvBatchNorm {
    fn name(&self) -> &'static str {
        "conv-batchnorm"
    }

    fn scope(&self) -> Scope {
        Scope::Portable
    }

    fn patterns(&self) -> Vec<Pattern> {
        vec![Pattern::loose(6, |x| {
            x[0].op("Conv", &[x[1]]).op("BatchNormalization", &x[2..6])
        })]
    }

    fn rewrite<'a>(&self, m: &Match, site: &Site, b: &'a Builder) -> Result<Ex<'a>, Why> {
        let [norm, conv] = m.nodes[..] else {
            return Err(Why::NoEffect);
        };
        let (norm, conv) = (&site.graph[norm], &site.graph[conv]);
        let n = site.facts.view(norm, site.opset);
        let no = |_| Why::No("an attribute is of the wrong kind");
        if crate::ops::batchnorm::trains(&n).map_err(no)? || norm.outputs.len() != 1 {
            return Err(Why::No("batch normalisation in training mode"));
        }
        let epsilon = f64::from(n.float_or("epsilon", 1e-5).map_err(no)?);
        let constant = |v: ValueId| site.facts.konst(v).filter(|t| t.dtype() == DType::F32);
        let floats = |v: ValueId| {
            constant(v)
                .and_then(|t| t.floats())
                .ok_or(Why::No("a parameter is not constant"))
        };
        let w = constant(m.inputs[1]).ok_or(Why::No("the weights are not a float constant"))?;
        let statistics = m.inputs[2..]
            .iter()
            .map(|&v| floats(v))
            .collect::<Result<Vec<_>, _>>()?;
        let channels = w.dims().first().copied().unwrap_or(0);
        let old = match conv.inputs.get(2).copied().flatten() {
            Some(v) => floats(v)?,
            None => vec![0.0; channels],
        };
        if channels == 0 || statistics.iter().chain([&old]).any(|s| s.len() != channels) {
            return Err(Why::No("the parameters do not have one element a channel"));
        }
        let factor: Vec<f64> = (0..channels)
            .map(|o| statistics[0][o] / (statistics[3][o] + epsilon).sqrt())
            .collect();
        let bias: Vec<f64> = (0..channels)
            .map(|o| (old[o] - statistics[2][o]) * factor[o] + statistics[1][o])
            .collect();
        let x = b.at(m.inputs[0]);
        let w = x.tensor(scaled(w, &factor).ok_or(Why::No("the weights are not a float constant"))?);
        let bias = x.tensor(Tensor::of(
            &[channels],
            bias.iter().map(|&x| x as f32).collect::<Vec<f32>>(),
        ));
        let call = Call {
            domain: "",
            op: "Conv",
            inputs: &[Some(x.id), Some(w.id), Some(bias.id)],
            attrs: conv.attrs.clone(),
            outputs: 1,
        };
        Ok(x.call(call)[0])
    }
}

/// `w[o]` times `factor[o]` for each `o`.
fn scaled(w: &Tensor, factor: &[f64]) -> Option<Tensor> {
    let each = w.len() / factor.len();
    let w_ = w.elements::<f32>()?;
    let data = w_
        .iter()
        .enumerate()
        .map(|(i, &x)| (f64::from(x) * factor[i / each.max(1)]) as f32);
    Some(Tensor::of(w.dims(), data.collect()))
}
