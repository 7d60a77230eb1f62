//! A vision transformer (Dosovitskiy et al. 2020), of the size ViT-B/16.

use secateur_engine::Model;
use secateur_engine::expr::Ex;

use crate::arch::images;
use crate::blocks::{Transformer, concat, dropout, ints, pick, reshape, size_of, transpose, unsqueeze};
use crate::net::{Conv, Net};
use crate::{Arch, ArchError, Draft, Random, Setting, Settings};

/// `logits: [batch, classes]` of `image: [batch, channels, height, width]`.
pub(crate) struct ViT;

/// The standard deviation of positions and of the first token.
const STD: f64 = 0.02;

impl Arch for ViT {
    fn name(&self) -> &'static str {
        "vit"
    }

    fn about(&self) -> &'static str {
        "a transformer encoder over patches of a 224×224 image, of the size ViT-B/16"
    }

    fn settings(&self) -> &'static [Setting] {
        const {
            &[
                Setting::classes(1000),
                Setting::channels(3),
                Setting::height(224, 1),
                Setting::width(224, 1),
                Setting::number("patch", "rows and columns of a patch", 16, 1..=1024),
                Setting::layers(12),
                Setting::hidden("elements of a token, a multiple of heads", 768),
                Setting::heads(12),
                Setting::ffn(3072),
                Setting::dropout(),
            ]
        }
    }

    fn write(&self, set: &Settings, random: Random) -> Result<Model, ArchError> {
        let layer = Transformer {
            epsilon: 1e-6,
            ..Transformer::of(set)?
        };
        let patches = patches(set)?;
        let mut d = Draft::new(self.name());
        let image = d.input("image", images(set));
        let model = d.network(random, |n| {
            let x = embed(n, n.at(image), patches, set);
            let x = (0..set.get("layers"))
                .fold(x, |x, i| layer.encoder_layer(n, x, None, &format!("layers.{i}")));
            let first = layer.last(n, pick(x, 0, 1), "norm");
            let logits = n.linear(first, "head", [layer.hidden, set.get("classes")]);
            vec![("logits".into(), logits)]
        })?;
        Ok(model)
    }
}

/// How many patches an image has.
fn patches(set: &Settings) -> Result<usize, ArchError> {
    let [height, width, patch] = ["height", "width", "patch"].map(|s| set.get(s));
    for (name, size) in [("height", height), ("width", width)] {
        if !size.is_multiple_of(patch) {
            let text = format!("{name} cannot be {size}; expected a multiple of patch, {patch}");
            return Err(ArchError::Setting(text));
        }
    }
    Ok(height / patch * (width / patch))
}

/// A token for all and one for each patch of `x`: `[batch, 1 + patches, hidden]`.
fn embed<'a>(n: &Net<'a>, x: Ex<'a>, patches: usize, set: &Settings) -> Ex<'a> {
    let [patch, hidden] = ["patch", "hidden"].map(|s| set.get(s));
    let conv = Conv::new(set.get("channels"), hidden, patch).stride(patch).pad(0);
    let x = reshape(
        n.conv_bias(x, "patches", conv),
        &[0, hidden as i64, patches as i64],
    );
    let x = transpose(x, &[0, 2, 1]);
    let dims = concat(unsqueeze(size_of(x, 0), 0), &[ints(x, &[1, hidden as i64])], 0);
    let first = n
        .normal("first.weight", &[1, 1, hidden], 0.0, STD)
        .op("Expand", &[dims]);
    let places = n.normal("positions.weight", &[1, patches + 1, hidden], 0.0, STD);
    dropout(concat(first, &[x], 1) + places, set.share("dropout"))
}
