//! Convolutions of floats, with channels before pixels (NCHW).
//!
//! In general each image and group is a matrix product: weights `[o, c * window]` in bands of a few output channels that
//! stream by, times the pixels that lie under each element of the window, `[c * window, pixels]`. For windows of one
//! pixel that matrix is the image itself; otherwise parts of it are gathered into memory that fits the second cache.
//! Convolutions of single channels are something else: see [`Depthwise`]. A blocked layout or another algorithm is
//! another kernel beside these two.

mod depthwise;
mod gather;
mod product;
#[cfg(test)]
pub(crate) mod tests;
mod transposed;

pub use depthwise::Depthwise;
pub use product::{Convolution, Weights};
pub use transposed::Transposed;

use super::Post;
use super::window::Window;

/// What is convolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Images.
    pub images: usize,
    /// Groups of channels that have nothing to do with each other.
    pub groups: usize,
    /// Input channels of a group.
    pub inputs: usize,
    /// Output channels of a group.
    pub outputs: usize,
    /// The window over the spatial axes.
    pub window: Window,
    /// What is applied in the end.
    pub post: Post,
}

impl Shape {
    /// Products that are summed for each element of the output.
    pub fn depth(&self) -> usize {
        self.inputs * self.window.taps()
    }

    /// Multiply-adds.
    pub fn work(&self) -> f64 {
        let window = [&self.window.output, &self.window.size].into_iter().flatten();
        let all = [self.images, self.groups, self.inputs, self.outputs];
        all.iter().chain(window).map(|&n| n as f64).product()
    }
}

/// The memory of a convolution, row-major.
#[derive(Clone, Copy)]
pub struct Images {
    /// The input, `[images, groups * inputs, ...]`.
    pub x: *const f32,
    /// Packed weights, for kernels on blocks of channels that have none of their own; else null.
    pub w: *const f32,
    /// A summand for each output channel; null where there is none.
    pub bias: *const f32,
    /// A summand of the output's shape; null where there is none. It may be the output itself.
    pub residual: *const f32,
    /// The output, `[images, groups * outputs, ...]`.
    pub y: *mut f32,
}

// SAFETY: whoever runs a convolution promises what makes its tasks independent of each other.
unsafe impl Send for Images {}
// SAFETY: as above.
unsafe impl Sync for Images {}
