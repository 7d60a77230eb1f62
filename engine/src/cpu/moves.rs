//! Kernels that only move elements.

use super::blocked::{self, BLOCK};
use super::copy::StridedCopy;
use super::{Candidate, Cost, Io, Kernel, Pool};
use crate::ir::DType;
use crate::ops::OpError;

/// One copy from an input to an output.
pub struct Move {
    /// The input.
    pub input: usize,
    /// The output.
    pub output: usize,
    /// What goes where.
    pub copy: StridedCopy,
}

/// A kernel that fills its outputs by copies from its inputs, one after the other.
pub struct Moves(pub Vec<Move>);

impl Kernel for Moves {
    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        for m in &self.0 {
            if let Some(out) = io.outputs[m.output].as_mut() {
                let Some(x) = &io.inputs[m.input] else { continue };
                m.copy.run(io.pool, x.bytes(), out.bytes());
            }
        }
        Ok(())
    }
}

/// The kernel `op` that makes `moves` of elements of type `dtype`; none where they cannot be made.
pub fn candidates(op: &str, dtype: DType, moves: Option<Vec<Move>>) -> Vec<Candidate> {
    let Some(moves) = moves else { return vec![] };
    let bytes = moves.iter().map(|m| m.copy.bytes()).sum::<usize>();
    let widest = moves.iter().max_by_key(|m| m.copy.bytes());
    let variant = widest.map_or("run", |m| m.copy.variant());
    let name = format!("{op}.{}.{variant}", short(dtype));
    vec![Candidate::new(
        name,
        Cost::bytes(bytes.saturating_mul(2)),
        Moves(moves),
    )]
}

/// What puts images of dimensions `parts` together along `axis` to `whole`, or takes them apart, on blocks of channels. Along
/// channels each part but the last must have whole blocks. `moves` gets the dimensions of the memory.
pub fn in_blocks(
    op: &str,
    dtype: DType,
    (whole, parts, axis): (&[usize], &[Vec<usize>], usize),
    moves: impl FnOnce(&[usize], &[Vec<usize>]) -> Option<Vec<Move>>,
) -> Vec<Candidate> {
    let fits = |d: &Vec<usize>| axis != 1 || d[1].is_multiple_of(BLOCK);
    let last = parts.len().saturating_sub(1);
    if axis == 0 || dtype != DType::F32 || !parts[..last].iter().all(fits) {
        return vec![];
    }
    let blocks = parts.iter().map(|d| blocked::dims(d)).collect::<Option<Vec<_>>>();
    let all = blocks.zip(blocked::dims(whole));
    let moves = all.and_then(|(parts, whole)| moves(&whole, &parts));
    candidates(&format!("{op}.blocks"), dtype, moves)
}

/// An element type as kernels' names spell it.
pub fn short(dtype: DType) -> String {
    format!("{dtype:?}").to_lowercase()
}

/// Bytes of an element that stands alone; `None` where elements are strings or share bytes.
pub fn width(dtype: DType) -> Option<usize> {
    (dtype.bits() >= 8).then(|| dtype.bits() / 8)
}

/// Fills `out` with the bytes `pattern`, again and again, on all threads.
pub fn fill(pool: &Pool, out: &mut [u8], pattern: &[u8]) {
    const TASK: usize = 64 << 10;
    let len = (TASK / pattern.len().max(1)).max(1) * pattern.len();
    chunks(pool, out, len, &|_, part| repeat(part, pattern));
}

/// Fills `out` with the bytes `pattern`, again and again.
pub fn repeat(out: &mut [u8], pattern: &[u8]) {
    if let Some(&byte) = pattern
        .first()
        .filter(|&first| pattern.iter().all(|b| b == first))
    {
        return out.fill(byte);
    }
    let mut done = pattern.len().min(out.len());
    out[..done].copy_from_slice(&pattern[..done]);
    while done < out.len() && done > 0 {
        let more = done.min(out.len() - done);
        out.copy_within(..more, done);
        done += more;
    }
}

/// Calls `task` with each stretch of `len` elements of `out` (the last may be shorter) and its number, on all threads.
pub fn chunks<T: Send>(pool: &Pool, out: &mut [T], len: usize, task: &(dyn Fn(usize, &mut [T]) + Sync)) {
    struct Start<T>(*mut T);
    // SAFETY: it stands for an exclusive borrow, of which each task takes another part.
    unsafe impl<T: Send> Sync for Start<T> {}
    impl<T> Start<T> {
        fn at(&self, i: usize) -> *mut T {
            self.0.wrapping_add(i)
        }
    }
    let (len, total) = (len.max(1), out.len());
    if total <= len {
        if total > 0 {
            task(0, out);
        }
        return;
    }
    let start = Start(out.as_mut_ptr());
    pool.run(total.div_ceil(len), &|i| {
        let n = len.min(total - i * len);
        // SAFETY: the stretch lies within `out`, and no other task has it.
        task(i, unsafe { std::slice::from_raw_parts_mut(start.at(i * len), n) })
    });
}
