//! Small graphs of operators' cases.

use secateur_engine::ir::{Attr, AttrValue, DType, Datum, Model, Node, Opset, Tensor, Type, ValueId};
use secateur_engine::ops::{self, Case, Op};
use secateur_engine::opt::{self, infer};
use secateur_engine::run::{Feed, Session};

use crate::chance::Chance;
use crate::{Found, MEMORY, Target};

/// The cases of all operators, small ones.
pub(crate) struct Graphs {
    cases: Vec<(&'static dyn Op, Case)>,
}

impl Graphs {
    pub(crate) fn new() -> Graphs {
        let small = |c: &Case| c.inputs.iter().flatten().all(|t| t.len() <= 4096);
        let of = |op: &'static dyn Op| op.cases().into_iter().filter(small).map(move |c| (op, c));
        let pure = |op: &&&'static dyn Op| !op.laws().impure || op.laws().any;
        let mut by_op: Vec<Vec<_>> = ops::OPS.iter().filter(pure).map(|op| of(*op).collect()).collect();
        by_op.retain(|c| !c.is_empty());
        // Each operator as often as the others.
        let most = 24;
        let cases = by_op
            .into_iter()
            .flat_map(|c| c.into_iter().cycle().take(most))
            .collect();
        Graphs { cases }
    }
}

/// A graph, what it is fed, and how closely results must agree.
struct Made {
    model: Model,
    feeds: Vec<(String, Tensor)>,
    types: Vec<(ValueId, DType, usize)>,
    atol: f64,
    rtol: f64,
}

impl Made {
    fn add(&mut self, name: String, t: Tensor, known: bool) -> ValueId {
        let g = &mut self.model.graph;
        if known {
            return g.constant(name, t);
        }
        let v = g.input(name.clone(), Type::tensor(t.dtype(), t.dims().iter().copied()));
        self.types.push((v, t.dtype(), t.dims().len()));
        self.feeds.push((name, t));
        v
    }
}

impl Made {
    /// Whether some number is none, or so large that its square is.
    fn wild(&self) -> bool {
        let known = self
            .model
            .graph
            .values
            .iter()
            .filter_map(|v| Some(&v.konst.as_ref()?.tensor));
        let fed = self.feeds.iter().map(|(_, t)| t);
        let wild = |t: &Tensor| {
            t.floats()
                .is_some_and(|x| x.iter().any(|x| x.is_nan() || x.abs() > 1e18))
        };
        fed.chain(known.map(|t| &**t)).any(wild)
    }
}

impl Target for Graphs {
    fn attempt(&mut self, seed: u64, loud: bool) -> Found {
        let mut c = Chance::new(seed);
        let made = self.make(&mut c);
        if loud {
            std::fs::write("/tmp/fuzz.onnx", secateur_engine::onnx::to_bytes(&made.model)).unwrap();
            println!("{}\nwritten to /tmp/fuzz.onnx", made.model.graph_text());
            for (n, t) in &made.feeds {
                println!(
                    "{n}: {}{:?} {:?}",
                    t.dtype(),
                    t.dims(),
                    t.floats().map(|x| x[..x.len().min(12)].to_vec())
                );
            }
        }
        check(&made, &mut c, loud)
    }
}

trait Text {
    fn graph_text(&self) -> String;
}

impl Text for Model {
    fn graph_text(&self) -> String {
        let g = &self.graph;
        let name = |v: &Option<ValueId>| v.map_or("_".into(), |v| g[v].name.to_string());
        let list = |l: &[Option<ValueId>]| l.iter().map(name).collect::<Vec<_>>().join(", ");
        let attr = |a: &Attr| {
            format!(
                "{}={}",
                a.name,
                format!("{:?}", a.value).chars().take(80).collect::<String>()
            )
        };
        let nodes = g.iter().map(|(_, n)| {
            let attrs = n.attrs.iter().map(attr).collect::<Vec<_>>().join(" ");
            format!(
                "  {} = {}({}) {attrs}",
                list(&n.outputs),
                infer::full_name(n),
                list(&n.inputs)
            )
        });
        format!(
            "opset {:?}\n{}",
            self.opset(""),
            nodes.collect::<Vec<_>>().join("\n")
        )
    }
}

impl Graphs {
    fn make(&self, c: &mut Chance) -> Made {
        let (_, first) = c.pick(&self.cases);
        let opset = match c.below(4) {
            0 => 7 + c.below(21) as i64,
            _ => first.opset,
        };
        let import = |domain: &str, version| Opset {
            domain: (!domain.is_empty()).then(|| domain.into()),
            version: Some(version),
            extra: Default::default(),
        };
        let mut made = Made {
            model: Model {
                ir_version: Some(10),
                opsets: vec![
                    import("", opset),
                    import("ai.onnx.ml", 5),
                    import("com.microsoft", 1),
                    import("secateur", 1),
                ],
                ..Model::default()
            },
            feeds: vec![],
            types: vec![],
            atol: 1e-5,
            rtol: 1e-4,
        };
        let nodes = 1 + c.below(5);
        for i in 0..nodes {
            for _ in 0..6 {
                let (op, case) = c.pick(&self.cases);
                let fits = |made: &Made| {
                    let x = case.inputs.first().and_then(Option::as_ref);
                    x.map(|x| {
                        made.types
                            .iter()
                            .filter(|t| (t.1, t.2) == (x.dtype(), x.dims().len()))
                            .map(|t| t.0)
                            .collect::<Vec<_>>()
                    })
                };
                let old = fits(&made).unwrap_or_default();
                if i == 0 || !old.is_empty() || c.once_in(6) {
                    node(&mut made, *op, case, &old, i, c);
                    break;
                }
            }
        }
        made
    }
}

fn node(made: &mut Made, op: &'static dyn Op, case: &Case, old: &[ValueId], number: usize, c: &mut Chance) {
    let name = op.name();
    let reshape = c.once_in(4);
    let mut inputs = vec![];
    for (i, x) in case.inputs.iter().enumerate() {
        let Some(x) = x else {
            inputs.push(None);
            continue;
        };
        if i == 0 && !old.is_empty() {
            inputs.push(Some(*c.pick(old)));
            continue;
        }
        let mut dims = x.dims().to_vec();
        if reshape && (i == 0 || c.once_in(2)) {
            for d in &mut dims {
                if c.once_in(3) {
                    *d = *c.pick(&[0, 1, 2, 3, 5, 8]);
                }
            }
            if c.once_in(12) {
                dims.push(2);
            }
        }
        let values = c.once_in(6) || dims != x.dims();
        let t = match values {
            true => c.tensor(x.dtype(), &dims, x).unwrap_or_else(|| x.clone()),
            false => x.clone(),
        };
        let known = case.konst.contains(&i) != c.once_in(6);
        inputs.push(Some(made.add(format!("x{number}_{i}"), t, known)));
    }
    let g = &mut made.model.graph;
    let outputs: Vec<_> = (0..case.outputs)
        .map(|i| Some(g.value(format!("y{number}_{i}"))))
        .collect();
    let mut attrs = case.attrs.clone();
    if c.once_in(4) {
        perturb(&mut attrs, c);
    }
    let node = Node {
        domain: (!name.domain.is_empty()).then(|| name.domain.into()),
        name: Some(format!("n{number}").into()),
        attrs,
        ..Node::new(name.name, inputs, outputs.clone())
    };
    g.node(node);
    outputs.iter().flatten().for_each(|&v| g.output(v, None));
    made.atol = made.atol.max(case.atol * 4.0);
    made.rtol = made.rtol.max(case.rtol * 4.0);
    if let Ok(facts) = infer::infer(&made.model, &Default::default()) {
        for v in outputs.into_iter().flatten() {
            let ty = &facts.of(v).ty;
            if let (Some(d), Some(s)) = (ty.dtype(), ty.shape()) {
                made.types.push((v, d, s.len()));
            }
        }
    }
}

fn perturb(attrs: &mut Vec<Attr>, c: &mut Chance) {
    if attrs.is_empty() {
        let name = *c.pick(&["axis", "keepdims", "mode", "to", "nonsense"]);
        attrs.push(Attr::new(name, c.below(4) as i64 - 1));
        return;
    }
    let i = c.below(attrs.len());
    if c.once_in(5) {
        attrs.remove(i);
        return;
    }
    let number = |c: &mut Chance| match c.once_in(3) {
        true => c.odd(),
        false => c.below(7) as i64 - 2,
    };
    match &mut attrs[i].value {
        AttrValue::Int(x) => *x = Some(number(c)),
        AttrValue::Float(x) => *x = Some(*c.pick(&[0.0, -1.0, 0.5, 1e3, -2.0, 1e-3])),
        AttrValue::Ints(x) => match (c.below(3), x.is_empty()) {
            (0, _) => x.push(number(c)),
            (1, false) => drop(x.pop()),
            (_, false) => {
                let at = c.below(x.len());
                x[at] = number(c);
            }
            _ => {}
        },
        AttrValue::Floats(x) => x.push(0.5),
        AttrValue::Bytes(Some(x)) => x.push(b'x'),
        _ => {}
    }
}

fn run(made: &Made, model: &Model, reference: bool, threads: usize) -> Result<Vec<Datum>, String> {
    let builder = Session::builder(model).threads(threads).memory(MEMORY);
    let builder = if reference { builder.reference() } else { builder };
    let session = builder.build().map_err(|e| e.to_string())?;
    let known: Vec<String> = session.inputs().map(|(n, _)| n.to_owned()).collect();
    let feeds = made.feeds.iter().filter(|(n, _)| known.contains(n));
    let out = session
        .run(feeds.map(|(n, t)| (n, Feed::from(t))))
        .map_err(|e| e.to_string())?;
    Ok(out.values)
}

fn check(made: &Made, c: &mut Chance, loud: bool) -> Found {
    let want = run(made, &made.model, true, 1);
    let got = run(made, &made.model, false, 1 + c.below(2));
    let last = || {
        let names: Vec<String> = made
            .model
            .graph
            .iter()
            .map(|(_, n)| infer::full_name(n))
            .collect();
        names.join("+")
    };
    if loud {
        println!("reference: {want:?}\nengine: {got:?}");
    }
    let verdict = match (&want, &got) {
        (Err(_), Err(_)) => return Ok("refused"),
        (Ok(_), Err(e)) if e.contains("\"allowzero\"") => return Ok("refused"),
        (Ok(_), Err(e)) => {
            // Whole graphs are refused for what the interpreter never comes to.
            return Err((
                format!("engine refuses {}", first_word(e)),
                format!("{}: {e}", last()),
            ));
        }
        // What the optimiser drops, nobody reads the attributes of.
        (Err(e), Ok(_)) if e.contains("not understood") => return Ok("not understood"),
        // Numbers are larger while the interpreter is at work.
        (Err(e), Ok(_)) if e.contains("it works in") => return Ok("too large"),
        // A shape that a plan need not know is not looked at.
        (Err(e), Ok(_)) if e.contains("(Expand,") => return Ok("not looked at"),
        (Err(e), Ok(_)) => Err((
            format!("reference refuses {}", first_word(e)),
            format!("{}: {e}", last()),
        )),
        (Ok(want), Ok(got)) => match differ(want, got, made) {
            Some(what) => Err((format!("differs {}", last()), what)),
            None => Ok("same"),
        },
    };
    verdict?;
    let contrib = made
        .model
        .graph
        .iter()
        .any(|(_, n)| n.domain() == "com.microsoft");
    // Bodies of ONNX Runtime's operators are written in what there was with opset 14.
    let to = (7 + c.below(21) as i64).max(if contrib { 14 } else { 7 });
    let mut other = made.model.clone();
    if let (Ok(want), Ok(_)) = (&want, opt::convert(&mut other, "", to)) {
        let got = run(made, &other, false, 1);
        if loud {
            println!("converted to {to}:\n{}\n{got:?}", other.graph_text());
        }
        match got {
            Err(e) => {
                return Err((
                    format!("conversion refused {}", first_word(&e)),
                    format!("to {to}: {}: {e}", last()),
                ));
            }
            Ok(got) => {
                if let Some(what) = differ(want, &got, made) {
                    return Err((
                        format!("conversion differs {}", last()),
                        format!("to {to}: {what}"),
                    ));
                }
            }
        }
        return Ok("same, converted");
    }
    Ok("same")
}

/// The operator that an error speaks of.
fn first_word(e: &str) -> String {
    let op = e.split('(').nth(1).and_then(|e| e.split(',').next());
    let tail: String = e
        .rsplit(": ")
        .next()
        .unwrap_or(e)
        .chars()
        .filter(|c| !c.is_ascii_digit())
        .take(40)
        .collect();
    format!("{}: {tail}", op.unwrap_or("?"))
}

fn differ(want: &[Datum], got: &[Datum], made: &Made) -> Option<String> {
    want.iter().zip(got).enumerate().find_map(|(i, (w, g))| {
        let what = match (w, g) {
            (Datum::Tensor(w), Datum::Tensor(g)) => tensors(w, g, made)?,
            (w, g) if format!("{w:?}") == format!("{g:?}") => return None,
            (w, g) if w.ty() == g.ty() => return None,
            (w, g) => format!("{} and {}", w.ty(), g.ty()),
        };
        Some(format!("output {i}: {what}"))
    })
}

fn tensors(w: &Tensor, g: &Tensor, made: &Made) -> Option<String> {
    if (w.dtype(), w.dims()) != (g.dtype(), g.dims()) {
        return Some(format!(
            "{}{:?} and {}{:?}",
            w.dtype(),
            w.dims(),
            g.dtype(),
            g.dims()
        ));
    }
    let (Some(a), Some(b)) = (w.floats(), g.floats()) else {
        return (w != g).then(|| "other elements".into());
    };
    let rough = match w.dtype() {
        DType::F16 | DType::BF16 => 3e-2,
        d if d.bits() <= 8 && d.is_float() => 0.5,
        _ => 0.0,
    };
    let any = |parts: &[&str]| {
        let mut nodes = made.model.graph.iter();
        nodes.any(|(_, n)| parts.iter().any(|p| n.op.contains(p)))
    };
    let products = any(&["Conv", "Gemm", "MatMul", "Attention", "Quantize", "QLinear"]);
    // Scales follow from what is beyond all scales.
    if any(&["DynamicQuantize"]) && made.wild() {
        return None;
    }
    // What is rounded may fall to either side.
    let step = if w.dtype().is_int() && any(&["Quantize", "QLinear"]) {
        1.0
    } else {
        0.0
    };
    let scale = a
        .iter()
        .filter(|x| x.is_finite())
        .fold(0.0f64, |m, x| m.max(x.abs()));
    let close = |a: f64, b: f64| {
        a == b
            || (a.is_nan() && b.is_nan())
            // Zeros among weights are left out, whatever they would be multiplied by.
            || (products && !(a.is_finite() && b.is_finite()))
            || (a - b).abs() <= step
            || (a - b).abs() <= made.atol + (made.rtol + rough) * a.abs().max(b.abs()) + 1e-6 * scale
            // Near the end of a type's range one way may overflow and the other not.
            || (a.abs() > 1e4 && b.is_infinite()) || (b.abs() > 1e4 && a.is_infinite())
    };
    let at = a.iter().zip(&b).position(|(&a, &b)| !close(a, b))?;
    Some(format!(
        "element {at} of {}{:?}: {} and {}",
        w.dtype(),
        w.dims(),
        a[at],
        b[at]
    ))
}
