//! Methods that look at nothing but the file.

use secateur_engine::ir::{Model, Node, ValueId};

use super::Method;
use crate::error::MethodError;
use crate::math::chance::Stream;
use crate::math::layout::{Cell, Layout};
use crate::observe::Stats;
use crate::weights::Weight;

/// Pruning at random: what other methods have to beat. Which weights go follows from the seed and their places.
pub(super) struct Random;

impl Method for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn about(&self) -> &'static str {
        "Draws the weights that become zero: what others have to beat."
    }

    fn scores(&self, _: &Model, weight: &Weight, seen: &Stats) -> Result<Vec<f32>, MethodError> {
        let chance = Stream::new(seen.seed, &weight.name);
        Ok((0..weight.elements()).map(|i| chance.at(i) as f32).collect())
    }
}

/// Outputs by the scale of the batch normalisation that follows (Liu et al. 2017, arXiv:1708.06519): for rows and channels.
pub(super) struct NormScale;

impl Method for NormScale {
    fn name(&self) -> &'static str {
        "bn-scale"
    }

    fn about(&self) -> &'static str {
        "Takes outputs whose batch normalisation has the smallest scale."
    }

    fn together(&self) -> Option<&'static str> {
        Some("all weights of an output have the same scale; use --pattern row")
    }

    fn without(&self, model: &Model, weight: &Weight) -> Option<String> {
        scale(model, weight).err()
    }

    fn scores(&self, model: &Model, weight: &Weight, _: &Stats) -> Result<Vec<f32>, MethodError> {
        let why = |why: String| MethodError::unseen(format!("{:?}: {why}", weight.name));
        let (layout, scale) = scale(model, weight).map_err(why)?;
        let one = |c: Cell| scale[c.group * layout.outputs + c.output].abs() as f32;
        Ok(layout.cells().into_iter().map(one).collect())
    }
}

/// The scale of the one norm that reads what the one reader of `weight` makes, a number for each output; or why there is none.
fn scale(model: &Model, weight: &Weight) -> Result<(Layout, Vec<f64>), String> {
    let scale = norm(model, weight).ok_or("no batch normalisation follows, and nothing else")?;
    let layout = weight.matrix.as_ref().map(Layout::of);
    let layout = layout.filter(|l| l.groups * l.outputs == scale.len());
    let layout = layout.ok_or("its outputs are not those of the batch normalisation that follows")?;
    Ok((layout, scale))
}

fn norm(model: &Model, weight: &Weight) -> Option<Vec<f64>> {
    let g = &model.graph;
    let v = g.find(&weight.value)?;
    let reader = |v: ValueId| {
        let mut all = g.iter().map(|(_, n)| n).filter(|n| n.inputs.contains(&Some(v)));
        let first: &Node = all.next()?;
        all.next().is_none().then_some(first)
    };
    let made = reader(v)?.outputs.first().copied().flatten()?;
    let norm = reader(made).filter(|n| n.is("BatchNormalization"))?;
    g.konst(norm.inputs.get(1).copied().flatten()?)?.floats()
}
