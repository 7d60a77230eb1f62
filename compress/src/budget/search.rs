//! The way to a target, step by step, never past the budget.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use secateur_engine::Model;
use serde::{Deserialize, Serialize};

use super::Quantity;
use super::cost::{Costs, Sizes};
use super::ready::Ready;
use super::sense::{Curve, Part, Point, Subject, scored, sensitivity};
use super::state::State;
use super::target::Target;
use crate::math::allot::{Place, Rung, divide};
use crate::recover::RecoverError;
use crate::rounds::{self, School, Score, Turn};

/// What must not be lost, and what is wanted.
#[derive(Clone, Debug)]
pub struct Budget<'a> {
    /// By how much the model may be worse, as [`fall`] tells it: a share, 0.01 for a point.
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
    /// Seconds it took.
    pub seconds: f64,
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

/// Told of what happens.
pub type Told<'t> = &'t mut dyn FnMut(Event);

/// A model that was kept.
#[derive(Clone, Debug)]
pub struct Stage {
    /// The number of the step that made it.
    pub number: u32,
    /// The model.
    pub model: Model,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The best model within the budget.
    pub model: Model,
    /// All that were kept on the way to it, in the order of their steps; it is the last of them, if there is one.
    pub kept: Vec<Stage>,
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

/// What curves say will be.
#[derive(Clone, Debug)]
pub struct Foretold {
    /// The model, pruned, with nothing recovered.
    pub model: Model,
    /// What the first one cost.
    pub cost_before: f64,
    /// What this one is predicted to cost.
    pub cost: f64,
    /// What it was to cost at most.
    pub aim: f64,
    /// By name of a weight the share of its elements that is zero.
    pub shares: Vec<(String, f64)>,
}

/// Measures milliseconds of a run of the first model and of another, in turn; `None` if they cannot run. Only how the two compare counts,
/// however the machine is doing by then.
pub type Clock<'a> = &'a dyn Fn(&Model) -> Option<[f64; 2]>;

/// A search for what a [`Budget`] allows.
pub struct Search<'a> {
    /// What is pruned, and how.
    pub subject: Subject<'a>,
    /// What must not be lost, and what is wanted.
    pub budget: Budget<'a>,
    /// Tells what whole models take, where that is the target; predictions do where there is none.
    pub clock: Option<Clock<'a>>,
    /// Where the state is kept after each step, so that it can go on when it is stopped; models that were kept lie beside it, under names that
    /// begin so.
    pub checkpoint: Option<&'a Path>,
    /// Whether to go on where a checkpoint was written.
    pub resume: bool,
}

/// A step is at least this part of the way.
const LEAST: f64 = 1.0 / 32.0;

/// And at least this part of the whole way, where so much is left.
const SHORTEST: f64 = 0.05;

/// Steps that hold become longer by this factor.
const LONGER: f64 = 1.3;

/// What is predicted may be cheaper than it is to be by this part of the step.
const SLACK: f64 = 0.1;

/// In so many steps it is found what a model of the cost that is aimed at has.
const HALVINGS: u32 = 8;

/// Times are aimed at with so much to spare, since the next measurement differs a little.
const SPARE: f64 = 0.97;

impl Search<'_> {
    /// The curve of each weight of `model`; see [`sensitivity`].
    ///
    /// # Errors
    ///
    /// If the model cannot be pruned, run, or scored.
    pub fn curves(
        &self,
        model: &Model,
        school: &mut dyn School,
        told: Told,
    ) -> Result<Vec<Curve>, RecoverError> {
        let by = (self.quantity(), &self.budget.sizes);
        sensitivity(model, &self.subject, by, school, &mut |c| told(Event::Curve(c)))
    }

    /// Prunes `model` step by step, each at the weights that it hurts least for what it saves; after a step that breaks the budget
    /// even after recovery it goes on from the one before, half as far. Curves are measured by `scout`, which may look at fewer examples,
    /// or else by `school`.
    ///
    /// # Errors
    ///
    /// If the model cannot be pruned, run, scored or recovered, or the checkpoint is of another search.
    pub fn run(
        &self,
        model: &Model,
        (scout, school): (Option<&mut dyn School>, &mut dyn School),
        told: Told,
    ) -> Result<Found, RecoverError> {
        let saved = match (self.checkpoint, self.resume) {
            (Some(path), true) => State::load(path, self, model, school)?,
            _ => None,
        };
        let (state, kept) = match saved {
            Some(found) => found,
            None => {
                let curves = match scout {
                    Some(scout) => self.curves(model, scout, told)?,
                    None => self.curves(model, school, told)?,
                };
                (self.begin(model, curves, scored(school, model)?)?, vec![])
            }
        };
        let mut way = Way::new(self, model, state, kept);
        way.keep(model, school)?;
        way.go(model, school, told)?;
        Ok(way.found())
    }

    /// Where a search stands before the first step.
    fn begin(&self, model: &Model, mut curves: Vec<Curve>, before: Score) -> Result<State, RecoverError> {
        let cost = self.cost(model, None)?;
        // What the clock says of the whole is taken to hold for each part.
        let predicted = self.predicted(model)?;
        let scale = if predicted > 0.0 { cost / predicted } else { 1.0 };
        let points = curves.iter_mut().flat_map(|c| &mut c.points);
        points.for_each(|p| p.cost *= scale);
        let all: HashMap<&str, Part> = curves.iter().map(|c| (&*c.weight, c.part(cheapest(c)))).collect();
        let end = Ready::new(&self.subject, model)?.pruned(&|name| all.get(name).copied())?;
        Ok(State {
            before,
            cost,
            least: scale * self.predicted(&end)?,
            scale,
            bias: 1.0,
            stride: 0.5,
            curves,
            tries: vec![],
            broken: vec![],
        })
    }

    /// What the `curves` of `model` foretell: the share of zeros of each weight at which the target is met, or all that there are where it
    /// cannot be, and nothing is recovered.
    ///
    /// # Errors
    ///
    /// If the model does not run.
    pub fn foretold(&self, model: &Model, curves: Vec<Curve>) -> Result<Foretold, RecoverError> {
        let none = Score {
            loss: 0.0,
            accuracy: None,
        };
        let mut state = self.begin(model, curves, none)?;
        state.stride = 1.0;
        let way = Way::new(self, model, state, vec![]);
        let ready = Ready::new(&self.subject, model)?;
        let (shares, pruned) = way.chosen(&ready, way.aim())?;
        Ok(Foretold {
            cost_before: way.state.cost,
            cost: way.state.scale * self.predicted(&pruned)?,
            aim: self.budget.target.map_or(0.0, |t| t.most(way.state.cost)),
            shares: way
                .state
                .curves
                .iter()
                .map(|c| c.weight.clone())
                .zip(shares)
                .collect(),
            model: pruned,
        })
    }

    fn quantity(&self) -> Quantity {
        self.budget.target.map_or(Quantity::Ms, Target::quantity)
    }

    fn predicted(&self, model: &Model) -> Result<f64, RecoverError> {
        Ok(Costs::new(model, self.quantity(), &self.budget.sizes)?.whole)
    }

    /// What `model` costs, where the first one costs `first`, if that is known.
    fn cost(&self, model: &Model, first: Option<f64>) -> Result<f64, RecoverError> {
        let measured = || self.clock.and_then(|clock| clock(model));
        if self.quantity() != Quantity::Ms {
            return self.predicted(model);
        }
        match measured() {
            Some([old, new]) => Ok(first.map_or(new, |first| first * new / old)),
            None => self.predicted(model),
        }
    }

    /// What steps head for, of a model that cost `before`.
    fn wanted(&self, before: f64) -> f64 {
        let most = self.budget.target.map_or(0.0, |t| t.most(before));
        match self.quantity() {
            Quantity::Ms => SPARE * most,
            _ => most,
        }
    }
}

impl Curve {
    fn part(&self, share: f64) -> Part {
        Part {
            share,
            of: self.elements,
        }
    }
}

/// The share that costs least.
fn cheapest(curve: &Curve) -> f64 {
    let least = curve.points.iter().min_by(|a, b| a.cost.total_cmp(&b.cost));
    least.map_or(0.0, |p| p.sparsity)
}

/// A search under way.
struct Way<'a, 'b> {
    search: &'b Search<'a>,
    state: State,
    kept: Vec<Stage>,
    /// What was cheapest so far, its worth and its cost.
    now: (Model, Score, f64),
    /// The shares of each curve that the step under way takes.
    shares: Vec<f64>,
}

impl<'a, 'b> Way<'a, 'b> {
    fn new(search: &'b Search<'a>, model: &Model, state: State, kept: Vec<Stage>) -> Way<'a, 'b> {
        let last = kept.last().and_then(|stage| {
            let t = state.tries.iter().find(|t| t.number == stage.number)?;
            Some((stage.model.clone(), t.after, t.cost))
        });
        let now = last.unwrap_or((model.clone(), state.before, state.cost));
        Way {
            search,
            state,
            kept,
            now,
            shares: vec![],
        }
    }

    fn found(self) -> Found {
        let target = self.search.budget.target;
        let (model, after, cost) = self.now;
        Found {
            model,
            kept: self.kept,
            before: self.state.before,
            after,
            cost_before: self.state.cost,
            cost,
            aim: target.map_or(0.0, |t| t.most(self.state.cost)),
            curves: self.state.curves,
            tries: self.state.tries,
        }
    }

    fn keep(&self, start: &Model, school: &dyn School) -> Result<(), RecoverError> {
        match self.search.checkpoint {
            Some(path) => self.state.keep(path, (self.search, start, school), &self.kept),
            None => Ok(()),
        }
    }

    /// Takes the steps that are left.
    fn go(&mut self, start: &Model, school: &mut dyn School, told: Told) -> Result<(), RecoverError> {
        let of = self.search.budget.tries.max(1);
        while (self.state.tries.len() as u32) < of && self.state.stride >= LEAST && self.now.2 > self.wanted()
        {
            let round = self.state.tries.len() as u32 + 1;
            let (turn, begun) = (Turn { round, of }, Instant::now());
            let next = self
                .next(turn, school, told)
                .map_err(|e| e.within(turn.round, turn.of))?;
            let Some(pruned) = next else { break };
            let step = self.step(turn, (pruned, begun), school, told);
            step.map_err(|e| e.within(turn.round, turn.of))?;
            self.keep(start, school)?;
            school.kept(turn);
            self.state
                .tries
                .iter()
                .last()
                .into_iter()
                .for_each(|t| told(Event::Try(t)));
        }
        Ok(())
    }

    fn wanted(&self) -> f64 {
        self.search.wanted(self.state.cost)
    }

    /// What the next step aims at.
    fn aim(&self) -> f64 {
        let least = (self.state.least * self.state.bias)
            .max(self.wanted())
            .min(self.now.2);
        let (left, whole) = (self.now.2 - least, self.state.cost - least);
        // The last little is one step, lest it be halved for ever.
        self.now.2 - (self.state.stride * left).max(SHORTEST * whole).min(left)
    }

    /// The model with what the next step takes away, and what makes up for that; none where there is nothing left.
    fn next(
        &mut self,
        turn: Turn,
        school: &mut dyn School,
        told: Told,
    ) -> Result<Option<Model>, RecoverError> {
        let (subject, now) = (&self.search.subject, self.now.0.clone());
        let ready = Ready::new(subject, &now)?;
        loop {
            let (shares, pruned) = self.chosen(&ready, self.aim())?;
            if self.state.broken.contains(&shares) {
                // Rungs far apart: the step is as long as the one that was taken back.
                self.state.stride /= 2.0;
                match self.state.stride < LEAST {
                    true => return Ok(None),
                    false => continue,
                }
            }
            if pruned != now {
                told(Event::Begin(turn));
                let parts = |name: &str| self.part(&shares, name);
                let tell = &mut |e: rounds::Event| told(Event::Rounds(e));
                let plan = school.prepare(turn, &now, ready.plan(&parts), (subject.effort.watch, tell))?;
                let pruned = ready.applied(&plan, &parts)?;
                self.shares = shares;
                return Ok(Some(pruned));
            }
            let broken = self.state.tries.iter().any(|t| t.verdict == Verdict::TakenBack);
            if broken || self.state.stride >= 1.0 {
                return Ok(None);
            }
            // Rungs lie farther apart than the step goes.
            self.state.stride = 1.0;
        }
    }

    /// Of what hurts least the first that is predicted to cost no more than `aim`, or the cheapest: the share of each curve, and the model.
    fn chosen(&self, ready: &Ready, aim: f64) -> Result<(Vec<f64>, Model), RecoverError> {
        let state = &self.state;
        let of = |most: f64| -> Result<_, RecoverError> {
            let shares = self.shares(most);
            let model = ready.sketched(&|name| self.part(&shares, name))?;
            let cost = state.scale * state.bias * self.search.predicted(&model)?;
            Ok((cost, (shares, model)))
        };
        let sum = |cost: fn(&Curve) -> f64| state.curves.iter().map(cost).sum::<f64>();
        let (least, own) = (
            sum(|c| c.points.iter().map(|p| p.cost).fold(f64::INFINITY, f64::min)),
            sum(first),
        );
        // What no curve has stays.
        let guess = (aim / state.bias - (state.cost - own)).max(least).min(own);
        let (cost, found) = of(guess)?;
        let (reached, slack) = (cost <= aim * (1.0 + 1e-9), SLACK * (self.now.2 - aim));
        if reached && cost >= aim - slack {
            return Ok(found);
        }
        // What goes together saves more or less than the sum of what each saves.
        let (mut low, mut high) = if reached { (guess, own) } else { (least, guess) };
        let mut best = if reached { found } else { of(least)?.1 };
        for _ in 0..HALVINGS {
            let middle = (low + high) / 2.0;
            let (cost, found) = of(middle)?;
            if cost <= aim {
                (low, best) = (middle, found);
            } else {
                high = middle;
            }
        }
        Ok(best)
    }

    /// Recovers `pruned` and judges it.
    fn step(
        &mut self,
        turn: Turn,
        (pruned, begun): (Model, Instant),
        school: &mut dyn School,
        told: Told,
    ) -> Result<(), RecoverError> {
        let aim = self.aim();
        let before = scored(school, &pruned)?;
        let weights = self.search.subject.marked(&pruned)?;
        let tell = &mut |e: rounds::Event| told(Event::Rounds(e));
        let better = match school.recover(turn, pruned.clone(), &weights, tell) {
            // Recovery that ends in no numbers is none.
            Err(e) if e.diverged() => pruned.clone(),
            other => other?,
        };
        let (mut model, mut after) = (pruned, before);
        let score = scored(school, &better)?;
        // Recovery that makes it worse is no recovery.
        if !score.is_worse(&before) {
            (model, after) = (better, score);
        }
        let cost = self.search.cost(&model, Some(self.state.cost))?;
        let verdict = self.verdict(&after);
        self.state.tries.push(Try {
            number: turn.round,
            aim,
            cost,
            sparsity: self.search.subject.gone(&model, &self.state.curves)?,
            before,
            after,
            verdict,
            seconds: begun.elapsed().as_secs_f64(),
        });
        match verdict {
            Verdict::Kept => {
                // What comes next is told by how it compares with this one.
                let predicted = self.state.scale * self.search.predicted(&model)?;
                if predicted > 0.0 {
                    self.state.bias = cost / predicted;
                }
                self.state.stride = (self.state.stride * LONGER).min(1.0);
                self.state.broken.clear();
                let number = turn.round;
                self.kept.push(Stage {
                    number,
                    model: model.clone(),
                });
                self.now = (model, after, cost);
            }
            Verdict::TakenBack => {
                self.state.stride /= 2.0;
                self.state.broken.push(std::mem::take(&mut self.shares));
            }
        }
        Ok(())
    }

    fn verdict(&self, after: &Score) -> Verdict {
        match holds(&self.state.before, after, self.search.budget.max_drop) {
            true => Verdict::Kept,
            false => Verdict::TakenBack,
        }
    }

    /// The share of each curve at which all together cost `most`, if what they save adds up.
    fn shares(&self, most: f64) -> Vec<f64> {
        let curves = &self.state.curves;
        let rungs = |c: &Curve| c.points.iter().map(|p| rung(&c.points[0], p)).collect();
        let ladders: Vec<Vec<Rung>> = curves.iter().map(rungs).collect();
        let each = curves.iter().zip(divide(&ladders, most));
        let share = |(c, place): (&Curve, Place)| match self.search.subject.steps(c) {
            true => c.points[place.to].sparsity,
            false => between(c, place),
        };
        each.map(share).collect()
    }

    fn part(&self, shares: &[f64], name: &str) -> Option<Part> {
        let curves = &self.state.curves;
        let at = curves.iter().position(|c| c.weight == name)?;
        Some(curves[at].part(shares[at]))
    }
}

/// What the weight, group or block of a curve costs as it is.
fn first(curve: &Curve) -> f64 {
    curve.points.first().map_or(0.0, |p| p.cost)
}

/// By how much `after` is worse than `before`, as a share: by so much accuracy fell; by this part of itself the loss rose, where there is
/// no accuracy. Below 0 it is better.
pub fn fall(before: &Score, after: &Score) -> f64 {
    match (before.accuracy, after.accuracy) {
        (Some(before), Some(after)) => before - after,
        _ if before.loss == after.loss => 0.0,
        _ => (after.loss - before.loss) / before.loss.abs(),
    }
}

/// Whether `after` is no more than `max_drop` worse than `before`.
pub fn holds(before: &Score, after: &Score, max_drop: f64) -> bool {
    // A point lost is a point lost, whatever its last bit; what is no number holds nothing.
    fall(before, after) <= max_drop + 1e-9
}

/// The share of zeros at which a curve costs what it does at `place`. Levels between the two rungs count: costs need not fall evenly.
fn between(c: &Curve, place: Place) -> f64 {
    let end = c.points[place.to].sparsity;
    if place.part >= 1.0 || place.from >= place.to {
        return end;
    }
    let wanted = place.at(|i| c.points[i].cost);
    let mut steps = c.points[place.from..=place.to].windows(2);
    steps.find(|w| w[1].cost <= wanted).map_or(end, |w| {
        let saved = w[0].cost - w[1].cost;
        let part = if saved > 0.0 {
            (w[0].cost - wanted) / saved
        } else {
            1.0
        };
        w[0].sparsity + part.clamp(0.0, 1.0) * (w[1].sparsity - w[0].sparsity)
    })
}

/// Harm beyond all that losses tell.
const WORST: f64 = 1e12;

/// What point `p` of a curve that begins with `start` costs and hurts.
fn rung(start: &Point, p: &Point) -> Rung {
    // Losses of a few examples fall by chance too; the more zeros, the worse. What is no number is as bad as can be.
    let rise = p.score.loss - start.score.loss;
    let rise = if rise.is_finite() { rise.max(0.0) } else { WORST };
    let harm = rise + 1e-9 * p.sparsity;
    Rung { cost: p.cost, harm }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(points: &[(f64, f64, f64)]) -> Curve {
        let point = |&(sparsity, loss, cost): &(f64, f64, f64)| Point {
            sparsity,
            score: Score { loss, accuracy: None },
            cost,
        };
        Curve {
            weight: "w".into(),
            cut: false,
            elements: 100,
            points: points.iter().map(point).collect(),
        }
    }

    #[test]
    fn where_costs_do_not_fall_at_first_a_share_goes_to_where_they_do() {
        let c = curve(&[
            (0.0, 0.0, 8.0),
            (0.5, 0.1, 8.0),
            (0.75, 0.2, 4.0),
            (0.9, 0.3, 0.0),
        ]);
        let at = |part| between(&c, Place { from: 0, to: 3, part });
        assert_eq!([0.25, 0.5, 1.0].map(at), [0.625, 0.75, 0.9]);
    }

    #[test]
    fn what_makes_the_loss_no_number_is_not_harmless() {
        let c = curve(&[(0.0, 0.5, 8.0), (0.5, f64::NAN, 4.0), (0.6, 0.4, 3.0)]);
        let harm = |i: usize| rung(&c.points[0], &c.points[i]).harm;
        assert!(harm(1) > 1e9 && harm(2) < 1e-6);
    }
}
