//! A transformer decoder by itself (Radford et al. 2019): a language model.

use secateur_engine::Model;
use secateur_engine::ir::{DType, Dim, Type};

use crate::attention::Mask;
use crate::blocks::{Transformer, embed};
use crate::{Arch, ArchError, Draft, Random, Setting, Settings};

/// `logits: [batch, length, vocabulary]` of `input_ids: [batch, length]`: at each place the next token, from those up to there.
pub(crate) struct TransformerDecoder;

impl Arch for TransformerDecoder {
    fn name(&self) -> &'static str {
        "transformer-decoder"
    }

    fn about(&self) -> &'static str {
        "a language model: layers of causal attention, each token's successor"
    }

    fn settings(&self) -> &'static [Setting] {
        const {
            &[
                Setting::vocabulary("words that it knows", 10_000, 1),
                Setting::length(64),
                Setting::layers(2),
                Setting::hidden("elements of a token, a multiple of heads", 128),
                Setting::heads(4),
                Setting::ffn(512),
                Setting::word("norm", "where parts of a layer are normalised", &["pre", "post"]),
                Setting::activation(&["gelu", "relu"]),
                Setting::dropout(),
            ]
        }
    }

    fn write(&self, set: &Settings, random: Random) -> Result<Model, ArchError> {
        let layer = Transformer::of(set)?;
        let [length, words] = ["length", "vocabulary"].map(|s| set.get(s));
        let mut d = Draft::new(self.name());
        let ids = Type::tensor(DType::I64, [Dim::symbol("batch"), length.into()]);
        let ids = d.input_of("input_ids", ids);
        let mask = d.weight("causal", Mask::causal(length).tensor());
        let model = d.network(random, |n| {
            let x = embed(n, n.at(ids), "embeddings", set);
            let x = (0..set.get("layers")).fold(x, |x, i| {
                layer.encoder_layer(n, x, Some(n.at(mask)), &format!("layers.{i}"))
            });
            let x = layer.last(n, x, "norm");
            vec![("logits".into(), n.linear(x, "head", [layer.hidden, words]))]
        })?;
        Ok(model)
    }
}
