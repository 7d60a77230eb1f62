//! How long models take.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use secateur::{Model, Session, Tensor};

use super::card;
use super::compare::{Distance, Tolerance};
use super::shapes::{Wanted, wanted};
use super::source::{Feeder, InputFlags};
use super::ui::Ui;

/// The middle of what was measured (of two, the greater), after sorting; 0 of nothing.
pub(crate) fn median(times: &mut [f64]) -> f64 {
    quantile(times, 0.5)
}

/// The least of `times` that a share `q` of them does not exceed, after sorting; 0 of nothing.
pub(crate) fn quantile(times: &mut [f64], q: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    let at = (times.len() as f64 * q) as usize;
    times
        .get(at.min(times.len().saturating_sub(1)))
        .copied()
        .unwrap_or(0.0)
}

/// Models with more bytes of weights are not run for the sake of a figure.
pub(crate) const LARGE: usize = 1 << 30;
/// What is measured for a table takes about this long.
const BUDGET: Duration = Duration::from_secs(1);
const ROUNDS: std::ops::RangeInclusive<usize> = 3..=200;

/// Median milliseconds of each of `models` on the same inputs, run in turn; `None`, and a note, where they cannot run.
fn race<const N: usize>(models: [&Model; N], inputs: &[(String, Tensor)], ui: &Ui) -> [Option<f64>; N] {
    if models.iter().any(|m| card::weight_bytes(m) > LARGE) {
        ui.note("not timed: the weights take more than 1 GiB (see bench)");
        return [None; N];
    }
    match measure(&models, inputs, ui) {
        Ok(ms) => std::array::from_fn(|i| ms.get(i).copied()),
        Err(why) => {
            ui.note(&format!("not timed: {}", super::ui::chain(&why)));
            [None; N]
        }
    }
}

/// What models are timed on, if they can be.
pub(crate) struct Trial {
    feeder: Option<Feeder>,
    /// The inputs with their shapes; empty where they are not known.
    pub(crate) shapes: Vec<(Wanted, Vec<usize>)>,
}

impl Trial {
    /// The inputs of `model` as `flags` say; without flags, no model is refused.
    ///
    /// # Errors
    ///
    /// If the flags do not fit the model.
    pub(crate) fn of(model: &Model, flags: &InputFlags, ui: &Ui) -> Result<Trial> {
        match Feeder::new(&wanted(model), flags, ui) {
            Ok(feeder) => Ok(Trial {
                shapes: feeder.shapes(),
                feeder: Some(feeder),
            }),
            Err(e) if !flags.inputs.is_empty() || !ui.common.sizes.is_empty() => Err(e),
            Err(e) => {
                ui.note(&format!("not timed: {}", super::ui::chain(&e)));
                let (feeder, shapes) = (None, vec![]);
                Ok(Trial { feeder, shapes })
            }
        }
    }

    /// Inputs of a run, if they can be made.
    pub(crate) fn inputs(&self, ui: &Ui) -> Option<Vec<(String, Tensor)>> {
        self.feeder.as_ref()?.make(ui.common.seed).ok()
    }

    /// Whether `a` and `b` compute the same bits of these inputs; none where there are none, or neither runs.
    pub(crate) fn same(&self, [a, b]: [&Model; 2], ui: &Ui) -> Option<bool> {
        let inputs = self.inputs(ui)?;
        let setup = ui.uncached();
        let run = |m: &Model| -> Result<_> {
            let session = setup.session(m).build()?;
            Ok(session.run(inputs.iter().map(|(n, t)| (n.as_str(), t)))?)
        };
        let (x, y) = match (run(a), run(b)) {
            (Ok(x), Ok(y)) => (x, y),
            (Err(_), Err(_)) => return None,
            _ => return Some(false),
        };
        let within = Tolerance { rtol: 0.0, atol: 0.0 };
        let mut pairs = x.values.iter().zip(&y.values);
        let equal = |x: &Tensor, y: &Tensor| x == y || Distance::of(x, y, within).pass();
        Some(pairs.all(|(x, y)| x.tensor().zip(y.tensor()).is_none_or(|(x, y)| equal(x, y))))
    }

    /// Refuses `back`, which is `model` read back from its file, if it computes something else. Whether that could be compared.
    ///
    /// # Errors
    ///
    /// If it does.
    pub(crate) fn proved(&self, model: &Model, back: &Model, ui: &Ui) -> Result<Option<bool>> {
        match self.same([model, back], ui) {
            Some(false) => bail!("it computes something else"),
            same => Ok(same),
        }
    }

    /// Median milliseconds of each of `models`; unknown, with a note, where they cannot run.
    pub(crate) fn race<const N: usize>(&self, models: [&Model; N], ui: &Ui) -> [Option<f64>; N] {
        let made = self.feeder.as_ref().map(|f| f.make(ui.common.seed));
        match made {
            Some(Ok(inputs)) => race(models, &inputs, ui),
            Some(Err(e)) => {
                ui.note(&format!("not timed: {}", super::ui::chain(&e)));
                [None; N]
            }
            None => [None; N],
        }
    }
}

fn measure(models: &[&Model], inputs: &[(String, Tensor)], ui: &Ui) -> Result<Vec<f64>> {
    // One cache is of one model.
    let setup = ui.uncached();
    let build = |m: &&Model| setup.session(m).build();
    let sessions = models.iter().map(build).collect::<Result<Vec<_>, _>>()?;
    let run = |s: &Session| -> Result<f64> {
        let start = Instant::now();
        s.run(inputs.iter().map(|(n, t)| (n, t)))?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    };
    for s in &sessions {
        run(s)?;
    }
    let mut times = vec![vec![]; sessions.len()];
    let start = Instant::now();
    for round in 1..=*ROUNDS.end() {
        for (s, times) in sessions.iter().zip(&mut times) {
            times.push(run(s)?);
        }
        if round >= *ROUNDS.start() && start.elapsed() >= BUDGET {
            break;
        }
    }
    Ok(times.iter_mut().map(|t| median(t)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        let mut times = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!(median(&mut times), 3.0);
        assert_eq!(quantile(&mut times, 0.9), 5.0);
        assert_eq!(quantile(&mut times, 0.0), 1.0);
        assert_eq!(median(&mut []), 0.0);
    }
}
