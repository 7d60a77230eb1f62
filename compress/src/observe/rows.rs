//! What weights are multiplied by, as rows: one for each product with all columns.

use super::taps::How;
use crate::math::layout::Layout;
use crate::math::spread::Spread;
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
    Spread {
        spread: Spread,
        class: usize,
        space: &'a [usize],
        channels: usize,
        inputs: usize,
        images: usize,
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
            (How::Window(_) | How::Spread(_), _) => Err(misfit()),
            (How::Axis(_) | How::Shared, _) => {
                let back = if let How::Axis(back) = how { *back } else { 0 };
                Rows::along(back, dims, layout.columns).ok_or_else(misfit)
            }
        }
    }

    /// Those that see class `class` of the columns; where it is no transposed convolution, all that there are.
    pub(crate) fn class(
        how: &How,
        class: usize,
        dims: &'a [usize],
        layout: &Layout,
    ) -> Result<Rows<'a>, String> {
        let (How::Spread(transposed), &[images, channels, ref space @ ..]) = (how, dims) else {
            return Rows::of(how, dims, layout);
        };
        let (inputs, spread) = (layout.inputs, transposed.spread(space));
        let spread = spread.filter(|_| channels == inputs * layout.groups);
        let rows = spread.map(|spread| Rows::Spread {
            spread,
            class,
            space,
            channels,
            inputs,
            images,
        });
        rows.ok_or_else(|| format!("its shape {dims:?} does not fit a transposed convolution"))
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
            Rows::Spread {
                spread,
                class,
                images,
                ..
            } => images * spread.places(*class),
        }
    }

    /// Which rows of what is made those are: all, unless others see another class.
    pub(crate) fn places(&self) -> Vec<usize> {
        match self {
            Rows::Spread {
                spread,
                class,
                images,
                ..
            } => {
                let (own, all) = (spread.at(*class), spread.output.iter().product::<usize>());
                let of = |image: usize| own.iter().map(move |at| image * all + at);
                (0..*images).flat_map(of).collect()
            }
            _ => (0..self.count()).collect(),
        }
    }

    /// Appends the rows `which` of the value `x` to `to`; of a convolution what its group `group` sees.
    pub(crate) fn put(
        &self,
        x: &[f32],
        group: usize,
        which: impl IntoIterator<Item = usize>,
        to: &mut Vec<f32>,
    ) {
        let which: Vec<usize> = which.into_iter().collect();
        match self {
            Rows::Axis {
                inner: 1, columns, ..
            } => {
                let row = |row: &usize| &x[row * columns..][..*columns];
                to.extend(which.iter().flat_map(row));
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
                let size = channels * space.iter().product::<usize>();
                for (image, places) in by_image(&which, window.places()) {
                    let image = &x[image * size..][..size];
                    window.rows((image, space), (group, *inputs), places, to);
                }
            }
            Rows::Spread {
                spread,
                class,
                space,
                channels,
                inputs,
                ..
            } => {
                let size = channels * space.iter().product::<usize>();
                for (image, places) in by_image(&which, spread.places(*class)) {
                    let image = &x[image * size..][..size];
                    spread.rows((image, space), (group, *inputs), (*class, places), to);
                }
            }
        }
    }
}

/// Rows as the images that they are of and places there, of which each has so many.
fn by_image(
    which: &[usize],
    places: usize,
) -> impl Iterator<Item = (usize, impl Iterator<Item = usize> + '_)> + '_ {
    let runs = which.chunk_by(move |a, b| a / places == b / places);
    runs.filter_map(move |run| Some((run.first()? / places, run.iter().map(move |row| row % places))))
}
