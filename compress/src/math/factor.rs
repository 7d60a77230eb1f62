//! Cholesky factors of symmetric matrices, row-major `[n, n]`.

use std::ops::Range;

use super::strips::{each, take};

/// Rows and columns of a block.
const BLOCK: usize = 32;

/// The lower triangular `l` with `l · lᵀ = a`, in the place of `a`, whose upper half is not read; zeros above. `false` where `a`
/// is not positive definite. The same bits on any number of threads.
pub fn cholesky(a: &mut [f64], n: usize, threads: usize) -> bool {
    for from in (0..n).step_by(BLOCK) {
        let to = n.min(from + BLOCK);
        let rest = &mut a[from * n..];
        let before = part(rest, n, to - from, 0..from);
        let (own, below) = rest.split_at_mut((to - from) * n);
        take(own, n, 0..from, (&before, from), from);
        if !corner(own, n, from) {
            return false;
        }
        let corner = part(own, n, to - from, from..to);
        each(below, BLOCK * n, threads, |_, rows| {
            take(rows, n, 0..from, (&before, from), from);
            for row in rows.chunks_exact_mut(n) {
                forward(&corner, to - from, &mut row[from..to]);
            }
        });
    }
    for (i, row) in a.chunks_exact_mut(n.max(1)).enumerate() {
        row[i + 1..].fill(0.0);
    }
    true
}

/// The columns `which` of the first `count` rows of `n`.
fn part(rows: &[f64], n: usize, count: usize, which: Range<usize>) -> Vec<f64> {
    let rows = rows.chunks_exact(n).take(count);
    rows.flat_map(|row| &row[which.clone()]).copied().collect()
}

/// The factor of the block of `rows` of `n` that begins at column `at`.
fn corner(rows: &mut [f64], n: usize, at: usize) -> bool {
    for i in 0..rows.len() / n {
        let (above, row) = rows.split_at_mut(i * n);
        let row = &mut row[at..n];
        for j in 0..i {
            let other = &above[j * n + at..][..=j];
            row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
        }
        let rest = row[i] - dot(&row[..i], &row[..i]);
        if rest.is_nan() || rest <= 0.0 {
            return false;
        }
        row[i] = rest.sqrt();
    }
    true
}

/// The `x` with `l · x = b`, in the place of `b`, by rows of `l` of `width`.
fn forward(l: &[f64], width: usize, b: &mut [f64]) {
    for i in 0..b.len() {
        let row = &l[i * width..][..=i];
        b[i] = (b[i] - dot(&row[..i], &b[..i])) / row[i];
    }
}

/// The `x` with `u · x = b`, in the place of `b`, by rows of `u` of `width`.
fn backward(u: &[f64], width: usize, b: &mut [f64]) {
    for i in (0..b.len()).rev() {
        let row = &u[i * width..][..b.len()];
        b[i] = (b[i] - dot(&row[i + 1..], &b[i + 1..])) / row[i];
    }
}

/// Writes what is below the diagonal above it as well: `l` and its transpose in one.
pub fn mirror(l: &mut [f64], n: usize) {
    for (rows, columns) in blocks(n).flat_map(|r| blocks(r.end).map(move |c| (r.clone(), c))) {
        for i in rows {
            for j in columns.start..columns.end.min(i) {
                l[j * n + i] = l[i * n + j];
            }
        }
    }
}

/// The places up to `n`, block by block.
fn blocks(n: usize) -> impl DoubleEndedIterator<Item = Range<usize>> {
    (0..n.div_ceil(BLOCK)).map(move |i| i * BLOCK..n.min((i + 1) * BLOCK))
}

/// For each row `b` of `rows` the `x` with `l · lᵀ · x = b`, in its place, where `both` is a lower triangular `l`, without zeros on its
/// diagonal, [mirrored](mirror). The same bits on any number of threads.
pub fn solve(both: &[f64], n: usize, rows: &mut [f64], threads: usize) {
    each(rows, BLOCK * n, threads, |_, rows| {
        for Range { start, end } in blocks(n) {
            let l = &both[start * n..end * n];
            take(rows, n, 0..start, (l, n), start);
            let own = rows.chunks_exact_mut(n).map(|row| &mut row[start..end]);
            own.for_each(|x| forward(&l[start..], n, x));
        }
        for Range { start, end } in blocks(n).rev() {
            let u = &both[start * n..end * n];
            take(rows, n, end..n, (u, n), start);
            let own = rows.chunks_exact_mut(n).map(|row| &mut row[start..end]);
            own.for_each(|x| backward(&u[start..], n, x));
        }
    });
}

/// For each of `rows` of `n` the sum of `x · a · xᵀ`, where `a` is symmetric; of all together. The same bits on any number of threads.
pub fn forms(a: &[f64], n: usize, rows: &[f64], threads: usize) -> f64 {
    // Each row with room for its product behind it.
    let mut wide: Vec<f64> = Vec::with_capacity(2 * rows.len());
    for row in rows.chunks_exact(n.max(1)) {
        wide.extend_from_slice(row);
        wide.resize(wide.len() + n, 0.0);
    }
    each(&mut wide, BLOCK * 2 * n, threads, |_, rows| {
        take(rows, 2 * n, 0..n, (a, n), n)
    });
    let one = |row: &[f64]| -dot(&row[..n], &row[n..]);
    wide.chunks_exact(2 * n.max(1)).map(one).sum()
}

/// The upper triangular `u` with `uᵀ · u = a⁻¹`, in the place of `a`. Of the matrix that is left of `a` without its first `j`
/// rows and columns, `u[j][j]²` is the first element of the inverse, and row `j` its first row, over `u[j][j]`. `false`
/// where `a` is not positive definite.
pub fn inverse_factor(a: &mut [f64], n: usize) -> bool {
    // With rows and columns turned round, a = r · rᵀ where r is upper triangular, and so is u = r⁻¹.
    a.reverse();
    let found = cholesky(a, n, 1);
    a.reverse();
    if found {
        invert_upper(a, n);
    }
    found
}

/// The inverse of an upper triangular matrix, in its place.
fn invert_upper(r: &mut [f64], n: usize) {
    for i in (0..n).rev() {
        let (head, below) = r.split_at_mut((i + 1) * n);
        let row = &mut head[i * n..];
        let old = row[i + 1..].to_vec();
        let own = 1.0 / row[i];
        row[i] = own;
        row[i + 1..].fill(0.0);
        for (k, &x) in old.iter().enumerate().filter(|(_, x)| **x != 0.0) {
            let from = &below[k * n + i + 1 + k..(k + 1) * n];
            let to = &mut row[i + 1 + k..];
            to.iter_mut().zip(from).for_each(|(y, u)| *y -= own * x * u);
        }
    }
}

/// The sum of products, in eight parts side by side.
pub(crate) fn dot(x: &[f64], y: &[f64]) -> f64 {
    let (x8, x) = x.as_chunks::<8>();
    let (y8, y) = y.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (x, y) in x8.iter().zip(y8) {
        (0..8).for_each(|i| sums[i] += x[i] * y[i]);
    }
    let rest: f64 = x.iter().zip(y).map(|(x, y)| x * y).sum();
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::chance::Stream;
    use super::*;

    /// A positive definite matrix.
    pub(crate) fn definite(n: usize, seed: u64) -> Vec<f64> {
        let s = Stream::new(seed, "matrix");
        let x = |r: usize, c: usize| s.at((r * n + c) as u64) - 0.5;
        let cell = |i: usize| {
            let (r, c) = (i / n, i % n);
            let sum: f64 = (0..2 * n).map(|k| x(k, r) * x(k, c)).sum();
            sum + if r == c { 0.1 } else { 0.0 }
        };
        (0..n * n).map(cell).collect()
    }

    fn product(a: &[f64], b: &[f64], n: usize) -> Vec<f64> {
        let cell = |i: usize| (0..n).map(|k| a[i / n * n + k] * b[k * n + i % n]).sum();
        (0..n * n).map(cell).collect()
    }

    fn turned(a: &[f64], n: usize) -> Vec<f64> {
        (0..n * n).map(|i| a[i % n * n + i / n]).collect()
    }

    fn near(a: &[f64], b: &[f64]) -> bool {
        a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-8)
    }

    #[test]
    fn factors_multiply_to_the_matrix() {
        for n in [1, 2, 7, 20, 75] {
            let a = definite(n, 1);
            let mut l = a.clone();
            assert!(cholesky(&mut l, n, 2));
            assert!((0..n * n).all(|i| i % n <= i / n || l[i] == 0.0));
            assert!(near(&product(&l, &turned(&l, n), n), &a));
        }
    }

    #[test]
    fn systems_are_solved_by_their_factor() {
        for (n, count) in [(1, 1), (2, 3), (9, 5), (70, 37)] {
            let (a, x) = (definite(n, 3), (0..n * count).map(|i| (i % 11) as f64 - 4.5));
            let x: Vec<f64> = x.collect();
            let cell = |i: usize| (0..n).map(|c| a[i % n * n + c] * x[i / n * n + c]).sum();
            let mut b: Vec<f64> = (0..n * count).map(cell).collect();
            let mut l = a;
            assert!(cholesky(&mut l, n, 1));
            mirror(&mut l, n);
            solve(&l, n, &mut b, 2);
            assert!(near(&b, &x), "{n}: {b:?}");
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let (n, b) = (150, (0..150 * 40).map(|i| f64::from(i % 13)).collect::<Vec<_>>());
        let solved = |threads| {
            let (mut l, mut x) = (definite(n, 5), b.clone());
            assert!(cholesky(&mut l, n, threads));
            mirror(&mut l, n);
            solve(&l, n, &mut x, threads);
            (forms(&l, n, &x, threads), l, x)
        };
        assert!(solved(1) == solved(3));
    }

    #[test]
    fn forms_are_sums_of_products() {
        let (n, a) = (40, definite(40, 7));
        let x: Vec<f64> = (0..n * 3).map(|i| (i % 7) as f64 - 3.0).collect();
        let cell = |r: usize, i: usize| x[r * n + i / n] * a[i] * x[r * n + i % n];
        let sum: f64 = (0..3)
            .flat_map(|r| (0..n * n).map(move |i| (r, i)))
            .map(|(r, i)| cell(r, i))
            .sum();
        assert!((forms(&a, n, &x, 1) / sum - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_factor_of_the_inverse_is_that() {
        for n in [1, 3, 9, 21] {
            let a = definite(n, 2);
            let mut u = a.clone();
            assert!(inverse_factor(&mut u, n));
            assert!((0..n * n).all(|i| i % n >= i / n || u[i] == 0.0));
            let inverse = product(&turned(&u, n), &u, n);
            let one: Vec<f64> = (0..n * n).map(|i| f64::from(u8::from(i / n == i % n))).collect();
            assert!(near(&product(&inverse, &a, n), &one), "{n}");
        }
    }

    #[test]
    fn what_is_not_positive_definite_is_refused() {
        assert!(!cholesky(&mut [1.0, 2.0, 2.0, 1.0], 2, 1));
        assert!(!cholesky(&mut [0.0], 1, 1));
        assert!(!inverse_factor(&mut [f64::NAN], 1));
    }
}
