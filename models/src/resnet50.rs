//! ResNet-50 (He et al. 2015) in the version 1.5: the 3×3 convolution of a block has the stride.

use secateur_engine::Model;
use secateur_engine::expr::Ex;

use crate::arch::images;
use crate::blocks::{flatten, max_pool, mean_pool, relu};
use crate::net::{Conv, Net};
use crate::{Arch, ArchError, Draft, Random, Size, Sizes};

/// `logits: [batch, classes]` of `image: [batch, 3, size, size]`.
pub(crate) struct ResNet50;

/// Blocks of each stage, and the channels inside them.
const STAGES: [(usize, usize); 4] = [(3, 64), (4, 128), (6, 256), (3, 512)];

/// How much wider a block is outside.
const EXPANSION: usize = 4;

/// The mean scale of what a block adds, so that sums over 16 blocks stay small.
const BRANCH: f64 = 0.25;

impl Arch for ResNet50 {
    fn name(&self) -> &'static str {
        "resnet50"
    }

    fn about(&self) -> &'static str {
        "residual blocks, version 1.5, BatchNormalization as nodes"
    }

    fn sizes(&self) -> &'static [Size] {
        const { &[Size::classes(1000), Size::image(224)] }
    }

    fn write(&self, sizes: &Sizes, random: Random) -> Result<Model, ArchError> {
        let mut d = Draft::new(self.name());
        let image = d.input("image", images(3, sizes.get("size")));
        let model = d.network(random, |n| {
            let stem = Conv::new(3, 64, 7).stride(2);
            let x = n.batch_norm(n.conv(n.at(image), "conv1", stem), "bn1", 64, 1.0);
            let (mut x, mut from) = (max_pool(relu(x), 3, 2, 1), 64);
            for (stage, (blocks, width)) in STAGES.into_iter().enumerate() {
                for i in 0..blocks {
                    let stride = if stage > 0 && i == 0 { 2 } else { 1 };
                    let name = format!("layer{}.{i}", stage + 1);
                    x = block(n, x, &name, [from, width, stride]);
                    from = width * EXPANSION;
                }
            }
            let x = flatten(mean_pool(x));
            let logits = n.dense(x, "fc", [from, sizes.get("classes")]);
            vec![("logits".into(), logits)]
        })?;
        Ok(model)
    }
}

/// A bottleneck: fewer channels, 3×3, more channels, and its input added, projected where it has another shape.
fn block<'a>(n: &Net<'a>, x: Ex<'a>, name: &str, [from, width, stride]: [usize; 3]) -> Ex<'a> {
    let to = width * EXPANSION;
    let norm = |x, i: usize, gain, conv: Conv| {
        let x = n.conv(x, &format!("{name}.conv{i}"), conv);
        n.batch_norm(x, &format!("{name}.bn{i}"), conv.to, gain)
    };
    let y = relu(norm(x, 1, 1.0, Conv::new(from, width, 1)));
    let y = relu(norm(y, 2, 1.0, Conv::new(width, width, 3).stride(stride)));
    let y = norm(y, 3, BRANCH, Conv::new(width, to, 1));
    let shortcut = match from == to {
        true => x,
        false => {
            let conv = Conv::new(from, to, 1).stride(stride);
            let x = n.conv(x, &format!("{name}.downsample.0"), conv);
            n.batch_norm(x, &format!("{name}.downsample.1"), to, 1.0)
        }
    };
    relu(y + shortcut)
}
