//! What weights are before the first step.

use std::str::FromStr;

use secateur_engine::Session;
use secateur_engine::glob::matches;
use secateur_engine::ir::{AttrValue, Graph, Model, Node, Tensor, ValueId};
use secateur_engine::random::Random;

use crate::TrainError;
use crate::settings::missing;

/// A way to draw the weights of a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Independent numbers with mean 0 and a variance of `gain` by [`Fan`].
    Scaled {
        /// What the variance is divided by.
        fan: Fan,
        /// The variance, times the fan.
        gain: f64,
        /// Normal, or uniform.
        normal: bool,
    },
    /// Rows, or columns where these are fewer, of length 1 and at right angles (Saxe, McClelland, Ganguli 2013).
    Orthogonal,
    /// Normal with deviation 0.01: a branch that hardly says anything at first.
    Small,
    /// Zeros: a branch that says nothing at first.
    Zero,
}

/// Numbers that a weight joins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fan {
    /// Inputs of an output.
    In,
    /// The mean of the inputs of an output and the outputs of an input.
    Both,
}

const fn scaled(fan: Fan, gain: f64, normal: bool) -> Init {
    Init::Scaled { fan, gain, normal }
}

/// All ways by name, sorted: He et al. 2015, LeCun et al. 1998, Glorot and Bengio 2010.
pub static INITS: &[(&str, Init)] = &[
    ("he-normal", scaled(Fan::In, 2.0, true)),
    ("he-uniform", scaled(Fan::In, 2.0, false)),
    ("lecun-normal", scaled(Fan::In, 1.0, true)),
    ("lecun-uniform", scaled(Fan::In, 1.0, false)),
    ("orthogonal", Init::Orthogonal),
    ("small", Init::Small),
    ("xavier-normal", scaled(Fan::Both, 1.0, true)),
    ("xavier-uniform", scaled(Fan::Both, 1.0, false)),
    ("zero", Init::Zero),
];

impl FromStr for Init {
    type Err = String;

    fn from_str(text: &str) -> Result<Init, String> {
        let names: Vec<_> = INITS.iter().map(|(n, _)| *n).collect();
        let found = INITS.iter().find(|(n, _)| *n == text);
        found
            .map(|(_, i)| *i)
            .ok_or_else(|| missing("initialiser", text, &names))
    }
}

/// A weight as matrices: what an output sums over, and what it goes into.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Layer {
    matrices: usize,
    /// Rows of a matrix as it lies in memory.
    rows: usize,
    columns: usize,
    inputs: usize,
    outputs: usize,
}

impl Layer {
    /// The weight that `node` reads as input `i`, if it multiplies by it.
    fn of(node: &Node, i: usize, dims: &[usize]) -> Option<Layer> {
        let turned = |name: &str| matches!(node.attr(name), Some(AttrValue::Int(Some(1))));
        let product = |l: &[usize]| l.iter().product::<usize>();
        let layer = |matrices, (rows, columns), (inputs, outputs)| Layer {
            matrices,
            rows,
            columns,
            inputs,
            outputs,
        };
        if !node.domain().is_empty() {
            return None;
        }
        Some(match (&*node.op, i, dims) {
            ("Conv", 1, &[o, c, ref taps @ ..]) => {
                let taps = product(taps);
                layer(1, (o, c * taps), (c * taps, o * taps))
            }
            ("ConvTranspose", 1, &[c, o, ref taps @ ..]) => {
                let taps = product(taps);
                layer(1, (c, o * taps), (c * taps, o * taps))
            }
            ("Gemm", 1, &[a, b]) if turned("transB") => layer(1, (a, b), (b, a)),
            ("Gemm", 0, &[a, b]) if !turned("transA") => layer(1, (a, b), (b, a)),
            ("Gemm", 0 | 1, &[a, b]) => layer(1, (a, b), (a, b)),
            ("MatMul", 0, &[ref each @ .., a, b]) => layer(product(each), (a, b), (b, a)),
            ("MatMul", 1, &[ref each @ .., a, b]) => layer(product(each), (a, b), (a, b)),
            ("GRU" | "LSTM" | "RNN", 1 | 2, &[each, a, b]) => layer(each, (a, b), (b, a)),
            _ => return None,
        })
    }
}

impl Init {
    fn draw(self, layer: Layer, random: &mut Random) -> Vec<f64> {
        let count = layer.matrices * layer.rows * layer.columns;
        match self {
            Init::Zero => vec![0.0; count],
            Init::Small => (0..count).map(|_| random.normal() * 0.01).collect(),
            Init::Orthogonal => {
                let each = (0..layer.matrices).flat_map(|_| orthogonal(layer.rows, layer.columns, random));
                each.collect()
            }
            Init::Scaled { fan, gain, normal } => {
                let fan = match fan {
                    Fan::In => layer.inputs as f64,
                    Fan::Both => (layer.inputs + layer.outputs) as f64 / 2.0,
                };
                let deviation = (gain / fan.max(1.0)).sqrt();
                let wide = 3f64.sqrt();
                let one = |_| match normal {
                    true => random.normal() * deviation,
                    false => (2.0 * random.uniform() - 1.0) * wide * deviation,
                };
                (0..count).map(one).collect()
            }
        }
    }
}

/// A matrix of `rows` × `columns`, row-major, whose rows (columns where there are fewer of them) are orthonormal.
fn orthogonal(rows: usize, columns: usize, random: &mut Random) -> Vec<f64> {
    let (count, len) = (rows.min(columns), rows.max(columns));
    let mut basis: Vec<Vec<f64>> = vec![];
    while basis.len() < count {
        let mut v: Vec<f64> = (0..len).map(|_| random.normal()).collect();
        // Twice is enough (Kahan, Parlett).
        for _ in 0..2 {
            basis.iter().for_each(|b| straighten(&mut v, b));
        }
        let length = v.iter().map(|x| x * x).sum::<f64>().sqrt();
        if length > 1e-6 {
            v.iter_mut().for_each(|x| *x /= length);
            basis.push(v);
        }
    }
    match rows <= columns {
        true => basis.concat(),
        false => (0..len).flat_map(|r| basis.iter().map(move |b| b[r])).collect(),
    }
}

/// `v` without what lies along `b`, of length 1.
fn straighten(v: &mut [f64], b: &[f64]) {
    let along: f64 = v.iter().zip(b).map(|(x, y)| x * y).sum();
    v.iter_mut().zip(b).for_each(|(x, y)| *x -= along * y);
}

/// The initialisers that some node multiplies by, in the order of these nodes, each with the first output of the node.
fn layers(graph: &Graph) -> Vec<(ValueId, Layer, ValueId)> {
    let mut found: Vec<(ValueId, Layer, ValueId)> = vec![];
    for (_, node) in graph.iter() {
        let Some(y) = node.outputs.first().copied().flatten() else {
            continue;
        };
        for (i, v) in node.inputs.iter().enumerate() {
            let Some(v) = v.filter(|v| !found.iter().any(|f| f.0 == *v)) else {
                continue;
            };
            let Some(t) = graph[v]
                .konst
                .as_ref()
                .map(|c| &c.tensor)
                .filter(|t| t.dtype().is_float())
            else {
                continue;
            };
            found.extend(Layer::of(node, i, t.dims()).map(|l| (v, l, y)));
        }
    }
    found
}

fn set(graph: &mut Graph, v: ValueId, x: &[f64]) {
    if let Some(konst) = &graph[v].konst {
        let new = Tensor::rounded(konst.tensor.dtype(), konst.tensor.dims(), x);
        let new = new.map(|t| konst.with(t));
        graph[v].konst = new.or(graph[v].konst.take());
    }
}

fn chosen(graph: &Graph, pattern: &str) -> Result<Vec<(ValueId, Layer, ValueId)>, TrainError> {
    let all = layers(graph);
    let fits = |v: ValueId| matches(pattern, &graph[v].name);
    let some: Vec<_> = all.iter().copied().filter(|l| fits(l.0)).collect();
    if some.is_empty() {
        let names: Vec<&str> = all.iter().map(|l| &*graph[l.0].name).collect();
        return Err(TrainError::wrong(missing("weight fits", pattern, &names)));
    }
    Ok(some)
}

/// Draws the weights of layers anew, those whose names fit `pattern`: operands of products and convolutions. Biases and factors of
/// normalisations stay. The same seed gives the same weights; their number.
///
/// # Errors
///
/// If the pattern fits none.
pub fn initialize(model: &mut Model, pattern: &str, init: Init, seed: u64) -> Result<usize, TrainError> {
    let layers = chosen(&model.graph, pattern)?;
    let mut random = Random::new(seed);
    for &(v, layer, _) in &layers {
        let x = init.draw(layer, &mut random);
        set(&mut model.graph, v, &x);
    }
    Ok(layers.len())
}

/// How far from 1 a variance may be.
const NEAR: f64 = 0.02;

/// How often a layer is scaled.
const TRIES: usize = 10;

/// Draws the weights of layers that fit `pattern` so that what each makes of `inputs` has variance 1: orthogonal first, then scaled
/// layer by layer (Mishkin and Matas 2015). The number of runs that it took.
///
/// # Errors
///
/// If the pattern fits none, the model does not run, or a layer's output does not change.
pub fn lsuv(
    model: &mut Model,
    pattern: &str,
    seed: u64,
    inputs: &[(&str, Tensor)],
) -> Result<usize, TrainError> {
    initialize(model, pattern, Init::Orthogonal, seed)?;
    let mut runs = 0;
    for (v, _, y) in chosen(&model.graph, pattern)? {
        let name = model.graph[y].name.to_string();
        for _ in 0..TRIES {
            let variance = variance(model, &name, inputs)?;
            runs += 1;
            if (variance - 1.0).abs() <= NEAR {
                break;
            }
            if !(variance.is_finite() && variance > 0.0) {
                return Err(TrainError::wrong(format!(
                    "{name:?} has a variance of {variance} on these inputs"
                )));
            }
            let konst = model.graph[v].konst.as_ref();
            let x = konst.and_then(|c| c.tensor.floats()).unwrap_or_default();
            let x: Vec<f64> = x.iter().map(|x| x / variance.sqrt()).collect();
            set(&mut model.graph, v, &x);
        }
    }
    Ok(runs)
}

/// The variance of the elements of the value `name`.
fn variance(model: &Model, name: &str, inputs: &[(&str, Tensor)]) -> Result<f64, TrainError> {
    let session = Session::builder(model).tap(name).build()?;
    let outputs = session.run(inputs.iter().map(|(n, t)| (*n, t)))?;
    let x = outputs.get(name).and_then(Tensor::floats).unwrap_or_default();
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    Ok(x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64)
}
