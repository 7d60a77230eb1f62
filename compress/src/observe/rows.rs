//! What weights are multiplied by, as rows: one for each product with all columns.

use super::taps::How;
use crate::math::layout::Layout;
use crate::math::window::Window;

/// A value as rows.
pub(crate) enum Rows<'a> {
    /// An axis of so many, with so many outside and inside.
    Axis {
        outer: usize,
        inner: usize,
        columns: usize,
    },
    Window {
        window: Window,
        space: &'a [usize],
        images: usize,
        channels: usize,
        inputs: usize,
    },
}

impl<'a> Rows<'a> {
    /// Those of a value of this shape, as a weight of that layout is multiplied by them.
    pub(crate) fn of(how: &How, dims: &'a [usize], layout: &Layout) -> Result<Rows<'a>, String> {
        let misfit = || {
            format!(
                "its shape {dims:?} does not fit a weight of {} columns",
                layout.columns
            )
        };
        match (how, dims) {
            (How::Window(conv), &[images, channels, ref space @ ..]) => {
                let window = conv.window(space).ok_or_else(misfit)?;
                let inputs = layout.inputs;
                let fits = channels == inputs * layout.groups
                    && window.taps.iter().product::<usize>() * inputs == layout.columns;
                let rows = Rows::Window {
                    window,
                    space,
                    images,
                    channels,
                    inputs,
                };
                fits.then_some(rows).ok_or_else(misfit)
            }
            (How::Window(_), _) => Err(misfit()),
            (How::Axis(_) | How::Shared, _) => {
                let back = if let How::Axis(back) = how { *back } else { 0 };
                Rows::along(back, dims, layout.columns).ok_or_else(misfit)
            }
        }
    }

    /// The axis that lies so many before the last, if it has `columns`.
    pub(crate) fn along(back: usize, dims: &'a [usize], columns: usize) -> Option<Rows<'a>> {
        let axis = dims.len().checked_sub(1 + back)?;
        (dims[axis] == columns).then(|| Rows::Axis {
            outer: dims[..axis].iter().product(),
            inner: dims[axis + 1..].iter().product(),
            columns,
        })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        match self {
            Rows::Axis { outer, inner, .. } => outer * inner,
            Rows::Window { window, images, .. } => images * window.places(),
        }
    }

    /// Appends the rows `which` of the value `x` to `to`; of a convolution what its group `group` sees.
    pub(crate) fn put(&self, x: &[f32], group: usize, which: std::ops::Range<usize>, to: &mut Vec<f32>) {
        match self {
            Rows::Axis {
                inner: 1, columns, ..
            } => {
                to.extend_from_slice(&x[which.start * columns..which.end * columns]);
            }
            Rows::Axis { inner, columns, .. } => {
                for row in which {
                    let start = row / inner * columns * inner + row % inner;
                    to.extend(x[start..].iter().step_by(*inner).take(*columns));
                }
            }
            Rows::Window {
                window,
                space,
                channels,
                inputs,
                ..
            } => {
                let (places, size) = (window.places(), channels * space.iter().product::<usize>());
                let mut at = which.start;
                while at < which.end {
                    let (image, first) = (at / places, at % places);
                    let end = places.min(first + which.end - at);
                    let image = &x[image * size..][..size];
                    window.rows((image, space), (group, *inputs), first..end, to);
                    at += end - first;
                }
            }
        }
    }
}
