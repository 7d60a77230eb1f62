//! Reductions along axes.

mod kinds;

use super::binary::candidate;
use super::case::{floats, tame_floats};
use super::formula::{apply, ints};
use super::grad::{at, cast, unless};
use super::{Axes, Case, Exs, Fact, Grads, Laws, NodeRef, Op, OpError, OpName, Tie, onnx, shape};
use crate::cpu::blocked::Channels;
use crate::cpu::number::{ByType, Int, Numbers, Real, by_type};
use crate::cpu::reduce::{Cut, Finish, Greatest, Itself, Join, Term};
use crate::cpu::{Candidate, Cost, Io, Kernel, blocks, reduce};
use crate::expr::Ex;
use crate::ir::{DType, Dim, Shape, Tensor, count};
pub use kinds::{L1, L2, LogSum, LogSumExp, Max, Mean, Min, Prod, Sum, SumSquare};

/// A way to make one number of many.
pub trait Reduction: Copy + Send + Sync + 'static {
    /// The operator's name.
    const NAME: &'static str;
    /// The opsets at which its meaning changed.
    const SINCE: &'static [u16];
    /// The opset at which the axes became an input.
    const MOVED: i64 = 18;
    /// Whether integers are computed as floats and rounded towards 0.
    const ROUNDS: bool = false;
    /// Whether integers are divided by their number.
    const MEAN: bool = false;
    /// The reduction of two elements of a shape.
    const DIMS: Option<fn(&Dim, &Dim) -> Dim> = None;
    /// How kernels fold: the join, and what an element contributes.
    type Join: Join;
    /// What an element contributes.
    type Term: Term;
    /// What the fold becomes in the end.
    const FINISH: Finish = |fold, _, _| fold;
    /// By definition.
    fn real(x: &[f64]) -> f64;
    /// The gradient of `x`, of which `y` is made, whose own is `dy`. Folded axes of both are of size 1.
    fn vjp<'a>(n: &NodeRef, x: Ex<'a>, y: Ex<'a>, dy: Ex<'a>) -> Ex<'a>;
    /// By definition; of no integers `None` where that depends on their type.
    fn int(x: &[i128]) -> Option<i128>;
}

/// Opsets of most reductions.
const USUAL: &[u16] = &[1, 11, 13, 18];

/// The operator of some reduction.
pub struct Reduce<R>(pub R);

/// Which axes of a tensor of rank `rank` are folded; `None` where that is not known. `given` are the axes, if they are an
/// input that is there.
fn folded<R: Reduction>(
    n: &NodeRef,
    rank: usize,
    given: Option<Vec<i64>>,
) -> Result<Option<Vec<usize>>, OpError> {
    let (axes, none) = if n.opset() < R::MOVED {
        (Some(n.ints("axes")?.unwrap_or(&[]).to_vec()), false)
    } else {
        let none = n.int_or("noop_with_empty_axes", 0)? != 0;
        (if n.has(1) { given } else { Some(vec![]) }, none)
    };
    let Some(axes) = axes else { return Ok(None) };
    if axes.is_empty() {
        return Ok(Some(if none { vec![] } else { (0..rank).collect() }));
    }
    let axes: Result<Vec<_>, _> = axes.iter().map(|&a| NodeRef::axis(a, rank)).collect();
    axes.map(Some)
}

/// The shape that is left of `shape`.
fn left(shape: &[Dim], folded: &[usize], keep: bool) -> Shape {
    let axes = shape.iter().enumerate();
    axes.filter(|(i, _)| keep || !folded.contains(i))
        .map(|(i, d)| {
            if folded.contains(&i) {
                Dim::Known(1)
            } else {
                d.clone()
            }
        })
        .collect()
}

/// `y`, which input 0 was folded to, with folded axes of size 1.
fn kept<'a, R: Reduction>(n: &NodeRef, x: Exs<'_, 'a>, y: Ex<'a>) -> Option<Ex<'a>> {
    if n.int_or("keepdims", 1).ok()? != 0 {
        return Some(y);
    }
    let known = n
        .rank(0)
        .and_then(|rank| folded::<R>(n, rank, n.ints_in(1)).ok()?);
    let axes = match known {
        Some(axes) if axes.is_empty() => return Some(y),
        Some(axes) => ints(y, &axes.iter().map(|&a| a as i64).collect::<Vec<_>>()),
        None => at(x, 1)?,
    };
    Some(y.op("Unsqueeze", &[axes]))
}

/// `dy` in equal shares for the elements of `x` that do not lose against `y`.
fn shared<'a>(n: &NodeRef, x: Ex<'a>, y: Ex<'a>, dy: Ex<'a>, loses: &str) -> Ex<'a> {
    let lost = x.op(loses, &[y]);
    let winners = again(n, "ReduceSum", unless(lost, dy.constant(1.0)));
    unless(lost, dy / winners)
}

/// `x`, in the shape of input 0, folded by `op` along the axes of `n`, which stay with size 1.
fn again<'a>(n: &NodeRef, op: &str, x: Ex<'a>) -> Ex<'a> {
    let axes = n.node().inputs.get(1).copied().flatten();
    let axes = axes.map(|id| Ex { id, ..x });
    let mut attrs = n.node().attrs.clone();
    attrs.retain(|a| &*a.name != "keepdims");
    apply(x, op, &[axes], attrs, 1)[0]
}

/// How many elements of `x`, input 0, are folded into each of `y`.
fn many<'a>(n: &NodeRef, x: Ex<'a>, y: Ex<'a>) -> Ex<'a> {
    let known = n.dims(0).zip(n.rank(0)).and_then(|(dims, rank)| {
        let axes = folded::<Mean>(n, rank, n.ints_in(1)).ok()??;
        Some(axes.iter().map(|&a| dims[a]).product::<usize>())
    });
    let size = |x: Ex<'a>| cast(x.op("Size", &[]), n.dtype(0).unwrap_or(DType::F32));
    match known {
        Some(count) => y.constant(count as f64),
        None => size(x) / size(y),
    }
}

fn takes<R: Reduction>(dtype: DType) -> bool {
    let truths = dtype == DType::Bool && matches!(R::NAME, "ReduceMax" | "ReduceMin");
    dtype.is_float() || dtype.is_int() || truths
}

impl<R: Reduction> Op for Reduce<R> {
    fn name(&self) -> OpName {
        onnx(R::NAME)
    }

    fn since(&self) -> &'static [u16] {
        R::SINCE
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        shape::arity(n, 1, if n.opset() < R::MOVED { 1 } else { 2 })?;
        let keep = n.int_or("keepdims", 1)? != 0;
        if let Some(d) = n.dtype(0).filter(|&d| !takes::<R>(d)) {
            return Err(OpError::new(format!("there is no {} of {d}", R::NAME)));
        }
        let Some(shape) = n.shape(0) else {
            n.ints("axes")?;
            n.int("noop_with_empty_axes")?;
            return Ok(vec![Fact::tensor(n.dtype(0), None)]);
        };
        let shape = match folded::<R>(n, shape.len(), n.ints_in(1))? {
            Some(axes) => Some(left(shape, &axes, keep)),
            None if keep => Some(vec![Dim::Unknown; shape.len()]),
            None => None,
        };
        let fact = Fact::tensor(n.dtype(0), shape);
        Ok(vec![follow::<R>(n, fact)])
    }

    fn laws(&self) -> Laws {
        Laws {
            blocks: R::NAME == Sum::NAME,
            ..Laws::default()
        }
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        let (rank, keep) = (n.rank(0)?, n.int_or("keepdims", 1).ok()? != 0);
        let folded = folded::<R>(n, rank, n.ints_in(1)).ok()??;
        let mut out = 0;
        let tie = |axis| {
            let stays = !folded.contains(&axis);
            let output = stays.then_some(out);
            out += usize::from(stays || keep);
            Tie {
                output,
                inputs: vec![(0, axis)],
            }
        };
        Some(Axes((0..rank).map(tie).collect()))
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let t = x.first().copied().flatten();
        let t = t.ok_or_else(|| OpError::new("expected a tensor"))?;
        let given = x.get(1).copied().flatten().and_then(Tensor::ints);
        let axes = folded::<R>(n, t.dims().len(), given)?;
        let axes = axes.ok_or_else(|| OpError::new("the axes are no integers"))?;
        let keep = n.int_or("keepdims", 1)? != 0;
        by_definition::<R>(t, &axes, keep)
            .map(|y| vec![y])
            .ok_or_else(|| OpError::new(format!("there is no {} of {}", R::NAME, t.dtype())))
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, y: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let (y, dy) = (kept::<R>(n, x, y[0]?)?, kept::<R>(n, x, dy[0]?)?);
        Some(vec![Some(R::vjp(n, x[0]?, y, dy)), None])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let rows = kernel::<R>(n).into_iter().map(|k| candidate(n, "", k));
        rows.chain(in_blocks::<R>(n)).collect()
    }

    fn cases(&self) -> Vec<Case> {
        cases::<R>()
    }
}

/// `fact` with its element, if a vector of known elements is folded whole.
fn follow<R: Reduction>(n: &NodeRef, fact: Fact) -> Fact {
    let one = fact
        .ty
        .shape()
        .is_some_and(|s| s.iter().all(|d| *d == Dim::Known(1)));
    let data = match (R::DIMS, n.rank(0), n.dtype(0)) {
        (Some(f), Some(1), Some(DType::I64)) if one => n.data(0).and_then(|x| {
            let (first, rest) = x.split_first()?;
            Some(vec![rest.iter().fold(first.clone(), |a, b| f(&a, b))])
        }),
        _ => None,
    };
    Fact { data, ..fact }
}

/// The least and the greatest number of a type.
fn range(dtype: DType) -> Option<(i128, i128)> {
    struct Range;
    impl ByType for Range {
        type Out = Option<(i128, i128)>;
        fn real<T: Real>(self) -> Option<(i128, i128)> {
            None
        }
        fn int<T: Int>(self) -> Option<(i128, i128)> {
            Some((T::min_value().wide(), T::max_value().wide()))
        }
    }
    if dtype == DType::Bool {
        Some((0, 1))
    } else {
        by_type(dtype, Range)?
    }
}

/// The elements that are folded into each element of the result, in order.
fn groups(dims: &[usize], axes: &[usize]) -> Vec<Vec<usize>> {
    let kept: Vec<_> = (0..dims.len()).filter(|a| !axes.contains(a)).collect();
    let mut groups = vec![vec![]; kept.iter().map(|&a| dims[a]).product()];
    for i in 0..count(dims).unwrap_or(0) {
        let (mut rest, mut group, mut ahead) = (i, 0, 1);
        for axis in (0..dims.len()).rev() {
            let index = rest % dims[axis];
            rest /= dims[axis];
            if kept.contains(&axis) {
                group += index * ahead;
                ahead *= dims[axis];
            }
        }
        groups[group].push(i);
    }
    groups
}

fn by_definition<R: Reduction>(t: &Tensor, axes: &[usize], keep: bool) -> Option<Tensor> {
    let (dtype, dims) = (t.dtype(), t.dims());
    let wide: Shape = dims.iter().map(|&d| Dim::from(d)).collect();
    let out: Option<Vec<usize>> = left(&wide, axes, keep).iter().map(Dim::size).collect();
    let out = out.filter(|d| count(d).is_some())?;
    let groups = groups(dims, axes);
    let numbers = match t.truths() {
        Some(truths) => Numbers::Int(truths.into_iter().map(i128::from).collect()),
        None => Numbers::of(t)?,
    };
    let real = |v: &[f64]| -> Vec<f64> {
        let each = groups.iter().map(|g| g.iter().map(|&i| v[i]).collect::<Vec<_>>());
        each.map(|g| R::real(&g)).collect()
    };
    match numbers {
        Numbers::Real(v) => Tensor::rounded(dtype, &out, &real(&v)),
        Numbers::Int(v) if R::ROUNDS => {
            let v: Vec<_> = v.iter().map(|&x| x as f64).collect();
            Tensor::rounded(dtype, &out, &real(&v))
        }
        Numbers::Int(v) => {
            let each = groups.iter().map(|g| g.iter().map(|&i| v[i]).collect::<Vec<_>>());
            let (low, high) = range(dtype)?;
            let nothing = if R::NAME == "ReduceMin" { high } else { low };
            let y: Vec<i128> = each.map(|g| R::int(&g).unwrap_or(nothing)).collect();
            match dtype {
                DType::Bool => Some(Tensor::bools(&out, y.into_iter().map(|y| y != 0))),
                _ => Numbers::Int(y).tensor(dtype, &out),
            }
        }
    }
}

fn kernel<R: Reduction>(n: &NodeRef) -> Option<Box<dyn Kernel>> {
    let (dims, dtype) = (n.dims(0)?, n.dtype(0)?);
    count(&dims)?;
    count(&n.out_dims(0)?)?;
    let axes = folded::<R>(n, dims.len(), n.ints_in(1)).ok()??;
    let cut = Cut::new(&dims, &axes);
    Some(match dtype {
        DType::F32 => after_greatest::<R>(
            reduce::floats::<Greatest, Itself>(cut.clone(), |fold, _, _| fold),
            reduce::floats::<R::Join, R::Term>(cut, R::FINISH),
        ),
        d if d.is_float() || R::ROUNDS => {
            let block = blocks::doubles(d)?;
            after_greatest::<R>(
                reduce::reals::<Greatest, Itself>(cut.clone(), block, |fold, _, _| fold),
                reduce::reals::<R::Join, R::Term>(cut, block, R::FINISH),
            )
        }
        d => {
            let block = blocks::ints(if d == DType::Bool { DType::U8 } else { d })?;
            let extreme = matches!(R::NAME, "ReduceMax" | "ReduceMin");
            let range = range(d).filter(|_| extreme);
            reduce::ints::<R::Join, R::Term>(cut, block, range, R::MEAN)
        }
    })
}

/// The kernel of sums of whole channels on blocks of them.
fn in_blocks<R: Reduction>(n: &NodeRef) -> Option<Candidate> {
    let dims = n.dims(0).filter(|d| d.len() > 2 && !d.contains(&0))?;
    let axes = folded::<R>(n, dims.len(), n.ints_in(1)).ok()??;
    let whole = (0..dims.len()).all(|a| axes.contains(&a) != (a == 1));
    if !whole || R::NAME != Sum::NAME || n.dtype(0) != Some(DType::F32) {
        return None;
    }
    let name = format!("reducesum.f32.{}.blocks", secateur_simd::isa());
    let cost = Cost::bytes(4 * dims.iter().product::<usize>());
    Some(Candidate::new(name, cost, Channels::new(&dims)).blocked(&[0], false))
}

impl Kernel for Channels {
    fn scratch(&self, _threads: usize) -> usize {
        Channels::scratch(self)
    }

    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        let x = io.input(0).slice();
        let y = io.outputs[0].as_mut().expect("output").slice();
        self.sums(x, y, io.scratch, io.pool);
        Ok(())
    }
}

/// `then`, where it needs them after the greatest elements have been found.
fn after_greatest<R: Reduction>(first: Box<dyn Kernel>, then: Box<dyn Kernel>) -> Box<dyn Kernel> {
    match R::Term::SHIFTED {
        false => then,
        true => Box::new(move |io: &mut Io| {
            first.run(io)?;
            then.run(io)
        }),
    }
}

fn cases<R: Reduction>() -> Vec<Case> {
    let new = R::MOVED;
    let some = |name, dims: &[usize], axes: &[i64]| {
        Case::new(name, [floats(dims, 1), Tensor::of(&[axes.len()], axes.to_vec())])
            .konst(&[1])
            .within(2e-6, 3e-6)
    };
    let few = |dtype| Tensor::rounded(dtype, &[2, 3], &[3.0, 1.0, 4.0, 1.0, 5.0, 9.0]);
    let mut all = vec![
        some("rows", &[5, 37], &[1]),
        some("long rows", &[2, 2500], &[-1]),
        some("columns", &[3, 5, 37], &[1]),
        some("many columns", &[600, 70], &[0]).within(2e-5, 2e-5),
        some("ends", &[3, 4, 5], &[0, 2]),
        some("middle", &[2, 3, 4, 5, 6], &[1, 3]),
        some("whole channels", &[2, 19, 17, 16], &[0, 2, 3]).within(2e-5, 2e-5),
        some("dropped", &[3, 4, 5], &[-3, 1]).attr("keepdims", 0),
        some("no axes", &[3, 4], &[]),
        some("nothing folded", &[3, 4], &[]).attr("noop_with_empty_axes", 1),
        some("nothing there", &[2, 0, 3], &[0]),
        some("folding nothing", &[2, 0, 3], &[1]),
        Case::new("all", [floats(&[3, 47], 2)]).within(1e-5, 3e-6),
        Case::new("scalar", [floats(&[], 2)]).within(1e-6, 2e-6),
        Case::new(
            "odd values",
            [tame_floats(&[19, 1], 3), Tensor::of(&[1], vec![1i64])],
        )
        .konst(&[1])
        .within(1e-20, 1e-6),
        Case::new("old", [floats(&[3, 4, 5], 1)])
            .opset(new - 1)
            .attr("axes", vec![1, -1])
            .attr("keepdims", 0)
            .within(2e-6, 2e-6),
        Case::new("oldest", [floats(&[3, 4], 1)])
            .opset(1)
            .attr("axes", vec![0])
            .within(2e-6, 2e-6),
    ];
    for dtype in [
        DType::F64,
        DType::F16,
        DType::BF16,
        DType::I64,
        DType::I32,
        DType::U8,
        DType::U64,
    ] {
        let axes = Tensor::of(&[1], vec![1i64]);
        let exact = if dtype.is_float() { 1e-9 } else { 0.0 };
        all.extend(few(dtype).map(|x| Case::new("other types", [x, axes]).konst(&[1]).within(0.0, exact)));
        let columns =
            few(dtype).map(|x| Case::new("columns of other types", [x, Tensor::of(&[1], vec![0i64])]));
        all.extend(columns.map(|c| c.konst(&[1]).within(0.0, exact)));
    }
    if takes::<R>(DType::Bool) {
        let axes = || Tensor::of(&[1], vec![1i64]);
        let truths = Tensor::bools(&[2, 2], [true, false, false, false]);
        all.push(Case::new("truth values", [truths, axes()]).konst(&[1]));
        all.push(Case::new("no truth values", [Tensor::bools(&[2, 0], []), axes()]).konst(&[1]));
        all.push(Case::new("no integers", [Tensor::of::<i16>(&[2, 0], vec![]), axes()]).konst(&[1]));
    }
    all
}
