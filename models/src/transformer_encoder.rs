//! A transformer encoder (Vaswani et al. 2017) as a classifier.

use secateur_engine::Model;
use secateur_engine::ir::{DType, Dim, Type};

use crate::blocks::{Transformer, embed, flatten, keys, masked_mean};
use crate::{Arch, ArchError, Draft, Random, Setting, Settings};

/// `logits: [batch, classes]` of `input_ids` and `attention_mask: [batch, length]`, by the mean of the tokens that the mask has
/// 1 for; or of `x: [batch, length, hidden]` without positions, by all tokens in a row.
pub(crate) struct TransformerEncoder;

impl Arch for TransformerEncoder {
    fn name(&self) -> &'static str {
        "transformer-encoder"
    }

    fn about(&self) -> &'static str {
        "a classifier of sequences by a transformer encoder, of rows of numbers or of words"
    }

    fn settings(&self) -> &'static [Setting] {
        const {
            &[
                Setting::classes(10),
                Setting::vocabulary("words that it knows; 0 for rows of numbers", 0, 0),
                Setting::length(64),
                Setting::layers(2),
                Setting::hidden("elements of a token, a multiple of heads", 128),
                Setting::heads(4),
                Setting::ffn(512),
                Setting::word("norm", "where parts of a layer are normalised", &["post", "pre"]),
                Setting::activation(&["gelu", "relu"]),
                Setting::dropout(),
            ]
        }
    }

    fn write(&self, set: &Settings, random: Random) -> Result<Model, ArchError> {
        let layer = Transformer::of(set)?;
        let [length, hidden, classes] = ["length", "hidden", "classes"].map(|s| set.get(s));
        let mut d = Draft::new(self.name());
        let dims = [Dim::symbol("batch"), length.into()];
        let (x, mask) = match set.get("vocabulary") {
            0 => (d.input("x", [&dims[..], &[hidden.into()]].concat()), None),
            _ => {
                let mut input = |name| d.input_of(name, Type::tensor(DType::I64, dims.clone()));
                (input("input_ids"), Some(input("attention_mask")))
            }
        };
        let model = d.network(random, |n| {
            let mask = mask.map(|mask| n.at(mask));
            let x = match mask {
                Some(_) => embed(n, n.at(x), "embeddings", set),
                None => n.at(x),
            };
            let x = (0..set.get("layers")).fold(x, |x, i| {
                layer.encoder_layer(n, x, mask.map(keys), &format!("layers.{i}"))
            });
            let x = layer.last(n, x, "norm");
            let logits = match mask {
                Some(mask) => n.dense(masked_mean(x, mask), "fc", [hidden, classes]),
                None => n.dense(flatten(x), "fc", [length * hidden, classes]),
            };
            vec![("logits".into(), logits)]
        })?;
        Ok(model)
    }
}
