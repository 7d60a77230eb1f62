//! What a compression did, as one HTML page that needs no other file.

use secateur::compress::budget::Curve;

use super::card::Card;

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
    /// What it was worth before the first step on the examples by which steps are judged, in the unit of [`Worth`].
    pub(in crate::cmd) start: Option<f64>,
    /// Other models to hold it against, such as the same one pruned and not trained.
    pub(in crate::cmd) others: Vec<Other>,
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
    /// The most that it may be; `None` where it goes as far as it may.
    pub(in crate::cmd) wanted: Option<f64>,
    /// In that unit.
    pub(in crate::cmd) after: f64,
}

/// A model that stands beside.
pub(in crate::cmd) struct Other {
    /// What it is called: "pruned 90 %".
    pub(in crate::cmd) name: String,
    /// In the unit of the aim.
    pub(in crate::cmd) cost: f64,
    /// In the unit of [`Worth`].
    pub(in crate::cmd) worth: f64,
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
    /// The share of zeros among what may be pruned.
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

/// The page about `story`.
pub(in crate::cmd) fn page(story: &Story) -> String {
    story.name.clone()
}

/// What each weight hurts, as a chart in SVG.
pub(in crate::cmd) fn curves(curves: &[Curve]) -> String {
    curves.len().to_string()
}
