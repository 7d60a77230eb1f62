//! LeNet-300-100: two hidden layers (LeCun et al. 1998), the net that lottery tickets were found in.

use secateur_engine::Model;
use secateur_engine::ir::Dim;

use crate::blocks::relu;
use crate::{Arch, ArchError, Draft, Random, Size, Sizes};

/// `logits: [batch, classes]` of `image: [batch, 784]`.
pub(crate) struct LeNet300100;

impl Arch for LeNet300100 {
    fn name(&self) -> &'static str {
        "lenet-300-100"
    }

    fn about(&self) -> &'static str {
        "two hidden layers, for 28×28 digits in a row"
    }

    fn sizes(&self) -> &'static [Size] {
        const { &[Size::classes(10)] }
    }

    fn write(&self, sizes: &Sizes, random: Random) -> Result<Model, ArchError> {
        let mut d = Draft::new(self.name());
        let image = d.input("image", [Dim::symbol("batch"), 784usize.into()]);
        let model = d.network(random, |n| {
            let x = relu(n.dense(n.at(image), "fc1", [784, 300]));
            let x = relu(n.dense(x, "fc2", [300, 100]));
            let logits = n.dense(x, "fc3", [100, sizes.get("classes")]);
            vec![("logits".into(), logits)]
        })?;
        Ok(model)
    }
}
