//! A model that is ready to be pruned: its groups and blocks are known, and what its method saw of it.

use secateur_engine::Model;

use super::cost::{Costs, Sizes};
use super::cut::Cutting;
use super::sense::{Curve, Part, Parts, Point, Subject, scored};
use super::target::Quantity;
use crate::change::Plan;
use crate::methods::{Amount, Goal, Method, Scope, Task, find};
use crate::recover::RecoverError;
use crate::rounds::{School, Score};
use crate::{Choice, Pattern, Stats, Weight, apply_with, observe};

/// A model, ready to be pruned.
pub(super) struct Ready<'m, 's> {
    subject: &'s Subject<'s>,
    model: &'m Model,
    /// What may be cut, and how important each index of it is.
    cuts: Option<(Cutting<'m, 's>, Vec<Vec<f64>>)>,
    zeros: Option<Zeroing<'m, 's>>,
}

impl<'m, 's> Ready<'m, 's> {
    pub(super) fn new(subject: &'s Subject<'s>, model: &'m Model) -> Result<Ready<'m, 's>, RecoverError> {
        let cuts = match subject.pattern.piece() {
            Some(piece) => {
                let cutting = Cutting::new(subject, model, piece)?;
                let scores = cutting.scores()?;
                Some((cutting, scores))
            }
            None => None,
        };
        let zeros = subject.pattern.zeros();
        Ok(Ready {
            subject,
            model,
            cuts,
            zeros: zeros.map(|p| Zeroing::new(subject, model, p)).transpose()?,
        })
    }

    /// Whether there is something to cut, and all that is to be kept is there.
    pub(super) fn check(&self) -> Result<(), RecoverError> {
        let weights = self.zeros.as_ref().map_or(&[][..], |z| &z.weights);
        match &self.cuts {
            Some((cutting, _)) => {
                let include = Choice {
                    keep: vec![],
                    ..self.subject.choice.clone()
                };
                include.mark(&mut weights.to_vec())?;
                Ok(cutting.check(weights)?)
            }
            None => Ok(()),
        }
    }

    /// The curves of what is cut, then those of weights.
    pub(super) fn curves(
        &self,
        (start, school): (Score, &mut dyn School),
        by: (Quantity, &Sizes),
        told: &mut dyn FnMut(&Curve),
    ) -> Result<Vec<Curve>, RecoverError> {
        let mut curves = vec![];
        if let Some((cutting, scores)) = &self.cuts {
            curves = cutting.curves(scores, (start, school), by, told)?;
        }
        if let Some(zeros) = &self.zeros {
            curves.extend(zeros.curves((start, school), by, told)?);
        }
        Ok(curves)
    }

    /// What cuts away what `parts` says is to be gone.
    pub(super) fn plan(&self, parts: Parts) -> Plan {
        let plan = self
            .cuts
            .as_ref()
            .map(|(cutting, scores)| cutting.plan(scores, parts));
        plan.unwrap_or_default()
    }

    /// The model after `plan`, and with what `parts` says is to be zero.
    pub(super) fn applied(&self, plan: &Plan, parts: Parts) -> Result<Model, RecoverError> {
        if plan.0.is_empty() {
            let zeros = self.zeros.as_ref().map(|z| z.pruned(parts));
            return zeros.unwrap_or_else(|| Ok(self.model.clone()));
        }
        let cut = self.subject.applied(self.model, plan)?;
        match self.subject.pattern.zeros() {
            Some(pattern) => Zeroing::new(self.subject, &cut, pattern)?.pruned(parts),
            None => Ok(cut),
        }
    }

    /// A model of as many zeros in the same shapes, to tell costs by, for which the method need not see the model at work.
    pub(super) fn sketched(&self, parts: Parts) -> Result<Model, RecoverError> {
        let plan = self.plan(parts);
        let method: &dyn Method = find("magnitude").unwrap_or(self.subject.method);
        let subject = Subject {
            method,
            ..*self.subject
        };
        match self.subject.pattern.zeros().filter(|_| !plan.0.is_empty()) {
            Some(pattern) => {
                Zeroing::new(&subject, &subject.applied(self.model, &plan)?, pattern)?.pruned(parts)
            }
            None => self.applied(&plan, parts),
        }
    }

    /// The model without what `parts` says is to be gone or zero; what has less already stays as it is.
    pub(super) fn pruned(&self, parts: Parts) -> Result<Model, RecoverError> {
        self.applied(&self.plan(parts), parts)
    }
}

/// The weights of a model, and what its method saw of them.
struct Zeroing<'m, 's> {
    subject: &'s Subject<'s>,
    pattern: Pattern,
    model: &'m Model,
    weights: Vec<Weight>,
    stats: Stats,
}

impl<'m, 's> Zeroing<'m, 's> {
    fn new(
        subject: &'s Subject<'s>,
        model: &'m Model,
        pattern: Pattern,
    ) -> Result<Zeroing<'m, 's>, RecoverError> {
        let weights = subject.marked(model)?;
        let targets: Vec<&Weight> = weights.iter().filter(|w| w.exempt.is_none()).collect();
        let stats = match (subject.method.needs(), subject.shown) {
            ([], _) => Stats::seeded(subject.seed),
            (needs, Some(shown)) => observe(model, &targets, needs, shown)?,
            (_, None) => return Err(RecoverError::unshown(subject.method)),
        };
        Ok(Zeroing {
            subject,
            pattern,
            model,
            weights,
            stats,
        })
    }

    /// The weights to prune.
    fn targets(&self) -> impl Iterator<Item = &Weight> {
        self.weights.iter().filter(|w| w.exempt.is_none())
    }

    /// The model with a share of each weight zero, as `parts` says; what has as many zeros stays as it is.
    fn pruned(&self, parts: Parts) -> Result<Model, RecoverError> {
        let (subject, mut new) = (self.subject, self.model.clone());
        for w in self.targets() {
            let share = parts(&w.name).map(|p| p.share);
            let Some(share) = share.filter(|s| *s > zeros(w)) else {
                continue;
            };
            let task = Task {
                model: self.model,
                weights: std::slice::from_ref(w),
                goal: Goal {
                    amount: Amount::Sparsity(share),
                    scope: Scope::Layer,
                    pattern: self.pattern,
                },
                effort: subject.effort,
            };
            let plan = subject.method.decide(&task, &self.stats)?;
            apply_with(&plan, &mut new, &subject.effort, None)?;
        }
        Ok(new)
    }

    fn curves(
        &self,
        (start, school): (Score, &mut dyn School),
        (quantity, sizes): (Quantity, &Sizes),
        told: &mut dyn FnMut(&Curve),
    ) -> Result<Vec<Curve>, RecoverError> {
        let costs = self.level_costs(quantity, sizes)?;
        let cost = |at: &Costs, w: &Weight| at.of.get(&w.name).copied().unwrap_or(0.0);
        let mut curves = vec![];
        for w in self.targets() {
            let mut points = vec![Point {
                sparsity: zeros(w),
                score: start,
                cost: cost(&costs[0], w),
            }];
            let levels = self.subject.levels().into_iter().zip(&costs[1..]);
            for (level, costs) in levels.filter(|(l, _)| *l > zeros(w)) {
                let part = Part {
                    share: level,
                    of: w.elements(),
                };
                let only = |other: &str| (other == w.name).then_some(part);
                points.push(Point {
                    sparsity: level,
                    score: scored(school, &self.pruned(&only)?)?,
                    cost: cost(costs, w),
                });
            }
            let curve = Curve {
                weight: w.name.clone(),
                cut: false,
                elements: w.elements(),
                points,
            };
            told(&curve);
            curves.push(curve);
        }
        Ok(curves)
    }

    /// The costs of the model as it is, and with all its weights at each of the levels.
    fn level_costs(&self, quantity: Quantity, sizes: &Sizes) -> Result<Vec<Costs>, RecoverError> {
        let mut all = vec![Costs::new(self.model, quantity, sizes)?];
        for level in self.subject.levels() {
            let pruned = self.pruned(&|_| Some(Part { share: level, of: 0 }))?;
            all.push(Costs::new(&pruned, quantity, sizes)?);
        }
        Ok(all)
    }
}

fn zeros(w: &Weight) -> f64 {
    w.tensor.zeros_count() as f64 / w.tensor.len() as f64
}
