//! Tensors from and to ONNX Runtime.

use std::fmt::Debug;

use anyhow::{Context, Result, anyhow, bail};
use ort::session::SessionInputValue;
use ort::value::{DynValue, PrimitiveTensorElementType, TensorElementType, TensorRef, ValueType};
use secateur::Tensor;
use secateur::engine::ir::{DType, Element, bf16, f16};

/// `t`, whose elements are aligned, without a copy; truth values are copied.
pub(super) fn value(t: &Tensor) -> Result<SessionInputValue<'_>> {
    match t.dtype() {
        DType::F32 => view::<f32>(t),
        DType::F64 => view::<f64>(t),
        DType::F16 => view::<f16>(t),
        DType::BF16 => view::<bf16>(t),
        DType::I8 => view::<i8>(t),
        DType::I16 => view::<i16>(t),
        DType::I32 => view::<i32>(t),
        DType::I64 => view::<i64>(t),
        DType::U8 => view::<u8>(t),
        DType::U16 => view::<u16>(t),
        DType::U32 => view::<u32>(t),
        DType::U64 => view::<u64>(t),
        DType::Bool => {
            let made = ort::value::Tensor::from_array((t.dims().to_vec(), t.truths().unwrap_or_default()));
            Ok(made.map_err(|e| anyhow!("{e}"))?.into())
        }
        other => bail!("inputs of {other} are not passed on"),
    }
}

fn view<T: Element + PrimitiveTensorElementType + Debug + 'static>(
    t: &Tensor,
) -> Result<SessionInputValue<'_>> {
    let view = t.view::<T>().context("the elements are not aligned")?;
    let data = view.to_slice().context("the elements are not in order")?;
    let made = TensorRef::from_array_view((t.dims(), data));
    Ok(made.map_err(|e| anyhow!("{e}"))?.into())
}

/// A copy of `value`.
pub(super) fn tensor(value: &DynValue) -> Result<Tensor> {
    let ValueType::Tensor { ty, .. } = value.dtype() else {
        bail!("it is no tensor");
    };
    match ty {
        TensorElementType::Float32 => copy::<f32>(value),
        TensorElementType::Float64 => copy::<f64>(value),
        TensorElementType::Float16 => copy::<f16>(value),
        TensorElementType::Bfloat16 => copy::<bf16>(value),
        TensorElementType::Int8 => copy::<i8>(value),
        TensorElementType::Int16 => copy::<i16>(value),
        TensorElementType::Int32 => copy::<i32>(value),
        TensorElementType::Int64 => copy::<i64>(value),
        TensorElementType::Uint8 => copy::<u8>(value),
        TensorElementType::Uint16 => copy::<u16>(value),
        TensorElementType::Uint32 => copy::<u32>(value),
        TensorElementType::Uint64 => copy::<u64>(value),
        TensorElementType::Bool => {
            let (shape, data) = value.try_extract_tensor::<bool>().map_err(|e| anyhow!("{e}"))?;
            Ok(Tensor::bools(&dims(shape)?, data.iter().copied()))
        }
        other => bail!("outputs of {other:?} are not passed on"),
    }
}

fn copy<T: Element + PrimitiveTensorElementType>(value: &DynValue) -> Result<Tensor> {
    let (shape, data) = value.try_extract_tensor::<T>().map_err(|e| anyhow!("{e}"))?;
    Ok(Tensor::of(&dims(shape)?, data.to_vec()))
}

fn dims(shape: &[i64]) -> Result<Vec<usize>> {
    shape
        .iter()
        .map(|&d| usize::try_from(d).context("a negative size"))
        .collect()
}
