//! Methods: what to change in a model, decided without changing it.

mod gradient;
mod inputs;
mod magnitude;
mod select;
mod simple;
mod sparsegpt;
mod surgeon;
mod threshold;

use secateur_engine::ir::Model;
use serde::{Deserialize, Serialize};

use crate::change::Plan;
use crate::error::MethodError;
use crate::observe::{self, Need, Stats};
use crate::pattern::Pattern;
use crate::place::places;
use crate::scan::Effort;
use crate::weights::{Exempt, Weight};

/// How much to prune.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Amount {
    /// The share of weights, zeros that are there already included, that is zero afterwards: 0 to 1.
    Sparsity(f64),
    /// Weights below this magnitude become zero.
    Threshold(f64),
}

/// Which weights a share is a share of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// All weights together: layers of small weights lose more.
    #[default]
    Global,
    /// Each tensor by itself: every layer loses the same share.
    Layer,
}

/// What is to be reached.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Goal {
    /// How much to prune.
    pub amount: Amount,
    /// Which weights a share is a share of.
    pub scope: Scope,
    /// Which weights are zero together.
    pub pattern: Pattern,
}

/// What a method decides from.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    /// The model.
    pub model: &'a Model,
    /// Its [constants](crate::weights()); those that are exempt are none of the method's business.
    pub weights: &'a [Weight],
    /// What is to be reached.
    pub goal: Goal,
    /// How passes over the weights are made.
    pub effort: Effort<'a>,
}

impl<'a> Task<'a> {
    /// The weights to prune; at least one. All can have the pattern.
    ///
    /// # Errors
    ///
    /// If there is none, with the reason.
    pub fn targets(&self) -> Result<Vec<&'a Weight>, MethodError> {
        let targets: Vec<_> = self
            .weights
            .iter()
            .filter(|w| w.exempt.is_none() && self.goal.pattern.fits(w))
            .collect();
        match targets.is_empty() {
            false => Ok(targets),
            true => Err(MethodError::nothing(self.why_none())),
        }
    }

    fn why_none(&self) -> String {
        let all = places(self.model).into_iter();
        let constants = all.filter_map(|p| Some((p.name, &*p.site.constant(self.model)?.tensor)));
        let Some((name, t)) = constants.max_by_key(|(_, t)| t.len()) else {
            return "nothing to prune: the model has no constants".into();
        };
        let weight = self.weights.iter().find(|w| w.name == name);
        let why = match weight.map(|w| w.exempt.as_ref().unwrap_or(&Exempt::Unordered)) {
            Some(exempt) => exempt.to_string(),
            None => format!("its elements are of type {}", t.dtype()),
        };
        format!("nothing to prune: the largest constant, {name:?}, is left as it is: {why}")
    }
}

/// A way of deciding what to change.
pub trait Method: Sync {
    /// The name, as recipes and the command line spell it.
    fn name(&self) -> &'static str;

    /// What it does, in a sentence.
    fn about(&self) -> &'static str;

    /// What it wants to know of the model at work; sorted.
    fn needs(&self) -> &'static [Need] {
        &[]
    }

    /// What a share is a share of where nobody says so.
    fn scope(&self) -> Scope {
        Scope::Global
    }

    /// Whether single weights are compared within each output of a layer only, where shares are those of layers.
    fn rows(&self) -> bool {
        false
    }

    /// Examples of a run, where the model takes as many as one likes.
    fn batch(&self) -> usize {
        1
    }

    /// Whether it chooses what is cut away, by [`Harms`](crate::Harms), and makes no zeros.
    fn cuts(&self) -> bool {
        false
    }

    /// Why it does not choose single weights, and what to do; `None` where it does.
    fn together(&self) -> Option<&'static str> {
        None
    }

    /// Why it cannot say anything of `weight`, if it cannot.
    fn without(&self, _model: &Model, _weight: &Weight) -> Option<String> {
        None
    }

    /// How important each element of `weight` is, in row-major order: numbers of at least 0, of which the least go first. They
    /// can be compared over all weights of a model, and the importance of several elements is the sum of theirs.
    ///
    /// # Errors
    ///
    /// If of `weight` nothing was seen that the method needs.
    fn scores(&self, model: &Model, weight: &Weight, seen: &Stats) -> Result<Vec<f32>, MethodError>;

    /// Decides: usually by the scores. The same task and statistics give the same plan, on any number of threads.
    ///
    /// # Errors
    ///
    /// If the method does not understand the goal, there is nothing to prune, or not all was seen that it needs.
    fn decide(&self, task: &Task, seen: &Stats) -> Result<Plan, MethodError> {
        select::decide(self, task, seen)
    }
}

/// All methods, sorted by name.
pub static METHODS: &[&dyn Method] = &[
    &inputs::Activation,
    &inputs::ZeroShare,
    &simple::NormScale,
    &gradient::Fisher,
    &magnitude::Magnitude,
    &gradient::Movement,
    &gradient::Damage,
    &simple::Random,
    &sparsegpt::SparseGpt,
    &surgeon::Surgeon,
    &gradient::Taylor,
    &threshold::Threshold,
    &inputs::Wanda,
];

/// Marks those of `weights` exempt of which `method` cannot say anything, with the reason.
pub fn mark(method: &dyn Method, model: &Model, weights: &mut [Weight]) {
    observe::mark(model, method.needs(), weights);
    for w in weights.iter_mut().filter(|w| w.exempt.is_none()) {
        w.exempt = method.without(model, w).map(Exempt::Unobserved);
    }
}

/// The method `name`.
pub fn find(name: &str) -> Option<&'static dyn Method> {
    let at = METHODS.binary_search_by_key(&name, |m| m.name()).ok()?;
    Some(METHODS[at])
}

#[cfg(test)]
pub(crate) mod tests {
    use secateur_engine::Tensor;
    use secateur_engine::ir::{DType, Dim, Node, Opset, Type};

    use secateur_train::Term;

    use super::*;
    use crate::math::chance::Stream;
    use crate::observe::{Examples, Run};
    use crate::weights::weights;

    /// A model with a chain of `MatMul`s with the weights `w0`, `w1` …
    pub(crate) fn chain(weights: Vec<Tensor>) -> Model {
        let mut model = Model {
            opsets: vec![Opset {
                domain: None,
                version: Some(21),
                extra: Default::default(),
            }],
            ..Model::default()
        };
        let g = &mut model.graph;
        let width = weights.first().map_or(1, |w| w.dims()[0]);
        let mut at = g.input(
            "x",
            Type::tensor(DType::F32, [Dim::Symbol("n".into()), width.into()]),
        );
        for (i, w) in weights.into_iter().enumerate() {
            let w = g.constant(format!("w{i}"), w);
            let y = g.value(format!("y{i}"));
            let mut node = Node::new("MatMul", vec![Some(at), Some(w)], vec![Some(y)]);
            node.name = Some(format!("mm{i}").into());
            g.node(node);
            at = y;
        }
        g.output(at, None);
        model
    }

    /// What `method` decides on `threads` threads.
    pub(crate) fn decide(
        method: &dyn Method,
        model: &Model,
        goal: Goal,
        threads: usize,
    ) -> Result<Plan, MethodError> {
        let effort = Effort {
            threads,
            ..Effort::default()
        };
        let weights = weights(model);
        let task = Task {
            model,
            weights: &weights,
            goal,
            effort,
        };
        let stats = match task.targets() {
            Ok(_) => seen(model, &weights, method, threads),
            Err(_) => Stats::default(),
        };
        method.decide(&task, &stats)
    }

    /// What `method` needs to see of `model`, on random inputs with random labels.
    pub(crate) fn seen(model: &Model, weights: &[Weight], method: &dyn Method, threads: usize) -> Stats {
        let width = weights[0].tensor.dims()[0];
        let last = weights[weights.len() - 1].tensor.dims();
        let outputs = last[last.len() - 1];
        let chance = Stream::new(7, "x");
        let tensor = |n: usize, from: u64| {
            let x = (0..n as u64).map(|i| chance.at(from + i) as f32 - 0.3).collect();
            Tensor::of(&[1, n], x)
        };
        let run = |i: u64| Run {
            inputs: vec![("x".into(), tensor(width, 100 * i))],
            labels: Some(tensor(outputs, 100 * i + 50)),
        };
        let runs: Vec<Run> = (0..4).map(run).collect();
        let name = model.graph[model.graph.outputs[0].value].name.to_string();
        let of = [name.as_str(), "label"];
        let loss = &secateur_train::loss::Distance::Mse;
        let effort = Effort {
            threads,
            ..Effort::default()
        };
        let examples = Examples {
            runs: &runs,
            task: Some(Term {
                loss,
                of: &of,
                weight: 1.0,
            }),
            seed: 3,
            effort,
        };
        let pruned: Vec<&Weight> = weights.iter().filter(|w| w.exempt.is_none()).collect();
        observe::observe(model, &pruned, method.needs(), &examples).unwrap()
    }

    fn goal(amount: Amount) -> Goal {
        Goal {
            amount,
            scope: Scope::Global,
            pattern: Pattern::Unstructured,
        }
    }

    #[test]
    fn methods_are_sorted_and_found() {
        assert!(METHODS.is_sorted_by_key(|m| m.name()));
        for m in METHODS {
            assert_eq!(find(m.name()).map(|f| f.name()), Some(m.name()));
            assert!(m.about().ends_with('.') && m.about().len() < 100);
        }
        assert!(find("no").is_none());
    }

    #[test]
    fn every_method_is_deterministic_and_refuses_goals_that_are_none() {
        let model = chain(vec![Tensor::of(&[2, 3], vec![1f32, -2.0, 3.0, 0.0, 5.0, 2.0])]);
        for m in METHODS {
            let amounts = [Amount::Sparsity(0.5), Amount::Threshold(2.0)];
            let goal = |amount| Goal {
                amount,
                scope: m.scope(),
                pattern: m.together().map_or(Pattern::Unstructured, |_| Pattern::Column),
            };
            let plans = amounts.map(|a| decide(*m, &model, goal(a), 1));
            // Here no norm follows.
            let alone = m.without(&model, &weights(&model)[0]).is_some();
            assert_ne!(plans.iter().any(Result::is_ok), alone, "{}: {plans:?}", m.name());
            assert_eq!(plans, amounts.map(|a| decide(*m, &model, goal(a), 3)));
            for bad in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
                assert!(decide(*m, &model, goal(Amount::Sparsity(bad)), 1).is_err());
            }
            for bad in [-1.0, f64::NAN, f64::INFINITY] {
                assert!(decide(*m, &model, goal(Amount::Threshold(bad)), 1).is_err());
            }
        }
    }

    #[test]
    fn a_model_without_weights_is_refused_with_the_reason() {
        let model = chain(vec![Tensor::of(&[3], vec![1f32, 2.0, 3.0])]);
        let error = decide(&magnitude::Magnitude, &model, goal(Amount::Sparsity(0.5)), 1).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("\"w0\", is left as it is: fewer than two axes"),
            "{error}"
        );
    }
}
