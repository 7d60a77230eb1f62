//! Kernels of tree ensembles.

use num_traits::Float;

use super::forest::{Forest, Mode, Node};
use super::{Ensemble, Scorer};
use crate::cpu::Candidate;
use crate::ir::DType;
use crate::ops::NodeRef;
use crate::ops::cast::widened;
use crate::ops::ml::rows::{self, Labels, Tiles, tiled};

/// Rows that go through one tree after the other together, so that the tree stays in the cache.
const TILE: usize = 64;

/// Rows that go down a tree side by side, since each step waits for memory.
const ABREAST: usize = 8;

/// The bit of a slot's feature that says that NaN is a yes.
const MISSING: u32 = 1 << 31;

/// A node that asks `x[feature] <= value`, with its children beside each other.
///
/// A leaf asks for what is never true and leads to itself.
#[derive(Clone, Copy)]
struct Slot<T> {
    value: T,
    feature: u32,
    /// The child for a yes; that for a no stands behind it.
    yes: u32,
}

/// All trees in one array.
struct Flat<T> {
    slots: Vec<Slot<T>>,
    roots: Vec<u32>,
    /// For each slot the first of its votes; those of the next begin where they end.
    votes: Vec<(u32, u32)>,
}

/// The greatest number below `v`, among those of the type.
fn below(v: f64, single: bool) -> f64 {
    match single {
        true => f64::from((v as f32).next_down()),
        false => v.next_down(),
    }
}

/// A node's question as `x <= value`, and whether yes and no change places.
fn question(node: &Node, single: bool) -> Option<(f64, bool)> {
    let v = node.value;
    // Neither has numbers on both sides.
    if v.is_nan() || v == f64::NEG_INFINITY {
        return None;
    }
    Some(match node.mode {
        Mode::Leq => (v, false),
        Mode::Lt => (below(v, single), false),
        Mode::Gt => (v, true),
        Mode::Gte => (below(v, single), true),
        _ => return None,
    })
}

impl<T: Float> Flat<T> {
    /// The same trees, if every question is one of greater or less and no node has two parents.
    fn new(forest: &Forest, single: bool) -> Option<Flat<T>> {
        let empty = Slot {
            value: T::nan(),
            feature: 0,
            yes: 0,
        };
        let (mut slots, mut votes) = (vec![], vec![]);
        let mut roots = vec![];
        for &root in &forest.roots {
            let first = u32::try_from(slots.len()).ok()?;
            roots.push(first);
            slots.push(empty);
            votes.push((0, 0));
            let mut open = vec![(root, first)];
            while let Some((at, slot)) = open.pop() {
                let node = &forest.nodes[at];
                if node.mode == Mode::Leaf {
                    slots[slot as usize].yes = slot.wrapping_sub(1);
                    votes[slot as usize] = (node.range.0.try_into().ok()?, node.range.1.try_into().ok()?);
                    continue;
                }
                // Nodes with two parents would be copied.
                if slots.len() > 2 * forest.nodes.len() + 2 {
                    return None;
                }
                let (value, turned) = question(node, single)?;
                let yes = u32::try_from(slots.len()).ok()?;
                let missing = node.missing != turned;
                let feature = u32::try_from(node.feature).ok().filter(|f| f & MISSING == 0)?;
                slots[slot as usize] = Slot {
                    value: T::from(value)?,
                    feature: feature | if missing { MISSING } else { 0 },
                    yes,
                };
                slots.extend([empty; 2]);
                votes.extend([(0, 0); 2]);
                let (a, b) = if turned {
                    (node.no, node.yes)
                } else {
                    (node.yes, node.no)
                };
                open.extend([(b, yes + 1), (a, yes)]);
            }
        }
        Some(Flat { slots, roots, votes })
    }

    /// One step down a tree from slot `at`.
    #[inline(always)]
    fn step(&self, at: u32, x: &[T]) -> u32 {
        let slot = &self.slots[at as usize];
        let v = x[(slot.feature & !MISSING) as usize];
        let yes = v <= slot.value || (slot.feature & MISSING != 0 && v.is_nan());
        slot.yes.wrapping_add(u32::from(!yes))
    }

    /// The leaves at which `N` rows of `width` features end.
    #[inline(always)]
    fn leaves<const N: usize>(&self, root: u32, x: &[T], width: usize) -> [u32; N] {
        let mut at = [root; N];
        loop {
            let mut moved = 0;
            for (i, at) in at.iter_mut().enumerate() {
                let next = self.step(*at, &x[i * width..][..width]);
                moved |= next ^ *at;
                *at = next;
            }
            if moved == 0 {
                return at;
            }
        }
    }

    /// Writes each row's class and scores.
    fn fill(&self, e: &Ensemble, x: &[T], out: &mut [f64]) {
        let (width, each) = (e.features, e.targets + 1);
        for (x, out) in x.chunks(TILE * width).zip(out.chunks_mut(TILE * each)) {
            out.fill(e.start());
            for &root in &self.roots {
                let rows = x.chunks(ABREAST * width).zip(out.chunks_mut(ABREAST * each));
                for (x, out) in rows {
                    let mut vote = |row: usize, leaf: u32| {
                        let (first, end) = self.votes[leaf as usize];
                        let scores = &mut out[row * each + 1..][..each - 1];
                        for &(target, vote) in &e.forest.votes[first as usize..end as usize] {
                            scores[target] = e.join(scores[target], vote);
                        }
                    };
                    if x.len() == ABREAST * width {
                        let leaves = self.leaves::<ABREAST>(root, x, width);
                        leaves.into_iter().enumerate().for_each(|(i, l)| vote(i, l));
                    } else {
                        let single = |x| self.leaves::<1>(root, x, width)[0];
                        x.chunks(width)
                            .map(single)
                            .enumerate()
                            .for_each(|(i, l)| vote(i, l));
                    }
                }
            }
            for row in out.chunks_mut(each) {
                row[0] = e.finish(&mut row[1..]) as f64;
            }
        }
    }
}

/// Whether floats tell all values apart that an input of type `dtype` is compared with.
fn single(dtype: DType, forest: &Forest) -> bool {
    let exact = |v: f64| f64::from(v as f32) == v || v.is_nan();
    matches!(dtype, DType::F32 | DType::F16) && forest.nodes.iter().all(|n| exact(n.value))
}

/// The kernel of an ensemble; none where labels are strings.
pub(super) fn kernel(n: &NodeRef, e: Ensemble, labels: Option<Labels>) -> Option<Candidate> {
    let dtype = n.dtype(0)?;
    let tiles = Tiles {
        features: e.features,
        scores: e.targets,
        each: TILE,
        work: e.work(),
    };
    if e.features == 0 {
        return rows::kernel(n, e, labels);
    }
    if single(dtype, &e.forest)
        && let Some(flat) = Flat::<f32>::new(&e.forest, true)
    {
        let fill = move |x: &[u8], out: &mut [f64]| match dtype {
            DType::F32 => flat.fill(&e, bytemuck::cast_slice(x), out),
            _ => {
                let x: Vec<f32> = widened(dtype, x).into_iter().map(|x| x as f32).collect();
                flat.fill(&e, &x, out);
            }
        };
        return tiled(n, tiles, labels, fill);
    }
    match Flat::<f64>::new(&e.forest, false) {
        Some(flat) => tiled(n, tiles, labels, move |x, out| {
            flat.fill(&e, &widened(dtype, x), out);
        }),
        None => rows::kernel(n, e, labels),
    }
}
