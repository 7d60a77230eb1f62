//! How the rate goes as training goes on.
//!
//! Times are counted from 0, in whatever the caller counts: epochs or steps, also parts of them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::settings::missing;

/// One stretch of a schedule, by the name and the numbers that texts give it.
#[derive(Clone, Debug, PartialEq)]
enum Phase {
    /// `constant[:length[,factor]]`
    Constant { factor: f64 },
    /// `cosine:length[,least]`: down to `least` along half a wave (Loshchilov and Hutter 2016), and there it stays.
    Cosine { length: f64, least: f64 },
    /// `exponential:factor`: times `factor` for each unit of time.
    Exponential { factor: f64 },
    /// `inverse-sqrt:warmup`: up along a line for `warmup`, then down with the root of the time (Vaswani et al. 2017).
    InverseSqrt { warmup: f64 },
    /// `multi-step:at,…,factor`: times `factor` from each of these times on.
    MultiStep { at: Vec<f64>, factor: f64 },
    /// `plateau:patience[,factor]`
    Plateau { patience: u64, factor: f64 },
    /// `step:every,factor`: times `factor` after each `every`.
    Step { every: f64, factor: f64 },
    /// `warmup:length[,factor]`: up along a line from `factor`, or from where it is one step above 0.
    Warmup { length: f64, from: f64 },
}

/// The names of phases, with what they take, sorted.
pub static SCHEDULES: &[(&str, &str)] = &[
    ("constant", "[length[,factor]]: the same rate"),
    (
        "cosine",
        "length[,least]: down along half a wave to `least` (a thousandth of the rate)",
    ),
    ("exponential", "factor: times `factor` for each unit of time"),
    (
        "inverse-sqrt",
        "warmup: up along a line, then down with the root of the time",
    ),
    (
        "multi-step",
        "time,...,factor: times `factor` from each of the times on",
    ),
    (
        "plateau",
        "patience[,factor]: times `factor` (0.1) when the loss has not fallen for more than `patience` times",
    ),
    ("step", "every,factor: times `factor` after each `every`"),
    (
        "warmup",
        "length[,from]: up along a line, from the share `from` of the rate",
    ),
];

/// How the rate follows from the time: phases one after the other, each with a time of its own.
///
/// As text, phases are joined by `+`: `warmup:5+cosine:90`. All but the last must have a length; [`SCHEDULES`] lists them. No
/// rate falls below a billionth of the first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Saved", into = "Saved")]
pub struct Schedule {
    text: String,
    /// Each with its length; the last has none.
    phases: Vec<(Phase, f64)>,
    /// What plateaus have made of the rate.
    scale: f64,
    watch: Patience,
}

/// A schedule in a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Saved {
    schedule: String,
    #[serde(default = "one")]
    scale: f64,
    #[serde(default)]
    watch: Patience,
}

fn one() -> f64 {
    1.0
}

impl From<Schedule> for Saved {
    fn from(s: Schedule) -> Saved {
        Saved {
            schedule: s.text,
            scale: s.scale,
            watch: s.watch,
        }
    }
}

impl TryFrom<Saved> for Schedule {
    type Error = String;

    fn try_from(s: Saved) -> Result<Schedule, String> {
        Ok(Schedule {
            scale: s.scale,
            watch: s.watch,
            ..s.schedule.parse()?
        })
    }
}

/// No rate is a smaller share of the first.
const LEAST: f64 = 1e-9;

impl Schedule {
    /// The rate at `time` where `base` is the one that is meant.
    pub fn rate(&self, base: f64, time: f64) -> f64 {
        let mut at = time.max(0.0);
        let mut phases = self.phases.iter().peekable();
        while let Some((phase, length)) = phases.next() {
            if at < *length || phases.peek().is_none() {
                return (phase.rate(base, at) * self.scale).max(base * LEAST);
            }
            at -= length;
        }
        base
    }

    /// Tells of a loss that was measured, by which plateaus are noticed.
    pub fn observe(&mut self, loss: f64) {
        let Some((Phase::Plateau { patience, factor }, _)) = self.phases.last() else {
            return;
        };
        self.watch.observe(loss);
        if self.watch.waited > *patience {
            self.scale *= factor;
            self.watch.waited = 0;
        }
    }
}

impl Phase {
    fn rate(&self, base: f64, t: f64) -> f64 {
        match self {
            Phase::Constant { factor } => base * factor,
            Phase::Cosine { length, least } => {
                let least = if least.is_nan() { base * 1e-3 } else { *least };
                let wave = (std::f64::consts::PI * (t / length).min(1.0)).cos();
                least + (base - least) * (1.0 + wave) / 2.0
            }
            Phase::Exponential { factor } => base * factor.powf(t),
            Phase::InverseSqrt { warmup } => {
                let s = t + 1.0;
                base * warmup.sqrt() * s.powf(-0.5).min(s * warmup.powf(-1.5))
            }
            Phase::MultiStep { at, factor } => {
                let passed = at.iter().filter(|&&a| a <= t).count();
                base * factor.powi(passed as i32)
            }
            Phase::Plateau { .. } => base,
            Phase::Step { every, factor } => base * factor.powf((t / every).floor()),
            Phase::Warmup { length, from } => base * (from + (1.0 - from) * (t / length).min(1.0)),
        }
    }

    /// How long it lasts, where that is said.
    fn length(name: &str, x: &[f64]) -> Option<f64> {
        let has = matches!(name, "constant" | "cosine" | "warmup");
        x.first().copied().filter(|_| has)
    }

    fn of(name: &str, x: &[f64]) -> Result<Phase, String> {
        let share = |x: f64| match x > 0.0 && x <= 1.0 {
            true => Ok(x),
            false => Err(format!(
                "{name}: the factor is {x}; expected more than 0 and at most 1"
            )),
        };
        let long = |x: f64| match x > 0.0 && x.is_finite() {
            true => Ok(x),
            false => Err(format!("{name}: a time of {x}; expected more than 0")),
        };
        Ok(match (name, x) {
            ("constant", []) => Phase::Constant { factor: 1.0 },
            ("constant", &[length, ref rest @ ..]) if rest.len() < 2 => {
                long(length)?;
                Phase::Constant {
                    factor: share(*rest.first().unwrap_or(&1.0))?,
                }
            }
            ("cosine", &[length]) => Phase::Cosine {
                length: long(length)?,
                least: f64::NAN,
            },
            ("cosine", &[length, least]) => Phase::Cosine {
                length: long(length)?,
                least: if least > 0.0 { least } else { share(least)? },
            },
            ("exponential", &[factor]) => Phase::Exponential {
                factor: share(factor)?,
            },
            ("inverse-sqrt", &[warmup]) => Phase::InverseSqrt {
                warmup: long(warmup)?,
            },
            ("multi-step", [at @ .., factor]) if !at.is_empty() => Phase::MultiStep {
                at: at.iter().map(|&t| long(t)).collect::<Result<_, _>>()?,
                factor: share(*factor)?,
            },
            ("plateau", &[patience, ref rest @ ..]) if rest.len() < 2 => Phase::Plateau {
                patience: whole(patience)?,
                factor: share(*rest.first().unwrap_or(&0.1))?,
            },
            ("step", &[every, factor]) => Phase::Step {
                every: long(every)?,
                factor: share(factor)?,
            },
            ("warmup", &[length, ref rest @ ..]) if rest.len() < 2 => Phase::Warmup {
                length: long(length)?,
                from: share(*rest.first().unwrap_or(&(1.0 / (length + 1.0))))?,
            },
            _ => return Err(wrong(name, x.len())),
        })
    }
}

fn whole(x: f64) -> Result<u64, String> {
    match x >= 0.0 && x.fract() == 0.0 && x < 1e15 {
        true => Ok(x as u64),
        false => Err(format!("plateau: a patience of {x}; expected a whole number")),
    }
}

/// What is wrong where a phase is not known or has other numbers.
fn wrong(name: &str, count: usize) -> String {
    let names: Vec<_> = SCHEDULES.iter().map(|(n, _)| *n).collect();
    match SCHEDULES.iter().find(|(n, _)| *n == name) {
        Some((_, takes)) => format!("{name} with {count} numbers; expected {name}:{takes}"),
        None => missing("schedule", name, &names),
    }
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Schedule, String> {
        let mut phases = vec![];
        let all: Vec<&str> = text.split('+').map(str::trim).collect();
        for (i, phase) in all.iter().enumerate() {
            let (name, rest) = phase.split_once(':').unwrap_or((phase, ""));
            let numbers = rest.split(',').map(str::trim).filter(|s| !s.is_empty());
            let number = |s: &str| {
                s.parse::<f64>()
                    .map_err(|_| format!("{name}: {s:?} is no number"))
            };
            let x = numbers.map(number).collect::<Result<Vec<_>, _>>()?;
            let read = Phase::of(name, &x)?;
            let length = Phase::length(name, &x);
            if length.is_none() && i + 1 < all.len() {
                return Err(format!(
                    "{name} has no end, so nothing can follow it; it must be the last"
                ));
            }
            phases.push((read, length.unwrap_or(f64::INFINITY)));
        }
        Ok(Schedule {
            text: text.into(),
            phases,
            scale: 1.0,
            watch: Patience::default(),
        })
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// How long a loss has not become smaller: what early stopping and plateaus go by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Patience {
    /// The least loss so far.
    pub best: Option<f64>,
    /// How many came since.
    pub waited: u64,
}

impl Patience {
    /// Takes note of a loss; whether it is the least so far. What is not a number never is.
    pub fn observe(&mut self, loss: f64) -> bool {
        let better = !loss.is_nan() && self.best.is_none_or(|best| loss < best);
        match better {
            true => {
                *self = Patience {
                    best: Some(loss),
                    waited: 0,
                }
            }
            false => self.waited += 1,
        }
        better
    }
}
