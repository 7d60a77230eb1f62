//! BERT (Devlin et al. 2018) with its usual heads, spelled as PyTorch's exporter spells it.

use secateur_engine::expr::Ex;
use secateur_engine::ir::{Attr, DType, Dim, Type};
use secateur_engine::{Model, Tensor};

use crate::blocks::{
    cast, concat, dropout, gelu, heads_fit, ints, pick, size_of, softmax, transpose, unsqueeze,
};
use crate::net::Net;
use crate::{Arch, ArchError, Draft, Random, Setting, Settings};

/// Of `input_ids`, `attention_mask` and `token_type_ids`, each int64 `[batch, length]`: `last_hidden_state: [batch, length,
/// hidden]`, or the `logits` of a head. With taps, `H0` to `HN` too: what goes into the first layer and comes out of each.
pub(crate) struct BertBase;

/// The standard deviation of all weights.
const STD: f64 = 0.02;

impl Arch for BertBase {
    fn name(&self) -> &'static str {
        "bert-base"
    }

    fn about(&self) -> &'static str {
        "a transformer encoder of 12 layers; attention and Gelu spelled out as PyTorch exports them"
    }

    fn settings(&self) -> &'static [Setting] {
        const {
            &[
                Setting::layers(12),
                Setting::hidden("elements of a token, a multiple of heads", 768),
                Setting::heads(12),
                Setting::ffn(3072),
                Setting::vocabulary("words that it knows", 30522, 1),
                Setting::number("positions", "tokens of the longest sequence", 512, 1..=32768),
                Setting::number("length", "tokens of a sequence; 0 leaves it free", 0, 0..=32768),
                Setting::word(
                    "head",
                    "what is told of the tokens: nothing, a class of all, one of each, where an answer starts and ends",
                    &["none", "classify", "tokens", "answer"],
                ),
                Setting::classes(2),
                Setting::word(
                    "taps",
                    "outputs H0 to HN, the tokens before and after layers",
                    &["no", "yes"],
                ),
                Setting::dropout(),
            ]
        }
    }

    fn write(&self, set: &Settings, random: Random) -> Result<Model, ArchError> {
        let s = Shape::of(set)?;
        let length = match set.get("length") {
            0 => Dim::symbol("length"),
            n => n.into(),
        };
        let mut d = Draft::new(self.name());
        let mut input = |name| {
            let shape = [Dim::symbol("batch"), length.clone()];
            d.input_of(name, Type::tensor(DType::I64, shape))
        };
        let [ids, mask, types] = ["input_ids", "attention_mask", "token_type_ids"].map(&mut input);
        let model = d.network(random, |n| {
            let mask = blocked(n.at(mask));
            let mut states = vec![embed(n, n.at(ids), n.at(types), set)];
            for i in 0..set.get("layers") {
                let (x, name) = (states[i], format!("encoder.layer.{i}"));
                let x = attention(n, x, mask, &format!("{name}.attention"), s);
                states.push(feed_forward(n, x, &name, s));
            }
            let mut outputs = vec![head(n, states[states.len() - 1], set)];
            if set.word("taps") == "yes" {
                // Identity, since no value has two names.
                for (i, x) in states.iter().enumerate() {
                    outputs.push((format!("H{i}"), x.op("Identity", &[])));
                }
            }
            outputs
        })?;
        Ok(model)
    }
}

/// What the head makes of the last tokens, and its name.
fn head<'a>(n: &Net<'a>, x: Ex<'a>, set: &Settings) -> (String, Ex<'a>) {
    let hidden = set.get("hidden");
    let read = |x, name: &str, to| linear(n, dropout(x, set.share("dropout")), name, [hidden, to]);
    let logits = match set.word("head") {
        "classify" => {
            let first = linear(n, pick(x, 0, 1), "pooler.dense", [hidden; 2]).tanh();
            read(first, "classifier", set.get("classes"))
        }
        "tokens" => read(x, "classifier", set.get("classes")),
        "answer" => read(x, "qa_outputs", 2),
        _ => return ("last_hidden_state".into(), x),
    };
    ("logits".into(), logits)
}

#[derive(Clone, Copy)]
struct Shape {
    hidden: usize,
    heads: usize,
    ffn: usize,
    dropout: f64,
}

impl Shape {
    fn of(set: &Settings) -> Result<Shape, ArchError> {
        heads_fit(set)?;
        let [hidden, heads, ffn] = ["hidden", "heads", "ffn"].map(|name| set.get(name));
        if set.get("length") > set.get("positions") {
            return Err(ArchError::Setting("length cannot be more than positions".into()));
        }
        let dropout = set.share("dropout");
        Ok(Shape {
            hidden,
            heads,
            ffn,
            dropout,
        })
    }
}

/// `x` in the shape `[batch, length, rest…]`, its first two sizes read off `x`.
fn reshape<'a>(x: Ex<'a>, rest: &[usize]) -> Ex<'a> {
    let mut parts = vec![unsqueeze(size_of(x, 1), 0)];
    parts.extend(rest.iter().map(|&d| ints(x, &[d as i64])));
    let dims = concat(unsqueeze(size_of(x, 0), 0), &parts, 0);
    x.op("Reshape", &[dims])
}

/// What is added to scores `[batch, heads, length, length]`: the lowest number where `mask: [batch, length]` is 0.
fn blocked(mask: Ex<'_>) -> Ex<'_> {
    let mask = cast(unsqueeze(unsqueeze(mask, 1), 2), DType::F32);
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

fn embed<'a>(n: &Net<'a>, ids: Ex<'a>, types: Ex<'a>, set: &Settings) -> Ex<'a> {
    let (hidden, positions) = (set.get("hidden"), set.get("positions"));
    let all: Vec<i64> = (0i64..).take(positions).collect();
    let all = n.tensor("embeddings.position_ids", Tensor::of(&[1, positions], all));
    let [zero, one] = [0, 1].map(|i| ints(ids, &[i]));
    let places = all.op("Slice", &[zero, unsqueeze(size_of(ids, 1), 0), one, one]);
    let word = table(n, "word", ids, [set.get("vocabulary"), hidden]);
    let kind = table(n, "token_type", types, [2, hidden]);
    let place = table(n, "position", places, [positions, hidden]);
    let x = layer_norm(n, word + kind + place, "embeddings.LayerNorm", hidden);
    dropout(x, set.share("dropout"))
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
    let out = format!("{name}.output");
    let y = linear(n, reshape(y, &[s.hidden]), &format!("{out}.dense"), [s.hidden; 2]);
    layer_norm(
        n,
        dropout(y, s.dropout) + x,
        &format!("{out}.LayerNorm"),
        s.hidden,
    )
}

fn feed_forward<'a>(n: &Net<'a>, x: Ex<'a>, name: &str, s: Shape) -> Ex<'a> {
    let y = linear(n, x, &format!("{name}.intermediate.dense"), [s.hidden, s.ffn]);
    let y = gelu(y);
    let y = linear(n, y, &format!("{name}.output.dense"), [s.ffn, s.hidden]);
    layer_norm(
        n,
        dropout(y, s.dropout) + x,
        &format!("{name}.output.LayerNorm"),
        s.hidden,
    )
}
