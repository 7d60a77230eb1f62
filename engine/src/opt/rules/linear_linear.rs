//! Two linear maps in a row.

use crate::expr::{Builder, Ex};
use crate::ir::{Attr, DType, Node, Tensor, ValueId};
use crate::opt::{Match, Pattern, Rule, Scope, Site, Why};

/// Multiply-adds above which the product of the weights is not computed in advance.
const LIMIT: usize = 1 << 32;

/// `(x w1 + b1) w2` becomes `x (w1 w2) + b1 w2`, computed in `f64`, if that is cheaper: if `w1 w2` has fewer elements, and
/// fewer that are not zero, than `w1` and `w2` together. The same for `Gemm`, with its factors and biases.
///
/// Not if a weight is not a constant matrix of `float`: what was made of low rank to save work stays so.
pub(super) struct LinearLinear;

/// `rows` × `columns`.
struct Matrix {
    rows: usize,
    columns: usize,
    data: Vec<f64>,
}

impl Rule for LinearLinear {
    fn name(&self) -> &'static str {
        "linear-linear"
    }

    fn scope(&self) -> Scope {
        Scope::Portable
    }

    fn patterns(&self) -> Vec<Pattern> {
        vec![
            Pattern::loose(3, |x| x[0].op("Gemm", &[x[1]]).op("Gemm", &[x[2]])),
            Pattern::loose(3, |x| x[0].matmul(x[1]).matmul(x[2])),
            // Of two names for one place, because a sum by itself is matched as the whole chain.
            Pattern::loose(4, |x| x[0].matmul(x[1]).op("Add|Sum", &[x[3]]).matmul(x[2])),
        ]
    }

    fn rewrite<'a>(&self, m: &Match, site: &Site, b: &'a Builder) -> Result<Ex<'a>, Why> {
        let (Some(&outer), Some(&inner)) = (m.nodes.first(), m.nodes.last()) else {
            return Err(Why::NoEffect);
        };
        let (outer, inner) = (&site.graph[outer], &site.graph[inner]);
        let (w1, w2) = (weights(site, inner)?, weights(site, outer)?);
        let w = product(&w1, &w2)?;
        let x = b.at(m.inputs[0]);
        let new = x.tensor(w.tensor());
        let bias = match m.inputs.get(3) {
            Some(&v) => Some(row(site, v, w1.columns)?),
            None => bias(site, inner, w1.columns)?,
        };
        let through = match bias {
            Some(bias) => Some(product(&bias, &w2)?.data),
            None => None,
        };
        let after = bias_of(site, outer, w2.columns)?;
        let sum = match (through, after) {
            (Some(a), Some(b)) => Some(a.iter().zip(&b).map(|(a, b)| a + b).collect()),
            (a, b) => a.or(b),
        };
        let bias = sum.map(|data: Vec<f64>| {
            let data: Vec<f32> = data.iter().map(|&x| x as f32).collect();
            x.tensor(Tensor::of(&[data.len()], data))
        });
        Ok(match (inner.is("Gemm"), bias) {
            (true, Some(bias)) => x.op("Gemm", &[new, bias]),
            (true, None) => x.op("Gemm", &[new]),
            (false, Some(bias)) => x.matmul(new) + bias,
            (false, None) => x.matmul(new),
        })
    }
}

impl Matrix {
    fn tensor(&self) -> Tensor {
        let data: Vec<f32> = self.data.iter().map(|&x| x as f32).collect();
        Tensor::of(&[self.rows, self.columns], data)
    }

    fn filled(&self) -> usize {
        self.data.iter().filter(|&&x| x != 0.0).count()
    }
}

fn float(node: &Node, name: &str, default: f32) -> f64 {
    use crate::ir::AttrValue;
    match node.attr(name) {
        Some(AttrValue::Float(x)) => x.unwrap_or(0.0).into(),
        _ => default.into(),
    }
}

fn flag(node: &Node, name: &str) -> bool {
    node.attr(name).is_some_and(|a| *a != 0i64.into())
}

fn constant<'a>(site: &'a Site, v: ValueId) -> Result<&'a Tensor, Why> {
    let t = site.facts.konst(v).filter(|t| t.dtype() == DType::F32);
    t.map(|t| &**t).ok_or(Why::No("a weight is not a float constant"))
}

/// The matrix that `node` multiplies by from the right.
fn weights(site: &Site, node: &Node) -> Result<Matrix, Why> {
    let known = |a: &Attr| ["alpha", "beta", "transA", "transB"].contains(&&*a.name);
    if flag(node, "transA") || !node.attrs.iter().all(known) {
        return Err(Why::No("the input of a product is transposed"));
    }
    let v = node.inputs.get(1).copied().flatten().ok_or(Why::NoEffect)?;
    let t = constant(site, v)?;
    let &[rows, columns] = t.dims() else {
        return Err(Why::No("a weight is no matrix"));
    };
    let alpha = if node.is("Gemm") {
        float(node, "alpha", 1.0)
    } else {
        1.0
    };
    let x: Vec<f64> = t.floats().unwrap_or_default().iter().map(|x| alpha * x).collect();
    if !flag(node, "transB") {
        return Ok(Matrix {
            rows,
            columns,
            data: x,
        });
    }
    Ok(Matrix {
        rows: columns,
        columns: rows,
        data: (0..columns)
            .flat_map(|i| (0..rows).map(move |j| (i, j)))
            .map(|(i, j)| x[j * columns + i])
            .collect(),
    })
}

/// The constant `v` as a row of `len` elements.
fn row(site: &Site, v: ValueId, len: usize) -> Result<Matrix, Why> {
    let t = constant(site, v)?;
    let data = t.floats().unwrap_or_default();
    match t.dims() {
        [n] | [1, n] if *n == len => Ok(Matrix {
            rows: 1,
            columns: len,
            data,
        }),
        _ => Err(Why::No("a bias is no row of one element a column")),
    }
}

/// What a `Gemm` adds.
fn bias(site: &Site, node: &Node, len: usize) -> Result<Option<Matrix>, Why> {
    let Some(v) = node.inputs.get(2).copied().flatten() else {
        return Ok(None);
    };
    let mut row = row(site, v, len)?;
    let beta = float(node, "beta", 1.0);
    row.data.iter_mut().for_each(|x| *x *= beta);
    Ok(Some(row))
}

fn bias_of(site: &Site, node: &Node, len: usize) -> Result<Option<Vec<f64>>, Why> {
    Ok(bias(site, node, len)?.map(|row| row.data))
}

/// `a b`, if it is cheaper to multiply by than `a` and then `b`. A row is always worth it.
fn product(a: &Matrix, b: &Matrix) -> Result<Matrix, Why> {
    if a.columns != b.rows {
        return Err(Why::No("the weights do not fit each other"));
    }
    let apart = a.data.len() + b.data.len();
    let work = a.data.len().checked_mul(b.columns);
    if a.rows > 1 && a.rows.checked_mul(b.columns).is_none_or(|n| n >= apart) {
        return Err(Why::No("two products are no dearer than one"));
    }
    if work.is_none_or(|n| n > LIMIT) {
        return Err(Why::No(
            "the product of the weights is too large to compute in advance",
        ));
    }
    let mut data = vec![0.0; a.rows * b.columns];
    for (out, a) in data
        .chunks_mut(b.columns.max(1))
        .zip(a.data.chunks(a.columns.max(1)))
    {
        for (&x, b) in a.iter().zip(b.data.chunks(b.columns.max(1))) {
            out.iter_mut().zip(b).for_each(|(y, b)| *y += x * b);
        }
    }
    let c = Matrix {
        rows: a.rows,
        columns: b.columns,
        data,
    };
    if a.rows > 1 && c.filled() >= a.filled() + b.filled() {
        return Err(Why::No("two products with these zeros are no dearer than one"));
    }
    Ok(c)
}
