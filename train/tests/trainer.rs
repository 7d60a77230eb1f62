//! Training over epochs: the same to the bit however it is interrupted, and clear about what goes wrong.
#![allow(clippy::unwrap_used, reason = "tests end where they cannot go on")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secateur_engine::expr::Builder;
use secateur_engine::ir::{Attr, DType, Dim, Opset, Type};
use secateur_engine::{Model, Tensor, ops};
use secateur_train::data::{self, Loader, LoaderOptions, Options};
use secateur_train::loss::{Accuracy, CrossEntropy, loss};
use secateur_train::optim::optimizer;
use secateur_train::{
    Course, Event, Schedule, Segments, Spec, Teacher, Term, TrainErrorKind, Trainer, evaluate, initialize,
};

/// 64 → 24 → 10 on images of digits, with dropout.
fn model() -> Model {
    let mut model = Model {
        ir_version: Some(10),
        opsets: vec![Opset {
            domain: Some("".into()),
            version: Some(ops::OPSET),
            extra: Default::default(),
        }],
        ..Model::default()
    };
    let g = &mut model.graph;
    let dims = [
        Dim::Symbol("batch".into()),
        1usize.into(),
        8usize.into(),
        8usize.into(),
    ];
    let ty = Type::tensor(DType::F32, dims);
    let image = g.input("image", ty.clone());
    g[image].ty = Some(ty);
    let weight = |g: &mut secateur_engine::ir::Graph, name: &str, dims: &[usize]| {
        g.constant(name, Tensor::zeros(DType::F32, dims).unwrap())
    };
    let [w1, b1] = [weight(g, "w1", &[64, 24]), weight(g, "b1", &[24])];
    let [w2, b2] = [weight(g, "w2", &[24, 10]), weight(g, "b2", &[10])];
    let graph = g.clone();
    let b = Builder::new(&graph, ops::OPSET);
    let at = |v| b.at(v);
    let flat = at(image).with("Flatten", &[], vec![Attr::new("axis", 1)]);
    let hidden = flat
        .op("Gemm", &[at(w1), at(b1)])
        .op("Relu", &[])
        .op("Dropout", &[]);
    let scores = hidden.op("Gemm", &[at(w2), at(b2)]).id;
    b.finish().apply(&mut model.graph).unwrap();
    model.graph[scores].name = "scores".into();
    model.graph.output(scores, None);
    initialize(&mut model, "w*", "he-uniform".parse().unwrap(), 3).unwrap();
    model
}

/// What a test trains with.
struct Setting<'a> {
    rate: f64,
    epochs: u64,
    threads: usize,
    patience: Option<u64>,
    optimizer: &'a str,
    schedule: &'a str,
    checkpoint: Option<&'a Path>,
    keep: Duration,
    batch: usize,
    segments: Option<Segments>,
}

const USUAL: Setting = Setting {
    rate: 0.003,
    epochs: 3,
    threads: 1,
    patience: None,
    optimizer: "adam",
    schedule: "warmup:1+cosine:4",
    checkpoint: None,
    keep: Duration::MAX,
    batch: 100,
    segments: None,
};

fn loaders(batch: usize) -> (Loader, Option<Loader>) {
    let splits = data::open("digits", &Options::default()).unwrap();
    let options = LoaderOptions {
        batch,
        seed: 5,
        ..LoaderOptions::default()
    };
    let measured = LoaderOptions {
        shuffle: false,
        ..options.clone()
    };
    let validation = splits.validation.map(|v| Loader::new(v, measured).unwrap());
    (Loader::new(splits.train, options).unwrap(), validation)
}

/// Gives `act` a trainer.
fn with<T>(model: &Model, setting: &Setting, act: impl FnOnce(&mut Trainer) -> T) -> T {
    let entropy = CrossEntropy::default();
    let of: &[&str] = &["scores", "label"];
    let term = |loss, weight| Term { loss, of, weight };
    let terms = [term(&entropy, 1.0), term(&Accuracy, 0.0)];
    let optimizer = optimizer(setting.optimizer).unwrap();
    let (schedule, rates): (Schedule, _) = (setting.schedule.parse().unwrap(), Arc::default());
    let course = Course {
        spec: Spec {
            segments: setting.segments,
            ..Spec::new(&terms, &*optimizer)
        },
        rate: setting.rate,
        schedule: &schedule,
        epochs: setting.epochs,
        patience: setting.patience,
        teachers: &[],
        checkpoint: setting.checkpoint,
        keep: setting.keep,
        threads: setting.threads,
        rates: &rates,
    };
    act(&mut Trainer::new(model, course, loaders(setting.batch)).unwrap())
}

fn trained(setting: &Setting) -> Model {
    with(&model(), setting, |t| {
        t.run(&mut |_| ()).unwrap();
        t.model().unwrap()
    })
}

fn file(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("secateur-trainer-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(name)
}

#[test]
fn weights_are_the_same_to_the_bit_on_any_number_of_threads() {
    let one = trained(&USUAL);
    assert_ne!(one, model());
    for threads in [1, 2, 3] {
        assert_eq!(trained(&Setting { threads, ..USUAL }), one, "{threads} threads");
    }
}

#[test]
fn what_is_computed_again_changes_no_bit() {
    let segments = Some(Segments::Count(2));
    let setting = Setting { segments, ..USUAL };
    assert_eq!(trained(&setting), trained(&USUAL));
    let nodes = |s: &Setting| with(&model(), s, |t| t.graph().model.graph.order.len());
    assert!(nodes(&setting) > nodes(&USUAL));
}

#[test]
fn what_was_interrupted_goes_on_to_the_same() {
    let whole = trained(&USUAL);
    let path = file("interrupted");
    let setting = Setting {
        checkpoint: Some(&path),
        ..USUAL
    };
    // A watch that panics stands for a process that is killed: with a checkpoint after each epoch of 13 steps, and after each step.
    let often = Setting {
        keep: Duration::ZERO,
        ..setting
    };
    let killed = [(1, &setting, false), (14, &setting, true), (26, &setting, true)];
    let killed = killed
        .into_iter()
        .chain([(2, &often, true), (9, &often, true), (20, &often, true)]);
    for (steps, setting, kept) in killed {
        let _ = std::fs::remove_file(&path);
        let killed = std::panic::catch_unwind(|| {
            with(&model(), setting, |t| {
                t.run(&mut |event| match event {
                    Event::Step { done, .. } if done == steps => panic!("killed on purpose"),
                    _ => {}
                })
            })
        });
        assert!(killed.is_err());
        let (found, after) = with(&model(), setting, |t| {
            let found = t.resume().unwrap();
            t.run(&mut |_| ()).unwrap();
            (found, t.model().unwrap())
        });
        assert_eq!((found, after == whole), (kept, true), "killed in step {steps}");
    }
}

#[test]
fn checkpoints_of_others_are_refused() {
    let path = file("others");
    let kept = Setting {
        checkpoint: Some(&path),
        epochs: 1,
        ..USUAL
    };
    trained(&kept);
    let told = |setting: &Setting, model: &Model| {
        let e = with(model, setting, |t| t.resume().unwrap_err());
        assert!(matches!(e.kind(), TrainErrorKind::Checkpoint(_)));
        e.to_string()
    };
    let rate = Setting { rate: 0.1, ..kept };
    assert!(told(&rate, &model()).contains("the rate was 0.003, and is 0.1 now"));
    let optimizer = Setting {
        optimizer: "sgd",
        ..kept
    };
    assert!(told(&optimizer, &model()).contains("the optimiser"));
    // The same network with other weights is another training.
    let mut other = model();
    initialize(&mut other, "w*", "he-uniform".parse().unwrap(), 4).unwrap();
    assert!(told(&kept, &other).contains("its weights"));
    let whole = std::fs::read(&path).unwrap();
    for cut in [0, 7, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        assert!(told(&kept, &model()).contains("no checkpoint"), "{cut} bytes");
    }
}

#[test]
fn patience_brings_the_best_epoch_back() {
    // At such a rate the loss goes up and down.
    let setting = Setting {
        rate: 0.05,
        schedule: "constant",
        epochs: 40,
        patience: Some(2),
        ..USUAL
    };
    with(&model(), &setting, |t| {
        t.run(&mut |_| ()).unwrap();
        let losses: Vec<f64> = t
            .rows()
            .iter()
            .map(|r| r.validation.as_ref().unwrap().loss)
            .collect();
        let best = losses.iter().copied().fold(f64::INFINITY, f64::min);
        assert!(t.stopped() && losses.len() < 40, "{losses:?}");
        assert_eq!(losses[losses.len() - 3], best, "{losses:?}");
        let (_, validation) = loaders(100);
        assert_eq!(t.score(&validation.unwrap()).unwrap().loss, best);
    });
}

#[test]
fn what_diverges_is_found() {
    let setting = Setting {
        optimizer: "sgd",
        rate: 1e38,
        ..USUAL
    };
    let e = with(&model(), &setting, |t| t.run(&mut |_| ()).unwrap_err());
    let TrainErrorKind::Diverged(found) = e.kind() else {
        panic!("{e}");
    };
    assert!(found.step <= 3 && found.node.is_some(), "{e}");
    assert!(found.made.iter().all(|(_, most)| most.is_finite()), "{e}");
    // The last step of all is looked at too, though no loss follows it: here it is the only one.
    let last = Setting {
        epochs: 1,
        rate: 1e39,
        batch: 2000,
        schedule: "constant",
        ..setting
    };
    assert!(with(&model(), &last, |t| t.run(&mut |_| ()).is_err()));
    // A weight that is no number is nobody's fault but the file's.
    let mut broken = model();
    let v = broken.graph.find("b2").unwrap();
    let nan = Tensor::of(&[10], vec![f32::NAN; 10]);
    let konst = broken.graph[v].konst.take().unwrap();
    broken.graph[v].konst = Some(konst.with(nan));
    let e = with(&broken, &USUAL, |t| t.run(&mut |_| ()).unwrap_err());
    assert!(e.to_string().contains("what goes into it is not finite"), "{e}");
}

#[test]
fn digits_are_learnt() {
    let setting = Setting {
        epochs: 5,
        rate: 0.02,
        ..USUAL
    };
    with(&model(), &setting, |t| {
        t.run(&mut |_| ()).unwrap();
        let accuracy = t.rows().last().unwrap().validation.as_ref().unwrap().terms[1];
        assert!(accuracy > 0.9, "{accuracy}");
    });
}

#[test]
fn however_training_is_divided_it_ends_in_the_same() {
    let whole = trained(&USUAL);
    let (divided, stops) = with(&model(), &USUAL, |t| {
        let mut stops = vec![];
        // An epoch has 13 steps: within epochs, at their ends, and beyond the last.
        for until in [1, 5, 13, 13, 14, 30, 39, 99] {
            let more = t.advance(until, &mut |_| ()).unwrap();
            stops.push((t.steps().0, more));
        }
        assert_eq!(t.rows().len(), 3);
        (t.model().unwrap(), stops)
    });
    assert_eq!(divided, whole);
    let expected = [1, 5, 13, 13, 14, 30].map(|n| (n, true));
    assert_eq!(stops[..6], expected);
    assert_eq!(stops[6..], [(39, false), (39, false)]);
}

#[test]
fn weights_are_measured_as_a_file_would_be() {
    let (_, validation) = loaders(100);
    let validation = validation.unwrap();
    with(&model(), &USUAL, |t| {
        let first = t.state().to_vec();
        t.advance(20, &mut |_| ()).unwrap();
        let now = t.state().to_vec();
        let file = t.score(&validation).unwrap();
        let weights = t.score_state(&now, &validation).unwrap();
        assert!(
            (file.loss - weights.loss).abs() < 1e-5 * file.loss,
            "{file:?} {weights:?}"
        );
        assert_eq!(file.terms[1], weights.terms[1]);
        // The state before is still what it was.
        let before = t.score_state(&first, &validation).unwrap();
        assert!(before.loss > weights.loss);
        assert!(t.score_state(&first[1..], &validation).is_err());
    });
}

#[test]
fn training_can_begin_later() {
    let rates = |from: u64| {
        let mut seen = vec![];
        with(&model(), &USUAL, |t| {
            t.begin_at(from);
            t.run(&mut |event| match event {
                Event::Step {
                    done, epoch, rate, ..
                } => seen.push((done, epoch, rate)),
                Event::Epoch(_) => {}
            })
            .unwrap();
        });
        seen
    };
    assert_eq!(rates(17), rates(0)[17..]);
}

/// The model with the output of its first layer called "hidden", and other weights.
fn hinted(seed: u64) -> Model {
    let mut model = model();
    initialize(&mut model, "w*", "he-uniform".parse().unwrap(), seed).unwrap();
    let g = &mut model.graph;
    let first = g.order.iter().find(|id| g[**id].is("Gemm")).copied().unwrap();
    let value = g[first].outputs[0].unwrap();
    g[value].name = "hidden".into();
    model
}

#[test]
fn several_values_of_several_teachers_are_learned_from() {
    let (pupil, [a, b]) = (hinted(1), [hinted(2), hinted(3)]);
    let mse = loss("mse").unwrap();
    let of = [["scores", "a"], ["hidden", "inner"], ["scores", "b"]];
    let terms = of.each_ref().map(|of| Term {
        loss: &*mse,
        of,
        weight: 1.0,
    });
    let [said, inner, other] = [("a", &a, "scores"), ("inner", &a, "hidden"), ("b", &b, "scores")]
        .map(|(label, model, output)| Teacher { label, model, output });
    let (optimizer, schedule) = (optimizer("adam").unwrap(), "constant".parse().unwrap());
    let (rates, teachers) = (Arc::default(), [said, inner, other]);
    let course = Course {
        spec: Spec::new(&terms, &*optimizer),
        rate: 0.003,
        schedule: &schedule,
        epochs: 1,
        patience: None,
        teachers: &teachers,
        checkpoint: None,
        keep: Duration::MAX,
        threads: 1,
        rates: &rates,
    };
    let (train, measured) = loaders(100);
    let measured = measured.unwrap();
    let terms = |model: &Model| evaluate(model, &course, &measured).unwrap().terms;
    // Each is measured by what it is to be like.
    let own = [terms(&a), terms(&b)];
    assert_eq!((own[0][0], own[0][1], own[1][2]), (0.0, 0.0, 0.0));
    assert!(own[0][2] > 0.1 && own[1][0] > 0.1 && own[1][1] > 0.1, "{own:?}");
    assert_eq!(own[0][2], own[1][0]);
    let before = terms(&pupil);
    let mut trainer = Trainer::new(&pupil, course, (train, None)).unwrap();
    trainer.run(&mut |_| ()).unwrap();
    let after = terms(&trainer.model().unwrap());
    assert!(after[1] < 0.9 * before[1], "{before:?} {after:?}");
}
