//! What multiplies each column of a matrix product, folded into its weights.

use crate::expr::{Builder, Ex};
use crate::ir::{DType, Tensor};
use crate::opt::{Match, Pattern, Rule, Scope, Site, Why};

/// `(x w + b) c` and `(x w) c`, where `c` is one constant or a row of them, become `x w' + b'` with `w'[k, n] = w[k, n] c[n]` and
/// `b'[n] = b[n] c[n]`, computed in `f64`.
///
/// Not if the weights have another reader (they would be there twice), or in another type than `float`.
pub(super) struct LinearScale;

impl Rule for LinearScale {
    fn name(&self) -> &'static str {
        "linear-scale"
    }

    fn scope(&self) -> Scope {
        Scope::Portable
    }

    fn patterns(&self) -> Vec<Pattern> {
        // Of two names for one place, because a sum or product by itself is matched as the whole chain.
        vec![
            Pattern::loose(4, |x| {
                let sum = x[0].matmul(x[1]).op("Add|Sum", &[x[3]]);
                sum.op("Mul|Mul", &[x[2]])
            }),
            Pattern::loose(3, |x| x[0].matmul(x[1]).op("Mul|Mul", &[x[2]])),
        ]
    }

    fn rewrite<'a>(&self, m: &Match, site: &Site, b: &'a Builder) -> Result<Ex<'a>, Why> {
        let (x, w) = (b.at(m.inputs[0]), m.inputs[1]);
        let Some(factor) = site.facts.konst(m.inputs[2]).filter(|_| site.opset >= 7) else {
            return Err(Why::NoEffect);
        };
        if site.links.readers(w).len() > 1 {
            return Err(Why::No("the weights are read elsewhere as well"));
        }
        let w = site.facts.konst(w).filter(|t| t.dtype() == DType::F32);
        let w = w.ok_or(Why::No("the weights are not a float constant"))?;
        let &[_, columns] = w.dims() else {
            return Err(Why::No("the weights are no matrix"));
        };
        let rank = site.facts.of(m.inputs[0]).ty.shape().map(|s| s.len());
        let row = |t: &Tensor| {
            let (last, before) = t.dims().split_last()?;
            let fits = before.iter().all(|&d| d == 1) && [1, columns].contains(last);
            fits.then_some(())
        };
        // A factor of more axes than the product would give it more.
        let fits = factor.dims().is_empty() || (row(factor).is_some() && rank >= Some(factor.dims().len()));
        if !fits || columns == 0 {
            return Err(Why::NoEffect);
        }
        let c = floats(factor)?;
        if c.iter().any(|c| !c.is_finite()) {
            return Err(Why::No("a factor is not finite"));
        }
        let at = |n: usize| c[if c.len() == 1 { 0 } else { n }];
        let old = floats(w)?;
        let scaled = old.iter().enumerate().map(|(i, x)| (x * at(i % columns)) as f32);
        let y = x.matmul(x.tensor(Tensor::of(w.dims(), scaled.collect::<Vec<_>>())));
        let Some(&bias) = m.inputs.get(3) else {
            return Ok(y);
        };
        let bias = site.facts.konst(bias).filter(|t| t.dims() == [columns]);
        let bias = floats(bias.ok_or(Why::No("what is added is no constant row"))?)?;
        let bias = bias.iter().enumerate().map(|(n, x)| (x * at(n)) as f32);
        Ok(y + x.tensor(Tensor::of(&[columns], bias.collect::<Vec<_>>())))
    }
}

fn floats(t: &Tensor) -> Result<Vec<f64>, Why> {
    t.floats()
        .filter(|_| t.dtype() == DType::F32)
        .ok_or(Why::NoEffect)
}
