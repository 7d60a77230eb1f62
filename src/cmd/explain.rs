//! `secateur explain`: how a model is run, and why so.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{ArgMatches, Args, Command, FromArgMatches};
use secateur::engine::ir::{Model, Node};
use secateur::engine::ops;
use secateur::engine::opt::infer::full_name;
use secateur::engine::opt::{RULES, Report};
use secateur::engine::plan::Plan;
use secateur::engine::run::StepTime;
use secateur::{Session, Tensor};
use serde_json::{Value, json};

use super::shapes::wanted;
use super::source::{Feeder, InputFlags};
use super::table::Table;
use super::ui::Ui;
use super::{Cmd, Outcome, card, optimize};

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
        Flags::augment_args(
            Command::new("explain")
                .about("Shows how each node is run, and which rewrites fired or did not, and why"),
        )
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
    let steps = steps(&session, &plan, &inputs).with_context(place)?;
    let rules = rules(session.report());
    ui.say(&format!("{}\n{}", nodes_table(&steps), rules_table(&rules)));
    Ok(Outcome::done(json!({
        "model": place(),
        "threads": session.threads(),
        "nodes": steps.iter().map(Step::json).collect::<Vec<_>>(),
        "rules": rules,
    })))
}

/// One node as it is run.
struct Step {
    name: String,
    op: String,
    kernel: String,
    predicted_ms: Option<f64>,
    measured_ms: f64,
    /// The share of zeros among its weights.
    zeros: Option<f64>,
    reason: String,
}

impl Step {
    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "op": self.op,
            "kernel": self.kernel,
            "predicted_ms": self.predicted_ms,
            "measured_ms": self.measured_ms,
            "zeros": self.zeros,
            "reason": self.reason,
        })
    }
}

/// Billions of operations, and of bytes, that one thread is predicted to do in a second.
const RATES: (f64, f64) = (170.0, 16.0);

const TIME: Duration = Duration::from_millis(300);
const RUNS: usize = 20;

fn steps(session: &Session, plan: &Plan, inputs: &[(String, Tensor)]) -> Result<Vec<Step>> {
    let mut predicted: HashMap<(String, String), VecDeque<f64>> = HashMap::new();
    let threads = session.threads() as f64;
    for s in plan.steps() {
        let ms = s.cost.ms(RATES.0 * threads, RATES.1);
        predicted
            .entry((s.node.clone(), s.op.clone()))
            .or_default()
            .push_back(ms);
    }
    let zeros = zeros(session.model());
    // Nodes without a name are called by their operator.
    let mut nodes: HashMap<&str, Vec<&Node>> = HashMap::new();
    for (_, n) in session.model().graph.iter() {
        nodes.entry(n.label()).or_default().push(n);
    }
    let times = measured(session, inputs)?;
    let step = |t: StepTime| {
        let key = (t.node.clone(), t.op.clone());
        let share = zeros.get(&key).copied();
        let queue = predicted.get_mut(&key);
        Step {
            predicted_ms: queue.and_then(VecDeque::pop_front),
            measured_ms: t.ms,
            zeros: share,
            reason: reason(&t, nodes.get(&*t.node).map_or(&[], |n| n), share),
            name: t.node,
            op: t.op,
            kernel: t.kernel,
        }
    };
    Ok(times.into_iter().map(step).collect())
}

/// Why the step `t`, which is one of `nodes` or part of it, is there, or is not run by a kernel of the node's own, or not by a
/// sparse one.
fn reason(t: &StepTime, nodes: &[&Node], zeros: Option<f64>) -> String {
    let own = nodes.iter().find(|n| full_name(n) == t.op);
    match (&*t.kernel, own.or(nodes.first())) {
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
        _ if zeros > Some(0.0) => "no sparse kernel yet".into(),
        _ => String::new(),
    }
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

/// The mean time of each step over several runs.
fn measured(session: &Session, inputs: &[(String, Tensor)]) -> Result<Vec<StepTime>> {
    let run = || -> Result<Vec<StepTime>> { Ok(session.profile(inputs.iter().map(|(n, t)| (n, t)))?.1) };
    run()?;
    let (start, mut runs) = (Instant::now(), 1);
    let mut all = run()?;
    while runs < RUNS && start.elapsed() < TIME {
        for (sum, one) in all.iter_mut().zip(run()?) {
            sum.ms += one.ms;
        }
        runs += 1;
    }
    all.iter_mut().for_each(|t| t.ms /= f64::from(runs as u32));
    Ok(all)
}

/// The share of zeros among the weights of each node: the largest constant of floats that it reads, if it has two axes.
fn zeros(model: &Model) -> HashMap<(String, String), f64> {
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
