//! Budgets: as fast or as small as a bounded loss of quality allows, spread over the layers by what each of them hurts and
//! saves.

mod cost;
mod cut;
mod ready;
mod search;
mod sense;
mod state;
mod target;

pub use cost::{Costs, Sizes};
pub use search::{Budget, Clock, Event, Foretold, Found, Search, Stage, Told, Try, Verdict, fall, holds};
pub use sense::{Curve, LEVELS, Point, Subject, sensitivity};
pub use target::{Quantity, Target};

#[cfg(test)]
mod tests;
