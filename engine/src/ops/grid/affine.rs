//! `AffineGrid`: the points of an affine map.

use crate::expr::Ex;
use crate::ir::{Dim, Tensor};
use crate::ops::case::floats;
use crate::ops::formula::{ints, transpose};
use crate::ops::grad::sizes;
use crate::ops::matmul::matrices::check_size;
use crate::ops::pick::{given, indices, integers};
use crate::ops::shape::{arity, ranked, show, spelt};
use crate::ops::{Case, Exs, Fact, Grads, NodeRef, Op, OpError, OpName, onnx};

/// For each pixel of an image of the given size, evenly from -1 to 1, the point to which an affine map takes it.
pub struct AffineGrid;

impl Op for AffineGrid {
    fn name(&self) -> OpName {
        onnx("AffineGrid")
    }

    fn since(&self) -> &'static [u16] {
        &[20]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 2, 2)?;
        n.int("align_corners")?;
        let theta = ranked(n, 0, 3)?;
        let sizes = spelt(n, 1)?;
        let axes = match (&sizes, theta.and_then(|t| t[1].size())) {
            (Some(s), _) => s.len().checked_sub(2),
            (None, axes) => axes,
        };
        let Some(axes) = axes.filter(|a| [2, 3].contains(a)) else {
            return match (sizes, axes) {
                (None, None) => Ok(vec![Fact::tensor(n.dtype(0), None)]),
                (sizes, _) => Err(OpError::new(format!(
                    "a grid of sizes {}; expected batch, channels and two or three more",
                    show(&sizes.unwrap_or_default())
                ))),
            };
        };
        let wrong = |t: &[Dim]| {
            let found = [t[1].size(), t[2].size()];
            found[0].is_some_and(|d| d != axes) || found[1].is_some_and(|d| d != axes + 1)
        };
        if let Some(t) = theta.filter(|t| wrong(t)) {
            return Err(OpError::new(format!(
                "maps of shape {}; expected [batch, {axes}, {}]",
                show(t),
                axes + 1
            )));
        }
        let sizes = sizes.unwrap_or_else(|| vec![Dim::Unknown; axes + 2]);
        if sizes.iter().any(|d| d.known().is_some_and(|d| d < 0)) {
            return Err(OpError::new(format!(
                "sizes {}; expected 0 or more",
                show(&sizes)
            )));
        }
        let mut shape = vec![theta.map_or_else(|| sizes[0].clone(), |t| t[0].clone())];
        shape.extend(sizes[2..].iter().cloned());
        shape.push(Dim::from(axes));
        Ok(vec![Fact::tensor(n.dtype(0), Some(shape))])
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (theta, sizes) = (given(x, 0)?, integers(given(x, 1)?, 1)?);
        let aligned = n.int_or("align_corners", 0)? != 0;
        let sizes: Option<Vec<usize>> = sizes.iter().map(|&s| usize::try_from(s).ok()).collect();
        let wrong = || OpError::new(format!("maps of {}{:?}", theta.dtype(), theta.dims()));
        let sizes = sizes.filter(|s| s.len() > 2).ok_or_else(wrong)?;
        let axes = sizes.len() - 2;
        let &[batch, rows, columns] = theta.dims() else {
            return Err(wrong());
        };
        if rows != axes || columns != axes + 1 {
            return Err(wrong());
        }
        let mut dims = vec![batch];
        dims.extend(&sizes[2..]);
        dims.push(axes);
        check_size(&dims)?;
        let maps = theta.floats().ok_or_else(wrong)?;
        let place = |i: usize, size: usize| match aligned {
            true if size == 1 => 0.0,
            true => 2.0 * i as f64 / (size - 1) as f64 - 1.0,
            false => (2.0 * i as f64 + 1.0) / size as f64 - 1.0,
        };
        let mut y = vec![];
        indices(&dims, |at| {
            let row = &maps[(at[0] * axes + at[axes + 1]) * (axes + 1)..][..axes + 1];
            // The first number of a point is that of the last axis.
            let linear = (0..axes).map(|k| row[k] * place(at[axes - k], dims[axes - k]));
            y.push(linear.sum::<f64>() + row[axes]);
            Ok(())
        })?;
        Ok(vec![Tensor::rounded(theta.dtype(), &dims, &y).ok_or_else(wrong)?])
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let (theta, dy, own) = (x[0]?, dy[0]?, n.dtype(0)?);
        let axes = n.shape(0)?[1].size()?;
        // The points of the map that changes nothing, with a 1 behind each.
        let same: Vec<f64> = (0..axes * (axes + 1))
            .map(|i| f64::from(u8::from(i % (axes + 1) == i / (axes + 1))))
            .collect();
        let same = theta.tensor(Tensor::rounded(own, &[1, axes, axes + 1], &same)?);
        let same = same.op("Expand", &[sizes(n, 0, theta)]);
        let points = same.with("AffineGrid", &[x[1]?], n.node().attrs.clone());
        let listed = |x: Ex<'a>| x.op("Reshape", &[ints(x, &[0, -1, axes as i64])]);
        let one = theta.constant(1.0);
        let points = listed(points).op("Pad", &[ints(theta, &[0, 0, 0, 0, 0, 1]), one]);
        let dtheta = transpose(listed(dy), &[0, 2, 1]).matmul(points);
        Some(vec![Some(dtheta), None])
    }

    fn cases(&self) -> Vec<Case> {
        let sizes = |s: &[i64]| Tensor::of(&[s.len()], s.to_vec());
        vec![
            Case::new("two axes", [floats(&[2, 2, 3], 1), sizes(&[2, 3, 5, 6])]).konst(&[1]),
            Case::new("three axes", [floats(&[1, 3, 4], 1), sizes(&[1, 3, 4, 5, 6])])
                .attr("align_corners", 1)
                .konst(&[1]),
            Case::new(
                "a size that is not known",
                [floats(&[1, 2, 3], 1), sizes(&[1, 1, 1, 2])],
            )
            .attr("align_corners", 1),
            Case::new("nothing", [floats(&[1, 2, 3], 1), sizes(&[1, 1, 0, 2])]),
        ]
    }
}
