//! Kernels over a table of shapes, each as a session of a model with one operator.
//!
//! `cargo bench -p secateur-benches` runs all, `-- conv` those whose name has `conv`, `-- --save-baseline NAME` and
//! `-- --baseline NAME` compare two states of the code. `SECATEUR_THREADS=N` sets the threads (1).
#![allow(missing_docs)]

use std::collections::HashMap;
use std::error::Error;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use secateur_engine::expr::Ex;
use secateur_engine::ir::ValueId;
use secateur_engine::opt::infer::infer;
use secateur_engine::plan;
use secateur_engine::{Model, Session, Tensor};
use secateur_models::attention::Heads;
use secateur_models::blocks::softmax;
use secateur_models::{Conv, Draft, Net, Random};

/// Rows, inner size and columns of `[m, k] · [k, n]`, the second matrix constant.
const PRODUCTS: [[usize; 3]; 8] = [
    [1, 768, 768],
    [1, 4096, 1000],
    [32, 768, 3072],
    [128, 384, 384],
    [128, 768, 768],
    [128, 768, 3072],
    [128, 3072, 768],
    [384, 768, 768],
];

/// Convolutions and the height and width of their input.
const CONVS: [(Conv, usize); 12] = [
    (Conv::new(3, 64, 7).stride(2), 224),
    (Conv::new(3, 32, 3).stride(2), 224),
    (Conv::new(64, 64, 1), 56),
    (Conv::new(64, 64, 3), 56),
    (Conv::new(64, 256, 1), 56),
    (Conv::new(128, 128, 3).stride(2), 56),
    (Conv::new(128, 128, 3), 28),
    (Conv::new(256, 256, 3), 14),
    (Conv::new(512, 512, 3), 7),
    (Conv::new(2048, 512, 1), 7),
    (Conv::new(144, 144, 3).depthwise(), 56),
    (Conv::new(960, 960, 3).depthwise(), 7),
];

/// Rows and their length.
const ROWS: [[usize; 2]; 4] = [[1, 1000], [1536, 128], [4608, 384], [128, 30522]];

/// Heads, tokens and elements of a head.
const ATTENTIONS: [[usize; 3]; 5] = [
    [12, 32, 64],
    [12, 128, 64],
    [12, 384, 64],
    [6, 197, 64],
    [8, 1024, 64],
];

type Run<T> = Result<T, Box<dyn Error>>;

/// One row of a table.
struct Row {
    group: &'static str,
    name: String,
    model: Model,
    /// The shape of each input.
    inputs: Vec<Vec<usize>>,
}

/// A model with float inputs of these shapes, and what it computes from them.
fn row(
    group: &'static str,
    name: String,
    inputs: &[&[usize]],
    write: impl for<'a> FnOnce(&'a Net<'a>, &[Ex<'a>]) -> Ex<'a>,
) -> Run<Row> {
    let mut d = Draft::new(group);
    let inputs: Vec<Vec<usize>> = inputs.iter().map(|dims| dims.to_vec()).collect();
    let shapes = inputs.iter().enumerate();
    let ids: Vec<ValueId> = shapes
        .map(|(i, dims)| d.input(&format!("x{i}"), dims.clone()))
        .collect();
    let model = d.network(Random::new(1), |net| {
        let x: Vec<Ex> = ids.iter().map(|&v| net.at(v)).collect();
        vec![("y".into(), write(net, &x))]
    })?;
    Ok(Row {
        group,
        name,
        model,
        inputs,
    })
}

fn rows() -> Run<Vec<Row>> {
    let mut rows = vec![];
    for [m, k, n] in PRODUCTS {
        let name = format!("{m}x{k}x{n}");
        rows.push(row("product", name, &[&[m, k]], |net, x| {
            x[0].matmul(net.normal("w", &[k, n], 0.0, 0.1))
        })?);
    }
    for (conv, size) in CONVS {
        let (from, to, window, stride, groups) = (conv.from, conv.to, conv.size, conv.stride, conv.groups);
        let name = format!("{from}x{size}x{size}-{to}-{window}x{window}-s{stride}-g{groups}");
        rows.push(row("conv", name, &[&[1, from, size, size]], |net, x| {
            net.conv(x[0], "conv", conv)
        })?);
    }
    for [n, length] in ROWS {
        rows.push(row(
            "softmax",
            format!("{n}x{length}"),
            &[&[n, length]],
            |_, x| softmax(x[0]),
        )?);
    }
    for [heads, tokens, size] in ATTENTIONS {
        let dims: &[usize] = &[1, heads, tokens, size];
        let name = format!("{heads}x{tokens}x{size}");
        rows.push(row("attention", name, &[dims; 3], |_, x| {
            let [q, k, v] = [x[0], x[1], x[2]];
            Heads { q, k, v, size }.attend(None)
        })?);
    }
    Ok(rows)
}

/// Times a row on random numbers from -1 to 1.
fn time(c: &mut Criterion, row: &Row) -> Run<()> {
    let threads = std::env::var("SECATEUR_THREADS").map_or(Ok(1), |n| n.parse())?;
    let session = Session::builder(&row.model).threads(threads).build()?;
    let mut r = Random::new(2);
    let mut draw = |(i, dims): (usize, &Vec<usize>)| {
        let data = r.between(dims.iter().product(), -1.0, 1.0);
        (format!("x{i}"), Tensor::of(dims, data))
    };
    let inputs: Vec<_> = row.inputs.iter().enumerate().map(&mut draw).collect();
    let run = || session.run(inputs.iter().map(|(name, x)| (name.as_str(), x)));
    run()?;
    let mut group = c.benchmark_group(row.group);
    group
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .throughput(Throughput::Elements(macs(&row.model)?))
        .bench_function(&row.name, |b| b.iter(|| black_box(run())));
    group.finish();
    Ok(())
}

/// What a rate counts: multiply-adds, or runs where there are none.
fn macs(model: &Model) -> Run<u64> {
    let facts = infer(model, &HashMap::new()).map_err(|e| e.what.to_string())?;
    let each = model.graph.iter().map(|(id, _)| plan::macs(model, &facts, id));
    let sum = each.filter_map(|n| n.size()).sum::<usize>();
    Ok(sum.max(1) as u64)
}

fn main() -> Run<()> {
    let mut c = Criterion::default().configure_from_args();
    for row in rows()? {
        time(&mut c, &row)?;
    }
    c.final_summary();
    Ok(())
}
