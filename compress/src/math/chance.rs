//! Chance that follows from a seed and a place alone.

/// A number from 0 (included) to 1 (excluded), by the seed, a name and a place (Vigna 2014, splitmix64).
pub fn uniform(seed: u64, name: &str, at: u64) -> f64 {
    Stream::new(seed, name).at(at)
}

/// The numbers of one seed and name.
#[derive(Clone, Copy, Debug)]
pub struct Stream(u64);

impl Stream {
    /// The stream of `seed` called `name`.
    pub fn new(seed: u64, name: &str) -> Stream {
        Stream(name.bytes().fold(mix(seed), |h, b| mix(h ^ u64::from(b))))
    }

    /// The number at place `at`: from 0 (included) to 1 (excluded), in steps of 2⁻⁵³.
    pub fn at(&self, at: u64) -> f64 {
        (mix(self.0 ^ mix(at)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// 1 or -1, each as likely.
    pub fn sign(&self, at: u64) -> f64 {
        if self.at(at) < 0.5 { 1.0 } else { -1.0 }
    }

    /// A number of the normal distribution with variance 1 (Box and Muller 1958).
    pub fn normal(&self, at: u64) -> f64 {
        let (u, v) = (1.0 - self.at(2 * at), self.at(2 * at + 1));
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }
}

fn mix(x: u64) -> u64 {
    let z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spread_and_follow_from_seed_and_name() {
        let mean = |seed, name: &str| (0..4000).map(|i| uniform(seed, name, i)).sum::<f64>() / 4000.0;
        assert!((mean(1, "a") - 0.5).abs() < 0.02);
        assert_ne!(mean(1, "a"), mean(2, "a"));
        assert_ne!(mean(1, "a"), mean(1, "b"));
        assert_eq!(mean(1, "a"), mean(1, "a"));
    }

    #[test]
    fn normal_numbers_have_mean_0_and_variance_1() {
        let s = Stream::new(3, "n");
        let x: Vec<f64> = (0..4000).map(|i| s.normal(i)).collect();
        let mean = x.iter().sum::<f64>() / 4000.0;
        let variance = x.iter().map(|x| x * x).sum::<f64>() / 4000.0;
        assert!(mean.abs() < 0.05 && (variance - 1.0).abs() < 0.1);
        assert_eq!((0..100).filter(|&i| s.sign(i).abs() != 1.0).count(), 0);
    }
}
