//! An autoencoder of one hidden layer (Hinton and Salakhutdinov 2006).

use secateur_engine::Model;

use crate::arch::rows;
use crate::blocks::activation;
use crate::{Arch, ArchError, Draft, Random, Setting, Settings};

/// `reconstruction: [batch, features]` of `x: [batch, features]`; the value `code: [batch, hidden]` is between the halves.
pub(crate) struct Autoencoder;

impl Arch for Autoencoder {
    fn name(&self) -> &'static str {
        "autoencoder"
    }

    fn about(&self) -> &'static str {
        "an encoder to a short code and a decoder back, for rows of numbers"
    }

    fn settings(&self) -> &'static [Setting] {
        const {
            &[
                Setting::features(784),
                Setting::hidden("elements of the code", 32),
                Setting::activation(&["elu", "selu", "relu", "none"]),
            ]
        }
    }

    fn write(&self, set: &Settings, random: Random) -> Result<Model, ArchError> {
        let mut d = Draft::new(self.name());
        let x = d.input("x", rows(set));
        let [features, hidden] = ["features", "hidden"].map(|s| set.get(s));
        let model = d.network(random, |n| {
            let code = n.dense(n.at(x), "encoder", [features, hidden]);
            let code = n.name(activation(code, set.word("activation")), "code");
            let y = n.dense(code, "decoder", [hidden, features]);
            vec![("reconstruction".into(), y)]
        })?;
        Ok(model)
    }
}
