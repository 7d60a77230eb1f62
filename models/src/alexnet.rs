//! AlexNet on one device (Krizhevsky 2014, "One weird trick").

use secateur_engine::Model;

use crate::arch::images;
use crate::blocks::{flatten, max_pool, relu};
use crate::net::Conv;
use crate::{Arch, ArchError, Draft, Random, Size, Sizes};

/// `logits: [batch, classes]` of `image: [batch, 3, 224, 224]`.
pub(crate) struct AlexNet;

/// `conv2` to `conv5`; a pooling comes before the first two.
const CONVS: [Conv; 4] = [
    Conv::new(64, 192, 5),
    Conv::new(192, 384, 3),
    Conv::new(384, 256, 3),
    Conv::new(256, 256, 3),
];

impl Arch for AlexNet {
    fn name(&self) -> &'static str {
        "alexnet"
    }

    fn about(&self) -> &'static str {
        "five convolutions and three large layers, for 224×224 images"
    }

    fn sizes(&self) -> &'static [Size] {
        const {
            &[
                Size::classes(1000),
                Size {
                    name: "hidden",
                    about: "elements of each of the two hidden layers",
                    default: 4096,
                    range: 1..=16384,
                },
            ]
        }
    }

    fn write(&self, sizes: &Sizes, random: Random) -> Result<Model, ArchError> {
        let mut d = Draft::new(self.name());
        let hidden = sizes.get("hidden");
        let image = d.input("image", images(3, 224));
        let model = d.network(random, |n| {
            let stem = Conv::new(3, 64, 11).stride(4).pad(2);
            let mut x = relu(n.conv_bias(n.at(image), "conv1", stem));
            for (i, conv) in CONVS.into_iter().enumerate() {
                if i < 2 {
                    x = max_pool(x, 3, 2, 0);
                }
                x = relu(n.conv_bias(x, &format!("conv{}", i + 2), conv));
            }
            let x = flatten(max_pool(x, 3, 2, 0));
            let x = relu(n.dense(x, "fc6", [256 * 6 * 6, hidden]));
            let x = relu(n.dense(x, "fc7", [hidden, hidden]));
            let logits = n.dense(x, "fc8", [hidden, sizes.get("classes")]);
            vec![("logits".into(), logits)]
        })?;
        Ok(model)
    }
}
