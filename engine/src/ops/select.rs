//! `Where`: one of two tensors at each place.

use super::binary::{broadcast_dims, candidate, follow, stretch};
use super::case::{floats, odd_floats};
use super::grad::{only, unless};
use super::{Case, Exs, Fact, Grads, Laws, NodeRef, Op, OpError, OpName, onnx, shape};
use crate::cpu::elementwise::pick;
use crate::cpu::walk::Walk;
use crate::cpu::{Candidate, Kernel};
use crate::ir::{Bytes, DType, Data, Dim, Tensor};

/// The elements of the second input where the first is true, else those of the third.
pub struct Where;

impl Op for Where {
    fn name(&self) -> OpName {
        onnx("Where")
    }

    fn since(&self) -> &'static [u16] {
        &[9, 16]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        if let Some(i) = (0..3).find(|&i| !n.has(i)) {
            return Err(OpError::new(format!(
                "input {i} is left out; expected three inputs"
            )));
        }
        let condition = n.dtype(0).filter(|&d| d != DType::Bool);
        if let Some(d) = condition {
            return Err(OpError::new(format!(
                "the condition is of type {d}; expected bool"
            )));
        }
        if let (Some(a), Some(b)) = (n.dtype(1), n.dtype(2))
            && a != b
        {
            return Err(OpError::new(format!(
                "the choices are of types {a} and {b}; expected one type"
            )));
        }
        let fact = Fact::tensor(n.dtype(1).or(n.dtype(2)), shape::broadcast_all(n)?);
        let choose = |x: &[&Dim]| match x[0] {
            Dim::Known(0) => x[2].clone(),
            Dim::Known(_) => x[1].clone(),
            _ if x[1].same(x[2]) => x[1].clone(),
            _ => Dim::Unknown,
        };
        Ok(vec![follow(n, fact, choose)])
    }

    fn laws(&self) -> Laws {
        Laws {
            elementwise: true,
            in_place: &[1, 2],
            ..Laws::default()
        }
    }

    fn eval(&self, _: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let &[Some(c), Some(a), Some(b)] = x else {
            return Err(OpError::new("expected three inputs"));
        };
        let out = broadcast_dims(&broadcast_dims(c.dims(), a.dims())?, b.dims())?;
        let truths = c.truths();
        let truths = truths.ok_or_else(|| OpError::new("the condition is no tensor of truth values"))?;
        let (ic, ia, ib) = (
            stretch(c.dims(), &out),
            stretch(a.dims(), &out),
            stretch(b.dims(), &out),
        );
        let data = match (a.dtype(), b.dtype()) {
            (DType::String, DType::String) => {
                let (a, b) = (a.strings(), b.strings());
                let choose = |i: usize| if truths[ic[i]] { &a[ia[i]] } else { &b[ib[i]] };
                Data::Strings((0..ic.len()).map(|i| choose(i).clone()).collect())
            }
            (d, e) if d == e && d.bits() >= 8 => {
                let size = d.bits() / 8;
                let (a, b) = (a.bytes(), b.bytes());
                let choose = |i: usize| {
                    if truths[ic[i]] {
                        &a[ia[i] * size..][..size]
                    } else {
                        &b[ib[i] * size..][..size]
                    }
                };
                Data::Bytes(Bytes::new(
                    (0..ic.len())
                        .flat_map(|i| choose(i).to_vec())
                        .collect::<Vec<u8>>(),
                ))
            }
            (d, e) => return Err(OpError::new(format!("cannot choose between {d} and {e}"))),
        };
        let y = Tensor::new(a.dtype(), out, data);
        Ok(vec![y.map_err(|e| OpError::new(e.to_string()))?])
    }

    fn vjp<'a>(&self, _: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let (there, dy) = (x[0]?, dy[0]?);
        Some(vec![None, Some(only(there, dy)), Some(unless(there, dy))])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        kernel(n).into_iter().map(|k| candidate(n, "", k)).collect()
    }

    fn cases(&self) -> Vec<Case> {
        let bools = |dims: &[usize]| {
            let n: usize = dims.iter().product();
            Tensor::bools(dims, (0..n).map(|i| i * i % 3 == 1))
        };
        let ints = |dims: &[usize], k| {
            let n: usize = dims.iter().product();
            Tensor::of::<i64>(dims, (0..n as i64).map(|i| i * k - 7).collect())
        };
        let few = |dtype, k: f64| Tensor::rounded(dtype, &[3], &[k, k + 1.0, k + 2.0]);
        let mut all = vec![
            Case::new("plain", [bools(&[37]), odd_floats(&[37], 1), floats(&[37], 2)]),
            Case::new(
                "mask",
                [bools(&[2, 1, 1, 9]), floats(&[2, 3, 9, 9], 1), floats(&[1], 2)],
            ),
            Case::new(
                "scalar first",
                [bools(&[2, 9]), floats(&[], 1), floats(&[2, 9], 2)],
            ),
            Case::new(
                "all broadcast",
                [bools(&[4, 1]), floats(&[5], 1), floats(&[3, 1, 1], 2)],
            ),
            Case::new(
                "one condition",
                [bools(&[1]), floats(&[5], 1), floats(&[3, 5], 2)],
            ),
            Case::new(
                "another condition",
                [Tensor::bools(&[], [true]), floats(&[5], 1), floats(&[1], 2)],
            ),
            Case::new("nothing", [bools(&[0, 1]), floats(&[5], 1), floats(&[1], 2)]),
            Case::new("shape", [bools(&[4]), ints(&[4], 3), ints(&[1], 1)]),
            Case::new("truth values", [bools(&[9]), bools(&[9]), bools(&[1])]),
        ];
        for dtype in [DType::U8, DType::F16, DType::F64, DType::I32] {
            let pair = few(dtype, 3.0).zip(few(dtype, 9.0));
            all.extend(pair.map(|(a, b)| Case::new("other types", [bools(&[3]), a, b])));
        }
        all
    }
}

fn kernel(n: &NodeRef) -> Option<Box<dyn Kernel>> {
    let (c, a, b) = (n.dims(0)?, n.dims(1)?, n.dims(2)?);
    let walk = Walk::new(&n.out_dims(0)?, [&c, &a, &b])?;
    Some(match n.dtype(1)?.bits() {
        8 => pick::<u8>(walk),
        16 => pick::<u16>(walk),
        32 => pick::<u32>(walk),
        64 => pick::<u64>(walk),
        128 => pick::<u128>(walk),
        _ => return None,
    })
}
