use std::sync::Arc;
use std::time::Duration;

use secateur_engine::ir::{Attr, AttrValue, DType, Node, Type, ValueId};
use secateur_engine::plan::Rates;
use secateur_engine::{Session, Tensor};
use secateur_train::data::{self, Data, LoaderOptions, Part, Wanted};
use secateur_train::loss::{Accuracy, CrossEntropy, loss};
use secateur_train::optim::optimizer;
use secateur_train::{Schedule, Spec, Teacher, Term};

use super::*;
use crate::methods::find;
use crate::rounds::{Ramp, Rounds, Run};
use crate::trim::Frame;
use crate::{Amount, Choice, Effort, Goal, Pattern, Scope, weights};

pub(super) fn noise(dims: &[usize], seed: usize) -> Tensor {
    let n: usize = dims.iter().product();
    let number = |i: usize| (((i + seed) * 7919 % 2003) as f32 / 1001.5 - 1.0) / (n as f32).sqrt() * 4.0;
    Tensor::of(dims, (0..n).map(number).collect())
}

pub(super) struct Net {
    pub(super) model: Model,
    pub(super) at: ValueId,
}

impl Net {
    pub(super) fn new() -> Net {
        let mut model = Model::default();
        model.opsets.push(secateur_engine::ir::Opset {
            domain: None,
            version: Some(17),
            extra: Default::default(),
        });
        let n = secateur_engine::ir::Dim::Symbol("n".into());
        let shape = [n, 1usize.into(), 8usize.into(), 8usize.into()];
        let at = model.graph.input("x", Type::tensor(DType::F32, shape));
        Net { model, at }
    }

    pub(super) fn node(&mut self, op: &str, weights: Vec<(&str, Tensor)>, attrs: Vec<Attr>) {
        let g = &mut self.model.graph;
        let mut inputs = vec![Some(self.at)];
        inputs.extend(weights.into_iter().map(|(name, t)| Some(g.constant(name, t))));
        self.at = g.value(g.fresh(&format!("{op}_out")));
        let mut node = Node::new(op, inputs, vec![Some(self.at)]);
        node.attrs = attrs;
        g.node(node);
    }

    pub(super) fn done(mut self) -> Model {
        self.model.graph.output(self.at, None);
        self.model
    }
}

/// A convolution without a bias, a normalisation, and two layers with biases, the last by a product and a sum.
fn net() -> Model {
    let mut net = Net::new();
    let ones = |n: usize, x: f32| Tensor::of(&[n], vec![x; n]);
    net.node("Conv", vec![("w0", noise(&[6, 1, 3, 3], 1))], vec![]);
    let norm = ["scale", "shift", "mean", "variance"].into_iter();
    let norm = norm.zip([ones(6, 1.5), ones(6, 0.2), ones(6, 0.3), ones(6, 2.0)]);
    net.node("BatchNormalization", norm.collect(), vec![]);
    net.node("Relu", vec![], vec![]);
    net.node("Flatten", vec![], vec![]);
    net.node(
        "Gemm",
        vec![("w1", noise(&[216, 20], 3)), ("b1", ones(20, 0.1))],
        vec![],
    );
    net.node("Relu", vec![], vec![]);
    net.node("MatMul", vec![("w2", noise(&[20, 10], 5))], vec![]);
    net.node("Add", vec![("b2", ones(10, 0.0))], vec![]);
    net.done()
}

pub(super) fn digits() -> Arc<Data> {
    let options = data::Options {
        validation: Part::Count(0),
        ..data::Options::default()
    };
    let all = data::open("digits", &options).unwrap().train;
    let wanted = Wanted {
        name: "x".into(),
        dtype: DType::F32,
        dims: vec![Some(1), Some(8), Some(8)],
    };
    all.fit(&[wanted], Some(10)).unwrap().into()
}

pub(super) fn loader(batch: usize) -> Loader {
    let options = LoaderOptions {
        batch,
        shuffle: false,
        ..LoaderOptions::default()
    };
    Loader::new(digits(), options).unwrap()
}

fn goal(share: f64) -> Goal {
    Goal {
        amount: Amount::Sparsity(share),
        scope: Scope::Layer,
        pattern: Pattern::Unstructured,
    }
}

fn rounds(choice: &Choice, share: f64, count: u32) -> Rounds<'_> {
    Rounds {
        shown: None,
        seed: 0,
        method: find("magnitude").unwrap(),
        aim: Some(goal(share).into()),
        frame: Frame::default(),
        choice,
        count,
        ramp: Ramp::Cubic,
        effort: Effort::default(),
    }
}

fn pruned(model: &Model, share: f64) -> Model {
    let choice = Choice::default();
    let mut run = Run::new(model, rounds(&choice, share, 1)).unwrap();
    run.run(&mut (), None, &mut |_| ()).unwrap();
    run.model().clone()
}

/// The moments of `name` over the first examples.
fn moments(model: &Model, name: &str, axis: isize, rates: &Arc<Rates>) -> moments::Moments {
    let found = calibration(rates).moments(model, &[(name, axis)]).unwrap();
    found.into_iter().next().flatten().unwrap()
}

pub(super) fn calibration(rates: &Arc<Rates>) -> Calibration<'_> {
    Calibration {
        examples: loader(8),
        samples: 64,
        threads: 1,
        rates,
    }
}

pub(super) fn konst(model: &Model, name: &str) -> Vec<f64> {
    let g = &model.graph;
    g.konst(g.find(name).unwrap()).unwrap().floats().unwrap()
}

fn near(a: &[f64], b: &[f64]) {
    assert_eq!(a.len(), b.len());
    let off = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(off < 1e-3, "{a:?} {b:?}");
}

#[test]
fn statistics_are_those_of_what_flows_in() {
    let rates = Arc::default();
    let mut model = pruned(&net(), 0.7);
    assert_eq!(renormalize(&mut model, &calibration(&rates)).unwrap(), 1);
    let seen = moments(&model, "Conv_out", 1, &rates);
    near(&konst(&model, "mean"), &seen.means());
    near(&konst(&model, "variance"), &seen.variances());
    // What comes out has the mean of the shift and the deviation of the scale.
    let out = moments(&model, "BatchNormalization_out", 1, &rates);
    near(&out.means(), &[0.2; 6]);
    // Of a channel of which nothing is left the deviation is 0.
    let scaled = |v: &f64| 1.5 * 1.5 * v / (v + 1e-5);
    let expected: Vec<f64> = seen.variances().iter().map(scaled).collect();
    assert!(expected.iter().any(|&v| v > 2.0) && expected.iter().any(|&v| v < 0.1));
    near(&out.variances(), &expected);
}

#[test]
fn without_normalisations_nothing_changes() {
    let rates = Arc::default();
    let mut net = Net::new();
    net.node("Conv", vec![("w0", noise(&[6, 1, 3, 3], 1))], vec![]);
    let mut model = net.done();
    let before = model.clone();
    assert_eq!(renormalize(&mut model, &calibration(&rates)).unwrap(), 0);
    let none = correct(&mut model, &before, &calibration(&rates)).unwrap();
    assert_eq!((none, &model), (Corrected::default(), &before));
}

#[test]
fn biases_bring_the_means_back() {
    let rates = Arc::default();
    let original = net();
    let mut model = pruned(&original, 0.7);
    let sums = [("BatchNormalization_out", 1), ("Gemm_out", 1), ("Add_out", -1)];
    let means = |m: &Model| sums.map(|(name, axis)| moments(m, name, axis, &rates).means());
    let (wanted, before) = (means(&original), means(&model));
    assert!(
        wanted
            .iter()
            .zip(&before)
            .all(|(a, b)| a.iter().zip(b).any(|(a, b)| (a - b).abs() > 0.05))
    );
    let done = correct(&mut model, &original, &calibration(&rates)).unwrap();
    assert_eq!(done, Corrected { shifted: 3, other: 0 });
    for (wanted, now) in wanted.iter().zip(means(&model)) {
        near(wanted, &now);
    }
    // Weights are as they were.
    let same = |name: &str| konst(&model, name) == konst(&pruned(&original, 0.7), name);
    assert!(["w0", "w1", "w2", "mean", "variance"].into_iter().all(same));
}

#[test]
fn biases_of_layers_of_another_width_stay() {
    let rates = Arc::default();
    let (original, mut narrow) = (net(), net());
    let cut = |model: &mut Model, name: &str, dims: &[usize]| {
        let v = model.graph.find(name).unwrap();
        let konst = model.graph.values[v.0 as usize].konst.as_mut().unwrap();
        *konst = konst.with(noise(dims, 3));
    };
    cut(&mut narrow, "w1", &[216, 15]);
    cut(&mut narrow, "b1", &[15]);
    cut(&mut narrow, "w2", &[15, 10]);
    let bias = konst(&narrow, "b1");
    let done = correct(&mut narrow, &original, &calibration(&rates)).unwrap();
    assert_eq!(done, Corrected { shifted: 2, other: 1 });
    assert_eq!(konst(&narrow, "b1"), bias);
    near(
        &moments(&narrow, "Add_out", -1, &rates).means(),
        &moments(&original, "Add_out", -1, &rates).means(),
    );
}

#[test]
fn constants_of_nodes_count_and_shared_ones_do_not() {
    let rates = Arc::default();
    // The bias is the output of a node `Constant`, multiplied by two when it is added.
    let build = |shared: bool, x: f32| {
        let mut net = Net::new();
        net.node("Flatten", vec![], vec![]);
        let g = &mut net.model.graph;
        let b = g.value("b");
        let mut constant = Node::new("Constant", vec![], vec![Some(b)]);
        let tensor = secateur_engine::ir::Constant::new(Tensor::of(&[4], vec![x; 4]));
        constant.set("value", AttrValue::Tensor(tensor));
        g.node(constant);
        let w = g.constant("w", noise(&[64, 4], 1));
        let y = g.value("y");
        let mut gemm = Node::new("Gemm", vec![Some(net.at), Some(w), Some(b)], vec![Some(y)]);
        gemm.set("beta", AttrValue::Float(Some(2.0)));
        g.node(gemm);
        net.at = y;
        if shared {
            let sum = g.value("sum");
            g.node(Node::new("Add", vec![Some(y), Some(b)], vec![Some(sum)]));
            net.at = sum;
        }
        net.done()
    };
    let mut model = build(false, 0.5);
    let done = correct(&mut model, &build(false, 1.25), &calibration(&rates)).unwrap();
    assert_eq!(done.shifted, 1);
    let place = crate::place::places(&model)
        .into_iter()
        .find(|p| p.name == "b")
        .unwrap();
    near(
        &place.site.constant(&model).unwrap().tensor.floats().unwrap(),
        &[1.25; 4],
    );
    let mut shared = build(true, 0.5);
    let done = correct(&mut shared, &build(true, 1.25), &calibration(&rates)).unwrap();
    assert_eq!((done, shared), (Corrected::default(), build(true, 0.5)));
}

/// Runs rounds with fine-tuning by AdamW with momentum and decay; what it leads to.
fn tuned(model: &Model, share: f64, count: u32, epochs: u64) -> (Model, Vec<crate::rounds::Row>) {
    let (entropy, adam) = (CrossEntropy::default(), optimizer("adamw").unwrap());
    let of = ["Add_out", "label"];
    let term = |loss, weight| Term {
        loss,
        of: &of,
        weight,
    };
    let terms = [
        term(&entropy as &dyn secateur_train::Loss, 1.0),
        term(&Accuracy, 0.0),
    ];
    let mut school = Recovery {
        original: model,
        course: Course {
            spec: Spec::new(&terms, &*adam),
            rate: 3e-3,
            schedule: &"constant".parse::<Schedule>().unwrap(),
            epochs,
            patience: None,
            teachers: &[],
            checkpoint: None,
            keep: Duration::MAX,
            threads: 1,
            rates: &Arc::default(),
        },
        examples: loader(32),
        measured: Some(loader(256)),
        classes: true,
        repairs: &[],
        samples: 64,
        resume: false,
        apart: vec![],
    };
    let choice = Choice::default();
    let mut run = Run::new(model, rounds(&choice, share, count)).unwrap();
    let mut steps = 0;
    let mut told =
        |e: Event| steps += usize::from(matches!(e, Event::Train(secateur_train::Event::Step { .. })));
    run.run(&mut school, None, &mut told).unwrap();
    assert_eq!(steps as u64, epochs * school.examples.batches() as u64);
    (run.model().clone(), run.rows().to_vec())
}

#[test]
fn what_is_pruned_stays_zero_while_the_rest_learns() {
    let (model, rows) = tuned(&net(), 0.6, 2, 2);
    for w in weights(&model).iter().filter(|w| w.exempt.is_none()) {
        let share = (w.elements() as f64 * 0.6).round();
        assert_eq!(w.tensor.zeros_count() as f64, share, "{}", w.name);
    }
    let accuracy = |s: Option<crate::rounds::Score>| s.unwrap().accuracy.unwrap();
    for row in &rows {
        assert!(accuracy(row.after) > accuracy(row.before), "{row:?}");
    }
    assert!(accuracy(rows[1].after) > 0.8, "{rows:?}");
    let session = Session::builder(&model).build().unwrap();
    assert_eq!(session.inputs().count(), 1);
}

#[test]
fn a_weight_of_which_nothing_is_left_stays_so() {
    let mut start = net();
    let v = start.graph.find("w2").unwrap();
    let konst = start.graph.values[v.0 as usize].konst.as_mut().unwrap();
    *konst = konst.with(Tensor::of(&[20, 10], vec![0f32; 200]));
    let (model, _) = tuned(&start, 0.5, 1, 1);
    assert_eq!(crate::recover::tests::konst(&model, "w2"), [0.0; 200]);
    assert_ne!(crate::recover::tests::konst(&model, "b2"), [0.0; 10]);
}

/// Two heads on one layer: scores behind a sigmoid and a softmax, the one with a bias that is added.
fn heads(classes: usize) -> Model {
    heads_of(classes, 5)
}

fn heads_of(classes: usize, seed: usize) -> Model {
    let mut net = Net::new();
    net.node("Flatten", vec![], vec![]);
    net.node("MatMul", vec![("w0", noise(&[64, 16], 1))], vec![]);
    net.node("Relu", vec![], vec![]);
    let inner = net.at;
    net.node("MatMul", vec![("w1", noise(&[16, 4], 3))], vec![]);
    net.node("Add", vec![("b1", Tensor::of(&[4], vec![0.5f32; 4]))], vec![]);
    net.node("Sigmoid", vec![], vec![]);
    let one = std::mem::replace(&mut net.at, inner);
    net.node("MatMul", vec![("w2", noise(&[16, classes], seed))], vec![]);
    net.node("Softmax", vec![], vec![]);
    net.model.graph.output(one, None);
    net.done()
}

#[test]
fn hints_are_what_the_last_weights_say() {
    let model = heads(6);
    assert_eq!(hints(&model, &model), ["Add_out", "MatMul_out_11"]);
    // Nothing stands behind the weights.
    assert_eq!(hints(&net(), &net()), ["Add_out"]);
    // The other has one of another shape.
    assert_eq!(hints(&model, &heads(5)), ["Add_out"]);
}

#[test]
fn hints_are_also_the_sums_of_residual_blocks() {
    let block = |width: usize| {
        let mut net = Net::new();
        net.node("Flatten", vec![], vec![]);
        net.node("MatMul", vec![("in", noise(&[64, width], 1))], vec![]);
        let before = net.at;
        net.node("MatMul", vec![("up", noise(&[width, 40], 2))], vec![]);
        net.node("Relu", vec![], vec![]);
        net.node("MatMul", vec![("down", noise(&[40, width], 3))], vec![]);
        // A bias ends no block, nor does what one thing is made of in two ways.
        net.node("Add", vec![("bias", noise(&[width], 4))], vec![]);
        let (g, made) = (&mut net.model.graph, net.at);
        let [bent, both] = ["bent", "both"].map(|n| g.value(n));
        net.at = g.value("joined");
        g.node(Node::new("Tanh", vec![Some(made)], vec![Some(bent)]));
        for (a, b, y) in [(made, bent, both), (both, before, net.at)] {
            g.node(Node::new("Add", vec![Some(a), Some(b)], vec![Some(y)]));
        }
        net.node("Relu", vec![], vec![]);
        net.node("MatMul", vec![("out", noise(&[width, 3], 5))], vec![]);
        net.done()
    };
    assert_eq!(hints(&block(8), &block(8)), ["joined", "MatMul_out_16"]);
    // The sums of a narrower one are others.
    assert_eq!(hints(&block(8), &block(6)), ["MatMul_out_16"]);
}

#[test]
fn values_of_another_shape_are_not_learned() {
    let (whole, less) = (heads(6), heads(5));
    // The second of its outputs is another.
    let shaken = heads_of(6, 77);
    let mse = loss("mse").unwrap();
    let names = ["Add_out", "MatMul_out_11", "gone"];
    let of = names.map(|name| [name, name]);
    let of: Vec<[&str; 2]> = of
        .iter()
        .zip(["a", "b", "c"])
        .map(|([v, _], l)| [*v, l])
        .collect();
    let term = |of| Term {
        loss: &*mse,
        of,
        weight: 1.0,
    };
    let terms: Vec<Term> = of.iter().map(|of| term(of.as_slice())).collect();
    let teacher = |label, output| Teacher {
        label,
        model: &whole,
        output,
    };
    let teachers = [
        teacher("a", names[0]),
        teacher("b", names[1]),
        teacher("c", names[1]),
    ];
    let (optimizer, schedule, rates) = (
        optimizer("sgd").unwrap(),
        "constant".parse().unwrap(),
        Arc::default(),
    );
    let course = Course {
        spec: Spec::new(&terms, &*optimizer),
        rate: 0.1,
        schedule: &schedule,
        epochs: 1,
        patience: None,
        teachers: &teachers,
        checkpoint: None,
        keep: Duration::MAX,
        threads: 1,
        rates: &rates,
    };
    let left = |model: &Model| -> Vec<String> {
        let terms = hints::learnable(model, &course);
        terms.iter().map(|t| t.of[1].to_owned()).collect()
    };
    assert_eq!(left(&whole), ["a", "b"]);
    assert_eq!(left(&less), ["a"]);
    let mut school = Recovery {
        original: &whole,
        course,
        examples: loader(32),
        measured: Some(loader(256)),
        classes: false,
        repairs: &[],
        samples: 64,
        resume: false,
        apart: vec![],
    };
    // All that is taught counts, and what is gone does not stand in the way.
    let mut score = |model: &Model| school.score(model).unwrap().unwrap().loss;
    assert_eq!((score(&whole), score(&less)), (0.0, 0.0));
    assert!(score(&shaken) > 0.01);
}
