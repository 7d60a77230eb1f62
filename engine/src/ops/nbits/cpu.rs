//! The kernel of `MatMulNBits`: a few rows of weights at a time become floats, which all rows of A are multiplied by.

use secateur_simd::{Simd, Vectorised, dispatch};

use super::{Layout, weights};
use crate::cpu::elementwise::{Inside, Ptr};
use crate::cpu::moves::short;
use crate::cpu::{Candidate, Cost, Io, Kernel};
use crate::ir::{DType, count};
use crate::ops::quant::{Loader, narrow};
use crate::ops::{NodeRef, OpError};

/// Rows of weights that are multiplied at once.
const COLUMNS: usize = 4;

/// Rows of A that are multiplied at once.
const ROWS: usize = 3;

/// Multiply-adds that make a task worth handing to another thread.
const TASK: usize = 1 << 17;

/// `(code - zero) * scale` for each code of `bits` bits.
pub(super) fn unpack(bytes: &[u8], bits: usize, (scale, zero): (f32, f32), to: &mut [f32]) {
    let value = |code: u8| (f32::from(code) - zero) * scale;
    dispatch(Inside(
        #[inline(always)]
        || match bits {
            8 => to.iter_mut().zip(bytes).for_each(|(y, &b)| *y = value(b)),
            4 => {
                for (y, &b) in to.chunks_mut(2).zip(bytes) {
                    let both = [value(b & 15), value(b >> 4)];
                    y.copy_from_slice(&both[..y.len()]);
                }
            }
            _ => {
                for (y, &b) in to.chunks_mut(4).zip(bytes) {
                    let all = [0, 2, 4, 6].map(|s| value(b >> s & 3));
                    y.copy_from_slice(&all[..y.len()]);
                }
            }
        },
    ));
}

/// Products of rows of A and rows of weights, each of `k` floats.
struct Dots<'a> {
    a: &'a [f32],
    w: &'a [f32],
    k: usize,
    sums: &'a mut [[f32; COLUMNS]; ROWS],
}

impl Vectorised for Dots<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let k = self.k;
        assert!(self.a.len() >= ROWS * k && self.w.len() >= COLUMNS * k, "rows");
        let (a, w) = (self.a.as_ptr(), self.w.as_ptr());
        let mut sums = [[s.splat(0.0); COLUMNS]; ROWS];
        for i in (0..k).step_by(S::LANES) {
            let n = S::LANES.min(k - i);
            // SAFETY: `i + n <= k`, and both have rows of `k` floats.
            let load = |p: *const f32| unsafe {
                match n == S::LANES {
                    true => s.load(p.add(i)),
                    false => s.load_first(p.add(i), n),
                }
            };
            let mut columns = [s.splat(0.0); COLUMNS];
            for (c, column) in columns.iter_mut().enumerate() {
                *column = load(w.wrapping_add(c * k));
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = load(a.wrapping_add(r * k));
                for (sum, &column) in sums.iter_mut().zip(&columns) {
                    *sum = s.fma(x, column, *sum);
                }
            }
        }
        for (to, sums) in self.sums.iter_mut().zip(sums) {
            for (to, sum) in to.iter_mut().zip(sums) {
                *to = s.sum(sum);
            }
        }
    }
}

struct Product {
    layout: Layout,
    rows: usize,
    dtype: DType,
    a: Loader,
    bias: Option<Loader>,
}

impl Kernel for Product {
    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        let Layout { n, k, .. } = self.layout;
        let raw: Vec<_> = io
            .inputs
            .iter()
            .map(|v| v.as_ref().map(|v| (v.dtype(), v.bytes())))
            .collect();
        let weights = weights(self.layout, &raw)?;
        let padded = self.rows.next_multiple_of(ROWS);
        let mut a = vec![0.0; padded * k];
        self.a.load(io.input(0).bytes(), 0, &mut a[..self.rows * k]);
        let bias = match &self.bias {
            Some(l) => l.all(io.input(5).bytes(), n),
            None => vec![0.0; n],
        };
        let pool = io.pool;
        let mut floats = vec![
            0.0;
            if self.dtype == DType::F32 {
                0
            } else {
                self.rows * n
            }
        ];
        let out = match self.dtype {
            DType::F32 => Ptr::new(io.output(0).ptr::<f32>()),
            _ => Ptr::new(floats.as_mut_ptr()),
        };
        let each = TASK.div_ceil((k * COLUMNS * padded.max(ROWS)).max(1));
        pool.split(n.div_ceil(COLUMNS), each, &|groups| {
            let mut w = vec![0.0; COLUMNS * k];
            for j in groups.map(|g| g * COLUMNS) {
                let columns = COLUMNS.min(n - j);
                (0..columns).for_each(|c| weights.row(j + c, &mut w[c * k..][..k]));
                for (block, a) in a.chunks_exact((ROWS * k).max(1)).enumerate() {
                    let mut sums = [[0.0; COLUMNS]; ROWS];
                    dispatch(Dots {
                        a,
                        w: &w,
                        k,
                        sums: &mut sums,
                    });
                    let first = block * ROWS;
                    for (row, sums) in (first..self.rows).zip(sums) {
                        for (c, sum) in sums.into_iter().enumerate().take(columns) {
                            // SAFETY: the result has that row and column, and no other task has the column.
                            unsafe { out.get().add(row * n + j + c).write(sum + bias[j + c]) };
                        }
                    }
                }
            }
        });
        if self.dtype != DType::F32 {
            narrow(self.dtype, &floats, io.output(0).bytes());
        }
        Ok(())
    }
}

pub(super) fn product(n: &NodeRef, layout: Layout) -> Option<Candidate> {
    let dtype = n.dtype(0)?;
    let rows = count(&n.dims(0)?)? / layout.k;
    n.out_dims(0)?;
    let bias = match n.has(5) {
        true => Some(Loader::new(n.dtype(5)?)?),
        false => None,
    };
    let kernel = Product {
        layout,
        rows,
        dtype,
        a: Loader::new(dtype)?,
        bias,
    };
    let cost = Cost {
        flops: 2.0 * rows as f64 * layout.n as f64 * layout.k as f64,
        bytes: (layout.n * layout.row()) as f64,
        efficiency: 0.5,
    };
    let name = format!(
        "matmulnbits.{}.{}.{}",
        short(dtype),
        layout.bits,
        secateur_simd::isa()
    );
    Some(Candidate::new(name, cost, kernel))
}
