//! `secateur verify`: whether two models, or two engines, compute the same.

mod layers;
mod metric;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{ArgMatches, Args, Command, FromArgMatches};
use secateur::train::data::{Options, Part};
use secateur::{Outputs, Tensor};
use serde_json::{Value, json};

use super::compare::{Distance, Tolerance, argmax};
use super::shapes::wanted;
use super::source::{Feeder, InputFlags};
use super::table::Table;
use super::ui::Ui;
use super::{Cmd, Outcome, card};
use crate::engines::{self, Engine, Job, Loaded, Setup};
use layers::Layer;
use metric::Metric;

/// The verb.
pub(super) struct Verify;

#[derive(Args)]
struct Flags {
    /// The ONNX file
    model: PathBuf,
    /// Another one to compare it with [default: the same]
    other: Option<PathBuf>,
    /// The engine that runs the other one: self, ort, tract
    #[arg(long, value_name = "NAME", default_value = "self")]
    engine: String,
    #[command(flatten)]
    within: Tolerance,
    /// Compare on N random inputs
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Compare all values inside too, and show where they part
    #[arg(long)]
    layers: bool,
    /// Compare accuracy on the test examples of a data set too: digits, or a file or folder (docs/data.md)
    #[arg(long, value_name = "D")]
    data: Option<String>,
    /// With --data, the examples set apart for testing, where it has none of its own: as `train` was told, with the same --seed
    #[arg(long, value_name = "N", requires = "data")]
    test: Option<Part>,
    /// With --data, pass if accuracy drops by at most this many percentage points, whatever the distance
    #[arg(long, value_name = "POINTS", requires = "data")]
    max_drop: Option<f64>,
    #[command(flatten)]
    inputs: InputFlags,
}

impl Cmd for Verify {
    fn command(&self) -> Command {
        Flags::augment_args(Command::new("verify"))
            .about("Compares a model with another one, or with another engine")
    }

    fn run(&self, flags: &ArgMatches, ui: &Ui) -> Result<Outcome> {
        verify(&Flags::from_arg_matches(flags)?, ui)
    }
}

/// The two sides of the comparison.
struct Sides<'a> {
    a: (&'static dyn Engine, &'a Path),
    b: (&'static dyn Engine, &'a Path),
    setup: Setup,
}

impl Sides<'_> {
    /// Both, with values inside as outputs too.
    fn load(&self, taps: &[String]) -> Result<[Box<dyn Loaded>; 2]> {
        let load = |(engine, file): (&dyn Engine, &Path), setup| engine.load(&Job { file, setup, taps });
        // One cache is of one model.
        let other = Setup {
            cache: None,
            ..self.setup.clone()
        };
        Ok([load(self.a, &self.setup)?, load(self.b, &other)?])
    }
}

fn verify(flags: &Flags, ui: &Ui) -> Result<Outcome> {
    if flags.other.is_none() && flags.engine == "self" {
        bail!("nothing to compare with: name another file, or an engine with --engine ort");
    }
    ensure!(
        flags.within.rtol >= 0.0 && flags.within.atol >= 0.0,
        "a tolerance below 0"
    );
    let sides = Sides {
        a: (engines::find("self")?, &flags.model),
        b: (engines::find(&flags.engine)?, flags.other()),
        setup: ui.setup(),
    };
    let told = Told::of(&sides, flags, ui)?;
    told.say(flags, ui);
    Ok(Outcome {
        json: told.json(flags),
        pass: told.pass,
    })
}

impl Flags {
    /// The file of the second side.
    fn other(&self) -> &Path {
        self.other.as_deref().unwrap_or(&self.model)
    }
}

/// Everything that was found out.
struct Told {
    found: Found,
    layers: Vec<Layer>,
    metric: Option<Metric>,
    version: String,
    pass: bool,
}

impl Told {
    fn of(sides: &Sides, flags: &Flags, ui: &Ui) -> Result<Told> {
        let model = card::load(&flags.model)?;
        let feeder = Feeder::new(&wanted(&model), &flags.inputs, ui)?;
        let [mut a, mut b] = sides.load(&[])?;
        let found = compare(&mut *a, &mut *b, &feeder, flags, ui)?;
        a.notes().iter().for_each(|n| ui.note(n));
        let layers = match flags.layers {
            true => layers::compare(sides, &model, &feeder.make(ui.common.seed)?, flags.within)?,
            false => vec![],
        };
        let options = Options {
            test: flags.test,
            seed: ui.common.seed,
            ..Options::default()
        };
        let measure = |data| metric::measure((data, &options, &flags.inputs.photo), &model, &mut *a, &mut *b);
        let metric = flags.data.as_deref().map(measure).transpose()?;
        let pass = match (flags.max_drop, &metric) {
            (Some(points), Some(m)) => m.drop_points() <= points,
            _ => found.pass(),
        };
        Ok(Told {
            version: b.version(),
            found,
            layers,
            metric,
            pass,
        })
    }

    /// How often both name the same greatest element: on the data set, or else on the inputs.
    fn agreement(&self) -> Option<f64> {
        match &self.metric {
            Some(m) => Some(m.agreement),
            None => self.found.agreement(),
        }
    }

    fn say(&self, flags: &Flags, ui: &Ui) {
        ui.say(&self.found.table(flags.within).to_string());
        layers::say(&self.layers, ui);
        if let Some(m) = &self.metric {
            ui.say(&format!("\n{m}"));
        }
        if let Some(share) = self.agreement() {
            ui.say(&format!("\nargmax agreement: {:.2} %", 100.0 * share));
        }
        ui.say(if self.pass { "pass" } else { "FAIL" });
    }

    fn json(&self, flags: &Flags) -> Value {
        let first = self.layers.iter().find(|l| !l.distance.pass()).map(Layer::json);
        json!({
            "model": flags.model.display().to_string(),
            "other": flags.other().display().to_string(),
            "engine": flags.engine,
            "engine_version": self.version,
            "runs": self.found.runs,
            "rtol": flags.within.rtol,
            "atol": flags.within.atol,
            "max_abs": self.found.worst(|d| d.max_abs),
            "max_rel": self.found.worst(|d| d.max_rel),
            "outputs": self.found.json(),
            "argmax_agreement": self.agreement(),
            "metric": self.metric.as_ref().map_or(json!({}), Metric::json),
            "layers": self.layers.iter().map(Layer::json).collect::<Vec<_>>(),
            "first_divergence": first.or_else(|| self.found.first_divergence()),
            "pass": self.pass,
        })
    }
}

/// What all runs together have shown.
struct Found {
    runs: usize,
    outputs: Vec<(String, Distance)>,
    rows: usize,
    agreed: usize,
}

fn compare(a: &mut dyn Loaded, b: &mut dyn Loaded, feeder: &Feeder, flags: &Flags, ui: &Ui) -> Result<Found> {
    let runs = if feeder.is_fixed() { 1 } else { flags.runs };
    let progress = ui.progress(runs.into(), "comparing, runs");
    let mut found = Found {
        runs: runs as usize,
        outputs: vec![],
        rows: 0,
        agreed: 0,
    };
    for run in 0..runs {
        let inputs = feeder.make(ui.common.seed.wrapping_add(run.into()))?;
        let (x, y) = (a.run(&inputs)?.outputs, b.run(&inputs)?.outputs);
        found.add(&x, &y, flags.within)?;
        progress.add(1);
    }
    Ok(found)
}

/// Each output of `a` with that of `b` of the same name, or else of the same position.
fn pairs<'a>(a: &'a Outputs, b: &'a Outputs) -> Result<Vec<(String, &'a Tensor, &'a Tensor)>> {
    ensure!(
        a.names.len() == b.names.len(),
        "one has {} outputs, {:?}, and the other {}, {:?}",
        a.names.len(),
        a.names,
        b.names.len(),
        b.names
    );
    let pair = |(i, name): (usize, &secateur::engine::ir::Name)| {
        let other = b.get(name).or_else(|| b.values[i].tensor());
        let both = a.values[i].tensor().zip(other);
        let (x, y) = both.with_context(|| format!("output {name:?} is no tensor"))?;
        Ok((name.to_string(), x, y))
    };
    a.names.iter().enumerate().map(pair).collect()
}

impl Found {
    fn add(&mut self, a: &Outputs, b: &Outputs, within: Tolerance) -> Result<()> {
        for (i, (name, x, y)) in pairs(a, b)?.into_iter().enumerate() {
            let distance = Distance::of(x, y, within);
            match self.outputs.get_mut(i) {
                Some((_, all)) => all.merge(distance),
                None => self.outputs.push((name, distance)),
            }
            if i == 0 {
                let (x, y) = (argmax(x), argmax(y));
                self.rows += x.len();
                self.agreed += x.iter().zip(&y).filter(|(p, q)| p == q).count();
            }
        }
        Ok(())
    }

    fn pass(&self) -> bool {
        self.outputs.iter().all(|(_, d)| d.pass())
    }

    /// The share of rows of the first output whose greatest element is the same; `None` where rows have one element.
    fn agreement(&self) -> Option<f64> {
        (self.rows > 0).then(|| self.agreed as f64 / self.rows as f64)
    }

    fn worst(&self, figure: fn(&Distance) -> f64) -> f64 {
        self.outputs.iter().map(|(_, d)| figure(d)).fold(0.0, f64::max)
    }

    fn first_divergence(&self) -> Option<Value> {
        let (name, d) = self.outputs.iter().find(|(_, d)| !d.pass())?;
        let mut json = d.json();
        json["value"] = json!(name);
        Some(json)
    }

    fn json(&self) -> Vec<Value> {
        let one = |(name, d): &(String, Distance)| {
            let mut json = d.json();
            json["name"] = json!(name);
            json
        };
        self.outputs.iter().map(one).collect()
    }

    fn table(&self, within: Tolerance) -> Table {
        let out = format!("beyond {:e} + {:e}·|b|", within.atol, within.rtol);
        let mut table = Table::new(&["output", "max abs", "max rel", &out, "worst"]);
        for (name, d) in &self.outputs {
            let worst = d
                .worst
                .as_ref()
                .map(|w| format!("{:?}: {} and {}", w.index, w.a, w.b));
            let cells = [
                format!("{:.3e}", d.max_abs),
                format!("{:.3e}", d.max_rel),
                d.outside.to_string(),
            ];
            let note = d.mismatch.clone().or(worst).unwrap_or_default();
            table.row([name.clone()].into_iter().chain(cells).chain([note]));
        }
        table
    }
}
