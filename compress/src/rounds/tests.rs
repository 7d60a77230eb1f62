use secateur_engine::Tensor;

use super::*;
use crate::methods::tests::chain;
use crate::methods::{Amount, Goal, Scope, find};
use crate::recover::RecoverErrorKind;
use crate::{Pattern, weights};

/// Two matrices of 100 and 20 weights, none of them zero.
fn model() -> Model {
    let noise = |n: usize| {
        (0..n)
            .map(|i| ((i * 7919 + 13) % 1009) as f32 / 504.0 - 1.0001)
            .collect()
    };
    chain(vec![
        Tensor::of(&[10, 10], noise(100)),
        Tensor::of(&[10, 2], noise(20)),
    ])
}

fn rounds<'a>(amount: Amount, pattern: Pattern, choice: &'a Choice, ramp: Ramp) -> Rounds<'a> {
    Rounds {
        shown: None,
        seed: 0,
        method: find("magnitude").unwrap(),
        aim: Some(Aim::Zeros(Goal {
            amount,
            scope: Scope::Global,
            pattern,
        })),
        frame: Frame::default(),
        choice,
        count: 5,
        ramp,
        effort: Effort::default(),
    }
}

/// Doubles what is left, which it takes for better, and remembers how often it was asked.
#[derive(Default)]
struct Doubling {
    recovered: Vec<Turn>,
    kept: Vec<Turn>,
    /// The round in which it fails.
    fails: u32,
}

impl School for Doubling {
    fn score(&mut self, model: &Model) -> Result<Option<Score>, RecoverError> {
        let g = &model.graph;
        let x = g
            .initializers
            .iter()
            .filter_map(|&v| g.konst(v)?.floats())
            .flatten();
        Ok(Some(Score {
            loss: -x.map(f64::abs).sum::<f64>(),
            accuracy: None,
        }))
    }

    fn recover(
        &mut self,
        turn: Turn,
        mut model: Model,
        _: &[Weight],
        _: Told,
    ) -> Result<Model, RecoverError> {
        if turn.round == self.fails {
            return Err(RecoverError::wrong("it fails"));
        }
        self.recovered.push(turn);
        for v in model.graph.initializers.clone() {
            let konst = model.graph.values[v.0 as usize].konst.as_mut().unwrap();
            let x: Vec<f64> = konst.tensor.floats().unwrap().iter().map(|x| x * 2.0).collect();
            *konst = konst.with(Tensor::rounded(konst.tensor.dtype(), konst.tensor.dims(), &x).unwrap());
        }
        Ok(model)
    }

    fn kept(&mut self, turn: Turn) {
        self.kept.push(turn);
    }
}

fn zeros(model: &Model) -> u64 {
    let all = weights(model);
    all.iter().map(|w| w.tensor.zeros_count() as u64).sum()
}

fn magnitude<'a>(share: f64, pattern: Pattern, choice: &'a Choice, ramp: Ramp) -> Rounds<'a> {
    Rounds {
        shown: None,
        seed: 0,
        method: find("magnitude").unwrap(),
        ..rounds(Amount::Sparsity(share), pattern, choice, ramp)
    }
}

#[test]
fn rounds_end_exactly_at_the_target_and_never_give_back() {
    let (model, choice) = (model(), Choice::default());
    let block = Pattern::Block {
        outputs: 1,
        inputs: 2,
    };
    let most = Pattern::Most { keep: 1, of: 5 };
    for (_, ramp, _) in RAMPS {
        for pattern in [Pattern::Unstructured, block, most, Pattern::Row] {
            let mut run = Run::new(&model, magnitude(0.8, pattern, &choice, *ramp)).unwrap();
            let (mut school, mut told) = (Doubling::default(), vec![]);
            let mut tell = |e: Event| {
                if let Event::Round(row) = e {
                    told.push(row.clone());
                }
            };
            run.run(&mut school, None, &mut tell).unwrap();
            let shares: Vec<f64> = run.rows().iter().map(|r| r.sparsity).collect();
            assert!(shares.is_sorted(), "{ramp} {pattern}: {shares:?}");
            // As few rows go as reach the share; one has 10 weights.
            let more = zeros(run.model()) - 96;
            assert!(
                more == 0 || pattern == Pattern::Row && more < 10,
                "{ramp} {pattern}: {more}"
            );
            assert_eq!(shares[4], 1.0 - (24 - more) as f64 / 120.0, "{ramp} {pattern}");
            assert_eq!(run.rows(), told);
            let numbers: Vec<u32> = school.recovered.iter().map(|t| t.round).collect();
            assert_eq!(numbers, [1, 2, 3, 4, 5]);
            // Each round measures what was pruned, and what became of it.
            let doubled = |r: &Row| r.after.unwrap().loss - 2.0 * r.before.unwrap().loss;
            assert!(run.rows().iter().all(|r| doubled(r).abs() < 1e-3));
        }
    }
}

#[test]
fn shares_are_those_of_the_ramp() {
    let (model, choice) = (model(), Choice::default());
    let mut run = Run::new(
        &model,
        magnitude(0.9, Pattern::Unstructured, &choice, Ramp::Linear),
    )
    .unwrap();
    run.run(&mut (), None, &mut |_| ()).unwrap();
    for (row, share) in run.rows().iter().zip([0.18, 0.36, 0.54, 0.72, 0.9]) {
        assert!((row.sparsity - share).abs() < 0.5 / 120.0, "{row:?}");
    }
}

#[test]
fn a_model_that_is_there_already_stays() {
    let (model, choice) = (model(), Choice::default());
    let mut first = Run::new(
        &model,
        magnitude(0.9, Pattern::Unstructured, &choice, Ramp::OneShot),
    )
    .unwrap();
    first.run(&mut (), None, &mut |_| ()).unwrap();
    let pruned = first.model().clone();
    let mut again = Run::new(
        &pruned,
        magnitude(0.5, Pattern::Unstructured, &choice, Ramp::Cubic),
    )
    .unwrap();
    again.run(&mut (), None, &mut |_| ()).unwrap();
    assert_eq!(*again.model(), pruned);
    assert!(again.rows().iter().all(|r| r.sparsity == 0.9));
}

#[test]
fn without_a_goal_there_is_recovery_only() {
    let (model, choice) = (model(), Choice::default());
    let rounds = Rounds {
        aim: None,
        count: 1,
        ..magnitude(0.9, Pattern::Unstructured, &choice, Ramp::OneShot)
    };
    let mut run = Run::new(&model, rounds).unwrap();
    run.run(&mut Doubling::default(), None, &mut |_| ()).unwrap();
    let [Score { loss: before, .. }, Score { loss: after, .. }] =
        [run.rows()[0].before, run.rows()[0].after].map(Option::unwrap);
    assert_eq!((after, run.rows()[0].sparsity), (2.0 * before, 0.0));
}

#[test]
fn what_is_left_alone_stays_in_all_rounds() {
    let model = model();
    let choice = Choice {
        keep: vec!["w1".into()],
        include: vec![],
    };
    let mut run = Run::new(
        &model,
        magnitude(0.5, Pattern::Unstructured, &choice, Ramp::Cubic),
    )
    .unwrap();
    run.run(&mut (), None, &mut |_| ()).unwrap();
    assert_eq!(zeros(run.model()), 50);
    assert_eq!(run.rows()[4].sparsity, 0.5);
    let choice = Choice {
        keep: vec!["w9".into()],
        include: vec![],
    };
    let rounds = magnitude(0.5, Pattern::Unstructured, &choice, Ramp::Cubic);
    let error = Run::new(&model, rounds).err().unwrap();
    assert!(matches!(error.kind(), RecoverErrorKind::Method(_)), "{error}");
}

#[test]
fn a_threshold_is_one_in_every_round() {
    let (model, choice) = (model(), Choice::default());
    let rounds = Rounds {
        shown: None,
        seed: 0,
        method: find("threshold").unwrap(),
        ..rounds(
            Amount::Threshold(0.5),
            Pattern::Unstructured,
            &choice,
            Ramp::Cubic,
        )
    };
    let mut run = Run::new(&model, rounds).unwrap();
    run.run(&mut (), None, &mut |_| ()).unwrap();
    let shares: Vec<f64> = run.rows().iter().map(|r| r.sparsity).collect();
    assert!(
        shares[0] > 0.3 && shares.iter().all(|s| *s == shares[0]),
        "{shares:?}"
    );
}

#[test]
fn a_round_that_fails_leaves_the_one_before() {
    let (model, choice) = (model(), Choice::default());
    let mut run = Run::new(
        &model,
        magnitude(0.8, Pattern::Unstructured, &choice, Ramp::Linear),
    )
    .unwrap();
    let mut school = Doubling {
        fails: 3,
        ..Doubling::default()
    };
    let error = run.run(&mut school, None, &mut |_| ()).unwrap_err();
    assert_eq!(error.to_string(), "round 3 of 5: it fails");
    assert_eq!(run.rows().len(), 2);
    assert_eq!(zeros(run.model()), 38);
}

#[test]
fn stopped_after_any_round_it_goes_on_to_the_same() {
    let (model, choice) = (model(), Choice::default());
    let new = || {
        Run::new(
            &model,
            magnitude(0.8, Pattern::Unstructured, &choice, Ramp::Cubic),
        )
        .unwrap()
    };
    let mut whole = new();
    whole.run(&mut Doubling::default(), None, &mut |_| ()).unwrap();
    let path = std::env::temp_dir().join(format!("secateur-rounds-{}.onnx", std::process::id()));
    for fails in 1..=6 {
        let _ = std::fs::remove_file(&path);
        let mut school = Doubling {
            fails,
            ..Doubling::default()
        };
        let _ = new().run(&mut school, Some(&path), &mut |_| ());
        assert_eq!(school.kept.len() as u32, fails - 1);
        let mut on = new();
        assert_eq!(on.resume(&school, &path).unwrap(), fails > 1);
        assert_eq!(on.rows().len() as u32, fails - 1);
        school.fails = 0;
        on.run(&mut school, Some(&path), &mut |_| ()).unwrap();
        let bytes = |run: &Run| secateur_engine::onnx::to_bytes(run.model());
        assert_eq!(bytes(&on), bytes(&whole));
        assert_eq!(school.recovered.len(), 5);
    }
    assert!(whole.rows().iter().all(|r| r.recovered));
    // Other rounds do not go on from there.
    let rounds = magnitude(0.7, Pattern::Unstructured, &choice, Ramp::Cubic);
    let error = Run::new(&model, rounds).unwrap().resume(&(), &path).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("the goal was") && text.contains("0.8"), "{text}");
    secateur_engine::onnx::save(&model, &path, true).unwrap();
    let error = new().resume(&(), &path).unwrap_err().to_string();
    assert!(error.contains("does not say which rounds"), "{error}");
    std::fs::remove_file(&path).unwrap();
}

/// Recovers by halving what is left in some rounds, which is worse, and by doubling it in others.
struct Unsteady(Doubling);

impl School for Unsteady {
    fn score(&mut self, model: &Model) -> Result<Option<Score>, RecoverError> {
        self.0.score(model)
    }

    fn recover(
        &mut self,
        turn: Turn,
        model: Model,
        pruned: &[Weight],
        told: Told,
    ) -> Result<Model, RecoverError> {
        match turn.round % 2 {
            0 => Ok(secateur_engine::Model::default()),
            _ => self.0.recover(turn, model, pruned, told),
        }
    }
}

#[test]
fn what_recovery_makes_worse_stays_as_it_was_before() {
    let (model, choice) = (model(), Choice::default());
    let rounds = magnitude(0.8, Pattern::Unstructured, &choice, Ramp::Linear);
    let mut run = Run::new(&model, rounds).unwrap();
    let mut notes = vec![];
    let mut tell = |e: Event| {
        if let Event::Note(text) = e {
            notes.push(text.to_owned());
        }
    };
    run.run(&mut Unsteady(Doubling::default()), None, &mut tell)
        .unwrap();
    let recovered: Vec<bool> = run.rows().iter().map(|r| r.recovered).collect();
    assert_eq!(recovered, [true, false, true, false, true]);
    for row in run.rows() {
        let (before, after) = (row.before.unwrap(), row.after.unwrap());
        assert_eq!(after == before, !row.recovered);
        assert!(!after.is_worse(&before));
    }
    assert_eq!(zeros(run.model()), 96);
    assert_eq!(notes.len(), 2);
    assert!(
        notes[0].starts_with("round 2 of 5: recovery made the model worse"),
        "{notes:?}"
    );
}

#[test]
fn accuracy_counts_before_the_loss() {
    let score = |loss, accuracy| Score { loss, accuracy };
    assert!(score(0.1, Some(0.4)).is_worse(&score(0.2, Some(0.5))));
    assert!(!score(0.3, Some(0.5)).is_worse(&score(0.2, Some(0.5))));
    assert!(score(0.3, None).is_worse(&score(0.2, None)));
    assert!(score(f64::NAN, None).is_worse(&score(9.0, None)));
}

#[test]
fn a_loss_that_is_no_number_comes_back() {
    let score = Score {
        loss: f64::NAN,
        accuracy: Some(0.5),
    };
    let text = serde_json::to_string(&score).unwrap();
    let back: Score = serde_json::from_str(&text).unwrap();
    assert!(back.loss.is_nan() && back.accuracy == Some(0.5), "{text}");
}
