//! What a compression did, as one HTML page that needs no other file.

mod head;
mod layers;
mod sense;
mod steps;
mod style;
#[cfg(test)]
mod tests;
mod words;

use secateur::compress::budget::Curve;

use super::card::Card;
use super::chart::escaped;
pub(in crate::cmd) use sense::curves;

/// What a compression has to show.
pub(in crate::cmd) struct Story<'a> {
    /// The model's name, as a title.
    pub(in crate::cmd) name: String,
    /// The command that was typed.
    pub(in crate::cmd) command: String,
    /// What was asked, in one sentence: "at most 1 point of accuracy for 2x".
    pub(in crate::cmd) asked: String,
    /// Figures before.
    pub(in crate::cmd) before: &'a Card,
    /// Figures after.
    pub(in crate::cmd) after: &'a Card,
    /// What it is worth before and after, on examples that no step has seen.
    pub(in crate::cmd) worth: Option<Worth>,
    /// What it cost, and what it was to cost.
    pub(in crate::cmd) aim: Option<Aim>,
    /// One for each weight, in the order of the file.
    pub(in crate::cmd) layers: Vec<Layer>,
    /// What was tried, in order; rounds of recipes too.
    pub(in crate::cmd) steps: Vec<Tried>,
    /// What each weight hurts, where that was measured.
    pub(in crate::cmd) curves: &'a [Curve],
    /// The small print, as (name, value): threads, machine features, seed, version.
    pub(in crate::cmd) notes: Vec<(String, String)>,
}

/// What a model is worth, measured before and after.
pub(in crate::cmd) struct Worth {
    /// What is measured: "accuracy", "agreement", "loss".
    pub(in crate::cmd) name: &'static str,
    /// Its unit: "%", or nothing.
    pub(in crate::cmd) unit: &'static str,
    /// In that unit.
    pub(in crate::cmd) before: f64,
    /// In that unit.
    pub(in crate::cmd) after: f64,
    /// By how much it may be worse, in that unit; `None` where that was not asked.
    pub(in crate::cmd) max_drop: Option<f64>,
    /// On how many examples it was measured.
    pub(in crate::cmd) examples: usize,
}

/// What was to become less, and how far it went.
pub(in crate::cmd) struct Aim {
    /// "ms", "MB" or "M MACs".
    pub(in crate::cmd) unit: &'static str,
    /// In that unit.
    pub(in crate::cmd) before: f64,
    /// The most that it may be; 0 where it goes as far as it may.
    pub(in crate::cmd) wanted: f64,
    /// In that unit.
    pub(in crate::cmd) after: f64,
}

/// A weight before and after.
pub(in crate::cmd) struct Layer {
    /// The name in the file.
    pub(in crate::cmd) name: String,
    /// The operator that takes it.
    pub(in crate::cmd) op: String,
    /// Before.
    pub(in crate::cmd) shape_before: Vec<usize>,
    /// After; empty where it is gone.
    pub(in crate::cmd) shape_after: Vec<usize>,
    /// Elements that are zero, before.
    pub(in crate::cmd) zeros_before: u64,
    /// Elements that are zero, after.
    pub(in crate::cmd) zeros_after: u64,
    /// Predicted milliseconds of its node, before and after.
    pub(in crate::cmd) ms: Option<(f64, f64)>,
}

/// Something that was tried.
pub(in crate::cmd) struct Tried {
    /// "step 3", "round 2".
    pub(in crate::cmd) label: String,
    /// The share of what may be pruned that is zero or cut away.
    pub(in crate::cmd) sparsity: f64,
    /// In the unit of the aim.
    pub(in crate::cmd) cost: Option<f64>,
    /// What it is worth before recovery, in the unit of [`Worth`].
    pub(in crate::cmd) before: Option<f64>,
    /// What it is worth after recovery.
    pub(in crate::cmd) after: Option<f64>,
    /// Whether it was kept or taken back.
    pub(in crate::cmd) kept: bool,
    /// How long it took.
    pub(in crate::cmd) seconds: Option<f64>,
}

impl Aim {
    /// The most that it may be, if that was said.
    fn most(&self) -> Option<f64> {
        (self.wanted > 0.0).then_some(self.wanted)
    }
}

impl Worth {
    /// Whether the less the better.
    fn less_is_better(&self) -> bool {
        self.name == "loss"
    }

    /// By how much it is worse after.
    fn drop(&self) -> f64 {
        let fell = self.before - self.after;
        if self.less_is_better() { -fell } else { fell }
    }
}

/// What every page begins with, by which a verb knows its own.
pub(in crate::cmd) const HEAD: &str = "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
    <meta name=\"generator\" content=\"secateur\">\n";

/// The page about `story`.
pub(in crate::cmd) fn page(story: &Story) -> String {
    let name = escaped(&story.name);
    let sections = [
        head::head(story),
        steps::section(story),
        layers::section(story),
        sense::section(story),
    ];
    format!(
        "{HEAD}<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{name}, compressed</title>\n\
         <style>\n{}</style>\n<body>\n<main>\n{}{}</main>\n<footer>secateur {}</footer>\n</body>\n</html>\n",
        style::page(),
        sections.concat(),
        notes(&story.notes),
        env!("CARGO_PKG_VERSION")
    )
}

/// The small print.
fn notes(notes: &[(String, String)]) -> String {
    if notes.is_empty() {
        return String::new();
    }
    let one =
        |(name, value): &(String, String)| format!("<dt>{}</dt><dd>{}</dd>\n", escaped(name), escaped(value));
    let all: String = notes.iter().map(one).collect();
    format!("<section>\n<h2>Small print</h2>\n<dl class=\"notes\">\n{all}</dl>\n</section>\n")
}
