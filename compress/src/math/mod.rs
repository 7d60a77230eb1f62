//! The numeric hearts of the methods: functions on slices that know of no graph.

pub mod float;
pub mod mask;
pub mod select;
pub mod tiles;

pub use float::{Float, Kind};
pub use select::Search;
pub use tiles::Tiles;
