//! Times whole training steps: forward, cross-entropy, backward and Adam, at batch 64.
//!
//! `step_times [--net NAME] [--threads N] [--batch N] [--steps N] [--zeros SHARE] [--profile] [--order]`, for any architecture with
//! `logits`; with `--zeros` that share of each weight of two axes or more is held at 0. One JSON line a net; with `--profile` also what each node took and by which kernel, the costliest first, or in order.

#![allow(clippy::print_stdout)]

use std::collections::HashMap;
use std::error::Error;
use std::time::Instant;

use secateur_engine::ir::Model;
use secateur_engine::random::Random;
use secateur_engine::{Session, Tensor};
use secateur_models::arch;
use secateur_train::{Spec, StepGraph, Term, loss::loss, optim::optimizer, step};

type Res<T> = Result<T, Box<dyn Error>>;

/// Those of the comparison with PyTorch.
const NETS: [&str; 4] = ["lenet-300-100", "conv4", "transformer-encoder", "resnet20"];

/// The inputs that stay as they are, and the state.
fn feeds(model: &Model, graph: &StepGraph, batch: usize) -> (Vec<(String, Tensor)>, Vec<Tensor>) {
    let input = &model.graph[model.graph.inputs[0].value];
    let shape = input.ty.as_ref().and_then(|t| t.shape()).into_iter().flatten();
    let dims: Vec<_> = shape.map(|d| d.size().unwrap_or(batch)).collect();
    let labels = (0..batch as i64).map(|i| i % 10).collect();
    let fixed = vec![
        (graph.rate.clone(), Tensor::scalar(1e-3f32)),
        (input.name.to_string(), Random::new(2).normals(&dims, 0.0, 1.0)),
        ("label".into(), Tensor::of(&[batch], labels)),
    ];
    (fixed, graph.state.iter().map(|s| s.start.clone()).collect())
}

/// Makes a share of each weight 0, the smallest first.
fn cut(model: &mut Model, share: f64) {
    for v in model.graph.initializers.clone() {
        let konst = model.graph[v].konst.clone();
        let Some((konst, x)) =
            konst.and_then(|k| Some((k.clone(), k.tensor.elements::<f32>()?.into_owned())))
        else {
            continue;
        };
        let dims = konst.tensor.dims().to_vec();
        if dims.len() < 2 || share <= 0.0 {
            continue;
        }
        let mut sizes: Vec<f32> = x.iter().map(|x| x.abs()).collect();
        sizes.sort_by(f32::total_cmp);
        let least = sizes[((share * sizes.len() as f64) as usize).min(sizes.len() - 1)];
        let kept = x.iter().map(|&x| if x.abs() < least { 0.0 } else { x });
        model.graph[v].konst = Some(konst.with(Tensor::of(&dims, kept.collect())));
    }
}

fn time(net: &str, args: &Args) -> Res<()> {
    let (entropy, adam) = (loss("cross-entropy")?, optimizer("adam")?);
    let terms = [Term {
        loss: &*entropy,
        of: &["logits", "label"],
        weight: 1.0,
    }];
    let mut model = arch(net)?.build(&[], 1)?;
    cut(&mut model, args.zeros);
    let spec = Spec {
        hold_zeros: args.zeros > 0.0,
        ..Spec::new(&terms, &*adam)
    };
    let graph = step(&model, &spec)?;
    let builder = Session::builder(&graph.model).threads(args.threads);
    let stays = graph.state.iter();
    let session = stays.fold(builder, |b, s| b.state(&s.input, &s.output)).build()?;
    let (fixed, mut state) = feeds(&model, &graph, args.batch);
    let (mut times, mut loss, mut bits) = (vec![], vec![], 0u64);
    let given = |state: Vec<Tensor>| -> Vec<(String, Tensor)> {
        let names = graph.state.iter().map(|s| s.input.clone());
        names.zip(state).chain(fixed.iter().cloned()).collect()
    };
    for _ in 0..args.steps {
        // Given away, so that it is changed where it stands.
        let inputs = given(std::mem::take(&mut state));
        let start = Instant::now();
        let mut outputs = session.run(inputs)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        loss.push(outputs[&*graph.loss].floats().unwrap_or_default()[0]);
        state = graph
            .state
            .iter()
            .filter_map(|s| outputs.take(&s.output))
            .collect();
    }
    for byte in state.iter().flat_map(|t| t.bytes().to_vec()) {
        bits = (bits ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
    times.sort_by(f64::total_cmp);
    let inputs = given(state);
    let plan = session.prepare(inputs.iter().map(|(n, t)| (n, t)))?;
    println!(
        "{{\"net\": {:?}, \"batch\": {}, \"threads\": {}, \"min_ms\": {:.2}, \"median_ms\": {:.2}, \"plan_mb\": {:.1}, \"losses\": [{:.5}, {:.5}], \"state\": \"{bits:016x}\"}}",
        net,
        args.batch,
        args.threads,
        times[0],
        times[times.len() / 2],
        plan.peak_bytes() as f64 / 1e6,
        loss[0],
        loss[loss.len() - 1],
    );
    if args.profile {
        let shapes = plan
            .steps()
            .iter()
            .map(|s| (s.node.clone(), format!("{:?}", s.out_dims())));
        let shapes: HashMap<_, _> = shapes.collect();
        let mut least: Vec<(f64, String)> = vec![];
        for round in 0..args.steps {
            let (_, steps) = session.profile(inputs.iter().map(|(n, t)| (n, t)))?;
            for (i, s) in steps.into_iter().enumerate() {
                if round == 0 {
                    let dims = shapes.get(&s.node).map_or("", |d| d);
                    least.push((
                        s.ms,
                        format!("{i:4} {:22} {:44} {} {dims}", s.op, s.kernel, s.node),
                    ));
                } else {
                    least[i].0 = least[i].0.min(s.ms);
                }
            }
        }
        println!(
            "{:.2} ms in {} steps",
            least.iter().map(|l| l.0).sum::<f64>(),
            least.len()
        );
        if !args.order {
            least.sort_by(|a, b| b.0.total_cmp(&a.0));
        }
        least.iter().for_each(|(ms, what)| println!("{ms:8.3} {what}"));
    }
    Ok(())
}

struct Args {
    net: Option<String>,
    threads: usize,
    batch: usize,
    steps: usize,
    zeros: f64,
    profile: bool,
    /// Nodes of a profile stay in order.
    order: bool,
}

fn args() -> Res<Args> {
    let mut all = Args {
        net: None,
        threads: 2,
        batch: 64,
        steps: 25,
        zeros: 0.0,
        profile: false,
        order: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match &*word {
            "--net" => all.net = Some(value()?),
            "--threads" => all.threads = value()?.parse()?,
            "--batch" => all.batch = value()?.parse()?,
            "--steps" => all.steps = value()?.parse()?,
            "--zeros" => all.zeros = value()?.parse()?,
            "--profile" => all.profile = true,
            "--order" => (all.profile, all.order) = (true, true),
            _ => return Err(format!("unknown: {word}").into()),
        }
    }
    Ok(all)
}

fn main() -> Res<()> {
    let args = args()?;
    match &args.net {
        Some(net) => time(net, &args),
        None => NETS.iter().try_for_each(|net| time(net, &args)),
    }
}
