//! `secateur explain`: how a model is run, and why so.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{ArgMatches, Args, Command, FromArgMatches};
use secateur::engine::ir::{Model, Node};
use secateur::engine::ops;
use secateur::engine::opt::infer::full_name;
use secateur::engine::opt::{RULES, Report};
use secateur::engine::plan::{self, Offer, Plan, Rates, Share};
use secateur::engine::run::StepTime;
use secateur::{Session, Tensor};
use serde_json::{Value, json};

use super::shapes::wanted;
use super::source::{Feeder, InputFlags};
use super::table::Table;
use super::timing::median;
use super::ui::Ui;
use super::{Cmd, Outcome, card, optimize};
use crate::rates;

/// The verb.
pub(super) struct Explain;

#[derive(Args)]
struct Flags {
    /// The ONNX file
    model: PathBuf,
    #[command(flatten)]
    inputs: InputFlags,
}

impl Cmd for Explain {
    fn command(&self) -> Command {
        Flags::augment_args(Command::new("explain"))
            .about("Shows how each node is run, and which rewrites fired or did not, and why")
    }

    fn run(&self, flags: &ArgMatches, ui: &Ui) -> Result<Outcome> {
        explain(&Flags::from_arg_matches(flags)?, ui)
    }
}

fn explain(flags: &Flags, ui: &Ui) -> Result<Outcome> {
    let model = card::load(&flags.model)?;
    let feeder = Feeder::new(&wanted(&model), &flags.inputs, ui)?;
    let place = || flags.model.display().to_string();
    let session = ui.session(&model).build().with_context(place)?;
    let inputs = feeder.make(ui.common.seed)?;
    let plan = session
        .prepare(inputs.iter().map(|(n, t)| (n, t)))
        .with_context(place)?;
    ui.noted(&session);
    let mut sessions = vec![session];
    let zeros = |s: &plan::Step| {
        sparse(&s.offers)
            .and_then(|o| o.sparse.as_ref())
            .is_some_and(|s| s.zeros > 0.0)
    };
    if plan.steps().iter().any(zeros) {
        for sparse in [false, true] {
            let forced = Rates::clone(&rates_of(ui)).force_sparse(sparse);
            let builder = ui.session(&model).rates(forced.into());
            sessions.push(builder.build().with_context(place)?);
        }
    }
    let mut times = measured(&sessions, &inputs).with_context(place)?.into_iter();
    let session = &sessions[0];
    let mut steps = steps(session, &plan, times.next().unwrap_or_default());
    for (sparse, times) in [false, true].into_iter().zip(times) {
        compare(&mut steps, times, sparse);
    }
    let rules = rules(session.report());
    let sums = Sums::of(&steps, rates_used(ui));
    ui.say(&format!(
        "{}\n{sums}\n\n{}",
        nodes_table(&steps),
        rules_table(&rules)
    ));
    Ok(Outcome::done(json!({
        "model": place(),
        "threads": session.threads(),
        "rates": sums.rates,
        "predicted_ms": sums.predicted_ms,
        "measured_ms": sums.measured_ms,
        "median_error": sums.error,
        "nodes": steps.iter().map(Step::json).collect::<Vec<_>>(),
        "rules": rules,
    })))
}

/// The rates that predictions are made with.
fn rates_of(ui: &Ui) -> Arc<Rates> {
    match ui.common.deterministic {
        true => Arc::default(),
        false => rates::cached(),
    }
}

/// Notes the `times` of a session whose kernels all leave zeros out, or none, with the steps that have zeros.
fn compare(steps: &mut [Step], times: Vec<StepTime>, sparse: bool) {
    let mut all: HashMap<(String, String), VecDeque<f64>> = HashMap::new();
    for t in times {
        all.entry((t.node, t.op)).or_default().push_back(t.ms);
    }
    for s in steps.iter_mut() {
        let ms = all
            .get_mut(&(s.name.clone(), s.op.clone()))
            .and_then(VecDeque::pop_front);
        if s.share().is_some() && s.zeros > Some(0.0) {
            *(if sparse { &mut s.sparse_ms } else { &mut s.dense_ms }) = ms;
        }
    }
}

/// One node as it is run.
struct Step {
    name: String,
    op: String,
    kernel: String,
    predicted_ms: Option<f64>,
    offers: Vec<Offer>,
    measured_ms: f64,
    /// The share of zeros among its weights.
    zeros: Option<f64>,
    /// Measured, of the best kernel that leaves nothing out, and of the one that leaves zeros out.
    dense_ms: Option<f64>,
    sparse_ms: Option<f64>,
    reason: String,
}

impl Step {
    /// What the kernel that leaves out zeros says, if there is one.
    fn share(&self) -> Option<&Share> {
        sparse(&self.offers)?.sparse.as_ref()
    }

    /// The least predicted milliseconds of the kernels that leave out zeros, or of the others.
    fn least(&self, sparse: bool) -> Option<f64> {
        let offers = self.offers.iter().filter(|o| o.sparse.is_some() == sparse);
        offers.map(|o| o.ms + o.moves_ms).min_by(f64::total_cmp)
    }

    /// Times of the one or the other kind of kernels.
    fn times(&self, sparse: bool) -> Value {
        let measured = if sparse { self.sparse_ms } else { self.dense_ms };
        json!({"predicted_ms": self.least(sparse), "measured_ms": measured})
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "op": self.op,
            "kernel": self.kernel,
            "predicted_ms": self.predicted_ms,
            "measured_ms": self.measured_ms,
            "offers": self.offers.iter().map(offer).collect::<Vec<_>>(),
            "zeros": self.zeros,
            "pattern": self.share().map(|s| s.pattern),
            "break_even": self.share().and_then(|s| s.break_even),
            "dense": self.share().map(|_| self.times(false)),
            "sparse": self.share().map(|_| self.times(true)),
            "reason": self.reason,
        })
    }
}

fn offer(o: &Offer) -> Value {
    json!({"kernel": o.kernel, "predicted_ms": o.ms, "moves_ms": o.moves_ms})
}

/// About what measuring takes, and the runs of a session: at least, and at most.
const TIME: Duration = Duration::from_millis(900);
const RUNS: RangeInclusive<usize> = 3..=20;

/// The steps of `plan`, and what they were measured to take.
fn steps(session: &Session, plan: &Plan, times: Vec<StepTime>) -> Vec<Step> {
    let mut planned: HashMap<(String, String), VecDeque<&plan::Step>> = HashMap::new();
    for s in plan.steps() {
        let steps = planned.entry((s.node.clone(), s.op.clone())).or_default();
        steps.push_back(s);
    }
    let zeros = zeros(session.model());
    // Nodes without a name are called by their operator.
    let mut nodes: HashMap<&str, Vec<&Node>> = HashMap::new();
    for (_, n) in session.model().graph.iter() {
        nodes.entry(n.label()).or_default().push(n);
    }
    let step = |t: StepTime| {
        let key = (t.node.clone(), t.op.clone());
        let share = zeros.get(&key).copied();
        let planned = planned.get_mut(&key).and_then(VecDeque::pop_front);
        Step {
            predicted_ms: planned.map(|s| s.ms),
            offers: planned.map_or(vec![], |s| s.offers.clone()),
            measured_ms: t.ms,
            zeros: share,
            dense_ms: None,
            sparse_ms: None,
            reason: reason(&t, nodes.get(&*t.node).map_or(&[], |n| n)).unwrap_or_else(|| {
                let offers = planned.map_or(&[][..], |s| &s.offers);
                of_zeros(&t.kernel, offers, share)
            }),
            name: t.node,
            op: t.op,
            kernel: t.kernel,
        }
    };
    times.into_iter().map(step).collect()
}

/// Which rates predictions are made with: deterministic sessions take no others than those that are built in.
fn rates_used(ui: &Ui) -> &'static str {
    match ui.common.deterministic || rates::cached().threads() == 0 {
        true => "built-in",
        false => "calibrated",
    }
}

/// How good the predictions were.
struct Sums {
    predicted_ms: f64,
    measured_ms: f64,
    /// The median of the relative errors of all steps.
    error: f64,
    /// The rates that were used.
    rates: &'static str,
}

impl Sums {
    /// Of the steps that were predicted, with `rates`.
    fn of(steps: &[Step], rates: &'static str) -> Sums {
        let pairs = steps
            .iter()
            .filter_map(|s| Some((s.predicted_ms?, s.measured_ms)));
        let both = pairs.clone().filter(|(_, measured)| *measured > 0.0);
        Sums {
            predicted_ms: pairs.clone().map(|(p, _)| p).sum(),
            measured_ms: pairs.map(|(_, m)| m).sum(),
            error: median(&mut both.map(|(p, m)| (p / m - 1.0).abs()).collect::<Vec<_>>()),
            rates,
        }
    }
}

impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let rates = match self.rates {
            "calibrated" => "rates calibrated on this machine",
            _ => "built-in rates; secateur calibrate measures this machine's",
        };
        write!(
            f,
            "predicted {:.3} ms, measured {:.3} ms; median error of a step {:.0} % ({rates})",
            self.predicted_ms,
            self.measured_ms,
            100.0 * self.error
        )
    }
}

/// The best kernel that leaves out zeros.
fn sparse(offers: &[Offer]) -> Option<&Offer> {
    let all = offers.iter().filter(|o| o.sparse.is_some());
    all.min_by(|a, b| a.ms.total_cmp(&b.ms))
}

/// Why zeros are left out by a kernel, or not.
fn of_zeros(kernel: &str, offers: &[Offer], zeros: Option<f64>) -> String {
    let percent = |x: f64| format!("{:.0} %", 100.0 * x);
    let offer = sparse(offers);
    let Some((offer, share)) = offer.and_then(|o| Some((o, o.sparse.as_ref()?))) else {
        return match zeros {
            Some(zeros) if zeros > 0.0 => "no kernel for its shape leaves out zeros".into(),
            _ => String::new(),
        };
    };
    let pays = match share.break_even {
        Some(even) => format!("leaving out zeros pays from {}", percent(even)),
        None => "leaving out zeros never pays".into(),
    };
    match offer.kernel == kernel {
        true => format!(
            "leaves out {} zeros, {}; {pays}",
            percent(share.zeros),
            share.pattern
        ),
        false => pays,
    }
}

/// Why the step `t`, which is one of `nodes` or part of it, is there, or is not run by a kernel of the node's own.
fn reason(t: &StepTime, nodes: &[&Node]) -> Option<String> {
    let own = nodes.iter().find(|n| full_name(n) == t.op);
    Some(match (&*t.kernel, own.or(nodes.first())) {
        ("reference", _) => "no kernel fits: it runs by its definition".into(),
        ("alone", Some(node)) => alone(node).into(),
        ("alone", None) => "it runs on values, between plans".into(),
        (kernel, _) if t.op == "Reorder" => match kernel.rsplit('.').next() {
            Some("blocks") => "what follows wants channels in blocks",
            Some("rows") => "what follows wants rows, not channels in blocks",
            _ => "what follows wants the middle axes exchanged",
        }
        .into(),
        (_, Some(node)) if own.is_none() => {
            format!("no kernel for {} fits: this is part of its body", full_name(node))
        }
        _ => return None,
    })
}

/// Why no plan holds `node`.
fn alone(node: &Node) -> &'static str {
    let any = ops::find(node.domain(), &node.op).is_some_and(|op| op.laws().any);
    match node.attrs.iter().any(|a| !a.value.graphs().is_empty()) {
        true => "it runs subgraphs, which have plans of their own",
        false if any => "it takes or makes values that are no tensors of numbers",
        false => "its shapes depend on values",
    }
}

/// The median time of each step of each session. They run in turn, so that a change in the machine's speed meets all of them.
fn measured(sessions: &[Session], inputs: &[(String, Tensor)]) -> Result<Vec<Vec<StepTime>>> {
    let run = |s: &Session| -> Result<Vec<StepTime>> { Ok(s.profile(inputs.iter().map(|(n, t)| (n, t)))?.1) };
    let mut all = sessions.iter().map(run).collect::<Result<Vec<_>>>()?;
    let mut times: Vec<Vec<Vec<f64>>> = all.iter().map(|steps| vec![vec![]; steps.len()]).collect();
    let start = Instant::now();
    for done in 0..*RUNS.end() {
        if done >= *RUNS.start() && start.elapsed() > TIME {
            break;
        }
        for (session, times) in sessions.iter().zip(&mut times) {
            for (times, one) in times.iter_mut().zip(run(session)?) {
                times.push(one.ms);
            }
        }
    }
    for (t, times) in all.iter_mut().flatten().zip(times.iter_mut().flatten()) {
        t.ms = median(times);
    }
    Ok(all)
}

/// The share of zeros among the weights of each node: the largest constant of floats that it reads, if it has two axes.
pub(super) fn zeros(model: &Model) -> HashMap<(String, String), f64> {
    let g = &model.graph;
    let share = |node: &Node| {
        let constants = node.inputs.iter().flatten().filter_map(|&v| g.konst(v));
        let weights = constants.filter(|t| t.dtype().is_float() && t.dims().len() > 1);
        let t = weights.max_by_key(|t| t.len()).filter(|t| !t.is_empty())?;
        Some(t.zeros_count() as f64 / t.len() as f64)
    };
    let named = |node: &Node| (node.label().to_owned(), full_name(node));
    g.iter()
        .filter_map(|(_, n)| Some((named(n), share(n)?)))
        .collect()
}

/// What fired, what was refused and why, and what was not found.
fn rules(report: &Report) -> Vec<Value> {
    let mut all = optimize::rules(report);
    let seen: BTreeSet<&str> = report.events.iter().map(|e| e.rule).collect();
    let unseen = RULES.iter().map(|r| r.name()).filter(|name| !seen.contains(name));
    all.extend(
        unseen.map(
            |name| json!({"name": name, "fired": 0, "refused": [], "why": "its formula does not occur"}),
        ),
    );
    all
}

fn nodes_table(steps: &[Step]) -> Table {
    let mut table = Table::new(&[
        "node",
        "operator",
        "kernel",
        "predicted ms",
        "measured ms",
        "zeros",
        "dense ms",
        "sparse ms",
        "reason",
    ]);
    for s in steps {
        table.row([
            s.name.clone(),
            s.op.clone(),
            s.kernel.clone(),
            s.predicted_ms.map_or(String::new(), |ms| format!("{ms:.4}")),
            format!("{:.4}", s.measured_ms),
            s.zeros
                .map_or(String::new(), |share| format!("{:.1} %", 100.0 * share)),
            s.dense_ms.map_or(String::new(), |ms| format!("{ms:.4}")),
            s.sparse_ms.map_or(String::new(), |ms| format!("{ms:.4}")),
            s.reason.clone(),
        ]);
    }
    table
}

fn rules_table(rules: &[Value]) -> Table {
    let mut table = Table::new(&["rewrite", "fired", "not at", "because"]);
    for rule in rules {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let refused = rule["refused"].as_array().map_or(&[][..], |all| all);
        let first = refused.first();
        table.row([
            text(&rule["name"]),
            rule["fired"].to_string(),
            first.map_or(String::new(), |r| text(&r["node"])),
            first.map_or_else(|| text(&rule["why"]), |r| text(&r["why"])),
        ]);
        for r in refused.iter().skip(1) {
            table.row([String::new(), String::new(), text(&r["node"]), text(&r["why"])]);
        }
    }
    table
}
