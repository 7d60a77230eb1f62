//! Seeded random numbers.

use secateur::Tensor;
use secateur::engine::ir::DType;

/// The generator SplitMix64 (Steele, Lea and Flood 2014).
pub(crate) struct Random(u64);

impl Random {
    /// The stream that belongs to `seed` and `name`.
    pub(crate) fn new(seed: u64, name: &str) -> Random {
        // FNV-1a, so that inputs of different names differ.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| {
            (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
        });
        Random(hash ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 (inclusive) to 1 (exclusive).
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A tensor of numbers from `low` (inclusive) to `high` (exclusive): whole ones for integers, and truth values as
    /// often true as false. `None` for types without a 64-bit float equivalent.
    pub(crate) fn tensor(&mut self, dtype: DType, dims: &[usize], (low, high): (f64, f64)) -> Option<Tensor> {
        let n = secateur::engine::ir::count(dims)?;
        let draw = |r: &mut Random| match dtype {
            DType::Bool => f64::from(u8::from(r.unit() < 0.5)),
            d if d.is_int() => (low + (high - low) * r.unit()).floor(),
            _ => low + (high - low) * r.unit(),
        };
        let data: Vec<f64> = (0..n).map(|_| draw(self)).collect();
        Tensor::rounded(dtype, dims, &data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_decides_and_the_range_holds() {
        let draw = |seed, name| {
            Random::new(seed, name)
                .tensor(DType::F32, &[100], (-1.0, 2.0))
                .unwrap()
        };
        assert_eq!(draw(1, "x"), draw(1, "x"));
        assert_ne!(draw(1, "x"), draw(2, "x"));
        assert_ne!(draw(1, "x"), draw(1, "y"));
        assert!(
            draw(1, "x")
                .floats()
                .unwrap()
                .iter()
                .all(|x| (-1.0..2.0).contains(x))
        );
        let ints = Random::new(0, "i")
            .tensor(DType::I64, &[100], (0.0, 3.0))
            .unwrap();
        let ints = ints.ints().unwrap();
        assert!([0, 1, 2].iter().all(|i| ints.contains(i)) && ints.iter().all(|i| (0..3).contains(i)));
    }
}
