//! What `train` and `finetune` are asked for.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use clap::{Args, Command, FromArgMatches};
use secateur::train::data::{Augment, Options, Part, Task};
use secateur::train::optim::optimizer;
use secateur::train::{Clip, Group, LOSSES, OPTIMIZERS, Optimizer, Schedule, Segments, schedule};
use serde_json::{Map, Value, json};

use super::super::source::photo::PhotoFlags;

/// The flags of all verbs that train: examples, and what a step does.
#[derive(clap::Args)]
pub(crate) struct Learning {
    /// Examples: `digits` (built in), IDX files (MNIST), a CSV or NPZ file, or a folder of images, with one folder a class where they have labels
    #[arg(long, value_name = "D")]
    pub(crate) data: String,
    /// Examples in a step
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch: Option<u32>,
    /// How steps follow from gradients; see below
    #[arg(long, value_name = "NAME[:KEY=V,…]", default_value = "adam")]
    pub(crate) optimizer: String,
    /// The rate [default: what the optimiser usually takes]
    #[arg(long, value_name = "X", value_parser = positive)]
    lr: Option<f64>,
    /// How the rate goes on, in epochs: warmup:2+cosine:8; see below
    #[arg(long, value_name = "S", default_value = "constant")]
    pub(crate) schedule: Schedule,
    /// What is made small [default: cross-entropy for classes, mse for numbers]; see below
    #[arg(long, value_name = "NAME[:KEY=V,…]")]
    pub(crate) loss: Option<String>,
    /// Bound gradients: X or norm:X for the length of all together, value:X for each element
    #[arg(long, value_name = "X", value_parser = clip)]
    clip: Vec<Bound>,
    /// The penalty of magnitudes, by proximal steps: small weights become exactly 0
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = penalty)]
    l1: f64,
    /// The penalty of squares
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = penalty)]
    l2: f64,
    /// Leave these as they are: names of weights or of nodes that read them; `*` is any text, `?` any character
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    freeze: Vec<String>,
    /// Change training images at random: flip,crop:4,rotate:10,color:0.2
    #[arg(long, value_name = "A")]
    augment: Option<String>,
    /// Examples set apart to measure each epoch by: a number or a share
    #[arg(long, value_name = "N", default_value = "10%")]
    validation: Part,
    /// See [`Options::halve`].
    #[arg(skip)]
    pub(crate) halve: bool,
    /// Examples set apart to measure the result by, where the data has none of its own [default: 10%]
    #[arg(long, value_name = "N")]
    test: Option<Part>,
    /// Let the model standardise its input by means and deviations of the training examples: its first two nodes
    #[arg(long, conflicts_with_all = ["mean", "std", "scale"])]
    pub(crate) normalize: bool,
    /// Keep values of the forward pass at N places only and compute the others again: less memory, more time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    segments: Option<u32>,
    /// What labels are: classes, numbers (values), or none, of arrays from which a teacher's outputs are learned
    #[arg(long, value_enum, default_value = "classes")]
    task: TaskFlag,
    /// The column of a table that is the label [default: the last]
    #[arg(long, value_name = "NAME")]
    label: Option<String>,
    #[command(flatten)]
    pub(crate) photo: PhotoFlags,
}

/// The flags of `train` and `finetune`.
#[derive(clap::Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    pub(crate) learning: Learning,
    /// How often all training examples are seen
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) epochs: u64,
    /// End after N epochs without a smaller loss of the validation examples, with the weights of the best epoch
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) patience: Option<u64>,
    /// Learn from the outputs of this model too
    #[arg(long, value_name = "T.onnx")]
    pub(crate) teacher: Option<PathBuf>,
    /// The share of the teacher in what is made small
    #[arg(long, value_name = "X", default_value_t = 0.5, requires = "teacher")]
    pub(crate) teacher_weight: f64,
    /// What the teacher's and the model's scores are divided by
    #[arg(long, value_name = "X", default_value_t = 2.0, value_parser = positive, requires = "teacher")]
    pub(crate) temperature: f64,
    /// Keep the state of training in F, so that it can go on when it is stopped at any moment
    #[arg(long, value_name = "F")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// Go on from --checkpoint, if there is one
    #[arg(long, requires = "checkpoint")]
    pub(crate) resume: bool,
    /// Draw losses and accuracies as SVG, or list them, if FILE ends in .csv
    #[arg(long, value_name = "FILE")]
    pub(crate) curves: Vec<PathBuf>,
    /// Write the step (forward, backward and optimiser) as an ONNX file of standard operators
    #[arg(long, value_name = "FILE")]
    pub(crate) save_training_graph: Option<PathBuf>,
}

/// What labels are.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum TaskFlag {
    Classes,
    Values,
    None,
}

/// A bound of gradients.
#[derive(Clone, Copy, Debug)]
enum Bound {
    Norm(f64),
    Value(f64),
}

fn positive(text: &str) -> Result<f64, String> {
    let x: Option<f64> = text.parse().ok();
    let x = x.filter(|x| x.is_finite() && *x > 0.0);
    x.ok_or_else(|| format!("{text:?} is no number above 0"))
}

fn penalty(text: &str) -> Result<f64, String> {
    let x: Option<f64> = text.parse().ok();
    let x = x.filter(|x| x.is_finite() && *x >= 0.0);
    x.ok_or_else(|| format!("{text:?} is no number from 0 on"))
}

fn clip(text: &str) -> Result<Bound, String> {
    match text.split_once(':') {
        None => positive(text).map(Bound::Norm),
        Some(("norm", x)) => positive(x).map(Bound::Norm),
        Some(("value", x)) => positive(x).map(Bound::Value),
        Some((other, _)) => Err(format!("{other:?} is neither norm nor value")),
    }
}

impl Flags {
    /// The flags where nothing is said but `given`: names without dashes, with what they are set to.
    ///
    /// # Errors
    ///
    /// As the command line has them.
    pub(crate) fn of(given: &[(&str, String)]) -> Result<Flags> {
        let command = Flags::augment_args(Command::new("finetune").no_binary_name(true));
        let args = given.iter().map(|(name, x)| format!("--{name}={x}"));
        let said = |e: clap::Error| {
            let text = e.to_string();
            let first: Vec<&str> = text
                .lines()
                .map(str::trim)
                .take_while(|l| !l.is_empty())
                .collect();
            anyhow!(first.join(" ").trim_start_matches("error: ").to_owned())
        };
        let matches = command.try_get_matches_from(args).map_err(said)?;
        Flags::from_arg_matches(&matches).map_err(said)
    }
}

impl Learning {
    /// What is said of names below the flags.
    pub(crate) fn names() -> String {
        let rows = |title: &str, rows: Vec<(String, String)>| {
            let lines = rows
                .into_iter()
                .map(|(name, about)| format!("\n  {name:<22} {about}"));
            format!("{title}:{}\n", lines.collect::<String>())
        };
        let optimizers = OPTIMIZERS.iter().map(|make| make());
        let optimizers = optimizers.map(|o| (o.name().to_owned(), o.about().to_owned()));
        let losses = LOSSES.iter().map(|make| make());
        let losses = losses.map(|l| (l.name().to_owned(), l.about().to_owned()));
        let schedules = schedule::SCHEDULES
            .iter()
            .map(|(n, a)| ((*n).to_owned(), (*a).to_owned()));
        [
            rows("Optimisers", optimizers.collect()),
            rows("Losses", losses.collect()),
            rows("Schedules", schedules.collect()),
        ]
        .join("\n")
    }

    /// The optimiser.
    pub(crate) fn optimizer(&self) -> Result<Box<dyn Optimizer>> {
        optimizer(&self.optimizer).map_err(|e| anyhow!(e))
    }

    /// The rate.
    pub(crate) fn rate(&self, optimizer: &dyn Optimizer) -> f64 {
        self.lr.unwrap_or(optimizer.rate())
    }

    /// What is computed again.
    pub(crate) fn segments(&self) -> Option<Segments> {
        self.segments.map(|n| Segments::Count(n as usize))
    }

    pub(crate) fn clip(&self) -> Clip {
        let mut clip = Clip::default();
        for bound in &self.clip {
            match bound {
                Bound::Norm(x) => clip.norm = Some(*x),
                Bound::Value(x) => clip.value = Some(*x),
            }
        }
        clip
    }

    /// The groups of parameters.
    pub(crate) fn groups(&self) -> Vec<Group> {
        let frozen = self.freeze.iter().map(Group::frozen);
        let rest = Group {
            l1: self.l1,
            l2: self.l2,
            ..Group::new("*")
        };
        frozen.chain([rest]).collect()
    }

    /// How the data is read, for images of the given size.
    pub(crate) fn options(&self, image: Option<[usize; 3]>, seed: u64, threads: usize) -> Options {
        Options {
            task: match self.task {
                TaskFlag::Classes => Task::Classes,
                TaskFlag::Values => Task::Values,
                TaskFlag::None => Task::Unlabelled,
            },
            seed,
            validation: self.validation,
            halve: self.halve,
            test: self.test,
            image,
            label: self.label.clone(),
            threads,
            ..Options::default()
        }
    }

    /// Sets examples apart to measure steps by where nobody says which: half of those that the data have for testing, or else a part of
    /// those for training, which is larger without labels.
    pub(crate) fn halves(&mut self) {
        self.halve = true;
        if let TaskFlag::None = self.task {
            self.validation = Part::Share(0.2);
        }
    }

    pub(crate) fn augment(&self) -> Result<Augment> {
        let text = self.augment.as_deref();
        Ok(text.map(str::parse).transpose()?.unwrap_or_default())
    }

    /// The name of the loss, for these classes.
    pub(crate) fn loss(&self, classes: Option<usize>) -> &str {
        let usual = if classes.is_some() { "cross-entropy" } else { "mse" };
        self.loss.as_deref().unwrap_or(usual)
    }

    /// As the receipt has them.
    pub(crate) fn json(&self, rate: f64, batch: usize) -> Map<String, Value> {
        let said = json!({
            "data": self.data,
            "batch": batch,
            "optimizer": self.optimizer,
            "lr": rate,
            "schedule": self.schedule.to_string(),
            "loss": self.loss,
            "clip": {"norm": self.clip().norm, "value": self.clip().value},
            "l1": self.l1,
            "l2": self.l2,
            "freeze": self.freeze,
            "augment": self.augment,
            "normalize": self.normalize,
            "photos": self.photo.said(),
            "segments": self.segments,
            "validation": self.validation.to_string(),
            "test": self.test.map(|t| t.to_string()),
            "task": format!("{:?}", self.task).to_lowercase(),
            "label": self.label,
        });
        match said {
            Value::Object(said) => said,
            _ => Map::new(),
        }
    }
}

impl Flags {
    /// The loss by which a teacher's outputs are learned: of classes softened, of numbers as they are.
    pub(crate) fn soft(&self, classes: Option<usize>) -> String {
        match classes {
            None if !self.labelled() => self.learning.loss(classes).to_owned(),
            Some(_) => format!("distillation:temperature={}", self.temperature),
            None => "mse".into(),
        }
    }

    /// Whether examples have labels that count.
    pub(crate) fn labelled(&self) -> bool {
        !matches!(self.learning.task, TaskFlag::None)
    }

    /// Refuses what does not fit together.
    pub(crate) fn check(&self) -> Result<()> {
        if !self.labelled() && self.teacher.is_none() {
            bail!("--task none: without labels there must be a --teacher to learn from");
        }
        if !(0.0..=1.0).contains(&self.teacher_weight) {
            bail!("--teacher-weight is {}; expected 0 to 1", self.teacher_weight);
        }
        Ok(())
    }

    /// As the receipt has them.
    pub(crate) fn json(&self, rate: f64, batch: usize, hold_zeros: bool) -> Value {
        let mut said = self.learning.json(rate, batch);
        let more = json!({
            "epochs": self.epochs,
            "patience": self.patience,
            "hold_zeros": hold_zeros,
            "teacher_weight": self.teacher.as_ref().map(|_| self.teacher_weight),
            "temperature": self.teacher.as_ref().map(|_| self.temperature),
            "teacher": self.teacher.as_ref().map(|t| t.display().to_string()),
        });
        said.extend(more.as_object().cloned().unwrap_or_default());
        Value::Object(said)
    }
}
