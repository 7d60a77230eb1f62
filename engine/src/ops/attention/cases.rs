//! Examples of `Attention`.

use super::super::case::{Case, floats};
use crate::ir::{DType, Tensor};

/// Truth values that look random; the first column is always true if `open`.
fn truths(dims: &[usize], seed: u64, open: bool) -> Tensor {
    let last = dims.last().copied().unwrap_or(1).max(1);
    let all = floats(dims, seed).floats().unwrap_or_default();
    let seen = all.into_iter().enumerate();
    Tensor::bools(dims, seen.map(|(i, x)| x > 0.0 || (open && i % last == 0)))
}

/// A float mask with minus infinity here and there and in all of row 0.
fn mask(dims: &[usize], seed: u64) -> Tensor {
    let last = dims.last().copied().unwrap_or(1);
    let all = floats(dims, seed)
        .elements::<f32>()
        .unwrap_or_default()
        .into_owned();
    let hide = |(i, x): (usize, f32)| {
        if i < last || x > 1.5 { f32::NEG_INFINITY } else { x }
    };
    Tensor::of(dims, all.into_iter().enumerate().map(hide).collect())
}

/// A mask of `rows` by `keys`: `near` where a query and a key, counted from `past` queries before, are at most `radius` apart,
/// else `far`.
fn band([rows, keys]: [usize; 2], past: usize, radius: usize, far: f32) -> Tensor {
    let at = |i: usize| (past + i / keys).abs_diff(i % keys) <= radius;
    let all = (0..rows * keys).map(|i| if at(i) { 0.0 } else { far });
    Tensor::of(&[rows, keys], all.collect())
}

/// The truth of a mask: where it is zero.
fn open(t: &Tensor) -> Tensor {
    let all = t.floats().unwrap_or_default();
    Tensor::bools(t.dims(), all.into_iter().map(|x| x == 0.0))
}

/// Masks that hide and open many keys at once, known before the model runs and not.
fn pieces() -> Vec<Case> {
    const NONE: f32 = f32::NEG_INFINITY;
    let apart = |name, q, k| Case::new(name, qkv(q, k, 16));
    let long = |name| apart(name, [2, 4, 150, 16], [2, 2, 700, 16]);
    let square = |name| apart(name, [1, 2, 300, 16], [1, 2, 300, 16]);
    let window = |far| band([300, 300], 0, 20, far);
    let heads = |dims: &[usize]| {
        let all = [window(NONE), band([300, 300], 0, 300, NONE)];
        let all: Vec<f32> = all
            .iter()
            .filter_map(Tensor::floats)
            .flatten()
            .map(|x| x as f32)
            .collect();
        Tensor::of(dims, all)
    };
    let idle = {
        let all = window(-1e9).floats().unwrap_or_default();
        let hide = |(i, x): (usize, f64)| if i < 900 { -1e9 } else { x as f32 };
        Tensor::of(&[300, 300], all.into_iter().enumerate().map(hide).collect())
    };
    let odd = {
        let [q, k, v] = qkv([1, 2, 300, 16], [1, 2, 300, 16], 16);
        let all = q.floats().unwrap_or_default().into_iter().enumerate();
        let odd = |(i, x): (usize, f64)| match i {
            80 => f32::NAN,
            4000 => f32::INFINITY,
            _ => x as f32,
        };
        let q = Tensor::of(q.dims(), all.map(odd).collect());
        Case::new("queries that are no numbers", [q, k, v])
    };
    let padding = |keys: usize, from: usize| Tensor::bools(&[1, 1, 1, keys], (0..keys).map(|j| j >= from));
    let all = [
        and(square("a window"), 3, open(&window(NONE))),
        and(odd, 3, open(&window(NONE))),
        and(square("a window, capped"), 3, window(NONE)).attr("softcap", 2.0f32),
        and(square("a window, causal"), 3, open(&window(NONE))).attr("is_causal", 1),
        and(square("far away"), 3, window(-1e9)),
        and(square("far away, causal"), 3, window(-1e9)).attr("is_causal", 1),
        and(square("nothing but far away"), 3, idle),
        and(square("a window in one head"), 3, heads(&[1, 2, 300, 300])),
        and(
            long("two windows for groups"),
            3,
            open(&band([150, 700], 300, 9, NONE)),
        ),
        and(long("a window of rows"), 3, padding(700, 333)),
        and(long("a short window"), 3, open(&band([150, 90], 0, 9, NONE))),
        and(
            and(
                long("a window and padding"),
                3,
                open(&band([150, 700], 100, 99, NONE)),
            ),
            6,
            Tensor::of(&[2], vec![111i64, 490]),
        )
        .opset(24),
        past(
            and(
                square("a window on earlier keys"),
                3,
                band([300, 340], 40, 33, NONE),
            ),
            [1, 2, 40, 16],
            16,
        )
        .attr("is_causal", 1)
        .outputs(3),
        and(
            called(packed(2, [4, 2], [200, 200], 8), "a window, heads side by side"),
            3,
            open(&band([200, 200], 0, 12, NONE)),
        ),
        and(
            apart("one query's window", [2, 4, 1, 16], [2, 2, 700, 16]),
            3,
            padding(700, 680),
        ),
        and(
            apart("a few queries' window", [1, 2, 5, 16], [1, 2, 700, 16]),
            3,
            open(&band([5, 700], 600, 40, NONE)),
        ),
        and(
            apart("two steps", [1, 1, 90, 16], [1, 1, 1300, 16]),
            3,
            open(&band([90, 1300], 500, 450, NONE)),
        ),
    ];
    let known = |c: &Case| c.clone().konst(&[3]);
    all.iter().map(known).chain(all.iter().cloned()).collect()
}

/// Queries, keys and values with heads apart.
fn qkv(q: [usize; 4], k: [usize; 4], width: usize) -> [Tensor; 3] {
    let v = [k[0], k[1], k[2], width];
    [floats(&q, 1), floats(&k, 2), floats(&v, 3)]
}

/// Queries, keys and values with heads side by side.
fn packed(batch: usize, [many, few]: [usize; 2], [queries, keys]: [usize; 2], size: usize) -> Case {
    let inputs = [
        floats(&[batch, queries, many * size], 1),
        floats(&[batch, keys, few * size], 2),
        floats(&[batch, keys, few * size], 3),
    ];
    Case::new("heads side by side", inputs)
        .attr("q_num_heads", many as i64)
        .attr("kv_num_heads", few as i64)
}

/// `case` with further inputs, up to number `i`, which is `t`.
fn and(mut case: Case, i: usize, t: Tensor) -> Case {
    case.inputs.resize(case.inputs.len().max(i + 1), None);
    case.inputs[i] = Some(t);
    case
}

/// `case` under another name.
fn called(case: Case, name: &'static str) -> Case {
    Case { name, ..case }
}

fn past(case: Case, dims: [usize; 4], width: usize) -> Case {
    let v = [dims[0], dims[1], dims[2], width];
    and(and(case, 4, floats(&dims, 5)), 5, floats(&v, 6))
}

fn halves() -> Option<Vec<Case>> {
    let of = |dtype| -> Option<Case> {
        let inputs = qkv([2, 4, 3, 8], [2, 2, 5, 8], 6);
        let half = |t: &Tensor| Tensor::rounded(dtype, t.dims(), &t.floats()?);
        let inputs = inputs.iter().map(half).collect::<Option<Vec<_>>>()?;
        Some(
            Case::new("other floats", inputs)
                .attr("softmax_precision", 1)
                .within(0.05, 0.05),
        )
    };
    [DType::F16, DType::BF16, DType::F64]
        .into_iter()
        .map(of)
        .collect()
}

pub(super) fn spread() -> Vec<Case> {
    let case = |name, q, k, mask: Option<Tensor>| {
        let case = Case::new(name, qkv(q, k, 6)).within(5e-6, 1e-5);
        match mask {
            Some(mask) => and(case, 3, mask),
            None => case,
        }
    };
    let one = |dims: &[usize]| Some(floats(dims, 4));
    let half =
        |t: Tensor| Tensor::rounded(DType::F16, t.dims(), &t.floats().unwrap_or_default()).unwrap_or(t);
    let halves = qkv([2, 2, 5, 8], [1, 2, 7, 8], 6).map(half);
    vec![
        case("nothing broadcasts", [2, 3, 5, 8], [2, 3, 7, 8], one(&[5, 7])),
        case("one sequence of keys", [2, 3, 5, 8], [1, 3, 7, 8], None),
        case(
            "one sequence of queries",
            [1, 3, 5, 8],
            [2, 3, 7, 8],
            one(&[5, 1]),
        ),
        case("one head of keys", [2, 3, 5, 8], [2, 1, 7, 8], None),
        case("one head of queries", [2, 1, 5, 8], [2, 3, 7, 8], None),
        case("groups", [2, 4, 5, 8], [1, 2, 7, 8], one(&[2, 1, 1, 7])),
        case("masks for more", [1, 1, 1, 8], [1, 1, 7, 8], one(&[2, 3, 5, 7])),
        case(
            "what may be seen",
            [2, 3, 5, 8],
            [2, 3, 7, 8],
            Some(truths(&[5, 1], 3, true)),
        ),
        and(
            Case::new(
                "one key for many values",
                [
                    floats(&[2, 3, 5, 8], 1),
                    floats(&[2, 3, 1, 8], 2),
                    floats(&[2, 3, 7, 6], 3),
                ],
            )
            .within(5e-6, 1e-5),
            3,
            floats(&[5, 7], 4),
        ),
        Case::new("half floats", halves).within(2e-3, 2e-3),
    ]
}

pub(super) fn all() -> Vec<Case> {
    let apart = |name, q, k, width| Case::new(name, qkv(q, k, width));
    let small = |name| apart(name, [2, 3, 5, 8], [2, 3, 7, 8], 10);
    let long = |name| apart(name, [1, 2, 150, 33], [1, 1, 600, 33], 40);
    let all = [
        small("plain"),
        apart("one query", [2, 6, 1, 20], [2, 2, 1100, 20], 33),
        apart("a few queries", [1, 2, 7, 64], [1, 2, 530, 64], 64).attr("is_causal", 1),
        long("many keys"),
        long("many keys, causal").attr("is_causal", 1),
        apart("a triangle", [1, 2, 200, 16], [1, 2, 200, 16], 16).attr("is_causal", 1),
        small("scaled").attr("scale", 0.3f32),
        small("capped").attr("softcap", 1.5f32),
        packed(2, [3, 3], [5, 7], 8),
        called(packed(2, [6, 2], [70, 9], 8), "groups side by side").attr("is_causal", 1),
        called(packed(2, [6, 2], [1, 9], 8), "groups of one query"),
        and(small("a mask"), 3, mask(&[5, 7], 4)),
        and(small("a mask for each head"), 3, mask(&[3, 1, 7], 4)).attr("softcap", 2.0f32),
        and(small("a short mask"), 3, mask(&[2, 1, 5, 4], 4)),
        and(small("what may be seen"), 3, truths(&[2, 1, 5, 7], 4, false)).attr("is_causal", 1),
        and(
            small("columns that may be seen"),
            3,
            truths(&[2, 1, 1, 6], 4, true),
        ),
        and(long("a long mask"), 3, mask(&[150, 600], 4)),
        and(
            long("truths for many keys"),
            3,
            truths(&[1, 1, 150, 600], 4, true),
        ),
        and(
            apart("a mask for one query", [2, 6, 1, 8], [2, 3, 9, 8], 8),
            3,
            mask(&[2, 6, 1, 9], 4),
        ),
        and(small("nothing to be seen"), 3, truths(&[1, 7], 4, false)),
        and(small("padding"), 6, Tensor::of(&[2], vec![3i64, 0])).opset(24),
        past(small("earlier keys"), [2, 3, 4, 8], 10).outputs(3),
        past(long("many earlier keys"), [1, 1, 100, 33], 40)
            .outputs(3)
            .attr("is_causal", 1),
        past(packed(2, [4, 2], [1, 1], 8), [2, 2, 6, 8], 8)
            .attr("is_causal", 1)
            .outputs(3),
        past(small("earlier keys only"), [2, 3, 4, 8], 10),
        small("scores").outputs(4).attr("softcap", 2.0f32),
        and(small("capped scores"), 3, mask(&[5, 7], 4))
            .outputs(4)
            .attr("qk_matmul_output_mode", 1),
        and(small("masked scores"), 3, mask(&[5, 7], 4))
            .outputs(4)
            .attr("qk_matmul_output_mode", 2),
        small("shares").outputs(4).attr("qk_matmul_output_mode", 3),
        apart("no keys", [2, 3, 5, 8], [2, 3, 0, 8], 10),
        apart("no queries", [2, 3, 0, 8], [2, 3, 5, 8], 10),
        apart("no sequences", [0, 3, 2, 8], [0, 3, 5, 8], 10),
    ];
    let all = all.into_iter().chain(pieces());
    let mut all: Vec<_> = all.map(|c| c.within(5e-6, 1e-5)).collect();
    all.extend(halves().unwrap_or_default());
    all
}
