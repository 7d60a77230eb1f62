//! A task: some queries against all the keys that they see, as many at a time as the cache has room for.

use std::ops::Range;

use super::few::{Dots, Mix};
use super::lay::{Lines, Steps};
use super::map::Part;
use super::rows::{Finish, Rows};
use super::{Attend, KEYS, Memory, PANEL, QUERIES};
use crate::cpu::Ending;
use crate::cpu::gemm::{Addend, Tile, balanced, tile_size};

/// Panels of keys whose scores are held at once.
pub(super) const SLOTS: usize = KEYS / PANEL;

/// The panels of keys that are looked at in one step, in the order of their keys.
pub(super) struct Step {
    /// The first key of each.
    first: [usize; SLOTS],
    /// Where the mask of each begins; null where all of it is seen.
    masks: [*const u8; SLOTS],
    panels: usize,
    /// Columns of scores: all panels but the last are whole.
    pub(super) keys: usize,
}

impl Step {
    /// The next panels before key `end` that `part` of a mask does not hide, from panel `*next` on.
    fn new(next: &mut usize, end: usize, part: Option<&Part>) -> Step {
        let mut step = Step {
            first: [0; SLOTS],
            masks: [std::ptr::null(); SLOTS],
            panels: 0,
            keys: 0,
        };
        while step.panels < SLOTS && *next * PANEL < end {
            let (p, key) = (*next, *next * PANEL);
            *next += 1;
            if let Some(part) = part {
                if !part.seen(p) {
                    continue;
                }
                step.masks[step.panels] = part.panel(p);
            }
            step.first[step.panels] = key;
            step.panels += 1;
            step.keys += PANEL.min(end - key);
        }
        step
    }

    /// The columns before key `limit`.
    pub(super) fn before(&self, limit: usize) -> usize {
        let whole = self.first[..self.panels].partition_point(|&key| key + PANEL <= limit);
        let rest = match self.first[..self.panels].get(whole) {
            Some(&key) => limit.saturating_sub(key),
            None => 0,
        };
        (whole * PANEL + rest).min(self.keys)
    }

    /// Each panel of which the mask is to be read: its columns, and the mask.
    pub(super) fn masked(&self) -> impl Iterator<Item = (Range<usize>, *const u8)> + '_ {
        let masks = self.masks[..self.panels].iter().enumerate();
        masks
            .filter(|(_, mask)| !mask.is_null())
            .map(|(i, &mask)| (i * PANEL..self.keys.min((i + 1) * PANEL), mask))
    }

    /// Keys that follow each other, of the first `columns`: the first key, its column, and their number.
    fn runs(&self, columns: usize) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            let column = at * PANEL;
            let key = *self.first[..self.panels].get(at).filter(|_| column < columns)?;
            let next = |at: usize| key + column.abs_diff(at * PANEL);
            at += 1;
            while at < self.panels && self.first[at] == next(at) {
                at += 1;
            }
            Some((key, column, columns.min(at * PANEL) - column))
        })
    }
}

/// What a task works on.
struct Task {
    /// The head of keys, counted through all sequences.
    head: usize,
    q: *const f32,
    out: *mut f32,
    count: usize,
    scores: *mut f32,
    state: *mut f32,
}

/// A right operand in panels: where a panel begins for each key and column, and the distance from row to row.
struct Panels {
    from: *const f32,
    row: usize,
    column: usize,
}

impl Attend {
    /// Rows `first..` of lane `lane`, as many as a task handles.
    ///
    /// # Safety
    ///
    /// The memory is that of the node, the packed keys and values are there, and no other task has these rows or the
    /// part of `thread`.
    pub(super) unsafe fn block(&self, m: &Memory, lane: usize, first: usize, thread: usize) {
        let (b, h) = (lane / self.lanes, lane % self.lanes);
        let at = |s: Steps| b * s.batch + h * s.head + first * s.row;
        let (scores, pitch) = (m.own.of(thread, self.own()), self.pitch());
        let count = self.rows.min(first + QUERIES) - first;
        let task = Task {
            head: b * self.s.kv_heads + h * self.per / (self.s.group()),
            q: m.q.wrapping_add(at(self.q)),
            out: m.out.wrapping_add(at(self.out)),
            count,
            scores,
            state: scores.wrapping_add(self.rows.min(QUERIES) * pitch),
        };
        let part = self.mask.as_ref().zip(m.tiles);
        let part = part.map(|(mask, tiles)| mask.grid.part(tiles, mask.pieces(), m.mask, [b, h, first]));
        let end = self.end(m, b, first + count);
        // A row sees the keys up to its own place; rows of a lane of single queries stand at the same place.
        let row = usize::from(self.per == 1);
        let (mut next, mut begun) = (0, false);
        loop {
            let step = Step::new(&mut next, end, part.as_ref());
            if step.keys == 0 {
                break;
            }
            let rows = Rows {
                scores,
                pitch,
                step: &step,
                count,
                open: self
                    .options
                    .causal
                    .then_some((self.s.past + first * row + 1, row)),
                state: task.state,
                out: task.out,
                out_row: self.out.row,
                width: self.s.width,
                begun,
                softcap: self.options.softcap,
                mask: self
                    .mask
                    .as_ref()
                    .zip(part)
                    .map(|(mask, part)| (mask.mask.bools, part.row())),
            };
            // SAFETY: as the caller says; the keys of the step are there.
            unsafe {
                match self.few() {
                    true => self.as_they_lie(m, &task, &rows),
                    false => self.in_tiles(m, &task, &rows),
                }
            }
            begun = true;
        }
        // SAFETY: these are the rows of this task.
        unsafe {
            Finish {
                out: task.out,
                out_row: self.out.row,
                width: self.s.width,
                count,
                sums: begun.then(|| task.state.wrapping_add(QUERIES).cast_const()),
            }
            .run();
        }
    }

    /// The keys of sequence `b` that some row before `last` may see.
    fn end(&self, m: &Memory, b: usize, last: usize) -> usize {
        let mask = self.mask.as_ref().map_or(usize::MAX, |m| m.mask.len);
        let length = match m.lengths {
            Some(all) => usize::try_from(all[b]).unwrap_or(0),
            None => usize::MAX,
        };
        self.s.total().min(mask).min(length).min(self.limit(last))
    }

    /// Packed keys.
    fn key_panels(&self, m: &Memory, head: usize) -> Panels {
        Panels {
            from: m.keys.of(head, self.packed()[0]),
            row: tile_size().1,
            column: 0,
        }
    }

    /// Values, packed or as they lie.
    fn value_panels(&self, m: &Memory, head: usize) -> Panels {
        match self.values_lie() {
            true => Panels {
                from: self.values(m, head).new,
                row: self.v.row,
                column: 1,
            },
            false => Panels {
                from: m.values.of(head, self.packed()[1]),
                row: tile_size().1,
                column: self.s.total(),
            },
        }
    }

    /// # Safety
    ///
    /// As for [`block`](Attend::block).
    unsafe fn in_tiles(&self, m: &Memory, task: &Task, rows: &Rows) {
        let (height, width) = tile_size();
        let tiles = balanced(task.count, height);
        let keys = self.key_panels(m, task.head);
        let blank = Tile {
            a: task.q,
            a_row: self.q.row,
            a_k: 1,
            b: keys.from,
            b_k: keys.row,
            k: self.s.depth,
            c: task.scores,
            c_row: rows.pitch,
            cols: width,
            alpha: self.scale,
            accumulate: false,
            add: [Addend::NONE; 2],
            end: Ending::NONE,
            next: None,
            slowly: false,
        };
        for (key, column, count) in rows.step.runs(rows.step.keys) {
            for j in (0..count).step_by(width) {
                // Later rows see more.
                for t in tiles.clone().filter(|t| column + j < rows.seen(t.end - 1)) {
                    let tile = Tile {
                        a: blank.a.wrapping_add(t.start * blank.a_row),
                        b: blank.b.wrapping_add((key + j) * self.s.depth),
                        c: blank.c.wrapping_add(t.start * blank.c_row + column + j),
                        cols: width.min(count - j),
                        ..blank
                    };
                    // SAFETY: these rows and this panel are there, and so are the scores.
                    unsafe { tile.run(t.len()) };
                }
            }
        }
        // SAFETY: the scores that somebody sees were computed just now.
        unsafe { rows.run() };
        let values = self.value_panels(m, task.head);
        for t in tiles {
            for (key, column, count) in rows.step.runs(rows.seen(t.end - 1)) {
                for j in (0..self.s.width).step_by(width) {
                    let tile = Tile {
                        a: task.scores.wrapping_add(t.start * rows.pitch + column),
                        a_row: rows.pitch,
                        b: values.from.wrapping_add(key * values.row + j * values.column),
                        b_k: values.row,
                        k: count,
                        c: task.out.wrapping_add(t.start * self.out.row + j),
                        c_row: self.out.row,
                        cols: width.min(self.s.width - j),
                        alpha: 1.0,
                        accumulate: rows.begun || column > 0,
                        ..blank
                    };
                    // SAFETY: these rows and this panel are there, and the rows of the output are this task's.
                    unsafe { tile.run(t.len()) };
                }
            }
            if !rows.begun && rows.seen(t.end - 1) == 0 {
                let blank = Finish {
                    out: task.out.wrapping_add(t.start * self.out.row),
                    out_row: self.out.row,
                    width: self.s.width,
                    count: t.len(),
                    sums: None,
                };
                // SAFETY: as above.
                unsafe { blank.run() };
            }
        }
    }

    /// # Safety
    ///
    /// As for [`block`](Attend::block).
    unsafe fn as_they_lie(&self, m: &Memory, task: &Task, rows: &Rows) {
        let (s, keys, values) = (&self.s, self.keys(m, task.head), self.values(m, task.head));
        let parts = |lines: Lines| {
            let runs = rows.step.runs(rows.step.keys);
            runs.flat_map(move |(key, column, count)| {
                let two = lines.runs(key, key + count);
                two.map(move |(from, row, offset, count)| (from, row, column + offset, count))
            })
        };
        for (lines, row, column, count) in parts(keys) {
            let dots = Dots {
                a: task.q,
                a_row: self.q.row,
                rows: task.count,
                lines,
                row,
                count,
                size: s.depth,
                scale: self.scale,
                to: task.scores.wrapping_add(column),
                pitch: rows.pitch,
            };
            // SAFETY: the lines are keys, and there is a score for each.
            unsafe { dots.run() };
        }
        // SAFETY: the scores were computed just now.
        unsafe { rows.run() };
        for (lines, row, column, count) in parts(values) {
            let mix = Mix {
                parts: task.scores.wrapping_add(column),
                pitch: rows.pitch,
                rows: task.count,
                lines,
                row,
                count,
                size: s.width,
                to: task.out,
                to_row: self.out.row,
                more: rows.begun || column > 0,
            };
            // SAFETY: the lines are values, and the rows of the output are this task's.
            unsafe { mix.run() };
        }
    }
}
