//! Training steps of small networks.

mod run;

use run::{Run, SUM, doubles, model, near};
use secateur_engine::expr::Call;
use secateur_engine::{Model, Session, Tensor};
use secateur_train::loss::loss;
use secateur_train::optim::{Sgd, optimizer};
use secateur_train::{Group, Spec, Term, portable, step};

fn noise(dims: &[usize], seed: u64) -> Tensor {
    secateur_engine::random::Random::new(seed).tensor(dims, 0.5)
}

/// `scores: [4, 3]` of `x: [4, 5]`, by two layers.
fn net() -> Model {
    let weights = [
        ("fc1.weight", noise(&[5, 8], 1)),
        ("fc1.bias", noise(&[8], 2)),
        ("fc2.weight", noise(&[8, 3], 3)),
        ("fc2.bias", noise(&[3], 4)),
    ];
    model(&weights, &[("x", &[4, 5])], |w| {
        let hidden = (w[4].matmul(w[0]) + w[1]).op("Relu", &[]);
        hidden.matmul(w[2]) + w[3]
    })
}

fn batch() -> [(&'static str, Tensor); 2] {
    [
        ("x", noise(&[4, 5], 9)),
        ("label", Tensor::of(&[4], vec![0i64, 2, 1, 2])),
    ]
}

#[test]
fn a_network_learns_and_the_weights_go_back() {
    let (original, adam) = (net(), optimizer("adam").unwrap());
    let (entropy, accuracy) = (loss("cross-entropy").unwrap(), loss("accuracy").unwrap());
    let of = &["y", "label"];
    let terms = [
        Term {
            loss: &*entropy,
            of,
            weight: 1.0,
        },
        Term {
            loss: &*accuracy,
            of,
            weight: 0.0,
        },
    ];
    let spec = Spec {
        outputs: &["y"],
        ..Spec::new(&terms, &*adam)
    };
    let mut run = Run::new(&original, &spec);
    assert_eq!(run.graph.labels, ["label"]);
    let losses: Vec<f64> = (0..100).map(|_| run.loss(0.1, &batch())).collect();
    assert!(losses[99] < 0.01 && losses[0] > 0.5, "{losses:?}");
    let outputs = run.step(0.0, &batch());
    let get = |name: &str| outputs.iter().find(|(n, _)| n == name).unwrap().1.clone();
    assert_eq!(get(&run.graph.terms[1]).item(), Some(1.0));
    let mut trained = original.clone();
    run.graph.put_back(&run.state, &mut trained).unwrap();
    assert_ne!(trained, original);
    let scores = Session::builder(&trained)
        .build()
        .unwrap()
        .run([("x", &batch()[0].1)])
        .unwrap();
    near(&scores["y"].floats().unwrap(), &get("y").floats().unwrap(), 1e-5);
    assert_eq!(run.get("step"), [101.0]);
}

#[test]
fn the_same_steps_by_the_reference() {
    let (entropy, adam) = (loss("cross-entropy").unwrap(), optimizer("adamw").unwrap());
    let terms = [Term {
        loss: &*entropy,
        of: &["y", "label"],
        weight: 0.5,
    }];
    let mut run = Run::new(&net(), &Spec::new(&terms, &*adam));
    let slow = Session::builder(&run.graph.model).reference().build().unwrap();
    for _ in 0..3 {
        let rate = Tensor::scalar(0.01f32);
        let batch = batch();
        let state = run.graph.state.iter().map(|s| s.input.as_str()).zip(&run.state);
        let feeds = state.chain([(run.graph.rate.as_str(), &rate)]);
        let feeds: Vec<_> = feeds.chain(batch.iter().map(|(n, t)| (*n, t))).collect();
        let expected = slow.run(feeds).unwrap();
        for (name, t) in run.step(0.01, &batch) {
            near(
                &t.floats().unwrap(),
                &expected[name.as_str()].floats().unwrap(),
                1e-5,
            );
        }
    }
}

#[test]
fn groups_have_their_own_rates_and_frozen_weights_stay() {
    let entropy = loss("cross-entropy").unwrap();
    let terms = [Term {
        loss: &*entropy,
        of: &["y", "label"],
        weight: 1.0,
    }];
    let groups = [
        Group::frozen("fc1.*"),
        Group {
            rate: 0.5,
            ..Group::new("*.bias")
        },
    ];
    let moved = |groups: &[Group]| {
        let spec = Spec {
            groups,
            ..Spec::new(&terms, &Sgd)
        };
        let mut run = Run::new(&net(), &spec);
        run.step(1.0, &batch());
        run
    };
    let (plain, grouped) = (moved(&[]), moved(&groups));
    let names: Vec<_> = grouped.graph.state.iter().map(|s| &*s.input).collect();
    assert_eq!(names, ["fc2.weight", "fc2.bias", "step"]);
    assert_eq!(plain.get("fc2.weight"), grouped.get("fc2.weight"));
    let start = noise(&[3], 4).floats().unwrap();
    let way = |r: &Run| {
        r.get("fc2.bias")
            .iter()
            .zip(&start)
            .map(|(a, b)| a - b)
            .collect::<Vec<_>>()
    };
    let half: Vec<_> = way(&plain).iter().map(|x| x / 2.0).collect();
    near(&way(&grouped), &half, 1e-6);
    // The weights that stay are still in the model.
    assert!(
        grouped
            .graph
            .model
            .graph
            .find("fc1.weight")
            .is_some_and(|v| grouped.graph.model.graph.konst(v).is_some())
    );
}

#[test]
fn normalisations_keep_running_statistics_unless_frozen() {
    let weights = [
        ("bn.scale", doubles(&[2], &[1.5, 0.5])),
        ("bn.bias", doubles(&[2], &[0.1, -0.1])),
        ("bn.mean", doubles(&[2], &[0.0, 1.0])),
        ("bn.var", doubles(&[2], &[1.0, 2.0])),
    ];
    let net = model(&weights, &[("x", &[3, 2])], |w| {
        let inputs: Vec<_> = [4, 0, 1, 2, 3].map(|i: usize| Some(w[i].id)).to_vec();
        let call = Call {
            domain: "",
            op: "BatchNormalization",
            inputs: &inputs,
            attrs: vec![],
            outputs: 1,
        };
        let y = w[4].call(call)[0];
        y * y
    });
    let x = [("x", doubles(&[3, 2], &[1.0, 2.0, 2.0, 4.0, 6.0, 0.0]))];
    let mut run = Run::of(&net, &Sgd);
    run.step(0.1, &x);
    near(&run.get("bn.mean"), &[0.3, 1.1], 1e-6);
    near(
        &run.get("bn.var"),
        &[0.9 + 0.1 * 14.0 / 3.0, 1.8 + 0.1 * 8.0 / 3.0],
        1e-6,
    );
    let mut trained = net.clone();
    run.graph.put_back(&run.state, &mut trained).unwrap();
    let v = trained.graph.find("bn.mean").unwrap();
    assert_eq!(
        trained.graph.konst(v).and_then(Tensor::floats),
        Some(run.get("bn.mean"))
    );
    assert!(
        trained
            .graph
            .iter()
            .all(|(_, n)| n.attr("training_mode").is_none())
    );
    let frozen = Spec {
        groups: &[Group::frozen("bn.mean")],
        ..Spec::new(SUM, &Sgd)
    };
    let given = Spec {
        batch_statistics: false,
        ..Spec::new(SUM, &Sgd)
    };
    for spec in [frozen, given] {
        let stays = step(&net, &spec).unwrap();
        let states: Vec<_> = stays.state.iter().map(|s| &*s.input).collect();
        assert_eq!(states, ["bn.scale", "bn.bias", "step"]);
        let mut nodes = stays.model.graph.iter();
        assert!(nodes.all(|(_, n)| n.attr("training_mode").is_none()));
    }
}

#[test]
fn dropout_drops_a_share_and_others_in_each_step() {
    let net = model(&[("w", doubles(&[1000], &[1.0; 1000]))], &[("x", &[1000])], |x| {
        let share = x[0].tensor(Tensor::scalar(0.25f32));
        (x[0] * x[1]).with("Dropout", &[share], vec![])
    });
    let kept = |run: &mut Run| {
        run.set("w", &[0.0; 1000]);
        run.step(1.0, &[("x", doubles(&[1000], &[1.0; 1000]))]);
        let w = run.get("w");
        assert!(w.iter().all(|&w| w == 0.0 || (w + 4.0 / 3.0).abs() < 1e-12));
        w.iter().map(|&w| w != 0.0).collect::<Vec<_>>()
    };
    let mut run = Run::of(&net, &Sgd);
    let steps: Vec<_> = (0..20).map(|_| kept(&mut run)).collect();
    let total = steps.iter().flatten().filter(|k| **k).count();
    assert!((14_700..15_300).contains(&total), "{total}");
    // Neighbouring steps and elements know nothing of each other: both stay in 9 of 16 cases.
    let both = |a: &[bool], b: &[bool]| a.iter().zip(b).filter(|(a, b)| **a && **b).count();
    let across: usize = steps.windows(2).map(|s| both(&s[0], &s[1])).sum();
    let along: usize = steps.iter().map(|s| both(s, &s[1..])).sum();
    assert!((10_300..11_080).contains(&across), "{across}");
    assert!((10_850..11_630).contains(&along), "{along}");
    // The same seed gives the same steps.
    assert_eq!(kept(&mut Run::of(&net, &Sgd)), steps[0]);
    let other = Spec {
        seed: 1,
        ..Spec::new(SUM, &Sgd)
    };
    assert_ne!(kept(&mut Run::new(&net, &other)), steps[0]);
}

#[test]
fn scalars_and_masks_are_no_parameters_unless_named() {
    let weights = [
        ("w", doubles(&[2], &[1.0, 2.0])),
        ("scale", doubles(&[], &[0.5])),
        ("hidden", doubles(&[2], &[0.0, -1e9])),
    ];
    let net = model(&weights, &[], |x| x[0] * x[1] + x[2]);
    let trained = |groups: &[Group]| -> Vec<String> {
        let graph = step(
            &net,
            &Spec {
                groups,
                ..Spec::new(SUM, &Sgd)
            },
        )
        .unwrap();
        graph.state.into_iter().map(|s| s.input).collect()
    };
    assert_eq!(trained(&[]), ["w", "step"]);
    let named = Group {
        train: Some(true),
        ..Group::new("scale")
    };
    assert_eq!(trained(&[named]), ["w", "scale", "step"]);
}

#[test]
fn what_does_not_fit_is_said() {
    let (entropy, mse) = (loss("cross-entropy").unwrap(), loss("mse").unwrap());
    let term = |of: &'static [&'static str]| {
        [Term {
            loss: &*entropy,
            of,
            weight: 1.0,
        }]
    };
    let e = |spec: Spec| step(&net(), &spec).unwrap_err().to_string();
    let of = |of: &'static [&'static str]| e(Spec::new(&term(of), &Sgd));
    assert!(of(&["yy", "label"]).contains("did you mean \"y\"?"));
    assert!(of(&["y"]).contains("compares scores and classes; 1 names"));
    assert!(of(&[]).contains("0 names"));
    let terms = term(&["y", "label"]);
    let spec = Spec::new(&terms, &Sgd);
    assert!(
        e(Spec {
            groups: &[Group::new("fc9*")],
            ..spec
        })
        .contains("\"fc9*\"")
    );
    assert!(
        e(Spec {
            groups: &[Group::frozen("*")],
            ..spec
        })
        .contains("no initialiser")
    );
    assert!(
        e(Spec {
            masks: &[("fc1", noise(&[1], 1))],
            ..spec
        })
        .contains("no parameter \"fc1\"")
    );
    assert!(
        e(Spec {
            outputs: &["z"],
            ..spec
        })
        .contains("no value of the model \"z\"")
    );
    let inputs = [Term {
        loss: &*mse,
        of: &["x", "x"],
        weight: 1.0,
    }];
    assert!(e(Spec::new(&inputs, &Sgd)).contains("depends on none"));
    assert!(e(Spec::new(&[], &Sgd)).contains("no loss"));
}

#[test]
fn gradients_of_our_own_are_written_in_onnx() {
    let kernel = noise(&[4, 2, 3, 3], 1);
    let net = model(&[("w", kernel)], &[("x", &[1, 2, 6, 6])], |x| {
        x[1].op("Conv", &[x[0]])
    });
    let graph = step(&net, &Spec::new(SUM, &Sgd)).unwrap();
    let own = |m: &Model| m.graph.iter().filter(|(_, n)| n.domain() == "secateur").count();
    assert!(own(&graph.model) > 0);
    let mut written = graph.model.clone();
    portable(&mut written).unwrap();
    assert_eq!(own(&written), 0);
    let mut names: Vec<_> = written.graph.iter().filter_map(|(_, n)| n.name.clone()).collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
    let (x, rate) = (noise(&[1, 2, 6, 6], 2), Tensor::scalar(1f32));
    let run = |m: &Model| {
        let state = graph.state.iter().map(|s| (s.input.as_str(), &s.start));
        let feeds: Vec<_> = state.chain([(graph.rate.as_str(), &rate), ("x", &x)]).collect();
        let outputs = Session::builder(m)
            .threads(1)
            .build()
            .unwrap()
            .run(feeds)
            .unwrap();
        outputs[graph.state[0].output.as_str()].floats().unwrap()
    };
    near(&run(&written), &run(&graph.model), 1e-5);
}

#[test]
fn a_step_is_plain_onnx() {
    let (entropy, adam) = (loss("cross-entropy").unwrap(), optimizer("adam").unwrap());
    let terms = [Term {
        loss: &*entropy,
        of: &["y", "label"],
        weight: 1.0,
    }];
    let graph = step(&net(), &Spec::new(&terms, &*adam)).unwrap();
    assert!(graph.model.graph.iter().all(|(_, n)| n.domain().is_empty()));
    // A file needs the types of its outputs.
    for port in &graph.model.graph.outputs {
        assert!(port.ty.as_ref().is_some_and(|t| t.ty.dims().is_some()));
    }
    // Older runtimes can have it too.
    let mut old = graph.model.clone();
    secateur_engine::opt::convert(&mut old, "", 21).unwrap();
    assert_eq!(old.opset(""), Some(21));
    Session::builder(&old).build().unwrap();
}

#[test]
fn a_network_of_convolutions_learns_from_scratch() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/digits-cnn.onnx");
    let mut net = Model::load(path).unwrap();
    secateur_train::initialize(&mut net, "*", "he-normal".parse().unwrap(), 1).unwrap();
    let (entropy, adam) = (loss("cross-entropy").unwrap(), optimizer("adam").unwrap());
    let terms = [Term {
        loss: &*entropy,
        of: &["logits", "label"],
        weight: 1.0,
    }];
    let mut run = Run::new(&net, &Spec::new(&terms, &*adam));
    let image = noise(&[8, 1, 8, 8], 5);
    let batch = [("image", image), ("label", Tensor::of(&[8], (0..8i64).collect()))];
    let losses: Vec<f64> = (0..12).map(|_| run.loss(0.01, &batch)).collect();
    assert!(losses[11] < losses[0] / 4.0, "{losses:?}");
}

#[test]
fn a_norm_whose_scale_and_bias_are_frozen_passes_gradients_on() {
    let floats = |dims: &[usize], x: f32| Tensor::of(dims, vec![x; dims.iter().product()]);
    let weights = [
        ("w", Tensor::of(&[2, 3], vec![0.5f32, -1.0, 2.0, 0.1, 0.7, -0.3])),
        ("scale", floats(&[3], 1.5)),
        ("bias", floats(&[3], 0.5)),
    ];
    let model = model(&weights, &[("x", &[4, 2])], |v| {
        let normal = v[3].op("MatMul", &[v[0]]).op("LayerNormalization", &[v[1], v[2]]);
        normal * normal
    });
    let groups = [Group::frozen("scale"), Group::frozen("bias")];
    let sgd = optimizer("sgd").unwrap();
    let spec = Spec {
        groups: &groups,
        ..Spec::new(SUM, &*sgd)
    };
    let mut run = Run::new(&model, &spec);
    let x = Tensor::of(&[4, 2], (0..8).map(|i| i as f32 - 3.5).collect());
    run.step(0.1, &[("x", x)]);
    assert_eq!(run.graph.state.iter().filter(|s| s.weight.is_some()).count(), 1);
    assert_ne!(run.state[0], weights[0].1);
}
