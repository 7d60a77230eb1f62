//! Images whose channels stand together in blocks: `[images, channels / 16, ..., 16]`, in ONNX Runtime's words NCHWc.
//!
//! A vector holds the same pixel of neighbouring channels, whatever the size of the image is: convolutions read pixels
//! where they are and write whole vectors, and what works channel by channel or element by element needs no tails. Lanes
//! behind the last channel are zero, and every kernel leaves them so.

mod channels;
mod depthwise;
mod direct;
mod filters;
mod fresh;
mod gradient;
mod join;
mod minimal;
mod pool;
mod reorder;
mod source;
mod tile;
mod transposed;
mod unpool;
mod winograd;

pub use channels::{Channels, Given};
pub use depthwise::Depthwise;
pub(crate) use direct::Spread;
pub use direct::{Direct, Panels};
pub use filters::Filters;
pub use fresh::{Fresh, Origin};
pub use gradient::Gradient;
pub use join::Join;
pub use pool::{Global, Pooling};
pub use reorder::{pack, unpack};
use source::Source;
pub use transposed::Phase;
pub use unpool::Unpooling;
pub use winograd::Winograd;

use super::Pool;
use super::conv::{Images, Shape};
use super::sparse::Product;

/// Channels of a block.
pub const BLOCK: usize = 16;

/// The dimensions of `[images, channels, ...]` in blocks; `None` for less than three axes.
pub fn dims(d: &[usize]) -> Option<Vec<usize>> {
    let (&[images, channels], space) = d.split_first_chunk::<2>()?;
    if space.is_empty() {
        return None;
    }
    let mut all = vec![images, channels.div_ceil(BLOCK)];
    all.extend(space);
    all.push(BLOCK);
    Some(all)
}

/// Zeros the lanes behind the last channel in a row of pixels of the last block.
///
/// # Safety
///
/// The pixels are writable.
pub(crate) unsafe fn clear_tail(y: *mut f32, pixels: usize, channels: usize) {
    let live = channels % BLOCK;
    for i in (0..pixels).filter(|_| live > 0) {
        // SAFETY: as the caller says.
        unsafe { std::slice::from_raw_parts_mut(y.add(i * BLOCK + live), BLOCK - live).fill(0.0) };
    }
}

/// A convolution by one of the methods.
pub enum Convolution {
    /// As it is defined.
    Direct(Box<Direct>),
    /// With fewer multiplications.
    Winograd(Winograd),
    /// Each channel by itself.
    Depthwise(Depthwise),
    /// The transposed one: a convolution for each phase.
    Transposed(Vec<Convolution>),
    /// Without the weights that are zero.
    Sparse(Box<Product>),
}

impl Convolution {
    /// Bytes of scratch memory.
    pub fn scratch(&self, threads: usize) -> usize {
        match self {
            Convolution::Direct(k) => k.scratch(threads),
            Convolution::Winograd(k) => k.scratch(threads),
            Convolution::Depthwise(_) => 0,
            Convolution::Transposed(all) => all.iter().map(|k| k.scratch(threads)).max().unwrap_or(0),
            Convolution::Sparse(k) => k.scratch(threads),
        }
    }

    /// Computes the output, which stands in blocks of channels; so do the residual, and the input unless
    /// [`Direct::reads_rows`]. The bias has zeros up to whole panels.
    ///
    /// # Safety
    ///
    /// All that the shape describes is readable, the output writable, and nobody else writes to them.
    pub unsafe fn run(&self, x: Images, scratch: &mut [u8], pool: &Pool) {
        let some = |s: &Shape| s.images * s.window.positions() > 0;
        let something = match self {
            Convolution::Direct(k) => some(k.shape()),
            Convolution::Winograd(k) => some(k.shape()),
            Convolution::Depthwise(k) => some(k.shape()),
            Convolution::Transposed(_) | Convolution::Sparse(_) => true,
        };
        if !something {
            return;
        }
        // SAFETY: as the caller says.
        unsafe {
            match self {
                Convolution::Direct(k) => k.run(x, scratch, pool),
                Convolution::Winograd(k) => k.run(x, scratch, pool),
                Convolution::Depthwise(k) => k.run(x, pool),
                Convolution::Transposed(all) => all.iter().for_each(|k| k.run(x, scratch, pool)),
                Convolution::Sparse(k) => k.convolve(x, scratch, pool),
            }
        }
    }
}

#[cfg(test)]
mod tests;
