//! VGG (Simonyan and Zisserman 2014): configurations A and D.

use secateur_engine::Model;

use crate::arch::images;
use crate::blocks::{dropout, flatten, max_pool, relu};
use crate::net::Conv;
use crate::{Arch, ArchError, Draft, Random, Setting, Settings};

/// `logits: [batch, classes]` of `image: [batch, channels, height, width]`.
pub(crate) struct Vgg {
    name: &'static str,
    about: &'static str,
    /// The convolutions of each stage.
    stages: [usize; 5],
}

/// Configuration A.
pub(crate) static VGG11: Vgg = Vgg {
    name: "vgg11",
    about: "eight convolutions and three large layers, for 224×224 images",
    stages: [1, 1, 2, 2, 2],
};

/// Configuration D.
pub(crate) static VGG16: Vgg = Vgg {
    name: "vgg16",
    about: "thirteen convolutions and three large layers, for 224×224 images",
    stages: [2, 2, 3, 3, 3],
};

/// How many times more channels than the first a stage has.
const WIDER: [usize; 5] = [1, 2, 4, 8, 8];

impl Arch for Vgg {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn settings(&self) -> &'static [Setting] {
        const {
            &[
                Setting::classes(1000),
                Setting::channels(3),
                Setting::height(224, 32),
                Setting::width(224, 32),
                Setting::number("filters", "channels of the first convolution", 64, 1..=1024),
                Setting::hidden("elements of each of the two hidden layers", 4096),
                Setting::word(
                    "batchnorm",
                    "BatchNormalization after each convolution",
                    &["no", "yes"],
                ),
                Setting::dropout(),
            ]
        }
    }

    fn write(&self, set: &Settings, random: Random) -> Result<Model, ArchError> {
        let mut d = Draft::new(self.name);
        let image = d.input("image", images(set));
        let (hidden, norm) = (set.get("hidden"), set.word("batchnorm") == "yes");
        let model = d.network(random, |n| {
            let (mut x, mut from, mut i) = (n.at(image), set.get("channels"), 1);
            for (count, wider) in self.stages.into_iter().zip(WIDER) {
                let to = set.get("filters") * wider;
                for _ in 0..count {
                    x = n.conv_bias(x, &format!("conv{i}"), Conv::new(from, to, 3));
                    if norm {
                        x = n.batch_norm(x, &format!("bn{i}"), to, 1.0);
                    }
                    (x, from, i) = (relu(x), to, i + 1);
                }
                x = max_pool(x, 2, 2, 0);
            }
            let layer = |x, i, dims| n.dense(x, &format!("fc{i}"), dims);
            let active = |x| dropout(relu(x), set.share("dropout"));
            let x = active(layer(flatten(x), 1, [n.elements(x), hidden]));
            let x = active(layer(x, 2, [hidden, hidden]));
            vec![("logits".into(), layer(x, 3, [hidden, set.get("classes")]))]
        })?;
        Ok(model)
    }
}
