//! Ensembles of decision trees.

mod cases;
mod cpu;
mod forest;

use super::post::Post;
use super::rows::{Labels, Scorer, classified, eval, eval_as, numbered};
use super::{misfit, numeric, table};
use crate::cpu::Candidate;
use crate::expr::Ex;
use crate::ir::{DType, Tensor};
use crate::ops::{Axes, Case, Fact, NodeRef, Op, OpError, OpName, ml};
use forest::{Forest, Votes, reals};

/// For each target, what the leaves that a row falls into have for it, added up or otherwise joined.
pub struct TreeEnsemble;

/// The class for which the leaves that a row falls into vote most, and the sum of the votes for each.
///
/// Where there are two classes and all votes are for the first, their sum is the score of the second; it is taken above
/// 0.5, or above 0 where votes may be negative.
pub struct TreeEnsembleClassifier;

/// The older form of [`TreeEnsemble`].
pub struct TreeEnsembleRegressor;

/// How the votes of trees are joined.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Join {
    Average,
    Sum,
    Min,
    Max,
}

/// How votes become a class.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Choice {
    /// Not at all.
    None,
    /// That with the most votes.
    Most,
    /// The second where the sum is above the threshold. `signed` where votes may be negative; `lone` where the sum stands
    /// for both classes.
    Above { signed: bool, lone: bool },
}

/// Trees, and what becomes of their votes.
struct Ensemble {
    forest: Forest,
    features: usize,
    targets: usize,
    join: Join,
    base: Vec<f64>,
    choice: Choice,
    post: Post,
}

impl Ensemble {
    /// The ensemble of a node whose input has as many columns.
    fn fitting(self, columns: Option<usize>) -> Result<Ensemble, OpError> {
        let wrong = self.forest.votes.iter().find(|v| v.0 >= self.targets);
        if let Some((t, _)) = wrong {
            return Err(misfit(format_args!("a vote for {t} of {}", self.targets)));
        }
        match columns {
            Some(c) if c < self.forest.features => Err(OpError::new(format!(
                "input 0 has {c} columns; the trees ask for column {}",
                self.forest.features - 1
            ))),
            c => Ok(Ensemble {
                features: c.unwrap_or(self.forest.features),
                ..self
            }),
        }
    }

    /// What votes are joined to at first.
    fn start(&self) -> f64 {
        match self.join {
            Join::Min => f64::INFINITY,
            Join::Max => f64::NEG_INFINITY,
            // No sum is -0 unless nothing was added, or only -0.
            Join::Sum | Join::Average => -0.0,
        }
    }

    fn join(&self, sum: f64, vote: f64) -> f64 {
        match self.join {
            Join::Min => sum.min(vote),
            Join::Max => sum.max(vote),
            Join::Sum | Join::Average => sum + vote,
        }
    }

    /// Makes scores of joined votes, and returns the class.
    fn finish(&self, scores: &mut [f64]) -> usize {
        let start = self.start().to_bits();
        let voted = |s: f64| s.to_bits() != start;
        // Classes without votes are not chosen, whatever votes the others have.
        let all = !self.base.is_empty();
        let mut class: Option<usize> = None;
        for t in 0..scores.len() {
            let had = voted(scores[t]);
            let sum = if had { scores[t] } else { 0.0 };
            let share = if self.join == Join::Average {
                self.forest.roots.len().max(1) as f64
            } else {
                1.0
            };
            scores[t] = sum / share + self.base.get(t).copied().unwrap_or(0.0);
            if (had || all) && class.is_none_or(|c| scores[t] > scores[c]) {
                class = Some(t);
            }
        }
        if let Choice::Above { signed, lone } = self.choice {
            let sum = scores[usize::from(!lone)];
            if lone {
                scores.copy_from_slice(&self.post.pair(sum, signed));
            } else {
                self.post.apply(scores);
            }
            return usize::from(sum > if signed { 0.0 } else { 0.5 });
        }
        self.post.apply(scores);
        class.unwrap_or(0)
    }
}

impl Scorer for Ensemble {
    fn features(&self) -> usize {
        self.features
    }

    fn scores(&self) -> usize {
        self.targets
    }

    fn work(&self) -> usize {
        let leaves = self.forest.nodes.len() / self.forest.roots.len().max(1);
        self.forest.roots.len() * (leaves.max(1).ilog2() as usize + 1) * 8
    }

    fn row(&self, x: &[f64], scores: &mut [f64]) -> usize {
        scores.fill(self.start());
        for &root in &self.forest.roots {
            let leaf = self.forest.leaf(root, x);
            for &(target, vote) in &self.forest.votes[leaf.range.0..leaf.range.1] {
                scores[target] = self.join(scores[target], vote);
            }
        }
        self.finish(scores)
    }
}

/// The columns of input 0, if they are known.
fn columns(n: &NodeRef) -> Result<Option<usize>, OpError> {
    Ok(table(n)?.1.size())
}

/// The columns of `x`.
fn width(x: &[Option<&Tensor>]) -> Option<usize> {
    x.first().copied().flatten()?.dims().last().copied()
}

/// The number of targets.
fn targets(n: &NodeRef) -> Result<usize, OpError> {
    let targets = n.int_or("n_targets", 1)?;
    usize::try_from(targets).map_err(|_| misfit(format_args!("{targets} targets")))
}

/// Marks the attributes that describe old trees as read; what is in them is looked at when they are built.
fn old(n: &NodeRef) -> Result<(), OpError> {
    n.ignore(&[
        "nodes_treeids",
        "nodes_nodeids",
        "nodes_featureids",
        "nodes_truenodeids",
        "nodes_falsenodeids",
        "nodes_values",
        "nodes_values_as_tensor",
        "nodes_modes",
        "nodes_missing_value_tracks_true",
        "nodes_hitrates",
        "nodes_hitrates_as_tensor",
        "base_values",
        "base_values_as_tensor",
    ]);
    Post::read(n)?;
    numeric(n)
}

const CLASSES: Votes = Votes {
    prefix: "class",
    ids: "class_ids",
};

fn classifier(n: &NodeRef, columns: Option<usize>) -> Result<(Ensemble, Labels), OpError> {
    let labels = Labels::read(n, "classlabels_int64s")?;
    let forest = Forest::old(n, &CLASSES)?;
    let only = |id: usize| labels.len() == 2 && forest.votes.iter().all(|v| v.0 == id);
    let signed = forest.votes.iter().any(|v| v.1 < 0.0);
    let choice = match (only(0), only(1)) {
        (true, _) => Choice::Above { signed, lone: true },
        (_, true) => Choice::Above { signed, lone: false },
        _ => Choice::Most,
    };
    let ensemble = Ensemble {
        forest,
        features: 0,
        targets: labels.len(),
        join: Join::Sum,
        base: reals(n, "base_values")?,
        choice,
        post: Post::read(n)?,
    };
    Ok((ensemble.fitting(columns)?, labels))
}

impl Op for TreeEnsembleClassifier {
    fn name(&self) -> OpName {
        ml("TreeEnsembleClassifier")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 3, 5]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        n.ignore(&[
            "class_treeids",
            "class_nodeids",
            "class_ids",
            "class_weights",
            "class_weights_as_tensor",
        ]);
        old(n)?;
        let labels = Labels::read(n, "classlabels_int64s")?;
        classified(n, &labels, labels.len())
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        numbered(n, "classlabels_int64s", x)
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (ensemble, labels) = classifier(n, width(x))?;
        eval(&ensemble, Some(&labels), x)
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let made = columns(n).and_then(|c| classifier(n, c));
        let Ok((ensemble, labels)) = made else {
            return vec![];
        };
        cpu::kernel(n, ensemble, Some(labels)).into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        cases::classifiers()
    }
}

const TARGETS: Votes = Votes {
    prefix: "target",
    ids: "target_ids",
};

fn regressor(n: &NodeRef, columns: Option<usize>) -> Result<Ensemble, OpError> {
    let join = match n.str_or("aggregate_function", "SUM")? {
        "SUM" => Join::Sum,
        "AVERAGE" => Join::Average,
        "MIN" => Join::Min,
        "MAX" => Join::Max,
        other => return Err(OpError::new(format!("there is no aggregate_function {other:?}"))),
    };
    let ensemble = Ensemble {
        forest: Forest::old(n, &TARGETS)?,
        features: 0,
        targets: targets(n)?,
        join,
        base: reals(n, "base_values")?,
        choice: Choice::None,
        post: Post::read(n)?,
    };
    ensemble.fitting(columns)
}

impl Op for TreeEnsembleRegressor {
    fn name(&self) -> OpName {
        ml("TreeEnsembleRegressor")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 3, 5]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        n.ignore(&[
            "target_treeids",
            "target_nodeids",
            "target_ids",
            "target_weights",
            "target_weights_as_tensor",
            "aggregate_function",
        ]);
        old(n)?;
        Ok(vec![super::floats(vec![table(n)?.0, targets(n)?.into()])])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        eval(&regressor(n, width(x))?, None, x)
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let made = columns(n).and_then(|c| regressor(n, c)).ok();
        made.and_then(|e| cpu::kernel(n, e, None)).into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        cases::regressors()
    }
}

fn ensemble(n: &NodeRef, columns: Option<usize>) -> Result<Ensemble, OpError> {
    let join = match n.int_or("aggregate_function", 1)? {
        0 => Join::Average,
        1 => Join::Sum,
        2 => Join::Min,
        3 => Join::Max,
        other => return Err(OpError::new(format!("there is no aggregate_function {other}"))),
    };
    let ensemble = Ensemble {
        forest: Forest::new(n)?,
        features: 0,
        targets: targets(n)?,
        join,
        base: vec![],
        choice: Choice::None,
        post: Post::numbered(n)?,
    };
    ensemble.fitting(columns)
}

impl Op for TreeEnsemble {
    fn name(&self) -> OpName {
        ml("TreeEnsemble")
    }

    fn since(&self) -> &'static [u16] {
        &[5]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        n.ignore(&[
            "nodes_featureids",
            "nodes_truenodeids",
            "nodes_trueleafs",
            "nodes_falsenodeids",
            "nodes_falseleafs",
            "nodes_modes",
            "nodes_splits",
            "nodes_hitrates",
            "nodes_missing_value_tracks_true",
            "leaf_targetids",
            "leaf_weights",
            "membership_values",
            "tree_roots",
            "aggregate_function",
        ]);
        Post::numbered(n)?;
        crate::ops::shape::arity(n, 1, 1)?;
        match n.dtype(0) {
            None | Some(DType::F32 | DType::F64 | DType::F16) => {}
            Some(d) => return Err(OpError::new(format!("input 0 is of type {d}; expected floats"))),
        }
        let shape = vec![table(n)?.0, targets(n)?.into()];
        Ok(vec![Fact::tensor(n.dtype(0), Some(shape))])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let dtype = crate::ops::pick::given(x, 0)?.dtype();
        eval_as(&ensemble(n, width(x))?, None, dtype, x)
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let made = columns(n).and_then(|c| ensemble(n, c)).ok();
        made.and_then(|e| cpu::kernel(n, e, None)).into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        cases::ensembles()
    }
}
