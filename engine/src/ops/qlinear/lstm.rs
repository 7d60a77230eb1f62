//! `DynamicQuantizeLSTM`.

use super::{Composite, cases};
use crate::expr::{Call, Ex};
use crate::ir::{Attr, DType, Dim, Shape, Tensor};
use crate::ops::{Fact, NodeRef, OpError};

/// `LSTM` with weights of bytes `[directions, input, 4·hidden]` and `[directions, hidden, 4·hidden]`, one scale for each
/// direction or for each of its columns. Inputs and states are rounded to bytes as ONNX Runtime does it on one thread; on more it
/// may give each thread's sequences a range of their own.
pub static LSTM: Composite = Composite {
    name: "DynamicQuantizeLSTM",
    inputs: (12, 12),
    infer,
    body,
    cases: cases::lstm,
};

fn infer(n: &NodeRef) -> Result<Vec<Fact>, OpError> {
    n.ignore(&[
        "activations",
        "activation_alpha",
        "activation_beta",
        "clip",
        "input_forget",
    ]);
    let directions = match n.str_or("direction", "forward")? {
        "forward" | "reverse" => 1usize,
        "bidirectional" => 2,
        other => return Err(OpError::new(format!("direction {other:?} is unknown"))),
    };
    let hidden = n.int("hidden_size")?.and_then(|h| usize::try_from(h).ok());
    let hidden =
        hidden.ok_or_else(|| OpError::new("attribute \"hidden_size\": expected a positive number"))?;
    for (i, rank) in [(0, 3), (1, 3), (2, 3)] {
        if n.rank(i).is_some_and(|r| r != rank) {
            return Err(OpError::new(format!("input {i}: expected rank {rank}")));
        }
    }
    let at = |axis: usize| n.shape(0).map_or(Dim::Unknown, |s| s[axis].clone());
    let tail: Shape = vec![Dim::from(directions), at(1), Dim::from(hidden)];
    let y = std::iter::once(at(0)).chain(tail.iter().cloned()).collect();
    let state = Fact::tensor(n.dtype(0), Some(tail));
    Ok(vec![Fact::tensor(n.dtype(0), Some(y)), state.clone(), state])
}

/// How far weights of bytes lie from their zero point, as `LSTM` wants them: `[directions, 4·hidden, input]`.
fn weights<'a>(n: &NodeRef, x: &[Ex<'a>], [w, zero]: [usize; 2]) -> Option<Ex<'a>> {
    let float = |x: Ex<'a>| x.with("Cast", &[], vec![Attr::new("to", i64::from(DType::F32.code()))]);
    let spread = |x: Ex<'a>| {
        let shape = match n.rank(zero)? {
            1 => vec![-1i64, 1, 1],
            2 => vec![0, 1, -1],
            _ => return None,
        };
        Some(x.op("Reshape", &[x.tensor(Tensor::of(&[3], shape))]))
    };
    let centred = match n.has(zero) {
        true => float(x[w]) - spread(float(x[zero]))?,
        false => float(x[w]),
    };
    Some(centred.with("Transpose", &[], vec![Attr::new("perm", vec![0i64, 2, 1])]))
}

fn body<'a>(n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
    let (w, r) = (weights(n, x, [1, 9])?, weights(n, x, [2, 11])?);
    let rest = (3..8).map(|i| n.has(i).then(|| x[i].id));
    let inputs: Vec<_> = [Some(x[0].id), Some(w.id), Some(r.id)]
        .into_iter()
        .chain(rest)
        .chain([Some(x[8].id), Some(x[10].id)])
        .collect();
    let call = Call {
        domain: "secateur",
        op: "RoundedLSTM",
        inputs: &inputs,
        attrs: n.node().attrs.clone(),
        outputs: 3,
    };
    Some(x[0].call(call))
}
