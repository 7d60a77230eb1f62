//! ONNX `Attention`: queries choose among values by their likeness to keys.

mod body;
mod cases;
pub mod conv;
mod cpu;
pub mod flex;
pub mod group;
mod heads;
pub mod linear;
pub mod multi;
pub mod rotary;
pub mod scatter;
pub mod spread;

use super::shape::{arity, ranked};
use super::{Axes, Case, Fact, NodeRef, Op, OpError, OpName, onnx};
use crate::cpu::Candidate;
use crate::expr::Ex;
use crate::ir::DType;
use heads::{Known, Sizes, agree, heads, past};

/// `softmax(scale Q K^T + mask) V`, head by head.
///
/// A query that may see no key gets zeros, as PyTorch and ONNX Runtime have it.
pub struct Attention;

/// What the attributes say.
#[derive(Clone, Copy, Debug)]
struct Options {
    /// What scores are multiplied by; `None` for one over the root of the size of a head.
    scale: Option<f32>,
    /// Where scores are softly cut off; 0 for nowhere.
    softcap: f32,
    /// Whether a query sees only the keys up to its own place.
    causal: bool,
    /// What the last output is.
    mode: i64,
    /// The type in which the softmax is computed.
    precision: Option<DType>,
}

impl Options {
    fn of(n: &NodeRef) -> Result<Options, OpError> {
        let mode = n.int_or("qk_matmul_output_mode", 0)?;
        if !(0..4).contains(&mode) {
            return Err(OpError::new(format!(
                "attribute \"qk_matmul_output_mode\": expected 0 to 3, found {mode}"
            )));
        }
        Ok(Options {
            scale: n.float("scale")?,
            softcap: n.float_or("softcap", 0.0)?,
            causal: n.int_or("is_causal", 0)? != 0,
            mode,
            precision: precision(n)?,
        })
    }

    /// What scores of keys of `depth` numbers are multiplied by.
    fn scale(&self, depth: usize) -> f64 {
        match self.scale {
            Some(scale) => scale.into(),
            None => 1.0 / (depth.max(1) as f64).sqrt(),
        }
    }
}

/// The attribute `softmax_precision`.
fn precision(n: &NodeRef) -> Result<Option<DType>, OpError> {
    let Some(code) = n.int("softmax_precision")?.filter(|&code| code != 0) else {
        return Ok(None);
    };
    let dtype = i32::try_from(code).map(DType::from_code).ok();
    dtype
        .filter(|d| matches!(d, DType::F32 | DType::F64 | DType::F16 | DType::BF16))
        .map(Some)
        .ok_or_else(|| {
            OpError::new(format!(
                "attribute \"softmax_precision\": expected a float type, found {code}"
            ))
        })
}

/// Refuses an input that is no float.
fn floats(n: &NodeRef, inputs: impl IntoIterator<Item = usize>) -> Result<(), OpError> {
    for i in inputs {
        if let Some(d) = n.dtype(i).filter(|d| !d.is_float()) {
            return Err(OpError::new(format!("input {i} is of type {d}; expected floats")));
        }
    }
    Ok(())
}

/// What is known of the shapes.
fn known(n: &NodeRef) -> Result<Option<Known>, OpError> {
    let (many, few) = (n.int("q_num_heads")?, n.int("kv_num_heads")?);
    let (q, k, v) = (heads(n, 0, many)?, heads(n, 1, few)?, heads(n, 2, few)?);
    if n.has(4) != n.has(5) {
        return Err(OpError::new("past keys and values: one is missing"));
    }
    let past = past(n, 4)?;
    let (Some(q), Some(k), Some(v)) = (q, k, v) else {
        return Ok(None);
    };
    let ranks = [0, 1, 2].map(|i| n.rank(i));
    if ranks[1..].iter().any(|r| *r != ranks[0]) {
        return Err(OpError::new("queries, keys and values differ in rank"));
    }
    let known = Known::new(q, k, v, past, ranks[0] == Some(3))?;
    known.takes(n, 3)?;
    known.follows(n, [4, 5])?;
    if let Some(s) = ranked(n, 6, 1)? {
        agree("sequences and lengths", &known.q.batch, &s[0])?;
    }
    Ok(Some(known))
}

fn sizes(n: &NodeRef) -> Option<Sizes> {
    known(n).ok()??.sizes()
}

impl Op for Attention {
    fn name(&self) -> OpName {
        onnx("Attention")
    }

    fn since(&self) -> &'static [u16] {
        &[23, 24]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 3, 7)?;
        floats(n, [0, 1, 2, 4, 5])?;
        if let Some(d) = n.dtype(6).filter(|d| *d != DType::I64) {
            return Err(OpError::new(format!("input 6 is of type {d}; expected int64")));
        }
        Options::of(n)?;
        let known = known(n)?;
        let [k, v, scores] = match &known {
            Some(known) => known.states().map(Some),
            None => [None, None, None],
        };
        let types = [n.dtype(0), n.dtype(1), n.dtype(2)];
        Ok(vec![
            Fact::tensor(types[0], known.map(|k| k.output())),
            Fact::tensor(types[1], k),
            Fact::tensor(types[2], v),
            Fact::tensor(types[0], scores),
        ])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        body::attention(n, x)
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        cpu::attention(n)
    }

    fn cases(&self) -> Vec<Case> {
        cases::all()
    }
}
