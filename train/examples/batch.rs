//! Takes training steps on one batch, and writes what they made of the weights and of the optimiser's state.
//!
//! ```sh
//! batch MODEL.onnx BATCH.npz OUT.npz output=VALUE [label=VALUE] [loss=NAME] [optimizer=NAME] [rate=X] [steps=N]
//!     [freeze=GLOB]… [show=VALUE]…
//! ```
//!
//! `BATCH.npz` holds the model's inputs and the label (`label`) by their names. The label may be a value of the model too. In
//! `OUT.npz` each weight has its name, and the optimiser's state of it `NAME.…`. From the first step of `momentum`, which is
//! the default, `NAME.sum` is the gradient to the bit. Values that are shown are those of the last step.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::fs::File;
use std::path::Path;

use secateur_engine::{Model, Session, Tensor};
use secateur_train::data::npz;
use secateur_train::{Group, Spec, StepGraph, Term, loss::loss, optim::optimizer, step};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The command line: three files and settings.
struct Asked {
    files: [String; 3],
    settings: Vec<(String, String)>,
}

impl Asked {
    fn read() -> Result<Asked> {
        let (settings, files): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|a| a.contains('='));
        let files = files.try_into();
        let split = |a: &String| a.split_once('=').map(|(k, v)| (k.into(), v.into()));
        Ok(Asked {
            files: files.map_err(|_| "expected MODEL.onnx BATCH.npz OUT.npz output=VALUE")?,
            settings: settings.iter().filter_map(split).collect(),
        })
    }

    fn all(&self, key: &str) -> impl DoubleEndedIterator<Item = &str> {
        self.settings
            .iter()
            .filter(move |(k, _)| k == key)
            .map(|(_, v)| v.as_str())
    }

    fn last<'a>(&'a self, key: &'a str, usual: &'a str) -> &'a str {
        self.all(key).next_back().unwrap_or(usual)
    }
}

fn main() -> Result<()> {
    let asked = Asked::read()?;
    let [model, batch, out] = &asked.files;
    let graph = made(&asked, Path::new(model))?;
    let (loss, made) = taken(&asked, &graph, Path::new(batch))?;
    npz::write(File::create(out)?, made.iter().map(|(n, t)| (n.as_str(), t)))?;
    println!("loss {loss}");
    Ok(())
}

/// The step that is asked for.
fn made(asked: &Asked, model: &Path) -> Result<StepGraph> {
    let measured = loss(asked.last("loss", "cross-entropy"))?;
    let optimizer = optimizer(asked.last("optimizer", "momentum"))?;
    let of = [asked.last("output", ""), asked.last("label", "label")];
    let terms = [Term {
        loss: &*measured,
        of: &of,
        weight: 1.0,
    }];
    let groups: Vec<_> = asked.all("freeze").map(Group::frozen).collect();
    let shown: Vec<_> = asked.all("show").collect();
    let spec = Spec {
        groups: &groups,
        outputs: &shown,
        ..Spec::new(&terms, &*optimizer)
    };
    Ok(step(&Model::load(model)?, &spec)?)
}

/// Takes the steps; the last loss, and the state after them with what is shown.
fn taken(asked: &Asked, graph: &StepGraph, batch: &Path) -> Result<(f64, Vec<(String, Tensor)>)> {
    let session = Session::builder(&graph.model).build()?;
    let rate = Tensor::scalar(asked.last("rate", "0").parse::<f32>()?);
    let mut state: Vec<Tensor> = graph.state.iter().map(|s| s.start.clone()).collect();
    let ports = graph
        .model
        .graph
        .inputs
        .iter()
        .map(|p| &*graph.model.graph[p.value].name);
    let fed = ports.filter(|n| *n != graph.rate && !graph.state.iter().any(|s| s.input == **n));
    let fed: Vec<_> = fed
        .map(|n| Ok((n, npz::read(batch, Some(n))?)))
        .collect::<Result<_>>()?;
    let (mut loss, mut shown) = (f64::NAN, vec![]);
    for _ in 0..asked.last("steps", "1").parse::<u32>()? {
        let inputs = graph.state.iter().map(|s| s.input.as_str()).zip(&state);
        let inputs = inputs.chain(fed.iter().map(|(n, t)| (*n, t)));
        let outputs = session.run(inputs.chain([(&*graph.rate, &rate)]))?;
        loss = outputs[&*graph.loss].item().unwrap_or(f64::NAN);
        state = graph.state.iter().map(|s| outputs[&*s.output].clone()).collect();
        shown = asked
            .all("show")
            .map(|n| (n.into(), outputs[n].clone()))
            .collect();
    }
    shown.extend(graph.state.iter().map(|s| s.input.clone()).zip(state));
    Ok((loss, shown))
}
