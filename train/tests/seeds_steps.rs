//! Rows E8, E18, F4, F9 to F15, F21, F28, F29, H1 to H3 of the founding documents: steps.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should end there")]

mod run;

use run::{Run, SUM, doubles, frozen, model, near};
use secateur_engine::expr::Ex;
use secateur_engine::{Model, Tensor};
use secateur_train::optim::{Momentum, RmsProp, Sgd, optimizer};
use secateur_train::{Clip, Group, Optimizer, Spec, step, zeros_held};

/// A model whose gradient by `w` is its input `g`.
fn given(w: &[f64]) -> Model {
    model(&[("w", doubles(&[w.len()], w))], &[("g", &[w.len()])], |x| {
        x[0] * x[1]
    })
}

/// `Σ a w²`.
fn ravine(start: [f64; 2], a: [f64; 2]) -> Model {
    model(&[("w", doubles(&[2], &start))], &[], |x| {
        x[0] * x[0] * x[0].tensor(doubles(&[2], &a))
    })
}

/// Where one element goes from 0 with these gradients.
fn path(optimizer: &dyn Optimizer, rate: f64, gradients: &[f64]) -> Vec<f64> {
    let mut run = Run::of(&given(&[0.0]), optimizer);
    let one = |&g: &f64| {
        run.step(rate, &[("g", doubles(&[1], &[g]))]);
        run.get("w")[0]
    };
    gradients.iter().map(one).collect()
}

/// How far each step goes against a gradient.
fn strides(optimizer: &str, rate: f64, gradients: &[f64]) -> Vec<f64> {
    let path = path(&*optimizer_of(optimizer), rate, gradients);
    let before = std::iter::once(&0.0).chain(&path);
    path.iter()
        .zip(before)
        .map(|(now, before)| before - now)
        .collect()
}

fn optimizer_of(text: &str) -> Box<dyn Optimizer> {
    optimizer(text).unwrap()
}

#[test]
fn f4_descent_on_a_parabola() {
    let mut run = Run::of(&ravine([3.0, 0.0], [1.0, 1.0]), &Sgd);
    for t in 1..=10 {
        run.step(0.1, &[]);
        near(&run.get("w")[..1], &[3.0 * 0.8f64.powi(t)], 1e-12);
    }
    let mut run = Run::of(&ravine([1.0, 1.0], [1.0, 100.0]), &Sgd);
    (0..50).for_each(|_| {
        run.step(0.011, &[]);
    });
    let w = run.get("w");
    assert!(w[0].abs() < 1.0 && w[1].abs() > 1.0, "{w:?}");
}

#[test]
fn f9_momentum_sums_gradients_up() {
    let path = path(&Momentum::default(), 0.1, &[1.0; 5]);
    let moves = [-0.1, -0.19, -0.271, -0.3439, -0.40951];
    let sums: Vec<f64> = (1..=5).map(|n| moves[..n].iter().sum()).collect();
    near(&path, &sums, 1e-12);
    let steps = |optimizer: &dyn Optimizer, rate: f64| {
        let mut run = Run::of(&ravine([1.0, 1.0], [1.0, 100.0]), optimizer);
        (0..2000).take_while(|_| run.loss(rate, &[]) > 1e-6).count()
    };
    // The best constant rate of descent is 2 / (2 + 200).
    assert!(steps(&Momentum::default(), 0.004) < steps(&Sgd, 2.0 / 202.0) / 2);
}

#[test]
fn f10_the_scale_of_a_gradient_does_not_matter() {
    for name in ["adam", "mean-square", "rmsprop"] {
        let both = [1.0, 2.0].map(|by| strides(name, 0.1, &[0.3 * by, -0.2 * by, 0.7 * by]));
        near(&both[0], &both[1], 1e-6);
    }
}

#[test]
fn f11_the_root_of_the_mean_of_all_squares() {
    let mut run = Run::of(&given(&[0.0]), &*optimizer_of("mean-square"));
    let mut at = 0.0;
    for (g, sigma) in [(3.0, 3.0), (4.0, 3.535534), (0.0, 2.886751)] {
        run.step(0.1, &[("g", doubles(&[1], &[g]))]);
        let now = run.get("w")[0];
        near(&[at - now], &[0.1 * g / sigma], 1e-7);
        at = now;
    }
    near(&strides("mean-square", 0.1, &[-42.0]), &[-0.1], 1e-9);
}

#[test]
fn f12_rmsprop_forgets() {
    let alpha = RmsProp {
        alpha: 0.9,
        ..RmsProp::default()
    };
    let mut run = Run::of(&given(&[0.0]), &alpha);
    run.set("w.square", &[9.0]);
    for (g, sigma) in [(4.0, 3.114482), (0.0, 2.954657f64)] {
        run.step(1.0, &[("g", doubles(&[1], &[g]))]);
        near(&[run.get("w.square")[0].sqrt()], &[sigma], 1e-6);
    }
    near(&run.get("w"), &[-4.0 / 3.114482], 1e-6);
    let last = *strides("rmsprop:alpha=0.9", 0.1, &[0.7; 200]).last().unwrap();
    near(&[last], &[0.1], 1e-6);
}

#[test]
fn f13_adagrad_slows_down() {
    let found = strides("adagrad", 0.1, &[1.0; 3]);
    near(&found, &[0.1, 0.07071068, 0.05773503], 1e-7);
    // What was seldom moved goes further.
    let seldom = strides("adagrad", 0.1, &[0.0, 0.0, 1.0]);
    assert!(seldom[2] > found[2]);
}

#[test]
fn f14_adam_corrects_its_beginning() {
    for g in [0.1, 10.0] {
        near(
            &path(&*optimizer_of("adam"), 0.001, &[g; 3]),
            &[-0.001, -0.002, -0.003],
            1e-9,
        );
    }
    near(
        &path(&*optimizer_of("adam"), 0.001, &[1.0, -1.0]),
        &[-0.001, -0.000947368],
        1e-8,
    );
}

#[test]
fn f14_adam_is_as_exact_in_floats() {
    let w = Tensor::of(&[1], vec![0f32]);
    let model = model(&[("w", w)], &[("g", &[1])], |x| x[0] * x[1]);
    let mut run = Run::of(&model, &*optimizer_of("adam"));
    run.step(1.0, &[("g", Tensor::of(&[1], vec![0.3f32]))]);
    // 1 - 0.999 in floats is wrong in the fifth digit.
    assert!((run.get("w")[0] + 1.0).abs() < 3e-7, "{:?}", run.get("w"));
}

#[test]
fn f15_newtons_step_lands_on_the_minimum() {
    // The memory of L-BFGS spans the plane after two moves, so that its direction is Newton's.
    let mut run = Run::of(&ravine([3.0, -2.0], [1.0, 7.0]), &*optimizer_of("lbfgs"));
    let end = (0..12).map(|_| run.loss(1.0, &[])).last().unwrap();
    assert!(end < 1e-10, "{end}");
}

fn clipped(clip: Clip, g: [f64; 2]) -> (Vec<f64>, Option<f64>) {
    let spec = Spec {
        clip,
        ..Spec::new(SUM, &Sgd)
    };
    let mut run = Run::new(&given(&[0.0, 0.0]), &spec);
    let outputs = run.step(1.0, &[("g", doubles(&[2], &g))]);
    let norm = outputs.iter().find(|(n, _)| Some(n) == run.graph.norm.as_ref());
    (
        run.get("w").iter().map(|w| -w).collect(),
        norm.and_then(|n| n.1.item()),
    )
}

#[test]
fn f28_clipping_by_norm_keeps_the_direction() {
    let by = |norm| Clip {
        value: None,
        norm: Some(norm),
    };
    let (g, norm) = clipped(by(1.0), [3.0, 4.0]);
    near(&g, &[0.6, 0.8], 1e-12);
    assert_eq!(norm, Some(5.0));
    assert_eq!(clipped(by(1.0), [0.3, 0.4]), (vec![0.3, 0.4], Some(0.5)));
    // Several parameters are one vector.
    let two = [("w", doubles(&[1], &[0.0])), ("v", doubles(&[1, 1], &[0.0]))];
    let model = model(&two, &[], |x| {
        x[0] * 3.0 + x[1].op("Reshape", &[x[1].tensor(Tensor::of(&[1], vec![1i64]))]) * 4.0
    });
    let spec = Spec {
        clip: by(1.0),
        ..Spec::new(SUM, &Sgd)
    };
    let mut run = Run::new(&model, &spec);
    run.step(1.0, &[]);
    near(&[run.get("w"), run.get("v")].concat(), &[-0.6, -0.8], 1e-12);
}

#[test]
fn f29_clipping_by_value_bounds_each_element() {
    let by = Clip {
        value: Some(0.5),
        norm: None,
    };
    assert_eq!(clipped(by, [3.0, -0.2]), (vec![0.5, -0.2], None));
}

#[test]
fn f21_the_length_of_the_gradient_shows_a_ravine() {
    let by = Clip {
        value: None,
        norm: Some(f64::INFINITY),
    };
    let spec = Spec {
        clip: by,
        ..Spec::new(SUM, &Sgd)
    };
    let net = ravine([50.0, 0.02], [0.01, 100.0]);
    let groups = frozen(&net);
    let spec = Spec {
        groups: &groups,
        ..spec
    };
    let mut run = Run::new(&net, &spec);
    let mut losses = vec![];
    for _ in 0..20 {
        let outputs = run.step(0.0099999, &[]);
        let get = |name: &str| outputs.iter().find(|(n, _)| n == name).unwrap().1.item().unwrap();
        losses.push(get(&run.graph.loss));
        assert!(get(run.graph.norm.as_ref().unwrap()) > 1.0);
    }
    assert!((losses[19] / losses[0] - 1.0).abs() < 0.01, "{losses:?}");
    assert_eq!(clipped(by, [3.0, 4.0]).0, [3.0, 4.0]);
}

/// Where `(w - 0.3)²`, with a penalty, has its minimum.
fn penalised(group: Group) -> f64 {
    let away = |x: &[Ex<'_>]| (x[0] - 0.3).id;
    let model = model(&[("w", doubles(&[1], &[1.0]))], &[], |x| {
        let away = Ex { id: away(x), ..x[0] };
        away * away
    });
    let spec = Spec {
        groups: &[group],
        ..Spec::new(SUM, &Sgd)
    };
    let mut run = Run::new(&model, &spec);
    (0..500).for_each(|_| {
        run.step(0.05, &[]);
    });
    run.get("w")[0]
}

#[test]
fn h1_ridge_shrinks_and_h2_lasso_makes_zeros() {
    let ridge = Group {
        l2: 2.0,
        ..Group::new("*")
    };
    near(&[penalised(ridge)], &[0.15], 1e-9);
    let lasso = |l1| {
        penalised(Group {
            l1,
            ..Group::new("*")
        })
    };
    near(&[lasso(0.2)], &[0.2], 1e-9);
    assert_eq!(lasso(0.7), 0.0);
    // Decoupled decay of gradient descent is the same as the penalty.
    let decay = Group {
        decay: Some(2.0),
        ..Group::new("*")
    };
    near(&[penalised(decay)], &[0.15], 1e-9);
}

/// The length of what a residual branch adds, `x V W`, after it has learnt that adding nothing is best.
fn branch(decay: f64) -> f64 {
    // No example has the third feature, so that only decay says anything of what the branch does with it.
    let x = doubles(
        &[4, 3],
        &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, -1.0, 0.5, 0.0],
    );
    let start = |seed: f64| doubles(&[3, 3], &[0; 9].map(|_| seed));
    let net = model(
        &[("v", start(0.4)), ("w", start(-0.3))],
        &[("x", &[4, 3])],
        |at| {
            let y = at[2] + at[2].op("MatMul", &[at[0]]).op("MatMul", &[at[1]]);
            (y - at[2]) * (y - at[2])
        },
    );
    let group = Group {
        decay: Some(decay),
        ..Group::new("*")
    };
    let spec = Spec {
        groups: &[group],
        ..Spec::new(SUM, &Sgd)
    };
    let mut run = Run::new(&net, &spec);
    (0..300).for_each(|_| drop(run.step(0.02, &[("x", x.clone())])));
    let squares = run.get("v").into_iter().map(|x| x * x);
    squares.sum::<f64>().sqrt()
}

#[test]
fn h3_decay_drives_a_branch_that_is_not_needed_to_nothing() {
    let (without, with) = (branch(0.0), branch(0.5));
    assert!(without > 0.3 && with < 0.1 * without, "{without}, {with}");
}

#[test]
fn e8_e18_what_is_masked_stays_zero_in_every_state() {
    let start = [0.5, 0.0, -0.25, 0.0];
    let target = |x: &[Ex<'_>]| (x[0] * x[0] * x[0] - x[1]).id;
    let net = model(&[("w", doubles(&[4], &start))], &[("g", &[4])], |x| {
        let away = Ex {
            id: target(x),
            ..x[0]
        };
        away * away - x[0] * x[1]
    });
    let mask = zeros_held(&doubles(&[4], &start)).unwrap();
    for name in [
        "adam",
        "adamw",
        "lbfgs",
        "momentum",
        "nesterov",
        "rmsprop-centred",
        "sgd",
    ] {
        let optimizer = optimizer_of(name);
        let group = Group {
            l2: 0.01,
            decay: Some(0.1),
            ..Group::new("*")
        };
        let spec = Spec {
            groups: &[group],
            masks: &[("w", mask.clone())],
            clip: Clip {
                value: None,
                norm: Some(1.0),
            },
            ..Spec::new(SUM, &*optimizer)
        };
        let mut run = Run::new(&net, &spec);
        for t in 0..20 {
            // What the masked part of the gradient is does not matter.
            let g = doubles(
                &[4],
                &[0.1, if t == 3 { f64::NAN } else { 9.0 }, -0.4, f64::INFINITY],
            );
            run.step(0.01, &[("g", g)]);
            for (s, t) in run
                .graph
                .state
                .iter()
                .zip(&run.state)
                .filter(|(_, t)| t.len() == 4)
            {
                let x = t.floats().unwrap();
                assert_eq!((x[1].to_bits(), x[3].to_bits()), (0, 0), "{name}, {}", s.input);
                assert!(x.iter().all(|x| x.is_finite()), "{name}, {}: {x:?}", s.input);
            }
        }
        assert!(run.get("w")[0] != start[0], "{name}");
    }
}

#[test]
fn a_mask_also_makes_zeros() {
    let spec = Spec {
        masks: &[("w", Tensor::bools(&[2], [false, true]))],
        ..Spec::new(SUM, &Sgd)
    };
    let run = Run::new(&given(&[3.0, 4.0]), &spec);
    assert_eq!(run.get("w"), [0.0, 4.0]);
    let wrong = Spec {
        masks: &[("w", Tensor::bools(&[3], [true; 3]))],
        ..spec
    };
    let e = step(&given(&[3.0, 4.0]), &wrong).unwrap_err().to_string();
    assert!(e.contains("mask of \"w\" does not fit"), "{e}");
}
