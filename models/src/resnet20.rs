//! ResNet-20 (He et al. 2015, section 4.2), with projections where the shape changes.

use secateur_engine::Model;

use crate::arch::images;
use crate::blocks::{KINDS, Residual, ResidualKind, flatten, mean_pool, relu, stages};
use crate::net::Conv;
use crate::{Arch, ArchError, Draft, Random, Setting, Settings};

/// `logits: [batch, classes]` of `image: [batch, channels, height, width]`.
pub(crate) struct ResNet20;

impl Arch for ResNet20 {
    fn name(&self) -> &'static str {
        "resnet20"
    }

    fn about(&self) -> &'static str {
        "nine residual blocks, for 32×32 images"
    }

    fn settings(&self) -> &'static [Setting] {
        const {
            &[
                Setting::classes(10),
                Setting::channels(3),
                Setting::height(32, 4),
                Setting::width(32, 4),
                Setting::word("block", "what residual blocks are", KINDS),
                Setting::number("blocks", "blocks of each of the three stages", 3, 1..=200),
                Setting::number("filters", "channels of the first stage", 16, 1..=1024),
            ]
        }
    }

    fn write(&self, set: &Settings, random: Random) -> Result<Model, ArchError> {
        let mut d = Draft::new(self.name());
        let image = d.input("image", images(set));
        let [blocks, filters] = ["blocks", "filters"].map(|s| set.get(s));
        let kind = ResidualKind::named(set.word("block"));
        let model = d.network(random, |n| {
            let stem = Conv::new(set.get("channels"), filters, 3);
            let mut x = n.conv(n.at(image), "conv1", stem);
            if kind != ResidualKind::Preactivation {
                x = relu(n.batch_norm(x, "bn1", filters, 1.0));
            }
            let like = Residual::new(kind, filters, filters);
            let (x, to) = stages(n, x, like, [1, 2, 4].map(|wider| (blocks, wider * filters)));
            let logits = n.dense(flatten(mean_pool(x)), "fc", [to, set.get("classes")]);
            vec![("logits".into(), logits)]
        })?;
        Ok(model)
    }
}
