//! Rules, applied wherever their patterns are found.

use std::collections::HashMap;

use crate::expr::Builder;
use crate::ir::{Graph, Links, Model, NodeId, Patch, ValueId};
use crate::opt::infer::{Facts, infer, infer_node, opset_of};
use crate::opt::{Index, Pass, PassError, Pattern, RULES, Report, Rule, Scope, Site, Why};

/// Applies [`RULES`] until none fires.
pub(super) struct Rewrite;

impl Pass for Rewrite {
    fn name(&self) -> &'static str {
        "rewrite"
    }

    fn run(&self, model: &mut Model, scope: Scope, report: &mut Report) -> Result<(), PassError> {
        let facts = infer(model, &HashMap::new())?;
        let links = model.graph.links();
        let mut state = State { model, facts, links };
        for rule in RULES.iter().filter(|r| r.scope() <= scope) {
            let patterns = rule.patterns();
            let index = Index::of(patterns.iter());
            while state.sweep(*rule, &patterns, &index, report)? {}
        }
        Ok(())
    }
}

/// A model, and what is known of it while it changes.
struct State<'m> {
    model: &'m mut Model,
    facts: Facts,
    links: Links,
}

impl State<'_> {
    /// One rule over all nodes, from the end on, so that the largest place where a formula is found counts; whether it fired.
    fn sweep(
        &mut self,
        rule: &dyn Rule,
        patterns: &[Pattern],
        index: &Index,
        report: &mut Report,
    ) -> Result<bool, PassError> {
        let mut fired = false;
        let rooted = |n: &NodeId| !index.at(&self.model.graph[*n]).is_empty();
        let order: Vec<_> = self.model.graph.order.iter().copied().filter(rooted).collect();
        for id in order.into_iter().rev() {
            if !alive(&self.model.graph, &self.links, id) {
                continue;
            }
            let node = &self.model.graph[id];
            let site = Site {
                graph: &self.model.graph,
                links: &self.links,
                facts: &self.facts,
                opset: opset_of(&self.model.opsets, node),
            };
            let candidates = index.at(node).iter().map(|&i| &patterns[i]);
            let Some(outcome) = outcome(&site, id, rule, candidates) else {
                continue;
            };
            let label = node.label().to_owned();
            match outcome {
                Ok(patch) => {
                    self.apply(patch)?;
                    report.fired(rule.name(), label);
                    fired = true;
                }
                Err(Why::NoEffect) => {}
                Err(why) => report.refused(rule.name(), label, why),
            }
        }
        Ok(fired)
    }

    fn apply(&mut self, patch: Patch) -> Result<(), PassError> {
        let open = patch.remove.clone();
        let added = patch.apply_with(&mut self.model.graph, &mut self.links)?;
        for &n in &added {
            self.note_constants(n);
            let node = self.model.graph[n].clone();
            infer_node(self.model, &node, &mut self.facts)?;
        }
        drop_unread(&mut self.model.graph, &mut self.links, open);
        Ok(())
    }

    fn note_constants(&mut self, n: NodeId) {
        let graph = &self.model.graph;
        for &v in graph[n].inputs.iter().flatten() {
            if let (Some(c), None) = (&graph[v].konst, self.facts.konst(v)) {
                let konst = (!graph.is_input(v)).then(|| c.tensor.clone());
                self.facts.set(v, crate::ops::Fact::of(&c.tensor), konst);
            }
        }
    }
}

/// Whether `n` has not been taken out.
fn alive(graph: &Graph, links: &Links, n: NodeId) -> bool {
    let made = |v: &ValueId| links.producer(*v).is_some_and(|(p, _)| p == n);
    graph[n].outputs.iter().flatten().any(made)
}

/// Takes out what nobody reads any more of the nodes that those of `open` read from.
fn drop_unread(graph: &mut Graph, links: &mut Links, mut open: Vec<NodeId>) {
    let mut gone = vec![];
    while let Some(n) = open.pop() {
        for v in graph[n].inputs.clone().into_iter().flatten() {
            let Some((p, _)) = links.producer(v) else { continue };
            let unread = |v: &ValueId| links.readers(*v).is_empty() && !links.kept(*v);
            if graph[p].outputs.iter().flatten().all(unread) {
                links.forget(graph, p);
                gone.push(p);
                open.push(p);
            }
        }
    }
    if !gone.is_empty() {
        graph.order.retain(|n| !gone.contains(n));
    }
}

/// The best outcome of the patterns: the first that is rewritten, or else the first reason why not.
fn outcome<'p>(
    site: &Site,
    id: NodeId,
    rule: &dyn Rule,
    patterns: impl Iterator<Item = &'p Pattern>,
) -> Option<Result<Patch, Why>> {
    let mut refused = None;
    for pattern in patterns {
        match attempt(site, id, rule, pattern) {
            Some(Ok(patch)) => return Some(Ok(patch)),
            Some(Err(Why::NoEffect)) | None => {}
            Some(Err(why)) => refused = refused.or(Some(Err(why))),
        }
    }
    refused
}

fn attempt(site: &Site, id: NodeId, rule: &dyn Rule, pattern: &Pattern) -> Option<Result<Patch, Why>> {
    let out = site.graph[id].outputs.first().copied().flatten()?;
    let m = pattern.find(site.graph, site.links, out)?;
    if !m.is_private(site.graph, site.links) {
        return Some(Err(Why::No("an intermediate value is read elsewhere")));
    }
    let builder = Builder::new(site.graph, site.opset);
    let y = match rule.rewrite(&m, site, &builder) {
        Ok(y) => y.id,
        Err(why) => return Some(Err(why)),
    };
    let mut patch = builder.finish();
    if let Some(at) = patch.producer(y) {
        patch.nodes[at].name = site.graph[id].name.clone();
    }
    patch.replace.push((out, y));
    patch.remove = m.nodes;
    Some(Ok(patch))
}
