//! Rewrites that look for a pattern.

mod attention;
mod causal;
mod conv_batchnorm;
mod epilogue;
mod gelu_tanh;
mod group_norm;
mod layer_norm;
mod lerp;
mod linear_linear;
mod linear_scale;
mod logarithm;
mod read;
mod rotary;
mod sigmoids;
mod softmax;
mod turned;
mod zero_branch;

use super::{Facts, Match, Pattern, Scope, Why};
use crate::expr::{Builder, Ex};
use crate::ir::{Graph, Links};

/// Where a rule's pattern was found.
pub struct Site<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// Who reads what.
    pub links: &'a Links,
    /// What was known of its values before the sweep over the graph began.
    pub facts: &'a Facts,
    /// The version of ONNX's operators in force.
    pub opset: i64,
}

/// A rewrite of one expression into another that gives the same.
pub trait Rule: Sync {
    /// The name, as reports show it.
    fn name(&self) -> &'static str;
    /// For whom the result is.
    fn scope(&self) -> Scope;
    /// What to look for; the first that is found counts.
    fn patterns(&self) -> Vec<Pattern>;
    /// What takes the place of the pattern's root.
    ///
    /// # Errors
    ///
    /// Why not, where a condition does not hold.
    fn rewrite<'a>(&self, m: &Match, site: &Site, b: &'a Builder) -> Result<Ex<'a>, Why>;
}

/// All rules, in the order in which they are tried: what folds into constants first, then what that shows to be zero or
/// one operator, and last what a kernel does on its way out, from the inside to the outside.
pub static RULES: &[&dyn Rule] = &[
    &conv_batchnorm::ConvBatchNorm,
    &conv_batchnorm::ConvAffine,
    &linear_linear::LinearLinear,
    &linear_scale::LinearScale,
    &zero_branch::ZeroBranch,
    &softmax::Softmax,
    &logarithm::LogSoftmax,
    &logarithm::Softplus,
    &gelu_tanh::GeluTanh(Scope::Portable),
    &gelu_tanh::GeluTanh(Scope::Engine),
    &sigmoids::SIGMOID,
    &sigmoids::SILU,
    &sigmoids::HARD_SWISH,
    &sigmoids::MISH,
    &layer_norm::LayerNorm(Scope::Portable),
    &layer_norm::LayerNorm(Scope::Engine),
    &group_norm::GroupNorm,
    &attention::Attention,
    &rotary::Rotary,
    &lerp::Lerp,
    &epilogue::LinearBias,
    &epilogue::Residual,
    &epilogue::Activation,
    &epilogue::Scaled,
    &turned::Turned,
];
