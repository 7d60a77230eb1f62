//! The way to a target, step by step, never past the budget.

use secateur_engine::Model;
use serde::{Deserialize, Serialize};

use super::cost::{Costs, Sizes};
use super::sense::{Curve, Part, Point, Subject, scored, sensitivity};
use super::target::Target;
use crate::math::allot::{Rung, allot};
use crate::recover::RecoverError;
use crate::rounds::{self, School, Score, Turn};

/// What must not be lost, and what is wanted.
#[derive(Clone, Debug)]
pub struct Budget<'a> {
    /// By how much accuracy may fall: a share, 0.01 for a point; by how much the loss may rise, where there is no accuracy.
    pub max_drop: f64,
    /// How far to go; as far as the budget allows where nothing is said.
    pub target: Option<Target>,
    /// How many steps are tried at most, at least 1.
    pub tries: u32,
    /// How costs are told.
    pub sizes: Sizes<'a>,
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It was kept.
    Kept,
    /// It broke the budget and was taken back.
    TakenBack,
}

/// One step that was tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Try {
    /// Its number, from 1.
    pub number: u32,
    /// What was aimed at.
    pub aim: f64,
    /// What the model is predicted, or, for times, measured to cost.
    pub cost: f64,
    /// The share of the weights to prune that is zero.
    pub sparsity: f64,
    /// What the model was worth before recovery.
    pub before: Score,
    /// What it is worth after.
    pub after: Score,
    /// What came of it.
    pub verdict: Verdict,
}

/// What the search tells while it runs.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A curve is known.
    Curve(&'a Curve),
    /// A step begins.
    Begin(Turn),
    /// Recovery tells something.
    Rounds(rounds::Event<'a>),
    /// A step was tried.
    Try(&'a Try),
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The best model within the budget.
    pub model: Model,
    /// What the first one was worth.
    pub before: Score,
    /// What this one is worth.
    pub after: Score,
    /// What the first one cost.
    pub cost_before: f64,
    /// What this one costs.
    pub cost: f64,
    /// What it was to cost at most.
    pub aim: f64,
    /// What each weight hurts and saves.
    pub curves: Vec<Curve>,
    /// What was tried.
    pub tries: Vec<Try>,
}

impl Found {
    /// Whether it is as cheap as was wanted.
    pub fn reached(&self) -> bool {
        self.cost <= self.aim
    }
}

/// Measures milliseconds of a run; `None` if the model cannot run.
pub type Clock<'a> = &'a dyn Fn(&Model) -> Option<f64>;

/// A search for what a [`Budget`] allows.
pub struct Search<'a> {
    /// What is pruned, and how.
    pub subject: Subject<'a>,
    /// What must not be lost, and what is wanted.
    pub budget: Budget<'a>,
    /// Tells what whole models take, where that is the target; predictions do where there is none.
    pub clock: Option<Clock<'a>>,
}

/// A step is at least this part of the way.
const LEAST: f64 = 1.0 / 32.0;

impl Search<'_> {
    /// Prunes `model` step by step, each at the weights that it hurts least for what it saves; after a step that breaks the budget
    /// even after recovery it goes on from the one before, half as far.
    ///
    /// # Errors
    ///
    /// If the model cannot be pruned, run, scored or recovered.
    pub fn run(
        &self,
        model: &Model,
        school: &mut dyn School,
        told: &mut dyn FnMut(Event),
    ) -> Result<Found, RecoverError> {
        let by = (self.quantity(), &self.budget.sizes);
        let mut curves = sensitivity(model, &self.subject, by, school, &mut |c| told(Event::Curve(c)))?;
        let (before, cost) = (scored(school, model)?, self.cost(model)?);
        // What the clock says of the whole is taken to hold for each part.
        let predicted = Costs::new(model, self.quantity(), &self.budget.sizes)?.whole;
        let scale = if predicted > 0.0 { cost / predicted } else { 1.0 };
        let points = curves.iter_mut().flat_map(|c| &mut c.points);
        points.for_each(|p| p.cost *= scale);
        let least: f64 = cost - curves.iter().map(saving).sum::<f64>();
        let aim = self.budget.target.map_or(0.0, |t| t.most(cost));
        let mut way = Way {
            search: self,
            curves: &curves,
            least: least.max(aim),
            stride: 0.5,
            found: Found {
                model: model.clone(),
                before,
                after: before,
                cost_before: cost,
                cost,
                aim,
                curves: vec![],
                tries: vec![],
            },
        };
        for number in 1..=self.budget.tries.max(1) {
            let turn = Turn {
                round: number,
                of: self.budget.tries.max(1),
            };
            if way.found.reached() || way.stride < LEAST || !way.step(turn, school, told)? {
                break;
            }
        }
        let mut found = way.found;
        found.curves = curves;
        Ok(found)
    }

    fn quantity(&self) -> super::Quantity {
        self.budget.target.map_or(super::Quantity::Ms, Target::quantity)
    }

    fn cost(&self, model: &Model) -> Result<f64, RecoverError> {
        let measured = self.clock.and_then(|clock| clock(model));
        match (self.quantity(), measured) {
            (super::Quantity::Ms, Some(ms)) => Ok(ms),
            (quantity, _) => Ok(Costs::new(model, quantity, &self.budget.sizes)?.whole),
        }
    }
}

/// What the most zeros of a curve save.
fn saving(curve: &Curve) -> f64 {
    let costs = || curve.points.iter().map(|p| p.cost);
    costs().next().unwrap_or(0.0) - costs().fold(f64::INFINITY, f64::min)
}

/// A search under way.
struct Way<'a, 'b> {
    search: &'b Search<'a>,
    curves: &'b [Curve],
    /// What the last step aims at.
    least: f64,
    /// The part of what is left that the next step takes.
    stride: f64,
    found: Found,
}

impl Way<'_, '_> {
    /// Tries a step; whether there was one.
    fn step(
        &mut self,
        turn: Turn,
        school: &mut dyn School,
        told: &mut dyn FnMut(Event),
    ) -> Result<bool, RecoverError> {
        let least = self.least.min(self.found.cost);
        let aim = self.found.cost + self.stride * (least - self.found.cost);
        let shares = self.shares(aim);
        let subject = &self.search.subject;
        let pruned = subject.pruned(&self.found.model, &|name| self.part(&shares, name))?;
        if pruned == self.found.model {
            return Ok(self.farther());
        }
        told(Event::Begin(turn));
        let before = scored(school, &pruned)?;
        let weights = subject.marked(&pruned)?;
        let model = school.recover(turn, pruned, &weights, &mut |e| told(Event::Rounds(e)))?;
        let after = scored(school, &model)?;
        let cost = self.search.cost(&model)?;
        let verdict = self.verdict(&after);
        let tried = Try {
            number: turn.round,
            aim,
            cost,
            sparsity: self.search.subject.gone(&model, self.curves)?,
            before,
            after,
            verdict,
        };
        told(Event::Try(&tried));
        self.found.tries.push(tried);
        match verdict {
            Verdict::Kept => (self.found.model, self.found.after, self.found.cost) = (model, after, cost),
            Verdict::TakenBack => self.stride /= 2.0,
        }
        Ok(true)
    }

    /// Goes farther in the next step, if it can.
    fn farther(&mut self) -> bool {
        let broken = self.found.tries.iter().any(|t| t.verdict == Verdict::TakenBack);
        let more = self.stride < 1.0 && !broken;
        self.stride = 1.0;
        more
    }

    fn verdict(&self, after: &Score) -> Verdict {
        let fell = worth(&self.found.before) - worth(after);
        // A point lost is a point lost, whatever its last bit.
        match fell <= self.search.budget.max_drop + 1e-9 {
            true => Verdict::Kept,
            false => Verdict::TakenBack,
        }
    }

    /// The share of zeros of each curve at which all together cost at most `aim`.
    fn shares(&self, aim: f64) -> Vec<f64> {
        let rungs = |c: &Curve| c.points.iter().map(|p| rung(&c.points[0], p)).collect();
        let ladders: Vec<Vec<Rung>> = self.curves.iter().map(rungs).collect();
        let own: f64 = self.curves.iter().map(|c| c.points[0].cost).sum();
        // What no curve has stays.
        let rest = self.found.cost_before - own;
        let at = allot(&ladders, aim - rest);
        let points = self.curves.iter().zip(at);
        points.map(|(c, i)| c.points[i].sparsity).collect()
    }

    fn part(&self, shares: &[f64], name: &str) -> Option<Part> {
        let at = self.curves.iter().position(|c| c.weight == name)?;
        Some(Part {
            share: shares[at],
            of: self.curves[at].elements,
        })
    }
}

/// What is to be kept up: accuracy, or else a loss that does not rise.
fn worth(score: &Score) -> f64 {
    score.accuracy.unwrap_or(-score.loss)
}

/// What point `p` of a curve that begins with `start` costs and hurts.
fn rung(start: &Point, p: &Point) -> Rung {
    // Losses of a few examples fall by chance too; the more zeros, the worse.
    let harm = (p.score.loss - start.score.loss).max(0.0) + 1e-9 * p.sparsity;
    Rung { cost: p.cost, harm }
}
