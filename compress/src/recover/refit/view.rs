//! What one batch shows of a layer, as rows.

use std::ops::Range;

use secateur_engine::Tensor;

use super::RecoverError;
use super::fit::{self, Fit, Products};
use super::site::{Rest, Site};
use crate::observe::rows::Rows;

/// Numbers that are put together as rows at a time.
const CHUNK: usize = 1 << 21;

/// What a layer sees of one batch, in the model and in its shadow.
pub(super) struct View {
    /// Shapes and elements of what it is multiplied by.
    seen: [(Vec<usize>, Vec<f32>); 2],
    /// What is missing in the shadow of what is added later, and the axis of the outputs, so many before the last.
    missing: Option<(usize, Vec<usize>, Vec<f32>)>,
    /// Rows there are.
    count: usize,
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
            Some(Rows::of(&tap.how, dims, &site.layout).ok()?.count())
        };
        let count = rows(0).filter(|n| Some(*n) == rows(1))?;
        let rest = rest.and_then(|rest| {
            let [was, is] = [seen[0].get(1)?, seen[1].get(1)?];
            let dims = was.dims().to_vec();
            let back = rest.back.or_else(|| dims.len().checked_sub(2))?;
            let fits = Rows::along(back, &dims, site.layout.outputs)?.count() == count;
            let missing = floats(was)?.into_iter().zip(floats(is)?);
            let missing = missing.map(|(was, is)| (was - is) / site.scale as f32).collect();
            (fits && was.dims() == is.dims()).then_some((back, dims, missing))
        });
        Some(View {
            seen: seen_by,
            missing: rest,
            count,
        })
    }

    /// Shows the rows to `fits`: the share `seen` to learn from, in whole examples, the others to see how well they did.
    pub(super) fn show(
        &self,
        site: &Site,
        fits: &mut [Fit],
        seen: f64,
        with: &Products,
    ) -> Result<(), RecoverError> {
        let examples = self.seen[0].0.first().copied().unwrap_or(1).max(1);
        let examples = if self.count.is_multiple_of(examples) {
            examples
        } else {
            1
        };
        let split = match examples {
            1 => (self.count as f64 * seen) as usize,
            n => (n as f64 * seen) as usize * (self.count / n),
        };
        let step = (CHUNK / site.layout.columns.max(site.layout.outputs).max(1)).max(64);
        for (group, fit) in fits.iter_mut().enumerate() {
            for (part, held) in [(0..split, false), (split..self.count, true)] {
                for at in part.clone().step_by(step) {
                    let rows = self.rows(site, group, at..part.end.min(at + step));
                    rows.map_or(Ok(()), |rows| fit.see(rows, held, with))?;
                }
            }
        }
        Ok(())
    }

    fn rows(&self, site: &Site, group: usize, which: Range<usize>) -> Option<fit::Rows> {
        let one = |model: usize| {
            let (dims, x) = &self.seen[model];
            let mut rows = vec![];
            let all = Rows::of(&site.taps[model].how, dims, &site.layout).ok()?;
            all.put(x, group, which.clone(), &mut rows);
            Some(rows)
        };
        let mut more = vec![];
        if let Some((back, dims, x)) = &self.missing {
            let all = Rows::along(*back, dims, site.layout.outputs)?;
            all.put(x, 0, which.clone(), &mut more);
        }
        Some(fit::Rows {
            before: one(0)?,
            now: one(1)?,
            more,
        })
    }
}
