//! What operators do to groups: folds, cuts, sums, and what keeps axes whole.

use secateur_compress::groups::{Kind, Sizes};
use secateur_engine::Tensor;
use secateur_engine::ir::ValueId;

use super::sketch::{ALL, Sketch, agrees, cut, int, list, reason, to_70, widths};

/// `x` [.., n] by a weight [n, m] and a bias.
pub(super) fn linear(s: &mut Sketch, x: ValueId, n: usize, m: usize) -> ValueId {
    let (w, b) = (s.weight(&[n, m]), s.weight(&[m]));
    let y = s.op("MatMul", &[x, w], &[]);
    s.op("Add", &[y, b], &[])
}

/// [batch, length, heads · width] as [batch, heads, length, width].
fn by_heads(s: &mut Sketch, x: ValueId, heads: i64, width: i64) -> ValueId {
    let shape = s.ints(&[0, -1, heads, width]);
    let x = s.op("Reshape", &[x, shape], &[]);
    s.op("Transpose", &[x], &[("perm", list(&[0, 2, 1, 3]))])
}

/// Attention of `q`, `k` and `v`, back as [batch, length, heads · width].
fn attend(s: &mut Sketch, [q, k, v]: [ValueId; 3], wide: i64) -> ValueId {
    let k = s.op("Transpose", &[k], &[("perm", list(&[0, 1, 3, 2]))]);
    let scores = s.op("MatMul", &[q, k], &[]);
    let p = s.op("Softmax", &[scores], &[("axis", int(-1))]);
    let y = s.op("MatMul", &[p, v], &[]);
    let y = s.op("Transpose", &[y], &[("perm", list(&[0, 2, 1, 3]))]);
    let shape = s.ints(&[0, -1, wide]);
    s.op("Reshape", &[y, shape], &[])
}

#[test]
fn a_merged_projection_is_cut_by_heads_in_all_three_parts() {
    let mut s = Sketch::new(1);
    let x = s.input("x", &[1, 5, 12]);
    let qkv = linear(&mut s, x, 12, 48);
    let sizes = s.ints(&[16, 16, 16]);
    let parts = s.ops("Split", &[qkv, sizes], &[("axis", int(2))], 3);
    let heads = [0, 1, 2].map(|i| by_heads(&mut s, parts[i], 4, 4));
    let y = attend(&mut s, heads, 16);
    let y = linear(&mut s, y, 16, 12);
    let model = s.done(&[y]);
    let (change, new) = agrees("merged", &model, &to_70(&[Kind::Head]), &Sizes::new());
    assert_eq!(change.groups.len(), 1, "{change}");
    let dims = |m: &secateur_engine::Model, i: usize| {
        m.graph[m.graph.initializers[i]]
            .konst
            .as_ref()
            .unwrap()
            .tensor
            .dims()
            .to_vec()
    };
    assert_eq!((dims(&new, 0), dims(&new, 1)), (vec![12, 36], vec![36]));
    agrees("merged, widths too", &model, &to_70(&ALL), &Sizes::new());
}

#[test]
fn a_key_head_goes_with_its_queries() {
    let mut s = Sketch::new(2);
    let x = s.input("x", &[1, 5, 12]);
    let q = linear(&mut s, x, 12, 32);
    let q = by_heads(&mut s, q, 8, 4);
    let repeated = |s: &mut Sketch| {
        let k = linear(s, x, 12, 16);
        let k = by_heads(s, k, 4, 4);
        let one = s.ints(&[2]);
        let k = s.op("Unsqueeze", &[k, one], &[]);
        let shape = s.ints(&[1, 4, 2, 5, 4]);
        let k = s.op("Expand", &[k, shape], &[]);
        let shape = s.ints(&[1, 8, 5, 4]);
        s.op("Reshape", &[k, shape], &[])
    };
    let (k, v) = (repeated(&mut s), repeated(&mut s));
    let y = attend(&mut s, [q, k, v], 32);
    let y = linear(&mut s, y, 32, 12);
    let model = s.done(&[y]);
    let (change, _) = agrees("grouped", &model, &to_70(&[Kind::Head]), &Sizes::new());
    let [heads] = &change.groups[..] else {
        panic!("{change}")
    };
    assert_eq!((heads.size, heads.keep.len()), (4, 3));
}

#[test]
fn widths_are_followed_through_other_operators() {
    let recurrent = |op: &'static str, gates: usize| {
        move |s: &mut Sketch| {
            let x = s.input("x", &[3, 1, 5]);
            let inputs = [
                x,
                s.weight(&[2, gates * 6, 5]),
                s.weight(&[2, gates * 6, 6]),
                s.weight(&[2, 2 * gates * 6]),
            ];
            let attrs = [("hidden_size", int(6)), ("direction", "bidirectional".into())];
            let y = s.op(op, &inputs, &attrs);
            let y = s.op("Transpose", &[y], &[("perm", list(&[0, 2, 1, 3]))]);
            let shape = s.ints(&[0, 0, -1]);
            let y = s.op("Reshape", &[y, shape], &[]);
            linear(s, y, 12, 3)
        }
    };
    type Make = Box<dyn Fn(&mut Sketch) -> ValueId>;
    let all: Vec<(&str, Make, &[usize])> = vec![
        ("LSTM", Box::new(recurrent("LSTM", 4)), &[6]),
        ("GRU", Box::new(recurrent("GRU", 3)), &[6]),
        ("RNN", Box::new(recurrent("RNN", 1)), &[6]),
        (
            "Gather of an embedding",
            Box::new(|s| {
                let words = s.weight(&[9, 8]);
                let ids = s.input("x", &[1, 5]);
                let ids = s.op("Cast", &[ids], &[("to", int(7))]);
                let x = s.op("Gather", &[words, ids], &[]);
                linear(s, x, 8, 3)
            }),
            &[8],
        ),
        (
            "Slice",
            Box::new(|s| {
                let x = s.input("x", &[2, 4]);
                let x = linear(s, x, 4, 10);
                let [a, b, c, d] = [0, 4, 10, 1].map(|i| s.ints(&[i]));
                let first = s.op("Slice", &[x, a, b, d], &[]);
                let rest = s.op("Slice", &[x, b, c, d], &[]);
                let (y, z) = (linear(s, first, 4, 3), linear(s, rest, 6, 3));
                s.op("Add", &[y, z], &[])
            }),
            &[4, 6],
        ),
        (
            "ConvTranspose in groups",
            Box::new(|s| {
                let x = s.input("x", &[1, 2, 5, 5]);
                let w = s.weight(&[8, 2, 1, 1]);
                let x = s.op("Conv", &[x, w], &[]);
                let (w, b) = (s.weight(&[8, 3, 2, 2]), s.weight(&[12]));
                let x = s.op("ConvTranspose", &[x, w, b], &[("group", int(4))]);
                let w = s.weight(&[2, 12, 1, 1]);
                s.op("Conv", &[x, w], &[])
            }),
            &[4, 2, 3],
        ),
        (
            "DepthToSpace",
            Box::new(|s| {
                let x = s.input("x", &[1, 2, 3, 3]);
                let (w, b) = (s.weight(&[16, 2, 1, 1]), s.weight(&[16]));
                let x = s.op("Conv", &[x, w, b], &[]);
                let x = s.op("DepthToSpace", &[x], &[("blocksize", int(2))]);
                let w = s.weight(&[2, 4, 1, 1]);
                s.op("Conv", &[x, w], &[])
            }),
            &[4],
        ),
        (
            "NHWC",
            Box::new(|s| {
                let x = s.input("x", &[1, 2, 3, 3]);
                let (w, b) = (s.weight(&[6, 2, 1, 1]), s.weight(&[6]));
                let x = s.op("Conv", &[x, w], &[]);
                let x = s.op("Transpose", &[x], &[("perm", list(&[0, 2, 3, 1]))]);
                let x = s.op("Add", &[x, b], &[]);
                linear(s, x, 6, 2)
            }),
            &[6],
        ),
        (
            "equal parts that no longer are",
            Box::new(|s| {
                let x = s.input("x", &[2, 4]);
                let x = linear(s, x, 4, 8);
                let parts = s.ops("Split", &[x], &[("axis", int(1))], 2);
                let other = s.input("o", &[2, 4]);
                let first = s.op("Add", &[parts[0], other], &[]);
                let (y, z) = (linear(s, first, 4, 3), linear(s, parts[1], 4, 3));
                s.op("Add", &[y, z], &[])
            }),
            &[4],
        ),
        (
            "squeeze and excite",
            Box::new(|s| {
                let x = s.input("x", &[1, 2, 4, 4]);
                let w = s.weight(&[8, 2, 1, 1]);
                let x = s.op("Conv", &[x, w], &[]);
                let p = s.op("GlobalAveragePool", &[x], &[]);
                let (w, b) = (s.weight(&[4, 8, 1, 1]), s.weight(&[4]));
                let p = s.op("Conv", &[p, w, b], &[]);
                let p = s.op("Relu", &[p], &[]);
                let (w, b) = (s.weight(&[8, 4, 1, 1]), s.weight(&[8]));
                let p = s.op("Conv", &[p, w, b], &[]);
                let p = s.op("Sigmoid", &[p], &[]);
                let x = s.op("Mul", &[x, p], &[]);
                let w = s.weight(&[2, 8, 1, 1]);
                s.op("Conv", &[x, w], &[])
            }),
            &[8, 4],
        ),
    ];
    for (name, make, expected) in all {
        let mut s = Sketch::new(3);
        let y = make(&mut s);
        let model = s.done(&[y]);
        agrees(name, &model, &to_70(&ALL), &Sizes::new());
        let found: Vec<usize> = secateur_compress::groups(&model, &Sizes::new())
            .unwrap()
            .groups
            .iter()
            .map(|g| g.size)
            .collect();
        assert_eq!(found, expected, "{name}");
    }
}

/// A product by [4, 6], something with it, and a product by [6, 3].
pub(super) fn between(make: impl Fn(&mut Sketch, ValueId) -> ValueId) -> secateur_engine::Model {
    let mut s = Sketch::new(4);
    let x = s.input("x", &[2, 4]);
    let w = s.constant(
        "first",
        Tensor::of(&[4, 6], (0..24).map(|i| i as f32 / 9.0 - 1.0).collect()),
    );
    let x = s.op("MatMul", &[x, w], &[]);
    let x = make(&mut s, x);
    let w = s.weight(&[6, 3]);
    let y = s.op("MatMul", &[x, w], &[]);
    let mut model = s.done(&[y]);
    let first = model.graph.initializers[0];
    model.graph[first].name = "first".into();
    model
}

#[test]
fn what_mixes_an_axis_keeps_it_whole_and_is_named() {
    assert!(widths(&between(|s, x| s.op("Relu", &[x], &[]))).contains_key("first[1]"));
    let softmax = between(|s, x| s.op("Softmax", &[x], &[]));
    assert!(reason(&softmax, "first[1]").contains("Softmax"));
    let mean = between(|s, x| {
        let m = s.op("ReduceMean", &[x], &[("axes", list(&[1]))]);
        s.op("Sub", &[x, m], &[])
    });
    assert!(reason(&mean, "first[1]").contains("ReduceMean"));
    let norm = between(|s, x| {
        let scale = s.weight(&[6]);
        s.op("LayerNormalization", &[x, scale], &[])
    });
    assert!(reason(&norm, "first[1]").contains("LayerNormalization"));
    assert!(reason(&norm, "first[0]").contains("input"));
    let sized = between(|s, x| {
        let n = s.op("Shape", &[x], &[]);
        let one = s.ints(&[1]);
        let n = s.op("Gather", &[n, one], &[]);
        let n = s.op("Cast", &[n], &[("to", int(1))]);
        s.op("Div", &[x, n], &[])
    });
    assert!(reason(&sized, "first[1]").contains("size"));
    // A sum of sigmoids counts the zeros; a sum of what is zero does not.
    let summed = |op: &'static str| {
        between(move |s, x| {
            let y = s.op(op, &[x], &[]);
            let axes = s.ints(&[1]);
            let y = s.op("ReduceSum", &[y, axes], &[]);
            s.op("Mul", &[x, y], &[])
        })
    };
    assert!(reason(&summed("Sigmoid"), "first[1]").contains("sums over it"));
    agrees("sum of zeros", &summed("Tanh"), &to_70(&ALL), &Sizes::new());
}

#[test]
fn a_list_of_sizes_that_others_read_stays_for_them() {
    // Two reshapes by one list; one of the folds can be cut, the other goes to an output.
    let mut s = Sketch::new(6);
    let x = s.input("x", &[1, 5, 4]);
    let shape = s.ints(&[1, 5, 2, 3]);
    let (a, b) = (linear(&mut s, x, 4, 6), linear(&mut s, x, 4, 6));
    let a = s.op("Reshape", &[a, shape], &[]);
    let b = s.op("Reshape", &[b, shape], &[]);
    let back = s.ints(&[1, 5, -1]);
    let a = s.op("Reshape", &[a, back], &[]);
    let a = linear(&mut s, a, 6, 2);
    let model = s.done(&[a, b]);
    let (_, new) = agrees("shared list", &model, &to_70(&ALL), &Sizes::new());
    let list = new.graph[shape].konst.as_ref().unwrap().tensor.ints().unwrap();
    assert_eq!(list, [1, 5, 2, 3]);
}

#[test]
fn copies_of_nodes_have_names_of_their_own() {
    // A list put together once for two folds that are cut differently, and for an output.
    let mut s = Sketch::new(7);
    let x = s.input("x", &[1, 5, 4]);
    let (first, rest) = (s.ints(&[1, 5]), s.ints(&[2, 3]));
    let shape = s.op("Concat", &[first, rest], &[("axis", int(0))]);
    let wide = [0, 1, 2].map(|_| linear(&mut s, x, 4, 6));
    let wide = wide.map(|v| s.op("Reshape", &[v, shape], &[]));
    let back = s.ints(&[1, 5, -1]);
    let ends = [wide[0], wide[1]].map(|v| {
        let v = s.op("Reshape", &[v, back], &[]);
        linear(&mut s, v, 6, 2)
    });
    let mut model = s.done(&[ends[0], ends[1], wide[2]]);
    let nodes = model.graph.nodes.iter_mut().enumerate();
    nodes.for_each(|(i, n)| n.name = Some(format!("n{i}").into()));
    let (_, new) = agrees("shared node", &model, &to_70(&ALL), &Sizes::new());
    let mut names: Vec<_> = new.graph.iter().map(|(_, n)| n.name.clone()).collect();
    let all = names.len();
    assert_eq!(all, model.graph.order.len() + 2, "two copies");
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn a_change_for_another_model_is_refused() {
    let model = between(|s, x| s.op("Relu", &[x], &[]));
    let found = secateur_compress::groups(&model, &Sizes::new()).unwrap();
    let change = found
        .choose(
            &found.scores(&secateur_compress::groups::squares),
            &to_70(&ALL),
            &Sizes::new(),
        )
        .unwrap();
    let mut wrong = change.clone();
    wrong.groups[0].keep = vec![];
    let mut named = change.clone();
    named.groups[0].group = "nothing".into();
    let mut wide = change.clone();
    wide.groups[0].size = 7;
    for bad in [wrong, named, wide] {
        let mut new = model.clone();
        let plan = secateur_compress::Plan(vec![secateur_compress::Change::Narrow(bad)]);
        assert!(secateur_compress::apply(&plan, &mut new).is_err());
        assert_eq!(new, model);
    }
    assert_ne!(cut(&model, &change), model);
}
