//! `SparseTensorProto`, both ways.

use std::collections::HashSet;

use super::read::{Reader, allowance};
use super::rope::{Encoder, Rope, wide};
use super::tensor::{self, sizes};
use super::wire::{Message, Wire};
use super::{ErrorKind, OnnxError};
use crate::ir::{Bytes, Constant, DType, Data, Extra, Form, Model, Name, Tensor, ValueId, count};

/// Bytes that sparse initialisers may take altogether, as they have to be in a message of less than 2 GiB.
const MOST: u64 = 1 << 30;
/// Bytes of a sparse initialiser beside its elements, about.
const HEAD: u64 = 100;
/// Bytes of an element that is not zero: a float and its index.
const ELEMENT: u64 = 12;

/// Makes those initialisers of floats sparse that are smaller so, which is from two thirds of zeros on; what makes a model sparse
/// is only how it is written. -0 is kept as a value. Returns how many there are.
///
/// Left dense are subgraphs' initialisers, those whose type is declared (as inputs, outputs or otherwise), for which ONNX has
/// another type if they are sparse, and what would make the file too large for one message, or too small to be believed.
pub fn sparsify(model: &mut Model) -> usize {
    let graph = &mut model.graph;
    let ports = graph.inputs.iter().chain(&graph.outputs).chain(&graph.infos);
    let declared: HashSet<ValueId> = ports.map(|p| p.value).collect();
    let (mut done, mut dense, mut sparse) = (0, 0, 0);
    for v in graph.initializers.clone() {
        let value = &mut graph[v];
        let named = !value.name.is_empty() && !declared.contains(&v);
        let Some(c) = value.konst.as_mut().filter(|_| named) else {
            continue;
        };
        let Some(size) = sparse_size(c) else { continue };
        let all = [dense + wide(c.tensor.bytes().len()), sparse + size];
        if all[1] <= MOST && all[0] <= allowance(all[1]) {
            [dense, sparse] = all;
            c.form = Form::Sparse { proto: None };
            done += 1;
        }
    }
    done
}

/// Bytes of `c` as a sparse initialiser; `None` where it had better stay as it is.
fn sparse_size(c: &Constant) -> Option<u64> {
    let t = &c.tensor;
    if t.dtype() != DType::F32 || t.dims().is_empty() || matches!(c.form, Form::Sparse { .. }) {
        return None;
    }
    let there = t.bytes().chunks_exact(4).filter(|x| **x != [0; 4]).count();
    let size = wide(there) * ELEMENT + HEAD;
    (size < wide(t.bytes().len())).then_some(size)
}

/// Reads a sparse initialiser and makes it dense.
pub(super) fn read(reader: &mut Reader, msg: Message) -> Result<(Name, Constant), OnnxError> {
    let mut dims = vec![];
    for r in msg.records() {
        let r = r?;
        if r.number == 3 && matches!(r.wire, Wire::Varint | Wire::Len) {
            r.ints(&mut dims)?;
        }
    }
    let dims = sizes(&dims)?;
    let (name, values) = part(reader, msg, 1, "values")?;
    let (_, indices) = part(reader, msg, 2, "indices")?;
    let dense = densify(reader, &dims, &values, &indices).map_err(|e| e.at(msg.start()))?;
    let constant = Constant {
        tensor: dense.into(),
        form: Form::Sparse {
            proto: Some(msg.shared()),
        },
        extra: Extra::default(),
    };
    Ok((name, constant))
}

fn part(reader: &mut Reader, msg: Message, number: u32, what: &str) -> Result<(Name, Tensor), OnnxError> {
    let Some(r) = msg.last(number, Wire::Len)? else {
        return Err(OnnxError::invalid(format!("expected {what}, found none")).at(msg.start()));
    };
    let (name, c) = tensor::read(reader, r.message()?, true).map_err(|e| e.within(what))?;
    if matches!(c.form, Form::External(_)) {
        let why = "the parts of a sparse tensor may not be in another file";
        return Err(OnnxError::external(why).at(r.start()).within(what));
    }
    Ok((name, Tensor::clone(&c.tensor)))
}

fn densify(
    reader: &mut Reader,
    dims: &[usize],
    values: &Tensor,
    indices: &Tensor,
) -> Result<Tensor, OnnxError> {
    let dtype = values.dtype();
    let width = dtype.bits() / 8;
    let size = count(dims).and_then(|n| dtype.bytes(n));
    let (Some(size), 1..) = (size, width) else {
        let what = format!("there are no sparse tensors of {dtype}{dims:?}");
        return Err(OnnxError::invalid(what));
    };
    reader.spend(size)?;
    let mut dense: Vec<u8> = vec![];
    if dense.try_reserve_exact(size).is_err() {
        let what = format!("no memory for the {size} bytes of a sparse tensor");
        return Err(OnnxError::new(ErrorKind::TooLarge, what));
    }
    dense.resize(size, 0);
    let places = places(dims, values, indices)?;
    for (value, place) in values.bytes().chunks(width).zip(places) {
        let begin = place * width;
        match dense.get_mut(begin..begin + width) {
            Some(slot) => slot.copy_from_slice(value),
            None => return Err(beyond(place, dims)),
        }
    }
    Tensor::new(dtype, dims.to_vec(), Data::Bytes(Bytes::new(dense)))
        .map_err(|e| OnnxError::invalid(e.to_string()))
}

fn beyond(index: impl std::fmt::Display, dims: &[usize]) -> OnnxError {
    OnnxError::invalid(format!("index {index} is beyond the dimensions {dims:?}"))
}

/// Where each value stands in the dense tensor, counted in elements.
fn places(dims: &[usize], values: &Tensor, indices: &Tensor) -> Result<Vec<usize>, OnnxError> {
    let n = values.len();
    let coordinates = match indices.dims() {
        &[m] if m == n => 1,
        &[m, rank] if m == n && rank == dims.len() && rank > 0 => rank,
        found => {
            let what = format!(
                "expected indices of [{n}] or [{n}, {}], found {found:?}",
                dims.len()
            );
            return Err(OnnxError::invalid(what));
        }
    };
    if indices.dtype() != DType::I64 {
        let what = format!("expected indices of int64, found {}", indices.dtype());
        return Err(OnnxError::invalid(what));
    }
    let indices = indices.ints().unwrap_or_default();
    let total = count(dims).unwrap_or(0);
    if total == 0 && n > 0 {
        return Err(beyond(0, dims));
    }
    let linear = [total];
    let dims = if coordinates == 1 { &linear } else { dims };
    let place = |coordinates: &[i64]| {
        let steps = coordinates.iter().zip(dims);
        steps.into_iter().try_fold(0usize, |at, (&c, &d)| {
            let c = usize::try_from(c).ok().filter(|&c| c < d);
            Ok(at * d + c.ok_or_else(|| beyond(format!("{coordinates:?}"), dims))?)
        })
    };
    indices.chunks(coordinates).map(place).collect()
}

/// The message for a sparse initialiser: as it was read, else the elements that are not zero and their linear indices.
/// `None` where the type has no sparse form.
pub(super) fn write(c: &Constant, name: &str) -> Option<Rope> {
    let mut rope = Rope::default();
    if let Form::Sparse { proto: Some(proto) } = &c.form
        && is_called(name, proto)
    {
        rope.share(proto);
        return Some(rope);
    }
    let dtype = c.tensor.dtype();
    let width = dtype.bits() / 8;
    if width == 0 {
        return None;
    }
    let mut values = vec![];
    let mut indices = vec![];
    for (i, element) in (0i64..).zip(c.tensor.bytes().chunks(width)) {
        if element.iter().any(|&b| b != 0) {
            values.extend_from_slice(element);
            indices.push(i);
        }
    }
    let n = indices.len();
    let values = Tensor::new(dtype, vec![n], Data::Bytes(Bytes::new(values))).ok()?;
    let indices = Tensor::of(&[n], indices);
    let mut e = Encoder::new(&c.extra);
    e.rope(1, tensor::write(&Constant::new(values), name, None));
    e.rope(2, tensor::write(&Constant::new(indices), "", None));
    for &d in c.tensor.dims() {
        e.int(3, i64::try_from(d).ok()?);
    }
    Some(e.finish())
}

fn is_called(name: &str, proto: &Bytes) -> bool {
    let values = Message::new(proto).last(1, Wire::Len).ok().flatten();
    let found = values.and_then(|r| r.message().ok()?.last(8, Wire::Len).ok()?);
    found.map_or(&b""[..], |r| r.bytes()) == name.as_bytes()
}
