//! The memory of one run, and the steps that work in it.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Mutex;

use super::{Arena, Io, Kernel, LINE, Pool, View, ViewMut};
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
    inputs: &'a [View<'a>],
    constants: &'a [Tensor],
    outputs: Vec<Span<'a>>,
}

impl<'a> Outside<'a> {
    /// What the caller gave, the constants of the plan, and what the caller gets.
    pub fn new(inputs: &'a [View<'a>], constants: &'a [Tensor], outputs: &'a mut [Buffer]) -> Outside<'a> {
        let outputs = outputs.iter_mut().map(|b| Span::new(b.bytes_mut()));
        Outside {
            inputs,
            constants,
            outputs: outputs.collect(),
        }
    }
}

/// Memory that is borrowed exclusively, and of which steps take their parts.
#[derive(Clone, Copy)]
struct Span<'a> {
    start: *mut u8,
    len: usize,
    borrowed: PhantomData<&'a mut [u8]>,
}

// SAFETY: it stands for an exclusive borrow, of which `Job::run` says who takes which part.
unsafe impl Send for Span<'_> {}
// SAFETY: as above.
unsafe impl Sync for Span<'_> {}

impl<'a> Span<'a> {
    fn new(bytes: &'a mut [u8]) -> Span<'a> {
        Span {
            start: bytes.as_mut_ptr(),
            len: bytes.len(),
            borrowed: PhantomData,
        }
    }

    /// `part` of it, which must lie within.
    fn part(self, part: Range<usize>) -> Span<'a> {
        assert!(part.start <= part.end && part.end <= self.len, "memory");
        Span {
            start: self.start.wrapping_add(part.start),
            len: part.len(),
            borrowed: PhantomData,
        }
    }
}

/// A kernel and where its values are.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// The kernel.
    pub kernel: &'a dyn Kernel,
    /// Its inputs.
    pub inputs: &'a [Option<Slot>],
    /// Its outputs.
    pub outputs: &'a [Option<Slot>],
}

impl Frame {
    /// Memory with `arena` bytes for values and `scratch` bytes for kernels.
    pub fn new(arena: usize, scratch: usize) -> Frame {
        Frame {
            arena: Arena::new(arena),
            scratch: Arena::new(scratch),
        }
    }

    /// Runs a job on values of the frame and from outside.
    ///
    /// # Errors
    ///
    /// If the kernel refuses its input.
    ///
    /// # Panics
    ///
    /// If a slot reaches beyond its memory, or an output overlaps another value of the step; only output 0 may be exactly
    /// where an input of the same size is.
    pub fn step(&mut self, job: Job, outside: &mut Outside, pool: &Pool) -> Result<(), OpError> {
        let (arena, scratch) = (
            Span::new(self.arena.bytes_mut()),
            Span::new(self.scratch.bytes_mut()),
        );
        // SAFETY: all memory is borrowed exclusively.
        unsafe { job.run(arena, scratch, outside, pool) }
    }

    /// Runs the jobs of each share on a thread of its own, in order, on as much of the scratch memory as all have.
    ///
    /// # Errors
    ///
    /// The first refusal of a share, with the number of the job.
    ///
    /// # Panics
    ///
    /// As [`step`](Frame::step), and if a job touches what a job of another share writes.
    pub fn fork<'j>(
        &mut self,
        shares: &[Vec<usize>],
        job: &(dyn Fn(usize) -> Job<'j> + Sync),
        outside: &mut Outside,
        pool: &Pool,
    ) -> Result<(), (usize, OpError)> {
        let (arena, scratch) = (
            Span::new(self.arena.bytes_mut()),
            Span::new(self.scratch.bytes_mut()),
        );
        let each = scratch.len / shares.len().max(1) / LINE * LINE;
        let refused = Mutex::new(None);
        let outside = &*outside;
        for (i, share) in shares.iter().enumerate() {
            for other in shares[..i].iter().flatten() {
                share.iter().for_each(|&one| apart(job(one), job(*other)));
            }
        }
        pool.run(shares.len(), &|share| {
            let own = scratch.part(share * each..(share + 1) * each);
            for &i in &shares[share] {
                // SAFETY: shares have their own scratch memory, and keep apart.
                if let Err(what) = unsafe { job(i).run(arena, own, outside, pool) } {
                    let mut refused = refused.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                    refused.get_or_insert((i, what));
                    return;
                }
            }
        });
        let refused = refused
            .into_inner()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        refused.map_or(Ok(()), Err)
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

impl Job<'_> {
    /// # Safety
    ///
    /// Nobody else uses `scratch`, writes what it reads, or touches what it writes.
    unsafe fn run(self, arena: Span, scratch: Span, outside: &Outside, pool: &Pool) -> Result<(), OpError> {
        let Job {
            kernel,
            inputs,
            outputs,
        } = self;
        disjoint(inputs, outputs);
        let mut written: Vec<_> = outputs
            .iter()
            .map(|slot| {
                let slot = slot.as_ref()?;
                let memory = match slot.place {
                    Place::Output(i) => outside.outputs[i],
                    Place::Arena(_) => arena,
                    _ => return None,
                };
                let part = memory.part(within(slot, memory.len));
                // SAFETY: the part lies within the memory, the caller says that no other step overlaps it, and `disjoint` has
                // seen to it that no other view of this one does, but for one that is made by `View::over`.
                let bytes = unsafe { std::slice::from_raw_parts_mut(part.start, part.len) };
                Some(ViewMut::new(slot.dtype, &slot.dims, bytes))
            })
            .collect();
        let read: Vec<_> = inputs
            .iter()
            .enumerate()
            .map(|(i, slot)| {
                let slot = slot.as_ref().filter(|_| kernel.reads(i))?;
                let memory = match slot.place {
                    Place::Input(i) => return Some(reshaped(outside.inputs[i].bytes(), slot)),
                    Place::Constant(i) => return Some(reshaped(outside.constants[i].bytes(), slot)),
                    Place::Output(i) => outside.outputs[i],
                    Place::Arena(_) => arena,
                };
                let part = memory.part(within(slot, memory.len));
                // SAFETY: the part lies within memory that lives as long as this call, and no output overlaps it, unless
                // exactly, and then the view is made one of the output's memory just below.
                let bytes = unsafe { std::slice::from_raw_parts(part.start, part.len) };
                let view = View::new(slot.dtype, &slot.dims, bytes);
                // What takes no bytes may stand where another value does.
                let taken =
                    |out: &Slot| out.place == slot.place && part.len > 0 && out.bytes() == slot.bytes();
                let pairs = outputs.iter().zip(&written);
                let over = pairs.filter(|(out, _)| out.as_ref().is_some_and(taken));
                Some(match over.filter_map(|(_, w)| w.as_ref()).next() {
                    Some(over) => view.over(over),
                    None => view,
                })
            })
            .collect();
        let mut io = Io {
            inputs: &read,
            outputs: &mut written,
            // SAFETY: the caller gives it to this job alone.
            scratch: unsafe { std::slice::from_raw_parts_mut(scratch.start, scratch.len) },
            pool,
        };
        kernel.run(&mut io)
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

/// Whether values share memory.
fn overlap(a: &Slot, b: &Slot) -> bool {
    match (a.place, b.place) {
        (Place::Arena(x), Place::Arena(y)) => x < y + b.bytes() && y < x + a.bytes(),
        (x, y) => x == y && a.bytes() > 0,
    }
}

/// Checks that neither job touches what the other writes.
fn apart(a: Job, b: Job) {
    let clear = |writer: Job, other: Job| {
        let mut touched = other.inputs.iter().chain(other.outputs).flatten();
        touched.all(|t| !writer.outputs.iter().flatten().any(|w| overlap(w, t)))
    };
    let fine = clear(a, b) && clear(b, a);
    assert!(fine, "two jobs overlap that run at the same time");
}

/// Checks that no output overlaps another value, save that an input may be exactly where an output is.
fn disjoint(inputs: &[Option<Slot>], outputs: &[Option<Slot>]) {
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
            let taken_over = input.place == out.place && input.bytes() == out.bytes();
            assert!(taken_over || !overlap(out, input), "an output overlaps an input");
        }
    }
}
