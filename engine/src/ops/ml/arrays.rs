//! Operators that prepare features: scaling, replacing, encoding, joining.

use std::collections::HashMap;

use super::{floats, misfit, numeric};
use crate::cpu::moves::{chunks, short};
use crate::cpu::{Candidate, Cost, Io};
use crate::expr::Ex;
use crate::ir::{Attr, DType, Dim, Tensor, count};
use crate::ops::cast::widened;
use crate::ops::pick::{given, room};
use crate::ops::shape::{arity, like_first, tied};
use crate::ops::{Axes, Case, Fact, NodeRef, Op, OpError, OpName, case, ml};

fn to(x: Ex<'_>, dtype: DType) -> Ex<'_> {
    x.with("Cast", &[], vec![Attr::new("to", i64::from(dtype.code()))])
}

/// Checks that `len` values are one, or one for each column of input 0.
fn per_column(n: &NodeRef, name: &str, len: usize) -> Result<(), OpError> {
    let columns = n.shape(0).and_then(|s| s.last()?.size());
    match columns {
        Some(c) if len > 1 && len != c => Err(OpError::new(format!(
            "attribute {name:?} has {len} values for {c} columns"
        ))),
        _ => Ok(()),
    }
}

/// One value for each column, or one for all, as a constant beside `x` of type `dtype`.
fn constant<'a>(x: Ex<'a>, dtype: DType, values: &[f64]) -> Option<Ex<'a>> {
    let dims: &[usize] = if values.len() == 1 { &[] } else { &[values.len()] };
    Some(x.tensor(Tensor::rounded(dtype, dims, values)?))
}

/// `(x - offset) * scale`, both by column.
pub struct Scaler;

impl Op for Scaler {
    fn name(&self) -> OpName {
        ml("Scaler")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        numeric(n)?;
        for name in ["offset", "scale"] {
            per_column(n, name, n.floats(name)?.map_or(1, <[f32]>::len))?;
        }
        Ok(vec![Fact::tensor(Some(DType::F32), n.shape(0).cloned())])
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let x = *x.first()?;
        let values = |name| Some(super::widened(n.floats(name).ok()?)).filter(|v| !v.is_empty());
        // Only floats are scaled as floats; the others might lose digits.
        let wide = if n.dtype(0)? == DType::F32 {
            DType::F32
        } else {
            DType::F64
        };
        let mut y = if n.dtype(0)? == wide { x } else { to(x, wide) };
        if let Some(offset) = values("offset") {
            y = y - constant(x, wide, &offset)?;
        }
        if let Some(scale) = values("scale") {
            y = y * constant(x, wide, &scale)?;
        }
        if y.id == x.id {
            y = x.op("Identity", &[]);
        }
        Some(vec![if wide == DType::F32 { y } else { to(y, DType::F32) }])
    }

    fn cases(&self) -> Vec<Case> {
        let ints = Tensor::of(&[2, 2], vec![1i64, 2, 3, i64::MAX]);
        vec![
            Case::new("columns", [case::floats(&[5, 3], 1)])
                .attr("offset", vec![1f32, -2.0, 0.5])
                .attr("scale", vec![0.5f32, 2.0, 1.0])
                .opset(1),
            Case::new("integers", [ints])
                .attr("offset", vec![1f32])
                .attr("scale", vec![0.5f32])
                .opset(1),
            Case::new("neither", [case::floats(&[3], 1)]).opset(1),
        ]
    }
}

/// 1 above the threshold, else 0.
pub struct Binarizer;

impl Op for Binarizer {
    fn name(&self) -> OpName {
        ml("Binarizer")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        numeric(n)?;
        n.float("threshold")?;
        like_first(n)
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let (x, dtype) = (*x.first()?, n.dtype(0)?);
        let mut threshold = f64::from(n.float_or("threshold", 0.0).ok()?);
        if dtype.is_int() {
            threshold = threshold.floor();
        }
        let above = x.op("Greater", &[constant(x, dtype, &[threshold])?]);
        Some(vec![to(above, dtype)])
    }

    fn cases(&self) -> Vec<Case> {
        let case = |name, x| Case::new(name, [x]).attr("threshold", -0.5f32).opset(1);
        vec![
            case("floats", case::odd_floats(&[3, 5], 1)),
            case("integers", Tensor::of(&[3], vec![-1i64, 0, 1])),
            Case::new("at 0", [case::floats(&[0, 3], 1)]).opset(1),
        ]
    }
}

/// Other values, by column, for one that stands for what is missing.
pub struct Imputer;

/// The value that is replaced, and those that replace it.
fn imputed(n: &NodeRef, ints: bool) -> Result<(f64, Vec<f64>), OpError> {
    let of = n.float_or("replaced_value_float", 0.0)?;
    let to = super::widened(n.floats("imputed_value_floats")?);
    let whole = n.int_or("replaced_value_int64", 0)?;
    let wholes = n.ints("imputed_value_int64s")?.unwrap_or(&[]);
    let found = match ints {
        true => (whole as f64, wholes.iter().map(|&w| w as f64).collect()),
        false => (of.into(), to),
    };
    match found.1.is_empty() {
        true => Err(OpError::new(
            "expected values to impute, of the type of the input",
        )),
        false => Ok(found),
    }
}

impl Op for Imputer {
    fn name(&self) -> OpName {
        ml("Imputer")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        numeric(n)?;
        if let Some(d) = n.dtype(0) {
            per_column(n, "imputed_value", imputed(n, d.is_int())?.1.len())?;
        }
        like_first(n)
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let (x, dtype) = (*x.first()?, n.dtype(0)?);
        let (of, to) = imputed(n, dtype.is_int()).ok()?;
        let gone = match of.is_nan() {
            true => x.op("IsNaN", &[]),
            false => x.op("Equal", &[constant(x, dtype, &[of])?]),
        };
        Some(vec![gone.op("Where", &[constant(x, dtype, &to)?, x])])
    }

    fn cases(&self) -> Vec<Case> {
        let nan = Tensor::of(&[2, 2], vec![f32::NAN, 1.0, 2.0, f32::NAN]);
        vec![
            Case::new("NaN", [nan])
                .attr("replaced_value_float", f32::NAN)
                .attr("imputed_value_floats", vec![5f32, 7.0])
                .opset(1),
            Case::new("integers", [Tensor::of(&[3], vec![-1i64, 0, 1])])
                .attr("replaced_value_int64", -1)
                .attr("imputed_value_int64s", vec![9i64])
                .opset(1),
        ]
    }
}

/// Rows divided by their greatest element, the sum of their absolute values or their length; not those where that is 0.
pub struct Normalizer;

#[derive(Clone, Copy)]
enum Norm {
    Max,
    L1,
    L2,
}

impl Norm {
    fn read(n: &NodeRef) -> Result<Norm, OpError> {
        match n.str_or("norm", "MAX")? {
            "MAX" => Ok(Norm::Max),
            "L1" => Ok(Norm::L1),
            "L2" => Ok(Norm::L2),
            other => Err(OpError::new(format!("norm {other:?}; expected MAX, L1 or L2"))),
        }
    }

    fn row(self, x: &[f64], y: &mut [f32]) {
        let by = match self {
            Norm::Max => x.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            Norm::L1 => x.iter().map(|x| x.abs()).sum(),
            Norm::L2 => x.iter().map(|x| x * x).sum::<f64>().sqrt(),
        };
        let by = if by == 0.0 { 1.0 } else { by };
        y.iter_mut().zip(x).for_each(|(y, x)| *y = (x / by) as f32);
    }
}

impl Op for Normalizer {
    fn name(&self) -> OpName {
        ml("Normalizer")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        numeric(n)?;
        Norm::read(n)?;
        super::table(n)?;
        Ok(vec![Fact::tensor(Some(DType::F32), n.shape(0).cloned())])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        let rank = n.rank(0)?;
        Some(tied(rank, |i| if i + 1 < rank { vec![(0, i)] } else { vec![] }))
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (x, norm) = (given(x, 0)?, Norm::read(n)?);
        let numbers = x.floats().ok_or_else(|| OpError::new("expected numbers"))?;
        let width = x.dims().last().copied().unwrap_or(1).max(1);
        let mut y = vec![0f32; numbers.len()];
        let rows = numbers.chunks(width).zip(y.chunks_mut(width));
        rows.for_each(|(x, y)| norm.row(x, y));
        Ok(vec![Tensor::of(x.dims(), y)])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let (Some(dims), Some(dtype), Ok(norm)) = (n.dims(0), n.dtype(0), Norm::read(n)) else {
            return vec![];
        };
        let width = dims.last().copied().unwrap_or(1).max(1);
        let each = (4096 / width).max(1) * width;
        let size = dtype.bits() / 8;
        let run = move |io: &mut Io| {
            let (pool, x) = (io.pool, io.input(0).bytes());
            chunks(pool, io.output(0).slice::<f32>(), each, &|part, y| {
                let x = widened(dtype, &x[part * each * size..][..y.len() * size]);
                let rows = x.chunks(width).zip(y.chunks_mut(width));
                rows.for_each(|(x, y)| norm.row(x, y));
            });
        };
        let bytes = count(&dims).unwrap_or(0).saturating_mul(size + 4);
        vec![Candidate::new(
            format!("normalizer.{}", short(dtype)),
            Cost::bytes(bytes),
            run,
        )]
    }

    fn cases(&self) -> Vec<Case> {
        let x = || Tensor::of(&[3, 2], vec![1f32, 2.0, -1.0, -2.0, 0.0, 0.0]);
        vec![
            Case::new("by default", [x()]).opset(1),
            Case::new("sums", [x()]).attr("norm", "L1").opset(1),
            Case::new("lengths", [case::floats(&[900, 7], 1)])
                .attr("norm", "L2")
                .opset(1),
            Case::new("one row", [Tensor::of(&[3], vec![1i32, 2, -3])])
                .attr("norm", "L2")
                .opset(1),
            Case::new("nothing", [case::floats(&[2, 0], 1)]).opset(1),
        ]
    }
}

/// Inputs as floats, side by side, each with as many columns as the attribute says.
pub struct FeatureVectorizer;

/// The columns of each input.
fn columns(n: &NodeRef) -> Result<Vec<usize>, OpError> {
    let all = n.ints("inputdimensions")?.unwrap_or(&[]);
    if all.len() != n.arity() {
        return Err(OpError::new(format!(
            "{} inputdimensions for {} inputs",
            all.len(),
            n.arity()
        )));
    }
    let wrong = |c: i64| OpError::new(format!("{c} columns in inputdimensions"));
    all.iter()
        .map(|&c| usize::try_from(c).map_err(|_| wrong(c)))
        .collect()
}

impl Op for FeatureVectorizer {
    fn name(&self) -> OpName {
        ml("FeatureVectorizer")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, n.arity().max(1), usize::MAX)?;
        let sum = columns(n)?.into_iter().try_fold(0usize, usize::checked_add);
        let sum = sum.ok_or_else(|| OpError::new("there are too many columns"))?;
        let mut rows = Dim::Unknown;
        for i in 0..n.arity() {
            let here = match n.shape(i).map(|s| &s[..]) {
                None => continue,
                Some([]) => return Err(OpError::new(format!("input {i} is a scalar"))),
                Some([_]) => Dim::Known(1),
                Some([r, ..]) => r.clone(),
            };
            if let (Dim::Known(a), Dim::Known(b)) = (&rows, &here)
                && a != b
            {
                return Err(OpError::new(format!("input {i} has {b} rows; expected {a}")));
            }
            if rows.known().is_none() {
                rows = here;
            }
        }
        Ok(vec![floats(vec![rows, sum.into()])])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let parts = columns(n).ok()?.into_iter().enumerate().map(|(i, c)| {
            let shape = n.shape(i)?;
            let own = shape.last()?.size()?;
            let x = if n.dtype(i)? == DType::F32 {
                x[i]
            } else {
                to(x[i], DType::F32)
            };
            match (shape.len(), own == c) {
                (1, true) => Some(x.op("Reshape", &[x.tensor(Tensor::of(&[2], vec![1i64, own as i64]))])),
                (2, true) => Some(x),
                _ => None,
            }
        });
        let parts = parts.collect::<Option<Vec<_>>>()?;
        let (first, rest) = parts.split_first()?;
        Some(vec![first.with("Concat", rest, vec![Attr::new("axis", 1)])])
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let columns = columns(n)?;
        let mut parts = vec![];
        for (i, &c) in columns.iter().enumerate() {
            let t = given(x, i)?;
            let all = t.floats();
            let all = all.ok_or_else(|| OpError::new(format!("input {i} is no tensor of numbers")))?;
            let rows = if t.dims().len() < 2 { 1 } else { t.dims()[0] };
            parts.push((all, rows, t.len() / rows.max(1), c));
        }
        let rows = parts.first().map_or(0, |p| p.1);
        if parts.iter().any(|p| p.1 != rows) {
            return Err(OpError::new("the inputs differ in their number of rows"));
        }
        let width = columns.iter().try_fold(0usize, |s, &c| s.checked_add(c));
        let mut y = room(width.and_then(|w| w.checked_mul(rows)))?;
        for row in 0..rows {
            for (all, _, own, c) in &parts {
                // Columns that an input lacks are 0.
                let at = |k: usize| if k < *own { all[row * own + k] as f32 } else { 0.0 };
                y.extend((0..*c).map(at));
            }
        }
        Ok(vec![Tensor::of(&[rows, width.unwrap_or(0)], y)])
    }

    fn cases(&self) -> Vec<Case> {
        let ints = |dims: &[usize]| Tensor::of(dims, (0..dims.iter().product::<usize>() as i64).collect());
        vec![
            Case::new("two", [case::floats(&[3, 2], 1), case::floats(&[3, 1], 2)])
                .attr("inputdimensions", vec![2i64, 1])
                .opset(1),
            Case::new("integers", [ints(&[4]), ints(&[2])])
                .attr("inputdimensions", vec![4i64, 2])
                .opset(1),
            Case::new("cut and filled", [ints(&[2, 3]), ints(&[2, 2])])
                .attr("inputdimensions", vec![2i64, 4])
                .opset(1),
        ]
    }
}

/// Columns picked by their numbers.
pub struct ArrayFeatureExtractor;

impl Op for ArrayFeatureExtractor {
    fn name(&self) -> OpName {
        ml("ArrayFeatureExtractor")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 2, 2)?;
        let picked = n.shape(1).map_or(Dim::Unknown, |s| crate::ops::shape::product(s));
        let shape = n.shape(0).map(|s| match s.len() {
            0 | 1 => vec![Dim::Known(1), picked],
            r => [&s[..r - 1], &[picked]].concat(),
        });
        Ok(vec![Fact::tensor(n.dtype(0), shape)])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        let rank = n.rank(0)?;
        Some(tied(rank, |i| if i + 1 < rank { vec![(0, i)] } else { vec![] }))
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let (of, by) = (*x.first()?, *x.get(1)?);
        let list = |l: Vec<i64>| of.tensor(Tensor::of(&[l.len()], l));
        let (of, rank) = match n.rank(0)? {
            0 | 1 => (of.op("Reshape", &[list(vec![1, -1])]), 2),
            r => (of, r),
        };
        let by = by.op("Reshape", &[list(vec![-1])]);
        Some(vec![of.with(
            "Gather",
            &[by],
            vec![Attr::new("axis", rank as i64 - 1)],
        )])
    }

    fn cases(&self) -> Vec<Case> {
        let by = |dims: &[usize], l: &[i64]| Tensor::of(dims, l.to_vec());
        vec![
            Case::new("columns", [case::floats(&[3, 4], 1), by(&[2], &[0, 2])]).opset(1),
            Case::new("of a vector", [case::floats(&[4], 1), by(&[1, 2], &[3, 3])]).opset(1),
            Case::new(
                "strings",
                [Tensor::texts(&[1, 3], ["a", "b", "c"]), by(&[1], &[1])],
            )
            .opset(1),
        ]
    }
}

/// For each element, 1 in the place of its category and 0 elsewhere.
pub struct OneHotEncoder;

/// The number of categories.
fn categories(n: &NodeRef) -> Result<usize, OpError> {
    let ints = n.ints("cats_int64s")?.map_or(0, <[i64]>::len);
    let texts = n.strings("cats_strings")?.map_or(0, <[Vec<u8>]>::len);
    match (ints, texts) {
        (i, 0) => Ok(i),
        (0, t) => Ok(t),
        _ => Err(misfit("categories that are integers and others that are strings")),
    }
}

impl Op for OneHotEncoder {
    fn name(&self) -> OpName {
        ml("OneHotEncoder")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        n.int("zeros")?;
        if n.dtype(0) != Some(DType::String) {
            numeric(n)?;
        }
        let all = categories(n)?;
        let shape = n.shape(0).map(|s| [&s[..], &[all.into()]].concat());
        Ok(vec![Fact::tensor(Some(DType::F32), shape)])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        let rank = n.rank(0)?;
        Some(tied(rank + 1, |i| if i < rank { vec![(0, i)] } else { vec![] }))
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (x, width) = (given(x, 0)?, categories(n)?);
        let places: Vec<Option<usize>> = match x.dtype() {
            DType::String => {
                let all = n.strings("cats_strings")?.unwrap_or(&[]);
                let at: HashMap<&[u8], usize> = all.iter().map(|c| &c[..]).zip(0..).collect();
                x.strings().iter().map(|s| at.get(&s[..]).copied()).collect()
            }
            dtype => {
                let all = n.ints("cats_int64s")?.unwrap_or(&[]);
                let at: HashMap<i64, usize> = all.iter().copied().zip(0..).collect();
                let whole = || Some(x.floats()?.into_iter().map(|x| x as i64).collect());
                let ints: Option<Vec<i64>> = x.ints().or_else(whole);
                let ints = ints.ok_or_else(|| OpError::new(format!("elements of type {dtype}")))?;
                ints.iter().map(|i| at.get(i).copied()).collect()
            }
        };
        if n.int_or("zeros", 1)? == 0 && places.contains(&None) {
            return Err(OpError::new("an element is of no category"));
        }
        let mut y = room(places.len().checked_mul(width))?;
        y.resize(places.len() * width, 0f32);
        for (i, at) in places.iter().enumerate() {
            if let Some(at) = at {
                y[i * width + at] = 1.0;
            }
        }
        Ok(vec![Tensor::of(&[x.dims(), &[width]].concat(), y)])
    }

    fn cases(&self) -> Vec<Case> {
        let words = crate::ir::AttrValue::Strings(vec![b"a".to_vec(), b"b".to_vec()]);
        vec![
            Case::new("integers", [Tensor::of(&[2, 2], vec![1i64, 3, 2, 1])])
                .attr("cats_int64s", vec![1i64, 2])
                .opset(1),
            Case::new("floats", [Tensor::of(&[2], vec![1.5f32, 2.0])])
                .attr("cats_int64s", vec![1i64, 2])
                .attr("zeros", 0)
                .opset(1),
            Case::new("strings", [Tensor::texts(&[3], ["b", "c", "a"])])
                .attr("cats_strings", words)
                .opset(1),
        ]
    }
}
