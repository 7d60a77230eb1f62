//! Padding on the CPU: row by row of the last axis that is padded, in stretches that run on.

use super::{Sources, sources, value};
use crate::cpu::moves::{chunks, repeat, short, width};
use crate::cpu::{Candidate, Cost, Io, Pool};
use crate::ir::count;
use crate::ops::NodeRef;

/// Bytes of the result that one task makes, about.
const TASK: usize = 64 << 10;

/// A part of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stretch {
    /// So many constants.
    Constant(usize),
    /// The elements from a place on.
    Run(usize, usize),
}

struct Rows {
    /// For each axis outside a row, the offset in bytes of each place in the source; `None` for the constant.
    outer: Vec<Vec<Option<usize>>>,
    /// In bytes.
    row: Vec<Stretch>,
    /// Bytes of a row of the result.
    len: usize,
}

impl Rows {
    fn new(sources: &Sources, dims: &[usize], width: usize) -> Rows {
        let same = |a: usize| sources[a].iter().copied().eq((0..dims[a]).map(Some));
        let last = (0..dims.len()).rposition(|a| !same(a)).unwrap_or(0);
        // Scalars are a row of one element.
        let along = sources.get(last).cloned().unwrap_or(vec![Some(0)]);
        let mut inner = width * dims.iter().skip(last + 1).product::<usize>();
        let mut row: Vec<Stretch> = vec![];
        for source in &along {
            match (source, row.last_mut()) {
                (None, Some(Stretch::Constant(n))) => *n += inner,
                (None, _) => row.push(Stretch::Constant(inner)),
                (Some(i), Some(Stretch::Run(at, n))) if *at + *n == i * inner => *n += inner,
                (Some(i), _) => row.push(Stretch::Run(i * inner, inner)),
            }
        }
        let len = along.len() * inner;
        let mut outer = vec![];
        for a in (0..last).rev() {
            inner *= dims[a + 1];
            outer.push(sources[a].iter().map(|s| s.map(|i| i * inner)).collect());
        }
        outer.reverse();
        Rows { outer, row, len }
    }

    /// Where the source of row `r` starts; `None` for constants.
    fn offset(&self, mut r: usize) -> Option<usize> {
        let mut at = 0;
        for places in self.outer.iter().rev() {
            at += places[r % places.len()]?;
            r /= places.len();
        }
        Some(at)
    }

    fn run(&self, pool: &Pool, x: &[u8], y: &mut [u8], constant: &[u8]) {
        if y.is_empty() {
            return;
        }
        let each = (TASK / self.len).max(1);
        chunks(pool, y, each * self.len, &|part, y| {
            for (r, y) in y.chunks_mut(self.len).enumerate() {
                let Some(at) = self.offset(part * each + r) else {
                    repeat(y, constant);
                    continue;
                };
                let mut done = 0;
                for stretch in &self.row {
                    match *stretch {
                        Stretch::Constant(n) => {
                            repeat(&mut y[done..done + n], constant);
                            done += n;
                        }
                        Stretch::Run(from, n) => {
                            y[done..done + n].copy_from_slice(&x[at + from..][..n]);
                            done += n;
                        }
                    }
                }
            }
        });
    }
}

pub(super) fn pad(n: &NodeRef) -> Option<Candidate> {
    let (dtype, dims, out) = (n.dtype(0)?, n.dims(0)?, n.out_dims(0)?);
    let width = width(dtype)?;
    let constant = value(n, dtype).ok()??.bytes().to_vec();
    let bytes = count(&out)?.checked_mul(2 * width)?;
    let sources = sources(n, &dims).ok()??;
    let rows = Rows::new(&sources, &dims, width);
    let run = move |io: &mut Io| {
        let given = io.inputs.get(2).copied().flatten();
        let constant = given.map_or(&constant[..], |v| v.bytes());
        let (pool, x) = (io.pool, io.input(0).bytes());
        rows.run(pool, x, io.output(0).bytes(), constant);
    };
    let name = format!("pad.{}", short(dtype));
    Some(Candidate::new(name, Cost::bytes(bytes), run))
}
