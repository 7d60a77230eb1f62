//! `secateur calibrate`: what kernels take on this machine.

mod case;
mod measure;
mod table;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{ArgMatches, Args, Command, FromArgMatches};
use secateur::engine::cpu::isa;
use secateur::engine::plan::{Rate, Sample, fit};
use secateur::engine::run::nearest;
use serde_json::{Value, json};

use super::table::Table;
use super::ui::{Progress, Ui};
use super::{Cmd, Outcome, written};
use crate::rates;
use measure::Measured;
use table::CASES;

/// The verb.
pub(super) struct Calibrate;

#[derive(Args)]
struct Flags {
    /// Measure these operators only, and keep what is known of the others [default: all]
    #[arg(value_name = "OPERATOR")]
    operators: Vec<String>,
}

impl Cmd for Calibrate {
    fn command(&self) -> Command {
        Flags::augment_args(Command::new("calibrate"))
            .about("Measures what kernels take on this machine, to choose among them by")
    }

    fn run(&self, flags: &ArgMatches, ui: &Ui) -> Result<Outcome> {
        calibrate(&Flags::from_arg_matches(flags)?, ui)
    }
}

/// Runs of all cases take about this long, beside what it takes to make them ready.
const TIME: Duration = Duration::from_secs(45);

/// About as many as there are, of which each gets its share of the time.
const CASES_ABOUT: f64 = 500.0;

/// Times that all cases are gone through: what disturbs the one seldom disturbs the other.
const PASSES: usize = 2;

/// Cases that are run in turn: enough for one to find nothing of its weights in the nearer caches.
const TOGETHER: usize = 8;

fn calibrate(flags: &Flags, ui: &Ui) -> Result<Outcome> {
    let lines = chosen(&flags.operators)?;
    let path = rates::file()?;
    make_folder(&path)?;
    let (start, threads) = (Instant::now(), ui.threads());
    let progress = ui.progress((PASSES * lines.len()) as u64, "shapes");
    let mut all: Vec<Measured> = vec![];
    for pass in 0..PASSES {
        let once = measured(&lines, threads, &progress)?;
        match pass {
            0 => all = once,
            _ => all
                .iter_mut()
                .zip(&once)
                .for_each(|(m, again)| m.keep_less(again)),
        }
    }
    drop(progress);
    let kernels = Kernel::all(&all, threads);
    let mut json = json!({
        "cpu": rates::cpu(),
        "isa": isa(),
        "version": env!("CARGO_PKG_VERSION"),
        "threads": threads,
        "seconds": start.elapsed().as_secs_f64(),
        "kernels": kernels.iter().map(Kernel::json).collect::<Vec<_>>(),
    });
    ui.say(&table(&kernels, threads).to_string());
    if !flags.operators.is_empty() {
        keep(&mut json, &path);
    }
    written::replace(&path, true, |out| Ok(writeln!(out, "{json:#}")?))?;
    ui.note(&format!("written to {}", path.display()));
    json["file"] = json!(path.display().to_string());
    json["samples"] = all.iter().map(sample_json).collect();
    Ok(Outcome::done(json))
}

/// One pass over all `lines`.
fn measured(lines: &[String], threads: usize, progress: &Progress) -> Result<Vec<Measured>> {
    let mut all = vec![];
    for lines in lines.chunks(TOGETHER) {
        let cases = lines.iter().map(|l| case::case(l)).collect::<Result<Vec<_>>>()?;
        let time = TIME.mul_f64(lines.len() as f64 / CASES_ABOUT) / PASSES as u32;
        all.extend(measure::measure(&cases, threads, time)?);
        progress.add(lines.len() as u64);
    }
    Ok(all)
}

/// The operator of a line.
fn op(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}

/// The lines of the table for `operators`; all where there are none.
///
/// # Errors
///
/// If an operator is not in the table.
fn chosen(operators: &[String]) -> Result<Vec<String>> {
    let all: Vec<String> = CASES.iter().flat_map(|l| case::split(l)).collect();
    let mut known: Vec<String> = all.iter().map(|l| op(l).to_owned()).collect();
    known.sort();
    known.dedup();
    for name in operators {
        if !known.iter().any(|k| k.eq_ignore_ascii_case(name)) {
            let near = nearest(name, &known);
            bail!(
                "no operator {name:?} is measured{near}; those are {}",
                known.join(", ")
            );
        }
    }
    let named = |line: &str| operators.iter().any(|o| o.eq_ignore_ascii_case(op(line)));
    let wanted = |line: &String| operators.is_empty() || named(line);
    Ok(all.into_iter().filter(wanted).collect())
}

/// Makes sure, before anything is measured, that the result can be written.
fn make_folder(path: &Path) -> Result<()> {
    let folder = path.parent().context("no folder")?;
    let place = || format!("{}: the cache cannot be written", folder.display());
    fs::create_dir_all(folder).with_context(place)?;
    let probe = folder.join(format!("probe.{}.tmp", std::process::id()));
    fs::write(&probe, "").with_context(place)?;
    fs::remove_file(&probe).with_context(place)
}

/// Adds the kernels that the cache has and `json` has not, if they were measured on as many threads.
fn keep(json: &mut Value, path: &Path) {
    let old = fs::read_to_string(path).ok();
    let old = old.and_then(|text| serde_json::from_str::<Value>(&text).ok());
    let Some(old) = old.filter(|o| rates::from_json(o).is_ok() && o["threads"] == json["threads"]) else {
        return;
    };
    let Some(kernels) = json["kernels"].as_array_mut() else {
        return;
    };
    let olds = old["kernels"].as_array().into_iter().flatten();
    for k in olds {
        if !kernels.iter().any(|new| new["kernel"] == k["kernel"]) {
            kernels.push(k.clone());
        }
    }
    kernels.sort_by_key(|k| k["kernel"].as_str().map(str::to_owned));
}

/// What was fitted to one number of threads.
struct Fitted {
    rate: Rate,
    error: f64,
}

/// What was found out of a kernel.
struct Kernel<'m> {
    name: &'m str,
    cases: usize,
    one: Fitted,
    all: Option<Fitted>,
}

/// With fewer cases there is nothing to fit.
const FEWEST: usize = 5;

impl<'m> Kernel<'m> {
    /// The kernels in `all`, sorted by name; without those that were seen too seldom.
    fn all(all: &'m [Measured], threads: usize) -> Vec<Kernel<'m>> {
        let mut samples: BTreeMap<(&str, usize), Vec<Sample>> = BTreeMap::new();
        for m in all {
            samples.entry((&m.kernel, m.threads)).or_default().push(m.sample);
        }
        let fitted = |name: &'m str, threads: usize| {
            let (rate, error) = fit(samples.get(&(name, threads))?);
            Some(Fitted { rate, error })
        };
        let singles = samples.iter().filter(|((_, t), s)| *t == 1 && s.len() >= FEWEST);
        let kernel = |(&(name, _), s): (&(&'m str, usize), &Vec<Sample>)| {
            Some(Kernel {
                name,
                cases: s.len(),
                one: fitted(name, 1)?,
                all: (threads > 1).then(|| fitted(name, threads)).flatten(),
            })
        };
        singles.filter_map(kernel).collect()
    }

    fn json(&self) -> Value {
        let mut json = json!({"kernel": self.name, "cases": self.cases});
        let parts = [Some(&self.one), self.all.as_ref()];
        for (i, fitted) in parts.into_iter().enumerate() {
            let Some(fitted) = fitted else { continue };
            let place = if i == 0 {
                &mut json
            } else {
                &mut json["all_threads"]
            };
            if place.is_null() {
                *place = json!({});
            }
            let Some(map) = place.as_object_mut() else {
                continue;
            };
            map.extend(rates::rate_json(&fitted.rate));
            map.insert("error".into(), json!(fitted.error));
        }
        json
    }
}

fn sample_json(m: &Measured) -> Value {
    json!({"case": &m.case, "kernel": m.kernel, "threads": m.threads, "flops": m.sample.cost.flops,
        "bytes": m.sample.cost.bytes, "ms": m.sample.ms})
}

fn table(kernels: &[Kernel], threads: usize) -> Table {
    let mut head = vec!["kernel", "cases", "fixed µs", "GFLOP/s", "GB/s", "error"];
    let many = [
        format!("fixed µs, {threads} threads"),
        "GFLOP/s".into(),
        "GB/s".into(),
        "error".into(),
    ];
    if threads > 1 {
        head.extend(many.iter().map(String::as_str));
    }
    let mut table = Table::new(&head);
    for k in kernels {
        let mut row = vec![k.name.to_owned(), k.cases.to_string()];
        for Fitted { rate, error } in [Some(&k.one), k.all.as_ref()].into_iter().flatten() {
            let inverse = |ns: f64| {
                if ns > 0.0 {
                    format!("{:.1}", 1.0 / ns)
                } else {
                    "–".into()
                }
            };
            row.push(format!("{:.1}", rate.fixed_us));
            row.extend([rate.ns_per_flop, rate.ns_per_byte].map(inverse));
            row.push(format!("{:.0} %", 100.0 * error));
        }
        table.row(row);
    }
    table
}
