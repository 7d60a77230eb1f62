//! Groups of axes that can only be cut together, found from what operators state of their axes.
//!
//! Every axis is a sum of products of letters (`space`), and operators make letters of different axes one (`trace`, `rules`).
//! A letter that nothing speaks against, and that constants have, is a group. Removing an index of it from every value leaves
//! the model computing what it computed with everything zero that the constants have there: where a letter is summed over, a
//! factor has to be zero (`vanish`), and where an operator mixes along an axis in another way, the letter stays whole.

mod choose;
mod rules;
mod space;
mod trace;
mod vanish;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::rc::Rc;
use std::str::FromStr;

use secateur_engine::ir::{DType, Dim, Model, Node, Type, ValueId};
use secateur_engine::opt::infer::NodeError;
use serde::{Deserialize, Serialize};

pub(crate) use choose::NONE;
pub use choose::{Of, Score, Shrink, squares};

use crate::place::{At, Site, places};
pub(crate) use space::{Letter, Space};
pub(crate) use trace::{Fix, Slot, Trace, What};

/// What a group is for the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// Channels of images: filters of a convolution with all that follows from them.
    Channel,
    /// Heads of attention.
    Head,
    /// The inner digit of an axis that is folded: the width of each head.
    HeadWidth,
    /// Neurons: the hidden width of feed-forward and recurrent layers, the width of embeddings.
    Neuron,
}

/// Kinds by name.
pub static KINDS: &[(&str, Kind)] = &[
    ("channel", Kind::Channel),
    ("head", Kind::Head),
    ("head-width", Kind::HeadWidth),
    ("neuron", Kind::Neuron),
];

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let name = KINDS.iter().find(|(_, k)| k == self).map_or("", |(n, _)| n);
        f.write_str(name)
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Kind, String> {
        let names: Vec<_> = KINDS.iter().map(|(n, _)| *n).collect();
        let found = KINDS.iter().find(|(n, _)| *n == text);
        found
            .map(|(_, k)| *k)
            .ok_or_else(|| format!("no kind {text:?}; there are: {}", names.join(", ")))
    }
}

/// Axes that can only be cut together.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// What no other group of the model is called: the first matrix or larger constant that it cuts, with the axis, and the digit
    /// where the axis has more than one: `conv1.weight[0]`, `qkv.weight[1].2`.
    pub name: String,
    /// What it is for the model.
    pub kind: Kind,
    /// The number of indices.
    pub size: usize,
    /// The axes of constants that it cuts.
    pub axes: Vec<Part>,
    pub(crate) letter: Letter,
}

/// An axis of a constant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The constant; see [`Weight::name`](crate::Weight::name).
    pub constant: String,
    /// The axis.
    pub axis: usize,
}

/// What cannot be cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uncut {
    /// As a group would be called.
    pub name: String,
    /// The number of indices.
    pub size: usize,
    /// Why not.
    pub reason: String,
}

/// A constant with the spaces of its axes.
pub(crate) struct Held {
    pub(crate) value: ValueId,
    pub(crate) site: Site,
    pub(crate) name: String,
}

/// What of a model can be cut.
pub struct Groups<'m> {
    pub(crate) trace: Trace<'m>,
    /// The example sizes.
    pub(crate) inputs: Examples,
    pub(crate) held: Vec<Held>,
    /// In the order of the file.
    pub groups: Vec<Group>,
    /// Axes of weights that stay as they are, in the order of the file.
    pub uncut: Vec<Uncut>,
}

impl fmt::Debug for Groups<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (groups, uncut) = (&self.groups, &self.uncut);
        f.debug_struct("Groups")
            .field("groups", groups)
            .field("uncut", uncut)
            .finish()
    }
}

/// Sizes of free dimensions of the inputs, by name.
pub type Sizes = BTreeMap<String, usize>;

/// Sizes that are taken for examples of free dimensions that nobody gave one for, unless it is the first of an input: that is 1.
/// The first with which the shapes of the model fit each other counts.
const EXAMPLES: [usize; 4] = [64, 224, 512, 16];

/// Finds the groups of the main graph of `model`, whose shapes are followed for inputs of example sizes: what the file says, or else
/// those in `sizes`, or else 1 for the first axis of an input and 64 (224, 512, 16) for others.
///
/// # Errors
///
/// The first node whose inputs do not fit it.
pub fn groups<'m>(model: &'m Model, sizes: &Sizes) -> Result<Groups<'m>, NodeError> {
    let (mut trace, inputs) = traced(model, sizes)?;
    vanish::pin(&mut trace);
    let held = held(model);
    for h in &held {
        let t = h.site.constant(model).map(|c| &c.tensor);
        if t.is_none_or(|t| t.dtype().bits() < 8 || t.dtype() == DType::String) {
            let why = Rc::from("it is kept in elements of less than a byte");
            let axes = trace.of.get(&h.value).cloned().unwrap_or_default();
            axes.iter().for_each(|s| trace.spaces.pin(s, &why));
        }
    }
    let mut found = Groups {
        trace,
        inputs,
        held,
        groups: vec![],
        uncut: vec![],
    };
    found.collect();
    Ok(found)
}

/// Types of inputs with numbers for all sizes.
type Examples = HashMap<ValueId, Type>;

/// The axes of `model`, and the example sizes for which they were followed.
pub(crate) fn traced<'m>(model: &'m Model, sizes: &Sizes) -> Result<(Trace<'m>, Examples), NodeError> {
    let with = |example| {
        let inputs = examples(model, sizes, example);
        Ok((Trace::new(model, &inputs)?, inputs))
    };
    let first = with(EXAMPLES[0]);
    match first {
        Err(_) => EXAMPLES[1..].iter().find_map(|&e| with(e).ok()).map_or(first, Ok),
        found => found,
    }
}

fn examples(model: &Model, sizes: &Sizes, example: usize) -> Examples {
    let g = &model.graph;
    let open = g.inputs.iter().filter(|p| g[p.value].konst.is_none());
    let of = |p: &secateur_engine::ir::Port| {
        let ty = p.ty.as_ref().map(|d| &d.ty)?;
        let dim = |(i, d): (usize, &Dim)| -> usize {
            let named = || sizes.get(&d.to_string()).copied();
            d.size()
                .or_else(named)
                .unwrap_or(if i == 0 { 1 } else { example })
        };
        let dims: Vec<usize> = ty.shape()?.iter().enumerate().map(dim).collect();
        Some((p.value, Type::tensor(ty.dtype().unwrap_or(DType::F32), dims)))
    };
    open.filter_map(of).collect()
}

/// The constants of the main graph.
fn held(model: &Model) -> Vec<Held> {
    let g = &model.graph;
    let here = places(model)
        .into_iter()
        .filter(|p| p.site.scope == Default::default());
    let held = |p: crate::place::Place| {
        let value = match p.site.at {
            At::Initializer(v) => v,
            At::Attr(node, _) => g[node].outputs.first().copied().flatten()?,
        };
        Some(Held {
            value,
            site: p.site,
            name: p.name,
        })
    };
    here.filter_map(held).collect()
}

/// Whether input `i` of `node` is the weight of a convolution, whose axes from 2 on are a window.
fn windowed(node: &Node, i: usize) -> bool {
    i == 1 && ["Conv", "ConvTranspose", "FusedConv"].contains(&&*node.op)
}

/// How a constant's axes are seen.
#[derive(Clone, Copy, Default)]
struct Seen {
    image: bool,
    outer: bool,
    inner: bool,
}

impl Groups<'_> {
    /// The spaces of a constant's axes.
    pub(crate) fn axes(&self, h: &Held) -> &[Space] {
        self.trace.of.get(&h.value).map_or(&[], |a| a)
    }

    /// Whether the main graph has a constant of that name; see [`Weight::name`](crate::Weight::name).
    pub fn holds(&self, constant: &str) -> bool {
        self.held.iter().any(|h| h.name == constant)
    }

    fn dtype(&self, h: &Held) -> Option<DType> {
        Some(h.site.constant(self.trace.model)?.tensor.dtype())
    }

    fn collect(&mut self) {
        let g = &self.trace.model.graph;
        let mut images: HashMap<ValueId, bool> = HashMap::new();
        for (_, node) in g.iter() {
            for (i, v) in node.inputs.iter().enumerate() {
                if let Some(v) = v.filter(|_| windowed(node, i)) {
                    images.insert(v, true);
                }
            }
        }
        let mut seen: BTreeMap<Letter, Seen> = BTreeMap::new();
        let mut order: Vec<(Letter, String, bool)> = vec![];
        let mut axes: HashMap<Letter, Vec<Part>> = HashMap::new();
        for h in &self.held {
            let float = self.dtype(h).is_some_and(|d| d.is_float() || d.bits() == 8);
            let image = images.contains_key(&h.value);
            for (axis, space) in self.axes(h).iter().enumerate().filter(|_| float) {
                let space = self.trace.spaces.resolve(space);
                self.see(
                    &space,
                    Seen {
                        image,
                        ..Seen::default()
                    },
                    &mut seen,
                );
                let leaves = self.trace.spaces.leaves(&space);
                for (digit, l) in leaves.iter().enumerate() {
                    let part = Part {
                        constant: h.name.clone(),
                        axis,
                    };
                    let parts = axes.entry(*l).or_default();
                    let matrix = self.axes(h).len() > 1;
                    let digit = if leaves.len() > 1 {
                        format!(".{digit}")
                    } else {
                        String::new()
                    };
                    let name = format!("{}[{axis}]{digit}", h.name);
                    match order.iter_mut().find(|o| o.0 == *l) {
                        None if !(image && axis > 1) => order.push((*l, name, matrix)),
                        Some(o) if matrix && !o.2 => (o.1, o.2) = (name, true),
                        _ => {}
                    }
                    if !parts.contains(&part) {
                        parts.push(part);
                    }
                }
            }
        }
        for (letter, name, matrix) in order {
            let size = self.trace.spaces.size(&Space::Letter(letter));
            match self.trace.spaces.pinned(letter) {
                None => self.groups.push(Group {
                    name,
                    kind: kind(seen.get(&letter).copied().unwrap_or_default()),
                    size,
                    axes: axes.remove(&letter).unwrap_or_default(),
                    letter,
                }),
                Some(reason) if matrix => self.uncut.push(Uncut {
                    name,
                    size,
                    reason: reason.to_owned(),
                }),
                Some(_) => {}
            }
        }
    }

    /// Notes how the letters of `space` stand in it.
    fn see(&self, space: &Space, how: Seen, to: &mut BTreeMap<Letter, Seen>) {
        match space {
            Space::Letter(l) => {
                let seen = to.entry(*l).or_default();
                seen.image |= how.image;
                seen.outer |= how.outer;
                seen.inner |= how.inner;
            }
            Space::Sum(parts) => parts.iter().for_each(|p| self.see(p, how, to)),
            Space::Product(parts) => {
                let free = |p: &Space| {
                    let leaves = self.trace.spaces.leaves(p);
                    leaves.iter().any(|l| self.trace.spaces.pinned(*l).is_none())
                };
                for (i, p) in parts.iter().enumerate() {
                    let outer = how.outer || i + 1 < parts.len();
                    let inner = how.inner || parts[..i].iter().any(free);
                    self.see(p, Seen { outer, inner, ..how }, to);
                }
            }
        }
    }
}

fn kind(seen: Seen) -> Kind {
    match seen {
        Seen { image: true, .. } => Kind::Channel,
        Seen { inner: true, .. } => Kind::HeadWidth,
        Seen { outer: true, .. } => Kind::Head,
        _ => Kind::Neuron,
    }
}
