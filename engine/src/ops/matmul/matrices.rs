//! How two tensors are read as batches of matrices, and the plain product.

use crate::cpu::gemm::Strides;
use crate::cpu::number::Numbers;
use crate::cpu::sparse::Matrix;
use crate::ir::{Tensor, count};
use crate::ops::OpError;

/// A batch of products of matrices in two tensors.
#[derive(Clone, Debug)]
pub(crate) struct Matrices {
    /// Rows of the product.
    pub(crate) m: usize,
    /// Columns of the product.
    pub(crate) n: usize,
    /// Columns of the left, rows of the right operand.
    pub(crate) k: usize,
    /// The left operand.
    pub(crate) a: Strides,
    /// The right operand.
    pub(crate) b: Strides,
    /// Where the operands of each product start, in elements.
    pub(crate) batch: Vec<[usize; 2]>,
    /// Dimensions of the result.
    pub(crate) dims: Vec<usize>,
    /// The axes of the result along which rows and columns go, where they have one.
    pub(crate) axes: [Option<usize>; 2],
}

/// Checks that a tensor of dimensions `dims` fits into memory.
///
/// # Errors
///
/// If not.
pub(crate) fn check_size(dims: &[usize]) -> Result<(), OpError> {
    match count(dims).is_some_and(|n| n < isize::MAX as usize / 16) {
        true => Ok(()),
        false => Err(OpError::new(format!(
            "a result of {dims:?} is larger than memory"
        ))),
    }
}

impl Matrices {
    /// The product of tensors with dimensions `a` and `b`, of which each may be transposed.
    ///
    /// # Errors
    ///
    /// If they do not go together.
    pub(crate) fn new(a: &[usize], b: &[usize], transposed: [bool; 2]) -> Result<Matrices, OpError> {
        let wrong = || OpError::new(format!("{a:?} and {b:?} do not multiply"));
        let (mut wide_a, mut wide_b) = (a.to_vec(), b.to_vec());
        if a.len() == 1 {
            wide_a.insert(0, 1);
        }
        if b.len() == 1 {
            wide_b.push(1);
        }
        let ([batch_a @ .., a0, a1], [batch_b @ .., b0, b1]) = (&wide_a[..], &wide_b[..]) else {
            return Err(wrong());
        };
        let matrix = |rows: usize, cols: usize, swap: bool| match swap {
            false => (rows, cols, Strides::rows(cols)),
            true => (cols, rows, Strides::rows(cols).transposed()),
        };
        let (m, k, sa) = matrix(*a0, *a1, transposed[0]);
        let (rows, n, sb) = matrix(*b0, *b1, transposed[1]);
        let mut dims = stretched(batch_a, batch_b)
            .filter(|_| rows == k)
            .ok_or_else(wrong)?;
        // Without elements there may be any number of products.
        let batch = match (m, n) {
            (0, _) | (_, 0) => vec![],
            _ => {
                let places = starts(batch_a, &dims).into_iter().zip(starts(batch_b, &dims));
                places.map(|(x, y)| [x * a0 * a1, y * b0 * b1]).collect()
            }
        };
        let mut axes = [None; 2];
        for (axis, size, there) in [(0, m, a.len() > 1), (1, n, b.len() > 1)] {
            if there {
                axes[axis] = Some(dims.len());
                dims.push(size);
            }
        }
        Ok(Matrices {
            m,
            n,
            k,
            a: sa,
            b: sb,
            batch,
            dims,
            axes,
        })
    }

    /// The right operand of the first product, as weights of outputs.
    pub(crate) fn weights(&self) -> Matrix {
        Matrix {
            rows: self.n,
            cols: self.k,
            row: self.b.col,
            col: self.b.row,
            taps: 1,
        }
    }
}

/// The dimensions to which `a` and `b` broadcast.
fn stretched(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |d: &[usize], i: usize| (i + d.len()).checked_sub(rank).map_or(1, |i| d[i]);
    let dims = (0..rank).map(|i| match (at(a, i), at(b, i)) {
        (x, y) if x == y || y == 1 => Some(x),
        (1, y) => Some(y),
        _ => None,
    });
    dims.collect::<Option<Vec<_>>>()
        .filter(|d| count(d).is_some_and(|n| n < 1 << 32))
}

/// For each element of a result of dimensions `out`, the position of its partner in a tensor of dimensions `from`.
pub(crate) fn starts(from: &[usize], out: &[usize]) -> Vec<usize> {
    let strides = strides(from, out);
    let place = |mut i: usize| {
        let axes = out.iter().zip(&strides).rev();
        axes.fold(0, |at, (&size, stride)| {
            let index = i % size;
            i /= size;
            at + index * stride
        })
    };
    (0..out.iter().product()).map(place).collect()
}

/// The distance between neighbours along each axis of `out` in a tensor of dimensions `from`; 0 where it is stretched.
pub(crate) fn strides(from: &[usize], out: &[usize]) -> Vec<usize> {
    let axis = |i: usize| (i + from.len()).checked_sub(out.len());
    let stride = |i: usize| match axis(i) {
        Some(a) if from[a] != 1 => from[a + 1..].iter().product(),
        _ => 0,
    };
    (0..out.len()).map(stride).collect()
}

/// The product by its definition: floats summed in `f64`, of integers the low bits.
///
/// # Errors
///
/// If the tensors have no numbers, or other sizes.
pub(crate) fn product(m: &Matrices, a: &Tensor, b: &Tensor) -> Result<Tensor, OpError> {
    let wrong = || OpError::new(format!("{} and {} do not multiply", a.dtype(), b.dtype()));
    let numbers = match (Numbers::of(a), Numbers::of(b)) {
        (Some(Numbers::Real(a)), Some(Numbers::Real(b))) => {
            Numbers::Real(sums(m, |i, j| a[i] * b[j], 0.0, |x, y| x + y))
        }
        (Some(Numbers::Int(a)), Some(Numbers::Int(b))) => {
            Numbers::Int(sums(m, |i, j| a[i].wrapping_mul(b[j]), 0, i128::wrapping_add))
        }
        _ => return Err(wrong()),
    };
    numbers.tensor(a.dtype(), &m.dims).ok_or_else(wrong)
}

fn sums<T: Copy>(
    m: &Matrices,
    times: impl Fn(usize, usize) -> T,
    zero: T,
    plus: impl Fn(T, T) -> T,
) -> Vec<T> {
    let mut out = Vec::new();
    for [a, b] in &m.batch {
        for i in 0..m.m {
            for j in 0..m.n {
                let products =
                    (0..m.k).map(|k| times(a + i * m.a.row + k * m.a.col, b + k * m.b.row + j * m.b.col));
                out.push(products.fold(zero, &plus));
            }
        }
    }
    out
}
