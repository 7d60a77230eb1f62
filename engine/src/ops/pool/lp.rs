//! `LpPool` and its global form: norms of windows and of whole channels.

use secateur_simd::{Simd, math};

use super::{Sizes, axes, checked, grad, image, infer, no_pool};
use crate::cpu::act::ActFn;
use crate::cpu::pool::{Means, Pooling};
use crate::cpu::{Act, Candidate, Cost, Io, Kernel, elementwise, moves};
use crate::expr::Ex;
use crate::ir::{Attr, DType, Dim, Tensor};
use crate::ops::case::floats;
use crate::ops::grad::at;
use crate::ops::{Axes, Case, Exs, Fact, Grads, NodeRef, Op, OpError, OpName, Tie, onnx};

/// The p-norm of each window.
pub struct LpPool;

/// The p-norm of each channel.
pub struct GlobalLpPool;

/// The order of the norm, an integer from opset 2 on.
fn order(n: &NodeRef) -> Result<f32, OpError> {
    let p = match n.opset() {
        ..2 => n.float_or("p", 2.0)?,
        2.. => n.int_or("p", 2)? as f32,
    };
    match p > 0.0 && p.is_finite() {
        true => Ok(p),
        false => Err(OpError::new(format!(
            "attribute \"p\" is {p}; expected a positive number"
        ))),
    }
}

impl Op for LpPool {
    fn name(&self) -> OpName {
        onnx("LpPool")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 2, 11, 18, 22]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        order(n)?;
        Ok(vec![infer(n)?])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        axes(n)
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (x, s) = image(n, x)?;
        let p = f64::from(order(n)?);
        let data = x.floats().ok_or_else(|| no_pool(x))?;
        let mut values = vec![];
        s.each(|channel, at| {
            let under = s.window.covered(at);
            let powers = under.map(|(_, u)| data[channel * s.window.plane() + u].abs().powf(p));
            values.push(powers.sum::<f64>().powf(1.0 / p));
        });
        let y = Tensor::rounded(x.dtype(), &s.dims, &values);
        Ok(vec![y.ok_or_else(|| no_pool(x))?])
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, y: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        grad::norms(n, order(n).ok()?, at(x, 0)?, at(y, 0)?, at(dy, 0)?)
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let made = || {
            let (x, y) = (n.dims(0)?, n.out_dims(0)?);
            let p = order(n).ok()?;
            if x.len() < 3 || n.dtype(0)? != DType::F32 {
                return None;
            }
            let s = Sizes::new(n, &x).ok().filter(|s| s.dims == y)?;
            if s.window.is_wide() || s.channels == 0 {
                return None;
            }
            let (channels, positions) = (s.channels, s.window.positions());
            let elements = channels.checked_mul(s.window.plane())?;
            // What is multiplied by one stays a sum.
            let ones = Means::new(&vec![1; positions]);
            let cost = Cost {
                flops: channels as f64 * positions as f64 * s.window.taps() as f64,
                bytes: 12.0 * elements as f64,
                efficiency: 1.0,
            };
            let pooling = Pooling::new(s.window, channels, Some(ones))?;
            let kernel = Norms { pooling, elements, p };
            let name = format!("lppool.f32.{}", secateur_simd::isa());
            Some(Candidate::new(name, cost, kernel))
        };
        made().into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        let case = |name, dims: &[usize], size: &[i64]| {
            Case::new(name, [floats(dims, 1)])
                .attr("kernel_shape", size)
                .within(1e-5, 1e-5)
        };
        let of = |dtype| {
            let values = floats(&[1, 2, 4, 4], 1).floats().unwrap_or_default();
            Tensor::rounded(dtype, &[1, 2, 4, 4], &values).unwrap_or_else(|| Tensor::scalar(0f32))
        };
        vec![
            case("squares", &[2, 3, 12, 37], &[3, 3])
                .attr("pads", vec![1i64; 4])
                .attr("strides", vec![2i64, 2]),
            case("sums", &[1, 2, 7, 8], &[2, 3])
                .attr("p", 1)
                .attr("ceil_mode", 1)
                .attr("strides", vec![2i64, 3]),
            case("cubes", &[1, 2, 9, 9], &[3, 2])
                .attr("p", 3)
                .attr("dilations", vec![2i64, 3]),
            case("same, lower", &[1, 2, 8, 7], &[3, 4])
                .attr("auto_pad", "SAME_LOWER")
                .opset(2),
            case("a broken order", &[1, 2, 8, 7], &[3, 4])
                .attr("p", 1.5f32)
                .opset(1),
            case("one axis", &[2, 3, 30], &[5])
                .attr("strides", vec![3i64])
                .attr("pads", vec![2i64, 1]),
            case("three axes", &[1, 2, 4, 5, 6], &[2, 3, 2]),
            case("no images", &[0, 2, 4, 4], &[3, 3]),
            case("far beyond the image", &[1, 2, 3, 4], &[20_000, 30_000])
                .attr("pads", vec![9_999i64, 20_000, 10_000, 9_998]),
            Case::new("half precision", [of(DType::F16)])
                .attr("kernel_shape", vec![2i64, 2])
                .within(1e-2, 1e-3),
            Case::new("double precision", [of(DType::F64)])
                .attr("kernel_shape", vec![2i64, 2])
                .within(1e-12, 1e-12),
        ]
    }
}

/// Powers, their sums, and roots.
struct Norms {
    pooling: Pooling,
    elements: usize,
    p: f32,
}

/// Elements that a task raises to a power.
const CHUNK: usize = 1 << 13;

impl Kernel for Norms {
    fn scratch(&self, threads: usize) -> usize {
        let powers = self
            .elements
            .next_multiple_of(16)
            .saturating_mul(size_of::<f32>());
        powers.saturating_add(self.pooling.scratch(threads))
    }

    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        let (x, pool) = (io.input(0).slice::<f32>(), io.pool);
        let y = io.outputs[0].as_mut().expect("output").slice::<f32>();
        let (powers, scratch) = io
            .scratch
            .split_at_mut(self.elements.next_multiple_of(16) * size_of::<f32>());
        let powers = &mut bytemuck::cast_slice_mut(powers)[..self.elements];
        moves::chunks(pool, powers, CHUNK, &|i, part| {
            part.copy_from_slice(&x[i * CHUNK..i * CHUNK + part.len()]);
            elementwise::map_slice(part, Power(self.p));
        });
        self.pooling.run(powers, y, scratch, pool);
        if self.p != 1.0 {
            moves::chunks(pool, y, CHUNK, &|_, part| {
                elementwise::map_slice(part, Power(1.0 / self.p));
            });
        }
        Ok(())
    }
}

/// `|x|^p`
#[derive(Clone, Copy)]
struct Power(f32);

impl ActFn for Power {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        let x = s.abs(x);
        match self.0 {
            1.0 => x,
            2.0 => s.mul(x, x),
            0.5 => s.sqrt(x),
            // The logarithm of 0 is -inf, and e to that 0.
            p => math::exp(s, s.mul(s.splat(p), math::log(s, x))),
        }
    }

    fn act(self) -> Option<Act> {
        None
    }
}

impl Op for GlobalLpPool {
    fn name(&self) -> OpName {
        onnx("GlobalLpPool")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 2, 22]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        order(n)?;
        let shape = checked(n)?.map(|x| {
            let one = |(i, d): (usize, &Dim)| if i < 2 { d.clone() } else { Dim::Known(1) };
            x.iter().enumerate().map(one).collect()
        });
        Ok(vec![Fact::tensor(n.dtype(0), shape)])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        let tie = |a: usize| Tie {
            output: (a < 2).then_some(a),
            inputs: vec![(0, a)],
        };
        Some(Axes((0..n.rank(0)?).map(tie).collect()))
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let (x, rank, p) = (*x.first()?, n.rank(0)?, order(n).ok()?);
        let axes: Vec<i64> = (2..rank as i64).collect();
        let reduce = |op: &str, x: Ex<'a>| {
            let listed = || x.tensor(Tensor::of(&[axes.len()], axes.clone()));
            // An input from opset 18 on, of the sum from 13 on.
            match n.opset() < if op == "ReduceSum" { 13 } else { 18 } {
                true => x.with(op, &[], vec![Attr::new("axes", axes.clone())]),
                false => x.op(op, &[listed()]),
            }
        };
        Some(vec![match p {
            1.0 => reduce("ReduceL1", x),
            2.0 => reduce("ReduceL2", x),
            p => {
                let powers = x.op("Abs", &[]).op("Pow", &[x.constant(p.into())]);
                reduce("ReduceSum", powers).op("Pow", &[x.constant(1.0 / f64::from(p))])
            }
        }])
    }

    fn cases(&self) -> Vec<Case> {
        vec![
            Case::new("squares", [floats(&[2, 5, 7, 9], 1)]),
            Case::new("sums", [floats(&[2, 3, 100], 1)]).attr("p", 1),
            Case::new("cubes", [floats(&[1, 3, 2, 3, 5], 1)]).attr("p", 3),
            Case::new("a broken order", [floats(&[1, 3, 2, 3], 1)])
                .attr("p", 1.5f32)
                .opset(1),
        ]
        .into_iter()
        .map(|c| c.within(1e-5, 1e-5))
        .collect()
    }
}
