//! What goes by the time that it is predicted to save: widths at which kernels are faster, and whole blocks.

use std::collections::BTreeMap;

use secateur_engine::Model;

use super::climb::climb;
use super::unit::{self, Unit, importance};
use super::{First, Frame, Rank, Trim, followed, widths};
use crate::budget::{Costs, Quantity};
use crate::change::{Change, Keep, Narrow, Plan};
use crate::grain::Piece;
use crate::groups::Groups;
use crate::math::allot::Rung;
use crate::recover::RecoverError;
use crate::{Effort, apply_with};

/// Widths of a group that are tried at most.
const WIDTHS: usize = 6;

/// In so many steps it is found how much is needed.
const STEPS: u32 = 8;

/// The milliseconds that a run of `model` is predicted to take.
pub(super) fn amount(model: &Model, frame: &Frame) -> Result<f64, RecoverError> {
    let sizes = frame.times.ok_or_else(|| {
        RecoverError::wrong("a share of the time needs the shapes of the inputs, which are not known")
    })?;
    Ok(Costs::new(model, Quantity::Ms, sizes)?.whole)
}

/// What `trim` means by units, if it takes some.
fn units(trim: &Trim) -> Option<Piece> {
    match trim.piece {
        Piece::Structured => Some(Piece::Block),
        piece => piece.kinds().is_empty().then_some(piece),
    }
}

/// By name what may go, with its size.
type Free = Result<BTreeMap<String, usize>, RecoverError>;

/// What of `model` may go, groups and units. What is to be kept fits one of them.
pub(super) fn sizes(trim: &Trim, model: &Model, frame: &Frame) -> Free {
    let groups = |keep: &[String]| {
        let keep = keep.to_vec();
        widths::sizes(&Trim { keep, ..trim.clone() }, model, frame)
    };
    let Some(piece) = units(trim) else {
        return groups(&trim.keep);
    };
    let whole = |keep: &[String]| unit::sizes((piece, keep), model, frame);
    if trim.piece.kinds().is_empty() {
        return whole(&trim.keep);
    }
    let [narrow, gone] = [fitting(&trim.keep, &groups), fitting(&trim.keep, &whole)];
    let nowhere = |k: &&String| !narrow.contains(k) && !gone.contains(k);
    if let Some(k) = trim.keep.iter().find(nowhere) {
        return groups(std::slice::from_ref(k));
    }
    match (groups(&narrow), whole(&gone)) {
        (Ok(mut a), Ok(b)) => {
            a.extend(b);
            Ok(a)
        }
        (Ok(found), Err(_)) | (Err(_), Ok(found)) => Ok(found),
        (Err(e), Err(_)) => Err(e),
    }
}

/// Those of `keep` that fit something of what `free` finds.
fn fitting(keep: &[String], free: &dyn Fn(&[String]) -> Free) -> Vec<String> {
    let fits = |k: &&String| !matches!(free(std::slice::from_ref(k)), Err(e) if e.unmatched());
    keep.iter().filter(fits).cloned().collect()
}

/// A way for one group or unit to become less.
enum Ladder {
    /// What stays of a group, step by step.
    Group(Vec<Keep>),
    /// A unit goes.
    Unit(Unit),
}

impl Ladder {
    /// The changes of rung `at`; of the first there are none.
    fn change(&self, at: usize, frame: &Frame) -> Option<Change> {
        let at = at.checked_sub(1)?;
        Some(match self {
            Ladder::Group(keeps) => Change::Narrow(Narrow {
                sizes: frame.sizes.clone(),
                groups: vec![keeps.get(at)?.clone()],
            }),
            Ladder::Unit(unit) => unit.change.clone(),
        })
    }

    fn rungs(&self) -> usize {
        match self {
            Ladder::Group(keeps) => 1 + keeps.len(),
            Ladder::Unit(_) => 2,
        }
    }
}

/// What could go of a model, what each step would hurt, and what it would save.
struct Ways<'a> {
    model: &'a Model,
    frame: &'a Frame<'a>,
    ladders: Vec<Ladder>,
    rungs: Vec<Vec<Rung>>,
    /// By the name of a group the constants that it cuts.
    cut: BTreeMap<String, Vec<String>>,
}

pub(super) fn decide(
    trim: &Trim,
    model: &Model,
    (share, first): (f64, &First),
    rank: &Rank,
    frame: &Frame,
) -> Result<Plan, RecoverError> {
    let now = amount(model, frame)?;
    let target = first.whole * (1.0 - share);
    if now <= target {
        return Ok(Plan::default());
    }
    let mut ways = Ways {
        model,
        frame,
        ladders: vec![],
        rungs: vec![],
        cut: BTreeMap::new(),
    };
    if !trim.piece.kinds().is_empty() {
        ways.groups(&followed(model, frame)?, (trim, first), rank, now)?;
    }
    if let Some(piece) = units(trim) {
        ways.units(piece, first, rank, now)?;
    }
    ways.least(target - now, target)
}

impl Ways<'_> {
    /// What the change saves of `now`, as a cost that is less than none.
    fn saving(&self, change: Change, now: f64) -> Result<f64, RecoverError> {
        Ok(amount(&applied(self.model, Plan(vec![change]))?, self.frame)? - now)
    }

    fn push(&mut self, ladder: Ladder, harms: &[f64], now: f64) -> Result<(), RecoverError> {
        let mut rungs = vec![Rung { cost: 0.0, harm: 0.0 }];
        for (at, &harm) in (1..ladder.rungs()).zip(harms) {
            if let Some(change) = ladder.change(at, self.frame) {
                let cost = self.saving(change, now)?;
                rungs.push(Rung { cost, harm });
            }
        }
        self.ladders.push(ladder);
        self.rungs.push(rungs);
        Ok(())
    }

    fn groups(
        &mut self,
        found: &Groups,
        (trim, first): (&Trim, &First),
        rank: &Rank,
        now: f64,
    ) -> Result<(), RecoverError> {
        let all: Vec<usize> = (0..found.groups.len())
            .filter(|&g| first.sizes.contains_key(&found.groups[g].name))
            .collect();
        let curves = match rank {
            Rank::Harms(harms) => Some(harms.curves(found, &all)?),
            _ => None,
        };
        let shares = !matches!(rank, Rank::Scores { loss: true, .. });
        let losses = found.losses(&|name, t| rank.of(name, t), shares);
        for (g, group) in found.groups.iter().enumerate() {
            let Some(&width) = first.sizes.get(&group.name) else {
                continue;
            };
            let tried = thinned(found.narrower(g, width, trim.round_to));
            let index = |i: usize| losses[g].iter().map(|c| c[i]).sum::<f64>();
            let curve = curves.as_ref().map(|curves| curves.get(&g));
            let scores: Vec<f64> = match curve {
                // What nothing is known of stays.
                Some(None) => continue,
                Some(Some(curve)) => curve.scores(),
                None => (0..group.size).map(index).collect(),
            };
            let keeps: Vec<Keep> = tried.iter().map(|&n| found.keep(g, &scores, n)).collect();
            let lost = |k: &Keep| match curve.flatten() {
                Some(curve) => curve.at(group.size - k.keep.len()),
                None => harm(&losses[g], k, shares),
            };
            let harms: Vec<f64> = keeps.iter().map(lost).collect();
            let constants = group.axes.iter().map(|p| p.constant.clone());
            self.cut.insert(group.name.clone(), constants.collect());
            self.push(Ladder::Group(keeps), &harms, now)?;
        }
        Ok(())
    }

    fn units(&mut self, piece: Piece, first: &First, rank: &Rank, now: f64) -> Result<(), RecoverError> {
        let mut units = Unit::all(self.model, piece, self.frame.sizes)?;
        units.retain(|u| first.sizes.contains_key(&u.name));
        let scores = importance(&units, self.model, rank);
        let squares = scores.iter().map(|s| s * s).sum::<f64>() / scores.len().max(1) as f64;
        for (unit, score) in units.into_iter().zip(scores) {
            let tensor = |name: &String| self.model.graph.konst(self.model.graph.find(name)?);
            let judged = |name: &&String| tensor(name).is_some_and(|t| rank.of(name, t).is_some());
            let whole = unit.constants.iter().filter(judged).count() as f64;
            let harm = match rank {
                Rank::Harms(_) if score.is_infinite() => continue,
                Rank::Harms(_) | Rank::Scores { loss: true, .. } => score,
                // What comes in goes on: a block that adds what blocks usually do is as much as half of each of its constants.
                Rank::Squares => whole * (score * score / squares.max(f64::MIN_POSITIVE)).ln_1p(),
                Rank::Scores { .. } => whole * std::f64::consts::LN_2,
            };
            self.push(Ladder::Unit(unit), &[harm], now)?;
        }
        Ok(())
    }

    /// What hurts least of what makes the model take at most `target`; where savings add up, that is where they come to `most`. All
    /// that can go where that is not enough.
    fn least(&self, most: f64, target: f64) -> Result<Plan, RecoverError> {
        let reached = |at: &[usize]| Ok(amount(&applied(self.model, self.plan(at))?, self.frame)? <= target);
        Ok(self.plan(&climb(&self.rungs, most, STEPS, &reached)?))
    }

    /// What brings each ladder to its rung `at`.
    fn plan(&self, at: &[usize]) -> Plan {
        let chosen = || self.ladders.iter().zip(at).filter(|(_, at)| **at > 0);
        let units = chosen().filter_map(|(l, _)| match l {
            Ladder::Unit(unit) => Some(unit),
            Ladder::Group(_) => None,
        });
        let units: Vec<&Unit> = units.collect();
        let keeps = chosen().filter_map(|(l, at)| match l {
            Ladder::Group(keeps) => keeps.get(at - 1).cloned(),
            Ladder::Unit(_) => None,
        });
        let cut = |k: Keep| (self.cut[&k.group].clone(), k);
        unit::together(keeps.map(cut), &units, self.frame)
    }
}

/// What is lost of the constants of a group of which `keep` stays, by constant and index: the sum, or, of `shares`, minus the logarithm
/// of what is left of each, since what each layer hands on is a share of what it gets.
fn harm(losses: &[Vec<f64>], keep: &Keep, shares: bool) -> f64 {
    let lost = |c: &Vec<f64>| c.iter().sum::<f64>() - keep.keep.iter().map(|&i| c[i]).sum::<f64>();
    let each = losses.iter().map(|c| match shares {
        true => -(1.0 - lost(c)).max(f64::MIN_POSITIVE).ln(),
        false => lost(c),
    });
    each.sum()
}

/// At most so many of `widths`, evenly, the last among them.
pub(crate) fn thinned(widths: Vec<usize>) -> Vec<usize> {
    let n = widths.len();
    let places = (1..=WIDTHS.min(n)).map(|i| i * n / WIDTHS.min(n) - 1);
    places.map(|i| widths[i]).collect()
}

fn applied(model: &Model, plan: Plan) -> Result<Model, RecoverError> {
    let mut new = model.clone();
    apply_with(&plan, &mut new, &Effort::default(), None)?;
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_each_constant_is_multiplied() {
        let losses = vec![vec![0.5, 0.25, 0.25], vec![0.1, 0.1, 0.3]];
        let keep = Keep {
            group: "g".into(),
            size: 3,
            keep: vec![0, 1],
        };
        assert!((harm(&losses, &keep, true) + (0.75f64 * 0.7).ln()).abs() < 1e-12);
        assert!((harm(&losses, &keep, false) - 0.55).abs() < 1e-12);
    }

    #[test]
    fn widths_are_thinned_evenly_down_to_the_last() {
        assert_eq!(thinned(vec![]), [0usize; 0]);
        assert_eq!(thinned(vec![32, 16]), [32, 16]);
        assert_eq!(thinned((1..=12).rev().collect()), [11, 9, 7, 5, 3, 1]);
    }
}
