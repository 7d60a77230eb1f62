//! Random numbers that belong to a purpose and nothing else.

use secateur_engine::random::Random;

/// What random numbers are for. The numbers of one purpose tell nothing about those of another.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    Split = 1,
    Order = 2,
    Augment = 3,
}

/// The stream of a purpose: a pure function of `seed`, epoch and example.
pub(super) fn stream(seed: u64, purpose: Purpose, epoch: u64, example: u64) -> Random {
    let key = [purpose as u64, epoch, example];
    let mixed = key
        .iter()
        .fold(seed, |h, &k| Random::new(h ^ k.rotate_left(32)).bits());
    Random::new(mixed)
}

/// 0 to `n` in random order (Fisher and Yates; Durstenfeld 1964).
pub(super) fn permutation(n: usize, random: &mut Random) -> Vec<u32> {
    let mut all: Vec<u32> = (0..n as u32).collect();
    for i in (1..n).rev() {
        all.swap(i, random.below(i + 1));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutations_hold_everything_once_and_streams_differ() {
        let of = |seed, purpose, epoch| permutation(100, &mut stream(seed, purpose, epoch, 0));
        let mut all = of(1, Purpose::Order, 3);
        assert_eq!(all, of(1, Purpose::Order, 3));
        for other in [
            of(2, Purpose::Order, 3),
            of(1, Purpose::Split, 3),
            of(1, Purpose::Order, 4),
        ] {
            assert_ne!(all, other);
        }
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<u32>>());
    }
}
