//! The attention family: masks, the variants on queries, keys and values, and a model of each.
//!
//! Every variant has one measure: scaled dot-product attention with the mask of the pairs that it computes. Those that
//! are another function (linear, low-rank and compressed ones) equal it in a limit that their documentation names.

pub mod cluster;
mod heads;
mod kinds;
mod mask;

use std::fmt;

pub use heads::{FLOOR, Heads, Ratio, additive};
pub use kinds::{ATTENTIONS, Class, Kind, kind};
pub use mask::Mask;
use secateur_engine::Model;
use secateur_engine::expr::{Builder, Ex};
use secateur_engine::ir::{Dim, Flaw, ValueId};

use crate::blocks::{linear, merge_heads, slice, split, split_heads, transpose, unsqueeze};
use crate::{Draft, Random};

/// How large a model is, and the numbers of its pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Tokens of a sequence. Models without a pattern take any number.
    pub length: usize,
    /// Elements of a token, a multiple of `heads`.
    pub width: usize,
    /// Heads of each layer.
    pub heads: usize,
    /// Layers, one after the other.
    pub layers: usize,
    /// Whatever the pattern counts: tokens of a block or of a row of an image, steps of a stride, clusters, tokens of a
    /// prefix, the rate of a compression, weights to keep.
    pub block: usize,
    /// How far a window reaches to each side; 0 is the token itself.
    pub radius: usize,
    /// From which the weights and random patterns are drawn.
    pub seed: u64,
}

impl Default for Setting {
    fn default() -> Setting {
        Setting {
            length: 16,
            width: 16,
            heads: 2,
            layers: 1,
            block: 4,
            radius: 2,
            seed: 1,
        }
    }
}

/// Why there is no such model.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum AttentionError {
    /// A setting that the variant cannot have; what is expected.
    Setting(&'static str),
    /// A variant that is known by name only.
    NotImplemented(&'static str),
    /// A graph that is not well formed.
    Graph(Flaw),
}

impl fmt::Display for AttentionError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            AttentionError::Setting(expected) => write!(f, "the setting does not fit: expected {expected}"),
            AttentionError::NotImplemented(name) => write!(f, "attention {name:?} is not implemented"),
            AttentionError::Graph(flaw) => flaw.fmt(f),
        }
    }
}

impl std::error::Error for AttentionError {}

impl From<Flaw> for AttentionError {
    fn from(flaw: Flaw) -> AttentionError {
        AttentionError::Graph(flaw)
    }
}

/// What a builder returns.
pub type Built = Result<Model, AttentionError>;

impl Setting {
    /// The elements of each head.
    pub fn size(&self) -> usize {
        self.width / self.heads.max(1)
    }

    fn check(&self) -> Result<(), AttentionError> {
        let positive = [self.length, self.width, self.heads, self.layers, self.block];
        if positive.contains(&0) {
            return Err(AttentionError::Setting("positive sizes"));
        }
        if !self.width.is_multiple_of(self.heads) {
            return Err(AttentionError::Setting("a width that is a multiple of the heads"));
        }
        Ok(())
    }
}

/// The initialisers of one layer: one projection to queries, keys and values together, and that of the result.
#[derive(Clone, Copy)]
struct Layer {
    qkv: [ValueId; 2],
    out: [ValueId; 2],
}

/// A projection `[from, to]` and its bias `[to]`.
fn projection(d: &mut Draft, name: &str, from: usize, to: usize, r: &mut Random) -> [ValueId; 2] {
    let std = 1.0 / (from as f64).sqrt();
    let weight = d.weight(&format!("{name}.weight"), r.tensor(&[from, to], std));
    [weight, d.weight(&format!("{name}.bias"), r.tensor(&[to], 0.1))]
}

fn layers(d: &mut Draft, s: &Setting, r: &mut Random) -> Vec<Layer> {
    let layer = |i: usize| Layer {
        qkv: projection(d, &format!("attention.{i}.qkv"), s.width, 3 * s.width, r),
        out: projection(d, &format!("attention.{i}.out"), s.width, s.width, r),
    };
    (0..s.layers).map(layer).collect()
}

/// Queries, keys and values `[batch, n, width]` of `x`, by one product.
fn project<'a>(b: &'a Builder<'a>, x: Ex<'a>, layer: Layer, s: &Setting) -> [Ex<'a>; 3] {
    let [w, bias] = layer.qkv.map(|v| b.at(v));
    let parts = split(linear(x, w, bias), &[s.width; 3], -1);
    [parts[0], parts[1], parts[2]]
}

fn heads<'a>(qkv: [Ex<'a>; 3], s: &Setting) -> Heads<'a> {
    let [q, k, v] = qkv.map(|x| split_heads(x, s.heads, s.size()));
    Heads {
        q,
        k,
        v,
        size: s.size(),
    }
}

fn output<'a>(b: &'a Builder<'a>, y: Ex<'a>, layer: Layer, s: &Setting) -> Ex<'a> {
    let [w, bias] = layer.out.map(|v| b.at(v));
    linear(merge_heads(y, s.heads, s.size()), w, bias)
}

/// `y = attention(x)` with `x` and `y: [batch, length, width]`, layer after layer. `extra` adds initialisers that the layers
/// share, `attend` is what each layer does with its heads; layers are counted from 0.
fn stack<E>(
    name: &str,
    s: &Setting,
    length: Dim,
    extra: impl FnOnce(&mut Draft, &mut Random) -> E,
    attend: impl for<'a> Fn(Heads<'a>, &E, usize) -> Ex<'a>,
) -> Built {
    s.check()?;
    let (mut d, mut r) = (Draft::new(name), Random::new(s.seed));
    let x = d.input("x", [Dim::symbol("batch"), length, s.width.into()]);
    let layers = layers(&mut d, s, &mut r);
    let extra = extra(&mut d, &mut r);
    Ok(d.finish(|b| {
        let y = layers.iter().enumerate().fold(b.at(x), |x, (i, &layer)| {
            let y = attend(heads(project(b, x, layer, s), s), &extra, i);
            output(b, y, layer, s)
        });
        vec![("y".into(), y)]
    })?)
}

/// Multi-head attention with `mask`, one initialiser for all layers and heads.
///
/// # Errors
///
/// If the sizes do not fit, or a query has no key.
pub fn masked(name: &str, s: &Setting, mask: &Mask) -> Built {
    if mask.size() != (s.length, s.length) {
        return Err(AttentionError::Setting("a mask for the length of the sequence"));
    }
    if mask.idle().is_some() {
        return Err(AttentionError::Setting("a mask that has a key for every query"));
    }
    let mask = mask.tensor();
    let add = |d: &mut Draft, _: &mut Random| d.weight("mask", mask);
    stack(name, s, s.length.into(), add, |h, &mask, _| {
        h.attend(Some(h.at(mask)))
    })
}

/// Multi-head attention within clusters, where token `i` is in cluster `of[i]`; see [`Heads::clusters`].
///
/// # Errors
///
/// If the sizes do not fit.
pub fn clustered(name: &str, s: &Setting, of: &[usize]) -> Built {
    if of.len() != s.length {
        return Err(AttentionError::Setting("a cluster for each token"));
    }
    stack(name, s, s.length.into(), |_, _| (), |h, (), _| h.clusters(of))
}

/// Keys and values of `rate` consecutive tokens compressed into one by a convolution (Liu et al. 2018): the scores are
/// `[length, ⌈length / rate⌉]`. `x` and `y` as in the other models, of any length.
///
/// # Errors
///
/// If the sizes do not fit.
pub fn compressed(name: &str, s: &Setting, rate: usize) -> Built {
    s.check()?;
    if rate == 0 {
        return Err(AttentionError::Setting("positive sizes"));
    }
    let (mut d, mut r) = (Draft::new(name), Random::new(s.seed));
    let x = d.input("x", [Dim::symbol("batch"), Dim::symbol("n"), s.width.into()]);
    let layers = layers(&mut d, s, &mut r);
    let dims = [s.width, s.width, rate];
    let std = 1.0 / ((s.width * rate) as f64).sqrt();
    let compress: Vec<ValueId> = (0..s.layers)
        .map(|i| d.weight(&format!("attention.{i}.compress.weight"), r.tensor(&dims, std)))
        .collect();
    Ok(d.finish(|b| {
        let y = layers.iter().zip(&compress).fold(b.at(x), |x, (&layer, &w)| {
            let [q, k, v] = project(b, x, layer, s);
            let [k, v] = [k, v].map(|x| fewer(x, b.at(w), rate));
            output(b, heads([q, k, v], s).attend(None), layer, s)
        });
        vec![("y".into(), y)]
    })?)
}

/// One token for each `rate` of `x: [batch, n, width]`; the last may be of fewer.
fn fewer<'a>(x: Ex<'a>, w: Ex<'a>, rate: usize) -> Ex<'a> {
    use secateur_engine::ir::Attr;
    let rate = rate as i64;
    let attrs = vec![
        Attr::new("kernel_shape", vec![rate]),
        Attr::new("strides", vec![rate]),
        Attr::new("pads", vec![0, rate - 1]),
    ];
    let turned = transpose(x, &[0, 2, 1]);
    transpose(turned.with("Conv", &[w], attrs), &[0, 2, 1])
}

/// Queries from `x: [batch, n, width]`, keys and values from `memory: [batch, m, width]`: `y: [batch, n, width]`, layer after
/// layer over the same memory.
///
/// # Errors
///
/// If the sizes do not fit.
pub fn cross(name: &str, s: &Setting) -> Built {
    s.check()?;
    let (mut d, mut r) = (Draft::new(name), Random::new(s.seed));
    let x = d.input("x", [Dim::symbol("batch"), Dim::symbol("n"), s.width.into()]);
    let memory = d.input("memory", [Dim::symbol("batch"), Dim::symbol("m"), s.width.into()]);
    let mut part = |i: usize, part: &str, to: usize| {
        projection(&mut d, &format!("attention.{i}.{part}"), s.width, to, &mut r)
    };
    let layers: Vec<_> = (0..s.layers)
        .map(|i| {
            [
                part(i, "q", s.width),
                part(i, "kv", 2 * s.width),
                part(i, "out", s.width),
            ]
        })
        .collect();
    Ok(d.finish(|b| {
        let y = layers.iter().fold(b.at(x), |x, &[q, kv, out]| {
            let at = |x, [w, bias]: [ValueId; 2]| linear(x, b.at(w), b.at(bias));
            let kv = split(at(b.at(memory), kv), &[s.width; 2], -1);
            let y = heads([at(x, q), kv[0], kv[1]], s).attend(None);
            at(merge_heads(y, s.heads, s.size()), out)
        });
        vec![("y".into(), y)]
    })?)
}

/// Attention over a sequence that comes in segments (Transformer-XL; Dai et al. 2019): `x: [batch, n, width]` is the
/// segment, `memory.i: [batch, m, width]` what layer `i` read of earlier ones. A token attends to itself and the
/// `radius` tokens before it. `kept.i` is the next memory of layer `i`: the last `keep` tokens that it has read. With
/// `keep >= radius`, and positions that are not encoded, one layer gives what one long pass would.
///
/// # Errors
///
/// If the sizes do not fit.
pub fn segments(name: &str, s: &Setting, keep: usize) -> Built {
    s.check()?;
    let (mut d, mut r) = (Draft::new(name), Random::new(s.seed));
    let x = d.input("x", [Dim::symbol("batch"), Dim::symbol("n"), s.width.into()]);
    let memories: Vec<ValueId> = (0..s.layers)
        .map(|i| {
            let dims = [Dim::symbol("batch"), Dim::symbol("m"), s.width.into()];
            d.input(&format!("memory.{i}"), dims)
        })
        .collect();
    let layers = layers(&mut d, s, &mut r);
    Ok(d.finish(|b| {
        let mask = recent(b.at(x), b.at(memories[0]), s.radius);
        let (mut x, mut outputs) = (b.at(x), vec![]);
        for (i, (&layer, &memory)) in layers.iter().zip(&memories).enumerate() {
            let all = crate::blocks::concat(b.at(memory), &[x], 1);
            let [q, _, _] = project(b, x, layer, s);
            let [_, k, v] = project(b, all, layer, s);
            x = output(b, heads([q, k, v], s).attend(Some(mask)), layer, s);
            outputs.push((format!("kept.{i}"), last(all, keep)));
        }
        outputs.insert(0, ("y".into(), x));
        outputs
    })?)
}

/// The last `count` tokens of `x: [batch, n, width]`, or all.
fn last(x: Ex<'_>, count: usize) -> Ex<'_> {
    match count {
        0 => slice(x, 0, 0, 1),
        _ => slice(x, -(count as i64), i64::MAX, 1),
    }
}

/// `[n, m + n]`: which keys lie at most `radius` before the query.
fn recent<'a>(x: Ex<'a>, memory: Ex<'a>, radius: usize) -> Ex<'a> {
    use crate::blocks::int;
    let tokens = |x: Ex<'a>| x.op("Shape", &[]).op("Gather", &[int(x, 1)]);
    let (m, one) = (tokens(memory), int(x, 1));
    let end = m + tokens(x);
    let keys = unsqueeze(int(x, 0).op("Range", &[end, one]), 0);
    let ago = unsqueeze(m.op("Range", &[end, one]), 1) - keys;
    let zero_or_more = ago.op("GreaterOrEqual", &[int(x, 0)]);
    zero_or_more.op("And", &[ago.op("LessOrEqual", &[int(x, radius as i64)])])
}
