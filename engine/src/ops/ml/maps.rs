//! Operators that take or make dictionaries.

use std::collections::HashMap;

use super::misfit;
use super::rows::Labels;
use crate::ir::{DType, Data, Datum, Dim, Map, Tensor, Type};
use crate::ops::shape::arity;
use crate::ops::{Axes, Bodies, Fact, Laws, NodeRef, Op, OpError, OpName, ml};

/// A dictionary's values in the order of their keys or, where `SPARSE`, each in the place that is its key: `[1, n]`.
pub struct CastMap;

/// A dictionary's values in the places that a list gives their keys: `[1, n]`.
pub struct DictVectorizer;

/// Each row of a tensor as a dictionary from labels to its elements.
pub struct ZipMap;

/// The laws of an operator on values that are no tensors.
const ANY: Laws = Laws {
    blocks: false,
    impure: false,
    any: true,
    commutes: false,
    associates: false,
    view: false,
    still: false,
    elementwise: false,
    in_place: &[],
};

fn dictionary<'a>(x: &[Option<&'a Datum>]) -> Result<&'a Map, OpError> {
    match x.first() {
        Some(Some(Datum::Map(m))) => Ok(m),
        _ => Err(OpError::new("expected a dictionary")),
    }
}

/// The type of input 0's values, if it is known to be a dictionary of tensors.
fn value_type(n: &NodeRef) -> Result<Option<DType>, OpError> {
    arity(n, 1, 1)?;
    match n.input(0).map(|x| &x.fact.ty) {
        Some(Type::Map { value, .. }) => Ok(value.dtype()),
        None | Some(Type::Unknown) => Ok(None),
        Some(other) => Err(OpError::new(format!("input 0 is {other}; expected a dictionary"))),
    }
}

/// `t` with element `i` where `at` says `Some(i)`, else zero or the empty string.
fn spread(t: &Tensor, at: &[Option<usize>]) -> Result<Tensor, OpError> {
    let nothing = Tensor::zeros(t.dtype(), &[1]);
    let nothing = nothing.ok_or_else(|| OpError::new(format!("values of type {}", t.dtype())))?;
    let dims = [1, at.len()];
    crate::ops::pick::pick(t.dtype(), &dims, &[t, &nothing], |k| {
        Ok(at[k[1]].map_or((1, 0), |i| (0, i)))
    })
}

/// The element type that `cast_to` names.
fn target(n: &NodeRef) -> Result<DType, OpError> {
    match n.str_or("cast_to", "TO_FLOAT")? {
        "TO_FLOAT" => Ok(DType::F32),
        "TO_INT64" => Ok(DType::I64),
        "TO_STRING" => Ok(DType::String),
        other => Err(OpError::new(format!("there is no cast_to {other:?}"))),
    }
}

/// The length of the result where keys are places.
fn sparse(n: &NodeRef) -> Result<Option<usize>, OpError> {
    let most = n.int_or("max_map", 1)?;
    match n.str_or("map_form", "DENSE")? {
        "DENSE" => Ok(None),
        "SPARSE" => usize::try_from(most)
            .map(Some)
            .map_err(|_| misfit(format_args!("max_map is {most}"))),
        other => Err(OpError::new(format!("there is no map_form {other:?}"))),
    }
}

/// Values as `to` has them. Floats become strings with six digits behind the point, as in ONNX Runtime.
fn cast(t: &Tensor, to: DType) -> Result<Tensor, OpError> {
    let wrong = || OpError::new(format!("values of type {} cannot become {to}", t.dtype()));
    match (t.dtype(), to) {
        (a, b) if a == b => Ok(t.clone()),
        (_, DType::String) => {
            let all = t.floats().ok_or_else(wrong)?;
            Ok(Tensor::texts(t.dims(), all.iter().map(|x| format!("{x:.6}"))))
        }
        (DType::String, _) => {
            let read = |s: &Vec<u8>| String::from_utf8_lossy(s).trim().parse::<f64>().ok();
            let all = t.strings().iter().map(read).collect::<Option<Vec<_>>>();
            Tensor::rounded(to, t.dims(), &all.ok_or_else(wrong)?).ok_or_else(wrong)
        }
        _ => Tensor::rounded(to, t.dims(), &t.floats().ok_or_else(wrong)?).ok_or_else(wrong),
    }
}

fn cast_map(n: &NodeRef, m: &Map) -> Result<Tensor, OpError> {
    let keys = m.keys.ints();
    let keys =
        keys.ok_or_else(|| OpError::new(format!("keys of type {}; expected int64", m.keys.dtype())))?;
    let values = cast(&m.values, target(n)?)?;
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by_key(|&i| keys[i]);
    let Some(len) = sparse(n)? else {
        return spread(&values, &order.into_iter().map(Some).collect::<Vec<_>>());
    };
    let mut at: Vec<Option<usize>> = crate::ops::pick::room(Some(len))?;
    at.resize(len, None);
    for i in order {
        let place = usize::try_from(keys[i]).ok().filter(|&p| p < len);
        let place = place.ok_or_else(|| OpError::new(format!("key {} is not in 0..{len}", keys[i])))?;
        at[place] = Some(i);
    }
    spread(&values, &at)
}

impl Op for CastMap {
    fn name(&self) -> OpName {
        ml("CastMap")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        value_type(n)?;
        let len = sparse(n)?.map_or(Dim::Unknown, Dim::from);
        Ok(vec![Fact::tensor(
            Some(target(n)?),
            Some(vec![Dim::Known(1), len]),
        )])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn laws(&self) -> Laws {
        ANY
    }

    fn apply(&self, n: &NodeRef, x: &[Option<&Datum>], _: Bodies) -> Option<Result<Vec<Datum>, OpError>> {
        let y = dictionary(x).and_then(|m| cast_map(n, m));
        Some(y.map(|t| vec![t.into()]))
    }
}

/// The places of the keys.
fn vocabulary(n: &NodeRef) -> Result<Tensor, OpError> {
    let ints = n.ints("int64_vocabulary")?.filter(|i| !i.is_empty());
    let texts = n.strings("string_vocabulary")?.filter(|t| !t.is_empty());
    match (ints, texts) {
        (Some(i), None) => Ok(Tensor::of(&[i.len()], i.to_vec())),
        (None, Some(t)) => Ok(Tensor::texts(&[t.len()], t.to_vec())),
        _ => Err(misfit("expected a vocabulary, either of integers or of strings")),
    }
}

fn vectorize(n: &NodeRef, m: &Map) -> Result<Tensor, OpError> {
    let words = vocabulary(n)?;
    if words.dtype() != m.keys.dtype() {
        return Err(OpError::new(format!(
            "keys of type {}; the vocabulary is of type {}",
            m.keys.dtype(),
            words.dtype()
        )));
    }
    let at: Vec<Option<usize>> = match (words.data(), words.ints(), m.keys.ints()) {
        (_, Some(words), Some(keys)) => {
            let of: HashMap<i64, usize> = keys.into_iter().zip(0..).collect();
            words.iter().map(|w| of.get(w).copied()).collect()
        }
        (Data::Strings(words), ..) => {
            let of: HashMap<&[u8], usize> = m.keys.strings().iter().map(|k| &k[..]).zip(0..).collect();
            words.iter().map(|w| of.get(&w[..]).copied()).collect()
        }
        _ => return Err(OpError::new("keys are integers or strings")),
    };
    spread(&m.values, &at)
}

impl Op for DictVectorizer {
    fn name(&self) -> OpName {
        ml("DictVectorizer")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        let len = Dim::from(vocabulary(n)?.len());
        Ok(vec![Fact::tensor(value_type(n)?, Some(vec![Dim::Known(1), len]))])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn laws(&self) -> Laws {
        ANY
    }

    fn apply(&self, n: &NodeRef, x: &[Option<&Datum>], _: Bodies) -> Option<Result<Vec<Datum>, OpError>> {
        let y = dictionary(x).and_then(|m| vectorize(n, m));
        Some(y.map(|t| vec![t.into()]))
    }
}

/// The keys of every row.
fn zip_keys(n: &NodeRef) -> Result<Tensor, OpError> {
    Ok(match Labels::read(n, "classlabels_int64s")? {
        Labels::Ints(i) => Tensor::of(&[i.len()], i),
        Labels::Texts(t) => Tensor::texts(&[t.len()], t),
    })
}

fn zip_type(keys: &Tensor) -> Type {
    Type::Map {
        key: keys.dtype(),
        value: Box::new(Type::tensor(DType::F32, Vec::<usize>::new())),
    }
}

fn zip(n: &NodeRef, x: &[Option<&Datum>]) -> Result<Datum, OpError> {
    let keys = zip_keys(n)?;
    let x = x.first().copied().flatten().and_then(Datum::tensor);
    let floats = x.and_then(|x| Some((x, x.elements::<f32>()?)));
    let (x, all) = floats.ok_or_else(|| OpError::new("expected a tensor of floats"))?;
    let (rows, columns) = match x.dims() {
        [c] => (1, *c),
        [r, c] => (*r, *c),
        other => return Err(OpError::new(format!("shape {other:?}; expected [n, c] or [c]"))),
    };
    if columns != keys.len() {
        return Err(OpError::new(format!("{columns} columns for {} keys", keys.len())));
    }
    let row = |r: usize| {
        Datum::Map(Map {
            keys: keys.clone(),
            values: Tensor::of(&[columns], all[r * columns..][..columns].to_vec()),
        })
    };
    Ok(Datum::Sequence(zip_type(&keys), (0..rows).map(row).collect()))
}

impl Op for ZipMap {
    fn name(&self) -> OpName {
        ml("ZipMap")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 1)?;
        if let Some(d) = n.dtype(0).filter(|&d| d != DType::F32) {
            return Err(OpError::new(format!("input 0 is of type {d}; expected float")));
        }
        let ty = Type::Sequence(Box::new(zip_type(&zip_keys(n)?)));
        Ok(vec![ty.into()])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn laws(&self) -> Laws {
        ANY
    }

    fn apply(&self, n: &NodeRef, x: &[Option<&Datum>], _: Bodies) -> Option<Result<Vec<Datum>, OpError>> {
        Some(zip(n, x).map(|y| vec![y]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Attr, AttrValue, Node, ValueId};

    /// The result of a node with these attributes.
    fn applied(op: &dyn Op, attrs: Vec<Attr>, x: Datum) -> Datum {
        let ids = [Some(ValueId(0)), Some(ValueId(1))];
        let node = Node {
            attrs,
            ..Node::new(op.name().name, vec![ids[0]], vec![ids[1]])
        };
        let fact = Fact::from(x.ty());
        let input = crate::ops::Input {
            value: ValueId(0),
            fact: &fact,
            konst: None,
            fixed: false,
        };
        let n = NodeRef::new(&node, 1, vec![Some(input)]);
        let y = op
            .apply(&n, &[Some(&x)], &mut |_, _| Ok(vec![]))
            .unwrap()
            .unwrap();
        let inferred = op.infer(&n).unwrap();
        assert!(n.unread().is_empty(), "{:?}", n.unread());
        if let (Some(a), Some(b)) = (inferred[0].ty.dtype(), y[0].ty().dtype()) {
            assert_eq!(a, b);
        } else {
            assert_eq!(inferred[0].ty, y[0].ty());
        }
        y[0].clone()
    }

    fn map(keys: Vec<i64>, values: Vec<f32>) -> Datum {
        Datum::Map(Map {
            keys: Tensor::of(&[keys.len()], keys),
            values: Tensor::of(&[values.len()], values),
        })
    }

    #[test]
    fn a_dictionary_becomes_a_row() {
        let x = || map(vec![3, 1], vec![4.5, 2.0]);
        let dense = applied(&CastMap, vec![], x());
        assert_eq!(dense, Tensor::of(&[1, 2], vec![2f32, 4.5]).into());
        let sparse = vec![
            Attr::new("map_form", "SPARSE"),
            Attr::new("max_map", 5),
            Attr::new("cast_to", "TO_INT64"),
        ];
        let sparse = applied(&CastMap, sparse, x());
        assert_eq!(sparse, Tensor::of(&[1, 5], vec![0i64, 2, 0, 4, 0]).into());
        let text = applied(&CastMap, vec![Attr::new("cast_to", "TO_STRING")], x());
        assert_eq!(text, Tensor::texts(&[1, 2], ["2.000000", "4.500000"]).into());
        let words = vec![Attr::new("int64_vocabulary", vec![1i64, 2, 3])];
        let row = applied(&DictVectorizer, words, x());
        assert_eq!(row, Tensor::of(&[1, 3], vec![2f32, 0.0, 4.5]).into());
    }

    #[test]
    fn rows_become_dictionaries() {
        let texts = AttrValue::Strings(vec![b"a".to_vec(), b"b".to_vec()]);
        let x = Tensor::of(&[2, 2], vec![1f32, 2.0, 3.0, 4.0]);
        let y = applied(&ZipMap, vec![Attr::new("classlabels_strings", texts)], x.into());
        let Datum::Sequence(_, rows) = y else {
            panic!("{y:?}")
        };
        let Datum::Map(second) = &rows[1] else {
            panic!("{rows:?}")
        };
        assert_eq!(second.keys, Tensor::texts(&[2], ["a", "b"]));
        assert_eq!(second.values, Tensor::of(&[2], vec![3f32, 4.0]));
        assert_eq!(rows.len(), 2);
    }
}
