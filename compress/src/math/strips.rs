//! Products of matrices in `f64`, in pieces that stay in caches, and rows shared out among threads.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Numbers of one row that are multiplied at a time.
const DEEP: usize = 512;

/// Rows of the other matrix at a time.
const BROAD: usize = 64;

/// Takes off the elements `to` and on of each of `rows` of `n` the sums of products of its elements `over` with those of a row of `others`,
/// one for each, at the same places; those have `width` elements. The same bits however many rows there are.
///
/// # Panics
///
/// If a row is too short.
pub(super) fn take(
    rows: &mut [f64],
    n: usize,
    over: Range<usize>,
    (others, width): (&[f64], usize),
    to: usize,
) {
    if over.is_empty() {
        return;
    }
    for (block, others) in others.chunks(BROAD * width).enumerate() {
        for from in over.clone().step_by(DEEP) {
            let part = from..over.end.min(from + DEEP);
            for rows in rows.chunks_mut(4 * n) {
                for (pair, two) in others.chunks(2 * width).enumerate() {
                    let at = to + BROAD * block + 2 * pair;
                    match (rows.len() / n, two.len() / width) {
                        (4, 2) => tile::<4, 2>(rows, n, part.clone(), (two, width), at),
                        _ => singly(rows, n, part.clone(), (two, width), at),
                    }
                }
            }
        }
    }
}

fn singly(rows: &mut [f64], n: usize, part: Range<usize>, (others, width): (&[f64], usize), at: usize) {
    for row in rows.chunks_mut(n) {
        for (c, other) in others.chunks(width).enumerate() {
            tile::<1, 1>(row, n, part.clone(), (other, width), at + c);
        }
    }
}

fn tile<const R: usize, const C: usize>(
    rows: &mut [f64],
    n: usize,
    part: Range<usize>,
    (others, width): (&[f64], usize),
    at: usize,
) {
    let a = std::array::from_fn(|r| &rows[r * n..][part.clone()]);
    let b = std::array::from_fn(|c| &others[c * width..][part.clone()]);
    let sums: [[f64; C]; R] = dots(a, b, part.len());
    for (r, sums) in sums.iter().enumerate() {
        let to = &mut rows[r * n + at..][..C];
        to.iter_mut().zip(sums).for_each(|(x, s)| *x -= s);
    }
}

/// The sums of products of each of `a` with each of `b`, all of `n` elements.
fn dots<const R: usize, const C: usize>(a: [&[f64]; R], b: [&[f64]; C], n: usize) -> [[f64; C]; R] {
    let (a, b) = (
        a.map(|x| x[..n].as_chunks::<2>()),
        b.map(|x| x[..n].as_chunks::<2>()),
    );
    let pairs = n / 2;
    let (a2, b2) = (a.map(|x| &x.0[..pairs]), b.map(|x| &x.0[..pairs]));
    let mut sums = [[[0.0; 2]; C]; R];
    for k in 0..pairs {
        for r in 0..R {
            for c in 0..C {
                (0..2).for_each(|i| sums[r][c][i] += a2[r][k][i] * b2[c][k][i]);
            }
        }
    }
    let last = |r: usize, c: usize| a[r].1.iter().zip(b[c].1).map(|(a, b)| a * b).sum::<f64>();
    std::array::from_fn(|r| std::array::from_fn(|c| sums[r][c][0] + sums[r][c][1] + last(r, c)))
}

/// Does `work` with each piece of `size` elements of `rows`, the last perhaps smaller, on so many threads; it is told which piece it is.
pub(super) fn each(rows: &mut [f64], size: usize, threads: usize, work: impl Fn(usize, &mut [f64]) + Sync) {
    if size == 0 || rows.is_empty() {
        return;
    }
    let others = threads.min(rows.len().div_ceil(size)).saturating_sub(1);
    let pieces = Mutex::new(rows.chunks_mut(size).enumerate());
    let next = || pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
    let all = || {
        while let Some((i, piece)) = next() {
            work(i, piece);
        }
    };
    std::thread::scope(|scope| {
        (0..others).for_each(|_| {
            scope.spawn(all);
        });
        all();
    });
}

#[cfg(test)]
mod tests {
    use super::super::chance::Stream;
    use super::*;

    fn noise(n: usize, name: &str) -> Vec<f64> {
        let s = Stream::new(1, name);
        (0..n).map(|i| s.at(i as u64) - 0.5).collect()
    }

    #[test]
    fn products_are_taken_off() {
        for (rows, n, others, over) in [(1, 9, 3, 1..4), (9, 1500, 131, 3..1301), (4, 8, 2, 0..4)] {
            let (a, b) = (noise(rows * n, "a"), noise(others * n, "b"));
            let mut x = a.clone();
            take(&mut x, n, over.clone(), (&b, n), over.end);
            for r in 0..rows {
                for c in 0..others.min(n - over.end) {
                    let sum: f64 = over.clone().map(|k| a[r * n + k] * b[c * n + k]).sum();
                    let at = r * n + over.end + c;
                    assert!((a[at] - sum - x[at]).abs() < 1e-12);
                }
            }
        }
    }

    #[test]
    fn rows_are_the_same_alone() {
        let (n, b) = (700, noise(64 * 600, "b"));
        let mut all = noise(9 * n, "a");
        let mut one = all[8 * n..].to_vec();
        take(&mut all, n, 0..600, (&b, 600), 600);
        take(&mut one, n, 0..600, (&b, 600), 600);
        assert_eq!(all[8 * n..], one);
    }

    #[test]
    fn every_piece_is_worked_on_once() {
        for threads in [1, 3, 20] {
            let mut x = vec![0.0; 10];
            each(&mut x, 3, threads, |i, piece| {
                piece.iter_mut().for_each(|x| *x += i as f64 + 1.0);
            });
            assert_eq!(x, [1., 1., 1., 2., 2., 2., 3., 3., 3., 4.]);
        }
    }
}
