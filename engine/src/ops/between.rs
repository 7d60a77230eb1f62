//! Elements between pixels by simpler operators, for the gradients of what looks them up.

use super::formula::{concat, ints};
use super::grad::cast;
use crate::expr::Ex;
use crate::ir::{Attr, DType};

/// How elements between pixels are found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mode {
    /// The nearest.
    Nearest,
    /// The two beside, along each axis.
    Linear,
    /// Four, along each axis, by Keys' convolution with `a = -0.75`.
    Cubic,
}

/// What is beside the image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Beside {
    /// Zeros.
    Zeros,
    /// The outermost pixels.
    Border,
    /// The image, mirrored at these bounds of each axis.
    Mirror(f64, f64),
}

/// An axis of an image: its size, and where points lie on it, in pixels: `[images, points]`.
pub(crate) struct Axis<'a> {
    pub(crate) size: usize,
    pub(crate) place: Ex<'a>,
    pub(crate) beside: Beside,
}

/// A pixel along one axis: its index, how much it weighs, and whether it is in the image.
type Pixel<'a> = (Ex<'a>, Option<Ex<'a>>, Option<Ex<'a>>);

/// The elements of `x`, `[images, channels, pixels]` of type `dtype`, at points: `[images, channels, points]`.
pub(crate) fn between<'a>(x: Ex<'a>, dtype: DType, axes: &[Axis<'a>], mode: Mode) -> Option<Ex<'a>> {
    let mut all: Vec<Pixel<'a>> = vec![];
    for axis in axes {
        let own = axis.pixels(dtype, mode);
        all = match all.is_empty() {
            true => own,
            false => {
                let pairs = all.iter().flat_map(|a| own.iter().map(move |b| (*a, *b)));
                pairs.map(|(a, b)| both(a, b, axis.size)).collect()
            }
        };
    }
    let parts = all.into_iter().map(|(at, weight, inside)| {
        let at = cast(at, DType::I64).op("Unsqueeze", &[ints(x, &[1])]);
        let sizes = |e: Ex<'a>, start: i64, end: i64| {
            e.with(
                "Shape",
                &[],
                vec![Attr::new("start", start), Attr::new("end", end)],
            )
        };
        let to = concat(sizes(x, 0, 2), &[sizes(at, 2, 3)], 0);
        let found = x.with(
            "GatherElements",
            &[at.op("Expand", &[to])],
            vec![Attr::new("axis", 2)],
        );
        let column = |e: Ex<'a>| e.op("Unsqueeze", &[ints(x, &[1])]);
        let weighted = weight.map_or(found, |w| found * column(w));
        inside.map_or(weighted, |i| column(i).op("Where", &[weighted, x.constant(0.0)]))
    });
    parts.reduce(|a, b| a + b)
}

/// The pixel that is `a` along the axes so far and `b` along the next, of size `size`.
fn both<'a>(a: Pixel<'a>, b: Pixel<'a>, size: usize) -> Pixel<'a> {
    let join = |a: Option<Ex<'a>>, b: Option<Ex<'a>>, op: &str| match (a, b) {
        (Some(a), Some(b)) => Some(a.op(op, &[b])),
        (a, b) => a.or(b),
    };
    (
        a.0 * size as f64 + b.0,
        join(a.1, b.1, "Mul"),
        join(a.2, b.2, "And"),
    )
}

impl<'a> Axis<'a> {
    fn pixels(&self, dtype: DType, mode: Mode) -> Vec<Pixel<'a>> {
        if mode == Mode::Nearest {
            let (at, inside) = self.index(self.place.op("Round", &[]));
            return vec![(at, None, inside)];
        }
        let last = self.place.constant(self.size as f64 - 1.0);
        let place = match self.beside {
            // A cubic looks its neighbours up where they are: only they are brought inside.
            _ if mode == Mode::Cubic => self.place,
            Beside::Zeros => self.place,
            Beside::Border => self.place.op("Clip", &[last.constant(0.0), last]),
            Beside::Mirror(low, high) => mirrored(self.place, low, high),
        };
        let floor = place.op("Floor", &[]);
        let t = cast(place - floor, dtype);
        let weights = match mode {
            Mode::Cubic => (-1, cubic(t)),
            _ => (0, vec![t.constant(1.0) - t, t]),
        };
        let all = (weights.0..).zip(weights.1);
        let pixel = |(i, w): (i32, Ex<'a>)| {
            let (at, inside) = self.index(floor + f64::from(i));
            (at, Some(w), inside)
        };
        all.map(pixel).collect()
    }

    /// The whole number `at` as a place in the image, and whether it is one.
    fn index(&self, at: Ex<'a>) -> (Ex<'a>, Option<Ex<'a>>) {
        let bounds = [at.constant(0.0), at.constant(self.size as f64 - 1.0)];
        match self.beside {
            Beside::Zeros => {
                let inside = at.op("GreaterOrEqual", &bounds[..1]);
                let inside = inside.op("And", &[at.op("LessOrEqual", &bounds[1..])]);
                (at.op("Clip", &bounds), Some(inside))
            }
            Beside::Border => (at.op("Clip", &bounds), None),
            // Half a pixel beside a bound that is half a pixel beside the image.
            Beside::Mirror(low, high) => {
                let near = mirrored(at, low, high).op("Round", &[]);
                (near.op("Clip", &bounds), None)
            }
        }
    }
}

/// `x` mirrored at `low` and `high`, as often as it takes.
fn mirrored(x: Ex<'_>, low: f64, high: f64) -> Ex<'_> {
    let range = high - low;
    if range <= 0.0 {
        return x * 0.0 + low;
    }
    let far = (x - low).op("Abs", &[]);
    let times = (far / (2.0 * range)).op("Floor", &[]);
    let wave = (far - times * (2.0 * range) - range).op("Abs", &[]);
    -wave + (low + range)
}

/// The weights of four neighbours at `t` between the inner two.
fn cubic(t: Ex<'_>) -> Vec<Ex<'_>> {
    const A: f64 = -0.75;
    let outer = |x| ((x * A - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let inner = |x| ((x * (A + 2.0)) - (A + 3.0)) * x * x + 1.0;
    let one = t.constant(1.0);
    vec![outer(t + 1.0), inner(t), inner(one - t), outer(one + one - t)]
}
