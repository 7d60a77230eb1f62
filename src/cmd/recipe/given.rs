//! What the command line says of inputs and photos, as part of a recipe.

use anyhow::Result;
use secateur::compress::groups::Of;
use secateur::compress::methods;
use secateur::compress::recipe::{Budgeted, Photos, Prune, Recipe, Step};

use super::super::source::InputFlags;
use super::super::source::photo::PhotoFlags;

/// What the data are called that `-i` gives.
pub(in crate::cmd) const INPUTS: &str = "-i";

/// Notes in `recipe` which inputs its steps look at, and how photos become numbers, where `flags` say so; what they do not say stays.
///
/// # Errors
///
/// If the numbers are no use.
pub(in crate::cmd) fn note(recipe: &mut Recipe, flags: &InputFlags) -> Result<()> {
    let photos = flags.photo.said();
    for step in &mut recipe.step {
        match step {
            Step::Prune(prune) => pruned(prune, flags),
            Step::Finetune(finetune) => replace(&mut finetune.photos, &photos),
            Step::Recover(recover) => replace(&mut recover.photos, &photos),
            Step::Budget(budget) => budgeted(budget, flags),
            _ => {}
        }
    }
    recipe.check().map_err(anyhow::Error::msg)
}

/// `flags`, or where they name no inputs, those of the first step of `recipe` that has some.
pub(in crate::cmd) fn inputs(recipe: &Recipe, flags: &InputFlags) -> InputFlags {
    let own = |step: &Step| match step {
        Step::Prune(prune) => Some((prune.inputs.clone(), prune.photos.clone())),
        Step::Budget(budget) => Some((budget.inputs.clone(), budget.finetune.photos.clone())),
        _ => None,
    };
    let mut named = recipe.step.iter().filter_map(own).filter(|(i, _)| !i.is_empty());
    match named.next() {
        Some((inputs, photos)) if flags.inputs.is_empty() => InputFlags {
            inputs,
            photo: photos.as_ref().map_or(PhotoFlags::default(), PhotoFlags::of),
        },
        _ => flags.clone(),
    }
}

fn replace(old: &mut Option<Photos>, new: &Option<Photos>) {
    if new.is_some() {
        old.clone_from(new);
    }
}

fn pruned(prune: &mut Prune, flags: &InputFlags) {
    let photos = flags.photo.said();
    let looks = methods::find(prune.method()).is_some_and(|m| !m.needs().is_empty());
    // Predicted times are of the sizes that inputs have.
    let looks = (looks && prune.data().is_none()) || prune.of == Some(Of::Ms);
    if looks && !flags.inputs.is_empty() {
        prune.inputs.clone_from(&flags.inputs);
        prune.photos.clone_from(&photos);
    }
    if prune.data.is_some() || !prune.inputs.is_empty() {
        replace(&mut prune.photos, &photos);
    }
    for own in prune.finetune.iter_mut().map(|f| &mut f.photos) {
        replace(own, &photos);
    }
    for own in prune.recover.iter_mut().map(|r| &mut r.photos) {
        replace(own, &photos);
    }
}

fn budgeted(budget: &mut Budgeted, flags: &InputFlags) {
    let photos = flags.photo.said();
    if budget.finetune.data == INPUTS && !flags.inputs.is_empty() {
        budget.inputs.clone_from(&flags.inputs);
        budget.finetune.photos.clone_from(&photos);
    }
    replace(&mut budget.finetune.photos, &photos);
    for own in budget.recover.iter_mut().map(|r| &mut r.photos) {
        replace(own, &photos);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(inputs: &[&str], mean: f64) -> InputFlags {
        InputFlags {
            inputs: inputs.iter().map(|i| (*i).to_owned()).collect(),
            photo: PhotoFlags {
                mean: vec![mean],
                ..PhotoFlags::default()
            },
        }
    }

    fn mean(photos: &Option<Photos>) -> Option<f64> {
        photos.as_ref()?.mean.first().copied()
    }

    #[test]
    fn a_recipe_says_at_what_it_looks_and_how() {
        let text = "[[step]]\nprune = { method = 'wanda' }\n[[step]]\nprune = {}\n\
            [[step]]\nfinetune = { data = 'd', epochs = 1, photos = { mean = [3.0] } }";
        let mut recipe: Recipe = text.parse().unwrap();
        note(&mut recipe, &flags(&[], 0.0)).unwrap();
        assert_eq!(recipe, text.parse().unwrap());
        note(&mut recipe, &flags(&["x=a.png"], 2.0)).unwrap();
        let [
            Step::Prune(wanda),
            Step::Prune(magnitude),
            Step::Finetune(finetune),
        ] = &recipe.step[..]
        else {
            panic!("{recipe:?}");
        };
        assert_eq!(
            (&wanda.inputs[..], mean(&wanda.photos)),
            (&["x=a.png".to_owned()][..], Some(2.0))
        );
        assert_eq!((magnitude.inputs.len(), mean(&magnitude.photos)), (0, None));
        assert_eq!(mean(&finetune.photos), Some(2.0));
        // What is read again is what was said.
        let own = inputs(&recipe, &flags(&[], 0.0));
        assert_eq!((own.inputs.len(), &own.photo.mean[..]), (1, &[2.0][..]));
        assert_eq!(inputs(&recipe, &flags(&["y=b.png"], 1.0)).inputs, ["y=b.png"]);
        // Other inputs are not taken as the first ones were.
        note(&mut recipe, &flags(&["x=b.png"], 0.0)).unwrap();
        let Step::Prune(wanda) = &recipe.step[0] else {
            panic!("{recipe:?}");
        };
        assert_eq!(
            (&wanda.inputs[..], &wanda.photos),
            (&["x=b.png".to_owned()][..], &None)
        );
    }
}
