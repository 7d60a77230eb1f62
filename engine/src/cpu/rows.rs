//! Rows picked from anywhere.

use super::Pool;
use super::moves::chunks;

/// Bytes that one task copies, about.
const TASK: usize = 64 << 10;

/// Fills `to` with rows of `row` bytes: the `i`-th is the one at `from[at(i)..]`.
///
/// # Panics
///
/// If a row reaches beyond the end of `from`.
pub fn rows(pool: &Pool, from: &[u8], to: &mut [u8], row: usize, at: impl Fn(usize) -> usize + Sync) {
    if row == 0 || to.is_empty() {
        return;
    }
    let each = (TASK / row).max(1);
    chunks(pool, to, each * row, &|part, to| {
        let at = |i: usize| at(part * each + i);
        match row {
            1 => small::<1>(from, to, at),
            2 => small::<2>(from, to, at),
            4 => small::<4>(from, to, at),
            8 => small::<8>(from, to, at),
            16 => small::<16>(from, to, at),
            _ => {
                for (i, to) in to.chunks_mut(row).enumerate() {
                    let start = at(i);
                    to.copy_from_slice(&from[start..start + row]);
                }
            }
        }
    });
}

fn small<const N: usize>(from: &[u8], to: &mut [u8], at: impl Fn(usize) -> usize) {
    for (i, to) in to.as_chunks_mut::<N>().0.iter_mut().enumerate() {
        let start = at(i);
        to.copy_from_slice(&from[start..start + N]);
    }
}
