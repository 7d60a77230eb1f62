//! Products of a few rows with weights that have zeros.
//!
//! Here every weight is used a few times only, so what counts is how many bytes of weights are read. There are two forms:
//!
//! - [masks](masks): a bit for each weight, and those that are not zero;
//! - [steps](steps): 5 bytes for each weight that is not zero, in an order in which vectors find what they are multiplied by near each
//!   other. Where most weights are zero these are fewer, and less work.
//!
//! Outputs are cut into blocks, which are tasks; a sum is never shared between threads, and its order does not depend on the number
//! of rows. What is multiplied by a zero is not looked at, even where it is infinite or NaN.

mod masks;
mod steps;
#[cfg(test)]
mod tests;

use std::ops::Range;

use secateur_simd::{Simd, Vectorised, dispatch};

use self::masks::Masks;
use self::steps::Steps;
use super::lay::lanes;
use crate::cpu::gemm::{Addend, Strides};
use crate::cpu::{Cost, Ending, Order, Packed, Pool, Post};
use crate::ir::Bytes;

/// Most outputs of a block.
const BLOCK: usize = 256;
/// Weights that make a task worth handing to another thread.
const TASK: usize = 8 << 10;
/// Tasks that there should be, so that several threads are busy to the end.
const TASKS: usize = 16;
/// Rows that are multiplied at once.
const ROWS: usize = 4;

/// Floats that are fetched ahead, into the second cache and into the first.
const AHEAD: [usize; 2] = [1024, 256];
/// Floats of a cache line.
const FLOATS: usize = 16;

/// Weights `[k, n]` without their zeros.
pub struct Vector {
    /// Sizes, form, and the ends of the blocks, as a file has them.
    head: Vec<u64>,
    size: (usize, usize),
    /// The outputs of each block, one after the other.
    blocks: Vec<Range<usize>>,
    form: Form,
}

enum Form {
    Masks(Masks),
    Steps(Steps),
}

/// The memory of a product: `y [rows, n] = post(x w + addends)`.
#[derive(Clone, Copy)]
pub struct Tokens {
    /// The left operand, whose rows are contiguous.
    pub x: *const f32,
    /// Rows.
    pub rows: usize,
    /// Floats from row to row of the left operand.
    pub pitch: usize,
    /// The result, row-major.
    pub y: *mut f32,
    /// What is added.
    pub add: [Addend; 2],
    /// What is applied in the end.
    pub post: Post,
}

// SAFETY: `Vector::run` asks for what makes its tasks independent of each other.
unsafe impl Send for Tokens {}
// SAFETY: as above.
unsafe impl Sync for Tokens {}

/// A matrix `[k, n]` in memory.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    w: &'a [f32],
    k: usize,
    strides: Strides,
}

impl Matrix<'_> {
    fn at(&self, k: usize, j: usize) -> f32 {
        self.w[k * self.strides.row + j * self.strides.col]
    }

    /// Calls `f` with row, column and element for the columns `outputs`, those near each other in memory one after the other;
    /// rows of a column come in order.
    fn each(&self, outputs: Range<usize>, mut f: impl FnMut(usize, usize, f32)) {
        let Strides { row, col } = self.strides;
        let from = |at: usize| self.w.get(at..).unwrap_or_default();
        if col == 1 {
            for k in 0..self.k {
                let line = from(k * row + outputs.start).iter();
                outputs.clone().zip(line).for_each(|(j, &x)| f(k, j, x));
            }
        } else {
            for j in outputs {
                let column = from(j * col).iter().step_by(row.max(1));
                (0..self.k).zip(column).for_each(|(k, &x)| f(k, j, x));
            }
        }
    }
}

/// Outputs cut where the number of weights is about equal, at multiples of the lanes; `counts` are those of each output.
fn blocks(counts: &[usize]) -> Vec<Range<usize>> {
    let (total, lanes) = (counts.iter().sum::<usize>(), lanes());
    let tasks = 1 << (total / TASK).clamp(1, TASKS).ilog2();
    let (mut all, mut start, mut sum, mut closed) = (vec![], 0, 0, 1);
    for (i, group) in counts.chunks(lanes).enumerate() {
        sum += group.iter().sum::<usize>();
        let end = counts.len().min((i + 1) * lanes);
        let full = sum > 0 && sum * tasks >= total * closed;
        if full || end - start >= BLOCK || end == counts.len() {
            all.push(start..end);
            start = end;
            closed += usize::from(full);
        }
    }
    all
}

/// Whether weights of which `live` are not zero become steps. One vector instruction expands weights to sixteen lanes; fewer lanes
/// look their places up.
fn is_thin(live: usize, (k, n): (usize, usize)) -> bool {
    let share = if lanes() == 16 { 0.15 } else { 0.5 };
    (live as f64) < share * k as f64 * n as f64
}

impl Vector {
    /// The order of weights, which the instruction set in use decides, and the weights themselves.
    pub fn order((k, n): (usize, usize), strides: Strides) -> Order {
        Order {
            name: format!("sparse vector {k}x{n} by {}, {strides:?}", lanes()),
            parts: vec![],
            limits: vec![k, n],
        }
    }

    /// Packs a matrix `[k, n]`.
    pub fn new(w: &[f32], (k, n): (usize, usize), strides: Strides) -> Vector {
        let mut counts = vec![0; n];
        let w = Matrix { w, k, strides };
        w.each(0..n, |_, j, x| counts[j] += usize::from(x != 0.0));
        let live = counts.iter().sum();
        let blocks = blocks(&counts);
        let form = match is_thin(live, (k, n)) {
            true => Form::Steps(Steps::new(w, &blocks, live)),
            false => Form::Masks(Masks::new(w, n, live)),
        };
        let thin = matches!(form, Form::Steps(_));
        let ends = blocks.iter().map(|b| b.end as u64);
        Vector {
            head: [k as u64, n as u64, u64::from(thin)]
                .into_iter()
                .chain(ends)
                .collect(),
            size: (k, n),
            blocks,
            form,
        }
    }

    /// Bytes of the weights.
    pub fn bytes(&self) -> usize {
        match &self.form {
            Form::Masks(m) => m.bytes(),
            Form::Steps(s) => s.bytes(),
        }
    }

    /// What a product of `rows` rows with a matrix `[k, n]` costs that has `live` weights which are not zero. Operations are those
    /// that dense kernels do in the same time.
    pub fn cost(live: usize, (k, n): (usize, usize), rows: usize) -> Cost {
        let (thin, lanes) = (is_thin(live, (k, n)), lanes() as f64);
        let times = rows.div_ceil(ROWS) as f64;
        let (all, live, rows) = (k as f64 * n as f64, live as f64, rows as f64);
        // Three quarters of a cycle to gather one; a few cycles to expand a vector, each time that weights are gone through, and a
        // half for each row.
        let expand = if lanes == 16.0 { 2.5 } else { 4.0 };
        let (cycles, bytes) = match thin {
            true => (0.75 * live * rows, 5.2 * live),
            false => (
                all / lanes * (expand * times + 0.5 * rows),
                4.0 * live + all / 8.0,
            ),
        };
        Cost {
            flops: 4.0 * lanes * cycles,
            bytes: bytes + 4.0 * rows * (k + n) as f64,
            efficiency: 1.0,
        }
    }

    /// Computes a product.
    ///
    /// # Safety
    ///
    /// `rows` rows of `k` floats of `x`, and all of the addends for `rows` rows and `n` columns are readable, the result is writable,
    /// and nobody else writes to them. An addend may be the result itself, element by element.
    pub unsafe fn run(&self, t: Tokens, pool: &Pool) {
        pool.run(self.blocks.len(), &|block| {
            for row in (0..t.rows).step_by(ROWS) {
                let rows = ROWS.min(t.rows - row);
                // SAFETY: the rows and the block's outputs are within the product, as the caller says, and no other task's.
                unsafe { self.block(block, t.from(row, self.size.1), rows) };
            }
        });
    }

    /// # Safety
    ///
    /// As for [`run`](Vector::run); there are at least `rows` rows, 1 to [`ROWS`] of them.
    unsafe fn block(&self, block: usize, t: Tokens, rows: usize) {
        match rows {
            1 => dispatch(Block::<1>(self, block, t)),
            2 => dispatch(Block::<2>(self, block, t)),
            3 => dispatch(Block::<3>(self, block, t)),
            _ => dispatch(Block::<4>(self, block, t)),
        }
        let outputs = self.blocks[block].clone();
        if t.post.ending().is_none() {
            let y = t.y.wrapping_add(outputs.start);
            // SAFETY: these rows of the result have these columns.
            unsafe { t.post.apply_rows(y, self.size.1, rows, outputs.len()) };
        }
    }
}

impl Tokens {
    /// The same from row `row` on, of results of `n` columns.
    fn from(self, row: usize, n: usize) -> Tokens {
        Tokens {
            x: self.x.wrapping_add(row * self.pitch),
            rows: self.rows - row,
            y: self.y.wrapping_add(row * n),
            add: self.add.map(|a| a.at(row, 0)),
            ..self
        }
    }
}

/// The sums of a block, for `T` rows.
type Sums<const T: usize> = [[f32; BLOCK]; T];

/// The block of that number, for the first `T` rows.
struct Block<'a, const T: usize>(&'a Vector, usize, Tokens);

impl<const T: usize> Vectorised for Block<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Block(v, block, t) = self;
        let mut sums: Sums<T> = [[0.0; BLOCK]; T];
        let x = std::array::from_fn(|row| t.x.wrapping_add(row * t.pitch));
        let outputs = v.blocks[block].clone();
        // SAFETY: each row has `k` floats, and no block more outputs than sums; the form fits the blocks.
        unsafe {
            match &v.form {
                Form::Masks(m) => m.sums(s, outputs.clone(), x, &mut sums),
                Form::Steps(f) => f.sums(s, outputs.clone(), x, &mut sums),
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for j in (0..outputs.len()).step_by(S::LANES) {
                let (col, len) = (outputs.start + j, S::LANES.min(outputs.len() - j));
                // SAFETY: `BLOCK` is a multiple of the lanes.
                let sum = unsafe { s.load(sums.as_ptr().add(j)) };
                // SAFETY: there are as many columns of this row.
                unsafe { finish(s, &t, sum, (row, col, len), row * v.size.1 + col) };
            }
        }
    }
}

/// Adds what is to be added to the `len` sums of row `row` from column `col` on, and stores them from `y + to` on.
#[inline(always)]
unsafe fn finish<S: Simd>(
    s: S,
    t: &Tokens,
    mut sum: S::F32,
    (row, col, len): (usize, usize, usize),
    to: usize,
) {
    for add in t.add.iter().filter(|a| a.is_some()) {
        let add = add.at(row, col);
        // SAFETY: the addend has these columns, or one for all.
        let z = unsafe {
            match add.col {
                0 => s.splat(*add.ptr),
                _ => s.load_first(add.ptr, len),
            }
        };
        sum = s.fma(s.splat(add.scale), z, sum);
    }
    let ended = t.post.ending().unwrap_or(Ending::NONE).apply(s, sum);
    // SAFETY: the result has these columns.
    unsafe { s.store_first(t.y.add(to), len, ended) };
}

impl Packed for Vector {
    fn parts(&self) -> Vec<&[u8]> {
        let form = match &self.form {
            Form::Masks(m) => m.parts(),
            Form::Steps(s) => s.parts(),
        };
        [bytemuck::cast_slice(&self.head)]
            .into_iter()
            .chain(form)
            .collect()
    }

    fn from_parts(parts: &[Bytes]) -> Option<Vector> {
        let (head, parts) = parts.split_first()?;
        let head: &[u64] = bytemuck::try_cast_slice(head).ok()?;
        let &[k, n, thin, ref ends @ ..] = head else {
            return None;
        };
        let (k, n) = (usize::try_from(k).ok()?, usize::try_from(n).ok()?);
        let mut start = 0;
        let next = |&end: &u64| {
            let block = start..usize::try_from(end).ok()?;
            start = block.end;
            let whole = block.start.is_multiple_of(lanes()) && !block.is_empty() && block.len() <= BLOCK;
            whole.then_some(block)
        };
        let blocks = ends.iter().map(next).collect::<Option<Vec<_>>>()?;
        let form = match thin {
            0 => Form::Masks(Masks::from_parts(parts, (k, n))?),
            _ => Form::Steps(Steps::from_parts(parts, (k, n))?),
        };
        (start == n).then(|| Vector {
            head: head.to_vec(),
            size: (k, n),
            blocks,
            form,
        })
    }

    fn keeps(&self, limits: &[usize]) -> bool {
        limits == [self.size.0, self.size.1]
    }
}
