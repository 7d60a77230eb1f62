//! Small tasks that networks must solve.

use secateur_train::optim::optimizer;

use super::steps::Run;
use super::*;

/// `x: [n, width]` and what goes with it.
fn batch(inputs: &[(&str, &[usize], Vec<f32>)], label: Tensor) -> Vec<(String, Tensor)> {
    let inputs = inputs
        .iter()
        .map(|(name, dims, x)| ((*name).to_owned(), Tensor::of(dims, x.clone())));
    inputs.chain([("label".to_owned(), label)]).collect()
}

/// The share of rows of `scores` whose greatest element is where `label` says.
fn right(scores: &Tensor, label: &[i64]) -> f64 {
    let scores = scores.floats().unwrap();
    let rows = scores.chunks(scores.len() / label.len());
    let greatest = |row: &[f64]| (0..row.len()).max_by(|&i, &j| row[i].total_cmp(&row[j])).unwrap() as i64;
    let right = rows.zip(label).filter(|(row, l)| greatest(row) == **l).count();
    right as f64 / label.len() as f64
}

#[test]
fn one_layer_finds_a_line() {
    let mut m = build("linear", &[]);
    let x: Vec<f32> = (0..20).map(|i| i as f32 / 10.0 - 1.0).collect();
    let y = x.iter().map(|x| 2.0 * x + 1.0).collect::<Vec<f32>>();
    let batch = batch(&[("x", &[20, 1], x)], Tensor::of(&[20, 1], y));
    let mut run = Run::new(&m, "mse", &*optimizer("sgd").unwrap());
    for _ in 0..200 {
        run.step(0.3, &batch);
    }
    run.put_back(&mut m);
    near(&weight(&m, "fc.weight").floats().unwrap(), &[2.0], 1e-3);
    near(&weight(&m, "fc.bias").floats().unwrap(), &[1.0], 1e-3);
}

/// Two half circles that reach into each other.
fn moons(n: usize) -> (Vec<f32>, Vec<i64>) {
    let mut r = Random::new(2);
    let mut point = |i: usize| {
        let angle = std::f64::consts::PI * r.uniform();
        let (x, y) = (angle.cos(), angle.sin());
        let (x, y) = if i.is_multiple_of(2) {
            (x, y)
        } else {
            (1.0 - x, 0.5 - y)
        };
        [x + 0.05 * r.normal(), y + 0.05 * r.normal()].map(|x| x as f32)
    };
    (
        (0..n).flat_map(&mut point).collect(),
        (0..n).map(|i| (i % 2) as i64).collect(),
    )
}

#[test]
fn hidden_layers_need_an_activation() {
    let (x, label) = moons(400);
    let batch = batch(&[("x", &[400, 2], x)], Tensor::of(&[400], label.clone()));
    let reached = |activation: &str| {
        let set = [
            ("features", "2"),
            ("classes", "2"),
            ("hidden", "16"),
            ("activation", activation),
        ];
        let m = build("mlp", &set);
        let mut run = Run::new(&m, "cross-entropy", &*optimizer("adam").unwrap());
        let mut last = || run.step(0.02, &batch).1;
        (0..199).for_each(|_| drop(last()));
        right(&last(), &label)
    };
    assert!(reached("relu") > 0.99);
    let plain = reached("none");
    assert!((0.6..0.95).contains(&plain), "{plain}");
}

#[test]
fn an_autoencoder_of_digits_beats_the_mean_digit() {
    let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../train/assets/digits.bin")).unwrap();
    let x: Vec<f32> = bytes[..500 * 64].iter().map(|&p| f32::from(p) / 16.0).collect();
    let mean: Vec<f32> = (0..64)
        .map(|p| x.iter().skip(p).step_by(64).sum::<f32>() / 500.0)
        .collect();
    let square = |(i, x): (usize, &f32)| f64::from(x - mean[i % 64]).powi(2);
    let naive = x.iter().enumerate().map(square).sum::<f64>() / x.len() as f64;
    let m = build("autoencoder", &[("features", "64"), ("hidden", "8")]);
    let batch = batch(&[("x", &[500, 64], x.clone())], Tensor::of(&[500, 64], x));
    let mut run = Run::new(&m, "mse", &*optimizer("adam").unwrap());
    let losses: Vec<f64> = (0..300).map(|_| run.step(0.01, &batch).0).collect();
    assert!(losses[299] < 0.6 * naive, "{} against {naive}", losses[299]);
}

/// Sequences of five of eight words as source and as label, and behind a word that begins them as target.
fn copies(count: usize, r: &mut Random) -> (Vec<(String, Tensor)>, Vec<i64>) {
    let words: Vec<i64> = (0..5 * count).map(|_| 1 + r.below(8) as i64).collect();
    let shifted = words.chunks(5).flat_map(|row| [&[0], &row[..4]].concat());
    let tensor = |name: &str, x: Vec<i64>| (name.to_owned(), Tensor::of(&[count, 5], x));
    let all = vec![
        tensor("source_ids", words.clone()),
        tensor("source_mask", vec![1; 5 * count]),
        tensor("target_ids", shifted.collect()),
        tensor("label", words.clone()),
    ];
    (all, words)
}

#[test]
fn an_encoder_and_a_decoder_learn_to_copy() {
    let set = [
        ("vocabulary", "9"),
        ("length", "5"),
        ("layers", "1"),
        ("hidden", "32"),
        ("heads", "4"),
        ("ffn", "64"),
        ("norm", "pre"),
    ];
    let m = build("transformer", &set);
    let mut run = Run::new(&m, "token-cross-entropy", &*optimizer("adam").unwrap());
    let mut r = Random::new(4);
    for _ in 0..400 {
        run.step(3e-3, &copies(64, &mut r).0);
    }
    let (fresh, words) = copies(200, &mut r);
    let share = right(&run.step(0.0, &fresh).1, &words);
    assert!(share > 0.99, "{share}");
}
