//! ONNX `Pad`: more elements at either end of an axis, or fewer.

mod cpu;

use super::formula::apply;
use super::grad::{at, put_back, shaped};
use super::pick::{given, integers, knowing, pick, place};
use super::shape::{arity, distinct_axes, show, tied};
use super::{Axes, Case, Exs, Fact, Grads, NodeRef, Op, OpError, OpName, case, onnx};
use crate::cpu::Candidate;
use crate::expr::Ex;
use crate::ir::{Attr, DType, Dim, Shape, Tensor};

/// ONNX `Pad`.
pub struct Pad;

/// What is put where nothing was.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Constant,
    Reflect,
    Edge,
    Wrap,
}

impl Mode {
    /// The place in an axis of size `len` that stands at `i`, which may be outside; `None` for the constant.
    fn source(self, i: i64, len: i64) -> Option<i64> {
        match self {
            _ if (0..len).contains(&i) => Some(i),
            Mode::Constant => None,
            _ if len == 0 => None,
            Mode::Edge => Some(i.clamp(0, len - 1)),
            Mode::Wrap => Some(i.rem_euclid(len)),
            Mode::Reflect if len == 1 => Some(0),
            Mode::Reflect => {
                let there = i.rem_euclid(2 * (len - 1));
                Some(there.min(2 * (len - 1) - there))
            }
        }
    }
}

fn mode(n: &NodeRef) -> Result<Mode, OpError> {
    match n.str_or("mode", "constant")? {
        "constant" => Ok(Mode::Constant),
        "reflect" => Ok(Mode::Reflect),
        "edge" => Ok(Mode::Edge),
        "wrap" => Ok(Mode::Wrap),
        other => Err(OpError::new(format!(
            "attribute \"mode\" is {other:?}, which has no meaning"
        ))),
    }
}

/// Elements put before and behind each axis; `None` where that is not known.
fn pads(n: &NodeRef, rank: usize) -> Result<Option<Vec<[Dim; 2]>>, OpError> {
    let all = match n.opset() {
        1 => n
            .ints("paddings")?
            .map(|p| p.iter().copied().map(Dim::Known).collect()),
        2..11 => n
            .ints("pads")?
            .map(|p| p.iter().copied().map(Dim::Known).collect()),
        _ => {
            if let Some(d) = n.dtype(1).filter(|d| *d != DType::I64) {
                return Err(OpError::new(format!("input 1 is of type {d}; expected int64")));
            }
            match n.data(1) {
                None => return Ok(None),
                all => all,
            }
        }
    };
    let all: Vec<Dim> = all.ok_or_else(|| OpError::new("pads are missing"))?;
    let axes = match n.has(3) && n.opset() >= 18 {
        false => (0..rank).collect(),
        true => {
            let Some(axes) = n.ints_in(3) else { return Ok(None) };
            distinct_axes(&axes, rank)?;
            axes.iter()
                .map(|&a| NodeRef::axis(a, rank))
                .collect::<Result<Vec<_>, _>>()?
        }
    };
    if all.len() != 2 * axes.len() {
        return Err(OpError::new(format!(
            "pads {}; expected two for each of {} axes",
            show(&all),
            axes.len()
        )));
    }
    let mut pads = vec![[Dim::Known(0), Dim::Known(0)]; rank];
    for (i, &a) in axes.iter().enumerate() {
        pads[a] = [all[i].clone(), all[axes.len() + i].clone()];
    }
    Ok(Some(pads))
}

/// The shape with `pads` added.
fn padded(of: &Shape, pads: &[[Dim; 2]]) -> Result<Shape, OpError> {
    let add = |(d, [before, behind]): (&Dim, &[Dim; 2])| d.clone() + before.clone() + behind.clone();
    let shape: Shape = of.iter().zip(pads).map(add).collect();
    match shape.iter().any(|d| d.known().is_some_and(|d| d < 0)) {
        true => Err(OpError::new(format!("{} cut to {}", show(of), show(&shape)))),
        false => Ok(shape),
    }
}

/// For each axis, the places in the source; `None` for the constant.
type Sources = Vec<Vec<Option<usize>>>;

/// Longer axes are not padded.
const LONGEST: i64 = 1 << 28;

/// Where everything in the result comes from; `None` where a pad is not known or an axis becomes too long.
fn sources(n: &NodeRef, dims: &[usize]) -> Result<Option<Sources>, OpError> {
    let mode = mode(n)?;
    let Some(pads) = pads(n, dims.len())? else {
        return Ok(None);
    };
    let along = |(&len, [before, behind]): (&usize, &[Dim; 2])| {
        let (before, behind) = (before.known()?, behind.known()?);
        let len = i64::try_from(len).ok()?;
        let end = len.checked_add(behind)?;
        // What is cut off is gone before anything is repeated.
        let (first, rest) = (before.min(0).checked_neg()?, len + behind.min(0));
        let left = (rest - first).max(0);
        let place = |i: i64| match mode.source(i - first, left) {
            Some(i) => usize::try_from(i + first).ok(),
            None => None,
        };
        let start = before.checked_neg()?;
        let fits = end.checked_sub(start).is_some_and(|len| len < LONGEST);
        fits.then(|| (start..end).map(place).collect::<Vec<_>>())
    };
    let all: Option<Sources> = dims.iter().zip(&pads).map(along).collect();
    let empty = |s: &Sources| mode != Mode::Constant && s.iter().flatten().any(Option::is_none);
    match all {
        Some(s) if empty(&s) => Err(OpError::new("an empty axis has nothing to repeat")),
        s => Ok(s),
    }
}

/// The value of the attribute before opset 11.
fn value(n: &NodeRef, dtype: DType) -> Result<Option<Tensor>, OpError> {
    let value = match n.opset() {
        ..11 => n.float_or("value", 0.0)?,
        _ => 0.0,
    };
    Ok(Tensor::rounded(dtype, &[], &[value.into()]).or_else(|| Tensor::zeros(dtype, &[])))
}

impl Op for Pad {
    fn name(&self) -> OpName {
        onnx("Pad")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 2, 11, 13, 18, 19, 21, 23, 24, 25]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, if n.opset() < 11 { 1 } else { 2 }, 4)?;
        mode(n)?;
        n.ignore(&["value"]);
        if let Some(c) = n.dims(2).and_then(|d| crate::ir::count(&d)).filter(|&c| c != 1) {
            return Err(OpError::new(format!("{c} constant values; expected one")));
        }
        let Some(of) = n.shape(0) else {
            n.ignore(&["pads", "paddings"]);
            return Ok(vec![Fact::tensor(n.dtype(0), None)]);
        };
        let shape = match pads(n, of.len())? {
            Some(pads) => padded(of, &pads)?,
            None => vec![Dim::Unknown; of.len()],
        };
        Ok(vec![Fact::tensor(n.dtype(0), Some(shape))])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        let pads = pads(n, n.rank(0)?).ok()??;
        let none = [Dim::Known(0), Dim::Known(0)];
        Some(tied(pads.len(), |a| match pads[a] == none {
            true => vec![(0, a)],
            false => vec![],
        }))
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let data = given(x, 0)?;
        if n.opset() >= 11 {
            integers(given(x, 1)?, 1)?;
        }
        let sources = knowing(n, x, |n| sources(n, data.dims()))?;
        let sources = sources.ok_or_else(|| OpError::new("pads are not known"))?;
        let dims: Vec<_> = sources.iter().map(Vec::len).collect();
        let constant = match x.get(2).copied().flatten() {
            Some(c) if c.len() == 1 => Some(c.clone()),
            Some(c) => return Err(OpError::new(format!("{} constant values; expected one", c.len()))),
            None => value(n, data.dtype())?,
        };
        let tensors: Vec<_> = [data].into_iter().chain(&constant).collect();
        let y = pick(data.dtype(), &dims, &tensors, |at| {
            let source: Option<Vec<_>> = at.iter().zip(&sources).map(|(&i, s)| s[i]).collect();
            Ok(source.map_or((1, 0), |s| (0, place(s, data.dims()))))
        })?;
        Ok(vec![y])
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let (x0, pads, dy) = (x[0]?, x[1]?, dy[0]?);
        let attrs = n.node().attrs.clone();
        if mode(n).ok()? != Mode::Constant {
            let take = |places| apply(places, "Pad", &[Some(pads), None, at(x, 3)], attrs, 1)[0];
            return Some(vec![Some(put_back(n, x0, dy, take))]);
        }
        let dx = apply(dy, "Pad", &[Some(-pads), None, at(x, 3)], vec![], 1)[0];
        let all = |x: Ex<'a>| x.with("ReduceSum", &[], vec![Attr::new("keepdims", 0)]);
        let dvalue = at(x, 2).map(|value| shaped(n, 2, value, all(dy) - all(dx)));
        Some(vec![Some(dx), None, dvalue])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        cpu::pad(n).into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        let x = || case::floats(&[2, 3, 4, 5], 1);
        let pads = |l: &[i64]| Tensor::of(&[l.len()], l.to_vec());
        let mut cases = vec![];
        for mode in ["constant", "reflect", "edge", "wrap"] {
            let case = |name, x, p: &[i64]| Case::new(name, [x, pads(p)]).attr("mode", mode).konst(&[1]);
            cases.extend([
                case("images", x(), &[0, 0, 1, 2, 0, 0, 2, 1]),
                case("channels last", x(), &[0, 1, 1, 0, 0, 1, 0, 0]),
                case("cut and grown", x(), &[1, 0, -1, 2, 0, -1, 2, -2]),
                case("far", case::floats(&[3], 2), &[7, 9]),
                case("halves", halves(), &[1, 1, 1, 1]),
            ]);
        }
        cases.extend([
            Case::new(
                "a value",
                [x(), pads(&[1, 0, 0, 0, 0, 0, 0, 3]), Tensor::scalar(2.5f32)],
            )
            .konst(&[1]),
            Case::new(
                "named axes",
                [x(), pads(&[1, 2, 3, 4]), Tensor::scalar(1f32), pads(&[-1, 1])],
            )
            .konst(&[1, 3]),
            Case::new("known late", [x(), pads(&[0, 0, 1, 1, 0, 0, 1, 1])]),
            Case::new("by attribute", [x()])
                .attr("pads", vec![0i64, 0, 1, 1, 0, 0, 0, 2])
                .attr("value", 3f32)
                .opset(2),
            Case::new("the first version", [x()])
                .attr("paddings", vec![0i64, 0, 1, 1, 0, 0, 0, 2])
                .opset(1),
            Case::new("nothing", [case::floats(&[0, 2], 1), pads(&[1, 0, 1, 1])]).konst(&[1]),
        ]);
        cases
    }
}

fn halves() -> Tensor {
    let all = (0..6).map(|x| half::f16::from_f32(x as f32));
    Tensor::of(&[2, 3], all.collect::<Vec<_>>())
}
