//! Times whole training steps: forward, cross-entropy, backward and Adam, at batch 64.
//!
//! `steps [--net NAME] [--threads N] [--batch N] [--steps N] [--profile]`; nets: `lenet-300-100`, `conv4`, `resnet-20`.
//! One JSON line a net; with `--profile` also what each node took and by which kernel, the costliest first.

use std::collections::HashMap;
use std::error::Error;
use std::time::Instant;

use secateur_engine::expr::Ex;
use secateur_engine::ir::{Dim, Model};
use secateur_engine::random::Random;
use secateur_engine::{Session, Tensor};
use secateur_models::blocks::{flatten, max_pool, relu};
use secateur_models::{Conv, Draft, Net};
use secateur_train::{Spec, StepGraph, Term, loss::loss, optim::optimizer, step};

type Res<T> = Result<T, Box<dyn Error>>;

/// What writes a network from its image, and the sizes of that.
type Row = (
    &'static str,
    &'static [usize],
    for<'a> fn(&'a Net<'a>, Ex<'a>) -> Ex<'a>,
);

const NETS: &[Row] = &[
    ("conv4", &[3, 32, 32], conv4),
    ("lenet-300-100", &[784], lenet),
    ("resnet-20", &[3, 32, 32], resnet20),
];

fn lenet<'a>(n: &'a Net<'a>, x: Ex<'a>) -> Ex<'a> {
    let x = relu(n.dense(x, "fc1", [784, 300]));
    let x = relu(n.dense(x, "fc2", [300, 100]));
    n.dense(x, "fc3", [100, 10])
}

fn conv4<'a>(n: &'a Net<'a>, x: Ex<'a>) -> Ex<'a> {
    let conv = |x, name, from, to| relu(n.conv_bias(x, name, Conv::new(from, to, 3)));
    let x = conv(conv(x, "conv1", 3, 32), "conv2", 32, 32);
    let x = max_pool(x, 2, 2, 0);
    let x = conv(conv(x, "conv3", 32, 64), "conv4", 64, 64);
    n.dense(flatten(max_pool(x, 2, 2, 0)), "fc", [4096, 10])
}

fn resnet20<'a>(n: &'a Net<'a>, x: Ex<'a>) -> Ex<'a> {
    let part = |x, name: &str, c: Conv| n.batch_norm(n.conv(x, name, c), &format!("{name}.bn"), c.to, 1.0);
    let mut x = relu(part(x, "stem", Conv::new(3, 16, 3)));
    let blocks = [16, 16, 16, 32, 32, 32, 64, 64, 64];
    let mut from = 16;
    for (i, to) in blocks.into_iter().enumerate() {
        let stride = if to == from { 1 } else { 2 };
        let y = relu(part(x, &format!("{i}.a"), Conv::new(from, to, 3).stride(stride)));
        let y = part(y, &format!("{i}.b"), Conv::new(to, to, 3));
        let short = match stride {
            1 => x,
            _ => part(x, &format!("{i}.short"), Conv::new(from, to, 1).stride(stride)),
        };
        (x, from) = (relu(short + y), to);
    }
    n.dense(flatten(x.op("GlobalAveragePool", &[])), "fc", [64, 10])
}

fn model(&(name, image, write): &Row) -> Res<Model> {
    let mut d = Draft::new(name);
    let dims = std::iter::once(Dim::symbol("batch")).chain(image.iter().map(|&d| d.into()));
    let image = d.input("image", dims);
    Ok(d.network(Random::new(1), |n| vec![("logits".into(), write(n, n.at(image)))])?)
}

/// The inputs that stay as they are, and the state.
fn feeds(graph: &StepGraph, image: &[usize], batch: usize) -> (Vec<(String, Tensor)>, Vec<Tensor>) {
    let dims = [&[batch], image].concat();
    let labels = (0..batch as i64).map(|i| i % 10).collect();
    let fixed = vec![
        (graph.rate.clone(), Tensor::scalar(1e-3f32)),
        ("image".into(), Random::new(2).normals(&dims, 0.0, 1.0)),
        ("label".into(), Tensor::of(&[batch], labels)),
    ];
    (fixed, graph.state.iter().map(|s| s.start.clone()).collect())
}

fn time(row: &Row, args: &Args) -> Res<()> {
    let (entropy, adam) = (loss("cross-entropy")?, optimizer("adam")?);
    let terms = [Term {
        loss: &*entropy,
        of: &["logits", "label"],
        weight: 1.0,
    }];
    let graph = step(&model(row)?, &Spec::new(&terms, &*adam))?;
    let session = Session::builder(&graph.model).threads(args.threads).build()?;
    let (fixed, mut state) = feeds(&graph, row.1, args.batch);
    let (mut times, mut loss, mut bits) = (vec![], vec![], 0u64);
    let given = |state: &[Tensor]| -> Vec<(String, Tensor)> {
        let names = graph.state.iter().map(|s| s.input.clone());
        names
            .zip(state.iter().cloned())
            .chain(fixed.iter().cloned())
            .collect()
    };
    for _ in 0..args.steps {
        let inputs = given(&state);
        let start = Instant::now();
        let outputs = session.run(inputs.iter().map(|(n, t)| (n, t)))?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        state = graph.state.iter().map(|s| outputs[&*s.output].clone()).collect();
        loss.push(outputs[&*graph.loss].floats().unwrap_or_default()[0]);
    }
    for byte in state.iter().flat_map(|t| t.bytes().to_vec()) {
        bits = (bits ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
    times.sort_by(f64::total_cmp);
    let inputs = given(&state);
    let plan = session.prepare(inputs.iter().map(|(n, t)| (n, t)))?;
    println!(
        "{{\"net\": {:?}, \"batch\": {}, \"threads\": {}, \"min_ms\": {:.2}, \"median_ms\": {:.2}, \"plan_mb\": {:.1}, \"losses\": [{:.5}, {:.5}], \"state\": \"{bits:016x}\"}}",
        row.0,
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
            "--profile" => all.profile = true,
            "--order" => (all.profile, all.order) = (true, true),
            _ => return Err(format!("unknown: {word}").into()),
        }
    }
    Ok(all)
}

fn main() -> Res<()> {
    let args = args()?;
    let wanted = |row: &&Row| args.net.as_ref().is_none_or(|n| n == row.0);
    NETS.iter().filter(wanted).try_for_each(|row| time(row, &args))
}
