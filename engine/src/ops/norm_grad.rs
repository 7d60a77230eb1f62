//! `secateur.LayerNormalizationGrad`: the gradient of `LayerNormalization`.

use super::binary::candidate;
use super::case::floats;
use super::formula::ints;
use super::norm::{EPSILON, centred, first};
use super::{Axes, Case, Fact, Laws, NodeRef, Op, OpError, OpName, private, shape};
use crate::cpu::Candidate;
use crate::cpu::norm_grad::NormGrad;
use crate::expr::{Call, Ex};
use crate::ir::{Attr, DType, Shape, Tensor, count};

/// The gradients of all inputs of a `LayerNormalization`, given its inputs `x` and `scale`, which has the shape of the axes from
/// `axis` on, and the gradient of its result.
pub struct LayerNormalizationGrad;

/// That of `n`, a `LayerNormalization`; `None` where the scale is broadcast, or perhaps so.
pub(super) fn call<'a>(n: &NodeRef, [x, scale, dy]: [Ex<'a>; 3]) -> Option<Vec<Ex<'a>>> {
    let (own, of) = (n.shape(0)?, n.shape(1)?);
    let first = first(n, own.len()).ok()?;
    let whole = of.len() == own.len() - first && of.iter().zip(&own[first..]).all(|(a, b)| a.same(b));
    let call = Call {
        domain: "secateur",
        op: "LayerNormalizationGrad",
        inputs: &[Some(x.id), Some(scale.id), Some(dy.id)],
        attrs: vec![
            Attr::new("axis", first as i64 - own.len() as i64),
            Attr::new("epsilon", n.float_or("epsilon", EPSILON).ok()?),
        ],
        outputs: 3,
    };
    whole.then(|| x.call(call))
}

impl Op for LayerNormalizationGrad {
    fn name(&self) -> OpName {
        private("LayerNormalizationGrad")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        shape::arity(n, 3, 3)?;
        shape::same_dtype(n)?;
        n.float("epsilon")?;
        n.int("axis")?;
        let parameter = Fact::tensor(n.dtype(1), n.shape(1).cloned());
        let x = Fact::tensor(n.dtype(0), n.shape(0).cloned());
        if let (Some(x), Some(scale)) = (n.shape(0), n.shape(1)) {
            let own = Shape::from(&x[first(n, x.len())?..]);
            if own.len() != scale.len() {
                return Err(OpError::new(format!(
                    "the scale has {} axes; expected {}",
                    scale.len(),
                    own.len()
                )));
            }
        }
        Ok(vec![x, parameter.clone(), parameter])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn laws(&self) -> Laws {
        Laws {
            in_place: &[2, 0],
            ..Laws::default()
        }
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let &[x, scale, dy] = x else { return None };
        let rank = n.rank(0)?;
        let first = first(n, rank).ok()?;
        let [normal, dx] = centred(n, x, dy * scale, first as i64 - rank as i64)?;
        let axes: Vec<_> = (0..first as i64).collect();
        let sum = |y: Ex<'a>| match first {
            0 => y,
            _ => y.with("ReduceSum", &[ints(y, &axes)], vec![Attr::new("keepdims", 0)]),
        };
        Some(vec![dx, sum(dy * normal), sum(dy)])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let make = || {
            let dims = n.dims(0)?;
            let (rows, own) = dims.split_at(first(n, dims.len()).ok()?);
            let floats = (0..3).all(|i| n.dtype(i) == Some(DType::F32));
            let fits = floats && n.dims(1)? == own && n.dims(2)? == dims;
            let kernel = NormGrad {
                rows: count(rows)?,
                len: count(own)?,
                epsilon: n.float_or("epsilon", EPSILON).ok()?,
            };
            fits.then(|| candidate(n, "", Box::new(kernel)))
        };
        make().into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        let case = |name, x: &[usize], own: &[usize]| {
            let inputs = [floats(x, 1), floats(own, 2), floats(x, 3)];
            let case = Case::new(name, inputs).outputs(3).within(2e-5, 2e-5);
            case.attr("axis", -(own.len() as i64))
        };
        let half = |x: Tensor| Tensor::rounded(DType::F64, x.dims(), &x.floats()?);
        let doubles: Option<Vec<_>> = [floats(&[3, 5], 1), floats(&[5], 2), floats(&[3, 5], 3)]
            .map(half)
            .into_iter()
            .collect();
        let mut all = vec![
            case("rows", &[2, 5, 37], &[37]),
            case("many rows", &[300, 16], &[16]).within(2e-4, 2e-5),
            case("two axes", &[4, 5, 7], &[5, 7]).attr("epsilon", 0.1),
            case("one row", &[33], &[33]),
            case("no rows", &[0, 3], &[3]),
        ];
        all.extend(doubles.map(|x| {
            Case::new("double", x)
                .attr("axis", -1)
                .outputs(3)
                .within(1e-6, 1e-6)
        }));
        all
    }
}
