//! Kernels that quantise and dequantise.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use secateur_simd::{Simd, Vectorised, dispatch};

use super::{Grid, Piece, Quantiser};
use crate::cpu::elementwise::Inside;
use crate::cpu::moves::{chunks, short};
use crate::cpu::walk::CHUNK;
use crate::cpu::{Candidate, Cost, Io, Kernel, Pool};
use crate::ir::{DType, count, small};
use crate::ops::{NodeRef, OpError};

/// Elements that are converted at a time.
const FEW: usize = 256;

/// Reads numbers as `f32`.
pub(crate) struct Loader {
    dtype: DType,
    /// What each code stands for, of types of at most 8 bits.
    table: Vec<f32>,
}

impl Loader {
    /// For elements of type `dtype`; `None` if they are not all numbers of `f32`, rounded perhaps.
    pub(crate) fn new(dtype: DType) -> Option<Loader> {
        use DType::{BF16, F16, F32, I8, I16, I32, U8, U16};
        let of = |f: &dyn Fn(u8) -> f64| (0..1usize << dtype.bits()).map(|c| f(c as u8) as f32).collect();
        let table = match dtype {
            F32 | F16 | BF16 | I32 | I16 | U16 | I8 | U8 => vec![],
            d if small::is_small(d) => of(&|c| small::decode(d, c)),
            d if d.is_int() && d.bits() < 8 => of(&|c| small::widened(d, c).into()),
            _ => return None,
        };
        Some(Loader { dtype, table })
    }

    /// Elements of `bytes` from number `start` on.
    pub(crate) fn load(&self, bytes: &[u8], start: usize, to: &mut [f32]) {
        macro_rules! each {
            ($t:ty) => {{
                let x = &bytemuck::cast_slice::<u8, $t>(bytes)[start..][..to.len()];
                dispatch(Inside(
                    #[inline(always)]
                    || to.iter_mut().zip(x).for_each(|(y, &x)| *y = x as f32),
                ));
            }};
        }
        macro_rules! half {
            ($t:ty) => {
                bytemuck::cast_slice::<u8, $t>(bytes)[start..][..to.len()].convert_to_f32_slice(to)
            };
        }
        match self.dtype {
            DType::F32 => to.copy_from_slice(&bytemuck::cast_slice(bytes)[start..][..to.len()]),
            DType::F16 => half!(f16),
            DType::BF16 => half!(bf16),
            DType::I32 => each!(i32),
            DType::I16 => each!(i16),
            DType::U16 => each!(u16),
            DType::I8 => each!(i8),
            DType::U8 => each!(u8),
            d => {
                let (bits, per) = (d.bits(), 8 / d.bits());
                for (i, y) in (start..).zip(to) {
                    let code = usize::from(bytes[i / per]) >> (i % per * bits);
                    *y = self.table[code & (self.table.len() - 1)];
                }
            }
        }
    }

    /// All `len` elements of `bytes`.
    pub(crate) fn all(&self, bytes: &[u8], len: usize) -> Vec<f32> {
        let mut all = vec![0.0; len];
        self.load(bytes, 0, &mut all);
        all
    }
}

/// Scales and zero points, which are inputs 1 and 2.
struct Scales {
    scale: Loader,
    zero: Option<Loader>,
}

impl Scales {
    fn new(n: &NodeRef) -> Option<Scales> {
        let zero = match n.has(2) {
            true => Some(Loader::new(n.dtype(2)?)?),
            false => None,
        };
        Some(Scales {
            scale: Loader::new(n.dtype(1)?)?,
            zero,
        })
    }

    fn read(&self, io: &Io) -> Params {
        let all = |l: &Loader, i: usize| {
            let view = io.input(i);
            l.all(view.bytes(), view.len())
        };
        let scale = all(&self.scale, 1);
        let zero = self.zero.as_ref().map_or(vec![0.0; scale.len()], |z| all(z, 2));
        Params { scale, zero }
    }
}

/// Scales and zero points as `f32`.
struct Params {
    scale: Vec<f32>,
    zero: Vec<f32>,
}

impl Params {
    /// Those of a piece: one or one for each element.
    fn of(&self, p: Piece) -> (&[f32], &[f32]) {
        let range = p.scale..p.scale + if p.step == 0 { 1 } else { p.len };
        (&self.scale[range.clone()], &self.zero[range])
    }
}

fn traffic(n: &NodeRef, len: usize, to: DType) -> Cost {
    let bytes = |d: Option<DType>| d.and_then(|d| d.bytes(len)).unwrap_or(0);
    Cost::bytes(bytes(n.dtype(0)).saturating_add(bytes(Some(to))))
}

fn name(op: &str, n: &NodeRef, to: DType) -> String {
    let from = n.dtype(0).map_or(String::new(), short);
    format!("{op}.{from}.{}.{}", short(to), secateur_simd::isa())
}

/// Writes codes of a type of 8 or 16 bits.
impl Quantiser {
    /// Turns quotients into codes.
    fn write(&self, quotients: &[f32], zero: &[f32], y: &mut [u8]) {
        macro_rules! ints {
            ($t:ty) => {{
                let y: &mut [$t] = bytemuck::cast_slice_mut(y);
                dispatch(Inside(
                    #[inline(always)]
                    || {
                        let code = |q: f32, z: i32| {
                            let whole = q.round_ties_even().clamp(-1e9, 1e9) as i32;
                            (whole + z).clamp(<$t>::MIN.into(), <$t>::MAX.into()) as $t
                        };
                        let all = y.iter_mut().zip(quotients);
                        match zero {
                            &[z] => all.for_each(|(y, &q)| *y = code(q, z as i32)),
                            zero => all
                                .zip(zero)
                                .for_each(|((y, &q), &z)| *y = code(q, z as i32)),
                        }
                    },
                ));
            }};
        }
        match self.to {
            DType::U8 => ints!(u8),
            DType::I8 => ints!(i8),
            DType::U16 => ints!(u16),
            DType::I16 => ints!(i16),
            d => {
                let zero = zero.iter().cycle();
                for ((y, &q), &z) in y.iter_mut().zip(quotients).zip(zero) {
                    let sum = if z == 0.0 { q } else { self.rounded(q + z) };
                    *y = small::encode(d, sum.into(), self.saturate);
                }
            }
        }
    }

    fn rounded(&self, x: f32) -> f32 {
        match self.precision {
            DType::F16 => f16::from_f32(x).to_f32(),
            DType::BF16 => bf16::from_f32(x).to_f32(),
            _ => x,
        }
    }

    fn divide(&self, x: &mut [f32], scale: &[f32]) {
        if self.precision != DType::F32 {
            let r = |x| self.rounded(x);
            let all = x.iter_mut().zip(scale.iter().cycle());
            return all.for_each(|(x, &s)| *x = r(r(*x) / r(s)));
        }
        dispatch(Inside(
            #[inline(always)]
            || match scale {
                &[s] => x.iter_mut().for_each(|x| *x /= s),
                scale => x.iter_mut().zip(scale).for_each(|(x, s)| *x /= s),
            },
        ));
    }

    /// Quantises `bytes`, of the type that `loader` reads, into `y`.
    fn run(&self, pool: &Pool, loader: &Loader, bytes: &[u8], y: &mut [u8], grid: &Grid, params: &Params) {
        let width = self.to.bits() / 8;
        chunks(pool, y, CHUNK * width, &|part, y| {
            let (start, mut few) = (part * CHUNK, [0.0; FEW]);
            grid.pieces(start, y.len() / width, |at, piece| {
                for k in (0..piece.len).step_by(FEW) {
                    let len = FEW.min(piece.len - k);
                    let few = &mut few[..len];
                    loader.load(bytes, start + at + k, few);
                    let scale = piece.scale + k * piece.step;
                    let (scale, zero) = params.of(Piece { len, scale, ..piece });
                    self.divide(few, scale);
                    self.write(few, zero, &mut y[(at + k) * width..][..len * width]);
                }
            });
        });
    }
}

pub(super) fn quantize(n: &NodeRef, quantiser: Quantiser, grid: Grid) -> Option<Candidate> {
    let len = count(&n.dims(0)?)?;
    let (loader, scales) = (Loader::new(n.dtype(0)?)?, Scales::new(n)?);
    if quantiser.to.bits() < 8 || quantiser.precision == DType::F64 {
        return None;
    }
    let run = move |io: &mut Io| {
        let (params, x, pool) = (scales.read(io), io.input(0), io.pool);
        let y = io.output(0).bytes();
        quantiser.run(pool, &loader, x.bytes(), y, &grid, &params);
    };
    let to = quantiser.to;
    Some(Candidate::new(
        name("quantizelinear", n, to),
        traffic(n, len, to),
        run,
    ))
}

pub(super) fn dequantize(n: &NodeRef, to: DType, grid: Grid) -> Option<Candidate> {
    let len = count(&n.dims(0)?)?;
    let (loader, scales) = (Loader::new(n.dtype(0)?)?, Scales::new(n)?);
    if !matches!(to, DType::F32 | DType::F16 | DType::BF16) {
        return None;
    }
    let width = to.bits() / 8;
    let run = move |io: &mut Io| {
        let (params, x, pool) = (scales.read(io), io.input(0), io.pool);
        let x = x.bytes();
        chunks(pool, io.output(0).bytes(), CHUNK * width, &|part, y| {
            let (start, mut few) = (part * CHUNK, [0.0; FEW]);
            grid.pieces(start, y.len() / width, |at, piece| {
                for k in (0..piece.len).step_by(FEW) {
                    let len = FEW.min(piece.len - k);
                    let scale = piece.scale + k * piece.step;
                    let (scale, zero) = params.of(Piece { len, scale, ..piece });
                    let y = &mut y[(at + k) * width..][..len * width];
                    let few = &mut few[..len];
                    match to {
                        DType::F32 => {
                            let y = bytemuck::cast_slice_mut(y);
                            loader.load(x, start + at + k, y);
                            restore(y, scale, zero);
                        }
                        _ => {
                            loader.load(x, start + at + k, few);
                            restore(few, scale, zero);
                            narrow(to, few, y);
                        }
                    }
                }
            });
        });
    };
    Some(Candidate::new(
        name("dequantizelinear", n, to),
        traffic(n, len, to),
        run,
    ))
}

/// `x[i] = (x[i] - zero) * scale`
fn restore(x: &mut [f32], scale: &[f32], zero: &[f32]) {
    dispatch(Inside(
        #[inline(always)]
        || match (scale, zero) {
            (&[s], &[z]) => x.iter_mut().for_each(|x| *x = (*x - z) * s),
            _ => {
                let all = x.iter_mut().zip(scale.iter().zip(zero));
                all.for_each(|(x, (&s, &z))| *x = (*x - z) * s);
            }
        },
    ));
}

/// Rounds floats to halves of type `to`.
pub(crate) fn narrow(to: DType, x: &[f32], y: &mut [u8]) {
    match to {
        DType::F16 => bytemuck::cast_slice_mut::<u8, f16>(y).convert_from_f32_slice(x),
        _ => bytemuck::cast_slice_mut::<u8, bf16>(y).convert_from_f32_slice(x),
    }
}

/// The least and the greatest of floats and 0, NaN passed over.
struct Range<'a>(&'a [f32]);

impl Vectorised for Range<'_> {
    type Out = [f32; 2];

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> [f32; 2] {
        let mut ends = [[s.splat(0.0); 2]; 2];
        let mut widen = |i: usize, x: S::F32| {
            // Of NaN and a number, both take the second.
            ends[0][i] = s.min(x, ends[0][i]);
            ends[1][i] = s.max(x, ends[1][i]);
        };
        let blocks = self.0.chunks_exact(2 * S::LANES);
        let rest = blocks.remainder();
        for block in blocks {
            for i in 0..2 {
                // SAFETY: a block has two vectors.
                widen(i, unsafe { s.load(block.as_ptr().add(i * S::LANES)) });
            }
        }
        for few in rest.chunks(S::LANES) {
            // SAFETY: there are so many; the other lanes are 0, which is in the range anyway.
            widen(0, unsafe { s.load_first(few.as_ptr(), few.len()) });
        }
        let [low, high] = ends;
        [
            -s.greatest(s.neg(s.min(low[0], low[1]))),
            s.greatest(s.max(high[0], high[1])),
        ]
    }
}

struct Dynamic;

impl Kernel for Dynamic {
    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        let (x, pool) = (io.input(0), io.pool);
        let data = x.slice::<f32>();
        let mut ends = vec![[0f32; 2]; data.len().div_ceil(CHUNK)];
        chunks(pool, &mut ends, 1, &|part, end| {
            let from = part * CHUNK;
            end[0] = dispatch(Range(&data[from..data.len().min(from + CHUNK)]));
        });
        let [low, high] = ends
            .into_iter()
            .fold([0.0f32; 2], |a, b| [a[0].min(b[0]), a[1].max(b[1])]);
        let scale = (high - low) / 255.0;
        // Of zeros only, the scale is 0, and NaN becomes 0.
        let zero = (0.0 - low / scale).clamp(0.0, 255.0).round_ties_even() as u8;
        if let Some(Some(out)) = io.outputs.get_mut(1) {
            out.slice::<f32>()[0] = scale;
        }
        if let Some(Some(out)) = io.outputs.get_mut(2) {
            out.slice::<u8>()[0] = zero;
        }
        let (Some(Some(y)), Some(loader)) = (io.outputs.get_mut(0), Loader::new(DType::F32)) else {
            return Ok(());
        };
        let quantiser = Quantiser {
            to: DType::U8,
            precision: DType::F32,
            saturate: true,
        };
        let params = Params {
            scale: vec![scale],
            zero: vec![zero.into()],
        };
        let grid = Grid::new(x.dims(), &[], None, 0)?;
        quantiser.run(pool, &loader, x.bytes(), y.bytes(), &grid, &params);
        Ok(())
    }
}

pub(super) fn dynamic(n: &NodeRef) -> Option<Candidate> {
    let len = count(&n.dims(0)?)?;
    if n.dtype(0) != Some(DType::F32) {
        return None;
    }
    let cost = Cost::bytes(len.saturating_mul(9));
    Some(Candidate::new(
        name("dynamicquantizelinear", n, DType::U8),
        cost,
        Dynamic,
    ))
}
