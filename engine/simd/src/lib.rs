//! The vector instructions secateur's kernels are written in, chosen at run time.
//!
//! A kernel is a [`Vectorised`] operation, generic over the instruction set [`Simd`]; [`dispatch()`] runs it with the
//! best set that this processor has:
//!
//! ```
//! use secateur_simd::{Simd, Vectorised, dispatch};
//!
//! /// `y[i] += a * x[i]`
//! struct Axpy<'a> {
//!     a: f32,
//!     x: &'a [f32],
//!     y: &'a mut [f32],
//! }
//!
//! impl Vectorised for Axpy<'_> {
//!     type Out = ();
//!
//!     #[inline(always)]
//!     fn run<S: Simd>(self, s: S) {
//!         let len = self.x.len().min(self.y.len());
//!         let a = s.splat(self.a);
//!         for i in (0..len).step_by(S::LANES) {
//!             let n = S::LANES.min(len - i);
//!             // SAFETY: `i + n <= len`, which is within both slices.
//!             unsafe {
//!                 let x = s.load_first(self.x.as_ptr().add(i), n);
//!                 let y = s.load_first(self.y.as_ptr().add(i), n);
//!                 s.store_first(self.y.as_mut_ptr().add(i), n, s.fma(a, x, y));
//!             }
//!         }
//!     }
//! }
//!
//! let x = [1.0; 37];
//! let mut y = [0.5; 37];
//! dispatch(Axpy { a: 2.0, x: &x, y: &mut y });
//! assert_eq!(y, [2.5; 37]);
//! ```
//!
//! Everything between `run` and the methods of `Simd` has to be `#[inline(always)]`, closures too: only what is inlined
//! into the entry is compiled with the set's features. What is not costs a call for every single instruction.
//!
//! The environment variable `SECATEUR_ISA` names a lesser set (`avx512`, `avx2`, `neon`, `scalar`), for tests and
//! for comparing; [`isa_or_error`] says whether it could be followed.

mod arch;
mod dispatch;
mod isa;
pub mod math;

pub use arch::opaque;
pub use dispatch::{IsaError, Vectorised, dispatch, isa, isa_or_error};
pub use isa::Simd;
