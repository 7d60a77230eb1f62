//! What each group and each block of a model hurts and saves as it alone is cut.

use std::collections::BTreeMap;

use secateur_engine::Model;

use super::cost::{Costs, Sizes};
use super::sense::{Curve, Parts, Point, Subject, scored};
use super::target::Quantity;
use crate::change::{Keep, Plan};
use crate::error::MethodError;
use crate::glob::{names, nearest};
use crate::grain::Piece;
use crate::groups::Groups;
use crate::recover::RecoverError;
use crate::rounds::{School, Score};
use crate::trim::{ROUND_TO, Rank, Unit, thinned, together};
use crate::{Weight, groups, matches};

/// A model, ready to be cut.
pub(super) struct Cutting<'m, 's> {
    subject: &'s Subject<'s>,
    model: &'m Model,
    piece: Piece,
    found: Groups<'m>,
    /// Those of its groups that may become shorter.
    free: Vec<usize>,
    /// What may go as a whole.
    units: Vec<Unit>,
}

/// What is cut together.
enum Thing<'a> {
    Group(usize),
    Unit(&'a Unit),
}

impl<'m, 's> Cutting<'m, 's> {
    pub(super) fn new(
        subject: &'s Subject<'s>,
        model: &'m Model,
        piece: Piece,
    ) -> Result<Cutting<'m, 's>, RecoverError> {
        let sizes = subject.frame.sizes;
        let found = groups(model, sizes).map_err(MethodError::run)?;
        // What is both structured and whole competes by what it saves.
        let mut units = match piece {
            Piece::Structured => Unit::all(model, Piece::Block, sizes)?,
            _ if piece.kinds().is_empty() => Unit::all(model, piece, sizes)?,
            _ => vec![],
        };
        let keep = &subject.choice.keep;
        units.retain(|u| !keep.iter().any(|k| u.is_called(k)));
        let kept = |g: &crate::Group| {
            let names = || std::iter::once(&g.name).chain(g.axes.iter().map(|p| &p.constant));
            keep.iter().any(|k| names().any(|n| matches(k, n)))
        };
        let fits = |g: &crate::Group| piece.kinds().contains(&g.kind) && !kept(g);
        let free = (0..found.groups.len()).filter(|&g| fits(&found.groups[g]));
        Ok(Cutting {
            free: free.collect(),
            found,
            subject,
            model,
            piece,
            units,
        })
    }

    fn things(&self) -> impl Iterator<Item = Thing<'_>> {
        let groups = self.free.iter().map(|&g| Thing::Group(g));
        groups.chain(self.units.iter().map(Thing::Unit))
    }

    fn name(&self, thing: &Thing) -> String {
        match thing {
            Thing::Group(g) => self.found.groups[*g].name.clone(),
            Thing::Unit(unit) => unit.name.clone(),
        }
    }

    fn size(&self, thing: &Thing) -> usize {
        match thing {
            Thing::Group(g) => self.found.groups[*g].size,
            Thing::Unit(_) => 1,
        }
    }

    /// How many indices and units of those that `curves` are of are there.
    pub(super) fn left(&self, curves: &[Curve]) -> u64 {
        let sizes = self.things().map(|t| (self.name(&t), self.size(&t)));
        let sizes: BTreeMap<String, usize> = sizes.collect();
        // What has one index left is no group any more.
        let one = |c: &Curve| usize::from(c.elements > 1);
        let left = |c: &Curve| sizes.get(&c.weight).copied().unwrap_or_else(|| one(c));
        curves.iter().map(|c| left(c) as u64).sum()
    }

    /// Of each group how important each index is.
    pub(super) fn scores(&self) -> Result<Vec<Vec<f64>>, RecoverError> {
        let Subject {
            method,
            shown,
            seed,
            frame,
            ..
        } = self.subject;
        let rank = Rank::new(self.model, (self.piece, frame), *method, *shown, *seed)?;
        Ok(rank.scores(&self.found)?)
    }

    /// What takes away what `parts` says is to be gone; what has less already stays as it is.
    pub(super) fn plan(&self, scores: &[Vec<f64>], parts: Parts) -> Plan {
        let keep = |&g: &usize| {
            let group = &self.found.groups[g];
            let part = parts(&group.name)?;
            let width = (part.of as f64 * (1.0 - part.share)).round().max(1.0) as usize;
            let constants = group.axes.iter().map(|p| p.constant.clone()).collect();
            (width < group.size).then(|| (constants, self.found.keep(g, &scores[g], width)))
        };
        let keeps: Vec<(Vec<String>, Keep)> = self.free.iter().filter_map(keep).collect();
        let goes = |u: &&Unit| parts(&u.name).is_some_and(|p| p.share >= 1.0);
        let units: Vec<&Unit> = self.units.iter().filter(goes).collect();
        together(keeps.into_iter(), &units, &self.subject.frame)
    }

    /// The shares that are tried of `thing`.
    fn levels(&self, thing: &Thing) -> Vec<f64> {
        match thing {
            Thing::Unit(_) => vec![1.0],
            Thing::Group(g) => {
                let size = self.found.groups[*g].size;
                let tried = thinned(self.found.narrower(*g, size, ROUND_TO));
                let share = |w: &usize| 1.0 - *w as f64 / size as f64;
                tried.iter().map(share).collect()
            }
        }
    }

    /// Whether there is something to cut, and all that is to be kept is there, if not among `others`.
    pub(super) fn check(&self, others: &[Weight]) -> Result<(), MethodError> {
        let groups = self.found.groups.iter();
        let groups = groups.flat_map(|g| std::iter::once(&g.name).chain(g.axes.iter().map(|p| &p.constant)));
        let names: Vec<&str> = groups
            .map(String::as_str)
            .chain(others.iter().flat_map(names))
            .collect();
        let units = Unit::all(self.model, Piece::Block, self.subject.frame.sizes)?;
        for glob in &self.subject.choice.keep {
            let called = units.iter().chain(&self.units).any(|u| u.is_called(glob));
            if !called && !names.iter().any(|n| matches(glob, n)) {
                return Err(MethodError::unmatched(glob, nearest(glob, names.into_iter())));
            }
        }
        match self.things().next() {
            Some(_) => Ok(()),
            None => Err(MethodError::nothing(
                "nothing to cut: the model has no group and no block of that kind that may go",
            )),
        }
    }

    /// The curve of each group and each unit; see [`sensitivity`](super::sensitivity).
    pub(super) fn curves(
        &self,
        scores: &[Vec<f64>],
        (start, school): (Score, &mut dyn School),
        (quantity, sizes): (Quantity, &Sizes),
        told: &mut dyn FnMut(&Curve),
    ) -> Result<Vec<Curve>, RecoverError> {
        let cost = |model: &Model| Ok::<_, RecoverError>(Costs::new(model, quantity, sizes)?.whole);
        let whole = cost(self.model)?;
        let mut curves = vec![];
        for thing in self.things() {
            let (name, of) = (self.name(&thing), self.size(&thing) as u64);
            let mut points = vec![Point {
                sparsity: 0.0,
                score: start,
                cost: whole,
            }];
            for share in self.levels(&thing) {
                let part = super::sense::Part { share, of };
                let only = |other: &str| (other == name).then_some(part);
                let model = self.subject.applied(self.model, &self.plan(scores, &only))?;
                points.push(Point {
                    sparsity: share,
                    score: scored(school, &model)?,
                    cost: cost(&model)?,
                });
            }
            let least = points.iter().map(|p| p.cost).fold(f64::INFINITY, f64::min);
            points.iter_mut().for_each(|p| p.cost -= least);
            let curve = Curve {
                weight: name,
                cut: true,
                elements: of,
                points,
            };
            told(&curve);
            curves.push(curve);
        }
        Ok(curves)
    }
}

#[cfg(test)]
mod tests;
