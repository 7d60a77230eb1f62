//! Outputs that take the place of inputs in the next run.
#![allow(clippy::unwrap_used, reason = "tests end where they cannot go on")]

mod measure;

use measure::{model, noise};
use secateur_engine::{Model, Session, Tensor};

const DIMS: &[usize] = &[3, 37];

/// `exp(x)`, which may be written over `x`.
fn moved() -> Model {
    model(17, [DIMS, DIMS], |[x, dx]| vec![x.op("Exp", &[]), dx * 0.5])
}

fn at(t: &Tensor) -> *const u8 {
    t.bytes().as_ptr()
}

/// The names of the model's inputs and outputs.
fn names(m: &Model) -> (Vec<String>, Vec<String>) {
    let of = |ports: &[secateur_engine::ir::Port]| {
        let names = ports.iter().map(|p| m.graph[p.value].name.to_string());
        names.collect()
    };
    (of(&m.graph.inputs), of(&m.graph.outputs))
}

fn own(t: &Tensor) -> Tensor {
    Tensor::of(t.dims(), t.elements::<f32>().unwrap().into_owned())
}

/// Runs `m` with and without state, and tells whether output 0 is where input 0 was.
fn stays(m: &Model, kept: bool) -> bool {
    let (inputs, outputs) = names(m);
    let (x, dx) = (noise(DIMS, 1), noise(DIMS, 2));
    let session = Session::builder(m).build().unwrap();
    let plain = session.run([(&inputs[0], &x), (&inputs[1], &dx)]).unwrap();
    let session = Session::builder(m)
        .state(&inputs[0], &outputs[0])
        .build()
        .unwrap();
    let given = own(&x);
    let (start, copy) = (at(&given), kept.then(|| given.clone()));
    let made = session
        .run([(&inputs[0], given), (&inputs[1], own(&dx))])
        .unwrap();
    assert_eq!(made, plain);
    assert!(copy.is_none_or(|c| c == x), "what others hold was overwritten");
    at(&made[0]) == start
}

#[test]
fn state_stays_where_it_is() {
    assert!(stays(&moved(), false));
    // What somebody else holds is copied first.
    assert!(!stays(&moved(), true));
}

#[test]
fn what_is_read_later_is_not_overwritten() {
    let m = model(17, [DIMS, DIMS], |[x, dx]| {
        let y = x.op("Transpose", &[]).op("Transpose", &[]) + dx;
        vec![y, y.op("MatMul", &[x.op("Transpose", &[])])]
    });
    // The product reads a copy or the input itself: whichever, it makes the same.
    stays(&m, false);
    let m = model(17, [DIMS, DIMS], |[x, dx]| {
        let y = x.op("Softmax", &[]) + dx;
        vec![y, y.op("Sigmoid", &[]) * x]
    });
    assert!(!stays(&m, false));
}

#[test]
fn unknown_names_are_refused() {
    let m = moved();
    let (inputs, _) = names(&m);
    assert!(Session::builder(&m).state(&inputs[0], "nothing").build().is_err());
}

#[test]
fn an_input_that_is_an_output_stays() {
    let mut m = moved();
    let x = m.graph.inputs[0].value;
    m.graph.output(x, None);
    assert!(!stays(&m, false));
}

#[test]
fn what_is_written_twice_is_refused() {
    let m = moved();
    let ([a, b], [y, z]) = (
        ["x0", "x1"],
        names(&m).1.try_into().map(|o: [String; 2]| o).unwrap(),
    );
    let pairs = |all: [(&str, &String); 2]| {
        let builder = Session::builder(&m);
        all.into_iter()
            .fold(builder, |s, (x, y)| s.state(x, y))
            .build()
            .is_ok()
    };
    assert!(pairs([(a, &y), (b, &z)]));
    assert!(!pairs([(a, &y), (b, &y)]));
    assert!(!pairs([(a, &y), (a, &z)]));
}

/// What is written first into the memory of the new state is not the state: it comes of something else, in a step that runs beside
/// the one that reads the state.
#[test]
fn steps_side_by_side_find_what_they_read() {
    let big: &[usize] = &[64, 512];
    let m = model(17, [big, big], |[x, dx]| {
        let g = dx.op("Softmax", &[]).op("Sigmoid", &[]);
        let other = dx.op("Tanh", &[]).op("Softmax", &[]).op("Exp", &[]);
        vec![g + x, other]
    });
    let (inputs, outputs) = names(&m);
    let (x, dx) = (noise(big, 1), noise(big, 2));
    let session = Session::builder(&m).threads(1).build().unwrap();
    let plain = session.run([(&inputs[0], &x), (&inputs[1], &dx)]).unwrap();
    let slow = secateur_engine::plan::Rate {
        fixed_us: 1000.0,
        ..Default::default()
    };
    let both = secateur_engine::plan::Scaling { one: slow, all: slow };
    let plan = session.plan(&[big.to_vec(), big.to_vec()]).unwrap();
    let kernels: std::collections::BTreeMap<_, _> =
        plan.steps().iter().map(|s| (s.kernel.clone(), both)).collect();
    let rates = std::sync::Arc::new(secateur_engine::plan::Rates::new(2, kernels));
    let builder = Session::builder(&m).threads(2).rates(rates);
    let session = builder.state(&inputs[0], &outputs[0]).build().unwrap();
    let plan = session.plan(&[big.to_vec(), big.to_vec()]).unwrap();
    assert!(plan.forks().count() > 0, "nothing runs side by side");
    for _ in 0..20 {
        let made = session
            .run([(&inputs[0], own(&x)), (&inputs[1], own(&dx))])
            .unwrap();
        assert_eq!(made, plain);
    }
}
