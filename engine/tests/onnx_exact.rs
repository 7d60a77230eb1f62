//! Reading and writing are inverse, whatever the file leaves out, adds or spells in its own way.
#![allow(clippy::unwrap_used)]

mod proto;

use proto::{everything, float, int, len, tensors, text};
use secateur_engine::ir::{AttrValue, Bytes, Constant, DType, Dim, Form, Model, Tensor, Type};
use secateur_engine::onnx::{metadata, parse, producer, set_metadata, to_bytes};

fn read(file: &[u8]) -> Model {
    parse(Bytes::new(file.to_vec()), None).unwrap()
}

/// Reads a canonical file and checks that writing gives it back.
fn exact(file: &[Vec<u8>]) -> Model {
    let file = file.concat();
    let model = read(&file);
    assert_eq!(to_bytes(&model), file);
    model
}

fn graph(fields: &[Vec<u8>]) -> Model {
    exact(&[len(7, fields)])
}

/// Reads a model of one node with one attribute.
fn attribute(fields: &[Vec<u8>]) -> AttrValue {
    let m = graph(&[len(1, &[text(4, "Op"), len(5, fields)])]);
    m.graph.nodes[0].attrs[0].value.clone()
}

/// Reads a model of one initialiser.
fn initializer(fields: &[Vec<u8>]) -> Constant {
    let m = graph(&[len(5, fields)]);
    m.graph.values[0].konst.clone().unwrap()
}

#[test]
fn everything_returns() {
    let bytes = to_bytes(&everything(DType::ALL));
    let model = exact(&[bytes]);
    let again = read(&to_bytes(&model));
    assert_eq!(model, again);
    for (t, v) in tensors(DType::ALL).iter().zip(model.graph.initializers.chunks(2)) {
        let c = |i: usize| model.graph[v[i]].konst.clone().unwrap();
        assert_eq!((&*c(0).tensor, &c(0).form), (t, &Form::Raw));
        assert_eq!((&*c(1).tensor, &c(1).form), (t, &Form::Typed { payload: None }));
    }
    let v = model.graph.find("sparse").unwrap();
    let sparse = model.graph.konst(v).unwrap();
    let want = [0.0f32, 1.0, 0.0, -0.0, 0.0, 2.0].map(f32::to_le_bytes).concat();
    assert_eq!(sparse.bytes(), want);
}

#[test]
fn absent_is_not_empty() {
    let op = text(4, "Op");
    let cases = [
        (vec![op.clone()], None, None),
        (vec![text(3, ""), op.clone(), text(7, "")], Some(""), Some("")),
        (
            vec![text(3, "n"), op, text(7, "ai.onnx")],
            Some("n"),
            Some("ai.onnx"),
        ),
    ];
    for (fields, name, domain) in cases {
        let m = graph(&[len(1, &fields)]);
        let node = &m.graph.nodes[0];
        assert_eq!((node.name.as_deref(), node.domain.as_deref()), (name, domain));
        assert!(node.is("Op"));
    }
    graph(&[len(1, &[text(1, ""), text(2, ""), text(4, "")])]);
    graph(&[text(2, "")]);
    graph(&[len(5, &[int(2, 0), text(8, "")])]);
    graph(&[len(5, &[])]);
    graph(&[len(11, &[]), len(12, &[text(1, "")]), len(13, &[len(2, &[])])]);
    exact(&[len(7, &[])]);
    exact(&[int(1, 0), len(8, &[]), len(8, &[text(1, ""), int(2, 0)])]);
    exact(&[len(25, &[]), len(25, &[text(1, ""), text(10, ""), text(13, "")])]);
}

#[test]
fn unknown_fields_stay_where_their_numbers_say() {
    let (low, high) = (int(6, 7), text(1000, "?"));
    let tensor = len(
        5,
        &[
            int(2, 1),
            text(8, "w"),
            len(9, &[vec![0; 4]]),
            int(15, 1),
            high.clone(),
        ],
    );
    let node = len(
        1,
        &[
            text(1, "w"),
            text(4, "Op"),
            text(6, "doc"),
            text(8, "overload"),
            high.clone(),
        ],
    );
    let port = len(11, &[text(1, "x"), text(3, "doc"), high.clone()]);
    let model = exact(&[
        int(1, 8),
        text(6, "doc"),
        len(7, &[node, tensor, low, port, high.clone()]),
        len(8, &[int(2, 17), high.clone()]),
        len(20, &[text(1, "training")]),
        high,
    ]);
    let extra = &model.graph.nodes[0].extra;
    assert_eq!(secateur_engine::onnx::text(extra, 8).as_deref(), Some("overload"));
    assert_eq!(secateur_engine::onnx::text(extra, 9), None);
}

#[test]
fn fields_out_of_order_are_put_in_order() {
    let node = [text(4, "Op"), text(2, "y"), text(1, "x")];
    let sorted = [text(1, "x"), text(2, "y"), text(4, "Op")];
    let name = text(2, "g");
    let file = [
        len(7, std::slice::from_ref(&name)),
        int(1, 8),
        len(7, &[len(1, &node)]),
    ]
    .concat();
    let want = [int(1, 8), len(7, &[len(1, &sorted), name])].concat();
    assert_eq!(to_bytes(&read(&file)), want);
}

#[test]
fn packed_and_unpacked_numbers_are_read() {
    let packed = len(5, &[text(1, "a"), len(8, &[vec![1, 2]]), int(20, 7)]);
    let m = read(&len(7, &[len(1, &[packed])]));
    assert_eq!(m.graph.nodes[0].attr("a"), Some(&AttrValue::Ints(vec![1, 2])));
    let unpacked = len(5, &[len(1, &[vec![2]]), int(2, 1), float(4, 1.0), float(4, 2.0)]);
    let m = read(&len(7, &[unpacked]));
    assert_eq!(
        *m.graph.values[0].konst.clone().unwrap().tensor,
        Tensor::of(&[2], vec![1.0f32, 2.0])
    );
    let want = [1.0f32.to_le_bytes(), 2.0f32.to_le_bytes()].concat();
    assert_eq!(
        to_bytes(&m),
        len(7, &[len(5, &[int(1, 2), int(2, 1), len(4, &[want])])])
    );
}

#[test]
fn attributes_say_what_they_leave_out() {
    let (a, name) = (|code| int(20, code), text(1, "a"));
    assert_eq!(attribute(&[name.clone(), a(2)]), AttrValue::Int(None));
    assert_eq!(
        attribute(&[name.clone(), int(3, 0), a(2)]),
        AttrValue::Int(Some(0))
    );
    assert_eq!(attribute(&[name.clone(), a(1)]), AttrValue::Float(None));
    assert_eq!(attribute(&[name.clone(), a(3)]), AttrValue::Bytes(None));
    assert_eq!(
        attribute(&[name.clone(), text(4, ""), a(3)]),
        AttrValue::Bytes(Some(vec![]))
    );
    assert_eq!(attribute(&[name.clone(), a(7)]), AttrValue::Ints(vec![]));
    assert_eq!(attribute(&[name.clone(), a(4)]), AttrValue::Nothing);
    assert_eq!(attribute(&[name.clone(), a(99)]), AttrValue::Nothing);
    assert_eq!(attribute(std::slice::from_ref(&name)), AttrValue::Nothing);
    assert_eq!(attribute(&[name.clone(), int(3, 5)]), AttrValue::Int(Some(5)));
    assert_eq!(
        attribute(&[name.clone(), float(2, 1.0), int(3, 5), a(2)]),
        AttrValue::Int(Some(5))
    );
    assert_eq!(
        attribute(&[name.clone(), int(3, 5), a(1)]),
        AttrValue::Float(None)
    );
    assert_eq!(
        attribute(&[name.clone(), a(2), text(21, "alpha")]),
        AttrValue::Ref("alpha".into())
    );
    assert_eq!(
        attribute(&[name, int(3, 1), a(2), text(21, "")]),
        AttrValue::Int(Some(1))
    );
    assert_eq!(attribute(&[int(3, 1)]), AttrValue::Int(Some(1)));
}

#[test]
fn numbers_spelled_in_their_own_way_are_kept() {
    let typed = |code, n: i64, payload: Vec<u8>| initializer(&[int(1, n), int(2, code), len(5, &[payload])]);
    let odd = typed(2, 2, vec![1, 0x81, 0x02]);
    assert_eq!(*odd.tensor, Tensor::of(&[2], vec![1u8, 1]));
    assert!(matches!(odd.form, Form::Typed { payload: Some(_) }));
    let long = typed(9, 1, vec![0x81, 0x00]);
    assert_eq!(long.tensor.truths(), Some(vec![true]));
    let plain = typed(3, 2, [proto::varint(u64::MAX), vec![5]].concat());
    assert_eq!(*plain.tensor, Tensor::of(&[2], vec![-1i8, 5]));
    assert_eq!(plain.form, Form::Typed { payload: None });
    let nibbles = typed(22, 3, vec![0x21, 0x03]);
    assert_eq!(nibbles.tensor.bytes(), [0x21, 0x03]);
}

#[test]
fn data_in_other_fields_is_kept_beside() {
    let raw = len(9, &[1.0f32.to_le_bytes().to_vec()]);
    let c = initializer(&[int(2, 1), len(4, &[vec![0; 4]]), text(8, "w"), raw, int(14, 0)]);
    assert_eq!((c.tensor.item(), &c.form), (Some(1.0), &Form::Raw));
    let c = initializer(&[int(1, 0), int(2, 1), len(9, &[])]);
    assert_eq!((c.tensor.len(), &c.form), (0, &Form::Raw));
    let c = initializer(&[int(1, 0), int(2, 1)]);
    assert_eq!((c.tensor.len(), &c.form), (0, &Form::Typed { payload: None }));
    let c = initializer(&[int(2, 1), len(4, &[vec![0; 4]]), len(9, &[])]);
    assert_eq!(c.form, Form::Typed { payload: None });
    let c = initializer(&[int(1, 9), int(2, 99), len(9, &[vec![1, 2, 3]])]);
    assert_eq!(
        (c.tensor.dtype(), c.tensor.bytes()),
        (DType::Other(99), &[1, 2, 3][..])
    );
    initializer(&[int(1, 9), int(2, 99), len(5, &[vec![1, 2, 3]])]);
    initializer(&[int(1, 9)]);
}

#[test]
fn types_keep_what_they_cannot_say() {
    let port = |ty: &[Vec<u8>]| {
        let m = graph(&[len(11, &[text(1, "x"), len(2, ty)])]);
        m.graph.inputs[0].ty.clone().unwrap()
    };
    let shaped = |dims: &[Vec<u8>]| len(1, &[int(1, 1), len(2, dims)]);
    let dims = [len(1, &[int(1, 3)]), len(1, &[text(2, "n")]), len(1, &[])];
    let plain = port(&[shaped(&dims)]);
    let shape = [Dim::Known(3), Dim::symbol("n"), Dim::Unknown];
    assert_eq!(
        (plain.ty.clone(), &plain.proto),
        (Type::tensor(DType::F32, shape), &None)
    );
    let named = port(&[shaped(&[len(1, &[int(1, 3), text(3, "N")])])]);
    assert_eq!(named.ty, Type::tensor(DType::F32, [3i64]));
    assert!(named.proto.is_some());
    let odd = port(&[shaped(&[len(1, &[int(1, -1)]), len(1, &[text(2, "")])])]);
    assert_eq!(odd.ty, Type::tensor(DType::F32, [Dim::Unknown, Dim::Unknown]));
    assert_eq!(
        port(&[len(1, &[])]).ty,
        Type::Tensor {
            dtype: None,
            shape: None
        }
    );
    assert_eq!(
        port(&[len(1, &[int(1, 0)])]).ty,
        Type::Tensor {
            dtype: None,
            shape: None
        }
    );
    assert_eq!(port(&[len(4, &[])]).ty, Type::Sequence(Box::new(Type::Unknown)));
    assert_eq!(port(&[text(6, "denotation")]).ty, Type::Unknown);
    port(&[len(7, &[text(1, ""), text(2, "T")])]);
    port(&[len(5, &[])]);
}

#[test]
fn sparse_initializers_are_dense_inside() {
    let values = len(1, &[int(1, 2), int(2, 6), len(5, &[vec![7, 9]]), text(8, "s")]);
    let linear = len(2, &[int(1, 2), int(2, 7), len(7, &[vec![1, 5]])]);
    let pairs = len(2, &[int(1, 2), int(1, 2), int(2, 7), len(7, &[vec![0, 1, 1, 2]])]);
    let dims = [int(3, 2), int(3, 3)].concat();
    for indices in [linear, pairs] {
        let mut m = graph(&[len(15, &[values.clone(), indices, dims.clone()])]);
        let v = m.graph.find("s").unwrap();
        let dense = Tensor::of(&[2, 3], vec![0i32, 7, 0, 0, 0, 9]);
        assert_eq!(m.graph.konst(v), Some(&dense));
        m.graph[v].name = "renamed".into();
        let m = exact(&[to_bytes(&m)]);
        let v = m.graph.find("renamed").unwrap();
        assert_eq!(m.graph.konst(v), Some(&dense));
        assert!(matches!(
            m.graph[v].konst.as_ref().unwrap().form,
            Form::Sparse { .. }
        ));
    }
}

/// An initialiser of 64 floats, all zero but for 1 and -0 in the middle and what makes `more` of them.
fn mostly_zero(name: &str, more: usize) -> Vec<u8> {
    let mut x = vec![0f32; 64];
    (x[30], x[33]) = (1.0, -0.0);
    x[64 - more..].fill(2.0);
    let bytes = x.iter().flat_map(|x| x.to_le_bytes()).collect();
    len(
        5,
        &[int(1, 8), int(1, 8), int(2, 1), text(8, name), len(9, &[bytes])],
    )
}

#[test]
fn initializers_become_sparse_where_that_is_smaller() {
    let constants = [
        ("thin", 0),
        ("some", 8),
        ("many", 20),
        ("input", 0),
        ("output", 0),
        ("declared", 0),
    ];
    let port = |field, name| len(field, &[text(1, name)]);
    let mut parts: Vec<_> = constants
        .iter()
        .map(|(name, more)| mostly_zero(name, *more))
        .collect();
    parts.extend([port(11, "input"), port(12, "output"), port(13, "declared")]);
    let dense = graph(&parts);
    let mut m = dense.clone();
    assert_eq!(secateur_engine::onnx::sparsify(&mut m), 2);
    let back = exact(&[to_bytes(&m)]);
    for (name, _) in constants {
        let konst = |m: &Model| m.graph[m.graph.find(name).unwrap()].konst.clone().unwrap();
        let (a, b) = (konst(&dense), konst(&back));
        assert_eq!(
            (a.tensor.dims(), a.tensor.bytes()),
            (b.tensor.dims(), b.tensor.bytes()),
            "{name}"
        );
        let sparse = ["thin", "some"].contains(&name);
        assert_eq!(matches!(b.form, Form::Sparse { .. }), sparse, "{name}");
    }
    assert!(to_bytes(&m).len() < to_bytes(&dense).len());
    assert_eq!(secateur_engine::onnx::sparsify(&mut m), 0);
}

#[test]
fn what_is_sparse_can_be_read_again() {
    let mut m = graph(&[mostly_zero("w", 0)]);
    let v = m.graph.find("w").unwrap();
    m.graph[v].konst = Some(Constant::new(Tensor::of(&[40 << 20], vec![0f32; 40 << 20])));
    assert_eq!(secateur_engine::onnx::sparsify(&mut m), 0);
}

#[test]
fn changed_constants_keep_their_form() {
    let mut m = everything(DType::ALL);
    let new = Tensor::of(&[2], vec![3.0f32, 0.0]);
    let ids = m.graph.initializers.clone();
    for &v in &ids {
        let old = m.graph[v].konst.clone().unwrap();
        m.graph[v].konst = Some(old.with(new.clone()));
    }
    let m = exact(&[to_bytes(&m)]);
    let form = |name: &str| {
        let c = m.graph[m.graph.find(name).unwrap()].konst.clone().unwrap();
        assert_eq!(*c.tensor, new);
        c.form
    };
    assert_eq!(form("raw.int64"), Form::Raw);
    assert_eq!(form("typed.int4"), Form::Typed { payload: None });
    assert!(matches!(form("sparse"), Form::Sparse { .. }));
}

#[test]
fn a_constant_moved_from_an_attribute_takes_its_new_name() {
    let tensor = len(5, &[int(2, 1), text(8, "old"), len(9, &[vec![0; 4]])]);
    let mut m = graph(&[len(
        1,
        &[
            text(4, "Constant"),
            len(5, &[text(1, "value"), tensor, int(20, 4)]),
        ],
    )]);
    let AttrValue::Tensor(c) = m.graph.nodes[0].attrs[0].value.clone() else {
        panic!("not a tensor");
    };
    let v = m.graph.value("new");
    m.graph[v].konst = Some(c);
    m.graph.initializers.push(v);
    let m = exact(&[to_bytes(&m)]);
    assert!(m.graph.find("old").is_none() && m.graph.find("new").is_some());
}

#[test]
fn metadata_is_set_in_place() {
    let entry = |k: &str, v: &str| len(14, &[text(1, k), text(2, v)]);
    let mut m = exact(&[
        text(2, "maker"),
        text(3, "1.0"),
        entry("a", "1"),
        entry("b", "2"),
        text(77, "?"),
    ]);
    assert_eq!(producer(&m), ("maker".into(), "1.0".into()));
    set_metadata(&mut m, "a", "3");
    set_metadata(&mut m, "c", "4");
    let pairs = [("a", "3"), ("b", "2"), ("c", "4")].map(|(k, v)| (k.to_string(), v.to_string()));
    assert_eq!(metadata(&m), pairs);
    assert_eq!(metadata(&exact(&[to_bytes(&m)])), pairs);
    assert_eq!(producer(&Model::default()), (String::new(), String::new()));
}
