//! Loops that never end, and some that do.

use super::*;

/// A loop without a condition of its own over one carried value, `a`. `body` makes of the turn and the state the condition,
/// the state, and what is stacked.
fn looping(
    trips: Option<i64>,
    body: impl FnOnce(&mut Draft, [ValueId; 2]) -> Vec<ValueId>,
) -> (Model, Feeds) {
    let mut d = Draft::default();
    let a = d.given("a", floats(&[1]), false);
    let trips = trips.map(|m| d.given("m", Tensor::scalar(m), true));
    let mut inner = Draft::inner();
    let scalar = |dtype| Type::tensor(dtype, Vec::<usize>::new());
    let turn = inner.graph.input("turn", scalar(DType::I64));
    inner.graph.input("go_on", scalar(DType::Bool));
    let state = inner.graph.input("state", Type::Unknown);
    for v in body(&mut inner, [turn, state]) {
        inner.graph.output(v, None);
    }
    let made: Vec<_> = inner.graph.outputs[1..].iter().map(|_| Some(d.value())).collect();
    let last = made[made.len() - 1].unwrap();
    d.graph.node(Node {
        name: Some("the_Loop".into()),
        attrs: vec![Attr::new("body", inner.graph)],
        ..Node::new("Loop", vec![trips, None, Some(a)], made)
    });
    d.done(last, 21)
}

/// The condition is computed, but only of what is outside.
pub(crate) fn outside(trips: Option<i64>) -> (Model, Feeds) {
    looping(trips, |d, [_, state]| {
        let a = d.graph.value("a");
        let go = d.node("Equal", &[a, a], vec![]);
        let more = d.node("Add", &[state, a], vec![]);
        vec![go, more]
    })
}

/// The condition is computed of the state, which `op` makes what it was, now or soon.
pub(crate) fn returning(op: &str) -> (Model, Feeds) {
    looping(Some(i64::MAX), |d, [_, state]| {
        let most = d.graph.constant("most", Tensor::scalar(10f32));
        let go = d.node("Less", &[state, most], vec![]);
        let next = d.node(op, &[state], vec![]);
        vec![go, next]
    })
}

/// The condition holds at every turn, and each stacks a megabyte.
pub(crate) fn stacking() -> (Model, Feeds) {
    looping(None, |d, [turn, state]| {
        let most = d.graph.constant("most", Tensor::scalar(i64::MAX));
        let size = d.graph.constant("size", ints(&[1 << 18]));
        let go = d.node("Less", &[turn, most], vec![]);
        let same = d.node("Identity", &[state], vec![]);
        let more = d.node("ConstantOfShape", &[size], vec![]);
        vec![go, same, more]
    })
}

/// Each of very many turns stacks one number.
pub(crate) fn counting() -> (Model, Feeds) {
    looping(Some(1 << 39), |d, [turn, state]| {
        let go = d.graph.constant("yes", Tensor::bools(&[], [true]));
        let go = d.node("Identity", &[go], vec![]);
        let same = d.node("Identity", &[state], vec![]);
        let number = d.node("Identity", &[turn], vec![]);
        vec![go, same, number]
    })
}

/// A loop that ends by the number of the turn, with a state that stays what it is.
pub(crate) fn ending_by_turn() -> (Model, Feeds) {
    looping(Some(i64::MAX), |d, [turn, state]| {
        let most = d.graph.constant("most", Tensor::scalar(100i64));
        let go = d.node("Less", &[turn, most], vec![]);
        let same = d.node("Identity", &[state], vec![]);
        vec![go, same]
    })
}

/// A loop that ends by its state.
pub(crate) fn ending_by_state() -> (Model, Feeds) {
    looping(None, |d, [_, state]| {
        let a = d.graph.value("a");
        let most = d.graph.constant("most", Tensor::scalar(100f32));
        let more = d.node("Add", &[state, a], vec![]);
        let go = d.node("Less", &[more, most], vec![]);
        vec![go, more]
    })
}
