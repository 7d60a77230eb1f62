//! Normalisation of rows, written out.

use super::read::{input, one};
use crate::expr::{Builder, Call, Ex};
use crate::ir::{Attr, DType, Tensor, ValueId};
use crate::opt::{Match, Pattern, Rule, Scope, Site, Why};

/// `(x - mean) / √(mean((x - mean)²) + ε) · scale + bias` becomes `LayerNormalization`, and the same without the means
/// `RMSNormalization`: with or without scale and bias, whatever the bracketing, the root as `Sqrt`, `Pow` or an inverse, and
/// as TensorFlow writes it: `x·(scale/√…) + (bias - mean·(scale/√…))`. Statistics that are computed in `float` for half
/// floats are part of the operator.
///
/// Not along other than the last axes, nor with `ε` anywhere else. A portable result needs an opset that has the operator,
/// and a scale and bias of the shape that is normalised.
pub(super) struct LayerNorm(pub(super) Scope);

/// Mean square and what it is of.
struct Core {
    /// What is divided.
    d: ValueId,
    /// The input.
    x: ValueId,
    /// The mean that is subtracted.
    mean: Option<ValueId>,
    /// How many of the last axes are normalised.
    axes: usize,
    epsilon: f64,
}

/// A whole norm.
struct Norm {
    core: Core,
    scale: Option<ValueId>,
    bias: Option<ValueId>,
    /// The half type to which the norm goes back before it is scaled.
    half: Option<DType>,
}

/// The operator subtracts the mean before it squares. Where the mean is large, this difference is noise, even below 0, and the
/// results have nothing in common.
const DIFFERENCE: Why = Why::No(
    "the variance is a mean of squares less the square of the mean, which is less exact than the operator",
);

const OUTSIDE: Why = Why::No("epsilon is added outside the root");

impl Rule for LayerNorm {
    fn name(&self) -> &'static str {
        match self.0 {
            Scope::Portable => "layer-norm",
            Scope::Engine => "layer-norm-engine",
        }
    }

    fn scope(&self) -> Scope {
        self.0
    }

    fn patterns(&self) -> Vec<Pattern> {
        vec![Pattern::loose(2, |x| x[0].op("Add|Sub|Mul|Div", &[x[1]]))]
    }

    fn rewrite<'a>(&self, m: &Match, site: &Site, b: &'a Builder) -> Result<Ex<'a>, Why> {
        let root = m.nodes[0];
        let out = site.graph[root].outputs[0].ok_or(Why::NoEffect)?;
        let sum = site.graph[root].is("Add") || site.graph[root].is("Sub");
        let norm = if sum {
            shifted(site, out)?
        } else {
            norm(site, out)?
        };
        self.write(site, b, root, norm)
    }
}

impl LayerNorm {
    fn write<'a>(
        &self,
        site: &Site,
        b: &'a Builder,
        root: crate::ir::NodeId,
        norm: Norm,
    ) -> Result<Ex<'a>, Why> {
        let Norm {
            core,
            scale,
            bias,
            half,
        } = norm;
        let x = match half {
            None => core.x,
            Some(half) => {
                let before = site.call(core.x, "Cast").and_then(|n| input(n, 0));
                before
                    .filter(|&v| site.dtype(v) == Some(half))
                    .ok_or(Why::No("the result is of another type than the input"))?
            }
        };
        let leaves: Vec<_> = [Some(x), scale, bias].into_iter().flatten().collect();
        site.private(root, &leaves)?;
        site.same_rank(root, x)?;
        if leaves[1..].iter().any(|&v| enlarges(site, x, v)) {
            return Err(Why::No("scale or bias is larger than what is normalised"));
        }
        let dtype = site.dtype(x).filter(|d| d.is_float());
        let dtype = dtype.ok_or(Why::No("the element type is not known"))?;
        let centred = core.mean.is_some();
        if self.0 == Scope::Portable {
            if site.opset < if centred { 17 } else { 23 } {
                return Err(Why::No("the model's opset is older than the operator"));
            }
            let fits = |v: ValueId| {
                site.shape(v)
                    .is_some_and(|s| s.len() == core.axes && !s.iter().any(one))
            };
            if !leaves[1..].iter().all(|&v| fits(v)) {
                return Err(Why::No("scale or bias is not of the shape that is normalised"));
            }
        }
        if leaves[1..].iter().any(|&v| site.dtype(v) != Some(dtype)) {
            return Err(Why::No("scale or bias is of another element type"));
        }
        let scale = match scale {
            Some(v) => v,
            None => ones(site, b, x, core.axes, dtype)?,
        };
        let call = Call {
            domain: "",
            op: if centred {
                "LayerNormalization"
            } else {
                "RMSNormalization"
            },
            inputs: &[Some(x), Some(scale), bias][..if bias.is_some() { 3 } else { 2 }],
            attrs: vec![
                Attr::new("axis", -(core.axes as i64)),
                Attr::new("epsilon", core.epsilon as f32),
            ],
            outputs: 1,
        };
        Ok(b.at(x).call(call)[0])
    }
}

fn ones(site: &Site, b: &Builder, x: ValueId, axes: usize, dtype: DType) -> Result<ValueId, Why> {
    let shape = site.shape(x).and_then(|s| s.get(s.len().checked_sub(axes)?..));
    let dims: Option<Vec<usize>> = shape.and_then(|s| s.iter().map(crate::ir::Dim::size).collect());
    let dims = dims.ok_or(Why::No("there is no scale, and its size is not known"))?;
    let ones = crate::ir::count(&dims)
        .filter(|&n| n <= 1 << 20)
        .and_then(|n| Tensor::rounded(dtype, &dims, &vec![1.0; n]));
    Ok(b.at(x).tensor(ones.ok_or(Why::NoEffect)?).id)
}

/// `norm + bias`, or TensorFlow's form.
fn shifted(site: &Site, out: ValueId) -> Result<Norm, Why> {
    let sum = site.sum(out);
    if sum.scalar != 0.0 || !(2..=3).contains(&sum.terms.len()) {
        return Err(Why::NoEffect);
    }
    let mut refused = Why::NoEffect;
    for (i, &(term, sign)) in sum.terms.iter().enumerate() {
        let others: Vec<_> = sum
            .terms
            .iter()
            .enumerate()
            .filter(|(j, _)| *j != i)
            .map(|(_, t)| *t)
            .collect();
        let found = match others[..] {
            _ if sign != 1.0 => continue,
            [(bias, 1.0)] => norm(site, term).and_then(|n| biased(site, n, bias)),
            _ => spread(site, term, &others),
        };
        match found {
            Ok(norm) => return Ok(norm),
            Err(Why::NoEffect) => {}
            Err(why) => refused = why,
        }
    }
    Err(refused)
}

fn biased(site: &Site, norm: Norm, bias: ValueId) -> Result<Norm, Why> {
    match norm.core.mean.is_some() && is_row(site, bias, norm.core.axes) {
        true => Ok(Norm {
            bias: Some(bias),
            ..norm
        }),
        false => Err(Why::NoEffect),
    }
}

/// TensorFlow's form: `term` is `x·r`, and the others are `-mean·r` and the bias, where `r` is `scale/√…`.
fn spread(site: &Site, term: ValueId, others: &[(ValueId, f64)]) -> Result<Norm, Why> {
    let minus = others.iter().find(|t| t.1 < 0.0).ok_or(Why::NoEffect)?.0;
    let bias = others.iter().find(|t| t.1 > 0.0).map(|t| t.0);
    let whole = site.product(term, &[]);
    let (core, s) = root_of(site, &whole.factors)?.ok_or(Why::NoEffect)?;
    let mean = core.mean.ok_or(Why::NoEffect)?;
    let rest = |v: ValueId, without: ValueId| {
        let p = site.product(v, &[without]);
        let has = p.factors.contains(&(without, 1.0)) && p.scalar == 1.0;
        let rest = p
            .factors
            .into_iter()
            .filter(|f| *f != (without, 1.0) && *f != (s, -0.5));
        has.then(|| rest.collect::<Vec<_>>())
    };
    let (Some(a), Some(b)) = (rest(term, core.x), rest(minus, mean)) else {
        return Err(Why::NoEffect);
    };
    let scale = match a[..] {
        _ if a != b => return Err(Why::NoEffect),
        [] => None,
        [(v, 1.0)] => Some(v),
        _ => return Err(Why::NoEffect),
    };
    let axes = core.axes;
    if scale.iter().chain(&bias).any(|&v| !is_row(site, v, axes)) {
        return Err(Why::No("scale or bias is no row of what is normalised"));
    }
    Ok(Norm {
        core,
        scale,
        bias,
        half: None,
    })
}

/// `d / √… · scale`
fn norm(site: &Site, v: ValueId) -> Result<Norm, Why> {
    let whole = site.product(v, &[]);
    if let Some((core, s)) = root_of(site, &whole.factors)? {
        return scaled(site, v, core, s);
    }
    // Half floats go back to what they were before they are scaled.
    for &(f, _) in whole.factors.iter().filter(|f| f.1 == 1.0) {
        let Some(inner) = site.call(f, "Cast").and_then(|n| input(n, 0)) else {
            continue;
        };
        let narrow = site.dtype(f).filter(|d| matches!(d, DType::F16 | DType::BF16));
        let product = site.product(inner, &[]);
        let (Some(half), Some((core, s))) = (narrow, root_of(site, &product.factors)?) else {
            continue;
        };
        let rest: Vec<_> = whole.factors.iter().filter(|g| g.0 != f).collect();
        let bare = scaled(site, inner, core, s)?;
        let scale = match rest[..] {
            [] => None,
            [&(v, 1.0)] if is_row(site, v, bare.core.axes) => Some(v),
            _ => return Err(Why::NoEffect),
        };
        return match bare.scale.is_none() && whole.scalar == 1.0 {
            true => Ok(Norm {
                scale,
                half: Some(half),
                ..bare
            }),
            false => Err(Why::NoEffect),
        };
    }
    Err(Why::NoEffect)
}

fn scaled(site: &Site, v: ValueId, core: Core, s: ValueId) -> Result<Norm, Why> {
    let whole = site.product(v, &[core.d]);
    let mut rest = whole.factors;
    let mut take = |f: (ValueId, f64)| rest.iter().position(|g| *g == f).map(|i| rest.remove(i));
    if whole.scalar != 1.0 || take((s, -0.5)).is_none() || take((core.d, 1.0)).is_none() {
        return Err(Why::NoEffect);
    }
    let scale = match rest[..] {
        [] => None,
        [(v, 1.0)] if is_row(site, v, core.axes) => Some(v),
        _ => return Err(Why::NoEffect),
    };
    Ok(Norm {
        core,
        scale,
        bias: None,
        half: None,
    })
}

/// The mean square plus epsilon by whose root a product divides.
fn root_of(site: &Site, factors: &[(ValueId, f64)]) -> Result<Option<(Core, ValueId)>, Why> {
    for &(s, e) in factors {
        if e == -1.0 && outside(site, s) {
            return Err(OUTSIDE);
        }
        if e == -0.5
            && let Some(core) = core(site, s)?
        {
            return Ok(Some((core, s)));
        }
    }
    Ok(None)
}

/// Whether `s` is `√(mean square) + ε`.
fn outside(site: &Site, s: ValueId) -> bool {
    let sum = site.sum(s);
    let &[(root, 1.0)] = &sum.terms[..] else {
        return false;
    };
    let square = site.call(root, "Sqrt").and_then(|n| site.mean(input(n, 0)?));
    sum.scalar != 0.0 && square.is_some_and(|(x, _)| site.square(x).is_some())
}

/// Whether the terms are the mean of squares less the square of the mean.
fn difference(site: &Site, terms: &[(ValueId, f64)]) -> bool {
    let of = |sign: f64| terms.iter().find(|t| t.1 == sign).map(|t| t.0);
    let squares = of(1.0).and_then(|v| site.square(site.mean(v)?.0));
    let means = of(-1.0).and_then(|v| Some(site.mean(site.square(v)?)?.0));
    terms.len() == 2 && squares.is_some() && squares == means
}

fn core(site: &Site, s: ValueId) -> Result<Option<Core>, Why> {
    let sum = site.sum(s);
    if difference(site, &sum.terms) {
        return Err(DIFFERENCE);
    }
    let &[(t, 1.0)] = &sum.terms[..] else {
        return Ok(None);
    };
    let Some((d, axes)) = site.mean(t).and_then(|(x, axes)| Some((site.square(x)?, axes))) else {
        return Ok(None);
    };
    let last: Vec<i64> = (-(axes.len() as i64)..0).collect();
    if axes != last {
        return Err(Why::No("the mean is not taken along the last axes"));
    }
    if sum.scalar < 0.0 {
        return Err(Why::No("epsilon is negative"));
    }
    let mut core = Core {
        d,
        x: d,
        mean: None,
        axes: axes.len(),
        epsilon: sum.scalar,
    };
    if let Some(node) = site.call(d, "Sub")
        && let (Some(x), Some(mean)) = (input(node, 0), input(node, 1))
        && let Some((of, along)) = site.mean(mean)
        && of == x
    {
        if along != axes {
            return Err(Why::No("mean and variance are taken along different axes"));
        }
        core.x = x;
        core.mean = Some(mean);
    }
    Ok(Some(core))
}

/// Whether `v` has several elements where `x` has one.
fn enlarges(site: &Site, x: ValueId, v: ValueId) -> bool {
    let (Some(x), Some(v)) = (site.shape(x), site.shape(v)) else {
        return false;
    };
    x.iter().rev().zip(v.iter().rev()).any(|(x, v)| one(x) && !one(v))
}

/// Whether `v` has one element for each that is normalised, or fewer, and is the same for every row.
fn is_row(site: &Site, v: ValueId, axes: usize) -> bool {
    let Some(shape) = site.shape(v) else { return false };
    let outer = shape.len().saturating_sub(axes);
    shape[..outer].iter().all(one)
}
