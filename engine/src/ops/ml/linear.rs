//! `LinearClassifier` and `LinearRegressor`.

use super::post::Post;
use super::rows::{Labels, Scorer, classified, dot, eval, greatest, kernel, numbered};
use super::{floats, misfit, numeric, table, widened};
use crate::cpu::Candidate;
use crate::expr::Ex;
use crate::ir::{Attr, DType, Tensor};
use crate::ops::{Axes, Case, Fact, NodeRef, Op, OpError, OpName, case, ml};

/// The class of the greatest of scores that are weighted sums of the features.
///
/// One score for two classes is that of the second, which is taken above 0.
pub struct LinearClassifier;

/// Weighted sums of the features.
pub struct LinearRegressor;

struct Linear {
    features: usize,
    /// Scores that are computed, and how many there are in the end.
    targets: usize,
    scores: usize,
    weights: Vec<f64>,
    intercepts: Vec<f64>,
    post: Post,
}

impl Linear {
    fn new(n: &NodeRef, targets: usize, scores: usize) -> Result<Linear, OpError> {
        let weights = widened(n.floats("coefficients")?);
        let mut intercepts = widened(n.floats("intercepts")?);
        if intercepts.is_empty() {
            intercepts = vec![0.0; targets];
        }
        if targets == 0 || !weights.len().is_multiple_of(targets) || intercepts.len() != targets {
            return Err(misfit(format_args!(
                "{} coefficients and {} intercepts for {targets} scores",
                weights.len(),
                intercepts.len()
            )));
        }
        Ok(Linear {
            features: weights.len() / targets,
            targets,
            scores,
            weights,
            intercepts,
            post: Post::read(n)?,
        })
    }

    /// Whether a matrix product pays, and what comes behind it is an operator too.
    fn pays(&self, n: &NodeRef) -> bool {
        const MANY: usize = 1 << 10;
        let follows = match self.post {
            Post::None => true,
            Post::Logistic | Post::Softmax => self.targets > 1,
            Post::SoftmaxZero | Post::Probit => false,
        };
        let plain = n.rank(0) == Some(2) && self.targets == self.scores;
        plain && follows && self.weights.len() >= MANY
    }

    /// The products and sums as operators on `x`, where that pays.
    fn body<'a>(&self, n: &NodeRef, x: Ex<'a>) -> Option<Ex<'a>> {
        if !self.pays(n) {
            return None;
        }
        let x = match n.dtype(0)? {
            DType::F32 => x,
            _ => x.with("Cast", &[], vec![Attr::new("to", i64::from(DType::F32.code()))]),
        };
        let (f, t) = (self.features, self.targets);
        let turned = (0..f * t)
            .map(|i| self.weights[i % t * f + i / t] as f32)
            .collect();
        let bias = self.intercepts.iter().map(|&b| b as f32).collect();
        let y = x.matmul(x.tensor(Tensor::of(&[f, t], turned))) + x.tensor(Tensor::of(&[t], bias));
        match self.post {
            Post::None => Some(y),
            Post::Logistic => Some(y.sigmoid()),
            Post::Softmax => Some(y.with("Softmax", &[], vec![Attr::new("axis", 1)])),
            _ => None,
        }
    }
}

impl Scorer for Linear {
    fn features(&self) -> usize {
        self.features
    }

    fn scores(&self) -> usize {
        self.scores
    }

    fn work(&self) -> usize {
        self.weights.len()
    }

    fn row(&self, x: &[f64], scores: &mut [f64]) -> usize {
        let sum = |t: usize| dot(x, &self.weights[t * self.features..][..self.features]) + self.intercepts[t];
        if self.targets == 1 && self.scores == 2 {
            let score = sum(0);
            scores.copy_from_slice(&self.post.pair(score, false));
            return usize::from(score > 0.0);
        }
        (0..self.targets).for_each(|t| scores[t] = sum(t));
        let class = greatest(scores);
        self.post.apply(scores);
        class
    }
}

/// A classifier with its labels.
fn classifier(n: &NodeRef) -> Result<(Linear, Labels), OpError> {
    let labels = Labels::read(n, "classlabels_ints")?;
    let (targets, scores) = widths(n, &labels)?;
    Ok((Linear::new(n, targets, scores)?, labels))
}

/// The number of scores that are computed, and that there are in the end.
fn widths(n: &NodeRef, labels: &Labels) -> Result<(usize, usize), OpError> {
    let targets = match n.floats("intercepts")? {
        Some(i) if !i.is_empty() => i.len(),
        _ => labels.len(),
    };
    match (targets, labels.len()) {
        (1, 2) => Ok((1, 2)),
        (t, l) if t <= l => Ok((t, t)),
        (t, l) => Err(misfit(format_args!("{t} scores for {l} labels"))),
    }
}

impl Op for LinearClassifier {
    fn name(&self) -> OpName {
        ml("LinearClassifier")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        n.ignore(&["multi_class"]);
        n.floats("coefficients")?;
        Post::read(n)?;
        let labels = Labels::read(n, "classlabels_ints")?;
        classified(n, &labels, widths(n, &labels)?.1)
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        if let Some(both) = numbered(n, "classlabels_ints", x) {
            return Some(both);
        }
        let (linear, labels) = classifier(n).ok()?;
        let (Labels::Ints(labels), false) = (labels, linear.targets == 1) else {
            return None;
        };
        let scores = linear.body(n, *x.first()?)?;
        let first = vec![Attr::new("axis", 1), Attr::new("keepdims", 0)];
        let labels = scores.tensor(Tensor::of(&[labels.len()], labels));
        Some(vec![
            labels.op("Gather", &[scores.with("ArgMax", &[], first)]),
            scores,
        ])
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (linear, labels) = classifier(n)?;
        eval(&linear, Some(&labels), x)
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let Some((linear, labels)) = classifier(n).ok().filter(|(l, _)| !l.pays(n)) else {
            return vec![];
        };
        kernel(n, linear, Some(labels)).into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        let x = || case::floats(&[5, 3], 1);
        let weights = |k: usize| {
            case::floats(&[3 * k], 2)
                .elements::<f32>()
                .map_or(vec![], |w| w.into_owned())
        };
        let texts = crate::ir::AttrValue::Strings(vec![b"a".to_vec(), b"b".to_vec()]);
        let case = |name, k: usize, post: &'static str| {
            Case::new(name, [x()])
                .attr("coefficients", weights(k))
                .attr("intercepts", vec![0.5f32; k])
                .attr("post_transform", post)
                .opset(1)
                .outputs(2)
                .within(1e-6, 1e-6)
        };
        let labels = |c: Case, l: &[i64]| c.attr("classlabels_ints", l);
        let mut all = vec![
            labels(case("one score", 1, "LOGISTIC"), &[5, 7]),
            labels(case("two scores", 2, "NONE"), &[5, 7]).attr("multi_class", 1),
            case("strings", 2, "SOFTMAX").attr("classlabels_strings", texts),
            Case::new("one row", [case::floats(&[3], 1)])
                .attr("coefficients", weights(3))
                .attr("classlabels_ints", vec![0i64, 1, 2])
                .opset(1)
                .outputs(2)
                .within(1e-6, 1e-6),
            Case::new("integers", [Tensor::of(&[2, 3], vec![1i64, 2, 3, -1, -2, -3])])
                .attr("coefficients", weights(3))
                .attr("classlabels_ints", vec![0i64, 1, 2])
                .opset(1)
                .outputs(2)
                .within(1e-6, 1e-6),
        ];
        for post in ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"] {
            all.push(labels(case("three scores", 3, post), &[5, 7, 9]));
        }
        let many = case::floats(&[3 * 400], 2)
            .elements::<f32>()
            .map_or(vec![], |w| w.into_owned());
        all.push(
            Case::new("many features", [case::floats(&[5, 400], 1)])
                .attr("coefficients", many)
                .attr("classlabels_ints", vec![0i64, 1, 2])
                .opset(1)
                .outputs(2)
                .within(1e-5, 1e-5),
        );
        all
    }
}

/// The number of targets.
fn targets(n: &NodeRef) -> Result<usize, OpError> {
    let targets = n.int_or("targets", 1)?;
    usize::try_from(targets).map_err(|_| misfit(format_args!("{targets} targets")))
}

impl Op for LinearRegressor {
    fn name(&self) -> OpName {
        ml("LinearRegressor")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        numeric(n)?;
        Post::read(n)?;
        for name in ["coefficients", "intercepts"] {
            n.floats(name)?;
        }
        Ok(vec![floats(vec![table(n)?.0, targets(n)?.into()])])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let k = targets(n).ok()?;
        Some(vec![Linear::new(n, k, k).ok()?.body(n, *x.first()?)?])
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let k = targets(n)?;
        eval(&Linear::new(n, k, k)?, None, x)
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let linear = targets(n).and_then(|k| Linear::new(n, k, k));
        let linear = linear.ok().filter(|l| !l.pays(n));
        linear.and_then(|l| kernel(n, l, None)).into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        let weights = vec![0.5f32, -1.0, 2.0, 0.25, 0.0, 1.0];
        let x = Tensor::of(&[2, 3], vec![1f64, 2.0, 3.0, -1.0, 0.5, 0.0]);
        vec![
            Case::new("one target", [case::floats(&[5, 6], 1)])
                .attr("coefficients", weights.clone())
                .attr("intercepts", vec![1f32])
                .opset(1)
                .within(1e-6, 1e-6),
            Case::new("two targets of doubles", [x])
                .attr("coefficients", weights)
                .attr("targets", 2)
                .attr("post_transform", "SOFTMAX")
                .opset(1)
                .within(1e-6, 1e-6),
        ]
    }
}
