//! `secateur.Elementwise`: many steps element by element as one operator.

use super::binary::traffic;
use super::case::{floats, odd_floats, tame_floats};
use super::{Axes, Case, Fact, Laws, NodeRef, Op, OpError, OpName, private, shape};
use crate::cpu::program::{Code, Program, Step};
use crate::cpu::{Candidate, Cost};
use crate::expr::Ex;
use crate::ir::{Attr, DType, Tensor, count};

/// The most inputs there can be.
pub(crate) const INPUTS: usize = 24;

/// The steps `ops`, names of operators, on floats and truth values that are broadcast.
///
/// `args` are the operands of all steps one after the other: a number below that of the inputs is an input, and what is above that
/// the result of a step. `results` are the steps whose results are the outputs; all have the shape that the inputs broadcast to.
/// [A pass](crate::opt::ready) makes it of nodes that are connected, so that what only they read is never in memory.
pub struct Elementwise;

/// The attributes.
pub(crate) struct Formula {
    pub(crate) steps: Vec<Step>,
    /// The steps whose results are outputs.
    pub(crate) results: Vec<usize>,
}

/// The step of an operator of this name.
pub(crate) fn code(name: &str) -> Option<Code> {
    Code::ALL.iter().copied().find(|c| c.name() == name)
}

/// Whether a step makes truth values.
pub(crate) fn asks(code: Code) -> bool {
    use Code::*;
    matches!(
        code,
        And | Equal | Greater | GreaterOrEqual | Less | LessOrEqual | Not | Or
    )
}

impl Formula {
    /// The attributes that say it.
    pub(crate) fn attrs(&self) -> Vec<Attr> {
        let ops: Vec<_> = self
            .steps
            .iter()
            .map(|s| s.code.name().as_bytes().to_vec())
            .collect();
        let args = self.steps.iter().flat_map(|s| &s.args[..s.code.arity()]);
        let args: Vec<_> = args.map(|&v| v as i64).collect();
        let results: Vec<_> = self.results.iter().map(|&s| s as i64).collect();
        vec![
            Attr::new("ops", crate::ir::AttrValue::Strings(ops)),
            Attr::new("args", args),
            Attr::new("results", results),
        ]
    }

    fn of(n: &NodeRef) -> Result<Formula, OpError> {
        let wrong = || OpError::new("attributes \"ops\", \"args\" and \"results\" do not go together");
        let (ops, args, results) = (n.strings("ops")?, n.ints("args")?, n.ints("results")?);
        let mut args = args.unwrap_or_default().iter();
        let mut steps = vec![];
        for (i, name) in ops.unwrap_or_default().iter().enumerate() {
            let code = std::str::from_utf8(name).ok().and_then(code).ok_or_else(wrong)?;
            let mut step = Step { code, args: [0; 3] };
            for to in &mut step.args[..code.arity()] {
                let v = args.next().and_then(|&v| usize::try_from(v).ok());
                *to = v.filter(|v| *v < n.arity() + i).ok_or_else(wrong)?;
            }
            steps.push(step);
        }
        let result = |&s: &i64| usize::try_from(s).ok().filter(|s| *s < steps.len());
        let results = results
            .unwrap_or_default()
            .iter()
            .map(result)
            .collect::<Option<Vec<_>>>();
        let results = results.ok_or_else(wrong)?;
        let doubled = (1..results.len()).any(|i| results[..i].contains(&results[i]));
        if doubled || results.is_empty() || args.next().is_some() {
            return Err(wrong());
        }
        if n.arity() > INPUTS || (0..n.arity()).any(|i| !n.has(i)) {
            return Err(OpError::new(format!(
                "expected at most {INPUTS} inputs, all there"
            )));
        }
        Ok(Formula { steps, results })
    }

    /// Whether value `v` of a node with `inputs` inputs is a truth value, of which `truths` tells those among the inputs.
    fn is_truth(&self, v: usize, inputs: usize, truth: &dyn Fn(usize) -> bool) -> bool {
        match v.checked_sub(inputs) {
            None => truth(v),
            Some(s) => asks(self.steps[s].code),
        }
    }
}

impl Op for Elementwise {
    fn name(&self) -> OpName {
        private("Elementwise")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        let formula = Formula::of(n)?;
        let outputs = &n.node().outputs;
        if outputs.len() != formula.results.len() || outputs.contains(&None) {
            return Err(OpError::new(format!(
                "expected {} outputs, all there",
                formula.results.len()
            )));
        }
        let odd = |i: &usize| {
            n.dtype(*i)
                .is_some_and(|d| !matches!(d, DType::F32 | DType::Bool))
        };
        if let Some(i) = (0..n.arity()).find(odd) {
            return Err(OpError::new(format!(
                "input {i}: expected floats or truth values"
            )));
        }
        let shape = shape::broadcast_all(n)?;
        let dtype = |&s: &usize| match asks(formula.steps[s].code) {
            true => DType::Bool,
            false => DType::F32,
        };
        let fact = |s| Fact::tensor(Some(dtype(s)), shape.clone());
        Ok(formula.results.iter().map(fact).collect())
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        shape::aligned(n)
    }

    fn laws(&self) -> Laws {
        Laws {
            in_place: const { &places() },
            elementwise: true,
            ..Laws::default()
        }
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let formula = Formula::of(n).ok()?;
        let mut values = x.to_vec();
        for Step { code, args } in &formula.steps {
            let x: Vec<_> = args[..code.arity()].iter().map(|&v| values[v]).collect();
            values.push(match (code, &x[..]) {
                (Code::Lerp, &[share, a, b]) => share * a + (share.constant(1.0) - share) * b,
                (Code::Cast, &[x]) => {
                    x.with("Cast", &[], vec![Attr::new("to", i64::from(DType::F32.code()))])
                }
                _ => x[0].op(code.name(), &x[1..]),
            });
        }
        let inputs = x.len();
        Some(formula.results.iter().map(|&s| values[inputs + s]).collect())
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        kernel(n).into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        cases()
    }
}

const fn places() -> [usize; INPUTS] {
    let mut all = [0; INPUTS];
    let mut i = 0;
    while i < INPUTS {
        all[i] = i;
        i += 1;
    }
    all
}

fn kernel(n: &NodeRef) -> Option<Candidate> {
    let formula = Formula::of(n).ok()?;
    let truth = |i: usize| n.dtype(i) == Some(DType::Bool);
    let inputs = (0..n.arity()).map(|i| Some((n.dims(i)?, truth(i))));
    let inputs: Vec<_> = inputs.collect::<Option<_>>()?;
    let dims = n.out_dims(0)?;
    let results = formula.results.iter();
    let results: Vec<_> = results
        .map(|&s| (s, formula.is_truth(n.arity() + s, n.arity(), &truth)))
        .collect();
    let program = Program::new(&dims, &inputs, &formula.steps, &results)?;
    let weight: f64 = formula.steps.iter().map(|s| s.code.weight()).sum();
    let cost = Cost {
        flops: weight * count(&dims)? as f64,
        efficiency: 0.15,
        ..traffic(n)
    };
    let name = format!("elementwise.f32.{}", secateur_simd::isa());
    Some(Candidate::new(name, cost, program))
}

/// A case of the steps `ops`, each a name and its operands.
fn case(name: &'static str, inputs: Vec<Tensor>, ops: &[(&str, &[usize])], results: &[usize]) -> Case {
    let step = |(name, from): &(&str, &[usize])| {
        let mut args = [0; 3];
        args[..from.len()].copy_from_slice(from);
        Some(Step {
            code: code(name)?,
            args,
        })
    };
    let steps = ops.iter().filter_map(step).collect();
    let results = results.to_vec();
    let outputs = results.len();
    let attrs = Formula { steps, results }.attrs();
    Case {
        attrs,
        ..Case::new(name, inputs).outputs(outputs).within(1e-5, 1e-5)
    }
}

fn cases() -> Vec<Case> {
    let adam: &[(&str, &[usize])] = &[
        ("Lerp", &[4, 2, 1]),
        ("Mul", &[1, 1]),
        ("Lerp", &[5, 3, 7]),
        ("Abs", &[8]),
        ("Sqrt", &[9]),
        ("Add", &[10, 5]),
        ("Div", &[6, 11]),
        ("Sub", &[0, 12]),
    ];
    let unary = [
        "Abs", "Cast", "Ceil", "Erf", "Exp", "Floor", "Gelu", "Neg", "Relu", "Round", "Sigmoid", "Tanh",
    ];
    let binary = ["Add", "Div", "Max", "Min", "Mul", "Sub"];
    let asked = ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"];
    let mut all = vec![];
    for dims in [&[0, 5][..], &[1], &[3, 7], &[16], &[5, 700], &[2, 3, 4133]] {
        let x = (1..5).map(|seed| floats(dims, seed));
        let x = x.chain([floats(&[], 5), Tensor::scalar(0.25f32)]).collect();
        all.push(case("a step of Adam", x, adam, &[2, 0, 7]));
    }
    for dims in [
        &[][..],
        &[4],
        &[3, 1],
        &[5, 1, 4],
        &[2, 1, 1, 1],
        &[1, 5, 1, 1],
        &[2, 5, 3, 4],
    ] {
        let x = vec![tame_floats(&[2, 5, 3, 4], 1), floats(dims, 2)];
        all.push(case("broadcast", x, &[("Mul", &[0, 1]), ("Add", &[2, 1])], &[1]));
    }
    let both = vec![floats(&[900, 1], 1), floats(&[7], 2), floats(&[900, 7], 3)];
    all.push(case(
        "rows and columns",
        both,
        &[("Mul", &[0, 1]), ("Sub", &[3, 2])],
        &[1],
    ));
    let none = vec![floats(&[2, 5, 0], 1), floats(&[5, 1], 2)];
    all.push(case(
        "nothing to be broadcast to",
        none,
        &[("Mul", &[0, 1]), ("Add", &[2, 1])],
        &[1],
    ));
    let mask = Tensor::bools(&[4, 9], (0..36).map(|i| i % 3 == 0));
    let x = vec![mask, floats(&[4, 9], 1), floats(&[9], 2)];
    let logic: &[(&str, &[usize])] = &[
        ("Not", &[0]),
        ("Less", &[1, 2]),
        ("Or", &[3, 4]),
        ("And", &[5, 0]),
        ("Where", &[6, 1, 2]),
        ("Cast", &[3]),
    ];
    all.push(case("truth values", x, logic, &[4, 3, 1, 5]));
    for op in unary {
        all.push(case(
            op,
            vec![tame_floats(&[5, 15], 1)],
            &[(op, &[0]), ("Neg", &[1])],
            &[1],
        ));
    }
    for op in binary {
        let x = vec![tame_floats(&[5, 15], 1), floats(&[5, 15], 2)];
        all.push(case(op, x, &[(op, &[0, 1]), ("Neg", &[2])], &[1]));
    }
    for op in asked {
        let x = vec![odd_floats(&[5, 15], 1), odd_floats(&[15], 2)];
        all.push(case(op, x, &[(op, &[0, 1]), ("Where", &[2, 0, 1])], &[0, 1]));
    }
    let roots = vec![Tensor::of(&[4], vec![0.5f32, 2.0, 9.0, f32::INFINITY])];
    all.push(case(
        "roots",
        roots,
        &[("Sqrt", &[0]), ("Reciprocal", &[1]), ("Log", &[0])],
        &[1, 2],
    ));
    let x = vec![odd_floats(&[30], 1), Tensor::scalar(-1f32), Tensor::scalar(2f32)];
    all.push(case("bounds", x, &[("Clip", &[0, 1, 2]), ("Neg", &[3])], &[1]));
    all
}
