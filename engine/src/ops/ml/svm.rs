//! `SVMClassifier` and `SVMRegressor`: support vector machines.

use super::post::Post;
use super::rows::{Labels, Scorer, classified, dot, eval, greatest, kernel, numbered};
use super::{floats, misfit, numeric, table, widened};
use crate::cpu::Candidate;
use crate::expr::Ex;
use crate::ir::Tensor;
use crate::ops::{Axes, Case, Fact, NodeRef, Op, OpError, OpName, case, ml};

/// The class that wins the most comparisons of two classes, with the score of each comparison or, where there are
/// `prob_a` and `prob_b`, the probability of each class. Without support vectors, the class of the greatest weighted sum.
pub struct SVMClassifier;

/// A sum of similarities to support vectors or, without, a weighted sum of the features.
pub struct SVMRegressor;

/// How similar two vectors are.
#[derive(Clone, Copy)]
enum Similar {
    Linear,
    Poly,
    Rbf,
    Sigmoid,
}

struct Machine {
    similar: Similar,
    gamma: f64,
    coef0: f64,
    degree: f64,
    features: usize,
    vectors: Vec<f64>,
    weights: Vec<f64>,
    rho: Vec<f64>,
    post: Post,
}

impl Machine {
    /// A machine of `count` support vectors, or of none and `rows` rows of weights.
    fn new(n: &NodeRef, count: usize, rows: usize) -> Result<Machine, OpError> {
        let mut similar = match n.str_or("kernel_type", "LINEAR")? {
            "LINEAR" => Similar::Linear,
            "POLY" => Similar::Poly,
            "RBF" => Similar::Rbf,
            "SIGMOID" => Similar::Sigmoid,
            other => return Err(OpError::new(format!("there is no kernel_type {other:?}"))),
        };
        let params = widened(n.floats("kernel_params")?);
        let param = |i: usize| params.get(i).copied().unwrap_or(0.0);
        let (vectors, weights) = (
            widened(n.floats("support_vectors")?),
            widened(n.floats("coefficients")?),
        );
        let split = |len: usize, parts: usize| match len.checked_rem(parts) {
            Some(0) => Ok(len / parts),
            _ => Err(misfit(format_args!("{len} numbers in {parts} rows"))),
        };
        let features = match count {
            0 => split(weights.len(), rows)?,
            _ => split(vectors.len(), count)?,
        };
        if count > 0 && features == 0 {
            return Err(misfit(format_args!("{count} support vectors of no numbers")));
        }
        if count == 0 {
            similar = Similar::Linear;
        }
        Ok(Machine {
            similar,
            gamma: param(0),
            coef0: param(1),
            degree: param(2),
            features,
            vectors,
            weights,
            rho: widened(n.floats("rho")?),
            post: Post::read(n)?,
        })
    }

    fn similarity(&self, x: &[f64], v: &[f64]) -> f64 {
        match self.similar {
            Similar::Linear => dot(x, v),
            Similar::Poly => (self.gamma * dot(x, v) + self.coef0).powf(self.degree),
            Similar::Sigmoid => (self.gamma * dot(x, v) + self.coef0).tanh(),
            Similar::Rbf => {
                let distance: f64 = x.iter().zip(v).map(|(a, b)| (a - b) * (a - b)).sum();
                (-self.gamma * distance).exp()
            }
        }
    }

    fn similarities(&self, x: &[f64]) -> Vec<f64> {
        let each = self.vectors.chunks(self.features.max(1));
        each.map(|v| self.similarity(x, v)).collect()
    }

    fn rho(&self, i: usize) -> f64 {
        self.rho.get(i).copied().unwrap_or(0.0)
    }
}

struct Classifier {
    machine: Machine,
    classes: usize,
    /// Where the support vectors of each class begin, and where those of the last end; empty where there are none.
    starts: Vec<usize>,
    /// Both coefficients of each comparison, by which its score becomes a probability.
    sigmoids: Vec<(f64, f64)>,
}

/// The support vectors of each class, of which there may be none.
fn per_class(n: &NodeRef) -> Result<Vec<usize>, OpError> {
    let all = n.ints("vectors_per_class")?.unwrap_or(&[]).iter();
    all.map(|&v| usize::try_from(v).map_err(|_| misfit(format_args!("{v} vectors of a class"))))
        .collect()
}

/// The number of comparisons of two of `classes`.
fn pairs(classes: usize) -> usize {
    classes * classes.saturating_sub(1) / 2
}

/// The number of scores in the end.
fn width(n: &NodeRef, labels: &Labels) -> Result<usize, OpError> {
    let classes = labels.len();
    let sums = n
        .ints("vectors_per_class")?
        .is_none_or(|v| v.iter().all(|&v| v == 0));
    let likely = n.floats("prob_a")?.is_some_and(|p| !p.is_empty());
    Ok(match classes {
        _ if sums || likely => classes,
        2 => 2,
        _ => pairs(classes),
    })
}

fn classifier(n: &NodeRef) -> Result<(Classifier, Labels), OpError> {
    let labels = Labels::read(n, "classlabels_ints")?;
    let (classes, per_class) = (labels.len(), per_class(n)?);
    let mut starts = vec![0];
    for v in &per_class {
        let end = starts[starts.len() - 1];
        starts.push(usize::checked_add(end, *v).ok_or_else(|| misfit("too many vectors"))?);
    }
    let count = starts[starts.len() - 1];
    let machine = Machine::new(n, count, classes)?;
    let (a, b) = (widened(n.floats("prob_a")?), widened(n.floats("prob_b")?));
    let comparisons = pairs(classes);
    let fits = count == 0
        || (per_class.len() == classes
            && classes > 1
            && machine.weights.len() >= (classes - 1) * count
            && machine.rho.len() >= comparisons
            && (a.is_empty() || (a.len() >= comparisons && b.len() >= comparisons)));
    if !fits {
        return Err(misfit(format_args!(
            "{} coefficients, {} rho and {} prob_a for {count} vectors of {classes} classes",
            machine.weights.len(),
            machine.rho.len(),
            a.len()
        )));
    }
    let classifier = Classifier {
        machine,
        classes,
        starts: if count == 0 { vec![] } else { starts },
        sigmoids: a.into_iter().zip(b).collect(),
    };
    Ok((classifier, labels))
}

impl Classifier {
    /// The score of each comparison, and the class that wins the most.
    fn compare(&self, x: &[f64]) -> (Vec<f64>, usize) {
        let m = &self.machine;
        let (near, total) = (m.similarities(x), self.starts[self.classes]);
        let part = |row: usize, class: usize| {
            let own = self.starts[class]..self.starts[class + 1];
            dot(&m.weights[row * total..][own.clone()], &near[own])
        };
        let (mut scores, mut votes) = (vec![], vec![0.0; self.classes]);
        for i in 0..self.classes {
            for j in i + 1..self.classes {
                let score = part(j - 1, i) + part(i, j) + m.rho(scores.len());
                scores.push(score);
                votes[if score > 0.0 { i } else { j }] += 1.0;
            }
        }
        (scores, greatest(&votes))
    }

    /// The probability of each class from the scores of comparisons.
    fn likely(&self, scores: &[f64]) -> Vec<f64> {
        const LEAST: f64 = 1e-7;
        let k = self.classes;
        let mut wins = vec![0.0; k * k];
        let mut each = scores.iter().zip(&self.sigmoids);
        for i in 0..k {
            for j in i + 1..k {
                let Some((s, (a, b))) = each.next() else { continue };
                let p = (1.0 / (1.0 + (s * a + b).exp())).clamp(LEAST, 1.0 - LEAST);
                wins[i * k + j] = p;
                wins[j * k + i] = 1.0 - p;
            }
        }
        coupled(&wins, k)
    }
}

/// Probabilities of `k` classes from those of winning against each other: Wu, Lin and Weng, "Probability estimates for
/// multi-class classification by pairwise coupling" (2004), the second method, iterated as LIBSVM does.
fn coupled(wins: &[f64], k: usize) -> Vec<f64> {
    let mut q = vec![0.0; k * k];
    for t in 0..k {
        for j in (0..k).filter(|&j| j != t) {
            let w = wins[j * k + t];
            q[t * k + t] += w * w;
            q[t * k + j] = -w * wins[t * k + j];
        }
    }
    let mut p = vec![1.0 / k as f64; k];
    for _ in 0..k.max(100) {
        let mut qp: Vec<f64> = q.chunks(k).map(|row| dot(row, &p)).collect();
        let mut pqp = dot(&p, &qp);
        let error = qp.iter().map(|q| (q - pqp).abs()).fold(0.0, f64::max);
        if error < 0.005 / k as f64 {
            break;
        }
        for t in 0..k {
            let own = q[t * k + t];
            let step = (pqp - qp[t]) / own;
            p[t] += step;
            pqp = (pqp + step * (step * own + 2.0 * qp[t])) / (1.0 + step) / (1.0 + step);
            for j in 0..k {
                qp[j] = (qp[j] + step * q[t * k + j]) / (1.0 + step);
                p[j] /= 1.0 + step;
            }
        }
    }
    p
}

impl Scorer for Classifier {
    fn features(&self) -> usize {
        self.machine.features
    }

    fn scores(&self) -> usize {
        match self.classes {
            k if self.starts.is_empty() || !self.sigmoids.is_empty() => k,
            2 => 2,
            k => pairs(k),
        }
    }

    fn work(&self) -> usize {
        self.machine.vectors.len() + self.machine.weights.len()
    }

    fn row(&self, x: &[f64], scores: &mut [f64]) -> usize {
        let m = &self.machine;
        if self.starts.is_empty() {
            let rows = m.weights.chunks(m.features.max(1));
            rows.zip(scores.iter_mut())
                .for_each(|(w, s)| *s = dot(w, x) + m.rho(0));
            let class = greatest(scores);
            m.post.apply(scores);
            return class;
        }
        let (compared, class) = self.compare(x);
        match (self.sigmoids.is_empty(), &compared[..]) {
            (true, &[one]) => scores.copy_from_slice(&m.post.pair(one, m.post == Post::None)),
            (true, all) => {
                scores.copy_from_slice(all);
                m.post.apply(scores);
            }
            (false, all) => {
                scores.copy_from_slice(&self.likely(all));
                m.post.apply(scores);
            }
        }
        class
    }
}

/// Reads the attributes that both operators have.
fn read(n: &NodeRef) -> Result<(), OpError> {
    Post::read(n)?;
    n.bytes("kernel_type")?;
    for name in ["kernel_params", "support_vectors", "coefficients", "rho"] {
        n.floats(name)?;
    }
    Ok(())
}

impl Op for SVMClassifier {
    fn name(&self) -> OpName {
        ml("SVMClassifier")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        read(n)?;
        n.floats("prob_b")?;
        let labels = Labels::read(n, "classlabels_ints")?;
        classified(n, &labels, width(n, &labels)?)
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        numbered(n, "classlabels_ints", x)
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (classifier, labels) = classifier(n)?;
        eval(&classifier, Some(&labels), x)
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let Ok((classifier, labels)) = classifier(n) else {
            return vec![];
        };
        kernel(n, classifier, Some(labels)).into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        let case = |name, kernel: &'static str, per_class: &[i64]| {
            let (k, v) = (per_class.len(), per_class.iter().sum::<i64>() as usize);
            let some = |n: usize, seed| {
                case::floats(&[n], seed)
                    .elements::<f32>()
                    .map_or(vec![], |w| w.into_owned())
            };
            Case::new(name, [case::floats(&[7, 3], 1)])
                .attr("kernel_type", kernel)
                .attr("kernel_params", vec![0.5f32, 0.1, 3.0])
                .attr("support_vectors", some(3 * v, 2))
                .attr("coefficients", some((k - 1) * v, 3))
                .attr("rho", some(pairs(k), 4))
                .attr("vectors_per_class", per_class)
                .opset(1)
                .outputs(2)
                .within(1e-6, 1e-6)
        };
        let texts = crate::ir::AttrValue::Strings(vec![b"a".to_vec(), b"b".to_vec()]);
        vec![
            case("two classes", "RBF", &[2, 3]).attr("classlabels_ints", vec![5i64, 7]),
            case("strings", "LINEAR", &[2, 1]).attr("classlabels_strings", texts),
            case("three classes", "POLY", &[2, 1, 3]).attr("classlabels_ints", vec![5i64, 6, 7]),
            case("probabilities", "SIGMOID", &[2, 1, 3])
                .attr("classlabels_ints", vec![5i64, 6, 7])
                .attr("prob_a", vec![-1f32, -0.5, -2.0])
                .attr("prob_b", vec![0.1f32, 0.0, 0.2]),
            Case::new("no vectors", [case::floats(&[4, 2], 1)])
                .attr("coefficients", vec![0.5f32, -0.3, 0.2, 0.1])
                .attr("rho", vec![0.1f32])
                .attr("classlabels_ints", vec![5i64, 7])
                .attr("post_transform", "SOFTMAX")
                .opset(1)
                .outputs(2)
                .within(1e-6, 1e-6),
        ]
    }
}

struct Regressor {
    machine: Machine,
    one_class: bool,
}

fn regressor(n: &NodeRef) -> Result<Regressor, OpError> {
    let count = n.int_or("n_supports", 0)?;
    let count = usize::try_from(count).map_err(|_| misfit(format_args!("{count} vectors")))?;
    let machine = Machine::new(n, count, 1)?;
    if count > 0 && machine.weights.len() < count {
        return Err(misfit(format_args!(
            "{} coefficients for {count} vectors",
            machine.weights.len()
        )));
    }
    Ok(Regressor {
        machine,
        one_class: n.int_or("one_class", 0)? != 0,
    })
}

impl Scorer for Regressor {
    fn features(&self) -> usize {
        self.machine.features
    }

    fn scores(&self) -> usize {
        1
    }

    fn work(&self) -> usize {
        self.machine.vectors.len() + self.machine.weights.len()
    }

    fn row(&self, x: &[f64], scores: &mut [f64]) -> usize {
        let m = &self.machine;
        let sum = match m.vectors.is_empty() {
            true => dot(&m.weights, x),
            false => {
                let near = m.similarities(x);
                dot(&m.weights[..near.len()], &near)
            }
        };
        let score = sum + m.rho(0);
        scores[0] = match self.one_class {
            true if score > 0.0 => 1.0,
            true => -1.0,
            false => score,
        };
        m.post.apply(scores);
        0
    }
}

impl Op for SVMRegressor {
    fn name(&self) -> OpName {
        ml("SVMRegressor")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        numeric(n)?;
        read(n)?;
        n.int("n_supports")?;
        n.int("one_class")?;
        Ok(vec![floats(vec![table(n)?.0, 1usize.into()])])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        eval(&regressor(n)?, None, x)
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let regressor = regressor(n).ok();
        regressor.and_then(|r| kernel(n, r, None)).into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        let case = |name| {
            Case::new(name, [case::floats(&[5, 2], 1)])
                .attr("kernel_type", "RBF")
                .attr("kernel_params", vec![0.5f32, 0.0, 3.0])
                .attr("support_vectors", vec![1f32, 0.0, 0.0, 1.0, -1.0, -1.0])
                .attr("coefficients", vec![0.5f32, -0.3, 0.2])
                .attr("n_supports", 3)
                .attr("rho", vec![-0.1f32])
                .opset(1)
                .within(1e-6, 1e-6)
        };
        vec![
            case("a sum"),
            case("one class").attr("one_class", 1),
            Case::new("no vectors", [case::floats(&[5, 2], 1)])
                .attr("coefficients", vec![0.5f32, -0.3])
                .attr("rho", vec![0.1f32])
                .opset(1)
                .within(1e-6, 1e-6),
        ]
    }
}
