//! Branches that add nothing.

use crate::expr::{Builder, Ex};
use crate::ir::{Dim, Node, Tensor, ValueId};
use crate::opt::{Match, Pattern, Rule, Scope, Site, Why};

/// `x + f(h)` becomes `x` where `f` is a convolution, product or normalisation that gives zeros whatever finite `h` is,
/// because its weights and bias are zeros. So a residual block that was driven or pruned to zero goes, with all that
/// only it needs.
///
/// Not if the sum may have another shape than `x`.
pub(super) struct ZeroBranch;

impl Rule for ZeroBranch {
    fn name(&self) -> &'static str {
        "zero-branch"
    }

    fn scope(&self) -> Scope {
        Scope::Portable
    }

    fn patterns(&self) -> Vec<Pattern> {
        // Of two names for one place, because a sum by itself is matched as the whole chain.
        vec![Pattern::loose(2, |x| x[0].op("Add|Sum", &[x[1]]))]
    }

    fn rewrite<'a>(&self, m: &Match, site: &Site, b: &'a Builder) -> Result<Ex<'a>, Why> {
        let node = &site.graph[m.nodes[0]];
        let (&[Some(left), Some(right)], &[Some(out)]) = (&node.inputs[..], &node.outputs[..]) else {
            return Err(Why::NoEffect);
        };
        let stays = match (nothing(site, right), nothing(site, left)) {
            (Ok(()), _) => left,
            (_, Ok(())) => right,
            (Err(why @ Why::No(_)), _) | (_, Err(why)) => return Err(why),
        };
        let [a, b_] = [out, stays].map(|v| site.facts.of(v));
        let same = |(a, b): (&Dim, &Dim)| a.same(b);
        match (a.ty.shape(), b_.ty.shape()) {
            (Some(s), Some(t)) if s.len() == t.len() && s.iter().zip(t).all(same) => Ok(b.at(stays)),
            _ => Err(Why::No("the sum may have another shape than what stays")),
        }
    }
}

/// Whether `v` is zeros, made by weights that are.
fn nothing(site: &Site, v: ValueId) -> Result<(), Why> {
    let (at, _) = site.links.producer(v).ok_or(Why::NoEffect)?;
    let node = &site.graph[at];
    if node.domain() != "" || node.outputs.len() != 1 {
        return Err(Why::NoEffect);
    }
    match &*node.op {
        "Conv" | "Gemm" | "MatMul" | "BatchNormalization" => zero_weights(site, node),
        "Add" => biased(site, node),
        _ => Err(Why::NoEffect),
    }
}

/// The same of a sum, such as that of a product and its bias.
fn biased(site: &Site, node: &Node) -> Result<(), Why> {
    let &[Some(a), Some(b)] = &node.inputs[..] else {
        return Err(Why::NoEffect);
    };
    let constant = |v| site.facts.konst(v).is_some();
    let (product, bias) = if constant(a) { (b, a) } else { (a, b) };
    nothing(site, product)?;
    match zeros(site, bias) || nothing(site, bias).is_ok() {
        true => Ok(()),
        false if constant(bias) => Err(BIAS),
        false => Err(Why::NoEffect),
    }
}

const BIAS: Why = Why::No("the weights of a branch are zeros, but its bias is not");

fn zero_weights(site: &Site, node: &Node) -> Result<(), Why> {
    let zero = |i: usize| match node.inputs.get(i).copied().flatten() {
        Some(v) => zeros(site, v),
        None => i > 1,
    };
    let training = node.attr("training_mode").is_some_and(|a| *a != 0i64.into());
    match (zero(1), zero(2)) {
        (false, _) => Err(Why::NoEffect),
        (true, _) if training => Err(Why::No("batch normalisation in training mode")),
        (true, false) => Err(BIAS),
        (true, true) => Ok(()),
    }
}

fn zeros(site: &Site, v: ValueId) -> bool {
    let all = |t: &Tensor| t.floats().is_some_and(|x| x.iter().all(|&x| x == 0.0));
    site.facts.konst(v).is_some_and(|t| all(t))
}
