//! The gradient of every operator, over its own cases, against central differences of the reference.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should end there")]

use std::collections::{BTreeMap, BTreeSet};

use secateur_engine::ir::{DType, Model, Node, Opset, Type, ValueId};
use secateur_engine::ops::case::floats;
use secateur_engine::ops::{Case, Fact, NodeRef, OPS, Op};
use secateur_engine::run::Builder;
use secateur_engine::{RunError, Session, Tensor, reference};
use secateur_train::{Gradients, differentiate};

/// Operators, and perhaps one of their cases, that have no gradient, and why. Sorted.
const NONE: &[(&str, &str, &str)] = &[
    ("DequantizeLinear", "", "no rule yet"),
    ("Dropout", "half precision", "the share is not learnt"),
    ("Dropout", "training", "the share is not learnt"),
    ("MaxRoiPool", "", "not yet"),
    ("MelWeightMatrix", "", "a table of constants"),
    ("Resize", "every style", "its region is not learnt"),
    ("RoiAlign", "", "not yet"),
    ("Unique", "", "it sorts"),
    ("ai.onnx.ml.LinearClassifier", "", "classical machine learning"),
    ("ai.onnx.ml.LinearRegressor", "", "classical machine learning"),
    ("ai.onnx.ml.Normalizer", "", "classical machine learning"),
    ("ai.onnx.ml.OneHotEncoder", "", "classical machine learning"),
    ("ai.onnx.ml.SVMClassifier", "", "classical machine learning"),
    ("ai.onnx.ml.SVMRegressor", "", "classical machine learning"),
    ("ai.onnx.ml.TreeEnsemble", "", "classical machine learning"),
    (
        "ai.onnx.ml.TreeEnsembleClassifier",
        "",
        "classical machine learning",
    ),
    (
        "ai.onnx.ml.TreeEnsembleRegressor",
        "",
        "classical machine learning",
    ),
    (
        "ai.onnx.preview.training.Adam",
        "the first step",
        "a root at 0 has no slope",
    ),
    ("com.microsoft.DynamicQuantizeLSTM", "", "it rounds"),
    ("com.microsoft.DynamicQuantizeMatMul", "all", "it rounds"),
    (
        "com.microsoft.DynamicQuantizeMatMul",
        "no zero point",
        "it rounds",
    ),
    (
        "com.microsoft.GatherBlockQuantized",
        "",
        "weights of few bits are not learnt",
    ),
    (
        "com.microsoft.MatMulNBits",
        "",
        "weights of few bits are not learnt",
    ),
    ("com.microsoft.Unique", "", "it sorts"),
    ("secateur.RoundedLSTM", "", "it rounds"),
];

/// Operators that compute in 32 bits whatever they are given.
const SINGLE: &[&str] = &[
    "DequantizeLinear",
    "com.microsoft.DequantizeLinear",
    "com.microsoft.MatMulIntegerToFloat",
    "com.microsoft.QAttention",
    "secateur.Attention",
];

/// Elements of each input that are looked at.
const SAMPLES: usize = 4;

/// Cases with more elements are left to smaller ones.
const ELEMENTS: usize = 2000;

/// One case of one operator, its floats of one type and away from kinks.
struct Bench {
    op: &'static dyn Op,
    case: Case,
    node: Node,
    x: Vec<Option<Tensor>>,
    y: Vec<Tensor>,
    dtype: DType,
}

/// The floats of `t` as `dtype`, tamed and moved a little.
fn moved(t: &Tensor, dtype: DType, i: usize) -> Tensor {
    let noise = floats(t.dims(), 77 + i as u64).floats().unwrap();
    let v = t.floats().unwrap().into_iter().zip(noise);
    let v = v.map(|(x, noise)| match x.is_finite() && x.abs() < 50.0 {
        true => x + noise * 1e-3,
        false => noise,
    });
    Tensor::rounded(dtype, t.dims(), &v.collect::<Vec<_>>()).unwrap()
}

fn is_float(t: &Tensor) -> bool {
    t.dtype().is_float() && t.floats().is_some()
}

impl Bench {
    /// The case with floats of type `dtype`, if it can be.
    fn new(op: &'static dyn Op, case: &Case, dtype: DType) -> Option<Bench> {
        let name = op.name();
        let mut ids = (0u32..).map(ValueId);
        let inputs = case.inputs.iter().map(|x| ids.next().filter(|_| x.is_some()));
        let node = Node {
            domain: (!name.domain.is_empty()).then(|| name.domain.into()),
            attrs: case.attrs.clone(),
            ..Node::new(name.name, inputs.collect(), vec![])
        };
        let outputs = (0..case.outputs).map(|_| ids.next()).collect();
        let x = case.inputs.iter().enumerate().map(|(i, x)| {
            let x = x.as_ref()?;
            Some(if is_float(x) {
                moved(x, dtype, i)
            } else {
                x.clone()
            })
        });
        let mut b = Bench {
            op,
            case: case.clone(),
            node: Node { outputs, ..node },
            x: x.collect(),
            y: vec![],
            dtype,
        };
        b.y = b.eval(&b.x)?;
        let made =
            b.y.iter()
                .any(|y| is_float(y) && y.dtype() == dtype && !y.is_empty());
        made.then_some(b)
    }

    fn all(op: &'static dyn Op) -> Vec<Bench> {
        let has_floats = |c: &Case| c.inputs.iter().flatten().any(|t| is_float(t) && !t.is_empty());
        let cases = op.cases().into_iter().filter(has_floats);
        let small = |c: &Case| c.inputs.iter().flatten().map(Tensor::len).sum::<usize>() <= ELEMENTS;
        let doubles = |c: &Case| match SINGLE.contains(&&*full_name(op)) {
            true => None,
            false => Bench::new(op, c, DType::F64),
        };
        cases
            .filter(small)
            .filter_map(|c| doubles(&c).or_else(|| Bench::new(op, &c, DType::F32)))
            .collect()
    }

    fn eval(&self, x: &[Option<Tensor>]) -> Option<Vec<Tensor>> {
        let x: Vec<_> = x.iter().map(Option::as_ref).collect();
        let facts: Vec<_> = x.iter().map(|x| x.map(Fact::of)).collect();
        let inputs = reference::given(&self.node.inputs, &facts, &x);
        let n = NodeRef::new(&self.node, self.case.opset, inputs);
        self.op.infer(&n).ok()?;
        let mut y = reference::eval(self.op, &n, &x).ok()?;
        y.truncate(self.case.outputs);
        Some(y)
    }

    /// The types of the outputs where input `hidden` is not known.
    fn types(&self, hidden: usize) -> Option<Vec<Type>> {
        let x = self.x.iter().enumerate();
        let x: Vec<_> = x.map(|(i, x)| x.as_ref().filter(|_| i != hidden)).collect();
        let facts: Vec<_> = self.x.iter().map(|x| x.as_ref().map(Fact::of)).collect();
        let inputs = reference::given(&self.node.inputs, &facts, &x);
        let n = NodeRef::new(&self.node, self.case.opset, inputs);
        Some(self.op.infer(&n).ok()?.into_iter().map(|f| f.ty).collect())
    }

    /// The floats that may change: those that no shape follows from.
    fn by(&self) -> Vec<usize> {
        let all = self.types(usize::MAX);
        let free = |i: &usize| self.x[*i].as_ref().is_some_and(is_float) && self.types(*i) == all;
        (0..self.x.len()).filter(free).collect()
    }

    /// Weights of the outputs in the sum that is differentiated; `None` for outputs that are no floats.
    fn weights(&self) -> Vec<Option<Tensor>> {
        let weight = |(i, y): (usize, &Tensor)| {
            let w = floats(y.dims(), 900 + i as u64).floats()?;
            (y.dtype() == self.dtype).then(|| Tensor::rounded(y.dtype(), y.dims(), &w))?
        };
        self.y.iter().enumerate().map(weight).collect()
    }

    fn sum(&self, x: &[Option<Tensor>]) -> f64 {
        let Some(y) = self.eval(x) else { return f64::NAN };
        let all = y.iter().zip(self.weights()).filter_map(|(y, w)| {
            let both = y.floats()?.into_iter().zip(w?.floats()?);
            // What is infinite far away from the element does not hide its slope.
            Some(
                both.map(|(y, w)| if y.is_finite() { y * w } else { 0.0 })
                    .sum::<f64>(),
            )
        });
        all.sum()
    }

    /// The slope along element `at` of input `i`, from two steps; `None` where they differ.
    fn slope(&self, i: usize, at: usize) -> Option<f64> {
        let (step, near) = match self.dtype {
            DType::F64 => (1e-5, 1e-5),
            _ => (1e-2, 4e-3),
        };
        let v = self.x[i].as_ref()?.floats()?;
        let h = step * (1.0 + v[at].abs());
        let along = |h: f64| {
            let end = |h: f64| {
                let (mut x, mut v) = (self.x.clone(), v.clone());
                v[at] += h;
                x[i] = Tensor::rounded(self.dtype, self.x[i].as_ref().unwrap().dims(), &v);
                self.sum(&x)
            };
            (end(h) - end(-h)) / (2.0 * h)
        };
        let (far, close) = (along(h), along(h / 3.0));
        // Nothing moves because it is not a number.
        let hidden = far == 0.0 && self.odd();
        let agree = (far - close).abs() <= near * (1.0 + far.abs().min(close.abs()));
        agree.then_some(close).filter(|d| d.is_finite() && !hidden)
    }

    /// A model of the node alone: floats that may change are inputs, the rest initialisers.
    fn model(&self, by: &[usize]) -> (Model, Vec<ValueId>) {
        let import = |domain: &str| Opset {
            domain: Some(domain.into()),
            version: Some(self.case.opset),
            extra: Default::default(),
        };
        let mut m = Model {
            ir_version: Some(10),
            opsets: vec![import("")],
            ..Model::default()
        };
        if !self.node.domain().is_empty() {
            m.opsets.push(import(self.node.domain()));
        }
        for (i, x) in self.x.iter().enumerate() {
            match x {
                Some(t) if by.contains(&i) => {
                    let ty = Type::tensor(t.dtype(), t.dims().iter().copied());
                    m.graph.input(format!("x{i}"), ty);
                }
                Some(t) => drop(m.graph.constant(format!("x{i}"), t.clone())),
                None => drop(m.graph.value(format!("x{i}"))),
            }
        }
        for i in 0..self.case.outputs {
            m.graph.value(format!("y{i}"));
        }
        m.graph.node(self.node.clone());
        let by = by.iter().map(|&i| ValueId(i as u32)).collect();
        (m, by)
    }

    /// The gradients of the inputs `by`, as the reference and as the engine compute them; zeros where there is none.
    fn gradients(&self, by: &[usize]) -> Result<[Vec<Tensor>; 2], String> {
        let (mut m, ids) = self.model(by);
        let weights = self.weights().into_iter().enumerate();
        let of: Vec<_> = weights
            .filter_map(|(i, w)| {
                let y = self.node.outputs[i]?;
                let dy = m.graph.constant(format!("dy{i}"), w?);
                Some((y, Some(dy)))
            })
            .collect();
        let found = differentiate(&mut m, &Gradients::new(&of, &ids)).map_err(|e| e.to_string())?;
        found.iter().flatten().for_each(|&v| m.graph.output(v, None));
        Ok([
            self.run(Session::builder(&m).reference(), by, &found)
                .map_err(|e| format!("reference: {e}"))?,
            self.run(Session::builder(&m), by, &found)
                .map_err(|e| format!("engine: {e}"))?,
        ])
    }

    /// The gradients `found` of the inputs `by`, which are the outputs of the session's model.
    fn run(
        &self,
        session: Builder,
        by: &[usize],
        found: &[Option<ValueId>],
    ) -> Result<Vec<Tensor>, RunError> {
        let mut made = vec![];
        if found.iter().any(Option::is_some) {
            let session = session.threads(1).build()?;
            let feed = |name: &str| {
                let i: usize = name[1..].parse().unwrap();
                (name.to_owned(), self.x[i].as_ref().unwrap())
            };
            let feeds: Vec<_> = session.inputs().map(|(name, _)| feed(name)).collect();
            made = session.run(feeds)?.tensors().map(|(_, t)| t.clone()).collect();
        }
        let mut made = made.into_iter();
        let each = by.iter().zip(found).map(|(&i, f)| match f {
            Some(_) => made.next().unwrap(),
            None => Tensor::zeros(self.dtype, self.x[i].as_ref().unwrap().dims()).unwrap(),
        });
        Ok(each.collect())
    }

    /// Whether what comes out has elements that are no numbers.
    fn odd(&self) -> bool {
        let all = self.y.iter().filter_map(Tensor::floats).flatten();
        all.into_iter().any(|y| !y.is_finite())
    }

    /// The number of elements that were compared.
    fn check(&self) -> Result<usize, String> {
        let by = self.by();
        let [reference, engine] = self.gradients(&by)?;
        let each = by.iter().zip(reference.iter().zip(&engine));
        each.map(|(&i, (a, b))| self.compare(i, a, b)).sum()
    }

    /// Compares the gradient of input `i`, by the reference and by the engine, with some slopes.
    fn compare(&self, i: usize, a: &Tensor, b: &Tensor) -> Result<usize, String> {
        let dims = [self.x[i].as_ref().unwrap(), a, b].map(Tensor::dims);
        if dims[0] != dims[1] || dims[0] != dims[2] {
            return Err(format!("input {i}: dimensions {dims:?}"));
        }
        let loose = if self.dtype == DType::F64 { 2e-5 } else { 1e-2 };
        let (a, b) = (a.floats().unwrap(), b.floats().unwrap());
        let apart = |a: f64, b: f64| (a - b).abs() > loose * (1.0 + b.abs()) || a.is_nan() != b.is_nan();
        if let Some(at) = (0..a.len()).find(|&at| apart(b[at], a[at])) {
            return Err(format!("input {i}[{at}]: reference {}, engine {}", a[at], b[at]));
        }
        let mut compared = 0;
        for at in (0..SAMPLES.min(a.len())).map(|s| (s * 7919 + 3) % a.len()) {
            let slope = self.slope(i, at).filter(|_| !(a[at].is_nan() && self.odd()));
            let Some(slope) = slope else { continue };
            compared += 1;
            if apart(a[at], slope) {
                return Err(format!("input {i}[{at}]: gradient {}, slope {slope}", a[at]));
            }
        }
        Ok(compared)
    }
}

fn listed(op: &str, case: &str) -> Option<usize> {
    NONE.iter()
        .position(|(o, c, _)| *o == op && (c.is_empty() || *c == case))
}

fn full_name(op: &dyn Op) -> String {
    let name = op.name();
    match name.domain {
        "" => name.name.into(),
        domain => format!("{domain}.{}", name.name),
    }
}

#[test]
fn gradients_are_the_slopes_of_the_reference() {
    assert!(NONE.is_sorted_by(|a, b| (a.0, a.1) < (b.0, b.1)));
    let (mut wrong, mut compared) = (vec![], BTreeMap::<String, usize>::new());
    let mut excused = BTreeSet::new();
    for &op in OPS.iter().filter(|op| !op.laws().impure && !op.laws().any) {
        let name = full_name(op);
        for b in Bench::all(op) {
            match (b.check(), listed(&name, b.case.name)) {
                (Ok(_), _) if b.by().is_empty() => {}
                (Ok(n), _) => *compared.entry(name.clone()).or_default() += n,
                (Err(e), Some(row)) if !NONE[row].1.is_empty() || e.contains("has no gradient") => {
                    excused.insert(row);
                }
                // An old version may mean what none has meant since.
                (Err(e), _) if e.contains("cannot say this") => {}
                (Err(e), _) => wrong.push(format!("{name}, {:?} ({}): {e}", b.case.name, b.case.opset)),
            }
        }
    }
    let unseen = compared
        .iter()
        .filter(|(name, n)| **n == 0 && !NONE.iter().any(|r| r.0 == **name));
    wrong.extend(unseen.map(|(name, _)| format!("{name}: nothing was compared")));
    let strange = (0..NONE.len()).filter(|row| !excused.contains(row));
    wrong.extend(
        strange.map(|row| format!("{:?}: every case has a gradient; take it off the list", NONE[row])),
    );
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
}
