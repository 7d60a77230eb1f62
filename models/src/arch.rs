//! Architectures by name, with seeded random weights. To add one: a file here and a row in [`ARCHS`].

use std::fmt;

use secateur_engine::Model;
use secateur_engine::ir::{Dim, Flaw};
use secateur_engine::run::nearest;

use crate::{
    Random, Setting, Settings, alexnet, autoencoder, bert_base, conv4, densenet, highway, lenet_300_100,
    lenet5, linear, mlp, mobilenetv2, recurrent, resnet20, resnet50, transformer, transformer_decoder,
    transformer_encoder, two_branch, vgg, vit,
};

/// A network that can be written.
pub trait Arch: Sync {
    /// Its name.
    fn name(&self) -> &'static str;

    /// What it is, in a line.
    fn about(&self) -> &'static str;

    /// What may be set. Architectures over images have `channels`, `height`, `width` and `classes`, those over text `vocabulary`,
    /// `length` and `classes`, those over rows of numbers `features` and `classes`, wherever it makes sense.
    fn settings(&self) -> &'static [Setting];

    /// Writes it as `set`, settings of its own; weights are drawn from `random`.
    ///
    /// # Errors
    ///
    /// If settings do not fit together.
    fn write(&self, set: &Settings, random: Random) -> Result<Model, ArchError>;
}

impl dyn Arch + '_ {
    /// The network with the settings `given`, its weights drawn from `seed`.
    ///
    /// # Errors
    ///
    /// If there is no such setting, it cannot be that, or settings do not fit together.
    pub fn build(&self, given: &[(String, String)], seed: u64) -> Result<Model, ArchError> {
        self.write(&Settings::of(self, given)?, Random::new(seed))
    }
}

/// All architectures, sorted by name.
pub static ARCHS: &[&dyn Arch] = &[
    &alexnet::AlexNet,
    &autoencoder::Autoencoder,
    &bert_base::BertBase,
    &conv4::Conv4,
    &densenet::DenseNet,
    &recurrent::GRU,
    &highway::Highway,
    &lenet_300_100::LeNet300100,
    &lenet5::LeNet5,
    &linear::Linear,
    &recurrent::LSTM,
    &mlp::Mlp,
    &mobilenetv2::MobileNetV2,
    &resnet20::ResNet20,
    &resnet50::ResNet50,
    &recurrent::RNN,
    &transformer::Transformer,
    &transformer_decoder::TransformerDecoder,
    &transformer_encoder::TransformerEncoder,
    &two_branch::TwoBranch,
    &vgg::VGG11,
    &vgg::VGG16,
    &vit::ViT,
];

/// The architecture called `name`.
///
/// # Errors
///
/// If there is none.
pub fn arch(name: &str) -> Result<&'static dyn Arch, ArchError> {
    let found = ARCHS.iter().find(|a| a.name() == name);
    let known = || ARCHS.iter().map(|a| a.name().to_owned()).collect();
    Ok(*found.ok_or_else(|| ArchError::unknown("architecture", name, known()))?)
}

/// Images `[batch, channels, height, width]` for any batch.
pub(crate) fn images(set: &Settings) -> [Dim; 4] {
    let [channels, height, width] = ["channels", "height", "width"].map(|name| set.get(name).into());
    [Dim::symbol("batch"), channels, height, width]
}

/// Rows of numbers `[batch, features]` for any batch.
pub(crate) fn rows(set: &Settings) -> [Dim; 2] {
    [Dim::symbol("batch"), set.get("features").into()]
}

/// Why there is no such model.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ArchError {
    /// A name that nothing has.
    Unknown {
        /// What kind of thing should have it.
        what: &'static str,
        /// The name.
        given: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// A setting that cannot be, and what is expected.
    Setting(String),
    /// A graph that is not well formed.
    Graph(Flaw),
}

impl ArchError {
    pub(crate) fn unknown(what: &'static str, given: &str, known: Vec<String>) -> ArchError {
        ArchError::Unknown {
            what,
            given: given.to_owned(),
            known,
        }
    }
}

impl fmt::Display for ArchError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            ArchError::Unknown { what, given, known } => {
                let near = nearest(given, known);
                write!(f, "no {what} {given:?}{near}; there are {known:?}")
            }
            ArchError::Setting(text) => f.write_str(text),
            ArchError::Graph(flaw) => flaw.fmt(f),
        }
    }
}

impl std::error::Error for ArchError {}

impl From<Flaw> for ArchError {
    fn from(flaw: Flaw) -> ArchError {
        ArchError::Graph(flaw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_are_sorted_and_found() {
        assert!(ARCHS.is_sorted_by(|a, b| a.name() < b.name()));
        for a in ARCHS {
            assert_eq!(arch(a.name()).unwrap().name(), a.name());
            assert!(!a.about().is_empty());
            let read = |s: &Setting| Settings::of(*a, &[(s.name.into(), s.kind.default().to_string())]);
            for s in a.settings() {
                assert!(!s.about.is_empty() && read(s).is_ok(), "{} {}", a.name(), s.name);
            }
        }
    }

    #[test]
    fn unknown_names_are_refused_with_the_nearest() {
        let said = arch("resnet5").err().unwrap().to_string();
        assert!(
            said.contains("did you mean \"resnet50\"") && said.contains("bert-base"),
            "{said}"
        );
    }
}
