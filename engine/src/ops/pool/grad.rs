//! Gradients of pools.

use super::{Sizes, axes, column_major, count_along, infer, natural, windows};
use crate::cpu::Candidate;
use crate::expr::{Call, Ex};
use crate::ir::{Attr, DType, Dim, Tensor};
use crate::ops::along::{Matrix, along};
use crate::ops::case::{floats, odd_floats};
use crate::ops::formula::{apply, ints};
use crate::ops::grad::{at, flat, int, only, shaped, sizes, spread, zeros};
use crate::ops::shape::{arity, same_dtype, spelt};
use crate::ops::{Axes, Case, Exs, Fact, Grads, Laws, NodeRef, Op, OpError, OpName, Tie, private};

/// The gradient of the input of `MaxPool`, from that input and the gradient of the output: each element goes where the first
/// greatest of its window is. Attributes are those of `MaxPool`.
pub struct MaxPoolGrad;

/// The gradient of the input of `AveragePool`, from the gradient of the output and the sizes of the input. Attributes are those
/// of `AveragePool`; with `divisor` 1 it is that of sums.
pub struct AveragePoolGrad;

/// `x` and `rest` given to a private operator with attributes `attrs`.
fn private_op<'a>(x: Ex<'a>, op: &str, rest: Ex<'a>, attrs: Vec<Attr>) -> Option<Ex<'a>> {
    let call = Call {
        domain: "secateur",
        op,
        inputs: &[Some(x.id), Some(rest.id)],
        attrs,
        outputs: 1,
    };
    x.call(call).first().copied()
}

/// The gradient of the greatest of windows.
pub(super) fn greatest<'a>(n: &NodeRef, x: Exs<'_, 'a>, dy: Ex<'a>) -> Grads<'a> {
    let mut attrs = n.node().attrs.clone();
    attrs.retain(|a| &*a.name != "storage_order");
    Some(vec![private_op(at(x, 0)?, "MaxPoolGrad", dy, attrs)])
}

/// The gradient of means of windows.
pub(super) fn means<'a>(n: &NodeRef, x: Exs<'_, 'a>, dy: Ex<'a>) -> Grads<'a> {
    let to = sizes(n, 0, at(x, 0)?);
    let attrs = n.node().attrs.clone();
    Some(vec![private_op(dy, "AveragePoolGrad", to, attrs)])
}

/// The gradient of `y`, the norms of windows of order `p`: `dy |x|^(p-1) sign(x) / y^(p-1)`, and 0 where `y` is.
pub(super) fn norms<'a>(n: &NodeRef, p: f32, x: Ex<'a>, y: Ex<'a>, dy: Ex<'a>) -> Grads<'a> {
    let (slope, by) = match p {
        1.0 => (x.op("Sign", &[]), dy),
        2.0 => (x, dy / y),
        p => {
            let power = |v: Ex<'a>| v.op("Pow", &[v.constant(f64::from(p) - 1.0)]);
            (power(x.op("Abs", &[])) * x.op("Sign", &[]), dy / power(y))
        }
    };
    let zero = y.op("Equal", &[y.constant(0.0)]);
    let by = zero.op("Where", &[dy.constant(0.0), by]);
    let mut attrs = n.node().attrs.clone();
    attrs.retain(|a| &*a.name != "p");
    attrs.push(Attr::new("divisor", 1));
    Some(vec![Some(
        slope * private_op(by, "AveragePoolGrad", sizes(n, 0, x), attrs)?,
    )])
}

/// The gradient of the means of whole channels.
pub(super) fn global_means<'a>(n: &NodeRef, x: Ex<'a>, dy: Ex<'a>) -> Grads<'a> {
    let dtype = n.dtype(0).unwrap_or(DType::F32);
    let size = |x: Ex<'a>| crate::ops::grad::cast(x.op("Size", &[]), dtype);
    let each = match n.dims(0) {
        Some(dims) => dy / dims[2..].iter().product::<usize>() as f64,
        None => dy * (size(dy) / size(x)),
    };
    Some(vec![Some(spread(n, 0, x, each))])
}

/// The gradient of the greatest of whole channels: that of the first.
pub(super) fn global_greatest<'a>(n: &NodeRef, x: Ex<'a>, dy: Ex<'a>) -> Grads<'a> {
    let row = |x: Ex<'a>| x.op("Reshape", &[ints(x, &[0, 0, -1])]);
    let channels = row(x);
    let first = channels.with("ArgMax", &[], vec![Attr::new("axis", 2)]);
    let length = channels.with("Shape", &[], vec![Attr::new("start", 2)]);
    let places = int(x, 0).op("Range", &[length.op("Squeeze", &[]), int(x, 1)]);
    let there = places.op("Equal", &[first]);
    Some(vec![Some(shaped(n, 0, x, only(there, row(dy))))])
}

/// The gradient of elements put to `places`.
pub(super) fn unpooled<'a>(n: &NodeRef, x: Exs<'_, 'a>, dy: Ex<'a>) -> Grads<'a> {
    let inner = match n.has(2) {
        false => dy,
        true => {
            let natural = natural(n, n.shape(0)?).ok()?;
            let ends = natural.iter().map(Dim::known).collect::<Option<Vec<_>>>()?;
            dy.op("Slice", &[ints(dy, &vec![0; ends.len()]), ints(dy, &ends)])
        }
    };
    let dx = flat(inner).op("Gather", &[at(x, 1)?]);
    Some(vec![Some(dx), None, None])
}

impl Op for MaxPoolGrad {
    fn name(&self) -> OpName {
        private("MaxPoolGrad")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 2, 2)?;
        same_dtype(n)?;
        column_major(n)?;
        infer(n)?;
        Ok(vec![Fact::tensor(n.dtype(0), n.shape(0).cloned())])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        let tie = |a: usize| Tie {
            output: Some(a),
            inputs: vec![(0, a), (1, a)],
        };
        let rest = (2..n.rank(0)?).map(|a| Tie {
            output: Some(a),
            inputs: vec![(0, a)],
        });
        Some(Axes((0..2).map(tie).chain(rest).collect()))
    }

    fn laws(&self) -> Laws {
        Laws {
            blocks: true,
            ..Laws::default()
        }
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        super::cpu::unpooling(n).into_iter().collect()
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let &[x, dy] = x else { return None };
        let places = *apply(x, "MaxPool", &[], n.node().attrs.clone(), 2).get(1)?;
        let attrs = vec![Attr::new("axis", 0), Attr::new("reduction", "add")];
        let all = flat(zeros(n, 0, x)).with("ScatterElements", &[flat(places), flat(dy)], attrs);
        Some(vec![shaped(n, 0, x, all)])
    }

    fn cases(&self) -> Vec<Case> {
        let case = |name, x: &[usize], y: &[usize], size: &[i64]| {
            Case::new(name, [floats(x, 1), floats(y, 2)]).attr("kernel_shape", size)
        };
        let ties = Tensor::of(&[1, 1, 2, 3], vec![1f32, 1.0, 1.0, 0.0, 1.0, 1.0]);
        let near = |c: Case| c.within(1e-5, 1e-5);
        vec![
            case("overlapping windows", &[2, 3, 7, 8], &[2, 3, 4, 4], &[3, 3])
                .attr("pads", vec![1i64; 4])
                .attr("strides", vec![2i64, 2]),
            case("quarters", &[1, 2, 6, 4], &[1, 2, 3, 2], &[2, 2]).attr("strides", vec![2i64, 2]),
            case("rounded up", &[1, 2, 7, 8], &[1, 2, 4, 3], &[2, 3])
                .attr("ceil_mode", 1)
                .attr("strides", vec![2i64, 3]),
            case("one axis", &[2, 3, 9], &[2, 3, 5], &[3]).attr("dilations", vec![2i64]),
            case("no images", &[0, 2, 4, 4], &[0, 2, 2, 2], &[3, 3]),
            case("many channels", &[2, 19, 6, 8], &[2, 19, 3, 4], &[2, 2]).attr("strides", vec![2i64, 2]),
            case(
                "many channels, rounded up",
                &[1, 16, 7, 5],
                &[1, 16, 4, 3],
                &[2, 2],
            )
            .attr("ceil_mode", 1)
            .attr("strides", vec![2i64, 2]),
            case("quarters apart", &[1, 16, 8, 6], &[1, 16, 3, 2], &[2, 2]).attr("strides", vec![3i64, 3]),
            case("gaps", &[1, 16, 9, 7], &[1, 16, 3, 3], &[2, 1]).attr("strides", vec![3i64, 3]),
            Case::new(
                "odd values",
                [odd_floats(&[1, 17, 8, 8], 1), floats(&[1, 17, 4, 4], 2)],
            )
            .attr("kernel_shape", vec![2i64, 2])
            .attr("strides", vec![2i64, 2]),
            Case::new("the first of equals", [ties, floats(&[1, 1, 1, 2], 2)])
                .attr("kernel_shape", vec![2i64, 2]),
        ]
        .into_iter()
        .map(near)
        .collect()
    }
}

/// What becomes of the axes of `dY`: each is multiplied by what its windows count.
fn spread_back<'a>(n: &NodeRef, dy: Ex<'a>) -> Option<Ex<'a>> {
    let to = n.ints_in(1)?.into_iter().map(|d| usize::try_from(d).ok());
    let s = Sizes::new(n, &to.collect::<Option<Vec<_>>>()?).ok()?;
    let sums = n.int_or("divisor", 0).ok()? == 1;
    let w = &s.window;
    let mut y = dy;
    for a in 0..w.size.len() {
        let mut m = Matrix::new(w.output[a], w.input[a]);
        for p in 0..w.output[a] {
            let count = count_along(n, &s, a, p).ok()?;
            let weight = if sums { 1.0 } else { 1.0 / count as f64 };
            let under = w.meeting(a, p).filter_map(|tap| w.place(a, p, tap));
            under.for_each(|i| m.add(p, i, weight));
        }
        y = along(n, y, a + 2, m)?;
    }
    Some(y)
}

impl Op for AveragePoolGrad {
    fn name(&self) -> OpName {
        private("AveragePoolGrad")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 2, 2)?;
        n.int("count_include_pad")?;
        n.int("divisor")?;
        let size = n.ints("kernel_shape")?;
        windows(n, size.map_or(0, <[i64]>::len))?;
        let shape = spelt(n, 1)?.or_else(|| Some(vec![Dim::Unknown; n.rank(0)?]));
        Ok(vec![Fact::tensor(n.dtype(0), shape)])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        axes(n)
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        Some(vec![spread_back(n, *x.first()?)?])
    }

    fn cases(&self) -> Vec<Case> {
        let case = |name, y: &[usize], x: &[i64], size: &[i64]| {
            Case::new(name, [floats(y, 1), Tensor::of(&[x.len()], x.to_vec())])
                .attr("kernel_shape", size)
                .within(1e-5, 1e-5)
                .konst(&[1])
        };
        vec![
            case("overlapping windows", &[2, 3, 4, 4], &[2, 3, 7, 8], &[3, 3])
                .attr("pads", vec![1i64; 4])
                .attr("strides", vec![2i64, 2]),
            case("the border counts", &[1, 2, 4, 3], &[1, 2, 7, 8], &[2, 3])
                .attr("ceil_mode", 1)
                .attr("count_include_pad", 1)
                .attr("strides", vec![2i64, 3]),
            case("sums", &[1, 2, 3], &[1, 2, 9], &[5])
                .attr("divisor", 1)
                .attr("strides", vec![2i64]),
            case("three axes", &[1, 2, 2, 3, 4], &[1, 2, 3, 4, 5], &[2, 2, 2]),
        ]
    }
}
