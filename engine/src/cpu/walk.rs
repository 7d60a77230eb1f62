//! The order in which tensors that broadcast to one shape are walked.

use crate::ir::count;

/// Elements that a task of a pass over memory handles: 64 KiB of floats.
pub const CHUNK: usize = 1 << 14;

/// How `N` tensors run along while a result is written row-major.
///
/// Axes along which every tensor goes on evenly are merged, so that a row is as long as can be.
#[derive(Clone, Debug)]
pub struct Walk<const N: usize> {
    /// Size and strides (in elements) of the axes outside a row, outermost first.
    outer: Vec<(usize, [usize; N])>,
    /// Elements of a row.
    row: usize,
    /// By how much each tensor goes on within a row: 1, or 0 where one element stands for all.
    steps: [usize; N],
    /// Rows of the result.
    rows: usize,
    /// Elements of each tensor.
    lens: [usize; N],
}

impl<const N: usize> Walk<N> {
    /// The walk of tensors with dimensions `x` along a result with dimensions `out`. `None` if one does not broadcast to it.
    pub fn new(out: &[usize], x: [&[usize]; N]) -> Option<Walk<N>> {
        if x.iter().any(|x| x.len() > out.len()) {
            return None;
        }
        if count(out)? == 0 {
            return Walk::empty(x);
        }
        let mut ahead = [1; N];
        let mut axes: Vec<(usize, [usize; N])> = vec![];
        for (back, &size) in out.iter().rev().enumerate() {
            let mut strides = [0; N];
            for i in 0..N {
                let here = x[i].len().checked_sub(back + 1).map_or(1, |axis| x[i][axis]);
                if here != 1 && here != size {
                    return None;
                }
                strides[i] = if here == 1 { 0 } else { ahead[i] };
                ahead[i] *= here;
            }
            match axes.last_mut() {
                _ if size == 1 => {}
                Some((inner, s)) if (0..N).all(|i| strides[i] == s[i] * *inner) => *inner *= size,
                _ => axes.push((size, strides)),
            }
        }
        let (row, steps) = if axes.is_empty() {
            (1, [0; N])
        } else {
            axes.remove(0)
        };
        axes.reverse();
        let rows = axes.iter().map(|a| a.0).product();
        Some(Walk {
            outer: axes,
            row,
            steps,
            rows,
            lens: ahead,
        })
    }

    /// The walk along a result without elements.
    fn empty(x: [&[usize]; N]) -> Option<Walk<N>> {
        let mut lens = [0; N];
        for (len, x) in lens.iter_mut().zip(x) {
            *len = count(x)?;
        }
        Some(Walk {
            outer: vec![],
            row: 0,
            steps: [0; N],
            rows: 0,
            lens,
        })
    }

    /// By how much each tensor goes on within a row: 1, or 0 where one element stands for all.
    pub fn steps(&self) -> [usize; N] {
        self.steps
    }

    /// Elements of each tensor.
    pub fn lens(&self) -> [usize; N] {
        self.lens
    }

    /// Elements of the result.
    pub fn len(&self) -> usize {
        self.rows * self.row
    }

    /// Whether the result has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of tasks into which the walk is cut.
    pub fn tasks(&self) -> usize {
        match self.row {
            0 => 0,
            row if row >= CHUNK => self.rows * row.div_ceil(CHUNK),
            row => self.rows.div_ceil(CHUNK / row),
        }
    }

    /// Calls `each` with the position in the result, the positions in the tensors, and the number of elements, for each
    /// piece of a row that belongs to `task`.
    #[inline(always)]
    pub fn pieces(&self, task: usize, mut each: impl FnMut(usize, [usize; N], usize)) {
        if self.row >= CHUNK {
            let parts = self.row.div_ceil(CHUNK);
            let (row, start) = (task / parts, task % parts * CHUNK);
            let mut at = self.seek(row).1;
            (0..N).for_each(|i| at[i] += start * self.steps[i]);
            return each(row * self.row + start, at, CHUNK.min(self.row - start));
        }
        let many = CHUNK / self.row.max(1);
        let first = task * many;
        let last = self.rows.min(first + many);
        let (mut index, mut at) = self.seek(first);
        for row in first..last {
            each(row * self.row, at, self.row);
            self.advance(&mut index, &mut at);
        }
    }

    /// The index of row `row`, outermost axis first, and where it starts in each tensor.
    fn seek(&self, mut row: usize) -> (Vec<usize>, [usize; N]) {
        let mut index = vec![0; self.outer.len()];
        let mut at = [0; N];
        for (k, (size, strides)) in self.outer.iter().enumerate().rev() {
            index[k] = row % size;
            row /= size;
            (0..N).for_each(|i| at[i] += index[k] * strides[i]);
        }
        (index, at)
    }

    #[inline(always)]
    fn advance(&self, index: &mut [usize], at: &mut [usize; N]) {
        for (k, (size, strides)) in self.outer.iter().enumerate().rev() {
            index[k] += 1;
            (0..N).for_each(|i| at[i] += strides[i]);
            if index[k] < *size {
                return;
            }
            index[k] = 0;
            (0..N).for_each(|i| at[i] -= size * strides[i]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_merged_as_far_as_they_go_on_evenly() {
        let w = Walk::new(&[2, 3, 4, 5], [&[2, 3, 4, 5], &[3, 1, 1]]).expect("broadcasts");
        assert_eq!((w.row, w.steps), (20, [1, 0]));
        assert_eq!(w.outer, [(2, [60, 0]), (3, [20, 1])]);
        let w = Walk::new(&[2, 1, 3], [&[2, 1, 3], &[2, 1, 3]]).expect("broadcasts");
        assert_eq!((w.row, w.rows, w.steps), (6, 1, [1, 1]));
    }

    #[test]
    fn every_element_is_met_once_and_with_its_partners() {
        let (a, b) = ([3, 1, 700], [40, 700]);
        let w = Walk::new(&[3, 40, 700], [&a, &b]).expect("broadcasts");
        let mut met = vec![];
        for t in 0..w.tasks() {
            w.pieces(t, |out, at, n| {
                (0..n).for_each(|i| met.push((out + i, at[0] + i * w.steps[0], at[1] + i * w.steps[1])))
            });
        }
        for (i, m) in met.iter().enumerate() {
            assert_eq!(*m, (i, i / 28000 * 700 + i % 700, i % 28000));
        }
        assert_eq!(met.len(), w.len());
    }

    #[test]
    fn what_does_not_broadcast_is_refused() {
        assert!(Walk::new(&[2], [&[3]]).is_none());
        assert!(Walk::new(&[2], [&[1, 2]]).is_none());
        assert_eq!(Walk::new(&[2, 0], [&[1]]).map(|w| w.tasks()), Some(0));
    }
}
