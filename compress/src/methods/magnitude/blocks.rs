//! Blocks of weights that go together.

use crate::change::{Change, Cut, Mask};
use crate::math::float::with_float;
use crate::math::select::Counts;
use crate::math::tiles::{Grid, Seen};
use crate::math::{Float, Search, Tiles};
use crate::pattern::Pattern;
use crate::scan::Effort;
use crate::weights::Weight;

/// A weight in blocks.
struct Blocks<'a> {
    weight: &'a Weight,
    tiles: Tiles,
    grid: Grid,
}

impl<'a> Blocks<'a> {
    fn of(weight: &'a Weight, pattern: Pattern) -> Option<Blocks<'a>> {
        let tiles = weight.matrix.as_ref()?.tiles(pattern)?;
        let grid = tiles.grid(weight.tensor.len())?;
        Some(Blocks { weight, tiles, grid })
    }

    fn seen(&self, i: usize) -> Seen {
        let t = &self.weight.tensor;
        with_float!(self.weight.kind, F => self.grid.seen::<F>(F::split(t.bytes()), i))
    }

    fn mask(self, cut: Cut) -> Change {
        Change::Mask(Mask {
            value: self.weight.name.clone(),
            elements: self.weight.elements(),
            tiles: Some(self.tiles),
            cut,
        })
    }

    /// How many of the blocks with this score stay, if of its last ones as many go as hold `left` weights that are not zero;
    /// takes these off `left`.
    fn ties(&self, score: f64, left: &mut u64) -> u64 {
        let equal = |i: &usize| self.seen(*i).score == score;
        let stay = |i: &usize| {
            let go = *left > 0;
            *left -= self.seen(*i).live.min(*left);
            !go
        };
        (0..self.grid.tiles()).rev().filter(equal).filter(stay).count() as u64
    }
}

/// Masks that keep the `keep` largest weights of each block.
pub(in crate::methods) fn most(weights: &[&Weight], pattern: Pattern, keep: usize) -> Vec<Change> {
    let blocks = weights.iter().filter_map(|w| Blocks::of(w, pattern));
    blocks.map(|b| b.mask(Cut::AllBut(keep as u64))).collect()
}

/// Masks that make the fewest blocks zero, those of the least mean magnitude, with which `share` of all elements of `group`
/// is. Of blocks that are equal the last go first.
pub(in crate::methods) fn masks(
    group: &[&Weight],
    pattern: Pattern,
    share: f64,
    effort: &Effort,
) -> Vec<Change> {
    let group: Vec<Blocks> = group.iter().filter_map(|w| Blocks::of(w, pattern)).collect();
    let total: u64 = group.iter().map(|b| b.weight.elements()).sum();
    let zeros: u64 = group.iter().map(|b| b.weight.tensor.zeros_count() as u64).sum();
    let rank = ((total as f64 * share).round() as u64).saturating_sub(zeros);
    if rank == 0 {
        return vec![];
    }
    let (threshold, mut left) = ranked(&group, rank, effort);
    let mut masks = vec![];
    for blocks in group.into_iter().rev() {
        let ties = match left {
            Some(ref mut left) => blocks.ties(threshold, left),
            None => 0,
        };
        masks.push(blocks.mask(Cut::Small { threshold, ties }));
    }
    masks.reverse();
    masks
}

/// The score of the block with which so many weights that are not zero are in blocks of at most its score, infinity in the place
/// of NaN; and how many of these weights are in blocks of just this score, `None` for all.
fn ranked(group: &[Blocks], rank: u64, effort: &Effort) -> (f64, Option<u64>) {
    let sizes: Vec<_> = group.iter().map(|b| (b.grid.tiles(), bytes(b))).collect();
    let mut search = Search::new(rank);
    for _ in 0..Search::PASSES {
        let count = |counts: &mut Counts, w: usize, i: usize| {
            let Seen { score, live } = group[w].seen(i);
            search.count(counts, std::iter::once((score.abs().to_bits(), live)));
        };
        let counts = effort.tiles(&sizes, Counts::default, count, Counts::merge);
        search.narrow(&counts);
    }
    match f64::from_bits(search.key()) {
        nan if nan.is_nan() => (f64::INFINITY, None),
        found => (found, (search.beyond() > 0).then(|| search.rank())),
    }
}

fn bytes(blocks: &Blocks) -> u64 {
    blocks.weight.tensor.bytes().len() as u64
}

#[cfg(test)]
mod tests {
    use secateur_engine::Tensor;

    use super::super::Magnitude;
    use crate::apply::apply;
    use crate::error::MethodError;
    use crate::methods::tests::{chain, decide};
    use crate::{Amount, Goal, Scope};

    /// Values from -1 to 1, none of them 0, with a few equal ones.
    fn noise(dims: [usize; 2], seed: usize) -> Tensor {
        let value = |i: usize| (((i + seed) * 7919 + 13) % 1009) as f32 / 504.0 - 1.0001;
        Tensor::of(&dims, (0..dims[0] * dims[1]).map(value).collect())
    }

    fn pruned(
        tensors: &[Tensor],
        pattern: &str,
        (share, scope): (f64, Scope),
    ) -> Result<Vec<Vec<f64>>, MethodError> {
        let mut model = chain(tensors.to_vec());
        let goal = Goal {
            amount: Amount::Sparsity(share),
            scope,
            pattern: pattern.parse().unwrap(),
        };
        let plan = decide(&Magnitude, &model, goal, 1)?;
        assert_eq!(
            plan,
            decide(&Magnitude, &model, goal, 3)?,
            "on any number of threads"
        );
        apply(&plan, &mut model).unwrap();
        let g = &model.graph;
        let values =
            |&v: &secateur_engine::ir::ValueId| g[v].konst.as_ref().unwrap().tensor.floats().unwrap();
        Ok(g.initializers.iter().map(values).collect())
    }

    fn zeros(values: &[f64]) -> usize {
        values.iter().filter(|x| **x == 0.0).count()
    }

    /// The weight [inputs, outputs] of a `MatMul` in blocks of an output's, an input's, or neighbouring ones' elements.
    fn blocks([inputs, outputs]: [usize; 2], pattern: &str) -> Vec<Vec<usize>> {
        let at = |k: usize, n: usize| k * outputs + n;
        let runs = |len: usize| (0..len).step_by(4).map(move |i| i..len.min(i + 4));
        match pattern {
            "row" => (0..outputs)
                .map(|n| (0..inputs).map(|k| at(k, n)).collect())
                .collect(),
            "column" => (0..inputs)
                .map(|k| (0..outputs).map(|n| at(k, n)).collect())
                .collect(),
            "block4x1" => (0..inputs)
                .flat_map(|k| runs(outputs).map(move |run| run.map(|n| at(k, n)).collect()))
                .collect(),
            _ => runs(inputs)
                .flat_map(|run| (0..outputs).map(move |n| run.clone().map(|k| at(k, n)).collect()))
                .collect(),
        }
    }

    #[test]
    fn whole_blocks_go_the_smallest_first_and_reach_the_share() {
        for dims in [[8, 12], [7, 5], [3, 2]] {
            for pattern in ["block4x1", "block1x4", "row", "column"] {
                let (w, blocks) = (noise(dims, 3), blocks(dims, pattern));
                let x = w.floats().unwrap();
                let largest = blocks.iter().map(Vec::len).max().unwrap();
                for share in [0.0, 0.1, 0.5, 0.77, 0.95, 1.0] {
                    let y = &pruned(std::slice::from_ref(&w), pattern, (share, Scope::Global)).unwrap()[0];
                    let place = format!("{dims:?} {pattern} {share}");
                    let wanted = (x.len() as f64 * share).round() as usize;
                    assert!((wanted..wanted + largest).contains(&zeros(y)), "{place}");
                    let mean = |b: &[usize]| b.iter().map(|&i| x[i].abs()).sum::<f64>() / b.len() as f64;
                    let (gone, kept): (Vec<_>, Vec<_>) =
                        blocks.iter().partition(|b| b.iter().all(|&i| y[i] == 0.0));
                    assert!(kept.iter().all(|b| b.iter().all(|&i| y[i] == x[i])), "{place}");
                    let most = gone.iter().map(|b| mean(b)).fold(0.0, f64::max);
                    assert!(kept.iter().all(|b| mean(b) >= most), "{place}");
                }
            }
        }
    }

    #[test]
    fn a_share_of_all_layers_or_of_each() {
        let small = Tensor::of(&[4, 12], vec![0.01f32; 48]);
        let both = [noise([12, 4], 1), small];
        let counts = |scope| -> Vec<usize> {
            let done = pruned(&both, "block4x1", (0.5, scope)).unwrap();
            done.iter().map(|y| zeros(y)).collect()
        };
        assert_eq!(counts(Scope::Layer), [24, 24]);
        assert_eq!(counts(Scope::Global), [0, 48]);
    }

    #[test]
    fn of_equal_blocks_the_last_go() {
        let both = [noise([1, 8], 5), Tensor::of(&[8, 6], vec![-9f32; 48])];
        let done = pruned(&both, "block4x1", (0.5, Scope::Global)).unwrap();
        // All of the first and 20 of 48: of each row's blocks of 4 and 2, from the last on, seven.
        assert_eq!(zeros(&done[0]), 8);
        let rows: Vec<usize> = done[1].chunks(6).map(zeros).collect();
        assert_eq!(rows, [0, 0, 0, 0, 2, 6, 6, 6]);
    }

    #[test]
    fn zeros_that_are_there_count_and_nan_stays() {
        let mut x = vec![1f32; 16];
        x[..8].fill(0.0);
        let w = |x: &[f32]| [Tensor::of(&[4, 4], x.to_vec())];
        let count = |x: &[f32], share| zeros(&pruned(&w(x), "block4x1", (share, Scope::Global)).unwrap()[0]);
        assert_eq!(
            [0.25, 0.5, 0.6, 0.8, 1.0].map(|s| count(&x, s)),
            [8, 8, 12, 16, 16]
        );
        x[9] = f32::NAN;
        assert_eq!([0.6, 0.8, 1.0].map(|s| count(&x, s)), [12, 12, 12]);
    }

    #[test]
    fn so_many_of_each_stay() {
        let w = noise([10, 3], 2);
        let x = w.floats().unwrap();
        for (pattern, keep, of) in [("2:4", 2, 4), ("1:4", 1, 4), ("4:8", 4, 8)] {
            let share = 1.0 - keep as f64 / of as f64;
            let y = &pruned(std::slice::from_ref(&w), pattern, (share, Scope::Layer)).unwrap()[0];
            for n in 0..3 {
                for run in (0..10).collect::<Vec<usize>>().chunks(of) {
                    let at = run.iter().map(|k| k * 3 + n);
                    let mut sorted: Vec<f64> = at.clone().map(|i| x[i].abs()).collect();
                    sorted.sort_by(|a, b| b.total_cmp(a));
                    let least = sorted[keep.min(sorted.len()) - 1];
                    let kept: Vec<f64> = at.filter(|&i| y[i] != 0.0).map(|i| x[i].abs()).collect();
                    assert_eq!(kept.len(), keep.min(sorted.len()), "{pattern}");
                    assert!(kept.iter().all(|x| *x >= least), "{pattern}");
                }
            }
            let error = pruned(std::slice::from_ref(&w), pattern, (0.9, Scope::Layer)).unwrap_err();
            assert!(
                error.to_string().contains(&format!("a sparsity of {share}")),
                "{error}"
            );
        }
    }
}
