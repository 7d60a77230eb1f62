//! Rules, applied wherever their patterns are found.

use std::collections::{HashMap, HashSet};

use crate::expr::Builder;
use crate::ir::{Model, NodeId, Patch};
use crate::opt::infer::{infer, opset_of};
use crate::opt::{Pass, PassError, Pattern, RULES, Report, Rule, Scope, Site, Why};

/// Applies [`RULES`] until none fires.
pub(super) struct Rewrite;

impl Pass for Rewrite {
    fn name(&self) -> &'static str {
        "rewrite"
    }

    fn run(&self, model: &mut Model, scope: Scope, report: &mut Report) -> Result<(), PassError> {
        let rules: Vec<(&dyn Rule, Vec<Pattern>)> = RULES
            .iter()
            .filter(|r| r.scope() <= scope)
            .map(|r| (*r, r.patterns()))
            .collect();
        for (rule, patterns) in &rules {
            while self.sweep(model, *rule, patterns, report)? {}
        }
        Ok(())
    }
}

impl Rewrite {
    /// One rule over all nodes; whether it fired.
    fn sweep(
        &self,
        model: &mut Model,
        rule: &dyn Rule,
        patterns: &[Pattern],
        report: &mut Report,
    ) -> Result<bool, PassError> {
        let facts = infer(model, &HashMap::new())?;
        let mut links = model.graph.links();
        let mut gone = HashSet::new();
        for id in model.graph.order.clone() {
            if gone.contains(&id) {
                continue;
            }
            let site = Site {
                graph: &model.graph,
                links: &links,
                facts: &facts,
                opset: opset_of(&model.opsets, &model.graph[id]),
            };
            let Some(outcome) = patterns.iter().find_map(|p| attempt(&site, id, rule, p)) else {
                continue;
            };
            let label = model.graph[id].label().to_owned();
            match outcome {
                Ok(patch) => {
                    gone.extend(patch.remove.iter().copied());
                    patch.apply(&mut model.graph)?;
                    report.fired(rule.name(), label);
                    links = model.graph.links();
                }
                Err(Why::NoEffect) => {}
                Err(why) => report.refused(rule.name(), label, why),
            }
        }
        Ok(!gone.is_empty())
    }
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
