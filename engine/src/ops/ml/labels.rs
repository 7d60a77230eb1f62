//! `LabelEncoder` and `CategoryMapper`: elements replaced by others.

use std::collections::HashMap;

use super::misfit;
use crate::ir::{DType, Tensor};
use crate::ops::pick::given;
use crate::ops::shape::arity;
use crate::ops::{Case, Fact, NodeRef, Op, OpError, OpName, ml};

/// The value beside each key; the default for what is no key.
pub struct LabelEncoder;

/// Strings for integers or integers for strings, by two lists.
pub struct CategoryMapper;

/// An element that can be looked up. All NaN are one, as are both zeros.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    Text(Vec<u8>),
    Int(i64),
    Real(u64),
}

fn keys(t: &Tensor) -> Result<Vec<Key>, OpError> {
    let real = |x: f64| match x {
        x if x.is_nan() => Key::Real(f64::NAN.to_bits()),
        0.0 => Key::Real(0),
        x => Key::Real(x.to_bits()),
    };
    if t.dtype() == DType::String {
        return Ok(t.strings().iter().cloned().map(Key::Text).collect());
    }
    if let Some(ints) = t.ints() {
        return Ok(ints.into_iter().map(Key::Int).collect());
    }
    let all = t.floats();
    let all = all.ok_or_else(|| OpError::new(format!("elements of type {} are no keys", t.dtype())))?;
    Ok(all.into_iter().map(real).collect())
}

/// What stands for what.
struct Table {
    keys: Tensor,
    values: Tensor,
    /// A tensor of one element.
    default: Tensor,
}

/// The list in one of the attributes `prefix_strings`, `_int64s`, `_floats` and `_tensor`, of which there must be one.
fn list(n: &NodeRef, prefix: &str) -> Result<Tensor, OpError> {
    let mut found = vec![];
    let name = |kind: &str| format!("{prefix}_{kind}");
    found.extend(
        n.strings(&name("strings"))?
            .map(|t| Tensor::texts(&[t.len()], t.to_vec())),
    );
    found.extend(
        n.ints(&name("int64s"))?
            .map(|i| Tensor::of(&[i.len()], i.to_vec())),
    );
    found.extend(
        n.floats(&name("floats"))?
            .map(|f| Tensor::of(&[f.len()], f.to_vec())),
    );
    if n.opset() >= 4 {
        found.extend(n.tensor(&name("tensor"))?.cloned());
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        k => Err(misfit(format_args!("{k} lists of {prefix}; expected one"))),
    }
}

/// The value for what is no key, of the type of the values.
fn default(n: &NodeRef, dtype: DType) -> Result<Tensor, OpError> {
    let (int, real) = (n.int_or("default_int64", -1)?, n.float_or("default_float", -0.0)?);
    let text = n.bytes("default_string")?.unwrap_or(b"_Unused");
    let told = if n.opset() >= 4 {
        n.tensor("default_tensor")?
    } else {
        None
    };
    match (dtype, told) {
        (d, Some(t)) if t.dtype() == d && t.len() == 1 => Ok(t.clone()),
        (d, Some(t)) => Err(misfit(format_args!(
            "a default of type {} and {} elements for values of type {d}",
            t.dtype(),
            t.len()
        ))),
        (DType::String, None) => Ok(Tensor::texts(&[1], [text])),
        (d, None) if d.is_int() => Tensor::rounded(d, &[1], &[int as f64])
            .filter(|_| d != DType::I64)
            .map_or_else(|| Ok(Tensor::of(&[1], vec![int])), Ok),
        (d, None) => {
            Tensor::rounded(d, &[1], &[real.into()]).ok_or_else(|| misfit(format_args!("values of type {d}")))
        }
    }
}

impl Table {
    /// The table of a [`LabelEncoder`] whose input is of type `of`; `None` where that matters and is not known.
    fn encoder(n: &NodeRef, of: Option<DType>) -> Result<Option<Table>, OpError> {
        if n.opset() >= 2 {
            let values = list(n, "values")?;
            return Ok(Some(Table {
                keys: list(n, "keys")?,
                default: default(n, values.dtype())?,
                values,
            }));
        }
        let texts = n.strings("classes_strings")?.unwrap_or(&[]);
        let texts = Tensor::texts(&[texts.len()], texts.to_vec());
        let places = Tensor::of(&[texts.len()], (0..texts.len() as i64).collect());
        Ok(Table::between(n, of, places, texts))
    }

    /// From integers to strings, or from strings to integers if the input is of strings.
    fn between(n: &NodeRef, of: Option<DType>, ints: Tensor, texts: Tensor) -> Option<Table> {
        let (keys, values) = if of? == DType::String {
            (texts, ints)
        } else {
            (ints, texts)
        };
        Some(Table {
            default: default(n, values.dtype()).ok()?,
            keys,
            values,
        })
    }

    /// The table of a [`CategoryMapper`].
    fn mapper(n: &NodeRef, of: Option<DType>) -> Result<Option<Table>, OpError> {
        n.ignore(&["default_int64", "default_string"]);
        let ints = n.ints("cats_int64s")?.unwrap_or(&[]);
        let texts = n.strings("cats_strings")?.unwrap_or(&[]);
        let texts = Tensor::texts(&[texts.len()], texts.to_vec());
        Ok(Table::between(
            n,
            of,
            Tensor::of(&[ints.len()], ints.to_vec()),
            texts,
        ))
    }

    fn fact(table: Option<Table>, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        if let Some(t) = &table {
            if t.keys.len() != t.values.len() {
                return Err(misfit(format_args!(
                    "{} keys and {} values",
                    t.keys.len(),
                    t.values.len()
                )));
            }
            if let Some(d) = n.dtype(0).filter(|&d| d != t.keys.dtype()) {
                return Err(OpError::new(format!(
                    "input 0 is of type {d}, the keys of type {}",
                    t.keys.dtype()
                )));
            }
        }
        let dtype = table.map(|t| t.values.dtype());
        Ok(vec![Fact::tensor(dtype, n.shape(0).cloned())])
    }

    fn map(&self, x: &Tensor) -> Result<Tensor, OpError> {
        if x.dtype() != self.keys.dtype() || self.keys.len() != self.values.len() {
            return Err(misfit("keys, values and input"));
        }
        // Of equal keys the last counts.
        let at: HashMap<Key, usize> = keys(&self.keys)?.into_iter().zip(0..).collect();
        let all: Vec<_> = keys(x)?.iter().map(|k| at.get(k).copied()).collect();
        let mut each = all.iter();
        crate::ops::pick::pick(
            self.values.dtype(),
            x.dims(),
            &[&self.values, &self.default],
            |_| {
                Ok(match each.next() {
                    Some(Some(at)) => (0, *at),
                    _ => (1, 0),
                })
            },
        )
    }
}

impl Op for LabelEncoder {
    fn name(&self) -> OpName {
        ml("LabelEncoder")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 2, 4]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 1)?;
        n.ignore(&["default_int64", "default_float", "default_string"]);
        Table::fact(Table::encoder(n, n.dtype(0))?, n)
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let x = given(x, 0)?;
        let table = Table::encoder(n, Some(x.dtype()))?;
        let table = table.ok_or_else(|| misfit("there is no table for this input"))?;
        Ok(vec![table.map(x)?])
    }

    fn cases(&self) -> Vec<Case> {
        use crate::ir::AttrValue::Strings;
        let words = |w: &[&str]| Strings(w.iter().map(|w| w.as_bytes().to_vec()).collect());
        let texts = || Tensor::texts(&[2, 2], ["b", "c", "a", "b"]);
        vec![
            Case::new("the first version", [texts()])
                .attr("classes_strings", words(&["a", "b"]))
                .opset(1),
            Case::new(
                "the first version, integers",
                [Tensor::of(&[3], vec![1i64, 0, 2])],
            )
            .attr("classes_strings", words(&["a", "b"]))
            .attr("default_string", "none")
            .opset(1),
            Case::new("strings to floats", [texts()])
                .attr("keys_strings", words(&["a", "b"]))
                .attr("values_floats", vec![0.5f32, 1.5])
                .attr("default_float", 9.0f32)
                .opset(2),
            Case::new("floats", [Tensor::of(&[4], vec![f32::NAN, -0.0, 1.0, 2.0])])
                .attr("keys_floats", vec![f32::NAN, 0.0, 1.0])
                .attr("values_int64s", vec![1i64, 2, 3])
                .opset(4),
            Case::new("tensors", [Tensor::of(&[3], vec![1i16, 2, 3])])
                .attr("keys_tensor", Tensor::of(&[2], vec![2i16, 3]))
                .attr("values_tensor", Tensor::of(&[2], vec![0.25f64, 0.5]))
                .attr("default_tensor", Tensor::of(&[1], vec![7.0f64]))
                .opset(4),
        ]
    }
}

impl Op for CategoryMapper {
    fn name(&self) -> OpName {
        ml("CategoryMapper")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 1)?;
        Table::fact(Table::mapper(n, n.dtype(0))?, n)
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let x = given(x, 0)?;
        let table = Table::mapper(n, Some(x.dtype()))?;
        let table = table.ok_or_else(|| misfit("there is no table for this input"))?;
        Ok(vec![table.map(x)?])
    }

    fn cases(&self) -> Vec<Case> {
        use crate::ir::AttrValue::Strings;
        let words = || Strings(vec![b"a".to_vec(), b"b".to_vec()]);
        let case = |x| {
            Case::new("either way", [x])
                .attr("cats_strings", words())
                .attr("cats_int64s", vec![10i64, 20])
                .opset(1)
        };
        vec![
            case(Tensor::texts(&[3], ["b", "c", "a"])).attr("default_int64", 5),
            case(Tensor::of(&[3], vec![10i64, 3, 20])),
        ]
    }
}
