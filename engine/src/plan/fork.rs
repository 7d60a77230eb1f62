//! Steps that do not need each other, side by side: a small step does not get faster by more threads, but two of them do.

use std::collections::HashMap;

/// Steps that are looked at together.
const LONGEST: usize = 40;
/// Milliseconds that it costs to share out a fork, and to wait for its end.
const SHARE: f64 = 0.003;
/// The part of the time that a fork must do with: all are predictions.
const PART: f64 = 0.9;

/// A step, as far as it matters here.
#[derive(Clone, Debug)]
pub(super) struct Load {
    /// Milliseconds with all threads.
    pub(super) together: f64,
    /// Milliseconds on one.
    pub(super) alone: f64,
    /// Memory that it reads, and whether it writes there.
    pub(super) touches: Vec<(usize, bool)>,
}

/// What is run next.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Turn {
    /// A step, by all threads.
    Step(usize),
    /// Some steps for each thread, in their order; no two threads' steps touch what one of them writes.
    Fork(Vec<Vec<usize>>),
}

impl Turn {
    /// Its steps, of all threads.
    pub(super) fn steps(&self) -> impl Iterator<Item = usize> {
        let (one, all) = match self {
            Turn::Step(i) => (Some(*i), &[][..]),
            Turn::Fork(all) => (None, &all[..]),
        };
        one.into_iter().chain(all.iter().flatten().copied())
    }
}

/// The turns that together take the least time, of steps one behind the other and neighbours side by side.
pub(super) fn turns(loads: &[Load], threads: usize) -> Vec<Turn> {
    let n = loads.len();
    let mut best = vec![(0.0, 1); n + 1];
    for s in (0..n).rev() {
        best[s] = (loads[s].together + best[s + 1].0, 1);
        if threads < 2 {
            continue;
        }
        let ahead = &loads[s..n.min(s + LONGEST)];
        let sums = ahead.iter().scan((0.0, 0.0), |(together, alone), l| {
            (*together, *alone) = (*together + l.together, *alone + l.alone);
            Some((*together, *alone))
        });
        // Mostly nothing can be gained, whatever the chains are.
        let enough = |slowest: f64, together: f64| slowest + SHARE < PART * together;
        let sums: Vec<_> = sums.collect();
        let possible = |&(together, alone): &(f64, f64)| enough(alone / threads as f64, together);
        let Some(last) = sums.iter().rposition(possible) else {
            continue;
        };
        let mut group = Group::new(loads, s);
        for (i, sum) in sums.iter().enumerate().take(last + 1) {
            group.push(s + i);
            if !possible(sum) || group.chains() < 2 {
                continue;
            }
            let slowest = group.shares(threads).iter().map(|s| s.0).fold(0.0, f64::max);
            let time = slowest + SHARE + best[s + i + 1].0;
            if enough(slowest, sum.0) && time < best[s].0 {
                best[s] = (time, i + 1);
            }
        }
    }
    let mut all = vec![];
    let mut s = 0;
    while s < n {
        let len = best[s].1;
        all.push(match len {
            1 => Turn::Step(s),
            _ => {
                let mut group = Group::new(loads, s);
                (s..s + len).for_each(|i| group.push(i));
                Turn::Fork(group.shares(threads).into_iter().map(|s| s.1).collect())
            }
        });
        s += len;
    }
    all
}

/// Neighbouring steps, in chains of which no two touch what one of them writes.
struct Group<'a> {
    loads: &'a [Load],
    first: usize,
    /// The chain of each step.
    chain: Vec<usize>,
    /// Who used which memory.
    seen: HashMap<usize, Seen>,
}

/// The step that last wrote to some memory, and those that have read it since.
#[derive(Default)]
struct Seen {
    writer: Option<usize>,
    readers: Vec<usize>,
}

impl<'a> Group<'a> {
    fn new(loads: &'a [Load], first: usize) -> Group<'a> {
        Group {
            loads,
            first,
            chain: vec![],
            seen: HashMap::new(),
        }
    }

    fn push(&mut self, step: usize) {
        let own = self.chain.len();
        self.chain.push(own);
        for &(memory, writes) in &self.loads[step].touches {
            let mut seen = self.seen.remove(&memory).unwrap_or_default();
            let readers = seen.readers.iter().filter(|_| writes);
            for &other in readers.chain(&seen.writer) {
                self.join(other - self.first, own);
            }
            match writes {
                true => {
                    seen = Seen {
                        writer: Some(step),
                        readers: vec![],
                    }
                }
                false => seen.readers.push(step),
            }
            self.seen.insert(memory, seen);
        }
    }

    fn join(&mut self, a: usize, b: usize) {
        let (from, to) = (self.chain[b], self.chain[a]);
        self.chain
            .iter_mut()
            .filter(|c| **c == from)
            .for_each(|c| *c = to);
    }

    fn chains(&self) -> usize {
        self.chain.iter().enumerate().filter(|(i, c)| i == *c).count()
    }

    /// The chains shared out, the longest first, each to whoever has least: milliseconds and steps of each thread.
    fn shares(&self, threads: usize) -> Vec<(f64, Vec<usize>)> {
        let mut chains: Vec<(f64, Vec<usize>)> = vec![];
        let mut places: HashMap<usize, usize> = HashMap::new();
        for (i, chain) in self.chain.iter().enumerate() {
            let place = *places.entry(*chain).or_insert_with(|| {
                chains.push((0.0, vec![]));
                chains.len() - 1
            });
            chains[place].0 += self.loads[self.first + i].alone;
            chains[place].1.push(self.first + i);
        }
        chains.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut shares: Vec<(f64, Vec<usize>)> = vec![(0.0, vec![]); threads.min(chains.len())];
        for (ms, steps) in chains {
            let least = shares.iter_mut().min_by(|a, b| a.0.total_cmp(&b.0));
            if let Some(share) = least {
                share.0 += ms;
                share.1.extend(steps);
            }
        }
        shares.iter_mut().for_each(|s| s.1.sort_unstable());
        shares
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A step that takes as long on all threads as on one.
    fn small(reads: &[usize], writes: usize) -> Load {
        let read = reads.iter().map(|&m| (m, false));
        Load {
            together: 0.1,
            alone: 0.1,
            touches: read.chain([(writes, true)]).collect(),
        }
    }

    #[test]
    fn branches_run_side_by_side() {
        let loads = [
            small(&[], 0),
            small(&[0], 1),
            small(&[0], 2),
            small(&[1], 3),
            small(&[2], 4),
            small(&[3, 4], 5),
        ];
        let forked = Turn::Fork(vec![vec![1, 3], vec![2, 4]]);
        assert_eq!(turns(&loads, 2), [Turn::Step(0), forked, Turn::Step(5)]);
        assert_eq!(turns(&loads, 1).len(), 6);
    }

    #[test]
    fn what_is_overwritten_is_read_before() {
        // 1 writes where 0 reads; both could else run at once.
        let loads = [small(&[7], 0), small(&[], 7)];
        assert_eq!(turns(&loads, 2), [Turn::Step(0), Turn::Step(1)]);
        let loads = [small(&[], 7), small(&[], 7)];
        assert_eq!(turns(&loads, 2).len(), 2);
        let loads = [small(&[7], 0), small(&[7], 1)];
        assert_eq!(turns(&loads, 2), [Turn::Fork(vec![vec![0], vec![1]])]);
    }

    #[test]
    fn steps_that_threads_share_well_stay_alone() {
        let large = |writes| Load {
            together: 1.0,
            alone: 1.9,
            ..small(&[9], writes)
        };
        assert_eq!(turns(&[large(0), large(1)], 2).len(), 2);
    }
}
