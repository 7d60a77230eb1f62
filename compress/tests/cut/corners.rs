//! What cuts would get wrong silently: bounds counted from the end, letters on two axes, what makes something of zeros, second
//! outputs, and sizes that leave the model.

use std::cell::Cell;

use secateur_compress::groups::{Shrink, Sizes};
use secateur_compress::{Bypass, Change, Plan, Scope, apply, blocks, groups};
use secateur_engine::ir::{AttrValue, DType, Dim, Opset, Port, Type, ValueId};
use secateur_engine::{Model, Tensor};

use super::operators::{between, linear};
use super::sketch::{ALL, Sketch, agrees, int, list, reason, to_70};

/// Whether an axis of a weight stays whole for a reason that says `why`.
fn whole(model: &Model, why: &str) -> bool {
    let found = groups(model, &Sizes::new()).unwrap();
    found.uncut.iter().any(|u| u.reason.contains(why))
}

/// Whether the neurons in the middle of a model made by `between` stay whole for a reason that says `why`.
fn stays(why: &str, make: impl Fn(&mut Sketch, ValueId) -> ValueId) {
    let said = reason(&between(make), "first[1]");
    assert!(said.contains(why), "{said}");
}

/// `x` [2, 6] by the sums of the rows of `y` [2, 6].
fn summed(s: &mut Sketch, x: ValueId, y: ValueId) -> ValueId {
    let one = s.ints(&[1]);
    let y = s.op("ReduceSum", &[y, one], &[]);
    s.op("Mul", &[x, y], &[])
}

fn normal(s: &mut Sketch, x: ValueId, c: usize) -> ValueId {
    let [a, b, m] = [0, 1, 2].map(|_| s.weight(&[c]));
    let var = s.constant("var", Tensor::of(&[c], vec![1.5f32; c]));
    s.op("BatchNormalization", &[x, a, b, m, var], &[])
}

#[test]
fn a_fused_convolution_is_cut_by_its_groups() {
    for z in [false, true] {
        let mut s = Sketch::new(21);
        let domain = Opset {
            domain: Some("com.microsoft".into()),
            version: Some(1),
            extra: Default::default(),
        };
        s.model.opsets.push(domain);
        let x = s.input("x", &[1, 2, 5, 5]);
        let w = s.weight(&[12, 2, 1, 1]);
        let y = s.op("Conv", &[x, w], &[]);
        let mut inputs = vec![y, s.weight(&[8, 3, 1, 1]), s.weight(&[8])];
        if z {
            let w = s.weight(&[8, 2, 1, 1]);
            inputs.push(s.op("Conv", &[x, w], &[]));
        }
        let y = s.op("FusedConv", &inputs, &[("group", int(4))]);
        let node = s.model.graph.nodes.last_mut().unwrap();
        node.domain = Some("com.microsoft".into());
        let y = normal(&mut s, y, 8);
        let w = s.weight(&[2, 8, 1, 1]);
        let y = s.op("Conv", &[y, w], &[]);
        let (_, new) = agrees("FusedConv", &s.done(&[y]), &to_70(&ALL), &Sizes::new());
        let fused = new.graph.iter().find(|(_, n)| &*n.op == "FusedConv").unwrap().1;
        assert_eq!(fused.attr("group"), Some(&int(3)));
    }
}

/// 12 neurons in segments of 2, 6 and 4, of which each goes into a product; `middle` takes the second.
fn sliced(middle: impl Fn(&mut Sketch, ValueId) -> ValueId) -> Model {
    let mut s = Sketch::new(22);
    let x = s.input("x", &[2, 4]);
    let x = linear(&mut s, x, 4, 12);
    let [zero, two, four, end, one] = [0, 2, -4, i64::MAX, 1].map(|i| s.ints(&[i]));
    let first = s.op("Slice", &[x, zero, two, one], &[]);
    let last = s.op("Slice", &[x, four, end, one], &[]);
    let middle = middle(&mut s, x);
    let parts = [(first, 2), (middle, 6), (last, 4)].map(|(v, n)| linear(&mut s, v, n, 3));
    let y = s.op("Sum", &parts, &[]);
    s.done(&[y])
}

#[test]
fn bounds_of_slices_mean_what_they_meant() {
    let negative = sliced(|s, x| {
        let [from, to, one] = [-10, -4, 1].map(|i| s.ints(&[i]));
        s.op("Slice", &[x, from, to, one], &[])
    });
    agrees("from the end", &negative, &to_70(&ALL), &Sizes::new());
    let computed = sliced(|s, x| {
        let n = s.op("Shape", &[x], &[]);
        let one = s.ints(&[1]);
        let n = s.op("Gather", &[n, one], &[]);
        let bounds = [10, 4].map(|k| {
            let k = s.ints(&[k]);
            s.op("Sub", &[n, k], &[])
        });
        s.op("Slice", &[x, bounds[0], bounds[1], one], &[])
    });
    agrees("computed", &computed, &to_70(&ALL), &Sizes::new());
    let mut s = Sketch::new(23);
    let x = s.input("x", &[2, 4]);
    let x = linear(&mut s, x, 4, 6);
    let [from, to, one, two] = [-5, i64::MAX, 1, 2].map(|i| s.ints(&[i]));
    let y = s.op("Slice", &[x, from, to, one, two], &[]);
    let y = linear(&mut s, y, 3, 2);
    agrees("every other", &s.done(&[y]), &to_70(&ALL), &Sizes::new());
}

#[test]
fn bounds_that_depend_on_the_batch_keep_the_axis_whole() {
    let mut s = Sketch::new(24);
    let shape = vec![Dim::Symbol("batch".into()), Dim::from(4usize)];
    let ty = Type::Tensor {
        dtype: Some(DType::F32),
        shape: Some(shape),
    };
    let x = s.model.graph.input("x", ty);
    let h = linear(&mut s, x, 4, 6);
    let n = s.op("Shape", &[x], &[]);
    let [zero, one] = [0, 1].map(|i| s.ints(&[i]));
    let n = s.op("Gather", &[n, zero], &[]);
    let y = s.op("Slice", &[h, zero, n, one], &[]);
    let y = linear(&mut s, y, 1, 2);
    assert!(whole(&s.done(&[y]), "depends on the sizes of inputs"));
}

#[test]
fn a_letter_on_two_axes_is_not_zero_where_one_is() {
    stays("sums over it", |s, x| {
        let [one, two] = [1, 2].map(|i| s.ints(&[i]));
        let (a, b) = (
            s.op("Unsqueeze", &[x, two], &[]),
            s.op("Unsqueeze", &[x, one], &[]),
        );
        let y = s.op("Add", &[a, b], &[]);
        s.op("ReduceSum", &[y, two], &[("keepdims", int(0))])
    });
    // What is summed over vanishes, the rows of the other factor, by the same letter, do not.
    stays("sums over it", |s, x| {
        let w = s.weight(&[6, 6]);
        let w = s.op("Sigmoid", &[w], &[]);
        let turned = s.op("Transpose", &[x], &[]);
        let y = s.op("MatMul", &[w, turned], &[]);
        let y = s.op("Add", &[y, turned], &[]);
        let y = s.op("Transpose", &[y], &[]);
        summed(s, x, y)
    });
    // A weight is zero where either is, though it be turned round first.
    let square = between(|s, x| {
        let w = s.weight(&[6, 6]);
        let w = s.op("Transpose", &[w], &[]);
        let y = s.op("MatMul", &[x, w], &[]);
        let y = s.op("Add", &[x, y], &[]);
        summed(s, x, y)
    });
    agrees("square weight", &square, &to_70(&ALL), &Sizes::new());
}

#[test]
fn what_makes_something_of_zeros_is_known() {
    let attrs = [
        ("lambd", AttrValue::from(-1f32)),
        ("bias", AttrValue::from(0.5f32)),
    ];
    stays("sums over it", |s, x| {
        let y = s.op("Shrink", &[x], &attrs);
        summed(s, x, y)
    });
    let recurrent = |sigmoid: bool, state: bool| {
        let mut s = Sketch::new(25);
        let x = s.input("x", &[3, 1, 5]);
        let mut inputs = vec![x, s.weight(&[1, 6, 5]), s.weight(&[1, 6, 6])];
        let mut attrs = vec![("hidden_size", int(6))];
        if sigmoid {
            attrs.push(("activations", AttrValue::Strings(vec!["Sigmoid".into()])));
        }
        let y = match state {
            false => s.op("RNN", &inputs, &attrs),
            true => {
                let h = s.weight(&[1, 1, 6]);
                inputs.push(s.op("Sigmoid", &[h], &[]));
                let y = s.op("RNN", &inputs, &attrs);
                let node = s.model.graph.nodes.last_mut().unwrap();
                (0..2).for_each(|_| node.inputs.insert(3, None));
                y
            }
        };
        let last = s.ints(&[3]);
        let y = s.op("ReduceSum", &[y, last], &[]);
        s.done(&[y])
    };
    agrees("RNN", &recurrent(false, false), &to_70(&ALL), &Sizes::new());
    assert!(whole(&recurrent(true, false), "sums over it"));
    assert!(whole(&recurrent(false, true), "sums over it"));
}

#[test]
fn a_block_has_the_shape_of_its_input_for_every_batch() {
    let make = |first: Dim| {
        let mut s = Sketch::new(26);
        let ty = |d: &Dim| Type::Tensor {
            dtype: Some(DType::F32),
            shape: Some(vec![d.clone(), Dim::from(4usize)]),
        };
        let x = s.model.graph.input("x", ty(&first));
        let other = s.model.graph.input("o", ty(&Dim::Symbol("batch".into())));
        let x = linear(&mut s, x, 4, 4);
        let y = linear(&mut s, x, 4, 4);
        let y = s.op("Add", &[y, other], &[]);
        let y = s.op("Add", &[x, y], &[]);
        let w = s.weight(&[4, 2]);
        let out = s.op("MatMul", &[y, w], &[]);
        (s.done(&[out]), y)
    };
    let (same, _) = make(Dim::Symbol("batch".into()));
    assert_eq!(blocks(&same, &Sizes::new()).unwrap().len(), 1);
    let (mut one, sum) = make(Dim::from(1usize));
    assert_eq!(blocks(&one, &Sizes::new()).unwrap(), []);
    let sum = one.graph[sum].name.to_string();
    let error = apply(&Plan(vec![Change::Bypass(Bypass { sum, stays: 0 })]), &mut one).unwrap_err();
    assert!(error.to_string().contains("shape of what goes"), "{error}");
}

#[test]
fn second_outputs_are_cut_or_keep_the_axis_whole() {
    let dropped = between(|s, x| s.ops("Dropout", &[x], &[], 2)[0]);
    agrees("mask", &dropped, &to_70(&ALL), &Sizes::new());
    let mut s = Sketch::new(27);
    let x = s.input("x", &[1, 2, 4, 4]);
    let w = s.weight(&[6, 2, 1, 1]);
    let x = s.op("Conv", &[x, w], &[]);
    let pooled = s.ops("MaxPool", &[x], &[("kernel_shape", list(&[2, 2]))], 2);
    let w = s.weight(&[2, 6, 1, 1]);
    let y = s.op("Conv", &[pooled[0], w], &[]);
    assert!(whole(&s.done(&[y]), "more than one output"));
}

#[test]
fn constants_that_are_listed_as_inputs_are_cut_and_declared() {
    let mut model = between(|s, x| s.op("Relu", &[x], &[]));
    let g = &mut model.graph;
    for v in g.initializers.clone() {
        let t = &g[v].konst.as_ref().unwrap().tensor;
        let ty = Type::tensor(t.dtype(), t.dims().iter().copied());
        let name = g[v].name.to_string();
        let port = g.input(format!("{name} as an input"), ty);
        let last = g.inputs.iter().position(|p| p.value == port).unwrap();
        g.inputs[last] = Port {
            value: v,
            ..g.inputs[last].clone()
        };
    }
    let (_, new) = agrees("old version", &model, &to_70(&ALL), &Sizes::new());
    for p in &new.graph.inputs {
        let konst = new.graph[p.value].konst.as_ref();
        let declared = p.ty.as_ref().and_then(|t| t.ty.dims());
        assert!(konst.is_none_or(|c| declared == Some(c.tensor.dims().to_vec())));
    }
}

#[test]
fn elements_in_other_attributes_are_not_cut() {
    stays("an attribute that is not cut", |s, x| {
        let bias = s.op(
            "Constant",
            &[],
            &[("value_floats", AttrValue::Floats(vec![0.5; 6]))],
        );
        s.op("Mul", &[x, bias], &[])
    });
}

#[test]
fn a_size_that_leaves_the_model_stays() {
    let size = Cell::new(None);
    let mut model = between(|s, x| {
        let n = s.op("Shape", &[x], &[]);
        let one = s.ints(&[1]);
        size.set(Some(s.op("Gather", &[n, one], &[])));
        x
    });
    model.graph.output(size.get().unwrap(), None);
    assert!(reason(&model, "first[1]").contains("its size is an output"));
}

#[test]
fn a_share_is_one_of_what_there_is() {
    let mut s = Sketch::new(28);
    let x = s.input("x", &[2, 4]);
    let y = linear(&mut s, x, 4, 20);
    let y = linear(&mut s, y, 20, 20);
    let y = linear(&mut s, y, 20, 3);
    let how = Shrink {
        share: 0.1,
        scope: Scope::Global,
        round_to: 16,
        ..to_70(&ALL)
    };
    let (change, _) = agrees("rounded", &s.done(&[y]), &how, &Sizes::new());
    assert_eq!(change.groups.len(), 1, "40 become 36: {change}");
}
