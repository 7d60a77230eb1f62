//! How many zeros a weight has, and how they lie.

/// A weight as a matrix: a row for each output, whose elements are `col` floats apart, `row` floats from row to row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Matrix {
    /// Outputs.
    pub rows: usize,
    /// Products that are summed for each.
    pub cols: usize,
    /// Floats from output to output.
    pub row: usize,
    /// Floats from product to product.
    pub col: usize,
    /// Products from an input channel to the next: elements of a window.
    pub taps: usize,
}

impl Matrix {
    /// A matrix whose rows follow each other in memory.
    pub fn rows(rows: usize, cols: usize) -> Matrix {
        Matrix {
            rows,
            cols,
            row: cols,
            col: 1,
            taps: 1,
        }
    }
}

/// What is known of the zeros of a [`Matrix`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Zeros {
    /// Elements.
    pub len: usize,
    /// Elements that are not zero.
    pub live: usize,
    /// Columns of four rows, aligned to four, that are not all zero.
    pub quads: usize,
    /// Elements in rows, or in columns, that are all zero.
    pub dead: [usize; 2],
    /// Whether all groups of neighbouring channels in rows are 1:4, 2:4, 4:8, or four of which none or all are zero.
    pub groups: [bool; 4],
}

/// Most elements that are not zero in so many neighbours; 0 stands for none or all.
const GROUPS: [(usize, usize, &str); 4] = [(1, 4, "1:4"), (2, 4, "2:4"), (4, 8, "4:8"), (0, 4, "block1x4")];

/// About as many elements are looked at for groups, in whole rows.
const GROUPED: usize = 1 << 21;

/// Stretches of a weight that are looked at first, and their length.
const SAMPLE: (usize, usize) = (16, 1024);

/// The share of zeros in a sample from which on all are counted.
const SOME: f64 = 0.08;

impl Zeros {
    /// Counts those of `w`; of weights that have hardly any in a sample, nothing is counted: they pass for full.
    pub fn count(w: &[f32], m: Matrix) -> Zeros {
        let len = m.rows * m.cols;
        let full = Zeros {
            len,
            live: len,
            quads: m.rows.div_ceil(4) * m.cols,
            ..Zeros::default()
        };
        if w.len() < len || sampled(w) < SOME {
            return full;
        }
        let mut all = Zeros {
            len,
            groups: [true; 4],
            ..Zeros::default()
        };
        let mut used = vec![false; m.cols];
        // Four rows at a time, the nearer index inside.
        let mut live = vec![0u8; m.cols];
        for first in (0..m.rows).step_by(4) {
            live.fill(0);
            let rows = first..m.rows.min(first + 4);
            match m.col {
                1 => rows.clone().for_each(|r| {
                    let row = &w[r * m.row..][..m.cols];
                    live.iter_mut()
                        .zip(row)
                        .for_each(|(n, &x)| *n += u8::from(x != 0.0));
                }),
                _ => live.iter_mut().enumerate().for_each(|(c, n)| {
                    *n = rows
                        .clone()
                        .map(|r| u8::from(w[c * m.col + r * m.row] != 0.0))
                        .sum();
                }),
            }
            all.live += live.iter().map(|&n| usize::from(n)).sum::<usize>();
            all.quads += live.iter().filter(|&&n| n > 0).count();
            used.iter_mut().zip(&live).for_each(|(used, &n)| *used |= n > 0);
            for r in rows {
                let there = |c: usize| w[r * m.row + c * m.col] != 0.0;
                let kept = all.groups.iter_mut().zip(GROUPS);
                let looked = r % (len / GROUPED + 1) == 0;
                kept.filter(|(kept, _)| looked && **kept)
                    .for_each(|(kept, (most, of, _))| *kept = grouped(m, most, of, &there));
                all.dead[0] += if (0..m.cols).any(there) { 0 } else { m.cols };
            }
        }
        all.dead[1] = m.rows * used.iter().filter(|&&used| !used).count();
        all
    }

    /// How the zeros lie, in the words of pruning: `2:4`, `block4x1`, `row` …; empty where there are none.
    pub fn pattern(&self) -> &'static str {
        let zeros = self.len - self.live;
        let most = |n: usize| 10 * n >= 9 * zeros;
        let group = self.groups.iter().zip(GROUPS).find(|(kept, _)| **kept);
        match group {
            _ if zeros == 0 => "",
            _ if most(self.dead[0]) => "row",
            _ if most(self.dead[1]) => "column",
            _ if 10 * self.live >= 36 * self.quads => "block4x1",
            Some((_, (.., name))) => name,
            None => "unstructured",
        }
    }

    /// The share of elements that are not zero.
    pub fn density(&self) -> f64 {
        self.live as f64 / self.len.max(1) as f64
    }

    /// The share of elements that are zero.
    pub fn share(&self) -> f64 {
        1.0 - self.density()
    }
}

/// Whether a row has at most so many elements that are not zero in each group of `of` channels, at the same element of the
/// window; or none or all.
fn grouped(m: Matrix, most: usize, of: usize, there: &dyn Fn(usize) -> bool) -> bool {
    let channels = m.cols / m.taps.max(1);
    let at = |first: usize, tap: usize| {
        let group = first..channels.min(first + of);
        let count = group.clone().filter(|c| there(c * m.taps + tap)).count();
        count <= most || (most == 0 && count == group.len())
    };
    (0..m.taps).all(|tap| (0..channels).step_by(of).all(|first| at(first, tap)))
}

/// The share of zeros in a sample.
fn sampled(w: &[f32]) -> f64 {
    let (count, len) = SAMPLE;
    let step = (w.len() / count).max(1);
    let parts = (0..count).map(|i| &w[(i * step).min(w.len())..w.len().min(i * step + len)]);
    let (mut zeros, mut all) = (0, 0);
    for part in parts {
        zeros += part.iter().filter(|&&x| x == 0.0).count();
        all += part.len();
    }
    zeros as f64 / f64::max(all as f64, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A matrix of 8 rows and 16 columns, with ones where `there` says so.
    fn zeros(taps: usize, there: impl Fn(usize, usize) -> bool) -> Zeros {
        let w: Vec<f32> = (0..8 * 16)
            .map(|i| f32::from(u8::from(there(i / 16, i % 16))))
            .collect();
        let m = Matrix {
            taps,
            ..Matrix::rows(8, 16)
        };
        let rows = Zeros::count(&w, m);
        let turned: Vec<f32> = (0..8 * 16).map(|i| w[i % 8 * 16 + i / 8]).collect();
        let columns = Zeros::count(&turned, Matrix { row: 1, col: 8, ..m });
        assert_eq!(rows, columns, "however it lies in memory");
        assert_eq!(rows.live, w.iter().filter(|&&w| w != 0.0).count());
        rows
    }

    #[test]
    fn patterns_are_called_as_pruning_calls_them() {
        let pattern = |taps, there: &dyn Fn(usize, usize) -> bool| zeros(taps, there).pattern();
        assert_eq!(pattern(1, &|_, _| true), "");
        assert_eq!(
            pattern(1, &|r, c| (r * r * 5 + c * c * 3 + r * c) % 7 < 3),
            "unstructured"
        );
        assert_eq!(pattern(1, &|r, c| c % 4 == (r % 4)), "1:4");
        assert_eq!(pattern(1, &|r, c| (c + r) % 4 < 2 && r != 1), "2:4");
        assert_eq!(pattern(1, &|r, c| [0, 1, 2, 5].contains(&((c + r) % 8))), "4:8");
        assert_eq!(pattern(1, &|r, c| (r / 4 * 3 + c) % 5 < 2), "block4x1");
        assert_eq!(pattern(1, &|r, c| (r * 3 + c / 4) % 5 < 2), "block1x4");
        assert_eq!(pattern(1, &|r, _| r % 3 == 0), "row");
        assert_eq!(pattern(1, &|_, c| c % 3 == 0), "column");
        // Of four elements of the window, each for itself: neighbours are channels.
        assert_eq!(pattern(4, &|r, c| c / 4 == (r + c) % 4), "1:4");
    }

    #[test]
    fn weights_with_hardly_any_zeros_pass_for_full() {
        let mut w = vec![1f32; 100 * 100];
        w[0] = 0.0;
        let m = Matrix::rows(100, 100);
        assert_eq!(Zeros::count(&w, m).share(), 0.0);
        w.iter_mut().step_by(2).for_each(|w| *w = 0.0);
        assert_eq!(Zeros::count(&w, m).share(), 0.5);
        assert_eq!(Zeros::count(&[], Matrix::rows(0, 0)).share(), 1.0);
    }
}
