//! Runs of cases, and what each kernel in them took.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use secateur::Session;
use secateur::engine::plan::{Offer, Plan, Rates, Sample};

use super::case::{Case, NODE};

/// What was measured of one kernel in one case.
pub(super) struct Measured {
    pub(super) case: String,
    pub(super) kernel: String,
    pub(super) threads: usize,
    pub(super) sample: Sample,
}

impl Measured {
    /// Takes over the time of `again`, the same measured another time, if it is less.
    pub(super) fn keep_less(&mut self, again: &Measured) {
        self.sample.ms = self.sample.ms.min(again.sample.ms);
    }
}

/// A case with one of the kernels that its node is offered.
struct Trial<'c> {
    case: &'c Case,
    kernel: String,
    threads: usize,
    session: Session,
    plan: Arc<Plan>,
    /// The least milliseconds of each step.
    best: Vec<f64>,
}

fn session(case: &Case, kernel: Option<&str>, threads: usize) -> Result<(Session, Arc<Plan>)> {
    let rates = kernel.map_or_else(Rates::default, |k| Rates::default().force(k));
    let builder = Session::builder(&case.model).threads(threads).unoptimized();
    let session = builder.rates(rates.into()).build()?;
    let plan = session.prepare(feeds(case))?;
    Ok((session, plan))
}

fn feeds(case: &Case) -> impl Iterator<Item = (&String, &secateur::Tensor)> {
    case.inputs.iter().map(|(name, x)| (name, x))
}

/// The kernels that are offered for the node, each once; of a node that is another view of its input none, but it is tried
/// once, for the copies around it.
fn offers(case: &Case) -> Result<Vec<String>> {
    let (_, plan) = session(case, None, 1)?;
    let steps = plan.steps().iter().filter(|s| s.node == NODE);
    let mut names: Vec<String> = steps
        .flat_map(|s| s.offers.iter().filter(|o| worth(o)).map(|o| o.kernel.clone()))
        .collect();
    if names.is_empty() {
        names.push(String::new());
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// Whether an offer is for zeros that are there, if it is for zeros.
fn worth(o: &Offer) -> bool {
    o.sparse.as_ref().is_none_or(|s| s.zeros > 0.0)
}

impl Trial<'_> {
    fn run(&mut self) -> Result<()> {
        let (_, times) = self.session.profile(feeds(self.case))?;
        ensure!(times.len() == self.plan.steps().len(), "the plan is not whole");
        for (best, t) in self.best.iter_mut().zip(&times) {
            *best = best.min(t.ms);
        }
        Ok(())
    }

    /// The kernel's own steps, and the copies that it made necessary.
    fn measured(&self) -> impl Iterator<Item = Measured> {
        let steps = self.plan.steps().iter().zip(&self.best);
        let own = steps.filter(|(s, _)| s.op == "Reorder" || s.node == NODE && s.kernel == self.kernel);
        own.map(|(s, &ms)| Measured {
            case: self.case.line.clone(),
            kernel: s.kernel.clone(),
            threads: self.threads,
            sample: Sample { cost: s.cost, ms },
        })
    }
}

/// Runs of each trial at least, and at most.
const RUNS: std::ops::RangeInclusive<usize> = 5..=25;

/// Measures `cases` in turn, each with every kernel that it is offered, on one thread and on `threads`, for about `time`.
///
/// # Errors
///
/// If a case does not run.
pub(super) fn measure(cases: &[Case], threads: usize, time: Duration) -> Result<Vec<Measured>> {
    let mut trials = vec![];
    for case in cases {
        for kernel in offers(case).with_context(|| case.line.clone())? {
            for threads in BTreeMap::from([(1, ()), (threads, ())]).into_keys() {
                let (session, plan) =
                    session(case, Some(&kernel), threads).with_context(|| case.line.clone())?;
                trials.push(Trial {
                    case,
                    kernel: kernel.clone(),
                    threads,
                    best: vec![f64::INFINITY; plan.steps().len()],
                    session,
                    plan,
                });
            }
        }
    }
    let start = Instant::now();
    for run in 0..*RUNS.end() {
        if run >= *RUNS.start() && start.elapsed() > time {
            break;
        }
        trials.iter_mut().try_for_each(Trial::run)?;
    }
    Ok(trials.iter().flat_map(Trial::measured).collect())
}
