//! AlexNet on one device (Krizhevsky 2014, "One weird trick").

use secateur_engine::Model;

use crate::arch::images;
use crate::blocks::{dropout, flatten, max_pool, relu};
use crate::net::Conv;
use crate::{Arch, ArchError, Draft, Random, Setting, Settings};

/// `logits: [batch, classes]` of `image: [batch, channels, height, width]`.
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

    fn settings(&self) -> &'static [Setting] {
        const {
            &[
                Setting::classes(1000),
                Setting::channels(3),
                Setting::height(224, 63),
                Setting::width(224, 63),
                Setting::hidden("elements of each of the two hidden layers", 4096),
                Setting::dropout(),
            ]
        }
    }

    fn write(&self, set: &Settings, random: Random) -> Result<Model, ArchError> {
        let mut d = Draft::new(self.name());
        let image = d.input("image", images(set));
        let (hidden, share) = (set.get("hidden"), set.share("dropout"));
        let model = d.network(random, |n| {
            let stem = Conv::new(set.get("channels"), 64, 11).stride(4).pad(2);
            let mut x = relu(n.conv_bias(n.at(image), "conv1", stem));
            for (i, conv) in CONVS.into_iter().enumerate() {
                if i < 2 {
                    x = max_pool(x, 3, 2, 0);
                }
                x = relu(n.conv_bias(x, &format!("conv{}", i + 2), conv));
            }
            let x = max_pool(x, 3, 2, 0);
            let all = n.elements(x);
            let x = relu(n.dense(dropout(flatten(x), share), "fc6", [all, hidden]));
            let x = relu(n.dense(dropout(x, share), "fc7", [hidden, hidden]));
            let logits = n.dense(x, "fc8", [hidden, set.get("classes")]);
            vec![("logits".into(), logits)]
        })?;
        Ok(model)
    }
}
