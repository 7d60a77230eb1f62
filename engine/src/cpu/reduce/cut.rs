//! What of a tensor stays and what is folded away.

use crate::cpu::walk::CHUNK;
use crate::ir::count;

/// Columns that are folded together.
pub(super) const WIDE: usize = 256;

/// How a tensor is cut into what stays and what is folded away. Neighbouring axes of one fate are merged.
#[derive(Clone, Debug)]
pub struct Cut {
    /// Size and stride of the axes that stay, outermost first, but for `columns`.
    kept: Vec<(usize, usize)>,
    /// Size and stride of the axes that are folded, outermost first, but for `run`.
    folded: Vec<(usize, usize)>,
    /// Neighbouring elements that are folded into one, if the last axis is folded; else 1.
    pub(super) run: usize,
    /// Neighbouring elements that stay, if the last axis stays; else 1.
    pub(super) columns: usize,
    len: usize,
}

impl Cut {
    /// The cut of a tensor of dimensions `dims` where the axes `fold` are folded.
    pub fn new(dims: &[usize], fold: &[usize]) -> Cut {
        let (mut kept, mut folded) = (vec![], vec![]);
        let mut last = None;
        let mut stride: usize = 1;
        for (axis, &size) in dims.iter().enumerate().rev() {
            let away = fold.contains(&axis);
            let list: &mut Vec<(usize, usize)> = if away { &mut folded } else { &mut kept };
            match list.last_mut() {
                _ if size == 1 => continue,
                Some(inner) if last == Some(away) => inner.0 *= size,
                _ => list.push((size, stride)),
            }
            last = Some(away);
            stride = stride.saturating_mul(size);
        }
        let first = |list: &mut Vec<(usize, usize)>| match list.first() {
            Some(&(size, 1)) => {
                list.remove(0);
                size
            }
            _ => 1,
        };
        let (run, columns) = (first(&mut folded), first(&mut kept));
        kept.reverse();
        folded.reverse();
        Cut {
            kept,
            folded,
            run,
            columns,
            len: count(dims).unwrap_or(0),
        }
    }

    /// Elements of the tensor.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the tensor has no element.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Elements of the result.
    pub fn outputs(&self) -> usize {
        self.groups() * self.columns
    }

    /// Elements that are folded into each.
    pub fn each(&self) -> usize {
        self.run * self.folded.iter().map(|a| a.0).product::<usize>()
    }

    /// Stretches of the result, of `columns` elements.
    fn groups(&self) -> usize {
        self.kept.iter().map(|a| a.0).product()
    }

    /// The pieces of a stretch.
    fn pieces(&self) -> usize {
        self.columns.div_ceil(WIDE)
    }

    /// Pieces that a task handles.
    fn per_task(&self) -> usize {
        (CHUNK / (self.each() * self.columns.min(WIDE)).max(1)).max(1)
    }

    pub(super) fn tasks(&self) -> usize {
        (self.groups() * self.pieces()).div_ceil(self.per_task())
    }

    /// Calls `piece` with where each piece of `task` starts in the result and in the tensor, and its columns.
    #[inline(always)]
    pub(super) fn task(&self, task: usize, mut piece: impl FnMut(usize, usize, usize)) {
        let (all, each) = (self.groups() * self.pieces(), self.per_task());
        for p in task * each..all.min((task + 1) * each) {
            let (group, column) = (p / self.pieces(), p % self.pieces() * WIDE);
            let start = offset(&self.kept, group);
            piece(
                group * self.columns + column,
                start + column,
                WIDE.min(self.columns - column),
            );
        }
    }

    /// Calls `row` with where each run (or row of columns) of a piece starts, relative to the piece.
    #[inline(always)]
    pub(super) fn rows(&self, mut row: impl FnMut(usize)) {
        match self.folded[..] {
            [] => row(0),
            [(size, stride)] => (0..size).for_each(|i| row(i * stride)),
            _ => {
                let all = self.folded.iter().map(|a| a.0).product();
                (0..all).for_each(|i| row(offset(&self.folded, i)));
            }
        }
    }
}

fn offset(axes: &[(usize, usize)], mut index: usize) -> usize {
    let mut at = 0;
    for (size, stride) in axes.iter().rev() {
        at += index % size * stride;
        index /= size;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_axes_of_one_fate_are_merged() {
        let c = Cut::new(&[2, 3, 4, 5], &[2, 3]);
        assert_eq!((c.run, c.columns, c.each(), c.outputs()), (20, 1, 20, 6));
        assert!(c.folded.is_empty());
        let c = Cut::new(&[2, 3, 1, 5], &[0, 2]);
        assert_eq!((c.run, c.columns, c.each(), c.outputs()), (1, 15, 2, 15));
        let c = Cut::new(&[2, 3, 4, 5], &[1, 3]);
        assert_eq!(
            (c.kept, c.folded, c.run),
            (vec![(2, 60), (4, 5)], vec![(3, 20)], 5)
        );
    }

    #[test]
    fn nothing_and_everything() {
        assert_eq!(Cut::new(&[3, 0], &[1]).outputs(), 3);
        assert_eq!(Cut::new(&[3, 0], &[1]).each(), 0);
        assert_eq!(Cut::new(&[], &[]).outputs(), 1);
        assert_eq!(Cut::new(&[3, 4], &[]).each(), 1);
    }
}
