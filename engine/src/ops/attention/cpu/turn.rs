//! Rotary embeddings of floats, one pass over the input.

use secateur_simd::{Simd, Vectorised, dispatch};

use crate::cpu::moves::chunks;
use crate::cpu::{Candidate, Cost, Io};
use crate::ops::OpError;
use crate::ops::pick::bounded;

/// Floats that a task turns, about.
const TASK: usize = 1 << 14;

/// What the kernel turns.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Turns {
    /// `[batch, length, heads, size]` if `packed`, else `[batch, heads, length, size]`.
    pub(in super::super) dims: [usize; 4],
    /// Whether heads lie side by side.
    pub(in super::super) packed: bool,
    /// Pairs that are turned.
    pub(in super::super) half: usize,
    /// Whether the two numbers of a pair are neighbours.
    pub(in super::super) interleaved: bool,
    /// Rows of the tables, if places say which are taken.
    pub(in super::super) table: Option<usize>,
}

impl Turns {
    /// The element, counted through all sequences, that row `r` belongs to.
    fn element(&self, r: usize) -> usize {
        let [_, outer, inner, _] = self.dims;
        match self.packed {
            true => r / inner,
            false => r / (outer * inner) * inner + r % inner,
        }
    }

    /// The row of the tables for each element.
    fn places(&self, io: &Io) -> Result<Option<Vec<usize>>, OpError> {
        let Some(len) = self.table else { return Ok(None) };
        let all = io.input(3).slice::<i64>().iter();
        all.map(|&at| bounded(at, len))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        let places = self.places(io)?;
        let (x, cos, sin) = (io.input(0), io.input(1), io.input(2));
        let (x, cos, sin): (&[f32], &[f32], &[f32]) = (x.slice(), cos.slice(), sin.slice());
        let (pool, size, half) = (io.pool, self.dims[3], self.half);
        let each = (TASK / size.max(1)).max(1);
        let out = io.output(0).bytes();
        if out.is_empty() {
            return Ok(());
        }
        chunks(
            pool,
            out,
            each * size * size_of::<f32>(),
            &|part, to: &mut [u8]| {
                let to: &mut [f32] = bytemuck::cast_slice_mut(to);
                for (i, to) in to.chunks_exact_mut(size).enumerate() {
                    let r = part * each + i;
                    let element = self.element(r);
                    let at = places.as_ref().map_or(element, |p| p[element]) * half;
                    dispatch(Row {
                        from: &x[r * size..][..size],
                        to,
                        cos: &cos[at..][..half],
                        sin: &sin[at..][..half],
                        interleaved: self.interleaved,
                    });
                }
            },
        );
        Ok(())
    }
}

/// The kernel.
pub(in super::super) fn rotary(turns: Turns) -> Candidate {
    let floats: usize = turns.dims.iter().product();
    let cost = Cost::bytes(floats.saturating_mul(2 * size_of::<f32>()));
    let name = format!("rotaryembedding.f32.{}", secateur_simd::isa());
    Candidate::new(name, cost, move |io: &mut Io| turns.run(io))
}

struct Row<'a> {
    from: &'a [f32],
    to: &'a mut [f32],
    cos: &'a [f32],
    sin: &'a [f32],
    interleaved: bool,
}

impl Vectorised for Row<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let half = self.cos.len();
        let angles = self.cos.iter().zip(self.sin);
        let (from, rest) = self.from.split_at(2 * half);
        let (to, behind) = self.to.split_at_mut(2 * half);
        behind.copy_from_slice(rest);
        if self.interleaved {
            let pairs = to.chunks_exact_mut(2).zip(from.chunks_exact(2));
            for ((y, x), (c, s)) in pairs.zip(angles) {
                y[0] = x[0] * c - x[1] * s;
                y[1] = x[0] * s + x[1] * c;
            }
            return;
        }
        let ((a, b), (real, imaginary)) = (from.split_at(half), to.split_at_mut(half));
        let pairs = real.iter_mut().zip(imaginary).zip(a.iter().zip(b));
        for (((y, z), (a, b)), (c, s)) in pairs.zip(angles) {
            *y = a * c - b * s;
            *z = a * s + b * c;
        }
    }
}
