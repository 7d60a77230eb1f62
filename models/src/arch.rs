//! Architectures by name, with seeded random weights. To add one: a file here and a row in [`ARCHS`].

use std::fmt;
use std::ops::RangeInclusive;

use secateur_engine::Model;
use secateur_engine::ir::{Dim, Flaw};
use secateur_engine::run::nearest;

use crate::{Random, alexnet, bert_base, lenet_300_100, lenet5, mobilenetv2, resnet50};

/// A network that can be written.
pub trait Arch: Sync {
    /// Its name.
    fn name(&self) -> &'static str;

    /// What it is, in a line.
    fn about(&self) -> &'static str;

    /// What may be set.
    fn sizes(&self) -> &'static [Size];

    /// Writes it with these sizes, which are all in range; weights are drawn from `random`.
    ///
    /// # Errors
    ///
    /// If sizes do not fit together.
    fn write(&self, sizes: &Sizes, random: Random) -> Result<Model, ArchError>;
}

/// All architectures, sorted by name.
pub static ARCHS: &[&dyn Arch] = &[
    &alexnet::AlexNet,
    &bert_base::BertBase,
    &lenet_300_100::LeNet300100,
    &lenet5::LeNet5,
    &mobilenetv2::MobileNetV2,
    &resnet50::ResNet50,
];

/// One number of an architecture that may be set.
#[derive(Clone, Debug)]
pub struct Size {
    /// Its name.
    pub name: &'static str,
    /// What it counts.
    pub about: &'static str,
    /// What it is unless it is set.
    pub default: usize,
    /// What it may be.
    pub range: RangeInclusive<usize>,
}

impl Size {
    /// The number of classes that a classifier tells apart.
    pub(crate) const fn classes(default: usize) -> Size {
        Size {
            name: "classes",
            about: "classes that it tells apart",
            default,
            range: 1..=1_000_000,
        }
    }

    /// The height and width of the images that a network sees.
    pub(crate) const fn image(default: usize) -> Size {
        Size {
            name: "size",
            about: "height and width of the image",
            default,
            range: 32..=4096,
        }
    }
}

/// A number for each [`Size`] of an architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes(Vec<(&'static str, usize)>);

impl Sizes {
    /// Those of `arch` where `given` are set; of two for one name the later counts.
    ///
    /// # Errors
    ///
    /// If there is no such size, or it cannot be that.
    pub fn of(arch: &dyn Arch, given: &[(String, usize)]) -> Result<Sizes, ArchError> {
        let mut sizes = Sizes(arch.sizes().iter().map(|s| (s.name, s.default)).collect());
        for (name, value) in given {
            let known = || arch.sizes().iter().map(|s| s.name.to_owned()).collect();
            let i = arch.sizes().iter().position(|s| s.name == name);
            let i = i.ok_or_else(|| ArchError::unknown("setting", name, known()))?;
            let range = &arch.sizes()[i].range;
            if !range.contains(value) {
                let (low, high) = (range.start(), range.end());
                return Err(ArchError::Size(format!(
                    "{name} cannot be {value}; expected {low} to {high}"
                )));
            }
            sizes.0[i].1 = *value;
        }
        Ok(sizes)
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, usize)> {
        self.0.iter().copied()
    }

    /// The size `name`; 0 if the architecture has none.
    pub(crate) fn get(&self, name: &str) -> usize {
        self.iter()
            .find(|(n, _)| *n == name)
            .map_or(0, |(_, value)| value)
    }
}

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

/// Images `[batch, channels, size, size]` for any batch.
pub(crate) fn images(channels: usize, size: usize) -> [Dim; 4] {
    [Dim::symbol("batch"), channels.into(), size.into(), size.into()]
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
    /// A size that cannot be, and what is expected.
    Size(String),
    /// A graph that is not well formed.
    Graph(Flaw),
}

impl ArchError {
    fn unknown(what: &'static str, given: &str, known: Vec<String>) -> ArchError {
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
            ArchError::Size(text) => f.write_str(text),
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
            let fits = |s: &Size| s.range.contains(&s.default) && !s.about.is_empty();
            assert!(a.sizes().iter().all(fits), "{}", a.name());
        }
    }

    #[test]
    fn sizes_are_set_by_name() {
        let given = |name: &str, value| Sizes::of(&resnet50::ResNet50, &[(name.into(), value)]);
        assert_eq!(given("classes", 10).unwrap().get("classes"), 10);
        assert_eq!(given("classes", 10).unwrap().get("size"), 224);
        let said = given("clases", 10).unwrap_err().to_string();
        assert!(
            said.contains("did you mean \"classes\"") && said.contains("\"size\""),
            "{said}"
        );
        assert!(given("classes", 0).is_err());
        let said = arch("resnet5").err().unwrap().to_string();
        assert!(
            said.contains("did you mean \"resnet50\"") && said.contains("bert-base"),
            "{said}"
        );
    }
}
