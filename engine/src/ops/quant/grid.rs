//! How scales and zero points lie along the tensor that they belong to.

use crate::ir::count;
use crate::ops::{NodeRef, OpError};

/// For each element of a tensor, the place of its scale.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Grid {
    /// Elements of the tensor.
    len: usize,
    /// Size of the axis along which scales differ.
    along: usize,
    /// Elements behind one step along it.
    inner: usize,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// One scale for all.
    Tensor,
    /// One for each slice of the axis.
    Axis,
    /// One for each block of this size along the axis, and for each place along the others; the number of blocks.
    Block(usize, usize),
}

/// Elements that have one scale, or scales that follow each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Piece {
    /// How many there are.
    pub(crate) len: usize,
    /// The place of the first one's scale.
    pub(crate) scale: usize,
    /// How far it is to the next one's scale: 0 or 1.
    pub(crate) step: usize,
}

impl Grid {
    /// Scales of dimensions `scale` for a tensor of dimensions `x`; `block` is 0 where there are no blocks.
    ///
    /// # Errors
    ///
    /// If they do not go together.
    pub(crate) fn new(
        x: &[usize],
        scale: &[usize],
        axis: Option<i64>,
        block: usize,
    ) -> Result<Grid, OpError> {
        let len = count(x).ok_or_else(|| OpError::new("the tensor is larger than memory"))?;
        let one = Grid {
            len,
            along: 1,
            inner: 1,
            kind: Kind::Tensor,
        };
        if scale.iter().all(|&d| d == 1) {
            return Ok(one);
        }
        let axis = axis.ok_or_else(|| {
            OpError::new(format!(
                "scales of shape {scale:?} without attribute \"axis\"; expected one scale"
            ))
        })?;
        let axis = NodeRef::axis(axis, x.len())?;
        let grid = |kind| Grid {
            along: x[axis],
            inner: count(&x[axis + 1..]).unwrap_or(1),
            kind,
            ..one.clone()
        };
        if scale.len() == 1 && block == 0 {
            return match scale[0] == x[axis] {
                true => Ok(grid(Kind::Axis)),
                false => Err(OpError::new(format!(
                    "{} scales for axis {axis} of {x:?}; expected {}",
                    scale[0], x[axis]
                ))),
            };
        }
        let blocks = x[axis].div_ceil(block.max(1));
        let mut expected = x.to_vec();
        expected[axis] = blocks;
        match block > 0 && scale == expected {
            true => Ok(grid(Kind::Block(block, blocks))),
            false => Err(OpError::new(format!(
                "scales of shape {scale:?} in blocks of {block} along axis {axis} of {x:?}"
            ))),
        }
    }

    /// Whether a zero point of dimensions `zero` goes with a scale of dimensions `scale`: one number may have any rank.
    pub(super) fn alike(zero: &[usize], scale: &[usize]) -> bool {
        let one = |d: &[usize]| d.iter().all(|&d| d == 1);
        zero == scale || (one(zero) && one(scale))
    }

    /// The elements from `i` on, as many as have one scale or scales in a row.
    pub(crate) fn piece(&self, i: usize) -> Piece {
        let (a, within) = (i / self.inner % self.along, i % self.inner);
        let piece = |len, scale, step| Piece { len, scale, step };
        match self.kind {
            Kind::Tensor => piece(self.len - i, 0, 0),
            Kind::Axis if self.inner == 1 => piece(self.along - a, a, 1),
            Kind::Axis => piece(self.inner - within, a, 0),
            Kind::Block(size, blocks) => {
                let scale = (i / (self.along * self.inner) * blocks + a / size) * self.inner + within;
                match self.inner {
                    1 => piece((size - a % size).min(self.along - a), scale, 0),
                    inner => piece(inner - within, scale, 1),
                }
            }
        }
    }

    /// The place of the scale of element `i`.
    pub(crate) fn place(&self, i: usize) -> usize {
        self.piece(i).scale
    }

    /// Calls `each` with the first element and the [`Piece`] of every piece of the `len` elements from `start` on.
    pub(crate) fn pieces(&self, start: usize, len: usize, mut each: impl FnMut(usize, Piece)) {
        let mut at = 0;
        while at < len {
            let piece = self.piece(start + at);
            let here = piece.len.min(len - at);
            each(at, Piece { len: here, ..piece });
            at += here;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_the_definition() {
        let x = [2, 5, 3];
        let places = |scale: &[usize], axis, block| {
            let g = Grid::new(&x, scale, Some(axis), block).unwrap();
            (0..30).map(|i| g.place(i)).collect::<Vec<_>>()
        };
        assert_eq!(places(&[], 7, 0), [0; 30]);
        assert_eq!(places(&[5], 1, 0), (0..30).map(|i| i / 3 % 5).collect::<Vec<_>>());
        assert_eq!(places(&[3], -1, 0), (0..30).map(|i| i % 3).collect::<Vec<_>>());
        let blocked = |i: usize| (i / 15 * 3 + i / 3 % 5 / 2) * 3 + i % 3;
        assert_eq!(places(&[2, 3, 3], 1, 2), (0..30).map(blocked).collect::<Vec<_>>());
        let last = |i: usize| i / 3 * 2 + i % 3 / 2;
        assert_eq!(places(&[2, 5, 2], 2, 2), (0..30).map(last).collect::<Vec<_>>());
        assert!(Grid::new(&x, &[4], Some(1), 0).is_err());
        assert!(Grid::new(&x, &[2, 2, 3], Some(1), 2).is_err());
        assert!(Grid::new(&x, &[5], None, 0).is_err());
    }
}
