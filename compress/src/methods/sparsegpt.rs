//! Weights taken out one column after the other, the others set right.

use secateur_engine::Tensor;
use secateur_engine::ir::Model;

use super::magnitude::{agree, share};
use super::{Method, Scope, Task};
use crate::bytes::Raw;
use crate::change::{Change, Plan, Replace};
use crate::error::MethodError;
use crate::math::factor::inverse_factor;
use crate::math::layout::{Cell, Layout};
use crate::math::surgeon::{self, Take};
use crate::observe::{Need, Stats};
use crate::pattern::Pattern;
use crate::weights::Weight;

/// SparseGPT (Frantar and Alistarh 2023, arXiv:2301.00774): Optimal Brain Surgeon for each layer by itself, on the sum of products of
/// what it is multiplied by, with a hundredth of the mean diagonal added. What a layer is multiplied by is that of the model
/// before pruning.
pub(super) struct SparseGpt;

/// What is added to the diagonal, as a share of its mean.
const DAMPING: f64 = 0.01;

impl Method for SparseGpt {
    fn name(&self) -> &'static str {
        "sparsegpt"
    }

    fn about(&self) -> &'static str {
        "Takes weights layer by layer, and changes the others to make up for it."
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Products]
    }

    fn scope(&self) -> Scope {
        Scope::Layer
    }

    fn without(&self, _: &Model, weight: &Weight) -> Option<String> {
        let finite = weight
            .tensor
            .floats()
            .is_some_and(|x| x.iter().all(|x| x.is_finite()));
        (!finite).then(|| "it has infinite elements or NaN".into())
    }

    fn scores(&self, _: &Model, weight: &Weight, seen: &Stats) -> Result<Vec<f32>, MethodError> {
        let layer = Layer::of(weight, seen)?;
        let n = layer.layout.columns;
        let mut scores = vec![0.0f32; weight.tensor.len()];
        for group in 0..layer.layout.groups {
            let u = layer.factor(group)?;
            let loss =
                |(at, cell): (usize, Cell)| (at, surgeon::loss(layer.elements[at], &u, n, cell.column));
            let each = layer.cells(group).map(loss);
            each.for_each(|(at, loss)| scores[at] = (0.5 * loss) as f32);
        }
        Ok(scores)
    }

    fn decide(&self, task: &Task, seen: &Stats) -> Result<Plan, MethodError> {
        let (share, pattern) = (share(self.name(), task.goal.amount)?, task.goal.pattern);
        let targets = task.targets()?;
        let size = match task.goal.scope {
            Scope::Global => targets.len(),
            Scope::Layer => 1,
        };
        let mut plan = vec![];
        for group in targets.chunks(size) {
            let takes = match pattern {
                Pattern::Unstructured => self.spread(group, share, task, seen)?,
                Pattern::Most { keep, of } => {
                    agree(pattern, share, [keep, of])?;
                    group.iter().map(|w| all_but(w, keep, of)).collect()
                }
                pattern => {
                    let what = "method sparsegpt takes single weights, or N of M; not pattern";
                    return Err(MethodError::goal(format!("{what} {pattern}")));
                }
            };
            for (w, takes) in group.iter().zip(takes) {
                plan.push(Layer::of(w, seen)?.pruned(w, &takes, task.effort.threads)?);
            }
        }
        Ok(Plan(plan))
    }
}

impl SparseGpt {
    /// How many weights go of each matrix of each of `weights`, so that `share` of all go, those of the least scores: exactly
    /// `round(share · n)`.
    fn spread(
        &self,
        weights: &[&Weight],
        share: f64,
        task: &Task,
        seen: &Stats,
    ) -> Result<Vec<Vec<Take>>, MethodError> {
        let (mut counts, mut order) = (vec![], vec![]);
        for (i, w) in weights.iter().enumerate() {
            let scores = self.scores(task.model, w, seen)?;
            let layer = Layer::of(w, seen)?;
            let cells = layer.layout.cells().into_iter().zip(&layer.elements);
            let one = |((c, &x), s): ((Cell, &f64), f32)| (if x == 0.0 { -1.0 } else { s }, i, c.group);
            order.extend(cells.zip(scores).map(one));
            counts.push(vec![0; layer.layout.groups]);
        }
        let gone = (share * order.len() as f64).round() as usize;
        // Of equal ones the last go first.
        order.reverse();
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        order.iter().take(gone).for_each(|&(_, w, g)| counts[w][g] += 1);
        let takes = |n: Vec<usize>| n.into_iter().map(Take::Count).collect();
        Ok(counts.into_iter().map(takes).collect())
    }
}

/// What goes of each matrix of `weight` where `keep` of `of` neighbours stay.
fn all_but(weight: &Weight, keep: usize, of: usize) -> Vec<Take> {
    let layout = weight.matrix.as_ref().map(Layout::of);
    let takes = |l: Layout| {
        let inputs = l.inputs;
        vec![Take::AllBut { keep, of, inputs }; l.groups]
    };
    layout.map(takes).unwrap_or_default()
}

/// A weight with what is known of its inputs.
struct Layer<'a> {
    name: &'a str,
    layout: Layout,
    elements: Vec<f64>,
    products: &'a [f64],
}

impl<'a> Layer<'a> {
    fn of(weight: &'a Weight, seen: &'a Stats) -> Result<Layer<'a>, MethodError> {
        let name = &weight.name;
        let products = &seen.of(weight, |s| s.products.as_ref())?.0;
        let layout = weight.matrix.as_ref().map(Layout::of);
        let layout = layout.filter(|l| l.groups * l.columns * l.columns == products.len());
        let elements = weight.tensor.floats().filter(|x| x.iter().all(|x| x.is_finite()));
        match (layout, elements) {
            (Some(layout), Some(elements)) => Ok(Layer {
                name,
                layout,
                elements,
                products,
            }),
            (None, _) => Err(MethodError::unseen(format!(
                "what was seen is of another weight than {name:?}"
            ))),
            (_, None) => Err(MethodError::goal(format!(
                "{name:?} has infinite elements or NaN"
            ))),
        }
    }

    /// The places and cells of one matrix.
    fn cells(&self, group: usize) -> impl Iterator<Item = (usize, Cell)> {
        let all = self.layout.cells().into_iter().enumerate();
        all.filter(move |(_, c)| c.group == group)
    }

    /// See [`inverse_factor`], of one group.
    fn factor(&self, group: usize) -> Result<Vec<f64>, MethodError> {
        let n = self.layout.columns;
        let mut h = self.products[group * n * n..][..n * n].to_vec();
        let mean = (0..n).map(|i| h[i * n + i]).sum::<f64>() / n as f64;
        let more = if mean > 0.0 { DAMPING * mean } else { 1.0 };
        (0..n).for_each(|i| h[i * n + i] += more);
        let name = self.name;
        match inverse_factor(&mut h, n) {
            true => Ok(h),
            false => Err(MethodError::run(format!(
                "the inputs of {name:?} have no inverse; are they finite?"
            ))),
        }
    }

    fn pruned(mut self, weight: &Weight, takes: &[Take], threads: usize) -> Result<Change, MethodError> {
        let (n, outputs) = (self.layout.columns, self.layout.outputs);
        for (group, &take) in takes.iter().enumerate() {
            let u = self.factor(group)?;
            let cells: Vec<_> = self
                .cells(group)
                .map(|(at, c)| (at, c.output * n + c.column))
                .collect();
            let mut rows = vec![0.0; outputs * n];
            cells
                .iter()
                .for_each(|&(at, place)| rows[place] = self.elements[at]);
            surgeon::prune(&mut rows, &u, n, take, threads);
            cells
                .iter()
                .for_each(|&(at, place)| self.elements[at] = rows[place]);
        }
        let t = &weight.tensor;
        let new = Tensor::rounded(t.dtype(), t.dims(), &self.elements);
        let new =
            new.ok_or_else(|| MethodError::goal(format!("{:?} is no tensor of floats", weight.name)))?;
        Ok(Change::Replace(Replace {
            value: weight.name.clone(),
            elements: weight.elements(),
            data: Raw(new.bytes().to_vec()),
        }))
    }
}
