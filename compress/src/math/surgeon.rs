//! Weights taken out of rows with the others set right: Optimal Brain Surgeon (Hassibi and Stork 1993), column by column (SparseGPT,
//! Frantar and Alistarh 2023, arXiv:2301.00774).

use std::ops::Range;

/// What goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Take {
    /// So many weights, about as large a share in each block of columns.
    Count(usize),
    /// Of each `of` neighbours all but `keep`; neighbours begin anew after each `inputs` columns.
    AllBut {
        /// Weights that stay.
        keep: usize,
        /// Of so many.
        of: usize,
        /// Columns of one place of a window.
        inputs: usize,
    },
}

/// Columns that are chosen and set right together.
const BLOCK: usize = 128;

/// Makes weights of `w`, `[rows, n]`, zero, and changes those in later columns so that `w · x` changes least, where `u` is the
/// [factor](super::factor::inverse_factor) of the inverse of the sum of `x · xᵀ`. Of a count, as many are zero
/// afterwards, or all that were before. What was zero stays zero. The result does not depend on the number of threads.
pub fn prune(w: &mut [f64], u: &[f64], n: usize, take: Take, threads: usize) {
    let rows = w.len() / n.max(1);
    let mut gone: Vec<bool> = w.iter().map(|&x| x == 0.0).collect();
    let held = |gone: &[bool], block: &Range<usize>| {
        let rows = gone.chunks(n).flat_map(|row| &row[block.clone()]);
        rows.filter(|g| **g).count()
    };
    let mut left = gone.iter().filter(|g| **g).count();
    let mut done = 0;
    let mut start = 0;
    while start < n {
        let block = start..end(start, n, take);
        start = block.end;
        if let Take::Count(all) = take {
            left -= held(&gone, &block);
            let even = (all as f64 * block.end as f64 / n as f64).round() as usize;
            // Zeros of later blocks count too.
            let wanted = even.min(all.saturating_sub(left)).saturating_sub(done);
            choose(w, &mut gone, (u, n), block.clone(), wanted);
            done += held(&gone, &block);
        }
        let part = rows.div_ceil(threads.max(1)).max(1) * n;
        std::thread::scope(|scope| {
            for (w, gone) in w.chunks_mut(part).zip(gone.chunks_mut(part)) {
                let block = block.clone();
                scope.spawn(move || {
                    let each = w.chunks_mut(n).zip(gone.chunks_mut(n));
                    each.for_each(|(w, gone)| row((w, gone), (u, n), block.clone(), take));
                });
            }
        });
    }
}

/// Where the block of columns from `start` on ends: with a group of neighbours, for these are chosen together.
fn end(start: usize, n: usize, take: Take) -> usize {
    let end = n.min(start + BLOCK);
    let Take::AllBut { of, inputs, .. } = take else {
        return end;
    };
    let at = end % inputs;
    let group = at.next_multiple_of(of).min(inputs);
    n.min(end - at + group)
}

/// How much worse the sum of squares becomes, times two, if `x` in column `j` goes: `x² / [H⁻¹]`.
pub fn loss(x: f64, u: &[f64], n: usize, j: usize) -> f64 {
    let d = u[j * n + j];
    x * x / (d * d)
}

/// Marks weights of a block until `wanted` of them are; of equal ones the last go first.
fn choose(w: &[f64], gone: &mut [bool], (u, n): (&[f64], usize), block: Range<usize>, wanted: usize) {
    let rows = w.len() / n;
    let places = (0..rows).flat_map(|r| block.clone().map(move |j| r * n + j));
    let marked = places.clone().filter(|&at| gone[at]).count();
    let rest = places.filter(|&at| !gone[at]);
    let mut rest: Vec<(f64, usize)> = rest.map(|at| (loss(w[at], u, n, at % n), at)).collect();
    let more = wanted.saturating_sub(marked).min(rest.len());
    let order = |a: &(f64, usize), b: &(f64, usize)| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1));
    if more > 0 && more < rest.len() {
        rest.select_nth_unstable_by(more, order);
    }
    rest.iter().take(more).for_each(|&(_, at)| gone[at] = true);
}

/// Takes out what is marked in one block of one row.
fn row((w, gone): (&mut [f64], &mut [bool]), (u, n): (&[f64], usize), block: Range<usize>, take: Take) {
    let mut errors = vec![0.0; block.len()];
    for j in block.clone() {
        if let Take::AllBut { keep, of, inputs } = take {
            let at = j % inputs;
            if at.is_multiple_of(of) {
                all_but((w, gone), (u, n), j..j + of.min(inputs - at), keep);
            }
        }
        if !gone[j] {
            continue;
        }
        let error = w[j] / u[j * n + j];
        errors[j - block.start] = error;
        update(&mut w[j..block.end], &u[j * n + j..j * n + block.end], error);
        w[j] = 0.0;
    }
    for j in block.clone() {
        let from = &u[j * n + block.end..(j + 1) * n];
        update(&mut w[block.end..], from, errors[j - block.start]);
    }
    block.filter(|&j| gone[j]).for_each(|j| w[j] = 0.0);
}

fn update(w: &mut [f64], u: &[f64], error: f64) {
    if error != 0.0 {
        w.iter_mut().zip(u).for_each(|(w, u)| *w -= error * u);
    }
}

/// Marks all of the columns `group` but the `keep` that cost most; of equal ones the first stay.
fn all_but((w, gone): (&[f64], &mut [bool]), (u, n): (&[f64], usize), group: Range<usize>, keep: usize) {
    let cost = |j: usize| if gone[j] { -1.0 } else { loss(w[j], u, n, j) };
    let mut order: Vec<(f64, usize)> = group.map(|j| (cost(j), j)).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    order.iter().skip(keep).for_each(|&(_, j)| gone[j] = true);
}

#[cfg(test)]
mod tests {
    use super::super::chance::Stream;
    use super::super::factor::{inverse_factor, tests::definite};
    use super::*;

    fn factor(h: &[f64], n: usize) -> Vec<f64> {
        let mut u = h.to_vec();
        assert!(inverse_factor(&mut u, n));
        u
    }

    fn noise(n: usize, seed: u64) -> Vec<f64> {
        let s = Stream::new(seed, "w");
        (0..n).map(|i| s.at(i as u64) - 0.5).collect()
    }

    /// `½ dᵀ h d`.
    fn quadratic(h: &[f64], d: &[f64]) -> f64 {
        let n = d.len();
        0.5 * (0..n * n).map(|i| d[i / n] * h[i] * d[i % n]).sum::<f64>()
    }

    /// Solves `a · x = b` by elimination.
    fn solve(a: &[f64], b: &[f64]) -> Vec<f64> {
        let n = b.len();
        let mut m: Vec<Vec<f64>> = (0..n).map(|i| [&a[i * n..][..n], &b[i..=i]].concat()).collect();
        for i in 0..n {
            let pivot = (i..n)
                .max_by(|&p, &q| m[p][i].abs().total_cmp(&m[q][i].abs()))
                .unwrap();
            m.swap(i, pivot);
            for r in (0..n).filter(|&r| r != i) {
                let f = m[r][i] / m[i][i];
                let from = m[i].clone();
                m[r].iter_mut().zip(from).for_each(|(x, y)| *x -= f * y);
            }
        }
        (0..n).map(|i| m[i][n] / m[i][i]).collect()
    }

    /// The step `d` with `d[q] = -w[q]`, only columns from `q` on changing, that makes `½ dᵀ h d` least.
    fn best(h: &[f64], w: &[f64], q: usize) -> Vec<f64> {
        let n = w.len();
        let free: Vec<usize> = (q + 1..n).collect();
        let a: Vec<f64> = free
            .iter()
            .flat_map(|&r| free.iter().map(move |&c| h[r * n + c]))
            .collect();
        let b: Vec<f64> = free.iter().map(|&r| h[r * n + q] * w[q]).collect();
        let mut d = vec![0.0; n];
        d[q] = -w[q];
        free.iter().zip(solve(&a, &b)).for_each(|(&r, x)| d[r] = x);
        d
    }

    #[test]
    fn taking_out_one_weight_is_what_brute_force_finds() {
        let n = 6;
        let h = definite(n, 4);
        let w = noise(n, 5);
        let mut new = w.clone();
        let u = factor(&h, n);
        let mut gone = [true, false, false, false, false, false];
        row((&mut new, &mut gone), (&u, n), 0..n, Take::Count(0));
        let d = best(&h, &w, 0);
        assert!(
            new.iter()
                .zip(w.iter().zip(&d))
                .all(|(x, (w, d))| (x - (w + d)).abs() < 1e-9)
        );
        // Hassibi and Stork: the loss is ½ w² / [H⁻¹].
        assert!((quadratic(&h, &d) - 0.5 * loss(w[0], &u, n, 0)).abs() < 1e-9);
        // No other step with that weight at zero is better.
        for i in 1..n {
            for e in [1e-3, -1e-3] {
                let mut other = d.clone();
                other[i] += e;
                assert!(quadratic(&h, &other) > quadratic(&h, &d));
            }
        }
    }

    fn count(share: f64, n: usize) -> Take {
        Take::Count((share * n as f64).round() as usize)
    }

    /// The same as [`prune`] of a share, one column after the other, with brute force. Columns fit one block.
    fn slow(w: &mut [f64], h: &[f64], n: usize, share: f64) {
        let u = factor(h, n);
        let mut gone: Vec<bool> = w.iter().map(|&x| x == 0.0).collect();
        let wanted = (share * w.len() as f64).round() as usize;
        choose(w, &mut gone, (&u, n), 0..n, wanted);
        for (w, gone) in w.chunks_mut(n).zip(gone.chunks(n)) {
            for q in (0..n).filter(|&q| gone[q]) {
                let d = best(h, w, q);
                w.iter_mut().zip(d).for_each(|(w, d)| *w += d);
            }
            (0..n).filter(|&q| gone[q]).for_each(|q| w[q] = 0.0);
        }
    }

    #[test]
    fn rows_are_pruned_as_brute_force_prunes_them() {
        let (rows, n) = (5, 12);
        let h = definite(n, 7);
        for share in [0.0, 0.25, 0.5, 0.8, 1.0] {
            let (mut fast, mut reference) = (noise(rows * n, 8), noise(rows * n, 8));
            prune(&mut fast, &factor(&h, n), n, count(share, rows * n), 1);
            slow(&mut reference, &h, n, share);
            assert!(
                fast.iter().zip(&reference).all(|(a, b)| (a - b).abs() < 1e-8),
                "{share}"
            );
            let zeros = fast.iter().filter(|x| **x == 0.0).count();
            assert_eq!(zeros, (share * (rows * n) as f64).round() as usize);
        }
    }

    #[test]
    fn many_blocks_reach_the_share_on_any_number_of_threads() {
        let (rows, n) = (7, 2 * BLOCK + 13);
        let u = factor(&definite(n, 9), n);
        let mut old = noise(rows * n, 10);
        old[100..400].fill(0.0);
        for share in [0.1, 0.6, 0.9] {
            let mut all = [1, 3].map(|threads| {
                let mut w = old.clone();
                prune(&mut w, &u, n, count(share, rows * n), threads);
                w
            });
            let zeros = all[0].iter().filter(|x| **x == 0.0).count();
            assert_eq!(zeros, ((share * (rows * n) as f64).round() as usize).max(300));
            assert!(
                all[0][100..400].iter().all(|x| *x == 0.0),
                "what is zero stays zero"
            );
            let second = std::mem::take(&mut all[1]);
            assert_eq!(all[0], second);
        }
    }

    #[test]
    fn patterns_keep_as_many_of_each() {
        // Two places of a window with 6 inputs: the last two are a group of their own.
        let (rows, n) = (4, 12);
        let mut w = noise(rows * n, 11);
        let (keep, of, inputs) = (2, 4, 6);
        prune(
            &mut w,
            &factor(&definite(n, 12), n),
            n,
            Take::AllBut { keep, of, inputs },
            2,
        );
        for place in w.chunks(inputs) {
            let live = place.chunks(of).map(|g| g.iter().filter(|x| **x != 0.0).count());
            assert_eq!(live.collect::<Vec<_>>(), [2, 2]);
        }
    }

    #[test]
    fn blocks_end_with_groups() {
        // The group of columns 126 to 129 would lie in two blocks of 128.
        let (keep, of, inputs) = (2, 4, 6);
        let take = Take::AllBut { keep, of, inputs };
        let n = 132;
        let u = factor(&definite(n, 15), n);
        let (mut blocks, mut whole) = (noise(3 * n, 16), noise(3 * n, 16));
        prune(&mut blocks, &u, n, take, 1);
        for w in whole.chunks_mut(n) {
            let mut gone = vec![false; n];
            row((w, &mut gone), (&u, n), 0..n, take);
        }
        assert!(blocks.iter().zip(&whole).all(|(a, b)| (a - b).abs() < 1e-9));
        assert_eq!(end(0, n, take), 130);
        assert_eq!(end(130, n, take), n);
        assert_eq!(end(0, 2 * BLOCK, Take::Count(1)), BLOCK);
    }

    #[test]
    fn a_row_is_better_than_without_setting_right() {
        let (rows, n) = (8, 16);
        let h = definite(n, 13);
        let old = noise(rows * n, 14);
        let mut new = old.clone();
        prune(&mut new, &factor(&h, n), n, count(0.5, rows * n), 1);
        let worse = |f: &dyn Fn(usize) -> f64| -> f64 {
            let row = |r: usize| (r * n..(r + 1) * n).map(|i| f(i) - old[i]).collect::<Vec<_>>();
            (0..rows).map(|r| quadratic(&h, &row(r))).sum()
        };
        let mut sorted: Vec<f64> = old.iter().map(|x| x.abs()).collect();
        sorted.sort_by(f64::total_cmp);
        let bound = sorted[rows * n / 2];
        let small = worse(&|i| if old[i].abs() < bound { 0.0 } else { old[i] });
        assert!(worse(&|i| new[i]) < small);
    }
}
