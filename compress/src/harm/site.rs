//! Weights that read what is to go, and where their columns lie.

use secateur_engine::ir::{AttrValue, Model, Node, ValueId};

use crate::math::layout::{Cell, Layout};
use crate::observe::taps::{Auto, Conv, How, Tap, products};
use crate::recover::own;
use crate::weights::Weight;

/// A weight as matrices whose columns can be set right when others go.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Site {
    pub(super) layout: Layout,
    /// Matrices of their own inputs: one, or of a `ConvTranspose` those of each class of places that the same taps reach.
    pub(super) parts: Vec<Part>,
    /// What the weight makes.
    pub(super) made: Vec<Made>,
    /// Whether something is added to what it makes that is set right too.
    pub(super) shifted: bool,
    taps: Vec<Tap1>,
}

/// What some columns of a weight are multiplied by.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    pub(super) tap: Tap,
    pub(super) layout: Layout,
}

/// A value that a weight makes, times `scale` of what its columns are multiplied by, with an element for each output on one axis.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Made {
    pub(super) value: ValueId,
    pub(super) axis: Axis,
    pub(super) scale: f64,
}

/// An axis of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Axis {
    /// So many before the last.
    Last(usize),
    /// The second.
    Channels,
}

/// Where a tap of a window goes: to which part, and to which place there.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tap1 {
    part: usize,
    place: usize,
}

impl Site {
    /// That of `weight`, the value `from` of the main graph, if all that reads it are products of which what goes in and what comes out are
    /// seen.
    pub(super) fn of(model: &Model, weight: &Weight, from: ValueId) -> Option<Site> {
        let layout = Layout::of(weight.matrix.as_ref()?);
        if let Some(site) = Site::transposed(model, weight, from, &layout) {
            return Some(site);
        }
        let found = products(model, weight, from).ok()?;
        let first = found.first().map(|p| p.tap.clone())?;
        let made: Option<Vec<Made>> = found
            .iter()
            .map(|p| made(&model.graph[p.node], p.input))
            .collect();
        let alike = found.iter().all(|p| p.tap == first);
        let outputs = layout.groups * layout.outputs;
        let shifted = found
            .iter()
            .all(|p| p.input > 0 && shifted(model, &model.graph[p.node], outputs));
        let window = layout.columns / layout.inputs.max(1);
        let taps = (0..window).map(|place| Tap1 { part: 0, place });
        alike.then_some(Site {
            taps: taps.collect(),
            made: made?,
            shifted,
            parts: vec![Part {
                tap: first,
                layout: layout.clone(),
            }],
            layout,
        })
    }

    /// The same of the weight of a single `ConvTranspose`: taps that are a step apart reach the same places, as those of a convolution do,
    /// the other way round.
    fn transposed(model: &Model, weight: &Weight, from: ValueId, layout: &Layout) -> Option<Site> {
        let g = &model.graph;
        let links = g.links();
        let &[id] = links.readers(from) else { return None };
        let node = &g[id];
        if !node.is("ConvTranspose") || node.inputs.get(1) != Some(&Some(from)) {
            return None;
        }
        let value = node.inputs.first().copied().flatten()?;
        let window = weight.tensor.dims().get(2..)?;
        let strides = strides(node, window.len())?;
        let classes: usize = strides.iter().product();
        let mut parts = vec![];
        for class in 0..classes {
            let first = unfold(class, &strides);
            let axes = || window.iter().zip(strides.iter().zip(&first));
            let taps: Vec<usize> = axes()
                .map(|(&w, (&s, &f))| w.saturating_sub(f).div_ceil(s))
                .collect();
            let border: Vec<usize> = taps.iter().map(|&t| t.saturating_sub(1)).collect();
            let columns = taps.iter().product::<usize>() * layout.inputs;
            parts.push(Part {
                layout: Layout::plain(layout.groups, layout.outputs, (columns, layout.inputs)),
                tap: Tap {
                    value,
                    how: How::Window(Conv {
                        taps,
                        pads: [&border[..], &border].concat(),
                        auto: Auto::Set,
                        ..Conv::default()
                    }),
                },
            });
        }
        let place = |tap: usize| {
            let at = unfold(tap, window);
            let class = at.iter().zip(&strides).map(|(t, s)| t % s).collect::<Vec<_>>();
            let part = fold(&class, &strides);
            let How::Window(conv) = &parts[part].tap.how else {
                return Tap1 { part, place: 0 };
            };
            let turned = at
                .iter()
                .zip(&strides)
                .zip(&conv.taps)
                .map(|((t, s), k)| k - 1 - t / s);
            let place = fold(&turned.collect::<Vec<_>>(), &conv.taps);
            Tap1 { part, place }
        };
        Some(Site {
            taps: (0..window.iter().product()).map(place).collect(),
            made: vec![Made {
                value: node.outputs.first().copied().flatten()?,
                axis: Axis::Channels,
                scale: 1.0,
            }],
            shifted: shifted(model, node, layout.groups * layout.outputs),
            layout: layout.clone(),
            parts,
        })
    }

    /// The part in which a cell of the weight stands, and where there.
    pub(super) fn place(&self, cell: Cell) -> (usize, Cell) {
        let inputs = self.layout.inputs.max(1);
        let Tap1 { part, place } = self.taps[cell.column / inputs];
        let column = place * inputs + cell.column % inputs;
        (part, Cell { column, ..cell })
    }
}

/// The steps of a `ConvTranspose` without holes.
fn strides(node: &Node, axes: usize) -> Option<Vec<usize>> {
    let ints = |name: &str| match node.attr(name) {
        Some(AttrValue::Ints(x)) if !x.is_empty() => x.iter().map(|&x| usize::try_from(x).ok()).collect(),
        _ => Some(vec![1; axes]),
    };
    let (strides, dilations) = (ints("strides")?, ints("dilations")?);
    let fits = strides.len() == axes && strides.iter().all(|&s| s > 0) && dilations.iter().all(|&d| d == 1);
    fits.then_some(strides)
}

/// The digits of `at` in a space of these sizes.
fn unfold(mut at: usize, sizes: &[usize]) -> Vec<usize> {
    let mut digits: Vec<usize> = sizes
        .iter()
        .rev()
        .map(|&s| {
            let digit = at % s.max(1);
            at /= s.max(1);
            digit
        })
        .collect();
    digits.reverse();
    digits
}

fn fold(digits: &[usize], sizes: &[usize]) -> usize {
    digits.iter().zip(sizes).fold(0, |at, (d, s)| at * s + d)
}

/// What `node` makes of the products with its input `input`.
fn made(node: &Node, input: usize) -> Option<Made> {
    let number = |name: &str| match node.attr(name) {
        Some(AttrValue::Float(Some(x))) => f64::from(*x),
        _ => 1.0,
    };
    let (axis, scale) = match (node.domain(), &*node.op) {
        ("", "Conv") => (Axis::Channels, 1.0),
        ("", "MatMul") => (Axis::Last(usize::from(input == 0)), 1.0),
        ("", "Gemm") | ("com.microsoft", "FusedMatMul") => {
            (Axis::Last(usize::from(input == 0)), number("alpha"))
        }
        _ => return None,
    };
    let value = node.outputs.first().copied().flatten()?;
    Some(Made { value, axis, scale })
}

/// Whether a constant of its own, an element for each of `outputs`, is added to what `node` makes, by itself or by all that reads it: the fit
/// sets no other right.
fn shifted(model: &Model, node: &Node, outputs: usize) -> bool {
    let g = &model.graph;
    let links = g.links();
    let long = |t: secateur_engine::Tensor| t.len() == outputs && t.dims().last() == Some(&outputs);
    let constant = |v: &Option<ValueId>| v.and_then(|v| own(model, &links, v)).is_some_and(long);
    if !node.is("MatMul") && node.inputs.get(2).is_some_and(constant) {
        return true;
    }
    let made = node.outputs.first().copied().flatten();
    let readers = made.map_or(&[][..], |v| links.readers(v));
    let adds = |n: &Node| {
        let plain = n.is("Add") && n.inputs.iter().any(constant);
        plain || n.is("BatchNormalization") && n.inputs.first() == Some(&made)
    };
    !readers.is_empty() && readers.iter().all(|&n| adds(&g[n]))
}
