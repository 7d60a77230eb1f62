//! What follows a convolution and does the same to all of a channel, folded into its weights.

use super::read::int;
use crate::expr::{Builder, Call, Ex};
use crate::ir::{DType, Node, Tensor, ValueId};
use crate::opt::{Match, Pattern, Rule, Scope, Site, Why};

/// `BatchNormalization(Conv(x, w, b))`, and of `ConvTranspose` in one group, becomes `Conv(x, w', b')` with, for each output channel `o`,
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
            x[0].op("Conv|ConvTranspose", &[x[1]])
                .op("BatchNormalization", &x[2..6])
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
        let linear = Linear::of(site, conv)?;
        let statistics = m.inputs[2..]
            .iter()
            .map(|&v| floats(site, v))
            .collect::<Result<Vec<_>, _>>()?;
        if statistics.iter().any(|s| s.len() != linear.bias.len()) {
            return Err(CHANNELS);
        }
        let factor = |o: usize| statistics[0][o] / (statistics[3][o] + epsilon).sqrt();
        let shift = |o: usize| statistics[1][o] - statistics[2][o] * factor(o);
        linear.after(b, factor, shift)
    }
}

/// A product with a constant that is the same for all of a channel, or the sum of one and a convolution, is a convolution with
/// other weights or another bias.
///
/// Not under the conditions of [`ConvBatchNorm`].
pub(super) struct ConvAffine;

impl Rule for ConvAffine {
    fn name(&self) -> &'static str {
        "conv-affine"
    }

    fn scope(&self) -> Scope {
        Scope::Portable
    }

    fn patterns(&self) -> Vec<Pattern> {
        // Of two names for one place, because a sum or product by itself is matched as the whole chain.
        let after = |op: &'static str| {
            Pattern::loose(3, move |x| x[0].op("Conv|ConvTranspose", &[x[1]]).op(op, &[x[2]]))
        };
        vec![after("Mul|Mul"), after("Add|Add")]
    }

    fn rewrite<'a>(&self, m: &Match, site: &Site, b: &'a Builder) -> Result<Ex<'a>, Why> {
        let [root, conv] = m.nodes[..] else {
            return Err(Why::NoEffect);
        };
        // Before opset 7 axes were aligned otherwise.
        let constant = site.facts.konst(m.inputs[2]).filter(|_| site.opset >= 7);
        let constant = constant.ok_or(Why::NoEffect)?;
        let (root, conv) = (&site.graph[root], &site.graph[conv]);
        let linear = Linear::of(site, conv)?;
        let channels = linear.bias.len();
        let mut dims = vec![1; linear.w.dims().len().saturating_sub(constant.dims().len())];
        dims.extend(constant.dims());
        let along = dims
            .iter()
            .enumerate()
            .all(|(axis, &d)| d == 1 || (axis == 1 && d == channels));
        if !along || dims.len() != linear.w.dims().len() {
            return Err(Why::NoEffect);
        }
        let c = floats(site, m.inputs[2])?;
        let at = |o: usize| c[if c.len() == 1 { 0 } else { o }];
        match root.is("Mul") {
            true => linear.after(b, at, |_| 0.0),
            false => linear.after(b, |_| 1.0, at),
        }
    }
}

const CHANNELS: Why = Why::No("the parameters do not have one element a channel");

fn floats(site: &Site, v: ValueId) -> Result<Vec<f64>, Why> {
    let constant = site.facts.konst(v).filter(|t| t.dtype() == DType::F32);
    let floats = constant.and_then(|t| t.floats());
    floats.ok_or(Why::No("a parameter is not constant"))
}

/// A convolution with known weights.
struct Linear<'s> {
    conv: &'s Node,
    x: ValueId,
    w: &'s Tensor,
    bias: Vec<f64>,
    /// The axis of the weights that is that of the output's channels.
    axis: usize,
}

impl<'s> Linear<'s> {
    fn of(site: &'s Site, conv: &'s Node) -> Result<Linear<'s>, Why> {
        const WEIGHTS: Why = Why::No("the weights are not a float constant");
        let input = |i: usize| conv.inputs.get(i).copied().flatten();
        let (x, w) = (input(0).ok_or(Why::NoEffect)?, input(1).ok_or(Why::NoEffect)?);
        if site.links.readers(w).len() > 1 {
            return Err(Why::No("the weights are read elsewhere as well"));
        }
        let w = site
            .facts
            .konst(w)
            .filter(|t| t.dtype() == DType::F32)
            .ok_or(WEIGHTS)?;
        let axis = usize::from(conv.is("ConvTranspose"));
        if axis == 1 && int(conv, "group", 1) != 1 {
            return Err(Why::No("the convolution has groups"));
        }
        let channels = w.dims().get(axis).copied().unwrap_or(0);
        let bias = match input(2) {
            Some(v) => floats(site, v)?,
            None => vec![0.0; channels],
        };
        match channels > 0 && bias.len() == channels {
            true => Ok(Linear {
                conv,
                x,
                w,
                bias,
                axis,
            }),
            false => Err(CHANNELS),
        }
    }

    /// The convolution that gives `factor(o) y + shift(o)` in each channel `o`.
    fn after<'a>(
        &self,
        b: &'a Builder,
        factor: impl Fn(usize) -> f64,
        shift: impl Fn(usize) -> f64,
    ) -> Result<Ex<'a>, Why> {
        let channels = self.bias.len();
        let inner: usize = self.w.dims()[self.axis + 1..].iter().product();
        let old = self.w.elements::<f32>().ok_or(CHANNELS)?;
        let factors: Vec<f64> = (0..channels).map(factor).collect();
        let mut scaled = Vec::with_capacity(old.len());
        for (own, factor) in old.chunks(inner.max(1)).zip(factors.iter().cycle()) {
            scaled.extend(own.iter().map(|&x| (f64::from(x) * factor) as f32));
        }
        let bias = (0..channels).map(|o| (self.bias[o] * factors[o] + shift(o)) as f32);
        let x = b.at(self.x);
        let bias = x.tensor(Tensor::of(&[channels], bias.collect::<Vec<f32>>()));
        let w = x.tensor(Tensor::of(self.w.dims(), scaled));
        let call = Call {
            domain: "",
            op: &self.conv.op,
            inputs: &[Some(x.id), Some(w.id), Some(bias.id)],
            attrs: self.conv.attrs.clone(),
            outputs: 1,
        };
        Ok(x.call(call)[0])
    }
}
