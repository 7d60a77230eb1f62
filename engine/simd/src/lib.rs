//! Stub.
mod isa;
pub use isa::Simd;
