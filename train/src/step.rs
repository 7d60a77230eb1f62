//! A training step as one model: forward, backward and the optimiser's part.

use std::collections::HashMap;

use secateur_engine::expr::Builder;
use secateur_engine::ir::{DType, Model, Port, Tensor, Type, ValueId, verify};
use secateur_engine::ops;
use secateur_engine::opt::infer::infer;
use secateur_engine::opt::{CLEANING, FUSING, Scope, apply, inline};

use crate::diff::newest;
use crate::group::{Parameter, parameters};
use crate::optim::Slot;
use crate::settings::missing;
use crate::spec::{Spec, State, StepGraph};
use crate::terms::{self, declare, known, output};
use crate::update::{Trained, Updated, update, zeros_held};
use crate::words::{cast, int};
use crate::{Gradients, TrainError, checkpoints, differentiate, modes};

/// A training step of `model`: the model, the gradients of its parameters, and what the optimiser makes of them, as one graph.
///
/// Parameters are the initialisers that look like weights; [`Group`](crate::Group)s say otherwise. They become inputs and outputs, as do the
/// optimiser's state, the number of the step, and the running statistics of `BatchNormalization`, which is
/// in training mode then, as is `Dropout`. `model` itself is not changed; see [`StepGraph::put_back`].
///
/// # Errors
///
/// If the model cannot be differentiated, or what `spec` says does not fit it.
pub fn step(model: &Model, spec: &Spec) -> Result<StepGraph, TrainError> {
    let mut draft = Draft::new(model, spec)?;
    let graph = &mut draft.graph;
    let terms = terms::write(&mut graph.model, spec.terms, &mut graph.labels)?;
    draft.backward(terms)?;
    draft.forward()?;
    draft.finish()
}

/// A step on its way.
struct Draft<'a> {
    spec: &'a Spec<'a>,
    parameters: Vec<Parameter>,
    /// Values of the graph that become what follows in the next step, with what stands for it then.
    running: Vec<(ValueId, ValueId)>,
    counter: ValueId,
    gradients: Vec<ValueId>,
    graph: StepGraph,
}

impl<'a> Draft<'a> {
    /// The model in training mode.
    fn new(original: &Model, spec: &'a Spec<'a>) -> Result<Draft<'a>, TrainError> {
        let mut model = original.clone();
        inline(&mut model)?;
        let parameters = parameters(&model, spec.groups)?;
        newest(&mut model)?;
        recognize(&mut model, spec)?;
        let running = match spec.batch_statistics {
            true => modes::normalize(&mut model, spec.groups),
            false => vec![],
        };
        let graph = &mut model.graph;
        for name in spec.outputs {
            known(graph, name)?;
        }
        let counter = graph.fresh("step");
        let counter = graph.input(counter, Type::tensor(DType::I64, [0usize; 0]));
        modes::drop(&mut model, counter, spec.seed)?;
        let graph = StepGraph {
            model,
            rate: String::new(),
            labels: vec![],
            state: vec![],
            loss: String::new(),
            terms: vec![],
            norm: None,
        };
        Ok(Draft {
            spec,
            parameters,
            running,
            counter,
            gradients: vec![],
            graph,
        })
    }

    /// The gradients of the parameters; those on which the loss does not depend stay as they are.
    fn backward(&mut self, (terms, whole): (Vec<ValueId>, ValueId)) -> Result<(), TrainError> {
        let by: Vec<_> = self.parameters.iter().map(|p| p.value).collect();
        let of = [(whole, None)];
        let g = Gradients {
            rounding: self.spec.rounding,
            ..Gradients::new(&of, &by)
        };
        let model = &mut self.graph.model;
        let segments = self.spec.segments.map(|s| checkpoints(model, &g, s));
        let kept = segments.transpose()?;
        let g = Gradients {
            keep: kept.as_deref(),
            ..g
        };
        let found = differentiate(model, &g)?;
        let mut each = found.iter();
        self.parameters
            .retain(|_| each.next().is_some_and(Option::is_some));
        self.gradients = found.into_iter().flatten().collect();
        if self.gradients.is_empty() {
            return Err(TrainError::wrong("the loss depends on none of the parameters"));
        }
        model.graph.outputs.clear();
        (self.graph.loss, self.graph.terms) = terms::outputs(model, self.spec.terms, (&terms, whole));
        for name in self.spec.outputs {
            let v = known(&model.graph, name)?;
            if !model.graph.outputs.iter().any(|p| p.value == v) {
                model.graph.output(v, None);
            }
        }
        Ok(())
    }

    /// Makes inputs of what changes, and writes the optimiser's part.
    fn forward(&mut self) -> Result<(), TrainError> {
        let masks = self.masks()?;
        let mut state = vec![];
        for (p, mask) in self.parameters.clone().iter().zip(&masks) {
            let start = freed(&mut self.graph.model, p.value)?;
            let start = mask.as_ref().map_or(Some(start.clone()), |m| held(&start, m));
            let start =
                start.ok_or_else(|| TrainError::wrong(format!("the mask of {:?} does not fit", p.name)))?;
            state.push(self.slots(p, start));
        }
        let graph = &mut self.graph.model.graph;
        let dtype = self.parameters.first().map_or(DType::F32, |p| p.dtype);
        let rate = graph.fresh("rate");
        self.graph.rate = rate.to_string();
        let rate = graph.input(rate, Type::tensor(dtype, [0usize; 0]));
        let (made, next) = self.update(rate, &state, &masks)?;
        let made = made.each.into_iter().zip(state);
        for ((new, moved), (value, slots)) in made {
            self.pair(value, new);
            slots
                .into_iter()
                .zip(moved)
                .for_each(|(old, new)| self.pair(old, new));
        }
        self.pair((self.counter, Tensor::scalar(0i64), None), next);
        for (old, new) in std::mem::take(&mut self.running) {
            let start = freed(&mut self.graph.model, old)?;
            self.pair((old, start, Some(old)), new);
        }
        Ok(())
    }

    /// The masks of the parameters.
    fn masks(&self) -> Result<Vec<Option<Tensor>>, TrainError> {
        let names: Vec<&str> = self.parameters.iter().map(|p| &*p.name).collect();
        for (name, mask) in self.spec.masks {
            // What is not trained stays as it is, mask or not.
            let fixed = self.graph.model.graph.find(name);
            if !names.contains(name) && fixed.is_none_or(|v| self.graph.model.graph.konst(v).is_none()) {
                return Err(TrainError::wrong(missing("parameter", name, &names)));
            }
            if mask.dtype() != DType::Bool {
                return Err(TrainError::wrong(format!(
                    "the mask of {name:?} is of {}; expected truth values",
                    mask.dtype()
                )));
            }
        }
        let given = |name: &str| self.spec.masks.iter().find(|(n, _)| *n == name);
        let graph = &self.graph.model.graph;
        let of = |p: &Parameter| match given(&p.name) {
            Some((_, mask)) => Some(mask.clone()),
            None if self.spec.hold_zeros => pruned(graph.konst(p.value)?),
            None => None,
        };
        Ok(self.parameters.iter().map(of).collect())
    }

    /// The inputs for a parameter and the optimiser's state of it.
    fn slots(&mut self, p: &Parameter, start: Tensor) -> (Held, Vec<Held>) {
        let graph = &mut self.graph.model.graph;
        let zeros = Tensor::zeros(start.dtype(), start.dims()).unwrap_or_else(|| start.clone());
        let ty = Type::tensor(start.dtype(), start.dims().iter().copied());
        let slots = self.spec.optimizer.state().into_iter().map(|name| {
            let name = graph.fresh(&format!("{}.{name}", p.name));
            (graph.input(name, ty.clone()), zeros.clone(), None)
        });
        let slots = slots.collect();
        ((p.value, start, Some(p.value)), slots)
    }

    /// Writes what the optimiser does; new values, and the number of the next step.
    fn update(
        &mut self,
        rate: ValueId,
        state: &[(Held, Vec<Held>)],
        masks: &[Option<Tensor>],
    ) -> Result<(Made, ValueId), TrainError> {
        let model = &mut self.graph.model;
        let facts = infer(model, &HashMap::new())?;
        let graph = model.graph.clone();
        let b = Builder::new(&graph, ops::OPSET).knowing(&facts);
        let all = self.parameters.iter().zip(&self.gradients).zip(state).zip(masks);
        let all = all.map(|(((p, &g), (value, slots)), mask)| Trained {
            slot: Slot {
                value: b.at(value.0),
                gradient: b.at(g),
                state: slots.iter().map(|s| b.at(s.0)).collect(),
            },
            group: &p.group,
            mask: mask.clone().map(|m| b.at(rate).tensor(m)),
        });
        let step = b.at(self.counter);
        let next = step + int(step, 1);
        let told = (b.at(rate), cast(next, DType::F64));
        let Updated { each, norm } = update(all.collect(), self.spec.optimizer, self.spec.clip, told);
        let each = each
            .into_iter()
            .map(|(p, s)| (p.id, s.into_iter().map(|s| s.id).collect()));
        let (made, norm, next) = (Made { each: each.collect() }, norm.map(|n| n.id), next.id);
        b.finish().apply(&mut model.graph)?;
        model.graph.sort();
        self.graph.norm = norm.map(|n| output(model, n, "gradient_norm"));
        Ok((made, next))
    }

    /// Makes `new` the output that follows the input `old`.
    fn pair(&mut self, (old, start, weight): Held, new: ValueId) {
        let model = &mut self.graph.model;
        let input = model.graph[old].name.to_string();
        let output = output(model, new, &format!("{input}.next"));
        self.graph.state.push(State {
            input,
            output,
            start,
            weight,
        });
    }

    fn finish(mut self) -> Result<StepGraph, TrainError> {
        let model = &mut self.graph.model;
        model.functions.clear();
        apply(model, Scope::Portable, CLEANING)?;
        verify(&model.graph)?;
        declare(model)?;
        Ok(self.graph)
    }
}

/// An input of the step, what it is at first, and the initialiser that it was.
type Held = (ValueId, Tensor, Option<ValueId>);

/// New parameters, each with its new state.
struct Made {
    each: Vec<(ValueId, Vec<ValueId>)>,
}

/// Finds operators that are spelled out, whose gradients ask for less than those of their steps. Values that are asked for stay.
fn recognize(model: &mut Model, spec: &Spec) -> Result<(), TrainError> {
    let names = spec.terms.iter().flat_map(|t| t.of).chain(spec.outputs);
    for v in names
        .filter_map(|name| model.graph.find(name))
        .collect::<Vec<_>>()
    {
        if !model.graph.outputs.iter().any(|p| p.value == v) {
            model.graph.output(v, None);
        }
    }
    apply(model, Scope::Portable, FUSING)?;
    Ok(())
}

/// Makes an input of an initialiser; its elements.
pub(crate) fn freed(model: &mut Model, v: ValueId) -> Result<Tensor, TrainError> {
    let graph = &mut model.graph;
    let konst = graph[v].konst.take();
    let konst = konst.ok_or_else(|| TrainError::wrong(format!("{:?} is no initialiser", graph[v].name)))?;
    let tensor = (*konst.tensor).clone();
    graph.initializers.retain(|&i| i != v);
    if !graph.is_input(v) {
        let ty = Type::tensor(tensor.dtype(), tensor.dims().iter().copied());
        graph.inputs.push(Port {
            value: v,
            ty: Some(ty.into()),
            extra: Default::default(),
        });
    }
    Ok(tensor)
}

/// The mask that holds the zeros of a weight, if it has some.
fn pruned(t: &Tensor) -> Option<Tensor> {
    let mask = zeros_held(t).filter(|_| t.dims().len() > 1)?;
    let kept = mask.truths()?.into_iter().filter(|&m| m).count();
    (1..t.len()).contains(&kept).then_some(mask)
}

/// `t` with zeros where `mask` is false.
fn held(t: &Tensor, mask: &Tensor) -> Option<Tensor> {
    let (x, mask) = (t.floats()?, mask.truths().filter(|_| mask.dims() == t.dims())?);
    let x: Vec<f64> = x
        .iter()
        .zip(mask)
        .map(|(&x, m)| if m { x } else { 0.0 })
        .collect();
    Tensor::rounded(t.dtype(), t.dims(), &x)
}
