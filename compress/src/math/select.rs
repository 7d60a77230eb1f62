//! Exact selection by rank from more numbers than memory holds.

/// Bits of a key that one pass looks at: what all keys of `f32`s differ in takes two passes.
const DIGIT: u32 = 17;
/// Keys have their highest bit clear, as those of [`Float::key`](super::Float::key).
const BITS: u32 = 63;

/// The search for the `rank`-th smallest of many keys: in each pass over the keys, in any order and in any number of
/// parts, they are counted by their next digit (radix selection; Knuth, The Art of Computer Programming 3, 5.2.5).
///
/// The memory it takes, 1 MiB a count, depends on neither the number of keys nor their values.
#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    /// Among the keys that begin with `prefix`, from 1.
    rank: u64,
    prefix: u64,
    /// Bits that are still to be found.
    left: u32,
    /// Keys that begin with `prefix`; not known before the first pass.
    equal: u64,
}

/// How many keys have each digit.
#[derive(Clone, Debug, PartialEq)]
pub struct Counts(Vec<u64>);

impl Default for Counts {
    fn default() -> Counts {
        Counts(vec![0; 1 << DIGIT])
    }
}

impl Counts {
    /// The counts of both parts together.
    pub fn merge(mut self, other: Counts) -> Counts {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a += b);
        self
    }
}

impl Search {
    /// Passes that find every key exactly.
    pub const PASSES: u32 = BITS.div_ceil(DIGIT);
    /// Passes that are enough where all numbers are exact in `f32`.
    pub const PASSES_F32: u32 = 2;

    /// Looks for the `rank`-th smallest key; the smallest has rank 1.
    pub fn new(rank: u64) -> Search {
        Search {
            rank,
            prefix: 0,
            left: BITS,
            equal: 0,
        }
    }

    fn shift(&self) -> u32 {
        self.left.saturating_sub(DIGIT)
    }

    /// Counts those of `keys` that begin as the key that is looked for does, each as often as it says.
    pub fn count(&self, counts: &mut Counts, keys: impl Iterator<Item = (u64, u64)>) {
        let (left, shift) = (self.left, self.shift());
        let mask = (1 << (left - shift)) - 1;
        for (key, times) in keys {
            if key >> left == self.prefix {
                counts.0[(key >> shift) as usize & mask] += times;
            }
        }
    }

    /// Ends a pass with the counts of all keys.
    ///
    /// # Panics
    ///
    /// If there are fewer keys than the rank.
    pub fn narrow(&mut self, counts: &Counts) {
        let shift = self.shift();
        for (digit, &n) in counts.0.iter().enumerate() {
            if self.rank <= n {
                self.prefix = self.prefix << (self.left - shift) | digit as u64;
                (self.left, self.equal) = (shift, n);
                return;
            }
            self.rank -= n;
        }
        panic!("rank beyond the number of keys");
    }

    /// The key with that rank, as far as it was found; bits that were not looked at are zero.
    pub fn key(&self) -> u64 {
        self.prefix << self.left
    }

    /// Which of the keys equal to [`Search::key`] it is, from 1.
    pub fn rank(&self) -> u64 {
        self.rank
    }

    /// How many keys equal to [`Search::key`] have a higher rank.
    pub fn beyond(&self) -> u64 {
        self.equal - self.rank
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pseudo-random numbers (Vigna 2014, splitmix64).
    fn random(mut seed: u64) -> impl Iterator<Item = u64> {
        std::iter::repeat_with(move || {
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        })
    }

    fn found(keys: &[u64], rank: u64, passes: u32) -> (u64, u64) {
        let mut search = Search::new(rank);
        for _ in 0..passes {
            let parts = keys.chunks(7).map(|part| {
                let mut counts = Counts::default();
                search.count(&mut counts, part.iter().map(|&key| (key, 1)));
                counts
            });
            let counts = parts.fold(Counts::default(), Counts::merge);
            search.narrow(&counts);
        }
        (search.key(), search.beyond())
    }

    fn sorted(keys: &[u64], rank: u64) -> (u64, u64) {
        let mut keys = keys.to_vec();
        keys.sort();
        let key = keys[rank as usize - 1];
        let up_to = keys.partition_point(|&k| k <= key);
        (key, up_to as u64 - rank)
    }

    #[test]
    fn finds_what_sorting_finds() {
        let all: Vec<u64> = random(1).map(|k| k >> 1).take(20).collect();
        let few: Vec<u64> = random(2).map(|k| (k % 3) << 60).take(20).collect();
        let near: Vec<u64> = random(3).map(|k| (1 << 62) + k % 5).take(20).collect();
        for keys in [all, few, near, vec![7; 20]] {
            for rank in 1..=20 {
                assert_eq!(found(&keys, rank, Search::PASSES), sorted(&keys, rank));
            }
        }
    }

    #[test]
    fn two_passes_are_enough_for_f32() {
        let odd = [f32::MIN_POSITIVE, f32::MAX, f32::INFINITY, 1e-45, 0.0];
        let numbers = random(4).map(|k| f32::from_bits((k as u32) >> 1)).take(30);
        let keys: Vec<_> = numbers.chain(odd).map(|x| f64::from(x).to_bits()).collect();
        for rank in 1..=keys.len() as u64 {
            assert_eq!(found(&keys, rank, Search::PASSES_F32), sorted(&keys, rank));
        }
    }

    #[test]
    fn keys_count_as_often_as_they_say() {
        let mut search = Search::new(5);
        for _ in 0..Search::PASSES {
            let mut counts = Counts::default();
            search.count(&mut counts, [(9, 4), (3, 2), (7, 0), (8, 3)].into_iter());
            search.narrow(&counts);
        }
        assert_eq!((search.key(), search.beyond()), (8, 0));
    }

    #[test]
    #[should_panic(expected = "rank beyond")]
    fn a_rank_beyond_the_end_is_refused() {
        found(&[1, 2], 3, 1);
    }
}
