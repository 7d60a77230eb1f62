//! Messages by hand, and a model that has a bit of everything.
#![allow(dead_code)]

use std::sync::Arc;

use secateur_engine::ir::{
    Attr, AttrValue, Bytes, Constant, DType, Data, Declared, Dim, Extra, Field, Form, Function, Graph, Model,
    Node, Opset, Port, Tensor, Type,
};

/// A number of variable length.
pub(crate) fn varint(mut x: u64) -> Vec<u8> {
    let mut out = vec![];
    while x > 127 {
        out.push(x as u8 | 128);
        x >>= 7;
    }
    out.push(x as u8);
    out
}

/// A record with a number.
pub(crate) fn int(number: u32, x: i64) -> Vec<u8> {
    [varint(u64::from(number) << 3), varint(x as u64)].concat()
}

/// A record with four bytes.
pub(crate) fn float(number: u32, x: f32) -> Vec<u8> {
    [varint(u64::from(number) << 3 | 5), x.to_le_bytes().to_vec()].concat()
}

/// A length-delimited record.
pub(crate) fn len(number: u32, parts: &[Vec<u8>]) -> Vec<u8> {
    let body = parts.concat();
    [
        varint(u64::from(number) << 3 | 2),
        varint(body.len() as u64),
        body,
    ]
    .concat()
}

/// A record with text.
pub(crate) fn text(number: u32, s: &str) -> Vec<u8> {
    len(number, &[s.as_bytes().to_vec()])
}

/// Fields that the IR keeps without understanding them.
pub(crate) fn extra(records: Vec<(u32, Vec<u8>)>) -> Extra {
    let field = |(number, record)| Field {
        number,
        record: Bytes::new::<u8>(record),
    };
    Extra(records.into_iter().map(field).collect())
}

fn unknown() -> Extra {
    extra(vec![
        (77, text(77, "later")),
        (78, int(78, -1)),
        (79, float(79, 1.5)),
    ])
}

fn constant(tensor: Tensor, form: Form) -> Constant {
    Constant {
        form,
        extra: unknown(),
        ..Constant::new(tensor)
    }
}

fn typed(tensor: Tensor) -> Constant {
    Constant {
        form: Form::Typed { payload: None },
        ..Constant::new(tensor)
    }
}

fn raw(dtype: DType, dims: &[usize], bytes: Vec<u8>) -> Tensor {
    Tensor::new(dtype, dims.to_vec(), Data::Bytes(Bytes::new(bytes))).unwrap()
}

/// One tensor of each of `types` that can be packed, with all bits of its elements in use.
pub(crate) fn tensors(types: &[DType]) -> Vec<Tensor> {
    let bytes = |d: DType| (0..d.bytes(3).unwrap()).map(|i| 0x91u8.wrapping_mul(i as u8 + 1));
    let packed = types.iter().filter(|d| d.bits() > 0);
    packed.map(|&d| raw(d, &[3], bytes(d).collect())).collect()
}

fn add(graph: &mut Graph, name: &str, constant: Constant) {
    let v = graph.value(name);
    graph[v].konst = Some(constant);
    graph.initializers.push(v);
}

fn subgraph() -> Graph {
    let mut g = Graph {
        name: Some("branch".into()),
        ..Graph::default()
    };
    let (x, y) = (g.value("x"), g.value("inner"));
    let c = g.constant("c", Tensor::of(&[2], vec![1i64, -1]));
    g.node(Node::new("Add", vec![Some(x), Some(c)], vec![Some(y)]));
    g.output(y, Some(Type::tensor(DType::F32, [2usize])));
    g
}

fn attributes() -> Vec<Attr> {
    let types = Type::Sequence(Box::new(Type::Optional(Box::new(Type::Map {
        key: DType::String,
        value: Box::new(Type::tensor(
            DType::F16,
            [Dim::symbol("n"), Dim::Unknown, Dim::Known(3)],
        )),
    }))));
    let tensor = constant(Tensor::scalar(2.5f32), Form::Typed { payload: None });
    let sparse = [
        len(1, &[int(1, 0), int(2, 1)]),
        len(2, &[int(1, 0), int(2, 7)]),
        int(3, 4),
    ];
    let sparse = Bytes::new(sparse.concat());
    let mut all = vec![
        Attr::new("int", -3i64),
        Attr::new("float", 0.5f32),
        Attr::new("bytes", "text"),
        Attr::new("ints", vec![1, -1, 1 << 40]),
        Attr::new("floats", vec![1.0f32, -0.0]),
        Attr::new(
            "strings",
            AttrValue::Strings(vec![b"a".to_vec(), vec![], vec![0xff]]),
        ),
        Attr::new("tensor", AttrValue::Tensor(tensor.clone())),
        Attr::new("tensors", AttrValue::Tensors(vec![tensor.clone(), tensor])),
        Attr::new("graph", subgraph()),
        Attr::new("graphs", AttrValue::Graphs(vec![subgraph(), Graph::default()])),
        Attr::new("type", AttrValue::Type(types.clone().into())),
        Attr::new(
            "types",
            AttrValue::Types(vec![types.into(), Type::Unknown.into()]),
        ),
        Attr::new("sparse", AttrValue::Sparse(sparse.clone())),
        Attr::new("sparses", AttrValue::Sparses(vec![sparse])),
        Attr::new("ref", AttrValue::Ref("alpha".into())),
        Attr::new("nothing", AttrValue::Nothing),
        Attr::new("zero", AttrValue::Int(None)),
        Attr::new("empty", AttrValue::Bytes(None)),
    ];
    all[0].extra = unknown();
    all
}

/// A model with every kind of field that the IR has a place for, some that it has none for, and tensors of `types`.
pub(crate) fn everything(types: &[DType]) -> Model {
    let mut g = Graph {
        name: Some("main".into()),
        extra: unknown(),
        ..Graph::default()
    };
    let x = g.input(
        "x",
        Type::tensor(DType::F32, [Dim::symbol("batch"), Dim::Known(2)]),
    );
    for t in tensors(types) {
        add(&mut g, &format!("raw.{}", t.dtype()), Constant::new(t.clone()));
        add(
            &mut g,
            &format!("typed.{}", t.dtype()),
            constant(t, Form::Typed { payload: None }),
        );
    }
    let strings = Data::Strings(Arc::from([b"a".to_vec(), vec![]]));
    let strings = Tensor::new(DType::String, vec![2], strings).unwrap();
    add(&mut g, "strings", Constant::new(strings));
    let sparse = Tensor::of(&[2, 3], vec![0.0f32, 1.0, 0.0, -0.0, 0.0, 2.0]);
    add(&mut g, "sparse", constant(sparse, Form::Sparse { proto: None }));
    let (y, z) = (g.value("y"), g.value("z"));
    g.node(Node {
        name: Some("first".into()),
        domain: Some("".into()),
        attrs: attributes(),
        extra: unknown(),
        ..Node::new("Everything", vec![Some(x), None], vec![None, Some(y)])
    });
    g.node(Node {
        domain: Some("local".into()),
        ..Node::new("Twice", vec![Some(y)], vec![Some(z)])
    });
    g.output(z, None);
    g.infos.push(Port {
        value: y,
        ty: Some(Declared::from(Type::Tensor {
            dtype: None,
            shape: None,
        })),
        extra: unknown(),
    });
    let opset = |domain: Option<&str>, version| Opset {
        domain: domain.map(Into::into),
        version: Some(version),
        extra: Extra::default(),
    };
    Model {
        ir_version: Some(8),
        graph: g,
        opsets: vec![opset(Some(""), 17), opset(Some("local"), 1), opset(None, 1)],
        functions: vec![function(opset(None, 17))],
        extra: extra(vec![
            (2, text(2, "secateur")),
            (14, len(14, &[text(1, "k"), text(2, "v")])),
            (99, text(99, "later")),
        ]),
    }
}

fn function(opset: Opset) -> Function {
    let mut f = Function {
        name: "Twice".into(),
        domain: Some("local".into()),
        overload: Some("".into()),
        attrs: vec!["alpha".into()],
        defaults: vec![Attr::new("beta", 1i64)],
        opsets: vec![opset],
        extra: unknown(),
        ..Function::default()
    };
    let g = &mut f.graph;
    let (a, b) = (g.value("a"), g.value("b"));
    let bare = |value| Port {
        value,
        ty: None,
        extra: Extra::default(),
    };
    g.inputs.push(bare(a));
    g.outputs.push(bare(b));
    g.infos.push(bare(b));
    g.node(Node::new("Add", vec![Some(a), Some(a)], vec![Some(b)]));
    f
}
