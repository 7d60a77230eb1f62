//! The memory of one run, and the steps that work in it.

use std::ops::Range;

use super::{Arena, Io, Kernel, Pool, View, ViewMut};
use crate::ir::{Buffer, DType, Tensor};
use crate::ops::OpError;

/// Where a value lives while a plan runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// What the caller gave, by number.
    Input(usize),
    /// A constant of the plan, by number.
    Constant(usize),
    /// In the arena, from this byte on.
    Arena(usize),
    /// What the caller gets, by number.
    Output(usize),
}

/// A value's place, type and shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    /// Where it lives.
    pub place: Place,
    /// Its element type, of fixed size.
    pub dtype: DType,
    /// Its shape.
    pub dims: Vec<usize>,
}

impl Slot {
    /// Its size in bytes.
    pub fn bytes(&self) -> usize {
        self.dtype.bytes(self.dims.iter().product()).unwrap_or(0)
    }
}

/// The memory of one run.
pub struct Frame {
    arena: Arena,
    scratch: Arena,
}

/// What a step reads and writes beside the frame.
pub struct Outside<'a> {
    /// What the caller gave.
    pub inputs: &'a [View<'a>],
    /// The constants of the plan.
    pub constants: &'a [Tensor],
    /// What the caller gets.
    pub outputs: &'a mut [Buffer],
}

impl Frame {
    /// Memory with `arena` bytes for values and `scratch` bytes for kernels.
    pub fn new(arena: usize, scratch: usize) -> Frame {
        Frame {
            arena: Arena::new(arena),
            scratch: Arena::new(scratch),
        }
    }

    /// Runs `kernel` on values of the frame and from outside.
    ///
    /// # Errors
    ///
    /// If the kernel refuses its input.
    ///
    /// # Panics
    ///
    /// If a slot reaches beyond its memory, or an output overlaps another value of the step; only output 0 may be exactly
    /// where an input of the same size is.
    pub fn step(
        &mut self,
        kernel: &dyn Kernel,
        inputs: &[Option<Slot>],
        outputs: &[Option<Slot>],
        outside: &mut Outside,
        pool: &Pool,
    ) -> Result<(), OpError> {
        disjoint(inputs, outputs);
        let arena = self.arena.bytes_mut().as_mut_ptr_range();
        let mut written: Vec<_> = outputs
            .iter()
            .map(|slot| {
                let slot = slot.as_ref()?;
                let memory = match slot.place {
                    Place::Output(i) => outside.outputs[i].bytes_mut().as_mut_ptr_range(),
                    Place::Arena(_) => arena.clone(),
                    _ => return None,
                };
                let range = within(slot, memory.end as usize - memory.start as usize);
                // SAFETY: the range lies within the memory, which is borrowed exclusively here, and `disjoint` has seen to it
                // that no other view of the step overlaps it, but for one that is made by `View::over`.
                let bytes =
                    unsafe { std::slice::from_raw_parts_mut(memory.start.add(range.start), range.len()) };
                Some(ViewMut::new(slot.dtype, &slot.dims, bytes))
            })
            .collect();
        let first = outputs.first().and_then(Option::as_ref);
        let read: Vec<_> = inputs
            .iter()
            .enumerate()
            .map(|(i, slot)| {
                let slot = slot.as_ref().filter(|_| kernel.reads(i))?;
                let (range, start) = match slot.place {
                    Place::Input(i) => return Some(reshaped(outside.inputs[i].bytes(), slot)),
                    Place::Constant(i) => return Some(reshaped(outside.constants[i].bytes(), slot)),
                    Place::Output(i) => {
                        let memory = outside.outputs[i].bytes_mut();
                        let (len, start) = (memory.len(), memory.as_ptr());
                        (within(slot, len), start)
                    }
                    Place::Arena(_) => (
                        within(slot, arena.end as usize - arena.start as usize),
                        arena.start.cast_const(),
                    ),
                };
                // SAFETY: the range lies within memory that lives as long as this call, and no output overlaps it, unless
                // exactly, and then the view is made one of the output's memory just below.
                let bytes = unsafe { std::slice::from_raw_parts(start.add(range.start), range.len()) };
                let view = View::new(slot.dtype, &slot.dims, bytes);
                match (first, written.first()) {
                    // What takes no bytes may stand where another value does.
                    (Some(out), Some(Some(over)))
                        if out.place == slot.place && !range.is_empty() && out.bytes() == slot.bytes() =>
                    {
                        Some(view.over(over))
                    }
                    _ => Some(view),
                }
            })
            .collect();
        let mut io = Io {
            inputs: &read,
            outputs: &mut written,
            scratch: self.scratch.bytes_mut(),
            pool,
        };
        kernel.run(&mut io)
    }

    /// Copies the bytes of `slot` to `out`.
    ///
    /// # Panics
    ///
    /// If the sizes differ.
    pub fn read(&self, slot: &Slot, inputs: &[View], constants: &[Tensor], out: &mut [u8]) {
        match slot.place {
            Place::Input(i) => out.copy_from_slice(inputs[i].bytes()),
            Place::Constant(i) => out.copy_from_slice(constants[i].bytes()),
            Place::Arena(_) => out.copy_from_slice(&self.arena.bytes()[within(slot, self.arena.len())]),
            Place::Output(_) => {}
        }
    }
}

fn reshaped<'a>(bytes: &'a [u8], slot: &'a Slot) -> View<'a> {
    View::new(slot.dtype, &slot.dims, bytes)
}

/// The bytes of `slot` within memory of `len` bytes.
fn within(slot: &Slot, len: usize) -> Range<usize> {
    let start = match slot.place {
        Place::Arena(offset) => offset,
        _ => 0,
    };
    let end = start + slot.bytes();
    assert!(
        end <= len,
        "a slot of {} bytes at {start} in memory of {len} bytes",
        slot.bytes()
    );
    start..end
}

/// Checks that no output overlaps another value, save that an input may be exactly where output 0 is.
fn disjoint(inputs: &[Option<Slot>], outputs: &[Option<Slot>]) {
    let overlap = |a: &Slot, b: &Slot| match (a.place, b.place) {
        (Place::Arena(x), Place::Arena(y)) => x < y + b.bytes() && y < x + a.bytes(),
        (x, y) => x == y && a.bytes() > 0,
    };
    for (i, out) in outputs.iter().enumerate() {
        let Some(out) = out else { continue };
        assert!(
            !matches!(out.place, Place::Input(_) | Place::Constant(_)),
            "an output where it may not be"
        );
        for other in outputs[..i].iter().flatten() {
            assert!(!overlap(out, other), "two outputs overlap");
        }
        for input in inputs.iter().flatten() {
            let taken_over = i == 0 && input.place == out.place && input.bytes() == out.bytes();
            assert!(taken_over || !overlap(out, input), "an output overlaps an input");
        }
    }
}
