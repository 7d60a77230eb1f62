//! `secateur finetune`: a model trained further, its zeros kept.

use std::path::PathBuf;

use anyhow::Result;
use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::super::ui::Ui;
use super::super::written::Target;
use super::super::{Cmd, Outcome};
use super::{Flags, Job, Learning, Start};

/// The verb.
pub(in crate::cmd) struct Finetune;

#[derive(Args)]
struct FinetuneFlags {
    /// The ONNX file
    model: PathBuf,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    how: Flags,
    /// Train weights that are 0 too; else those stay 0, so that what was pruned stays pruned
    #[arg(long)]
    thaw_zeros: bool,
}

impl Cmd for Finetune {
    fn command(&self) -> Command {
        let about = "Trains a model further; zeros stay zeros";
        FinetuneFlags::augment_args(Command::new("finetune"))
            .about(about)
            .after_help(Learning::names())
    }

    fn run(&self, flags: &ArgMatches, ui: &Ui) -> Result<Outcome> {
        let flags = FinetuneFlags::from_arg_matches(flags)?;
        let job = Job {
            verb: "finetune",
            from: &flags.model.to_string_lossy(),
            target: &flags.target,
            how: &flags.how,
            hold_zeros: !flags.thaw_zeros,
            ui,
        };
        job.check()?;
        job.run(Start::file(&flags.model, &flags.how.learning, ui)?)
    }
}
