//! Loops that never end.

use std::collections::HashSet;

use crate::ir::{Datum, Graph, Node, ValueId};
use crate::ops::{self, OpError};

/// More turns than this are as good as none: at a microsecond each they take twelve days.
const TURNS: i64 = 1 << 40;

/// Bytes of a state that is compared with what it was.
const STATE: usize = 1 << 20;

/// Finds out that a loop will not end, where that follows from its body.
///
/// Of a loop without a trip count, or with one beyond 2⁴⁰, it is refused after the first turn if the condition depends on
/// nothing that a turn changes; and later if everything carried is what it was some turns before, and neither the number of
/// the turn nor chance has a say in what follows. Any other loop runs as long as its condition holds.
pub(super) struct Watch {
    limit: Option<i64>,
    /// Whether the condition is the same after each turn.
    pub(super) fixed: bool,
    /// Whether what follows depends on nothing but what is carried.
    returns: bool,
    /// What was carried after a number of turns that is a power of two (Brent, "An improved Monte Carlo factorization
    /// algorithm", 1980).
    before: Option<Vec<Datum>>,
}

impl Watch {
    /// Watches over a loop with this body and trip count.
    pub(super) fn new(body: &Graph, limit: Option<i64>) -> Watch {
        let inputs: Vec<_> = body.inputs.iter().map(|p| p.value).collect();
        let mut outputs = body.outputs.iter().map(|p| p.value);
        let carried = inputs.len().saturating_sub(2);
        let free = |of: Option<HashSet<ValueId>>, from: &[ValueId]| {
            of.is_some_and(|of| from.iter().all(|v| !of.contains(v)))
        };
        let condition: Vec<_> = outputs.next().into_iter().collect();
        let mut changing = inputs.clone();
        changing.drain(1.min(inputs.len())..2.min(inputs.len()));
        let state = condition.iter().copied().chain(outputs.take(carried)).collect();
        let bounded = limit.is_some_and(|m| m <= TURNS);
        Watch {
            limit,
            fixed: free(origins(body, condition), &changing),
            returns: !bounded && free(origins(body, state), &inputs[..inputs.len().min(1)]),
            before: None,
        }
    }

    /// After `turn` turns, with more to come.
    ///
    /// # Errors
    ///
    /// If they will never end.
    pub(super) fn turned(&mut self, turn: i64, state: &[Datum]) -> Result<(), OpError> {
        let endless = |why: &str| {
            Err(OpError::new(match self.limit {
                Some(m) => format!("the loop would run {m} times: {why}"),
                None => format!("the loop never ends: it has no trip count, and {why}"),
            }))
        };
        if self.fixed && self.limit.is_none_or(|m| m > TURNS) {
            return endless("its condition stays what it is");
        }
        if !self.returns {
            return Ok(());
        }
        if self.before.as_deref() == Some(state) {
            return endless("what it carries is what it was some turns before");
        }
        if turn & (turn - 1) == 0 {
            let size = state.iter().map(Datum::size).fold(0, usize::saturating_add);
            self.before = (size <= STATE).then(|| state.to_vec());
        }
        Ok(())
    }
}

/// The values of `graph` that those `left` are computed from; `None` if something else has a say.
fn origins(graph: &Graph, mut left: Vec<ValueId>) -> Option<HashSet<ValueId>> {
    let (links, names) = (graph.links(), graph.names());
    let mut seen = HashSet::new();
    while let Some(v) = left.pop() {
        let Some((id, _)) = links.producer(v).filter(|_| !seen.contains(&v)) else {
            seen.insert(v);
            continue;
        };
        seen.insert(v);
        let node = &graph[id];
        if !is_pure(node) {
            return None;
        }
        left.extend(node.inputs.iter().flatten());
        for g in node.attrs.iter().flat_map(|a| a.value.graphs()) {
            left.extend(g.captures().iter().filter_map(|name| names.get(name)));
        }
    }
    Some(seen)
}

/// Whether equal inputs give equal outputs.
fn is_pure(node: &Node) -> bool {
    let mut graphs = node.attrs.iter().flat_map(|a| a.value.graphs()).peekable();
    match graphs.peek() {
        // Operators that run subgraphs are what these are.
        Some(_) => graphs.all(|g| g.iter().all(|(_, n)| is_pure(n))),
        None => ops::find(node.domain(), &node.op).is_some_and(|op| !op.laws().impure),
    }
}
