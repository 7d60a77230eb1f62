use secateur_engine::Tensor;
use secateur_engine::ir::{DType, Dim, Node, Type};
use secateur_engine::onnx::to_bytes;
use secateur_engine::random::Random;

use super::*;
use crate::methods::find;
use crate::methods::tests::chain;
use crate::rounds::{Aim, Event, Ramp, Rounds, Run, School, Score, Told, Turn};
use crate::scan::Effort;
use crate::{Choice, Weight, weights};

/// Matrices of 16 by 128, 128 by 96 and 96 by 10: of 224 neurons some may go.
fn model() -> Model {
    let of = |n, dims: &[usize]| Random::new(n).normals(dims, 0.0, 1.0);
    chain(vec![of(1, &[16, 128]), of(2, &[128, 96]), of(3, &[96, 10])])
}

fn trim(share: f64, of: Of, scope: Scope) -> Trim {
    Trim {
        piece: Piece::Neuron,
        share,
        of,
        scope,
        round_to: 8,
        keep: vec![],
    }
}

fn rounds(trim: Trim, choice: &Choice, count: u32, ramp: Ramp) -> Rounds<'_> {
    Rounds {
        shown: None,
        seed: 0,
        method: find("magnitude").unwrap(),
        aim: Some(Aim::Cuts(trim)),
        choice,
        frame: Frame::default(),
        count,
        ramp,
        effort: Effort::default(),
    }
}

/// The dimensions of the matrices.
fn dims(model: &Model) -> Vec<Vec<usize>> {
    weights(model).iter().map(|w| w.tensor.dims().to_vec()).collect()
}

/// Changes every weight a little, in a way that the round decides, and can fail.
#[derive(Default)]
struct Shaking {
    fails: u32,
}

impl School for Shaking {
    fn score(&mut self, _: &Model) -> Result<Option<Score>, RecoverError> {
        Ok(None)
    }

    fn recover(
        &mut self,
        turn: Turn,
        mut model: Model,
        pruned: &[Weight],
        _: Told,
    ) -> Result<Model, RecoverError> {
        if turn.round == self.fails {
            return Err(RecoverError::wrong("it fails"));
        }
        assert!(pruned.iter().all(|w| w.exempt.is_none()));
        let mut random = Random::new(u64::from(turn.round));
        for v in model.graph.initializers.clone() {
            let konst = model.graph.values[v.0 as usize].konst.as_mut().unwrap();
            let x: Vec<f64> = konst.tensor.floats().unwrap();
            let x: Vec<f64> = x.iter().map(|x| x * (0.5 + random.uniform())).collect();
            *konst = konst.with(Tensor::rounded(konst.tensor.dtype(), konst.tensor.dims(), &x).unwrap());
        }
        Ok(model)
    }
}

#[test]
fn rounds_of_cuts_follow_the_ramp_and_end_where_one_round_does() {
    let (model, choice) = (model(), Choice::default());
    for of in [Of::Channels, Of::Parameters, Of::Macs] {
        for scope in [Scope::Layer, Scope::Global] {
            let run = |count, ramp| {
                let mut run = Run::new(&model, rounds(trim(0.5, of, scope), &choice, count, ramp)).unwrap();
                run.run(&mut (), None, &mut |_| ()).unwrap();
                (run.rows().to_vec(), run.model().clone())
            };
            let (once, at_once) = run(1, Ramp::OneShot);
            let (rows, in_rounds) = run(6, Ramp::Linear);
            let shares: Vec<f64> = rows.iter().map(|r| r.sparsity).collect();
            assert!(
                shares.is_sorted() && shares[0] > 0.0,
                "{of:?} {scope:?}: {shares:?}"
            );
            // A multiple of 8 in each of two groups may be missing.
            let near = |(s, i): (&f64, i32)| (s - f64::from(i) / 12.0).abs() < 0.06;
            assert!(shares.iter().zip(1..).all(near), "{of:?} {scope:?}: {shares:?}");
            // Nothing was trained, so that the order is the same.
            if scope == Scope::Layer {
                assert_eq!(dims(&in_rounds), dims(&at_once));
                assert_eq!(once[0].sparsity, shares[5]);
            }
        }
    }
}

#[test]
fn small_steps_are_not_lost_to_rounding() {
    let (model, choice) = (model(), Choice::default());
    let wide = Trim {
        round_to: 64,
        ..trim(0.5, Of::Channels, Scope::Layer)
    };
    let mut run = Run::new(&model, rounds(wide, &choice, 20, Ramp::Linear)).unwrap();
    run.run(&mut Shaking::default(), None, &mut |_| ()).unwrap();
    assert_eq!(dims(run.model()), [[16, 64], [64, 64], [64, 10]]);
}

#[test]
fn stopped_after_any_round_cuts_go_on_to_the_same() {
    let (model, choice) = (model(), Choice::default());
    let new = || {
        let trim = trim(0.6, Of::Macs, Scope::Global);
        Run::new(&model, rounds(trim, &choice, 4, Ramp::Cubic)).unwrap()
    };
    let mut whole = new();
    whole.run(&mut Shaking::default(), None, &mut |_| ()).unwrap();
    let path = std::env::temp_dir().join(format!("secateur-cuts-{}.onnx", std::process::id()));
    for fails in 1..=5 {
        let _ = std::fs::remove_file(&path);
        let mut school = Shaking { fails };
        let _ = new().run(&mut school, Some(&path), &mut |_| ());
        let mut on = new();
        assert_eq!(on.resume(&school, &path).unwrap(), fails > 1);
        assert_eq!(on.rows().len() as u32, fails - 1);
        school.fails = 0;
        on.run(&mut school, Some(&path), &mut |_| ()).unwrap();
        assert_eq!(to_bytes(on.model()), to_bytes(whole.model()));
        let shares = |run: &Run| run.rows().iter().map(|r| r.sparsity).collect::<Vec<_>>();
        assert_eq!(shares(&on), shares(&whole));
    }
    let trim = trim(0.6, Of::Parameters, Scope::Global);
    let other = rounds(trim, &choice, 4, Ramp::Cubic);
    let error = Run::new(&model, other).unwrap().resume(&(), &path).unwrap_err();
    assert!(error.to_string().contains("the goal was"), "{error}");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn what_is_kept_stays_and_what_fits_nothing_is_refused() {
    let (model, choice) = (model(), Choice::default());
    let with = |keep: &str| Trim {
        keep: vec![keep.into()],
        ..trim(0.5, Of::Channels, Scope::Layer)
    };
    let mut run = Run::new(&model, rounds(with("w0*"), &choice, 2, Ramp::Linear)).unwrap();
    let mut told = 0;
    run.run(&mut (), None, &mut |e| {
        told += i32::from(matches!(e, Event::Round(_)))
    })
    .unwrap();
    assert_eq!(dims(run.model()), [[16, 128], [128, 48], [48, 10]]);
    assert_eq!((told, run.rows()[1].sparsity), (2, 0.5));
    let refused = |trim| {
        Run::new(&model, rounds(trim, &choice, 1, Ramp::Linear))
            .err()
            .unwrap()
    };
    let error = refused(with("v*")).to_string();
    assert!(error.contains("\"v*\" fits no"), "{error}");
    let all = trim(1.0, Of::Channels, Scope::Layer);
    assert!(refused(all).to_string().contains("0 to below 1"));
    let none = Trim {
        piece: Piece::Channel,
        ..trim(0.5, Of::Channels, Scope::Layer)
    };
    assert!(refused(none).to_string().contains("nothing to cut"));
}

/// A share of multiply-adds, where there are none.
#[test]
fn a_share_of_nothing_is_refused() {
    let mut model = chain(vec![]);
    let g = &mut model.graph;
    let x = g.input("v", Type::tensor(DType::F32, [Dim::from(4usize), 1usize.into()]));
    let w = g.constant("w", Random::new(4).normals(&[4, 64], 0.0, 1.0));
    let (y, z) = (g.value("y"), g.value("z"));
    g.node(Node::new("Mul", [x, w].map(Some).into(), vec![Some(y)]));
    let axes = g.constant("axes", Tensor::of(&[1], vec![1i64]));
    g.node(Node::new("ReduceSum", [y, axes].map(Some).into(), vec![Some(z)]));
    g.output(z, None);
    let frame = Frame::default();
    let first = trim(0.5, Of::Channels, Scope::Layer)
        .first(&model, &frame)
        .unwrap();
    assert_eq!(first.sizes.values().copied().collect::<Vec<_>>(), [64]);
    let error = trim(0.5, Of::Macs, Scope::Layer)
        .first(&model, &frame)
        .unwrap_err();
    assert!(error.to_string().contains("nothing of what a share"), "{error}");
}
