//! A model seen at work: products of what weights are multiplied by, and what errors of what they make do to the outputs.

use std::collections::BTreeMap;

use secateur_engine::Tensor;
use secateur_engine::ir::{Model, ValueId};

use super::Harms;
use super::site::Axis;
use crate::change::Change;
use crate::error::MethodError;
use crate::observe::backward::{self, Slopes};
use crate::observe::{Examples, Need, forward, mark, observe};
use crate::trim::Unit;
use crate::weights::Weight;

/// Bytes of products of all layers.
const MOST: usize = 12 << 30;

/// What goes with a unit: what comes out of it, and what takes its place.
type Gone = (ValueId, ValueId);

/// What squares of errors of values weigh, on average over places, and what units change.
#[derive(Default)]
pub(super) struct Weighing {
    /// Of each value and output the sum of squares of gradients.
    squares: Vec<Vec<f64>>,
    /// Places seen of each value, in all passes.
    places: Vec<f64>,
    units: Vec<f64>,
    passes: f64,
}

impl Harms {
    /// Observes `model`; `plain` are weights of which columns are not set right.
    pub(super) fn see(
        &mut self,
        model: &Model,
        (plain, units): (&[&Weight], &[Unit]),
        shown: &Examples,
    ) -> Result<(), MethodError> {
        if shown.runs.is_empty() {
            return Err(MethodError::unseen(
                "there are no examples to observe the model on",
            ));
        }
        let passes = if plain.is_empty() { 2 } else { 3 };
        shown
            .effort
            .watch
            .runs("observing", (passes * shown.runs.len()) as u64);
        self.inputs(model, shown)?;
        self.outputs(model, units, shown)?;
        self.elements(model, plain, shown)
    }

    fn inputs(&mut self, model: &Model, shown: &Examples) -> Result<(), MethodError> {
        for (name, seen) in &mut self.sites {
            for part in &seen.site.parts {
                let there = part.layout.columns > 0;
                if there {
                    forward::bounded(name, &part.layout)?;
                }
                let find = || forward::find(&mut self.sources, part.tap.clone(), &part.layout);
                seen.sources.push(there.then(find));
            }
        }
        let all = |s: &forward::Source| 8 * s.layout.groups * s.layout.columns * s.layout.columns;
        let bytes: usize = self.sources.iter().map(all).sum();
        if bytes > MOST {
            let giga = |n: usize| n as f64 / (1u64 << 30) as f64;
            return Err(MethodError::goal(format!(
                "method surgeon keeps products of all pairs of inputs of all layers: {:.1} GiB, expected at most {:.0}; other methods need less",
                giga(bytes),
                giga(MOST)
            )));
        }
        forward::watch(model, &mut self.sources, true, shown)?;
        let finite = |s: &forward::Source| s.products.iter().chain(&s.inputs.sums).all(|x| x.is_finite());
        match self.sources.iter().find(|s| !finite(s)) {
            None => Ok(()),
            Some(source) => Err(MethodError::run(format!(
                "what was seen of value {:?} is not finite: the model makes infinity or NaN",
                model.graph[source.value()].name
            ))),
        }
    }

    fn outputs(&mut self, model: &Model, units: &[Unit], shown: &Examples) -> Result<(), MethodError> {
        let gone: Vec<(&Unit, Gone)> = units
            .iter()
            .filter_map(|u| Some((u, replaced(model, &u.change)?)))
            .collect();
        let mut by: Vec<ValueId> = self
            .sites
            .values()
            .flat_map(|s| s.site.made.iter().map(|m| m.value))
            .collect();
        let axes: Vec<Axis> = self
            .sites
            .values()
            .flat_map(|s| s.site.made.iter().map(|m| m.axis))
            .collect();
        by.extend(gone.iter().map(|(_, (v, _))| *v));
        if let Some(why) = backward::without(model, &by, shown.runs) {
            self.note = Some(format!(
                "errors count as shares of what each layer makes, for there are no gradients: {why}"
            ));
            return self.shares(model, &gone, shown);
        }
        let also: Vec<ValueId> = gone.iter().flat_map(|(_, (a, b))| [*a, *b]).collect();
        let mut seen = Weighing {
            squares: vec![vec![]; axes.len()],
            places: vec![0.0; axes.len()],
            units: vec![0.0; gone.len()],
            passes: 0.0,
        };
        backward::slopes(model, (&by, &also), shown, &mut |slopes| seen.add(&slopes, &axes))?;
        let runs = self.runs;
        let mut at = 0;
        for (name, site) in &mut self.sites {
            let outputs = site.site.layout.groups * site.site.layout.outputs;
            site.weighs = vec![0.0; outputs];
            for made in &site.site.made {
                let squares = &seen.squares[at];
                if !squares.is_empty() && squares.len() != outputs {
                    return Err(MethodError::run(format!(
                        "what {name:?} makes has {} channels, not {outputs}",
                        squares.len()
                    )));
                }
                let places = (seen.places[at] * runs / seen.passes.max(1.0)).max(1.0);
                let scale = made.scale * made.scale / places;
                let each = site.weighs.iter_mut().zip(squares);
                each.for_each(|(w, s)| *w += s * scale);
                at += 1;
            }
        }
        let all = seen.squares.iter().flatten().chain(&seen.units);
        if !all.copied().all(f64::is_finite) {
            return Err(MethodError::run("a gradient is infinite or NaN"));
        }
        let each = gone.iter().zip(&seen.units);
        self.units = each.map(|((u, _), x)| (u.name.clone(), 0.5 * x / runs)).collect();
        Ok(())
    }

    /// What errors weigh as shares of what they are errors of.
    fn shares(&mut self, model: &Model, gone: &[(&Unit, Gone)], shown: &Examples) -> Result<(), MethodError> {
        let made = self
            .sites
            .values()
            .flat_map(|s| s.site.made.iter().map(|m| m.value));
        let made: Vec<ValueId> = made.collect();
        let units = gone.iter().flat_map(|(_, (a, b))| [*a, *b]);
        let all: Vec<ValueId> = made.iter().copied().chain(units).collect();
        let (mut whole, mut lost) = (vec![0.0; made.len()], vec![(0.0, 0.0); gone.len()]);
        backward::values(model, &all, shown, &mut |seen| {
            let (of_made, of_units) = seen.also.split_at(made.len());
            for (sum, x) in whole.iter_mut().zip(of_made) {
                *sum += floats(x)?.iter().map(|x| x * x).sum::<f64>();
            }
            for ((off, sum), pair) in lost.iter_mut().zip(of_units.chunks_exact(2)) {
                let (a, b) = (floats(pair[0])?, floats(pair[1])?);
                *off += a.iter().zip(&b).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
                *sum += a.iter().map(|x| x * x).sum::<f64>();
            }
            Ok(())
        })?;
        let mut whole = whole.into_iter();
        for site in self.sites.values_mut() {
            let sum: f64 = whole.by_ref().take(site.site.made.len()).sum();
            let outputs = site.site.layout.groups * site.site.layout.outputs;
            // Errors are those before a factor.
            let scales = site.site.made.iter().map(|m| m.scale * m.scale).sum::<f64>();
            let scale = scales / site.site.made.len().max(1) as f64;
            site.weighs = vec![self.runs * scale / sum.max(f64::MIN_POSITIVE); outputs];
        }
        let each = gone.iter().zip(lost);
        self.units = each
            .map(|((u, _), (off, sum))| (u.name.clone(), 0.5 * off / sum.max(f64::MIN_POSITIVE)))
            .collect();
        Ok(())
    }

    fn elements(&mut self, model: &Model, plain: &[&Weight], shown: &Examples) -> Result<(), MethodError> {
        if self.note.is_some() {
            self.plain = plain.iter().map(|w| (w.name.clone(), squares(w))).collect();
            return Ok(());
        }
        let mut all: Vec<Weight> = plain.iter().map(|w| (*w).clone()).collect();
        mark(model, &[Need::Curvature], &mut all);
        let reached: Vec<&Weight> = all.iter().filter(|w| w.exempt.is_none()).collect();
        if reached.is_empty() {
            return Ok(());
        }
        let stats = observe(model, &reached, &[Need::Curvature], shown)?;
        let scored: Result<BTreeMap<_, _>, _> = reached
            .iter()
            .map(|w| Ok::<_, MethodError>((w.name.clone(), scores(w, &stats)?)))
            .collect();
        self.plain = scored?;
        Ok(())
    }
}

/// What is lost with each element of `weight` by itself.
fn scores(weight: &Weight, stats: &crate::Stats) -> Result<Vec<f64>, MethodError> {
    let found = stats.each(weight, |s| s.curvature.as_ref())?;
    let elements = weight.tensor.floats().unwrap_or_default();
    Ok(elements
        .iter()
        .zip(found)
        .map(|(w, h)| 0.5 * f64::from(*h) * w * w)
        .collect())
}

/// What the squares of the elements of `weight` are of their sum.
fn squares(weight: &Weight) -> Vec<f64> {
    let x: Vec<f64> = weight.tensor.floats().unwrap_or_default();
    let all: f64 = x.iter().map(|x| x * x).sum();
    x.iter()
        .map(|x| 0.5 * x * x / all.max(f64::MIN_POSITIVE))
        .collect()
}

impl Weighing {
    fn add(&mut self, slopes: &Slopes, axes: &[Axis]) -> Result<(), MethodError> {
        self.passes += 1.0;
        for (i, axis) in axes.iter().enumerate() {
            let Some(slope) = slopes.by[i] else { continue };
            let x = floats(slope)?;
            let dims = slope.dims();
            let axis = match axis {
                Axis::Last(back) => dims.len().checked_sub(1 + back),
                Axis::Channels => Some(1),
            };
            let Some(axis) = axis.filter(|a| *a < dims.len()) else {
                continue;
            };
            let inner: usize = dims[axis + 1..].iter().product();
            let sums = &mut self.squares[i];
            sums.resize(dims[axis], 0.0);
            for (row, x) in x.chunks(inner.max(1)).enumerate() {
                sums[row % dims[axis]] += x.iter().map(|x| x * x).sum::<f64>();
            }
            self.places[i] += x.len() as f64 / dims[axis].max(1) as f64;
        }
        for (u, sum) in self.units.iter_mut().enumerate() {
            let Some(slope) = slopes.by[axes.len() + u] else {
                continue;
            };
            let [slope, gone, stays] = [slope, slopes.also[2 * u], slopes.also[2 * u + 1]].map(floats);
            let (slope, gone, stays) = (slope?, gone?, stays?);
            let each = slope.iter().zip(gone.iter().zip(&stays));
            *sum += each.map(|(d, (a, b))| (d * (a - b)).powi(2)).sum::<f64>();
        }
        Ok(())
    }
}

fn floats(x: &Tensor) -> Result<Vec<f64>, MethodError> {
    x.floats()
        .ok_or_else(|| MethodError::run("a gradient is no tensor of floats"))
}

/// What comes out of what `change` leaves out, and what takes its place.
fn replaced(model: &Model, change: &Change) -> Option<Gone> {
    let g = &model.graph;
    match change {
        Change::Bypass(b) => {
            let sum = g.find(&b.sum)?;
            let (id, _) = g.links().producer(sum)?;
            Some((sum, g[id].inputs.get(b.stays).copied().flatten()?))
        }
        Change::Skip(s) => Some((g.find(&s.value)?, g.find(&s.stays)?)),
        _ => None,
    }
}
