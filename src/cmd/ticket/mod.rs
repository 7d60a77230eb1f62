//! `secateur ticket`: parts of a network that learn by themselves what the whole learns.

mod chart;
mod flags;
mod folder;
mod job;
mod report;

use anyhow::{Result, bail};
use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::train::{Learning, Start};
use super::ui::Ui;
use super::{Cmd, Outcome};
use flags::Flags;
use job::Job;

/// The verb.
pub(super) struct Ticket;

impl Cmd for Ticket {
    fn command(&self) -> Command {
        let about = "Finds lottery tickets: parts of a network that learn what the whole learns";
        Flags::augment_args(Command::new("ticket"))
            .about(about)
            .after_help(Learning::names())
    }

    fn run(&self, flags: &ArgMatches, ui: &Ui) -> Result<Outcome> {
        let flags = Flags::from_arg_matches(flags)?;
        flags.check()?;
        let start = Start::arch_or_file(&flags.model, &flags.set, &flags.learning, ui)?;
        if start.classes.is_none() {
            bail!("tickets are measured by the share of right answers; expected labels that are classes");
        }
        let job = Job {
            flags: &flags,
            start: &start,
            ui,
        };
        job.run()
    }
}
