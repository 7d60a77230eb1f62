//! ResNet-50 (He et al. 2015) in the version 1.5: the 3×3 convolution of a block has the stride.

use secateur_engine::Model;

use crate::arch::images;
use crate::blocks::{Residual, ResidualKind, dropout, flatten, max_pool, mean_pool, relu, stages};
use crate::net::Conv;
use crate::{Arch, ArchError, Draft, Random, Setting, Settings};

/// `logits: [batch, classes]` of `image: [batch, channels, height, width]`.
pub(crate) struct ResNet50;

/// Blocks of each stage.
const BLOCKS: [usize; 4] = [3, 4, 6, 3];

/// The scale of what a block adds, so that sums over 16 blocks stay small.
const BRANCH: f64 = 0.25;

impl Arch for ResNet50 {
    fn name(&self) -> &'static str {
        "resnet50"
    }

    fn about(&self) -> &'static str {
        "residual blocks, version 1.5, BatchNormalization as nodes; with standard blocks it is ResNet-34"
    }

    fn settings(&self) -> &'static [Setting] {
        const {
            &[
                Setting::classes(1000),
                Setting::channels(3),
                Setting::height(224, 32),
                Setting::width(224, 32),
                Setting::word(
                    "block",
                    "what residual blocks are",
                    &["bottleneck", "standard", "preactivation"],
                ),
                Setting::number("filters", "channels inside the first stage", 64, 1..=1024),
                Setting::dropout(),
            ]
        }
    }

    fn write(&self, set: &Settings, random: Random) -> Result<Model, ArchError> {
        let mut d = Draft::new(self.name());
        let image = d.input("image", images(set));
        let filters = set.get("filters");
        let kind = ResidualKind::named(set.word("block"));
        let model = d.network(random, |n| {
            let stem = Conv::new(set.get("channels"), filters, 7).stride(2);
            let mut x = n.conv(n.at(image), "conv1", stem);
            if kind != ResidualKind::Preactivation {
                x = relu(n.batch_norm(x, "bn1", filters, 1.0));
            }
            let like = Residual {
                gain: BRANCH,
                ..Residual::new(kind, filters, filters)
            };
            let widths = [1, 2, 4, 8].map(|wider| wider * filters);
            let (x, to) = stages(n, max_pool(x, 3, 2, 1), like, BLOCKS.into_iter().zip(widths));
            let x = dropout(flatten(mean_pool(x)), set.share("dropout"));
            let logits = n.dense(x, "fc", [to, set.get("classes")]);
            vec![("logits".into(), logits)]
        })?;
        Ok(model)
    }
}
