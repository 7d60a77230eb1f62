//! Operators on lists of tensors.

use super::{Bodies, Fact, Laws, NodeRef, Op, OpError, OpName, onnx, parts, shape};
use crate::ir::{DType, Datum, Tensor, Type};

/// What they have in common.
const LAWS: Laws = Laws {
    blocks: false,
    any: true,
    impure: false,
    commutes: false,
    associates: false,
    view: false,
    still: false,
    elementwise: false,
    in_place: &[],
};

/// The type of the sequence that an element belongs to: tensors of its element type and of any shape.
pub(super) fn element(d: &Datum) -> Type {
    match d {
        Datum::Tensor(t) => Type::Tensor {
            dtype: Some(t.dtype()),
            shape: None,
        },
        other => other.ty(),
    }
}

type Given<'a> = (&'a Type, &'a [Datum]);

fn list<'a>(x: &[Option<&'a Datum>], i: usize) -> Result<Given<'a>, OpError> {
    match x.get(i).copied().flatten() {
        Some(Datum::Sequence(of, all)) => Ok((of, all)),
        // An optional that holds a sequence stands for it.
        Some(Datum::Optional(_, Some(held))) => list(&[Some(&**held)], 0),
        other => Err(OpError::new(format!(
            "input {i}: expected a sequence, found {}",
            other.map_or("nothing".into(), |d| d.ty().to_string())
        ))),
    }
}

fn tensor<'a>(x: &[Option<&'a Datum>], i: usize) -> Result<&'a Tensor, OpError> {
    let found = x.get(i).copied().flatten();
    found
        .and_then(Datum::tensor)
        .ok_or_else(|| OpError::new(format!("input {i}: expected a tensor")))
}

/// The place that input `i` names, counted from the end where it is negative; `len` is one of them if `end`.
fn place(x: &[Option<&Datum>], i: usize, len: usize, end: bool) -> Result<usize, OpError> {
    let ints = tensor(x, i)?.ints().filter(|v| v.len() == 1);
    let at = ints.ok_or_else(|| OpError::new("the position: expected one integer"))?[0];
    let from_start = if at < 0 {
        at.checked_add(len as i64)
    } else {
        Some(at)
    };
    let found = from_start.and_then(|a| usize::try_from(a).ok());
    found
        .filter(|&a| a < len + usize::from(end))
        .ok_or_else(|| OpError::new(format!("position {at} in a sequence of {len} elements")))
}

fn sequence(of: Type) -> Fact {
    Type::Sequence(Box::new(of)).into()
}

/// The element type of the sequence that is input 0, as far as it is known.
fn held(n: &NodeRef) -> Type {
    match n.input(0).map(|x| &x.fact.ty) {
        Some(Type::Sequence(of)) => (**of).clone(),
        _ => Type::Unknown,
    }
}

macro_rules! sequence_op {
    ($(#[$doc:meta])* $name:ident $text:literal $since:expr, $infer:expr, $apply:expr) => {
        $(#[$doc])*
        pub struct $name;

        impl Op for $name {
            fn name(&self) -> OpName {
                onnx($text)
            }

            fn since(&self) -> &'static [u16] {
                $since
            }

            fn laws(&self) -> Laws {
                LAWS
            }

            fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
                let infer: fn(&NodeRef) -> Result<Fact, OpError> = $infer;
                Ok(vec![infer(n)?])
            }

            fn apply(
                &self,
                n: &NodeRef,
                x: &[Option<&Datum>],
                _: Bodies,
            ) -> Option<Result<Vec<Datum>, OpError>> {
                let apply: fn(&NodeRef, &[Option<&Datum>]) -> Result<Datum, OpError> = $apply;
                Some(apply(n, x).map(|y| vec![y]))
            }
        }
    };
}

fn any_shape(dtype: Option<DType>) -> Type {
    Type::Tensor { dtype, shape: None }
}

sequence_op!(
    /// A list of the inputs.
    SequenceConstruct "SequenceConstruct" &[11],
    |n| Ok(sequence(any_shape(n.dtype(0)))),
    |_, x| {
        let all: Vec<Datum> = x.iter().flatten().map(|d| (*d).clone()).collect();
        let of = all.first().map_or(Type::Unknown, element);
        match all.iter().find(|d| element(d) != of) {
            Some(d) => Err(OpError::new(format!("expected {of} like the first input, found {}", d.ty()))),
            None => Ok(Datum::Sequence(of, all)),
        }
    }
);

/// The element type that attribute `dtype` names.
fn named(n: &NodeRef) -> Result<DType, OpError> {
    let code = n.int_or("dtype", DType::F32.code().into())?;
    let dtype = i32::try_from(code).map(DType::from_code).ok();
    dtype
        .filter(|d| !matches!(d, DType::Other(_)))
        .ok_or_else(|| OpError::new(format!("attribute \"dtype\": {code} is no element type")))
}

sequence_op!(
    /// An empty list.
    SequenceEmpty "SequenceEmpty" &[11],
    |n| Ok(sequence(any_shape(Some(named(n)?)))),
    |n, _| Ok(Datum::Sequence(any_shape(Some(named(n)?)), vec![]))
);

sequence_op!(
    /// The element at a position.
    SequenceAt "SequenceAt" &[11],
    |n| Ok(held(n).into()),
    |_, x| {
        let (_, all) = list(x, 0)?;
        Ok(all[place(x, 1, all.len(), false)?].clone())
    }
);

sequence_op!(
    /// The list with a tensor before a position, or at the end.
    SequenceInsert "SequenceInsert" &[11],
    |n| Ok(sequence(held(n))),
    |_, x| {
        let (of, all) = list(x, 0)?;
        let new = Datum::Tensor(tensor(x, 1)?.clone());
        let at = match x.get(2).copied().flatten() {
            Some(_) => place(x, 2, all.len(), true)?,
            None => all.len(),
        };
        if of.dtype().is_some_and(|d| Some(d) != new.dtype()) {
            return Err(OpError::new(format!("input 1: expected {of}, found {}", new.ty())));
        }
        let of = if *of == Type::Unknown { element(&new) } else { of.clone() };
        let mut all = all.to_vec();
        all.insert(at, new);
        Ok(Datum::Sequence(of, all))
    }
);

sequence_op!(
    /// The list without the element at a position, or without the last.
    SequenceErase "SequenceErase" &[11],
    |n| Ok(sequence(held(n))),
    |_, x| {
        let (of, all) = list(x, 0)?;
        let at = match x.get(1).copied().flatten() {
            Some(_) => place(x, 1, all.len(), false)?,
            None => all.len().checked_sub(1).ok_or_else(|| OpError::new("the sequence is empty"))?,
        };
        let mut all = all.to_vec();
        all.remove(at);
        Ok(Datum::Sequence(of.clone(), all))
    }
);

sequence_op!(
    /// The number of elements.
    SequenceLength "SequenceLength" &[11],
    |_| Ok(shape::scalar_of(DType::I64)),
    |_, x| Ok(Tensor::of(&[], vec![list(x, 0)?.1.len() as i64]).into())
);

sequence_op!(
    /// The elements put together along an axis, which may be a new one.
    ConcatFromSequence "ConcatFromSequence" &[11],
    |n| {
        let axis = n.int("axis")?;
        axis.ok_or_else(|| OpError::new("attribute \"axis\" is missing"))?;
        n.int("new_axis")?;
        Ok(any_shape(held(n).dtype()).into())
    },
    |n, x| {
        let (of, all) = list(x, 0)?;
        let all: Vec<Tensor> = all.iter().filter_map(|d| d.tensor().cloned()).collect();
        let new = n.int_or("new_axis", 0)? != 0;
        let rank = all.first().map_or(0, |t| t.dims().len()) + usize::from(new);
        let axis = NodeRef::axis(n.int_or("axis", 0)?, rank)?;
        Ok(match new {
            true => parts::stack(&all, axis, Some(of))?,
            false => parts::join(&all, axis)?,
        }
        .into())
    }
);

sequence_op!(
    /// A list of the parts of a tensor along an axis.
    SplitToSequence "SplitToSequence" &[11, 24],
    |n| {
        n.int("axis")?;
        n.int("keepdims")?;
        Ok(sequence(any_shape(n.dtype(0))))
    },
    |n, x| {
        let t = tensor(x, 0)?;
        let axis = NodeRef::axis(n.int_or("axis", 0)?, t.dims().len())?;
        let size = t.dims()[axis];
        let split = x.get(1).copied().flatten();
        let keep = n.int_or("keepdims", 1)? != 0 || split.is_some();
        let sizes = match split {
            None => vec![1; size],
            Some(s) => parts(s.tensor(), size)?,
        };
        let mut at = 0;
        let mut all = vec![];
        for len in sizes {
            all.push(Datum::Tensor(match keep {
                true => parts::part(t, axis, at..at + len)?,
                false => parts::slice_at(t, axis, at)?,
            }));
            at += len;
        }
        Ok(Datum::Sequence(any_shape(Some(t.dtype())), all))
    }
);

/// The sizes of the parts of `size` slices: those given, or equal ones with a smaller last.
fn parts(split: Option<&Tensor>, size: usize) -> Result<Vec<usize>, OpError> {
    let wrong = || OpError::new(format!("the split: expected sizes that add up to {size}"));
    let split = split.ok_or_else(wrong)?;
    let given = split.ints().ok_or_else(wrong)?;
    let sizes = given
        .iter()
        .map(|&s| usize::try_from(s).map_err(|_| wrong()))
        .collect::<Result<Vec<_>, _>>()?;
    match (split.dims(), &sizes[..]) {
        ([], &[each]) if each > 0 => Ok((0..size).step_by(each).map(|at| each.min(size - at)).collect()),
        ([], _) => Err(wrong()),
        _ if sizes.iter().try_fold(0usize, |a, &b| a.checked_add(b)) == Some(size) => Ok(sizes),
        _ => Err(wrong()),
    }
}

sequence_op!(
    /// A value, or an optional without one.
    Optional "Optional" &[15],
    |n| {
        let ty = optional_type(n)?;
        Ok(Type::Optional(Box::new(ty)).into())
    },
    |n, x| {
        let held = x.first().copied().flatten();
        let of = held.map_or_else(|| optional_type(n), |d| Ok(d.ty()))?;
        n.ignore(&["type"]);
        Ok(Datum::Optional(of, held.map(|d| Box::new(d.clone()))))
    }
);

fn optional_type(n: &NodeRef) -> Result<Type, OpError> {
    let given = n.ty("type")?.cloned();
    Ok(match n.input(0) {
        Some(x) => x.fact.ty.clone(),
        None => given.ok_or_else(|| OpError::new("neither an input nor attribute \"type\" is given"))?,
    })
}

sequence_op!(
    /// Whether an optional holds a value.
    OptionalHasElement "OptionalHasElement" &[15, 18],
    |_| Ok(shape::scalar_of(DType::Bool)),
    |_, x| {
        let full = !matches!(x.first().copied().flatten(), None | Some(Datum::Optional(_, None)));
        Ok(Tensor::bools(&[], [full]).into())
    }
);

sequence_op!(
    /// What an optional holds.
    OptionalGetElement "OptionalGetElement" &[15, 18],
    |n| Ok(match n.input(0).map(|x| &x.fact.ty) {
        Some(Type::Optional(of)) => Fact::from((**of).clone()),
        Some(other) => other.clone().into(),
        None => Fact::unknown(),
    }),
    |_, x| match x.first().copied().flatten() {
        Some(Datum::Optional(_, Some(held))) => Ok((**held).clone()),
        None | Some(Datum::Optional(_, None)) => Err(OpError::new("the optional holds no value")),
        Some(other) => Ok(other.clone()),
    }
);
