//! ONNX `Unique`: every element or slice once.

use std::cmp::Ordering;

use super::pick::{given, place, rearranged};
use super::shape::arity;
use super::{Axes, Case, Fact, NodeRef, Op, OpError, OpName, case, onnx};
use crate::cpu::number::Numbers;
use crate::ir::{DType, Data, Dim, Tensor, count};

/// ONNX `Unique`. NaN comes last and is one value, as in NumPy.
pub struct Unique;

/// Elements that can be put in order.
enum Keys<'a> {
    Text(&'a [Vec<u8>]),
    Int(Vec<i128>),
    /// So many floats for each element.
    Real(Vec<f64>, usize),
}

impl Keys<'_> {
    fn of(x: &Tensor) -> Result<Keys<'_>, OpError> {
        let floats = |b: &[u8]| bytemuck::pod_collect_to_vec::<u8, f32>(b);
        Ok(match (x.dtype(), Numbers::of(x), x.ints()) {
            (DType::String, ..) => Keys::Text(x.strings()),
            (DType::C64, ..) => Keys::Real(floats(x.bytes()).into_iter().map(f64::from).collect(), 2),
            (DType::C128, ..) => Keys::Real(bytemuck::pod_collect_to_vec(x.bytes()), 2),
            (_, Some(Numbers::Real(all)), _) => Keys::Real(all, 1),
            (_, Some(Numbers::Int(all)), _) => Keys::Int(all),
            (_, _, Some(ints)) => Keys::Int(ints.into_iter().map(i128::from).collect()),
            (d, ..) => {
                return Err(OpError::new(format!(
                    "elements of type {d} cannot be put in order"
                )));
            }
        })
    }

    fn order(&self, a: usize, b: usize) -> Ordering {
        match self {
            Keys::Text(all) => all[a].cmp(&all[b]),
            Keys::Int(all) => all[a].cmp(&all[b]),
            Keys::Real(all, n) => {
                let pairs = all[a * n..][..*n].iter().zip(&all[b * n..][..*n]);
                let by_nan = |x: &f64, y: &f64| x.is_nan().cmp(&y.is_nan());
                pairs
                    .map(|(x, y)| x.partial_cmp(y).unwrap_or_else(|| by_nan(x, y)))
                    .find(|o| o.is_ne())
                    .unwrap_or(Ordering::Equal)
            }
        }
    }
}

fn axis(n: &NodeRef, rank: usize) -> Result<Option<usize>, OpError> {
    n.int("axis")?.map(|a| NodeRef::axis(a, rank)).transpose()
}

impl Op for Unique {
    fn name(&self) -> OpName {
        onnx("Unique")
    }

    fn since(&self) -> &'static [u16] {
        &[11]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 1)?;
        n.int("sorted")?;
        let (mut all, mut shape) = (Dim::Unknown, None);
        match n.shape(0) {
            Some(of) => match axis(n, of.len())? {
                Some(a) => {
                    let mut kept = of.clone();
                    all = std::mem::replace(&mut kept[a], Dim::Unknown);
                    shape = Some(kept);
                }
                None => {
                    all = super::shape::product(of);
                    shape = Some(vec![Dim::Unknown]);
                }
            },
            None if n.int("axis")?.is_none() => shape = Some(vec![Dim::Unknown]),
            None => {}
        }
        let index = |d| Fact::tensor(Some(DType::I64), Some(vec![d]));
        Ok(vec![
            Fact::tensor(n.dtype(0), shape),
            index(Dim::Unknown),
            index(all),
            index(Dim::Unknown),
        ])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let x = given(x, 0)?;
        let axis = axis(n, x.dims().len())?;
        let dims = if axis.is_some() { x.dims() } else { &[x.len()] };
        let axis = axis.unwrap_or(0);
        let (len, inner) = (dims[axis], count(&dims[axis + 1..]).unwrap_or(0));
        let outer = count(&dims[..axis]).unwrap_or(0);
        let keys = Keys::of(x)?;
        let order = |&a: &usize, &b: &usize| {
            let at = |i: usize, k: usize| (k / inner * len + i) * inner + k % inner;
            (0..outer * inner)
                .map(|k| keys.order(at(a, k), at(b, k)))
                .find(|o| o.is_ne())
                .unwrap_or(Ordering::Equal)
        };
        let mut slices: Vec<usize> = (0..len).collect();
        slices.sort_by(order);
        let mut groups: Vec<&[usize]> = slices.chunk_by(|a, b| order(a, b).is_eq()).collect();
        if n.int_or("sorted", 1)? == 0 {
            groups.sort_by_key(|g| g[0]);
        }
        let mut inverse = vec![0i64; len];
        for (i, group) in groups.iter().enumerate() {
            group.iter().for_each(|&s| inverse[s] = i as i64);
        }
        let mut out = dims.to_vec();
        out[axis] = groups.len();
        let y = rearranged(x, &out, |at| {
            let from = at.iter().enumerate();
            place(from.map(|(a, &i)| if a == axis { groups[i][0] } else { i }), dims)
        })?;
        let list = |all: Vec<i64>| Tensor::of(&[all.len()], all);
        Ok(vec![
            y,
            list(groups.iter().map(|g| g[0] as i64).collect()),
            list(inverse),
            list(groups.iter().map(|g| g.len() as i64).collect()),
        ])
    }

    fn cases(&self) -> Vec<Case> {
        let ints = |dims: &[usize], l: &[i64]| Tensor::of(dims, l.to_vec());
        let words = ["b", "a", "b", ""].map(|w| w.as_bytes().to_vec());
        let words = Tensor::new(DType::String, vec![4], Data::Strings(words.into()));
        let mut all = vec![
            Case::new("elements", [ints(&[2, 3], &[2, 1, 1, 3, 4, 3])]).outputs(4),
            Case::new("as they come", [ints(&[6], &[2, 1, 1, 3, 4, 3])])
                .attr("sorted", 0i64)
                .outputs(4),
            Case::new("rows", [ints(&[3, 3], &[2, 0, 0, 1, 0, 0, 2, 0, 0])])
                .attr("axis", 0i64)
                .outputs(4),
            Case::new("columns", [ints(&[2, 2, 2], &[5, 1, 5, 1, 2, 2, 2, 2])])
                .attr("axis", -2i64)
                .outputs(3),
            Case::new("odd values", [case::odd_floats(&[12], 1)]),
            Case::new("NaN", [Tensor::of(&[4], vec![f64::NAN, 1.0, f64::NAN, -0.0])]).outputs(4),
            Case::new("bools", [Tensor::bools(&[3], [true, false, true])]),
            Case::new("nothing", [case::floats(&[0], 1)]).outputs(4),
            Case::new("nothing to tell apart", [case::floats(&[3, 0], 1)]).attr("axis", 0i64),
        ];
        all.extend(words.ok().map(|w| Case::new("strings", [w]).outputs(4)));
        all
    }
}
