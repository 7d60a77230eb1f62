//! Graphs as text, for people.

use std::fmt;

use super::{AttrValue, Graph, Node, Tensor, ValueId};

/// One node a line: `y, z = Op<attr=1>(x, w)`.
impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let names = |ids: Vec<ValueId>| {
            let names: Vec<_> = ids.into_iter().map(|v| self.typed(v)).collect();
            names.join(", ")
        };
        writeln!(
            f,
            "inputs {}",
            names(self.inputs.iter().map(|p| p.value).collect())
        )?;
        for (_, node) in self.iter() {
            writeln!(f, "  {}", self.line(node))?;
        }
        writeln!(
            f,
            "outputs {}",
            names(self.outputs.iter().map(|p| p.value).collect())
        )
    }
}

impl Graph {
    fn typed(&self, v: ValueId) -> String {
        match &self[v].ty {
            Some(t) => format!("{}: {t}", self[v].name),
            None => self[v].name.to_string(),
        }
    }

    /// `node` as one line.
    pub fn line(&self, node: &Node) -> String {
        let list = |ids: &[Option<ValueId>], show: &dyn Fn(ValueId) -> String| {
            let ids: Vec<_> = ids.iter().map(|v| v.map_or("_".into(), show)).collect();
            ids.join(", ")
        };
        let attrs: Vec<_> = node
            .attrs
            .iter()
            .map(|a| format!("{}={}", a.name, Short(&a.value)))
            .collect();
        let dot = if node.domain().is_empty() { "" } else { "." };
        let attrs = if attrs.is_empty() {
            String::new()
        } else {
            format!("<{}>", attrs.join(", "))
        };
        format!(
            "{} = {}{dot}{}{attrs}({})",
            list(&node.outputs, &|v| self.typed(v)),
            node.domain(),
            node.op,
            list(&node.inputs, &|v| self[v].name.to_string()),
        )
    }
}

struct Short<'a>(&'a AttrValue);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let tensor = |t: &Tensor| format!("{}{:?}", t.dtype(), t.dims());
        match self.0 {
            AttrValue::Int(x) => write!(f, "{}", x.unwrap_or(0)),
            AttrValue::Float(x) => write!(f, "{}", x.unwrap_or(0.0)),
            AttrValue::Bytes(x) => write!(f, "{:?}", String::from_utf8_lossy(x.as_deref().unwrap_or(&[]))),
            AttrValue::Ints(x) => write!(f, "{x:?}"),
            AttrValue::Floats(x) => write!(f, "{x:?}"),
            AttrValue::Tensor(t) => f.write_str(&tensor(&t.tensor)),
            AttrValue::Graph(g) => write!(f, "graph of {} nodes", g.order.len()),
            AttrValue::Ref(name) => write!(f, "@{name}"),
            _ => f.write_str("…"),
        }
    }
}
