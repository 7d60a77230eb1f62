//! `STFT`: the spectra of stretches of a signal.

use super::fft::{Complex, transform};
use super::{at_least, bins, parts};
use crate::expr::Ex;
use crate::ir::{Attr, DType, Dim, Tensor};
use crate::ops::case::floats;
use crate::ops::formula::{self, ints, transpose};
use crate::ops::matmul::matrices::check_size;
use crate::ops::pick::{given, knowing, room, sized};
use crate::ops::shape::{arity, ranked};
use crate::ops::{Case, Fact, NodeRef, Op, OpError, OpName, onnx};

/// The Fourier transforms of overlapping stretches of a signal, each multiplied by a window.
pub struct STFT;

/// The length of a stretch, as far as it is known.
fn length(n: &NodeRef) -> Result<Dim, OpError> {
    let window = ranked(n, 2, 1)?.map(|w| w[0].clone());
    Ok(match (at_least(n, 3, 1)?, window) {
        (Some(given), _) => given,
        (None, Some(window)) => window,
        (None, None) if n.has(2) => Dim::Unknown,
        (None, None) => n.shape(0).map_or(Dim::Unknown, |s| s[1].clone()),
    })
}

impl Op for STFT {
    fn name(&self) -> OpName {
        onnx("STFT")
    }

    fn since(&self) -> &'static [u16] {
        &[17]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 2, 4)?;
        let onesided = n.int_or("onesided", 1)? != 0;
        ranked(n, 0, 3)?;
        parts(n, 3)?;
        let (step, length) = (at_least(n, 1, 1)?.unwrap_or(Dim::Unknown), length(n)?);
        let dim = |a: usize| n.shape(0).map_or(Dim::Unknown, |s| s[a].clone());
        let room = dim(1) - length.clone();
        let frames = match room.known() {
            Some(r) if r < 0 => Dim::Known(0),
            _ => room.floor_div(&step) + Dim::Known(1),
        };
        let shape = vec![dim(0), frames, bins(&length, onesided), Dim::Known(2)];
        Ok(vec![Fact::tensor(n.dtype(0), Some(shape))])
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let t = given(x, 0)?;
        knowing(n, x, |n| {
            let dims = sized(self, n, 0)?;
            check_size(&dims)?;
            let wrong = || OpError::new(format!("no spectra of {}{:?}", t.dtype(), t.dims()));
            let length = length(n)?.size().ok_or_else(wrong)?;
            let step = at_least(n, 1, 1)?.and_then(|s| s.size()).ok_or_else(wrong)?;
            check_size(&[length, 32])?;
            drop(room::<[Complex; 8]>(Some(length))?);
            let &[_, size, parts] = t.dims() else {
                return Err(wrong());
            };
            let v = t.floats().ok_or_else(wrong)?;
            let window = match x.get(2).copied().flatten() {
                Some(w) => w.floats().ok_or_else(wrong)?,
                None => vec![1.0; length],
            };
            let mut y = vec![];
            for frame in 0..dims[0] * dims[1] {
                let (image, first) = (frame / dims[1], frame % dims[1] * step);
                let mut line = vec![Complex(0.0, 0.0); length];
                for (i, (c, w)) in line.iter_mut().zip(&window).enumerate() {
                    let at = (image * size + first + i) * parts;
                    *c = Complex(v[at] * w, if parts == 2 { v[at + 1] * w } else { 0.0 });
                }
                transform(&mut line, false);
                y.extend(line.iter().take(dims[2]).flat_map(|c| [c.0, c.1]));
            }
            Ok(vec![Tensor::rounded(t.dtype(), &dims, &y).ok_or_else(wrong)?])
        })
    }

    /// A convolution with waves, each times the window.
    fn spelled<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let (dtype, length) = (n.dtype(0)?, length(n).ok()?.size()?);
        let step = at_least(n, 1, 1).ok()??.known()?;
        let onesided = n.int_or("onesided", 1).ok()? != 0;
        let count = bins(&Dim::from(length), onesided).size()?;
        let (size, parts) = (n.shape(0)?[1].size()?, n.shape(0)?[2].size()?);
        if size < length {
            return None;
        }
        let wave = |i: usize| {
            let (row, part, t) = (i / length / parts, i / length % parts, i % length);
            let angle = std::f64::consts::TAU * ((row / 2 * t) % length) as f64 / length as f64;
            match (row % 2, part) {
                (0, 0) | (1, 1) => angle.cos(),
                (0, _) => angle.sin(),
                _ => -angle.sin(),
            }
        };
        let waves: Vec<_> = (0..2 * count * parts * length).map(wave).collect();
        let mut weights = x[0].tensor(Tensor::rounded(dtype, &[2 * count, parts, length], &waves)?);
        if let Some(window) = formula::given(n, x, 2) {
            weights = weights * window;
        }
        let attrs = vec![Attr::new("strides", vec![step])];
        let y = transpose(x[0], &[0, 2, 1]).with("Conv", &[weights], attrs);
        let to = ints(y, &[0, 0, count as i64, 2]);
        Some(vec![transpose(y, &[0, 2, 1]).op("Reshape", &[to])])
    }

    fn cases(&self) -> Vec<Case> {
        let step = || Tensor::scalar(3i64);
        let double = |t: Tensor| Tensor::rounded(DType::F64, t.dims(), &t.floats()?);
        let mut all = vec![
            Case::new("a window", [floats(&[2, 30, 1], 1), step(), floats(&[8], 2)]).konst(&[1]),
            Case::new(
                "a window and its length",
                [
                    floats(&[1, 31, 1], 1),
                    step(),
                    floats(&[9], 2),
                    Tensor::scalar(9i64),
                ],
            ),
            Case::new(
                "no window",
                [
                    floats(&[1, 12, 2], 1),
                    step(),
                    floats(&[1], 2),
                    Tensor::scalar(5i32),
                ],
            )
            .without(2)
            .attr("onesided", 0),
            Case::new("too short", [floats(&[1, 4, 1], 1), step(), floats(&[8], 2)]).konst(&[1]),
        ];
        let x = double(floats(&[1, 20, 1], 1)).zip(double(floats(&[4], 2)));
        all.extend(x.map(|(x, w)| Case::new("double precision", [x, step(), w])));
        all
    }
}
