//! Verbs. To add one: a file here and a row in [`CMDS`].

mod bars;
mod bench;
mod calibrate;
mod card;
mod chart;
mod compare;
mod compress;
mod demo;
mod digits;
mod explain;
mod inspect;
mod new;
mod optimize;
mod prune;
mod pruning;
mod recipe;
mod report;
mod rival;
mod run;
mod shapes;
mod source;
mod sweep;
mod table;
mod ticket;
mod timing;
mod train;
mod ui;
mod verify;
mod written;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::error::ErrorKind;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use serde_json::{Value, json};

use ui::{Common, Ui};
pub(crate) use ui::{chain, stderr};
#[cfg(feature = "ort")]
pub(crate) use written::Scratch;

/// One verb of the command line.
pub(crate) trait Cmd: Sync {
    /// Its name, what it does, and its own flags; those of [`Common`] are added for all verbs.
    fn command(&self) -> Command;

    /// Does it. Text meant for people goes through `ui`; what `--json` prints is returned.
    ///
    /// # Errors
    ///
    /// Where usage or input is bad: exit status 2.
    fn run(&self, flags: &ArgMatches, ui: &Ui) -> Result<Outcome>;
}

/// All verbs, sorted by name.
pub(crate) static CMDS: &[&dyn Cmd] = &[
    &bench::Bench,
    &calibrate::Calibrate,
    &compress::Compress,
    &demo::Demo,
    &explain::Explain,
    &train::Finetune,
    &inspect::Inspect,
    &new::New,
    &optimize::Optimize,
    &prune::Prune,
    &run::Run,
    &sweep::Sweep,
    &ticket::Ticket,
    &train::Train,
    &verify::Verify,
];

/// What a verb that came to its end has to say.
pub(crate) struct Outcome {
    /// The object that `--json` prints.
    pub(crate) json: Value,
    /// Whether all gates were passed: exit status 0, else 1.
    pub(crate) pass: bool,
}

impl Outcome {
    /// Done, without a gate that could fail.
    pub(crate) fn done(json: Value) -> Outcome {
        Outcome { json, pass: true }
    }
}

/// The entries of both objects; of one name, those of `b`.
pub(crate) fn joined(a: Value, b: Value) -> Value {
    match (a, b) {
        (Value::Object(mut a), Value::Object(b)) => {
            a.extend(b);
            Value::Object(a)
        }
        (a, _) => a,
    }
}

/// The whole command line, as `clap` sees it.
fn command() -> Command {
    let status = "Exit status: 0 done; 1 a gate failed; 2 bad usage or bad input.";
    let root = Command::new("secateur")
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(status)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand_value_name("VERB")
        .subcommand_help_heading("Verbs")
        .max_term_width(110)
        .subcommands(CMDS.iter().map(|c| c.command()));
    Common::augment_args(root).about("Runs, trains, prunes and rewrites ONNX models")
}

/// Runs the command line `args`, program name included.
pub(crate) fn start(args: Vec<OsString>) -> ExitCode {
    let json = args.iter().any(|a| a == "--json");
    let result = match command().try_get_matches_from(&args) {
        Ok(matches) => dispatch(&matches),
        Err(e) => return misused(&e, &args, json),
    };
    match result {
        Ok(outcome) => {
            if json {
                ui::stdout(&format!("{:#}\n", outcome.json));
            }
            ExitCode::from(u8::from(!outcome.pass))
        }
        Err(e) => {
            let text = ui::chain(&e);
            ui::stderr(&format!("error: {text}\n"));
            refused(json, &text)
        }
    }
}

/// Help and version, which are no errors, and what `clap` refuses.
fn misused(e: &clap::Error, args: &[OsString], json: bool) -> ExitCode {
    // Nobody may be listening any more.
    let _ = e.print();
    if !e.use_stderr() {
        return ExitCode::SUCCESS;
    }
    let known = match e.kind() {
        ErrorKind::InvalidSubcommand => format!("Verbs: {}\n", names(CMDS.iter().map(|c| c.command()))),
        ErrorKind::UnknownArgument => format!("Flags: {}\n", flags(args)),
        _ => String::new(),
    };
    ui::stderr(&known);
    let first = e.to_string().lines().next().unwrap_or_default().to_owned();
    refused(json, first.trim_start_matches("error: "))
}

fn names(verbs: impl Iterator<Item = Command>) -> String {
    verbs
        .map(|v| v.get_name().to_owned())
        .collect::<Vec<_>>()
        .join(", ")
}

/// The flags of the verb that `args` name, and those of all verbs.
fn flags(args: &[OsString]) -> String {
    let root = command();
    let verb = root
        .get_subcommands()
        .find(|c| args.iter().any(|a| a == c.get_name()));
    let own = verb.into_iter().flat_map(Command::get_arguments);
    let all = own.chain(root.get_arguments()).filter(|a| !a.is_hide_set());
    let long: Vec<String> = all.filter_map(|a| Some(format!("--{}", a.get_long()?))).collect();
    long.join(", ")
}

fn refused(json: bool, error: &str) -> ExitCode {
    if json {
        ui::stdout(&format!("{:#}\n", json!({ "error": error })));
    }
    ExitCode::from(2)
}

fn dispatch(matches: &ArgMatches) -> Result<Outcome> {
    let ui = Ui::new(Common::from_arg_matches(matches)?);
    let (name, flags) = matches.subcommand().unwrap_or(("", matches));
    let verb = CMDS.iter().find(|c| c.command().get_name() == name);
    match verb {
        Some(verb) => verb.run(flags, &ui),
        None => anyhow::bail!("no verb {name:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_sorted_and_explain_themselves() {
        let verbs: Vec<_> = CMDS.iter().map(|c| c.command()).collect();
        assert!(verbs.is_sorted_by(|a, b| a.get_name() < b.get_name()));
        for verb in &verbs {
            assert!(
                verb.get_about().is_some(),
                "{} says what it does",
                verb.get_name()
            );
            // The words for flags that verbs share are not those of the verb.
            let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(!about.contains("lags"), "{}: {about}", verb.get_name());
            let hidden = |a: &&clap::Arg| !a.is_hide_set();
            for arg in verb.get_arguments().filter(hidden) {
                assert!(arg.get_help().is_some(), "{} {}", verb.get_name(), arg.get_id());
            }
        }
        command().debug_assert();
    }
}
