//! Pools: what becomes of windows, and of whole channels.

mod cases;
mod cpu;
mod grad;
mod lp;
mod unpool;

use super::grad::at;
use super::matmul::matrices::check_size;
use super::shape::show;
use super::window::Windows;
use super::{Axes, Case, Exs, Fact, Grads, NodeRef, Op, OpError, OpName, Tie, onnx};
use crate::cpu::{Candidate, window::Window};
use crate::ir::{DType, Dim, Tensor};
pub use grad::{AveragePoolGrad, MaxPoolGrad};
pub use lp::{GlobalLpPool, LpPool};
pub use unpool::MaxUnpool;
use unpool::natural;

/// The greatest element of each window, and where it is.
pub struct MaxPool;

impl Op for MaxPool {
    fn name(&self) -> OpName {
        onnx("MaxPool")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 8, 10, 11, 12, 22]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        column_major(n)?;
        let values = infer(n)?;
        let indices = Fact::tensor(Some(DType::I64), values.ty.shape().cloned());
        Ok(vec![values, indices])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        axes(n)
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (x, s) = image(n, x)?;
        let by_column = column_major(n)?;
        let data = x.floats().ok_or_else(|| no_pool(x))?;
        let (mut values, mut indices) = (vec![], vec![]);
        s.each(|channel, at| {
            let plane = channel * s.window.plane();
            let under = s.window.covered(at);
            let (best, place) = greatest(under.map(|(_, u)| (data[plane + u], u)));
            values.push(best);
            let place = if by_column {
                transposed(place, &s.window.input)
            } else {
                place
            };
            indices.push((plane + place) as i64);
        });
        let values = Tensor::rounded(x.dtype(), &s.dims, &values).ok_or_else(|| no_pool(x))?;
        Ok(vec![values, Tensor::of(&s.dims, indices)])
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        grad::greatest(n, x, at(dy, 0)?)
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        column_major(n).map_or(vec![], |by_column| {
            cpu::candidates(n, cpu::Kind::Max { by_column })
        })
    }

    fn cases(&self) -> Vec<Case> {
        cases::max()
    }
}

/// The mean of each window.
pub struct AveragePool;

impl Op for AveragePool {
    fn name(&self) -> OpName {
        onnx("AveragePool")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 7, 10, 11, 19, 22]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        n.int("count_include_pad")?;
        Ok(vec![infer(n)?])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        axes(n)
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (x, s) = image(n, x)?;
        let counts = counts(n, &s)?;
        let data = x.floats().ok_or_else(|| no_pool(x))?;
        let mut values = vec![];
        s.each(|channel, at| {
            let under = s.window.covered(at);
            let sum: f64 = under.map(|(_, u)| data[channel * s.window.plane() + u]).sum();
            values.push(sum / counts[at] as f64);
        });
        Ok(vec![
            Tensor::rounded(x.dtype(), &s.dims, &values).ok_or_else(|| no_pool(x))?,
        ])
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        grad::means(n, x, at(dy, 0)?)
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        cpu::candidates(n, cpu::Kind::Mean)
    }

    fn cases(&self) -> Vec<Case> {
        cases::mean()
    }
}

/// A pool over whole channels: the greatest element, or the mean.
pub struct Global {
    /// The operator's name.
    name: &'static str,
    mean: bool,
}

/// The mean of each channel.
pub static GLOBAL_AVERAGE: Global = Global {
    name: "GlobalAveragePool",
    mean: true,
};
/// The greatest element of each channel.
pub static GLOBAL_MAX: Global = Global {
    name: "GlobalMaxPool",
    mean: false,
};

impl Op for Global {
    fn name(&self) -> OpName {
        onnx(self.name)
    }

    fn since(&self) -> &'static [u16] {
        &[1, 22]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        let x = checked(n)?;
        let shape = x.map(|x| {
            x.iter()
                .enumerate()
                .map(|(i, d)| if i < 2 { d.clone() } else { Dim::Known(1) })
        });
        Ok(vec![Fact::tensor(n.dtype(0), shape.map(Iterator::collect))])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        let over = (2..n.rank(0)?).map(|a| Tie {
            output: None,
            inputs: vec![(0, a)],
        });
        Some(Axes(channels().into_iter().chain(over).collect()))
    }

    fn eval(&self, _n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let Some(x) = x.first().copied().flatten().filter(|x| x.dims().len() > 2) else {
            return Err(OpError::new("expected an image"));
        };
        let (dims, data) = (x.dims(), x.floats().ok_or_else(|| no_pool(x))?);
        let (channels, plane) = (dims[0] * dims[1], dims[2..].iter().product::<usize>());
        let of = |i: usize| {
            let all = &data[i * plane..(i + 1) * plane];
            match self.mean {
                true => all.iter().sum::<f64>() / plane as f64,
                false => greatest(all.iter().map(|&v| (v, 0))).0,
            }
        };
        let mut out = dims[..2].to_vec();
        out.resize(dims.len(), 1);
        let values: Vec<_> = (0..channels).map(of).collect();
        Ok(vec![
            Tensor::rounded(x.dtype(), &out, &values).ok_or_else(|| no_pool(x))?,
        ])
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        match self.mean {
            true => grad::global_means(n, at(x, 0)?, at(dy, 0)?),
            false => grad::global_greatest(n, at(x, 0)?, at(dy, 0)?),
        }
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        cpu::global(n, self.mean)
    }

    fn cases(&self) -> Vec<Case> {
        cases::global()
    }
}

fn no_pool(x: &Tensor) -> OpError {
    OpError::new(format!("no pool of {}", x.dtype()))
}

/// The greatest of numbers, NaN passed over, the first among equals; `-inf` and 0 of none.
fn greatest(all: impl Iterator<Item = (f64, usize)>) -> (f64, usize) {
    all.fold(
        (f64::NEG_INFINITY, 0),
        |best, x| if x.0 > best.0 { x } else { best },
    )
}

/// Whether indices count columns first.
fn column_major(n: &NodeRef) -> Result<bool, OpError> {
    Ok(n.int_or("storage_order", 0)? == 1)
}

/// The place `i`, row-major in `dims`, counted with the first axis innermost.
fn transposed(mut i: usize, dims: &[usize]) -> usize {
    let strides = dims.iter().scan(1, |ahead, d| {
        let here = *ahead;
        *ahead *= d;
        Some(here)
    });
    let strides: Vec<_> = strides.collect();
    dims.iter().zip(&strides).rev().fold(0, |at, (&size, stride)| {
        let index = i % size;
        i /= size;
        at + index * stride
    })
}

/// The shape of the input, which must have at least one spatial axis.
fn checked<'a>(n: &NodeRef<'a>) -> Result<Option<&'a [Dim]>, OpError> {
    match n.shape(0) {
        _ if !n.has(0) => Err(OpError::new("input 0 is left out")),
        Some(x) if x.len() < 3 => Err(OpError::new(format!(
            "input 0 has shape {}; expected images: at least 3 axes",
            show(x)
        ))),
        x => Ok(x.map(|x| &x[..])),
    }
}

fn windows(n: &NodeRef, axes: usize) -> Result<Windows, OpError> {
    let size = n.ints("kernel_shape")?;
    let size = size.ok_or_else(|| OpError::new("attribute \"kernel_shape\" is missing"))?;
    Windows::of(n, axes, size.to_vec())
}

fn infer(n: &NodeRef) -> Result<Fact, OpError> {
    let axes = n.ints("kernel_shape")?.map_or(0, <[i64]>::len);
    let windows = windows(n, n.rank(0).map_or(axes, |r| r.saturating_sub(2)))?;
    let Some(x) = checked(n)? else {
        return Ok(Fact::tensor(n.dtype(0), Some(vec![Dim::Unknown; axes + 2])));
    };
    let mut shape = x[..2].to_vec();
    shape.extend(windows.outputs(&x[2..])?);
    Ok(Fact::tensor(n.dtype(0), Some(shape)))
}

fn channels() -> Vec<Tie> {
    (0..2)
        .map(|a| Tie {
            output: Some(a),
            inputs: vec![(0, a)],
        })
        .collect()
}

fn axes(n: &NodeRef) -> Option<Axes> {
    let positions = (2..n.rank(0)?).map(|a| Tie {
        output: Some(a),
        inputs: vec![],
    });
    Some(Axes(channels().into_iter().chain(positions).collect()))
}

/// The sizes of a pool.
struct Sizes {
    windows: Windows,
    window: Window,
    channels: usize,
    dims: Vec<usize>,
}

impl Sizes {
    fn new(n: &NodeRef, x: &[usize]) -> Result<Sizes, OpError> {
        let windows = windows(n, x.len().saturating_sub(2))?;
        let window = windows.over(&x[2..])?;
        let dims: Vec<_> = x[..2].iter().chain(&window.output).copied().collect();
        check_size(&dims)?;
        Ok(Sizes {
            windows,
            window,
            channels: x[0] * x[1],
            dims,
        })
    }

    fn each(&self, mut f: impl FnMut(usize, usize)) {
        (0..self.channels).for_each(|c| (0..self.window.positions()).for_each(|at| f(c, at)));
    }
}

fn image<'a>(n: &NodeRef, x: &[Option<&'a Tensor>]) -> Result<(&'a Tensor, Sizes), OpError> {
    let image = x.first().copied().flatten().filter(|x| x.dims().len() > 2);
    let image = image.ok_or_else(|| OpError::new("expected an image"))?;
    Ok((image, Sizes::new(n, image.dims())?))
}

/// How many elements of the window at `at` count along `axis`, those of the border if the node says so.
fn count_along(n: &NodeRef, s: &Sizes, axis: usize, at: usize) -> Result<usize, OpError> {
    let w = &s.window;
    Ok(match n.int_or("count_include_pad", 0)? != 0 {
        // What `ceil_mode` adds behind the border counts nowhere.
        true => {
            let left = s.windows.padded(axis, w).saturating_sub(at * w.strides[axis]);
            left.div_ceil(w.dilations[axis]).min(w.size[axis])
        }
        false => w.meeting(axis, at).len(),
    })
}

/// By how much the sum at each position is divided: the elements that count.
fn counts(n: &NodeRef, s: &Sizes) -> Result<Vec<usize>, OpError> {
    let w = &s.window;
    if s.channels == 0 {
        // A plane of any size may have no channel.
        return Ok(vec![]);
    }
    let along = |a: usize| {
        let each = (0..w.output[a]).map(|at| count_along(n, s, a, at));
        each.collect::<Result<Vec<_>, _>>()
    };
    let along: Vec<_> = (0..w.size.len()).map(along).collect::<Result<_, _>>()?;
    let count = |mut at: usize| {
        (0..w.size.len()).rev().fold(1, |all, axis| {
            let here = along[axis][at % w.output[axis]];
            at /= w.output[axis];
            all * here
        })
    };
    Ok((0..w.positions()).map(count).collect())
}
