//! A step of a recipe that looks at examples, made ready.

use std::path::Path;

use anyhow::{Context, Result, bail};
use secateur::Model;
use secateur::compress::recipe::{Finetune, Recover};
use secateur::compress::recover::{REPAIRS, Recovery, Repair};
use secateur::train::{Course, Spec};

use super::super::card;
use super::super::source::photo::PhotoFlags;
use super::super::train::{Flags, KEEP, Parts, Start};
use super::super::ui::Ui;
use super::given::INPUTS;
use super::sized::{fitted, sized};

/// Examples and what is made small, for one model.
pub(in crate::cmd) struct Lesson {
    flags: Flags,
    pub(in crate::cmd) start: Start,
    teacher: Option<Model>,
    repairs: Vec<Repair>,
    samples: usize,
}

/// What state is told apart by where pixels become other numbers.
pub(in crate::cmd) const PIXELS: &str = "what pixels become";

/// How many examples repairs look at, where nobody says.
pub(in crate::cmd) const SAMPLES: usize = 256;

impl Lesson {
    /// The lesson that `finetune` and `recover` ask for, of `model`. `original` is what it was before the recipe.
    pub(in crate::cmd) fn new(
        (finetune, recover): (Option<&Finetune>, Option<&Recover>),
        model: &Model,
        original: &Model,
        (name, ui): (&Path, &Ui),
    ) -> Result<Lesson> {
        let alone = recover.map(|r| Finetune {
            data: r.data.clone(),
            photos: r.photos.clone(),
            ..Finetune::default()
        });
        let how = finetune.or(alone.as_ref()).context("there are no examples")?;
        let flags = flags(how)?;
        flags.check()?;
        let start = Start::given(model.clone(), name.display().to_string(), &flags.learning, ui)?;
        let teacher = match taught(how) {
            None => None,
            Some("self") => Some(original.clone()),
            Some(file) => Some(card::load(Path::new(file))?),
        };
        let sized = |t: Model| fitted(&sized(&t, &ui.common.sizes), start.splits.train.inputs());
        let teacher = teacher.map(sized);
        Ok(Lesson {
            teacher,
            start,
            flags,
            repairs: repairs(recover)?,
            samples: recover.and_then(|r| r.samples).unwrap_or(SAMPLES),
        })
    }

    /// Lets `with` recover by it.
    pub(in crate::cmd) fn give<R>(
        &self,
        original: &Model,
        (checkpoint, resume): (Option<&Path>, bool),
        ui: &Ui,
        with: impl FnOnce(&mut Recovery) -> Result<R>,
    ) -> Result<R> {
        let (flags, start) = (&self.flags, &self.start);
        let parts = Parts::new(flags, start, self.teacher.as_ref(), ui)?;
        let names = parts.names();
        let (terms, teachers) = (parts.terms(&names), parts.teachers(self.teacher.as_ref()));
        let (optimizer, groups) = (flags.learning.optimizer()?, flags.learning.groups());
        let course = Course {
            spec: Spec {
                groups: &groups,
                clip: flags.learning.clip(),
                batch_statistics: flags.labelled(),
                seed: ui.common.seed as u32,
                ..Spec::new(&terms, &*optimizer)
            },
            rate: flags.learning.rate(&*optimizer),
            schedule: &flags.learning.schedule,
            epochs: flags.epochs,
            patience: None,
            teachers: &teachers,
            checkpoint,
            keep: KEEP,
            threads: ui.threads(),
            rates: &crate::rates::cached(),
        };
        let (examples, measured) = start.loaders(&flags.learning, ui)?;
        with(&mut Recovery {
            original,
            course,
            examples,
            measured,
            classes: start.classes.is_some(),
            repairs: &self.repairs,
            samples: self.samples,
            resume,
            apart: vec![],
        })
    }

    /// Whether it has examples with labels that no step sees, by which a result can be measured.
    ///
    /// # Errors
    ///
    /// Why not.
    pub(in crate::cmd) fn measures(&self) -> Result<()> {
        match (self.flags.labelled(), &self.start.splits.test) {
            (false, _) => bail!(
                "without labels a recipe of steps measures only how far the model is from what it was; a budget measures agreement"
            ),
            (true, None) => bail!("{}: the data have no test examples", self.flags.learning.data),
            (true, Some(_)) => Ok(()),
        }
    }

    /// What else tells its examples from others.
    pub(in crate::cmd) fn apart(&self) -> Vec<(&'static str, String)> {
        let pixels = self.start.normalize.as_ref();
        pixels.map(|n| (PIXELS, format!("{n:?}"))).into_iter().collect()
    }

    /// Steps of all rounds together.
    pub(in crate::cmd) fn steps(&self, ui: &Ui) -> Result<u64> {
        let (examples, _) = self.start.loaders(&self.flags.learning, &ui.quiet())?;
        Ok(self.flags.epochs * examples.batches() as u64)
    }
}

/// Whom the model learns from; without labels from what it was, unless somebody else is named.
fn taught(how: &Finetune) -> Option<&str> {
    let unlabelled = how.task.as_deref() == Some("none");
    let usual = unlabelled.then_some("self");
    how.teacher.as_deref().filter(|t| *t != "none").or(usual)
}

/// The flags of `finetune` that say the same.
///
/// # Errors
///
/// As the command line has them.
pub(in crate::cmd) fn flags(how: &Finetune) -> Result<Flags> {
    let number = |x: Option<f64>| x.map(|x| x.to_string());
    // With a teacher's name the flags take its weight; which model it is, the lesson knows.
    let taught = taught(how);
    let all = [
        ("data", Some(how.data.clone())),
        ("epochs", Some(how.epochs.to_string())),
        ("batch", how.batch.map(|n| n.to_string())),
        ("optimizer", how.optimizer.clone()),
        ("lr", number(how.lr)),
        ("schedule", how.lr_schedule.clone()),
        ("loss", how.loss.clone()),
        ("augment", how.augment.clone()),
        ("validation", how.validation.clone()),
        ("task", how.task.clone()),
        ("teacher", taught.map(str::to_owned)),
        (
            "teacher-weight",
            number(how.teacher_weight).filter(|_| taught.is_some()),
        ),
        (
            "temperature",
            number(how.temperature).filter(|_| taught.is_some()),
        ),
    ];
    let given = all.into_iter().filter_map(|(name, x)| Some((name, x?)));
    let mut flags = Flags::of(&given.collect::<Vec<_>>())?;
    // Photos of -i are numbers already.
    let photos = how.photos.as_ref().filter(|_| how.data != INPUTS);
    flags.learning.photo = photos.map_or(PhotoFlags::default(), PhotoFlags::of);
    Ok(flags)
}

/// The same where steps are measured as they are taken: where nobody says by what, half of the data's own test examples.
///
/// # Errors
///
/// As [`flags`].
pub(in crate::cmd) fn measuring(how: &Finetune) -> Result<Flags> {
    let mut flags = flags(how)?;
    if how.validation.is_none() {
        flags.learning.halves();
    }
    Ok(flags)
}

/// The repairs that `recover` names, in order.
pub(in crate::cmd) fn repairs(recover: Option<&Recover>) -> Result<Vec<Repair>> {
    let all = recover.map_or(&[][..], |r| &r.repairs);
    let named = |name: &String| match REPAIRS.iter().find(|(n, ..)| n == name) {
        Some((_, repair, _)) => Ok(*repair),
        None => bail!("no repair {name:?}"),
    };
    all.iter().map(named).collect()
}
