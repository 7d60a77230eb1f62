//! ONNX `Einsum`: sums of products, as an equation of letters says.

mod equation;
mod product;

use super::formula::{count_up, ints};
use super::grad::{only, spread};
use super::pick::{given, indices, place, room};
use super::shape::{same_dtype, show};
use super::{Axes, Case, Exs, Fact, Grads, NodeRef, Op, OpError, OpName, Tie, case, onnx};
use crate::cpu::number::Numbers;
use crate::expr::Ex;
use crate::ir::{Attr, DType, Dim, Tensor, count};
use equation::{Equation, Letter, read};

/// ONNX `Einsum`.
pub struct Einsum;

/// The size that both sizes of a letter stand for; 1 is stretched.
fn common(a: &Dim, b: &Dim) -> Option<Dim> {
    match (a, b) {
        (Dim::Known(1), other) | (other, Dim::Known(1)) => Some(other.clone()),
        (Dim::Known(x), Dim::Known(y)) => (x == y).then(|| a.clone()),
        (Dim::Known(_), _) | (_, Dim::Unknown) => Some(a.clone()),
        _ => Some(b.clone()),
    }
}

/// The size of `letter`, as far as the shapes of the inputs say it.
fn size(n: &NodeRef, eq: &Equation, letter: Letter) -> Result<Dim, OpError> {
    let mut size: Option<Dim> = None;
    for (i, term) in eq.terms.iter().enumerate() {
        let Some(shape) = n.shape(i) else {
            // It may be stretched by what is not known.
            if term.contains(&letter) {
                size = size.filter(|s| *s != Dim::Known(1)).or(Some(Dim::Unknown));
            }
            continue;
        };
        for (axis, _) in term.iter().enumerate().filter(|(_, l)| **l == letter) {
            let here = &shape[axis];
            size = Some(match &size {
                None => here.clone(),
                Some(s) => common(s, here).ok_or_else(|| {
                    OpError::new(format!(
                        "axis {axis} of input {i} of shape {} is of size {here}; expected {s}",
                        show(shape)
                    ))
                })?,
            });
        }
    }
    Ok(size.unwrap_or(Dim::Unknown))
}

fn missing(n: &NodeRef) -> Result<(), OpError> {
    match (0..n.arity()).find(|&i| !n.has(i)) {
        Some(i) => Err(OpError::new(format!("input {i} is missing"))),
        None => Ok(()),
    }
}

/// The gradient of input `i`: the sum with the result's in its place, stretched along axes that nothing else has, and on the
/// diagonal of a letter that stands twice. `None` where a size that it takes is not known.
fn gradient<'a>(n: &NodeRef, eq: &Equation, i: usize, x: &[Ex<'a>], dy: Ex<'a>) -> Option<Ex<'a>> {
    let term = &eq.terms[i];
    let others = (0..x.len()).filter(|&j| j != i);
    let terms = std::iter::once(&eq.out).chain(others.clone().map(|j| &eq.terms[j]));
    let terms: Vec<_> = terms.cloned().collect();
    let again = |axis: usize| term[..axis].iter().position(|l| *l == term[axis]);
    let part = |axis: &usize| again(*axis).is_none() && terms.iter().any(|t| t.contains(&term[*axis]));
    let (shown, gone): (Vec<usize>, Vec<usize>) = (0..term.len()).partition(part);
    let reversed = Equation {
        terms: terms.clone(),
        out: shown.iter().map(|&axis| term[axis]).collect(),
    };
    let rest: Vec<_> = others.map(|j| x[j]).collect();
    let sum = dy.with("Einsum", &rest, vec![Attr::new("equation", &*reversed.text()?)]);
    let gone: Vec<_> = gone.into_iter().map(|axis| axis as i64).collect();
    let sum = match gone.is_empty() {
        true => sum,
        false => sum.op("Unsqueeze", &[ints(sum, &gone)]),
    };
    let mut all = spread(n, i, x[i], sum);
    for (axis, first) in (0..term.len()).filter_map(|axis| Some((axis, again(axis)?))) {
        let dims = n.dims(i)?;
        let along = |axis: usize| {
            let mut own = vec![1; dims.len()];
            own[axis] = dims[axis];
            count_up(all, &own, 0)
        };
        all = only(along(first).op("Equal", &[along(axis)]), all);
    }
    Some(all)
}

impl Op for Einsum {
    fn name(&self) -> OpName {
        onnx("Einsum")
    }

    fn since(&self) -> &'static [u16] {
        &[12]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        missing(n)?;
        same_dtype(n)?;
        let dtype = (0..n.arity()).find_map(|i| n.dtype(i));
        if let Some(d) = dtype.filter(|d| !d.is_float() && !d.is_int()) {
            return Err(OpError::new(format!("expected numbers, found {d}")));
        }
        let Some(eq) = read(n)? else {
            return Ok(vec![Fact::tensor(dtype, None)]);
        };
        // Sizes must agree for letters that are summed over too.
        for letter in eq.letters() {
            size(n, &eq, letter)?;
        }
        let shape = eq
            .out
            .iter()
            .map(|&l| size(n, &eq, l))
            .collect::<Result<_, _>>()?;
        Ok(vec![Fact::tensor(dtype, Some(shape))])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        let eq = read(n).ok()??;
        let stretched = |i: usize, axis: usize| n.shape(i).is_none_or(|s| s[axis] == Dim::Known(1));
        let tie = |letter| Tie {
            output: eq.out.iter().position(|&l| l == letter),
            inputs: (0..eq.terms.len())
                .filter_map(|i| Some((i, eq.terms[i].iter().position(|&l| l == letter)?)))
                .filter(|&(i, axis)| !stretched(i, axis))
                .collect(),
        };
        (!eq.repeats()).then(|| Axes(eq.letters().into_iter().map(tie).collect()))
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let multiplies =
            |d: DType| d.is_float() || matches!(d, DType::I32 | DType::I64 | DType::U32 | DType::U64);
        let fits = (0..x.len()).all(|i| n.dtype(i).is_none_or(multiplies));
        let eq = read(n).ok()?.filter(|eq| fits && !eq.repeats())?;
        Some(vec![product::body(n, &eq, x)?])
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let x = (0..x.len()).map(|i| given(x, i)).collect::<Result<Vec<_>, _>>()?;
        let eq = super::pick::knowing(n, &x.iter().map(|t| Some(*t)).collect::<Vec<_>>(), |n| {
            self.infer(n)?;
            let eq = read(n)?.ok_or_else(|| OpError::new("a rank is not known"))?;
            let sizes = eq.letters().into_iter();
            let sizes = sizes.map(|l| Ok((l, size(n, &eq, l)?.size().unwrap_or(0))));
            Ok((eq.clone(), sizes.collect::<Result<Vec<_>, OpError>>()?))
        });
        let (eq, sizes) = eq?;
        sum_of_products(&eq, &sizes, &x).map(|y| vec![y])
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let (eq, dy) = (read(n).ok()??, dy[0]?);
        let x: Vec<_> = x.iter().copied().collect::<Option<_>>()?;
        (0..x.len())
            .map(|i| Some(Some(gradient(n, &eq, i, &x, dy)?)))
            .collect()
    }

    fn cases(&self) -> Vec<Case> {
        let case = |name, equation: &'static str, dims: &[&[usize]]| {
            let x = dims.iter().zip(1..).map(|(d, seed)| case::floats(d, seed));
            Case::new(name, x).attr("equation", equation).within(1e-4, 1e-5)
        };
        let bytes = |dims: &[usize]| {
            Tensor::of(
                dims,
                (0..dims.iter().product::<usize>())
                    .map(|i| i as u8 * 50)
                    .collect(),
            )
        };
        let ints = |dims: &[usize]| {
            Tensor::of(
                dims,
                (0..dims.iter().product::<usize>())
                    .map(|i| i as i64 - 3)
                    .collect(),
            )
        };
        vec![
            case("a product", "ij, jk -> ik", &[&[3, 4], &[4, 5]]),
            case("implicit", "ij,jk", &[&[3, 4], &[4, 5]]),
            case("implicit order", "ba", &[&[3, 4]]),
            case("attention", "bhid,bhjd->bhij", &[&[2, 3, 4, 5], &[2, 3, 6, 5]]),
            case("many at once", "bid,hdk->bhik", &[&[2, 3, 4], &[5, 4, 6]]),
            case(
                "many letters summed",
                "abcd,cdbe->ae",
                &[&[2, 3, 4, 5], &[4, 5, 3, 2]],
            ),
            case("turned round", "abc,cd->dab", &[&[2, 3, 4], &[4, 5]]).opset(12),
            case("outer", "i,j->ji", &[&[3], &[4]]),
            case("elements", "ij,ij->ij", &[&[3, 4], &[3, 4]]),
            case("rows", "ij,ij->i", &[&[3, 4], &[3, 4]]).opset(12),
            case("dot", "ij,ij->", &[&[3, 4], &[3, 4]]),
            case("sums before", "ijl,jkm->ik", &[&[3, 4, 2], &[4, 5, 3]]).opset(12),
            case("sums", "ijk->j", &[&[2, 3, 4]]),
            case("everything", "ij->", &[&[2, 3]]),
            case("a scalar", "->", &[&[]]),
            case("transposed", "i...j->j...i", &[&[2, 3, 4, 5]]),
            case("batches", "...ij,...jk->...ik", &[&[2, 1, 3, 4], &[5, 4, 2]]),
            case("batches, implicit", "...ij,...jk", &[&[2, 3, 4], &[2, 4, 2]]),
            case("summed batches", "...i->i", &[&[2, 3, 4]]),
            case("stretched", "ij,jk->ik", &[&[3, 1], &[4, 5]]),
            case("diagonal", "...ii->...i", &[&[2, 3, 3]]),
            case("trace", "ii", &[&[3, 3]]),
            case("three", "ij,jk,kl->il", &[&[2, 3], &[3, 4], &[4, 5]]),
            case("four", "a,ab,bc,c->", &[&[2], &[2, 3], &[3, 4], &[4]]),
            case("three at once", "bi,bj,bk->ijk", &[&[2, 3], &[2, 4], &[2, 5]]),
            case("nothing", "ij,jk->ik", &[&[0, 3], &[3, 2]]),
            case("empty sums", "ij,jk->ik", &[&[2, 0], &[0, 2]]),
            Case::new("bytes", [bytes(&[2, 3]), bytes(&[3, 2])]).attr("equation", "ij,jk->ik"),
            Case::new("integers", [ints(&[2, 3]), ints(&[3, 2])]).attr("equation", "ij,jk->ki"),
        ]
    }
}

/// The result by definition: for each index of the output, all indices of the letters that are summed over.
fn sum_of_products(eq: &Equation, sizes: &[(Letter, usize)], x: &[&Tensor]) -> Result<Tensor, OpError> {
    let numbers = x.iter().map(|t| Numbers::of(t)).collect::<Option<Vec<_>>>();
    let numbers = numbers.ok_or_else(|| OpError::new("expected numbers"))?;
    let of = |l: &Letter| sizes.iter().find(|s| s.0 == *l).map_or(0, |s| s.1);
    let summed: Vec<Letter> = eq.letters().into_iter().filter(|l| !eq.out.contains(l)).collect();
    let dims: Vec<usize> = eq.out.iter().map(of).collect();
    let inner: Vec<usize> = summed.iter().map(of).collect();
    // Where the index of each axis of each input stands among those of the output and those that are summed over.
    let at = |l: &Letter| {
        let all = eq.out.iter().chain(&summed);
        all.enumerate().find(|(_, m)| *m == l).map_or(0, |(i, _)| i)
    };
    let axes: Vec<Vec<usize>> = eq.terms.iter().map(|t| t.iter().map(at).collect()).collect();
    let places = |at: &[usize], with: &[usize]| -> Vec<usize> {
        let one = |(t, axes): (&&Tensor, &Vec<usize>)| {
            let along = |&k: &usize| at.get(k).copied().unwrap_or_else(|| with[k - at.len()]);
            let index = axes.iter().zip(t.dims());
            place(index.map(|(k, &d)| if d == 1 { 0 } else { along(k) }), t.dims())
        };
        x.iter().zip(&axes).map(one).collect()
    };
    let real = |i: usize, p: usize| match &numbers[i] {
        Numbers::Real(v) => v[p],
        Numbers::Int(v) => v[p] as f64,
    };
    let int = |i: usize, p: usize| match &numbers[i] {
        Numbers::Int(v) => v[p],
        Numbers::Real(_) => 0,
    };
    let ints = matches!(numbers.first(), Some(Numbers::Int(_)));
    let (mut reals, mut whole) = (room(count(&dims))?, room(count(&dims))?);
    indices(&dims, |at| {
        let (mut sum, mut low) = (0.0, 0i128);
        indices(&inner, |with| {
            let p = places(at, with);
            match ints {
                true => {
                    let product = p
                        .iter()
                        .enumerate()
                        .fold(1i128, |y, (i, &p)| y.wrapping_mul(int(i, p)));
                    low = low.wrapping_add(product);
                }
                false => sum += p.iter().enumerate().map(|(i, &p)| real(i, p)).product::<f64>(),
            }
            Ok(())
        })?;
        if ints {
            whole.push(low);
        } else {
            reals.push(sum);
        }
        Ok(())
    })?;
    let y = if ints {
        Numbers::Int(whole)
    } else {
        Numbers::Real(reals)
    };
    let dtype = x.first().map_or(DType::F32, |t| t.dtype());
    y.tensor(dtype, &dims)
        .ok_or_else(|| OpError::new("the inputs have several element types"))
}
