//! What `ticket` is asked for.

use std::path::PathBuf;

use anyhow::{Result, bail};
use secateur::compress::ticket::Arm;

use super::super::pruning::{ScopeFlag, share};
use super::super::train::Learning;
use super::super::{new, written};

/// The flags of the verb.
#[derive(clap::Args)]
pub(super) struct Flags {
    /// An architecture (see `new --list`), which is made as large as the data wants it, or an ONNX file with first weights
    pub(super) model: String,
    #[command(flatten)]
    pub(super) learning: Learning,
    /// How often all training examples are seen in a training
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) epochs: u64,
    /// Steps of a training instead
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) steps: Option<u64>,
    /// Measure by the validation examples after so many steps each
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) every: u64,
    /// How often weights are masked out
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) rounds: u32,
    /// The share of what is left that goes in a round: 0.2, 20% or 20
    #[arg(long, value_name = "X", default_value = "20%", value_parser = share)]
    pub(super) rate: f64,
    /// Take that share of each layer, of output layers half of it, or rank all weights together
    #[arg(long, value_enum, default_value = "layer")]
    pub(super) scope: ScopeFlag,
    /// Go back to the weights after so many steps instead of the first ones
    #[arg(long, value_name = "STEP", default_value_t = 0)]
    pub(super) rewind: u64,
    /// What is trained beside the dense network
    #[arg(
        long,
        value_name = "A",
        value_enum,
        value_delimiter = ',',
        default_value = "ticket,reinit,random-mask"
    )]
    pub(super) arms: Vec<ArmFlag>,
    /// Repeat with N seeds, from --seed on, as many at a time as there are threads
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(super) seeds: u64,
    /// Write tickets and masks as ONNX files to this folder, and what --resume needs
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// Go on in --out, if something is there
    #[arg(long, requires = "out")]
    pub(super) resume: bool,
    /// Write the rows as a table
    #[arg(long, value_name = "FILE")]
    pub(super) csv: Option<PathBuf>,
    /// Draw accuracy and steps over the weights that are left
    #[arg(long, value_name = "FILE")]
    pub(super) svg: Option<PathBuf>,
    /// Replace files that are there, and begin anew in --out
    #[arg(long)]
    pub(super) force: bool,
    /// Set a number of the architecture
    #[arg(long, value_name = "KEY=V", value_parser = new::setting)]
    pub(super) set: Vec<(String, String)>,
}

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ArmFlag {
    Ticket,
    Reinit,
    RandomMask,
}

impl Flags {
    /// Refuses early what cannot be done or could not be written in the end.
    pub(super) fn check(&self) -> Result<()> {
        if !(self.rate > 0.0 && self.rate < 1.0) {
            bail!("--rate {}: expected more than 0 and less than 1", self.rate);
        }
        let mut files = self.csv.iter().chain(&self.svg);
        files.try_for_each(|f| written::check(f, self.force || self.resume))
    }

    /// What is trained beside dense networks and tickets, once each.
    pub(super) fn controls(&self) -> Vec<Arm> {
        let all = [
            (ArmFlag::Reinit, Arm::Reinit),
            (ArmFlag::RandomMask, Arm::RandomMask),
        ];
        let wanted = all.into_iter().filter(|(flag, _)| self.arms.contains(flag));
        wanted.map(|(_, arm)| arm).collect()
    }
}
