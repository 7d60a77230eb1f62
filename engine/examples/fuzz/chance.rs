//! Chance, the same for the same seed.

use secateur_engine::ir::{DType, Tensor};

/// A source of numbers.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Chance {
        let mut c = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xd1b5_4a32_d192_ed03);
        for _ in 0..4 {
            c.next();
        }
        c
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// Whether something happens that does once in `n` times.
    pub(crate) fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// A number of the kind that breaks things.
    pub(crate) fn odd(&mut self) -> i64 {
        let some = [
            0,
            1,
            -1,
            2,
            3,
            -2,
            7,
            63,
            64,
            65,
            127,
            128,
            255,
            256,
            65535,
            1 << 20,
            i64::from(i32::MAX),
            i64::from(i32::MIN),
            1 << 32,
            1 << 40,
            1 << 62,
            i64::MAX,
            i64::MIN,
        ];
        match self.below(4) {
            0 => self.next() as i64,
            1 => self.below(6) as i64 - 2,
            _ => *self.pick(&some),
        }
    }

    /// A tensor like one of an operator's case: small numbers, now and then odd ones.
    pub(crate) fn tensor(&mut self, dtype: DType, dims: &[usize], like: &Tensor) -> Option<Tensor> {
        let n = dims.iter().product::<usize>();
        if dtype == DType::String {
            let some = like.strings().to_vec();
            let data = (0..n).map(|i| some.get(i % some.len().max(1)).cloned().unwrap_or_default());
            return Some(Tensor::of_strings(dims, data.collect()));
        }
        let old = like.floats().filter(|x| !x.is_empty());
        let odd = self.once_in(8);
        let data: Vec<f64> = (0..n)
            .map(|i| match (&old, self.below(3)) {
                (Some(old), 0 | 1) => old[i % old.len()],
                _ if odd && self.once_in(8) => {
                    *self.pick(&[f64::NAN, f64::INFINITY, -0.0, 1e4, -1e-30, 300.0])
                }
                _ => (self.below(33) as f64 - 16.0) / if dtype.is_float() { 8.0 } else { 4.0 },
            })
            .collect();
        Tensor::rounded(dtype, dims, &data)
    }
}
