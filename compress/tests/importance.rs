//! Importance methods on small models whose numbers are known.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should end there")]

use secateur_compress::math::chance::uniform;
use secateur_compress::math::layout::Layout;
use secateur_compress::{
    Amount, Choice, Effort, Examples, Goal, Need, Pattern, Plan, Run, Scope, Stats, Task, Weight, apply,
    methods, observe, weights,
};
use secateur_engine::ir::{Attr, AttrValue, DType, Model, Node, Opset, Type, ValueId};
use secateur_engine::run::Builder;
use secateur_engine::{Session, Tensor};
use secateur_train::loss::{BinaryCrossEntropy, Distance};
use secateur_train::optim::optimizer;
use secateur_train::{Group, Loss, Spec, Term, step};

/// A model with one input `x` and one output.
fn model(dims: &[usize], build: impl FnOnce(&mut Model, ValueId) -> ValueId) -> Model {
    let opset = Opset {
        domain: None,
        version: Some(21),
        extra: Default::default(),
    };
    let mut model = Model {
        opsets: vec![opset],
        ..Model::default()
    };
    let x = model
        .graph
        .input("x", Type::tensor(DType::F32, dims.iter().copied()));
    let y = build(&mut model, x);
    model.graph.output(y, None);
    model
}

fn node(m: &mut Model, op: &str, inputs: &[ValueId], name: &str, attrs: Vec<Attr>) -> ValueId {
    let y = m.graph.value(name);
    let mut node = Node::new(op, inputs.iter().map(|v| Some(*v)).collect(), vec![Some(y)]);
    node.attrs = attrs;
    m.graph.node(node);
    y
}

fn floats(dims: &[usize], x: &[f32]) -> Tensor {
    Tensor::of(dims, x.to_vec())
}

fn noise(dims: &[usize], seed: u64) -> Tensor {
    let n: usize = dims.iter().product();
    let x = |i| uniform(seed, "noise", i) as f32 - 0.4;
    Tensor::of(dims, (0..n as u64).map(x).collect())
}

fn run(x: Tensor, labels: Option<Tensor>) -> Run {
    let inputs = vec![("x".into(), x)];
    Run { inputs, labels }
}

fn seen(m: &Model, all: &[Weight], needs: &[Need], runs: &[Run], loss: Option<&dyn Loss>) -> Stats {
    let of = ["y", "label"];
    let term = |loss| Term {
        loss,
        of: &of,
        weight: 1.0,
    };
    let examples = Examples {
        runs,
        task: loss.map(term),
        seed: 1,
        effort: Effort::default(),
    };
    let pruned: Vec<&Weight> = all.iter().filter(|w| w.exempt.is_none()).collect();
    observe(m, &pruned, needs, &examples).unwrap()
}

fn task<'a>(m: &'a Model, all: &'a [Weight], scope: Scope, (share, pattern): (f64, Pattern)) -> Task<'a> {
    let goal = Goal {
        amount: Amount::Sparsity(share),
        scope,
        pattern,
    };
    Task {
        model: m,
        weights: all,
        goal,
        effort: Effort::default(),
    }
}

fn decide(m: &Model, all: &[Weight], name: &str, goal: (f64, Pattern), stats: &Stats) -> Plan {
    let method = methods::find(name).unwrap();
    method.decide(&task(m, all, method.scope(), goal), stats).unwrap()
}

fn pruned(m: &Model, all: &[Weight], name: &str, goal: (f64, Pattern), stats: &Stats) -> Model {
    let mut new = m.clone();
    apply(&decide(m, all, name, goal, stats), &mut new).unwrap();
    new
}

fn scores(m: &Model, all: &[Weight], name: &str, stats: &Stats) -> Vec<f32> {
    let weight = all.iter().find(|w| w.exempt.is_none()).unwrap();
    methods::find(name).unwrap().scores(m, weight, stats).unwrap()
}

fn elements(m: &Model, name: &str) -> Vec<f64> {
    let g = &m.graph;
    g.konst(g.find(name).unwrap()).unwrap().floats().unwrap()
}

fn zeros(m: &Model, name: &str) -> Vec<bool> {
    elements(m, name).iter().map(|x| *x == 0.0).collect()
}

fn output(m: &Model, x: &Tensor) -> Vec<f64> {
    ran(Session::builder(m).threads(1), x)
}

fn ran(builder: Builder, x: &Tensor) -> Vec<f64> {
    let session = builder.build().unwrap();
    let outputs = session.run([("x", x)]).unwrap();
    outputs.into_first().unwrap().floats().unwrap()
}

/// Rows E6 and E7: of two layers, neuron 1 of the first is 0 on all examples.
#[test]
fn a_dead_neuron_is_ranked_first_and_its_removal_changes_nothing() {
    let m = model(&[1, 3], |m, x| {
        let first = [0.5, -0.1, 0.3, -0.7, 0.2, -0.3, -0.4, 0.6, 0.9, -0.2, 0.8, 0.1f32];
        let w1 = m.graph.constant("w1", floats(&[3, 4], &first));
        let b = m.graph.constant("b", floats(&[4], &[0.1, -0.5, 0.0, 0.2]));
        let w2 = m.graph.constant("w2", noise(&[4, 2], 3));
        let h = node(m, "MatMul", &[x, w1], "h", vec![]);
        let h = node(m, "Add", &[h, b], "hb", vec![]);
        let h = node(m, "Relu", &[h], "a", vec![]);
        node(m, "MatMul", &[h, w2], "y", vec![])
    });
    let example = |i| run(floats(&[1, 3], &[i as f32 / 20.0, 0.5, 1.0]), None);
    let runs: Vec<Run> = (0..20).map(example).collect();
    let mut all = weights(&m);
    let choice = Choice {
        keep: vec!["w1".into()],
        include: vec![],
    };
    choice.mark(&mut all).unwrap();
    let stats = seen(&m, &all, &[Need::Inputs], &runs, None);
    let inputs = stats.seen["w2"].inputs.as_ref().unwrap();
    assert_eq!((inputs.mean[1], inputs.zeros[1], inputs.rows), (0.0, 1.0, 20));
    assert!(
        [0, 2, 3]
            .iter()
            .all(|&i| inputs.mean[i] > 0.0 && inputs.zeros[i] < 1.0)
    );
    // Kernels for zeros add up in another order.
    let exact = |m: &Model, x: &Tensor| ran(Session::builder(m).reference(), x);
    let outputs = |m: &Model| -> Vec<_> { runs.iter().map(|r| exact(m, &r.inputs[0].1)).collect() };
    for name in ["activation", "apoz"] {
        let new = pruned(&m, &all, name, (0.25, Pattern::Column), &stats);
        assert_eq!(
            zeros(&new, "w2"),
            [false, false, true, true, false, false, false, false],
            "{name}"
        );
        assert_eq!(outputs(&m), outputs(&new), "{name}");
        // By one weight at a time nothing can be said.
        let single = task(&m, &all, Scope::Global, (0.5, Pattern::Unstructured));
        let error = methods::find(name).unwrap().decide(&single, &stats).unwrap_err();
        assert!(error.to_string().contains("--pattern column"), "{error}");
    }
}

fn linear(w: &[f32]) -> Model {
    model(&[1, w.len()], |m, x| {
        let w = m.graph.constant("w", floats(&[w.len(), 1], w));
        node(m, "MatMul", &[x, w], "y", vec![])
    })
}

const HALF: (f64, Pattern) = (0.5, Pattern::Unstructured);

/// Row E12: L = ½·300 (w₁ - 0.1)² + ½·0.5 (w₂ - 1)² at its minimum.
#[test]
fn brain_damage_is_the_loss_where_it_is_quadratic() {
    let m = linear(&[0.1, 1.0]);
    let x = [[600f32.sqrt(), 0.0], [0.0, 1.0]];
    let target = |x: [f32; 2]| floats(&[1, 1], &[0.1 * x[0] + x[1]]);
    let runs = x.map(|x| run(floats(&[1, 2], &x), Some(target(x))));
    let all = weights(&m);
    let needs = [Need::Products, Need::Curvature];
    let stats = seen(&m, &all, &needs, &runs, Some(&Distance::Mse));
    let s = scores(&m, &all, "obd", &stats);
    assert!((s[0] - 1.5).abs() < 1e-5 && (s[1] - 0.25).abs() < 1e-6, "{s:?}");
    let left = |name| elements(&pruned(&m, &all, name, HALF, &stats), "w");
    let loss = |w: &[f64]| {
        let error = |x: &[f32; 2]| (w[0] - 0.1) * f64::from(x[0]) + (w[1] - 1.0) * f64::from(x[1]);
        x.iter().map(|x| 0.5 * error(x).powi(2)).sum::<f64>() / 2.0
    };
    let obd = left("obd");
    assert!(obd[0] != 0.0 && obd[1] == 0.0);
    assert!((loss(&obd) - 0.25).abs() < 1e-6, "as the score says");
    let small = left("magnitude");
    assert!(small[0] == 0.0 && (loss(&small) - 1.5).abs() < 1e-5);
    let surgeon = left("sparsegpt");
    assert!(
        surgeon[1] == 0.0 && (surgeon[0] - 0.1).abs() < 1e-6,
        "nothing makes up for it: {surgeon:?}"
    );
}

/// Row E13: a logistic unit of which one input is always 0.
#[test]
fn fisher_information_of_an_input_that_is_0_is_0() {
    let m = linear(&[0.8, 1e-3, -0.5]);
    let example = |i: usize| {
        let x = [i as f32 / 6.0 - 1.0, 0.3, 0.0];
        run(floats(&[1, 3], &x), Some(floats(&[1, 1], &[(i % 2) as f32])))
    };
    let runs: Vec<Run> = (0..12).map(example).collect();
    let all = weights(&m);
    let needs = [Need::Gradients, Need::Squares];
    let stats = seen(&m, &all, &needs, &runs, Some(&BinaryCrossEntropy));
    let (mut squares, mut first) = ([0.0; 3], [0.0; 3]);
    for (i, r) in runs.iter().enumerate() {
        let x = r.inputs[0].1.floats().unwrap();
        let p = 1.0 / (1.0 + (-(0.8 * x[0] + 1e-3 * x[1])).exp());
        for k in 0..3 {
            let g = (p - (i % 2) as f64) * x[k];
            squares[k] += g * g / 12.0;
            first[k] += g.abs() / 12.0;
        }
    }
    let near = |a: &[f32], b: [f64; 3]| a.iter().zip(b).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-6);
    let w = &stats.seen["w"];
    assert!(near(w.squares.as_ref().unwrap(), squares) && near(w.gradients.as_ref().unwrap(), first));
    for name in ["fisher", "taylor"] {
        let new = pruned(&m, &all, name, (0.34, Pattern::Unstructured), &stats);
        assert_eq!(zeros(&new, "w"), [false, false, true], "{name}");
    }
}

#[test]
fn without_labels_fisher_information_is_that_of_the_model_itself() {
    // Of y = x · w with noise of variance 1 it is the mean of x².
    let m = linear(&[0.5, 0.25]);
    let runs: Vec<Run> = (0..2000)
        .map(|_| run(floats(&[1, 2], &[2.0, 0.5]), None))
        .collect();
    let all = weights(&m);
    let stats = seen(&m, &all, &[Need::Squares, Need::Curvature], &runs, None);
    let w = &stats.seen["w"];
    let squares = w.squares.as_ref().unwrap();
    assert!(
        (squares[0] - 4.0).abs() < 0.6 && (squares[1] - 0.25).abs() < 0.04,
        "{squares:?}"
    );
    assert_eq!(w.curvature.as_ref().unwrap(), &[4.0, 0.25]);
}

#[test]
fn movement_is_minus_weight_times_gradient() {
    let m = linear(&[0.5, -1.0]);
    let example = |x: [f32; 2], y| run(floats(&[1, 2], &x), Some(floats(&[1, 1], &[y])));
    let runs = [example([1.0, 0.0], 2.0), example([0.0, 1.0], 0.0)];
    let all = weights(&m);
    let stats = seen(&m, &all, &[Need::Motion], &runs, Some(&Distance::Mse));
    let motion = stats.seen["w"].motion.clone().unwrap();
    // Gradients 2 (0.5 - 2) = -3 and 2 (-1 - 0) = -2.
    assert!(
        (motion[0] - 1.5).abs() < 1e-4 && (motion[1] + 2.0).abs() < 1e-4,
        "{motion:?}"
    );
    let s = scores(&m, &all, "movement", &stats);
    assert!(
        s[1] == 0.0 && (s[0] - 3.5).abs() < 1e-4,
        "what moves towards zero goes first: {s:?}"
    );
}

#[test]
fn wanda_is_magnitude_times_length_of_input() {
    let m = linear(&[1.0, -0.5, 0.2]);
    let runs = [[0.1, 1.0, 3.0], [0.1, -1.0, 4.0]].map(|x| run(floats(&[1, 3], &x), None));
    let all = weights(&m);
    let stats = seen(&m, &all, &[Need::Inputs], &runs, None);
    let s = scores(&m, &all, "wanda", &stats);
    let expected = [0.1, 0.5, 0.2 * 12.5f32.sqrt()];
    assert!(s.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{s:?}");
}

#[test]
fn outputs_are_ranked_by_the_scale_of_their_norm() {
    let m = model(&[1, 2, 4, 4], |m, x| {
        let w = m.graph.constant("w", noise(&[3, 2, 1, 1], 5));
        let [s, b, mean, var] = ["s", "b", "mean", "var"].map(|n| {
            let x = if n == "s" { [0.5, -0.1, 2.0] } else { [1.0; 3] };
            m.graph.constant(n, floats(&[3], &x))
        });
        let h = node(m, "Conv", &[x, w], "h", vec![]);
        let h = node(m, "BatchNormalization", &[h, s, b, mean, var], "n", vec![]);
        let w = m.graph.constant("last", noise(&[2, 3, 1, 1], 6));
        node(m, "Conv", &[h, w], "y", vec![])
    });
    let mut all = weights(&m);
    methods::mark(methods::find("bn-scale").unwrap(), &m, &mut all);
    let left: Vec<&str> = all
        .iter()
        .filter(|w| w.exempt.is_none())
        .map(|w| &*w.name)
        .collect();
    assert_eq!(left, ["w"]);
    let new = pruned(&m, &all, "bn-scale", (0.3, Pattern::Row), &Stats::default());
    assert_eq!(zeros(&new, "w"), [false, false, true, true, false, false]);
}

fn ints(name: &str, x: &[i64]) -> Attr {
    Attr::new(name, AttrValue::Ints(x.to_vec()))
}

fn int(name: &str, x: i64) -> Attr {
    Attr::new(name, AttrValue::Int(Some(x)))
}

fn text(name: &str, x: &str) -> Attr {
    Attr::new(name, AttrValue::Bytes(Some(x.into())))
}

/// Models of one weight `w`, and an input.
fn layers() -> Vec<(&'static str, Model, Tensor)> {
    let one = |op: &'static str, x: &[usize], w: &[usize], attrs: Vec<Attr>| {
        let left = w[0] == 4 && op != "Conv" && x.len() == 3;
        let m = model(x, |m, x| {
            let w = m.graph.constant("w", noise(w, 8));
            let inputs = if left { [w, x] } else { [x, w] };
            node(m, op, &inputs, "y", attrs)
        });
        (op, m, noise(x, 9))
    };
    let turned = model(&[3, 5], |m, x| {
        let w = m.graph.constant("w", noise(&[4, 5], 8));
        let w = node(m, "Transpose", &[w], "turned", vec![]);
        node(m, "MatMul", &[x, w], "y", vec![])
    });
    let before = model(&[3, 5], |m, x| {
        let w = m.graph.constant("w", noise(&[5, 4], 8));
        node(m, "Gemm", &[w, x], "y", vec![int("transA", 1), int("transB", 1)])
    });
    vec![
        one("MatMul", &[2, 3, 5], &[5, 4], vec![]),
        one("MatMul", &[2, 5, 3], &[4, 5], vec![]),
        one("Gemm", &[3, 5], &[5, 4], vec![]),
        one("Gemm", &[5, 3], &[4, 5], vec![int("transA", 1), int("transB", 1)]),
        one(
            "Conv",
            &[2, 4, 6, 5],
            &[3, 4, 3, 2],
            vec![ints("pads", &[1, 0, 0, 1])],
        ),
        one(
            "Conv",
            &[1, 4, 9, 9],
            &[6, 2, 3, 3],
            vec![
                int("group", 2),
                ints("strides", &[2, 3]),
                ints("dilations", &[2, 1]),
            ],
        ),
        one(
            "Conv",
            &[1, 4, 7],
            &[4, 1, 3],
            vec![
                int("group", 4),
                ints("strides", &[2]),
                text("auto_pad", "SAME_LOWER"),
            ],
        ),
        one(
            "Conv",
            &[1, 2, 8, 7],
            &[3, 2, 2, 4],
            vec![text("auto_pad", "SAME_UPPER")],
        ),
        ("Transpose", turned, noise(&[3, 5], 9)),
        ("Gemm from the left", before, noise(&[3, 5], 9)),
    ]
}

/// The sum of the squares of what a layer makes is a quadratic form of the products that are seen.
#[test]
fn products_are_those_of_what_each_weight_is_multiplied_by() {
    for (name, m, x) in layers() {
        let all = weights(&m);
        let stats = seen(&m, &all, &[Need::Products], &[run(x.clone(), None)], None);
        let seen = &stats.seen["w"];
        let layout = Layout::of(all[0].matrix.as_ref().unwrap());
        let (w, n) = (elements(&m, "w"), layout.columns);
        let mut rows = vec![0.0; w.len()];
        let cells = layout.cells().into_iter();
        cells.zip(&w).for_each(|(c, w)| rows[layout.place(c)] = *w);
        let h = &seen.products.as_ref().unwrap().0;
        let form = |(r, row): (usize, &[f64])| {
            let h = &h[r / layout.outputs * n * n..][..n * n];
            (0..n * n).map(|i| row[i / n] * h[i] * row[i % n]).sum::<f64>()
        };
        let made: f64 = rows.chunks(n).enumerate().map(form).sum();
        let expected: f64 = output(&m, &x).iter().map(|y| y * y).sum();
        assert!((made / expected - 1.0).abs() < 1e-5, "{name}: {made} {expected}");
        let squares = seen.inputs.as_ref().unwrap().squares.iter().enumerate();
        let own = |i: usize| h[i / n * n * n + i % n * (n + 1)];
        assert!(
            squares.into_iter().all(|(i, s)| (s - own(i)).abs() < 1e-4),
            "{name}"
        );
    }
}

#[test]
fn sparsegpt_changes_outputs_less_than_magnitude_on_every_layer() {
    for (name, m, x) in layers() {
        let (all, dims) = (weights(&m), x.dims().to_vec());
        // Inputs that go up and down together, as those of networks do.
        let example = |i: u64| {
            let all = uniform(i, "all", 0) as f32;
            let x = noise(x.dims(), 20 + i).floats().unwrap();
            let x: Vec<f32> = x.into_iter().map(|x| x as f32 + 3.0 * all).collect();
            run(Tensor::of(&dims, x), None)
        };
        let runs: Vec<Run> = (0..8).map(example).collect();
        let stats = seen(&m, &all, &[Need::Products], &runs, None);
        let error = |method: &str| {
            let new = pruned(&m, &all, method, HALF, &stats);
            let w = zeros(&new, "w");
            let count = w.iter().filter(|z| **z).count();
            assert_eq!(count, (w.len() as f64 * 0.5).round() as usize, "{name}: {method}");
            let of = |r: &Run| {
                let (a, b) = (output(&m, &r.inputs[0].1), output(&new, &r.inputs[0].1));
                a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>()
            };
            runs.iter().map(of).sum::<f64>()
        };
        let (ours, theirs) = (error("sparsegpt"), error("magnitude"));
        assert!(ours < theirs, "{name}: {ours} {theirs}");
    }
}

#[test]
fn what_cannot_be_observed_is_left_alone_with_the_reason() {
    let m = model(&[1, 2, 4], |m, x| {
        let w = m.graph.constant("w", noise(&[2, 3, 2], 5));
        node(m, "ConvTranspose", &[x, w], "y", vec![])
    });
    let marked = |name| {
        let mut all = weights(&m);
        methods::mark(methods::find(name).unwrap(), &m, &mut all);
        all[0].exempt.as_ref().map(|e| e.to_string())
    };
    assert_eq!(
        marked("wanda").as_deref(),
        Some("the inputs of ConvTranspose are not observed")
    );
    assert_eq!(marked("fisher"), None);
}

#[test]
fn what_is_missing_is_said() {
    let m = linear(&[1.0, 2.0]);
    let all = weights(&m);
    let pruned: Vec<&Weight> = all.iter().collect();
    let said = |runs: &[Run], needs: &[Need]| {
        let examples = Examples {
            runs,
            task: None,
            seed: 0,
            effort: Effort::default(),
        };
        let error = observe(&m, &pruned, needs, &examples).unwrap_err();
        error.to_string()
    };
    let one = |x: &[f32]| [run(floats(&[1, x.len()], x), None)];
    assert!(said(&[], &[Need::Inputs]).contains("no examples"));
    assert!(said(&one(&[1.0, 1.0]), &[Need::Gradients]).contains("labels"));
    assert!(said(&one(&[f32::NAN, 1.0]), &[Need::Inputs]).contains("not finite"));
    assert!(said(&one(&[f32::NAN, 1.0]), &[Need::Curvature]).contains("not finite"));
    assert!(said(&one(&[1.0; 3]), &[Need::Inputs]).contains('3'));
    let error = methods::find("wanda")
        .unwrap()
        .scores(&m, &all[0], &Stats::default());
    assert!(error.unwrap_err().to_string().contains("has not been observed"));
}

/// `w` after gradient descent on mean squares and a penalty.
fn fitted(m: &Model, (x, y): (&Tensor, &Tensor), group: Group) -> Model {
    let terms = [Term {
        loss: &Distance::Mse,
        of: &["y", "label"],
        weight: 1.0,
    }];
    let descent = optimizer("sgd").unwrap();
    let groups = [group];
    let spec = Spec {
        groups: &groups,
        ..Spec::new(&terms, &*descent)
    };
    let graph = step(m, &spec).unwrap();
    let session = Session::builder(&graph.model).threads(1).build().unwrap();
    let mut state: Vec<Tensor> = graph.state.iter().map(|s| s.start.clone()).collect();
    let rate = Tensor::scalar(0.05f32);
    for _ in 0..800 {
        let before = graph.state.iter().zip(&state).map(|(s, t)| (s.input.as_str(), t));
        let fixed = [
            ("x", x),
            (graph.labels[0].as_str(), y),
            (graph.rate.as_str(), &rate),
        ];
        let mut outputs = session.run(before.chain(fixed)).unwrap();
        state = graph
            .state
            .iter()
            .map(|s| outputs.take(&s.output).unwrap())
            .collect();
    }
    let mut new = m.clone();
    graph.put_back(&state, &mut new).unwrap();
    new
}

fn penalty(l1: f64, l2: f64) -> Group {
    Group {
        l1,
        l2,
        ..Group::new("*")
    }
}

/// Row E14 in one dimension: (w - 0.3)² + |w| has its minimum at 0, (w - 0.3)² + w² at 0.15.
#[test]
fn the_absolute_value_makes_zero_and_the_square_makes_small() {
    let m = linear(&[0.9]);
    let data = (&floats(&[1, 1], &[1.0]), &floats(&[1, 1], &[0.3]));
    assert_eq!(
        elements(&fitted(&m, data, penalty(1.0, 0.0)), "w"),
        [0.0],
        "exactly"
    );
    let square = elements(&fitted(&m, data, penalty(0.0, 2.0)), "w")[0];
    assert!((square - 0.15).abs() < 1e-4, "{square}");
}

/// Row E14: of two features that inform and eight that do not, training with |w| leaves the two; then what is small is cut.
#[test]
fn absolute_values_then_a_cut_find_what_informs() {
    let m = model(&[40, 10], |m, x| {
        let w = m.graph.constant("w", noise(&[10, 1], 2));
        node(m, "MatMul", &[x, w], "y", vec![])
    });
    let at = |i: usize| 2.0 * (uniform(4, "x", i as u64) as f32 - 0.5);
    let x: Vec<f32> = (0..400).map(at).collect();
    let row = |r: &[f32]| 2.0 * r[0] - 1.5 * r[1];
    let y: Vec<f32> = x
        .chunks(10)
        .enumerate()
        .map(|(i, r)| row(r) + 0.2 * at(1000 + i))
        .collect();
    let (x, y) = (floats(&[40, 10], &x), floats(&[40, 1], &y));
    let absolute = fitted(&m, (&x, &y), penalty(0.15, 0.0));
    let gone = zeros(&absolute, "w");
    assert!(
        !gone[0] && !gone[1] && gone[2..].iter().filter(|z| **z).count() >= 6,
        "{gone:?}"
    );
    let square = fitted(&m, (&x, &y), penalty(0.0, 0.15));
    assert!(zeros(&square, "w").iter().all(|z| !z), "squares make none zero");
    let all = weights(&absolute);
    let mut task = task(&absolute, &all, Scope::Global, HALF);
    task.goal.amount = Amount::Threshold(0.1);
    let cut = methods::find("threshold")
        .unwrap()
        .decide(&task, &Stats::default());
    let mut new = absolute.clone();
    apply(&cut.unwrap(), &mut new).unwrap();
    let left = zeros(&new, "w").iter().filter(|z| !**z).count();
    assert_eq!(left, 2, "{:?}", elements(&new, "w"));
}

/// A model of which `y` reads `w`, the second output `z` reads `v`, and truth values `u`.
fn three() -> Model {
    let mut m = model(&[1, 2], |m, x| {
        let w = m.graph.constant("w", floats(&[2, 1], &[0.5, 0.25]));
        node(m, "MatMul", &[x, w], "y", vec![])
    });
    let x = m.graph.find("x").unwrap();
    let v = m.graph.constant("v", floats(&[2, 1], &[1.0, -1.0]));
    let z = node(&mut m, "MatMul", &[x, v], "z", vec![]);
    let u = m
        .graph
        .constant("u", floats(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    let h = node(&mut m, "MatMul", &[x, u], "h", vec![]);
    let best = node(&mut m, "ArgMax", &[h], "best", vec![int("axis", 1)]);
    m.graph.output(z, None);
    m.graph.output(best, None);
    m
}

fn reasons(m: &Model, name: &str) -> Vec<(String, Option<String>)> {
    let mut all = weights(m);
    methods::mark(methods::find(name).unwrap(), m, &mut all);
    let why = |w: &Weight| (w.name.clone(), w.exempt.as_ref().map(|e| e.to_string()));
    all.iter().map(why).collect()
}

#[test]
fn every_output_counts_and_what_none_depends_on_is_left_alone() {
    let m = three();
    for name in ["obd", "fisher", "taylor", "movement"] {
        let found = reasons(&m, name);
        let why = "no output depends on it by a gradient";
        let expected = [("w", None), ("v", None), ("u", Some(why))];
        let expected = expected.map(|(n, why)| (n.to_owned(), why.map(str::to_owned)));
        assert_eq!(found, expected, "{name}");
    }
    let mut all = weights(&m);
    methods::mark(methods::find("obd").unwrap(), &m, &mut all);
    let runs = [run(floats(&[1, 2], &[2.0, 0.5]), None)];
    let stats = seen(&m, &all, &[Need::Squares, Need::Curvature], &runs, None);
    for name in ["w", "v"] {
        let seen = &stats.seen[name];
        assert_eq!(seen.curvature.as_ref().unwrap(), &[4.0, 0.25], "{name}");
        assert!(seen.squares.as_ref().unwrap().iter().all(|s| *s > 0.0), "{name}");
    }
}

#[test]
fn a_weight_that_the_loss_does_not_depend_on_is_named() {
    let m = three();
    let all = weights(&m);
    let pruned: Vec<&Weight> = all.iter().filter(|w| w.name != "u").collect();
    let runs = [run(floats(&[1, 2], &[2.0, 0.5]), Some(floats(&[1, 1], &[1.0])))];
    let task = Term {
        loss: &Distance::Mse,
        of: &["y", "label"],
        weight: 1.0,
    };
    let examples = Examples {
        runs: &runs,
        task: Some(task),
        seed: 0,
        effort: Effort::default(),
    };
    for need in [Need::Gradients, Need::Squares, Need::Curvature, Need::Motion] {
        let error = observe(&m, &pruned, &[need], &examples).unwrap_err().to_string();
        assert!(
            error.contains("\"v\"") && error.contains("\"y\" does not"),
            "{error}"
        );
        assert!(!error.contains("\"w\"") && error.contains("--keep"), "{error}");
    }
}

#[test]
fn a_weight_that_a_subgraph_reads_is_left_alone_with_the_reason() {
    let m = model(&[2, 2], |m, x| {
        let w = m.graph.constant("w", noise(&[2, 2], 3));
        let c = m.graph.constant("c", Tensor::bools(&[], [true]));
        let branch = |name: &str| {
            let mut g = secateur_engine::ir::Graph::default();
            let [x, w, y] = ["x", "w", name].map(|n| g.value(n));
            g.node(Node::new("MatMul", vec![Some(x), Some(w)], vec![Some(y)]));
            g.output(y, None);
            Attr::new(name, g)
        };
        let h = node(
            m,
            "If",
            &[c],
            "h",
            vec![branch("then_branch"), branch("else_branch")],
        );
        let y = node(m, "MatMul", &[x, w], "own", vec![]);
        node(m, "Add", &[h, y], "y", vec![])
    });
    for name in ["wanda", "sparsegpt", "activation"] {
        let why = "a subgraph reads it, which is not observed".to_owned();
        assert_eq!(reasons(&m, name), [("w".to_owned(), Some(why))], "{name}");
    }
}

#[test]
fn movement_sees_small_gradients_and_weights_of_constant_nodes() {
    let m = model(&[1, 1], |m, x| {
        let value = floats(&[1, 1], &[1.0]);
        let attrs = vec![Attr::new("value", value)];
        let w = node(m, "Constant", &[], "w", attrs);
        node(m, "MatMul", &[x, w], "y", vec![])
    });
    // The gradient 2 (0.001 - 0.0005) 0.001 moves 1 by less than an f32 has.
    let runs = [run(floats(&[1, 1], &[1e-3]), Some(floats(&[1, 1], &[5e-4])))];
    let all = weights(&m);
    let stats = seen(&m, &all, &[Need::Motion], &runs, Some(&Distance::Mse));
    let motion = stats.seen["w"].motion.as_ref().unwrap();
    assert!((motion[0] + 1e-6).abs() < 1e-10, "{motion:?}");
}

#[test]
fn wanda_compares_within_each_output() {
    let w = [1.0, 0.01, 2.0, 0.02, 3.0, 0.03, 4.0, 0.04];
    let m = model(&[1, 4], |m, x| {
        let w = m.graph.constant("w", floats(&[4, 2], &w));
        node(m, "MatMul", &[x, w], "y", vec![])
    });
    let all = weights(&m);
    let runs = [run(floats(&[1, 4], &[1.0; 4]), None)];
    let stats = seen(&m, &all, &[Need::Inputs], &runs, None);
    let gone = |share| {
        zeros(
            &pruned(&m, &all, "wanda", (share, Pattern::Unstructured), &stats),
            "w",
        )
    };
    assert_eq!(gone(0.5), [true, true, true, true, false, false, false, false]);
    // Of 3 the first output has 2, for outputs are filled up one after the other.
    assert_eq!(gone(0.375), [true, true, true, false, false, false, false, false]);
    let global = task(&m, &all, Scope::Global, HALF);
    let plan = methods::find("wanda").unwrap().decide(&global, &stats).unwrap();
    let mut new = m.clone();
    apply(&plan, &mut new).unwrap();
    assert_eq!(
        zeros(&new, "w"),
        [false, true, false, true, false, true, false, true]
    );
    for name in ["activation", "apoz", "wanda"] {
        assert_eq!(methods::find(name).unwrap().scope(), Scope::Layer);
    }
}

/// Row E4: importance is the magnitude.
#[test]
fn the_magnitude_is_the_importance() {
    for sign in [1.0, -1.0] {
        let w = [1.2, -0.01, 0.4, -0.05].map(|x: f32| sign * x);
        let m = linear(&w);
        let all = weights(&m);
        let scores = scores(&m, &all, "magnitude", &Stats::default());
        assert_eq!(scores, w.map(f32::abs));
        for scope in [Scope::Global, Scope::Layer] {
            let task = task(&m, &all, scope, HALF);
            let plan = methods::find("magnitude").unwrap();
            let plan = plan.decide(&task, &Stats::default()).unwrap();
            let mut new = m.clone();
            apply(&plan, &mut new).unwrap();
            assert_eq!(zeros(&new, "w"), [false, true, false, true]);
        }
    }
}

#[test]
fn a_norm_over_another_axis_says_nothing_of_outputs() {
    let m = model(&[1, 2, 4], |m, x| {
        let w = m.graph.constant("w", noise(&[4, 5], 5));
        let norm = ["s", "b", "mean", "var"].map(|n| m.graph.constant(n, floats(&[2], &[1.0; 2])));
        let h = node(m, "MatMul", &[x, w], "h", vec![]);
        let [s, b, mean, var] = norm;
        node(m, "BatchNormalization", &[h, s, b, mean, var], "y", vec![])
    });
    let why = "its outputs are not those of the batch normalisation that follows".to_owned();
    assert_eq!(reasons(&m, "bn-scale")[0], ("w".to_owned(), Some(why)));
}

#[test]
fn sparsegpt_leaves_a_weight_with_nan_alone() {
    let m = model(&[1, 2], |m, x| {
        let w = m.graph.constant("w", floats(&[2, 2], &[1.0, f32::NAN, 2.0, 3.0]));
        let v = m.graph.constant("v", noise(&[2, 2], 4));
        let h = node(m, "MatMul", &[x, w], "h", vec![]);
        node(m, "MatMul", &[h, v], "y", vec![])
    });
    let why = "it has infinite elements or NaN".to_owned();
    assert_eq!(
        reasons(&m, "sparsegpt"),
        [("w".to_owned(), Some(why)), ("v".to_owned(), None)]
    );
}

#[test]
fn products_are_shared_and_bounded() {
    let m = model(&[1, 3], |m, x| {
        let v = m.graph.constant("v", noise(&[3, 2], 5));
        let w = m.graph.constant("w", noise(&[3, 2], 6));
        let h = node(m, "MatMul", &[x, v], "h", vec![]);
        let y = node(m, "MatMul", &[x, w], "z", vec![]);
        node(m, "Add", &[h, y], "y", vec![])
    });
    let runs = [run(noise(&[1, 3], 6), None)];
    let stats = seen(&m, &weights(&m), &[Need::Products], &runs, None);
    let [v, w] = ["v", "w"].map(|n| stats.seen[n].products.clone().unwrap());
    assert!(std::sync::Arc::ptr_eq(&v.0, &w.0));
    let m = linear(&[1.0; 30_000]);
    let all = weights(&m);
    let examples = Examples {
        runs: &[run(floats(&[1, 30_000], &[1.0; 30_000]), None)],
        task: None,
        seed: 0,
        effort: Effort::default(),
    };
    let pruned: Vec<&Weight> = all.iter().collect();
    let error = observe(&m, &pruned, &[Need::Products], &examples).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("\"w\"") && error.contains("6.7 GiB"), "{error}");
}
