//! The encoder–decoder transformer (Vaswani et al. 2017), with learned positions.

use secateur_engine::Model;
use secateur_engine::ir::{DType, Dim, Type};

use crate::attention::Mask;
use crate::blocks::{Look, Transformer as Layer, embed, keys};
use crate::{Arch, ArchError, Draft, Random, Setting, Settings};

/// `logits: [batch, length, vocabulary]` of `source_ids`, `source_mask` and `target_ids`, each `[batch, length]`: at each place
/// the next token of the target, from those up to there and the whole source. The value `memory: [batch, length, hidden]` is all
/// that the decoder reads of the source.
pub(crate) struct Transformer;

impl Arch for Transformer {
    fn name(&self) -> &'static str {
        "transformer"
    }

    fn about(&self) -> &'static str {
        "an encoder of one sequence and a decoder of another that attends to it, for translation"
    }

    fn settings(&self) -> &'static [Setting] {
        const {
            &[
                Setting::vocabulary("words that it knows", 10_000, 1),
                Setting::length(64),
                Setting::layers(6),
                Setting::hidden("elements of a token, a multiple of heads", 512),
                Setting::heads(8),
                Setting::ffn(2048),
                Setting::word("norm", "where parts of a layer are normalised", &["post", "pre"]),
                Setting::activation(&["relu", "gelu"]),
                Setting::dropout(),
            ]
        }
    }

    fn write(&self, set: &Settings, random: Random) -> Result<Model, ArchError> {
        let layer = Layer::of(set)?;
        let [length, words, layers] = ["length", "vocabulary", "layers"].map(|s| set.get(s));
        let mut d = Draft::new(self.name());
        let ids = Type::tensor(DType::I64, [Dim::symbol("batch"), length.into()]);
        let [source, mask, target] =
            ["source_ids", "source_mask", "target_ids"].map(|name| d.input_of(name, ids.clone()));
        let causal = d.weight("causal", Mask::causal(length).tensor());
        let model = d.network(random, |n| {
            let mask = Some(keys(n.at(mask)));
            let x = embed(n, n.at(source), "encoder", set);
            let x = (0..layers).fold(x, |x, i| {
                layer.encoder_layer(n, x, mask, &format!("encoder.layers.{i}"))
            });
            let look = Look {
                memory: Some(n.name(layer.last(n, x, "encoder.norm"), "memory")),
                mask,
            };
            let y = embed(n, n.at(target), "decoder", set);
            let y = (0..layers).fold(y, |y, i| {
                let name = format!("decoder.layers.{i}");
                layer.decoder_layer(n, y, Some(n.at(causal)), look, &name)
            });
            let y = layer.last(n, y, "decoder.norm");
            vec![("logits".into(), n.linear(y, "head", [layer.hidden, words]))]
        })?;
        Ok(model)
    }
}
