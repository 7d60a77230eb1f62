//! Where queries, keys, values and masks lie in memory.

/// Distances in floats: from sequence to sequence, head to head, and row to row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steps {
    pub(super) batch: usize,
    pub(super) head: usize,
    pub(super) row: usize,
}

impl Steps {
    /// Those of heads side by side if `packed`, else of heads in front of their rows.
    pub(super) fn of(heads: usize, length: usize, size: usize, packed: bool) -> Steps {
        let batch = heads * length * size;
        match packed {
            true => Steps {
                batch,
                head: size,
                row: heads * size,
            },
            false => Steps {
                batch,
                head: length * size,
                row: size,
            },
        }
    }
}

/// A mask, in elements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mask {
    pub(super) steps: Steps,
    /// Columns; there is nothing to be seen behind them.
    pub(super) len: usize,
    pub(super) bools: bool,
}

impl Mask {
    /// The mask of dimensions `dims`, which broadcasts where a size is 1.
    pub(super) fn new(dims: &[usize], bools: bool) -> Mask {
        let step = |back: usize| match dims.len().checked_sub(back) {
            Some(axis) if dims[axis] != 1 => dims[axis + 1..].iter().product(),
            _ => 0,
        };
        Mask {
            steps: Steps {
                batch: step(4),
                head: step(3),
                row: step(2),
            },
            len: dims.last().copied().unwrap_or(0),
            bools,
        }
    }

    /// Bytes of an element.
    pub(super) fn bytes(&self) -> usize {
        if self.bools { 1 } else { size_of::<f32>() }
    }
}

/// Keys or values: those that were there before, and the new ones.
#[derive(Clone, Copy)]
pub(super) struct Lines {
    pub(super) past: *const f32,
    pub(super) past_len: usize,
    pub(super) past_row: usize,
    pub(super) new: *const f32,
    pub(super) new_row: usize,
}

impl Lines {
    /// Line `j`.
    pub(super) fn at(&self, j: usize) -> *const f32 {
        match j.checked_sub(self.past_len) {
            None => self.past.wrapping_add(j * self.past_row),
            Some(j) => self.new.wrapping_add(j * self.new_row),
        }
    }

    /// Lines `from..to` as at most two runs of equal distances: first line, distance, offset and number.
    pub(super) fn runs(
        self,
        from: usize,
        to: usize,
    ) -> impl Iterator<Item = (*const f32, usize, usize, usize)> {
        let cut = self.past_len.clamp(from, to);
        [(from, cut, self.past_row), (cut, to, self.new_row)]
            .into_iter()
            .filter(|(a, b, _)| a < b)
            .map(move |(a, b, row)| (self.at(a), row, a - from, b - a))
    }
}

/// Lines that tasks write, each its own.
#[derive(Clone, Copy)]
pub(super) struct Target(pub(super) *mut f32);

// SAFETY: tasks write lines of their own.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    /// Line `i`, where lines have `size` floats.
    pub(super) fn line(self, i: usize, size: usize) -> *mut f32 {
        self.0.wrapping_add(i * size)
    }
}

/// # Safety
///
/// `n` floats are readable at `from` and writable at `to`, and the two do not overlap.
pub(super) unsafe fn copy(from: *const f32, to: *mut f32, n: usize) {
    // SAFETY: as the caller says.
    unsafe { std::ptr::copy_nonoverlapping(from, to, n) };
}
