//! Rows E15, E17 and E18 of the founding documents: lottery tickets, looked for among the digits.

#![allow(clippy::unwrap_used, reason = "tests end where they cannot go on")]

use std::sync::Arc;
use std::time::Duration;

use secateur_compress::ticket::{Arm, Done, Layer, Past, Point, Rate, Row, Search, Trial};
use secateur_compress::{Scope, TicketError};
use secateur_engine::ir::DType;
use secateur_engine::{Model, Tensor};
use secateur_models::arch;
use secateur_train::data::{Data, Loader, LoaderOptions, Options, Part, Wanted, open};
use secateur_train::loss::{Accuracy, CrossEntropy};
use secateur_train::optim::Adam;
use secateur_train::{Course, Schedule, Spec, Term, Trainer};

/// What a test searches with.
#[derive(Clone, Copy)]
struct Setting<'a> {
    rounds: u32,
    rewind: u64,
    other: Option<&'a Model>,
    scope: Scope,
    /// Whether the validation examples are those for testing too.
    alike: bool,
}

const USUAL: Setting = Setting {
    rounds: 2,
    rewind: 0,
    other: None,
    scope: Scope::Layer,
    alike: false,
};

const STEPS: u64 = 12;

fn model(seed: u64) -> Model {
    let set = [("features", "64"), ("classes", "10")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    arch("lenet-300-100").unwrap().build(&set, seed).unwrap()
}

fn loaders(alike: bool) -> [Loader; 3] {
    let options = Options {
        validation: Part::Count(200),
        ..Options::default()
    };
    let splits = open("digits", &options).unwrap();
    let plain = LoaderOptions {
        batch: 50,
        shuffle: false,
        ..LoaderOptions::default()
    };
    let shuffled = LoaderOptions {
        shuffle: true,
        seed: 3,
        ..plain.clone()
    };
    let validation = splits.validation.unwrap();
    let test = match alike {
        true => validation.clone(),
        false => splits.test.unwrap(),
    };
    let flat = Wanted {
        name: "image".into(),
        dtype: DType::F32,
        dims: vec![Some(64)],
    };
    let load = |data: Arc<Data>, options| {
        let fit = data.fit(std::slice::from_ref(&flat), None).unwrap();
        Loader::new(fit.into(), options).unwrap()
    };
    [
        load(splits.train, shuffled),
        load(validation, plain.clone()),
        load(test, plain),
    ]
}

/// Gives `act` a trial of `model`.
fn with<T>(model: &Model, setting: Setting, act: impl FnOnce(Trial) -> T) -> T {
    let output = model.graph.outputs.first().map(|p| &*model.graph[p.value].name);
    let of: &[&str] = &[output.unwrap_or("none"), "label"];
    let entropy = CrossEntropy::default();
    let term = |loss, weight| Term { loss, of, weight };
    let terms = [term(&entropy, 1.0), term(&Accuracy, 0.0)];
    let schedule: Schedule = "constant".parse().unwrap();
    let (adam, rates) = (Adam::default(), Arc::default());
    let course = Course {
        spec: Spec::new(&terms, &adam),
        rate: 3e-3,
        schedule: &schedule,
        epochs: 1,
        patience: None,
        teachers: &[],
        checkpoint: None,
        keep: Duration::MAX,
        threads: 1,
        rates: &rates,
    };
    let [train, validation, test] = loaders(setting.alike);
    act(Trial {
        model,
        other: setting.other,
        course,
        examples: [&train, &validation, &test],
        steps: STEPS,
        every: 5,
        rounds: setting.rounds,
        rate: Rate {
            share: 0.4,
            scope: setting.scope,
        },
        rewind: setting.rewind,
        controls: &[Arm::Reinit, Arm::RandomMask],
        seed: 7,
    })
}

fn search(trial: Trial, past: Past) -> Result<Vec<Done>, TicketError> {
    let mut search = Search::new(trial, past)?;
    let mut all = vec![];
    while let Some(done) = search.next(&mut |_| ())? {
        all.push(done);
    }
    Ok(all)
}

fn whole(model: &Model, setting: Setting) -> Vec<Done> {
    with(model, setting, |trial| search(trial, Past::default()).unwrap())
}

/// The weights of two axes.
fn weights(model: &Model) -> Vec<(String, Tensor)> {
    let graph = &model.graph;
    let all = graph.initializers.iter();
    let all = all.map(|&v| (graph[v].name.to_string(), graph.konst(v).unwrap().clone()));
    all.filter(|(_, t)| t.dtype() == DType::F32 && t.dims().len() == 2)
        .collect()
}

fn bits(t: &Tensor) -> Vec<u32> {
    t.elements::<f32>().unwrap().iter().map(|x| x.to_bits()).collect()
}

fn zeros(model: &Model) -> Vec<Vec<bool>> {
    let zeros = |(_, t): &(String, Tensor)| bits(t).iter().map(|b| *b == 0).collect();
    weights(model).iter().map(zeros).collect()
}

/// A row without what differs from run to run.
fn timeless(row: &Row) -> Row {
    Row {
        seconds: 0.0,
        ..row.clone()
    }
}

fn of(all: &[Done], arm: Arm, round: u32) -> &Done {
    let found = all.iter().find(|d| (d.row.arm, d.row.round) == (arm, round));
    found.unwrap()
}

#[test]
fn e15_what_is_left_of_a_ticket_has_the_bits_of_the_first_weights() {
    let first = model(1);
    let all = whole(&first, USUAL);
    assert_eq!(of(&all, Arm::Dense, 0).start.as_ref(), Some(&first));
    for round in 1..=2 {
        let ticket = of(&all, Arm::Ticket, round).ticket.as_ref().unwrap();
        for ((name, t), (_, w)) in weights(ticket).into_iter().zip(weights(&first)) {
            let (t, w) = (bits(&t), bits(&w));
            let kept = t.iter().filter(|b| **b != 0).count();
            assert!((1..t.len()).contains(&kept), "{name}");
            assert!(t.iter().zip(&w).all(|(t, w)| t == w || *t == 0), "{name}");
        }
    }
    // 0.4 of what is left goes in a round and half of that in the last layer, rounded down each time.
    let left = |n: f64, rate: f64| (0..2).fold(n, |n, _| n - (rate * n + 1e-9).floor());
    let sizes: Vec<f64> = weights(&first).iter().map(|(_, t)| t.len() as f64).collect();
    let (last, body) = sizes.split_last().unwrap();
    let expected = body.iter().map(|n| left(*n, 0.4)).sum::<f64>() + left(*last, 0.2);
    assert_eq!(of(&all, Arm::Ticket, 2).row.weights as f64, expected);
}

#[test]
fn e15_masks_are_the_smallest_of_what_was_trained() {
    let all = whole(&model(1), USUAL);
    let (before, after) = (of(&all, Arm::Dense, 0), of(&all, Arm::Ticket, 1));
    let masked = zeros(after.ticket.as_ref().unwrap());
    for ((_, trained), zeros) in weights(&before.trained).iter().zip(masked) {
        let sizes: Vec<f64> = trained.floats().unwrap().iter().map(|x| x.abs()).collect();
        let of = |gone: bool| {
            let fit = sizes.iter().zip(&zeros).filter(move |(_, z)| **z == gone);
            fit.map(|(x, _)| *x)
        };
        assert!(of(true).fold(0.0, f64::max) <= of(false).fold(f64::INFINITY, f64::min));
    }
}

#[test]
fn e18_what_is_masked_is_zero_after_every_step_and_nothing_else_becomes_so() {
    let first = model(1);
    let all = whole(&first, Setting { rounds: 1, ..USUAL });
    let done = of(&all, Arm::Ticket, 1);
    let ticket = done.ticket.clone().unwrap();
    assert_eq!(zeros(&ticket), zeros(&done.trained));
    let masks = of(&all, Arm::Dense, 0).next.clone().unwrap();
    let layers = &masks.0;
    with(&first, USUAL, |trial| {
        let masks = masks.tensors();
        let spec = Spec {
            masks: &masks,
            ..trial.course.spec
        };
        let course = Course { spec, ..trial.course };
        let mut trainer = Trainer::new(&first, course, (trial.examples[0].clone(), None)).unwrap();
        for step in 1..=STEPS {
            trainer.advance(step, &mut |_| ()).unwrap();
            assert_eq!(trainer.steps().0, step);
            assert_eq!(zeros(&trainer.model().unwrap()), zeros(&ticket), "step {step}");
        }
        // Nor did gradients leave anything in what the optimiser keeps: means, and means of squares.
        let mut kept = 0;
        for (state, now) in trainer.graph().state.iter().zip(trainer.state()) {
            let of = |l: &&Layer| state.weight.is_none() && state.input.starts_with(&format!("{}.", l.name));
            let Some(layer) = layers.iter().find(of) else {
                continue;
            };
            kept += 1;
            let masked = bits(now).into_iter().zip(&layer.kept).filter(|(_, k)| !**k);
            assert!(masked.map(|(b, _)| b).all(|b| b == 0), "{}", state.input);
        }
        assert_eq!(kept, 2 * layers.len());
        // These are the steps that the search took, too.
        assert_eq!(weights(&trainer.model().unwrap()), weights(&done.trained));
    });
}

#[test]
fn it_goes_back_to_the_step_that_is_asked_for() {
    let first = model(1);
    let setting = Setting { rewind: 7, ..USUAL };
    let all = whole(&first, setting);
    let start = of(&all, Arm::Dense, 0).start.clone().unwrap();
    let seven = with(&first, setting, |trial| {
        let examples = (trial.examples[0].clone(), None);
        let mut trainer = Trainer::new(&first, trial.course, examples).unwrap();
        trainer.advance(7, &mut |_| ()).unwrap();
        trainer.model().unwrap()
    });
    assert_eq!(start, seven);
    assert_ne!(start, first);
    // To stop there changes nothing of what is trained.
    let usual = whole(&first, USUAL);
    let dense = |all| of(all, Arm::Dense, 0).trained.clone();
    assert_eq!(dense(&all), dense(&usual));
    let steps = |arm| -> Vec<u64> { of(&all, arm, 1).row.curve.iter().map(|p| p.step).collect() };
    assert_eq!(
        (steps(Arm::Ticket), steps(Arm::RandomMask)),
        (vec![10, 12], vec![10, 12])
    );
    assert_eq!(steps(Arm::Reinit), [5, 10, 12]);
}

#[test]
fn e17_controls_differ_in_one_thing() {
    let (first, other) = (model(1), model(2));
    let all = whole(&first, USUAL);
    let [ticket, reinit, random] = [Arm::Ticket, Arm::Reinit, Arm::RandomMask].map(|a| of(&all, a, 2));
    assert_eq!(zeros(&ticket.trained), zeros(&reinit.trained));
    assert_ne!(zeros(&ticket.trained), zeros(&random.trained));
    let counts = |d: &Done| -> Vec<usize> {
        let all = zeros(&d.trained);
        all.iter().map(|z| z.iter().filter(|z| **z).count()).collect()
    };
    assert_eq!(counts(ticket), counts(random));
    assert_ne!(reinit.trained, ticket.trained);
    // Other first weights can be given.
    let setting = Setting {
        other: Some(&other),
        ..USUAL
    };
    let given = whole(&first, setting);
    assert_ne!(of(&given, Arm::Reinit, 2).trained, reinit.trained);
    assert_eq!(of(&given, Arm::Ticket, 2).trained, ticket.trained);
}

#[test]
fn targets_are_the_dense_networks() {
    let all = whole(&model(1), USUAL);
    let least = |row: &Row| {
        let best = row.curve.iter().min_by(|a, b| a.loss.total_cmp(&b.loss));
        *best.unwrap()
    };
    let target = least(&of(&all, Arm::Dense, 0).row).accuracy;
    for row in all.iter().map(|d| &d.row) {
        let reached = |p: &&Point| p.accuracy >= target;
        let first = row.curve.iter().find(reached).map(|p| p.step);
        assert_eq!((row.target, row.steps_to_target), (target, first));
        assert_eq!(row.best_step, least(row).step);
    }
}

#[test]
fn test_examples_decide_nothing() {
    let first = model(1);
    let setting = Setting { alike: true, ..USUAL };
    let (one, two) = (whole(&first, USUAL), whole(&first, setting));
    let blind = |all: &[Done]| -> Vec<Row> {
        let row = |d: &Done| Row {
            accuracy: 0.0,
            final_accuracy: 0.0,
            ..timeless(&d.row)
        };
        all.iter().map(row).collect()
    };
    assert_eq!(blind(&one), blind(&two));
    let other = |(a, b): (&Done, &Done)| a.row.accuracy != b.row.accuracy;
    assert!(one.iter().zip(&two).any(other));
    // Where both are the same examples, what was measured of them is too.
    for row in two.iter().map(|d| &d.row) {
        let at = |step: u64| row.curve.iter().find(|p| p.step == step).unwrap().accuracy;
        assert_eq!((row.accuracy, row.final_accuracy), (at(row.best_step), at(STEPS)));
    }
}

#[test]
fn what_was_interrupted_goes_on_to_the_same() {
    let first = model(1);
    let late = Setting {
        rewind: 5,
        scope: Scope::Global,
        ..USUAL
    };
    for setting in [USUAL, late] {
        let all = whole(&first, setting);
        for done in 0..=all.len() {
            let kept = &all[..done];
            let masks = kept.iter().rev().find_map(|d| d.next.as_ref());
            let past = Past {
                rows: kept.iter().map(|d| d.row.clone()).collect(),
                start: kept.first().and_then(|d| d.start.clone()),
                masks: masks.map(|m| m.model()),
            };
            let rest = with(&first, setting, |trial| search(trial, past).unwrap());
            assert_eq!(rest.len(), all.len() - done);
            for (a, b) in rest.iter().zip(&all[done..]) {
                assert_eq!(timeless(&a.row), timeless(&b.row), "after {done}");
                assert_eq!((&a.trained, &a.next), (&b.trained, &b.next), "after {done}");
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let first = model(1);
    let told = |change: &dyn Fn(&mut Trial), past: Past| {
        with(&first, USUAL, |mut trial| {
            change(&mut trial);
            let refused = Search::new(trial, past).map(|_| ());
            refused.unwrap_err().to_string()
        })
    };
    let none = Past::default;
    assert!(told(&|t| t.rate.share = 1.0, none()).contains("the rate is 1"));
    assert!(told(&|t| t.rewind = STEPS, none()).contains("going back to step 12"));
    assert!(told(&|t| t.controls = &[Arm::Ticket], none()).contains("no controls"));
    let all = whole(&first, USUAL);
    let rows = all[1..3].iter().map(|d| d.row.clone()).collect();
    let past = Past { rows, ..none() };
    assert!(told(&|_| (), past).contains("not of this search"));
    let bare = Model::default();
    assert!(with(&bare, USUAL, |t| Search::new(t, none()).is_err()));
}
