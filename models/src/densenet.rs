//! DenseNet for small images (Huang et al. 2017): 40 layers, without bottlenecks.

use secateur_engine::Model;

use crate::arch::images;
use crate::blocks::{average_pool, dense_block, dropout, flatten, mean_pool, relu};
use crate::net::Conv;
use crate::{Arch, ArchError, Draft, Random, Setting, Settings};

/// `logits: [batch, classes]` of `image: [batch, channels, height, width]`.
pub(crate) struct DenseNet;

/// Channels of the first convolution.
const STEM: usize = 16;

/// Dense blocks.
const BLOCKS: usize = 3;

impl Arch for DenseNet {
    fn name(&self) -> &'static str {
        "densenet"
    }

    fn about(&self) -> &'static str {
        "three blocks whose layers read all layers before them, for 32×32 images"
    }

    fn settings(&self) -> &'static [Setting] {
        const {
            &[
                Setting::classes(10),
                Setting::channels(3),
                Setting::height(32, 4),
                Setting::width(32, 4),
                Setting::number("layers", "layers of each of the three blocks", 12, 1..=200),
                Setting::number("growth", "channels that a layer adds", 12, 1..=512),
                Setting::dropout(),
            ]
        }
    }

    fn write(&self, set: &Settings, random: Random) -> Result<Model, ArchError> {
        let mut d = Draft::new(self.name());
        let image = d.input("image", images(set));
        let ([growth, layers], share) = (["growth", "layers"].map(|s| set.get(s)), set.share("dropout"));
        let model = d.network(random, |n| {
            let stem = Conv::new(set.get("channels"), STEM, 3);
            let (mut x, mut from) = (n.conv(n.at(image), "conv1", stem), STEM);
            for block in 0..BLOCKS {
                x = dense_block(n, x, &format!("block{block}"), [from, growth, layers], share);
                from += growth * layers;
                x = relu(n.batch_norm(x, &format!("norm{block}"), from, 1.0));
                if block + 1 < BLOCKS {
                    let conv = n.conv(x, &format!("transition{block}"), Conv::new(from, from, 1));
                    x = average_pool(dropout(conv, share), 2);
                }
            }
            let logits = n.dense(flatten(mean_pool(x)), "fc", [from, set.get("classes")]);
            vec![("logits".into(), logits)]
        })?;
        Ok(model)
    }
}
