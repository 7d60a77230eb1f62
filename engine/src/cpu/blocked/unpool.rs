//! The gradient of the greatest elements of windows.

use secateur_simd::{Simd, Vectorised, dispatch};

use super::BLOCK;
use super::pool::{inside, is_quarters};
use crate::cpu::Pool;
use crate::cpu::gemm::Scratch;
use crate::cpu::window::Window;

/// Elements that make a task worth handing to another thread.
const TASK: usize = 1 << 14;

/// Gives each element of one image to the first greatest of its window over another.
pub struct Unpooling {
    /// The window, over two axes.
    pub window: Window,
    /// Images times blocks of channels.
    pub blocks: usize,
}

impl Unpooling {
    /// Sums up in `dx`, an image like `x`, what `dy` gives.
    ///
    /// # Panics
    ///
    /// If one of them is shorter than the window says.
    pub fn run(&self, (x, dy): (&[f32], &[f32]), dx: &mut [f32], pool: &Pool) {
        let w = &self.window;
        let (plane, positions) = (w.plane() * BLOCK, w.positions() * BLOCK);
        assert!(
            x.len().min(dx.len()) >= self.blocks * plane && dy.len() >= self.blocks * positions,
            "blocks"
        );
        let apart = (0..2).all(|a| w.strides[a] >= w.size[a] && w.dilations[a] == 1);
        let whole = (0..2)
            .all(|a| w.strides[a] == w.size[a] && w.output[a] * w.size[a] == w.input[a] && w.pads[a] == 0);
        let dx = Scratch::from(dx);
        pool.split(self.blocks, TASK.div_ceil(plane.max(1)), &|all| {
            for block in all {
                // SAFETY: this block of the image is this task's own.
                let dx = unsafe { std::slice::from_raw_parts_mut(dx.behind(block * plane).start(), plane) };
                if !(apart && whole) {
                    dx.fill(0.0);
                }
                dispatch(Block {
                    window: w,
                    x: &x[block * plane..][..plane],
                    dy: &dy[block * positions..][..positions],
                    dx,
                    apart,
                });
            }
        });
    }
}

struct Block<'a> {
    window: &'a Window,
    x: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
    /// No element is in two windows.
    apart: bool,
}

impl Vectorised for Block<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let w = self.window;
        let apart = self.apart;
        for lane in (0..BLOCK).step_by(S::LANES) {
            let lost = match apart && is_quarters(w) {
                true => self.quarters(s, lane),
                false => self.windows(s, lane),
            };
            // Where nothing is greatest, `MaxPool` says the first element of all.
            if let Some(dx) = self.dx.get_mut(lane..lane + S::LANES) {
                // SAFETY: the slice has a whole vector.
                unsafe { s.store(dx.as_mut_ptr(), s.add(s.load(dx.as_ptr()), lost)) };
            }
        }
    }
}

/// The greatest of a window so far, and which it is.
#[derive(Clone, Copy)]
struct Best<V>(V, V);

impl<V: Copy> Best<V> {
    /// Nothing is greatest of nothing.
    #[inline(always)]
    fn none<S: Simd<F32 = V>>(s: S) -> Self {
        Best(s.splat(f32::NEG_INFINITY), s.splat(-1.0))
    }

    /// With element `i` seen, unless it is NaN.
    #[inline(always)]
    fn with<S: Simd<F32 = V>>(self, s: S, x: V, i: f32) -> Self {
        let better = s.lt(self.0, x);
        Best(s.select(better, x, self.0), s.select(better, s.splat(i), self.1))
    }

    /// `dy` where element `i` is the greatest.
    #[inline(always)]
    fn given<S: Simd<F32 = V>>(self, s: S, dy: V, i: f32) -> V {
        s.select(s.eq(self.1, s.splat(i)), dy, s.splat(0.0))
    }
}

impl Block<'_> {
    /// Windows of any kind; what is given to nothing.
    #[inline(always)]
    fn windows<S: Simd>(&mut self, s: S, lane: usize) -> S::F32 {
        let w = self.window;
        let mut lost = s.splat(0.0);
        for at in 0..w.positions() {
            let (row, column) = (at / w.output[1], at % w.output[1]);
            let across = inside(w, 1, column);
            let places = || {
                let rows = inside(w, 0, row).map(|r| r * w.input[1]);
                let all = rows.flat_map(|r| across.clone().map(move |c| r + c));
                all.enumerate().map(|(i, place)| (i as f32, place * BLOCK + lane))
            };
            let mut best = Best::none(s);
            for (i, at) in places() {
                // SAFETY: the slice has a whole vector.
                let x = unsafe { s.load(self.x[at..][..S::LANES].as_ptr()) };
                best = best.with(s, x, i);
            }
            // SAFETY: as above.
            let dy = unsafe { s.load(self.dy[at * BLOCK + lane..][..S::LANES].as_ptr()) };
            for (i, at) in places() {
                let own = best.given(s, dy, i);
                let dx = &mut self.dx[at..][..S::LANES];
                // SAFETY: as above.
                unsafe {
                    let own = if self.apart {
                        own
                    } else {
                        s.add(s.load(dx.as_ptr()), own)
                    };
                    s.store(dx.as_mut_ptr(), own);
                }
            }
            lost = s.add(lost, best.given(s, dy, -1.0));
        }
        lost
    }

    /// Windows of 2 × 2 that are apart, without a border; what is given to nothing.
    #[inline(always)]
    fn quarters<S: Simd>(&mut self, s: S, lane: usize) -> S::F32 {
        let w = self.window;
        let (line, [down, along]) = (w.input[1] * BLOCK, [w.strides[0], w.strides[1] * BLOCK]);
        let places = [0, BLOCK, line, line + BLOCK];
        let mut lost = s.splat(0.0);
        for row in 0..w.output[0] {
            for column in 0..w.output[1] {
                let first = row * down * line + column * along + lane;
                let last = first + places[3] + S::LANES;
                let (x, dx) = (&self.x[first..last], &mut self.dx[first..last]);
                let dy = &self.dy[(row * w.output[1] + column) * BLOCK + lane..][..S::LANES];
                // SAFETY: the slice has a whole vector.
                let dy = unsafe { s.load(dy.as_ptr()) };
                let mut best = Best::none(s);
                for (i, place) in places.into_iter().enumerate() {
                    // SAFETY: the slices end behind the last place.
                    let x = unsafe { s.load(x.as_ptr().add(place)) };
                    best = best.with(s, x, i as f32);
                }
                for (i, place) in places.into_iter().enumerate() {
                    let own = best.given(s, dy, i as f32);
                    // SAFETY: as above.
                    unsafe { s.store(dx.as_mut_ptr().add(place), own) };
                }
                lost = s.add(lost, best.given(s, dy, -1.0));
            }
        }
        lost
    }
}
