//! Losses that compare examples with each other.

use secateur_engine::expr::Ex;
use secateur_engine::ir::Attr;

use super::Loss;
use crate::settings::settings;
use crate::words::{cast, either, ints, last, mean, sqrt};

/// InfoNCE as SimCLR has it (Chen et al. 2020): two views `[n, d]` of the same `n` examples. Of the `2n - 1` others that a view is
/// compared with, by the cosine divided by the temperature, it should be nearest to the other view of its own example.
#[derive(Clone, Copy, Debug)]
pub struct InfoNce {
    /// Lower ones look more at those that are near.
    pub temperature: f64,
}

impl Default for InfoNce {
    fn default() -> InfoNce {
        InfoNce { temperature: 0.5 }
    }
}
settings!(InfoNce {
    temperature: 1e-3..=1e3
});

/// Rows shorter than this stay shorter than 1.
const SHORTEST: f64 = 1e-12;

/// Rows of length 1.
fn unit(x: Ex<'_>) -> Ex<'_> {
    let squares = (x * x).op("ReduceSum", &[ints(x, &[-1])]);
    let bar = x.constant(SHORTEST * SHORTEST);
    x / sqrt(squares.op("Max", &[bar]))
}

impl Loss for InfoNce {
    fn name(&self) -> &'static str {
        "infonce"
    }

    fn about(&self) -> &'static str {
        "two views of an example are nearer to each other than to others"
    }

    fn takes(&self) -> &'static [&'static str] {
        &["views", "other views"]
    }

    fn write<'a>(&self, x: &[Ex<'a>]) -> Ex<'a> {
        let [a, b] = [unit(x[0]), unit(x[1])];
        let all = a.with("Concat", &[b], vec![Attr::new("axis", 0)]);
        let turned = all.with("Transpose", &[], vec![Attr::new("perm", vec![1, 0])]);
        let near = all.matmul(turned) * (1.0 / self.temperature);
        let own = cast(
            near.with("EyeLike", &[], vec![]),
            secateur_engine::ir::DType::Bool,
        );
        let others = either(own, near.constant(f64::NEG_INFINITY), near);
        let sum = others.with(
            "ReduceLogSumExp",
            &[ints(near, &[1])],
            vec![Attr::new("keepdims", 0)],
        );
        // Both views of an example have the same cosine to each other.
        mean(sum) - mean(last(a * b)) * (1.0 / self.temperature)
    }
}
