//! Values that are computed again for the gradients: the same gradients in less memory.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should end there")]

use secateur_engine::ir::{DType, Model, Node, Type, ValueId};
use secateur_engine::ops::case::floats;
use secateur_engine::{Session, Tensor};
use secateur_train::{Gradients, Segments, checkpoints, differentiate};

const LAYERS: usize = 36;
const BATCH: usize = 256;
const WIDTH: usize = 16;

/// `h = h + tanh(h W)`, or without the sum, many times; the weights, and the value whose sum is differentiated.
fn deep(residual: bool) -> (Model, Vec<ValueId>, ValueId) {
    let mut m = Model::default();
    let g = &mut m.graph;
    let mut h = g.input("x", Type::tensor(DType::F32, [BATCH, WIDTH]));
    let mut weights = vec![];
    for i in 0..LAYERS {
        let w = floats(&[WIDTH, WIDTH], i as u64 + 1).floats().unwrap();
        let w = Tensor::rounded(
            DType::F32,
            &[WIDTH, WIDTH],
            &w.iter().map(|x| x * 0.2).collect::<Vec<_>>(),
        );
        let w = g.constant(format!("w{i}"), w.unwrap());
        let [p, t, s] = ["p", "t", "s"].map(|n| g.value(format!("{n}{i}")));
        g.node(Node::new("MatMul", vec![Some(h), Some(w)], vec![Some(p)]));
        g.node(Node::new("Tanh", vec![Some(p)], vec![Some(t)]));
        if residual {
            g.node(Node::new("Add", vec![Some(h), Some(t)], vec![Some(s)]));
        }
        h = if residual { s } else { t };
        weights.push(w);
    }
    (m, weights, h)
}

/// The gradients of the weights, and the bytes that a run works in.
fn run(residual: bool, segments: Option<Segments>) -> (Vec<Tensor>, usize, usize) {
    let (mut m, weights, y) = deep(residual);
    let of = [(y, None)];
    let all = Gradients::new(&of, &weights);
    let keep = segments.map(|s| checkpoints(&m, &all, s).unwrap());
    let g = Gradients {
        keep: keep.as_deref(),
        ..all
    };
    let found = differentiate(&mut m, &g).unwrap();
    found.iter().for_each(|v| m.graph.output(v.unwrap(), None));
    let session = Session::builder(&m).threads(1).build().unwrap();
    let peak = session.plan(&[vec![BATCH, WIDTH]]).unwrap().peak_bytes();
    let x = floats(&[BATCH, WIDTH], 99);
    let outputs = session.run([("x", &x)]).unwrap();
    let made = outputs.tensors().map(|(_, t)| t.clone()).collect();
    (made, peak, keep.map_or(0, |k| k.len()))
}

fn same(a: &[Tensor], b: &[Tensor]) {
    assert_eq!(a.len(), LAYERS);
    let differ = a.iter().zip(b).position(|(a, b)| a.bytes() != b.bytes());
    assert_eq!(differ, None);
}

#[test]
fn a_deep_net_takes_less_memory_and_gives_the_same() {
    for residual in [false, true] {
        let (all, most, _) = run(residual, None);
        let (again, less, kept) = run(residual, Some(Segments::Count(6)));
        same(&all, &again);
        assert_eq!(kept, 5, "one value lives at each cut");
        assert!(less * 2 < most, "{less} bytes, {most} where all is kept");
    }
}

#[test]
fn nothing_kept_is_one_segment_that_is_not_computed_again() {
    let (all, most, _) = run(false, None);
    let (again, same_memory, kept) = run(false, Some(Segments::Count(1)));
    same(&all, &again);
    assert_eq!((kept, same_memory), (0, most));
}

#[test]
fn a_limit_is_met_with_few_segments() {
    let (m, weights, y) = deep(false);
    let of = [(y, None)];
    let g = Gradients::new(&of, &weights);
    let value = BATCH * WIDTH * 4;
    let few = |bytes: usize| checkpoints(&m, &g, Segments::Bytes(bytes)).unwrap().len();
    assert_eq!(few(usize::MAX), 0);
    let half = few(value * LAYERS);
    assert!((1..6).contains(&half), "{half}");
    assert!(few(value * 20) > half);
}
