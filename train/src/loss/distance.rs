//! Distances between numbers.

use secateur_engine::expr::Ex;

use super::Loss;
use crate::settings::settings;
use crate::words::{mean, sqrt};

/// The mean over all elements of how far they are apart.
#[derive(Clone, Copy, Debug)]
pub enum Distance {
    /// The mean distance, whose gradient is 0 where both are equal.
    L1,
    /// The mean of its square.
    Mse,
    /// The root of that.
    Rmse,
}
settings!(Distance {});

impl Loss for Distance {
    fn name(&self) -> &'static str {
        match self {
            Distance::L1 => "l1",
            Distance::Mse => "mse",
            Distance::Rmse => "rmse",
        }
    }

    fn about(&self) -> &'static str {
        match self {
            Distance::L1 => "the mean distance",
            Distance::Mse => "the mean squared distance",
            Distance::Rmse => "the root of the mean squared distance",
        }
    }

    fn takes(&self) -> &'static [&'static str] {
        &["outputs", "targets"]
    }

    fn write<'a>(&self, x: &[Ex<'a>]) -> Ex<'a> {
        let apart = x[0] - x[1];
        match self {
            Distance::L1 => mean(apart.op("Abs", &[])),
            Distance::Mse => mean(apart * apart),
            Distance::Rmse => sqrt(mean(apart * apart)),
        }
    }
}
