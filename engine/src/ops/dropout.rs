//! `Dropout`: elements left out at random while a model is trained.

use super::formula::apply;
use super::grad::{at, cast, only};
use super::pick::given;
use super::shape::{arity, like_first};
use super::{Case, Exs, Fact, Grads, Laws, NodeRef, Op, OpError, OpName, case, onnx};
use crate::cpu::number::{ByType, Int, Real, by_type};
use crate::cpu::{Candidate, Cost, Io, Kernel, affine};
use crate::ir::{DType, Tensor, Type};

/// The input and a mask that keeps all; in training a share of the elements becomes 0 and the others grow by as much.
///
/// Which ones follows from the seed (0 where there is none) as `numpy.random.RandomState` has it, and is the same in
/// every run. Below opset 7 a node trains unless `is_test` says otherwise; from there to opset 11 none does.
pub struct Dropout;

/// The share that is dropped: `None` where it is not known yet.
fn share(n: &NodeRef) -> Option<f64> {
    if n.opset() < 12 {
        return old_share(n).ok();
    }
    if !n.has(2) {
        return Some(0.0);
    }
    match (n.konst(2)?.truths()?.first(), n.has(1)) {
        (Some(true), true) => n.konst(1)?.item(),
        (Some(true), false) => Some(0.5),
        _ => Some(0.0),
    }
}

/// The share before opset 12, when attributes gave it.
fn old_share(n: &NodeRef) -> Result<f64, OpError> {
    n.ignore(&["consumed_inputs"]);
    let (ratio, trains) = (
        n.float_or("ratio", 0.5)?,
        n.opset() < 7 && n.int_or("is_test", 0)? == 0,
    );
    Ok(if trains { ratio.into() } else { 0.0 })
}

fn check(share: f64) -> Result<f64, OpError> {
    match (0.0..1.0).contains(&share) {
        true => Ok(share),
        false => Err(OpError::new(format!(
            "the share is {share}; expected one from 0 to below 1"
        ))),
    }
}

fn seed(n: &NodeRef) -> Result<u32, OpError> {
    // The low bits: all that the generator takes.
    Ok(n.int_or("seed", 0)? as u32)
}

impl Op for Dropout {
    fn name(&self) -> OpName {
        onnx("Dropout")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 6, 7, 10, 12, 13, 22]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, if n.opset() < 12 { 1 } else { 3 })?;
        seed(n)?;
        for i in [1, 2] {
            if let Some(c) = n.dims(i).and_then(|d| crate::ir::count(&d)).filter(|&c| c != 1) {
                return Err(OpError::new(format!("input {i} has {c} elements; expected one")));
            }
        }
        if n.opset() < 12 {
            old_share(n)?;
        }
        check(share(n).unwrap_or(0.0))?;
        let mask = match n.opset() {
            ..10 => n.dtype(0),
            10.. => Some(DType::Bool),
        };
        let same = like_first(n)?.remove(0);
        let mask = match &same.ty {
            Type::Unknown => Fact::tensor(mask, None),
            ty => Fact::tensor(mask, ty.shape().cloned()),
        };
        Ok(vec![same, mask])
    }

    fn laws(&self) -> Laws {
        Laws {
            in_place: &[0],
            ..Laws::default()
        }
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let data = given(x, 0)?;
        let share = check(super::pick::knowing(n, x, share).unwrap_or(0.0))?;
        let mut kept = vec![1.0; data.len()];
        let mut y = data.clone();
        let wrong = || OpError::new(format!("no dropout of {}", data.dtype()));
        if share > 0.0 {
            let mut random = Twister::new(seed(n)?);
            kept.fill_with(|| f64::from(u8::from(random.next() >= share)));
            let v = data.floats().ok_or_else(wrong)?;
            let v: Vec<f64> = v.iter().zip(&kept).map(|(x, k)| x * k / (1.0 - share)).collect();
            y = Tensor::rounded(data.dtype(), data.dims(), &v).ok_or_else(wrong)?;
        }
        let dtype = if n.opset() < 10 { data.dtype() } else { DType::Bool };
        let mask = Tensor::rounded(dtype, data.dims(), &kept);
        Ok(vec![y, mask.ok_or_else(wrong)?])
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, y: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let (dy, own) = (dy[0]?, n.dtype(0)?);
        let trains = match n.has(2) {
            true => n
                .konst(2)
                .and_then(Tensor::truths)
                .and_then(|t| t.first().copied()),
            false => Some(false),
        };
        Some(match (trains, at(y, 1)) {
            (Some(false), _) => vec![Some(dy)],
            (Some(true), Some(mask)) => {
                let share = at(x, 1).map_or(dy.constant(0.5), |share| cast(share, own));
                vec![Some(only(mask, dy / (dy.constant(1.0) - share)))]
            }
            // The same seed leaves out the same elements.
            _ => vec![
                apply(dy, "Dropout", &[at(x, 1), at(x, 2)], n.node().attrs.clone(), 1)
                    .first()
                    .copied(),
            ],
        })
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let made = || {
            let (dtype, seed) = (n.dtype(0)?, seed(n).ok()?);
            let len = crate::ir::count(&n.dims(0)?)?;
            let kernel = by_type(
                dtype,
                Drop {
                    seed,
                    fixed: (n.opset() < 12).then(|| share(n)).flatten(),
                },
            )??;
            Some(Candidate {
                name: format!("dropout.{}", format!("{dtype:?}").to_lowercase()),
                cost: Cost::bytes(2 * len * dtype.bits() / 8),
                layouts: Default::default(),
                sparse: None,
                build: Box::new(|| kernel),
            })
        };
        made().into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        let x = || case::odd_floats(&[3, 5], 1);
        let half = || Tensor::rounded(DType::F16, &[30], &[1.5; 30]);
        let mut all = vec![
            Case::new("alone", [x()]).attr("seed", 3i64),
            Case::new("with a mask", [x()]).outputs(2),
            Case::new(
                "ratio and mode",
                [x(), Tensor::scalar(0.3f32), Tensor::bools(&[], [false])],
            )
            .outputs(2)
            .opset(13),
            Case::new(
                "nothing to drop",
                [x(), Tensor::scalar(0f32), Tensor::bools(&[], [true])],
            ),
            Case::new(
                "training",
                [
                    case::floats(&[70, 11], 1),
                    Tensor::scalar(0.3f32),
                    Tensor::bools(&[], [true]),
                ],
            )
            .attr("seed", 7i64)
            .konst(&[1, 2])
            .within(1e-6, 1e-6)
            .outputs(2),
            Case::new(
                "training with the usual share",
                [
                    case::floats(&[9], 1),
                    Tensor::scalar(0f32),
                    Tensor::bools(&[], [true]),
                ],
            )
            .without(1)
            .opset(12),
            Case::new("a mask of floats", [x()])
                .attr("ratio", 0.1f32)
                .outputs(2)
                .opset(7),
            Case::new("the first version", [x()])
                .attr("is_test", 1i64)
                .attr("consumed_inputs", vec![0i64])
                .opset(1),
            Case::new("training, the first version", [case::floats(&[40], 1)])
                .attr("ratio", 0.3f32)
                .within(1e-6, 1e-6)
                .outputs(2)
                .opset(6),
            Case::new("training is over", [case::floats(&[40], 1)])
                .attr("ratio", 0.3f32)
                .outputs(2)
                .opset(9),
        ];
        all.extend(half().map(|h| {
            Case::new(
                "half precision",
                [h, Tensor::scalar(0.5f32), Tensor::bools(&[], [true])],
            )
        }));
        all
    }
}

struct Drop {
    seed: u32,
    /// The share, where attributes give it.
    fixed: Option<f64>,
}

/// The only element of a float input.
struct Only<'a, 'b>(&'a Io<'b>, usize);

impl ByType for Only<'_, '_> {
    type Out = f64;
    fn real<T: Real>(self) -> f64 {
        let all = self.0.input(self.1).slice::<T>();
        all.first()
            .map_or(0.0, |x| num_traits::cast(x.wide()).unwrap_or(f64::NAN))
    }
    fn int<T: Int>(self) -> f64 {
        f64::NAN
    }
}

impl ByType for Drop {
    type Out = Option<Box<dyn Kernel>>;

    fn real<T: Real>(self) -> Self::Out {
        Some(Box::new(move |io: &mut Io| {
            let there = |i: usize| io.inputs.get(i).copied().flatten();
            let training = there(2).is_some_and(|f| f.bytes().contains(&1));
            let share = match (self.fixed, there(1).filter(|_| training)) {
                (Some(share), _) => share,
                (None, Some(ratio)) => by_type(ratio.dtype(), Only(io, 1)).unwrap_or(f64::NAN),
                (None, None) if training => 0.5,
                (None, None) => 0.0,
            };
            check(share)?;
            let mut random = Twister::new(self.seed);
            let x = io.input(0);
            let kept: Vec<bool> = match share > 0.0 {
                true => (0..x.len()).map(|_| random.next() >= share).collect(),
                false => vec![],
            };
            if let Some(y) = io.outputs[0].as_mut() {
                affine::each(x, y, |i, x: T| match kept.get(i) {
                    None => x,
                    Some(kept) => {
                        let x: f64 = num_traits::cast(x.wide()).unwrap_or(f64::NAN);
                        T::rounded(x * f64::from(u8::from(*kept)) / (1.0 - share))
                    }
                });
            }
            let Some(Some(mask)) = io.outputs.get_mut(1) else {
                return Ok(());
            };
            match mask.dtype() {
                DType::Bool if kept.is_empty() => mask.bytes().fill(1),
                DType::Bool => mask
                    .bytes()
                    .iter_mut()
                    .zip(kept)
                    .for_each(|(m, k)| *m = u8::from(k)),
                _ if kept.is_empty() => mask.slice::<T>().fill(T::rounded(1.0)),
                _ => {
                    let all = mask.slice::<T>().iter_mut().zip(kept);
                    all.for_each(|(m, k)| *m = T::rounded(f64::from(u8::from(k))));
                }
            }
            Ok(())
        }))
    }

    fn int<T: Int>(self) -> Self::Out {
        None
    }
}

/// The Mersenne Twister of Matsumoto and Nishimura, with 624 words of state.
struct Twister {
    words: Vec<u32>,
    used: usize,
}

impl Twister {
    fn new(seed: u32) -> Twister {
        let next = |(i, word): (u32, u32)| {
            let mixed = (word ^ word >> 30).wrapping_mul(1_812_433_253);
            Some((i + 1, mixed.wrapping_add(i + 1)))
        };
        let words = std::iter::successors(Some((0, seed)), |&at| next(at));
        Twister {
            words: words.take(624).map(|(_, word)| word).collect(),
            used: 624,
        }
    }

    fn word(&mut self) -> u32 {
        if self.used == 624 {
            for i in 0..624 {
                let joint = self.words[i] & 0x8000_0000 | self.words[(i + 1) % 624] & 0x7fff_ffff;
                let twist = if joint & 1 == 1 { 0x9908_b0df } else { 0 };
                self.words[i] = self.words[(i + 397) % 624] ^ joint >> 1 ^ twist;
            }
            self.used = 0;
        }
        let mut x = self.words[self.used];
        self.used += 1;
        x ^= x >> 11;
        x ^= x << 7 & 0x9d2c_5680;
        x ^= x << 15 & 0xefc6_0000;
        x ^ x >> 18
    }

    /// A number from 0 to below 1, of 53 random bits.
    fn next(&mut self) -> f64 {
        let (high, low) = (self.word() >> 5, self.word() >> 6);
        (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_usual_generator() {
        let mut random = Twister::new(5489);
        assert_eq!(random.word(), 3_499_211_612);
        assert_eq!((1..10_000).map(|_| random.word()).last(), Some(4_123_659_995));
    }
}
