//! The smallest weights go (Janowsky 1989; Han et al. 2015, arXiv:1506.02626).

pub(super) mod blocks;

use secateur_engine::Tensor;
use secateur_engine::ir::Model;

use super::{Amount, Method, Scope, Task};
use crate::change::{Change, Cut, Mask, Plan};
use crate::error::MethodError;
use crate::math::float::with_float;
use crate::math::select::Counts;
use crate::math::{Float, Kind, Search, mask};
use crate::observe::Stats;
use crate::pattern::Pattern;
use crate::scan::{Effort, Piece};
use crate::weights::Weight;

/// Magnitude pruning to a share of zeros.
///
/// Of `n` weights exactly `round(share · n)` are zero afterwards, fewer only where too many are NaN, more only where more
/// are zero already. Magnitudes are compared exactly, over all types together; NaN counts as larger than infinity. Of
/// weights that are equally large the first stay, in the order of the file.
///
/// Blocks are ranked by their mean magnitude, and go as a whole, as few as reach the share.
pub(super) struct Magnitude;

impl Method for Magnitude {
    fn name(&self) -> &'static str {
        "magnitude"
    }

    fn about(&self) -> &'static str {
        "Sets the smallest weights to zero, until a share of them is zero."
    }

    fn scores(&self, _: &Model, weight: &Weight, _: &Stats) -> Result<Vec<f32>, MethodError> {
        Ok(magnitudes(weight))
    }

    fn decide(&self, task: &Task, _: &Stats) -> Result<Plan, MethodError> {
        let share = share(self.name(), task.goal.amount)?;
        let targets = task.targets()?;
        if let Pattern::Most { keep, of } = task.goal.pattern {
            agree(task.goal.pattern, share, [keep, of])?;
            return Ok(Plan(blocks::most(&targets, task.goal.pattern, keep)));
        }
        let groups: Vec<&[&Weight]> = match task.goal.scope {
            Scope::Global => vec![&targets],
            Scope::Layer => targets.chunks(1).collect(),
        };
        let all = |g: &&[&Weight]| match task.goal.pattern {
            Pattern::Unstructured => bytes(g) * u64::from(passes(g)),
            _ => bytes(g) * u64::from(Search::PASSES),
        };
        let work = groups.iter().map(all).sum();
        task.effort.watch.begin("ranking weights", work);
        let masks = |g| match task.goal.pattern {
            Pattern::Unstructured => masks(g, share, &task.effort),
            pattern => blocks::masks(g, pattern, share, &task.effort),
        };
        Ok(Plan(groups.into_iter().flat_map(masks).collect()))
    }
}

/// |x| of each element; 0 for NaN.
pub(super) fn magnitudes(weight: &Weight) -> Vec<f32> {
    let all = weight.tensor.floats().unwrap_or_default();
    all.into_iter().map(|x| x.abs().max(0.0) as f32).collect()
}

/// The share that `amount` is for the method `name`.
pub(super) fn share(name: &str, amount: Amount) -> Result<f64, MethodError> {
    let what = match amount {
        Amount::Sparsity(share) if (0.0..=1.0).contains(&share) => return Ok(share),
        Amount::Sparsity(share) => format!("expected a sparsity from 0 to 1, found {share}"),
        Amount::Threshold(_) => {
            format!("method {name} takes a sparsity; method threshold takes a threshold")
        }
    };
    Err(MethodError::goal(what))
}

/// Refuses a share that is not the pattern's own.
pub(super) fn agree(pattern: Pattern, share: f64, [keep, of]: [usize; 2]) -> Result<(), MethodError> {
    let own = pattern.share().unwrap_or(share);
    match (own - share).abs() < 1e-9 {
        true => Ok(()),
        false => Err(MethodError::goal(format!(
            "pattern {pattern} keeps {keep} of {of} weights, which is a sparsity of {own} and not {share}"
        ))),
    }
}

fn bytes(group: &[&Weight]) -> u64 {
    group.iter().map(|w| w.tensor.bytes().len() as u64).sum()
}

fn passes(group: &[&Weight]) -> u32 {
    match group.iter().any(|w| w.kind == Kind::F64) {
        true => Search::PASSES,
        false => Search::PASSES_F32,
    }
}

/// Masks that make `share` of all elements of `group` zero.
pub(super) fn masks(group: &[&Weight], share: f64, effort: &Effort) -> Vec<Change> {
    let total: u64 = group.iter().map(|w| w.elements()).sum();
    let rank = (total as f64 * share).round() as u64;
    if rank == 0 {
        return vec![];
    }
    let (threshold, beyond) = ranked(group, rank, effort);
    if threshold == 0.0 {
        return vec![];
    }
    let mask = |(w, ties): (&&Weight, u64)| {
        Change::Mask(Mask {
            value: w.name.clone(),
            elements: w.elements(),
            tiles: None,
            cut: Cut::Small { threshold, ties },
        })
    };
    let ties = ties(group, threshold, beyond, effort);
    group.iter().zip(ties).map(mask).collect()
}

/// The `rank`-th smallest magnitude, infinity in the place of NaN, and how many more elements have it.
fn ranked(group: &[&Weight], rank: u64, effort: &Effort) -> (f64, u64) {
    let mut search = Search::new(rank);
    for _ in 0..passes(group) {
        let count = |counts: &mut Counts, piece: &Piece, bytes: &[u8]| {
            with_float!(group[piece.tensor].kind, F => {
                search.count(counts, F::split(bytes).iter().map(|&x| (F::key(x), 1)));
            });
        };
        let counts = effort.pass(&tensors(group), Counts::default, count, Counts::merge);
        search.narrow(&counts);
    }
    match f64::from_bits(search.key()) {
        nan if nan.is_nan() => (f64::INFINITY, 0),
        found => (found, search.beyond()),
    }
}

/// How many elements that equal `threshold` stay in each tensor, so that the first `beyond` of all stay.
fn ties(group: &[&Weight], threshold: f64, mut beyond: u64, effort: &Effort) -> Vec<u64> {
    if beyond == 0 {
        return vec![0; group.len()];
    }
    effort.watch.begin("counting ties", bytes(group));
    let sums = effort.sums(&tensors(group), |piece, bytes| {
        with_float!(group[piece.tensor].kind, F => mask::census::<F>(F::split(bytes), threshold))
    });
    let mut take = |census: mask::Census| {
        let taken = census.equal.min(beyond);
        beyond -= taken;
        taken
    };
    sums.into_iter().map(&mut take).collect()
}

fn tensors<'a>(group: &[&'a Weight]) -> Vec<&'a Tensor> {
    group.iter().map(|w| &*w.tensor).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Goal;
    use super::super::tests::{chain, decide};
    use super::*;
    use crate::apply::apply;
    use half::{bf16, f16};
    use secateur_engine::ir::Model;

    fn zeros(t: &Tensor) -> usize {
        t.floats().unwrap().iter().filter(|&&x| x == 0.0).count()
    }

    fn prune(tensors: Vec<Tensor>, share: f64, scope: Scope) -> (Model, Vec<usize>) {
        let mut model = chain(tensors);
        let goal = Goal {
            amount: Amount::Sparsity(share),
            scope,
            pattern: Pattern::Unstructured,
        };
        let plan = decide(&Magnitude, &model, goal, 2).unwrap();
        apply(&plan, &mut model).unwrap();
        let g = &model.graph;
        let zeros = g
            .initializers
            .iter()
            .map(|&v| zeros(&g[v].konst.as_ref().unwrap().tensor))
            .collect();
        (model, zeros)
    }

    /// Values from -1 to 1 with a few equal ones.
    fn noise(n: usize, scale: f64) -> Vec<f64> {
        (0..n)
            .map(|i| ((i * 7919 + 13) % 1009) as f64 / 504.0 - 1.0)
            .map(|x| x * scale)
            .collect()
    }

    fn tensor<T: secateur_engine::ir::Element>(n: usize, scale: f64) -> Tensor {
        Tensor::rounded(T::DTYPE, &[n / 5, 5], &noise(n, scale)).unwrap()
    }

    #[test]
    fn a_share_of_all_weights_is_exact() {
        for share in [0.0, 0.001, 0.25, 0.5, 0.8, 0.999, 1.0] {
            let all = || {
                vec![
                    tensor::<f32>(1000, 1.0),
                    tensor::<f32>(35, 0.1),
                    tensor::<f32>(20, 0.0),
                ]
            };
            let (_, zeros) = prune(all(), share, Scope::Global);
            let expected = ((1055.0 * share).round() as usize).max(21);
            assert_eq!(zeros.iter().sum::<usize>(), expected, "{share}");
            let (_, zeros) = prune(all(), share, Scope::Layer);
            assert_eq!(zeros[0], ((1000.0 * share).round() as usize).max(1), "{share}");
            assert_eq!(zeros[1], (35.0 * share).round() as usize, "{share}");
            assert_eq!(zeros[2], 20);
        }
    }

    #[test]
    fn the_pruned_weights_are_the_smallest_of_all_types() {
        let tensors = vec![
            tensor::<f32>(500, 1.0),
            tensor::<f16>(300, 0.5),
            tensor::<bf16>(200, 2.0),
            tensor::<f64>(100, 1.0 + 1e-12),
        ];
        let before: Vec<f64> = tensors.iter().flat_map(|t| t.floats().unwrap()).collect();
        let (model, zeros) = prune(tensors, 0.7, Scope::Global);
        assert_eq!(zeros.iter().sum::<usize>(), 770);
        let g = &model.graph;
        let tensors = g
            .initializers
            .iter()
            .map(|&v| &g[v].konst.as_ref().unwrap().tensor);
        let after: Vec<f64> = tensors.flat_map(|t| t.floats().unwrap()).collect();
        let mut sorted: Vec<f64> = before.iter().map(|x| x.abs()).collect();
        sorted.sort_by(f64::total_cmp);
        for (x, y) in before.iter().zip(after) {
            assert!(y == *x && x.abs() >= sorted[769] || y == 0.0 && x.abs() <= sorted[769]);
        }
    }

    #[test]
    fn of_equal_weights_the_first_stay() {
        let (model, zeros) = prune(
            vec![
                Tensor::of(&[3, 2], vec![1f32; 6]),
                Tensor::of(&[2, 2], vec![-1f32; 4]),
            ],
            0.3,
            Scope::Global,
        );
        assert_eq!(zeros, [0, 3]);
        let g = &model.graph;
        let last = g[g.initializers[1]]
            .konst
            .as_ref()
            .unwrap()
            .tensor
            .floats()
            .unwrap();
        assert_eq!(last, [-1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn nan_is_never_pruned() {
        let x = vec![f32::NAN, 1.0, f32::INFINITY, -f32::NAN, 2.0, f32::NEG_INFINITY];
        let of = |share| {
            let (model, zeros) = prune(vec![Tensor::of(&[2, 3], x.clone())], share, Scope::Global);
            let g = &model.graph;
            let y = g[g.initializers[0]]
                .konst
                .as_ref()
                .unwrap()
                .tensor
                .floats()
                .unwrap();
            assert_eq!(y.iter().filter(|y| y.is_nan()).count(), 2);
            zeros[0]
        };
        assert_eq!([0.0, 0.5, 0.6, 0.9, 1.0].map(of), [0, 3, 4, 4, 4]);
    }
}
