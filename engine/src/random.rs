//! Numbers that look random and are the same everywhere.

use crate::Tensor;

/// A generator of numbers (splitmix64), the same for the same seed on every machine.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator that starts from `seed`.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `[0, 1)`.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in `0..n`; 0 where `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.uniform() * n as f64) as usize
    }

    /// Normal with mean 0 and variance 1 (Box and Muller 1958).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// A float tensor of normal numbers with mean 0 and standard deviation `std`.
    pub fn tensor(&mut self, dims: &[usize], std: f64) -> Tensor {
        self.normals(dims, 0.0, std)
    }

    /// The same with another mean.
    pub fn normals(&mut self, dims: &[usize], mean: f64, std: f64) -> Tensor {
        let n = dims.iter().product();
        let draw = |_| (mean + self.normal() * std) as f32;
        Tensor::of(dims, (0..n).map(draw).collect::<Vec<f32>>())
    }

    /// `n` numbers, uniform from `low` (inclusive) to `high` (exclusive).
    pub fn between(&mut self, n: usize, low: f64, high: f64) -> Vec<f32> {
        let draw = |_| (low + (high - low) * self.uniform()) as f32;
        (0..n).map(draw).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_numbers_have_mean_0_and_variance_1() {
        let mut r = Random::new(1);
        let x: Vec<f64> = (0..20_000).map(|_| r.normal()).collect();
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
        assert!(
            mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03,
            "{mean} {variance}"
        );
    }

    #[test]
    fn the_same_seed_gives_the_same() {
        let draw = |seed| Random::new(seed).tensor(&[3, 2], 1.0);
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }
}
