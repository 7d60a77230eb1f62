//! `GridSample` and `AffineGrid`: images looked up where a grid points.

mod affine;
mod cpu;
mod place;

use super::between::{self, Axis, between};
use super::case::floats;
use super::formula::{concat, ints};
use super::grad::cast;
use super::matmul::matrices::check_size;
use super::pick::given;
use super::shape::{arity, show};
use super::{Axes, Case, Fact, NodeRef, Op, OpError, OpName, Tie, onnx};
use crate::cpu::Candidate;
use crate::expr::Ex;
use crate::ir::{Attr, DType, Dim, Shape, Tensor};
pub use affine::AffineGrid;
use place::Sampler;

/// For each point of the grid the element of the image there, interpolated.
pub struct GridSample;

/// The shapes of image and grid, where both are known; each other's ranks are checked.
fn shapes<'a>(n: &NodeRef<'a>) -> Result<[Option<&'a Shape>; 2], OpError> {
    let (x, grid) = (n.shape(0), n.shape(1));
    let rank = x.or(grid).map(Vec::len);
    let wrong = |s: &Shape| s.len() < 3 || Some(s.len()) != rank;
    if let Some(s) = [x, grid].into_iter().flatten().find(|s| wrong(s)) {
        return Err(OpError::new(format!(
            "an image or grid of shape {}; expected {} axes, and at least 3",
            show(s),
            rank.unwrap_or(3)
        )));
    }
    if let Some((last, rank)) = grid.and_then(|g| g.last()?.known()).zip(rank)
        && usize::try_from(last) != Ok(rank - 2)
    {
        return Err(OpError::new(format!(
            "points of {last} numbers; expected {}",
            rank - 2
        )));
    }
    if let (Some(x), Some(g)) = (x, grid)
        && let (Some(a), Some(b)) = (x[0].known(), g[0].known())
        && a != b
    {
        return Err(OpError::new(format!("{a} images and {b} grids")));
    }
    Ok([x, grid])
}

/// The samples by simpler operators; `None` where the sizes of images are not known.
fn spelled<'a>(n: &NodeRef, x: &[Ex<'a>]) -> Option<Ex<'a>> {
    let (&[x, grid], dtype, rank) = (x, n.dtype(0)?, n.rank(0)?) else {
        return None;
    };
    let sizes: Vec<_> = n.shape(0)?[2..].iter().map(Dim::size).collect::<Option<_>>()?;
    let s = Sampler::of(n, &sizes).ok()?;
    let mode = match s.mode {
        place::Mode::Nearest => between::Mode::Nearest,
        place::Mode::Linear => between::Mode::Linear,
        place::Mode::Cubic => between::Mode::Cubic,
    };
    let grid = if n.dtype(1)? == dtype {
        grid
    } else {
        cast(grid, dtype)
    };
    let axis = |(a, &size): (usize, &usize)| {
        // The first number of a point is that of the last axis.
        let at = (sizes.len() - 1 - a) as i64;
        let bounds = [ints(x, &[at]), ints(x, &[at + 1]), ints(x, &[-1])];
        let own = grid.op("Slice", &bounds).op("Reshape", &[ints(x, &[0, -1])]);
        Axis {
            size,
            place: s.scaled(own, size),
            beside: s.beside(size),
        }
    };
    let axes: Vec<_> = sizes.iter().enumerate().map(axis).collect();
    let flat = x.op("Reshape", &[ints(x, &[0, 0, -1])]);
    let y = between(flat, dtype, &axes, mode)?;
    let shape = |e: Ex<'a>, start: i64, end: i64| {
        e.with(
            "Shape",
            &[],
            vec![Attr::new("start", start), Attr::new("end", end)],
        )
    };
    let to = concat(shape(x, 0, 2), &[shape(grid, 1, rank as i64 - 1)], 0);
    Some(y.op("Reshape", &[to]))
}

impl Op for GridSample {
    fn name(&self) -> OpName {
        onnx("GridSample")
    }

    fn since(&self) -> &'static [u16] {
        &[16, 20, 22]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 2, 2)?;
        Sampler::of(n, &[])?;
        if let Some(d) = n.dtype(1).filter(|d| !d.is_float()) {
            return Err(OpError::new(format!("a grid of {d}; expected floats")));
        }
        let [x, grid] = shapes(n)?;
        let Some(rank) = x.or(grid).map(Vec::len) else {
            return Ok(vec![Fact::tensor(n.dtype(0), None)]);
        };
        let of_x = |a: usize| x.map_or(Dim::Unknown, |x| x[a].clone());
        let of_grid = |a: usize| grid.map_or(Dim::Unknown, |g| g[a].clone());
        let batch = if x.is_some_and(|x| x[0].known().is_some()) {
            of_x(0)
        } else {
            of_grid(0)
        };
        let mut shape = vec![batch, of_x(1)];
        shape.extend((1..rank - 1).map(of_grid));
        Ok(vec![Fact::tensor(n.dtype(0), Some(shape))])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        let rank = n.rank(0).filter(|&r| r > 2 && n.rank(1) == Some(r))?;
        let tie = |output: usize, inputs: &[(usize, usize)]| Tie {
            output: Some(output),
            inputs: inputs.to_vec(),
        };
        let mut all = vec![tie(0, &[(0, 0), (1, 0)]), tie(1, &[(0, 1)])];
        all.extend((2..rank).map(|a| tie(a, &[(1, a - 1)])));
        Some(Axes(all))
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (t, grid) = (given(x, 0)?, given(x, 1)?);
        let (dims, points) = (t.dims(), grid.dims());
        let rank = dims.len();
        let fits = rank > 2 && points.len() == rank && points[0] == dims[0] && points[rank - 1] == rank - 2;
        if !fits {
            return Err(OpError::new(format!("an image {dims:?} and a grid {points:?}")));
        }
        let s = Sampler::of(n, &dims[2..])?;
        let mut out = dims[..2].to_vec();
        out.extend(&points[1..rank - 1]);
        check_size(&out)?;
        let wrong = || OpError::new(format!("no samples of {} at {}", t.dtype(), grid.dtype()));
        let (data, grid) = (t.floats().ok_or_else(wrong)?, grid.floats().ok_or_else(wrong)?);
        let (plane, each) = (
            dims[2..].iter().product::<usize>(),
            points[1..].iter().product::<usize>(),
        );
        let mut y = vec![];
        for image in 0..dims[0] {
            let points: Vec<_> = grid[image * each..(image + 1) * each]
                .chunks(rank - 2)
                .map(|p| s.taps(p))
                .collect();
            for c in 0..dims[1] {
                let plane = &data[(image * dims[1] + c) * plane..][..plane];
                y.extend(points.iter().map(|taps| -> f64 {
                    let parts = taps.iter().map(|&(at, weight)| plane[at] * weight);
                    parts.sum()
                }));
            }
        }
        Ok(vec![Tensor::rounded(t.dtype(), &out, &y).ok_or_else(wrong)?])
    }

    fn spelled<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        Some(vec![spelled(n, x)?])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        cpu::candidates(n).into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        let mut all = vec![];
        for mode in ["bilinear", "nearest", "bicubic"] {
            for padding in ["zeros", "border", "reflection"] {
                for aligned in [0, 1] {
                    let inputs = [floats(&[2, 3, 7, 9], 1), floats(&[2, 6, 31, 2], 2)];
                    let case = Case::new("two axes", inputs).opset(16);
                    all.push(
                        case.attr("mode", mode)
                            .attr("padding_mode", padding)
                            .attr("align_corners", aligned),
                    );
                }
            }
        }
        for mode in ["linear", "nearest", "cubic"] {
            let inputs = [floats(&[1, 2, 4, 5, 3], 1), floats(&[1, 2, 3, 20, 3], 2)];
            all.push(Case::new("three axes", inputs).attr("mode", mode));
        }
        let inputs = [floats(&[1, 2, 9], 1), floats(&[1, 20, 1], 2)];
        all.push(Case::new("one axis", inputs).attr("padding_mode", "reflection"));
        let inputs = [floats(&[1, 1, 1, 1], 1), floats(&[1, 3, 3, 2], 2)];
        let one = Case::new("one pixel", inputs).attr("padding_mode", "reflection");
        all.push(one.attr("align_corners", 1));
        all.push(Case::new(
            "nothing",
            [floats(&[0, 1, 2, 2], 1), floats(&[0, 3, 3, 2], 2)],
        ));
        let mut all: Vec<_> = all.into_iter().map(|c| c.within(2e-5, 2e-5)).collect();
        let double = |t: Tensor| Tensor::rounded(DType::F64, t.dims(), &t.floats()?);
        let inputs = [double(floats(&[1, 1, 3, 3], 1)), double(floats(&[1, 3, 3, 2], 2))];
        let inputs: Option<Vec<_>> = inputs.into_iter().collect();
        all.extend(inputs.map(|x| Case::new("double precision", x)));
        let bytes = Tensor::of(&[1, 1, 2, 3], vec![10u8, 20, 30, 40, 50, 60]);
        all.push(Case::new("bytes", [bytes, floats(&[1, 3, 3, 2], 2)]).attr("padding_mode", "border"));
        all
    }
}
