//! Softmax, written out.

use super::read::input;
use crate::expr::{Builder, Ex};
use crate::ir::Attr;
use crate::opt::{Match, Pattern, Rule, Scope, Site, Why};

/// `e^(x - max x) / Σ e^(x - max x)` becomes `Softmax`, and so does the formula without the greatest element, which overflows
/// where the operator does not.
///
/// Only along one axis; before opset 13, when the operator ran over all axes from one on, only along the last.
pub(super) struct Softmax;

impl Rule for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn scope(&self) -> Scope {
        Scope::Portable
    }

    fn patterns(&self) -> Vec<Pattern> {
        vec![Pattern::loose(2, |x| {
            x[0].op("Div|Div", &[x[1].op("ReduceSum", &[])])
        })]
    }

    fn rewrite<'a>(&self, m: &Match, site: &Site, b: &'a Builder) -> Result<Ex<'a>, Why> {
        let e = m.inputs[0];
        let exp = site.call(e, "Exp").ok_or(Why::NoEffect)?;
        if m.inputs[1] != e {
            return Err(Why::No("what is divided by is no sum of the same exponentials"));
        }
        let keeps = |n: &crate::ir::Node| super::read::int(n, "keepdims", 1) != 0;
        let sum = m
            .nodes
            .iter()
            .map(|&n| &site.graph[n])
            .find(|n| n.is("ReduceSum"))
            .ok_or(Why::NoEffect)?;
        let axes = site.axes(sum, 1).filter(|_| keeps(sum));
        let &[axis] = &axes.ok_or(Why::No("the axes of the sum are not known or not kept"))?[..] else {
            return Err(Why::No("the sum runs along several axes"));
        };
        if site.opset < 13 && axis != -1 {
            return Err(Why::No("the operator of this opset runs over several axes"));
        }
        let inner = input(exp, 0).ok_or(Why::NoEffect)?;
        let greatest = site.call(inner, "Sub").and_then(|n| {
            let max = site.call(input(n, 1)?, "ReduceMax").filter(|m| keeps(m))?;
            let x = input(n, 0)?;
            (input(max, 0) == Some(x) && site.axes(max, 1)? == [axis]).then_some(x)
        });
        let x = greatest.unwrap_or(inner);
        site.private(m.nodes[0], &[x])?;
        let rank = site
            .shape(x)
            .map(Vec::len)
            .ok_or(Why::No("the rank is not known"))?;
        let axis = if site.opset < 13 { rank as i64 - 1 } else { axis };
        Ok(b.at(x).with("Softmax", &[], vec![Attr::new("axis", axis)]))
    }
}
