//! ONNX `Range`: numbers at equal distances.

use super::pick::{given, room};
use super::shape::{arity, ranked, same_dtype, with_data};
use super::{Axes, Case, Fact, NodeRef, Op, OpError, OpName, onnx};
use crate::cpu::moves::{chunks, short};
use crate::cpu::{Candidate, Cost, Io, Pool, View};
use crate::ir::small::{to_bf16, to_f16};
use crate::ir::{DType, Dim, Element, Tensor};

/// ONNX `Range`.
pub struct Range;

fn step_of_zero() -> OpError {
    OpError::new("delta is 0")
}

/// The number of elements, from `[start, limit, delta]`.
fn length(x: [&Tensor; 3]) -> Result<i64, OpError> {
    let scalar = || OpError::new("start, limit and delta must be single numbers");
    if let [Some(start), Some(limit), Some(delta)] =
        x.map(|t| t.ints().filter(|i| i.len() == 1).map(|i| i[0]))
    {
        let [start, limit, delta] = [start, limit, delta].map(i128::from);
        if delta == 0 {
            return Err(step_of_zero());
        }
        let distance = (limit - start) * delta.signum();
        let count = (distance + delta.abs() - 1) / delta.abs();
        return Ok(i64::try_from(count.max(0)).unwrap_or(i64::MAX));
    }
    let [Some(start), Some(limit), Some(delta)] = x.map(Tensor::item) else {
        return Err(scalar());
    };
    if delta == 0.0 {
        return Err(step_of_zero());
    }
    // The distance is rounded to the element type, as other engines do it.
    let distance = Tensor::rounded(x[0].dtype(), &[], &[limit - start]);
    let distance = distance.and_then(|d| d.item()).ok_or_else(scalar)?;
    Ok((distance / delta).ceil().max(0.0) as i64)
}

/// The number of elements, as far as it follows from the elements of the inputs.
fn followed(n: &NodeRef) -> Result<Dim, OpError> {
    if let (Some(start), Some(limit), Some(delta)) = (n.konst(0), n.konst(1), n.konst(2)) {
        return Ok(Dim::Known(length([start, limit, delta])?));
    }
    let one = |i| n.data(i).filter(|d| d.len() == 1).map(|mut d| d.remove(0));
    let (Some(start), Some(limit), Some(Dim::Known(delta))) = (one(0), one(1), one(2)) else {
        return Ok(Dim::Unknown);
    };
    let distance = match delta {
        0 => return Err(step_of_zero()),
        1.. => limit - start,
        _ => start - limit,
    };
    let count = distance.ceil_div(&Dim::Known(delta.saturating_abs()));
    Ok(count.known().map_or(count, |c| Dim::Known(c.max(0))))
}

macro_rules! types {
    ($($t:ident $d:ident $one:ident),*) => {
        /// The kernel for the element type, if there is one.
        fn kernel(dtype: DType) -> Option<fn(&Pool, [View; 2], &mut crate::cpu::ViewMut)> {
            Some(match dtype {
                $(DType::$d => |pool, [start, delta], y| {
                    write::<$t>(pool, [start.slice()[0], delta.slice()[0]], y.slice(), $one);
                },)*
                _ => return None,
            })
        }
    };
}
use half::{bf16, f16};
types!(f32 F32 float, f64 F64 double, f16 F16 half_float, bf16 BF16 brain, i16 I16 short_int, i32 I32 int, i64 I64 long);

fn float([start, delta]: [f32; 2], i: usize) -> f32 {
    (f64::from(start) + f64::from(delta) * i as f64) as f32
}

fn double([start, delta]: [f64; 2], i: usize) -> f64 {
    start + delta * i as f64
}

fn half_float([start, delta]: [f16; 2], i: usize) -> f16 {
    to_f16(start.to_f64() + delta.to_f64() * i as f64)
}

fn brain([start, delta]: [bf16; 2], i: usize) -> bf16 {
    to_bf16(start.to_f64() + delta.to_f64() * i as f64)
}

fn short_int([start, delta]: [i16; 2], i: usize) -> i16 {
    start.wrapping_add(delta.wrapping_mul(i as i16))
}

fn int([start, delta]: [i32; 2], i: usize) -> i32 {
    start.wrapping_add(delta.wrapping_mul(i as i32))
}

fn long([start, delta]: [i64; 2], i: usize) -> i64 {
    start.wrapping_add(delta.wrapping_mul(i as i64))
}

fn write<T: Element>(pool: &Pool, from: [T; 2], y: &mut [T], one: impl Fn([T; 2], usize) -> T + Sync) {
    const PART: usize = 16 << 10;
    chunks(pool, y, PART, &|part, y| {
        for (i, y) in y.iter_mut().enumerate() {
            *y = one(from, part * PART + i);
        }
    });
}

impl Op for Range {
    fn name(&self) -> OpName {
        onnx("Range")
    }

    fn since(&self) -> &'static [u16] {
        &[11, 27]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 3, 3)?;
        same_dtype(n)?;
        for i in 0..3 {
            if n.rank(i).is_some_and(|r| r > 1) {
                ranked(n, i, 0)?;
            }
        }
        // Sums are formed in double precision whatever it says.
        n.ignore(&["stash_type"]);
        let dtype = (0..3).find_map(|i| n.dtype(i));
        let count = followed(n)?;
        let data = match (count.size(), n.data(0), n.ints_in(2)) {
            (Some(count @ ..=64), Some(start), Some(delta)) if !start.is_empty() && !delta.is_empty() => {
                let at = |i: usize| start[0].clone() + Dim::from(i) * Dim::Known(delta[0]);
                Some((0..count).map(at).collect())
            }
            _ => None,
        };
        Ok(vec![with_data(Fact::tensor(dtype, Some(vec![count])), data)])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn eval(&self, _: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let [start, limit, delta] = [given(x, 0)?, given(x, 1)?, given(x, 2)?];
        let count = usize::try_from(length([start, limit, delta])?).ok();
        let dtype = start.dtype();
        let y = match (start.ints(), delta.ints()) {
            (Some(start), Some(delta)) => {
                let mut ints: Vec<i64> = room(count)?;
                ints.extend((0..count.unwrap_or(0) as i64).map(|i| start[0] + i * delta[0]));
                match dtype {
                    DType::I64 => Some(Tensor::of(&[ints.len()], ints)),
                    _ => {
                        let wide: Vec<_> = ints.iter().map(|&i| i as f64).collect();
                        Tensor::rounded(dtype, &[wide.len()], &wide)
                    }
                }
            }
            _ => {
                let (start, delta) = (start.item().unwrap_or(0.0), delta.item().unwrap_or(0.0));
                let mut all: Vec<f64> = room(count)?;
                all.extend((0..count.unwrap_or(0)).map(|i| start + i as f64 * delta));
                Tensor::rounded(dtype, &[all.len()], &all)
            }
        };
        Ok(vec![y.ok_or_else(|| {
            OpError::new(format!("a range of type {dtype}"))
        })?])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let (Some(dtype), Some(dims)) = (n.dtype(0), n.out_dims(0)) else {
            return vec![];
        };
        let Some(kernel) = kernel(dtype) else {
            return vec![];
        };
        let run = move |io: &mut Io| {
            let ends = [io.input(0), io.input(2)];
            let pool = io.pool;
            kernel(pool, ends, io.output(0));
            Ok(())
        };
        let bytes = dims[0].saturating_mul(dtype.bits() / 8);
        vec![Candidate::new(
            format!("range.{}", short(dtype)),
            Cost::bytes(bytes),
            run,
        )]
    }

    fn cases(&self) -> Vec<Case> {
        fn of<T: Element>(name: &'static str, x: [T; 3]) -> Case {
            Case::new(name, x.map(Tensor::scalar))
        }
        vec![
            of("up", [3i64, 20, 4]).konst(&[0, 1, 2]),
            of("down", [10i32, -7, -3]),
            of("nothing", [5i64, 5, 1]).konst(&[0, 1, 2]),
            of("nothing upwards", [5i16, 2, 1]),
            of("floats", [0.1f32, 1.0, 0.3]).opset(11),
            of("doubles", [1f64, -1.0, -0.25]),
            of("halves", [0.5, 3.0, 0.3].map(f16::from_f64)).attr("stash_type", 1i64),
            of("many", [0f32, 40000.0, 0.5]),
        ]
    }
}
