//! The numeric hearts of the methods: functions on slices that know of no graph.

pub mod allot;
pub mod chance;
pub mod damage;
pub mod dirac;
pub mod factor;
pub mod float;
pub mod interval;
pub mod layout;
pub mod mask;
pub mod ridge;
pub mod select;
pub mod spread;
mod strips;
pub mod surgeon;
pub mod tiles;
pub mod window;

pub use float::{Float, Kind};
pub use interval::Interval;
pub use select::Search;
pub use tiles::Tiles;
