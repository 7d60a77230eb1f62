use secateur_engine::ir::{AttrValue, DType, Dim, Node, Opset, Type, ValueId};
use secateur_engine::random::Random;
use secateur_engine::{Session, Tensor};

use super::*;
use crate::observe::Run;
use crate::scan::Effort;

fn empty() -> Model {
    Model {
        opsets: vec![Opset {
            domain: None,
            version: Some(21),
            extra: Default::default(),
        }],
        ..Model::default()
    }
}

fn of(seed: u64, dims: &[usize]) -> Tensor {
    Random::new(seed).normals(dims, 0.0, 1.0)
}

/// A model of an input of `channels` channels and what `build` makes of it.
fn model(dims: &[usize], build: impl FnOnce(&mut Model, ValueId) -> Vec<ValueId>) -> Model {
    let mut model = empty();
    let x = model
        .graph
        .input("x", Type::tensor(DType::F32, dims.iter().map(|&d| Dim::from(d))));
    for y in build(&mut model, x) {
        model.graph.output(y, None);
    }
    model
}

/// A node of `op` with the weight `name`, and what it makes.
fn layer(
    model: &mut Model,
    op: &str,
    x: ValueId,
    (name, w): (&str, Tensor),
    attrs: &[(&str, &[i64])],
) -> ValueId {
    let g = &mut model.graph;
    let w = g.constant(name, w);
    let y = g.value(format!("{name}.y"));
    let mut node = Node::new(op, vec![Some(x), Some(w)], vec![Some(y)]);
    for (key, value) in attrs {
        match (*key, value) {
            ("group", &&[n]) => node.set(key, AttrValue::Int(Some(n))),
            (_, value) => node.set(key, AttrValue::Ints(value.to_vec())),
        };
    }
    g.node(node);
    y
}

fn runs(dims: &[usize], n: u64) -> Vec<Run> {
    let run = |i| Run {
        inputs: vec![("x".into(), of(100 + i, dims))],
        labels: None,
    };
    (0..n).map(run).collect()
}

fn harms(model: &Model, piece: Piece, runs: &[Run], threads: usize) -> Result<Harms, MethodError> {
    let shown = Examples {
        runs,
        task: None,
        seed: 1,
        effort: Effort {
            threads,
            ..Effort::default()
        },
    };
    Harms::new(model, piece, &Sizes::new(), &shown)
}

/// The curve of the group that cuts the constant `name` first.
fn curve(model: &Model, harms: &Harms, name: &str) -> Curve {
    let found = groups(model, &Sizes::new()).unwrap();
    let g = found.groups.iter().position(|g| g.name == name);
    let g = g.unwrap_or_else(|| panic!("{name}: {found:?}"));
    harms.curves(&found, &[g]).unwrap().remove(&g).unwrap()
}

/// Half of the mean over runs of the sum of squares of what `model` makes.
fn energy(model: &Model, runs: &[Run]) -> f64 {
    let session = Session::builder(model).build().unwrap();
    let one = |run: &Run| {
        let made = session.run(run.inputs.iter().map(|(n, x)| (n, x))).unwrap();
        let all = model.graph.outputs.iter().map(|p| &*model.graph[p.value].name);
        let sum = |n: &str| {
            made.get(n)
                .unwrap()
                .floats()
                .unwrap()
                .iter()
                .map(|x| x * x)
                .sum::<f64>()
        };
        all.map(sum).sum::<f64>()
    };
    runs.iter().map(one).sum::<f64>() / 2.0 / runs.len() as f64
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 0.01 * b.abs()
}

#[test]
fn without_all_that_reads_it_sees_everything_is_lost() {
    // What is made is the output itself, so that errors weigh one each, and with nothing left it is all lost.
    type Case = (
        &'static str,
        &'static [usize],
        &'static [(&'static str, &'static [i64])],
    );
    let cases: &[Case] = &[
        (
            "Conv",
            &[5, 6, 3, 3],
            &[("strides", &[2, 1]), ("pads", &[1, 0, 2, 1])],
        ),
        ("Conv", &[4, 6, 1, 3], &[("dilations", &[1, 2])]),
        ("Conv", &[4, 3, 3, 1], &[("group", &[2])]),
        ("ConvTranspose", &[6, 5, 4, 4], &[("strides", &[2, 2])]),
        ("ConvTranspose", &[6, 5, 3, 2], &[("strides", &[2, 3])]),
        ("ConvTranspose", &[6, 2, 3, 3], &[("group", &[2])]),
    ];
    for (op, dims, attrs) in cases {
        let x = [1, 3, 7, 9];
        let model = model(&x, |m, x| {
            let h = layer(m, "Conv", x, ("a", of(1, &[6, 3, 1, 1])), &[]);
            vec![layer(m, op, h, ("b", of(2, dims)), attrs)]
        });
        let runs = runs(&x, 8);
        let harms = harms(&model, Piece::Channel, &runs, 2).unwrap();
        let found = groups(&model, &Sizes::new()).unwrap();
        let all: Vec<usize> = (0..found.groups.len()).collect();
        let lost: Vec<f64> = harms
            .curves(&found, &all)
            .unwrap()
            .values()
            .map(|c| c.at(99))
            .collect();
        let energy = energy(&model, &runs);
        // Of a grouped convolution the channels within groups; whole groups lose their outputs too.
        assert!(
            lost.iter().any(|l| near(*l, energy)),
            "{op} {dims:?}: {lost:?}, {energy}"
        );
    }
}

#[test]
fn several_readers_add_up() {
    let x = [7, 12];
    let model = model(&x, |m, x| {
        let h = layer(m, "MatMul", x, ("a", of(1, &[12, 10])), &[]);
        let y = layer(m, "MatMul", h, ("b", of(2, &[10, 3])), &[]);
        let z = layer(m, "MatMul", h, ("c", of(3, &[10, 5])), &[]);
        vec![y, z]
    });
    let runs = runs(&x, 30);
    let harms = harms(&model, Piece::Neuron, &runs, 1).unwrap();
    let curve = curve(&model, &harms, "a[1]");
    assert_eq!(curve.order.len(), 10);
    assert!(near(curve.at(10), energy(&model, &runs)));
    assert!(curve.lost.is_sorted() && curve.at(1) > 0.0);
}

#[test]
fn any_number_of_threads_finds_the_same() {
    let x = [5, 6];
    let a = of(1, &[6, 9]);
    let model = model(&x, |m, x| {
        let h = layer(m, "MatMul", x, ("a", a), &[]);
        let g = &mut m.graph;
        let r = g.value("r");
        g.node(Node::new("Relu", vec![Some(h)], vec![Some(r)]));
        let s = g.value("s");
        g.node(Node::new("Add", vec![Some(h), Some(r)], vec![Some(s)]));
        vec![
            layer(m, "MatMul", h, ("b", of(2, &[9, 4])), &[]),
            layer(m, "MatMul", s, ("c", of(3, &[9, 4])), &[]),
        ]
    });
    let runs = runs(&x, 40);
    let one = harms(&model, Piece::Neuron, &runs, 1).unwrap();
    let three = harms(&model, Piece::Neuron, &runs, 3).unwrap();
    let (one, three) = (curve(&model, &one, "a[1]"), curve(&model, &three, "a[1]"));
    assert_eq!(one, three, "threads");
    assert!(one.at(9) > 1.0);
}

#[test]
fn columns_that_others_make_cost_next_to_nothing() {
    let x = [5, 6];
    let mut a = of(1, &[6, 5]).floats().unwrap();
    (0..6).for_each(|r| a[r * 5 + 4] = -2.0 * a[r * 5 + 2]);
    let a = Tensor::rounded(DType::F32, &[6, 5], &a).unwrap();
    let model = model(&x, |m, x| {
        let h = layer(m, "MatMul", x, ("a", a), &[]);
        vec![layer(m, "MatMul", h, ("b", of(2, &[5, 4])), &[])]
    });
    let runs = runs(&x, 40);
    let curve = curve(&model, &harms(&model, Piece::Neuron, &runs, 1).unwrap(), "a[1]");
    assert!([2, 4].contains(&curve.order[0]), "{:?}", curve.order);
    assert!(curve.at(1) < 1e-4 * curve.at(5), "{:?}", curve.lost);
}

#[test]
fn a_block_is_worth_what_it_adds() {
    let x = [1, 4, 5, 5];
    let model = model(&x, |m, x| {
        let h = layer(
            m,
            "Conv",
            x,
            ("a", of(1, &[8, 4, 3, 3])),
            &[("pads", &[1, 1, 1, 1])],
        );
        let f = layer(m, "Conv", h, ("b", of(2, &[4, 8, 1, 1])), &[]);
        let g = &mut m.graph;
        let y = g.value("y");
        g.node(Node::new("Add", vec![Some(x), Some(f)], vec![Some(y)]));
        vec![y]
    });
    let runs = runs(&x, 6);
    let harms = harms(&model, Piece::Structured, &runs, 1).unwrap();
    let unit = &Unit::all(&model, Piece::Block, &Sizes::new()).unwrap()[0];
    let mut alone = model.clone();
    let f = alone.graph.find("b.y").unwrap();
    alone.graph.outputs[0].value = f;
    assert!(near(harms.unit(unit).unwrap(), energy(&alone, &runs)));
    // All channels of it together are as much.
    assert!(near(
        curve(&model, &harms, "a[0]").at(8),
        harms.unit(unit).unwrap()
    ));
}

#[test]
fn what_is_not_finite_is_an_error() {
    let x = [2, 3];
    let build = |m: &mut Model, x| {
        let h = layer(m, "MatMul", x, ("a", of(1, &[3, 4])), &[]);
        vec![layer(m, "MatMul", h, ("b", of(2, &[4, 2])), &[])]
    };
    let model = model(&x, build);
    let mut bad = runs(&x, 2);
    bad[1].inputs[0].1 = Tensor::of(&[2, 3], vec![f32::NAN; 6]);
    let error = harms(&model, Piece::Neuron, &bad, 1).unwrap_err().to_string();
    assert!(error.contains("a.y") && error.contains("not finite"), "{error}");
    let none = harms(&model, Piece::Neuron, &[], 1).unwrap_err().to_string();
    assert!(none.contains("no examples"), "{none}");
}

#[test]
fn inputs_that_depend_on_each_other_far_from_zero_are_no_error() {
    let x = [200, 6];
    let [down, up, out] = [of(1, &[6, 3]), of(2, &[3, 24]), of(3, &[24, 4])];
    let model = model(&x, |m, x| {
        let h = layer(m, "MatMul", x, ("down", down), &[]);
        let h = layer(m, "MatMul", h, ("up", up), &[]);
        let h = layer(m, "Add", h, ("far", Tensor::of(&[24], vec![100f32; 24])), &[]);
        let y = layer(m, "MatMul", h, ("out", out), &[]);
        vec![layer(m, "Add", y, ("bias", of(4, &[4])), &[])]
    });
    let harms = harms(&model, Piece::Neuron, &runs(&x, 40), 1).unwrap();
    let lost = curve(&model, &harms, "up[1]");
    // Three of them make the others.
    assert!(lost.at(21) < 0.01 * lost.at(24), "{:?}", lost.lost);
}

#[test]
fn any_number_of_threads_finds_the_same_of_several_groups() {
    let x = [5, 6];
    let model = model(&x, |m, x| {
        let widths = [6, 9, 7, 8, 4];
        let pairs = widths.windows(2).enumerate();
        vec![pairs.fold(x, |x, (i, w)| {
            layer(
                m,
                "MatMul",
                x,
                (&format!("w{i}"), of(i as u64, &[w[0], w[1]])),
                &[],
            )
        })]
    });
    let runs = runs(&x, 40);
    let all = |threads| {
        let harms = harms(&model, Piece::Neuron, &runs, threads).unwrap();
        let found = groups(&model, &Sizes::new()).unwrap();
        let which: Vec<usize> = (0..found.groups.len()).collect();
        harms.curves(&found, &which).unwrap()
    };
    assert_eq!(all(1).len(), 3);
    assert_eq!(all(1), all(4));
}
