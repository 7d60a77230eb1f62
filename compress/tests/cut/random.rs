//! Random graphs of images, cut and compared.

use secateur_engine::Model;
use secateur_engine::ir::ValueId;

use super::sketch::{ALL, Sketch, agrees_by, defined, int, list, to_70};
use secateur_compress::groups::Sizes;

/// An image and its channels.
type Image = (ValueId, usize);

fn conv(s: &mut Sketch, (x, c): Image, out: usize, group: usize) -> Image {
    let inputs = [x, s.weight(&[out, c / group, 3, 3]), s.weight(&[out])];
    (
        s.op(
            "Conv",
            &inputs,
            &[("group", int(group as i64)), ("pads", list(&[1, 1, 1, 1]))],
        ),
        out,
    )
}

/// Channels in other order: `groups` by the rest, turned round.
fn shuffle(s: &mut Sketch, (x, c): Image, groups: usize) -> Image {
    let (g, rest) = (groups as i64, (c / groups) as i64);
    let shape = s.ints(&[1, g, rest, 4, 4]);
    let wide = s.op("Reshape", &[x, shape], &[]);
    let turned = s.op("Transpose", &[wide], &[("perm", list(&[0, 2, 1, 3, 4]))]);
    let shape = s.ints(&[1, -1, 4, 4]);
    (s.op("Reshape", &[turned, shape], &[]), c)
}

fn normal(s: &mut Sketch, (x, c): Image) -> Image {
    let var = secateur_engine::Tensor::of(&[c], vec![1.5f32; c]);
    let inputs = [
        x,
        s.weight(&[c]),
        s.weight(&[c]),
        s.weight(&[c]),
        s.constant("var", var),
    ];
    (s.op("BatchNormalization", &inputs, &[]), c)
}

fn split(s: &mut Sketch, (x, c): Image) -> [Image; 2] {
    let at = 1 + s.below(c - 1);
    let sizes = s.ints(&[at as i64, (c - at) as i64]);
    let parts = s.ops("Split", &[x, sizes], &[("axis", int(1))], 2);
    [(parts[0], at), (parts[1], c - at)]
}

/// The channels in two parts, with borders counted from the end.
fn slices(s: &mut Sketch, (x, c): Image) -> [Image; 2] {
    let last = 1 + s.below(c - 1);
    let [from, border, end, one] = [-(c as i64), -(last as i64), i64::MAX, 1].map(|i| s.ints(&[i]));
    let first = s.op("Slice", &[x, from, border, one], &[]);
    let rest = s.op("Slice", &[x, border, end, one], &[]);
    [(first, c - last), (rest, last)]
}

fn step(s: &mut Sketch, images: &[Image]) -> Vec<Image> {
    let image = images[s.below(images.len())];
    let (x, c) = image;
    let like: Vec<Image> = images.iter().filter(|i| i.1 == c).copied().collect();
    let other = like[s.below(like.len())].0;
    match s.below(11) {
        0 | 1 => {
            let out = 2 + s.below(8);
            vec![conv(s, image, out, 1)]
        }
        2 => vec![conv(s, image, c, c)],
        3 if c % 2 == 0 => vec![conv(s, image, c, 2)],
        4 if c % 2 == 0 => vec![shuffle(s, image, 2)],
        5 => vec![normal(s, image)],
        6 => {
            let op = ["Relu", "Sigmoid", "Tanh"][s.below(3)];
            vec![(s.op(op, &[x], &[]), c)]
        }
        7 => {
            let op = ["Add", "Mul", "Sub"][s.below(3)];
            vec![(s.op(op, &[x, other], &[]), c)]
        }
        8 if c > 1 && c < 12 => split(s, image).to_vec(),
        9 if c > 1 && c < 12 => slices(s, image).to_vec(),
        _ => {
            let (y, d) = images[s.below(images.len())];
            vec![(s.op("Concat", &[x, y], &[("axis", int(1))]), c + d)]
        }
    }
}

/// What all neurons of `x` [1, n] say together: their sum, or that of the products of any two.
fn summed(s: &mut Sketch, x: ValueId) -> ValueId {
    let [one, two] = [1, 2].map(|i| s.ints(&[i]));
    match s.below(3) {
        0 => s.op("ReduceSum", &[x, one], &[]),
        1 => {
            let (a, b) = (
                s.op("Unsqueeze", &[x, two], &[]),
                s.op("Unsqueeze", &[x, one], &[]),
            );
            let y = s.op("MatMul", &[a, b], &[]);
            let y = s.op("Tanh", &[y], &[]);
            let y = s.op("ReduceSum", &[y, two], &[("keepdims", int(0))]);
            s.op("ReduceSum", &[y, one], &[])
        }
        _ => {
            let (a, b) = (
                s.op("Unsqueeze", &[x, two], &[]),
                s.op("Unsqueeze", &[x, one], &[]),
            );
            let y = s.op("Add", &[a, b], &[]);
            let y = s.op("ReduceSum", &[y, two], &[("keepdims", int(0))]);
            s.op("ReduceSum", &[y, one], &[])
        }
    }
}

fn graph(seed: u64) -> Model {
    let mut s = Sketch::new(seed);
    let x = s.input("x", &[1, 3, 4, 4]);
    let first = conv(&mut s, (x, 3), 8, 1);
    let mut images = vec![first];
    for _ in 0..8 {
        let more = step(&mut s, &images);
        images.extend(more.into_iter().filter(|i| i.1 <= 32));
    }
    let all: Vec<ValueId> = images.iter().map(|i| i.0).collect();
    let last = s.op("Concat", &all, &[("axis", int(1))]);
    let c = images.iter().map(|i| i.1).sum::<usize>();
    let flat = s.op("Flatten", &[last], &[]);
    let hidden = s.weight(&[c * 16, 6]);
    let hidden = s.op("MatMul", &[flat, hidden], &[]);
    let out = s.weight(&[6, 2]);
    let y = s.op("MatMul", &[hidden, out], &[]);
    let y = match s.below(2) {
        0 => y,
        _ => {
            let sum = summed(&mut s, hidden);
            s.op("Add", &[y, sum], &[])
        }
    };
    // There is something to cut in every graph.
    let (first, last) = (s.weight(&[2, 5]), s.weight(&[5, 2]));
    let y = s.op("MatMul", &[y, first], &[]);
    let y = s.op("MatMul", &[y, last], &[]);
    s.done(&[y])
}

#[test]
fn random_graphs_compute_the_same() {
    for seed in 0..120 {
        // By definition, since kernels for other widths add up in another order, which products in a row make larger.
        let how = (&to_70(&ALL), &Sizes::new());
        agrees_by(&format!("seed {seed}"), &graph(seed), how, &defined);
    }
}
