//! Whole models, in all engines.

use std::path::Path;

use anyhow::Result;

use super::Sweeping;
use super::rows::{DENSE, Row, Times};
use crate::cmd::pruning::Zeros;
use crate::cmd::rival::{Pace, Rival, race};
use crate::engines;

/// The engine that joins wherever it is there.
const PEER: &str = "ort";
/// Runs of each engine before those that count.
const WARMUP: usize = 3;

/// Measures each pattern at each sparsity. The dense model runs in the same turns each time, so that what slows the machine
/// down slows down both.
pub(super) fn measure(s: &Sweeping) -> Result<Vec<Row>> {
    let source = match s.flags.source() {
        Some(file) => file,
        None => s.scratch.save("dense.onnx", &s.dense)?,
    };
    // What the flags leave open is said once, here.
    s.flags.rivals.feeder(&source, s.ui)?;
    let mut rivals = start(s, &source)?;
    let count = rivals.len();
    let mut all: Vec<Vec<f64>> = vec![vec![]; count];
    let mut rows = vec![];
    let goals = s.flags.goals();
    let progress = s.ui.progress(goals.len() as u64, "patterns and sparsities");
    for (goal, share) in &goals {
        let (model, zeros) = s.pruned(*goal)?;
        let file = s.scratch.save("pruned.onnx", &model)?;
        drop(model);
        for i in 0..count {
            let name = rivals[i].name.clone();
            rivals.push(Rival::start(&name, &worker(&file))?);
        }
        race(&mut rivals, pace(s), &s.ui.quiet())?;
        let cell = |r: &mut Rival| Times::of(&mut r.times);
        let sparse: Vec<(String, Times)> = rivals
            .drain(count..)
            .map(|mut r| (r.name.clone(), cell(&mut r)))
            .collect();
        let dense: Vec<f64> = rivals.iter_mut().map(|r| cell(r).min).collect();
        for (all, rival) in all.iter_mut().zip(&mut rivals) {
            all.append(&mut rival.times);
        }
        let (pattern, share) = (goal.pattern.to_string(), *share);
        rows.extend(cells(s, (&pattern, share, zeros), &sparse, &dense));
        progress.add(1);
    }
    drop(progress);
    if goals.is_empty() {
        race(&mut rivals, pace(s), s.ui)?;
        all = rivals.iter_mut().map(|r| std::mem::take(&mut r.times)).collect();
    }
    let times = all.iter_mut().map(|t| Times::of(t));
    let dense: Vec<(String, Times)> = rivals.iter().map(|r| r.name.clone()).zip(times).collect();
    let mins: Vec<f64> = dense.iter().map(|d| d.1.min).collect();
    let zeros = Zeros::of(&s.dense, &s.choice)?.share();
    let mut first: Vec<Row> = cells(s, (DENSE, 0.0, zeros), &dense, &mins);
    first.append(&mut rows);
    Ok(first)
}

fn pace(s: &Sweeping) -> Pace {
    Pace {
        warmup: WARMUP,
        time: s.time,
        runs: None,
    }
}

/// What a worker's command line has more.
fn worker(file: &Path) -> [&std::ffi::OsStr; 2] {
    ["--file".as_ref(), file.as_os_str()]
}

/// The engines with the dense model.
fn start(s: &Sweeping, source: &Path) -> Result<Vec<Rival>> {
    let mut names = s.flags.engines.clone();
    names.iter().try_for_each(|e| engines::find(e).map(drop))?;
    if !names.iter().any(|n| n == PEER) {
        names.push(PEER.into());
    }
    let mut rivals: Vec<Rival> = vec![];
    for name in &names {
        match Rival::start(name, &worker(source)) {
            Ok(rival) => rivals.push(rival),
            Err(e) if name == PEER => {
                let why = crate::cmd::chain(&e);
                s.ui.note(&format!("not compared with ONNX Runtime: {why}"));
            }
            Err(e) => return Err(e),
        }
    }
    Ok(rivals)
}

/// A row for each engine, of one pattern and sparsity. `dense` has the least time of each.
fn cells(
    s: &Sweeping,
    (pattern, sparsity, zeros): (&str, f64, f64),
    times: &[(String, Times)],
    dense: &[f64],
) -> Vec<Row> {
    let others = times.iter().filter(|(name, _)| name != "self");
    let peer = others.map(|(_, t)| t.min).min_by(f64::total_cmp);
    let row = |((engine, times), dense): (&(String, Times), &f64)| Row {
        name: s.name.clone(),
        engine: engine.clone(),
        pattern: pattern.to_owned(),
        sparsity,
        zeros,
        times: *times,
        speedup: dense / times.min,
        vs_peer: peer.filter(|_| engine == "self").map(|ms| ms / times.min),
    };
    times.iter().zip(dense).map(row).collect()
}
