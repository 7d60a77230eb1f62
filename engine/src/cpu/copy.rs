//! Copies between strided arrays: what transposing, slicing, joining, expanding and tiling come down to.

use super::Pool;
use crate::ir::count;

/// Bytes that one task copies, about.
const TASK: usize = 64 << 10;

/// Rows of a transposing tile: one cache line of 4-byte elements.
const TILE: usize = 16;

/// One axis of a copy: its length, and the bytes between neighbours on either side.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Axis {
    len: usize,
    from: isize,
    to: isize,
}

impl Axis {
    /// The axis that runs through all of `self` for each of `inner`, if there is one.
    fn merged(self, inner: Axis) -> Option<Axis> {
        let n = inner.len as isize;
        (self.from == inner.from * n && self.to == inner.to * n).then(|| Axis {
            len: self.len * inner.len,
            ..inner
        })
    }
}

/// The innermost loops of a copy.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Inner {
    /// One run of bytes.
    Run,
    /// Runs along one axis.
    Line(Axis),
    /// Single elements; those of `rows` are neighbours in the source, those of `columns` in the destination.
    Turn { rows: Axis, columns: Axis },
}

/// Where the elements of one side of a copy lie, in elements: that of index 0, and the steps along each axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Lay {
    /// The place of the first element.
    pub start: isize,
    /// The distance of neighbours along each axis.
    pub steps: Vec<isize>,
}

impl Lay {
    /// A dense row-major array of dimensions `dims`.
    pub fn dense(dims: &[usize]) -> Lay {
        Lay {
            start: 0,
            steps: steps(dims),
        }
    }
}

/// The distances, in elements, of neighbours along each axis of a dense row-major array.
pub fn steps(dims: &[usize]) -> Vec<isize> {
    let mut steps = vec![1isize; dims.len()];
    for i in (1..dims.len()).rev() {
        steps[i - 1] = steps[i].wrapping_mul(dims[i] as isize);
    }
    steps
}

/// A copy of an n-dimensional array between two memories, its axes merged and ordered for speed.
#[derive(Clone, Debug)]
pub struct StridedCopy {
    axes: Vec<Axis>,
    inner: Inner,
    run: usize,
    start: (isize, isize),
    reach: (usize, usize),
    bytes: usize,
    strip: usize,
    strips: usize,
}

impl StridedCopy {
    /// The copy of an array of dimensions `dims` with elements of `width` bytes. `None` if it is larger than memory,
    /// reaches before the start of either side, or writes an element twice.
    pub fn new(width: usize, dims: &[usize], from: &Lay, to: &Lay) -> Option<StridedCopy> {
        let bytes = count(dims)?
            .checked_mul(width)
            .filter(|&b| isize::try_from(b).is_ok())?;
        let mut copy = StridedCopy {
            axes: vec![],
            inner: Inner::Run,
            run: width,
            start: (0, 0),
            reach: (0, 0),
            bytes,
            strip: 1,
            strips: 0,
        };
        if bytes == 0 {
            return Some(copy);
        }
        let w = width as isize;
        let scaled = |x: isize| x.checked_mul(w);
        for ((&len, &from), &to) in dims.iter().zip(&from.steps).zip(&to.steps) {
            let (from, to) = (scaled(from)?, scaled(to)?);
            copy.axes.extend((len > 1).then_some(Axis { len, from, to }));
        }
        copy.start = (scaled(from.start)?, scaled(to.start)?);
        copy.reach = (
            copy.end(copy.start.0, |a| a.from)?,
            copy.end(copy.start.1, |a| a.to)?,
        );
        copy.axes.sort_by_key(|a| std::cmp::Reverse(a.to.unsigned_abs()));
        if !copy.distinct() {
            return None;
        }
        copy.merge();
        copy.choose(width);
        copy.cut();
        Some(copy)
    }

    /// The end of the bytes it touches on the side of `step`; `None` if it reaches before the start.
    fn end(&self, start: isize, step: impl Fn(&Axis) -> isize) -> Option<usize> {
        let (mut low, mut high) = (start, start);
        for a in &self.axes {
            let far = step(a).checked_mul(a.len as isize - 1)?;
            low = low.checked_add(far.min(0))?;
            high = high.checked_add(far.max(0))?;
        }
        let end = usize::try_from(high).ok()?.checked_add(self.run)?;
        (low >= 0).then_some(end)
    }

    /// Whether each axis of the destination steps over all that is inside it.
    fn distinct(&self) -> bool {
        let mut inside = Some(self.run);
        self.axes.iter().rev().all(|a| {
            let clear = inside.is_some_and(|n| a.to.unsigned_abs() >= n);
            inside = a.to.unsigned_abs().checked_mul(a.len);
            clear
        })
    }

    /// Makes one axis of two that run on in both memories, and a longer run of the innermost.
    fn merge(&mut self) {
        let mut merged: Vec<Axis> = vec![];
        for &axis in &self.axes {
            match merged.last().and_then(|outer| outer.merged(axis)) {
                Some(one) => *merged.last_mut().unwrap_or(&mut { axis }) = one,
                None => merged.push(axis),
            }
        }
        self.axes = merged;
        let run = self.run as isize;
        if let Some(a) = self.axes.pop_if(|a| a.from == run && a.to == run) {
            self.run *= a.len;
        }
    }

    fn choose(&mut self, width: usize) {
        let w = width as isize;
        let Some(last) = self.axes.pop() else { return };
        let single = self.run == width && last.to == w && [1, 2, 4, 8].contains(&width);
        let row = self.axes.iter().rposition(|a| a.from == w);
        self.inner = match row.filter(|_| single) {
            Some(i) => Inner::Turn {
                rows: self.axes.remove(i),
                columns: last,
            },
            None => Inner::Line(last),
        };
    }

    /// Cuts the inner loops into strips that are small enough for a task.
    fn cut(&mut self) {
        let (len, each) = match self.inner {
            Inner::Run => (self.run, 1),
            Inner::Line(a) => (a.len, self.run),
            Inner::Turn { rows, columns } => (rows.len, columns.len * self.run),
        };
        self.strip = (TASK / each).max(1).next_multiple_of(TILE).min(len);
        self.strips = len.div_ceil(self.strip);
    }

    /// Bytes copied.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the inner loops do, for a kernel's name.
    pub fn variant(&self) -> &'static str {
        match self.inner {
            Inner::Run => "run",
            Inner::Line(_) => "line",
            Inner::Turn { .. } => "turn",
        }
    }

    /// Copies from `from` to `to`.
    ///
    /// # Panics
    ///
    /// If either is too short.
    pub fn run(&self, pool: &Pool, from: &[u8], to: &mut [u8]) {
        assert!(
            from.len() >= self.reach.0 && to.len() >= self.reach.1,
            "too short"
        );
        if self.bytes == 0 {
            return;
        }
        let ends = Ends {
            from: from.as_ptr().wrapping_offset(self.start.0),
            to: to.as_mut_ptr().wrapping_offset(self.start.1),
        };
        let units = self.axes.iter().map(|a| a.len).product::<usize>() * self.strips;
        let each = (TASK * units / self.bytes).clamp(1, units);
        let task = |i: usize| {
            let units = i * each..((i + 1) * each).min(units);
            // SAFETY: `reach` bounds all that the axes, strips and inner loops touch, from above and below, and was
            // checked against both slices; tasks write distinct elements, as `distinct` has seen to.
            unsafe { self.units(&ends, units) }
        };
        match units.div_ceil(each) {
            1 => task(0),
            tasks => pool.run(tasks, &task),
        }
    }

    /// # Safety
    ///
    /// Both ends are as long as `reach` says, and nobody else uses what these units write.
    unsafe fn units(&self, ends: &Ends, units: std::ops::Range<usize>) {
        let mut index = vec![0; self.axes.len()];
        let mut rest = units.start / self.strips;
        let (mut from, mut to) = (ends.from, ends.to);
        for (i, a) in index.iter_mut().zip(&self.axes).rev() {
            *i = rest % a.len;
            rest /= a.len;
            from = from.wrapping_offset(*i as isize * a.from);
            to = to.wrapping_offset(*i as isize * a.to);
        }
        for unit in units {
            let strip = unit % self.strips;
            // SAFETY: as the caller says.
            unsafe { self.strip(from, to, strip) };
            if strip + 1 < self.strips {
                continue;
            }
            for (i, a) in index.iter_mut().zip(&self.axes).rev() {
                *i += 1;
                from = from.wrapping_offset(a.from);
                to = to.wrapping_offset(a.to);
                if *i < a.len {
                    break;
                }
                *i = 0;
                from = from.wrapping_offset(-(a.len as isize) * a.from);
                to = to.wrapping_offset(-(a.len as isize) * a.to);
            }
        }
    }

    /// # Safety
    ///
    /// The strip lies in memory that may be read at `from` and written at `to`.
    unsafe fn strip(&self, from: *const u8, to: *mut u8, strip: usize) {
        let at = strip * self.strip;
        let cut = |a: Axis| {
            let part = Axis {
                len: self.strip.min(a.len - at),
                ..a
            };
            let offset = at as isize;
            (
                part,
                from.wrapping_offset(offset * a.from),
                to.wrapping_offset(offset * a.to),
            )
        };
        // SAFETY: as the caller says.
        unsafe {
            match self.inner {
                Inner::Run => {
                    let n = self.strip.min(self.run - at);
                    std::ptr::copy_nonoverlapping(from.add(at), to.add(at), n);
                }
                Inner::Line(axis) => {
                    let (axis, from, to) = cut(axis);
                    line(self.run, axis, from, to);
                }
                Inner::Turn { rows, columns } => {
                    let (rows, from, to) = cut(rows);
                    match self.run {
                        1 => turn::<u8>(rows, columns, from, to),
                        2 => turn::<u16>(rows, columns, from, to),
                        4 => turn::<u32>(rows, columns, from, to),
                        _ => turn::<u64>(rows, columns, from, to),
                    }
                }
            }
        }
    }
}

struct Ends {
    from: *const u8,
    to: *mut u8,
}

// SAFETY: the pointers stand for a shared and an exclusive borrow of bytes whose parts are given to distinct tasks.
unsafe impl Sync for Ends {}

/// Copies runs of `run` bytes along `axis`.
///
/// # Safety
///
/// All of them lie in memory that may be read at `from` and written at `to`.
unsafe fn line(run: usize, axis: Axis, from: *const u8, to: *mut u8) {
    macro_rules! known {
        ($($n:literal)*) => {
            match run {
                // SAFETY: as the caller says.
                $($n => unsafe { line_of::<$n>(axis, from, to) },)*
                _ => for i in 0..axis.len as isize {
                    // SAFETY: as the caller says.
                    unsafe {
                        let (from, to) = (from.offset(i * axis.from), to.offset(i * axis.to));
                        std::ptr::copy_nonoverlapping(from, to, run);
                    }
                }
            }
        };
    }
    known!(1 2 3 4 6 8 12 16 24 32 48 64)
}

/// [`line`] with runs of `N` bytes.
///
/// # Safety
///
/// As for [`line`].
#[inline]
unsafe fn line_of<const N: usize>(axis: Axis, from: *const u8, to: *mut u8) {
    let n = axis.len as isize;
    let (from, to) = (from.cast::<[u8; N]>(), to.cast::<[u8; N]>());
    let w = N as isize;
    // SAFETY: as the caller says. The usual steps are spelt out so that they compile to vector code.
    unsafe {
        match (axis.from, axis.to == w) {
            (0, true) => std::slice::from_raw_parts_mut(to, axis.len).fill(*from),
            (step, true) if step == -w => (0..n).for_each(|i| *to.offset(i) = *from.offset(-i)),
            (step, true) if step == 2 * w => (0..n).for_each(|i| *to.offset(i) = *from.offset(2 * i)),
            (step, _) => (0..n).for_each(|i| *to.byte_offset(i * axis.to) = *from.byte_offset(i * step)),
        }
    }
}

/// Transposes elements `T`.
///
/// # Safety
///
/// All of them lie in memory that may be read at `from` and written at `to`.
unsafe fn turn<T: Copy>(rows: Axis, columns: Axis, from: *const u8, to: *mut u8) {
    for r in (0..rows.len).step_by(TILE) {
        let height = TILE.min(rows.len - r);
        for c in (0..columns.len).step_by(TILE) {
            let width = TILE.min(columns.len - c);
            let from = from.wrapping_offset(r as isize * rows.from + c as isize * columns.from);
            let to = to.wrapping_offset(r as isize * rows.to + c as isize * columns.to);
            // SAFETY: as the caller says.
            unsafe {
                match (height, width) {
                    (TILE, TILE) => tile::<T>(from, columns.from, to, rows.to),
                    _ => rest::<T>((height, from, columns.from), (width, to, rows.to)),
                }
            }
        }
    }
}

/// Transposes a full tile whose rows are `from_step` and `to_step` bytes apart.
///
/// # Safety
///
/// The tile lies in memory that may be read at `from` and written at `to`.
#[inline]
unsafe fn tile<T: Copy>(from: *const u8, from_step: isize, to: *mut u8, to_step: isize) {
    const PART: usize = 4;
    for c in (0..TILE).step_by(PART) {
        for r in (0..TILE).step_by(PART) {
            // SAFETY: as the caller says.
            unsafe {
                let line = |i: usize| from.offset((c + i) as isize * from_step).cast::<T>().add(r);
                let lines: [[T; PART]; PART] =
                    std::array::from_fn(|i| line(i).cast::<[T; PART]>().read_unaligned());
                let columns: [[T; PART]; PART] = std::array::from_fn(|j| lines.map(|line| line[j]));
                for (j, column) in columns.into_iter().enumerate() {
                    let line = to.offset((r + j) as isize * to_step).cast::<T>().add(c);
                    line.cast::<[T; PART]>().write_unaligned(column);
                }
            }
        }
    }
}

/// Transposes the rest of `height` rows and `width` columns.
///
/// # Safety
///
/// As for [`tile`].
#[inline]
unsafe fn rest<T: Copy>(
    (height, from, from_step): (usize, *const u8, isize),
    (width, to, to_step): (usize, *mut u8, isize),
) {
    for r in 0..height {
        for c in 0..width {
            // SAFETY: as the caller says.
            unsafe {
                let x = from.offset(c as isize * from_step).cast::<T>().add(r);
                let y = to.offset(r as isize * to_step).cast::<T>().add(c);
                y.write_unaligned(x.read_unaligned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks against one element after the other; the destination is twice as long as it needs to be.
    fn check(width: usize, dims: &[usize], from: Lay, to: Lay, source: usize) -> StridedCopy {
        let copy = StridedCopy::new(width, dims, &from, &to).unwrap();
        let n: usize = dims.iter().product();
        let x: Vec<u8> = (0..source * width).map(|i| (i * 7 + i / 256) as u8).collect();
        let mut got = vec![0; n * width * 2];
        let mut want = got.clone();
        for flat in 0..n {
            let (mut rest, mut f, mut t) = (flat, from.start, to.start);
            for (i, &len) in dims.iter().enumerate().rev() {
                f += (rest % len) as isize * from.steps[i];
                t += (rest % len) as isize * to.steps[i];
                rest /= len;
            }
            let (f, t) = (f as usize * width, t as usize * width);
            want[t..t + width].copy_from_slice(&x[f..f + width]);
        }
        copy.run(&Pool::new(2), &x, &mut got);
        assert!(got == want, "{width} {dims:?} {from:?} {to:?}");
        copy
    }

    #[test]
    fn a_dense_copy_is_one_run() {
        let dims = [3, 50, 700];
        let copy = check(4, &dims, Lay::dense(&dims), Lay::dense(&dims), 105_000);
        assert_eq!((copy.inner, copy.axes.len()), (Inner::Run, 0));
    }

    #[test]
    fn transposes_of_every_width() {
        for width in [1, 2, 3, 4, 8, 12, 16] {
            for dims in [[37, 53], [16, 64], [1, 9], [300, 5]] {
                let from = Lay {
                    start: 0,
                    steps: vec![1, dims[0] as isize],
                };
                check(width, &dims, from, Lay::dense(&dims), dims[0] * dims[1]);
            }
        }
    }

    #[test]
    fn permutations_of_three_axes() {
        let source = [5, 33, 18];
        let s = steps(&source);
        for perm in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let dims = perm.map(|p| source[p]);
            let from = Lay {
                start: 0,
                steps: perm.iter().map(|&p| s[p]).collect(),
            };
            check(4, &dims, from, Lay::dense(&dims), 5 * 33 * 18);
        }
    }

    #[test]
    fn backward_repeated_and_spread() {
        let back = Lay {
            start: 99,
            steps: vec![-10, -1],
        };
        check(2, &[10, 10], back, Lay::dense(&[10, 10]), 100);
        let repeat = Lay {
            start: 3,
            steps: vec![0, 1, 0],
        };
        check(4, &[7, 5, 40], repeat, Lay::dense(&[7, 5, 40]), 100);
        let part = Lay {
            start: 5,
            steps: vec![20, 1],
        };
        check(8, &[10, 10], Lay::dense(&[10, 10]), part, 100);
    }

    #[test]
    fn nothing_and_too_much() {
        let empty = StridedCopy::new(4, &[0, 3], &Lay::dense(&[0, 3]), &Lay::dense(&[0, 3])).unwrap();
        empty.run(&Pool::new(1), &[], &mut []);
        let huge = [1 << 40, 1 << 40];
        assert!(StridedCopy::new(4, &huge, &Lay::dense(&huge), &Lay::dense(&huge)).is_none());
        let before = Lay {
            start: 1,
            steps: vec![-1],
        };
        assert!(StridedCopy::new(4, &[3], &before, &Lay::dense(&[3])).is_none());
        let twice = Lay {
            start: 0,
            steps: vec![1, 1],
        };
        assert!(StridedCopy::new(4, &[3, 2], &Lay::dense(&[3, 2]), &twice).is_none());
    }

    #[test]
    #[ignore = "a measurement"]
    fn speed() {
        let lay = |steps: &[isize]| Lay {
            start: 0,
            steps: steps.to_vec(),
        };
        let pool = Pool::new(1);
        let cases: [(&str, usize, &[usize], &[isize]); 6] = [
            ("1024x1024 f32", 4, &[1024, 1024], &[1, 1024]),
            ("64x96 f32", 4, &[64, 96], &[1, 64]),
            ("NCHW to NHWC 64x56x56", 4, &[3136, 64], &[1, 3136]),
            ("NHWC to NCHW 3x224x224", 4, &[3, 50176], &[1, 3]),
            ("heads 128x12x64", 4, &[12, 128, 64], &[64, 768, 1]),
            ("bytes 1024x1024", 1, &[1024, 1024], &[1, 1024]),
        ];
        for (name, width, dims, from) in cases {
            let n = dims.iter().product::<usize>() * width;
            let copy = StridedCopy::new(width, dims, &lay(from), &Lay::dense(dims)).unwrap();
            let (x, mut y) = (vec![1u8; n], vec![0u8; n]);
            let best = (0..50).map(|_| {
                let start = std::time::Instant::now();
                copy.run(&pool, &x, &mut y);
                start.elapsed()
            });
            let best = best.min().unwrap().as_secs_f64();
            println!(
                "{name} {}: {:.1} us, {:.1} GB/s written",
                copy.variant(),
                best * 1e6,
                n as f64 / best * 1e-9
            );
        }
    }
}
