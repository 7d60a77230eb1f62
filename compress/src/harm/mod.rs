//! What cuts hurt: how much error of each layer behind them stays once what is left is fitted by least squares, and what that error does to
//! the outputs.
//!
//! An index of a group takes columns with it of every weight that reads it. What the weight makes then is off by what the columns that stay
//! cannot make up for ([`damage`](crate::math::damage)); each of its outputs counts by the diagonal of the second derivative of the loss by
//! it, in Gauss and Newton's form: the model is its own teacher, so that first derivatives vanish. All that is lost is in units of the loss,
//! whatever goes.

mod see;
mod site;

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use secateur_engine::Model;

use crate::error::MethodError;
use crate::grain::Piece;
use crate::groups::{Groups, Held, Letter, NONE, Sizes, groups};
use crate::math::damage::{Curve, Layer, eliminate};
use crate::observe::Examples;
use crate::observe::forward::Source;
use crate::trim::Unit;
use crate::weights::{Weight, weights};
use site::Site;

/// Columns of a matrix from which on those that stay are not set right: as in the fit of weights.
const MOST: usize = 8192;

/// What is added to the diagonal of products, as a share of its mean, where there are as many rows as columns; less where there are more.
const DAMPING: f64 = 0.01;

/// What is added to the diagonal of products besides, as shares of the mean square: the first with which they have an inverse. Sums of products in
/// single precision are off by so much, which is much of what is left where means are taken off.
const NOISE: [f64; 5] = [1e-7, 1e-6, 1e-5, 1e-4, 1e-3];

/// What was seen of a model: what it hurts to cut some of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Harms {
    /// By name the weights whose columns can be set right.
    sites: BTreeMap<String, Seen>,
    sources: Vec<Source>,
    /// By name what is lost with single elements of other weights.
    plain: BTreeMap<String, Vec<f64>>,
    /// By name of a unit what is lost without it.
    units: BTreeMap<String, f64>,
    /// The weights that read each group, and those that it cuts where there are none, by the group's name.
    readers: BTreeMap<String, Vec<String>>,
    /// By the names of a weight and a group the axis along which the one reads the other.
    read: BTreeMap<(String, String), usize>,
    runs: f64,
    threads: usize,
    note: Option<String>,
}

/// A weight, and what was seen of it.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    site: Site,
    elements: Vec<f64>,
    /// Of each part its source.
    sources: Vec<Option<usize>>,
    /// What the square of an error of each output at one place weighs.
    weighs: Vec<f64>,
}

/// For each group in an axis of a weight the index of it that each index of the axis has.
type Digits = Vec<(usize, usize, Vec<usize>)>;

impl Harms {
    /// Shows `shown` to `model`, of which groups of the kinds of `piece` and units may go.
    ///
    /// # Errors
    ///
    /// If the model cannot be followed or does not run, or something is not finite.
    pub(crate) fn new(
        model: &Model,
        piece: Piece,
        sizes: &Sizes,
        shown: &Examples,
    ) -> Result<Harms, MethodError> {
        let found = groups(model, sizes).map_err(MethodError::run)?;
        let all = weights(model);
        let mut harms = Harms {
            sites: BTreeMap::new(),
            sources: vec![],
            plain: BTreeMap::new(),
            units: BTreeMap::new(),
            readers: BTreeMap::new(),
            read: BTreeMap::new(),
            runs: shown.runs.len().max(1) as f64,
            threads: shown.effort.threads.max(1),
            note: None,
        };
        let plain = harms.find(model, piece, &found, &all)?;
        let units = match piece {
            Piece::Layer => Unit::all(model, Piece::Layer, sizes)?,
            Piece::Block | Piece::Structured => Unit::all(model, Piece::Block, sizes)?,
            _ => vec![],
        };
        harms.see(model, (&plain, &units), shown)?;
        Ok(harms)
    }

    /// Something that whoever asked may want to know.
    pub(crate) fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Notes which weights read the groups that may go; gives those of which columns cannot be set right.
    fn find<'w>(
        &mut self,
        model: &Model,
        piece: Piece,
        found: &Groups,
        all: &'w [Weight],
    ) -> Result<Vec<&'w Weight>, MethodError> {
        let by_name: HashMap<&str, &Weight> = all.iter().map(|w| (&*w.name, w)).collect();
        let which = |g: &usize| piece.kinds().contains(&found.groups[*g].kind);
        let place: HashMap<Letter, usize> = (0..found.groups.len())
            .filter(which)
            .map(|g| (found.groups[g].letter, g))
            .collect();
        let mut plain: Vec<&Weight> = vec![];
        for h in &found.held {
            let Some(&weight) = by_name.get(&*h.name).filter(|w| w.exempt.is_none()) else {
                continue;
            };
            let digits = read(found, (h, weight), &place);
            for (axis, g, _) in &digits {
                let group = &found.groups[*g].name;
                self.readers
                    .entry(group.clone())
                    .or_default()
                    .push(h.name.clone());
                self.read.insert((h.name.clone(), group.clone()), *axis);
            }
            if digits.is_empty() {
                continue;
            }
            match Site::of(model, weight, h.value).filter(|s| s.layout.columns <= MOST) {
                Some(site) => self.put(weight, site)?,
                None => plain.push(weight),
            }
        }
        for &g in place.values() {
            let group = &found.groups[g];
            if self.readers.contains_key(&group.name) {
                continue;
            }
            let cut = group.axes.iter().filter_map(|p| by_name.get(&*p.constant));
            let cut: Vec<&Weight> = cut.copied().filter(|w| w.exempt.is_none()).collect();
            self.readers
                .insert(group.name.clone(), cut.iter().map(|w| w.name.clone()).collect());
            plain.extend(cut);
        }
        plain.sort_by(|a, b| a.name.cmp(&b.name));
        plain.dedup_by(|a, b| a.name == b.name);
        Ok(plain)
    }

    fn put(&mut self, weight: &Weight, site: Site) -> Result<(), MethodError> {
        let elements = weight.tensor.floats().filter(|x| x.iter().all(|x| x.is_finite()));
        let infinite = || MethodError::goal(format!("{:?} has infinite elements or NaN", weight.name));
        let seen = Seen {
            sources: vec![],
            weighs: vec![],
            elements: elements.ok_or_else(infinite)?,
            site,
        };
        self.sites.insert(weight.name.clone(), seen);
        Ok(())
    }

    /// What is lost without `unit`; nothing where that is not known.
    pub(crate) fn unit(&self, unit: &Unit) -> Option<f64> {
        self.units.get(&unit.name).copied()
    }

    /// In which order the indices of each of the groups `which` go, and what is lost; nothing of those that nothing is known of. Neither
    /// depends on the number of threads.
    ///
    /// # Errors
    ///
    /// If what was seen is no inverse of anything.
    pub(crate) fn curves(
        &self,
        found: &Groups,
        which: &[usize],
    ) -> Result<BTreeMap<usize, Curve>, MethodError> {
        let jobs: Vec<(usize, Job)> = which
            .iter()
            .filter_map(|&g| Some((g, self.job(found, g)?)))
            .collect();
        let (next, done) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
        std::thread::scope(|scope| {
            for _ in 0..self.threads.min(jobs.len()) {
                scope.spawn(|| {
                    while let Some((g, job)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let curve = self.curve(job);
                        if let Ok(mut done) = done.lock() {
                            done.insert(*g, curve);
                        }
                    }
                });
            }
        });
        let done = done.into_inner().unwrap_or_default();
        let named = |(g, curve): (usize, Option<Curve>)| {
            let what = || {
                let name = &found.groups[g].name;
                MethodError::run(format!(
                    "what reads group {name:?} sees inputs whose products have no inverse"
                ))
            };
            Ok((g, curve.ok_or_else(what)?))
        };
        done.into_iter().map(named).collect()
    }

    /// Whether something is known of what it hurts to cut group `g`.
    pub(crate) fn knows(&self, found: &Groups, g: usize) -> bool {
        self.job(found, g).is_some()
    }

    /// What reads group `g`.
    fn job(&self, found: &Groups, g: usize) -> Option<Job<'_>> {
        let group = &found.groups[g];
        let names = self.readers.get(&group.name)?;
        let place = HashMap::from([(group.letter, g)]);
        let mut job = Job {
            layers: vec![],
            fixed: vec![0.0; group.size],
        };
        let mut known = false;
        for h in found.held.iter().filter(|h| names.contains(&h.name)) {
            let dims = found.dims(h);
            let seen = self.sites.get(&h.name);
            let read = seen.map(|s| {
                let layout = &s.site.layout;
                inputs(found, h, &layout.cells(), layout.inputs, &place)
            });
            if let Some((seen, read)) = seen.zip(read).filter(|(_, read)| !read.is_empty()) {
                for (axis, _, digits) in read {
                    job.layers.push((seen, index(&dims, axis, &digits)));
                    known = true;
                }
            } else if let Some(scores) = self.plain.get(&h.name) {
                let axes = found.digits_of(h, &place);
                let read = self.read.get(&(h.name.clone(), group.name.clone()));
                let read = axes.iter().find(|(axis, _, _)| Some(axis) == read);
                // One axis is enough: elements would count twice.
                if let Some((axis, _, digits)) = read.or(axes.first()) {
                    let of = index(&dims, *axis, digits);
                    let each = of.iter().zip(scores).filter(|(i, _)| **i != NONE);
                    each.for_each(|(&i, score)| job.fixed[i] += score);
                    known = true;
                }
            }
        }
        known.then_some(job)
    }

    fn curve(&self, job: &Job) -> Option<Curve> {
        let size = job.fixed.len();
        let tried = |more: &f64| {
            let all = job.layers.iter();
            let layers = all.flat_map(|(seen, of)| self.layers(seen, of, size, *more));
            eliminate(layers.collect(), &job.fixed)
        };
        NOISE.iter().find_map(tried)
    }

    /// The matrices of a weight of whose elements `of` says the index, of `size`, that they go with.
    fn layers(&self, seen: &Seen, of: &[usize], size: usize, noise: f64) -> Vec<Layer> {
        let groups = seen.site.layout.groups;
        let shape = |part: usize| &seen.site.parts[part].layout;
        let mut layers: Vec<Vec<(Layer, Vec<usize>)>> = (0..seen.site.parts.len())
            .map(|p| {
                let (n, m) = (shape(p).columns, shape(p).outputs);
                let layer = Layer {
                    turned: vec![0.0; n * m],
                    products: vec![],
                    columns: vec![vec![]; size],
                };
                vec![(layer, vec![NONE; n]); groups]
            })
            .collect();
        let root: Vec<f64> = seen.weighs.iter().map(|w| (0.5 * w / self.runs).sqrt()).collect();
        let cells = seen.site.layout.cells();
        for ((cell, x), &i) in cells.into_iter().zip(&seen.elements).zip(of) {
            let (part, at) = seen.site.place(cell);
            let (layer, index) = &mut layers[part][at.group];
            let m = shape(part).outputs;
            layer.turned[at.column * m + at.output] = x * root[at.group * m + at.output];
            index[at.column] = i;
        }
        let mut done = vec![];
        for (part, groups) in layers.into_iter().enumerate() {
            let many = groups.len() > 1;
            for (group, (mut layer, index)) in groups.into_iter().enumerate() {
                // A matrix that goes as a whole loses its outputs too: what reads these pays.
                let whole = many && index.iter().all(|i| Some(i) == index.first());
                if whole || index.iter().all(|&i| i == NONE) {
                    continue;
                }
                let each = index.iter().enumerate().filter(|(_, i)| **i != NONE);
                each.for_each(|(c, &i)| layer.columns[i].push(c));
                if let Some(source) = seen.sources[part] {
                    layer.products = products(&self.sources[source], group, (seen.site.shifted, noise));
                    done.push(layer);
                }
            }
        }
        done
    }
}

/// What reads a group: weights with the index of each element, and what is lost with each index beside.
struct Job<'a> {
    layers: Vec<(&'a Seen, Vec<usize>)>,
    fixed: Vec<f64>,
}

/// The products of matrix `group` of `source`, about the mean where that is made up for (`shifted`), with something on the diagonal: for what
/// few rows do not tell, and for the `noise` of the sums, as a share of the mean square.
fn products(source: &Source, group: usize, (shifted, noise): (bool, f64)) -> Vec<f64> {
    let n = source.layout.columns;
    let mut g = source.products[group * n * n..][..n * n].to_vec();
    let diagonal = |g: &[f64]| (0..n).map(|i| g[i * n + i]).sum::<f64>() / n as f64;
    let whole = diagonal(&g);
    let rows = (source.inputs.rows as f64).max(1.0);
    if shifted {
        let sums = &source.inputs.sums[group * n..][..n];
        for (row, a) in g.chunks_exact_mut(n).zip(sums) {
            row.iter_mut().zip(sums).for_each(|(g, b)| *g -= a * b / rows);
        }
    }
    let more = DAMPING * (n as f64 / rows).min(1.0) * diagonal(&g).max(0.0) + noise * whole;
    let more = if more > 0.0 { more } else { 1.0 };
    (0..n).for_each(|i| g[i * n + i] = g[i * n + i].max(0.0) + more);
    g
}

/// The axes along which `weight` reads groups in `place`.
fn read(found: &Groups, (h, weight): (&Held, &Weight), place: &HashMap<Letter, usize>) -> Digits {
    let Some(matrix) = &weight.matrix else {
        return vec![];
    };
    let layout = crate::math::layout::Layout::of(matrix);
    inputs(found, h, &layout.cells(), layout.inputs, place)
}

/// The same, by the cells of the elements.
fn inputs(
    found: &Groups,
    h: &Held,
    cells: &[crate::math::layout::Cell],
    inputs: usize,
    place: &HashMap<Letter, usize>,
) -> Digits {
    let dims = found.dims(h);
    let step = |axis: usize| dims[axis + 1..].iter().product::<usize>();
    let reads = |axis: usize| {
        cells
            .get(step(axis))
            .is_some_and(|c| c.column % inputs.max(1) != 0)
    };
    let mut digits = found.digits_of(h, place);
    digits.retain(|(axis, _, _)| dims[*axis] > 1 && reads(*axis));
    digits
}

/// For each element of a tensor the digit of its index along `axis`.
fn index(dims: &[usize], axis: usize, digits: &[usize]) -> Vec<usize> {
    let inner: usize = dims[axis + 1..].iter().product();
    let all: usize = dims.iter().product();
    (0..all).map(|e| digits[e / inner % dims[axis]]).collect()
}

#[cfg(test)]
mod tests;
