//! Clusters of vectors, by which attention is cut in pieces. The graphs in [`Heads`](super::Heads) compute the same.

/// The bucket of each of the vectors `x: [n, d]` under the directions `r: [d, m]`: the number, in `0..2m`, of the one among
/// the projections on the directions and on their opposites that is largest (Kitaev, Kaiser and Levskaya 2020). Vectors
/// that are alike probably get the same bucket, and equal ones surely.
///
/// # Panics
///
/// If the sizes do not fit.
pub fn lsh(x: &[f32], r: &[f32], d: usize) -> Vec<usize> {
    let m = r.len() / d;
    assert!(
        x.len().is_multiple_of(d) && r.len() == d * m,
        "sizes of vectors and directions"
    );
    let projection = |x: &[f32], j: usize| (0..d).map(|k| x[k] * r[k * m + j]).sum::<f32>();
    let bucket = |x: &[f32]| {
        let along: Vec<f32> = (0..m).map(|j| projection(x, j)).collect();
        let both: Vec<f32> = along.iter().copied().chain(along.iter().map(|p| -p)).collect();
        first_largest(&both)
    };
    x.chunks_exact(d).map(bucket).collect()
}

/// The nearest of the centroids `c: [k, d]` to each of the vectors `x: [n, d]`; the first where several are.
///
/// # Panics
///
/// If the sizes do not fit, or there is no centroid.
pub fn nearest(x: &[f32], c: &[f32], d: usize) -> Vec<usize> {
    assert!(
        x.len().is_multiple_of(d) && c.len().is_multiple_of(d) && !c.is_empty(),
        "sizes of vectors and centroids"
    );
    let near = |x: &[f32], c: &[f32]| -> f32 { -x.iter().zip(c).map(|(a, b)| (a - b).powi(2)).sum::<f32>() };
    x.chunks_exact(d)
        .map(|x| first_largest(&c.chunks_exact(d).map(|c| near(x, c)).collect::<Vec<_>>()))
        .collect()
}

/// One step of k-means: each centroid moves to the mean of the vectors that are nearest to it; one without any stays.
///
/// # Panics
///
/// As [`nearest`].
pub fn update(x: &[f32], c: &[f32], d: usize) -> Vec<f32> {
    let of = nearest(x, c, d);
    let mut new = c.to_vec();
    for (j, centroid) in new.chunks_exact_mut(d).enumerate() {
        let members = || {
            x.chunks_exact(d)
                .zip(&of)
                .filter(|&(_, &o)| o == j)
                .map(|(x, _)| x)
        };
        let count = members().count();
        if count > 0 {
            centroid.fill(0.0);
            members().for_each(|x| {
                centroid
                    .iter_mut()
                    .zip(x)
                    .for_each(|(c, x)| *c += x / count as f32)
            });
        }
    }
    new
}

fn first_largest(x: &[f32]) -> usize {
    let mut best = 0;
    for (i, &v) in x.iter().enumerate() {
        if v > x[best] {
            best = i;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_projection_is_the_bucket() {
        let x = [1.0, 0.2, -3.0, 0.1, 0.0, -0.5];
        assert_eq!(lsh(&x, &[1.0, 0.0, 0.0, 1.0], 2), [0, 2, 3]);
    }

    #[test]
    fn a_centroid_moves_to_the_mean_and_an_empty_one_stays() {
        let x = [0.0, 0.0, 2.0, 0.0, 9.0, 9.0];
        let c = [1.0, 1.0, 8.0, 8.0, -50.0, 0.0];
        assert_eq!(nearest(&x, &c, 2), [0, 0, 1]);
        assert_eq!(update(&x, &c, 2), [1.0, 0.0, 9.0, 9.0, -50.0, 0.0]);
    }
}
