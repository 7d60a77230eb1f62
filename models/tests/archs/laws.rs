//! What must hold of the blocks that networks are made of.

use secateur_models::blocks::{Look, Residual, ResidualKind, Transformer, dense_block, highway};

use super::*;

fn noise(dims: &[usize], seed: u64) -> Tensor {
    Random::new(seed).tensor(dims, 1.0)
}

fn residual(block: Residual) -> Model {
    network(&[1, block.from, 5, 5], |n, x| block.write(n, x, "block"))
}

fn count(m: &Model, op: &str) -> usize {
    m.graph.iter().filter(|(_, n)| &*n.op == op).count()
}

#[test]
fn a_standard_block_that_adds_nothing_is_a_rectifier() {
    let block = Residual {
        bias: true,
        ..Residual::new(ResidualKind::Standard, 64, 64)
    };
    let mut m = residual(block);
    assert_eq!(parameters(&m), 74_112);
    fill(&mut m, "block.conv2.weight", 0.0);
    fill(&mut m, "block.conv2.bias", 0.0);
    let x = noise(&[1, 64, 5, 5], 1);
    let rectified: Vec<f64> = x.floats().unwrap().iter().map(|x| x.max(0.0)).collect();
    assert_eq!(apply(&m, &x), rectified);
}

#[test]
fn a_bottleneck_projects_where_the_shape_changes() {
    let block = Residual {
        bias: true,
        ..Residual::new(ResidualKind::Bottleneck, 256, 64)
    };
    let m = residual(block);
    assert_eq!((parameters(&m), count(&m, "Conv")), (70_784, 3));
    let projected = residual(Residual { from: 64, ..block });
    assert_eq!(count(&projected, "Conv"), 4);
    assert_eq!(
        weight(&projected, "block.downsample.0.weight").dims(),
        [256, 64, 1, 1]
    );
    let strided = residual(Residual { stride: 2, ..block });
    assert_eq!(apply(&strided, &noise(&[1, 256, 5, 5], 2)).len(), 256 * 9);
}

#[test]
fn a_preactivation_block_that_adds_nothing_is_the_identity() {
    let mut m = residual(Residual::new(ResidualKind::Preactivation, 8, 8));
    fill(&mut m, "block.conv2.weight", 0.0);
    let x = noise(&[1, 8, 5, 5], 3);
    assert_eq!(apply(&m, &x), x.floats().unwrap());
}

#[test]
fn dense_layers_read_all_before_them() {
    let m = network(&[1, 16, 5, 5], |n, x| {
        dense_block(n, x, "block", [16, 12, 4], 0.0)
    });
    let reads = |i| weight(&m, &format!("block.{i}.conv.weight")).dims()[1];
    assert_eq!([0, 1, 2, 3].map(reads), [16, 28, 40, 52]);
    let x = noise(&[1, 16, 5, 5], 4);
    let y = apply(&m, &x);
    assert_eq!(y.len(), 64 * 25);
    // What came in goes out.
    assert_eq!(y[..16 * 25], x.floats().unwrap());
}

#[test]
fn a_highway_mixes_by_its_gate() {
    let made = |gate: f32| {
        let mut m = network(&[1, 3], |n, x| highway(n, x, "layer", 3));
        fill(&mut m, "layer.gate.weight", 0.0);
        fill(&mut m, "layer.gate.bias", gate);
        fill(&mut m, "layer.transform.weight", 0.0);
        fill(&mut m, "layer.transform.bias", 2.0);
        apply(&m, &Tensor::of(&[1, 3], vec![1.0f32, -1.0, 5.0]))
    };
    near(&made(0.0), &[1.5, 0.5, 3.5], 1e-6);
    assert_eq!(made(-200.0), [1.0, -1.0, 5.0]);
    assert_eq!(made(200.0), [2.0, 2.0, 2.0]);
}

fn layer(before: bool, ffn: usize) -> Transformer {
    Transformer {
        hidden: 8,
        heads: 2,
        ffn,
        before,
        activation: "gelu",
        dropout: 0.0,
        epsilon: 1e-5,
    }
}

/// Rows of `x`, 8 elements each, in another order.
fn permuted(x: &[f64], order: &[usize]) -> Vec<f64> {
    order.iter().flat_map(|&i| x[8 * i..8 * i + 8].to_vec()).collect()
}

#[test]
fn without_positions_the_order_of_tokens_is_kept_and_not_seen() {
    let (order, dims) = ([3, 0, 4, 1, 2], [1, 5, 8]);
    for before in [false, true] {
        let m = network(&dims, |n, x| layer(before, 12).encoder_layer(n, x, None, "layer"));
        let x = noise(&dims, 5).floats().unwrap();
        let tensor = |x: &[f64]| Tensor::rounded(DType::F32, &dims, x).unwrap();
        let (y, turned) = (apply(&m, &tensor(&x)), apply(&m, &tensor(&permuted(&x, &order))));
        near(&turned, &permuted(&y, &order), 1e-5);
        assert_ne!(turned, y);
    }
}

#[test]
fn the_feed_forward_part_reads_each_token_alone() {
    let dims = [1, 5, 8];
    let m = network(&dims, |n, x| layer(true, 32).feed_forward(n, x, "ffn"));
    let x = noise(&dims, 6);
    let mut other = x.floats().unwrap();
    other[16] += 1.0;
    let (y, changed) = (
        apply(&m, &x),
        apply(&m, &Tensor::rounded(DType::F32, &dims, &other).unwrap()),
    );
    let rows = |i: usize| 8 * i..8 * i + 8;
    let same: Vec<bool> = (0..5).map(|i| y[rows(i)] == changed[rows(i)]).collect();
    assert_eq!(same, [true, true, false, true, true]);
}

#[test]
fn a_hidden_neuron_that_is_cut_out_was_0() {
    let made = |ffn| network(&[1, 5, 8], |n, x| layer(true, ffn).feed_forward(n, x, "ffn"));
    let (mut whole, mut cut) = (made(12), made(11));
    let gone = 4;
    let kept = |m: &Model, name: &str, axis: usize| {
        let t = weight(m, name);
        let (dims, x) = (t.dims().to_vec(), t.floats().unwrap());
        let inner: usize = dims[axis + 1..].iter().product();
        let stays = |i: usize| i / inner % dims[axis] != gone;
        let x: Vec<f32> = (0..x.len()).filter(|&i| stays(i)).map(|i| x[i] as f32).collect();
        let mut less = dims;
        less[axis] -= 1;
        Tensor::of(&less, x)
    };
    for (name, axis) in [("ffn.in.weight", 1), ("ffn.in.bias", 0), ("ffn.out.weight", 0)] {
        let tensor = kept(&whole, name, axis);
        put(&mut cut, name, tensor);
    }
    let mut out = weight(&whole, "ffn.out.weight").floats().unwrap();
    out[gone * 8..gone * 8 + 8].fill(0.0);
    let out = Tensor::rounded(DType::F32, &[12, 8], &out).unwrap();
    put(&mut whole, "ffn.out.weight", out);
    let x = noise(&[1, 5, 8], 7);
    near(&apply(&cut, &x), &apply(&whole, &x), 1e-6);
}

#[test]
fn attention_to_a_memory_reads_nothing_else() {
    let m = network(&[1, 5, 8], |n, x| {
        let memory = n.filled("memory", &[1, 3, 8], 0.5);
        let look = Look {
            memory: Some(memory),
            mask: None,
        };
        layer(true, 8).attention(n, x, look, "cross")
    });
    // All that it can see are equal tokens.
    let y = apply(&m, &noise(&[1, 5, 8], 8));
    (1..5).for_each(|i| near(&y[8 * i..8 * i + 8], &y[..8], 1e-6));
}
