//! Kernels of `GridSample`: what a point reads is found once for all channels.

use super::place::Sampler;
use crate::cpu::elementwise::{source, target};
use crate::cpu::{Candidate, Cost, Io, Kernel};
use crate::ir::{DType, count};
use crate::ops::{NodeRef, OpError};

/// Points that a task handles.
const POINTS: usize = 256;

pub(super) fn candidates(n: &NodeRef) -> Option<Candidate> {
    let (x, grid, y) = (n.dims(0)?, n.dims(1)?, n.out_dims(0)?);
    let rank = x.len();
    let fits = rank > 2 && grid.len() == rank && grid[0] == x[0] && grid[rank - 1] == rank - 2;
    if !fits || n.dtype(0)? != DType::F32 || n.dtype(1)? != DType::F32 {
        return None;
    }
    let sampler = Sampler::of(n, &x[2..]).ok()?;
    let taps = sampler.most();
    if taps > 64 || count(&y)? == 0 || count(&x)? > u32::MAX as usize {
        return None;
    }
    let points = count(&grid[1..rank - 1])?;
    let channels = x[1];
    let cost = Cost {
        flops: 2.0 * (x[0] * points) as f64 * (channels * taps) as f64,
        bytes: 4.0 * (count(&x)? + count(&y)? + count(&grid)?) as f64,
        efficiency: 0.03,
    };
    let kernel = Lookup {
        taps,
        images: x[0],
        channels,
        plane: count(&x[2..])?,
        points,
        axes: rank - 2,
        sampler,
    };
    Some(Candidate::new("gridsample.f32", cost, kernel))
}

struct Lookup {
    sampler: Sampler,
    /// Pixels that a point reads.
    taps: usize,
    images: usize,
    channels: usize,
    plane: usize,
    points: usize,
    axes: usize,
}

impl Kernel for Lookup {
    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        let grid = io.input(1).slice::<f32>();
        let x = source::<f32>(io, 0, self.images * self.channels * self.plane);
        let y = target::<f32>(io, 0, self.images * self.channels * self.points);
        let parts = self.points.div_ceil(POINTS);
        io.pool.run(self.images * parts, &|task| {
            let (image, first) = (task / parts, task % parts * POINTS);
            let len = POINTS.min(self.points - first);
            let from = (image * self.points + first) * self.axes;
            let (places, weights) = self.find(&grid[from..from + len * self.axes]);
            for c in 0..self.channels {
                let channel = image * self.channels + c;
                // SAFETY: the channel of the image, and the points of the output that no other task writes.
                let (x, y) = unsafe {
                    let y = y.get().add(channel * self.points + first);
                    (
                        std::slice::from_raw_parts(x.get().add(channel * self.plane), self.plane),
                        std::slice::from_raw_parts_mut(y, len),
                    )
                };
                match self.taps {
                    1 => gather::<1>(x, y, &places, &weights),
                    2 => gather::<2>(x, y, &places, &weights),
                    4 => gather::<4>(x, y, &places, &weights),
                    8 => gather::<8>(x, y, &places, &weights),
                    16 => gather::<16>(x, y, &places, &weights),
                    _ => gather::<64>(x, y, &places, &weights),
                }
            }
        });
        Ok(())
    }
}

/// The place of a pixel that is not there.
const NONE: u32 = u32::MAX;

impl Lookup {
    /// Of each point the pixels that it reads, and their weights.
    fn find(&self, grid: &[f32]) -> (Vec<u32>, Vec<f32>) {
        let taps = match self.taps {
            t @ (1 | 2 | 4 | 8 | 16) => t,
            _ => 64,
        };
        let count = grid.len() / self.axes;
        let (mut places, mut weights) = (vec![NONE; count * taps], vec![0.0; count * taps]);
        for (i, point) in grid.chunks_exact(self.axes).enumerate() {
            let mut at = i * taps;
            self.sampler.each(
                |axis| point[axis].into(),
                |place, weight| {
                    places[at] = place as u32;
                    weights[at] = weight as f32;
                    at += 1;
                },
            );
        }
        (places, weights)
    }
}

fn gather<const T: usize>(x: &[f32], y: &mut [f32], places: &[u32], weights: &[f32]) {
    let (places, weights) = (places.as_chunks::<T>().0, weights.as_chunks::<T>().0);
    for ((y, places), weights) in y.iter_mut().zip(places).zip(weights) {
        let mut sum = 0.0;
        for (&place, &weight) in places.iter().zip(weights) {
            // Those that are there come first.
            let Some(x) = x.get(place as usize) else { break };
            sum += x * weight;
        }
        *y = sum;
    }
}
