//! Groups of axes found and cut: architectures, operators, random graphs, and what the literature says of removing neurons.
#![allow(clippy::unwrap_used)]

mod archs;
mod corners;
mod layers;
mod operators;
mod random;
mod removal;
mod sketch;
mod whole;
