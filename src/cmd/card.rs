//! The figures of a model that are compared before and after.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use secateur::engine::ir::{AttrValue, Constant, DType, Dim, Form, Graph, Model, Type, ValueId};
use secateur::engine::onnx::ErrorKind;
use secateur::engine::opt::infer::infer;
use secateur::engine::plan::macs;
use secateur::engine::run::unsupported;
use serde_json::{Value, json};

use super::shapes::Wanted;
use super::table::{Table, thousands};

/// Reads the model in `path`.
///
/// # Errors
///
/// If there is none.
pub(crate) fn load(path: &Path) -> Result<Model> {
    Model::load(path).map_err(|e| match e.kind() {
        // Bytes that end too early say nothing to who took another file for a model.
        ErrorKind::Malformed => anyhow::Error::from(e).context("no ONNX model, or only a part of one"),
        _ => e.into(),
    })
}

/// A tensor that the file holds.
pub(crate) struct Weight<'a> {
    /// The name of the initialiser, or of the output of the `Constant` node.
    pub(crate) name: String,
    /// Its elements, and how the file keeps them.
    pub(crate) constant: &'a Constant,
}

impl Weight<'_> {
    /// Whether its elements count as parameters. 64-bit integers, truth values and strings are shapes, indices and masks.
    pub(crate) fn is_parameter(&self) -> bool {
        !matches!(
            self.constant.tensor.dtype(),
            DType::I64 | DType::Bool | DType::String
        )
    }
}

/// All tensors of `model`: initialisers, and those of `Constant` nodes, in subgraphs and functions too.
pub(crate) fn weights(model: &Model) -> Vec<Weight<'_>> {
    let mut found = vec![];
    collect(&model.graph, &mut found);
    model.functions.iter().for_each(|f| collect(&f.graph, &mut found));
    found
}

/// Bytes of all tensors of `model`.
pub(crate) fn weight_bytes(model: &Model) -> usize {
    weights(model)
        .iter()
        .map(|w| w.constant.tensor.bytes().len())
        .sum()
}

fn collect<'a>(g: &'a Graph, found: &mut Vec<Weight<'a>>) {
    let initializers = g
        .initializers
        .iter()
        .filter_map(|&v| Some((v, g[v].konst.as_ref()?)));
    found.extend(initializers.map(|(v, constant)| Weight {
        name: g[v].name.to_string(),
        constant,
    }));
    for (_, node) in g.iter() {
        let out = node.outputs.first().copied().flatten();
        for attr in &node.attrs {
            if let AttrValue::Tensor(constant) = &attr.value {
                let name = out.map_or(node.label(), |v| &g[v].name).to_owned();
                found.push(Weight { name, constant });
            }
            attr.value.graphs().iter().for_each(|g| collect(g, found));
        }
    }
}

/// Figures of a model and its file.
#[derive(Clone, Debug)]
pub(crate) struct Card {
    /// Nodes, those of subgraphs not counted.
    pub(crate) nodes: usize,
    /// Elements of all tensors that count as parameters.
    pub(crate) parameters: usize,
    /// Those of them that are zero.
    pub(crate) zeros: usize,
    /// Bytes of the file and its external files; `None` where it has not been written.
    pub(crate) file_bytes: Option<u64>,
    /// Multiply-adds of one run; `None` where they do not follow.
    pub(crate) macs: Option<u64>,
    /// Median milliseconds of one run; `None` where it was not measured.
    pub(crate) ms: Option<f64>,
}

impl Card {
    /// The figures of `model`, which lies in `file`, for inputs of the given shapes. It is not run.
    pub(crate) fn of(model: &Model, file: Option<&Path>, inputs: &[(Wanted, Vec<usize>)]) -> Card {
        let all = weights(model);
        let counted = || {
            all.iter()
                .filter(|w| w.is_parameter())
                .map(|w| &w.constant.tensor)
        };
        Card {
            nodes: model.graph.order.len(),
            parameters: counted().map(|t| t.len()).sum(),
            zeros: counted().map(|t| t.zeros_count()).sum(),
            file_bytes: file.and_then(|f| file_bytes(&all, f).ok()),
            macs: total_macs(model, inputs),
            ms: None,
        }
    }

    /// The share of zeros among the parameters, in percent.
    pub(crate) fn zeros_percent(&self) -> f64 {
        100.0 * self.zeros as f64 / self.parameters.max(1) as f64
    }

    /// The size of its files in megabytes (10⁶ bytes).
    pub(crate) fn file_mb(&self) -> Option<f64> {
        self.file_bytes.map(|b| b as f64 / 1e6)
    }

    /// As `before{}` and `after{}` have it.
    pub(crate) fn json(&self) -> Value {
        json!({
            "nodes": self.nodes,
            "parameters": self.parameters,
            "zeros": self.zeros,
            "zeros_percent": self.zeros_percent(),
            "file_mb": self.file_mb(),
            "macs": self.macs,
            "ms": self.ms,
        })
    }

    fn cells(&self, name: &str) -> Vec<String> {
        let or_none = |x: Option<String>| x.unwrap_or("–".into());
        vec![
            name.to_owned(),
            thousands(self.nodes as u64),
            thousands(self.parameters as u64),
            format!("{:.2}", self.zeros_percent()),
            or_none(self.file_mb().map(|mb| format!("{mb:.3}"))),
            or_none(self.macs.map(thousands)),
            or_none(self.ms.map(|ms| format!("{ms:.3}"))),
        ]
    }
}

/// The table in which verbs that write a model end.
pub(crate) fn table(rows: &[(&str, &Card)]) -> Table {
    let mut table = Table::new(&["", "nodes", "parameters", "zeros %", "file MB", "MACs", "ms"]);
    rows.iter().for_each(|(name, card)| table.row(card.cells(name)));
    table
}

fn file_bytes(all: &[Weight], file: &Path) -> Result<u64> {
    let mut files: BTreeSet<PathBuf> = all
        .iter()
        .filter_map(|w| match &w.constant.form {
            Form::External(e) => Some(e.source.as_ref()?.0.clone()),
            _ => None,
        })
        .collect();
    files.insert(file.to_owned());
    let len = |f: &PathBuf| {
        Ok(std::fs::metadata(f)
            .with_context(|| f.display().to_string())?
            .len())
    };
    files.iter().map(len).sum()
}

fn total_macs(model: &Model, inputs: &[(Wanted, Vec<usize>)]) -> Option<u64> {
    let types: HashMap<ValueId, Type> = inputs
        .iter()
        .filter_map(|(w, dims)| {
            let v = model.graph.find(&w.name)?;
            Some((v, Type::tensor(w.dtype(), dims.iter().copied())))
        })
        .collect();
    if !unsupported(model).is_empty() {
        return None;
    }
    let facts = infer(model, &types).ok()?;
    let each = model.graph.iter().map(|(id, _)| macs(model, &facts, id));
    each.fold(Dim::Known(0), |sum, n| sum + n)
        .size()
        .map(|n| n as u64)
}
