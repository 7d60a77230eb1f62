//! Weights of convolutions by Winograd's method.

use std::marker::PhantomData;

use secateur_simd::{Simd, Vectorised, dispatch};

use super::BLOCK;
use super::minimal::{F2, F4, Minimal};
use super::tile::width;
use crate::cpu::conv::Shape;
use crate::cpu::gemm::Floats;
use crate::cpu::{Order, Packed};
use crate::ir::Bytes;

/// Weights at the points, `[outputs / width][point][inputs][width]`.
pub struct Filters(pub(super) Floats);

impl Filters {
    /// The order for a convolution of this shape, by tiles of 4 × 4 or 2 × 2.
    pub fn order(shape: &Shape, four: bool) -> Order {
        let f = if four { 4 } else { 2 };
        let name = format!("winograd {f} {}x{} by {}", shape.outputs, shape.inputs, width());
        Order::floats(name, Filters::len(shape, (f + 2) * (f + 2)))
    }

    /// Floats, at so many points.
    pub(super) fn len(shape: &Shape, points: usize) -> usize {
        shape.outputs.div_ceil(width()) * points * shape.inputs.next_multiple_of(BLOCK) * width()
    }

    /// Transforms `[outputs, inputs, 3, 3]`, in `f64`.
    pub fn new(w: &[f32], shape: &Shape, four: bool) -> Filters {
        let side = if four { 6 } else { 4 };
        let mut data = Floats::zeros(Filters::len(shape, side * side));
        let size = side * side * shape.inputs.next_multiple_of(BLOCK) * width();
        for (panel, to) in data.slice_mut().chunks_exact_mut(size.max(1)).enumerate() {
            for first in (panel * width()..shape.outputs.min((panel + 1) * width())).step_by(BLOCK) {
                let to = &mut to[first % width()..];
                match four {
                    true => dispatch(ToPoints::<F4, 6, 4>(w, shape, first, to, PhantomData)),
                    false => dispatch(ToPoints::<F2, 4, 2>(w, shape, first, to, PhantomData)),
                }
            }
        }
        Filters(data)
    }
}

/// Takes the weights of a block of outputs, the first of which is `.2`, to the points; `.3` is the block's part of a panel.
struct ToPoints<'a, F, const N: usize, const M: usize>(
    &'a [f32],
    &'a Shape,
    usize,
    &'a mut [f32],
    PhantomData<F>,
);

impl<F: Minimal<N, M>, const N: usize, const M: usize> Vectorised for ToPoints<'_, F, N, M> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let ToPoints(w, shape, first, to, _) = self;
        let rows = matrix(F::POINTS);
        let (inputs, width) = (shape.inputs.next_multiple_of(BLOCK), width());
        let live = BLOCK.min(shape.outputs - first);
        for c in 0..shape.inputs {
            let mut g = [[0f64; BLOCK]; 9];
            for o in 0..live {
                let own = &w[((first + o) * shape.inputs + c) * 9..][..9];
                for i in 0..9 {
                    g[i][o] = own[i].into();
                }
            }
            for y in 0..N {
                let mut half = [[0f64; BLOCK]; 3];
                for x in 0..3 {
                    for o in 0..BLOCK {
                        half[x][o] =
                            rows[y][0] * g[x][o] + rows[y][1] * g[3 + x][o] + rows[y][2] * g[6 + x][o];
                    }
                }
                for x in 0..N {
                    let to = &mut to[((y * N + x) * inputs + c) * width..][..live];
                    let mut sums = [0f32; BLOCK];
                    for o in 0..BLOCK {
                        let sum = half[0][o] * rows[x][0] + half[1][o] * rows[x][1] + half[2][o] * rows[x][2];
                        sums[o] = sum as f32;
                    }
                    to.copy_from_slice(&sums[..live]);
                }
            }
        }
    }
}

impl Packed for Filters {
    fn parts(&self) -> Vec<&[u8]> {
        self.0.parts()
    }

    fn from_parts(parts: &[Bytes]) -> Option<Filters> {
        Floats::from_parts(parts).map(Filters)
    }
}

/// The matrix that takes three weights to the points.
pub(super) fn matrix(points: &[(f64, f64)]) -> Vec<[f64; 3]> {
    let row = |&(p, f): &(f64, f64)| [1.0 / f, p / f, p * p / f];
    points.iter().map(row).chain([[0.0, 0.0, 1.0]]).collect()
}
