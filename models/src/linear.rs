//! One layer: linear regression.

use secateur_engine::Model;

use crate::arch::rows;
use crate::{Arch, ArchError, Draft, Random, Setting, Settings};

/// `y: [batch, classes]` of `x: [batch, features]`.
pub(crate) struct Linear;

impl Arch for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn about(&self) -> &'static str {
        "one layer without activation: linear regression, or classes by planes"
    }

    fn settings(&self) -> &'static [Setting] {
        const { &[Setting::classes(1), Setting::features(1)] }
    }

    fn write(&self, set: &Settings, random: Random) -> Result<Model, ArchError> {
        let mut d = Draft::new(self.name());
        let x = d.input("x", rows(set));
        let sizes = ["features", "classes"].map(|s| set.get(s));
        Ok(d.network(random, |n| vec![("y".into(), n.dense(n.at(x), "fc", sizes))])?)
    }
}
