//! Models under construction.

use std::collections::HashMap;

use secateur_engine::expr::{Builder, Ex};
use secateur_engine::ir::{DType, Dim, Flaw, Graph, Model, Opset, Tensor, Type, ValueId};
use secateur_engine::opt::infer::infer;

use crate::{Net, Random};

/// The version of ONNX's operators that models are written in: old enough for every runtime in use.
pub const OPSET: i64 = 17;

/// The version of the file format that came with [`OPSET`].
pub const IR_VERSION: i64 = 8;

/// A graph that is being written: first its inputs and weights, then what is computed from them.
#[derive(Clone, Debug)]
pub struct Draft {
    graph: Graph,
}

impl Draft {
    /// An empty graph called `name`.
    pub fn new(name: &str) -> Draft {
        Draft {
            graph: Graph {
                name: Some(name.into()),
                ..Graph::default()
            },
        }
    }

    /// Adds a float input.
    pub fn input(&mut self, name: &str, shape: impl IntoIterator<Item = impl Into<Dim>>) -> ValueId {
        self.input_of(name, Type::tensor(DType::F32, shape))
    }

    /// Adds an input of any type.
    pub fn input_of(&mut self, name: &str, ty: Type) -> ValueId {
        let v = self.graph.input(name, ty.clone());
        self.graph[v].ty = Some(ty);
        v
    }

    /// Adds an initialiser, however often it will be read.
    pub fn weight(&mut self, name: &str, tensor: Tensor) -> ValueId {
        self.graph.constant(name, tensor)
    }

    /// The model that computes what `write` says: named outputs from expressions of the draft's values.
    ///
    /// # Errors
    ///
    /// If two values have one name, or a node does not fit its operator.
    pub fn finish(
        mut self,
        write: impl for<'a> FnOnce(&'a Builder<'a>) -> Vec<(String, Ex<'a>)>,
    ) -> Result<Model, Flaw> {
        let graph = self.graph.clone();
        let builder = Builder::new(&graph, OPSET);
        let outputs = ids(write(&builder));
        builder.finish().apply(&mut self.graph)?;
        self.model(outputs)
    }

    /// The same for a network, whose weights are drawn from `random`.
    ///
    /// # Errors
    ///
    /// As [`Draft::finish`].
    pub fn network(
        mut self,
        random: Random,
        write: impl for<'a> FnOnce(&'a Net<'a>) -> Vec<(String, Ex<'a>)>,
    ) -> Result<Model, Flaw> {
        let graph = self.graph.clone();
        let builder = Builder::new(&graph, OPSET);
        let net = Net::new(&builder, random);
        let outputs = ids(write(&net));
        let names = net.names();
        builder.finish().apply(&mut self.graph)?;
        for (v, name) in names {
            self.graph[v].name = name.into();
        }
        self.model(outputs)
    }

    fn model(self, outputs: Vec<(String, ValueId)>) -> Result<Model, Flaw> {
        let mut model = Model {
            ir_version: Some(IR_VERSION),
            opsets: vec![Opset {
                domain: None,
                version: Some(OPSET),
                extra: Default::default(),
            }],
            graph: self.graph,
            ..Model::default()
        };
        for (name, y) in &outputs {
            model.graph[*y].name = name.as_str().into();
        }
        let facts = infer(&model, &HashMap::new())
            .map_err(|e| Flaw::new(format!("node {:?} ({})", e.node, e.op), e.what.to_string()))?;
        for &(_, y) in &outputs {
            let ty = declared(&facts.of(y).ty);
            model.graph.output(y, Some(ty));
        }
        secateur_engine::ir::verify(&model.graph)?;
        Ok(model)
    }
}

fn ids(outputs: Vec<(String, Ex)>) -> Vec<(String, ValueId)> {
    outputs.into_iter().map(|(name, y)| (name, y.id)).collect()
}

/// A type as a file may declare it: without computed sizes.
fn declared(ty: &Type) -> Type {
    let plain = |d: &Dim| match d {
        Dim::Known(_) | Dim::Symbol(_) => d.clone(),
        _ => Dim::Unknown,
    };
    match (ty.dtype(), ty.shape()) {
        (Some(dtype), Some(shape)) => Type::tensor(dtype, shape.iter().map(plain)),
        _ => ty.clone(),
    }
}
