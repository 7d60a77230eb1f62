//! Matrix products of bytes, summed in 32 bits.
//!
//! The right operand is packed into panels of [`WIDE`] columns, two rows interleaved, as signed bytes: unsigned ones are
//! shifted by 128, which the zero point takes back. The left operand is read row by row as 16-bit differences from its
//! zero point, so that `Σ (a - za)(b - zb) = Σ (a - za) b - zb Σ (a - za)` needs no more than the sums of its rows.

use secateur_simd::{Simd, Vectorised, dispatch};

use super::Pool;
use super::elementwise::Ptr;

/// Columns of a panel.
pub const WIDE: usize = 32;

/// Rows of a tile.
const TALL: usize = 6;

/// Vectors of columns that are summed at once.
const ACROSS: usize = 2;

/// Bytes of the left operand that one task keeps, to stay in the second cache.
const KEPT: usize = 128 << 10;

/// Multiply-adds that make a task worth handing to another thread.
const TASK: usize = 1 << 18;

/// Bytes of a packed matrix of `k` rows and `n` columns; `None` where that is more than memory can have.
pub fn packed_len(k: usize, n: usize) -> Option<usize> {
    let rows = k.checked_next_multiple_of(2)?;
    let bytes = rows.checked_mul(n.checked_next_multiple_of(WIDE)?)?;
    isize::try_from(bytes).ok().map(|_| bytes)
}

/// A matrix of bytes: where its elements are, and whether they have a sign.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// The elements.
    pub bytes: &'a [u8],
    /// The place of the first.
    pub start: usize,
    /// The distance between rows.
    pub row: usize,
    /// The distance between columns.
    pub col: usize,
    /// Whether they have a sign.
    pub signed: bool,
}

/// Packs `b`, of `k` rows and `n` columns, into `out`, of [`packed_len`] bytes.
///
/// # Panics
///
/// If `out` is shorter, or `b` has fewer elements.
pub fn pack(b: Matrix, k: usize, n: usize, out: &mut [u8], pool: &Pool) {
    let panel = k.next_multiple_of(2) * WIDE;
    let flip = if b.signed { 0 } else { 0x80 };
    let len = panel * n.div_ceil(WIDE);
    super::moves::chunks(pool, &mut out[..len], panel, &|p, out| {
        let columns = WIDE.min(n - p * WIDE);
        out.fill(0);
        for (i, pairs) in out.chunks_exact_mut(2 * WIDE).enumerate() {
            for half in 0..2.min(k - 2 * i) {
                let at = b.start + (2 * i + half) * b.row + p * WIDE * b.col;
                for j in 0..columns {
                    pairs[2 * j + half] = b.bytes[at + j * b.col] ^ flip;
                }
            }
        }
    });
}

/// Products of matrices, of the same size.
#[derive(Clone, Debug)]
pub struct Products {
    /// Rows of the left operand.
    pub m: usize,
    /// Columns of the right operand.
    pub n: usize,
    /// What is summed over.
    pub k: usize,
    /// For each product, where its packed right operand and its result start.
    pub starts: Vec<[usize; 2]>,
    /// The distance between rows of a result.
    pub row: usize,
    /// The distance between columns of a result.
    pub col: usize,
}

/// What differs between operators that multiply bytes.
pub trait Multiply: Sync {
    /// The type of the results.
    type Out: Copy + Default + Send;

    /// Writes the differences of row `row` of the left operand from its zero point, `k` of them.
    fn left(&self, product: usize, row: usize, to: &mut [i16]);

    /// The zero point of column `col`, less 128 where the right operand has no sign.
    fn zero(&self, product: usize, col: usize) -> i32;

    /// Makes results of the sums of row `row` from column `col` on.
    fn finish(&self, product: usize, row: usize, col: usize, sums: &[i32], to: &mut [Self::Out]);
}

/// A row of a tile, with what is behind the last column.
type Row = [i32; WIDE];

impl Products {
    fn panel(&self) -> usize {
        self.k.next_multiple_of(2) * WIDE
    }

    /// Computes the products with the packed right operands `packed` into `out`.
    ///
    /// # Panics
    ///
    /// If `packed` or `out` is shorter than the sizes say, or two elements of the result are in one place.
    pub fn run<M: Multiply>(&self, packed: &[u8], by: &M, out: &mut [M::Out], pool: &Pool) {
        if self.m == 0 || self.n == 0 || self.starts.is_empty() {
            return;
        }
        self.check(packed.len(), out.len());
        let panels = self.n.div_ceil(WIDE);
        let bytes = (self.k.div_ceil(2) + 1) * TALL * size_of::<i32>();
        let blocks = self.m.div_ceil(TALL);
        let work = (self.k * WIDE * TALL).max(1);
        // Enough rows to be worth a task, no more than the cache holds.
        let each = TASK
            .div_ceil(work * panels)
            .min((KEPT / bytes).max(1))
            .min(blocks);
        let chunks = blocks.div_ceil(each) * self.starts.len();
        let groups = 8usize.div_ceil(chunks).min(panels);
        let group = panels
            .div_ceil(groups)
            .max(TASK.div_ceil(work * each))
            .min(panels);
        let groups = panels.div_ceil(group);
        let (out, chunks) = (Ptr::new(out.as_mut_ptr()), blocks.div_ceil(each));
        pool.run(self.starts.len() * chunks * groups, &|task| {
            let (part, g) = (task / groups, task % groups);
            let (product, c) = (part / chunks, part % chunks);
            let rows = c * each * TALL..self.m.min((c + 1) * each * TALL);
            let left = self.left(by, product, rows.clone());
            let mut zero = [0; WIDE];
            for p in g * group..panels.min((g + 1) * group) {
                let start = self.starts[product][0] + p * self.panel();
                let panel = &packed[start..start + self.panel()];
                let cols = WIDE.min(self.n - p * WIDE);
                (0..cols).for_each(|j| zero[j] = by.zero(product, p * WIDE + j));
                for (i, block) in left.chunks_exact(bytes / size_of::<i32>()).enumerate() {
                    let mut tile = [[0; WIDE]; TALL];
                    dispatch(Tile {
                        block,
                        panel,
                        zero: &zero,
                        tile: &mut tile,
                    });
                    let first = rows.start + i * TALL;
                    for (row, sums) in (first..rows.end).zip(&tile) {
                        let mut ready = [M::Out::default(); WIDE];
                        by.finish(product, row, p * WIDE, &sums[..cols], &mut ready[..cols]);
                        let at = self.starts[product][1] + row * self.row + p * WIDE * self.col;
                        for (j, &y) in ready[..cols].iter().enumerate() {
                            // SAFETY: `check` has seen that every element is within the result, in a place of its own, and
                            // no other task has this row and column.
                            unsafe { out.get().add(at + j * self.col).write(y) };
                        }
                    }
                }
            }
        });
    }

    fn check(&self, packed: usize, out: usize) {
        let matrix = packed_len(self.k, self.n).expect("a size that memory can have");
        let last = (self.m - 1) * self.row + (self.n - 1) * self.col;
        let apart = self.row >= self.n * self.col || self.col >= self.m * self.row;
        assert!(apart && self.row > 0 && self.col > 0, "elements in one place");
        let mut results: Vec<_> = self.starts.iter().map(|s| s[1]).collect();
        results.sort_unstable();
        // Results follow each other.
        assert!(results.windows(2).all(|w| w[1] - w[0] > last), "results overlap");
        for [b, y] in &self.starts {
            assert!(b + matrix <= packed && y + last < out, "sizes");
        }
    }

    /// The rows `rows` of the left operand in blocks of [`TALL`]: pairs of differences, then the sum of each row.
    fn left<M: Multiply>(&self, by: &M, product: usize, rows: std::ops::Range<usize>) -> Vec<i32> {
        let pairs = self.k.div_ceil(2);
        let block = (pairs + 1) * TALL;
        let mut left = vec![0; rows.len().div_ceil(TALL) * block];
        let mut row = vec![0i16; 2 * pairs];
        for (i, r) in rows.enumerate() {
            by.left(product, r, &mut row[..self.k]);
            let block = &mut left[i / TALL * block..][..block];
            let mut sum = 0i32;
            for (to, pair) in block.chunks_exact_mut(TALL).zip(row.chunks_exact(2)) {
                let [low, high] = [i32::from(pair[0]), i32::from(pair[1])];
                to[i % TALL] = low & 0xffff | high << 16;
                sum = sum.wrapping_add(low + high);
            }
            block[pairs * TALL + i % TALL] = sum;
        }
        left
    }
}

/// One block of the left operand times one panel of the right.
struct Tile<'a> {
    block: &'a [i32],
    panel: &'a [u8],
    zero: &'a Row,
    tile: &'a mut [Row; TALL],
}

impl Vectorised for Tile<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let pairs = self.panel.len() / (2 * WIDE);
        assert!(
            self.block.len() >= (pairs + 1) * TALL,
            "a block as long as the panel"
        );
        for first in (0..WIDE).step_by(ACROSS * S::LANES) {
            let mut sums = [[s.splat_i32(0); ACROSS]; TALL];
            for i in 0..pairs {
                // SAFETY: the panel has `pairs` times `2 * WIDE` bytes, the block `TALL` pairs for each.
                unsafe {
                    let b = self.panel.as_ptr().add((i * WIDE + first) * 2).cast::<i8>();
                    let mut columns = [s.splat_i32(0); ACROSS];
                    for (v, column) in columns.iter_mut().enumerate() {
                        *column = s.load_pairs(b.add(v * 2 * S::LANES));
                    }
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let a = s.splat_i32(*self.block.get_unchecked(i * TALL + r));
                        for (sum, &column) in sums.iter_mut().zip(&columns) {
                            *sum = s.dot_pairs(*sum, a, column);
                        }
                    }
                }
            }
            for (row, sums) in self.tile.iter_mut().zip(sums) {
                for (v, sum) in sums.into_iter().enumerate() {
                    // SAFETY: a row has `WIDE` integers, as wide as floats, which a step covers evenly.
                    unsafe {
                        let to = row.as_mut_ptr().add(first + v * S::LANES);
                        s.store(to.cast(), s.from_bits(sum));
                    }
                }
            }
        }
        for (row, &sum) in self.tile.iter_mut().zip(&self.block[pairs * TALL..]) {
            for (x, &zero) in row.iter_mut().zip(self.zero) {
                *x = x.wrapping_sub(zero.wrapping_mul(sum));
            }
        }
    }
}

/// What turns sums into bytes: `round(sum * factor) + zero`, saturated.
#[derive(Clone, Copy, Debug)]
pub struct Requantise {
    /// The zero point of the result.
    pub zero: i32,
    /// Whether bytes have a sign.
    pub signed: bool,
}

impl Requantise {
    /// The bytes for sums, each with a factor, or all with one.
    pub fn row(&self, sums: &[i32], factors: &[f32], to: &mut [u8]) {
        let (low, high) = if self.signed { (-128, 127) } else { (0, 255) };
        let zero = self.zero;
        dispatch(super::elementwise::Inside(
            #[inline(always)]
            || {
                let byte = |x: i32, f: f32| {
                    let whole = (x as f32 * f).round_ties_even().clamp(-1e9, 1e9) as i32;
                    (whole + zero).clamp(low, high) as u8
                };
                let all = to.iter_mut().zip(sums);
                match factors {
                    &[f] => all.for_each(|(y, &x)| *y = byte(x, f)),
                    _ => all.zip(factors).for_each(|((y, &x), &f)| *y = byte(x, f)),
                }
            },
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Plain {
        a: Vec<u8>,
        k: usize,
        m: usize,
        zeros: (i16, i32),
    }

    impl Multiply for Plain {
        type Out = i32;
        fn left(&self, product: usize, row: usize, to: &mut [i16]) {
            let a = &self.a[(product * self.m + row) * self.k..];
            to.iter_mut()
                .zip(a)
                .for_each(|(y, &x)| *y = i16::from(x) - self.zeros.0);
        }
        fn zero(&self, _: usize, col: usize) -> i32 {
            self.zeros.1 + col as i32 - 128
        }
        fn finish(&self, _: usize, _: usize, _: usize, sums: &[i32], to: &mut [i32]) {
            to.copy_from_slice(sums);
        }
    }

    #[test]
    fn products_are_those_of_the_definition() {
        let bytes = |n: usize, k: usize| (0..n).map(|i| (i * k % 256) as u8).collect::<Vec<u8>>();
        for (m, n, k, many) in [
            (1, 1, 1, 1),
            (7, 33, 5, 2),
            (13, 64, 300, 1),
            (40, 3, 2, 3),
            (2, 40, 0, 1),
        ] {
            let (a, b) = (bytes(many * m * k, 37), bytes(k * n, 101));
            let by = Plain {
                a: a.clone(),
                k,
                m,
                zeros: (77, 9),
            };
            let mut packed = vec![0; packed_len(k, n).unwrap()];
            let pool = Pool::new(2);
            let matrix = Matrix {
                bytes: &b,
                start: 0,
                row: n,
                col: 1,
                signed: false,
            };
            pack(matrix, k, n, &mut packed, &pool);
            let products = Products {
                m,
                n,
                k,
                starts: (0..many).map(|p| [0, p * m * n]).collect(),
                row: 1,
                col: m,
            };
            let mut out = vec![0; many * m * n];
            products.run(&packed, &by, &mut out, &pool);
            for p in 0..many {
                for i in 0..m {
                    for j in 0..n {
                        let each = (0..k).map(|l| {
                            let x = i32::from(a[(p * m + i) * k + l]) - 77;
                            x * (i32::from(b[l * n + j]) - 9 - j as i32)
                        });
                        assert_eq!(
                            out[p * m * n + j * m + i],
                            each.sum::<i32>(),
                            "{m} {n} {k}: {p} {i} {j}"
                        );
                    }
                }
            }
        }
    }
}
