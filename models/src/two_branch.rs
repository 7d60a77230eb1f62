//! Two convolutions side by side, added, and one more.

use secateur_engine::Model;

use crate::arch::images;
use crate::blocks::{flatten, mean_pool, relu};
use crate::net::Conv;
use crate::{Arch, ArchError, Draft, Random, Setting, Settings};

/// `features: [batch, 64, height, width]` of `image: [batch, channels, height, width]`, or `logits: [batch, classes]`.
pub(crate) struct TwoBranch;

impl Arch for TwoBranch {
    fn name(&self) -> &'static str {
        "two-branch"
    }

    fn about(&self) -> &'static str {
        "two convolutions side by side, their sum, one more; BatchNormalization behind the rectifiers"
    }

    fn settings(&self) -> &'static [Setting] {
        const {
            &[
                Setting::number(
                    "classes",
                    "classes that it tells apart; 0 gives what the last convolution makes",
                    0,
                    0..=1_000_000,
                ),
                Setting::channels(3),
                Setting::height(64, 1),
                Setting::width(64, 1),
            ]
        }
    }

    fn write(&self, set: &Settings, random: Random) -> Result<Model, ArchError> {
        let mut d = Draft::new(self.name());
        let image = d.input("image", images(set));
        let model = d.network(random, |n| {
            let part = |x, name: &str, from, to| {
                let y = relu(n.conv_bias(x, &format!("{name}.conv"), Conv::new(from, to, 3)));
                n.batch_norm(y, &format!("{name}.bn"), to, 1.0)
            };
            let [left, right] =
                ["left", "right"].map(|name| part(n.at(image), name, set.get("channels"), 32));
            let y = part(left + right, "both", 32, 64);
            match set.get("classes") {
                0 => vec![("features".into(), y)],
                classes => {
                    let logits = n.dense(flatten(mean_pool(y)), "fc", [64, classes]);
                    vec![("logits".into(), logits)]
                }
            }
        })?;
        Ok(model)
    }
}
