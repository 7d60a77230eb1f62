//! Where the constants of a model are: initialisers, and tensors that `Constant` nodes hold.

use std::collections::HashSet;

use secateur_engine::ir::{AttrValue, Constant, Graph, Model, Name, NodeId, ValueId};

/// A way from the model to one constant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Site {
    pub(crate) scope: Scope,
    pub(crate) at: At,
}

/// A way from the model to one graph.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Scope {
    /// The model-local function; `None` for the main graph.
    pub(crate) function: Option<usize>,
    /// From there, the attributes that hold the graphs inside one another.
    pub(crate) path: Vec<Branch>,
}

/// A subgraph of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Branch {
    node: NodeId,
    attr: usize,
    graph: usize,
}

/// A constant of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum At {
    Initializer(ValueId),
    /// The attribute of a node `Constant`.
    Attr(NodeId, usize),
}

/// A constant's place and what it is called.
pub(crate) struct Place {
    pub(crate) site: Site,
    /// The value's name in its own graph.
    pub(crate) value: Name,
    /// What no other constant of the model is called. In the main graph the value's name; in a subgraph that with the
    /// way to it in front: the node's first output, the attribute.
    pub(crate) name: String,
}

impl Scope {
    pub(crate) fn graph<'m>(&self, model: &'m Model) -> Option<&'m Graph> {
        let root = match self.function {
            None => &model.graph,
            Some(f) => &model.functions.get(f)?.graph,
        };
        self.path.iter().try_fold(root, |g, b| {
            g.nodes
                .get(b.node.0 as usize)?
                .attrs
                .get(b.attr)?
                .value
                .graphs()
                .get(b.graph)
        })
    }

    fn graph_mut<'m>(&self, model: &'m mut Model) -> Option<&'m mut Graph> {
        let root = match self.function {
            None => &mut model.graph,
            Some(f) => &mut model.functions.get_mut(f)?.graph,
        };
        self.path.iter().try_fold(root, |g, b| {
            let attr = g.nodes.get_mut(b.node.0 as usize)?.attrs.get_mut(b.attr)?;
            attr.value.graphs_mut().get_mut(b.graph)
        })
    }

    fn then(&self, branch: Branch) -> Scope {
        let mut scope = self.clone();
        scope.path.push(branch);
        scope
    }
}

/// The subgraphs of `node`, with the way to each and the name of the attribute.
pub(crate) fn branches<'g>(
    graph: &'g Graph,
    node: NodeId,
    scope: &Scope,
) -> impl Iterator<Item = (Scope, &'g Name, &'g Graph)> {
    graph[node].attrs.iter().enumerate().flat_map(move |(attr, a)| {
        let inner = a.value.graphs().iter().enumerate();
        inner.map(move |(graph, g)| (scope.then(Branch { node, attr, graph }), &a.name, g))
    })
}

/// The attribute that holds the tensor of a node `Constant`.
pub(crate) fn held(graph: &Graph, node: NodeId) -> Option<(usize, &Constant)> {
    let n = &graph[node];
    let tensor = |(i, a): (usize, &'_ secateur_engine::ir::Attr)| match &a.value {
        AttrValue::Tensor(_) if &*a.name == "value" => Some(i),
        _ => None,
    };
    let at = n
        .attrs
        .iter()
        .enumerate()
        .find_map(tensor)
        .filter(|_| n.is("Constant"))?;
    match &n.attrs[at].value {
        AttrValue::Tensor(c) => Some((at, c)),
        _ => None,
    }
}

impl Site {
    pub(crate) fn constant<'m>(&self, model: &'m Model) -> Option<&'m Constant> {
        let graph = self.scope.graph(model)?;
        match self.at {
            At::Initializer(v) => graph.values.get(v.0 as usize)?.konst.as_ref(),
            At::Attr(node, _) => held(graph, node).map(|(_, c)| c),
        }
    }

    pub(crate) fn constant_mut<'m>(&self, model: &'m mut Model) -> Option<&'m mut Constant> {
        let graph = self.scope.graph_mut(model)?;
        match self.at {
            At::Initializer(v) => graph.values.get_mut(v.0 as usize)?.konst.as_mut(),
            At::Attr(node, attr) => {
                match &mut graph.nodes.get_mut(node.0 as usize)?.attrs.get_mut(attr)?.value {
                    AttrValue::Tensor(c) => Some(c),
                    _ => None,
                }
            }
        }
    }
}

/// Every constant of `model`, in the order of the file.
pub(crate) fn places(model: &Model) -> Vec<Place> {
    let mut found = Found::default();
    found.graph(&model.graph, Scope::default(), "");
    for (i, f) in model.functions.iter().enumerate() {
        let scope = Scope {
            function: Some(i),
            path: vec![],
        };
        found.graph(&f.graph, scope, &format!("{}/", f.name));
    }
    found.places
}

#[derive(Default)]
struct Found {
    places: Vec<Place>,
    names: HashSet<String>,
}

impl Found {
    fn add(&mut self, scope: &Scope, at: At, value: &Name, prefix: &str) {
        let mut name = format!("{prefix}{value}");
        while !self.names.insert(name.clone()) {
            name.push('\'');
        }
        let site = Site {
            scope: scope.clone(),
            at,
        };
        self.places.push(Place {
            site,
            value: value.clone(),
            name,
        });
    }

    fn graph(&mut self, graph: &Graph, scope: Scope, prefix: &str) {
        for &v in graph.initializers.iter().filter(|v| graph[**v].konst.is_some()) {
            self.add(&scope, At::Initializer(v), &graph[v].name, prefix);
        }
        for &id in &graph.order {
            let output = graph[id].outputs.first().copied().flatten();
            let name = output.map_or_else(|| "".into(), |v| graph[v].name.clone());
            if let Some((attr, _)) = held(graph, id) {
                self.add(&scope, At::Attr(id, attr), &name, prefix);
            }
            for (inner, attr, g) in branches(graph, id, &scope) {
                self.graph(g, inner, &format!("{prefix}{name}.{attr}/"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use secateur_engine::Tensor;
    use secateur_engine::ir::{Attr, Function, Node};

    use super::*;

    /// An initialiser `w` and a `Constant` of value `c`.
    fn graph(x: f32) -> Graph {
        let mut g = Graph::default();
        g.constant("w", Tensor::scalar(x));
        let c = g.value("c");
        let mut node = Node::new("Constant", vec![], vec![Some(c)]);
        node.set("value", Tensor::scalar(x + 1.0));
        g.node(node);
        g
    }

    fn model() -> Model {
        let mut model = Model {
            graph: graph(0.0),
            ..Model::default()
        };
        let y = model.graph.value("y");
        let mut node = Node::new("If", vec![], vec![Some(y)]);
        node.attrs.push(Attr::new("then_branch", graph(2.0)));
        node.attrs.push(Attr::new("else_branch", graph(4.0)));
        model.graph.node(node);
        model.graph.constant("y.then_branch/w", Tensor::scalar(8f32));
        model.functions.push(Function {
            name: "f".into(),
            graph: graph(6.0),
            ..Function::default()
        });
        model
    }

    #[test]
    fn every_constant_is_found_under_a_name_of_its_own() {
        let mut model = model();
        let places = places(&model);
        let names: Vec<_> = places.iter().map(|p| &*p.name).collect();
        let expected = [
            "w",
            "y.then_branch/w",
            "c",
            "y.then_branch/w'",
            "y.then_branch/c",
            "y.else_branch/w",
            "y.else_branch/c",
            "f/w",
            "f/c",
        ];
        assert_eq!(names, expected);
        let item = |c: &Constant| c.tensor.item().unwrap();
        let values: Vec<_> = places
            .iter()
            .map(|p| item(p.site.constant(&model).unwrap()))
            .collect();
        assert_eq!(values, [0.0, 8.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        for (p, &x) in places.iter().zip(&values) {
            assert_eq!(item(p.site.constant_mut(&mut model).unwrap()), x);
        }
    }
}
