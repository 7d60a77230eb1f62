//! A highway network (Srivastava, Greff and Schmidhuber 2015).

use secateur_engine::Model;

use crate::arch::rows;
use crate::blocks::{highway, relu};
use crate::{Arch, ArchError, Draft, Random, Setting, Settings};

/// `logits: [batch, classes]` of `x: [batch, features]`.
pub(crate) struct Highway;

impl Arch for Highway {
    fn name(&self) -> &'static str {
        "highway"
    }

    fn about(&self) -> &'static str {
        "hidden layers that a learned gate mixes with their input, for rows of numbers"
    }

    fn settings(&self) -> &'static [Setting] {
        const {
            &[
                Setting::classes(10),
                Setting::features(784),
                Setting::layers(10),
                Setting::hidden("elements of each hidden layer", 50),
            ]
        }
    }

    fn write(&self, set: &Settings, random: Random) -> Result<Model, ArchError> {
        let mut d = Draft::new(self.name());
        let x = d.input("x", rows(set));
        let hidden = set.get("hidden");
        let model = d.network(random, |n| {
            let x = relu(n.dense(n.at(x), "first", [set.get("features"), hidden]));
            let x = (0..set.get("layers")).fold(x, |x, i| highway(n, x, &format!("highway.{i}"), hidden));
            let logits = n.dense(x, "last", [hidden, set.get("classes")]);
            vec![("logits".into(), logits)]
        })?;
        Ok(model)
    }
}
