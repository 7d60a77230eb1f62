//! Four convolutions in the manner of VGG's first stages, and one layer: half the filters of the Conv-4 of Frankle and Carbin 2019,
//! and none of its layers of 256.

use secateur_engine::Model;

use crate::arch::images;
use crate::blocks::{flatten, max_pool, relu};
use crate::net::Conv;
use crate::{Arch, ArchError, Draft, Random, Setting, Settings};

/// `logits: [batch, classes]` of `image: [batch, channels, height, width]`.
pub(crate) struct Conv4;

impl Arch for Conv4 {
    fn name(&self) -> &'static str {
        "conv4"
    }

    fn about(&self) -> &'static str {
        "four convolutions and one layer, for 32×32 images"
    }

    fn settings(&self) -> &'static [Setting] {
        const {
            &[
                Setting::classes(10),
                Setting::channels(3),
                Setting::height(32, 4),
                Setting::width(32, 4),
                Setting::number(
                    "filters",
                    "channels of the first two convolutions, half of the others'",
                    32,
                    1..=4096,
                ),
            ]
        }
    }

    fn write(&self, set: &Settings, random: Random) -> Result<Model, ArchError> {
        let mut d = Draft::new(self.name());
        let image = d.input("image", images(set));
        let [channels, filters] = ["channels", "filters"].map(|s| set.get(s));
        let pairs = [(channels, filters), (filters, 2 * filters)];
        let model = d.network(random, |n| {
            let x = (1..).zip(pairs).fold(n.at(image), |x, (i, (from, to))| {
                let conv = |x, i, from| relu(n.conv_bias(x, &format!("conv{i}"), Conv::new(from, to, 3)));
                max_pool(conv(conv(x, 2 * i - 1, from), 2 * i, to), 2, 2, 0)
            });
            let logits = n.dense(flatten(x), "fc", [n.elements(x), set.get("classes")]);
            vec![("logits".into(), logits)]
        })?;
        Ok(model)
    }
}
