//! `MatMulNBits` and `GatherBlockQuantized`: weights of few bits, in blocks that have a scale each.

mod cpu;
mod gather;

use super::case::floats;
use super::pick::given;
use super::quant::Loader;
use super::{Axes, Case, Fact, NodeRef, Op, OpError, OpName, Tie, microsoft};
use crate::cpu::Candidate;
use crate::ir::{DType, Dim, Tensor, count};
pub use gather::GatherBlockQuantized;

/// ONNX Runtime's `MatMulNBits`: `A Bᵀ + bias`, where B has rows of blocks of 2, 4 or 8-bit integers.
pub struct MatMulNBits;

/// The attributes: how weights are laid out.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Layout {
    /// Rows of B: columns of the result.
    n: usize,
    /// Columns of B.
    k: usize,
    bits: usize,
    /// Elements of a block.
    block: usize,
}

impl Layout {
    fn of(n: &NodeRef) -> Result<Layout, OpError> {
        n.int("accuracy_level")?;
        if n.int_or("weight_prepacked", 0)? != 0 {
            return Err(OpError::new("weights in the layout of a GPU are not supported"));
        }
        let size = |name: &str, fits: &dyn Fn(i64) -> bool| match n.int(name)? {
            Some(x) if fits(x) => Ok(x as usize),
            found => Err(OpError::new(format!(
                "attribute {name:?} is {found:?}, which is no size that it may have"
            ))),
        };
        let bits = match n.int_or("bits", 4)? {
            bits @ (2 | 4 | 8) => bits as usize,
            bits => {
                return Err(OpError::new(format!(
                    "attribute \"bits\" is {bits}; expected 2, 4 or 8"
                )));
            }
        };
        let positive = |x: i64| (1..1 << 31).contains(&x);
        Ok(Layout {
            n: size("N", &positive)?,
            k: size("K", &positive)?,
            bits,
            block: size("block_size", &|x| positive(x) && x % 8 == 0)?,
        })
    }

    /// Blocks of a row.
    fn blocks(&self) -> usize {
        self.k.div_ceil(self.block)
    }

    /// Bytes of a row of B.
    fn row(&self) -> usize {
        self.blocks() * self.block * self.bits / 8
    }

    /// Bytes of a row of packed zero points.
    fn zero_row(&self) -> usize {
        (self.blocks() * self.bits).div_ceil(8)
    }

    /// Refuses an input of another size.
    fn check(&self, n: &NodeRef) -> Result<(), OpError> {
        let sized = |i: usize, expected: usize| match n.dims(i) {
            Some(d) if count(&d) != Some(expected) => Err(OpError::new(format!(
                "input {i} has shape {d:?}; expected {expected} elements"
            ))),
            _ => Ok(()),
        };
        let scales = self.n * self.blocks();
        sized(1, self.n * self.row())?;
        sized(2, scales)?;
        match n.dtype(3) {
            Some(DType::U8) => sized(3, self.n * self.zero_row())?,
            _ => sized(3, scales)?,
        }
        sized(5, self.n)?;
        match n.dims(4).and_then(|d| count(&d)) {
            Some(len) if len < self.k => Err(OpError::new(format!(
                "{len} indices of groups; expected {}",
                self.k
            ))),
            _ => Ok(()),
        }
    }
}

/// Weights as they lie in memory, scales and zero points as floats.
struct Weights<'a> {
    layout: Layout,
    bytes: &'a [u8],
    scales: Vec<f32>,
    zeros: Zeros<'a>,
    /// The block of each column, if it is not the one that it lies in.
    groups: Option<Vec<usize>>,
}

enum Zeros<'a> {
    Middle,
    Packed(&'a [u8]),
    Floats(Vec<f32>),
}

impl Weights<'_> {
    fn code(bytes: &[u8], bits: usize, i: usize) -> u8 {
        let per = 8 / bits;
        bytes[i / per] >> (i % per * bits) & (0xffu16 >> (8 - bits)) as u8
    }

    /// Scale and zero point of block `block` of row `row`.
    fn params(&self, row: usize, block: usize) -> (f32, f32) {
        let l = &self.layout;
        let at = row * l.blocks() + block;
        let zero = match &self.zeros {
            Zeros::Middle => (1u32 << (l.bits - 1)) as f32,
            Zeros::Packed(bytes) => Self::code(&bytes[row * l.zero_row()..], l.bits, block).into(),
            Zeros::Floats(all) => all[at],
        };
        (self.scales[at], zero)
    }

    /// Writes row `row` of B.
    fn row(&self, row: usize, to: &mut [f32]) {
        let l = self.layout;
        let bytes = &self.bytes[row * l.row()..][..l.row()];
        if let Some(groups) = &self.groups {
            for (k, (to, &group)) in to.iter_mut().zip(groups).enumerate() {
                let (scale, zero) = self.params(row, group);
                *to = (f32::from(Self::code(bytes, l.bits, k)) - zero) * scale;
            }
            return;
        }
        let blocks = bytes.chunks_exact(l.block * l.bits / 8);
        for (b, (bytes, to)) in blocks.zip(to.chunks_mut(l.block)).enumerate() {
            cpu::unpack(bytes, l.bits, self.params(row, b), to);
        }
    }
}

/// The weights of a node whose inputs beyond A are `bytes` with their types.
fn weights<'a>(layout: Layout, x: &[Option<(DType, &'a [u8])>]) -> Result<Weights<'a>, OpError> {
    let missing = || OpError::new("expected A, B and scales of floats");
    let at = |i: usize| x.get(i).copied().flatten();
    let read = |(dtype, bytes): (DType, &[u8]), len| {
        Loader::new(dtype).map(|l| l.all(bytes, len)).ok_or_else(missing)
    };
    let len = layout.n * layout.blocks();
    let zeros = match at(3) {
        None => Zeros::Middle,
        Some((DType::U8, bytes)) => Zeros::Packed(bytes),
        Some(floats) => Zeros::Floats(read(floats, len)?),
    };
    let groups = match at(4) {
        None => None,
        Some(ints) => {
            let all = read(ints, layout.k)?.into_iter().map(|g| g as usize);
            Some(all.collect::<Vec<_>>()).filter(|g: &Vec<_>| !g.is_empty())
        }
    };
    let wrong = groups.iter().flatten().find(|&&g| g >= layout.blocks());
    if let Some(g) = wrong {
        return Err(OpError::new(format!(
            "group {g}; expected one below {}",
            layout.blocks()
        )));
    }
    Ok(Weights {
        layout,
        bytes: at(1).ok_or_else(missing)?.1,
        scales: read(at(2).ok_or_else(missing)?, len)?,
        zeros,
        groups,
    })
}

impl Op for MatMulNBits {
    fn name(&self) -> OpName {
        microsoft("MatMulNBits")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        super::shape::arity(n, 3, 6)?;
        let layout = Layout::of(n)?;
        layout.check(n)?;
        if let Some(d) = n.dtype(1).filter(|&d| d != DType::U8) {
            return Err(OpError::new(format!("input 1 is of type {d}; expected uint8")));
        }
        let wide = |d: DType| matches!(d, DType::F32 | DType::F16 | DType::BF16);
        if let Some(d) = n.dtype(0).filter(|&d| !wide(d)) {
            return Err(OpError::new(format!("input 0 is of type {d}; expected floats")));
        }
        let Some(a) = n.shape(0) else {
            return Ok(vec![Fact::tensor(n.dtype(0), None)]);
        };
        let Some((last, rows)) = a.split_last() else {
            return Err(OpError::new("input 0 is a scalar; expected a matrix"));
        };
        if last.size().is_some_and(|k| k != layout.k) {
            return Err(OpError::new(format!(
                "input 0 has rows of {last}; attribute \"K\" is {}",
                layout.k
            )));
        }
        let mut shape = rows.to_vec();
        shape.push(Dim::from(layout.n));
        Ok(vec![Fact::tensor(n.dtype(0), Some(shape))])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        let rank = n.rank(0)?;
        let tie = |i: usize| Tie {
            output: Some(i),
            inputs: if i + 1 < rank { vec![(0, i)] } else { vec![(1, 0)] },
        };
        Some(Axes((0..rank).map(tie).collect()))
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let layout = Layout::of(n)?;
        super::pick::knowing(n, x, |n| layout.check(n))?;
        let a = given(x, 0)?;
        let held: Vec<_> = x.iter().map(|t| t.map(Tensor::aligned)).collect();
        let raw: Vec<_> = held
            .iter()
            .map(|t| t.as_ref().map(|t| (t.dtype(), t.bytes())))
            .collect();
        let weights = weights(layout, &raw)?;
        let missing = || OpError::new("expected floats");
        let all = a.floats().ok_or_else(missing)?;
        let bias = match x.get(5).copied().flatten() {
            Some(b) => b.floats().ok_or_else(missing)?,
            None => vec![0.0; layout.n],
        };
        let rows = all.len() / layout.k;
        let mut y = vec![0.0; rows * layout.n];
        let mut row = vec![0.0; layout.k];
        for (j, bias) in bias.iter().enumerate() {
            weights.row(j, &mut row);
            for i in 0..rows {
                let products = row.iter().zip(&all[i * layout.k..]);
                let sum: f64 = products.map(|(&w, &a)| f64::from(w) * a).sum();
                y[i * layout.n + j] = sum + bias;
            }
        }
        let mut dims = a.dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = layout.n;
        }
        Ok(vec![Tensor::rounded(a.dtype(), &dims, &y).ok_or_else(missing)?])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        Layout::of(n)
            .ok()
            .and_then(|l| cpu::product(n, l))
            .into_iter()
            .collect()
    }

    fn cases(&self) -> Vec<Case> {
        let bytes = |dims: &[usize], seed| super::qmatmul::cases::bytes(dims, seed);
        let case = |name, a: &[usize], n: usize, bits: usize, block: usize, inputs: &[Option<Tensor>]| {
            let k = a[a.len() - 1];
            let blocks = k.div_ceil(block);
            let mut case = Case::new(
                name,
                [
                    floats(a, 1),
                    bytes(&[n, blocks, block * bits / 8], 2),
                    floats(&[n, blocks], 3),
                ],
            );
            case.inputs.extend(inputs.iter().cloned());
            let case = case.attr("N", n as i64).attr("K", k as i64);
            let case = case.attr("bits", bits as i64).attr("block_size", block as i64);
            case.within(2e-3, 1e-4).konst(&[1, 2])
        };
        let halves = |t: &Tensor| t.floats().and_then(|f| Tensor::rounded(DType::F16, t.dims(), &f));
        let groups = Tensor::of(&[40], (0..40).map(|i| i * 7 % 3).collect());
        let mut of_halves = case("halves", &[3, 40], 5, 4, 16, &[]).within(0.3, 1e-2);
        for i in [0, 2] {
            of_halves.inputs[i] = of_halves.inputs[i].as_ref().and_then(halves);
        }
        vec![
            case("4 bits", &[2, 3, 64], 19, 4, 32, &[]),
            case("one row", &[1, 100], 70, 4, 32, &[Some(bytes(&[70, 2], 4))]),
            case("8 bits", &[5, 40], 6, 8, 16, &[Some(bytes(&[6, 3], 4))]),
            case("2 bits", &[5, 40], 6, 2, 16, &[]),
            case(
                "zero points of floats",
                &[9, 32],
                7,
                4,
                16,
                &[Some(floats(&[7, 2], 5))],
            ),
            case("groups", &[2, 40], 3, 4, 16, &[None, Some(groups)]),
            case("a bias", &[2, 40], 3, 8, 16, &[None, None, Some(floats(&[3], 6))])
                .attr("accuracy_level", 4i64),
            case("no rows", &[0, 40], 3, 8, 16, &[]),
            of_halves,
        ]
    }
}
