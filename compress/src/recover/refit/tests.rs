use std::sync::Arc;

use secateur_engine::ir::{AttrValue, Node};

use super::super::tests::{Net, calibration, loader, noise};
use super::*;
use crate::groups::Sizes;
use crate::{Bypass, Cut, Keep, Mask, Narrow, apply, groups};

/// A weight whose rows `to` along the first axis are the sums of rows `from`.
fn summing(dims: &[usize], seed: usize, sums: &[(usize, [usize; 2])]) -> Tensor {
    let mut x = noise(dims, seed).floats().unwrap();
    let n = x.len() / dims[0];
    for (to, [a, b]) in sums {
        (0..n).for_each(|i| x[to * n + i] = x[a * n + i] + x[b * n + i]);
    }
    Tensor::of(dims, x.into_iter().map(|x| x as f32).collect())
}

/// The same along the second axis of a matrix.
fn summing_columns(dims: [usize; 2], seed: usize, sums: &[(usize, [usize; 2])]) -> Tensor {
    let turned = summing(&[dims[1], dims[0]], seed, sums).floats().unwrap();
    let at = |i: usize| turned[i % dims[1] * dims[0] + i / dims[1]] as f32;
    Tensor::of(&dims, (0..dims[0] * dims[1]).map(at).collect())
}

/// What cuts index `gone` of the group `name` of `model`.
fn without(model: &Model, name: &str, gone: usize) -> Plan {
    let found = groups(model, &Sizes::new()).unwrap();
    let known: Vec<_> = found.groups.iter().map(|g| g.name.clone()).collect();
    let g = found.groups.iter().find(|g| g.name == name);
    let size = g
        .unwrap_or_else(|| panic!("{name} in {known:?}; {:?}", found.uncut))
        .size;
    Plan(vec![Change::Narrow(Narrow {
        sizes: Sizes::new(),
        groups: vec![Keep {
            group: name.into(),
            size,
            keep: (0..size).filter(|i| *i != gone).collect(),
        }],
    })])
}

fn fitted(model: &Model, plan: &Plan) -> Refitted {
    refit(model, plan, &calibration(&Arc::default()), &()).unwrap()
}

/// What `model` makes of some digits that nothing was fitted to.
fn outputs(model: &Model) -> Vec<f64> {
    let batch = loader(100).epoch(0, 5).next().unwrap().unwrap();
    let session = secateur_engine::Session::builder(model).build().unwrap();
    let made = session.run(batch.inputs.iter().map(|(n, x)| (n, x))).unwrap();
    made.into_first().unwrap().floats().unwrap()
}

/// How far `model` after `plan` is from itself, as a share.
fn off(model: &Model, plan: &Plan) -> f64 {
    let mut less = model.clone();
    apply(plan, &mut less).unwrap();
    let (was, is) = (outputs(model), outputs(&less));
    let squares = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>();
    (squares(&mut was.iter().zip(&is).map(|(a, b)| a - b)) / squares(&mut was.into_iter())).sqrt()
}

/// Checks that what was lost of `model` with index `gone` of group `name` is made up for by so many weights.
fn made_up(model: &Model, group: (&str, usize), weights: usize) {
    // The scalar kernels add up in another order, of which a hundred-thousandth is left.
    made_up_to(2e-5, model, group, weights);
}

/// The same, but for so much.
fn made_up_to(most: f64, model: &Model, (name, gone): (&str, usize), weights: usize) {
    let plan = without(model, name, gone);
    let done = fitted(model, &plan);
    assert_eq!((done.fitted, done.other), (weights, 0), "{name}");
    let (before, after) = (off(model, &plan), off(model, &done.plan));
    assert!(before > 0.05 && after < most, "{name}: {before} {after}");
}

fn set(node: &mut Node, attrs: Vec<(&str, AttrValue)>) {
    attrs.into_iter().for_each(|(name, x)| node.set(name, x));
}

impl Net {
    /// A node with attributes.
    fn with(&mut self, op: &str, weights: Vec<(&str, Tensor)>, attrs: Vec<(&str, AttrValue)>) {
        let mut node = Node::new(op, vec![], vec![]);
        set(&mut node, attrs);
        self.node(op, weights, node.attrs);
    }

    fn flat(mut self) -> Model {
        self.node("Flatten", vec![], vec![]);
        self.done()
    }
}

fn ints(x: &[i64]) -> AttrValue {
    x.into()
}

/// The sixth of six is the sum of the first two.
const SIXTH: &[(usize, [usize; 2])] = &[(5, [0, 1])];

#[test]
fn a_neuron_that_others_make_up_for() {
    for bias in [false, true] {
        let mut net = Net::new();
        net.node("Flatten", vec![], vec![]);
        net.node("MatMul", vec![("w1", summing_columns([64, 6], 1, SIXTH))], vec![]);
        if bias {
            net.node("Add", vec![("b1", noise(&[6], 2))], vec![]);
        }
        net.node("MatMul", vec![("w2", noise(&[6, 4], 3))], vec![]);
        if bias {
            net.node("Add", vec![("b2", noise(&[4], 2))], vec![]);
        }
        made_up(&net.done(), ("w1[1]", 5), 1);
    }
}

#[test]
fn products_that_are_turned_and_scaled() {
    let mut net = Net::new();
    net.node("Flatten", vec![], vec![]);
    let scales = || {
        vec![
            ("alpha", AttrValue::Float(Some(0.5))),
            ("beta", AttrValue::Float(Some(-2.0))),
        ]
    };
    let one = vec![("w1", summing(&[6, 64], 1, SIXTH)), ("b1", noise(&[6], 2))];
    net.with("Gemm", one, [scales(), vec![("transB", 1i64.into())]].concat());
    net.node("Transpose", vec![], vec![]);
    let two = vec![("w2", noise(&[6, 4], 3)), ("b2", noise(&[4], 5))];
    net.with("Gemm", two, [scales(), vec![("transA", 1i64.into())]].concat());
    made_up(&net.done(), ("w1[0]", 5), 1);
}

#[test]
fn convolutions_of_all_kinds() {
    let windows = [
        (1, vec![]),
        (3, vec![("pads", ints(&[1, 1, 1, 1]))]),
        (3, vec![("pads", ints(&[0, 1, 2, 0])), ("strides", ints(&[2, 1]))]),
        (
            2,
            vec![("dilations", ints(&[2, 2])), ("auto_pad", "SAME_UPPER".into())],
        ),
    ];
    for (size, attrs) in windows {
        let mut net = Net::new();
        let first = vec![("w1", summing(&[6, 1, 3, 3], 1, SIXTH)), ("b1", noise(&[6], 4))];
        net.node("Conv", first, vec![]);
        let second = vec![("w2", noise(&[4, 6, size, size], 3)), ("b2", noise(&[4], 4))];
        // The border of zeros knows of no bias.
        let (bordered, second) = (size > 1, second);
        if bordered {
            net = Net::new();
            net.node("Conv", vec![("w1", summing(&[6, 1, 3, 3], 1, SIXTH))], vec![]);
        }
        net.with("Conv", second, attrs);
        made_up(&net.flat(), ("w1[0]", 5), 1);
    }
}

#[test]
fn groups_of_a_convolution_are_fitted_by_themselves() {
    let mut net = Net::new();
    let sums = &[(2, [0, 1]), (5, [3, 4])];
    net.node("Conv", vec![("w1", summing(&[6, 1, 3, 3], 1, sums))], vec![]);
    net.with(
        "Conv",
        vec![("w2", noise(&[4, 3, 2, 2], 3))],
        vec![("group", 2i64.into())],
    );
    made_up(&net.flat(), ("w1[0].1", 2), 1);
}

/// A convolution to six channels of 6 x 7, whose weight has such sums, and a transposed one.
fn spreading(
    sums: &[(usize, [usize; 2])],
    (window, bias): (&[usize], bool),
    attrs: Vec<(&str, AttrValue)>,
) -> Net {
    let mut net = Net::new();
    net.node("Conv", vec![("w1", summing(&[6, 1, 3, 2], 1, sums))], vec![]);
    let mut weights = vec![("w2", noise(window, 3))];
    if bias {
        weights.push(("b2", noise(&[4], 4)));
    }
    net.with("ConvTranspose", weights, attrs);
    net
}

#[test]
fn transposed_convolutions_of_all_kinds() {
    let both = |n: i64| ints(&[n, n]);
    let windows = [
        (vec![6, 4, 3, 3], vec![]),
        (
            vec![6, 4, 4, 4],
            vec![("strides", both(2)), ("pads", ints(&[1, 1, 1, 1]))],
        ),
        (
            vec![6, 4, 3, 2],
            vec![("strides", ints(&[3, 2])), ("output_padding", ints(&[2, 1]))],
        ),
        (
            vec![6, 4, 2, 1],
            vec![("strides", both(3)), ("pads", ints(&[0, 1, 2, 0]))],
        ),
        (
            vec![6, 4, 3, 2],
            vec![("strides", ints(&[2, 1])), ("dilations", ints(&[3, 2]))],
        ),
        (
            vec![6, 4, 4, 3],
            vec![("strides", both(2)), ("auto_pad", "SAME_UPPER".into())],
        ),
        (
            vec![6, 4, 4, 3],
            vec![("strides", both(2)), ("output_shape", ints(&[13, 14]))],
        ),
    ];
    for (window, attrs) in windows {
        for bias in [false, true] {
            let net = spreading(SIXTH, (&window, bias), attrs.clone());
            // Neighbours are much alike: the sums, of products in single precision, tell them apart no better.
            made_up_to(1e-4, &net.flat(), ("w1[0]", 5), 1);
        }
    }
}

#[test]
fn groups_of_a_transposed_convolution_are_fitted_by_themselves() {
    let attrs = vec![("strides", ints(&[2, 2])), ("group", 2i64.into())];
    let net = spreading(&[(2, [0, 1]), (5, [3, 4])], (&[6, 2, 3, 3], true), attrs);
    made_up(&net.flat(), ("w1[0].1", 2), 1);
}

#[test]
fn the_mean_behind_a_transposed_convolution_is_its_bias() {
    // Inputs with a mean that nothing else makes: the cut channel was a constant.
    let (mut net, mut first) = (Net::new(), noise(&[6, 1, 3, 3], 1).floats().unwrap());
    first[45..].fill(0.0);
    let first = Tensor::of(&[6, 1, 3, 3], first.into_iter().map(|x| x as f32).collect());
    let shift = Tensor::of(&[6], vec![0.0, 0.0, 0.0, 0.0, 0.0, 2.0f32]);
    net.node("Conv", vec![("w1", first), ("b1", shift)], vec![]);
    net.with(
        "ConvTranspose",
        vec![("w2", Tensor::of(&[6, 4, 2, 2], vec![0.5f32; 96]))],
        vec![("strides", ints(&[2, 2]))],
    );
    let four = |x: f32| Tensor::of(&[4], vec![x; 4]);
    let names = ["scale", "shift", "mean", "variance"];
    let norm = names
        .into_iter()
        .zip([four(1.5), four(0.2), four(0.1), four(2.0)]);
    net.node("BatchNormalization", norm.collect(), vec![]);
    let model = net.flat();
    let plan = without(&model, "w1[0]", 5);
    let done = fitted(&model, &plan);
    assert!(done.plan.0.iter().any(|c| c.value() == "mean"), "{:?}", done.plan);
    assert!(off(&model, &plan) > 0.05 && off(&model, &done.plan) < 2e-5);
}

#[test]
fn what_is_added_to_a_transposed_convolution_is_fitted_with_it() {
    // The sum of two branches of one input: the second makes up for what the first, cut to half, has lost.
    let mut net = Net::new();
    net.node("Conv", vec![("w0", noise(&[4, 1, 3, 2], 9))], vec![]);
    let x = net.at;
    net.node("Conv", vec![("w1", noise(&[6, 4, 1, 1], 1))], vec![]);
    net.with(
        "ConvTranspose",
        vec![("w2", noise(&[6, 4, 2, 2], 3))],
        vec![("strides", ints(&[2, 2]))],
    );
    let one = std::mem::replace(&mut net.at, x);
    net.with(
        "ConvTranspose",
        vec![("w3", noise(&[4, 4, 2, 2], 5))],
        vec![("strides", ints(&[2, 2]))],
    );
    let g = &mut net.model.graph;
    let sum = g.value("sum");
    g.node(Node::new("Add", vec![Some(net.at), Some(one)], vec![Some(sum)]));
    net.at = sum;
    let model = net.flat();
    let plan = Plan(vec![Change::Narrow(Narrow {
        sizes: Sizes::new(),
        groups: vec![Keep {
            group: "w1[0]".into(),
            size: 6,
            keep: vec![0, 1],
        }],
    })]);
    let done = fitted(&model, &plan);
    assert_eq!((done.fitted, done.other), (1, 0));
    assert!(off(&model, &done.plan) < 0.9 * off(&model, &plan));
}

#[test]
fn a_depthwise_convolution_goes_with_its_channel() {
    let mut net = Net::new();
    net.node("Conv", vec![("w1", summing(&[6, 1, 3, 3], 1, SIXTH))], vec![]);
    let same = noise(&[1, 1, 3, 3], 9).floats().unwrap();
    let same = (0..6).flat_map(|_| same.iter().map(|&x| x as f32)).collect();
    net.with(
        "Conv",
        vec![("w2", Tensor::of(&[6, 1, 3, 3], same))],
        vec![("group", 6i64.into())],
    );
    net.node("Conv", vec![("w3", noise(&[4, 6, 1, 1], 3))], vec![]);
    // What the depthwise one sees is another value, of which it needs nothing else.
    made_up(&net.flat(), ("w1[0]", 5), 2);
}

#[test]
fn a_channel_that_is_many_columns_behind_a_flatten() {
    let mut net = Net::new();
    net.node("Conv", vec![("w1", summing(&[6, 1, 3, 3], 1, SIXTH))], vec![]);
    net.with(
        "AveragePool",
        vec![],
        vec![("kernel_shape", ints(&[2, 2])), ("strides", ints(&[2, 2]))],
    );
    net.node("Flatten", vec![], vec![]);
    net.node(
        "Gemm",
        vec![("w2", noise(&[54, 4], 3)), ("b2", noise(&[4], 4))],
        vec![],
    );
    let plan = without(&net.model_of(), "w1[0]", 5);
    let model = net.done();
    let done = fitted(&model, &plan);
    let (before, after) = (off(&model, &plan), off(&model, &done.plan));
    assert!(before > 0.05 && after < 0.01 * before, "{before} {after}");
}

impl Net {
    /// The model as it would be done.
    fn model_of(&self) -> Model {
        Net {
            model: self.model.clone(),
            at: self.at,
        }
        .done()
    }
}

/// `x + f(x)` where `f` is two convolutions, the channels of `x` made by a convolution; with `f(x)` times `share`.
fn residual(share: f64) -> Model {
    let mut net = Net::new();
    net.node("Conv", vec![("w1", summing(&[6, 1, 3, 3], 1, SIXTH))], vec![]);
    let x = net.at;
    net.node("Conv", vec![("w2", noise(&[8, 6, 1, 1], 3))], vec![]);
    net.node("Relu", vec![], vec![]);
    let scaled = summing(&[6, 8, 1, 1], 5, SIXTH).floats().unwrap();
    let scaled = scaled.into_iter().map(|x| (x * share) as f32).collect();
    let last = vec![("w3", Tensor::of(&[6, 8, 1, 1], scaled)), ("b3", noise(&[6], 11))];
    net.node("Conv", last, vec![]);
    let (made, g) = (net.at, &mut net.model.graph);
    net.at = g.value("sum");
    g.node(Node::new("Add", vec![Some(x), Some(made)], vec![Some(net.at)]));
    net.node(
        "Conv",
        vec![("w4", noise(&[4, 6, 1, 1], 7)), ("b4", noise(&[4], 8))],
        vec![],
    );
    net.flat()
}

#[test]
fn a_residual_stream_is_cut_in_all_layers() {
    let model = residual(1.0);
    let plan = without(&model, "w1[0]", 5);
    let done = fitted(&model, &plan);
    assert_eq!((done.fitted, done.other), (3, 0));
    // The bias of the sum's last channel is no sum: the last layer's own makes up for it.
    assert!(off(&model, &plan) > 0.05 && off(&model, &done.plan) < 1e-5);
}

#[test]
fn what_a_block_lacks_is_fitted_with_what_goes_round_it() {
    // A block loses a neuron that nothing makes up for; a second block can only mend the sum if it is shown it.
    let model = residual(1.0);
    let plan = Plan(vec![Change::Bypass(Bypass {
        sum: "sum".into(),
        stays: 0,
    })]);
    let done = fitted(&model, &plan);
    assert_eq!((done.fitted, done.other), (1, 0));
    let (before, after) = (off(&model, &plan), off(&model, &done.plan));
    assert!(after < 0.8 * before, "{before} {after}");
}

/// Layers with Relus between, a normalisation behind the second.
fn deep() -> Model {
    let mut net = Net::new();
    net.node(
        "Conv",
        vec![("w1", noise(&[12, 1, 3, 3], 1)), ("b1", noise(&[12], 2))],
        vec![],
    );
    net.node("Relu", vec![], vec![]);
    net.node("Conv", vec![("w2", noise(&[12, 12, 3, 3], 3))], vec![]);
    let ones = |x: f32| Tensor::of(&[12], vec![x; 12]);
    let norm = vec![
        ("scale", ones(1.5)),
        ("shift", ones(0.2)),
        ("mean", ones(0.1)),
        ("variance", ones(2.0)),
    ];
    net.node("BatchNormalization", norm, vec![]);
    net.node("Relu", vec![], vec![]);
    net.node("Flatten", vec![], vec![]);
    net.node(
        "Gemm",
        vec![("w3", noise(&[192, 20], 5)), ("b3", noise(&[20], 6))],
        vec![],
    );
    net.node("Relu", vec![], vec![]);
    net.node("MatMul", vec![("w4", noise(&[20, 10], 7))], vec![]);
    net.node("Add", vec![("b4", noise(&[10], 8))], vec![]);
    net.done()
}

/// A third of each group of `model` goes.
fn thirds(model: &Model) -> Plan {
    let found = groups(model, &Sizes::new()).unwrap();
    let keep = |g: &crate::Group| Keep {
        group: g.name.clone(),
        size: g.size,
        keep: (0..g.size).filter(|i| i % 3 != 1).collect(),
    };
    Plan(vec![Change::Narrow(Narrow {
        sizes: Sizes::new(),
        groups: found.groups.iter().map(keep).collect(),
    })])
}

#[test]
fn layers_follow_what_those_before_them_make() {
    let model = deep();
    let plan = thirds(&model);
    let done = fitted(&model, &plan);
    assert_eq!((done.fitted, done.other), (3, 0));
    let (before, after) = (off(&model, &plan), off(&model, &done.plan));
    assert!(after < 0.5 * before, "{before} {after}");
    // The mean of the normalisation took the place of the bias that the convolution lacks.
    let replaced = |c: &Change| matches!(c, Change::Replace(_)).then(|| c.value().to_owned());
    let names: Vec<_> = done.plan.0.iter().filter_map(replaced).collect();
    let expected = ["w2", "mean", "w3", "b3", "w4", "b4"];
    assert!(
        expected.iter().all(|n| names.contains(&n.to_string())) && names.len() == 6,
        "{names:?}"
    );
}

#[test]
fn the_first_layer_is_no_worse_on_what_it_was_fitted_to() {
    let model = deep();
    let plan = thirds(&model);
    let done = fitted(&model, &plan);
    let tapped = |plan: &Plan| {
        let mut less = model.clone();
        apply(plan, &mut less).unwrap();
        less.graph.outputs.clear();
        let v = less.graph.find("BatchNormalization_out").unwrap();
        less.graph.output(v, None);
        less
    };
    let whole = tapped(&Plan::default());
    let seen = |m: &Model| -> Vec<f64> {
        let session = secateur_engine::Session::builder(m).build().unwrap();
        let batches = calibration(&Arc::default()).batches().unwrap();
        let run = |b: &Vec<(String, Tensor)>| {
            let made = session.run(b.iter().map(|(n, x)| (n, x))).unwrap();
            made.into_first().unwrap()
        };
        // Of each image the channels that stay.
        let kept = |t: Tensor| -> Vec<f64> {
            let (n, x) = (t.dims()[1], t.floats().unwrap());
            let channel = |i: usize| i / 16 % n;
            let stays = |i: &usize| n < 12 || channel(*i) % 3 != 1;
            (0..x.len()).filter(stays).map(|i| x[i]).collect()
        };
        batches.iter().flat_map(|b| kept(run(b))).collect()
    };
    let was = seen(&whole);
    let apart = |plan: &Plan| {
        let is = seen(&tapped(plan));
        assert_eq!(is.len(), was.len());
        is.iter().zip(&was).map(|(a, b)| (a - b).powi(2)).sum::<f64>()
    };
    let (before, after) = (apart(&plan), apart(&done.plan));
    assert!(after < 0.7 * before, "{before} {after}");
}

#[test]
fn threads_and_room_change_nothing() {
    let model = deep();
    let plan = thirds(&model);
    let rates = Arc::default();
    let once = fitted(&model, &plan);
    let threads = Calibration {
        threads: 3,
        ..calibration(&rates)
    };
    assert!(refit(&model, &plan, &threads, &()).unwrap() == once);
    assert!(within(0, (&model, &plan), &calibration(&rates), &()).unwrap() == once);
}

#[test]
fn heads_are_made_up_for_by_their_like() {
    let (heads, width, n) = (3usize, 2usize, 8usize);
    // The last head is as the one before it; what is behind tells them apart.
    let twin = |seed| {
        let mut x = noise(&[n, heads * width], seed).floats().unwrap();
        for row in x.chunks_exact_mut(heads * width) {
            row.copy_within(width..2 * width, 2 * width);
        }
        Tensor::of(&[n, heads * width], x.into_iter().map(|x| x as f32).collect())
    };
    let mut net = Net::new();
    let shape = |x: &[i64]| Tensor::of(&[x.len()], x.to_vec());
    net.node("Reshape", vec![("rows", shape(&[-1, 8, 8]))], vec![]);
    let x = net.at;
    let mut parts = vec![];
    for (i, perm) in [[0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]].iter().enumerate() {
        net.at = x;
        let (w, s) = (format!("w{i}"), format!("shape{i}"));
        net.node("MatMul", vec![(&w, twin(i * 31))], vec![]);
        net.node(
            "Reshape",
            vec![(&s, shape(&[0, 0, heads as i64, width as i64]))],
            vec![],
        );
        net.with("Transpose", vec![], vec![("perm", ints(perm))]);
        parts.push(net.at);
    }
    let product = |net: &mut Net, a, b| {
        let g = &mut net.model.graph;
        let y = g.value(g.fresh("product"));
        g.node(Node::new("MatMul", vec![Some(a), Some(b)], vec![Some(y)]));
        net.at = y;
    };
    product(&mut net, parts[0], parts[1]);
    net.node("Softmax", vec![], vec![]);
    let scores = net.at;
    product(&mut net, scores, parts[2]);
    net.with("Transpose", vec![], vec![("perm", ints(&[0, 2, 1, 3]))]);
    net.node(
        "Reshape",
        vec![("joined", shape(&[0, 0, (heads * width) as i64]))],
        vec![],
    );
    net.node("MatMul", vec![("out", noise(&[heads * width, n], 99))], vec![]);
    made_up(&net.done(), ("w0[1].0", 2), 1);
}

#[test]
fn what_cannot_be_fitted_is_counted_and_stays() {
    let build = |w2: Tensor, shared: bool| {
        let mut net = Net::new();
        net.node("Flatten", vec![], vec![]);
        net.node("MatMul", vec![("w1", summing_columns([64, 6], 1, SIXTH))], vec![]);
        let x = net.at;
        net.node("MatMul", vec![("w2", w2)], vec![]);
        if shared {
            let (first, g) = (net.at, &mut net.model.graph);
            let w = g.find("w2").unwrap();
            let [twice, y, sum] = ["twice", "y", "sum"].map(|n| g.value(n));
            g.node(Node::new("Relu", vec![Some(x)], vec![Some(twice)]));
            g.node(Node::new("MatMul", vec![Some(twice), Some(w)], vec![Some(y)]));
            g.node(Node::new("Add", vec![Some(first), Some(y)], vec![Some(sum)]));
            net.at = sum;
        }
        net.done()
    };
    let mut broken = noise(&[6, 4], 3).floats().unwrap();
    broken[3] = f64::NAN;
    let broken = Tensor::of(&[6, 4], broken.into_iter().map(|x| x as f32).collect());
    for model in [build(broken, false), build(noise(&[6, 4], 3), true)] {
        let plan = without(&model, "w1[1]", 5);
        let done = fitted(&model, &plan);
        assert_eq!((done.fitted, done.other), (0, 1));
        assert_eq!(done.plan, plan);
    }
}

#[test]
fn nothing_is_fitted_where_nothing_is_cut() {
    let model = deep();
    let done = fitted(&model, &Plan::default());
    assert_eq!(done, Refitted::default());
}

#[test]
fn zeros_and_examples_that_do_not_fit_are_refused() {
    let model = deep();
    let zeros = Plan(vec![Change::Mask(Mask {
        value: "w1".into(),
        elements: 108,
        tiles: None,
        cut: Cut::Small {
            threshold: 0.1,
            ties: 0,
        },
    })]);
    let rates = Arc::default();
    let refused = |model: &Model, plan: &Plan| {
        let done = refit(model, plan, &calibration(&rates), &());
        done.unwrap_err().to_string()
    };
    let error = refused(&model, &zeros);
    assert!(error.contains("\"w1\"") && error.contains("sparsegpt"), "{error}");
    let mut other = deep();
    let x = other.graph.find("x").unwrap();
    other.graph[x].name = "y".into();
    let plan = thirds(&other);
    let error = refused(&other, &plan);
    assert!(error.contains("\"y\""), "{error}");
}

#[test]
fn what_is_made_of_constants_alone_is_left() {
    // A small network over a table, as of relative positions, is added to what the model makes of its input.
    let mut net = Net::new();
    net.node("Flatten", vec![], vec![]);
    net.node("MatMul", vec![("w", noise(&[64, 4], 1))], vec![]);
    let main = net.at;
    let g = &mut net.model.graph;
    let table = g.constant("table", noise(&[1, 3], 5));
    net.at = table;
    net.node("MatMul", vec![("w1", noise(&[3, 8], 7))], vec![]);
    net.node("Relu", vec![], vec![]);
    net.node("MatMul", vec![("w2", noise(&[8, 4], 9))], vec![]);
    let g = &mut net.model.graph;
    let sum = g.value("sum");
    g.node(Node::new("Add", vec![Some(main), Some(net.at)], vec![Some(sum)]));
    net.at = sum;
    let model = net.done();
    let plan = without(&model, "w1[1]", 3);
    let done = fitted(&model, &plan);
    assert_eq!((done.fitted, &done.plan), (0, &plan));
    assert!(done.other > 0);
}
