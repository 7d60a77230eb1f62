//! `Gemm`, and the private one that adds a residual and applies an activation.

use super::case::{few_floats, floats, tame_floats};
use super::matmul::cpu::{self, Extra};
use super::matmul::matrices::{Matrices, check_size, product, starts};
use super::matmul::{added, fits};
use super::shape::{ranked, same_dtype, show};
use super::{Axes, Case, Exs, Fact, Grads, Laws, NodeRef, Op, OpError, OpName, Tie, onnx, private};
use crate::cpu::number::Numbers;
use crate::cpu::{Candidate, Post};
use crate::expr::{Call, Ex};
use crate::ir::{Attr, DType, Dim, Tensor};

/// `alpha A' B' + beta C`, with `A'` and `B'` transposed where `transA` and `transB` say so.
pub struct Gemm;

impl Op for Gemm {
    fn name(&self) -> OpName {
        onnx("Gemm")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 6, 7, 9, 11, 13]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        infer(n)
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        axes(n)
    }

    fn laws(&self) -> Laws {
        Laws {
            in_place: &[2],
            ..Laws::default()
        }
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        eval(n, x)
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let (a, b, dy) = (x[0]?, x[1]?, dy[0]?);
        let turned = |name| Some(n.int_or(name, 0).ok()? != 0);
        let (ta, tb) = (turned("transA")?, turned("transB")?);
        let alpha = n.float_or("alpha", 1.0).ok()?;
        let product = |a: Ex<'a>, b: Ex<'a>, [ta, tb]: [bool; 2]| {
            let turn = [("transA", ta), ("transB", tb)].into_iter().filter(|(_, t)| *t);
            let turn = turn.map(|(name, _)| Attr::new(name, 1));
            let scale = (alpha != 1.0).then(|| Attr::new("alpha", alpha));
            a.with("Gemm", &[b], turn.chain(scale).collect())
        };
        let da = match ta {
            false => product(dy, b, [false, !tb]),
            true => product(b, dy, [tb, true]),
        };
        let db = match tb {
            false => product(a, dy, [!ta, false]),
            true => product(dy, a, [true, ta]),
        };
        let dc = match n.float_or("beta", 1.0).ok()? {
            1.0 => dy,
            beta => dy * f64::from(beta),
        };
        Some(vec![Some(da), Some(db), Some(dc)])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        kernels(n, None, Post::NONE)
    }

    fn cases(&self) -> Vec<Case> {
        cases()
    }
}

/// `activation(Gemm(A, B, C) + residual)`; the residual (input 3) may be left out and broadcasts to the product.
pub struct Fused;

impl Op for Fused {
    fn name(&self) -> OpName {
        private("Gemm")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        let facts = infer(n)?;
        Post::of(n)?;
        fits(n, 3, &facts[0])?;
        Ok(facts)
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        axes(n)
    }

    fn laws(&self) -> Laws {
        Laws {
            in_place: &[2, 3],
            ..Laws::default()
        }
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let own = Post::ATTRIBUTES;
        let attrs = n.node().attrs.iter().filter(|a| !own.contains(&&*a.name));
        let inputs: Vec<_> = x
            .iter()
            .take(3)
            .enumerate()
            .map(|(i, x)| n.has(i).then_some(x.id))
            .collect();
        let call = Call {
            domain: "",
            op: "Gemm",
            inputs: &inputs,
            attrs: attrs.cloned().collect(),
            outputs: 1,
        };
        n.ignore(&["transA", "transB", "alpha", "beta"]);
        let product = *x.first()?.call(call).first()?;
        let sum = x.get(3).filter(|_| n.has(3)).map_or(product, |&z| product + z);
        Some(vec![Post::of(n).ok()?.body(sum)])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let Ok(post) = Post::of(n) else { return vec![] };
        kernels(n, Some(3), post)
    }

    fn cases(&self) -> Vec<Case> {
        let case = |name, dims: [&[usize]; 4]| {
            let inputs = dims.iter().zip(1..).map(|(d, seed)| floats(d, seed));
            Case::new(name, inputs).within(1e-4, 1e-5)
        };
        let few = |name, zeros| {
            let x = [
                floats(&[4, 70], 1),
                few_floats(&[33, 70], 2, zeros),
                floats(&[33], 3),
                floats(&[4, 33], 4),
            ];
            Case::new(name, x)
                .attr("transB", 1)
                .attr("beta", 0.5f32)
                .konst(&[1])
                .within(1e-4, 1e-5)
        };
        vec![
            case("all", [&[5, 70], &[33, 70], &[33], &[5, 33]])
                .attr("transB", 1)
                .konst(&[1, 2]),
            case("no bias", [&[5, 7], &[7, 3], &[], &[1, 3]]).without(2),
            few("few weights and all", 0.9),
            few("half of the weights and all", 0.5).attr("activation", "Sigmoid"),
            case("scaled", [&[5, 70], &[33, 70], &[33], &[5, 33]])
                .attr("activation", "Relu")
                .attr("scale", -0.5f32)
                .attr("shift", 3.0f32)
                .attr("transB", 1)
                .konst(&[1, 2]),
            case("no residual", [&[5, 7], &[7, 3], &[5, 3], &[]])
                .without(3)
                .attr("beta", 0.5f32),
        ]
    }
}

/// Whether the operands are transposed.
fn transposed(n: &NodeRef) -> Result<[bool; 2], OpError> {
    Ok([n.int_or("transA", 0)? != 0, n.int_or("transB", 0)? != 0])
}

/// `alpha` and `beta`.
fn scales(n: &NodeRef) -> Result<[f32; 2], OpError> {
    if n.opset() < 7 {
        n.ignore(&["broadcast"]);
    }
    Ok([n.float_or("alpha", 1.0)?, n.float_or("beta", 1.0)?])
}

fn infer(n: &NodeRef) -> Result<Vec<Fact>, OpError> {
    same_dtype(n)?;
    let ([trans_a, trans_b], _) = (transposed(n)?, scales(n)?);
    for i in 0..2 {
        if !n.has(i) {
            return Err(OpError::new(format!("input {i} is left out; expected a matrix")));
        }
    }
    let dim = |i: usize, axis: usize| -> Result<Dim, OpError> {
        Ok(ranked(n, i, 2)?.map_or(Dim::Unknown, |s| s[axis].clone()))
    };
    let (m, k) = (dim(0, usize::from(trans_a))?, dim(0, usize::from(!trans_a))?);
    let (rows, cols) = (dim(1, usize::from(trans_b))?, dim(1, usize::from(!trans_b))?);
    if let (Dim::Known(x), Dim::Known(y)) = (&k, &rows)
        && x != y
    {
        let shapes = [0, 1].map(|i| n.shape(i).map_or(String::new(), |s| show(s)));
        return Err(OpError::new(format!(
            "{} and {} do not multiply: rows of {x} against columns of {y}",
            shapes[0], shapes[1]
        )));
    }
    let dtype = (0..3).find_map(|i| n.dtype(i));
    let fact = Fact::tensor(dtype, Some(vec![m, cols]));
    fits(n, 2, &fact)?;
    Ok(vec![fact])
}

/// `mk,kn->mn` and C broadcast.
fn axes(n: &NodeRef) -> Option<Axes> {
    let [trans_a, trans_b] = transposed(n).ok()?;
    let (a, b) = (usize::from(trans_a), usize::from(trans_b));
    let tie = |output, inputs: &[(usize, usize)]| Tie {
        output,
        inputs: inputs.to_vec(),
    };
    let ties = vec![
        tie(Some(0), &[(0, a)]),
        tie(Some(1), &[(1, 1 - b)]),
        tie(None, &[(0, 1 - a), (1, b)]),
    ];
    Some(added(n, Axes(ties)))
}

fn eval(n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let (Some(Some(a)), Some(Some(b))) = (x.first(), x.get(1)) else {
        return Err(OpError::new("expected two matrices"));
    };
    let [alpha, beta] = scales(n)?;
    let m = Matrices::new(a.dims(), b.dims(), transposed(n)?)?;
    check_size(&m.dims)?;
    let c = x.get(2).copied().flatten();
    let exact = alpha == 1.0 && (c.is_none() || beta == 1.0);
    let wide = |t: &Tensor| -> Result<Tensor, OpError> {
        let floats = t.floats().filter(|_| !exact || t.dtype().is_float());
        let wide = floats.and_then(|f| Tensor::rounded(DType::F64, t.dims(), &f));
        Ok(wide.unwrap_or_else(|| (*t).clone()))
    };
    let y = product(&m, &wide(a)?, &wide(b)?)?;
    let numbers = match c {
        None => scaled(Numbers::of(&y), alpha),
        Some(c) => sum(
            scaled(Numbers::of(&y), alpha),
            scaled(Numbers::of(&wide(c)?), beta),
            &starts(c.dims(), &m.dims),
        ),
    };
    let done = match numbers {
        Some(Numbers::Real(y)) => Tensor::rounded(a.dtype(), &m.dims, &y),
        Some(ints) => ints.tensor(a.dtype(), &m.dims),
        None => None,
    };
    done.map(|y| vec![y])
        .ok_or_else(|| OpError::new(format!("no product of {}", a.dtype())))
}

fn scaled(x: Option<Numbers>, by: f32) -> Option<Numbers> {
    match x? {
        Numbers::Real(x) if by != 1.0 => Some(Numbers::Real(x.iter().map(|x| x * f64::from(by)).collect())),
        other => Some(other),
    }
}

fn sum(y: Option<Numbers>, c: Option<Numbers>, at: &[usize]) -> Option<Numbers> {
    match (y?, c?) {
        (Numbers::Real(y), Numbers::Real(c)) => {
            Some(Numbers::Real(y.iter().zip(at).map(|(y, &i)| y + c[i]).collect()))
        }
        (Numbers::Int(y), Numbers::Int(c)) => Some(Numbers::Int(
            y.iter().zip(at).map(|(y, &i)| y.wrapping_add(c[i])).collect(),
        )),
        _ => None,
    }
}

fn kernels(n: &NodeRef, residual: Option<usize>, post: Post) -> Vec<Candidate> {
    let (Ok(transposed), Ok([alpha, beta])) = (transposed(n), scales(n)) else {
        return vec![];
    };
    let extra = Extra {
        alpha,
        add: [(2, beta), (residual.unwrap_or(usize::MAX), 1.0)],
        post,
    };
    cpu::candidates(n, transposed, extra)
}

fn cases() -> Vec<Case> {
    let case = |name, dims: [&[usize]; 3]| {
        let inputs = dims.iter().zip(1..).map(|(d, seed)| floats(d, seed));
        Case::new(name, inputs).within(1e-5, 1e-5)
    };
    let of = |dtype, dims: &[usize], seed| {
        let values = floats(dims, seed).floats().unwrap_or_default();
        Tensor::rounded(dtype, dims, &values).unwrap_or_else(|| Tensor::scalar(0f32))
    };
    vec![
        case("a bias by column", [&[13, 17], &[17, 33], &[33]]).konst(&[1]),
        case("both transposed", [&[17, 13], &[33, 17], &[1, 33]])
            .attr("transA", 1)
            .attr("transB", 1),
        case("constant transposed", [&[5, 17], &[33, 17], &[33]])
            .attr("transB", 1)
            .konst(&[1, 2]),
        case("scaled", [&[3, 4], &[4, 5], &[3, 5]])
            .attr("alpha", 0.25f32)
            .attr("beta", -2.0f32),
        case("nothing of C", [&[3, 4], &[4, 5], &[3, 5]]).attr("beta", 0.0f32),
        case("a bias by row", [&[3, 4], &[4, 5], &[3, 1]]),
        case("a scalar", [&[3, 4], &[4, 5], &[]]),
        case("no bias", [&[3, 4], &[4, 5], &[]]).without(2).opset(11),
        case("empty sums", [&[3, 0], &[0, 5], &[5]]),
        case("no rows", [&[0, 4], &[4, 5], &[5]]),
        case("one column", [&[3, 4], &[4, 1], &[3, 1]]),
        case("the first form", [&[3, 4], &[4, 5], &[5]])
            .opset(6)
            .attr("broadcast", 1),
        Case::new(
            "odd values",
            [
                tame_floats(&[4, 3], 1),
                floats(&[3, 2], 2),
                tame_floats(&[4, 2], 3),
            ],
        )
        .within(1e-5, 1e-5),
        Case::new(
            "integers",
            [
                Tensor::of(&[2, 1], vec![i64::MAX / 2, 3]),
                Tensor::of(&[1, 2], vec![2i64, 3]),
                Tensor::of(&[2], vec![7i64, 8]),
            ],
        )
        .opset(9),
        Case::new(
            "half precision",
            [
                of(DType::F16, &[5, 6], 1),
                of(DType::F16, &[6, 7], 2),
                of(DType::F16, &[7], 3),
            ],
        )
        .attr("beta", 0.5f32)
        .within(1e-2, 1e-3),
        Case::new(
            "double precision",
            [
                of(DType::F64, &[5, 6], 1),
                of(DType::F64, &[6, 7], 2),
                of(DType::F64, &[5, 7], 3),
            ],
        )
        .within(1e-12, 1e-12),
    ]
}
