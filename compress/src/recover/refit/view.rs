//! What one batch shows of a layer, as rows.

use secateur_engine::Tensor;

use super::RecoverError;
use super::fit::{self, Fit, Products};
use super::site::{Rest, Site};
use crate::math::chance::Stream;
use crate::observe::rows::Rows;

/// Numbers that are put together as rows at a time.
const CHUNK: usize = 1 << 21;

/// So many rows for each column are enough, of all batches together, evenly drawn by chance;
const ENOUGH: usize = 20;

/// and so many in any case.
const LEAST: usize = 1 << 15;

/// One batch of all.
pub(super) struct Batch {
    pub(super) number: usize,
    pub(super) all: usize,
    /// The share of it that weights are learned from.
    pub(super) seen: f64,
}

/// What a layer sees of one batch, in the model and in its shadow.
pub(super) struct View {
    /// Shapes and elements of what it is multiplied by.
    seen: [(Vec<usize>, Vec<f32>); 2],
    /// What is missing in the shadow of what is added later, and the axis of the outputs, so many before the last.
    missing: Option<(usize, Vec<usize>, Vec<f32>)>,
    /// Rows there are of each class.
    counts: Vec<usize>,
}

impl View {
    /// The values `seen` of the model and the shadow, where they fit the weight.
    pub(super) fn of(site: &Site, rest: Option<&Rest>, seen: &[Vec<Tensor>]) -> Option<View> {
        let floats = |t: &Tensor| match t.elements::<f32>() {
            Some(x) => Some(x.into_owned()),
            None => Some(t.floats()?.into_iter().map(|x| x as f32).collect()),
        };
        let of = |which: usize| {
            let t = seen[which].first()?;
            Some((t.dims().to_vec(), floats(t)?))
        };
        let seen_by = [of(0)?, of(1)?];
        let rows = |which: usize| {
            let (tap, (dims, _)) = (&site.taps[which], &seen_by[which]);
            let count = |class| Some(Rows::class(&tap.how, class, dims, &site.layout).ok()?.count());
            (0..site.classes.len()).map(count).collect::<Option<Vec<_>>>()
        };
        let counts = rows(0).filter(|n| Some(n) == rows(1).as_ref())?;
        let rest = rest.and_then(|rest| {
            let [was, is] = [seen[0].get(1)?, seen[1].get(1)?];
            let dims = was.dims().to_vec();
            let back = rest.back.or_else(|| dims.len().checked_sub(2))?;
            let fits = Rows::along(back, &dims, site.layout.outputs)?.count() == counts.iter().sum::<usize>();
            let missing = floats(was)?.into_iter().zip(floats(is)?);
            let missing = missing.map(|(was, is)| (was - is) / site.scale as f32).collect();
            (fits && was.dims() == is.dims()).then_some((back, dims, missing))
        });
        Some(View {
            seen: seen_by,
            missing: rest,
            counts,
        })
    }

    /// Shows rows to `fits`, for each group one for each class: the share `seen` to learn from, in whole examples, the others to see how
    /// well they did.
    pub(super) fn show(
        &self,
        site: &Site,
        fits: &mut [Vec<Fit>],
        batch: Batch,
        with: &Products,
    ) -> Result<(), RecoverError> {
        for class in 0..self.counts.len() {
            let parts = self.drawn(site, class, fits, &batch);
            let columns = site.classes[class].len();
            let step = (CHUNK / columns.max(site.layout.outputs).max(1)).max(64);
            for (group, fits) in fits.iter_mut().enumerate() {
                for (part, held) in parts.iter().zip([false, true]) {
                    for which in part.chunks(step) {
                        let rows = self.rows(site, (group, class), which);
                        rows.map_or(Ok(()), |rows| fits[class].see(rows, held, with))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The rows of `class` that are looked at, those to learn from and the others.
    fn drawn(&self, site: &Site, class: usize, fits: &[Vec<Fit>], batch: &Batch) -> [Vec<usize>; 2] {
        let count = self.counts[class];
        let examples = self.seen[0].0.first().copied().unwrap_or(1).max(1);
        let split = match examples {
            n if n > 1 && count.is_multiple_of(n) => (n as f64 * batch.seen) as usize * (count / n),
            _ => (count as f64 * batch.seen) as usize,
        };
        let columns = fits.first().map_or(0, |f| f[class].seen());
        let share = LEAST.max(ENOUGH * columns) as f64 / (count * batch.all).max(1) as f64;
        let chance = Stream::new(0, &site.name);
        let first = ((batch.number * self.counts.len() + class) as u64) << 32;
        let kept = |row: &usize| share >= 1.0 || chance.at(first + *row as u64) < share;
        [0..split, split..count].map(|rows| rows.filter(kept).collect())
    }

    fn rows(&self, site: &Site, (group, class): (usize, usize), which: &[usize]) -> Option<fit::Rows> {
        let one = |model: usize| {
            let (dims, x) = &self.seen[model];
            let mut rows = vec![];
            let all = Rows::class(&site.taps[model].how, class, dims, &site.layout).ok()?;
            all.put(x, group, which.iter().copied(), &mut rows);
            Some(rows)
        };
        let (before, now) = (one(0)?, one(1)?);
        let mut more = vec![];
        if let Some((back, dims, x)) = &self.missing {
            let all = Rows::along(*back, dims, site.layout.outputs)?;
            let (how, seen) = (&site.taps[0].how, &self.seen[0].0);
            let places = Rows::class(how, class, seen, &site.layout).ok()?.places();
            all.put(x, 0, which.iter().map(|i| places[*i]), &mut more);
        }
        Some(fit::Rows {
            count: which.len(),
            before,
            now,
            more,
        })
    }
}
