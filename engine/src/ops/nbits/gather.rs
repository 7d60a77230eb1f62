//! `GatherBlockQuantized`: slices of a quantised table, by index, as floats.

use crate::cpu::moves::{chunks, short};
use crate::cpu::{Candidate, Cost, Io};
use crate::ir::{DType, Dim, Shape, Tensor, count, small};
use crate::ops::gather::index_type;
use crate::ops::pick::{bounded, given, integers, knowing, sized};
use crate::ops::quant::Loader;
use crate::ops::{Axes, Case, Fact, NodeRef, Op, OpError, OpName, case, microsoft};

/// ONNX Runtime's `GatherBlockQuantized`. An index out of bounds gives zeros.
pub struct GatherBlockQuantized;

/// Elements that one task restores.
const PART: usize = 4 << 10;

/// Elements that a stored one stands for: several in a byte of packed ones.
fn packed(n: &NodeRef) -> Result<usize, OpError> {
    let bits = n.int_or("bits", 4)?;
    match n.dtype(0) {
        Some(DType::U8) => match bits {
            2 | 4 | 8 => Ok(8 / bits as usize),
            _ => Err(OpError::new(format!(
                "attribute \"bits\" is {bits}; expected 2, 4 or 8"
            ))),
        },
        Some(d) if small::is_small(d) || matches!(d, DType::I4 | DType::U4) => Ok(1),
        None => Ok(1),
        Some(d) => Err(OpError::new(format!(
            "input 0 is of type {d}; expected numbers of 4 or 8 bits"
        ))),
    }
}

/// The axes along which is gathered and along which are blocks.
fn axes(n: &NodeRef, rank: usize) -> Result<[usize; 2], OpError> {
    Ok([
        NodeRef::axis(n.int_or("gather_axis", 0)?, rank)?,
        NodeRef::axis(n.int_or("quantize_axis", 1)?, rank)?,
    ])
}

/// Where everything is.
#[derive(Debug)]
struct Table {
    dtype: DType,
    /// Bits of an element.
    bits: usize,
    /// Sizes of the table, in elements.
    dims: Vec<usize>,
    gather: usize,
    quantize: usize,
    block: usize,
    /// The distance between scales along each axis; 0 where one stands for all.
    steps: Vec<usize>,
    /// Scales in a row, and zero points in a row that is packed.
    rows: [usize; 2],
}

impl Table {
    fn new(n: &NodeRef) -> Result<Table, OpError> {
        let missing = || OpError::new("expected a table, indices and scales of known shapes");
        let (mut dims, scales) = (n.dims(0).ok_or_else(missing)?, n.dims(2).ok_or_else(missing)?);
        let dtype = n.dtype(0).ok_or_else(missing)?;
        let (per, [gather, quantize]) = (packed(n)?, axes(n, dims.len())?);
        let last = dims.last_mut().ok_or_else(missing)?;
        *last = last.saturating_mul(per);
        let block = match n.int_or("block_size", 128)? {
            0 if small::is_small(dtype) => dims[quantize].max(1),
            size if size > 0 => size as usize,
            size => return Err(OpError::new(format!("attribute \"block_size\" is {size}"))),
        };
        let mut expected = dims.clone();
        expected[quantize] = dims[quantize].div_ceil(block);
        let fits = |(&s, &e): (&usize, &usize)| s == e || (s == 1 && small::is_small(dtype));
        if scales.len() != dims.len() || !scales.iter().zip(&expected).all(fits) {
            return Err(OpError::new(format!(
                "scales of shape {scales:?}; expected {expected:?}"
            )));
        }
        let steps = (0..scales.len()).map(|i| match scales[i] {
            1 => 0,
            _ => count(&scales[i + 1..]).unwrap_or(0),
        });
        let row = scales.last().copied().unwrap_or(1);
        let zeros = if per > 1 { row.next_multiple_of(per) } else { row };
        let outer = count(&scales[..scales.len() - 1]).unwrap_or(0);
        if let Some(z) = n
            .dims(3)
            .and_then(|z| count(&z))
            .filter(|&z| z * per != outer * zeros)
        {
            return Err(OpError::new(format!(
                "{z} zero points; expected {}",
                outer * zeros / per
            )));
        }
        Ok(Table {
            dtype,
            bits: dtype.bits() / per,
            steps: steps.collect(),
            dims,
            gather,
            quantize,
            block,
            rows: [row, zeros],
        })
    }

    fn code(&self, bytes: &[u8], i: usize) -> u8 {
        let per = 8 / self.bits;
        bytes[i / per] >> (i % per * self.bits) & (0xffu16 >> (8 - self.bits)) as u8
    }

    fn number(&self, code: u8) -> f32 {
        match self.dtype {
            d if small::is_small(d) => small::decode(d, code) as f32,
            DType::I4 => small::widened(DType::I4, code).into(),
            _ => code.into(),
        }
    }

    /// The element of the table at number `i`, given scales and zero points.
    fn element(&self, i: usize, data: &[u8], scales: &impl Fn(usize) -> f32, zeros: Option<&[u8]>) -> f32 {
        let (mut rest, mut scale) = (i, 0);
        for axis in (0..self.dims.len()).rev() {
            let mut at = rest % self.dims[axis];
            rest /= self.dims[axis];
            if axis == self.quantize {
                at /= self.block;
            }
            scale += at * self.steps[axis];
        }
        let [row, padded] = self.rows;
        let zero = match zeros {
            Some(z) => self.number(self.code(z, scale / row * padded + scale % row)),
            None if self.dtype == DType::U8 => (1u32 << (self.bits - 1)) as f32,
            None => 0.0,
        };
        (self.number(self.code(data, i)) - zero) * scales(scale)
    }

    /// Writes the elements of the result from number `start` on, each read from a place in the table.
    fn gather(&self, start: usize, to: &mut [f32], by: &[i64], read: &impl Fn(usize) -> f32) {
        let inner: usize = self.dims[self.gather + 1..].iter().product();
        let size = self.dims[self.gather];
        for (o, y) in (start..).zip(to) {
            let (within, rest) = (o % inner, o / inner);
            let (index, outer) = (by[rest % by.len()], rest / by.len());
            *y = match bounded(index, size) {
                Ok(i) => read((outer * size + i) * inner + within),
                Err(_) => 0.0,
            };
        }
    }
}

fn shape(n: &NodeRef) -> Result<Option<Shape>, OpError> {
    let per = packed(n)?;
    let (Some(table), Some(by)) = (n.shape(0), n.shape(1)) else {
        return Ok(None);
    };
    let [gather, quantize] = axes(n, table.len())?;
    if per > 1 && gather == quantize {
        return Err(OpError::new(
            "elements are gathered along the axis of their blocks",
        ));
    }
    let mut wide = table.clone();
    if let Some(last) = wide.last_mut() {
        *last = last.clone() * Dim::from(per);
    }
    Ok(Some([&wide[..gather], &by[..], &wide[gather + 1..]].concat()))
}

impl Op for GatherBlockQuantized {
    fn name(&self) -> OpName {
        microsoft("GatherBlockQuantized")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        crate::ops::shape::arity(n, 3, 4)?;
        index_type(n, 1)?;
        n.int("block_size")?;
        if n.dims(0).is_some() && n.dims(2).is_some() && n.dtype(0).is_some() {
            Table::new(n)?;
        }
        Ok(vec![Fact::tensor(n.dtype(2), shape(n)?)])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (data, by, scales) = (given(x, 0)?, given(x, 1)?, given(x, 2)?);
        let (dims, table) = knowing(n, x, |n| Ok((sized(self, n, 0)?, Table::new(n)?)))?;
        let by = integers(by, 1)?;
        let missing = || OpError::new("scales that are no floats");
        let all: Vec<f32> = scales
            .floats()
            .ok_or_else(missing)?
            .iter()
            .map(|&s| s as f32)
            .collect();
        let zeros = x.get(3).copied().flatten().map(Tensor::bytes);
        let mut y = vec![0.0; count(&dims).unwrap_or(0)];
        table.gather(0, &mut y, &by, &|i| {
            table.element(i, data.bytes(), &|i| all[i], zeros)
        });
        let y: Vec<f64> = y.into_iter().map(f64::from).collect();
        Ok(vec![
            Tensor::rounded(scales.dtype(), &dims, &y).ok_or_else(missing)?,
        ])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        kernel(n).into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        let bytes = |dims: &[usize], seed| crate::ops::qmatmul::cases::bytes(dims, seed);
        let by = || Tensor::of(&[2, 2], vec![0i64, 4, -1, 77]);
        let nibbles = |dtype, dims: &[usize]| {
            let n: usize = dims.iter().product();
            let all: Vec<_> = (0..n).map(|i| (i % 7) as f64).collect();
            Tensor::rounded(dtype, dims, &all).unwrap_or_else(|| bytes(dims, 1))
        };
        vec![
            Case::new(
                "half bytes",
                [
                    bytes(&[5, 20], 1),
                    by(),
                    case::floats(&[5, 3], 2),
                    bytes(&[5, 2], 3),
                ],
            )
            .attr("block_size", 16i64),
            Case::new("bytes", [bytes(&[5, 40], 1), by(), case::floats(&[5, 3], 2)])
                .attr("block_size", 16i64)
                .attr("bits", 8i64),
            Case::new(
                "packed elements",
                [
                    nibbles(DType::I4, &[5, 3, 17]),
                    Tensor::of(&[2], vec![2i32, 0]),
                    case::floats(&[5, 3, 2], 2),
                    nibbles(DType::I4, &[5, 3, 2]),
                ],
            )
            .attr("block_size", 16i64)
            .attr("gather_axis", 1i64)
            .attr("quantize_axis", -1i64),
            Case::new(
                "small floats",
                [
                    nibbles(DType::F8E4M3FN, &[5, 9]),
                    by(),
                    Tensor::of(&[1, 1], vec![0.5f32]),
                ],
            )
            .attr("block_size", 0i64),
        ]
    }
}

fn kernel(n: &NodeRef) -> Option<Candidate> {
    let (table, len) = (Table::new(n).ok()?, count(&n.out_dims(0)?)?);
    let (loader, dtype) = (Loader::new(n.dtype(2)?)?, n.out_dtype(0)?);
    if dtype != DType::F32 && !matches!(dtype, DType::F16 | DType::BF16) {
        return None;
    }
    let name = format!("gatherblockquantized.{}", short(table.dtype));
    let run = move |io: &mut Io| {
        let by = io.input(1);
        let by: Vec<i64> = match by.dtype() {
            DType::I32 => by.slice::<i32>().iter().map(|&i| i.into()).collect(),
            _ => by.slice::<i64>().to_vec(),
        };
        let scales = io.input(2);
        let (data, width) = (io.input(0).bytes(), dtype.bits() / 8);
        // Few of many scales are read.
        let scale = |i: usize| {
            let mut one = [0.0];
            loader.load(scales.bytes(), i, &mut one);
            one[0]
        };
        let zeros = io.inputs.get(3).copied().flatten().map(|z| z.bytes());
        let pool = io.pool;
        chunks(pool, io.output(0).bytes(), PART * width, &|part, y| {
            let mut few = vec![0.0; y.len() / width];
            table.gather(part * PART, &mut few, &by, &|i| {
                table.element(i, data, &scale, zeros)
            });
            match dtype {
                DType::F32 => y.copy_from_slice(bytemuck::cast_slice(&few)),
                _ => crate::ops::quant::narrow(dtype, &few, y),
            }
        });
    };
    Some(Candidate::new(name, Cost::bytes(len.saturating_mul(8)), run))
}
