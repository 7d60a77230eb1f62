//! BERT (Devlin et al. 2018), the encoder alone, spelled as PyTorch's exporter spells it.

use secateur_engine::expr::Ex;
use secateur_engine::ir::{Attr, DType, Dim, Type};
use secateur_engine::{Model, Tensor};

use crate::blocks::{concat, int, softmax, transpose, unsqueeze};
use crate::net::Net;
use crate::{Arch, ArchError, Draft, Random, Size, Sizes};

/// `last_hidden_state: [batch, seq, hidden]` of `input_ids`, `attention_mask` and `token_type_ids`, each int64 `[batch, seq]`.
pub(crate) struct BertBase;

/// The standard deviation of all weights.
const STD: f64 = 0.02;

const fn size(name: &'static str, about: &'static str, default: usize, most: usize) -> Size {
    Size {
        name,
        about,
        default,
        range: 1..=most,
    }
}

static SIZES: &[Size] = &[
    size("layers", "layers", 12, 48),
    size("hidden", "elements of a token, a multiple of heads", 768, 2048),
    size("heads", "heads of each layer", 12, 128),
    size(
        "ffn",
        "elements of a token inside the feed-forward part",
        3072,
        8192,
    ),
    size("vocab", "words that it knows", 30522, 1_000_000),
    size("positions", "tokens of the longest sequence", 512, 32768),
    Size {
        range: 0..=32768,
        ..size("seq", "tokens of a sequence; 0 leaves it free", 0, 0)
    },
];

impl Arch for BertBase {
    fn name(&self) -> &'static str {
        "bert-base"
    }

    fn about(&self) -> &'static str {
        "a transformer encoder of 12 layers; attention and Gelu spelled out as PyTorch exports them"
    }

    fn sizes(&self) -> &'static [Size] {
        SIZES
    }

    fn write(&self, sizes: &Sizes, random: Random) -> Result<Model, ArchError> {
        let s = Shape::of(sizes)?;
        let seq = match sizes.get("seq") {
            0 => Dim::symbol("seq"),
            n => n.into(),
        };
        let mut d = Draft::new(self.name());
        let mut input = |name| {
            d.input_of(
                name,
                Type::tensor(DType::I64, [Dim::symbol("batch"), seq.clone()]),
            )
        };
        let [ids, mask, types] = ["input_ids", "attention_mask", "token_type_ids"].map(&mut input);
        let model = d.network(random, |n| {
            let mask = blocked(n.at(mask));
            let first = embed(n, n.at(ids), n.at(types), sizes);
            let y = (0..sizes.get("layers")).fold(first, |x, i| {
                let name = format!("encoder.layer.{i}");
                let x = attention(n, x, mask, &format!("{name}.attention"), s);
                feed_forward(n, x, &name, s)
            });
            vec![("last_hidden_state".into(), y)]
        })?;
        Ok(model)
    }
}

#[derive(Clone, Copy)]
struct Shape {
    hidden: usize,
    heads: usize,
    ffn: usize,
}

impl Shape {
    fn of(sizes: &Sizes) -> Result<Shape, ArchError> {
        let [hidden, heads, ffn] = ["hidden", "heads", "ffn"].map(|name| sizes.get(name));
        if !hidden.is_multiple_of(heads) {
            let text = format!("hidden cannot be {hidden}; expected a multiple of heads, {heads}");
            return Err(ArchError::Size(text));
        }
        if sizes.get("seq") > sizes.get("positions") {
            return Err(ArchError::Size("seq cannot be more than positions".into()));
        }
        Ok(Shape { hidden, heads, ffn })
    }
}

/// The size of `axis` of `x`.
fn size_of(x: Ex<'_>, axis: i64) -> Ex<'_> {
    x.op("Shape", &[])
        .with("Gather", &[int(x, axis)], vec![Attr::new("axis", 0i64)])
}

/// `x` in the shape `[batch, seq, rest…]`, its first two sizes read off `x`.
fn reshape<'a>(x: Ex<'a>, rest: &[usize]) -> Ex<'a> {
    let mut parts = vec![unsqueeze(size_of(x, 1), 0)];
    parts.extend(rest.iter().map(|&d| crate::blocks::ints(x, &[d as i64])));
    let dims = concat(unsqueeze(size_of(x, 0), 0), &parts, 0);
    x.op("Reshape", &[dims])
}

/// What is added to scores `[batch, heads, seq, seq]`: the lowest number where `mask: [batch, seq]` is 0.
fn blocked(mask: Ex<'_>) -> Ex<'_> {
    let to = vec![Attr::new("to", i64::from(DType::F32.code()))];
    let mask = unsqueeze(unsqueeze(mask, 1), 2).with("Cast", &[], to);
    (mask.tensor(Tensor::scalar(1f32)) - mask) * f64::from(f32::MIN)
}

fn table<'a>(n: &Net<'a>, name: &str, ids: Ex<'a>, [rows, width]: [usize; 2]) -> Ex<'a> {
    let table = n.normal(
        format!("embeddings.{name}_embeddings.weight"),
        &[rows, width],
        0.0,
        STD,
    );
    table.op("Gather", &[ids])
}

fn embed<'a>(n: &Net<'a>, ids: Ex<'a>, types: Ex<'a>, sizes: &Sizes) -> Ex<'a> {
    let (hidden, positions) = (sizes.get("hidden"), sizes.get("positions"));
    let all: Vec<i64> = (0i64..).take(positions).collect();
    let all = n.tensor("embeddings.position_ids", Tensor::of(&[1, positions], all));
    let [zero, one] = [0, 1].map(|i| crate::blocks::ints(ids, &[i]));
    let places = all.op("Slice", &[zero, unsqueeze(size_of(ids, 1), 0), one, one]);
    let word = table(n, "word", ids, [sizes.get("vocab"), hidden]);
    let kind = table(n, "token_type", types, [2, hidden]);
    let place = table(n, "position", places, [positions, hidden]);
    layer_norm(n, word + kind + place, "embeddings.LayerNorm", hidden)
}

fn layer_norm<'a>(n: &Net<'a>, x: Ex<'a>, name: &str, hidden: usize) -> Ex<'a> {
    let scale = n.normal(format!("{name}.weight"), &[hidden], 1.0, STD);
    let bias = n.normal(format!("{name}.bias"), &[hidden], 0.0, STD);
    let attrs = vec![Attr::new("axis", -1i64), Attr::new("epsilon", 1e-12f32)];
    x.with("LayerNormalization", &[scale, bias], attrs)
}

/// `NAME.weight` is `[from, to]`, as the exporter turns it.
fn linear<'a>(n: &Net<'a>, x: Ex<'a>, name: &str, [from, to]: [usize; 2]) -> Ex<'a> {
    let weight = n.normal(format!("{name}.weight"), &[from, to], 0.0, STD);
    let bias = n.normal(format!("{name}.bias"), &[to], 0.0, STD);
    bias + x.matmul(weight)
}

fn attention<'a>(n: &Net<'a>, x: Ex<'a>, mask: Ex<'a>, name: &str, s: Shape) -> Ex<'a> {
    let each = s.hidden / s.heads;
    let heads = |part: &str, perm: &[i64]| {
        let y = linear(n, x, &format!("{name}.self.{part}"), [s.hidden, s.hidden]);
        transpose(reshape(y, &[s.heads, each]), perm)
    };
    let q = heads("query", &[0, 2, 1, 3]);
    let k = heads("key", &[0, 2, 3, 1]);
    let v = heads("value", &[0, 2, 1, 3]);
    let scores = q.matmul(k) / (each as f64).sqrt() + mask;
    let y = transpose(softmax(scores).matmul(v), &[0, 2, 1, 3]);
    let y = linear(
        n,
        reshape(y, &[s.hidden]),
        &format!("{name}.output.dense"),
        [s.hidden; 2],
    );
    layer_norm(n, y + x, &format!("{name}.output.LayerNorm"), s.hidden)
}

fn feed_forward<'a>(n: &Net<'a>, x: Ex<'a>, name: &str, s: Shape) -> Ex<'a> {
    let y = linear(n, x, &format!("{name}.intermediate.dense"), [s.hidden, s.ffn]);
    let y = y * ((y / std::f64::consts::SQRT_2).erf() + 1.0) * 0.5;
    let y = linear(n, y, &format!("{name}.output.dense"), [s.ffn, s.hidden]);
    layer_norm(n, y + x, &format!("{name}.output.LayerNorm"), s.hidden)
}
