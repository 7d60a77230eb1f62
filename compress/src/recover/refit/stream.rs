//! A model run part by part over the same examples: what later parts read is kept, so that each node runs about once for each.

use std::collections::{BTreeMap, HashMap, HashSet};

use secateur_engine::ir::{Constant, Dim, Graph, Model, Name, NodeId, Port, Type, ValueId};
use secateur_engine::{Session, Tensor};

use super::super::{Calibration, RecoverError};
use super::shadow::reads;

/// Bytes of values that are kept between parts; where it would be more, a part runs again with what comes before it.
pub(super) const ROOM: usize = 1 << 30;

/// Integers of which no more are taken for a shape, and so for a constant where they are always the same.
const SHAPE: usize = 64;

/// Values by their ids; of one batch.
type Values = BTreeMap<ValueId, Tensor>;

/// A model on its way over examples.
pub(super) struct Stream<'a> {
    pub(super) model: Model,
    with: &'a Calibration<'a>,
    names: HashMap<Name, ValueId>,
    /// The nodes that are needed and depend on inputs.
    order: Vec<NodeId>,
    /// Those that are needed and do not.
    constant: HashSet<NodeId>,
    /// So many of the first have run.
    done: usize,
    /// What is still needed of what they made, by batch.
    kept: Vec<Values>,
    /// Bytes that this may take.
    room: usize,
}

/// A part to run.
pub(super) struct Part {
    wanted: Vec<ValueId>,
    /// What comes out that later parts read.
    live: HashSet<ValueId>,
    end: usize,
    session: Option<Session>,
    feeds: Vec<ValueId>,
    /// What is kept, while there is room.
    next: Option<Vec<Values>>,
    room: usize,
}

impl<'a> Stream<'a> {
    /// `model`, of which the values `wanted` will be asked for, at its beginning.
    pub(super) fn new(
        model: Model,
        wanted: &[ValueId],
        (with, batches): (&'a Calibration<'a>, &[Vec<(String, Tensor)>]),
        room: usize,
    ) -> Stream<'a> {
        let names = model.graph.names();
        let fed: HashSet<&String> = batches.iter().flatten().map(|(name, _)| name).collect();
        let open = |p: &&Port| {
            let name = model.graph[p.value].name.to_string();
            model.graph[p.value].konst.is_none() || fed.contains(&name)
        };
        let inputs: HashSet<ValueId> = model.graph.inputs.iter().filter(open).map(|p| p.value).collect();
        let kept = batches.iter().map(|batch| {
            let known = batch
                .iter()
                .filter_map(|(name, x)| Some((*names.get(&**name)?, x)));
            let inputs = known.filter(|(v, _)| inputs.contains(v));
            inputs.map(|(v, x)| (v, x.clone())).collect()
        });
        let kept = kept.collect();
        let (order, constant) = needed(&model.graph, &names, wanted, inputs);
        Stream {
            with,
            order,
            constant,
            done: 0,
            kept,
            room,
            names,
            model,
        }
    }

    fn reads(&self, node: NodeId) -> Vec<ValueId> {
        reads(&self.model.graph[node], |name| self.names.get(name).copied())
    }

    fn made(&self, node: NodeId) -> impl Iterator<Item = ValueId> + '_ {
        self.model.graph[node].outputs.iter().flatten().copied()
    }

    /// How many of the nodes must have run before `v` is there; `None` where it depends on no input.
    pub(super) fn needs(&self, v: ValueId) -> Option<usize> {
        if self.kept.iter().all(|k| k.contains_key(&v)) {
            return Some(self.done);
        }
        let at = self
            .order
            .iter()
            .position(|n| self.made(*n).any(|made| made == v));
        Some(at? + 1)
    }

    /// The part that makes `wanted`, with what of its values `later` and all nodes behind it read.
    pub(super) fn part(&self, wanted: &[ValueId], later: &[ValueId]) -> Result<Part, RecoverError> {
        let ends = wanted.iter().filter_map(|v| self.needs(*v));
        let end = ends.max().unwrap_or(0).max(self.done);
        let mut live: HashSet<ValueId> = later.iter().copied().collect();
        live.extend(self.order[end..].iter().flat_map(|n| self.reads(*n)));
        let mut part = Part {
            wanted: wanted.to_vec(),
            live,
            end,
            session: None,
            feeds: vec![],
            next: Some(vec![]),
            room: self.room,
        };
        if end > self.done {
            self.build(&mut part)?;
        }
        Ok(part)
    }

    fn build(&self, part: &mut Part) -> Result<(), RecoverError> {
        let mut model = self.model.clone();
        let own = &self.order[self.done..part.end];
        let g = &mut model.graph;
        g.order.retain(|n| self.constant.contains(n) || own.contains(n));
        let read: HashSet<ValueId> = g.order.iter().flat_map(|n| self.reads(*n)).collect();
        g.initializers
            .retain(|v| read.contains(v) && !self.kept.iter().any(|k| k.contains_key(v)));
        (g.inputs, g.outputs, g.infos) = (vec![], vec![], vec![]);
        for v in self.kept.first().into_iter().flat_map(Values::keys) {
            if !read.contains(v) {
                continue;
            }
            let seen: Vec<&Tensor> = self.kept.iter().filter_map(|k| k.get(v)).collect();
            match always(&seen) {
                Some(t) => {
                    g[*v].konst = Some(Constant::new(t.clone()));
                    g.initializers.push(*v);
                }
                None => {
                    let name = g[*v].name.clone();
                    g.inputs.push(port(*v, ty(&name, &seen)));
                    part.feeds.push(*v);
                }
            }
        }
        let made: HashSet<ValueId> = own.iter().flat_map(|n| self.made(*n)).collect();
        let out = |v: &&ValueId| part.live.contains(v) || part.wanted.contains(v);
        let mut outputs: Vec<ValueId> = made.iter().filter(out).copied().collect();
        outputs.sort_unstable();
        let builder = Session::builder(&model)
            .threads(self.with.threads)
            .rates(self.with.rates.clone());
        let name = |v: &ValueId| self.model.graph[*v].name.to_string();
        let tapped = outputs.iter().fold(builder, |b, v| b.tap(name(v)));
        part.session = Some(tapped.build()?);
        Ok(())
    }

    /// What is wanted of `part`, made of batch `batch`; batches come in order.
    pub(super) fn see(&self, part: &mut Part, batch: usize) -> Result<Vec<Tensor>, RecoverError> {
        let kept = &self.kept[batch];
        let mut now: Values = Values::new();
        if let Some(session) = &part.session {
            let name = |v: &ValueId| &*self.model.graph[*v].name;
            let feeds = part.feeds.iter().filter_map(|v| Some((name(v), kept.get(v)?)));
            let outputs = session.run(feeds)?;
            for (n, x) in outputs.tensors() {
                now.extend(self.names.get(n).map(|v| (*v, x.clone())));
            }
            // What is no tensor is made anew each time.
            if outputs.values.len() != now.len() {
                part.next = None;
            }
        }
        let find = |v: &ValueId| now.get(v).or_else(|| kept.get(v)).cloned();
        let unseen =
            |v: &ValueId| RecoverError::wrong(format!("value {:?} is not seen", self.model.graph[*v].name));
        let wanted = part.wanted.iter().map(|v| find(v).ok_or_else(|| unseen(v)));
        let wanted = wanted.collect::<Result<_, _>>()?;
        if part.session.is_some() {
            part.keep(kept, now);
        }
        Ok(wanted)
    }

    /// Goes on behind `part`, of which all batches were seen.
    pub(super) fn settle(&mut self, part: Part) {
        if part.session.is_none() {
            let alive = |v: &ValueId| part.live.contains(v);
            self.kept.iter_mut().for_each(|k| k.retain(|v, _| alive(v)));
        } else if let Some(next) = part.next.filter(|n| n.len() == self.kept.len()) {
            (self.done, self.kept) = (part.end, next);
        }
    }
}

impl Part {
    /// Keeps what is alive of one batch, if there is room.
    fn keep(&mut self, before: &Values, now: Values) {
        let old = before.iter().map(|(v, x)| (*v, x.clone()));
        let live: Values = old.chain(now).filter(|(v, _)| self.live.contains(v)).collect();
        let bytes: usize = live.values().map(Tensor::size).sum();
        self.next = match self.room.checked_sub(bytes) {
            Some(left) => {
                self.room = left;
                self.next.take()
            }
            None => None,
        };
        self.next.iter_mut().for_each(|n| n.push(live.clone()));
    }
}

fn port(value: ValueId, ty: Type) -> Port {
    Port {
        value,
        ty: Some(ty.into()),
        extra: Default::default(),
    }
}

/// Nodes of `graph` that `wanted` needs: those that depend on `inputs`, in order, and the others.
fn needed(
    graph: &Graph,
    names: &HashMap<Name, ValueId>,
    wanted: &[ValueId],
    inputs: HashSet<ValueId>,
) -> (Vec<NodeId>, HashSet<NodeId>) {
    let mut wanted: HashSet<ValueId> = wanted.iter().copied().collect();
    let mut nodes = vec![];
    for (id, node) in graph.iter().rev() {
        if node.outputs.iter().flatten().any(|v| wanted.contains(v)) {
            let reads = reads(node, |name| names.get(name).copied());
            wanted.extend(&reads);
            nodes.push((id, reads));
        }
    }
    let (mut varies, mut order, mut constant) = (inputs, vec![], HashSet::new());
    for (id, reads) in nodes.into_iter().rev() {
        // What is random is not the same in every part.
        let source = reads.is_empty() && !graph[id].is("Constant");
        if source || reads.iter().any(|v| varies.contains(v)) {
            varies.extend(graph[id].outputs.iter().flatten());
            order.push(id);
        } else {
            constant.insert(id);
        }
    }
    (order, constant)
}

/// The integers that `seen` always are.
fn always<'t>(seen: &[&'t Tensor]) -> Option<&'t Tensor> {
    let first = *seen.first()?;
    let shape = !first.dtype().is_float() && first.len() <= SHAPE;
    (shape && seen.iter().all(|t| *t == first)).then_some(first)
}

/// The type of `seen`, of the name `name`: sizes that are always the same are numbers.
fn ty(name: &Name, seen: &[&Tensor]) -> Type {
    let Some(first) = seen.first() else {
        return Type::Unknown;
    };
    let size = |(axis, &n): (usize, &usize)| {
        let same = seen.iter().all(|t| t.dims().get(axis) == Some(&n));
        match same {
            true => Dim::from(n),
            false => Dim::Symbol(format!("{name}.{axis}").into()),
        }
    };
    Type::tensor(first.dtype(), first.dims().iter().enumerate().map(size))
}
