//! Weights fitted anew after a cut, by least squares (He, Zhang and Sun 2017, arXiv:1707.06168).

mod fit;
mod progress;
mod shadow;
mod site;
mod stream;
mod view;

use std::collections::{BTreeMap, HashMap};

use secateur_engine::Tensor;
use secateur_engine::ir::{Model, ValueId};

use super::{Calibration, RecoverError};
use crate::math::ridge::{TRIES, Work};
use crate::place::{self, Place, places};
use crate::scan::Watch;
use crate::{Change, Plan, Raw, Replace};
use fit::{Fit, Products, Solved};
use progress::Progress;
use shadow::Shadow;
use site::{Rest, Site, sites};
use stream::{ROOM, Stream};
use view::{Batch, View};

/// The share of the examples that weights are fitted to; the others say how well.
const SEEN: f64 = 0.75;

/// What [`refit`] has done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Refitted {
    /// The plan with new elements of constants in front.
    pub plan: Plan,
    /// Weights that were fitted.
    pub fitted: usize,
    /// Weights that see less or something else and are as they were: those that several nodes share, of recurrent layers, in subgraphs, with
    /// infinite elements or NaN, or too large.
    pub other: usize,
}

/// `plan`, which cuts something away of `model`, with what makes up for it: each weight behind the first cut is fitted so that its layer makes
/// of what it gets by then what the layer made in `model` on the same examples, layer after layer. Where something is added to what it
/// makes, such as what goes round a residual block, the sum is fitted. Where a layer has a bias of its own that is fitted too. Nothing needs
/// labels, and nothing is trained. How far weights go from what they were is decided by a quarter of the examples.
///
/// # Errors
///
/// If the plan makes zeros instead of cutting, or was made for another model; if the model does not run on the examples.
pub fn refit(
    model: &Model,
    plan: &Plan,
    with: &Calibration,
    watch: &dyn Watch,
) -> Result<Refitted, RecoverError> {
    within(ROOM, (model, plan), with, watch)
}

/// The same with so many bytes for what flows between layers of each of the two models.
fn within(
    room: usize,
    (model, plan): (&Model, &Plan),
    with: &Calibration,
    watch: &dyn Watch,
) -> Result<Refitted, RecoverError> {
    let shadow = Shadow::of(model, plan)?;
    let (sites, other) = sites(model, &shadow);
    let mut done = Refitted {
        plan: plan.clone(),
        other,
        ..Refitted::default()
    };
    if sites.is_empty() {
        return Ok(done);
    }
    let batches = with.batches()?;
    if batches.is_empty() {
        return Err(RecoverError::wrong(
            "repair weights: expected examples, found none",
        ));
    }
    let progress = Progress::new(watch, sites.len(), batches.len() + TRIES);
    let stream = |model: &Model, i: usize| {
        let wanted = wanted(&sites, i);
        Stream::new(model.clone(), &wanted, (with, &batches), room)
    };
    let mut refit = Refit {
        streams: [stream(model, 0), stream(&shadow.model, 1)],
        batches: batches.len(),
        threads: with.threads,
        products: Products::new(with.threads)?,
        constants: [constants(model), constants(&shadow.model)],
        names: site::values(&shadow.model)
            .into_iter()
            .map(|(n, v)| (v, n))
            .collect(),
        new: BTreeMap::new(),
        progress,
    };
    for i in 0..sites.len() {
        match refit.site(&sites[i], &sites[i + 1..])? {
            true => done.fitted += 1,
            false => done.other += 1,
        }
        refit.progress.end();
    }
    let changes = replaced(model, &refit.new);
    done.plan.0.splice(0..0, changes);
    Ok(done)
}

/// The values of one of the two models that `sites` want to see.
fn wanted(sites: &[Site], which: usize) -> Vec<ValueId> {
    let rests = sites.iter().filter_map(|s| s.rest.as_ref());
    let taps = sites.iter().map(|s| s.taps[which].value);
    taps.chain(rests.map(|r| r.values[which])).collect()
}

/// New elements of constants of `model` as changes.
fn replaced(model: &Model, new: &BTreeMap<String, Vec<f64>>) -> Vec<Change> {
    let one = |place: Place| {
        let old = &place.site.constant(model)?.tensor;
        let new = Tensor::rounded(old.dtype(), old.dims(), new.get(&place.name)?)?;
        Some(Change::Replace(Replace {
            value: place.name,
            elements: new.len() as u64,
            data: Raw(new.bytes().to_vec()),
        }))
    };
    places(model).into_iter().filter_map(one).collect()
}

/// The work on its way from layer to layer.
struct Refit<'a> {
    /// The model and its shadow.
    streams: [Stream<'a>; 2],
    batches: usize,
    threads: usize,
    products: Products,
    /// Where constants are, by name.
    constants: [HashMap<String, place::Site>; 2],
    /// The names of the shadow's constants.
    names: HashMap<ValueId, String>,
    /// New elements of constants of the model, by name.
    new: BTreeMap<String, Vec<f64>>,
    progress: Progress<'a>,
}

/// Where the constants of `model` are, by what they are called.
fn constants(model: &Model) -> HashMap<String, place::Site> {
    places(model).into_iter().map(|p| (p.name, p.site)).collect()
}

impl Refit<'_> {
    /// Fits the weight of `site`, of those that are left. Whether that could be done.
    fn site(&mut self, site: &Site, later: &[Site]) -> Result<bool, RecoverError> {
        let Some(elements) = self.elements(0, &site.name) else {
            return Ok(false);
        };
        let mut fits = fits(site, &elements);
        // What is made of constants alone no run shows.
        let flows = |which: usize| self.streams[which].needs(site.taps[which].value).is_some();
        if !(flows(0) && flows(1)) {
            return Ok(false);
        }
        let rest = site.rest.as_ref().filter(|r| self.there(site, r));
        if !self.observed(site, later, rest, &mut fits)? {
            return Ok(false);
        }
        let solved: Vec<_> = (0..fits.len()).map(|i| self.solved(&fits, i)).collect();
        if solved.iter().all(Option::is_none) {
            return Ok(true);
        }
        for which in [0, 1] {
            self.weights(site, (&fits, &solved), which);
            self.biases(site, &solved, which);
        }
        Ok(true)
    }

    /// What group `group` of `fits` becomes.
    fn solved(&self, fits: &[Vec<Fit>], group: usize) -> Option<Solved> {
        let tried = |tries: usize| {
            let share = (group * TRIES + tries) / fits.len();
            self.progress.to(self.batches + share);
        };
        let work = Work {
            threads: self.threads,
            tried: &tried,
        };
        let solved = fit::solved(&fits[group], work);
        tried(TRIES);
        solved
    }

    /// Whether `rest` is there when what `site` sees is, in both.
    fn there(&self, site: &Site, rest: &Rest) -> bool {
        let before = |which: usize| {
            let stream = &self.streams[which];
            let both = stream
                .needs(rest.values[which])
                .zip(stream.needs(site.taps[which].value));
            both.is_some_and(|(rest, tap)| rest <= tap)
        };
        before(0) && before(1)
    }

    /// Shows `fits` all that `site` sees. Whether it fits the weight.
    fn observed(
        &mut self,
        site: &Site,
        later: &[Site],
        rest: Option<&Rest>,
        fits: &mut [Vec<Fit>],
    ) -> Result<bool, RecoverError> {
        let mut parts = vec![];
        for (which, stream) in self.streams.iter().enumerate() {
            let rest = rest.map(|r| r.values[which]);
            let now: Vec<ValueId> = [site.taps[which].value].into_iter().chain(rest).collect();
            parts.push(stream.part(&now, &wanted(later, which))?);
        }
        for batch in 0..self.batches {
            let mut seen = vec![];
            for (stream, part) in self.streams.iter().zip(&mut parts) {
                seen.push(stream.see(part, batch)?);
            }
            let Some(view) = View::of(site, rest, &seen) else {
                return Ok(false);
            };
            let batch = Batch {
                number: batch,
                all: self.batches,
                seen: (SEEN * self.batches as f64 - batch as f64).clamp(0.0, 1.0),
            };
            self.progress.to(batch.number + 1);
            view.show(site, fits, batch, &self.products)?;
        }
        for fit in fits.iter_mut().flatten() {
            fit.settle(&self.products)?;
        }
        let parts = parts.into_iter().zip(&mut self.streams);
        parts.for_each(|(part, stream)| stream.settle(part));
        Ok(true)
    }

    /// The elements that the constant `name` has by now.
    fn elements(&self, which: usize, name: &str) -> Option<Vec<f64>> {
        match (which, self.new.get(name)) {
            (0, Some(new)) => Some(new.clone()),
            _ => {
                let constant = self.constants[which]
                    .get(name)?
                    .constant(&self.streams[which].model);
                constant?.tensor.floats()
            }
        }
    }

    fn put(&mut self, which: usize, name: &str, elements: Vec<f64>) {
        if which == 0 {
            self.new.insert(name.to_owned(), elements);
            return;
        }
        let site = self.constants[which].get(name);
        let constant = site.and_then(|s| s.constant_mut(&mut self.streams[which].model));
        if let Some(c) = constant {
            let new = Tensor::rounded(c.tensor.dtype(), c.tensor.dims(), &elements);
            *c = new.map_or_else(|| c.clone(), |new| c.with(new));
        }
    }

    fn weights(&mut self, site: &Site, (fits, solved): (&[Vec<Fit>], &[Option<Solved>]), which: usize) {
        let Some(mut elements) = self.elements(which, &site.name) else {
            return;
        };
        let places: Vec<_> = (0..fits.len()).map(|g| places_of(site, &fits[g], g)).collect();
        for (cell, x) in site.layout.cells().into_iter().zip(&mut elements) {
            let (outputs, columns) = &places[cell.group];
            let at = outputs[cell.output].zip(columns[cell.column]);
            if let Some((solved, (o, (class, c)))) = solved[cell.group].as_ref().zip(at) {
                let width = fits[cell.group][class].columns.len();
                *x = solved.weights[class][o * width + c];
            }
        }
        self.put(which, &site.name, elements);
    }

    fn biases(&mut self, site: &Site, solved: &[Option<Solved>], which: usize) {
        let bias = site
            .bias
            .and_then(|b| Some((b, self.names.get(&b.value)?.clone())));
        let found = bias.and_then(|(b, name)| Some((b, self.elements(which, &name)?, name)));
        let Some((bias, mut elements, name)) = found else {
            return;
        };
        for ((group, stay), solved) in site.stays.iter().enumerate().zip(solved) {
            let more = solved.iter().flat_map(|s| &s.bias);
            for (&o, more) in stay.outputs.iter().zip(more) {
                elements[group * site.layout.outputs + o] += site.scale * more / bias.factor;
            }
        }
        self.put(which, &name, elements);
    }
}

/// What is to be fitted of `site`, whose weight has these elements: group by group and class by class.
fn fits(site: &Site, elements: &[f64]) -> Vec<Vec<Fit>> {
    let layout = &site.layout;
    let size = layout.outputs * layout.columns;
    let mut matrices = vec![0.0; layout.groups * size];
    for (cell, x) in layout.cells().into_iter().zip(elements) {
        matrices[layout.place(cell)] = *x;
    }
    let classes = |(g, matrix)| {
        let each = 0..site.classes.len();
        each.map(|class| Fit::new(site, (g, class), matrix)).collect()
    };
    matrices.chunks(size.max(1)).enumerate().map(classes).collect()
}

/// Of outputs, and of columns with their classes; `None` where they are not kept.
type Places = (Vec<Option<usize>>, Vec<Option<(usize, usize)>>);

/// Where the outputs and columns of group `group` stand in what was fitted of it, those with their classes.
fn places_of(site: &Site, fits: &[Fit], group: usize) -> Places {
    let mut outputs = vec![None; site.layout.outputs];
    let stay = site.stays[group].outputs.iter().enumerate();
    stay.for_each(|(i, &o)| outputs[o] = Some(i));
    let mut columns = vec![None; site.layout.columns];
    for (class, fit) in fits.iter().enumerate() {
        let own = fit.columns.iter().enumerate();
        own.for_each(|(i, &c)| columns[c] = Some((class, i)));
    }
    (outputs, columns)
}

#[cfg(test)]
mod tests;
