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
}

impl Matrix {
    /// A matrix whose rows follow each other in memory.
    pub fn rows(rows: usize, cols: usize) -> Matrix {
        Matrix {
            rows,
            cols,
            row: cols,
            col: 1,
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
}

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
        };
        if w.len() < len || sampled(w) < SOME {
            return full;
        }
        let mut all = Zeros {
            len,
            ..Zeros::default()
        };
        // Four rows at a time, the nearer index inside.
        let mut live = vec![0u8; m.cols];
        for first in (0..m.rows).step_by(4) {
            live.fill(0);
            let rows = first..m.rows.min(first + 4);
            match m.col {
                1 => rows.for_each(|r| {
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
        }
        all
    }

    /// The share of elements that are zero.
    pub fn share(&self) -> f64 {
        1.0 - self.live as f64 / self.len.max(1) as f64
    }
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
