//! `Einsum` in terms of matrix products.

use super::equation::{Equation, Letter};
use super::size;
use crate::expr::Ex;
use crate::ir::{Attr, Dim, Tensor};
use crate::ops::NodeRef;

/// A tensor whose axes have letters.
#[derive(Clone)]
struct Part<'a> {
    x: Ex<'a>,
    letters: Vec<Letter>,
}

/// What the steps need to know of the node.
struct Plan<'n, 'a> {
    opset: i64,
    eq: &'n Equation,
    /// The size of each letter, and an input with its axis to ask where it is not known.
    sizes: Vec<(Letter, Dim, Ex<'a>, usize)>,
}

/// The result, or `None` where it is no chain of plain products.
pub(super) fn body<'a>(n: &NodeRef, eq: &Equation, x: &[Ex<'a>]) -> Option<Ex<'a>> {
    let mut sizes = vec![];
    for letter in eq.letters() {
        let dim = size(n, eq, letter).ok()?;
        let holds = |i: usize| Some((i, eq.terms[i].iter().position(|&l| l == letter)?));
        let mut places: Vec<_> = (0..x.len()).filter_map(holds).collect();
        let here = |&(i, axis): &(usize, usize)| n.shape(i).map_or(&Dim::Unknown, |s| &s[axis]);
        let stretched = |p: &(usize, usize)| *here(p) == Dim::Known(1) && dim != Dim::Known(1);
        // Only products of two with the letter in all three places stretch what is of size 1.
        let plain = eq.out.contains(&letter) && x.len() <= 2;
        if dim == Dim::Known(0) || (!plain && places.iter().any(stretched)) {
            return None;
        }
        places.sort_by_key(stretched);
        let &(i, axis) = places.first()?;
        sizes.push((letter, dim, x[i], axis));
    }
    let plan = Plan {
        opset: n.opset(),
        eq,
        sizes,
    };
    let part = |i: usize| Part {
        x: x[i],
        letters: eq.terms[i].clone(),
    };
    let mut all = part(0);
    for i in 1..x.len() {
        all = plan.pair(all, part(i), i)?;
    }
    let all = plan.summed(all, |l| eq.out.contains(&l));
    Some(ordered(all, &eq.out).x)
}

/// The same with its axes in another order.
fn ordered<'a>(p: Part<'a>, letters: &[Letter]) -> Part<'a> {
    let perm: Vec<i64> = letters
        .iter()
        .filter_map(|l| p.letters.iter().position(|m| m == l))
        .map(|i| i as i64)
        .collect();
    let x = match perm.is_sorted() {
        true => p.x,
        false => p.x.with("Transpose", &[], vec![Attr::new("perm", perm)]),
    };
    Part {
        x,
        letters: letters.to_vec(),
    }
}

impl<'a> Plan<'_, 'a> {
    /// An operator whose axes became an input with opset 13.
    fn along(&self, x: Ex<'a>, op: &str, axes: Vec<i64>, attrs: Vec<Attr>) -> Ex<'a> {
        if self.opset < 13 {
            return x.with(op, &[], [vec![Attr::new("axes", axes)], attrs].concat());
        }
        x.with(op, &[x.tensor(Tensor::of(&[axes.len()], axes))], attrs)
    }

    /// Sums over the letters that are not kept.
    fn summed(&self, p: Part<'a>, kept: impl Fn(Letter) -> bool) -> Part<'a> {
        let gone = p.letters.iter().enumerate().filter(|(_, l)| !kept(**l));
        let axes: Vec<i64> = gone.map(|(i, _)| i as i64).collect();
        if axes.is_empty() {
            return p;
        }
        Part {
            x: self.along(p.x, "ReduceSum", axes, vec![Attr::new("keepdims", 0)]),
            letters: p.letters.into_iter().filter(|l| kept(*l)).collect(),
        }
    }

    /// The product of `a` and the input `i`, summed over what neither the output nor a later input has.
    fn pair(&self, a: Part<'a>, b: Part<'a>, i: usize) -> Option<Part<'a>> {
        let later = self.eq.terms[i + 1..].iter().chain([&self.eq.out]);
        let kept: Vec<Letter> = later.flatten().copied().collect();
        let (of_a, of_b) = (a.letters.clone(), b.letters.clone());
        let a = self.summed(a, |l| kept.contains(&l) || of_b.contains(&l));
        let b = self.summed(b, |l| kept.contains(&l) || of_a.contains(&l));
        let (both, left): (Vec<_>, Vec<_>) = a.letters.iter().partition(|l| b.letters.contains(l));
        let right: Vec<_> = b.letters.iter().copied().filter(|l| !both.contains(l)).collect();
        let (batch, summed): (Vec<_>, Vec<_>) = both.iter().partition(|l| kept.contains(l));
        let plain = left.is_empty() && right.is_empty() && !batch.is_empty();
        if summed.is_empty() || plain {
            let y = self.elements(a, b, [&both, &left, &right]);
            return Some(self.summed(y, |l| kept.contains(&l)));
        }
        let a = ordered(a, &[&batch[..], &left, &summed].concat());
        let b = ordered(b, &[&batch[..], &summed, &right].concat());
        let a = self.grouped(a, batch.len(), [&left, &summed])?;
        let b = self.grouped(b, batch.len(), [&summed, &right])?;
        let letters = [&batch[..], &left, &right].concat();
        let y = Part {
            x: a.matmul(b),
            letters: letters.clone(),
        };
        if left.len() == 1 && right.len() == 1 {
            return Some(y);
        }
        let each: Vec<&[Letter]> = left.chunks(1).chain(right.chunks(1)).collect();
        let x = self.reshaped(y.x, batch.len(), &each)?;
        Some(Part { x, letters })
    }

    /// The products of all pairs of elements.
    fn elements(&self, a: Part<'a>, b: Part<'a>, [both, left, right]: [&[Letter]; 3]) -> Part<'a> {
        let a = ordered(a, &[both, left].concat());
        let b = ordered(b, &[both, right].concat());
        let ones = |x: Ex<'a>, first: usize, count: usize| {
            if count == 0 {
                return x;
            }
            let axes = (first..first + count).map(|i| i as i64).collect();
            self.along(x, "Unsqueeze", axes, vec![])
        };
        let a = ones(a.x, both.len() + left.len(), right.len());
        // Leading axes of size 1 come by themselves.
        let b = if both.is_empty() {
            b.x
        } else {
            ones(b.x, both.len(), left.len())
        };
        Part {
            x: a * b,
            letters: [both, left, right].concat(),
        }
    }

    /// `p` as matrices: behind `batch` axes those of each group as one.
    fn grouped(&self, p: Part<'a>, batch: usize, groups: [&[Letter]; 2]) -> Option<Ex<'a>> {
        match groups.iter().all(|g| g.len() == 1) {
            true => Some(p.x),
            false => self.reshaped(p.x, batch, &groups),
        }
    }

    /// `x` with its first `batch` axes as they are, and one axis for each group.
    fn reshaped(&self, x: Ex<'a>, batch: usize, groups: &[&[Letter]]) -> Option<Ex<'a>> {
        let known = |g: &&[Letter]| {
            g.iter()
                .try_fold(1i64, |p, &l| p.checked_mul(self.size(l)?.1.known()?))
        };
        let mut sizes: Vec<Option<i64>> = vec![Some(0); batch];
        sizes.extend(groups.iter().map(known));
        let hidden: Vec<usize> = (0..sizes.len()).filter(|&i| sizes[i].is_none()).collect();
        if let &[i] = &hidden[..] {
            sizes[i] = Some(-1);
        }
        let list = |l: Vec<i64>| x.tensor(Tensor::of(&[l.len()], l));
        if let Some(all) = sizes.iter().copied().collect::<Option<Vec<_>>>() {
            return Some(x.op("Reshape", &[list(all)]));
        }
        let piece = |(i, size): (usize, &Option<i64>)| match size {
            Some(s) => Some(list(vec![*s])),
            None => {
                let each = groups[i - batch].iter().map(|&l| {
                    let (_, _, x, axis) = self.size(l)?;
                    Some(x.op("Shape", &[]).op("Gather", &[list(vec![*axis as i64])]))
                });
                let each = each.collect::<Option<Vec<_>>>()?;
                each.into_iter().reduce(|a, b| a * b)
            }
        };
        let pieces = sizes.iter().enumerate().map(piece).collect::<Option<Vec<_>>>()?;
        let (first, rest) = pieces.split_first()?;
        Some(x.op(
            "Reshape",
            &[first.with("Concat", rest, vec![Attr::new("axis", 0)])],
        ))
    }

    fn size(&self, letter: Letter) -> Option<&(Letter, Dim, Ex<'a>, usize)> {
        self.sizes.iter().find(|s| s.0 == letter)
    }
}
