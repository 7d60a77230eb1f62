//! Arithmetic that is written once for all element types.

use std::borrow::Cow;

use half::{bf16, f16};
use num_traits::{AsPrimitive, Float, PrimInt};

use crate::ir::{DType, Element, Tensor, count, small};

/// An integer element type.
pub trait Int: Element + PrimInt {
    /// The same number.
    fn wide(self) -> i128;
    /// The low bits of `x`.
    fn narrow(x: i128) -> Self;
}

impl<T: Element + PrimInt + AsPrimitive<i128>> Int for T
where
    i128: AsPrimitive<T>,
{
    #[inline(always)]
    fn wide(self) -> i128 {
        self.as_()
    }

    #[inline(always)]
    fn narrow(x: i128) -> T {
        x.as_()
    }
}

/// A floating-point element type.
pub trait Real: Element {
    /// The type in which it is computed.
    type Wide: Float + Send + Sync + 'static;
    /// The same number.
    fn wide(self) -> Self::Wide;
    /// `x`, rounded to nearest.
    fn narrow(x: Self::Wide) -> Self;
    /// `x`, rounded to nearest once.
    fn rounded(x: f64) -> Self;
}

impl Real for f32 {
    type Wide = f32;
    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }
    #[inline(always)]
    fn narrow(x: f32) -> f32 {
        x
    }
    fn rounded(x: f64) -> f32 {
        x as f32
    }
}

impl Real for f64 {
    type Wide = f64;
    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }
    #[inline(always)]
    fn narrow(x: f64) -> f64 {
        x
    }
    fn rounded(x: f64) -> f64 {
        x
    }
}

impl Real for f16 {
    type Wide = f32;
    #[inline(always)]
    fn wide(self) -> f32 {
        self.to_f32()
    }
    #[inline(always)]
    fn narrow(x: f32) -> f16 {
        f16::from_f32(x)
    }
    fn rounded(x: f64) -> f16 {
        small::to_f16(x)
    }
}

impl Real for bf16 {
    type Wide = f32;
    #[inline(always)]
    fn wide(self) -> f32 {
        self.to_f32()
    }
    #[inline(always)]
    fn narrow(x: f32) -> bf16 {
        bf16::from_f32(x)
    }
    fn rounded(x: f64) -> bf16 {
        small::to_bf16(x)
    }
}

/// Something that is written once for all integers and once for all floats.
pub trait ByType {
    /// What it returns.
    type Out;
    /// For the float type `T`.
    fn real<T: Real>(self) -> Self::Out;
    /// For the integer type `T`.
    fn int<T: Int>(self) -> Self::Out;
}

/// Calls `v` with the Rust type of `dtype`; `None` if it is no number of 8 to 64 bits.
pub fn by_type<V: ByType>(dtype: DType, v: V) -> Option<V::Out> {
    Some(match dtype {
        DType::F32 => v.real::<f32>(),
        DType::F64 => v.real::<f64>(),
        DType::F16 => v.real::<f16>(),
        DType::BF16 => v.real::<bf16>(),
        DType::U8 => v.int::<u8>(),
        DType::I8 => v.int::<i8>(),
        DType::U16 => v.int::<u16>(),
        DType::I16 => v.int::<i16>(),
        DType::U32 => v.int::<u32>(),
        DType::I32 => v.int::<i32>(),
        DType::U64 => v.int::<u64>(),
        DType::I64 => v.int::<i64>(),
        _ => return None,
    })
}

/// The elements of a numeric tensor, none of them rounded.
#[derive(Clone, Debug, PartialEq)]
pub enum Numbers {
    /// Of a float tensor.
    Real(Vec<f64>),
    /// Of an integer tensor.
    Int(Vec<i128>),
}

impl Numbers {
    /// The elements of `t`; `None` if they are no numbers.
    pub fn of(t: &Tensor) -> Option<Numbers> {
        struct Of<'a>(&'a Tensor);
        impl ByType for Of<'_> {
            type Out = Option<Numbers>;
            fn real<T: Real>(self) -> Option<Numbers> {
                self.0.floats().map(Numbers::Real)
            }
            fn int<T: Int>(self) -> Option<Numbers> {
                let all = self.0.elements::<T>()?;
                Some(Numbers::Int(all.iter().map(|x| x.wide()).collect()))
            }
        }
        match t.dtype() {
            d if small::is_small(d) => t.floats().map(Numbers::Real),
            d if d.is_int() && d.bits() < 8 => {
                let ints = t.ints()?.into_iter().map(i128::from);
                Some(Numbers::Int(ints.collect()))
            }
            d => by_type(d, Of(t))?,
        }
    }

    /// A tensor of them: floats rounded to nearest, of integers the low bits. `None` if `dtype` is of the other kind, or
    /// the number of elements is not that of `dims`.
    pub fn tensor(&self, dtype: DType, dims: &[usize]) -> Option<Tensor> {
        struct To<'a>(&'a [i128], &'a [usize]);
        impl ByType for To<'_> {
            type Out = Option<Tensor>;
            fn real<T: Real>(self) -> Option<Tensor> {
                None
            }
            fn int<T: Int>(self) -> Option<Tensor> {
                let all = self.0.iter().map(|&x| T::narrow(x)).collect();
                (count(self.1) == Some(self.0.len())).then(|| Tensor::of::<T>(self.1, all))
            }
        }
        match self {
            Numbers::Real(x) if dtype.is_float() => Tensor::rounded(dtype, dims, x),
            Numbers::Real(_) => None,
            Numbers::Int(x) if dtype.is_int() && dtype.bits() < 8 => {
                Tensor::of_codes(dtype, dims, x.iter().map(|&x| x as u8).collect())
            }
            Numbers::Int(x) => by_type(dtype, To(x, dims))?,
        }
    }
}

/// `x` with 0 in the place of subnormal numbers: weights that decayed to them, below 1.2e-38, add nothing to a sum, but make
/// a multiply-add take a hundred times as long.
pub fn normal(x: Cow<[f32]>) -> Cow<[f32]> {
    // Without an end at the first, which takes longer.
    let any = |part: &[f32]| part.iter().fold(false, |any, x| any | x.is_subnormal());
    match x.chunks(4096).any(any) {
        true => x
            .iter()
            .map(|x| if x.is_subnormal() { 0.0 } else { *x })
            .collect(),
        false => x,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnormal_weights_become_zero() {
        let tiny = f32::from_bits(1);
        let x = [f32::MIN_POSITIVE, tiny, -tiny, f32::NAN, -f32::INFINITY, 1.0];
        let y = normal(Cow::Borrowed(&x));
        let want = [f32::MIN_POSITIVE, 0.0, 0.0, f32::NAN, -f32::INFINITY, 1.0];
        assert!(
            y.iter().zip(want).all(|(y, w)| y.to_bits() == w.to_bits()),
            "{y:?}"
        );
        assert!(matches!(normal(Cow::Borrowed(&x[3..])), Cow::Borrowed(_)));
    }
}
