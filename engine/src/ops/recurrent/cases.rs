//! Examples of recurrent layers.

use super::Cell;
use crate::ir::{AttrValue, DType, Tensor};
use crate::ops::Case;
use crate::ops::case::floats;

/// Sizes of an example: steps, batch, inputs, hidden and directions.
type Size = [usize; 5];

/// Small weights, so that functions are not at their ends.
fn small(dims: &[usize], seed: u64) -> Tensor {
    let values = floats(dims, seed).floats().unwrap_or_default();
    let scaled: Vec<f32> = values.iter().map(|x| (x * 0.3) as f32).collect();
    Tensor::of(dims, scaled)
}

/// All inputs: of an LSTM eight, of others six.
fn inputs(cell: Cell, [t, b, i, h, d]: Size, batch_first: bool) -> Vec<Tensor> {
    let g = cell.gates();
    let (x, state) = match batch_first {
        true => (vec![b, t, i], vec![b, d, h]),
        false => (vec![t, b, i], vec![d, b, h]),
    };
    let lens: Vec<i32> = (0..b).map(|i| (t - (i * 2).min(t)) as i32).collect();
    let mut all = vec![
        floats(&x, 1),
        small(&[d, g * h, i], 2),
        small(&[d, g * h, h], 3),
        small(&[d, 2 * g * h], 4),
        Tensor::of(&[b], lens),
        small(&state, 5),
    ];
    if cell == Cell::Lstm {
        all.extend([small(&state, 6), small(&[d, 3 * h], 7)]);
    }
    all
}

fn case(cell: Cell, name: &'static str, size: Size, count: usize) -> Case {
    let all = inputs(cell, size, false);
    let count = count.min(all.len());
    let outputs = if cell == Cell::Lstm { 3 } else { 2 };
    Case::new(name, all.into_iter().take(count))
        .outputs(outputs)
        .attr("hidden_size", size[3] as i64)
        .within(3e-5, 3e-5)
}

fn names(list: &[&str]) -> AttrValue {
    AttrValue::Strings(list.iter().map(|s| s.as_bytes().to_vec()).collect())
}

/// Small, as a number in the middle of two bytes may go to either.
pub(super) fn rounded() -> Vec<Case> {
    let case = |name, size: Size, count, each: bool| {
        let mut case = case(Cell::Lstm, name, size, count);
        let dims = if each {
            vec![size[4], 4 * size[3]]
        } else {
            vec![size[4]]
        };
        let steps = |x: f32| {
            Tensor::of(
                &dims,
                (0..dims.iter().product())
                    .map(|i: usize| x + i as f32 / 50.0)
                    .collect(),
            )
        };
        case.inputs.resize(8, None);
        case.inputs.extend([Some(steps(0.7)), Some(steps(1.2))]);
        case
    };
    vec![
        case("rounded", [4, 1, 3, 5, 1], 4, false).konst(&[1, 2, 3]),
        case("rounded, both directions", [6, 3, 4, 5, 2], 8, true).attr("direction", "bidirectional"),
        case("rounded, backwards", [5, 2, 3, 4, 1], 6, true)
            .without(4)
            .attr("direction", "reverse"),
        case("rounded, no steps", [0, 2, 3, 4, 1], 4, false),
    ]
}

pub(super) fn all(cell: Cell) -> Vec<Case> {
    let functions = match cell {
        Cell::Rnn => names(&["Elu", "Affine"]),
        Cell::Gru => names(&["HardSigmoid", "ScaledTanh", "Sigmoid", "Softsign"]),
        Cell::Lstm => names(&["hardsigmoid", "softplus", "tanh", "Sigmoid", "LeakyRelu", "Relu"]),
    };
    let (rank3, rank4) = ([5, 2, 3, 4, 2], [1, 1, 3, 4, 1]);
    let mut all = vec![
        case(cell, "weights alone", [7, 3, 5, 6, 1], 3).konst(&[1, 2]),
        case(cell, "one sequence", [9, 1, 40, 33, 1], 4).konst(&[1, 2, 3]),
        case(cell, "backwards", [6, 2, 3, 4, 1], 6)
            .attr("direction", "reverse")
            .konst(&[1]),
        case(cell, "both directions", [6, 3, 5, 17, 2], 8)
            .attr("direction", "bidirectional")
            .konst(&[2]),
        case(cell, "no lengths", rank3, 6)
            .without(4)
            .attr("direction", "bidirectional"),
        case(cell, "clipped", rank3, 6)
            .attr("direction", "bidirectional")
            .attr("clip", 0.25f32),
        case(cell, "other functions", rank3, 8)
            .attr("direction", "bidirectional")
            .attr("activations", functions)
            .attr("activation_alpha", vec![0.7f32, 1.5])
            .attr("activation_beta", vec![0.3f32]),
        case(cell, "an old version", rank4, 4)
            .attr("output_sequence", 1)
            .opset(7),
        case(cell, "one output", rank4, 4).outputs(1),
        case(cell, "no steps", [0, 2, 3, 4, 1], 4),
        case(cell, "no sequences", [3, 0, 3, 4, 1], 4),
    ];
    let batch_first = inputs(cell, rank3, true);
    let mut first = case(cell, "batch first", rank3, 8);
    first.inputs = batch_first.into_iter().map(Some).collect();
    all.push(first.attr("layout", 1).attr("direction", "bidirectional"));
    all.push(match cell {
        Cell::Rnn => case(cell, "rectified", rank4, 6).attr("activations", names(&["Relu"])),
        Cell::Gru => case(cell, "a late reset", [6, 3, 5, 7, 2], 6)
            .attr("linear_before_reset", 1)
            .attr("direction", "bidirectional"),
        Cell::Lstm => case(cell, "coupled gates", rank3, 7)
            .attr("input_forget", 1)
            .attr("direction", "bidirectional"),
    });
    for dtype in [DType::F64, DType::F16] {
        let cast = |t: Tensor| match t.dtype() {
            DType::F32 => Tensor::rounded(dtype, t.dims(), &t.floats().unwrap_or_default()).unwrap_or(t),
            _ => t,
        };
        let all_inputs = inputs(cell, rank4, false).into_iter().map(cast);
        all.push(Case::new("another precision", all_inputs).within(1e-2, 1e-2));
    }
    all
}
