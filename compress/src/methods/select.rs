//! What goes by scores, whatever they are.

use std::borrow::Cow;
use std::sync::Arc;

use secateur_engine::Tensor;

use super::magnitude::{agree, blocks, masks, share};
use super::{Method, Scope, Task};
use crate::apply;
use crate::bytes::Bits;
use crate::change::{Change, Cut, Mask, Plan};
use crate::error::MethodError;
use crate::math::Kind;
use crate::math::layout::Layout;
use crate::observe::Stats;
use crate::pattern::Pattern;
use crate::weights::Weight;

/// Takes the weights, or blocks of them, of the least score, as magnitude pruning takes the smallest.
///
/// # Errors
///
/// If the goal is none of a method that scores, or scores cannot be made.
pub(super) fn decide(
    method: &(impl Method + ?Sized),
    task: &Task,
    seen: &Stats,
) -> Result<Plan, MethodError> {
    let share = share(method.name(), task.goal.amount)?;
    if let (Pattern::Unstructured, Some(why)) = (task.goal.pattern, method.together()) {
        return Err(MethodError::goal(format!(
            "method {} does not choose single weights: {why}",
            method.name()
        )));
    }
    let pattern = task.goal.pattern;
    if let Pattern::Most { keep, of } = pattern {
        agree(pattern, share, [keep, of])?;
    }
    let targets = task.targets()?;
    let size = match (task.goal.scope, pattern.share()) {
        (Scope::Global, None) => targets.len(),
        _ => 1,
    };
    let mut plan = vec![];
    for group in targets.chunks(size) {
        let scored = group.iter().map(|w| scored(method, task, w, seen));
        let scored: Vec<Weight> = scored.collect::<Result<_, _>>()?;
        plan.extend(choose(
            &scored.iter().collect::<Vec<_>>(),
            (share, method.rows()),
            task,
        )?);
    }
    Ok(Plan(plan))
}

fn choose(scored: &[&Weight], (share, rows): (f64, bool), task: &Task) -> Result<Vec<Change>, MethodError> {
    let effort = task.effort;
    let changes = match task.goal.pattern {
        Pattern::Unstructured if rows && task.goal.scope == Scope::Layer => {
            scored.iter().map(|w| by_rows(w, share)).collect()
        }
        Pattern::Unstructured => masks(scored, share, &effort),
        Pattern::Most { keep, .. } => blocks::most(scored, task.goal.pattern, keep),
        pattern => blocks::masks(scored, pattern, share, &effort),
    };
    changes.into_iter().map(|c| listed(c, scored)).collect()
}

/// The mask that makes the least scores of each output zero: so many of each that `share` of all outputs so far are, rounded. Of
/// equal ones the first stay; NaN stays.
fn by_rows(scored: &Weight, share: f64) -> Change {
    let scores = scored.tensor.elements::<f32>().unwrap_or(Cow::Borrowed(&[]));
    let mut gone = vec![false; scores.len()];
    let mut done = 0;
    let mut seen = 0;
    for mut row in rows(scored) {
        seen += row.len();
        let until = (share * seen as f64).round() as usize;
        row.retain(|&at| !scores[at].is_nan());
        row.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a)));
        row.iter().take(until - done).for_each(|&at| gone[at] = true);
        done = until;
    }
    Change::Mask(Mask {
        value: scored.name.clone(),
        elements: scored.elements(),
        tiles: None,
        cut: Cut::Listed(Bits::of(gone)),
    })
}

/// The places of the elements of each output, ascending; all together where outputs are not known.
fn rows(weight: &Weight) -> Vec<Vec<usize>> {
    let Some(layout) = weight.matrix.as_ref().map(Layout::of) else {
        return vec![(0..weight.tensor.len()).collect()];
    };
    let mut rows = vec![Vec::with_capacity(layout.columns); layout.groups * layout.outputs];
    let cells = layout.cells().into_iter().enumerate();
    cells.for_each(|(at, c)| rows[c.group * layout.outputs + c.output].push(at));
    rows
}

/// A mask over scores as one over the weights that have them.
fn listed(change: Change, scored: &[&Weight]) -> Result<Change, MethodError> {
    let Change::Mask(mask) = change else {
        return Ok(change);
    };
    if let Cut::Listed(_) = mask.cut {
        return Ok(Change::Mask(mask));
    }
    let scores = scored.iter().find(|w| w.name == mask.value);
    let scores = scores
        .and_then(|w| w.tensor.elements::<f32>())
        .unwrap_or(Cow::Borrowed(&[]));
    let bits = apply::gone(&mask, &scores);
    let bits = bits.ok_or_else(|| MethodError::goal(format!("no mask for {:?}: {mask}", mask.value)))?;
    Ok(Change::Mask(Mask {
        tiles: None,
        cut: Cut::Listed(bits),
        ..mask
    }))
}

/// `weight` with its scores in the place of its elements: 0 for those that are zero, above for others, and NaN for NaN.
fn scored(
    method: &(impl Method + ?Sized),
    task: &Task,
    weight: &Weight,
    seen: &Stats,
) -> Result<Weight, MethodError> {
    let name = &weight.name;
    let scores = method.scores(task.model, weight, seen)?;
    let elements = weight.tensor.floats().filter(|x| x.len() == scores.len());
    let elements =
        elements.ok_or_else(|| MethodError::unseen(format!("{name:?} has other elements than scores")))?;
    if scores.iter().any(|s| s.is_nan() || *s < 0.0) {
        return Err(MethodError::unseen(format!(
            "a score of {name:?} is no number of at least 0"
        )));
    }
    let one = |(&x, s): (&f64, f32)| match x {
        0.0 => 0.0,
        x if x.is_nan() => f32::NAN,
        _ => s.max(LEAST),
    };
    let scores = elements.iter().zip(scores).map(one).collect();
    Ok(Weight {
        tensor: Arc::new(Tensor::of(weight.tensor.dims(), scores)),
        kind: Kind::F32,
        ..weight.clone()
    })
}

/// The least score of a weight that is not zero.
const LEAST: f32 = f32::from_bits(1);
