//! Kernels of matrix products.

use std::sync::Arc;

use num_traits::Zero;

use super::matrices::{Matrices, starts, strides};
use super::{sparse, vector};
use crate::cpu::gemm::{Addend, Gemm, Operands, Panels, Place, Rhs, tile_size};
use crate::cpu::number::{ByType, Int, Real, by_type};
use crate::cpu::{Candidate, Cost, Io, Kernel, Post};
use crate::ir::{DType, Element};
use crate::ops::{NodeRef, OpError};

/// What a kernel does beyond the product.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extra {
    /// What the product is multiplied by.
    pub(crate) alpha: f32,
    /// The inputs that are added and what they are multiplied by.
    pub(crate) add: [(usize, f32); 2],
    /// What is applied in the end.
    pub(crate) post: Post,
}

impl Default for Extra {
    fn default() -> Extra {
        Extra {
            alpha: 1.0,
            add: [(usize::MAX, 1.0); 2],
            post: Post::NONE,
        }
    }
}

/// The kernels for `post(alpha A B + addends)`, with A and B transposed where `transposed` says so.
pub(crate) fn candidates(n: &NodeRef, transposed: [bool; 2], extra: Extra) -> Vec<Candidate> {
    let (Some(a), Some(b), Some(out)) = (n.dims(0), n.dims(1), n.out_dims(0)) else {
        return vec![];
    };
    let Some(m) = Matrices::new(&a, &b, transposed).ok().filter(|m| m.dims == out) else {
        return vec![];
    };
    let products: f64 = [m.batch.len(), m.m, m.n, m.k].iter().map(|&n| n as f64).product();
    let elements = |d: &[usize]| d.iter().map(|&n| n as f64).product::<f64>();
    let sizes = elements(&a) + elements(&b) + elements(&out);
    let cost = |bytes: usize, efficiency| Cost {
        flops: 2.0 * products,
        bytes: sizes * bytes as f64,
        efficiency,
    };
    let op = n.node().op.to_lowercase();
    if n.dtype(0) == Some(DType::F32) {
        // A matrix that is not known is brought into panels as it is read.
        let variant = if n.konst(1).is_some() { "" } else { ".values" };
        let name = format!("{op}.f32.{}{variant}", secateur_simd::isa());
        let columns = m.n.next_multiple_of(tile_size().1 / 2) as f64 / m.n.max(1) as f64;
        let cost = Cost {
            flops: 2.0 * products * columns + extra.post.flops() * elements(&out),
            ..cost(4, 0.9)
        };
        let others = [sparse::candidate(n, &m, &extra), vector::candidate(n, &m, &extra)];
        let made = product(n, m, extra).map(|build| Candidate::later(name, cost, build));
        return made.into_iter().chain(others.into_iter().flatten()).collect();
    }
    let Some(dtype) = n.dtype(0) else { return vec![] };
    let kernel = by_type(dtype, Plain { n, m, extra }).flatten();
    let name = format!("{op}.{}", format!("{dtype:?}").to_lowercase());
    let made = |kernel: Box<dyn Kernel>| Candidate {
        name,
        cost: cost(dtype.bits() / 8, 0.01),
        layouts: Default::default(),
        sparse: None,
        build: Box::new(|| kernel),
    };
    kernel.map(made).into_iter().collect()
}

/// An input that is added: `scale * input[start + i * row + j * col]`, with a start for each product.
pub(super) struct Added {
    pub(super) input: usize,
    pub(super) row: usize,
    pub(super) col: usize,
    pub(super) scale: f32,
    pub(super) starts: Vec<usize>,
}

/// The inputs that are there to be added.
pub(super) fn addends(n: &NodeRef, m: &Matrices, extra: &Extra) -> Option<[Option<Added>; 2]> {
    let mut all = [const { None }; 2];
    for (slot, &(input, scale)) in all.iter_mut().zip(&extra.add) {
        if !n.has(input) || scale == 0.0 {
            continue;
        }
        let dims = n.dims(input)?;
        let along = strides(&dims, &m.dims);
        let step = |axis: Option<usize>| axis.map_or(0, |a| along[a]);
        let inner = m.axes.iter().flatten().count();
        let batch = &m.dims[..m.dims.len() - inner];
        let outer = dims.len().saturating_sub(inner);
        let size: usize = dims[outer..].iter().product();
        let starts = match m.batch.len() {
            0 => vec![],
            _ => starts(&dims[..outer], batch),
        };
        *slot = Some(Added {
            input,
            row: step(m.axes[0]),
            // 0 or 1: it is that of the last axis.
            col: step(m.axes[1]),
            scale,
            starts: starts.into_iter().map(|p| p * size).collect(),
        });
    }
    Some(all)
}

/// The memory of what is added.
pub(super) fn added(io: &Io, add: &[Option<Added>; 2]) -> [Addend; 2] {
    [0, 1].map(|s: usize| {
        add[s].as_ref().map_or(Addend::NONE, |a| Addend {
            ptr: io.input(a.input).ptr(),
            row: a.row,
            col: a.col,
            scale: a.scale,
        })
    })
}

/// The product of floats, by [`Gemm`].
struct Product {
    gemm: Gemm,
    panels: Option<Arc<Panels>>,
    add: [Option<Added>; 2],
}

/// What makes the kernel for a product of floats.
fn product(n: &NodeRef, m: Matrices, extra: Extra) -> Option<impl FnOnce() -> Product + Send + 'static> {
    let add = addends(n, &m, &extra)?;
    let (matrix, size, strides) = ((m.k * m.n).max(1), (m.k, m.n), m.b);
    let count = n.konst(1).map_or(0, |w| w.len() / matrix);
    let pack = n.packs(1, Panels::order(count, size, strides), move |w| {
        Panels::new(w, w.len() / matrix, size, strides)
    });
    let place = |(i, [a, b]): (usize, &[usize; 2])| Place {
        a: *a,
        b: match pack.is_some() {
            true => b / matrix * Panels::len(m.k, m.n),
            false => *b,
        },
        add: [0, 1].map(|s: usize| add[s].as_ref().map_or(0, |a| a.starts[i])),
    };
    let gemm = Gemm {
        m: m.m,
        n: m.n,
        k: m.k,
        a: m.a,
        b: match pack.is_some() {
            true => Rhs::Packed,
            false => Rhs::Strided(m.b),
        },
        batch: m.batch.iter().enumerate().map(place).collect(),
        alpha: extra.alpha,
        post: extra.post,
    };
    let row = [0, 1].map(|s: usize| add[s].as_ref().map_or(0, |a| a.row));
    Some(move || Product {
        gemm: gemm.merged(row),
        panels: pack.map(|p| p()),
        add,
    })
}

impl Kernel for Product {
    fn scratch(&self, threads: usize) -> usize {
        self.gemm.scratch(threads)
    }

    fn reads(&self, i: usize) -> bool {
        i != 1 || self.panels.is_none()
    }

    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        let add = added(io, &self.add);
        let x = Operands {
            a: io.input(0).ptr(),
            b: match &self.panels {
                Some(p) => p.data.slice().as_ptr(),
                None => io.input(1).ptr(),
            },
            c: io.output(0).ptr(),
            add,
        };
        // SAFETY: sizes and strides are those of the inputs and the output, which nobody else writes to.
        unsafe { self.gemm.run(x, io.scratch, io.pool) };
        Ok(())
    }
}

/// Products of other element types, one element of the result after the other.
struct Plain<'a, 'n> {
    n: &'a NodeRef<'n>,
    m: Matrices,
    extra: Extra,
}

impl ByType for Plain<'_, '_> {
    type Out = Option<Box<dyn Kernel>>;

    fn real<T: Real>(self) -> Self::Out {
        let Extra { alpha, post, .. } = self.extra;
        if !post.is_none() {
            return None;
        }
        let wide = |x: f32| num_traits::cast::<f32, T::Wide>(x);
        let (alpha, add) = (wide(alpha)?, addends(self.n, &self.m, &self.extra)?);
        let scales = [wide(self.extra.add[0].1)?, wide(self.extra.add[1].1)?];
        let m = self.m;
        Some(Box::new(move |io: &mut Io| {
            let (a, b): (&[T], &[T]) = (io.input(0).slice(), io.input(1).slice());
            let z = [0, 1].map(|s| added_elements::<T>(io, &add[s]));
            each_element(io, &m, |p, i, j| {
                let sum = (0..m.k).fold(T::Wide::zero(), |sum, k| {
                    let (x, y) = pair(&m, p, i, j, k);
                    sum + a[x].wide() * b[y].wide()
                });
                let at = |s: usize| z[s].as_ref().map(|f| f(p, i, j).wide() * scales[s]);
                let extra = [at(0), at(1)].into_iter().flatten();
                T::narrow(extra.fold(sum * alpha, |x, y| x + y))
            });
        }))
    }

    fn int<T: Int>(self) -> Self::Out {
        let Extra { alpha, post, add } = self.extra;
        if !post.is_none() || alpha != 1.0 || add.iter().any(|a| a.1 != 1.0) {
            return None;
        }
        let add = addends(self.n, &self.m, &self.extra)?;
        let m = self.m;
        Some(Box::new(move |io: &mut Io| {
            let (a, b): (&[T], &[T]) = (io.input(0).slice(), io.input(1).slice());
            let z = [0, 1].map(|s| added_elements::<T>(io, &add[s]));
            each_element(io, &m, |p, i, j| {
                let sum = (0..m.k).fold(0i128, |sum, k| {
                    let (x, y) = pair(&m, p, i, j, k);
                    sum.wrapping_add(a[x].wide().wrapping_mul(b[y].wide()))
                });
                let extra = z.iter().flatten().map(|f| f(p, i, j).wide());
                T::narrow(extra.fold(sum, i128::wrapping_add))
            });
        }))
    }
}

/// The positions of the factors number `k` of element `i`, `j` of product `p`.
fn pair(m: &Matrices, p: usize, i: usize, j: usize, k: usize) -> (usize, usize) {
    let [a, b] = m.batch[p];
    (a + i * m.a.row + k * m.a.col, b + k * m.b.row + j * m.b.col)
}

/// The element of an addend for each product, row and column.
fn added_elements<'a, T: Element>(
    io: &Io,
    add: &'a Option<Added>,
) -> Option<impl Fn(usize, usize, usize) -> T + Sync + use<'a, T>> {
    let added = add.as_ref()?;
    let data = Data(io.input(added.input).ptr::<T>());
    let (row, col) = (added.row, added.col);
    // SAFETY: the strides stay within the input; where the output overwrites it, each element is read before.
    Some(move |p: usize, i: usize, j: usize| unsafe { data.read(added.starts[p] + i * row + j * col) })
}

struct Data<T>(*const T);
// SAFETY: it is read only, and only as `added_elements` says.
unsafe impl<T> Sync for Data<T> {}

impl<T: Copy> Data<T> {
    unsafe fn read(&self, at: usize) -> T {
        // SAFETY: the caller knows that there is an element.
        unsafe { *self.0.add(at) }
    }
}

/// Writes `f(product, row, column)` for each element of the output.
fn each_element<T: Element>(io: &mut Io, m: &Matrices, f: impl Fn(usize, usize, usize) -> T + Sync) {
    let (pool, size) = (io.pool, m.m * m.n);
    let len = m.batch.len() * size;
    let out = Target(io.output(0).ptr::<T>());
    pool.split(len, ((1 << 14) / m.k.max(1)).max(16), &|range| {
        for at in range {
            let (p, i, j) = (at / size, at % size / m.n, at % m.n);
            // SAFETY: the output has `len` elements, and no other task writes this one.
            unsafe { out.write(at, f(p, i, j)) };
        }
    });
}

struct Target<T>(*mut T);
// SAFETY: each task writes elements of its own.
unsafe impl<T> Sync for Target<T> {}

impl<T> Target<T> {
    unsafe fn write(&self, at: usize, x: T) {
        // SAFETY: the caller knows that there is an element.
        unsafe { self.0.add(at).write(x) }
    }
}
