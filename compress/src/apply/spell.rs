//! Sizes that a model spells out, spelt anew.

use std::collections::BTreeMap;

use secateur_engine::Tensor;
use secateur_engine::ir::{AttrValue, Constant, DType, Model, Node, NodeId, ValueId};

use crate::groups::{Fix, Letter, Slot, Space, Trace, What};

/// What one number was and what it is to be.
#[derive(Clone, Copy)]
struct Number {
    old: i64,
    new: i64,
}

/// The numbers of a list that change, by their place.
type Numbers = BTreeMap<usize, Number>;

pub(super) struct Speller<'a> {
    model: &'a mut Model,
    trace: &'a Trace<'a>,
    width: &'a dyn Fn(Letter) -> Option<usize>,
}

impl<'a> Speller<'a> {
    /// For `model`, which `trace` was made of, where letters are as wide as `width` says.
    pub(super) fn new(
        model: &'a mut Model,
        trace: &'a Trace<'a>,
        width: &'a dyn Fn(Letter) -> Option<usize>,
    ) -> Speller<'a> {
        Speller { model, trace, width }
    }

    fn number(&self, space: &Space) -> Number {
        Number {
            old: self.trace.spaces.size(space) as i64,
            new: self.trace.spaces.kept(space, self.width) as i64,
        }
    }

    fn node(&mut self, id: NodeId) -> &mut Node {
        &mut self.model.graph[id]
    }

    /// Spells what `fix` says.
    pub(super) fn fix(&mut self, fix: &Fix) -> Result<(), String> {
        match &fix.what {
            What::Size(space) => {
                let Number { old, new } = self.number(space);
                if let (Slot::Attr(name), true) = (&fix.at, old != new) {
                    self.size(fix.node, name, new);
                }
            }
            What::Sizes(spaces) => {
                let all = spaces.iter().enumerate();
                let numbers = all.filter_map(|(i, s)| Some((i, self.number(s.as_ref()?))));
                let numbers: Numbers = numbers.filter(|(_, n)| n.old != n.new).collect();
                self.list(fix.node, &fix.at, &numbers)?;
            }
            What::Parts(parts) => self.parts(fix, parts)?,
        }
        Ok(())
    }

    /// An attribute that is a size, where it is given.
    fn size(&mut self, id: NodeId, name: &str, new: i64) {
        let node = self.node(id);
        if node.attr(name).is_some() {
            node.set(name, new);
        }
    }

    fn list(&mut self, id: NodeId, at: &Slot, numbers: &Numbers) -> Result<(), String> {
        if numbers.is_empty() {
            return Ok(());
        }
        match at {
            Slot::Attr(name) => {
                if let Some(AttrValue::Ints(list)) = self.node(id).attr(name) {
                    let list = replaced(list, numbers);
                    self.node(id).set(name, list);
                }
            }
            &Slot::Input(i) => {
                if let Some(v) = self.node(id).inputs.get(i).copied().flatten() {
                    let new = self.value(v, numbers, 0)?;
                    self.node(id).inputs[i] = Some(new);
                }
            }
        }
        Ok(())
    }

    /// The lengths of the outputs of a `Split`, which are written down where they were equal and no longer are.
    fn parts(&mut self, fix: &Fix, parts: &[Space]) -> Result<(), String> {
        let sizes: Vec<Number> = parts.iter().map(|s| self.number(s)).collect();
        let node = self.node(fix.node);
        let listed = match &fix.at {
            Slot::Attr(name) => node.attr(name).is_some(),
            &Slot::Input(i) => node.inputs.get(i).is_some_and(Option::is_some),
        };
        if listed {
            let numbers = sizes.into_iter().enumerate().filter(|(_, n)| n.old != n.new);
            return self.list(fix.node, &fix.at, &numbers.collect());
        }
        if sizes.windows(2).all(|w| w[0].new == w[1].new) {
            return Ok(());
        }
        let lengths: Vec<i64> = sizes.iter().map(|n| n.new).collect();
        match &fix.at {
            Slot::Attr(name) => node.set(name, lengths),
            &Slot::Input(i) => {
                node.attrs.retain(|a| &*a.name != "num_outputs");
                let v = self.constant("split", DType::I64, &[parts.len()], lengths)?;
                let inputs = &mut self.node(fix.node).inputs;
                inputs.resize(i + 1, None);
                inputs[i] = Some(v);
            }
        }
        Ok(())
    }

    fn constant(&mut self, stem: &str, dtype: DType, dims: &[usize], list: Vec<i64>) -> Result<ValueId, String> {
        let g = &mut self.model.graph;
        let name = g.fresh(stem);
        Ok(g.constant(name, tensor(dtype, dims, &list)?))
    }

    /// A value like the integers `v`, with other numbers; `v` itself where they follow from shapes. What others read too
    /// stays for them.
    fn value(&mut self, v: ValueId, numbers: &Numbers, depth: usize) -> Result<ValueId, String> {
        let g = &self.model.graph;
        let links = g.links();
        let own = links.readers(v).len() < 2 && !links.kept(v) && !g.is_input(v);
        if let Some(c) = g[v].konst.as_ref().filter(|_| !g.is_input(v)) {
            let (dtype, dims) = (c.tensor.dtype(), c.tensor.dims().to_vec());
            let list = replaced(&c.tensor.ints().unwrap_or_default(), numbers);
            if !own {
                let stem = g[v].name.to_string();
                return self.constant(&stem, dtype, &dims, list);
            }
            let new = tensor(dtype, &dims, &list)?;
            if let Some(c) = self.model.graph[v].konst.as_mut() {
                *c = c.with(new);
            }
            return Ok(v);
        }
        let Some((id, 0)) = links.producer(v).filter(|_| depth < 32) else {
            return Ok(v);
        };
        match &*g[id].op {
            "Constant" => self.spelt(v, id, numbers, own),
            "Concat" => {
                let inputs = g[id].inputs.clone();
                let mut new = inputs.clone();
                let mut at = 0;
                for (i, part) in inputs.iter().enumerate() {
                    let Some(part) = *part else { continue };
                    let len = self.trace.facts.of(part).ty.dims().map_or(1, |d| d.iter().product());
                    let here = numbers.range(at..at + len).map(|(k, n)| (k - at, *n));
                    let here: Numbers = here.collect();
                    if !here.is_empty() {
                        new[i] = Some(self.value(part, &here, depth + 1)?);
                    }
                    at += len;
                }
                Ok(self.reads(v, id, own, (inputs, new)))
            }
            "Cast" | "Identity" | "Reshape" | "Squeeze" | "Unsqueeze" => {
                let inputs = g[id].inputs.clone();
                let mut new = inputs.clone();
                if let Some(x) = inputs.first().copied().flatten() {
                    new[0] = Some(self.value(x, numbers, depth + 1)?);
                }
                Ok(self.reads(v, id, own, (inputs, new)))
            }
            _ => Ok(v),
        }
    }

    /// The output `v` of node `id` once it reads the new inputs; of a copy of the node where others read `v` too.
    fn reads(
        &mut self,
        v: ValueId,
        id: NodeId,
        own: bool,
        (old, new): (Vec<Option<ValueId>>, Vec<Option<ValueId>>),
    ) -> ValueId {
        if old == new {
            return v;
        }
        if own {
            self.node(id).inputs = new;
            return v;
        }
        let g = &mut self.model.graph;
        let out = g.value(g.fresh(&g[v].name));
        let node = Node {
            inputs: new,
            outputs: vec![Some(out)],
            name: g[id].name.as_ref().map(|n| format!("{n}_cut").into()),
            ..g[id].clone()
        };
        let copy = g.node(node);
        g.order.pop();
        let at = g.order.iter().position(|n| *n == id).map_or(0, |i| i + 1);
        g.order.insert(at, copy);
        out
    }

    /// Integers in a node `Constant`.
    fn spelt(&mut self, v: ValueId, id: NodeId, numbers: &Numbers, own: bool) -> Result<ValueId, String> {
        let node = &self.model.graph[id];
        let attr = node.attrs.first();
        let Some((name, value)) = attr.map(|a| (a.name.clone(), a.value.clone())) else {
            return Ok(v);
        };
        let (list, dtype, dims) = match &value {
            AttrValue::Tensor(c) => (c.tensor.ints().unwrap_or_default(), c.tensor.dtype(), c.tensor.dims().to_vec()),
            AttrValue::Ints(list) => (list.clone(), DType::I64, vec![list.len()]),
            AttrValue::Int(x) => (vec![x.unwrap_or(0)], DType::I64, vec![]),
            _ => return Ok(v),
        };
        let list = replaced(&list, numbers);
        if !own {
            let stem = self.model.graph[v].name.to_string();
            return self.constant(&stem, dtype, &dims, list);
        }
        let new = match value {
            AttrValue::Tensor(c) => AttrValue::Tensor(Constant::with(&c, tensor(dtype, &dims, &list)?)),
            AttrValue::Ints(_) => AttrValue::Ints(list),
            _ => AttrValue::Int(list.first().copied()),
        };
        self.node(id).set(&name, new);
        Ok(v)
    }
}

/// `list` with the numbers that are the old ones; those that mean something else, as -1 and 0 do, stay.
fn replaced(list: &[i64], numbers: &Numbers) -> Vec<i64> {
    let number = |(i, &x): (usize, &i64)| numbers.get(&i).filter(|n| n.old == x).map_or(x, |n| n.new);
    list.iter().enumerate().map(number).collect()
}

fn tensor(dtype: DType, dims: &[usize], list: &[i64]) -> Result<Tensor, String> {
    let floats: Vec<f64> = list.iter().map(|&x| x as f64).collect();
    Tensor::rounded(dtype, dims, &floats).ok_or_else(|| format!("no {dtype}{dims:?} of {list:?}"))
}
