//! Networks over tokens: what they see, and what of them can be read.

use secateur_engine::ir::Port;
use secateur_engine::opt::infer::infer;
use secateur_engine::opt::{CLEANING, Scope, apply as apply_all};

use super::*;

const LONG: &[(&str, &str)] = &[("length", "0")];

/// The names and shapes of all outputs for a batch of 2 and 9 tokens.
fn outputs(m: &Model) -> Vec<(String, Vec<usize>)> {
    let names = m.graph.outputs.iter().map(|p| m.graph[p.value].name.to_string());
    let made = run(m, &inputs(m, 2, 1), &[]);
    names
        .zip(made)
        .map(|(name, t)| (name, t.dims().to_vec()))
        .collect()
}

#[test]
fn heads_of_bert_give_what_they_tell() {
    let of = |head: &str| outputs(&small("bert-base", &[LONG, &[("head", head)]].concat()));
    let one = |name: &str, dims: &[usize]| vec![(name.to_owned(), dims.to_vec())];
    assert_eq!(of("none"), one("last_hidden_state", &[2, 9, 16]));
    assert_eq!(of("classify"), one("logits", &[2, 3]));
    assert_eq!(of("tokens"), one("logits", &[2, 9, 3]));
    assert_eq!(of("answer"), one("logits", &[2, 9, 2]));
}

#[test]
fn the_states_of_bert_can_be_read() {
    let m = build(
        "bert-base",
        &[
            &BERT[1..],
            LONG,
            &[("layers", "12"), ("taps", "yes"), ("head", "none")],
        ]
        .concat(),
    );
    let all = outputs(&m);
    let names: Vec<_> = (0..=12).map(|i| format!("H{i}")).collect();
    assert_eq!(all[1..].iter().map(|(n, _)| n.clone()).collect::<Vec<_>>(), names);
    assert!(all.iter().all(|(_, dims)| *dims == [2, 9, 16]));
    let made = run(&m, &inputs(&m, 2, 1), &[]);
    assert_eq!(made[0], made[13]);
    assert_ne!(made[1], made[2]);
}

#[test]
fn a_layer_of_bert_has_its_parameters() {
    let of = |layers: &str| {
        let set = [("layers", layers), ("vocabulary", "1"), ("positions", "1")];
        parameters(&build("bert-base", &set))
    };
    assert_eq!(of("2") - of("1"), 7_087_872);
}

#[test]
fn bert() {
    let set = [
        ("hidden", "96"),
        ("heads", "4"),
        ("ffn", "192"),
        ("vocabulary", "100"),
        ("positions", "20"),
    ];
    let m = build("bert-base", &set);
    let layer = 4 * (96 * 96 + 96) + 2 * 96 * 192 + 192 + 96 + 4 * 96;
    assert_eq!(parameters(&m), (100 + 20 + 2 + 2) * 96 + 12 * layer);
    assert_eq!(outputs(&m)[0].1, [2, 9, 96]);
}

#[test]
fn attention_and_gelu_are_recognised() {
    let text: &[_] = &[("layers", "3")];
    for name in ["bert-base", "transformer-encoder", "transformer-decoder"] {
        let session = Session::builder(&small(name, text)).build().unwrap();
        let count = |op: &str| session.model().graph.iter().filter(|(_, n)| &*n.op == op).count();
        assert_eq!(
            (count("Attention"), count("Softmax"), count("Erf")),
            (3, 0, 0),
            "{name}"
        );
    }
}

/// What `m` makes of `inputs` where the word at `place` of the first sequence of `name` is another.
fn with_another_word(m: &Model, inputs: &[(String, Tensor)], name: &str, place: usize) -> Vec<f64> {
    let mut inputs = inputs.to_vec();
    let words = inputs.iter_mut().find(|(n, _)| n == name).unwrap();
    let (dims, mut ids) = (words.1.dims().to_vec(), words.1.ints().unwrap());
    ids[place] += 7;
    words.1 = Tensor::of(&dims, ids);
    run(m, &inputs, &[])[0].floats().unwrap()
}

#[test]
fn what_follows_the_end_of_a_sequence_is_not_seen() {
    for name in ["rnn", "gru", "lstm", "transformer-encoder"] {
        let m = small(name, &[("vocabulary", "20"), ("layers", "2")]);
        let mut inputs = inputs(&m, 2, 3);
        let mask = vec![1i64, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1];
        inputs[1].1 = Tensor::of(&[2, 6], mask);
        let y = run(&m, &inputs, &[])[0].floats().unwrap();
        near(&with_another_word(&m, &inputs, "input_ids", 5), &y, 1e-6);
        assert_ne!(with_another_word(&m, &inputs, "input_ids", 3), y, "{name}");
    }
}

#[test]
fn positions_tell_the_order_of_words() {
    let mut m = small("transformer-encoder", &[]);
    let mut told = |positions: bool| {
        if !positions {
            fill(&mut m, "embeddings.positions.weight", 0.0);
        }
        let y = |ids: &[i64]| {
            let one = |name: &str, x: &[i64]| (name.to_owned(), Tensor::of(&[1, 6], x.to_vec()));
            let inputs = [one("input_ids", ids), one("attention_mask", &[1; 6])];
            run(&m, &inputs, &[])[0].floats().unwrap()
        };
        let (a, b) = (y(&[1, 2, 3, 4, 5, 6]), y(&[6, 2, 4, 3, 5, 1]));
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    };
    assert!(told(true) > 1e-4);
    assert!(told(false) < 1e-5);
}

#[test]
fn a_decoder_sees_no_later_word() {
    for (name, words) in [
        ("transformer-decoder", "input_ids"),
        ("transformer", "target_ids"),
    ] {
        let m = small(name, &[("layers", "2")]);
        let inputs = inputs(&m, 1, 4);
        let y = run(&m, &inputs, &[])[0].floats().unwrap();
        let changed = with_another_word(&m, &inputs, words, 4);
        assert_eq!(y[..4 * 20], changed[..4 * 20], "{name}");
        assert_ne!(y[4 * 20..], changed[4 * 20..]);
    }
}

#[test]
fn the_encoder_runs_once_for_all_steps_of_the_decoder() {
    let m = small("transformer", &[]);
    let inputs = inputs(&m, 2, 5);
    let made = run(&m, &inputs, &["memory"]);
    assert_eq!(made[1].dims(), [2, 6, 16]);
    // The decoder by itself: the memory comes from outside.
    let mut decoder = m.clone();
    given(&mut decoder, "memory");
    let feeds: Vec<_> = [("memory".to_owned(), made[1].clone())]
        .into_iter()
        .chain(inputs[1..].to_vec())
        .collect();
    near(
        &run(&decoder, &feeds, &[])[0].floats().unwrap(),
        &made[0].floats().unwrap(),
        1e-6,
    );
}

#[test]
fn the_halves_of_an_autoencoder_make_the_whole() {
    let m = small("autoencoder", &[]);
    let inputs = inputs(&m, 2, 6);
    let made = run(&m, &inputs, &["code"]);
    let mut encoder = m.clone();
    let code = encoder.graph.find("code").unwrap();
    encoder.graph.outputs[0] = Port {
        value: code,
        ty: None,
        extra: Default::default(),
    };
    apply_all(&mut encoder, Scope::Portable, CLEANING).unwrap();
    let mut decoder = m.clone();
    given(&mut decoder, "code");
    let code = run(&encoder, &inputs, &[]).swap_remove(0);
    assert_eq!(code.dims(), [2, 4]);
    near(&apply(&decoder, &code), &made[0].floats().unwrap(), 1e-6);
}

/// Makes the value `name` an input and leaves out what it is computed from, with the first input.
fn given(m: &mut Model, name: &str) {
    let v = m.graph.find(name).unwrap();
    let facts = infer(m, &Default::default()).unwrap();
    let ty = facts.of(v).ty.clone();
    let made = m
        .graph
        .order
        .iter()
        .position(|&n| m.graph[n].outputs.contains(&Some(v)));
    m.graph.order.remove(made.unwrap());
    m.graph.inputs.push(Port {
        value: v,
        ty: Some(ty.into()),
        extra: Default::default(),
    });
    apply_all(m, Scope::Portable, CLEANING).unwrap();
    m.graph.inputs.remove(0);
}
