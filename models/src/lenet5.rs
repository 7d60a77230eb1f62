//! LeNet-5 (LeCun et al. 1998) as it is trained today: rectifiers, maxima instead of means, all channels mixed.

use secateur_engine::Model;

use crate::arch::images;
use crate::blocks::{flatten, max_pool, relu};
use crate::net::Conv;
use crate::{Arch, ArchError, Draft, Random, Setting, Settings};

/// `logits: [batch, classes]` of `image: [batch, channels, height, width]`.
pub(crate) struct LeNet5;

impl Arch for LeNet5 {
    fn name(&self) -> &'static str {
        "lenet5"
    }

    fn about(&self) -> &'static str {
        "two convolutions and three layers, for 28×28 digits"
    }

    fn settings(&self) -> &'static [Setting] {
        const {
            &[
                Setting::classes(10),
                Setting::channels(1),
                Setting::height(28, 12),
                Setting::width(28, 12),
            ]
        }
    }

    fn write(&self, set: &Settings, random: Random) -> Result<Model, ArchError> {
        let mut d = Draft::new(self.name());
        let image = d.input("image", images(set));
        let model = d.network(random, |n| {
            let stem = Conv::new(set.get("channels"), 6, 5);
            let x = relu(n.conv_bias(n.at(image), "conv1", stem));
            let x = max_pool(x, 2, 2, 0);
            let x = relu(n.conv_bias(x, "conv2", Conv::new(6, 16, 5).pad(0)));
            let x = max_pool(x, 2, 2, 0);
            let x = relu(n.dense(flatten(x), "fc1", [n.elements(x), 120]));
            let x = relu(n.dense(x, "fc2", [120, 84]));
            let logits = n.dense(x, "fc3", [84, set.get("classes")]);
            vec![("logits".into(), logits)]
        })?;
        Ok(model)
    }
}
