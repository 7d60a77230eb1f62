//! Activations that exporters write in other formulas than those that define them.

use crate::expr::{Builder, Ex};
use crate::ops;
use crate::opt::{Match, Pattern, Rule, Scope, Site, Why};

/// One activation and how else it is written.
pub(super) struct Spelling {
    name: &'static str,
    op: &'static str,
    scope: Scope,
    formulas: &'static [for<'a> fn(Ex<'a>) -> Ex<'a>],
}

fn one_and_exp(x: Ex<'_>) -> Ex<'_> {
    (-x).exp() + 1.0
}

fn exp_negative(x: Ex<'_>) -> Ex<'_> {
    (x * -1.0).exp() + 1.0
}

/// `1 / (1 + e^-x)`
pub(super) const SIGMOID: Spelling = Spelling {
    name: "sigmoid",
    op: "Sigmoid",
    scope: Scope::Portable,
    formulas: &[
        |x| x.constant(1.0) / one_and_exp(x),
        |x| x.constant(1.0) / exp_negative(x),
    ],
};

/// `x / (1 + e^-x)`
pub(super) const SILU: Spelling = Spelling {
    name: "silu",
    op: "Swish",
    scope: Scope::Engine,
    formulas: &[|x| x / one_and_exp(x), |x| x / exp_negative(x)],
};

fn clipped(x: Ex<'_>) -> Ex<'_> {
    (x + 3.0).op("Clip", &[x.constant(0.0), x.constant(6.0)])
}

fn between(x: Ex<'_>) -> Ex<'_> {
    (x + 3.0)
        .op("Max", &[x.constant(0.0)])
        .op("Min", &[x.constant(6.0)])
}

fn relu6(x: Ex<'_>) -> Ex<'_> {
    (x + 3.0).op("Relu", &[]).op("Min", &[x.constant(6.0)])
}

/// `x min(max(x + 3, 0), 6) / 6`
pub(super) const HARD_SWISH: Spelling = Spelling {
    name: "hard-swish",
    op: "HardSwish",
    scope: Scope::Engine,
    formulas: &[
        |x| x * clipped(x) / 6.0,
        |x| x * between(x) / 6.0,
        |x| x * relu6(x) / 6.0,
    ],
};

/// `x tanh(log(1 + e^x))`, with the root of one operator that others have already become.
pub(super) const MISH: Spelling = Spelling {
    name: "mish",
    op: "Mish",
    scope: Scope::Engine,
    formulas: &[|x| x * (x.exp() + 1.0).log().tanh()],
};

impl Rule for Spelling {
    fn name(&self) -> &'static str {
        self.name
    }

    fn scope(&self) -> Scope {
        self.scope
    }

    fn patterns(&self) -> Vec<Pattern> {
        let one = |f: &for<'a> fn(Ex<'a>) -> Ex<'a>| Pattern::exact(1, |x| Some(f(x[0])));
        self.formulas.iter().filter_map(one).collect()
    }

    fn rewrite<'a>(&self, m: &Match, site: &Site, b: &'a Builder) -> Result<Ex<'a>, Why> {
        let first = ops::find("", self.op).and_then(|op| op.since().first().copied());
        if self.scope == Scope::Portable && site.opset < first.unwrap_or(1).into() {
            return Err(Why::No("the model's opset is older than the operator"));
        }
        Ok(b.at(m.inputs[0]).op(self.op, &[]))
    }
}
