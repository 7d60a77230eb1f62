//! Cholesky factors of symmetric matrices, row-major `[n, n]`.

/// The lower triangular `l` with `l · lᵀ = a`, in the place of `a`, whose upper half is not read; zeros above. `false` where `a`
/// is not positive definite.
pub fn cholesky(a: &mut [f64], n: usize) -> bool {
    for i in 0..n {
        let (above, row) = a.split_at_mut(i * n);
        for j in 0..i {
            let other = &above[j * n..][..=j];
            row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
        }
        let rest = row[i] - dot(&row[..i], &row[..i]);
        if rest.is_nan() || rest <= 0.0 {
            return false;
        }
        row[i] = rest.sqrt();
        row[i + 1..n].fill(0.0);
    }
    true
}

/// The `x` with `l · lᵀ · x = b`, in the place of `b`, where `l` is lower triangular, without zeros on its diagonal.
pub fn solve(l: &[f64], b: &mut [f64]) {
    let n = b.len();
    for (i, row) in l.chunks_exact(n).enumerate() {
        b[i] = (b[i] - dot(&row[..i], &b[..i])) / row[i];
    }
    for (i, row) in l.chunks_exact(n).enumerate().rev() {
        let x = b[i] / row[i];
        b[i] = x;
        b.iter_mut().zip(&row[..i]).for_each(|(b, l)| *b -= x * l);
    }
}

/// The upper triangular `u` with `uᵀ · u = a⁻¹`, in the place of `a`. Of the matrix that is left of `a` without its first `j`
/// rows and columns, `u[j][j]²` is the first element of the inverse, and row `j` its first row, over `u[j][j]`. `false`
/// where `a` is not positive definite.
pub fn inverse_factor(a: &mut [f64], n: usize) -> bool {
    // With rows and columns turned round, a = r · rᵀ where r is upper triangular, and so is u = r⁻¹.
    a.reverse();
    let found = cholesky(a, n);
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
        for n in [1, 2, 7, 20] {
            let a = definite(n, 1);
            let mut l = a.clone();
            assert!(cholesky(&mut l, n));
            assert!((0..n * n).all(|i| i % n <= i / n || l[i] == 0.0));
            assert!(near(&product(&l, &turned(&l, n), n), &a));
        }
    }

    #[test]
    fn a_system_is_solved_by_its_factor() {
        for n in [1, 2, 9, 30] {
            let (a, x) = (definite(n, 3), (0..n).map(|i| i as f64 - 4.5));
            let x: Vec<f64> = x.collect();
            let mut b: Vec<f64> = (0..n)
                .map(|r| (0..n).map(|c| a[r * n + c] * x[c]).sum())
                .collect();
            let mut l = a;
            assert!(cholesky(&mut l, n));
            solve(&l, &mut b);
            assert!(near(&b, &x), "{n}: {b:?}");
        }
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
        assert!(!cholesky(&mut [1.0, 2.0, 2.0, 1.0], 2));
        assert!(!cholesky(&mut [0.0], 1));
        assert!(!inverse_factor(&mut [f64::NAN], 1));
    }
}
