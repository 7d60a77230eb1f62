//! The approximation of `Gelu` by `tanh`.

use std::f64::consts::FRAC_2_PI;

use crate::expr::{Builder, Ex};
use crate::ir::Attr;
use crate::opt::{Match, Pattern, Rule, Scope, Site, Why};

/// `x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))` becomes `Gelu` with `approximate = "tanh"`, whichever way the cube is written.
/// A portable result needs opset 20, where `Gelu` came to be.
///
/// The exact form is the operator's body, and is found by that.
pub(super) struct GeluTanh(pub(super) Scope);

/// The factor of the cube.
const CUBIC: f64 = 0.044715;

/// The first opset that has the operator.
const FIRST: i64 = 20;

fn cubed(x: Ex<'_>) -> Ex<'_> {
    x + x * x * x * CUBIC
}

fn power(x: Ex<'_>) -> Ex<'_> {
    x + x.op("Pow", &[x.constant(3.0)]) * CUBIC
}

fn factored(x: Ex<'_>) -> Ex<'_> {
    x * (x * x * CUBIC + 1.0)
}

fn squared(x: Ex<'_>) -> Ex<'_> {
    x * (x.op("Pow", &[x.constant(2.0)]) * CUBIC + 1.0)
}

fn gelu<'a>(x: Ex<'a>, cube: fn(Ex<'a>) -> Ex<'a>) -> Ex<'a> {
    x * 0.5 * ((cube(x) * FRAC_2_PI.sqrt()).tanh() + 1.0)
}

const CUBES: [for<'a> fn(Ex<'a>) -> Ex<'a>; 4] = [cubed, power, factored, squared];

impl Rule for GeluTanh {
    fn name(&self) -> &'static str {
        match self.0 {
            Scope::Portable => "gelu-tanh",
            Scope::Engine => "gelu-tanh-engine",
        }
    }

    fn scope(&self) -> Scope {
        self.0
    }

    fn patterns(&self) -> Vec<Pattern> {
        let whole = |&cube: &for<'a> fn(Ex<'a>) -> Ex<'a>| Pattern::exact(1, |x| Some(gelu(x[0], cube)));
        CUBES.iter().filter_map(whole).collect()
    }

    fn rewrite<'a>(&self, m: &Match, site: &Site, b: &'a Builder) -> Result<Ex<'a>, Why> {
        if self.0 == Scope::Portable && site.opset < FIRST {
            return Err(Why::No("the model's opset is older than the operator"));
        }
        let attrs = vec![Attr::new("approximate", "tanh")];
        Ok(b.at(m.inputs[0]).with("Gelu", &[], attrs))
    }
}
