//! `MaxRoiPool` and `RoiAlign`: pools of regions of images.

use super::case::floats;
use super::matmul::matrices::check_size;
use super::pick::{given, integers};
use super::shape::{arity, ranked};
use super::{Axes, Case, Fact, NodeRef, Op, OpError, OpName, Tie, onnx};
use crate::ir::{DType, Dim, Tensor};

/// The greatest elements of regions of whole pixels.
pub struct MaxRoiPool;

/// The mean (or greatest weighted neighbour) of points of regions, interpolated between pixels.
pub struct RoiAlign;

/// The most elements along an axis of a pooled region.
const MOST: i64 = 1 << 16;

fn sizes(list: &[i64]) -> Result<[usize; 2], OpError> {
    match *list {
        [h, w] if (1..=MOST).contains(&h) && (1..=MOST).contains(&w) => Ok([h as usize, w as usize]),
        _ => Err(OpError::new(format!(
            "regions of {list:?}; expected a height and a width from 1 to {MOST}"
        ))),
    }
}

/// The shape of the result for regions `[.., columns]` in input 1.
fn infer(n: &NodeRef, [h, w]: [usize; 2], columns: i64) -> Result<Vec<Fact>, OpError> {
    let x = ranked(n, 0, 4)?;
    let rois = ranked(n, 1, 2)?;
    if let Some(d) = n.dtype(0).filter(|d| !d.is_float()) {
        return Err(OpError::new(format!("expected floats, found {d}")));
    }
    if let Some(found) = rois.and_then(|r| r[1].known()).filter(|&c| c != columns) {
        return Err(OpError::new(format!(
            "regions of {found} numbers; expected {columns} for each"
        )));
    }
    let count = rois.map_or(Dim::Unknown, |r| r[0].clone());
    let channels = x.map_or(Dim::Unknown, |x| x[1].clone());
    let shape = vec![count, channels, Dim::from(h), Dim::from(w)];
    Ok(vec![Fact::tensor(n.dtype(0), Some(shape))])
}

fn axes(n: &NodeRef) -> Option<Axes> {
    n.rank(0).filter(|&r| r == 4)?;
    n.rank(1).filter(|&r| r == 2)?;
    let tie = |output, input| Tie {
        output: Some(output),
        inputs: vec![input],
    };
    Some(Axes(vec![tie(0, (1, 0)), tie(1, (0, 1))]))
}

/// Images as doubles: `[batch, channels, height, width]`.
struct Images {
    dims: [usize; 4],
    data: Vec<f64>,
}

impl Images {
    fn of(t: &Tensor) -> Result<Images, OpError> {
        let dims = <[usize; 4]>::try_from(t.dims());
        match (dims, t.floats()) {
            (Ok(dims), Some(data)) => Ok(Images { dims, data }),
            _ => Err(OpError::new(format!(
                "expected images of floats, found {}{:?}",
                t.dtype(),
                t.dims()
            ))),
        }
    }

    /// A channel of image `image`.
    fn plane(&self, image: i64, channel: usize) -> Result<&[f64], OpError> {
        let [images, channels, h, w] = self.dims;
        let image = usize::try_from(image).ok().filter(|&i| i < images);
        let image = image.ok_or_else(|| OpError::new(format!("a region of an image beyond {images}")))?;
        let at = (image * channels + channel) * h * w;
        Ok(&self.data[at..at + h * w])
    }
}

/// The rows of the regions.
fn regions(t: &Tensor, columns: usize) -> Result<Vec<Vec<f64>>, OpError> {
    match t.floats() {
        Some(v) if t.dims().last() == Some(&columns) => Ok(v.chunks(columns).map(<[f64]>::to_vec).collect()),
        _ => Err(OpError::new(format!(
            "regions of {}{:?}; expected {columns} floats for each",
            t.dtype(),
            t.dims()
        ))),
    }
}

impl Op for MaxRoiPool {
    fn name(&self) -> OpName {
        onnx("MaxRoiPool")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 22]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 2, 2)?;
        n.float("spatial_scale")?;
        infer(n, sizes(n.ints("pooled_shape")?.unwrap_or(&[]))?, 5)
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        axes(n)
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let [height, width] = sizes(n.ints("pooled_shape")?.unwrap_or(&[]))?;
        let scale = n.float_or("spatial_scale", 1.0)?;
        let t = given(x, 0)?;
        let (images, rois) = (Images::of(t)?, regions(given(x, 1)?, 5)?);
        let [_, channels, h, w] = images.dims;
        let dims = [rois.len(), channels, height, width];
        check_size(&dims)?;
        let mut y = vec![];
        for roi in &rois {
            // In single precision as elsewhere: a corner at half a pixel must not go to the other side.
            let corner = |i: usize| (roi[i] as f32 * scale).round();
            let (left, top) = (corner(1), corner(2));
            // At least a pixel, both ends included.
            let cell = |first: f32, last: f32, parts: usize| (last - first + 1.0).max(1.0) / parts as f32;
            let (cell_h, cell_w) = (cell(top, corner(4), height), cell(left, corner(3), width));
            let range = |start: f32, cell: f32, i: usize, size: usize| {
                let first = (i as f32 * cell).floor() + start;
                let last = ((i + 1) as f32 * cell).ceil() + start;
                first.clamp(0.0, size as f32) as usize..last.clamp(0.0, size as f32) as usize
            };
            for c in 0..channels {
                let plane = images.plane(roi[0] as i64, c)?;
                for i in 0..height * width {
                    let rows = range(top, cell_h, i / width, h);
                    let cols = range(left, cell_w, i % width, w);
                    let under = rows.flat_map(|r| cols.clone().map(move |c| plane[r * w + c]));
                    let best = under.fold(f64::NEG_INFINITY, |a, b| if b > a { b } else { a });
                    // Nothing is under a region beside the image.
                    y.push(if best == f64::NEG_INFINITY { 0.0 } else { best });
                }
            }
        }
        let wrong = || OpError::new(format!("no pool of {}", t.dtype()));
        Ok(vec![Tensor::rounded(t.dtype(), &dims, &y).ok_or_else(wrong)?])
    }

    fn cases(&self) -> Vec<Case> {
        let rois = || {
            Tensor::of(
                &[3, 5],
                vec![
                    0.0f32, 1.0, 1.0, 6.0, 5.0, 1.0, -2.0, 0.0, 3.0, 3.4, 0.0, 20.0, 20.0, 25.0, 25.0,
                ],
            )
        };
        vec![
            Case::new("regions", [floats(&[2, 3, 8, 9], 1), rois()]).attr("pooled_shape", vec![2i64, 3]),
            Case::new("scaled", [floats(&[2, 3, 8, 9], 1), rois()])
                .attr("pooled_shape", vec![3i64, 1])
                .attr("spatial_scale", 0.5f32)
                .opset(1),
        ]
    }
}

/// The attributes of `RoiAlign`.
struct Align {
    size: [usize; 2],
    /// Points along an axis of a cell; 0 where it depends on the region.
    points: usize,
    scale: f32,
    greatest: bool,
    /// Whether pixels have their centres at halves.
    half: bool,
}

impl Align {
    fn of(n: &NodeRef) -> Result<Align, OpError> {
        let size = [n.int_or("output_height", 1)?, n.int_or("output_width", 1)?];
        let points = n.int_or("sampling_ratio", 0)?;
        // What opset 16 made an attribute, and the other default.
        let default = if n.opset() < 16 {
            "output_half_pixel"
        } else {
            "half_pixel"
        };
        let mode = n.str_or("mode", "avg")?;
        let place = n.str_or("coordinate_transformation_mode", default)?;
        if !(0..=1 << 10).contains(&points) || !["avg", "max"].contains(&mode) {
            return Err(OpError::new(format!(
                "mode {mode:?} with {points} points; expected \"avg\" or \"max\" and at most 1024"
            )));
        }
        if !["half_pixel", "output_half_pixel"].contains(&place) {
            return Err(OpError::new(format!(
                "attribute \"coordinate_transformation_mode\" is {place:?}"
            )));
        }
        Ok(Align {
            size: sizes(&size)?,
            points: points as usize,
            scale: n.float_or("spatial_scale", 1.0)?,
            greatest: mode == "max",
            half: place == "half_pixel",
        })
    }

    /// Along one axis, the neighbours of every point and how much of the second there is; `None` beside the image.
    fn points(&self, first: f64, last: f64, cells: usize, size: usize) -> Vec<Vec<Option<Point>>> {
        let shift = if self.half { 0.5 } else { 0.0 };
        // In single precision as elsewhere: the number of points must not depend on the last digit.
        let start = first as f32 * self.scale - shift;
        let mut length = last as f32 * self.scale - shift - start;
        if !self.half {
            length = length.max(1.0);
        }
        let (start, cell) = (f64::from(start), f64::from(length / cells as f32));
        let points = match self.points {
            // A region much larger than the image has no more to say than one point a pixel.
            0 => (cell.ceil().max(0.0) as usize).min(2 * size + 2),
            given => given,
        };
        let at = |i: usize, p: usize| {
            let place = start + i as f64 * cell + (p as f64 + 0.5) * cell / points as f64;
            (place >= -1.0 && place <= size as f64).then(|| {
                let place = place.max(0.0);
                let low = (place as usize).min(size - 1);
                match low == size - 1 {
                    true => (low, low, 0.0),
                    false => (low, low + 1, place - low as f64),
                }
            })
        };
        (0..cells)
            .map(|i| (0..points).map(|p| at(i, p)).collect())
            .collect()
    }
}

/// Two neighbours, and how much of the second.
type Point = (usize, usize, f64);

impl Op for RoiAlign {
    fn name(&self) -> OpName {
        onnx("RoiAlign")
    }

    fn since(&self) -> &'static [u16] {
        &[10, 16, 22]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 3, 3)?;
        ranked(n, 2, 1)?;
        infer(n, Align::of(n)?.size, 4)
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        axes(n)
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (a, t) = (Align::of(n)?, given(x, 0)?);
        let (images, rois) = (Images::of(t)?, regions(given(x, 1)?, 4)?);
        let batch = integers(given(x, 2)?, 2)?;
        let [_, channels, h, w] = images.dims;
        if batch.len() != rois.len() || h == 0 || w == 0 {
            return Err(OpError::new(format!(
                "{} regions of {} images of {h} by {w} pixels",
                rois.len(),
                batch.len()
            )));
        }
        let dims = [rois.len(), channels, a.size[0], a.size[1]];
        check_size(&dims)?;
        let mut y = vec![];
        for (roi, &image) in rois.iter().zip(&batch) {
            let rows = a.points(roi[1], roi[3], a.size[0], h);
            let cols = a.points(roi[0], roi[2], a.size[1], w);
            for c in 0..channels {
                let plane = images.plane(image, c)?;
                for i in 0..a.size[0] * a.size[1] {
                    let (rows, cols) = (&rows[i / a.size[1]], &cols[i % a.size[1]]);
                    let points = rows.iter().flat_map(|r| cols.iter().map(move |c| r.zip(*c)));
                    let corners = points.map(|p| p.map_or([0.0; 4], |p| corners(plane, w, p)));
                    let count = (rows.len() * cols.len()).max(1) as f64;
                    y.push(match a.greatest {
                        false => corners.map(|c| c.iter().sum::<f64>()).sum::<f64>() / count,
                        true => corners.flatten().reduce(f64::max).unwrap_or(0.0),
                    });
                }
            }
        }
        let wrong = || OpError::new(format!("no pool of {}", t.dtype()));
        Ok(vec![Tensor::rounded(t.dtype(), &dims, &y).ok_or_else(wrong)?])
    }

    fn cases(&self) -> Vec<Case> {
        let rois = |count: usize| {
            let all = [1.0f32, 1.0, 6.3, 5.2, -2.0, 0.5, 3.0, 3.4, 4.0, 4.0, 4.2, 4.1];
            Tensor::of(&[count, 4], all[..4 * count].to_vec())
        };
        let batch = || Tensor::of(&[3], vec![0i64, 1, 1]);
        let x = || floats(&[2, 3, 8, 9], 1);
        let double = |t: Tensor| {
            let values = t.floats().unwrap_or_default();
            Tensor::rounded(DType::F64, t.dims(), &values).unwrap_or(t)
        };
        vec![
            Case::new("two points", [x(), rois(3), batch()])
                .attr("output_height", 2)
                .attr("output_width", 3)
                .attr("sampling_ratio", 2),
            Case::new("points by size", [x(), rois(3), batch()])
                .attr("output_height", 3)
                .attr("spatial_scale", 0.5f32)
                .attr("coordinate_transformation_mode", "output_half_pixel"),
            Case::new("the greatest", [x(), rois(3), batch()])
                .attr("mode", "max")
                .attr("output_width", 2)
                .opset(10),
            Case::new("no regions", [x(), rois(0), Tensor::of(&[0], Vec::<i64>::new())]),
            Case::new("double precision", [double(x()), double(rois(3)), batch()]),
        ]
    }
}

/// The four neighbours of a point, each times its weight.
fn corners(plane: &[f64], width: usize, (row, col): (Point, Point)) -> [f64; 4] {
    let at = |r: usize, c: usize| plane[r * width + c];
    let ((top, bottom, down), (left, right, across)) = (row, col);
    [
        (1.0 - down) * (1.0 - across) * at(top, left),
        (1.0 - down) * across * at(top, right),
        down * (1.0 - across) * at(bottom, left),
        down * across * at(bottom, right),
    ]
}
