//! Recipes: steps that prune and recover, the flags that ask for them, and the examples that they look at.

use anyhow::Error;
use clap::ArgMatches;
use clap::parser::ValueSource;
use secateur::compress::budget;
use secateur::compress::groups::Sizes;
use secateur::compress::recipe::Recipe;
use secateur::compress::recover::RecoverError;
use secateur::compress::trim::Frame;

use super::timing::Trial;
use super::ui::Ui;
use super::written::Target;

mod chain;
mod examples;
mod given;
mod lesson;
mod recovery;
mod sized;

pub(in crate::cmd) use chain::{Chain, Cooked};
pub(in crate::cmd) use examples::{Shown, Source};
pub(in crate::cmd) use given::{INPUTS, inputs, note};
pub(in crate::cmd) use lesson::{PIXELS, SAMPLES, measuring, repairs};
pub(in crate::cmd) use recovery::{RecoveryFlags, names};
pub(in crate::cmd) use sized::{fitted, freed, sized};

/// `ui` with the seed of `recipe`, unless the command line says another, which becomes that of the recipe then.
pub(in crate::cmd) fn seeded(recipe: &mut Recipe, flags: &ArgMatches, ui: &Ui) -> Ui {
    let said = flags.value_source("seed") == Some(ValueSource::CommandLine);
    let mut ui = ui.clone();
    let own = recipe.seed.filter(|_| !said);
    ui.common.seed = own.unwrap_or(ui.common.seed);
    recipe.seed = Some(ui.common.seed);
    ui
}

/// Calls `with` with what sizes are taken for `free` ones, and times for those of `trial` where it has some.
pub(in crate::cmd) fn framed<R>(
    (free, trial): (&Sizes, &Trial),
    ui: &Ui,
    with: impl FnOnce(Frame) -> R,
) -> R {
    let rates = crate::rates::cached();
    let times = budget::Sizes {
        shapes: trial.shapes.iter().map(|(_, dims)| dims.clone()).collect(),
        threads: ui.threads(),
        rates: &rates,
    };
    with(Frame {
        sizes: free,
        times: (!times.shapes.is_empty()).then_some(&times),
    })
}

/// Says of an error in training what became of the file that was to be written.
pub(in crate::cmd) fn untouched(e: Error, target: Option<&Target>) -> Error {
    let Some(target) = target else { return e };
    let diverged = e
        .downcast_ref::<RecoverError>()
        .is_some_and(RecoverError::diverged);
    let output = target.output.display();
    match (diverged, target.output.exists()) {
        (true, true) => e.context(format!("{output} is as it was")),
        (true, false) => e.context(format!("{output} is not written")),
        (false, _) => e,
    }
}
