//! What ONNX Runtime's optimiser makes of matrix products and softmax: `FusedMatMul`, `FusedGemm`, `BiasSoftmax`,
//! `SparseToDenseMatMul`.

use super::formula::{apply, given, reshape, transpose};
use super::gemm::Gemm;
use super::matmul::cpu::{Extra, candidates};
use super::matmul::fits;
use super::shape::{arity, broadcast, like_first, same_dtype, show};
use super::{Axes, Case, Fact, NodeRef, Op, OpError, OpName, case, microsoft};
use crate::cpu::{Act, Candidate};
use crate::expr::Ex;
use crate::ir::{Attr, Dim, Shape};

/// `alpha A' B'`, the axes of A and B in another order before.
pub struct FusedMatMul;

/// `alpha A' B'` of a sparse A, which arrives here as a dense one.
pub struct SparseToDenseMatMul;

/// ONNX's `Gemm` with an activation behind it.
pub struct FusedGemm;

/// The softmax of the sum with a bias.
pub struct BiasSoftmax;

/// How an operand lies.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    /// Whether the first axis belongs behind those of the batch.
    batch: bool,
    /// Whether rows and columns change places.
    matrix: bool,
}

impl Turn {
    fn of(n: &NodeRef, letter: char) -> Result<Turn, OpError> {
        Ok(Turn {
            batch: n.int_or(&format!("transBatch{letter}"), 0)? != 0,
            matrix: n.int_or(&format!("trans{letter}"), 0)? != 0,
        })
    }

    /// The order of `rank` axes.
    fn order(self, rank: usize) -> Vec<usize> {
        let mut order: Vec<_> = (0..rank).collect();
        if rank < 2 {
            return order;
        }
        if self.batch {
            order[..rank - 1].rotate_left(1);
        }
        if self.matrix {
            order.swap(rank - 2, rank - 1);
        }
        order
    }

    fn shape(self, shape: &Shape) -> Shape {
        self.order(shape.len())
            .into_iter()
            .map(|a| shape[a].clone())
            .collect()
    }

    fn write<'a>(self, x: Ex<'a>, rank: usize) -> Ex<'a> {
        let order = self.order(rank);
        match order.is_sorted() {
            true => x,
            false => transpose(x, &order),
        }
    }
}

fn turns(n: &NodeRef, batches: bool) -> Result<[Turn; 2], OpError> {
    let both = [Turn::of(n, 'A')?, Turn::of(n, 'B')?];
    match batches {
        true => Ok(both),
        false => Ok(both.map(|t| Turn { batch: false, ..t })),
    }
}

fn infer(n: &NodeRef, batches: bool) -> Result<Vec<Fact>, OpError> {
    arity(n, 2, 2)?;
    same_dtype(n)?;
    n.float("alpha")?;
    let [a, b] = turns(n, batches)?;
    let dtype = n.dtype(0).or(n.dtype(1));
    let (Some(x), Some(y)) = (n.shape(0), n.shape(1)) else {
        return Ok(vec![Fact::tensor(dtype, None)]);
    };
    if x.is_empty() || y.is_empty() {
        return Err(OpError::new("expected tensors of at least one axis"));
    }
    let (mut a, mut b) = (a.shape(x), b.shape(y));
    let (row, column) = (a.len() == 1, b.len() == 1);
    if row {
        a.insert(0, Dim::Known(1));
    }
    if column {
        b.push(Dim::Known(1));
    }
    let (m, k) = (a[a.len() - 2].clone(), a[a.len() - 1].clone());
    let (rows, cols) = (b[b.len() - 2].clone(), b[b.len() - 1].clone());
    if k.known().zip(rows.known()).is_some_and(|(k, rows)| k != rows) {
        return Err(OpError::new(format!(
            "{} and {} do not multiply: rows of {k} against columns of {rows}",
            show(x),
            show(y)
        )));
    }
    let mut shape = broadcast(&a[..a.len() - 2], &b[..b.len() - 2])?;
    shape.extend((!row).then_some(m));
    shape.extend((!column).then_some(cols));
    Ok(vec![Fact::tensor(dtype, Some(shape))])
}

fn product<'a>(n: &NodeRef, x: &[Ex<'a>], batches: bool) -> Option<Vec<Ex<'a>>> {
    let [a, b] = turns(n, batches).ok()?;
    let y = a.write(x[0], n.rank(0)?).matmul(b.write(*x.get(1)?, n.rank(1)?));
    Some(vec![match n.float_or("alpha", 1.0).ok()? {
        1.0 => y,
        alpha => y * f64::from(alpha),
    }])
}

fn kernels(n: &NodeRef, batches: bool) -> Vec<Candidate> {
    let (Ok([a, b]), Ok(alpha)) = (turns(n, batches), n.float_or("alpha", 1.0)) else {
        return vec![];
    };
    if a.batch || b.batch {
        return vec![];
    }
    let matrix = |t: Turn, i: usize| t.matrix && n.rank(i).is_some_and(|r| r > 1);
    let extra = Extra {
        alpha,
        ..Extra::default()
    };
    candidates(n, [matrix(a, 0), matrix(b, 1)], extra)
}

fn products() -> Vec<Case> {
    let of = |name, a: &[usize], b: &[usize]| {
        Case::new(name, [case::floats(a, 1), case::floats(b, 2)]).within(1e-4, 1e-5)
    };
    vec![
        of("plain", &[2, 5, 7], &[7, 9]).attr("alpha", 0.25f32),
        of("both turned", &[2, 7, 5], &[2, 9, 7])
            .attr("transA", 1)
            .attr("transB", 1),
        of("constant, turned", &[5, 70], &[33, 70])
            .attr("transB", 1)
            .konst(&[1]),
    ]
}

impl Op for FusedMatMul {
    fn name(&self) -> OpName {
        microsoft("FusedMatMul")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        infer(n, true)
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        product(n, x, true)
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        kernels(n, true)
    }

    fn cases(&self) -> Vec<Case> {
        let of = |name, a: &[usize], b: &[usize]| {
            Case::new(name, [case::floats(a, 1), case::floats(b, 2)]).within(1e-4, 1e-5)
        };
        let mut all = products();
        all.extend([
            of("a batch behind rows", &[5, 2, 7], &[2, 7, 9]).attr("transBatchA", 1),
            of("all axes", &[2, 7, 5], &[7, 2, 9])
                .attr("transA", 1)
                .attr("transBatchB", 1),
            of("a vector", &[7], &[2, 7, 3]).attr("transA", 1),
        ]);
        all
    }
}

impl Op for SparseToDenseMatMul {
    fn name(&self) -> OpName {
        microsoft("SparseToDenseMatMul")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        infer(n, false)
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        product(n, x, false)
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        kernels(n, false)
    }

    fn cases(&self) -> Vec<Case> {
        products()
    }
}

/// The activation of a `FusedGemm`.
fn activation(n: &NodeRef) -> Result<Act, OpError> {
    let name = n.str_or("activation", "")?;
    let params = ["activation_alpha", "activation_beta", "activation_gamma"].map(|p| n.float(p));
    let [alpha, beta, gamma] = params;
    let given: Vec<f32> = [alpha?, beta?, gamma?].into_iter().flatten().collect();
    let usual: &[f32] = match name {
        "" => return Ok(Act::None),
        "LeakyRelu" => &[0.01],
        "HardSigmoid" => &[0.2, 0.5],
        "Elu" | "Celu" | "ThresholdedRelu" => &[1.0],
        _ => &[],
    };
    let params = match given.len() >= usual.len() && name != "Clip" {
        true => &given[..usual.len()],
        false if given.is_empty() => usual,
        false => &given,
    };
    Act::named(name, params).ok_or_else(|| {
        OpError::new(format!(
            "attribute \"activation\": {name:?} is not known with {params:?}"
        ))
    })
}

impl Op for FusedGemm {
    fn name(&self) -> OpName {
        microsoft("FusedGemm")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        activation(n)?;
        Gemm.infer(n)
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        Gemm.axes(n)
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let act = activation(n).ok()?;
        let own = |name: &str| name.starts_with("activation");
        let attrs = n.node().attrs.iter().filter(|a| !own(&a.name)).cloned().collect();
        let y = apply(*x.first()?, "Gemm", &[Some(*x.get(1)?), given(n, x, 2)], attrs, 1);
        Some(vec![act.body(y[0])])
    }

    fn cases(&self) -> Vec<Case> {
        let of = |name: &'static str| {
            let inputs = [
                case::floats(&[5, 7], 1),
                case::floats(&[9, 7], 2),
                case::floats(&[9], 3),
            ];
            Case::new(name, inputs)
                .attr("transB", 1)
                .attr("activation", name)
                .within(1e-5, 1e-5)
        };
        vec![
            of("Relu"),
            of("LeakyRelu").attr("activation_alpha", 0.3f32),
            of("HardSigmoid").attr("alpha", 0.5f32),
            of("Tanh").without(2),
        ]
    }
}

impl Op for BiasSoftmax {
    fn name(&self) -> OpName {
        microsoft("BiasSoftmax")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 2, 2)?;
        same_dtype(n)?;
        // Broadcasting says the same where the bias has all its axes.
        n.ignore(&["is_inner_broadcast"]);
        let axis = n.int_or("axis", 1)?;
        if let Some(rank) = n.rank(0) {
            NodeRef::axis(axis, rank)?;
        }
        let y = like_first(n)?;
        fits(n, 1, &y[0])?;
        Ok(y)
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let dims = n.dims(0)?;
        let axis = NodeRef::axis(n.int_or("axis", 1).ok()?, dims.len()).ok()?;
        let sum = x[0] + *x.get(1)?;
        let last = vec![Attr::new("axis", -1)];
        if axis + 1 == dims.len() {
            return Some(vec![sum.with("Softmax", &[], last)]);
        }
        let (outer, inner) = dims.split_at(axis);
        let rows = reshape(sum, &[outer.iter().product(), inner.iter().product()]);
        Some(vec![reshape(rows.with("Softmax", &[], last), &dims)])
    }

    fn cases(&self) -> Vec<Case> {
        let of = |name, dims: &[usize]| {
            let inputs = [case::floats(&[2, 3, 4, 5], 1), case::floats(dims, 2)];
            Case::new(name, inputs).within(1e-6, 1e-6)
        };
        vec![
            of("a mask", &[2, 1, 1, 5])
                .attr("axis", 3)
                .attr("is_inner_broadcast", 1),
            of("two axes", &[1, 1, 4, 5])
                .attr("axis", 2)
                .attr("is_inner_broadcast", 0),
        ]
    }
}
