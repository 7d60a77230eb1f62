//! The innermost loop: a few rows by two vectors of columns, kept in registers.

use secateur_simd::{Simd, Vectorised, dispatch};

use crate::cpu::Ending;

/// Something that is added to the product: `scale * ptr[i * row + j * col]`.
#[derive(Clone, Copy, Debug)]
pub struct Addend {
    /// The element for row 0 and column 0; null where nothing is added.
    pub ptr: *const f32,
    /// Floats from row to row; 0 where all rows share one.
    pub row: usize,
    /// Floats from column to column: 0 or 1.
    pub col: usize,
    /// What it is multiplied by.
    pub scale: f32,
}

impl Addend {
    /// Nothing.
    pub const NONE: Addend = Addend {
        ptr: std::ptr::null(),
        row: 0,
        col: 0,
        scale: 1.0,
    };

    /// The same, seen from row `i` and column `j`.
    pub fn at(self, i: usize, j: usize) -> Addend {
        Addend {
            ptr: self.ptr.wrapping_add(i * self.row + j * self.col),
            ..self
        }
    }

    /// Whether there is something.
    pub fn is_some(&self) -> bool {
        !self.ptr.is_null()
    }
}

/// One tile: `C = [C +] alpha A B [+ addends]`, ended. Strides are in floats.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    /// A from the tile's first row on.
    pub(crate) a: *const f32,
    /// From row to row of A.
    pub(crate) a_row: usize,
    /// From column to column of A.
    pub(crate) a_k: usize,
    /// B from the tile's first column on; rows of two whole vectors, or one if `cols` fit it.
    pub(crate) b: *const f32,
    /// From row to row of B.
    pub(crate) b_k: usize,
    /// Columns of A, rows of B.
    pub(crate) k: usize,
    /// The tile of C.
    pub(crate) c: *mut f32,
    /// From row to row of C.
    pub(crate) c_row: usize,
    /// Columns of C that are written.
    pub(crate) cols: usize,
    /// What the product is multiplied by.
    pub(crate) alpha: f32,
    /// Whether the product is added to what C holds.
    pub(crate) accumulate: bool,
    /// What else is added.
    pub(crate) add: [Addend; 2],
    /// What is done in the end.
    pub(crate) end: Ending,
    /// Where the weights stand that are needed next: a cache line of them is fetched for each `k`, or for every second.
    pub(crate) next: Option<*const f32>,
    /// Whether for every second, where others fetch the rest: what is asked for at once comes late.
    pub(crate) slowly: bool,
}

/// The greatest tile of the instruction set in use: rows, columns.
pub(crate) fn tile_size() -> (usize, usize) {
    struct Size;
    impl Vectorised for Size {
        type Out = (usize, usize);
        #[inline(always)]
        fn run<S: Simd>(self, _: S) -> (usize, usize) {
            (rows::<S>(), 2 * S::LANES)
        }
    }
    dispatch(Size)
}

/// Twelve rows and not fourteen: fourteen that lie a power of two apart do not fit a set of the first cache.
const fn rows<S: Simd>() -> usize {
    match (S::REGS, S::LANES) {
        (32.., _) => 12,
        (_, 8) => 6,
        _ => 4,
    }
}

impl Tile {
    /// Whether nothing is added from elsewhere, and nothing done in the end.
    fn is_plain(&self) -> bool {
        self.end == Ending::NONE && !self.add.iter().any(Addend::is_some)
    }

    /// Computes `height` rows.
    ///
    /// # Safety
    ///
    /// All that the fields describe is readable, `height` rows of `cols` floats of C are writable and nobody else sees
    /// them. `height` and `cols` are at least 1 and within [`tile_size`].
    pub(crate) unsafe fn run(&self, height: usize) {
        macro_rules! heights {
            ($($h:literal)*) => {
                match height {
                    $($h => dispatch(Rows::<$h>(self)),)*
                    _ => debug_assert!(false, "a tile of {height} rows"),
                }
            };
        }
        heights!(1 2 3 4 5 6 7 8 9 10 11 12);
    }
}

struct Rows<'a, const H: usize>(&'a Tile);

impl<const H: usize> Vectorised for Rows<'_, H> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        if H > rows::<S>() {
            return;
        }
        // SAFETY: `Tile::run` is promised all this.
        unsafe {
            if self.0.cols <= S::LANES {
                compute::<S, H, 1>(s, self.0);
            } else {
                compute::<S, H, 2>(s, self.0);
            }
        }
    }
}

/// Products in the body of the loop, so that its end is foreseen where there are few.
const UNROLLED: usize = 4;

/// Adds the product of a column of A and a row of B.
#[inline(always)]
unsafe fn multiply<S: Simd, const H: usize, const V: usize>(
    s: S,
    a: *const f32,
    a_row: usize,
    b: *const f32,
    acc: &mut [[S::F32; V]; H],
) {
    // SAFETY: row `k` of B is readable.
    let row: [S::F32; V] = std::array::from_fn(|v| unsafe { s.load(b.add(v * S::LANES)) });
    for (i, acc) in acc.iter_mut().enumerate() {
        // SAFETY: column `k` of A is readable.
        let x = s.splat(unsafe { *a.add(i * a_row) });
        for (acc, &row) in acc.iter_mut().zip(&row) {
            *acc = s.fma(x, row, *acc);
        }
    }
}

#[inline(always)]
unsafe fn compute<S: Simd, const H: usize, const V: usize>(s: S, t: &Tile) {
    let mut acc = [[s.splat(0.0); V]; H];
    // A line that is in the cache already costs a tile that has nothing to fetch next to nothing.
    let (mut next, step) = t.next.map_or((t.b, 0), |p| (p, 16));
    let steps = [if t.slowly { 0 } else { step }, step];
    let (mut a, mut b) = (t.a, t.b);
    let mut left = t.k;
    while left >= UNROLLED {
        for i in 0..UNROLLED {
            s.prefetch(next);
            next = next.wrapping_add(steps[i % 2]);
            // SAFETY: as many columns of A, and rows of B, are left.
            unsafe { multiply(s, a, t.a_row, b, &mut acc) };
            a = a.wrapping_add(t.a_k);
            b = b.wrapping_add(t.b_k);
        }
        left -= UNROLLED;
    }
    for _ in 0..left {
        // SAFETY: as above.
        unsafe { multiply(s, a, t.a_row, b, &mut acc) };
        a = a.wrapping_add(t.a_k);
        b = b.wrapping_add(t.b_k);
    }
    if t.is_plain() && t.cols == V * S::LANES {
        // SAFETY: row `i` of C has all these columns.
        unsafe { store_all(s, t, acc) };
        return;
    }
    for (i, acc) in acc.into_iter().enumerate() {
        for (v, acc) in acc.into_iter().enumerate() {
            let j = v * S::LANES;
            // SAFETY: row `i` of C and of the addends has `cols` floats, of which these begin at `j < cols`.
            unsafe { finish(s, t, acc, i, j, t.cols - j) };
        }
    }
}

/// Stores whole rows, to which nothing but what is there is added.
#[inline(always)]
unsafe fn store_all<S: Simd, const H: usize, const V: usize>(s: S, t: &Tile, acc: [[S::F32; V]; H]) {
    let alpha = s.splat(t.alpha);
    for (i, acc) in acc.into_iter().enumerate() {
        for (v, acc) in acc.into_iter().enumerate() {
            let c = t.c.wrapping_add(i * t.c_row + v * S::LANES);
            let y = s.mul(acc, alpha);
            // SAFETY: as the caller says.
            unsafe { s.store(c, if t.accumulate { s.add(y, s.load(c)) } else { y }) };
        }
    }
}

/// Stores row `i` from column `j` on, where `left` columns are left.
#[inline(always)]
unsafe fn finish<S: Simd>(s: S, t: &Tile, acc: S::F32, i: usize, j: usize, left: usize) {
    let whole = left >= S::LANES;
    // SAFETY: up to `left` floats are readable.
    let load = |p: *const f32| unsafe { if whole { s.load(p) } else { s.load_first(p, left) } };
    let c = t.c.wrapping_add(i * t.c_row + j);
    let mut y = s.mul(acc, s.splat(t.alpha));
    if t.accumulate {
        y = s.add(y, load(c));
    }
    for add in &t.add {
        if add.is_some() {
            let add = add.at(i, j);
            let z = match add.col {
                // SAFETY: row `i` of the addend has an element.
                0 => s.splat(unsafe { *add.ptr }),
                _ => load(add.ptr),
            };
            y = s.fma(s.splat(add.scale), z, y);
        }
    }
    y = t.end.apply(s, y);
    // SAFETY: up to `left` floats are writable.
    unsafe {
        if whole {
            s.store(c, y)
        } else {
            s.store_first(c, left, y)
        }
    }
}
