//! A bit for each weight, and the weights that are not zero.
//!
//! A panel is as many outputs as there are lanes. For each input it has a bit for each output, in words of 64, and the weights of the bits
//! that are set one after the other: they are expanded to their lanes in registers.

use std::ops::Range;

use secateur_simd::Simd;

use super::{AHEAD, FLOATS, Matrix, Sums, lanes};
use crate::cpu::Packed;
use crate::cpu::gemm::Floats;
use crate::ir::Bytes;

pub(super) struct Masks {
    k: usize,
    /// Words of 64 bits.
    bits: Floats,
    weights: Floats,
    /// Where the weights of each panel begin, and where the last ends.
    starts: Vec<usize>,
}

/// Words of a panel.
fn words(k: usize) -> usize {
    k.div_ceil(64 / lanes())
}

/// Where the weights of each of `panels` panels begin, which have `words` words of bits each.
fn starts(bits: &[u64], panels: usize, words: usize) -> Vec<usize> {
    let ends = (0..panels).scan(0, |at, p| {
        let panel = &bits[p * words..(p + 1) * words];
        *at += panel.iter().map(|w| w.count_ones() as usize).sum::<usize>();
        Some(*at)
    });
    [0].into_iter().chain(ends).collect()
}

impl Masks {
    /// Of `n` outputs, with `live` weights that are not zero.
    pub(super) fn new(w: Matrix, n: usize, live: usize) -> Masks {
        let (lanes, words, panels) = (lanes(), words(w.k), n.div_ceil(lanes()));
        let mut bits = Floats::zeros(2 * panels * words + FLOATS);
        let mut weights = Floats::zeros(live + lanes);
        let all: &mut [u64] = bytemuck::cast_slice_mut(bits.slice_mut());
        let (to, mut at) = (weights.slice_mut(), 0);
        for panel in 0..panels {
            let outputs = panel * lanes..n.min((panel + 1) * lanes);
            for k in 0..w.k {
                let (word, shift) = (k * lanes / 64, k * lanes % 64);
                let word = &mut all[panel * words + word];
                for j in outputs.clone() {
                    // Without branches, which nobody could foresee; what is not to stay is written over.
                    let x = w.at(k, j);
                    to[at] = x;
                    *word |= u64::from(x != 0.0) << (shift + j - outputs.start);
                    at += usize::from(x != 0.0);
                }
            }
        }
        // It was written over last, perhaps by -0.
        to[at] = 0.0;
        let starts = starts(bytemuck::cast_slice(bits.slice()), panels, words);
        Masks {
            k: w.k,
            bits,
            weights,
            starts,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let panels = self.starts.len() - 1;
        8 * panels * words(self.k) + 4 * self.starts[panels]
    }

    pub(super) fn parts(&self) -> Vec<&[u8]> {
        [&self.bits, &self.weights]
            .iter()
            .flat_map(|f| f.parts())
            .collect()
    }

    pub(super) fn from_parts(parts: &[Bytes], (k, n): (usize, usize)) -> Option<Masks> {
        let bits = Floats::from_parts(parts.get(..1)?)?;
        let weights = Floats::from_parts(parts.get(1..)?)?;
        let (words, panels) = (words(k), n.div_ceil(lanes()));
        let all: &[u64] = bytemuck::try_cast_slice(bits.slice()).ok()?;
        if panels.checked_mul(words)? > all.len() {
            return None;
        }
        let starts = starts(all, panels, words);
        // A vector is read from where a weight is.
        let enough = starts[panels] + lanes() <= weights.slice().len();
        enough.then_some(Masks {
            k,
            bits,
            weights,
            starts,
        })
    }

    /// Writes the sums of `outputs`, which begin with a panel, to the beginning of each row of `to`.
    ///
    /// # Safety
    ///
    /// `x` are rows of `k` floats; there are such outputs, and no more than `to` holds.
    #[inline(always)]
    pub(super) unsafe fn sums<S: Simd, const T: usize>(
        &self,
        s: S,
        outputs: Range<usize>,
        x: [*const f32; T],
        to: &mut Sums<T>,
    ) {
        let panels = outputs.start / S::LANES..outputs.end.div_ceil(S::LANES);
        for (i, panel) in panels.enumerate() {
            // SAFETY: as the caller says; the panel's sums fit, for both hold whole vectors.
            unsafe {
                let sums = self.panel(s, panel, x);
                for (to, sum) in to.iter_mut().zip(sums) {
                    s.store(to.as_mut_ptr().add(i * S::LANES), sum);
                }
            }
        }
    }

    /// # Safety
    ///
    /// There is such a panel, and `x` are rows of `k` floats.
    #[inline(always)]
    unsafe fn panel<S: Simd, const T: usize>(&self, s: S, panel: usize, x: [*const f32; T]) -> [S::F32; T] {
        let each = 64 / S::LANES;
        let words = self.k.div_ceil(each);
        let bits: &[u64] = bytemuck::cast_slice(self.bits.slice());
        let bits = &bits[panel * words..(panel + 1) * words];
        let (from, to) = (self.starts[panel], self.starts[panel + 1]);
        let many = 2 * (to - from) > self.k * S::LANES;
        let mut run = Run {
            x,
            weights: self.weights.slice().as_ptr().wrapping_add(from),
            sums: [[s.splat(0.0); 2]; T],
        };
        let (whole, rest) = bits.split_at(self.k / each);
        for word in whole {
            s.prefetch(std::ptr::from_ref(word).cast::<f32>().wrapping_add(AHEAD[0] / 2));
            run.fetch(s, many);
            // SAFETY: the panel has as many weights as bits, with a vector behind the last; `each` inputs are left.
            unsafe { run.word(s, *word, each) };
        }
        for word in rest {
            // SAFETY: as above, with fewer inputs.
            unsafe { run.word(s, *word, self.k % each) };
        }
        run.sums.map(|[a, b]| s.add(a, b))
    }
}

/// What a panel has come to.
struct Run<S: Simd, const T: usize> {
    x: [*const f32; T],
    weights: *const f32,
    /// Two for each row, by turns: one would have to wait for itself.
    sums: [[S::F32; 2]; T],
}

impl<S: Simd, const T: usize> Run<S, T> {
    /// Fetches as many lines as a word takes, four at most, or two where few weights are there.
    #[inline(always)]
    fn fetch(&self, s: S, many: bool) {
        let [far, near] = AHEAD.map(|a| self.weights.wrapping_add(a));
        s.prefetch(far);
        s.prefetch(far.wrapping_add(FLOATS));
        if many {
            s.prefetch(far.wrapping_add(2 * FLOATS));
            s.prefetch(far.wrapping_add(3 * FLOATS));
        }
        s.prefetch_near(near);
        s.prefetch_near(near.wrapping_add(FLOATS));
    }

    /// Adds the products of the next `inputs` inputs.
    ///
    /// # Safety
    ///
    /// There are as many inputs, at most those of a word, and as many weights as bits, with a vector behind the last.
    #[inline(always)]
    unsafe fn word(&mut self, s: S, word: u64, inputs: usize) {
        // Bounded by a constant, so that sums stay in registers.
        for i in (0..64 / S::LANES).filter(|&i| i < inputs) {
            let shift = i * S::LANES;
            let before = (word & ((1 << shift) - 1)).count_ones() as usize;
            let bits = (word >> shift) as u32;
            // SAFETY: as the caller says.
            let w = unsafe { s.expand(self.weights.add(before), bits) };
            for (x, sums) in self.x.iter().zip(&mut self.sums) {
                // SAFETY: this row has as many inputs.
                let x = s.splat(unsafe { *x.add(i) });
                sums[i % 2] = s.select(s.mask(bits), s.fma(w, x, sums[i % 2]), sums[i % 2]);
            }
        }
        self.weights = self.weights.wrapping_add(word.count_ones() as usize);
        self.x = self.x.map(|x| x.wrapping_add(inputs));
    }
}
