//! Small models, whose gradients the reference and the engine must agree on.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "tests use what they need, and end where they cannot go on"
)]

use secateur_engine::expr::{Builder, Ex};
use secateur_engine::ir::{DType, Dim, Opset, Type, ValueId};
use secateur_engine::{Model, Session, Tensor, ops};
use secateur_train::{DiffError, Gradients, differentiate};

/// A model with doubles `x0`, `x1`, … of the given shapes as inputs, and the value that `write` gives as output.
pub(crate) struct Small {
    pub(crate) model: Model,
    pub(crate) x: Vec<ValueId>,
    pub(crate) y: ValueId,
}

impl Small {
    pub(crate) fn new(shapes: &[&[usize]], write: impl for<'a> FnOnce(&[Ex<'a>]) -> Ex<'a>) -> Small {
        let known = |s: &&[usize]| s.iter().map(|&d| Dim::from(d)).collect();
        Small::symbolic(&shapes.iter().map(known).collect::<Vec<_>>(), write)
    }

    pub(crate) fn symbolic(shapes: &[Vec<Dim>], write: impl for<'a> FnOnce(&[Ex<'a>]) -> Ex<'a>) -> Small {
        let mut model = Model {
            ir_version: Some(10),
            opsets: vec![Opset {
                domain: Some("".into()),
                version: Some(ops::OPSET),
                extra: Default::default(),
            }],
            ..Model::default()
        };
        let graph = &mut model.graph;
        let input = |(i, s): (usize, &Vec<Dim>)| {
            let ty = Type::Tensor {
                dtype: Some(DType::F64),
                shape: Some(s.clone()),
            };
            let v = graph.input(format!("x{i}"), ty.clone());
            // By this constants get their type.
            graph[v].ty = Some(ty);
            v
        };
        let x: Vec<_> = shapes.iter().enumerate().map(input).collect();
        let before = model.graph.clone();
        let builder = Builder::new(&before, ops::OPSET);
        let y = write(&x.iter().map(|&v| builder.at(v)).collect::<Vec<_>>()).id;
        builder.finish().apply(&mut model.graph).unwrap();
        Small { model, x, y }
    }

    /// The gradients of `of`, which are made outputs, by all inputs.
    pub(crate) fn grad(&mut self, of: ValueId) -> Result<Vec<Option<ValueId>>, DiffError> {
        let found = differentiate(&mut self.model, &Gradients::new(&[(of, None)], &self.x))?;
        found
            .iter()
            .flatten()
            .for_each(|&v| self.model.graph.output(v, None));
        Ok(found)
    }

    /// What the outputs are for these inputs; the reference and the engine agree.
    pub(crate) fn run(&self, x: &[Tensor]) -> Vec<Vec<f64>> {
        let both = [
            Session::builder(&self.model).reference(),
            Session::builder(&self.model),
        ];
        let [reference, engine] = both.map(|session| {
            let session = session.threads(1).build().unwrap();
            let feeds = x.iter().enumerate().map(|(i, t)| (format!("x{i}"), t));
            let feeds: Vec<_> = feeds
                .filter(|(name, _)| session.inputs().any(|(n, _)| n == name))
                .collect();
            let outputs = session.run(feeds).unwrap();
            outputs
                .tensors()
                .map(|(_, t)| t.floats().unwrap())
                .collect::<Vec<_>>()
        });
        for (a, b) in reference.iter().flatten().zip(engine.iter().flatten()) {
            assert!(
                (a - b).abs() <= 1e-9 * (1.0 + a.abs()) || a.is_nan() && b.is_nan(),
                "{a}, {b}"
            );
        }
        reference
    }
}

/// Doubles.
pub(crate) fn doubles(dims: &[usize], x: &[f64]) -> Tensor {
    Tensor::of(dims, x.to_vec())
}

/// The gradients by all inputs at `x`, where `write` makes a tensor that is summed.
pub(crate) fn gradients(x: &[Tensor], write: impl for<'a> FnOnce(&[Ex<'a>]) -> Ex<'a>) -> Vec<Vec<f64>> {
    let shapes: Vec<&[usize]> = x.iter().map(|t| t.dims()).collect();
    let mut small = Small::new(&shapes, write);
    small.grad(small.y).unwrap();
    small.run(x)
}

/// Asserts that both are the same within 1e-9.
#[track_caller]
pub(crate) fn near(a: &[f64], b: &[f64]) {
    assert_eq!(a.len(), b.len(), "{a:?}, expected {b:?}");
    let apart = a
        .iter()
        .zip(b)
        .find(|(a, b)| (*a - *b).abs() > 1e-9 * (1.0 + b.abs()) || a.is_nan() != b.is_nan());
    assert!(apart.is_none(), "{a:?}, expected {b:?}");
}
