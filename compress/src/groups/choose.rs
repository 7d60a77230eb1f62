//! Which indices of which groups go.

use std::collections::{BTreeMap, HashMap};

use secateur_engine::Tensor;
use secateur_engine::ir::{DType, Dim};
use secateur_engine::plan::macs;
use serde::{Deserialize, Serialize};

use super::{Group, Groups, Held, Kind, Letter, Sizes, Space};
use crate::change::{Keep, Narrow};
use crate::error::MethodError;
use crate::glob::nearest;
use crate::methods::Scope;
use crate::trim::First;

/// What a share is a share of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Of {
    /// Indices of the groups.
    #[default]
    Channels,
    /// Elements of the model's constants.
    Parameters,
    /// Multiply-adds of a run with the example sizes.
    Macs,
    /// The time that a run is predicted to take.
    Ms,
}

/// How much to cut of what.
#[derive(Clone, Debug, PartialEq)]
pub struct Shrink {
    /// The share that goes: 0 to 1.
    pub share: f64,
    /// What it is a share of.
    pub of: Of,
    /// Whether all groups are ranked together, or each loses the same share of its indices.
    pub scope: Scope,
    /// Widths are made multiples of this where they are larger, except numbers of heads and their widths.
    pub round_to: usize,
    /// Which groups are cut.
    pub kinds: Vec<Kind>,
    /// Patterns of names; groups that cut a constant of such a name, or are called so, stay.
    pub keep: Vec<String>,
}

/// How important the elements of a constant are, by its name; `None` where they have no say.
pub type Score<'a> = &'a dyn Fn(&str, &Tensor) -> Option<Vec<f64>>;

/// The squares of the elements of matrices and larger constants: groups go by the mean square of their weights.
pub fn squares(_: &str, t: &Tensor) -> Option<Vec<f64>> {
    let floats = t.floats().filter(|_| t.dims().len() > 1)?;
    Some(floats.into_iter().map(|x| x * x).collect())
}

impl Groups<'_> {
    /// For each group and each of its indices the mean of `score` over all elements that would go with the index.
    pub fn scores(&self, score: Score) -> Vec<Vec<f64>> {
        let mut sums: Vec<Vec<(f64, f64)>> = self.groups.iter().map(|g| vec![(0.0, 0.0); g.size]).collect();
        self.tally(score, &mut |(_, group), i, sum, (count, _)| {
            sums[group][i].0 += sum;
            sums[group][i].1 += count;
        });
        let mean = |(sum, n): (f64, f64)| sum / n.max(1.0);
        sums.into_iter()
            .map(|s| s.into_iter().map(mean).collect())
            .collect()
    }

    /// For each group, each constant that it cuts, and each of its indices what goes with the index: the sum of `score`, or, if `shares`, the
    /// share that this is of the whole constant.
    pub(crate) fn losses(&self, score: Score, shares: bool) -> Vec<Vec<Vec<f64>>> {
        let mut found: Vec<Vec<Vec<f64>>> = vec![vec![]; self.groups.len()];
        let mut last = vec![None; self.groups.len()];
        self.tally(score, &mut |(place, group), i, sum, (_, all)| {
            if last[group].replace(place) != Some(place) {
                found[group].push(vec![0.0; self.groups[group].size]);
            }
            let by = if shares { all.max(f64::MIN_POSITIVE) } else { 1.0 };
            found[group]
                .iter_mut()
                .last()
                .into_iter()
                .for_each(|x| x[i] += sum / by);
        });
        found
    }

    /// Calls `put` for each axis of a constant with the number of the axis and each group in it, each of its indices, the sum of `score` over
    /// what goes with it, and the number of these elements and the sum over the whole constant.
    fn tally(&self, score: Score, put: &mut dyn FnMut((usize, usize), usize, f64, (f64, f64))) {
        let mut number = 0;
        let places = self.groups.iter().enumerate();
        let place: HashMap<Letter, usize> = places.map(|(i, g)| (g.letter, i)).collect();
        for h in &self.held {
            let Some(tensor) = h.site.constant(self.trace.model).map(|c| &c.tensor) else {
                continue;
            };
            let axes: Vec<Vec<(usize, Vec<usize>)>> =
                self.axes(h).iter().map(|s| self.digits(s, &place)).collect();
            if axes.iter().all(Vec::is_empty) {
                continue;
            }
            let Some(elements) = score(&h.name, tensor) else {
                continue;
            };
            let all: f64 = elements.iter().sum();
            for (axis, digits) in axes.iter().enumerate().filter(|(_, d)| !d.is_empty()) {
                let (along, count) = along(&elements, tensor.dims(), axis);
                number += 1;
                for (group, digit) in digits {
                    for (i, &d) in digit.iter().enumerate().filter(|(_, d)| **d != NONE) {
                        put((number, *group), d, along[i], (count, all));
                    }
                }
            }
        }
    }

    /// For each axis of the constant `h` and each group in it the index of the group that each index of the axis has, or [`NONE`].
    pub(crate) fn digits_of(
        &self,
        h: &Held,
        place: &HashMap<Letter, usize>,
    ) -> Vec<(usize, usize, Vec<usize>)> {
        let axes = self.axes(h).iter().enumerate();
        axes.flat_map(|(axis, s)| {
            let digits = self.digits(s, place).into_iter();
            digits.map(move |(g, d)| (axis, g, d))
        })
        .collect()
    }

    /// The sizes of the axes of the constant `h`.
    pub(crate) fn dims(&self, h: &Held) -> Vec<usize> {
        let found = h.site.constant(self.trace.model);
        found.map_or(vec![], |c| c.tensor.dims().to_vec())
    }

    /// For each group in `space` the index of it that each index of the space has, or none.
    fn digits(&self, space: &Space, place: &HashMap<Letter, usize>) -> Vec<(usize, Vec<usize>)> {
        let mut letters = self.trace.spaces.leaves(space);
        letters.sort();
        letters.dedup();
        let found = letters
            .into_iter()
            .filter_map(|l| Some((*place.get(&l)?, self.trace.spaces.digits(space, l))));
        found.collect()
    }

    /// The elements of the main graph's constants that are left after `cut`, without those that are shapes, indices, masks or texts.
    pub fn parameters(&self, cut: &Narrow) -> u64 {
        self.parameters_at(&self.widths(cut))
    }

    /// The multiply-adds of a run with the example sizes after `cut`, as far as equations say them.
    pub fn macs(&self, cut: &Narrow) -> u64 {
        self.macs_at(&self.widths(cut)) as u64
    }

    fn widths(&self, cut: &Narrow) -> HashMap<Letter, usize> {
        let by_name: HashMap<&str, Letter> = self.groups.iter().map(|g| (&*g.name, g.letter)).collect();
        let kept = |k: &Keep| Some((*by_name.get(&*k.group)?, k.keep.len()));
        cut.groups.iter().filter_map(kept).collect()
    }

    fn parameters_at(&self, widths: &HashMap<Letter, usize>) -> u64 {
        let width = |l: Letter| widths.get(&l).copied();
        let held = self.held.iter().filter(|h| {
            let counts = |t: &Tensor| !matches!(t.dtype(), DType::I64 | DType::Bool | DType::String);
            h.site
                .constant(self.trace.model)
                .is_some_and(|c| counts(&c.tensor))
        });
        held.map(|h| {
            self.axes(h)
                .iter()
                .map(|s| self.trace.spaces.kept(s, &width) as u64)
                .product::<u64>()
        })
        .sum()
    }

    fn macs_at(&self, widths: &HashMap<Letter, usize>) -> f64 {
        let (t, width) = (&self.trace, |l: Letter| widths.get(&l).copied());
        let ratio = |s: &Space| t.spaces.kept(s, &width) as f64 / t.spaces.size(s).max(1) as f64;
        let mut all = 0.0;
        for (id, node) in t.model.graph.iter() {
            let Dim::Known(n) = macs(t.model, &t.facts, id) else {
                continue;
            };
            let out = node.outputs.first().copied().flatten().and_then(|v| t.of.get(&v));
            let made: f64 = out.into_iter().flatten().map(ratio).product();
            let summed: f64 = t
                .sums
                .iter()
                .filter(|s| s.node == id)
                .map(|s| ratio(&s.space))
                .product();
            all += n as f64 * made * summed;
        }
        all
    }

    /// Which indices stay: those of the greatest `scores`; of equal ones the first. Every group keeps one at least.
    ///
    /// # Errors
    ///
    /// If the share is none, a name fits nothing, or no group may be cut.
    pub fn choose(&self, scores: &[Vec<f64>], how: &Shrink, sizes: &Sizes) -> Result<Narrow, MethodError> {
        if !(0.0..1.0).contains(&how.share) {
            return Err(MethodError::goal(format!(
                "expected a share from 0 to below 1, found {}",
                how.share
            )));
        }
        let free = self.free(how)?;
        let all: Vec<usize> = free.iter().map(|&g| self.groups[g].size).collect();
        let first = First {
            sizes: self.cuttable(how)?,
            whole: self.measure(&free, &all, how.of),
        };
        Ok(Narrow {
            sizes: sizes.clone(),
            groups: self.choose_of(scores, how, &first),
        })
    }

    /// The groups that may be cut, with their sizes.
    ///
    /// # Errors
    ///
    /// If a name fits nothing, or no group may be cut.
    pub(crate) fn cuttable(&self, how: &Shrink) -> Result<BTreeMap<String, usize>, MethodError> {
        let sized = |g: usize| (self.groups[g].name.clone(), self.groups[g].size);
        Ok(self.free(how)?.into_iter().map(sized).collect())
    }

    /// The same as [`choose`](Groups::choose), where the share is one of what `first` had: groups that it does not have stay.
    pub(crate) fn choose_of(&self, scores: &[Vec<f64>], how: &Shrink, first: &First) -> Vec<Keep> {
        let all = 0..self.groups.len();
        let free: Vec<usize> = all
            .filter(|&g| first.sizes.contains_key(&self.groups[g].name))
            .collect();
        let aim = Reach { first, how };
        let kept = match (how.scope, how.of) {
            (Scope::Layer, Of::Channels) => self.evenly(&free, &aim, 1.0 - how.share),
            (Scope::Layer, _) => self.even_share(&free, &aim),
            (Scope::Global, _) => self.together(&free, scores, &aim),
        };
        let cut = free.iter().zip(kept).filter(|&(&g, n)| n < self.groups[g].size);
        cut.map(|(&g, n)| self.keep(g, &scores[g], n)).collect()
    }

    /// Of group `g` the `n` indices of the greatest `scores`.
    pub(crate) fn keep(&self, g: usize, scores: &[f64], n: usize) -> Keep {
        Keep {
            group: self.groups[g].name.clone(),
            size: self.groups[g].size,
            keep: largest(scores, n),
        }
    }

    /// The groups that may be cut.
    fn free(&self, how: &Shrink) -> Result<Vec<usize>, MethodError> {
        let names = |i: usize| {
            let g: &Group = &self.groups[i];
            std::iter::once(&*g.name).chain(g.axes.iter().map(|p| &*p.constant))
        };
        let all = 0..self.groups.len();
        let mut free: Vec<usize> = all
            .clone()
            .filter(|&i| how.kinds.contains(&self.groups[i].kind))
            .collect();
        for glob in &how.keep {
            let fits = |i: usize| names(i).any(|n| crate::matches(glob, n));
            if !all.clone().any(fits) {
                let known = all.clone().flat_map(names);
                return Err(MethodError::unmatched(glob, nearest(glob, known)));
            }
            free.retain(|&i| !fits(i));
        }
        match free.is_empty() {
            false => Ok(free),
            true => Err(MethodError::nothing(self.why_none(how))),
        }
    }

    fn why_none(&self, how: &Shrink) -> String {
        let kinds: Vec<_> = how.kinds.iter().map(ToString::to_string).collect();
        let largest = self.uncut.iter().max_by_key(|u| u.size);
        let why = largest.map_or(String::new(), |u| format!("; {:?} stays: {}", u.name, u.reason));
        format!("nothing to cut: no group of kind {}{why}", kinds.join(" or "))
    }

    /// The widths that group `g`, which had `first` indices at first, may come to from what it has, the greatest first.
    pub(crate) fn narrower(&self, g: usize, first: usize, round_to: usize) -> Vec<usize> {
        let group = &self.groups[g];
        let whole = matches!(group.kind, Kind::Head | Kind::HeadWidth) || first <= round_to;
        let step = if whole { 1 } else { round_to.max(1) };
        let all = (1..).map(|i| i * step).take_while(|w| *w < group.size);
        let mut all: Vec<usize> = all.collect();
        all.reverse();
        all
    }

    /// `width` as it may be: rounded, no more than there is, at least one. A group of which nothing is to go stays as it is.
    fn rounded(&self, g: usize, width: f64, aim: &Reach) -> usize {
        let group = &self.groups[g];
        if width >= group.size as f64 {
            return group.size;
        }
        let round_to = aim.how.round_to;
        let whole = matches!(group.kind, Kind::Head | Kind::HeadWidth) || aim.width(group) <= round_to;
        let step = if whole { 1 } else { round_to.max(1) };
        let steps = (width / step as f64).round().max(1.0);
        (steps as usize * step).min(group.size)
    }

    fn evenly(&self, free: &[usize], aim: &Reach, stay: f64) -> Vec<usize> {
        let width = |g: usize| aim.width(&self.groups[g]) as f64 * stay;
        free.iter().map(|&g| self.rounded(g, width(g), aim)).collect()
    }

    /// The same share of each group, so that the measure is reached.
    fn even_share(&self, free: &[usize], aim: &Reach) -> Vec<usize> {
        let target = aim.target();
        let steps = (1..=STEPS).rev().map(|i| f64::from(i) / f64::from(STEPS));
        let mut widths = steps.map(|stay| self.evenly(free, aim, stay));
        let reached = widths.find(|w| self.measure(free, w, aim.how.of) <= target);
        reached.unwrap_or_else(|| self.evenly(free, aim, 0.0))
    }

    /// The indices of least score of all groups, as many as reach the measure.
    fn together(&self, free: &[usize], scores: &[Vec<f64>], aim: &Reach) -> Vec<usize> {
        let mut order: Vec<(f64, usize)> = vec![];
        for (at, &g) in free.iter().enumerate() {
            order.extend(scores[g].iter().map(|&s| (s, at)));
        }
        order.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
        let at = |gone: usize| {
            let mut left: Vec<usize> = free.iter().map(|&g| self.groups[g].size).collect();
            order[..gone].iter().for_each(|&(_, i)| left[i] -= 1);
            let rounded = free
                .iter()
                .zip(left)
                .map(|(&g, w)| self.rounded(g, w as f64, aim));
            rounded.collect::<Vec<_>>()
        };
        // What has one index left is no group any more.
        let ended = match aim.how.of {
            Of::Channels => aim.first.sizes.len() - free.len(),
            _ => 0,
        };
        let target = aim.target() - ended as f64;
        let (mut low, mut high) = (0, order.len());
        while low < high {
            let middle = (low + high) / 2;
            match self.measure(free, &at(middle), aim.how.of) <= target {
                true => high = middle,
                false => low = middle + 1,
            }
        }
        at(low)
    }

    pub(crate) fn measure(&self, free: &[usize], widths: &[usize], of: Of) -> f64 {
        let at = || {
            free.iter()
                .zip(widths)
                .map(|(&g, &w)| (self.groups[g].letter, w))
                .collect()
        };
        match of {
            Of::Channels => widths.iter().sum::<usize>() as f64,
            Of::Parameters => self.parameters_at(&at()) as f64,
            // Times are not known here: who goes by them chooses by himself.
            Of::Macs | Of::Ms => self.macs_at(&at()),
        }
    }
}

/// What groups are to come to, and from where.
struct Reach<'a> {
    first: &'a First,
    how: &'a Shrink,
}

impl Reach<'_> {
    /// What is to be left of the measure.
    fn target(&self) -> f64 {
        self.first.whole * (1.0 - self.how.share)
    }

    /// How wide `group` was at first.
    fn width(&self, group: &Group) -> usize {
        self.first.sizes.get(&group.name).copied().unwrap_or(group.size)
    }
}

/// Steps in which an even share is looked for.
const STEPS: u32 = 256;

/// The place of an index that has no digit.
pub(crate) const NONE: usize = usize::MAX;

/// The places of the `n` largest of `scores`, ascending; NaN is the largest.
fn largest(scores: &[f64], n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].abs().total_cmp(&scores[a].abs()).then(a.cmp(&b)));
    order.truncate(n);
    order.sort_unstable();
    order
}

/// For each index of `axis` the sum of the elements there, and their number.
fn along(elements: &[f64], dims: &[usize], axis: usize) -> (Vec<f64>, f64) {
    let inner: usize = dims[axis + 1..].iter().product();
    let mut sums = vec![0.0; dims[axis]];
    for (row, x) in elements.chunks(inner.max(1)).enumerate() {
        sums[row % dims[axis]] += x.iter().sum::<f64>();
    }
    let count = elements.len() / dims[axis].max(1);
    (sums, count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_added_along_an_axis() {
        let x: Vec<f64> = (0..12).map(f64::from).collect();
        assert_eq!(along(&x, &[2, 3, 2], 1), (vec![14.0, 22.0, 30.0], 4.0));
        assert_eq!(along(&x, &[2, 3, 2], 2), (vec![30.0, 36.0], 6.0));
    }

    #[test]
    fn of_equal_indices_the_first_stay() {
        assert_eq!(largest(&[1.0, 2.0, 1.0, f64::NAN], 3), [0, 1, 3]);
    }
}
