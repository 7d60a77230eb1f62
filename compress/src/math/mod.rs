//! The numeric hearts of the methods: functions on slices that know of no graph.

pub mod float;
pub mod interval;
pub mod mask;
pub mod select;
pub mod tiles;

pub use float::{Float, Kind};
pub use interval::Interval;
pub use select::Search;
pub use tiles::Tiles;
