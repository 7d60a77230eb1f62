//! Sizes that a model spells out, spelt anew.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use secateur_engine::Tensor;
use secateur_engine::ir::{AttrValue, Constant, DType, Dim, Graph, Model, Node, NodeId, Type, ValueId};
use secateur_engine::ops::Fact;
use secateur_engine::opt::Facts;
use secateur_engine::opt::infer::infer_node;

use crate::groups::{Fix, Letter, Slot, Space, Trace, What};

/// What one number was and what it is to be.
#[derive(Clone, Copy)]
struct Number {
    old: i64,
    new: i64,
}

/// The numbers of a list that change, by their place.
type Numbers = BTreeMap<usize, Number>;

type Ids = Vec<Option<ValueId>>;

/// How a value was come by from the list that is spelt anew.
#[derive(Clone, Copy)]
struct Way {
    /// The number of nodes between.
    depth: usize,
    /// Whether nobody else reads what is between.
    own: bool,
}

/// Nodes between a list of sizes and what it is made of, at most.
const DEEP: usize = 32;

/// Goes through the nodes of a model of which tensors have been cut, and mends what they say of sizes before their shapes are
/// inferred.
pub(super) struct Speller<'a> {
    model: &'a mut Model,
    trace: &'a Trace<'a>,
    width: &'a dyn Fn(Letter) -> Option<usize>,
    /// What is known of the cut model so far.
    facts: Facts,
}

impl<'a> Speller<'a> {
    /// For `model`, which `trace` was made of, where letters are as wide as `width` says.
    pub(super) fn new(
        model: &'a mut Model,
        trace: &'a Trace<'a>,
        width: &'a dyn Fn(Letter) -> Option<usize>,
    ) -> Speller<'a> {
        let facts = Facts::initial(&model.graph);
        Speller {
            model,
            trace,
            width,
            facts,
        }
    }

    /// Mends all nodes, with inputs of the sizes `inputs`. What is known of the model then.
    pub(super) fn all(mut self, inputs: &HashMap<ValueId, Type>) -> Result<Facts, String> {
        for (&v, ty) in inputs {
            self.facts.set(v, ty.clone().into(), None);
        }
        let mut fixes: HashMap<NodeId, Vec<&Fix>> = HashMap::new();
        for fix in &self.trace.fixes {
            fixes.entry(fix.node).or_default().push(fix);
        }
        for id in self.model.graph.order.clone() {
            for fix in fixes.get(&id).into_iter().flatten() {
                self.fix(fix)?;
            }
            self.infer(id)?;
        }
        Ok(self.facts)
    }

    fn infer(&mut self, id: NodeId) -> Result<(), String> {
        let node = self.model.graph[id].clone();
        infer_node(self.model, &node, &mut self.facts).map_err(|e| e.to_string())?;
        Ok(())
    }

    /// The integers `v`, as far as they are known of the cut model.
    fn known(&self, v: ValueId) -> Vec<Option<i64>> {
        let konst = self.facts.konst(v).and_then(|t| t.ints());
        let data = || {
            self.facts
                .of(v)
                .data
                .as_ref()
                .map(|d| d.iter().map(Dim::known).collect())
        };
        konst
            .map(|ints| ints.into_iter().map(Some).collect())
            .or_else(data)
            .unwrap_or_default()
    }

    /// Those of `numbers` that `v` does not have yet, and that are numbers there: -1 and 0 mean something else.
    fn stale(&self, v: ValueId, numbers: &Numbers) -> Numbers {
        let known = self.known(v);
        let old = |k: &usize, n: &Number| {
            known
                .get(*k)
                .copied()
                .flatten()
                .is_none_or(|x| x != n.new && (x > 0 || x == n.old))
        };
        numbers
            .iter()
            .filter(|(k, n)| old(k, n))
            .map(|(k, n)| (*k, *n))
            .collect()
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
    fn fix(&mut self, fix: &Fix) -> Result<(), String> {
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
            What::Bound { place, upto, all } => {
                let (new, size) = (self.number(upto).new, self.number(all).new);
                self.bound(fix, *place, (new, size))?;
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
                    let new = self.value(v, numbers, Way { depth: 0, own: true })?;
                    self.node(id).inputs[i] = Some(new);
                }
            }
        }
        Ok(())
    }

    /// Number `place` of the bounds of a `Slice`, unless it already means `new` on an axis of `size` indices.
    fn bound(&mut self, fix: &Fix, place: usize, (new, size): (i64, i64)) -> Result<(), String> {
        let right = |x: i64| if x < 0 { x + size } else { x }.clamp(0, size) == new;
        let inputs = &self.model.graph[fix.node].inputs;
        match &fix.at {
            Slot::Attr(name) => {
                let Some(AttrValue::Ints(list)) = self.model.graph[fix.node].attr(name) else {
                    return Ok(());
                };
                let mut list = list.clone();
                if let Some(x) = list.get_mut(place).filter(|x| !right(**x)) {
                    *x = new;
                    self.node(fix.node).set(name, list);
                }
            }
            &Slot::Input(i) => {
                let Some(v) = inputs.get(i).copied().flatten() else {
                    return Ok(());
                };
                let now = self.known(v).get(place).copied().flatten();
                if !now.is_some_and(right) {
                    let new = self.bounded(v, place, new)?;
                    self.node(fix.node).inputs[i] = Some(new);
                }
            }
        }
        Ok(())
    }

    /// A value like the integers `v` with number `place` another one. What is computed otherwise is written down.
    fn bounded(&mut self, v: ValueId, place: usize, new: i64) -> Result<ValueId, String> {
        let g = &self.model.graph;
        let made = g.links().producer(v).map(|(id, _)| id);
        let written = g[v].konst.is_some() || made.is_some_and(|id| g[id].is("Constant"));
        let old = match written {
            true => self.known(v).get(place).copied().flatten(),
            false => self.fixed(v, place),
        };
        let old = old.ok_or_else(|| format!("{:?}, bounds of a slice, are not known", g[v].name))?;
        let numbers = Numbers::from([(place, Number { old, new })]);
        match written {
            true => self.value(v, &numbers, Way { depth: 0, own: true }),
            false => self.literal(v, &numbers),
        }
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

    fn constant(
        &mut self,
        stem: &str,
        dtype: DType,
        dims: &[usize],
        list: Vec<i64>,
    ) -> Result<ValueId, String> {
        let g = &mut self.model.graph;
        let name = g.fresh(stem);
        let tensor = Arc::new(tensor(dtype, dims, &list)?);
        let v = g.constant(name, Tensor::clone(&tensor));
        self.facts.set(v, Fact::of(&tensor), Some(tensor));
        Ok(v)
    }

    /// A value like the integers `v` with other numbers; `v` itself where it has them already. What others read too stays
    /// for them.
    fn value(&mut self, v: ValueId, numbers: &Numbers, way: Way) -> Result<ValueId, String> {
        let numbers = &self.stale(v, numbers);
        if numbers.is_empty() {
            return Ok(v);
        }
        let g = &self.model.graph;
        let links = g.links();
        let own = way.own && links.readers(v).len() < 2 && !links.kept(v) && !g.is_input(v);
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
                let new = c.tensor.clone();
                self.facts.set(v, Fact::of(&new), Some(new));
            }
            return Ok(v);
        }
        let made = links
            .producer(v)
            .filter(|(_, slot)| *slot == 0 && way.depth < DEEP);
        let Some((id, _)) = made else {
            return self.literal(v, numbers);
        };
        let way = Way {
            depth: way.depth + 1,
            own,
        };
        let inputs = g[id].inputs.clone();
        let new = match &*g[id].op {
            "Constant" => return self.spelt(v, id, numbers, own),
            "Concat" => self.parts_of(&inputs, numbers, way)?,
            "Cast" | "Identity" | "Reshape" | "Squeeze" | "Unsqueeze" => {
                self.each(&inputs, &[0], numbers, way)?
            }
            "Where" => self.each(&inputs, &[1, 2], numbers, way)?,
            "Mul" => match self.factor(&inputs, numbers, way)? {
                Some(new) => new,
                None => return self.literal(v, numbers),
            },
            _ => return self.literal(v, numbers),
        };
        self.reads(v, id, own, (inputs, new))
    }

    /// The inputs of a `Concat` with the numbers changed.
    fn parts_of(&mut self, inputs: &Ids, numbers: &Numbers, way: Way) -> Result<Ids, String> {
        let (mut new, mut at) = (inputs.clone(), 0);
        for (i, part) in inputs.iter().enumerate() {
            let Some(part) = *part else { continue };
            let len = self
                .trace
                .facts
                .of(part)
                .ty
                .dims()
                .map_or(1, |d| d.iter().product());
            let here: Numbers = numbers.range(at..at + len).map(|(k, n)| (k - at, *n)).collect();
            new[i] = Some(self.value(part, &here, way)?);
            at += len;
        }
        Ok(new)
    }

    /// The inputs with the numbers changed in those of `which` that have the old ones.
    fn each(&mut self, inputs: &Ids, which: &[usize], numbers: &Numbers, way: Way) -> Result<Ids, String> {
        let mut new = inputs.clone();
        for &i in which {
            let Some(x) = inputs.get(i).copied().flatten() else {
                continue;
            };
            let has = self.known(x);
            let here =
                |k: &usize, n: &Number| which.len() == 1 || has.get(*k).copied().flatten() == Some(n.old);
            let numbers: Numbers = numbers
                .iter()
                .filter(|(k, n)| here(k, n))
                .map(|(k, n)| (*k, *n))
                .collect();
            new[i] = Some(self.value(x, &numbers, way)?);
        }
        Ok(new)
    }

    /// The inputs of a product of one number by a constant, which is changed in proportion.
    fn factor(&mut self, inputs: &Ids, numbers: &Numbers, way: Way) -> Result<Option<Ids>, String> {
        let Some(&Number { old, new }) = numbers.get(&0).filter(|_| numbers.len() == 1) else {
            return Ok(None);
        };
        for (i, x) in inputs.iter().enumerate() {
            let Some(x) = *x else { continue };
            let is = self
                .trace
                .facts
                .konst(x)
                .filter(|_| self.fixed(x, 0).is_some())
                .and_then(|t| t.ints());
            if let Some(&[c]) = is.as_deref().filter(|_| old != 0)
                && c * new % old == 0
            {
                let number = Number {
                    old: c,
                    new: c * new / old,
                };
                let mut made = inputs.clone();
                made[i] = Some(self.value(x, &Numbers::from([(0, number)]), way)?);
                return Ok(Some(made));
            }
        }
        Ok(None)
    }

    /// Element `k` of `v`, if it is the same whatever the sizes of the inputs are.
    fn fixed(&self, v: ValueId, k: usize) -> Option<i64> {
        let any = &self.trace.any;
        let konst = any.konst(v).and_then(|t| t.ints()?.get(k).copied());
        konst.or_else(|| any.of(v).data.as_ref()?.get(k)?.known())
    }

    /// A constant in the place of `v`, which is computed from other sizes than those that change.
    fn literal(&mut self, v: ValueId, numbers: &Numbers) -> Result<ValueId, String> {
        let ty = self.trace.facts.of(v).ty.clone();
        let computed = || {
            format!(
                "{:?}, a list of sizes, is computed from values",
                self.model.graph[v].name
            )
        };
        let (dims, dtype) = ty.dims().zip(ty.dtype()).ok_or_else(computed)?;
        let len = dims.iter().product();
        let all: Option<Vec<i64>> = (0..len).map(|k| self.fixed(v, k)).collect();
        let list = replaced(&all.ok_or_else(computed)?, numbers);
        let stem = self.model.graph[v].name.to_string();
        self.constant(&stem, dtype, &dims, list)
    }

    /// The output `v` of node `id` once it reads the new inputs; of a copy of the node where others read `v` too.
    fn reads(
        &mut self,
        v: ValueId,
        id: NodeId,
        own: bool,
        (old, new): (Ids, Ids),
    ) -> Result<ValueId, String> {
        if own || old == new {
            self.node(id).inputs = new;
            self.infer(id)?;
            return Ok(v);
        }
        let g = &mut self.model.graph;
        let out = g.value(g.fresh(&g[v].name));
        let node = Node {
            inputs: new,
            outputs: vec![Some(out)],
            name: g[id].name.as_ref().map(|n| unused(g, n).into()),
            ..g[id].clone()
        };
        let copy = g.node(node);
        g.order.pop();
        let at = g.order.iter().position(|n| *n == id).map_or(0, |i| i + 1);
        g.order.insert(at, copy);
        self.infer(copy)?;
        Ok(out)
    }

    /// Integers in a node `Constant`.
    fn spelt(&mut self, v: ValueId, id: NodeId, numbers: &Numbers, own: bool) -> Result<ValueId, String> {
        let node = &self.model.graph[id];
        let attr = node.attrs.first();
        let Some((name, value)) = attr.map(|a| (a.name.clone(), a.value.clone())) else {
            return Ok(v);
        };
        let (list, dtype, dims) = match &value {
            AttrValue::Tensor(c) => (
                c.tensor.ints().unwrap_or_default(),
                c.tensor.dtype(),
                c.tensor.dims().to_vec(),
            ),
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
        self.infer(id)?;
        Ok(v)
    }
}

/// `list` with the numbers that are the old ones; those that mean something else, as -1 and 0 do, stay.
fn replaced(list: &[i64], numbers: &Numbers) -> Vec<i64> {
    let number = |(i, &x): (usize, &i64)| numbers.get(&i).filter(|n| n.old == x).map_or(x, |n| n.new);
    list.iter().enumerate().map(number).collect()
}

/// A name like `name` that no node has: runtimes refuse two nodes of one name.
fn unused(g: &Graph, name: &str) -> String {
    let taken = |new: &str| g.nodes.iter().any(|n| n.name.as_deref() == Some(new));
    let mut new = format!("{name}_cut");
    while taken(&new) {
        new.push('\'');
    }
    new
}

fn tensor(dtype: DType, dims: &[usize], list: &[i64]) -> Result<Tensor, String> {
    let floats: Vec<f64> = list.iter().map(|&x| x as f64).collect();
    Tensor::rounded(dtype, dims, &floats).ok_or_else(|| format!("no {dtype}{dims:?} of {list:?}"))
}
