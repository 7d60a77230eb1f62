//! Arrays as NumPy writes them: `.npy`, format versions 1 to 3.

use secateur_engine::Tensor;
use secateur_engine::ir::{Bytes, DType, Data, count};

use super::DataError;
use super::error::Wrong;

type Result<T> = std::result::Result<T, DataError>;

const MAGIC: &[u8] = b"\x93NUMPY";

/// Type characters with sizes, as NumPy spells them.
const TYPES: &[(&str, DType)] = &[
    ("b1", DType::Bool),
    ("i1", DType::I8),
    ("i2", DType::I16),
    ("i4", DType::I32),
    ("i8", DType::I64),
    ("u1", DType::U8),
    ("u2", DType::U16),
    ("u4", DType::U32),
    ("u8", DType::U64),
    ("f2", DType::F16),
    ("f4", DType::F32),
    ("f8", DType::F64),
    ("c8", DType::C64),
    ("c16", DType::C128),
];

/// The array in the file whose content is `bytes`.
///
/// # Errors
///
/// If the bytes are no such file, or the elements are no numbers.
pub fn read(bytes: &[u8]) -> Result<Tensor> {
    let (head, data) = split(bytes)?;
    let descr = text(field(head, "descr")?)?;
    let (order, name) = descr
        .split_at_checked(1)
        .or_wrong(|| "the element type is empty")?;
    let known = TYPES.iter().find(|(n, _)| *n == name);
    let &(_, dtype) = known.or_wrong(|| format!("elements of type {descr:?} are no numbers"))?;
    let dims = shape(field(head, "shape")?)?;
    let size = count(&dims).and_then(|n| dtype.bytes(n));
    let size = size.or_wrong(|| format!("the shape {dims:?} is too large"))?;
    let found = || format!("expected {size} bytes of elements, found {}", data.len());
    let mut data = data.get(..size).or_wrong(found)?.to_vec();
    if order == ">" {
        let half = if name.starts_with('c') { 2 } else { 1 };
        data.chunks_exact_mut(dtype.bits() / 8 / half)
            .for_each(<[u8]>::reverse);
    }
    let fortran = field(head, "fortran_order")?.starts_with("True");
    let data = if fortran {
        row_major(&data, &dims, dtype.bits() / 8)
    } else {
        data
    };
    let tensor = Tensor::new(dtype, dims, Data::Bytes(Bytes::new(data)));
    let tensor = tensor.map_err(|e| DataError::format(e.to_string()))?;
    Ok(tensor.aligned())
}

/// The header's dictionary and the elements.
fn split(bytes: &[u8]) -> Result<(&str, &[u8])> {
    let rest = bytes
        .strip_prefix(MAGIC)
        .or_wrong(|| "no NumPy array: the first bytes are others")?;
    let (len, start) = match rest {
        [1, _, a, b, ..] => (usize::from(u16::from_le_bytes([*a, *b])), 4),
        [2 | 3, _, a, b, c, d, ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, 6),
        [version, ..] => {
            return Err(DataError::format(format!(
                "NumPy's array format {version} is not known"
            )));
        }
        [] => return Err(DataError::format("the file ends in the header")),
    };
    let (head, data) = rest[start..]
        .split_at_checked(len)
        .or_wrong(|| "the file ends in the header")?;
    Ok((
        std::str::from_utf8(head).or_wrong(|| "the header is not UTF-8")?,
        data,
    ))
}

/// What follows `'name':` in the dictionary.
fn field<'a>(head: &'a str, name: &str) -> Result<&'a str> {
    let found = [format!("'{name}':"), format!("\"{name}\":")];
    let after = found
        .iter()
        .find_map(|key| Some(head.split_once(key.as_str())?.1));
    Ok(after
        .or_wrong(|| format!("the header has no {name:?}"))?
        .trim_start())
}

fn text(field: &str) -> Result<&str> {
    let quote = field.chars().next().filter(|c| "'\"".contains(*c));
    let inner = quote.and_then(|q| field[1..].split_once(q));
    Ok(inner.or_wrong(|| "the element type is not a plain one")?.0)
}

fn shape(field: &str) -> Result<Vec<usize>> {
    let inner = field.strip_prefix('(').and_then(|f| f.split_once(')'));
    let sizes = inner
        .or_wrong(|| "the shape is not a tuple")?
        .0
        .split(',')
        .map(str::trim);
    let size = |s: &str| s.parse().or_wrong(|| format!("{s:?} is not a size"));
    sizes.filter(|s| !s.is_empty()).map(size).collect()
}

/// Elements of `width` bytes, first index fastest, with the last index fastest instead.
fn row_major(data: &[u8], dims: &[usize], width: usize) -> Vec<u8> {
    let strides: Vec<usize> = dims
        .iter()
        .scan(1usize, |stride, d| {
            Some(std::mem::replace(stride, stride.wrapping_mul(*d)))
        })
        .collect();
    let mut out = Vec::with_capacity(data.len());
    let mut index = vec![0; dims.len()];
    while out.len() < data.len() {
        let at: usize = index.iter().zip(&strides).map(|(i, s)| i * s * width).sum();
        out.extend_from_slice(&data[at..at + width]);
        for axis in (0..dims.len()).rev() {
            index[axis] += 1;
            if index[axis] < dims[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    out
}

/// The file for `tensor`. Types that NumPy lacks are widened to 32-bit floats.
///
/// # Errors
///
/// If the elements are neither numbers nor truth values.
pub fn write(tensor: &Tensor) -> Result<Vec<u8>> {
    let wide;
    let (name, tensor) = match TYPES.iter().find(|(_, d)| *d == tensor.dtype()) {
        Some((name, _)) => (*name, tensor),
        None => {
            let floats = tensor.floats();
            let floats = floats.or_wrong(|| format!("NumPy has no arrays of {}", tensor.dtype()))?;
            wide = Tensor::rounded(DType::F32, tensor.dims(), &floats).or_wrong(|| "no numbers")?;
            ("f4", &wide)
        }
    };
    let order = if name.ends_with('1') { '|' } else { '<' };
    let sizes: String = tensor.dims().iter().map(|d| format!("{d}, ")).collect();
    let head = format!("{{'descr': '{order}{name}', 'fortran_order': False, 'shape': ({sizes}), }}");
    // The elements begin at a multiple of 64 bytes, after the magic, four bytes, and a line end.
    let len = (MAGIC.len() + 4 + head.len() + 1).next_multiple_of(64) - MAGIC.len() - 4;
    let short = u16::try_from(len).or_wrong(|| "too many dimensions")?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend([1, 0]);
    bytes.extend(short.to_le_bytes());
    bytes.extend(format!("{head:<width$}\n", width = len - 1).bytes());
    bytes.extend_from_slice(tensor.bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(head: &str, data: &[u8]) -> Vec<u8> {
        let len = u16::try_from(head.len()).unwrap().to_le_bytes();
        [MAGIC, &[1, 0], &len, head.as_bytes(), data].concat()
    }

    #[test]
    fn what_is_written_is_read() {
        for t in [
            Tensor::of(&[2, 3], vec![1f32, 2.0, 3.0, 4.0, 5.0, f32::NAN]),
            Tensor::scalar(7i64),
            Tensor::bools(&[3], [true, false, true]),
            Tensor::of::<u8>(&[0, 4], vec![]),
        ] {
            let bytes = write(&t).unwrap();
            let back = read(&bytes).unwrap();
            assert_eq!(
                (back.dtype(), back.dims(), back.bytes()),
                (t.dtype(), t.dims(), t.bytes())
            );
            assert_eq!((bytes.len() - t.bytes().len()) % 64, 0);
        }
    }

    #[test]
    fn column_major_and_big_endian_are_turned_round() {
        let f = file(
            "{'descr': '>i2', 'fortran_order': True, 'shape': (2, 3), }",
            &[0, 1, 0, 4, 0, 2, 0, 5, 0, 3, 0, 6],
        );
        assert_eq!(read(&f).unwrap().ints().unwrap(), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let good = write(&Tensor::of(&[2], vec![1f32, 2.0])).unwrap();
        for n in 0..good.len() {
            assert!(read(&good[..n]).is_err(), "{n}");
        }
        let object = file(
            "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
            &[0; 8],
        );
        assert!(read(&object).unwrap_err().to_string().contains("|O"));
        let huge = file(
            "{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999999, 99999999), }",
            &[],
        );
        assert!(read(&huge).is_err());
        let none = file(
            "{'descr': '<f8', 'fortran_order': True, 'shape': (9999999999999, 99999999, 0), }",
            &[],
        );
        assert!(read(&none).unwrap().is_empty());
    }
}
