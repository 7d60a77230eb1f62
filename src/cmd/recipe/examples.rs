//! On what methods see the model at work.

use anyhow::{Context, Result, anyhow, bail};
use secateur::Model;
use secateur::compress::recipe::{Finetune, Photos, Prune};
use secateur::compress::{Effort, Examples, Method, Run};
use secateur::train::data::{self, Data, Loader, LoaderOptions};
use secateur::train::loss::loss;
use secateur::train::{Loss, Term};

use super::super::shapes::{Wanted, wanted};
use super::super::source::photo::PhotoFlags;
use super::super::source::{Feeder, InputFlags};
use super::super::train::{Flags, classes_of, output};
use super::super::ui::Ui;

/// What the model is shown.
pub(in crate::cmd) struct Shown {
    runs: Vec<Run>,
    /// The loss of labels, and the names of what it compares.
    task: Option<(Box<dyn Loss>, [String; 2])>,
    seed: u64,
}

/// Where examples come from.
#[derive(Clone)]
pub(in crate::cmd) struct Source<'a> {
    pub(in crate::cmd) data: Option<&'a str>,
    /// What labels are, what is set apart, and the loss; as usual without.
    pub(in crate::cmd) lesson: Option<&'a Finetune>,
    /// How photos among the examples become numbers, if that is said.
    pub(in crate::cmd) photos: Option<&'a Photos>,
    /// Whether steps are measured as they are taken; see [`Learning::halves`].
    ///
    /// [`Learning::halves`]: super::super::train::Learning::halves
    pub(in crate::cmd) halve: bool,
    /// How many, if that is said.
    pub(in crate::cmd) samples: Option<u32>,
    pub(in crate::cmd) inputs: InputFlags,
}

impl<'a> Source<'a> {
    /// Those of `prune`: its data, or its inputs, or else those of `flags`.
    pub(in crate::cmd) fn of(prune: &'a Prune, flags: &InputFlags) -> Source<'a> {
        let mut inputs = flags.clone();
        if !prune.inputs.is_empty() {
            inputs.inputs.clone_from(&prune.inputs);
            inputs.photo = prune
                .photos
                .as_ref()
                .map_or(PhotoFlags::default(), PhotoFlags::of);
        }
        Source {
            data: prune.data(),
            lesson: prune.finetune.as_ref(),
            photos: prune.photos(),
            halve: false,
            samples: prune.samples,
            inputs,
        }
    }
}

/// How many examples there are where nobody says.
const SAMPLES: u32 = 128;

/// The flags of `finetune` that say how the examples `data` are read.
fn learning(data: &str, (lesson, photos): (Option<&Finetune>, Option<&Photos>)) -> Result<Flags> {
    let said = |pick: fn(&Finetune) -> &Option<String>| lesson.and_then(|f| pick(f).clone());
    let all = [
        ("data", Some(data.to_owned())),
        ("task", said(|f| &f.task)),
        ("validation", said(|f| &f.validation)),
        ("loss", said(|f| &f.loss)),
    ];
    let given = all.into_iter().filter_map(|(name, x)| Some((name, x?)));
    let mut flags = Flags::of(&given.collect::<Vec<_>>())?;
    flags.learning.photo = photos.map_or(PhotoFlags::default(), PhotoFlags::of);
    Ok(flags)
}

impl Shown {
    /// Examples of `--data`, or else the inputs of `-i`.
    ///
    /// # Errors
    ///
    /// If there are neither, or they do not fit the model.
    pub(in crate::cmd) fn new(model: &Model, method: &dyn Method, source: Source, ui: &Ui) -> Result<Shown> {
        let samples = source.samples.unwrap_or(SAMPLES);
        match (source.data, source.inputs.inputs.is_empty()) {
            (Some(data), _) => {
                let mut learning = learning(data, (source.lesson, source.photos))?;
                if source.halve {
                    learning.learning.halves();
                }
                Shown::data(model, method, (&learning, samples as usize), ui)
            }
            (None, false) => Shown::inputs(model, (&source.inputs, samples), ui),
            (None, true) => bail!(
                "method {} sees the model at work: --data D gives it examples, -i NAME=SOURCE inputs without labels",
                method.name()
            ),
        }
    }

    fn data(model: &Model, method: &dyn Method, (flags, samples): (&Flags, usize), ui: &Ui) -> Result<Shown> {
        let known = wanted(model);
        let seed = ui.common.seed;
        let image = known.first().and_then(Wanted::image);
        let options = flags.learning.options(image, seed, ui.threads());
        let splits = data::open(&flags.learning.data, &options)?;
        let classes = splits.train.classes();
        let each: Vec<_> = known.iter().map(Wanted::example).collect();
        let fitted: Data = splits.train.fit(&each, classes.and_then(|_| classes_of(model)))?;
        let fixed = known.iter().find_map(Wanted::batch);
        if let Some(batch) = fixed.filter(|&n| n > fitted.len()) {
            bail!(
                "--data has {} examples for training; the model takes batches of {batch} only",
                fitted.len()
            );
        }
        let options = LoaderOptions {
            batch: fixed.unwrap_or(method.batch()).min(fitted.len()),
            seed,
            drop_last: fixed.is_some(),
            normalize: flags.learning.photo.normalize(&fitted),
            threads: 0,
            ..LoaderOptions::default()
        };
        let loader = Loader::new(fitted.into(), options)?;
        let (mut runs, mut left) = (vec![], samples);
        for batch in loader.epoch(0, 0) {
            let batch = batch?;
            left = left.saturating_sub(batch.len());
            runs.push(Run {
                inputs: batch.inputs,
                labels: flags.labelled().then_some(batch.labels),
            });
            if left == 0 {
                break;
            }
        }
        if left > 0 {
            ui.note(&format!(
                "--data has {} examples, all of which are shown",
                samples - left
            ));
        }
        let task = match flags.labelled() {
            false => None,
            true => {
                let loss = loss(flags.learning.loss(classes)).map_err(|e| anyhow!(e))?;
                let of = [output(model, &*loss)?, model.graph.fresh("label").to_string()];
                Some((loss, of))
            }
        };
        Ok(Shown { runs, task, seed })
    }

    fn inputs(model: &Model, (inputs, samples): (&InputFlags, u32), ui: &Ui) -> Result<Shown> {
        let feeder = Feeder::new(&wanted(model), inputs, &ui.quiet())?;
        let seed = ui.common.seed;
        let n = if feeder.is_fixed() { 1 } else { u64::from(samples) };
        let run = |i: u64| {
            let inputs = feeder.make(seed.wrapping_add(i)).context("examples of -i")?;
            Ok(Run { inputs, labels: None })
        };
        let runs = (0..n).map(run).collect::<Result<_>>()?;
        let task = None;
        Ok(Shown { runs, task, seed })
    }

    /// How many examples there are: of labels where there are some, else runs.
    pub(in crate::cmd) fn samples(&self) -> usize {
        let of = |r: &Run| r.labels.as_ref().map_or(1, |l| l.dims()[0]);
        self.runs.iter().map(of).sum()
    }

    /// Calls `f` with the examples.
    pub(in crate::cmd) fn with<T>(&self, effort: Effort, f: impl FnOnce(&Examples) -> T) -> T {
        let names: Vec<&str> = self
            .task
            .iter()
            .flat_map(|(_, of)| of)
            .map(String::as_str)
            .collect();
        let term = self.task.as_ref().map(|(loss, _)| Term {
            loss: &**loss,
            of: &names,
            weight: 1.0,
        });
        f(&Examples {
            runs: &self.runs,
            task: term,
            seed: self.seed,
            effort,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use clap::{Args, Command, FromArgMatches};
    use secateur::Tensor;
    use secateur::compress::methods::find;
    use secateur::engine::ir::{DType, Dim, Node, Opset, Type};

    use super::super::super::ui::Common;
    use super::*;

    /// An archive of so many arrays `x` of three numbers, without labels.
    fn archive(name: &str, n: usize) -> PathBuf {
        let path = std::env::temp_dir().join(format!("secateur-{}-{name}.npz", std::process::id()));
        let x = Tensor::of(&[n, 3], vec![0.5f32; 3 * n]);
        data::npz::write(std::fs::File::create(&path).unwrap(), [("x", &x)]).unwrap();
        path
    }

    /// A product with a weight, for a batch of this size.
    fn model(batch: Dim) -> Model {
        let opset = Opset {
            domain: None,
            version: Some(21),
            extra: Default::default(),
        };
        let mut model = Model {
            opsets: vec![opset],
            ..Model::default()
        };
        let g = &mut model.graph;
        let x = g.input("x", Type::tensor(DType::F32, [batch, 3usize.into()]));
        let w = g.constant("w", Tensor::of(&[3, 2], vec![1f32; 6]));
        let y = g.value("y");
        g.node(Node::new("MatMul", vec![Some(x), Some(w)], vec![Some(y)]));
        g.output(y, None);
        model
    }

    fn shown(n: usize, batch: Dim, lesson: &Finetune) -> Result<Shown> {
        let said = |x: &Option<String>| x.clone().unwrap_or_default().replace('%', "");
        let name = format!("{n}-{}-{}", said(&lesson.task), said(&lesson.validation));
        let path = archive(&name, n);
        let command = Common::augment_args(Command::new("t").no_binary_name(true));
        let matches = command.try_get_matches_from(["--quiet"])?;
        let ui = Ui::new(Common::from_arg_matches(&matches)?);
        let source = Source {
            data: path.to_str(),
            lesson: Some(lesson),
            photos: None,
            halve: false,
            samples: None,
            inputs: InputFlags::default(),
        };
        let method = find("wanda").context("no method")?;
        let shown = Shown::new(&model(batch), method, source, &ui);
        std::fs::remove_file(&path)?;
        shown
    }

    fn lesson(validation: &str) -> Finetune {
        Finetune {
            task: Some("none".into()),
            validation: Some(validation.into()),
            ..Finetune::default()
        }
    }

    #[test]
    fn examples_without_labels_are_shown_without() {
        let free = || Dim::Symbol("n".into());
        let found = shown(20, free(), &lesson("10%")).unwrap();
        assert!(found.task.is_none() && found.runs.iter().all(|r| r.labels.is_none()));
        let classes = shown(21, free(), &Finetune::default()).map(|_| ()).unwrap_err();
        assert!(classes.to_string().contains("no array \"y\""), "{classes}");
    }

    #[test]
    fn examples_that_are_set_apart_are_not_shown() {
        let count = |validation: &str| {
            let found = shown(22, Dim::Symbol("n".into()), &lesson(validation));
            found.unwrap().samples()
        };
        assert_eq!(count("2") - count("12"), 10);
    }

    #[test]
    fn a_batch_must_be_full() {
        let error = shown(6, 8usize.into(), &lesson("1")).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("batches of 8 only"), "{error}");
        assert!(shown(20, 8usize.into(), &lesson("1")).is_ok());
    }
}
