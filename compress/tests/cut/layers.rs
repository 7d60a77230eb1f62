//! Layers by name: what a layer is called stays, whatever else goes.

use secateur_compress::groups::{Of, Sizes};
use secateur_compress::methods::find;
use secateur_compress::recover::RecoverError;
use secateur_compress::rounds::{Aim, Ramp, Rounds, Run, School, Score, Told, Turn};
use secateur_compress::trim::{Frame, Trim};
use secateur_compress::{Change, Choice, Effort, Layer, Piece, Plan, Scope, Weight, apply, layers};
use secateur_engine::ir::{Bytes, DType, ValueId};
use secateur_engine::random::Random;
use secateur_engine::{Model, Tensor, onnx};

use super::archs::arch;
use super::sketch::{Sketch, int, list, outputs};

fn found(model: &Model) -> Vec<Layer> {
    layers(model, &Sizes::new()).unwrap()
}

fn names(model: &Model) -> Vec<String> {
    found(model).into_iter().map(|l| l.name).collect()
}

/// `model` without the layer `name`, written and read.
fn without(model: &Model, name: &str) -> Model {
    let layer = found(model).into_iter().find(|l| l.name == name).unwrap();
    let mut new = model.clone();
    apply(&Plan(vec![Change::Skip(layer.skip())]), &mut new).unwrap();
    onnx::parse(Bytes::new(onnx::to_bytes(&new)), None).unwrap()
}

/// `model` with what comes out of each of its layers as a further output.
fn showing(model: &Model) -> Model {
    let (mut new, all) = (model.clone(), found(model));
    for layer in &all {
        let v = new.graph.find(&layer.value).unwrap();
        if !new.graph.outputs.iter().any(|p| p.value == v) {
            new.graph.output(v, None);
        }
    }
    new
}

/// Encoders of six layers.
fn encoders() -> Vec<(String, Model)> {
    let small = [("layers", "6"), ("hidden", "16"), ("heads", "2"), ("ffn", "32")];
    let with = |more: &[(&'static str, &'static str)]| [&small, more].concat();
    let words = ("vocabulary", "20");
    let mut all = vec![
        ("bert-base".to_owned(), arch("bert-base", &with(&[words]))),
        ("vit".to_owned(), arch("vit", &with(&[]))),
        ("spelled out".to_owned(), spelled(Weights::Floats)),
        ("of bytes".to_owned(), spelled(Weights::Bytes)),
        ("of restored bytes".to_owned(), spelled(Weights::Restored)),
        ("plain".to_owned(), plain()),
    ];
    for name in ["transformer", "transformer-decoder", "transformer-encoder"] {
        for norm in ["post", "pre"] {
            all.push((
                format!("{name}, {norm}"),
                arch(name, &with(&[("norm", norm), words])),
            ));
        }
    }
    let shown: Vec<_> = all
        .iter()
        .filter(|(name, _)| name != "plain")
        .map(|(name, model)| (format!("{name}, shown"), showing(model)))
        .collect();
    all.extend(shown);
    all
}

/// Products that keep the shape of what they get, and an activation behind each.
fn plain() -> Model {
    let mut s = Sketch::new(3);
    let mut x = s.input("x", &[2, 8]);
    for _ in 0..6 {
        let w = s.weight(&[8, 8]);
        x = s.op("MatMul", &[x, w], &[]);
        x = s.op("Relu", &[x], &[]);
    }
    let w = s.weight(&[8, 3]);
    let out = s.op("MatMul", &[x, w], &[]);
    s.done(&[out])
}

/// Layers of one head as exporters write them that know no `LayerNormalization`, all with the same mask and, as ALBERT's, the same weights of
/// queries.
fn spelled(weights: Weights) -> Model {
    let mut s = Sketch::new(4);
    let (mut x, mask) = (s.input("x", &[1, 5, 8]), s.input("mask", &[1, 1, 5]));
    let (far, query) = (
        s.constant("far", Tensor::of(&[], vec![-1e4f32])),
        s.weight(&[8, 8]),
    );
    let hidden = s.op("Mul", &[mask, far], &[]);
    for _ in 0..4 {
        let [k, v, up, down] = [[8, 8], [8, 8], [8, 16], [16, 8]].map(|d| s.weight(&d));
        let [q, k, v] = [query, k, v].map(|w| product(&mut s, x, w, weights));
        let k = s.op("Transpose", &[k], &[("perm", list(&[0, 2, 1]))]);
        let scores = s.op("MatMul", &[q, k], &[]);
        let scores = s.op("Add", &[scores, hidden], &[]);
        let share = s.op("Softmax", &[scores], &[("axis", int(-1))]);
        let mixed = s.op("MatMul", &[share, v], &[]);
        let sum = s.op("Add", &[mixed, x], &[]);
        x = norm(&mut s, sum);
        let wide = product(&mut s, x, up, weights);
        let wide = s.op("Relu", &[wide], &[]);
        let narrow = product(&mut s, wide, down, weights);
        let sum = s.op("Add", &[narrow, x], &[]);
        x = norm(&mut s, sum);
    }
    let w = s.weight(&[8, 3]);
    let first = s.op("ReduceMax", &[x], &[("axes", list(&[1])), ("keepdims", int(0))]);
    let out = s.op("MatMul", &[first, w], &[]);
    s.done(&[out])
}

/// How weights are held.
#[derive(Clone, Copy, PartialEq)]
enum Weights {
    Floats,
    /// As bytes that are multiplied by bytes.
    Bytes,
    /// As bytes that are made floats.
    Restored,
}

/// `x` times the matrix `w`, or, if it is to be of bytes, times one of its shape.
fn product(s: &mut Sketch, x: ValueId, w: ValueId, weights: Weights) -> ValueId {
    if weights == Weights::Floats {
        return s.op("MatMul", &[x, w], &[]);
    }
    let dims = s.model.graph.konst(w).unwrap().dims().to_vec();
    let near = |i: usize| (i * 37 % 251) as u8;
    let count = dims.iter().product();
    let w = s.constant(
        "bytes",
        Tensor::of(&dims, (0..count).map(near).collect::<Vec<u8>>()),
    );
    let scale = s.weight(&[1, dims[1]]);
    if weights == Weights::Restored {
        let w = s.op("Cast", &[w], &[("to", int(1))]);
        let w = s.op("Mul", &[w, scale], &[]);
        return s.op("MatMul", &[x, w], &[]);
    }
    let [whole, step, zero] = s.ops("DynamicQuantizeLinear", &[x], &[], 3)[..] else {
        panic!("three outputs")
    };
    let sum = s.op("MatMulInteger", &[whole, w, zero], &[]);
    let sum = s.op("Cast", &[sum], &[("to", int(1))]);
    let scale = s.op("Mul", &[scale, step], &[]);
    s.op("Mul", &[sum, scale], &[])
}

/// `x` normalised over its last axis.
fn norm(s: &mut Sketch, x: ValueId) -> ValueId {
    let [two, small] = [2.0, 1e-5].map(|c| s.constant("c", Tensor::of(&[], vec![c as f32])));
    let [scale, shift] = [8, 8].map(|n| s.weight(&[n]));
    let mean = s.op("ReduceMean", &[x], &[("axes", list(&[-1]))]);
    let apart = s.op("Sub", &[x, mean], &[]);
    let squares = s.op("Pow", &[apart, two], &[]);
    let variance = s.op("ReduceMean", &[squares], &[("axes", list(&[-1]))]);
    let variance = s.op("Add", &[variance, small], &[]);
    let root = s.op("Sqrt", &[variance], &[]);
    let one = s.op("Div", &[apart, root], &[]);
    let scaled = s.op("Mul", &[one, scale], &[]);
    s.op("Add", &[scaled, shift], &[])
}

#[test]
fn what_is_left_is_called_as_before_whatever_goes() {
    for (seed, (what, model)) in encoders().into_iter().enumerate() {
        let all = found(&model);
        let expected = match &*what {
            _ if what.starts_with("spelled out") || what.starts_with("of ") => 4,
            _ if what.starts_with("transformer,") => 12,
            _ => 6,
        };
        assert_eq!(all.len(), expected, "{what}");
        let ends = |l: &Layer| all.iter().any(|o| o.value == l.name);
        assert!(
            what.starts_with("plain") || !all.iter().any(ends),
            "{what}: {all:?}"
        );
        let mut random = Random::new(seed as u64);
        let (mut now, mut left) = (model, all);
        while left.len() > 1 {
            // Without its decoder an encoder is not needed.
            let free = left.len() - usize::from(what.starts_with("transformer,"));
            let gone = left.remove(random.below(free));
            now = without(&now, &gone.name);
            let after = found(&now);
            let names = |all: &[Layer]| all.iter().map(|l| l.name.clone()).collect::<Vec<_>>();
            assert_eq!(names(&left), names(&after), "{what} without {}", gone.name);
            // A layer keeps all that it has; what it shared with one that went becomes its own.
            for (old, new) in left.iter().zip(&after) {
                let stays = |c: &&String| !gone.constants.contains(c);
                let mut kept = old.constants.iter().filter(stays);
                assert!(
                    kept.all(|c| new.constants.contains(c)),
                    "{what}: {old:?}, {new:?}"
                );
            }
            for gone in &gone.constants {
                assert!(now.graph.find(gone).is_none(), "{what}: {gone} is still there");
            }
            left = after;
        }
    }
}

/// Without any layer of the decoder nothing reads the encoder, of which a layer goes too.
#[test]
fn what_goes_with_a_layer_may_have_been_to_go_by_itself() {
    let small = [
        ("layers", "2"),
        ("hidden", "16"),
        ("heads", "2"),
        ("ffn", "32"),
        ("vocabulary", "20"),
    ];
    let model = arch("transformer", &small);
    let all = found(&model);
    let plan = |which: &[usize]| Plan(which.iter().map(|&i| Change::Skip(all[i].skip())).collect());
    let mut new = model.clone();
    apply(&plan(&[0, 2, 3]), &mut new).unwrap();
    assert_eq!(names(&new), [""; 0]);
    assert!(
        outputs(&new, &Sizes::new())
            .concat()
            .iter()
            .all(|x| x.is_finite())
    );
    // What was not there at all is an error, and nothing is changed.
    let mut half = model.clone();
    apply(&plan(&[1]), &mut half).unwrap();
    let before = half.clone();
    let error = apply(&plan(&[0, 1]), &mut half).unwrap_err();
    assert!(error.to_string().contains(&all[1].value), "{error}");
    assert_eq!(half, before);
}

/// Layers that are shown as outputs stay outputs, of what is left.
#[test]
fn outputs_of_layers_that_went_are_those_of_the_layers_before() {
    let model = showing(&spelled(Weights::Floats));
    let all = names(&model);
    let now = without(&without(&model, &all[2]), &all[1]);
    let [before, after] = [&model, &now].map(|m| outputs(m, &Sizes::new()));
    // The first output is that of the model.
    assert_eq!(after.len(), 5);
    assert_eq!(after[1], before[1]);
    assert_eq!([&after[2], &after[3]], [&after[1], &after[1]]);
    assert_ne!(after[4], after[1]);
}

#[derive(Default)]
struct Failing {
    at: u32,
}

impl School for Failing {
    fn score(&mut self, _: &Model) -> Result<Option<Score>, RecoverError> {
        Ok(None)
    }

    fn recover(&mut self, turn: Turn, model: Model, _: &[Weight], _: Told) -> Result<Model, RecoverError> {
        match turn.round == self.at {
            true => Err(RecoverError::wrong("it fails")),
            false => Ok(model),
        }
    }
}

/// Half of the layers.
fn half(keep: Vec<String>) -> Trim {
    Trim {
        piece: Piece::Layer,
        share: 0.5,
        of: Of::Channels,
        scope: Scope::Layer,
        round_to: 1,
        keep,
    }
}

/// Makes all matrices of the layers `which` a tenth of what they were, of each a little less than of the one before.
fn weaken(model: &mut Model, which: &[usize]) {
    let all = found(model);
    for (nth, &i) in which.iter().enumerate() {
        for name in &all[i].constants {
            let v = model.graph.find(name).unwrap();
            let konst = model.graph.values[v.0 as usize].konst.as_mut().unwrap();
            if konst.tensor.dims().len() > 1 {
                let by = 0.1 - nth as f64 / 100.0;
                let x: Vec<f64> = konst.tensor.floats().unwrap();
                let x: Vec<f64> = x.iter().map(|x| x * by).collect();
                *konst = konst.with(Tensor::rounded(DType::F32, konst.tensor.dims(), &x).unwrap());
            }
        }
    }
}

/// Half of six layers in three rounds: those that do least, wherever they stand.
#[test]
fn half_of_the_layers_go_in_rounds_and_rounds_go_on() {
    let choice = Choice::default();
    let rounds = |trim| Rounds {
        method: find("magnitude").unwrap(),
        aim: Some(Aim::Cuts(trim)),
        shown: None,
        seed: 0,
        choice: &choice,
        frame: Frame::default(),
        count: 3,
        ramp: Ramp::Linear,
        effort: Effort::default(),
    };
    let path = std::env::temp_dir().join(format!("secateur-layers-{}.onnx", std::process::id()));
    let all = encoders().into_iter().filter(|(what, model)| {
        let post = what.starts_with("bert") || what.contains("encoder, post");
        post && found(model).len() == 6
    });
    let mut tried = 0;
    for (what, mut model) in all {
        weaken(&mut model, &[3, 0, 4]);
        let before = names(&model);
        let at = |places: &[usize]| places.iter().map(|&i| before[i].clone()).collect::<Vec<_>>();
        let mut whole = Run::new(&model, rounds(half(vec![]))).unwrap();
        whole.run(&mut (), None, &mut |_| ()).unwrap();
        assert_eq!(names(whole.model()), at(&[1, 2, 5]), "{what}");
        for fails in 1..=4 {
            let _ = std::fs::remove_file(&path);
            let mut run = Run::new(&model, rounds(half(vec![]))).unwrap();
            let stopped = run.run(&mut Failing { at: fails }, Some(&path), &mut |_| ());
            assert_eq!(stopped.is_err(), fails < 4);
            let mut on = Run::new(&model, rounds(half(vec![]))).unwrap();
            assert_eq!(on.resume(&(), &path).unwrap(), fails > 1);
            let gone: &[usize] = [
                &[0, 1, 2, 3, 4, 5][..],
                &[0, 1, 2, 3, 5],
                &[1, 2, 3, 5],
                &[1, 2, 5],
            ][on.rows().len()];
            // Of those that are weakened each is weaker than the one before.
            assert_eq!(names(on.model()), at(gone), "{what}");
            on.run(&mut (), Some(&path), &mut |_| ()).unwrap();
            let shares: Vec<f64> = on.rows().iter().map(|r| r.sparsity).collect();
            let near = |(s, i): (&f64, i32)| (s - f64::from(i) / 6.0).abs() < 1e-9;
            assert!(shares.iter().zip(1..).all(near), "{what}: {shares:?}");
            assert_eq!(
                onnx::to_bytes(on.model()),
                onnx::to_bytes(whole.model()),
                "{what}"
            );
        }
        // What is kept by its name stays through all rounds.
        let mut kept = Run::new(&model, rounds(half(at(&[3])))).unwrap();
        kept.run(&mut (), None, &mut |_| ()).unwrap();
        assert!(names(kept.model()).contains(&before[3]), "{what}");
        assert_eq!(names(kept.model()).len(), 3, "{what}: three of the five others");
        tried += 1;
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(tried, 4);
}
