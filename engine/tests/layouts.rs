//! Between two convolutions, whose images stand in blocks of channels, all else must find what it expects: whole blocks
//! (16, 32 channels) and others (20), operands that are broadcast, outputs that take over memory.
#![allow(clippy::unwrap_used, reason = "tests end where they cannot go on")]

mod measure;

use measure::{model, noise, run};
use secateur_engine::expr::{Call, Ex};
use secateur_engine::ir::Attr;
use secateur_engine::{Model, Session, Tensor};

const IMAGE: [usize; 4] = [2, 8, 9, 11];

/// Small ones, so that sums stay near 1 and lose nothing by cancellation.
fn weights(dims: &[usize], seed: u64) -> Tensor {
    let small = noise(dims, seed)
        .elements::<f32>()
        .unwrap()
        .iter()
        .map(|w| w * 0.05)
        .collect();
    Tensor::of::<f32>(dims, small)
}

fn conv(x: Ex<'_>, dims: [usize; 4], seed: u64) -> Ex<'_> {
    let pad = (dims[2] / 2) as i64;
    x.with(
        "Conv",
        &[x.tensor(weights(&dims, seed))],
        vec![Attr::new("pads", vec![pad; 4])],
    )
}

fn depthwise(x: Ex<'_>, channels: usize, seed: u64) -> Ex<'_> {
    let w = x.tensor(weights(&[channels, 1, 3, 3], seed));
    let attrs = vec![
        Attr::new("pads", vec![1i64; 4]),
        Attr::new("group", channels as i64),
    ];
    x.with("Conv", &[w], attrs)
}

/// `middle` between a convolution to `channels` and one from `after` channels.
fn between(channels: usize, after: usize, middle: impl for<'a> FnOnce(Ex<'a>) -> Ex<'a>) -> Model {
    between_at(17, (channels, after), middle)
}

/// The same at `opset`.
fn between_at(
    opset: i64,
    (channels, after): (usize, usize),
    middle: impl for<'a> FnOnce(Ex<'a>) -> Ex<'a>,
) -> Model {
    model(opset, [&IMAGE], |[x]| {
        let y = middle(conv(x, [channels, 8, 3, 3], 1));
        vec![conv(y, [16, after, 3, 3], 2)]
    })
}

fn agrees(m: &Model) {
    run(m, &[&noise(&IMAGE, 9)], 1e-4);
}

#[test]
fn operands_are_broadcast_as_in_rows() {
    for c in [16, 20, 32] {
        for dims in [
            &[][..],
            &[1],
            &[c, 1, 1],
            &[1, c, 1, 1],
            &[1, 1, 9, 11],
            &[9, 1],
            &[11],
            &[2, 1, 1, 1],
            &[2, c, 9, 11],
        ] {
            for op in ["Add", "Sub", "Mul", "Div"] {
                agrees(&between(c, c, |x| {
                    // Away from 0, for quotients.
                    let k = x.tensor(noise(dims, 3)).op("Abs", &[]) + 0.5;
                    x.op(op, &[k])
                }));
            }
        }
    }
}

#[test]
fn functions_that_make_something_of_zeros_leave_no_trace() {
    for c in [16, 20, 32] {
        for op in ["Sigmoid", "Exp", "Relu", "Tanh", "Softplus"] {
            agrees(&between(c, c, |x| x.op(op, &[])));
        }
        agrees(&between(c, c, |x| {
            let mean = x.op("GlobalAveragePool", &[]);
            x * conv(mean, [c, c, 1, 1], 4).op("HardSigmoid", &[])
        }));
    }
}

#[test]
fn channels_are_joined_split_cut_and_resized() {
    let ints = |x: Ex<'_>, v: &[i64]| x.tensor(Tensor::of(&[v.len()], v.to_vec())).id;
    for c in [16, 20, 32] {
        for axis in [1i64, 2, 3, -3] {
            let after = if axis == 1 || axis == -3 { 2 * c } else { c };
            agrees(&between(c, after, |x| {
                x.with("Concat", &[x.op("Relu", &[])], vec![Attr::new("axis", axis)])
            }));
        }
        for (start, end) in [(0, 16), (16, c), (3, 9)].into_iter().filter(|(s, e)| s < e) {
            agrees(&between(c, end - start, |x| {
                let cut = [start as i64, end as i64, 1].map(|i| Ex {
                    id: ints(x, &[i]),
                    ..x
                });
                x.op("Slice", &cut)
            }));
        }
        for mode in ["nearest", "linear"] {
            agrees(&between(c, c, |x| {
                let scales = x.tensor(Tensor::of(&[4], vec![1f32, 1.0, 2.0, 2.0]));
                let roi = x.tensor(Tensor::of::<f32>(&[0], vec![]));
                x.with("Resize", &[roi, scales], vec![Attr::new("mode", mode)])
            }));
        }
    }
}

#[test]
fn a_residual_that_is_also_convolved_is_not_overwritten() {
    for c in [16, 20, 32] {
        for side in [1, 3] {
            agrees(&between(c, c, |x| {
                let x = x.tanh();
                conv(x, [c, c, side, side], 5) + x
            }));
        }
        agrees(&between(c, c, |x| {
            let x = x.tanh();
            depthwise(x, c, 5) + x
        }));
    }
    let rows = [140, 32];
    let m = model(17, [&rows], |[x]| {
        let x = x.tanh();
        vec![(x.matmul(x.tensor(weights(&[32, 32], 1))) + x).tanh()]
    });
    run(&m, &[&noise(&rows, 2)], 1e-4);
}

#[test]
fn turned_axes_are_found_again() {
    let turn = |x: Ex<'_>| {
        x.with("Transpose", &[], vec![Attr::new("perm", vec![0i64, 2, 1, 3])])
            .id
    };
    agrees(&between(16, 16, |x| {
        let y = Ex { id: turn(x), ..x }.op("Relu", &[]);
        Ex { id: turn(y), ..y }
    }));
}

#[test]
fn nothing_is_copied_inside_a_chain() {
    let m = between(32, 32, |x| {
        let y = conv(x.op("Relu", &[]), [32, 32, 1, 1], 3) + x;
        depthwise(y, 32, 4).tanh()
    });
    let session = Session::builder(&m).build().unwrap();
    let plan = session.plan(&[IMAGE.to_vec()]).unwrap();
    let ops: Vec<_> = plan.steps().iter().map(|s| &*s.op).collect();
    // The image has few channels and is read as it is; the result goes out row by row.
    let copies: Vec<_> = (0..ops.len()).filter(|&i| ops[i] == "Reorder").collect();
    assert_eq!(copies, [ops.len() - 1], "{ops:?}");
}

#[test]
fn comparisons_and_choices_stay_in_blocks() {
    for c in [16, 20, 32] {
        // What is asked is read in blocks and, as a factor, row by row.
        agrees(&between(c, c, |x| {
            let below = x.op("LessOrEqual", &[x.constant(0.0)]);
            below.op("Where", &[x.constant(0.0), x * 2.0])
        }));
        agrees(&between(c, c, |x| {
            let above = x.op("Greater", &[x.constant(0.1)]);
            let gate = above.with("Cast", &[], vec![Attr::new("to", 1i64)]);
            above.op("Where", &[x, x.constant(0.1)]) * gate
        }));
    }
}

/// How many copies into other layouts a run makes.
fn copies(m: &Model) -> usize {
    let session = Session::builder(m).build().unwrap();
    let plan = session.plan(&[IMAGE.to_vec()]).unwrap();
    plan.steps().iter().filter(|s| s.op == "Reorder").count()
}

#[test]
fn what_training_makes_of_images_needs_no_copies() {
    // Gradients are written at a late opset.
    let trained = |c: usize| {
        between_at(21, (c, c), |x| {
            let p = |seed, of: f64| x.tensor(noise(&[c], seed)).op("Abs", &[]) + of;
            let (scale, bias, mean, variance) = (p(3, 0.1), p(4, 0.0), p(5, 0.0), p(6, 0.1));
            let attrs = vec![Attr::new("training_mode", 1i64)];
            let all = x.call(Call {
                domain: "",
                op: "BatchNormalization",
                inputs: &[x, scale, bias, mean, variance].map(|v| Some(v.id)),
                attrs,
                outputs: 3,
            });
            let y = all[0].op("Relu", &[]);
            let below = y.op("LessOrEqual", &[y.constant(0.0)]);
            let dy = below.op("Where", &[y.constant(0.0), x]);
            let private = |op: &str, inputs: &[Ex], attrs, outputs| {
                let inputs: Vec<_> = inputs.iter().map(|v| Some(v.id)).collect();
                let call = Call {
                    domain: "secateur",
                    op,
                    inputs: &inputs,
                    attrs,
                    outputs,
                };
                x.call(call)
            };
            let back = private("BatchNormalizationGrad", &[x, scale, dy], vec![], 3);
            let window = vec![
                Attr::new("kernel_shape", vec![2i64, 2]),
                Attr::new("strides", vec![2i64, 2]),
            ];
            let pooled = back[0].with("MaxPool", &[], window.clone());
            let spread = private("MaxPoolGrad", &[y, pooled], window, 1)[0];
            let axes = |all: &[i64]| x.tensor(Tensor::of(&[all.len()], all.to_vec()));
            let mean = spread
                .op("GlobalAveragePool", &[])
                .op("Expand", &[axes(&[2, 1, 9, 11])]);
            let sums = spread.with(
                "ReduceSum",
                &[axes(&[0, 2, 3])],
                vec![Attr::new("keepdims", 1i64)],
            );
            spread + mean + sums * back[1].op("Unsqueeze", &[axes(&[1, 2])])
        })
    };
    for c in [16, 20, 32] {
        agrees(&trained(c));
    }
    // One at the beginning, one in the end; sums and factors are seen as blocks too.
    assert!(copies(&trained(32)) <= 4, "{}", copies(&trained(32)));
}
