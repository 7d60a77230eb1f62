//! `FusedConv` of ONNX Runtime.

use super::{axes, cases, cpu, infer};
use crate::cpu::{Act, Candidate};
use crate::expr::{Call, Ex};
use crate::ops::matmul::fits;
use crate::ops::{Axes, Case, Fact, NodeRef, Op, OpError, OpName, microsoft};

/// `activation(Conv(X, W, B) + Z)`; `Z` (input 3) may be left out.
pub struct FusedConv;

/// The activation and its parameters, defaults of the operator where they are left out.
fn activation(n: &NodeRef) -> Result<Act, OpError> {
    let op = n.str_or("activation", "")?;
    let params = n.floats("activation_params")?.unwrap_or(&[]);
    let default: &[f32] = match op {
        "LeakyRelu" => &[0.01],
        "HardSigmoid" => &[0.2, 0.5],
        "Clip" => &[f32::MIN, f32::MAX],
        "Elu" | "Swish" => &[1.0],
        _ => &[],
    };
    let params = if params.is_empty() { default } else { params };
    match Act::named(op, params) {
        Some(act) => Ok(act),
        None if op.is_empty() => Ok(Act::None),
        None => Err(OpError::new(format!(
            "{op:?} with {} parameters is no activation",
            params.len()
        ))),
    }
}

impl Op for FusedConv {
    fn name(&self) -> OpName {
        microsoft("FusedConv")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        let facts = infer(n)?;
        activation(n)?;
        fits(n, 3, &facts[0])?;
        Ok(facts)
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        axes(n)
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let own = ["activation", "activation_params"];
        let attrs = n.node().attrs.iter().filter(|a| !own.contains(&&*a.name));
        let there = x.iter().take(3).enumerate();
        let inputs: Vec<_> = there.map(|(i, x)| n.has(i).then_some(x.id)).collect();
        let call = Call {
            domain: "",
            op: "Conv",
            inputs: &inputs,
            attrs: attrs.cloned().collect(),
            outputs: 1,
        };
        let sums = *x.first()?.call(call).first()?;
        let sum = x.get(3).filter(|_| n.has(3)).map_or(sums, |&z| sums + z);
        Some(vec![activation(n).ok()?.body(sum)])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        activation(n).map_or(vec![], |act| cpu::candidates(n, act.into()))
    }

    fn cases(&self) -> Vec<Case> {
        cases::runtime()
    }
}
