//! Where to cut a graph whose values are computed again.

use std::collections::HashMap;

use secateur_engine::ir::{DType, Dim, Model, Type, ValueId};

use crate::reach::{Reach, reads};
use crate::{DiffError, Gradients};

/// How much is computed again at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Segments {
    /// So many segments of about one size. The root of the number of layers takes the least memory.
    Count(usize),
    /// As few segments as make kept values and those of the largest segment take at most so many bytes together; where none do, as
    /// many as take the least. Sizes that are not known count as 1.
    Bytes(usize),
}

/// The values to [keep](Gradients::keep) when the gradients of `g` are computed: those that live where the graph is cut, near
/// equal parts, where that is least.
///
/// # Errors
///
/// If a node does not fit its inputs.
pub fn checkpoints(model: &Model, g: &Gradients, segments: Segments) -> Result<Vec<ValueId>, DiffError> {
    let way = Way::new(model, g)?;
    let all = 1..way.made.len().max(1);
    let cuts = match segments {
        Segments::Count(count) => way.cuts(count),
        Segments::Bytes(limit) => {
            let mut tried = all.map(|k| way.cuts(k)).map(|cuts| (way.needed(&cuts), cuts));
            let mut best = (usize::MAX, vec![]);
            for (needed, cuts) in &mut tried {
                if needed < best.0 {
                    best = (needed, cuts);
                }
                if best.0 <= limit {
                    break;
                }
            }
            best.1
        }
    };
    let crosses = |&(_, first, last): &(ValueId, usize, usize)| cuts.iter().any(|&c| first <= c && c < last);
    Ok(way
        .values
        .iter()
        .filter(|v| crosses(v))
        .map(|(v, ..)| *v)
        .collect())
}

/// The nodes that gradients flow through, in order.
struct Way {
    /// Values, with the nodes that make and last read them.
    values: Vec<(ValueId, usize, usize)>,
    bytes: HashMap<ValueId, usize>,
    /// Bytes that are made up to each node, itself included.
    made: Vec<usize>,
    /// Bytes that live behind each node.
    live: Vec<usize>,
}

impl Way {
    fn new(model: &Model, g: &Gradients) -> Result<Way, DiffError> {
        let (reach, names) = (Reach::new(model, g)?, model.graph.names());
        let flowing = model
            .graph
            .iter()
            .filter(|(_, n)| reach.outputs(n).next().is_some());
        let nodes: Vec<_> = flowing.map(|(_, n)| n).collect();
        let mut last: HashMap<ValueId, usize> = HashMap::new();
        for (i, node) in nodes.iter().enumerate() {
            last.extend(reads(&names, node).into_iter().map(|v| (v, i)));
        }
        let (mut values, mut bytes) = (vec![], HashMap::new());
        let (mut made, mut live, mut sum) = (vec![], vec![0; nodes.len()], 0);
        for (i, node) in nodes.iter().enumerate() {
            for &v in node.outputs.iter().flatten() {
                let size = size(&reach.facts.of(v).ty);
                let end = last.get(&v).copied().unwrap_or(i);
                live[i..end.max(i)].iter_mut().for_each(|l| *l += size);
                values.push((v, i, end));
                bytes.insert(v, size);
                sum += size;
            }
            made.push(sum);
        }
        Ok(Way {
            values,
            bytes,
            made,
            live,
        })
    }

    /// The nodes behind which `count` segments end, the last left out.
    fn cuts(&self, count: usize) -> Vec<usize> {
        let all = self.made.last().copied().unwrap_or(0);
        let part = all / count.max(1);
        let mut cuts: Vec<usize> = vec![];
        for i in 1..count {
            let aim = part * i;
            let near =
                (0..self.made.len().saturating_sub(1)).filter(|&n| self.made[n].abs_diff(aim) <= part / 4);
            let best = near.min_by_key(|&n| (self.live[n], self.made[n].abs_diff(aim)));
            cuts.extend(best.filter(|n| cuts.last() != Some(n)));
        }
        cuts
    }

    /// Bytes of what is kept, and of the largest segment.
    fn needed(&self, cuts: &[usize]) -> usize {
        let kept = self
            .values
            .iter()
            .filter(|(_, first, last)| cuts.iter().any(|c| first <= c && c < last));
        let kept: usize = kept.map(|(v, ..)| self.bytes[v]).sum();
        let ends = cuts
            .iter()
            .map(|&c| self.made[c])
            .chain(self.made.last().copied());
        let mut begin = 0;
        let sizes = ends.map(|end| end - std::mem::replace(&mut begin, end));
        kept + sizes.max().unwrap_or(0)
    }
}

/// Bytes of a value, sizes that are not known being 1.
fn size(ty: &Type) -> usize {
    let each = ty.dtype().unwrap_or(DType::F32).bits().div_ceil(8);
    let dims = ty.shape().map_or(&[][..], |s| &s[..]);
    let known = dims.iter().map(|d| Dim::size(d).unwrap_or(1));
    known.fold(each, usize::saturating_mul)
}
