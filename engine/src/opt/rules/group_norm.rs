//! Normalisation of groups of channels, as PyTorch's exporters write it.

use super::read::{input, one};
use crate::expr::{Builder, Call, Ex};
use crate::ir::{Attr, AttrValue, DType, Dim, Tensor, ValueId};
use crate::opt::{Match, Pattern, Rule, Scope, Site, Why};

/// `Reshape(InstanceNormalization(Reshape(x, [n, groups, …]), 1, 0), shape of x) · scale + bias` becomes
/// `GroupNormalization`, with one scale and bias for each channel.
///
/// The operator had one of each for a group before opset 21; the attribute `stash_type`, which came then, says which is
/// meant.
pub(super) struct GroupNorm;

impl Rule for GroupNorm {
    fn name(&self) -> &'static str {
        "group-norm"
    }

    fn scope(&self) -> Scope {
        Scope::Engine
    }

    fn patterns(&self) -> Vec<Pattern> {
        let norm = |x: &[Ex<'_>]| {
            x[0].op("Reshape", &[x[1]])
                .op("InstanceNormalization", &[x[2], x[3]])
                .op("Reshape", &[x[4]])
                .id
        };
        vec![
            Pattern::loose(7, move |x| {
                Ex { id: norm(x), ..x[0] }
                    .op("Mul|Mul", &[x[5]])
                    .op("Add|Add", &[x[6]])
            }),
            Pattern::loose(5, move |x| Ex { id: norm(x), ..x[0] }),
        ]
    }

    fn rewrite<'a>(&self, m: &Match, site: &Site, b: &'a Builder) -> Result<Ex<'a>, Why> {
        let x = m.inputs[0];
        let instance = m
            .nodes
            .iter()
            .map(|&n| &site.graph[n])
            .find(|n| n.is("InstanceNormalization"));
        let instance = instance.ok_or(Why::NoEffect)?;
        let (grouped, back) = (
            input(instance, 0),
            m.nodes.iter().find(|&&n| site.graph[n].is("Reshape")),
        );
        let grouped = grouped
            .and_then(|v| site.shape(v))
            .ok_or(Why::No("the shape is not known"))?;
        let back = back
            .and_then(|&n| site.graph[n].outputs[0])
            .ok_or(Why::NoEffect)?;
        let shape = site.shape(x).ok_or(Why::No("the shape is not known"))?;
        let (Some(groups), Some(channels)) = (
            grouped.get(1).and_then(Dim::known),
            shape.get(1).and_then(Dim::size),
        ) else {
            return Err(Why::No("the number of channels or groups is not known"));
        };
        if grouped.len() < 3
            || !grouped[0].same(&shape[0])
            || channels as i64 % groups.max(1) != 0
            || groups < 1
        {
            return Err(Why::No("the groups are no groups of channels"));
        }
        if !site.alike(x, back) && !of_shape(site, m.inputs[4], x) {
            return Err(Why::No("the result is not known to have the shape of the input"));
        }
        let all = |v: ValueId, want: f64| {
            let t = site.facts.konst(v).and_then(|t| t.floats());
            t.is_some_and(|t| t.iter().all(|&x| x == want))
        };
        if !all(m.inputs[2], 1.0) || !all(m.inputs[3], 0.0) {
            return Err(Why::No("the groups have a scale or bias of their own"));
        }
        if site.dtype(x) != Some(DType::F32) {
            return Err(Why::No("the element type is not float"));
        }
        let epsilon = match instance.attr("epsilon") {
            Some(AttrValue::Float(e)) => e.unwrap_or(0.0),
            _ => 1e-5,
        };
        let line = |i: usize, default: f32| match m.inputs.get(i) {
            None => Ok(Tensor::of(&[channels], vec![default; channels])),
            Some(&v) => each_channel(site, v, channels, shape.len()),
        };
        let (scale, bias) = (line(5, 1.0)?, line(6, 0.0)?);
        let x = b.at(x);
        let call = Call {
            domain: "",
            op: "GroupNormalization",
            inputs: &[Some(x.id), Some(x.tensor(scale).id), Some(x.tensor(bias).id)],
            attrs: vec![
                Attr::new("num_groups", groups),
                Attr::new("epsilon", epsilon),
                Attr::new("stash_type", 1),
            ],
            outputs: 1,
        };
        Ok(x.call(call)[0])
    }
}

/// Whether `v` is the shape of `x`.
fn of_shape(site: &Site, v: ValueId, x: ValueId) -> bool {
    let shape = site.call(v, "Shape");
    shape.is_some_and(|n| {
        input(n, 0) == Some(x) && n.attr("start").is_none_or(|a| *a == 0.into()) && n.attr("end").is_none()
    })
}

/// The constant `v`, which has an element for each channel of a tensor of `rank` axes.
fn each_channel(site: &Site, v: ValueId, channels: usize, rank: usize) -> Result<Tensor, Why> {
    let t = site
        .facts
        .konst(v)
        .ok_or(Why::No("scale or bias is not constant"))?;
    let dims = t.dims();
    let shape: Vec<Dim> = dims.iter().map(|&d| Dim::from(d)).collect();
    let at = (dims.len() + 1).checked_sub(rank);
    let fits = at.is_some_and(|at| {
        dims.len() <= rank
            && dims.get(at) == Some(&channels)
            && shape.iter().enumerate().all(|(i, d)| i == at || one(d))
    });
    match t.reshaped(&[channels]).filter(|_| fits) {
        Some(t) if t.dtype() == DType::F32 => Ok(t),
        _ => Err(Why::No("scale or bias has not one element a channel")),
    }
}
