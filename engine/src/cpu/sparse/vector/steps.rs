//! Weights that are not zero, each with a byte that says where its input is.
//!
//! A group is as many outputs as there are lanes, of about as many weights each. In a step each lane takes its next weight, if its
//! input is among the 256 from the step's place on; else it waits, with a zero. The place is where the lane that is furthest behind
//! has its next weight. So lanes go through the inputs side by side, and hardly ever wait.
//!
//! For each group there are bytes: the outputs of its lanes within the block, and for each step how far it is from the last, and the
//! places of its weights' inputs from there on.

use std::cmp::Reverse;
use std::ops::Range;

use secateur_simd::Simd;

use super::{AHEAD, Matrix, Sums, lanes};
use crate::cpu::Packed;
use crate::cpu::gemm::Floats;
use crate::ir::Bytes;

/// Inputs that a byte reaches.
const REACH: usize = 256;

pub(super) struct Steps {
    /// Steps of each group.
    counts: Vec<u32>,
    /// Steps before each group, and all.
    starts: Vec<usize>,
    weights: Floats,
    bytes: Floats,
}

/// What grows while weights are packed.
struct Growing {
    counts: Vec<u32>,
    weights: Vec<f32>,
    bytes: Vec<u8>,
}

/// The weights of an output that are not zero, with their inputs.
type Column = Vec<(usize, f32)>;

impl Growing {
    /// Appends the groups of a block.
    fn block(&mut self, w: Matrix, outputs: Range<usize>) {
        let mut columns: Vec<(u8, Column)> = (0..outputs.len()).map(|j| (j as u8, vec![])).collect();
        w.each(outputs.clone(), |k, j, x| {
            if x != 0.0 {
                columns[j - outputs.start].1.push((k, x));
            }
        });
        columns.sort_by_key(|(_, c)| Reverse(c.len()));
        columns.chunks(lanes()).for_each(|group| self.group(group));
    }

    fn group(&mut self, group: &[(u8, Column)]) {
        let lanes = lanes();
        self.bytes.extend(group.iter().map(|(j, _)| j));
        self.bytes.extend((group.len()..lanes).map(|_| 0));
        let mut left: Vec<&[(usize, f32)]> = group.iter().map(|(_, c)| &c[..]).collect();
        left.resize(lanes, &[]);
        let (mut at, mut steps) = (0, 0);
        while let Some(next) = left.iter().filter_map(|c| c.first()).map(|w| w.0).min() {
            let by = (next - at).min(REACH - 1);
            at += by;
            steps += 1;
            self.bytes.push(by as u8);
            for column in &mut left {
                match column.split_first() {
                    Some((&(k, x), rest)) if k < at + REACH => {
                        self.weights.push(x);
                        self.bytes.push((k - at) as u8);
                        *column = rest;
                    }
                    _ => {
                        self.weights.push(0.0);
                        self.bytes.push(0);
                    }
                }
            }
        }
        self.counts.push(steps);
    }
}

fn starts(counts: &[u32]) -> Vec<usize> {
    let ends = counts.iter().scan(0, |at, &n| {
        *at += n as usize;
        Some(*at)
    });
    [0].into_iter().chain(ends).collect()
}

/// Where the bytes of group `group` begin, before which are `steps` steps.
fn bytes_before(group: usize, steps: usize, lanes: usize) -> Option<usize> {
    steps
        .checked_mul(lanes + 1)?
        .checked_add(group.checked_mul(lanes)?)
}

impl Steps {
    /// Of `blocks`, with `live` weights that are not zero.
    pub(super) fn new(w: Matrix, blocks: &[Range<usize>], live: usize) -> Steps {
        let mut to = Growing {
            counts: vec![],
            weights: Vec::with_capacity(live + live / 16),
            bytes: Vec::with_capacity(live + live / 8),
        };
        blocks.iter().for_each(|b| to.block(w, b.clone()));
        let mut bytes = Floats::zeros(to.bytes.len().div_ceil(4));
        bytemuck::cast_slice_mut(bytes.slice_mut())[..to.bytes.len()].copy_from_slice(&to.bytes);
        Steps {
            starts: starts(&to.counts),
            counts: to.counts,
            weights: Floats::whole(&to.weights, 1),
            bytes,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let steps = self.starts[self.counts.len()];
        4 * steps * lanes() + bytes_before(self.counts.len(), steps, lanes()).unwrap_or(0)
    }

    pub(super) fn parts(&self) -> Vec<&[u8]> {
        let counts = [bytemuck::cast_slice(&self.counts)];
        let floats = [&self.weights, &self.bytes].into_iter().flat_map(Packed::parts);
        counts.into_iter().chain(floats).collect()
    }

    pub(super) fn from_parts(parts: &[Bytes], (k, n): (usize, usize)) -> Option<Steps> {
        let [counts, weights, bytes] = parts else {
            return None;
        };
        let counts: &[u32] = bytemuck::try_cast_slice(counts).ok()?;
        let steps = Steps {
            counts: counts.to_vec(),
            starts: starts(counts),
            weights: Floats::from_parts(std::slice::from_ref(weights))?,
            bytes: Floats::from_parts(std::slice::from_ref(bytes))?,
        };
        (steps.counts.len() == n.div_ceil(lanes()) && steps.stays_within(k)?).then_some(steps)
    }

    /// Whether all that the steps say is there, and among `k` inputs.
    fn stays_within(&self, k: usize) -> Option<bool> {
        let (lanes, all) = (lanes(), self.starts[self.counts.len()]);
        let bytes: &[u8] = bytemuck::cast_slice(self.bytes.slice());
        let bytes = bytes.get(..bytes_before(self.counts.len(), all, lanes)?)?;
        let enough = all.checked_mul(lanes)? <= self.weights.slice().len();
        let group = |g: usize| {
            let from = bytes_before(g, self.starts[g], lanes)? + lanes;
            let steps = bytes.get(from..from + self.counts[g] as usize * (lanes + 1))?;
            let mut at = 0;
            Some(steps.chunks_exact(lanes + 1).all(|step| {
                at += usize::from(step[0]);
                let furthest = step[1..].iter().fold(0, |a, &b| a.max(b));
                at + usize::from(furthest) < k
            }))
        };
        Some(enough && (0..self.counts.len()).all(|g| group(g) == Some(true)))
    }

    /// Writes the sums of `outputs` to where their places within the block are in each row of `to`.
    ///
    /// # Safety
    ///
    /// `x` are rows of as many floats as there are inputs; `outputs` are those of a block.
    #[inline(always)]
    pub(super) unsafe fn sums<S: Simd, const T: usize>(
        &self,
        s: S,
        outputs: Range<usize>,
        x: [*const f32; T],
        to: &mut Sums<T>,
    ) {
        for (i, group) in (outputs.start / S::LANES..outputs.end.div_ceil(S::LANES)).enumerate() {
            let from = self.starts[group];
            let bytes: &[u8] = bytemuck::cast_slice(self.bytes.slice());
            let bytes = &bytes[group * S::LANES + from * (S::LANES + 1)..];
            let run = Run {
                x,
                weights: self.weights.slice()[from * S::LANES..].as_ptr(),
                bytes: bytes[S::LANES..].as_ptr(),
            };
            // SAFETY: the group has as many steps, which stay within the inputs.
            let sums = unsafe { run.steps(s, self.starts[group + 1] - from) };
            let live = S::LANES.min(outputs.len() - i * S::LANES);
            for (to, sum) in to.iter_mut().zip(sums) {
                let mut lanes = [0f32; 16];
                // SAFETY: no set has more lanes.
                unsafe { s.store(lanes.as_mut_ptr(), sum) };
                bytes
                    .iter()
                    .zip(lanes)
                    .take(live)
                    .for_each(|(&j, sum)| to[usize::from(j)] = sum);
            }
        }
    }
}

/// What a group has come to.
struct Run<const T: usize> {
    x: [*const f32; T],
    weights: *const f32,
    bytes: *const u8,
}

impl<const T: usize> Run<T> {
    /// The sums of a group of `steps` steps.
    ///
    /// # Safety
    ///
    /// There are as many, and they stay within the inputs.
    #[inline(always)]
    unsafe fn steps<S: Simd>(mut self, s: S, steps: usize) -> [S::F32; T] {
        // By turns: one would have to wait for itself.
        let mut sums = [[s.splat(0.0); 2]; T];
        for _ in 0..steps / 4 {
            // A line of bytes lasts for as long as about four of weights.
            s.prefetch(self.bytes.cast::<f32>().wrapping_add(AHEAD[0] / 4));
            s.prefetch_near(self.bytes.cast::<f32>().wrapping_add(AHEAD[1] / 4));
            for turn in 0..4 {
                s.prefetch(self.weights.wrapping_add(AHEAD[0]));
                s.prefetch_near(self.weights.wrapping_add(AHEAD[1]));
                // SAFETY: as many steps are left.
                unsafe { self.step(s, turn % 2, &mut sums) };
            }
        }
        // Bounded by a constant, so that sums stay in registers.
        for turn in (0..3).filter(|&turn| turn < steps % 4) {
            // SAFETY: as above.
            unsafe { self.step(s, turn % 2, &mut sums) };
        }
        sums.map(|[a, b]| s.add(a, b))
    }

    /// # Safety
    ///
    /// There is another step.
    #[inline(always)]
    unsafe fn step<S: Simd>(&mut self, s: S, turn: usize, sums: &mut [[S::F32; 2]; T]) {
        // SAFETY: a step has a byte, one for each lane, and a weight for each lane.
        let (by, w) = unsafe { (usize::from(*self.bytes), s.load(self.weights)) };
        let skip = s.eq(w, s.splat(0.0));
        for (x, sums) in self.x.iter_mut().zip(sums) {
            *x = x.wrapping_add(by);
            // SAFETY: as above, and the bytes lead to inputs.
            let x = unsafe { s.gather(*x, self.bytes.add(1), skip) };
            sums[turn] = s.fma(w, x, sums[turn]);
        }
        self.bytes = self.bytes.wrapping_add(1 + S::LANES);
        self.weights = self.weights.wrapping_add(S::LANES);
    }
}
