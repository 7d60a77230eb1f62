//! One axis times a matrix: what windows and interpolations are to the gradient.

use super::NodeRef;
use super::formula::transpose;
use crate::expr::Ex;
use crate::ir::{DType, Tensor};

/// A matrix of weights that follow from sizes, row by row.
pub(crate) struct Matrix {
    rows: usize,
    columns: usize,
    weights: Vec<f64>,
}

impl Matrix {
    /// Zeros.
    pub(crate) fn new(rows: usize, columns: usize) -> Matrix {
        Matrix {
            rows,
            columns,
            weights: vec![0.0; rows * columns],
        }
    }

    /// Adds to the weight in `row` and `column`.
    pub(crate) fn add(&mut self, row: usize, column: usize, weight: f64) {
        self.weights[row * self.columns + column] += weight;
    }

    fn turned(self) -> Matrix {
        let mut m = Matrix::new(self.columns, self.rows);
        for (i, w) in self.weights.iter().enumerate() {
            m.add(i % self.columns, i / self.columns, *w);
        }
        m
    }

    fn tensor(self, dtype: DType) -> Option<Tensor> {
        Tensor::rounded(dtype, &[self.rows, self.columns], &self.weights)
    }
}

/// `x`, like input 0 of `n`, with axis `axis`, as long as `m` has rows, times `m`; `None` where the type is not known.
pub(crate) fn along<'a>(n: &NodeRef, x: Ex<'a>, axis: usize, m: Matrix) -> Option<Ex<'a>> {
    let (rank, dtype) = (n.rank(0)?, n.dtype(0)?);
    if axis + 2 == rank {
        return Some(x.tensor(m.turned().tensor(dtype)?).matmul(x));
    }
    let m = x.tensor(m.tensor(dtype)?);
    if axis + 1 == rank {
        return Some(x.matmul(m));
    }
    let mut perm: Vec<_> = (0..rank).collect();
    perm.swap(axis, rank - 1);
    Some(transpose(transpose(x, &perm).matmul(m), &perm))
}
