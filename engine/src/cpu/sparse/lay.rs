//! From channels that stand side by side to vectors of positions, and back.

use secateur_simd::{Simd, Vectorised, dispatch};

use super::grid::NOWHERE;
use crate::cpu::Ending;
use crate::cpu::blocked::BLOCK;

/// Floats in a vector.
pub(super) fn lanes() -> usize {
    struct Lanes;
    impl Vectorised for Lanes {
        type Out = usize;
        #[inline(always)]
        fn run<S: Simd>(self, _: S) -> usize {
            S::LANES
        }
    }
    dispatch(Lanes)
}

/// Up to [`BLOCK`] channels that stand side by side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Channels {
    /// Where the first begins in the input, in floats.
    pub(super) x: usize,
    /// How many there are.
    pub(super) live: usize,
    /// The slot of the first.
    pub(super) slot: usize,
}

/// Copies channels at positions of an input to vectors.
pub(super) struct Fill<'a> {
    /// The input.
    pub(super) x: *const f32,
    /// Floats from channel to channel: 1, or that of a plane.
    pub(super) channel: usize,
    /// The channels.
    pub(super) all: &'a [Channels],
    /// The place of each position, vector by vector.
    pub(super) from: &'a [u32],
    /// The first vector of slot 0.
    pub(super) to: *mut f32,
    /// Floats from slot to slot, and slots from channel to channel.
    pub(super) slot: [usize; 2],
    /// Whether one takes all positions of some channels after the other: along what lies side by side in memory.
    pub(super) by_channels: bool,
}

impl Fill<'_> {
    /// # Safety
    ///
    /// The places are within the input for all channels, and the vectors writable.
    pub(super) unsafe fn run(self) {
        dispatch(self);
    }
}

/// What is read where there is nothing.
static ZEROS: [f32; BLOCK] = [0.0; BLOCK];

impl Vectorised for Fill<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let vectors = self.from.len() / S::LANES;
        let (outer, inner) = match self.by_channels {
            true => (self.all.len(), vectors),
            false => (vectors, self.all.len()),
        };
        for o in 0..outer {
            // SAFETY: `Fill::run` is promised this.
            if !self.by_channels && self.channel == 1 && unsafe { self.lines(s, o) } {
                continue;
            }
            for i in 0..inner {
                let (channels, vector) = if self.by_channels { (o, i) } else { (i, o) };
                // SAFETY: as above.
                unsafe {
                    match self.channel {
                        1 => self.turned(s, channels, vector),
                        _ => self.single(s, channels, vector),
                    }
                }
            }
        }
    }
}

impl Fill<'_> {
    /// All channels of a vector of positions, where all of these are there and all blocks whole; else nothing.
    #[inline(always)]
    unsafe fn lines<S: Simd>(&self, s: S, vector: usize) -> bool {
        let from = &self.from[vector * S::LANES..][..S::LANES];
        if from.contains(&NOWHERE) || self.all.iter().any(|c| c.live < BLOCK) {
            return false;
        }
        let mut lines = [self.x; BLOCK];
        for (line, &at) in lines.iter_mut().zip(from) {
            *line = self.x.wrapping_add(at as usize);
        }
        let (to, pitch) = (
            self.to.wrapping_add(vector * S::LANES),
            self.slot[0] * self.slot[1],
        );
        for c in self.all {
            for first in (0..BLOCK).step_by(S::LANES) {
                let mut rows = lines;
                for row in &mut rows {
                    *row = row.wrapping_add(c.x + first);
                }
                let to = to.wrapping_add(c.slot * self.slot[0] + first * pitch);
                // SAFETY: as the caller says.
                unsafe {
                    let square = s.load_turned(&rows);
                    for (i, &row) in square.iter().enumerate().take(S::LANES) {
                        s.store(to.wrapping_add(i * pitch), row);
                    }
                }
            }
        }
        true
    }

    #[inline(always)]
    unsafe fn turned<S: Simd>(&self, s: S, channels: usize, vector: usize) {
        // SAFETY: there are as many.
        let (c, from) = unsafe {
            (
                *self.all.get_unchecked(channels),
                self.from.as_ptr().add(vector * S::LANES),
            )
        };
        let (x, pitch) = (self.x.wrapping_add(c.x), self.slot[0] * self.slot[1]);
        let to = self.to.wrapping_add(c.slot * self.slot[0] + vector * S::LANES);
        let at = |at: u32, first: usize| match at {
            NOWHERE => ZEROS.as_ptr(),
            at => x.wrapping_add(at as usize + first),
        };
        let mut rows = [ZEROS.as_ptr(); BLOCK];
        for first in (0..c.live).step_by(S::LANES) {
            for (i, row) in rows.iter_mut().enumerate().take(S::LANES) {
                // SAFETY: there is a place for each position.
                *row = at(unsafe { *from.add(i) }, first);
            }
            let live = S::LANES.min(c.live - first);
            // SAFETY: as the caller says.
            unsafe {
                if live == S::LANES {
                    let square = s.load_turned(&rows);
                    for (i, &row) in square.iter().enumerate().take(S::LANES) {
                        s.store(to.wrapping_add((first + i) * pitch), row);
                    }
                    continue;
                }
                let mut square = [s.splat(0.0); BLOCK];
                for (i, square) in square.iter_mut().enumerate().take(S::LANES) {
                    *square = s.load_first(rows[i], live);
                }
                let square = s.turned(square);
                for (i, &row) in square.iter().enumerate().take(live) {
                    s.store(to.wrapping_add((first + i) * pitch), row);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn single<S: Simd>(&self, s: S, channels: usize, vector: usize) {
        let (c, from) = (self.all[channels], &self.from[vector * S::LANES..][..S::LANES]);
        let to = self.to.wrapping_add(c.slot * self.slot[0] + vector * S::LANES);
        for channel in 0..c.live {
            let x = self.x.wrapping_add(c.x + channel * self.channel);
            let mut all = [0f32; BLOCK];
            for (y, &at) in all.iter_mut().zip(from) {
                if at != NOWHERE {
                    // SAFETY: as the caller says.
                    *y = unsafe { *x.wrapping_add(at as usize) };
                }
            }
            // SAFETY: as the caller says.
            unsafe {
                s.store(
                    to.wrapping_add(channel * self.slot[0] * self.slot[1]),
                    s.load(all.as_ptr()),
                )
            };
        }
    }
}

/// Writes the halo of a plane whose vectors are there from `plane` on.
pub(super) struct Halo {
    /// The first vector.
    pub(super) plane: *mut f32,
    /// Vectors.
    pub(super) vectors: usize,
    /// Vectors before and behind.
    pub(super) halo: [usize; 2],
}

impl Halo {
    /// # Safety
    ///
    /// All vectors are readable, those of the halo writable, and a float before and behind them readable.
    pub(super) unsafe fn run(self) {
        dispatch(self);
    }
}

impl Vectorised for Halo {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let at = |vector: usize| self.plane.wrapping_add(vector.wrapping_mul(S::LANES));
        for i in 1..=self.halo[0] {
            let to = at(0usize.wrapping_sub(i));
            // SAFETY: as `Halo::run` says; the vector `vectors` further is there, or was written before.
            unsafe {
                s.store(to, s.load(at(self.vectors.wrapping_sub(i)).wrapping_sub(1)));
                *to = 0.0;
            }
        }
        for i in 0..self.halo[1] {
            let to = at(self.vectors + i);
            // SAFETY: as above.
            unsafe {
                s.store(to, s.load(at(i).wrapping_add(1)));
                *to.wrapping_add(S::LANES - 1) = 0.0;
            }
        }
    }
}

/// Something that is added to sums.
#[derive(Clone, Copy)]
pub(super) struct Added<'a> {
    /// That of the first channel.
    pub(super) x: *const f32,
    /// The place for each position, vector by vector; none where all positions have the same.
    pub(super) at: Option<&'a [u32]>,
    /// Floats from block to block of channels.
    pub(super) block: usize,
}

/// Ends the sums of a strip, [`BLOCK`] channels at a time.
pub(super) struct Drain<'a> {
    /// The first row of sums.
    pub(super) sums: *const f32,
    /// Vectors of a row.
    pub(super) vectors: usize,
    /// Rows.
    pub(super) rows: usize,
    /// What is added.
    pub(super) add: [Option<Added<'a>>; 2],
    /// What is done in the end.
    pub(super) end: Ending,
    /// The place of each position in the output, vector by vector.
    pub(super) to: &'a [u32],
    /// The first channel of the output.
    pub(super) y: *mut f32,
    /// Floats from block to block of channels there.
    pub(super) block: usize,
    /// Whether the last block is written as a whole, with zeros behind the last row.
    pub(super) whole: bool,
}

impl Drain<'_> {
    /// # Safety
    ///
    /// The sums are readable, whole blocks of them; the places, those of what is added too, are within their memory, and
    /// those of the output writable.
    pub(super) unsafe fn run(self) {
        dispatch(self);
    }
}

impl Vectorised for Drain<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // SAFETY: as `Drain::run` says.
        unsafe {
            match self.add.map(|a| a.is_some_and(|a| a.at.is_some())) {
                [false, false] => self.all::<S, false, false>(s),
                [false, true] => self.all::<S, false, true>(s),
                [true, false] => self.all::<S, true, false>(s),
                [true, true] => self.all::<S, true, true>(s),
            }
        }
        let live = self.rows % BLOCK;
        if self.whole && live > 0 {
            let last = self.y.wrapping_add(self.rows / BLOCK * self.block);
            for &at in self.to.iter().filter(|&&at| at != NOWHERE) {
                for lane in live..BLOCK {
                    // SAFETY: as above.
                    unsafe { *last.wrapping_add(at as usize + lane) = 0.0 };
                }
            }
        }
    }
}

impl Drain<'_> {
    /// All squares; `P` and `Q` say whether what is added has places.
    #[inline(always)]
    unsafe fn all<S: Simd, const P: bool, const Q: bool>(&self, s: S) {
        let (all, vectors) = (self.rows.div_ceil(S::LANES), self.to.len() / S::LANES);
        // Along what lies side by side: the pixels of a block of channels, or the channels of a row.
        let (outer, inner) = if self.whole {
            (all, vectors)
        } else {
            (vectors, all)
        };
        for o in 0..outer {
            for i in 0..inner {
                let (rows, vector) = if self.whole { (o, i) } else { (i, o) };
                let first = rows * S::LANES;
                // SAFETY: as the caller says.
                unsafe {
                    match first + S::LANES <= self.rows {
                        true => self.square::<S, P, Q, true>(s, first, vector),
                        false => self.square::<S, P, Q, false>(s, first, vector),
                    }
                }
            }
        }
    }

    /// A vector of positions of `LANES` rows from `first` on, or of as many as there are.
    #[inline(always)]
    unsafe fn square<S: Simd, const P: bool, const Q: bool, const WHOLE: bool>(
        &self,
        s: S,
        first: usize,
        vector: usize,
    ) {
        let live = self.rows - first;
        let channel = |block: usize| first / BLOCK * block + first % BLOCK;
        let pitch = self.vectors * S::LANES;
        let sums = self.sums.wrapping_add(first * pitch + vector * S::LANES);
        let mut rows = [sums; BLOCK];
        for (i, row) in rows.iter_mut().enumerate().take(S::LANES) {
            *row = sums.wrapping_add(i * pitch);
        }
        // One after the other, however they lie: else a batch of one, all of whose positions have the same, would differ.
        let (mut x, mut at) = ([sums; 2], [std::ptr::null(); 2]);
        let mut fixed = [s.splat(0.0); 2];
        // SAFETY: as the caller says; what is read or written of fewer rows is cut off.
        unsafe {
            for (i, a) in self.add.iter().enumerate() {
                let Some(a) = a else { continue };
                x[i] = a.x.wrapping_add(channel(a.block));
                match a.at {
                    Some(places) => at[i] = places.as_ptr().add(vector * S::LANES),
                    None if WHOLE => fixed[i] = s.load(x[i]),
                    None => fixed[i] = s.load_first(x[i], live),
                }
            }
            let square = s.load_turned(&rows);
            let y = self.y.wrapping_add(channel(self.block));
            let to = self.to.as_ptr().add(vector * S::LANES);
            for (lane, &sum) in square.iter().enumerate().take(S::LANES) {
                let to = *to.add(lane);
                if to == NOWHERE {
                    continue;
                }
                let mut sum = sum;
                for i in 0..2 {
                    let placed = if i == 0 { P } else { Q };
                    let more = match placed {
                        false => fixed[i],
                        true if WHOLE => s.load(x[i].wrapping_add(*at[i].add(lane) as usize)),
                        true => s.load_first(x[i].wrapping_add(*at[i].add(lane) as usize), live),
                    };
                    sum = s.add(sum, more);
                }
                sum = self.end.apply(s, sum);
                let to = y.wrapping_add(to as usize);
                if WHOLE {
                    s.store(to, sum);
                } else {
                    s.store_first(to, live, sum);
                }
            }
        }
    }
}
