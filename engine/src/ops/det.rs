//! `Det` and `Inverse`: determinants and inverses of square matrices.

use super::case::floats;
use super::formula::{apply, ints};
use super::grad::turned;
use super::pick::given;
use super::shape::{arity, like_first, show};
use super::{Axes, Case, Exs, Fact, Grads, NodeRef, Op, OpError, OpName, microsoft, onnx, shape};
use crate::expr::Ex;
use crate::ir::{DType, Tensor};

/// The determinant of the last two axes.
pub struct Det;

/// The inverse of the last two axes.
pub struct Inverse;

/// Checks that the input has square matrices of floats.
fn square(n: &NodeRef) -> Result<(), OpError> {
    arity(n, 1, 1)?;
    if let Some(d) = n.dtype(0).filter(|d| !d.is_float()) {
        return Err(OpError::new(format!("expected floats, found {d}")));
    }
    match n.shape(0) {
        Some(s)
            if s.len() < 2 || {
                let last = [s[s.len() - 2].known(), s[s.len() - 1].known()];
                last[0].is_some() && last[1].is_some() && last[0] != last[1]
            } =>
        {
            Err(OpError::new(format!(
                "expected square matrices, found {}",
                show(s)
            )))
        }
        _ => Ok(()),
    }
}

/// The matrices' size, and their elements.
fn matrices(t: &Tensor) -> Result<(usize, Vec<f64>), OpError> {
    let size = match *t.dims() {
        [.., a, b] if a == b => Some(a),
        _ => None,
    };
    let wrong = || OpError::new(format!("no square matrices in {}{:?}", t.dtype(), t.dims()));
    Ok((size.ok_or_else(wrong)?, t.floats().ok_or_else(wrong)?))
}

/// Brings `a`, rows of `width` of which the first `size` are the matrix, to the identity by steps that do the same to
/// what is behind it. Returns the determinant; where that is 0, stops.
fn eliminate(a: &mut [f64], size: usize, width: usize) -> f64 {
    let mut det = 1.0;
    for i in 0..size {
        let greatest = |&x: &usize, &y: &usize| a[x * width + i].abs().total_cmp(&a[y * width + i].abs());
        let pivot = (i..size).max_by(greatest).unwrap_or(i);
        if pivot != i {
            (0..width).for_each(|j| a.swap(i * width + j, pivot * width + j));
            det = -det;
        }
        let p = a[i * width + i];
        det *= p;
        if p == 0.0 {
            return 0.0;
        }
        (0..width).for_each(|j| a[i * width + j] /= p);
        for row in (0..size).filter(|&r| r != i) {
            let factor = a[row * width + i];
            (0..width).for_each(|j| a[row * width + j] -= factor * a[i * width + j]);
        }
    }
    det
}

impl Op for Det {
    fn name(&self) -> OpName {
        onnx("Det")
    }

    fn since(&self) -> &'static [u16] {
        &[11, 22]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        square(n)?;
        let shape = n.shape(0).map(|s| s[..s.len() - 2].to_vec());
        Ok(vec![Fact::tensor(n.dtype(0), shape)])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        Some(shape::tied(n.rank(0)?.checked_sub(2)?, |i| vec![(0, i)]))
    }

    fn eval(&self, _: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let t = given(x, 0)?;
        let (size, mut v) = matrices(t)?;
        let dims = &t.dims()[..t.dims().len() - 2];
        let y: Vec<f64> = match size {
            // Of no elements, the empty product.
            0 => vec![1.0; dims.iter().product()],
            _ => v
                .chunks_mut(size * size)
                .map(|m| eliminate(m, size, size))
                .collect(),
        };
        let wrong = || OpError::new(format!("no determinant of {}", t.dtype()));
        Ok(vec![Tensor::rounded(t.dtype(), dims, &y).ok_or_else(wrong)?])
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, y: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let (x0, rank) = (x[0]?, n.rank(0)?);
        let wide = |x: Ex<'a>| x.op("Unsqueeze", &[ints(x, &[-2, -1])]);
        let inverse = turned(apply(x0, "com.microsoft.Inverse", &[], vec![], 1)[0], rank);
        Some(vec![Some(wide(dy[0]? * y[0]?) * inverse)])
    }

    fn cases(&self) -> Vec<Case> {
        cases("singular")
    }
}

impl Op for Inverse {
    fn name(&self) -> OpName {
        microsoft("Inverse")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        square(n)?;
        like_first(n)
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        Some(shape::tied(n.rank(0)?.checked_sub(2)?, |i| vec![(0, i)]))
    }

    fn eval(&self, _: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let t = given(x, 0)?;
        let (size, v) = matrices(t)?;
        let mut y = vec![];
        for m in v.chunks((size * size).max(1)) {
            let mut both = vec![0.0; 2 * size * size];
            for (i, row) in m.chunks(size).enumerate() {
                both[2 * i * size..(2 * i + 1) * size].copy_from_slice(row);
                both[(2 * i + 1) * size + i] = 1.0;
            }
            if eliminate(&mut both, size, 2 * size) == 0.0 {
                // As a division by its determinant has it.
                both.fill(f64::INFINITY);
            }
            y.extend(both.chunks(2 * size).flat_map(|row| row[size..].iter().copied()));
        }
        let wrong = || OpError::new(format!("no inverse of {}", t.dtype()));
        Ok(vec![Tensor::rounded(t.dtype(), t.dims(), &y).ok_or_else(wrong)?])
    }

    fn vjp<'a>(&self, n: &NodeRef, _: Exs<'_, 'a>, y: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let y = turned(y[0]?, n.rank(0)?);
        Some(vec![Some(-y.matmul(dy[0]?).matmul(y))])
    }

    fn cases(&self) -> Vec<Case> {
        cases("no inverse").into_iter().map(|c| c.opset(1)).collect()
    }
}

fn cases(singular: &'static str) -> Vec<Case> {
    let double = |t: Tensor| Tensor::rounded(DType::F64, t.dims(), &t.floats()?);
    let mut all = vec![
        Case::new("one matrix", [floats(&[5, 5], 1)]),
        Case::new("a batch", [floats(&[2, 3, 4, 4], 1)]),
        Case::new(singular, [Tensor::of(&[2, 2], vec![1.0f32, 2.0, 2.0, 4.0])]),
        Case::new("one element", [floats(&[2, 1, 1], 1)]),
        Case::new("no matrices", [floats(&[0, 3, 3], 1)]),
    ];
    all.extend(double(floats(&[3, 3], 2)).map(|x| Case::new("double precision", [x])));
    all
}
