//! From rows to blocks and back.

use super::BLOCK;
use crate::cpu::Pool;
use crate::cpu::gemm::Scratch;

/// Pixels of a block of channels that make a task.
const TASK: usize = 1 << 10;

/// Writes `[images, channels, pixels]` in blocks.
///
/// # Panics
///
/// If a slice is shorter than the sizes say.
pub fn pack(x: &[f32], y: &mut [f32], sizes: [usize; 3], pool: &Pool) {
    let [images, channels, pixels] = sizes;
    assert!(x.len() >= images * channels * pixels, "channels");
    assert!(
        y.len() >= images * channels.next_multiple_of(BLOCK) * pixels,
        "blocks"
    );
    let y = Scratch::from(y);
    each(sizes, pool, |rows, block, live, range| {
        let to = y.behind((block * pixels + range.start) * BLOCK).start();
        // SAFETY: the block has these pixels, and no other task writes to them.
        let to = unsafe { std::slice::from_raw_parts_mut(to, range.len() * BLOCK) };
        to.fill(0.0);
        for lane in 0..live {
            let from = &x[(rows + lane) * pixels..][range.clone()];
            let to = to.iter_mut().skip(lane).step_by(BLOCK);
            to.zip(from).for_each(|(to, &x)| *to = x);
        }
    });
}

/// Writes blocks as `[images, channels, pixels]`.
///
/// # Panics
///
/// If a slice is shorter than the sizes say.
pub fn unpack(x: &[f32], y: &mut [f32], sizes: [usize; 3], pool: &Pool) {
    let [images, channels, pixels] = sizes;
    assert!(
        x.len() >= images * channels.next_multiple_of(BLOCK) * pixels,
        "blocks"
    );
    assert!(y.len() >= images * channels * pixels, "channels");
    let y = Scratch::from(y);
    each(sizes, pool, |rows, block, live, range| {
        let from = &x[(block * pixels + range.start) * BLOCK..][..range.len() * BLOCK];
        for lane in 0..live {
            let to = y.behind((rows + lane) * pixels + range.start).start();
            // SAFETY: the channel has these pixels, and no other task writes to them.
            let to = unsafe { std::slice::from_raw_parts_mut(to, range.len()) };
            to.iter_mut()
                .zip(from.chunks_exact(BLOCK))
                .for_each(|(to, x)| *to = x[lane]);
        }
    });
}

/// Calls `part` with the first row, the block, the number of its channels and some pixels.
fn each(
    [images, channels, pixels]: [usize; 3],
    pool: &Pool,
    part: impl Fn(usize, usize, usize, std::ops::Range<usize>) + Sync,
) {
    let (blocks, pieces) = (channels.div_ceil(BLOCK), pixels.div_ceil(TASK));
    pool.run(images * blocks * pieces, &|task| {
        let (block, piece) = (task / pieces, task % pieces);
        let first = block % blocks * BLOCK;
        let rows = block / blocks * channels + first;
        let range = piece * TASK..pixels.min((piece + 1) * TASK);
        part(rows, block, BLOCK.min(channels - first), range);
    });
}
