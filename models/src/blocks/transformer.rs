//! Layers of transformers (Vaswani et al. 2017).

use secateur_engine::expr::Ex;
use secateur_engine::ir::DType;

use super::{activation, cast, dropout, merge_heads, split, split_heads, sum, unsqueeze};
use crate::attention::Heads;
use crate::net::Net;
use crate::{ArchError, Settings};

/// The standard deviation of embeddings.
const STD: f64 = 0.02;

/// How layers of a transformer are made. Shapes: tokens `[batch, n, hidden]`.
#[derive(Clone, Copy, Debug)]
pub struct Transformer {
    /// Elements of a token.
    pub hidden: usize,
    /// Heads of each attention; `hidden` is a multiple.
    pub heads: usize,
    /// Elements of a token inside the feed-forward part.
    pub ffn: usize,
    /// Whether parts are normalised before they read, instead of after their result has been added.
    pub before: bool,
    /// What is between the layers of the feed-forward part; see [`activation`].
    pub activation: &'static str,
    /// The share of elements that training drops of what a part adds.
    pub dropout: f64,
    /// What is added to variances.
    pub epsilon: f32,
}

/// What attention looks at.
#[derive(Clone, Copy, Default)]
pub struct Look<'a> {
    /// Where keys and values come from, `[batch, keys, hidden]`; none: from the tokens themselves.
    pub memory: Option<Ex<'a>>,
    /// Which pairs count: truth values that broadcast to `[batch, heads, n, keys]`.
    pub mask: Option<Ex<'a>>,
}

impl Transformer {
    /// What `set` says: `hidden`, `heads`, `ffn`, `norm`, `activation` and `dropout`.
    pub(crate) fn of(set: &Settings) -> Result<Transformer, ArchError> {
        heads_fit(set)?;
        let activation = match set.word("activation") {
            "" => "gelu",
            name => name,
        };
        Ok(Transformer {
            hidden: set.get("hidden"),
            heads: set.get("heads"),
            ffn: set.get("ffn"),
            before: set.word("norm") != "post",
            activation,
            dropout: set.share("dropout"),
            epsilon: 1e-5,
        })
    }

    /// Attention of several heads. One product, `NAME.qkv`, makes queries, keys and values; where keys come from a memory, it
    /// is one for queries, `NAME.q`, and one for the others, `NAME.kv`. `NAME.out` mixes the heads.
    pub fn attention<'a>(&self, n: &Net<'a>, x: Ex<'a>, look: Look<'a>, name: &str) -> Ex<'a> {
        let (h, size) = (self.hidden, self.hidden / self.heads);
        let made = |x, part: &str, parts: usize| {
            let y = n.linear(x, &format!("{name}.{part}"), [h, parts * h]);
            split(y, &vec![h; parts], -1)
        };
        let all = match look.memory {
            None => made(x, "qkv", 3),
            Some(memory) => {
                let q = n.linear(x, &format!("{name}.q"), [h, h]);
                [vec![q], made(memory, "kv", 2)].concat()
            }
        };
        let [q, k, v] = [0, 1, 2].map(|i| split_heads(all[i], self.heads, size));
        let y = merge_heads(Heads { q, k, v, size }.attend(look.mask), self.heads, size);
        n.linear(y, &format!("{name}.out"), [h, h])
    }

    /// Two layers for each token by itself, `NAME.in` and `NAME.out`.
    pub fn feed_forward<'a>(&self, n: &Net<'a>, x: Ex<'a>, name: &str) -> Ex<'a> {
        let y = n.linear(x, &format!("{name}.in"), [self.hidden, self.ffn]);
        let y = dropout(activation(y, self.activation), self.dropout);
        n.linear(y, &format!("{name}.out"), [self.ffn, self.hidden])
    }

    /// Attention of the tokens to each other, then the feed-forward part.
    pub fn encoder_layer<'a>(&self, n: &Net<'a>, x: Ex<'a>, mask: Option<Ex<'a>>, name: &str) -> Ex<'a> {
        let look = Look { memory: None, mask };
        let x = self.around(n, x, &format!("{name}.attention"), |x, name| {
            self.attention(n, x, look, name)
        });
        self.around(n, x, &format!("{name}.ffn"), |x, name| {
            self.feed_forward(n, x, name)
        })
    }

    /// Attention of the tokens to each other where `mask` allows, attention to `memory`, then the feed-forward part.
    pub fn decoder_layer<'a>(
        &self,
        n: &Net<'a>,
        x: Ex<'a>,
        mask: Option<Ex<'a>>,
        memory: Look<'a>,
        name: &str,
    ) -> Ex<'a> {
        let own = Look { memory: None, mask };
        let mut x = x;
        for (part, look) in [("attention", own), ("cross", memory)] {
            x = self.around(n, x, &format!("{name}.{part}"), |x, name| {
                self.attention(n, x, look, name)
            });
        }
        self.around(n, x, &format!("{name}.ffn"), |x, name| {
            self.feed_forward(n, x, name)
        })
    }

    /// What follows the last layer: a normalisation `NAME`, unless every part ends in one.
    pub fn last<'a>(&self, n: &Net<'a>, x: Ex<'a>, name: &str) -> Ex<'a> {
        match self.before {
            true => n.layer_norm(x, name, self.hidden, self.epsilon),
            false => x,
        }
    }

    /// `x` and what `part` makes of it, normalised by `NAME.norm`.
    fn around<'a>(
        &self,
        n: &Net<'a>,
        x: Ex<'a>,
        name: &str,
        part: impl FnOnce(Ex<'a>, &str) -> Ex<'a>,
    ) -> Ex<'a> {
        let norm = |x| n.layer_norm(x, &format!("{name}.norm"), self.hidden, self.epsilon);
        match self.before {
            true => x + dropout(part(norm(x), name), self.dropout),
            false => norm(x + dropout(part(x, name), self.dropout)),
        }
    }
}

/// Whether `hidden` is a multiple of `heads`.
pub(crate) fn heads_fit(set: &Settings) -> Result<(), ArchError> {
    let [hidden, heads] = ["hidden", "heads"].map(|name| set.get(name));
    let text = || format!("hidden cannot be {hidden}; expected a multiple of heads, {heads}");
    match hidden.is_multiple_of(heads) {
        true => Ok(()),
        false => Err(ArchError::Setting(text())),
    }
}

/// Tokens `[batch, length, hidden]` of `ids: [batch, length]`: a row of `NAME.tokens.weight` plus one of `NAME.positions.weight`.
pub(crate) fn embed<'a>(n: &Net<'a>, ids: Ex<'a>, name: &str, set: &Settings) -> Ex<'a> {
    let [words, length, hidden] = ["vocabulary", "length", "hidden"].map(|s| set.get(s));
    let table = |part, rows| n.normal(format!("{name}.{part}.weight"), &[rows, hidden], 0.0, STD);
    let tokens = table("tokens", words).op("Gather", &[ids]);
    dropout(tokens + table("positions", length), set.share("dropout"))
}

/// Truth values `[batch, 1, 1, length]`, by which attention looks at those tokens that `mask: [batch, length]` has 1 for.
pub(crate) fn keys(mask: Ex<'_>) -> Ex<'_> {
    unsqueeze(unsqueeze(cast(mask, DType::Bool), 1), 2)
}

/// The mean of those tokens of `x: [batch, length, hidden]` that `mask: [batch, length]` has 1 for: `[batch, hidden]`; 0 if
/// there is none.
pub(crate) fn masked_mean<'a>(x: Ex<'a>, mask: Ex<'a>) -> Ex<'a> {
    let mask = unsqueeze(cast(mask, DType::F32), 2);
    let count = sum(mask, 1);
    super::squeeze(sum(x * mask, 1) / count.op("Max", &[count.constant(1.0)]), 1)
}
