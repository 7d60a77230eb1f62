//! Signals: Fourier transforms, windows, and weights for spectra.

mod fft;
mod mel;
mod stft;
mod taper;

use fft::Complex;
pub use mel::MelWeightMatrix;
pub use stft::STFT;
pub use taper::{BLACKMAN, HAMMING, HANN};

use super::case::floats;
use super::formula::{ints, transpose};
use super::grad::at;
use super::matmul::matrices::check_size;
use super::pick::{given, knowing, room, sized};
use super::shape::{arity, show};
use super::{Axes, Case, Exs, Fact, Grads, NodeRef, Op, OpError, OpName, onnx, shape};
use crate::expr::Ex;
use crate::ir::{DType, Dim, Tensor};

/// The discrete Fourier transform along one axis. The last axis holds real or complex numbers.
pub struct DFT;

/// The integer that input `i` holds: `None` where it is left out, `Dim::Unknown` where it is not known.
fn integer(n: &NodeRef, i: usize) -> Result<Option<Dim>, OpError> {
    if !n.has(i) {
        return Ok(None);
    }
    match n.data(i).as_deref() {
        None => Ok(Some(Dim::Unknown)),
        Some([one]) => Ok(Some(one.clone())),
        Some(many) => Err(OpError::new(format!(
            "input {i} has {} elements; expected a scalar",
            many.len()
        ))),
    }
}

/// [`integer`], which may not be below `least` where it is known.
fn at_least(n: &NodeRef, i: usize, least: i64) -> Result<Option<Dim>, OpError> {
    let found = integer(n, i)?;
    match found.as_ref().and_then(Dim::known).filter(|&d| d < least) {
        Some(d) => Err(OpError::new(format!(
            "input {i} is {d}; expected {least} or more"
        ))),
        None => Ok(found),
    }
}

/// Bins of a spectrum of `length`, without those that follow from the others where it is one-sided.
fn bins(length: &Dim, onesided: bool) -> Dim {
    match onesided {
        true => length.floor_div(&Dim::Known(2)) + Dim::Known(1),
        false => length.clone(),
    }
}

/// The attributes of `DFT`.
struct Attrs {
    inverse: bool,
    onesided: bool,
}

impl Attrs {
    fn of(n: &NodeRef) -> Result<Attrs, OpError> {
        Ok(Attrs {
            inverse: n.int_or("inverse", 0)? != 0,
            onesided: n.int_or("onesided", 0)? != 0,
        })
    }

    /// Whether the result is real.
    fn real(&self) -> bool {
        self.inverse && self.onesided
    }

    /// The length of the transform of an axis of size `size`.
    fn length(&self, n: &NodeRef, size: &Dim) -> Result<Dim, OpError> {
        let length = match at_least(n, 1, 1)? {
            Some(given) => given,
            None if self.real() => (size.clone() - Dim::Known(1)) * Dim::Known(2),
            None => size.clone(),
        };
        match length.known().filter(|&l| l < 1) {
            Some(l) => Err(OpError::new(format!(
                "a transform of length {l}; expected 1 or more"
            ))),
            None => Ok(length),
        }
    }
}

/// The axis of a transform of a tensor of rank `rank`; `None` where it is not known.
fn axis(n: &NodeRef, rank: usize) -> Result<Option<usize>, OpError> {
    let axis = match n.opset() {
        ..20 => n.int_or("axis", 1)?,
        20.. => match integer(n, 2)? {
            None => -2,
            Some(Dim::Known(a)) => a,
            Some(_) => return Ok(None),
        },
    };
    match NodeRef::axis(axis, rank)? {
        a if a + 1 == rank => Err(OpError::new(format!(
            "axis {axis} holds the parts of complex numbers"
        ))),
        a => Ok(Some(a)),
    }
}

/// Checks that the last of at least two axes has one part, or two.
fn parts(n: &NodeRef, rank: usize) -> Result<(), OpError> {
    match n.shape(0) {
        Some(s) if s.len() < rank || s[s.len() - 1].known().is_some_and(|d| d != 1 && d != 2) => {
            Err(OpError::new(format!(
                "a signal of shape {}; expected at least {rank} axes, the last of size 1 or 2",
                show(s)
            )))
        }
        _ => Ok(()),
    }
}

impl Op for DFT {
    fn name(&self) -> OpName {
        onnx("DFT")
    }

    fn since(&self) -> &'static [u16] {
        &[17, 20]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, if n.opset() < 20 { 2 } else { 3 })?;
        let a = Attrs::of(n)?;
        parts(n, 2)?;
        let Some(x) = n.shape(0) else {
            n.ignore(&["axis"]);
            return Ok(vec![Fact::tensor(n.dtype(0), None)]);
        };
        let mut shape = x.clone();
        match axis(n, x.len())? {
            None => shape.fill(Dim::Unknown),
            Some(axis) => shape[axis] = bins(&a.length(n, &x[axis])?, a.onesided && !a.inverse),
        }
        if let Some(last) = shape.last_mut() {
            *last = Dim::Known(if a.real() { 1 } else { 2 });
        }
        Ok(vec![Fact::tensor(n.dtype(0), Some(shape))])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        let rank = n.rank(0).filter(|&r| r > 1)?;
        let along = axis(n, rank).ok()??;
        let kept = |i: usize| {
            if i == along || i + 1 == rank {
                vec![]
            } else {
                vec![(0, i)]
            }
        };
        Some(shape::tied(rank, kept))
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let t = given(x, 0)?;
        knowing(n, x, |n| {
            let (a, dims) = (Attrs::of(n)?, sized(self, n, 0)?);
            let wrong = || OpError::new(format!("no transform of {}{:?}", t.dtype(), t.dims()));
            let axis = axis(n, t.dims().len())?.ok_or_else(wrong)?;
            let size = t.dims()[axis];
            let length = a.length(n, &Dim::from(size))?.size().ok_or_else(wrong)?;
            check_size(&[length, 32])?;
            check_size(&dims)?;
            let v = t.floats().ok_or_else(wrong)?;
            let (parts, out) = (t.dims()[t.dims().len() - 1], dims[dims.len() - 1]);
            let inner: usize = dims[axis + 1..dims.len() - 1].iter().product();
            let outer: usize = dims[..axis].iter().product();
            let len = crate::ir::count(&dims);
            let mut y: Vec<f64> = room(len)?;
            y.resize(len.unwrap_or(0), 0.0);
            drop(room::<[Complex; 8]>(Some(length))?);
            for line in 0..outer * inner {
                let (o, i) = (line / inner, line % inner);
                let from = |k: usize| {
                    let at = ((o * size + k) * inner + i) * parts;
                    Complex(v[at], if parts == 2 { v[at + 1] } else { 0.0 })
                };
                let spectrum = line_of(&a, (0..size).map(from), length);
                for (k, c) in spectrum.iter().take(dims[axis]).enumerate() {
                    let at = ((o * dims[axis] + k) * inner + i) * out;
                    y[at..at + out].copy_from_slice(&[c.0, c.1][..out]);
                }
            }
            Ok(vec![Tensor::rounded(t.dtype(), &dims, &y).ok_or_else(wrong)?])
        })
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let mut all = vec![None; x.len()];
        *all.first_mut()? = Some(vjp(n, at(dy, 0)?)?);
        Some(all)
    }

    fn cases(&self) -> Vec<Case> {
        let length = |n: i64| Tensor::scalar(n);
        let double = |t: Tensor| Tensor::rounded(DType::F64, t.dims(), &t.floats()?);
        let mut all = vec![
            Case::new("real, a power of two", [floats(&[2, 16, 1], 1)]),
            Case::new("complex, another length", [floats(&[2, 15, 2], 1)]),
            Case::new(
                "a prime",
                [floats(&[1, 37, 3, 2], 1), length(37), Tensor::scalar(1i64)],
            )
            .konst(&[2]),
            Case::new("longer", [floats(&[1, 5, 1], 1), length(12)]).konst(&[1]),
            Case::new("shorter", [floats(&[1, 9, 2], 1), length(4)]).attr("inverse", 1),
            Case::new("one side", [floats(&[3, 7, 1], 1)]).attr("onesided", 1),
            Case::new("back from one side", [floats(&[3, 7, 2], 1)])
                .attr("onesided", 1)
                .attr("inverse", 1),
            Case::new("back to an odd length", [floats(&[3, 4, 2], 1), length(7)])
                .attr("onesided", 1)
                .attr("inverse", 1),
            Case::new("the first version", [floats(&[3, 4, 5, 1], 1)]).opset(17),
            Case::new("the first version, an axis", [floats(&[3, 4, 5, 1], 1)])
                .attr("axis", -2)
                .opset(17),
        ];
        all.extend(double(floats(&[1, 6, 1], 1)).map(|x| Case::new("double precision", [x])));
        all
    }
}

/// The most elements of a transform written as a matrix.
const MATRIX: usize = 1 << 24;

/// The gradient of a transform, a linear map: `dy` times the transpose of its matrix.
fn vjp<'a>(n: &NodeRef, dy: Ex<'a>) -> Option<Ex<'a>> {
    let (a, rank, dtype) = (Attrs::of(n).ok()?, n.rank(0)?, n.dtype(0)?);
    let axis = axis(n, rank).ok()??;
    let size = |a: usize| n.shape(0)?[a].size();
    let (size, parts, out) = (size(axis)?, size(rank - 1)?, if a.real() { 1 } else { 2 });
    let length = a.length(n, &Dim::from(size)).ok()?.size()?;
    let count = bins(&Dim::from(length), a.onesided && !a.inverse).size()?;
    if crate::ir::count(&[size, parts, count, out]).is_none_or(|all| all > MATRIX) {
        return None;
    }
    let mut columns = vec![0.0; count * out * size * parts];
    for i in 0..size * parts {
        let one = |t: usize| Complex(f64::from(t * parts == i), f64::from(parts == 2 && t * 2 + 1 == i));
        let spectrum = line_of(&a, (0..size).map(one), length);
        for (k, c) in spectrum.iter().take(count).enumerate() {
            for (p, v) in [c.0, c.1].iter().take(out).enumerate() {
                columns[(k * out + p) * size * parts + i] = *v;
            }
        }
    }
    let matrix = Tensor::rounded(dtype, &[count * out, size * parts], &columns)?;
    let mut perm: Vec<_> = (0..rank).filter(|&i| i != axis).collect();
    perm.insert(rank - 2, axis);
    let mut back = vec![0; rank];
    perm.iter().enumerate().for_each(|(to, &from)| back[from] = to);
    let same = vec![0; rank - 2];
    let rows = transpose(dy, &perm).op("Reshape", &[ints(dy, &[&same[..], &[-1]].concat())]);
    let all = rows.matmul(dy.tensor(matrix));
    let ends = [size as i64, parts as i64];
    let apart = all.op("Reshape", &[ints(dy, &[&same[..], &ends].concat())]);
    Some(transpose(apart, &back))
}

/// The transform of one line.
fn line_of(a: &Attrs, x: impl Iterator<Item = Complex>, length: usize) -> Vec<Complex> {
    let mut v: Vec<_> = x.take(length).collect();
    v.resize(length, Complex(0.0, 0.0));
    if a.real() {
        // The other side is the conjugate of this one; what is its own conjugate is real.
        for k in 0..length {
            v[k] = match (2 * k).cmp(&length) {
                _ if k == 0 => Complex(v[0].0, 0.0),
                std::cmp::Ordering::Less => v[k],
                std::cmp::Ordering::Equal => Complex(v[k].0, 0.0),
                std::cmp::Ordering::Greater => v[length - k].conjugate(),
            };
        }
    }
    fft::transform(&mut v, a.inverse);
    if a.inverse {
        let scale = 1.0 / length as f64;
        v.iter_mut().for_each(|c| *c = Complex(c.0 * scale, c.1 * scale));
    }
    v
}
