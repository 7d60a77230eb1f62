//! Small graphs, and the check that every cut has to pass.

use std::collections::BTreeMap;

use secateur_compress::groups::{Kind, Of, Shrink, Sizes, squares};
use secateur_compress::{Change, Narrow, Plan, Scope, apply, forced, groups};
use secateur_engine::ir::{AttrValue, DType, Dim, Node, Opset, Type, ValueId};
use secateur_engine::random::Random;
use secateur_engine::{Model, Session, Tensor};

/// A model in the making.
pub(crate) struct Sketch {
    pub(crate) model: Model,
    random: Random,
}

impl Sketch {
    pub(crate) fn new(seed: u64) -> Sketch {
        let mut model = Model::default();
        model.opsets.push(Opset {
            domain: Some("".into()),
            version: Some(17),
            extra: Default::default(),
        });
        Sketch {
            model,
            random: Random::new(seed),
        }
    }

    pub(crate) fn input(&mut self, name: &str, dims: &[usize]) -> ValueId {
        self.model
            .graph
            .input(name, Type::tensor(DType::F32, dims.iter().copied()))
    }

    pub(crate) fn tensor(&mut self, dims: &[usize]) -> Tensor {
        let n = dims.iter().product();
        let x: Vec<f32> = (0..n).map(|_| self.random.uniform() as f32 - 0.5).collect();
        Tensor::of(dims, x)
    }

    /// A constant of random floats.
    pub(crate) fn weight(&mut self, dims: &[usize]) -> ValueId {
        let tensor = self.tensor(dims);
        self.constant("w", tensor)
    }

    pub(crate) fn constant(&mut self, stem: &str, tensor: Tensor) -> ValueId {
        let name = format!("{stem}{}", self.model.graph.values.len());
        self.model.graph.constant(name, tensor)
    }

    pub(crate) fn ints(&mut self, list: &[i64]) -> ValueId {
        self.constant("list", Tensor::of(&[list.len()], list.to_vec()))
    }

    pub(crate) fn op(&mut self, op: &str, inputs: &[ValueId], attrs: &[(&str, AttrValue)]) -> ValueId {
        self.ops(op, inputs, attrs, 1)[0]
    }

    pub(crate) fn ops(
        &mut self,
        op: &str,
        inputs: &[ValueId],
        attrs: &[(&str, AttrValue)],
        n: usize,
    ) -> Vec<ValueId> {
        let g = &mut self.model.graph;
        let outs: Vec<_> = (0..n).map(|_| g.value(format!("v{}", g.values.len()))).collect();
        let (ins, made) = (inputs.iter().copied().map(Some), outs.iter().copied().map(Some));
        let mut node = Node::new(op, ins.collect(), made.collect());
        attrs
            .iter()
            .for_each(|(name, value)| node.set(name, value.clone()));
        g.node(node);
        outs
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.random.below(n)
    }

    pub(crate) fn done(mut self, outputs: &[ValueId]) -> Model {
        outputs.iter().for_each(|v| self.model.graph.output(*v, None));
        self.model
    }
}

/// Attributes that are integers.
pub(crate) fn int(x: i64) -> AttrValue {
    x.into()
}

pub(crate) fn list(x: &[i64]) -> AttrValue {
    x.into()
}

/// All kinds.
pub(crate) const ALL: [Kind; 4] = [Kind::Channel, Kind::Head, Kind::HeadWidth, Kind::Neuron];

/// 30 % of the width of every group of `kinds` goes.
pub(crate) fn to_70(kinds: &[Kind]) -> Shrink {
    Shrink {
        share: 0.3,
        of: Of::Channels,
        scope: Scope::Layer,
        round_to: 1,
        kinds: kinds.to_vec(),
        keep: vec![],
    }
}

fn inputs(model: &Model, sizes: &Sizes) -> Vec<(String, Tensor)> {
    let g = &model.graph;
    let size = |(i, d): (usize, &Dim)| {
        let given = || sizes.get(&d.to_string()).copied();
        d.size().or_else(given).unwrap_or(if i == 0 { 2 } else { 64 })
    };
    let input = |p: &secateur_engine::ir::Port| {
        let ty = &p.ty.as_ref().unwrap().ty;
        let dims: Vec<usize> = ty.shape().unwrap().iter().enumerate().map(size).collect();
        let dtype = ty.dtype().unwrap();
        let value = |i: usize| match dtype.is_float() {
            true => ((i * 7919 + 13) % 1009) as f64 / 504.0 - 1.0,
            false => 1.0,
        };
        let x: Vec<f64> = (0..dims.iter().product()).map(value).collect();
        (
            g[p.value].name.to_string(),
            Tensor::rounded(dtype, &dims, &x).unwrap(),
        )
    };
    let open = g.inputs.iter().filter(|p| g[p.value].konst.is_none());
    open.map(input).collect()
}

/// The outputs of `model`, as it is written.
pub(crate) fn outputs(model: &Model, sizes: &Sizes) -> Vec<Vec<f64>> {
    let session = Session::builder(model).threads(1).unoptimized().build().unwrap();
    let inputs = inputs(model, sizes);
    let out = session.run(inputs.iter().map(|(n, t)| (n, t))).unwrap();
    out.tensors().map(|(_, t)| t.floats().unwrap()).collect()
}

pub(crate) fn cut(model: &Model, change: &Narrow) -> Model {
    let mut new = model.clone();
    apply(&Plan(vec![Change::Narrow(change.clone())]), &mut new).unwrap_or_else(|e| panic!("{e}"));
    new
}

/// The outputs of `model` node by node, as operators are defined.
pub(crate) fn defined(model: &Model) -> Vec<Vec<f64>> {
    let session = Session::builder(model).reference().build().unwrap();
    let inputs = inputs(model, &Sizes::new());
    let out = session.run(inputs.iter().map(|(n, t)| (n, t))).unwrap();
    out.tensors().map(|(_, t)| t.floats().unwrap()).collect()
}

/// What `how` cuts of `model`, after checking that it computes what it did with the same things zero, and is written and read.
pub(crate) fn agrees(name: &str, model: &Model, how: &Shrink, sizes: &Sizes) -> (Narrow, Model) {
    agrees_by(name, model, (how, sizes), &|m| outputs(m, sizes))
}

/// The same for what `run` makes of models.
pub(crate) fn agrees_by(
    name: &str,
    model: &Model,
    (how, sizes): (&Shrink, &Sizes),
    run: &dyn Fn(&Model) -> Vec<Vec<f64>>,
) -> (Narrow, Model) {
    let found = groups(model, sizes).unwrap_or_else(|e| panic!("{name}: {e}"));
    let change = found
        .choose(&found.scores(&squares), how, sizes)
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    let new = cut(model, &change);
    assert!(!change.groups.is_empty(), "{name}: nothing was cut");
    assert!(elements(&new) < elements(model), "{name}: not smaller");
    assert_eq!(
        elements(&new),
        found.parameters(&change),
        "{name}: not as small as foretold"
    );
    let (zero, new_out) = (forced(&change, model).unwrap(), run(&new));
    for (a, b) in run(&zero).iter().zip(&new_out) {
        let most = a.iter().fold(1.0, |m: f64, x| m.max(x.abs()));
        let far = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(
            a.len() == b.len() && far <= 1e-5 * most,
            "{name}: off by {far} of {most}"
        );
    }
    (change, new)
}

/// Elements of the floating-point constants of the main graph.
pub(crate) fn elements(model: &Model) -> u64 {
    let stats = secateur_compress::stats::tensors(model);
    stats
        .iter()
        .filter(|s| s.is_parameter())
        .map(|s| s.elements)
        .sum()
}

/// The widths of the groups by name.
pub(crate) fn widths(model: &Model) -> BTreeMap<String, usize> {
    let found = groups(model, &Sizes::new()).unwrap();
    found.groups.iter().map(|g| (g.name.clone(), g.size)).collect()
}

/// Why the axis called `name` stays whole.
pub(crate) fn reason(model: &Model, name: &str) -> String {
    let found = groups(model, &Sizes::new()).unwrap();
    let uncut = found.uncut.iter().find(|u| u.name == name);
    uncut
        .map(|u| u.reason.clone())
        .unwrap_or_else(|| panic!("{name} is not among {:?}", found))
}

/// What the input `name` is fed with.
pub(crate) fn fed(model: &Model, name: &str) -> Vec<f64> {
    let all = inputs(model, &Sizes::new());
    let found = all.into_iter().find(|(n, _)| n == name);
    found.unwrap().1.floats().unwrap()
}
