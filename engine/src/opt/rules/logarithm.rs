//! Logarithms of what overflows or vanishes before its logarithm does.

use crate::expr::{Builder, Ex};
use crate::opt::{Match, Pattern, Rule, Scope, Site, Why};

/// `Log(Softmax(x))` becomes `LogSoftmax(x)`, which subtracts the logarithm of the sum of exponentials. Where a
/// probability is too small for a float, that is its logarithm and the original minus infinity.
pub(super) struct LogSoftmax;

impl Rule for LogSoftmax {
    fn name(&self) -> &'static str {
        "log-softmax"
    }

    fn scope(&self) -> Scope {
        Scope::Portable
    }

    fn patterns(&self) -> Vec<Pattern> {
        vec![Pattern::loose(1, |x| x[0].op("Softmax", &[]).op("Log", &[]))]
    }

    fn rewrite<'a>(&self, m: &Match, site: &Site, b: &'a Builder) -> Result<Ex<'a>, Why> {
        let &[_, softmax] = &m.nodes[..] else {
            return Err(Why::NoEffect);
        };
        // `axis` has always meant the same in both operators.
        let attrs = site.graph[softmax].attrs.clone();
        Ok(b.at(m.inputs[0]).with("LogSoftmax", &[], attrs))
    }
}

/// `Log(Exp(x) + 1)` becomes `Softplus(x)`, which is `x` where the original overflows.
pub(super) struct Softplus;

impl Rule for Softplus {
    fn name(&self) -> &'static str {
        "softplus"
    }

    fn scope(&self) -> Scope {
        Scope::Portable
    }

    fn patterns(&self) -> Vec<Pattern> {
        let pattern = Pattern::exact(1, |x| Some((x[0].exp() + 1.0).log()));
        pattern.into_iter().collect()
    }

    fn rewrite<'a>(&self, m: &Match, _: &Site, b: &'a Builder) -> Result<Ex<'a>, Why> {
        Ok(b.at(m.inputs[0]).op("Softplus", &[]))
    }
}
