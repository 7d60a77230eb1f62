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
        let share = share(self.name(), task.goal.amount)?;
        if task.goal.scope == Scope::Global && task.goal.pattern.share().is_none() {
            let what = "method sparsegpt makes each layer right by itself; use --scope layer";
            return Err(MethodError::goal(what));
        }
        let take = |inputs| match task.goal.pattern {
            Pattern::Unstructured => Ok(Wanted::Share(share)),
            Pattern::Most { keep, of } => {
                agree(task.goal.pattern, share, [keep, of])?;
                Ok(Wanted::Each(Take::AllBut { keep, of, inputs }))
            }
            pattern => Err(MethodError::goal(format!(
                "method sparsegpt takes single weights, or N of M; not pattern {pattern}"
            ))),
        };
        let change = |w: &Weight| {
            let layer = Layer::of(w, seen)?;
            let takes = match take(layer.layout.inputs)? {
                Wanted::Each(take) => vec![take; layer.layout.groups],
                Wanted::Share(share) => layer.spread(&self.scores(task.model, w, seen)?, share),
            };
            layer.pruned(w, &takes, task.effort.threads)
        };
        Ok(Plan(
            task.targets()?
                .into_iter()
                .map(change)
                .collect::<Result<_, _>>()?,
        ))
    }
}

/// What goes of a layer.
enum Wanted {
    /// A share of all its matrices together.
    Share(f64),
    /// The same of each.
    Each(Take),
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

    /// How many weights go of each matrix, so that `share` of all go, the least of `scores`: exactly `round(share · n)`.
    fn spread(&self, scores: &[f32], share: f64) -> Vec<Take> {
        let score = |at: usize| {
            if self.elements[at] == 0.0 {
                -1.0
            } else {
                scores[at]
            }
        };
        let mut order: Vec<(usize, Cell)> = self.layout.cells().into_iter().enumerate().collect();
        order.sort_by(|a, b| score(a.0).total_cmp(&score(b.0)).then(b.0.cmp(&a.0)));
        let mut counts = vec![0; self.layout.groups];
        let gone = (share * order.len() as f64).round() as usize;
        order.iter().take(gone).for_each(|(_, c)| counts[c.group] += 1);
        counts.into_iter().map(Take::Count).collect()
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
