//! Layers that read everything, one after the other: a multilayer perceptron.

use secateur_engine::Model;

use crate::arch::rows;
use crate::blocks::{ACTIVATIONS, activation, dropout};
use crate::{Arch, ArchError, Draft, Random, Setting, Settings};

/// `logits: [batch, classes]` of `x: [batch, features]`.
pub(crate) struct Mlp;

impl Arch for Mlp {
    fn name(&self) -> &'static str {
        "mlp"
    }

    fn about(&self) -> &'static str {
        "hidden layers of one size, for rows of numbers"
    }

    fn settings(&self) -> &'static [Setting] {
        const {
            &[
                Setting::classes(10),
                Setting::features(784),
                Setting::number("layers", "hidden layers", 2, 0..=1000),
                Setting::hidden("elements of each hidden layer", 128),
                Setting::activation(ACTIVATIONS),
                Setting::dropout(),
            ]
        }
    }

    fn write(&self, set: &Settings, random: Random) -> Result<Model, ArchError> {
        let mut d = Draft::new(self.name());
        let x = d.input("x", rows(set));
        let [layers, hidden, classes] = ["layers", "hidden", "classes"].map(|s| set.get(s));
        let model = d.network(random, |n| {
            let (mut x, mut from) = (n.at(x), set.get("features"));
            for i in 1..=layers {
                let y = n.dense(x, &format!("fc{i}"), [from, hidden]);
                let y = activation(y, set.word("activation"));
                (x, from) = (dropout(y, set.share("dropout")), hidden);
            }
            let logits = n.dense(x, &format!("fc{}", layers + 1), [from, classes]);
            vec![("logits".into(), logits)]
        })?;
        Ok(model)
    }
}
