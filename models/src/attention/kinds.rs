//! The table of variants.

use secateur_engine::ir::{Dim, Tensor};

use super::{
    AttentionError, Built, Heads, Mask, Setting, clustered, compressed, cross, masked, segments, stack,
};
use crate::{Draft, Random};

/// How a variant saves work (after Tay et al. 2020).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// It does not: every pair is computed.
    Plain,
    /// The matrix of weights is approximated by one of low rank, or is a product of kernels.
    LowRank,
    /// Only the pairs of a pattern that is fixed in advance are computed.
    Fixed,
    /// The pattern follows from the tokens, or combines several.
    Learnable,
    /// Segments, with what was read of earlier ones.
    Recurrence,
    /// Several tokens are kept as one.
    Memory,
}

/// One variant.
#[derive(Clone, Copy)]
pub struct Kind {
    /// The name.
    pub name: &'static str,
    /// How it saves work.
    pub class: Class,
    /// A model of it.
    pub build: fn(&Setting) -> Built,
}

const fn row(name: &'static str, class: Class, build: fn(&Setting) -> Built) -> Kind {
    Kind { name, class, build }
}

/// All variants, sorted by name.
pub static ATTENTIONS: &[Kind] = &[
    row("additive", Class::Plain, additive),
    row("axial", Class::Fixed, axial),
    row("big-bird", Class::Learnable, big_bird),
    row("blockwise", Class::Fixed, blockwise),
    row("clustered", Class::Learnable, round_robin),
    row("cross", Class::Plain, |s| cross("cross", s)),
    row("dense", Class::Plain, dense),
    row("dilated", Class::Fixed, dilated),
    row("etc", Class::Learnable, etc),
    row("image", Class::Fixed, image),
    row("linear", Class::LowRank, linear),
    row("linear-transformer", Class::LowRank, linear_transformer),
    row("linformer", Class::LowRank, linformer),
    row("local", Class::Fixed, local),
    row("longformer", Class::Learnable, longformer),
    row("memory-compressed", Class::Memory, |s| {
        compressed("memory-compressed", s, s.block)
    }),
    row("performer", Class::LowRank, performer),
    row("prefix", Class::Plain, prefix),
    row("reformer", Class::Learnable, reformer),
    row("routing", Class::Learnable, routing),
    row("sinkhorn", Class::Learnable, |_| {
        Err(AttentionError::NotImplemented("sinkhorn"))
    }),
    row("sparse", Class::Fixed, sparse),
    row("threshold", Class::Plain, threshold),
    row("top-k", Class::Plain, top_k),
    row("transformer-xl", Class::Recurrence, |s| {
        segments("transformer-xl", s, s.length)
    }),
    row("truncated", Class::Fixed, |s| {
        masked("truncated", s, &Mask::band(s.length, s.radius))
    }),
];

/// The variant called `name`.
pub fn kind(name: &str) -> Option<&'static Kind> {
    let at = ATTENTIONS.binary_search_by(|k| k.name.cmp(name)).ok()?;
    Some(&ATTENTIONS[at])
}

/// A stack of layers without initialisers of their own, for sequences of any length.
fn any_length(
    name: &str,
    s: &Setting,
    attend: impl for<'a> Fn(Heads<'a>) -> secateur_engine::expr::Ex<'a>,
) -> Built {
    stack(name, s, Dim::symbol("n"), |_, _| (), |h, (), _| attend(h))
}

fn dense(s: &Setting) -> Built {
    any_length("dense", s, |h| h.attend(None))
}

fn linear(s: &Setting) -> Built {
    any_length("linear", s, |h| h.linear().mean())
}

fn linear_transformer(s: &Setting) -> Built {
    any_length("linear-transformer", s, |h| h.linear_causal().mean())
}

/// Weights below `1 / length` go.
fn threshold(s: &Setting) -> Built {
    let least = 1.0 / s.length.max(1) as f64;
    any_length("threshold", s, |h| h.threshold(None, least))
}

fn top_k(s: &Setting) -> Built {
    stack(
        "top-k",
        s,
        s.length.into(),
        |_, _| (),
        |h, (), _| h.top_k(None, s.block.min(s.length)),
    )
}

fn local(s: &Setting) -> Built {
    let radius = s.radius.min(s.length.saturating_sub(1));
    let inside = Mask::inside(s.length, radius).tensor();
    let add = |d: &mut Draft, _: &mut Random| d.weight("inside", inside);
    stack("local", s, s.length.into(), add, |h, &inside, _| {
        h.local(s.length, radius, h.at(inside))
    })
}

fn linformer(s: &Setting) -> Built {
    let std = 1.0 / (s.length.max(1) as f64).sqrt();
    let add = |d: &mut Draft, r: &mut Random| {
        ["e", "f"].map(|name| d.weight(name, r.tensor(&[s.block, s.length], std)))
    };
    stack("linformer", s, s.length.into(), add, |h, &[e, f], _| {
        h.projected(h.at(e), h.at(f))
    })
}

/// `16 · block` features.
fn performer(s: &Setting) -> Built {
    let add = |d: &mut Draft, r: &mut Random| d.weight("features", r.tensor(&[s.size(), 16 * s.block], 1.0));
    stack("performer", s, Dim::symbol("n"), add, |h, &w, _| {
        h.features(h.at(w)).mean()
    })
}

/// `2 · block` buckets.
fn reformer(s: &Setting) -> Built {
    let add = |d: &mut Draft, r: &mut Random| d.weight("directions", r.tensor(&[s.size(), s.block], 1.0));
    stack("reformer", s, Dim::symbol("n"), add, |h, &r, _| h.hashed(h.at(r)))
}

/// `block` centroids.
fn routing(s: &Setting) -> Built {
    let add = |_: &mut Draft, r: &mut Random| r.tensor(&[s.block, s.size()], 1.0);
    stack("routing", s, Dim::symbol("n"), add, |h, c: &Tensor, _| {
        h.routed(c)
    })
}

/// A prefix of `block` tokens.
fn prefix(s: &Setting) -> Built {
    let add =
        |_: &mut Draft, r: &mut Random| [(); 2].map(|()| r.tensor(&[1, s.heads, s.block, s.size()], 1.0));
    stack(
        "prefix",
        s,
        Dim::symbol("n"),
        add,
        |h, [k, v]: &[Tensor; 2], _| h.prefixed(k, v),
    )
}

/// The sizes of the image that a sequence is, `block` tokens a row.
fn picture(s: &Setting) -> Result<(usize, usize), AttentionError> {
    match s.block {
        b if b > 0 && s.length.is_multiple_of(b) => Ok((s.length / b, b)),
        _ => Err(AttentionError::Setting(
            "a length that is a multiple of the block",
        )),
    }
}

fn blockwise(s: &Setting) -> Built {
    let (blocks, block) = picture(s)?;
    stack(
        "blockwise",
        s,
        s.length.into(),
        |_, _| (),
        |h, (), _| h.blocks(blocks, block),
    )
}

/// Rows in the first layer, columns in the second, and so on; twice the layers.
fn axial(s: &Setting) -> Built {
    let (height, width) = picture(s)?;
    let twice = Setting {
        layers: 2 * s.layers,
        ..s.clone()
    };
    stack(
        "axial",
        &twice,
        s.length.into(),
        |_, _| (),
        |h, (), layer| match layer % 2 {
            0 => h.blocks(height, width),
            _ => h.columns(height, width),
        },
    )
}

fn image(s: &Setting) -> Built {
    let (height, width) = picture(s)?;
    masked("image", s, &Mask::window(height, width, s.radius))
}

/// A band of `block` and every `block`-th token.
fn sparse(s: &Setting) -> Built {
    s.check()?;
    let mask = Mask::band(s.length, s.block / 2).or(&Mask::strided(s.length, s.block));
    masked("sparse", s, &mask)
}

fn dilated(s: &Setting) -> Built {
    s.check()?;
    masked("dilated", s, &Mask::dilated(s.length, s.radius, s.block))
}

fn longformer(s: &Setting) -> Built {
    let mask = Mask::band(s.length, s.radius).or(&Mask::global(s.length, &[0]));
    masked("longformer", s, &mask)
}

/// The first `block` tokens are the global ones: they read and are read by all.
fn etc(s: &Setting) -> Built {
    let global: Vec<usize> = (0..s.block).collect();
    let mask = Mask::band(s.length, s.radius).or(&Mask::global(s.length, &global));
    masked("etc", s, &mask)
}

/// A band, one global token, and one random block for each block.
fn big_bird(s: &Setting) -> Built {
    s.check()?;
    let random = Mask::random(s.length, s.block, 1, s.seed);
    let mask = Mask::band(s.length, s.radius)
        .or(&Mask::global(s.length, &[0]))
        .or(&random);
    masked("big-bird", s, &mask)
}

/// Token `i` in cluster `i % block`.
fn round_robin(s: &Setting) -> Built {
    s.check()?;
    let of: Vec<usize> = (0..s.length).map(|i| i % s.block).collect();
    clustered("clustered", s, &of)
}

/// Inputs `query: [batch, width]` and `keys: [batch, n, width]`, which are the values too; outputs `y: [batch, width]` and
/// `weights: [batch, n]`.
fn additive(s: &Setting) -> Built {
    s.check()?;
    let (mut d, mut r) = (Draft::new("additive"), Random::new(s.seed));
    let query = d.input("query", [Dim::symbol("batch"), s.width.into()]);
    let keys = d.input("keys", [Dim::symbol("batch"), Dim::symbol("n"), s.width.into()]);
    let std = 1.0 / (s.width as f64).sqrt();
    let w = [("q.weight", s.width), ("k.weight", s.width), ("energy.weight", 1)]
        .map(|(name, to)| d.weight(name, r.tensor(&[s.width, to], std)));
    Ok(d.finish(|b| {
        let keys = b.at(keys);
        let (y, weights) = super::heads::additive(b.at(query), keys, keys, w.map(|w| b.at(w)), None);
        vec![("y".into(), y), ("weights".into(), weights)]
    })?)
}
