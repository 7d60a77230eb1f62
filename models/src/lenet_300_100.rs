//! LeNet-300-100: two hidden layers (LeCun et al. 1998), the net that lottery tickets were found in.

use secateur_engine::Model;

use crate::arch::rows;
use crate::blocks::relu;
use crate::{Arch, ArchError, Draft, Random, Setting, Settings};

/// `logits: [batch, classes]` of `image: [batch, features]`.
pub(crate) struct LeNet300100;

impl Arch for LeNet300100 {
    fn name(&self) -> &'static str {
        "lenet-300-100"
    }

    fn about(&self) -> &'static str {
        "two hidden layers, for 28×28 digits in a row"
    }

    fn settings(&self) -> &'static [Setting] {
        const { &[Setting::classes(10), Setting::features(784)] }
    }

    fn write(&self, set: &Settings, random: Random) -> Result<Model, ArchError> {
        let mut d = Draft::new(self.name());
        let image = d.input("image", rows(set));
        let model = d.network(random, |n| {
            let x = relu(n.dense(n.at(image), "fc1", [set.get("features"), 300]));
            let x = relu(n.dense(x, "fc2", [300, 100]));
            let logits = n.dense(x, "fc3", [100, set.get("classes")]);
            vec![("logits".into(), logits)]
        })?;
        Ok(model)
    }
}
