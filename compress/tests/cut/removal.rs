//! Neurons that do nothing, and the examples of structured pruning.

use secateur_compress::groups::{Group, Sizes, squares};
use secateur_compress::{Change, Keep, Narrow, Plan, apply, blocks, groups, least};
use secateur_engine::ir::ValueId;
use secateur_engine::{Model, Tensor};

use super::sketch::{ALL, Sketch, agrees, cut, defined, int, list, outputs, to_70};

/// 5 inputs, 4 neurons, 4 outputs: what the weights say is cut. `bias` is that of the neurons, `w` [4, 5] has row `dead` zero.
fn net(dead: usize, bias: f32) -> Model {
    let mut s = Sketch::new(11);
    let x = s.input("x", &[3, 5]);
    let mut w = s.tensor(&[4, 5]).floats().unwrap();
    w[dead * 5..][..5].fill(0.0);
    let w = s.constant(
        "w",
        Tensor::rounded(secateur_engine::ir::DType::F32, &[4, 5], &w).unwrap(),
    );
    let mut b = vec![0.3f32; 4];
    b[dead] = bias;
    let b = s.constant("b", Tensor::of(&[4], b));
    let y = s.op("Gemm", &[x, w, b], &[("transB", int(1))]);
    let y = s.op("Relu", &[y], &[]);
    let (w, b) = (s.weight(&[4, 4]), s.weight(&[4]));
    let y = s.op("Gemm", &[y, w, b], &[]);
    s.done(&[y])
}

fn without(g: &Group, gone: usize) -> Narrow {
    let keep = (0..g.size).filter(|&i| i != gone).collect();
    let (group, size) = (g.name.clone(), g.size);
    Narrow {
        sizes: Sizes::new(),
        groups: vec![Keep { group, size, keep }],
    }
}

fn dims(model: &Model) -> Vec<Vec<usize>> {
    let g = &model.graph;
    g.initializers
        .iter()
        .map(|v| g[*v].konst.as_ref().unwrap().tensor.dims().to_vec())
        .collect()
}

/// E6, E7: a neuron that is 0 whatever comes in, by its weights or because it is never above 0, goes without a change of a bit.
#[test]
fn a_dead_neuron_goes_without_a_trace() {
    for bias in [0.0, -0.5] {
        let model = net(2, bias);
        let found = groups(&model, &Sizes::new()).unwrap();
        let [group] = &found.groups[..] else {
            panic!("{found:?}")
        };
        let new = cut(&model, &without(group, 2));
        assert_eq!(defined(&model), defined(&new));
    }
    let scores = groups(&net(2, 0.0), &Sizes::new()).unwrap().scores(&|name, t| {
        (name.starts_with('w') && t.dims() == [4, 5])
            .then(|| t.floats().unwrap_or_default().iter().map(|x| x * x).collect())
    });
    let least = scores[0]
        .iter()
        .enumerate()
        .min_by(|a, b| a.1.total_cmp(b.1))
        .unwrap()
        .0;
    assert_eq!((least, scores[0][2]), (2, 0.0), "it is ranked first");
}

/// E10: W of 4 neurons by 5 inputs loses a row, its bias an entry, the next W a row; both are dense.
#[test]
fn a_neuron_goes_with_all_that_hangs_on_it() {
    let mut s = Sketch::new(12);
    let x = s.input("x", &[3, 4]);
    let (w, b) = (s.weight(&[4, 5]), s.weight(&[5]));
    let y = s.op("Gemm", &[x, w, b], &[]);
    let y = s.op("Tanh", &[y], &[]);
    let w = s.weight(&[5, 3]);
    let y = s.op("MatMul", &[y, w], &[]);
    let model = s.done(&[y]);
    let found = groups(&model, &Sizes::new()).unwrap();
    let new = cut(&model, &without(&found.groups[0], 2));
    assert_eq!(dims(&model), [vec![4, 5], vec![5], vec![5, 3]]);
    assert_eq!(
        dims(&new),
        [vec![4, 4], vec![4], vec![4, 3]],
        "20 weights become 16"
    );
    let how = secateur_compress::groups::Shrink {
        share: 0.2,
        ..to_70(&ALL)
    };
    agrees("4 × 5", &model, &how, &Sizes::new());
}

/// J9: a channel of a block of dense connections is gone from every normalisation and convolution behind it.
#[test]
fn a_channel_goes_from_all_later_layers_of_a_dense_block() {
    let mut s = Sketch::new(13);
    let x = s.input("x", &[1, 3, 4, 4]);
    let w = s.weight(&[16, 3, 3, 3]);
    let pads = ("pads", list(&[1, 1, 1, 1]));
    let mut all = s.op("Conv", &[x, w], std::slice::from_ref(&pads));
    let mut channels = 16;
    for _ in 0..4 {
        let one = s.constant("var", Tensor::of(&[channels], vec![1f32; channels]));
        let inputs: Vec<ValueId> = [all]
            .into_iter()
            .chain((0..3).map(|_| s.weight(&[channels])))
            .chain([one])
            .collect();
        let y = s.op("BatchNormalization", &inputs, &[]);
        let y = s.op("Relu", &[y], &[]);
        let w = s.weight(&[12, channels, 3, 3]);
        let y = s.op("Conv", &[y, w], std::slice::from_ref(&pads));
        all = s.op("Concat", &[all, y], &[("axis", int(1))]);
        channels += 12;
    }
    let w = s.weight(&[2, 64, 1, 1]);
    let y = s.op("Conv", &[all, w], &[]);
    let model = s.done(&[y]);
    let found = groups(&model, &Sizes::new()).unwrap();
    let sizes: Vec<usize> = found.groups.iter().map(|g| g.size).collect();
    assert_eq!(sizes, [16, 12, 12, 12, 12]);
    // The first layer's channels: its own filters, four normalisations of four constants, five convolutions.
    assert_eq!(found.groups[0].axes.len(), 1 + 4 * 4 + 5);
    let new = cut(&model, &without(&found.groups[1], 5));
    let inputs: Vec<usize> = dims(&new).iter().filter(|d| d.len() == 4).map(|d| d[1]).collect();
    assert_eq!(inputs, [3, 16, 27, 39, 51, 63]);
    agrees("dense block", &model, &to_70(&ALL), &Sizes::new());
}

/// J13: a hidden neuron of a position-wise layer has one producer and one consumer.
#[test]
fn a_hidden_neuron_of_a_position_wise_layer_goes_alone() {
    let mut s = Sketch::new(14);
    let x = s.input("x", &[1, 5, 8]);
    let (w, b) = (s.weight(&[8, 32]), s.weight(&[32]));
    let y = s.op("MatMul", &[x, w], &[]);
    let y = s.op("Add", &[y, b], &[]);
    let half = s.constant("half", Tensor::scalar(0.5f32));
    let e = s.op("Erf", &[y], &[]);
    let e = s.op("Mul", &[e, y], &[]);
    let y = s.op("Add", &[e, y], &[]);
    let y = s.op("Mul", &[y, half], &[]);
    let w = s.weight(&[32, 8]);
    let y = s.op("MatMul", &[y, w], &[]);
    let y = s.op("Add", &[y, x], &[]);
    let model = s.done(&[y]);
    let found = groups(&model, &Sizes::new()).unwrap();
    let [group] = &found.groups[..] else {
        panic!("{found:?}")
    };
    assert_eq!((group.size, group.axes.len()), (32, 3));
    agrees("position-wise", &model, &to_70(&ALL), &Sizes::new());
}

/// E35: an input of queries whose weights are next to zero changes the scores by no more than they allow.
#[test]
fn an_input_of_next_to_no_weight_moves_scores_little() {
    let mut s = Sketch::new(15);
    let x = s.input("x", &[1, 6, 4]);
    let w = s.weight(&[4, 8]);
    let a = s.op("MatMul", &[x, w], &[]);
    let (tau, gone) = (1e-4, 3);
    let mut q = s.tensor(&[8, 5]).floats().unwrap();
    let norm = q[gone * 5..][..5].iter().map(|x| x * x).sum::<f64>().sqrt();
    q[gone * 5..][..5].iter_mut().for_each(|x| *x *= tau / norm);
    let q = s.constant(
        "q",
        Tensor::rounded(secateur_engine::ir::DType::F32, &[8, 5], &q).unwrap(),
    );
    let k = s.input("k", &[1, 5, 6]);
    let query = s.op("MatMul", &[a, q], &[]);
    let scores = s.op("MatMul", &[query, k], &[]);
    let model = s.done(&[scores, a]);
    // `a` is an output so that it can be measured; without it its axis can be cut.
    let out = outputs(&model, &Sizes::new());
    let mut free = model.clone();
    free.graph.outputs.pop();
    let found = groups(&free, &Sizes::new()).unwrap();
    let rows = found.scores(&|name, t| {
        name.starts_with('q')
            .then(|| t.floats().unwrap_or_default().iter().map(|x| x * x).collect())
    });
    let group = found.groups.iter().position(|g| g.size == 8).unwrap();
    let least = rows[group]
        .iter()
        .enumerate()
        .min_by(|a, b| a.1.total_cmp(b.1))
        .unwrap()
        .0;
    assert_eq!(least, gone);
    let new = outputs(&cut(&free, &without(&found.groups[group], gone)), &Sizes::new());
    let k = super::sketch::fed(&free, "k");
    let most_k = (0..6)
        .map(|j| (0..5).map(|i| k[i * 6 + j].powi(2)).sum::<f64>().sqrt())
        .fold(0.0, f64::max);
    for (i, (before, after)) in out[0].iter().zip(&new[0]).enumerate() {
        let a = out[1][i / 6 * 8 + gone].abs();
        assert!((before - after).abs() <= tau * a * most_k + 1e-6, "score {i}");
    }
    assert_eq!(found.scores(&squares).len(), found.groups.len());
}

/// C5: a residual block whose last convolution and shift are zero is no more than its input: it goes, and no bit changes.
#[test]
fn a_block_that_was_driven_to_zero_is_deleted() {
    let mut s = Sketch::new(16);
    let x = s.input("x", &[1, 4, 5, 5]);
    let mut at = x;
    for dead in [false, true, false] {
        let conv = |s: &mut Sketch, x, zero: bool| {
            let w = match zero {
                true => s.constant("zero", Tensor::of(&[4, 4, 3, 3], vec![0f32; 144])),
                false => s.weight(&[4, 4, 3, 3]),
            };
            let y = s.op("Conv", &[x, w], &[("pads", list(&[1, 1, 1, 1]))]);
            let [scale, shift, mean, var] = [1f32, if zero { 0.0 } else { 0.2 }, 0.0, 1.0]
                .map(|v| s.constant("bn", Tensor::of(&[4], vec![v; 4])));
            s.op("BatchNormalization", &[y, scale, shift, mean, var], &[])
        };
        let y = conv(&mut s, at, false);
        let y = s.op("Relu", &[y], &[]);
        let y = conv(&mut s, y, dead);
        at = s.op("Add", &[at, y], &[]);
    }
    let model = s.done(&[at]);
    let mut new = model.clone();
    secateur_engine::opt::optimize(&mut new, secateur_engine::opt::Scope::Portable).unwrap();
    let adds = |m: &Model| m.graph.iter().filter(|(_, n)| n.is("Add")).count();
    assert_eq!((adds(&model), adds(&new)), (3, 2));
    // The same block is found by its score, and its removal changes no bit.
    let found = blocks(&model, &Sizes::new()).unwrap();
    assert_eq!(
        (found.len(), found[1].nodes.len(), found[1].parameters),
        (3, 5, 2 * 160 + 16 - 16)
    );
    let plan = Plan(least(&found, 0.34).into_iter().map(Change::Bypass).collect());
    assert_eq!(plan, Plan(vec![Change::Bypass(found[1].bypass())]));
    let mut less = model.clone();
    apply(&plan, &mut less).unwrap();
    assert_eq!(outputs(&model, &Sizes::new()), outputs(&less, &Sizes::new()));
    assert_eq!(
        (adds(&less), less.graph.order.len()),
        (2, model.graph.order.len() - 6)
    );
    // The last one makes an output.
    let mut last = model.clone();
    apply(&Plan(vec![Change::Bypass(found[2].bypass())]), &mut last).unwrap();
    assert_eq!(outputs(&last, &Sizes::new()).len(), 1);
    let again = apply(&plan, &mut less).unwrap_err();
    assert!(again.to_string().contains("no sum"), "{again}");
    assert!(new.graph.order.len() < model.graph.order.len());
}
