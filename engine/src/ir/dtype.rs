//! Element types.

use std::fmt;

macro_rules! dtypes {
    ($($variant:ident = $code:literal, $bits:literal, $name:literal, $doc:literal;)*) => {
        /// An element type, as `TensorProto.DataType` numbers them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum DType {
            $(#[doc = $doc] $variant,)*
            /// A number that this version of ONNX gives no meaning.
            Other(i32),
        }

        impl DType {
            /// Every element type that has a meaning.
            pub const ALL: &[DType] = &[$(DType::$variant,)*];

            /// The type ONNX numbers `code`.
            pub fn from_code(code: i32) -> DType {
                match code {
                    $($code => DType::$variant,)*
                    other => DType::Other(other),
                }
            }

            /// The number ONNX gives the type.
            pub fn code(self) -> i32 {
                match self {
                    $(DType::$variant => $code,)*
                    DType::Other(code) => code,
                }
            }

            /// Bits an element takes in a packed buffer; 0 where elements have no fixed size.
            pub fn bits(self) -> usize {
                match self {
                    $(DType::$variant => $bits,)*
                    DType::Other(_) => 0,
                }
            }

            /// ONNX's name in lower case, as in `tensor(float)`.
            pub fn name(self) -> &'static str {
                match self {
                    $(DType::$variant => $name,)*
                    DType::Other(_) => "undefined",
                }
            }
        }
    };
}

dtypes! {
    F32 = 1, 32, "float", "IEEE 754 single precision";
    U8 = 2, 8, "uint8", "8-bit unsigned integer";
    I8 = 3, 8, "int8", "8-bit signed integer";
    U16 = 4, 16, "uint16", "16-bit unsigned integer";
    I16 = 5, 16, "int16", "16-bit signed integer";
    I32 = 6, 32, "int32", "32-bit signed integer";
    I64 = 7, 64, "int64", "64-bit signed integer";
    String = 8, 0, "string", "A byte string, usually UTF-8";
    Bool = 9, 8, "bool", "A truth value in a byte: 0 or 1";
    F16 = 10, 16, "float16", "IEEE 754 half precision";
    F64 = 11, 64, "double", "IEEE 754 double precision";
    U32 = 12, 32, "uint32", "32-bit unsigned integer";
    U64 = 13, 64, "uint64", "64-bit unsigned integer";
    C64 = 14, 64, "complex64", "A pair of `float`: real, imaginary";
    C128 = 15, 128, "complex128", "A pair of `double`: real, imaginary";
    BF16 = 16, 16, "bfloat16", "The upper half of a `float`";
    F8E4M3FN = 17, 8, "float8e4m3fn", "8-bit float, 4 exponent bits, no infinities";
    F8E4M3FNUZ = 18, 8, "float8e4m3fnuz", "8-bit float, 4 exponent bits, no infinities, no negative zero";
    F8E5M2 = 19, 8, "float8e5m2", "8-bit float, 5 exponent bits";
    F8E5M2FNUZ = 20, 8, "float8e5m2fnuz", "8-bit float, 5 exponent bits, no infinities, no negative zero";
    U4 = 21, 4, "uint4", "4-bit unsigned integer, two in a byte, the first in the low half";
    I4 = 22, 4, "int4", "4-bit signed integer, two in a byte, the first in the low half";
    F4E2M1 = 23, 4, "float4e2m1", "4-bit float, two in a byte, the first in the low half";
    F8E8M0 = 24, 8, "float8e8m0", "8-bit power of two";
    U2 = 25, 2, "uint2", "2-bit unsigned integer, four in a byte, the first in the lowest bits";
    I2 = 26, 2, "int2", "2-bit signed integer, four in a byte, the first in the lowest bits";
}

impl DType {
    /// Bytes that `count` elements take packed, the last byte perhaps partly used. `None` on overflow or where
    /// elements have no fixed size.
    pub fn bytes(self, count: usize) -> Option<usize> {
        match self.bits() {
            0 => None,
            bits @ 1..8 => Some(count.div_ceil(8 / bits)),
            bits => count.checked_mul(bits / 8),
        }
    }

    /// Whether the type is a real floating-point type.
    pub fn is_float(self) -> bool {
        use DType::*;
        matches!(
            self,
            F32 | F16 | F64 | BF16 | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F4E2M1 | F8E8M0
        )
    }

    /// Whether the type is an integer type; `bool` is not.
    pub fn is_int(self) -> bool {
        use DType::*;
        matches!(
            self,
            U8 | I8 | U16 | I16 | I32 | I64 | U32 | U64 | U4 | I4 | U2 | I2
        )
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            DType::Other(code) => write!(f, "undefined({code})"),
            known => f.write_str(known.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_return() {
        for (i, d) in DType::ALL.iter().enumerate() {
            assert_eq!(d.code(), i as i32 + 1);
            assert_eq!(DType::from_code(d.code()), *d);
        }
        assert_eq!(DType::from_code(99).code(), 99);
    }

    #[test]
    fn packed_types_round_up() {
        assert_eq!(DType::I4.bytes(3), Some(2));
        assert_eq!(DType::U2.bytes(5), Some(2));
        assert_eq!(DType::F32.bytes(usize::MAX), None);
        assert_eq!(DType::String.bytes(1), None);
    }
}
