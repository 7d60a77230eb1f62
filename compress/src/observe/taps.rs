//! Where the values are that a weight is multiplied by.

use secateur_engine::ir::{AttrValue, Graph, Model, Node, NodeId, ValueId};

use crate::contraction::{carries, order};
use crate::math::layout::Layout;
use crate::math::spread::{Classes, Spread};
use crate::math::window::Window;
use crate::pattern::Role;
use crate::weights::Weight;

/// A value that a weight is multiplied by, and how its columns lie in it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tap {
    pub(crate) value: ValueId,
    pub(crate) how: How,
}

/// Where columns lie.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum How {
    /// On one axis, so many before the last.
    Axis(usize),
    /// On the last axis, for all matrices alike.
    Shared,
    /// In the windows of a convolution.
    Window(Conv),
    /// Where a transposed convolution spreads them to: in several classes, see [`Spread`].
    Spread(Transposed),
}

/// What the node of a convolution says; empty where it says nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Conv {
    pub(crate) taps: Vec<usize>,
    pub(crate) strides: Vec<usize>,
    pub(crate) dilations: Vec<usize>,
    pub(crate) pads: Vec<usize>,
    pub(crate) auto: Auto,
}

/// What the node of a transposed convolution says beyond what any convolution does.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Transposed {
    pub(crate) conv: Conv,
    /// What is added to the output behind; empty where nothing is said.
    pub(crate) extra: Vec<usize>,
    /// The sizes of the output, where they are said.
    pub(crate) sizes: Vec<usize>,
}

/// How the border follows from the size.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Auto {
    #[default]
    Set,
    Upper,
    Lower,
}

/// A node that multiplies by a weight.
pub(crate) struct Product {
    pub(crate) node: NodeId,
    /// Which of its inputs the weight is.
    pub(crate) input: usize,
    pub(crate) tap: Tap,
}

/// All values that `weight`, the value `from` of the main graph, is multiplied by; or why that is not known.
pub(crate) fn of(model: &Model, weight: &Weight, from: ValueId) -> Result<Vec<Tap>, String> {
    let found = products(model, weight, from)?;
    // Its columns meet in classes only, which the observation does not tell apart.
    if found.iter().any(|p| matches!(p.tap.how, How::Spread(_))) {
        return Err("the inputs of ConvTranspose are not observed".into());
    }
    Ok(found.into_iter().map(|p| p.tap).collect())
}

/// All nodes that multiply by `weight`, the value `from` of the main graph; or why that is not known.
pub(crate) fn products(model: &Model, weight: &Weight, from: ValueId) -> Result<Vec<Product>, String> {
    let matrix = weight
        .matrix
        .as_ref()
        .ok_or("its outputs and inputs are not known")?;
    let g = &model.graph;
    let plain: Vec<usize> = (0..weight.tensor.dims().len()).collect();
    let mut orders = vec![None; g.values.len()];
    orders[from.0 as usize] = Some(plain);
    let mut found = vec![];
    for (id, node) in g.iter() {
        if captured(g, node, &orders) {
            return Err("a subgraph reads it, which is not observed".into());
        }
        for (i, v) in node.inputs.iter().enumerate() {
            let Some(old) = v.and_then(|v| orders[v.0 as usize].clone()) else {
                continue;
            };
            if carries(node, i) {
                let new = order(node, old.len()).ok_or_else(|| unknown(node))?;
                let new: Vec<usize> = new.into_iter().map(|a| old[a]).collect();
                let outputs = node.outputs.iter().take(1).flatten();
                outputs.for_each(|v| orders[v.0 as usize] = Some(new.clone()));
                continue;
            }
            let tap = tap(node, i, &old, weight)?;
            found.push(Product {
                node: id,
                input: i,
                tap,
            });
        }
    }
    let apart = |p: &Product| matches!(p.tap.how, How::Axis(_));
    match Layout::of(matrix).groups > 1 && found.iter().any(apart) {
        true => Err("it is many matrices at once, whose inputs are not observed".into()),
        false if found.is_empty() => Err("nothing that is observed reads it".into()),
        false => Ok(found),
    }
}

/// Whether a subgraph of `node` reads a value of `graph` whose order is known: one that holds the weight.
fn captured(graph: &Graph, node: &Node, orders: &[Option<Vec<usize>>]) -> bool {
    let inner = node.attrs.iter().flat_map(|a| a.value.graphs());
    let names = inner.flat_map(Graph::captures);
    let mut found = names.filter_map(|name| graph.find(&name));
    found.any(|v| orders[v.0 as usize].is_some())
}

fn unknown(node: &Node) -> String {
    format!("the inputs of {} are not observed", node.op)
}

/// What input `i` of `node` is multiplied by, whose axes have the order `axes`.
fn tap(node: &Node, i: usize, axes: &[usize], weight: &Weight) -> Result<Tap, String> {
    let flag = |name: &str| matches!(node.attr(name), Some(AttrValue::Int(Some(1))));
    let plain = !flag("transBatchA") && !flag("transBatchB");
    let how = match (node.domain(), &*node.op, i) {
        ("", "MatMul", 0) => How::Axis(1),
        ("", "MatMul", 1) | ("com.microsoft", "Attention", 1) => How::Axis(0),
        ("", "GRU" | "LSTM" | "RNN", 1) => How::Shared,
        ("", "Gemm", 0) | ("com.microsoft", "FusedGemm", 0) => How::Axis(usize::from(!flag("transB"))),
        ("", "Gemm", 1) | ("com.microsoft", "FusedGemm", 1) => How::Axis(usize::from(flag("transA"))),
        ("com.microsoft", "FusedMatMul", 0) if plain => How::Axis(usize::from(!flag("transB"))),
        ("com.microsoft", "FusedMatMul", 1) if plain => How::Axis(usize::from(flag("transA"))),
        ("", "Conv", 1) | ("com.microsoft", "FusedConv", 1) => How::Window(conv(node, axes, weight)?),
        ("", "ConvTranspose", 1) => How::Spread(Transposed {
            conv: conv(node, axes, weight)?,
            extra: ints(node, "output_padding").ok_or_else(|| unknown(node))?,
            sizes: ints(node, "output_shape").ok_or_else(|| unknown(node))?,
        }),
        _ => return Err(unknown(node)),
    };
    let other = match i {
        0 => node.inputs.get(1),
        _ => node.inputs.first(),
    };
    let value = other.copied().flatten().ok_or_else(|| unknown(node))?;
    Ok(Tap { value, how })
}

/// The numbers of an attribute, none where there is none; `None` where one is below 0.
fn ints(node: &Node, name: &str) -> Option<Vec<usize>> {
    match node.attr(name) {
        Some(AttrValue::Ints(x)) => x.iter().map(|&x| usize::try_from(x).ok()).collect(),
        _ => Some(vec![]),
    }
}

/// The convolution `node`, whose weight has the order `axes`.
fn conv(node: &Node, axes: &[usize], weight: &Weight) -> Result<Conv, String> {
    let ints = |name: &str| ints(node, name);
    let space = axes.get(2..).unwrap_or_default();
    let shared = weight
        .matrix
        .as_ref()
        .is_some_and(|m| m.roles.contains(&Role::Output));
    if !space.is_sorted() || !shared {
        return Err(unknown(node));
    }
    let mut pads = ints("pads");
    let auto = match node.attr("auto_pad") {
        Some(AttrValue::Bytes(Some(s))) => match &s[..] {
            b"SAME_UPPER" => Auto::Upper,
            b"SAME_LOWER" => Auto::Lower,
            b"VALID" => {
                pads = Some(vec![]);
                Auto::Set
            }
            _ => Auto::Set,
        },
        _ => Auto::Set,
    };
    let wrong = || format!("{} has a border or step below 0", node.op);
    Ok(Conv {
        taps: space.iter().map(|&a| weight.tensor.dims()[a]).collect(),
        strides: ints("strides").ok_or_else(wrong)?,
        dilations: ints("dilations").ok_or_else(wrong)?,
        pads: pads.ok_or_else(wrong)?,
        auto,
    })
}

/// `x`, or so many of `other` where there is none; `None` where there are fewer or more.
fn each(x: &[usize], other: usize, n: usize) -> Option<Vec<usize>> {
    match x {
        [] => Some(vec![other; n]),
        x => (x.len() == n).then(|| x.to_vec()),
    }
}

impl Conv {
    /// The windows over an image of size `space`, or `None` where they do not fit it.
    pub(crate) fn window(&self, space: &[usize]) -> Option<Window> {
        let n = self.taps.len();
        let (strides, dilations) = (each(&self.strides, 1, n)?, each(&self.dilations, 1, n)?);
        let pads = each(&self.pads, 0, 2 * n).filter(|_| space.len() == n)?;
        let (mut before, mut output) = (vec![], vec![]);
        for a in 0..n {
            let reach = (self.taps[a].checked_sub(1)?) * dilations[a] + 1;
            let same = space[a].div_ceil(strides[a].max(1));
            let missing = (same.saturating_sub(1) * strides[a] + reach).saturating_sub(space[a]);
            let (first, all) = match self.auto {
                Auto::Set => (pads[a], pads[a] + pads[a + n]),
                Auto::Upper => (missing / 2, missing),
                Auto::Lower => (missing.div_ceil(2), missing),
            };
            before.push(first);
            output.push((space[a] + all).checked_sub(reach)? / strides[a].max(1) + 1);
        }
        let taps = self.taps.clone();
        Some(Window {
            taps,
            strides,
            dilations,
            before,
            output,
        })
    }
}

impl Transposed {
    /// The classes of taps, or `None` where attributes do not fit each other.
    pub(crate) fn classes(&self) -> Option<Classes> {
        let n = self.conv.taps.len();
        let (strides, dilations) = (each(&self.conv.strides, 1, n)?, each(&self.conv.dilations, 1, n)?);
        Classes::new(&self.conv.taps, &strides, &dilations)
    }

    /// How an image of size `space` is spread, or `None` where that does not fit it.
    pub(crate) fn spread(&self, space: &[usize]) -> Option<Spread> {
        let (classes, n) = (self.classes()?, self.conv.taps.len());
        let extra = each(&self.extra, 0, n)?;
        let pads = each(&self.conv.pads, 0, 2 * n).filter(|_| space.len() == n)?;
        // Some exporters write the sizes of batch and channels too.
        let sizes = &self.sizes[self.sizes.len().saturating_sub(n)..];
        let (mut before, mut output) = (vec![], vec![]);
        for a in 0..n {
            let whole = space[a].checked_sub(1)? * classes.strides[a] + classes.reach(a) + extra[a];
            let set = match (sizes.get(a), self.conv.auto) {
                (None, Auto::Set) => None,
                (size, _) => Some(size.copied().unwrap_or(space[a] * classes.strides[a])),
            };
            let Some(size) = set else {
                before.push(pads[a]);
                output.push(whole.checked_sub(pads[a] + pads[a + n])?);
                continue;
            };
            let all = whole.saturating_sub(size);
            before.push(match self.conv.auto {
                Auto::Upper => all / 2,
                _ => all.div_ceil(2),
            });
            output.push(size);
        }
        Some(Spread {
            classes,
            before,
            output,
        })
    }
}
