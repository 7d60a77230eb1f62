//! Windows as the attributes of convolutions and pools describe them.

use super::shape::show;
use super::{NodeRef, OpError};
use crate::cpu::window::Window;
use crate::ir::{Dim, Shape};

/// Elements of the largest window: so many are counted without rounding.
const MOST: i64 = 1 << 48;

/// How the border is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Auto {
    /// By `pads`.
    No,
    /// None.
    Valid,
    /// So that the output has the input's size, divided by the stride; what is odd goes behind, or before.
    Same { before: bool },
}

/// The attributes, with one number for each spatial axis.
#[derive(Clone, Debug)]
pub(crate) struct Windows {
    /// Sizes of the window.
    pub(crate) size: Vec<i64>,
    strides: Vec<i64>,
    dilations: Vec<i64>,
    /// Before all axes, then behind all axes.
    pads: Vec<i64>,
    auto: Auto,
    ceil: bool,
}

impl Windows {
    /// The attributes of a node whose input has `axes` spatial axes, with windows of size `size`.
    ///
    /// # Errors
    ///
    /// If they do not go together or are out of range.
    pub(crate) fn of(n: &NodeRef, axes: usize, size: Vec<i64>) -> Result<Windows, OpError> {
        let list = |name: &str, default: i64, len: usize, least: i64| -> Result<Vec<i64>, OpError> {
            let given = n.ints(name)?.filter(|l| !l.is_empty());
            let list = given.map_or(vec![default; len], <[i64]>::to_vec);
            if list.len() != len || list.iter().any(|&x| x < least || x > i64::from(i32::MAX)) {
                return Err(OpError::new(format!(
                    "attribute {name:?} is {list:?}; expected {len} numbers of at least {least}"
                )));
            }
            Ok(list)
        };
        if size.len() != axes || size.iter().any(|&k| k < 1 || k > i64::from(i32::MAX)) {
            return Err(OpError::new(format!(
                "a window of {size:?}; expected {axes} positive sizes"
            )));
        }
        if size
            .iter()
            .try_fold(1i64, |n, k| n.checked_mul(*k))
            .is_none_or(|n| n > MOST)
        {
            return Err(OpError::new(format!(
                "a window of {size:?}; expected at most {MOST} elements"
            )));
        }
        let auto = match n.str_or("auto_pad", "NOTSET")? {
            "NOTSET" | "" => Auto::No,
            "VALID" => Auto::Valid,
            "SAME_UPPER" => Auto::Same { before: false },
            "SAME_LOWER" => Auto::Same { before: true },
            other => return Err(OpError::new(format!("attribute \"auto_pad\" is {other:?}"))),
        };
        let pads = list("pads", 0, 2 * axes, 0)?;
        Ok(Windows {
            size,
            strides: list("strides", 1, axes, 1)?,
            dilations: list("dilations", 1, axes, 1)?,
            pads: if auto == Auto::No { pads } else { vec![0; 2 * axes] },
            auto,
            ceil: n.int_or("ceil_mode", 0)? != 0,
        })
    }

    /// What the window covers along `axis`.
    fn reach(&self, axis: usize) -> i64 {
        (self.size[axis] - 1) * self.dilations[axis] + 1
    }

    /// Steps from position to position.
    pub(crate) fn strides(&self) -> &[i64] {
        &self.strides
    }

    /// Steps from element to element of the window.
    pub(crate) fn dilations(&self) -> &[i64] {
        &self.dilations
    }

    /// The border before all axes, then behind all axes, of an input of sizes `input`; `None` where it depends on sizes that are
    /// not known.
    pub(crate) fn border(&self, input: &[Dim]) -> Option<Vec<i64>> {
        let Auto::Same { before } = self.auto else {
            return Some(self.pads.clone());
        };
        let total = |axis: usize| match (input[axis].known(), self.strides[axis]) {
            (Some(size), stride) => {
                let last = (input[axis].ceil_div(&Dim::Known(stride)).known()? - 1).max(0) * stride;
                Some((last + self.reach(axis) - size).max(0))
            }
            (None, 1) => Some(self.reach(axis) - 1),
            _ => None,
        };
        let totals: Vec<_> = (0..input.len()).map(total).collect::<Option<_>>()?;
        let first = |t: &i64| if before { t - t / 2 } else { t / 2 };
        let firsts = totals.iter().map(first);
        Some(firsts.chain(totals.iter().map(|t| t - first(t))).collect())
    }

    /// The size of the output along `axis`, of an input of size `input`.
    ///
    /// # Errors
    ///
    /// If the window does not fit.
    fn output(&self, axis: usize, input: &Dim) -> Result<Dim, OpError> {
        let stride = Dim::Known(self.strides[axis]);
        if let Auto::Same { .. } = self.auto {
            return Ok(input.ceil_div(&stride));
        }
        let (before, behind) = (self.pads[axis], self.pads[axis + self.size.len()]);
        let room = input.clone() + Dim::Known(before + behind - self.reach(axis));
        if let Some(room) = room.known().filter(|&r| r < 0) {
            return Err(OpError::new(format!(
                "a window that covers {} does not fit into axis {axis} of {}",
                self.reach(axis),
                room + self.reach(axis)
            )));
        }
        if !self.ceil {
            return Ok(room.floor_div(&stride) + Dim::Known(1));
        }
        // The last window must begin within the input or the border before it.
        let within = (input.clone() + Dim::Known(before)).ceil_div(&stride);
        Ok((room.ceil_div(&stride) + Dim::Known(1)).lesser(&within))
    }

    /// Sizes of the output, of an input with spatial sizes `input`.
    ///
    /// # Errors
    ///
    /// If the window does not fit.
    pub(crate) fn outputs(&self, input: &[Dim]) -> Result<Shape, OpError> {
        if input.len() != self.size.len() {
            return Err(OpError::new(format!(
                "the input has spatial sizes {}; expected {} of them",
                show(input),
                self.size.len()
            )));
        }
        (0..input.len()).map(|a| self.output(a, &input[a])).collect()
    }

    /// The window over an input of known sizes.
    ///
    /// # Errors
    ///
    /// If it does not fit.
    pub(crate) fn over(&self, input: &[usize]) -> Result<Window, OpError> {
        let dims: Vec<_> = input.iter().map(|&d| Dim::from(d)).collect();
        let output = self.outputs(&dims)?;
        let too_large = || OpError::new("the output is larger than memory");
        let output: Vec<_> = output
            .iter()
            .map(Dim::size)
            .collect::<Option<_>>()
            .ok_or_else(too_large)?;
        let wide = |l: &[i64]| l.iter().map(|&x| x as usize).collect::<Vec<_>>();
        let pad = |axis: usize| match self.auto {
            Auto::Same { before } => {
                let last = (output[axis].max(1) - 1) * self.strides[axis] as usize;
                let total = (last + self.reach(axis) as usize).saturating_sub(input[axis]);
                if before { total.div_ceil(2) } else { total / 2 }
            }
            _ => self.pads[axis] as usize,
        };
        Ok(Window {
            pads: (0..input.len()).map(pad).collect(),
            input: input.to_vec(),
            size: wide(&self.size),
            strides: wide(&self.strides),
            dilations: wide(&self.dilations),
            output,
        })
    }

    /// The size of the input along `axis` with its border, of an input of size `input`: how far averages count.
    pub(crate) fn padded(&self, axis: usize, window: &Window) -> usize {
        match self.auto {
            Auto::Same { .. } => {
                let last = (window.output[axis].max(1) - 1) * window.strides[axis];
                (last + self.reach(axis) as usize).max(window.input[axis])
            }
            _ => window.input[axis] + (self.pads[axis] + self.pads[axis + self.size.len()]) as usize,
        }
    }
}
