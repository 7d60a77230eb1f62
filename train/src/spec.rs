//! What a training step is to do, and what it is.

use secateur_engine::ir::{Model, Tensor, ValueId};

use crate::loss::Loss;
use crate::optim::Optimizer;
use crate::update::Clip;
use crate::{Group, Rounding, Segments, TrainError};

/// One of the things that a step makes small, or shows.
#[derive(Clone, Copy, Debug)]
pub struct Term<'a> {
    /// What it is.
    pub loss: &'a dyn Loss,
    /// What it compares: names of values of the model. A name that the model does not have becomes an input, for labels or a
    /// teacher's outputs.
    pub of: &'a [&'a str],
    /// Its factor in the whole. With 0 it is only shown.
    pub weight: f64,
}

/// What a training step is to do.
#[derive(Clone, Copy, Debug)]
pub struct Spec<'a> {
    /// What is made small: the sum of these.
    pub terms: &'a [Term<'a>],
    /// By which steps.
    pub optimizer: &'a dyn Optimizer,
    /// How parameters differ; see [`Group`].
    pub groups: &'a [Group],
    /// Bounds for gradients.
    pub clip: Clip,
    /// By name of a parameter truth values in its shape: where they are false it is 0 and stays so, with all its state. See
    /// [`zeros_held`](crate::zeros_held).
    pub masks: &'a [(&'a str, Tensor)],
    /// Whether the zeros of weights with at least two axes are held too, where `masks` says nothing and not all are zeros: what was
    /// pruned stays pruned.
    pub hold_zeros: bool,
    /// Whether `BatchNormalization` uses the statistics of the batch and keeps running ones. Without, it stays as it is: so it should where
    /// another model, which does the same with each example whatever else is in its batch, is to be matched.
    pub batch_statistics: bool,
    /// What the gradient of rounding is.
    pub rounding: Rounding,
    /// What of the forward pass is computed again when gradients need it, instead of being kept.
    pub segments: Option<Segments>,
    /// Values of the model that are outputs of the step too.
    pub outputs: &'a [&'a str],
    /// Decides which elements are dropped.
    pub seed: u32,
}

impl<'a> Spec<'a> {
    /// Makes the sum of `terms` small with `optimizer`, and nothing else.
    pub fn new(terms: &'a [Term<'a>], optimizer: &'a dyn Optimizer) -> Spec<'a> {
        Spec {
            terms,
            optimizer,
            groups: &[],
            clip: Clip::default(),
            masks: &[],
            hold_zeros: false,
            batch_statistics: true,
            rounding: Rounding::Zero,
            segments: None,
            outputs: &[],
            seed: 0,
        }
    }
}

/// A tensor that a step takes and gives back changed.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// The input's name.
    pub input: String,
    /// The output's name.
    pub output: String,
    /// What it is before the first step.
    pub start: Tensor,
    /// The initialiser of the model that it stands for, if it is no state of the optimiser.
    pub weight: Option<ValueId>,
}

/// A training step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepGraph {
    /// The model that takes one step. Some gradients are operators of this engine's own; see [`portable`](crate::portable).
    pub model: Model,
    /// The name of the input that is the rate: a scalar of the parameters' type.
    pub rate: String,
    /// Names of the inputs that [`Term`]s asked for.
    pub labels: Vec<String>,
    /// What goes from step to step: outputs are to be fed back as the inputs that they belong to.
    pub state: Vec<State>,
    /// The name of the output that is the loss.
    pub loss: String,
    /// Names of the outputs that are the terms, as they were given, without their factors.
    pub terms: Vec<String>,
    /// The name of the output that is the length of all gradients; see [`Clip::norm`].
    pub norm: Option<String>,
}

impl StepGraph {
    /// Puts what was trained in the place of what `model`, the one that the step was made of, had before. All else stays as
    /// it is. `state` belongs to [`StepGraph::state`].
    ///
    /// # Errors
    ///
    /// If `model` is another, or a tensor of another type or shape.
    pub fn put_back(&self, state: &[Tensor], model: &mut Model) -> Result<(), TrainError> {
        for (s, new) in self.state.iter().zip(state) {
            let Some(v) = s.weight else { continue };
            let old = model
                .graph
                .values
                .get_mut(v.0 as usize)
                .and_then(|v| v.konst.as_mut());
            let fits = |t: &Tensor| (t.dtype(), t.dims()) == (new.dtype(), new.dims());
            match old.filter(|c| fits(&c.tensor)) {
                Some(konst) => *konst = konst.with(new.clone()),
                None => {
                    return Err(TrainError::wrong(format!(
                        "the model has no {:?} of that type",
                        s.input
                    )));
                }
            }
        }
        Ok(())
    }
}
