//! Passes over the bytes of many tensors, in small pieces and on several threads.

use std::ops::{AddAssign, Range};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;

use secateur_engine::Tensor;

/// Whoever wants to know how far long work has come.
pub trait Watch: Sync {
    /// Work called `what` begins, over `bytes` bytes.
    fn begin(&self, _what: &str, _bytes: u64) {}
    /// Work called `what` begins, of `runs` runs of a model, which it advances by instead of bytes.
    fn runs(&self, _what: &str, _runs: u64) {}
    /// `bytes` more bytes are done.
    fn advance(&self, _bytes: u64) {}
}

/// Nobody wants to know.
impl Watch for () {}

/// How passes are made.
#[derive(Clone, Copy)]
pub struct Effort<'a> {
    /// Threads that work at once. Results do not depend on it.
    pub threads: usize,
    /// Who is told of the progress.
    pub watch: &'a dyn Watch,
}

impl Default for Effort<'_> {
    fn default() -> Self {
        Effort {
            threads: 1,
            watch: &(),
        }
    }
}

/// Bytes a thread takes at a time; a multiple of the size of every element.
const PIECE: usize = 1 << 20;

/// A part of a tensor.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// Which tensor.
    pub(crate) tensor: usize,
    /// Which of its bytes.
    pub(crate) bytes: Range<usize>,
}

impl Effort<'_> {
    /// Goes through the bytes of all `tensors` once, piece by piece. Each thread starts with a `new` result; they are
    /// merged in no particular order.
    pub(crate) fn pass<T: Send>(
        &self,
        tensors: &[&Tensor],
        new: impl Fn() -> T + Sync,
        step: impl Fn(&mut T, &Piece, &[u8]) + Sync,
        merge: impl Fn(T, T) -> T,
    ) -> T {
        let step = |result: &mut T, piece: &Piece| {
            step(result, piece, &tensors[piece.tensor].bytes()[piece.bytes.clone()]);
            self.watch.advance(piece.bytes.len() as u64);
        };
        self.share(&pieces(tensors), new, step, merge)
    }

    /// Goes through the tiles of tensors once, some of one tensor at a time; for each tensor their number, and its bytes.
    pub(crate) fn tiles<T: Send>(
        &self,
        tensors: &[(usize, u64)],
        new: impl Fn() -> T + Sync,
        step: impl Fn(&mut T, usize, usize) + Sync,
        merge: impl Fn(T, T) -> T,
    ) -> T {
        let pieces: Vec<_> = tensors.iter().enumerate().flat_map(of_tiles).collect();
        let step = |result: &mut T, (tensor, tiles, bytes): &(usize, Range<usize>, u64)| {
            tiles.clone().for_each(|tile| step(result, *tensor, tile));
            self.watch.advance(*bytes);
        };
        self.share(&pieces, new, step, merge)
    }

    /// Takes `pieces` one by one, on several threads.
    fn share<P: Sync, T: Send>(
        &self,
        pieces: &[P],
        new: impl Fn() -> T + Sync,
        step: impl Fn(&mut T, &P) + Sync,
        merge: impl Fn(T, T) -> T,
    ) -> T {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut result = new();
            while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
                step(&mut result, piece);
            }
            result
        };
        let others = self.threads.min(pieces.len()).saturating_sub(1);
        std::thread::scope(|scope| {
            let others: Vec<_> = (0..others).map(|_| scope.spawn(work)).collect();
            let own = work();
            others.into_iter().map(join).fold(own, merge)
        })
    }

    /// Adds up what `count` finds in the pieces of each tensor.
    pub(crate) fn sums<T: Clone + Default + Send + AddAssign>(
        &self,
        tensors: &[&Tensor],
        count: impl Fn(&Piece, &[u8]) -> T + Sync,
    ) -> Vec<T> {
        self.pass(
            tensors,
            || vec![T::default(); tensors.len()],
            |sums, piece, bytes| sums[piece.tensor] += count(piece, bytes),
            |mut sums, more| {
                sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
                sums
            },
        )
    }
}

fn join<T>(thread: ScopedJoinHandle<T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The tiles of one tensor in pieces: its number, the tiles, and bytes.
fn of_tiles(
    (tensor, &(tiles, bytes)): (usize, &(usize, u64)),
) -> impl Iterator<Item = (usize, Range<usize>, u64)> {
    let pieces = bytes.div_ceil(PIECE as u64).max(1);
    let step = tiles.div_ceil(pieces as usize).max(1);
    (0..tiles).step_by(step).map(move |at| {
        let end = tiles.min(at + step);
        let share = |tile: usize| (u128::from(bytes) * tile as u128 / tiles as u128) as u64;
        (tensor, at..end, share(end) - share(at))
    })
}

fn pieces(tensors: &[&Tensor]) -> Vec<Piece> {
    let of = |(tensor, len): (usize, usize)| {
        (0..len).step_by(PIECE).map(move |at| Piece {
            tensor,
            bytes: at..len.min(at + PIECE),
        })
    };
    tensors
        .iter()
        .map(|t| t.bytes().len())
        .enumerate()
        .flat_map(of)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[derive(Default)]
    struct Sum(AtomicU64);

    impl Watch for Sum {
        fn advance(&self, bytes: u64) {
            self.0.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    #[test]
    fn every_byte_is_seen_once() {
        let big = Tensor::of(&[PIECE * 2 + 8], vec![1u8; PIECE * 2 + 8]);
        let small = Tensor::of(&[3], vec![2u8; 3]);
        let empty = Tensor::of(&[0], Vec::<u8>::new());
        let tensors = [&small, &empty, &big];
        for threads in [1, 3, 16] {
            let watch = Sum::default();
            let effort = Effort {
                threads,
                watch: &watch,
            };
            let add = |sum: &mut u64, p: &Piece, bytes: &[u8]| {
                assert_eq!(bytes, &tensors[p.tensor].bytes()[p.bytes.clone()]);
                *sum += bytes.iter().map(|&b| u64::from(b)).sum::<u64>();
            };
            let sum = effort.pass(&tensors, || 0, add, |a, b| a + b);
            assert_eq!(sum, PIECE as u64 * 2 + 8 + 6);
            assert_eq!(watch.0.into_inner(), PIECE as u64 * 2 + 11);
        }
    }

    #[test]
    fn every_tile_is_seen_once() {
        let tensors = [(7, 3 * PIECE as u64 + 5), (0, 0), (100, 400)];
        for threads in [1, 3] {
            let watch = Sum::default();
            let effort = Effort {
                threads,
                watch: &watch,
            };
            let see = |seen: &mut Vec<_>, tensor, tile| seen.push((tensor, tile));
            let both = |mut a: Vec<_>, b| {
                a.extend(b);
                a
            };
            let mut seen = effort.tiles(&tensors, Vec::new, see, both);
            seen.sort();
            let all = tensors
                .iter()
                .enumerate()
                .flat_map(|(t, (n, _))| (0..*n).map(move |i| (t, i)));
            assert!(seen.into_iter().eq(all));
            assert_eq!(watch.0.into_inner(), 3 * PIECE as u64 + 405);
        }
    }
}
