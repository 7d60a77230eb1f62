//! Recipes: steps that prune and recover, the flags that ask for them, and the examples that they look at.

use anyhow::Error;
use clap::ArgMatches;
use clap::parser::ValueSource;
use secateur::compress::recipe::Recipe;
use secateur::compress::recover::RecoverError;

use super::ui::Ui;
use super::written::Target;

mod chain;
mod examples;
mod given;
mod lesson;
mod recovery;
mod sized;
mod told;

pub(in crate::cmd) use chain::{Chain, Cooked};
pub(in crate::cmd) use examples::{Shown, Source};
pub(in crate::cmd) use given::{INPUTS, inputs, note};
pub(in crate::cmd) use lesson::{PIXELS, SAMPLES, measuring, repairs};
pub(in crate::cmd) use recovery::{RecoveryFlags, names};
pub(in crate::cmd) use sized::{fitted, freed, sized};
pub(in crate::cmd) use told::Apart;

/// `ui` with the seed of `recipe`, unless the command line says another, which becomes that of the recipe then.
pub(in crate::cmd) fn seeded(recipe: &mut Recipe, flags: &ArgMatches, ui: &Ui) -> Ui {
    let said = flags.value_source("seed") == Some(ValueSource::CommandLine);
    let mut ui = ui.clone();
    let own = recipe.seed.filter(|_| !said);
    ui.common.seed = own.unwrap_or(ui.common.seed);
    recipe.seed = Some(ui.common.seed);
    ui
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
