//! `secateur inspect`: what a model is made of, and whether it can run here.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use secateur::engine::ir::{DType, Graph, Model, Port, Type};
use secateur::engine::onnx;
use secateur::engine::opt::infer::full_name;
use secateur::engine::plan;
use secateur::engine::run::{Unsupported, unsupported};
use serde_json::{Value, json};

use super::card::{self, Card};
use super::shapes::{Sizes, Wanted, wanted};
use super::table::{Table, thousands};
use super::ui::Ui;
use super::{Cmd, Outcome};

/// The verb.
pub(super) struct Inspect;

#[derive(Args)]
struct Flags {
    /// The ONNX file
    model: PathBuf,
    /// Show N of the largest tensors; 0 for none
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
}

impl Cmd for Inspect {
    fn command(&self) -> Command {
        let about = "Shows operators, inputs, parameters, zeros, MACs, memory, and what is not supported";
        Flags::augment_args(Command::new("inspect")).about(about)
    }

    fn run(&self, flags: &ArgMatches, ui: &Ui) -> Result<Outcome> {
        inspect(&Flags::from_arg_matches(flags)?, ui)
    }
}

/// What there is to know of a model without running it.
struct Seen<'a> {
    model: &'a Model,
    card: Card,
    ops: BTreeMap<String, usize>,
    unsupported: Vec<Unsupported>,
    peak_bytes: Option<usize>,
}

fn inspect(flags: &Flags, ui: &Ui) -> Result<Outcome> {
    let model = card::load(&flags.model)?;
    let inputs = wanted(&model);
    let mut sizes = Sizes::of(&inputs, &ui.common.sizes)?;
    let shapes = sizes.shapes(&inputs);
    sizes.note(ui);
    let bound: Vec<_> = inputs.into_iter().zip(shapes).collect();
    let peak = peak_bytes(&model, &bound, ui);
    let seen = Seen {
        card: Card::of(&model, Some(&flags.model), &bound),
        ops: ops(&model),
        unsupported: unsupported(&model),
        peak_bytes: peak.as_ref().ok().copied(),
        model: &model,
    };
    if let (Err(why), true) = (&peak, seen.unsupported.is_empty()) {
        ui.note(&format!("no peak memory: {}", super::ui::chain(why)));
    }
    ui.say(&seen.text(flags.top));
    let mut json = seen.json();
    json["model"] = json!(flags.model.display().to_string());
    Ok(Outcome::done(json))
}

/// With more bytes of weights, memory is planned without packing them for the kernels.
const LARGE: usize = 1 << 28;

/// Bytes that a run would work in, weights not counted.
fn peak_bytes(model: &Model, inputs: &[(Wanted, Vec<usize>)], ui: &Ui) -> Result<usize> {
    let session = ui.session(model).build()?;
    let g = &session.model().graph;
    let dims = |p: &Port| match (
        &g[p.value].konst,
        inputs.iter().find(|(w, _)| *w.name == *g[p.value].name),
    ) {
        (_, Some((_, dims))) => dims.clone(),
        (Some(c), None) => c.tensor.dims().to_vec(),
        (None, None) => vec![],
    };
    if card::weight_bytes(model) <= LARGE {
        let shapes: Vec<_> = g.inputs.iter().map(dims).collect();
        return Ok(session.plan(&shapes)?.peak_bytes());
    }
    ui.note("peak memory is without the scratch memory of kernels: the weights take more than 256 MiB");
    let ty = |p: &Port| {
        let dtype = p.ty.as_ref().and_then(|d| d.ty.dtype()).unwrap_or(DType::F32);
        (p.value, Type::tensor(dtype, dims(p)))
    };
    Ok(plan::peak_bytes(
        session.model(),
        &g.inputs.iter().map(ty).collect(),
    )?)
}

/// How often each operator is used, in subgraphs too.
fn ops(model: &Model) -> BTreeMap<String, usize> {
    fn count(g: &Graph, counts: &mut BTreeMap<String, usize>) {
        for (_, node) in g.iter() {
            *counts.entry(full_name(node)).or_default() += 1;
            let graphs = node.attrs.iter().flat_map(|a| a.value.graphs());
            graphs.for_each(|g| count(g, counts));
        }
    }
    let mut counts = BTreeMap::new();
    count(&model.graph, &mut counts);
    counts
}

impl Seen<'_> {
    fn opsets(&self) -> impl Iterator<Item = (&str, Option<i64>)> {
        let spelled = |d: Option<&str>| !matches!(d, None | Some(""));
        self.model.opsets.iter().map(move |o| {
            let domain = o.domain.as_deref();
            (domain.filter(|_| spelled(domain)).unwrap_or("ai.onnx"), o.version)
        })
    }

    fn ports(&self, ports: &[Port]) -> Value {
        let one = |p: &Port| {
            let ty = p.ty.as_ref().map(|d| &d.ty);
            let shape = ty.and_then(|t| t.shape()).map(|s| {
                let dim = |d: &secateur::engine::ir::Dim| {
                    d.known().map_or_else(|| json!(d.to_string()), Value::from)
                };
                s.iter().map(dim).collect::<Vec<_>>()
            });
            json!({
                "name": &*self.model.graph[p.value].name,
                "type": ty.and_then(|t| t.dtype()).map(|d| d.to_string()),
                "shape": shape,
                "has_default": self.model.graph[p.value].konst.is_some(),
            })
        };
        ports.iter().map(one).collect()
    }

    fn json(&self) -> Value {
        let (producer, version) = onnx::producer(self.model);
        let opsets: serde_json::Map<_, _> = self.opsets().map(|(d, v)| (d.to_owned(), json!(v))).collect();
        let tensor = |w: &card::Weight| {
            let t = &w.constant.tensor;
            json!({"name": w.name, "type": t.dtype().to_string(), "shape": t.dims(), "elements": t.len(), "zeros": t.zeros_count()})
        };
        let missing = |u: &Unsupported| json!({"op": u.op, "opset": u.opset, "nodes": u.nodes, "why": u.why});
        let parameters = || card::weights(self.model).into_iter().filter(|w| w.is_parameter());
        json!({
            "model": null,
            "producer": producer,
            "producer_version": version,
            "ir_version": self.model.ir_version,
            "opsets": opsets,
            "ops": self.ops,
            "nodes": self.card.nodes,
            "functions": self.model.functions.len(),
            "inputs": self.ports(&self.model.graph.inputs),
            "outputs": self.ports(&self.model.graph.outputs),
            "parameters": self.card.parameters,
            "zeros": self.card.zeros,
            "zeros_percent": self.card.zeros_percent(),
            "file_mb": self.card.file_mb(),
            "macs": self.card.macs,
            "peak_memory_bytes": self.peak_bytes,
            "tensors": parameters().map(|w| tensor(&w)).collect::<Vec<_>>(),
            "metadata": onnx::metadata(self.model).into_iter().map(|(k, v)| (k, json!(v))).collect::<serde_json::Map<_, _>>(),
            "unsupported": self.unsupported.iter().map(missing).collect::<Vec<_>>(),
        })
    }

    fn text(&self, top: usize) -> String {
        let none = || "unknown".to_owned();
        let (producer, version) = onnx::producer(self.model);
        let opsets: Vec<_> = self
            .opsets()
            .map(|(d, v)| format!("{d} {}", v.map_or("?".into(), |v| v.to_string())))
            .collect();
        let percent = format!(
            "{} ({:.2} %)",
            thousands(self.card.zeros as u64),
            self.card.zeros_percent()
        );
        let lines = [
            ("producer", format!("{producer} {version}").trim().to_owned()),
            ("opsets", opsets.join(", ")),
            ("inputs", self.port_text(&self.model.graph.inputs)),
            ("outputs", self.port_text(&self.model.graph.outputs)),
            ("nodes", thousands(self.card.nodes as u64)),
            ("parameters", thousands(self.card.parameters as u64)),
            ("zeros", percent),
            (
                "file",
                self.card.file_mb().map_or_else(none, |mb| format!("{mb:.3} MB")),
            ),
            ("MACs", self.card.macs.map_or_else(none, thousands)),
            (
                "peak memory",
                self.peak_bytes
                    .map_or_else(none, |b| format!("{:.3} MB", b as f64 / 1e6)),
            ),
        ];
        let mut text: String = lines.iter().map(|(k, v)| format!("{k:<12} {v}\n")).collect();
        text.push_str(&format!("\n{}\n", self.ops_table()));
        if top > 0 {
            text.push_str(&format!("\n{}\n", self.tensor_table(top)));
        }
        text + &self.support_text()
    }

    fn port_text(&self, ports: &[Port]) -> String {
        let one = |p: &Port| {
            let ty = p.ty.as_ref().map_or("?".into(), |d| d.ty.to_string());
            format!("{}: {ty}", self.model.graph[p.value].name)
        };
        ports.iter().map(one).collect::<Vec<_>>().join("\n             ")
    }

    fn ops_table(&self) -> Table {
        let mut table = Table::new(&["operator", "nodes"]);
        let mut rows: Vec<_> = self.ops.iter().collect();
        rows.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
        rows.iter()
            .for_each(|(op, n)| table.row([op.to_string(), n.to_string()]));
        table
    }

    fn tensor_table(&self, top: usize) -> Table {
        let mut all: Vec<_> = card::weights(self.model)
            .into_iter()
            .filter(|w| w.is_parameter())
            .collect();
        all.sort_by_key(|w| std::cmp::Reverse(w.constant.tensor.len()));
        let mut table = Table::new(&["largest tensors", "type", "shape", "elements", "zeros %"]);
        for w in all.iter().take(top) {
            let t = &w.constant.tensor;
            let zeros = 100.0 * t.zeros_count() as f64 / t.len().max(1) as f64;
            let shape = format!("{:?}", t.dims());
            table.row([
                w.name.clone(),
                t.dtype().to_string(),
                shape,
                thousands(t.len() as u64),
                format!("{zeros:.2}"),
            ]);
        }
        table
    }

    fn support_text(&self) -> String {
        match &self.unsupported[..] {
            [] => "\nAll operators are supported.".into(),
            all => {
                let lines: String = all.iter().map(|u| format!("\n  {u}")).collect();
                format!("\n{} operators are not supported:{lines}", all.len())
            }
        }
    }
}
