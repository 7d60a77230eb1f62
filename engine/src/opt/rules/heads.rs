//! Attention on heads that stand side by side.

use super::read::{input, int};
use crate::expr::{Builder, Call, Ex};
use crate::ir::{Attr, AttrValue, Node, Tensor, ValueId};
use crate::opt::{Match, Pattern, Rule, Scope, Site, Why};

/// Queries, keys and values whose heads are turned in front of their rows, `[batch, rows, heads, size]` to
/// `[batch, heads, rows, size]`, and a result that is turned back: `Attention` reads and writes the heads where they are, `[batch,
/// rows, heads · size]`, and nothing is copied.
pub(super) struct Heads;

impl Rule for Heads {
    fn name(&self) -> &'static str {
        "attention-heads"
    }

    fn scope(&self) -> Scope {
        Scope::Engine
    }

    fn patterns(&self) -> Vec<Pattern> {
        vec![Pattern::loose(1, |x| x[0].op("Transpose", &[]))]
    }

    fn rewrite<'a>(&self, m: &Match, site: &Site, b: &'a Builder) -> Result<Ex<'a>, Why> {
        let root = &site.graph[m.nodes[0]];
        let y = input(root, 0).filter(|_| turns(root)).ok_or(Why::NoEffect)?;
        let node = site.call(y, "Attention").ok_or(Why::NoEffect)?;
        let single = node.outputs.iter().skip(1).all(Option::is_none);
        if !single || node.inputs.iter().skip(4).any(Option::is_some) || int(node, "q_num_heads", 0) != 0 {
            return Err(Why::NoEffect);
        }
        let bare = |i: usize| {
            let turned = site.call(input(node, i)?, "Transpose").filter(|n| turns(n))?;
            input(turned, 0)
        };
        let [Some(q), Some(k), Some(v)] = [0, 1, 2].map(bare) else {
            return Err(Why::No("queries, keys or values are not turned as the result is"));
        };
        let heads = |x: ValueId| site.shape(x).filter(|s| s.len() == 4)?.get(2)?.known();
        let size = |x: ValueId| site.shape(x)?.get(3)?.known();
        let (Some(of_queries), Some(of_keys), Some(_), Some(width)) = (heads(q), heads(k), heads(v), size(v))
        else {
            return Err(Why::No("the number of heads or their size is not known"));
        };
        let mut leaves = vec![q, k, v];
        leaves.extend(input(node, 3));
        site.private(m.nodes[0], &leaves)?;
        let flat = |x: ValueId| {
            let x = b.at(x);
            x.op("Reshape", &[x.tensor(Tensor::of(&[3], vec![0i64, 0, -1]))])
        };
        let mut inputs: Vec<_> = [q, k, v].into_iter().map(|x| Some(flat(x).id)).collect();
        inputs.extend(node.inputs.get(3).copied());
        let mut attrs = node.attrs.to_vec();
        attrs.push(Attr::new("q_num_heads", of_queries));
        attrs.push(Attr::new("kv_num_heads", of_keys));
        let call = Call {
            domain: "",
            op: "Attention",
            inputs: &inputs,
            attrs,
            outputs: 1,
        };
        let y = b.at(q).call(call)[0];
        let split = y.tensor(Tensor::of(&[4], vec![0, 0, of_queries, width]));
        Ok(y.op("Reshape", &[split]))
    }
}

/// Whether a node exchanges the two middle axes of four.
fn turns(node: &Node) -> bool {
    node.attr("perm") == Some(&AttrValue::Ints(vec![0, 2, 1, 3]))
}
