//! Masks: which query attends to which key.

use secateur_engine::Tensor;

use crate::Random;

/// A pattern of pairs of a query and a key, `[queries, keys]`. It is built once; a graph that uses it in many layers and
/// heads has it as one initialiser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    queries: usize,
    keys: usize,
    /// Row by row, whether the pair is computed.
    pairs: Vec<bool>,
}

impl Mask {
    /// The pairs `(i, j)` of `queries × keys` for which `allows` holds.
    pub fn new(queries: usize, keys: usize, allows: impl Fn(usize, usize) -> bool) -> Mask {
        let row = |i| (0..keys).map(move |j| (i, j));
        Mask {
            queries,
            keys,
            pairs: (0..queries).flat_map(row).map(|(i, j)| allows(i, j)).collect(),
        }
    }

    /// Every pair.
    pub fn full(n: usize) -> Mask {
        Mask::new(n, n, |_, _| true)
    }

    /// Keys up to the query's own position.
    pub fn causal(n: usize) -> Mask {
        Mask::new(n, n, |i, j| j <= i)
    }

    /// Keys at most `radius` positions away: local attention with a window of `2 radius + 1`.
    pub fn band(n: usize, radius: usize) -> Mask {
        Mask::new(n, n, |i, j| i.abs_diff(j) <= radius)
    }

    /// Which of the `2 radius + 1` positions around each of `n` tokens exist: `[n, 2 radius + 1]`, for attention whose keys
    /// have been gathered into windows.
    pub fn inside(n: usize, radius: usize) -> Mask {
        Mask::new(n, 2 * radius + 1, |i, o| i + o >= radius && i + o - radius < n)
    }

    /// Every `step`-th of the keys at most `radius · step` positions away (Beltagy, Peters and Cohan 2020).
    ///
    /// # Panics
    ///
    /// If `step` is 0.
    pub fn dilated(n: usize, radius: usize, step: usize) -> Mask {
        Mask::new(n, n, |i, j| {
            i.abs_diff(j) % step == 0 && i.abs_diff(j) / step <= radius
        })
    }

    /// Keys a multiple of `step` positions away (Child et al. 2019).
    ///
    /// # Panics
    ///
    /// If `step` is 0.
    pub fn strided(n: usize, step: usize) -> Mask {
        Mask::new(n, n, |i, j| i.abs_diff(j) % step == 0)
    }

    /// Keys of the same block of `size` consecutive positions.
    ///
    /// # Panics
    ///
    /// If `size` is 0.
    pub fn block(n: usize, size: usize) -> Mask {
        Mask::new(n, n, |i, j| i / size == j / size)
    }

    /// Pairs with one of the tokens `global` as query or as key.
    pub fn global(n: usize, global: &[usize]) -> Mask {
        let is = |i: &usize| global.contains(i);
        Mask::new(n, n, |i, j| is(&i) || is(&j))
    }

    /// `per_block` random blocks of keys for each block of `size` queries, the same for the same `seed` (Zaheer et al. 2020).
    /// Fewer where there are fewer blocks.
    ///
    /// # Panics
    ///
    /// If `size` is 0.
    pub fn random(n: usize, size: usize, per_block: usize, seed: u64) -> Mask {
        let blocks = n.div_ceil(size);
        let mut r = Random::new(seed);
        let drawn: Vec<Vec<usize>> = (0..blocks).map(|_| draw(&mut r, blocks, per_block)).collect();
        Mask::new(n, n, |i, j| drawn[i / size].contains(&(j / size)))
    }

    /// Keys in the same cluster, where token `i` is in cluster `of[i]`.
    pub fn cluster(of: &[usize]) -> Mask {
        Mask::new(of.len(), of.len(), |i, j| of[i] == of[j])
    }

    /// Keys in the same row or the same column of an image of `height × width` tokens, row by row.
    pub fn axial(height: usize, width: usize) -> Mask {
        Mask::rows(height, width).or(&Mask::columns(height, width))
    }

    /// Keys in the same row of an image of `height × width` tokens.
    pub fn rows(height: usize, width: usize) -> Mask {
        Mask::block(height * width, width.max(1))
    }

    /// Keys in the same column of an image of `height × width` tokens.
    pub fn columns(height: usize, width: usize) -> Mask {
        Mask::strided(height * width, width.max(1))
    }

    /// Keys at most `radius` rows and columns away in an image of `height × width` tokens (Parmar et al. 2018).
    pub fn window(height: usize, width: usize, radius: usize) -> Mask {
        let at = |i: usize| (i / width.max(1), i % width.max(1));
        Mask::new(height * width, height * width, |i, j| {
            let ((a, b), (c, d)) = (at(i), at(j));
            a.abs_diff(c) <= radius && b.abs_diff(d) <= radius
        })
    }

    /// The pairs of either mask.
    ///
    /// # Panics
    ///
    /// If they are of different sizes.
    pub fn or(&self, other: &Mask) -> Mask {
        self.both(other, |a, b| a | b)
    }

    /// The pairs of both masks.
    ///
    /// # Panics
    ///
    /// If they are of different sizes.
    pub fn and(&self, other: &Mask) -> Mask {
        self.both(other, |a, b| a & b)
    }

    fn both(&self, other: &Mask, join: impl Fn(bool, bool) -> bool) -> Mask {
        assert_eq!(
            (self.queries, self.keys),
            (other.queries, other.keys),
            "sizes of masks"
        );
        Mask::new(self.queries, self.keys, |i, j| {
            join(self.allows(i, j), other.allows(i, j))
        })
    }

    /// Whether query `i` attends to key `j`.
    ///
    /// # Panics
    ///
    /// If there is no such pair.
    pub fn allows(&self, i: usize, j: usize) -> bool {
        assert!(i < self.queries && j < self.keys, "pair ({i}, {j})");
        self.pairs[i * self.keys + j]
    }

    /// The number of queries and keys.
    pub fn size(&self) -> (usize, usize) {
        (self.queries, self.keys)
    }

    /// The number of pairs.
    pub fn pairs(&self) -> usize {
        self.pairs.iter().filter(|&&p| p).count()
    }

    /// The first query without a key, of which attention has no meaning.
    pub fn idle(&self) -> Option<usize> {
        (0..self.queries).find(|&i| (0..self.keys).all(|j| !self.allows(i, j)))
    }

    /// `[queries, keys]`, true where the pair is computed.
    pub fn tensor(&self) -> Tensor {
        Tensor::bools(&[self.queries, self.keys], self.pairs.iter().copied())
    }
}

/// `count` different numbers below `n`, or all of them.
fn draw(r: &mut Random, n: usize, count: usize) -> Vec<usize> {
    let mut all: Vec<usize> = (0..n).collect();
    for i in 0..count.min(n) {
        let other = i + r.below(n - i);
        all.swap(i, other);
    }
    all.truncate(count);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pattern_counts_its_pairs() {
        let count = |m: Mask| m.pairs();
        assert_eq!(count(Mask::full(5)), 25);
        assert_eq!(count(Mask::causal(5)), 15);
        assert_eq!(count(Mask::band(16, 1)), 46);
        assert_eq!(count(Mask::inside(16, 1)), 46);
        assert_eq!(count(Mask::dilated(6, 1, 2)), 14);
        assert_eq!(count(Mask::strided(6, 3)), 12);
        assert_eq!(count(Mask::block(8, 4)), 32);
        assert_eq!(count(Mask::block(7, 4)), 25);
        assert_eq!(count(Mask::global(5, &[0])), 9);
        assert_eq!(count(Mask::cluster(&[0, 1, 0, 0])), 10);
        assert_eq!(count(Mask::axial(3, 4)), 12 * (3 + 4 - 1));
        assert_eq!(count(Mask::window(3, 3, 1)), 49);
        assert_eq!(count(Mask::random(12, 3, 2, 1)), 4 * 2 * 9);
        assert_eq!(count(Mask::random(4, 2, 9, 1)), 16);
    }

    #[test]
    fn a_row_without_a_key_is_found() {
        assert_eq!(Mask::band(4, 0).idle(), None);
        assert_eq!(Mask::new(3, 2, |i, _| i != 1).idle(), Some(1));
    }

    #[test]
    fn masks_combine() {
        let m = Mask::band(4, 1).and(&Mask::causal(4)).or(&Mask::global(4, &[0]));
        let rows: Vec<_> = (0..4)
            .map(|i| (0..4).filter(|&j| m.allows(i, j)).collect::<Vec<_>>())
            .collect();
        assert_eq!(rows, [vec![0, 1, 2, 3], vec![0, 1], vec![0, 1, 2], vec![0, 2, 3]]);
        assert_eq!(
            m.tensor().truths().map(|t| t.iter().filter(|&&t| t).count()),
            Some(m.pairs())
        );
    }

    #[test]
    fn random_blocks_are_the_same_for_the_same_seed() {
        assert_eq!(Mask::random(32, 4, 2, 5), Mask::random(32, 4, 2, 5));
        assert_ne!(Mask::random(32, 4, 2, 5), Mask::random(32, 4, 2, 6));
    }
}
