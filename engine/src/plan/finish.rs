//! From collected steps to a plan: what runs side by side, where values stand, and the kernels themselves.

use std::cmp::Ordering;
use std::sync::{Arc, Mutex};

use super::fork::{self, Load, Turn};
use super::layout::Form;
use super::lower::{Draft, Lowering, PlanError, Room, Seat, Store, size};
use super::{Plan, Step, memory};
use crate::cpu::{Io, LINE, Place, Slot};
use crate::ir::{Tensor, ValueId};

/// Constants of more bytes are not known to the plans that follow.
const KNOWN: usize = 4096;

/// Threads that make kernels.
const MAKERS: usize = 8;

impl Draft {
    fn reads(&self, store: Store) -> bool {
        self.inputs.iter().flatten().any(|s| s.store == store)
    }

    /// Whether it may write `to`, an output, where it reads `from`.
    fn writes_over(&self, from: Store, to: Store) -> bool {
        let able = self
            .outputs
            .iter()
            .take(if self.all_over { usize::MAX } else { 1 });
        let written = able.flatten().find(|s| s.store == to);
        let mut read = self.inputs.iter().enumerate();
        written.is_some_and(|written| {
            read.all(|(i, s)| match s {
                Some(s) if s.store == from => self.over.contains(&i) && s.is_like(written),
                _ => true,
            })
        })
    }
}

impl Lowering<'_> {
    /// The values that are made here and read later.
    fn live(&self, end: usize) -> Vec<ValueId> {
        let nodes = self.graph().order[self.start.from..end].iter();
        let made = nodes.flat_map(|&id| self.graph()[id].outputs.iter().flatten().copied());
        made.filter(|v| self.start.uses.last(*v).is_some_and(|last| last >= end))
            .collect()
    }

    /// The steps, as far as running them side by side goes.
    fn loads(&self) -> Vec<Load> {
        let load = |d: &Draft| {
            let touch = |written| {
                move |s: &Seat| match s.store {
                    Store::Buffer(b) => Some((b, written)),
                    _ => None,
                }
            };
            let read = d.inputs.iter().flatten().filter_map(touch(false));
            let written = d.outputs.iter().flatten().filter_map(touch(true));
            let ms = |threads| self.start.rates.ms(&d.step.kernel, &d.step.cost, threads);
            Load {
                together: ms(self.start.threads),
                alone: ms(1),
                touches: read.chain(written).collect(),
            }
        };
        self.steps.iter().map(load).collect()
    }

    /// Inputs and the outputs that can be written over them, as nobody reads the input any more; `times` are those of steps, `firsts`
    /// the steps that first write each room.
    fn state(&self, outputs: &[(ValueId, Seat)], times: &[usize], firsts: &[usize]) -> Vec<(usize, usize)> {
        let pairs = self.start.state.iter().filter_map(|(before, after)| {
            let input = self.inputs.iter().position(|v| v == before)?;
            let output = outputs.iter().position(|(v, _)| v == after)?;
            let Store::Buffer(b) = outputs[output].1.store else {
                return None;
            };
            let bytes = size(self.facts.of(*before));
            let fits = |r: &&Room| r.output == Some(output) && Some(r.buffer.bytes) == bytes;
            let room = self.rooms.get(b).filter(fits)?;
            let store = Store::Input(input);
            let dtype = |v: &ValueId| self.facts.of(*v).ty.dtype();
            let kept = self.start.uses.is_output(*before) || outputs.iter().any(|(_, s)| s.store == store);
            let mut readers = (0..).zip(&self.steps).filter(|(_, d)| d.reads(store));
            // Steps of a fork have one time, in which nothing but the step that writes first may read.
            let done = |(i, d): (usize, &Draft)| match times[i].cmp(&room.buffer.from) {
                Ordering::Less => true,
                Ordering::Equal => i == firsts[b] && d.writes_over(store, Store::Buffer(b)),
                Ordering::Greater => false,
            };
            (!kept && dtype(before) == dtype(after) && readers.all(done)).then_some((input, output))
        });
        pairs.collect()
    }

    /// Where each buffer stands, and the bytes of the arena; `outputs` outlast all steps.
    fn assign(
        &mut self,
        outputs: &[(ValueId, Seat)],
        turns: &[Turn],
        times: &[usize],
    ) -> (Vec<Place>, usize) {
        let time = |step: usize| times.get(step).copied().unwrap_or(turns.len());
        for room in &mut self.rooms {
            room.buffer.from = time(room.buffer.from);
            room.buffer.to = time(room.buffer.to);
        }
        let last = turns.len();
        for (i, (_, seat)) in outputs.iter().enumerate() {
            if let Store::Buffer(b) = seat.store {
                self.rooms[b].buffer.to = last;
                self.rooms[b].output.get_or_insert(i);
            }
        }
        let inner: Vec<usize> = (0..self.rooms.len())
            .filter(|&r| self.rooms[r].output.is_none())
            .collect();
        let buffers: Vec<_> = inner.iter().map(|&r| self.rooms[r].buffer.clone()).collect();
        let (offsets, arena) = memory::place(&buffers);
        let mut places: Vec<_> = self
            .rooms
            .iter()
            .map(|r| r.output.map_or(Place::Arena(0), Place::Output))
            .collect();
        for (r, offset) in inner.into_iter().zip(offsets) {
            places[r] = Place::Arena(offset);
        }
        (places, arena)
    }

    /// The plan of what has been collected, up to the node at `end`.
    pub(super) fn finish(mut self, end: usize, asked: u64) -> Result<Plan, PlanError> {
        let small = |t: &Tensor| t.dtype().bits() == 0 || t.bytes().len() <= KNOWN;
        let (known, outputs): (Vec<_>, Vec<_>) = self
            .live(end)
            .into_iter()
            .partition(|v| self.facts.konst(*v).is_some_and(|t| small(t)));
        let known: Vec<_> = known
            .into_iter()
            .filter_map(|v| Some((v, Arc::new(self.facts.konst(v)?.aligned()))))
            .collect();
        let outputs: Vec<_> = outputs
            .into_iter()
            .map(|v| (v, self.seat(v, &Form::Rows)))
            .collect();
        let turns = fork::turns(&self.loads(), self.start.threads);
        let mut times = vec![0; self.steps.len()];
        for (time, turn) in turns.iter().enumerate() {
            turn.steps().for_each(|i| times[i] = time);
        }
        let firsts: Vec<_> = self.rooms.iter().map(|r| r.buffer.from).collect();
        let (places, arena) = self.assign(&outputs, &turns, &times);
        let whole = end == self.start.model.graph.order.len();
        let state = match whole && self.start.from == 0 {
            true => self.state(&outputs, &times, &firsts),
            false => vec![],
        };
        let over = |i: usize| state.iter().find(|(input, _)| *input == i);
        let slot = |seat: Seat| Slot {
            place: match seat.store {
                Store::Input(i) => over(i).map_or(Place::Input(i), |&(_, o)| Place::Output(o)),
                Store::Constant(i) => Place::Constant(i),
                Store::Buffer(b) => places[b],
            },
            dtype: seat.dtype,
            dims: seat.dims,
        };
        let mut drafts = std::mem::take(&mut self.steps);
        if !self.start.dry {
            make(&mut drafts, self.start.threads);
        }
        let steps: Vec<Step> = drafts
            .into_iter()
            .map(|d| Step {
                inputs: d.inputs.into_iter().map(|s| s.map(slot)).collect(),
                outputs: d.outputs.into_iter().map(|s| s.map(slot)).collect(),
                ..d.step
            })
            .collect();
        let outputs: Vec<_> = outputs.into_iter().map(|(v, seat)| (v, slot(seat))).collect();
        let scratch = scratch(&steps, &turns, self.start.threads);
        let sizes = [arena, scratch]
            .into_iter()
            .chain(outputs.iter().map(|(_, s)| s.bytes()));
        let needed = sizes.fold(0, usize::saturating_add);
        match self.start.memory {
            Some(available) if needed > available && !self.start.dry => {
                let node = heaviest(&steps);
                return Err(PlanError::Memory {
                    needed,
                    available,
                    node,
                });
            }
            _ => {}
        }
        Ok(Plan {
            folded: self.facts.folded(),
            scratch,
            constants: match self.start.dry {
                true => vec![],
                false => self.constants_of(&steps, &outputs),
            },
            steps,
            turns,
            inputs: self.inputs,
            outputs,
            known,
            end,
            asked,
            whole,
            state,
            arena,
            frames: Mutex::default(),
        })
    }

    /// The constants, aligned where a kernel wants that, and those left out that none reads.
    fn constants_of(&mut self, steps: &[Step], outputs: &[(ValueId, Slot)]) -> Vec<Tensor> {
        let (mut read, mut aligned) = (
            vec![false; self.constants.len()],
            vec![false; self.constants.len()],
        );
        let by_steps = steps.iter().flat_map(|s| {
            let slots = s.inputs.iter().enumerate().filter(|(i, _)| s.run.reads(*i));
            slots.filter_map(|(i, slot)| Some((slot.as_ref()?, s.run.aligned(i))))
        });
        for (slot, whole) in by_steps.chain(outputs.iter().map(|(_, slot)| (slot, true))) {
            if let Place::Constant(i) = slot.place {
                (read[i], aligned[i]) = (true, aligned[i] || whole);
            }
        }
        let constants = std::mem::take(&mut self.constants).into_iter();
        let kept = |((t, read), aligned): ((Tensor, bool), bool)| match (read, aligned) {
            (false, _) => Tensor::of::<u8>(&[0], vec![]),
            (true, false) => t,
            (true, true) => {
                let own = t.aligned();
                if !own.shares(&t) {
                    t.unload();
                }
                own
            }
        };
        constants.zip(read).zip(aligned).map(kept).collect()
    }
}

/// Bytes of scratch memory; every share of a fork has as much as the one that wants most.
fn scratch(steps: &[Step], turns: &[Turn], threads: usize) -> usize {
    let wanted = |i: usize| steps[i].run.scratch(threads);
    let lines = |bytes: usize| bytes.checked_next_multiple_of(LINE).unwrap_or(usize::MAX);
    let each = turns.iter().map(|turn| {
        let most = turn.steps().map(wanted).max().unwrap_or(0);
        match turn {
            Turn::Step(_) => most,
            Turn::Fork(shares) => lines(most).saturating_mul(shares.len()),
        }
    });
    each.max().unwrap_or(0)
}

/// Makes the kernels, on several threads: packing weights is most of what loading takes.
fn make(drafts: &mut [Draft], threads: usize) {
    let queue = Mutex::new(drafts.iter_mut());
    let next = || {
        queue
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .next()
    };
    let work = || {
        while let Some(d) = next() {
            let build = std::mem::replace(&mut d.build, Box::new(|| Box::new(|_: &mut Io| {})));
            d.step.run = build();
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(MAKERS) {
            scope.spawn(work);
        }
        work();
    });
}

/// The step that makes the most, as messages call it.
pub(super) fn heaviest(steps: &[Step]) -> String {
    let made = |s: &&Step| {
        s.outputs
            .iter()
            .flatten()
            .map(Slot::bytes)
            .fold(0, usize::saturating_add)
    };
    let most = steps.iter().max_by_key(made);
    most.map_or("no node".into(), |s| format!("node {:?} ({})", s.node, s.op))
}
