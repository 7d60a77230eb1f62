//! What `secateur sweep` is asked for.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use secateur::Model;
use secateur::compress::{Amount, Choice, Goal, Pattern, Scope};
use secateur::engine::run::nearest;
use secateur::models::{ARCHS, arch};

use super::layer::{Layer, SPELLING};
use crate::cmd::card;
use crate::cmd::pruning::{ScopeFlag, share};
use crate::cmd::rival::{Pace, RivalFlags};

/// The flags of the verb.
#[derive(clap::Args)]
pub(super) struct Flags {
    /// The ONNX file, or an architecture as `new --list` shows them
    #[arg(required_unless_present = "layer")]
    model: Option<String>,
    /// One layer instead: conv:OUTxINxHxW[,stride=N][,pad=N][,group=N]@HEIGHTxWIDTH or matmul:ROWSxINxOUT
    #[arg(long, value_name = "SHAPE", value_parser = Named::parse, conflicts_with = "model")]
    layer: Option<Named>,
    /// Shares of weights that are zero, in percent; dense is always measured
    #[arg(long, value_name = "X,…", value_delimiter = ',', value_parser = share, default_value = "0,50,60,70,80,90,95")]
    sparsity: Vec<f64>,
    /// Which weights are zero together, as in prune; N:M has a sparsity of its own
    #[arg(
        long,
        value_name = "NAME,…",
        value_delimiter = ',',
        default_value = "unstructured,block4x1"
    )]
    pattern: Vec<Pattern>,
    /// How numbers are held: f32
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', value_parser = precision, default_value = "f32")]
    precision: Vec<()>,
    /// Engines to run in turn: self, ort, tract; ort is always among them where it can be loaded
    #[arg(
        long = "engine",
        value_name = "NAME,…",
        value_delimiter = ',',
        default_value = "self,ort"
    )]
    pub(super) engines: Vec<String>,
    /// One row for each layer with weights, measured within the model, in this engine alone
    #[arg(long)]
    pub(super) layers: bool,
    /// Measure each pattern and sparsity for this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
    time: f64,
    /// What --sparsity is a share of
    #[arg(long, value_enum, default_value = "global")]
    scope: ScopeFlag,
    /// Leave these alone: names of weights or of nodes that read them; `*` is any text, `?` any character
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    pub(super) keep: Vec<String>,
    /// Write the rows to this file
    #[arg(long, value_name = "FILE")]
    pub(super) csv: Option<PathBuf>,
    /// Write a chart to this file
    #[arg(long, value_name = "FILE", conflicts_with = "layers")]
    pub(super) svg: Option<PathBuf>,
    /// Replace files if they are there
    #[arg(long)]
    pub(super) force: bool,
    #[command(flatten)]
    pub(super) rivals: RivalFlags,
    /// The file that a worker runs.
    #[arg(long, hide = true)]
    pub(super) file: Option<PathBuf>,
}

/// A layer and how it was spelled.
#[derive(Clone)]
struct Named(String, Layer);

impl Named {
    fn parse(text: &str) -> Result<Named, String> {
        Ok(Named(text.to_owned(), Layer::parse(text)?))
    }
}

fn precision(text: &str) -> Result<(), String> {
    match text {
        "f32" => Ok(()),
        _ => Err("only f32 is there yet".into()),
    }
}

impl Flags {
    /// What is to be swept, and what it is called.
    pub(super) fn model(&self, seed: u64) -> Result<(String, Model)> {
        if let Some(Named(name, layer)) = &self.layer {
            return Ok((name.clone(), layer.model(seed).with_context(|| name.clone())?));
        }
        let name = self
            .model
            .as_deref()
            .with_context(|| format!("no model; or --layer {SPELLING}"))?;
        let file = PathBuf::from(name);
        if file.exists() {
            return Ok((name.to_owned(), card::load(&file)?));
        }
        let Ok(arch) = arch(name) else {
            let known: Vec<String> = ARCHS.iter().map(|a| a.name().into()).collect();
            let (near, known) = (nearest(name, &known), known.join(", "));
            bail!("{name:?} is neither a file nor an architecture{near}; the architectures are {known}");
        };
        let model = arch.build(&[], seed).context(name.to_owned())?;
        Ok((name.to_owned(), model))
    }

    /// The file that the model comes from, if any.
    pub(super) fn source(&self) -> Option<PathBuf> {
        self.model.as_ref().map(PathBuf::from).filter(|p| p.exists())
    }

    pub(super) fn time(&self) -> Result<Duration> {
        Pace::time(self.time)
    }

    pub(super) fn choice(&self) -> Choice {
        let (keep, include) = (self.keep.clone(), vec![]);
        Choice { keep, include }
    }

    pub(super) fn scope_name(&self) -> &'static str {
        match self.scope {
            ScopeFlag::Global => "global",
            ScopeFlag::Layer => "layer",
        }
    }

    /// What the model is to be pruned to: each pattern at each sparsity, ascending, those of N:M once.
    pub(super) fn goals(&self) -> Vec<(Goal, f64)> {
        let mut shares: Vec<f64> = self.sparsity.iter().copied().filter(|s| *s > 0.0).collect();
        shares.sort_by(f64::total_cmp);
        shares.dedup();
        let of = |&pattern: &Pattern| {
            let shares = pattern.share().map_or(shares.clone(), |own| vec![own]);
            let goal = |share| Goal {
                amount: Amount::Sparsity(share),
                scope: Scope::from(self.scope),
                pattern,
            };
            shares.into_iter().map(|s| (goal(s), s)).collect::<Vec<_>>()
        };
        self.pattern.iter().flat_map(of).collect()
    }
}
