//! Kernels of products of bytes.

use std::sync::Arc;

use super::{INTEGER, LINEAR, Places, byte, spread, totals};
use crate::cpu::int8::{Matrix, Multiply, Products, Requantise, pack, packed_len};
use crate::cpu::{Candidate, Cost, Io, Kernel, Order, Pool};
use crate::ir::DType;
use crate::ops::matmul::matrices::Matrices;
use crate::ops::quant::Loader;
use crate::ops::{NodeRef, OpError};

/// The operands of a product.
struct Operands {
    at: Places,
    products: Products,
    /// For each product, the place of its left operand.
    left: Vec<usize>,
    /// For each product, the number of its right operand among all.
    right: Vec<usize>,
    /// Rows and columns of one matrix, and of all.
    rows: [usize; 2],
    cols: [usize; 2],
    /// The types of the operands have a sign.
    signed: [bool; 2],
    /// Left operand and weights have zero points.
    zeros: [bool; 2],
    matrices: usize,
    packed: Option<Arc<Vec<u8>>>,
}

impl Operands {
    fn new(n: &NodeRef, at: Places) -> Option<Operands> {
        let (a, b, out) = (n.dims(at.a)?, n.dims(at.b)?, n.out_dims(0)?);
        if !byte(n.dtype(at.a)?) || !byte(n.dtype(at.b)?) {
            return None;
        }
        let m = Matrices::new(&a, &b, [false; 2]).ok().filter(|m| m.dims == out)?;
        let [rows, cols] = totals(&m, &a, &b);
        let matrix = (m.k * m.n).max(1);
        let len = packed_len(m.k, m.n)?;
        let matrices = b.iter().product::<usize>() / matrix;
        len.checked_mul(matrices)?;
        let mut left: Vec<_> = m.batch.iter().map(|p| p[0]).collect();
        let mut right: Vec<_> = m.batch.iter().map(|p| p[1] / matrix).collect();
        // Products with one right operand in common are one product of more rows.
        let follow = left.iter().enumerate().all(|(p, &a)| a == p * m.m * m.k);
        let merged = follow && right.iter().all(|&r| r == 0) && !left.is_empty();
        let height = if merged { m.m * left.len() } else { m.m };
        if merged {
            left.truncate(1);
            right.truncate(1);
        }
        let signed = [at.a, at.b].map(|i| n.dtype(i) == Some(DType::I8));
        let packed = n.konst(at.b).map(|t| {
            let order = Order {
                name: format!("int8 {} {} {}", m.k, m.n, signed[1]),
                parts: vec![len * matrices],
                ..Order::default()
            };
            n.packed(at.b, &order, || {
                let mut all = vec![0; len * matrices];
                packed_all(t.bytes(), &m, signed[1], &mut all, &Pool::new(1));
                all
            })
        });
        let starts = right.iter().enumerate().map(|(p, r)| [r * len, p * height * m.n]);
        Some(Operands {
            at,
            products: Products {
                m: height,
                n: m.n,
                k: m.k,
                starts: starts.collect(),
                row: m.n,
                col: 1,
            },
            left,
            right,
            rows: [m.m, rows],
            cols: [m.n, cols],
            signed,
            zeros: at.zeros.map(|i| n.has(i)),
            matrices,
            packed,
        })
    }

    fn scratch(&self) -> usize {
        let len = packed_len(self.products.k, self.products.n).unwrap_or(0);
        if self.packed.is_some() {
            0
        } else {
            len * self.matrices
        }
    }

    fn cost(&self) -> Cost {
        let Products { m, n, k, .. } = self.products;
        let of = |x: &[usize]| x.iter().map(|&x| x as f64).product::<f64>();
        let many = self.left.len();
        Cost {
            flops: 2.0 * of(&[many, m, n, k]),
            bytes: of(&[many, m, k]) + of(&[self.matrices, k, n]) + 4.0 * of(&[many, m, n]),
            efficiency: 0.9,
        }
    }

    /// The bytes of zero point `i` as integers, one of them 0 where it is left out.
    fn zero(&self, io: &Io, i: usize) -> Vec<i32> {
        if !self.zeros[i] {
            return vec![0];
        }
        let wide = |b: u8| {
            if self.signed[i] {
                i32::from(b as i8)
            } else {
                b.into()
            }
        };
        io.input(self.at.zeros[i])
            .bytes()
            .iter()
            .map(|&b| wide(b))
            .collect()
    }

    /// Computes the products; `finish` makes results of the sums from a row and column on, which count through all operands.
    fn run<T: Copy + Default + Send>(
        &self,
        io: &mut Io,
        finish: impl Fn(usize, usize, &[i32], &mut [T]) + Sync,
        out: impl FnOnce(&mut Io) -> *mut T,
    ) -> Result<(), OpError> {
        let (za, zb) = (self.zero(io, 0), self.zero(io, 1));
        let _ = spread(za.len(), self.rows[0], self.rows[1])?;
        let _ = spread(zb.len(), self.cols[0], self.cols[1])?;
        let pool = io.pool;
        if self.packed.is_none() {
            let b = io.input(self.at.b).bytes();
            let m = Matrices {
                m: 0,
                n: self.products.n,
                k: self.products.k,
                a: crate::cpu::gemm::Strides::rows(1),
                b: crate::cpu::gemm::Strides::rows(self.products.n),
                batch: vec![],
                dims: vec![],
                axes: [None; 2],
            };
            packed_all(b, &m, self.signed[1], io.scratch, pool);
        }
        let a = io.input(self.at.a).bytes();
        let len = io.output(0).len();
        let y = out(io);
        // SAFETY: the output has that many elements of this type, and nobody else has them while the kernel runs.
        let y = unsafe { std::slice::from_raw_parts_mut(y, len) };
        let packed: &[u8] = match &self.packed {
            Some(p) => p,
            None => io.scratch,
        };
        let by = By {
            operands: self,
            a,
            za: &za,
            zb: &zb,
            finish,
            out: std::marker::PhantomData::<fn() -> T>,
        };
        self.products.run(packed, &by, y, pool);
        Ok(())
    }
}

/// Packs all right operands.
fn packed_all(b: &[u8], m: &Matrices, signed: bool, out: &mut [u8], pool: &Pool) {
    let (matrix, len) = (m.k * m.n, packed_len(m.k, m.n).unwrap_or(0));
    if matrix == 0 {
        return out.fill(0);
    }
    for i in 0..b.len() / matrix {
        let right = Matrix {
            bytes: b,
            start: i * matrix,
            row: m.b.row,
            col: m.b.col,
            signed,
        };
        pack(right, m.k, m.n, &mut out[i * len..][..len], pool);
    }
}

struct By<'a, F, T> {
    operands: &'a Operands,
    a: &'a [u8],
    za: &'a [i32],
    zb: &'a [i32],
    finish: F,
    out: std::marker::PhantomData<fn() -> T>,
}

impl<F: Fn(usize, usize, &[i32], &mut [T]) + Sync, T: Copy + Default + Send> Multiply for By<'_, F, T> {
    type Out = T;

    fn left(&self, product: usize, row: usize, to: &mut [i16]) {
        let k = self.operands.products.k;
        let start = self.operands.left[product];
        let from = &self.a[start + row * k..][..k];
        let zero = self.za[(start / k.max(1) + row) % self.za.len()] as i16;
        match self.operands.signed[0] {
            true => to
                .iter_mut()
                .zip(from)
                .for_each(|(y, &x)| *y = i16::from(x as i8) - zero),
            false => to
                .iter_mut()
                .zip(from)
                .for_each(|(y, &x)| *y = i16::from(x) - zero),
        }
    }

    fn zero(&self, product: usize, col: usize) -> i32 {
        let of_all = self.operands.right[product] * self.operands.products.n + col;
        let zero = self.zb[of_all % self.zb.len()];
        if self.operands.signed[1] { zero } else { zero - 128 }
    }

    fn finish(&self, product: usize, row: usize, col: usize, sums: &[i32], to: &mut [T]) {
        let (o, k) = (self.operands, self.operands.products.k.max(1));
        let of_all = o.right[product] * o.products.n + col;
        (self.finish)(o.left[product] / k + row, of_all, sums, to);
    }
}

fn name(n: &NodeRef, at: Places) -> String {
    let short = |i| n.dtype(i).map_or(String::new(), crate::cpu::moves::short);
    let op = n.node().op.to_lowercase();
    format!("{op}.{}.{}.{}", short(at.a), short(at.b), secateur_simd::isa())
}

struct Integer(Operands);

impl Kernel for Integer {
    fn scratch(&self, _: usize) -> usize {
        self.0.scratch()
    }

    fn reads(&self, i: usize) -> bool {
        i != self.0.at.b || self.0.packed.is_none()
    }

    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        let copy = |_: usize, _: usize, sums: &[i32], to: &mut [i32]| to.copy_from_slice(sums);
        self.0.run(io, copy, |io| io.output(0).ptr())
    }
}

pub(super) fn integer(n: &NodeRef) -> Option<Candidate> {
    let operands = Operands::new(n, INTEGER)?;
    Some(Candidate::new(
        name(n, INTEGER),
        operands.cost(),
        Integer(operands),
    ))
}

struct Linear {
    operands: Operands,
    scales: Loader,
    dtype: DType,
    signed: bool,
}

impl Kernel for Linear {
    fn scratch(&self, _: usize) -> usize {
        self.operands.scratch()
    }

    fn reads(&self, i: usize) -> bool {
        i != self.operands.at.b || self.operands.packed.is_none()
    }

    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        let scale = |i: usize| {
            let view = io.input(i);
            self.scales.all(view.bytes(), view.len())
        };
        let (sa, sb, sy) = (scale(1), scale(4), scale(6));
        let o = &self.operands;
        let _ = spread(sa.len(), o.rows[0], o.rows[1])?;
        let _ = spread(sb.len(), o.cols[0], o.cols[1])?;
        let zero = io.input(7).bytes();
        let (Some(&sy), Some(&zero)) = (sy.first(), zero.first()) else {
            return Err(OpError::new("an output without a scale"));
        };
        let requantise = Requantise {
            zero: if self.signed {
                (zero as i8).into()
            } else {
                zero.into()
            },
            signed: self.signed,
        };
        let factor = |a: f32, b: f32| {
            let scales = [a.into(), b.into(), sy.into()];
            super::factor(self.dtype, scales) as f32
        };
        let one = (sa.len() == 1).then(|| sb.iter().map(|&b| factor(sa[0], b)).collect::<Vec<_>>());
        let finish = |row: usize, col: usize, sums: &[i32], to: &mut [u8]| match &one {
            Some(all) if all.len() == 1 => requantise.row(sums, all, to),
            Some(all) => requantise.row(sums, &all[col % all.len()..][..sums.len()], to),
            None => {
                let of = |j: usize| factor(sa[row % sa.len()], sb[(col + j) % sb.len()]);
                let all: Vec<_> = (0..sums.len()).map(of).collect();
                requantise.row(sums, &all, to);
            }
        };
        o.run(io, finish, |io| io.output(0).start())
    }
}

pub(super) fn linear(n: &NodeRef) -> Option<Candidate> {
    let (operands, dtype) = (Operands::new(n, LINEAR)?, n.dtype(1)?);
    let kernel = Linear {
        scales: Loader::new(dtype)?,
        dtype,
        signed: n.dtype(7).filter(|&d| byte(d))? == DType::I8,
        operands,
    };
    let cost = kernel.operands.cost();
    Some(Candidate::new(name(n, LINEAR), cost, kernel))
}
