//! What an instruction set offers: one trait, implemented once per set.

/// A set of vector instructions.
///
/// A value of an implementing type is the proof that this processor has them: it can only be made by
/// [`dispatch`](crate::dispatch()). Kernels are generic over `S: Simd`, `#[inline(always)]`, and entered through a
/// [`Vectorised`](crate::Vectorised) operation, so that the whole kernel is compiled with the set's features enabled.
///
/// Floats follow IEEE 754 without exceptions; denormals are kept. `min`, `max` return the *second* operand where
/// either is NaN (as `vminps` does); [`math`](crate::math) builds the NaN-propagating forms from them.
pub trait Simd: Copy + Send + Sync + 'static {
    /// `LANES` floats.
    type F32: Copy;
    /// `LANES` 32-bit integers.
    type I32: Copy;
    /// One truth value for each lane.
    type Mask: Copy;

    /// The name by which `SECATEUR_ISA` selects it.
    const NAME: &'static str;
    /// Floats in a vector.
    const LANES: usize;
    /// Vector registers, which bound a kernel's accumulators.
    const REGS: usize;

    /// Every lane `x`.
    fn splat(self, x: f32) -> Self::F32;
    /// Loads `LANES` floats; no alignment is asked for.
    ///
    /// # Safety
    ///
    /// `p..p + LANES` is readable.
    unsafe fn load(self, p: *const f32) -> Self::F32;
    /// Stores `LANES` floats; no alignment is asked for.
    ///
    /// # Safety
    ///
    /// `p..p + LANES` is writable.
    unsafe fn store(self, p: *mut f32, v: Self::F32);
    /// Loads the first `n` lanes, `n <= LANES`; the others are 0. Memory beyond `p + n` is not touched.
    ///
    /// # Safety
    ///
    /// `p..p + n` is readable.
    unsafe fn load_first(self, p: *const f32, n: usize) -> Self::F32;
    /// Stores the first `n` lanes, `n <= LANES`. Memory beyond `p + n` is not touched.
    ///
    /// # Safety
    ///
    /// `p..p + n` is writable.
    unsafe fn store_first(self, p: *mut f32, n: usize, v: Self::F32);
    /// Brings the cache line of `p` towards the second-level cache. Any address is allowed.
    fn prefetch(self, p: *const f32);
    /// Brings the cache line of `p` towards the first-level cache. Any address is allowed.
    fn prefetch_near(self, p: *const f32);
    /// The floats that follow each other from `p` on, in the lanes whose bit is set in `bits`, the first in the lane of the lowest
    /// bit; the others are 0. Bits from `LANES` on are of no account.
    ///
    /// # Safety
    ///
    /// `p..p + LANES` is readable, however few bits are set.
    unsafe fn expand(self, p: *const f32, bits: u32) -> Self::F32;
    /// For each lane the float at `p + index[lane]`; 0 where `skip`, whose floats are not read.
    ///
    /// # Safety
    ///
    /// `index..index + LANES` is readable, and `p + index[lane]` in every lane but those of `skip`.
    unsafe fn gather(self, p: *const f32, index: *const u8, skip: Self::Mask) -> Self::F32;

    /// `a + b`
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a - b`
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b`
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a / b`, correctly rounded
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b + c`, rounded once where the set has a fused multiply-add
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// The lesser; `b` where either is NaN
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// The greater; `b` where either is NaN
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `|a|`
    fn abs(self, a: Self::F32) -> Self::F32;
    /// `-a`
    fn neg(self, a: Self::F32) -> Self::F32;
    /// The square root, correctly rounded
    fn sqrt(self, a: Self::F32) -> Self::F32;
    /// The nearest integer, ties to even
    fn round(self, a: Self::F32) -> Self::F32;
    /// The greatest integer that is not above `a`
    fn floor(self, a: Self::F32) -> Self::F32;
    /// The sum of all lanes, in a fixed order
    fn sum(self, a: Self::F32) -> f32;
    /// The greatest lane; lanes that are NaN may be passed over
    fn greatest(self, a: Self::F32) -> f32;
    /// The first halves of both, lane by lane in turn: `a[0] b[0] a[1] b[1] …`
    fn zip_first(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// The last halves of both, lane by lane in turn
    fn zip_last(self, a: Self::F32, b: Self::F32) -> Self::F32;

    /// Reads `LANES` rows of `LANES` floats and turns them: lane `r` of vector `c` is float `c` of row `r`. What is behind
    /// `LANES` in either list is of no account; no alignment is asked for.
    ///
    /// # Safety
    ///
    /// `LANES` floats of each of the first `LANES` rows are readable.
    #[inline(always)]
    unsafe fn load_turned(self, rows: &[*const f32; 16]) -> [Self::F32; 16] {
        let mut square = [self.splat(0.0); 16];
        for (i, square) in square.iter_mut().enumerate().take(Self::LANES) {
            // SAFETY: as the caller says.
            *square = unsafe { self.load(rows[i]) };
        }
        self.turned(square)
    }
    /// Turns the first `LANES` vectors: lane `r` of vector `c` is lane `c` of vector `r`.
    #[inline(always)]
    fn turned(self, mut square: [Self::F32; 16]) -> [Self::F32; 16] {
        // Each turn moves the highest bit of the place of a float to the end.
        for _ in 0..Self::LANES.ilog2() {
            let old = square;
            for i in 0..Self::LANES / 2 {
                square[2 * i] = self.zip_first(old[i], old[i + Self::LANES / 2]);
                square[2 * i + 1] = self.zip_last(old[i], old[i + Self::LANES / 2]);
            }
        }
        square
    }

    /// `a < b`; false where either is NaN
    fn lt(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// `a == b`; false where either is NaN
    fn eq(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// The lanes whose bit is set. Bits from `LANES` on are of no account.
    fn mask(self, bits: u32) -> Self::Mask;
    /// `a` where `m`, else `b`
    fn select(self, m: Self::Mask, a: Self::F32, b: Self::F32) -> Self::F32;

    /// Every lane `x`.
    fn splat_i32(self, x: i32) -> Self::I32;
    /// `a + b`, wrapping
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// `a - b`, wrapping
    fn sub_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// `a & b`
    fn and_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// `a | b`
    fn or_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// `a << N`, `0 < N < 32`
    fn shl_i32<const N: i32>(self, a: Self::I32) -> Self::I32;
    /// `a >> N`, arithmetic, `0 < N < 32`
    fn shr_i32<const N: i32>(self, a: Self::I32) -> Self::I32;
    /// The nearest integer, ties to even; undefined value where it does not fit
    fn to_i32(self, a: Self::F32) -> Self::I32;
    /// The nearest float
    fn to_f32(self, a: Self::I32) -> Self::F32;
    /// The same bits
    fn bits(self, a: Self::F32) -> Self::I32;
    /// The same bits
    #[expect(
        clippy::wrong_self_convention,
        reason = "`self` is the token, not what is converted"
    )]
    fn from_bits(self, a: Self::I32) -> Self::F32;

    /// Loads `2 * LANES` bytes and widens each to 16 bits with its sign: a pair in each lane, the first in the low half.
    /// No alignment is asked for.
    ///
    /// # Safety
    ///
    /// `p..p + 2 * LANES` is readable.
    unsafe fn load_pairs(self, p: *const i8) -> Self::I32;
    /// Of signed 16-bit halves: `sum + low(a) * low(b) + high(a) * high(b)`, wrapping
    fn dot_pairs(self, sum: Self::I32, a: Self::I32, b: Self::I32) -> Self::I32;
}

#[cfg(test)]
mod tests;
