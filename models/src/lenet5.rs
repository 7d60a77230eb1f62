//! LeNet-5 (LeCun et al. 1998) as it is trained today: rectifiers, maxima instead of means, all channels mixed.

use secateur_engine::Model;

use crate::arch::images;
use crate::blocks::{flatten, max_pool, relu};
use crate::net::Conv;
use crate::{Arch, ArchError, Draft, Random, Size, Sizes};

/// `logits: [batch, classes]` of `image: [batch, 1, 28, 28]`.
pub(crate) struct LeNet5;

impl Arch for LeNet5 {
    fn name(&self) -> &'static str {
        "lenet5"
    }

    fn about(&self) -> &'static str {
        "two convolutions and three layers, for 28×28 digits"
    }

    fn sizes(&self) -> &'static [Size] {
        const { &[Size::classes(10)] }
    }

    fn write(&self, sizes: &Sizes, random: Random) -> Result<Model, ArchError> {
        let mut d = Draft::new(self.name());
        let image = d.input("image", images(1, 28));
        let model = d.network(random, |n| {
            let x = relu(n.conv_bias(n.at(image), "conv1", Conv::new(1, 6, 5)));
            let x = max_pool(x, 2, 2, 0);
            let x = relu(n.conv_bias(x, "conv2", Conv::new(6, 16, 5).pad(0)));
            let x = flatten(max_pool(x, 2, 2, 0));
            let x = relu(n.dense(x, "fc1", [16 * 5 * 5, 120]));
            let x = relu(n.dense(x, "fc2", [120, 84]));
            let logits = n.dense(x, "fc3", [84, sizes.get("classes")]);
            vec![("logits".into(), logits)]
        })?;
        Ok(model)
    }
}
