//! What may be set of an architecture.

use std::fmt;
use std::ops::RangeInclusive;

use secateur_engine::run::nearest;

use crate::{Arch, ArchError};

/// One thing of an architecture that may be set.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// What it may be.
    pub kind: Kind,
}

/// What a setting may be, and what it is unless it is set.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A whole number in a range.
    Number {
        /// Unless it is set.
        default: usize,
        /// Both ends included.
        range: RangeInclusive<usize>,
    },
    /// A share from 0 (inclusive) to 1 (exclusive); 0 unless it is set.
    Share,
    /// One of these words; the first unless it is set.
    Word(&'static [&'static str]),
}

/// What a setting is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A [`Kind::Number`].
    Number(usize),
    /// A [`Kind::Share`].
    Share(f64),
    /// A [`Kind::Word`].
    Word(&'static str),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Value::Number(n) => n.fmt(f),
            Value::Share(x) => x.fmt(f),
            Value::Word(word) => word.fmt(f),
        }
    }
}

impl Kind {
    /// What it is unless it is set.
    pub fn default(&self) -> Value {
        match self {
            Kind::Number { default, .. } => Value::Number(*default),
            Kind::Share => Value::Share(0.0),
            Kind::Word(words) => Value::Word(words.first().copied().unwrap_or_default()),
        }
    }

    /// What `text` says; else what is expected.
    fn read(&self, text: &str) -> Result<Value, String> {
        match self {
            Kind::Number { range, .. } => {
                let number = text.parse().ok().filter(|n| range.contains(n));
                let expected = || format!("a whole number from {} to {}", range.start(), range.end());
                number.map(Value::Number).ok_or_else(expected)
            }
            Kind::Share => {
                let share = text.parse().ok().filter(|x| (0.0..1.0).contains(x));
                share
                    .map(Value::Share)
                    .ok_or_else(|| "a number from 0 to below 1".into())
            }
            Kind::Word(words) => {
                let word = words.iter().find(|w| **w == text);
                let all: Vec<String> = words.iter().map(|&w| w.to_owned()).collect();
                let expected = || format!("one of {all:?}{}", nearest(text, &all));
                word.map(|w| Value::Word(w)).ok_or_else(expected)
            }
        }
    }
}

impl Setting {
    pub(crate) const fn number(
        name: &'static str,
        about: &'static str,
        default: usize,
        range: RangeInclusive<usize>,
    ) -> Setting {
        let kind = Kind::Number { default, range };
        Setting { name, about, kind }
    }

    pub(crate) const fn word(
        name: &'static str,
        about: &'static str,
        words: &'static [&'static str],
    ) -> Setting {
        let kind = Kind::Word(words);
        Setting { name, about, kind }
    }

    /// The number of classes that a classifier tells apart.
    pub(crate) const fn classes(default: usize) -> Setting {
        Setting::number("classes", "classes that it tells apart", default, 1..=1_000_000)
    }

    /// The share of elements that `Dropout` nodes drop in training.
    pub(crate) const fn dropout() -> Setting {
        let about = "share of elements that training drops; 0 leaves out the nodes";
        let (name, kind) = ("dropout", Kind::Share);
        Setting { name, about, kind }
    }

    /// The channels of an image.
    pub(crate) const fn channels(default: usize) -> Setting {
        Setting::number("channels", "channels of the image", default, 1..=4096)
    }

    /// The height of an image.
    pub(crate) const fn height(default: usize, least: usize) -> Setting {
        Setting::number("height", "rows of the image", default, least..=4096)
    }

    /// The width of an image.
    pub(crate) const fn width(default: usize, least: usize) -> Setting {
        Setting::number("width", "columns of the image", default, least..=4096)
    }

    /// Numbers of an example that is no image.
    pub(crate) const fn features(default: usize) -> Setting {
        Setting::number("features", "numbers of an example", default, 1..=1_000_000)
    }

    /// Layers of one kind, one after the other.
    pub(crate) const fn layers(default: usize) -> Setting {
        Setting::number("layers", "layers", default, 1..=1000)
    }

    /// Elements between layers.
    pub(crate) const fn hidden(about: &'static str, default: usize) -> Setting {
        Setting::number("hidden", about, default, 1..=65536)
    }

    /// Heads of attention.
    pub(crate) const fn heads(default: usize) -> Setting {
        Setting::number("heads", "heads of each attention", default, 1..=256)
    }

    /// The inner size of a feed-forward part.
    pub(crate) const fn ffn(default: usize) -> Setting {
        let about = "elements of a token inside the feed-forward part";
        Setting::number("ffn", about, default, 1..=65536)
    }

    /// How many words there are.
    pub(crate) const fn vocabulary(about: &'static str, default: usize, least: usize) -> Setting {
        Setting::number("vocabulary", about, default, least..=1_000_000)
    }

    /// Tokens of a sequence.
    pub(crate) const fn length(default: usize) -> Setting {
        Setting::number("length", "tokens of a sequence", default, 1..=65536)
    }

    /// What comes after a layer's sums.
    pub(crate) const fn activation(words: &'static [&'static str]) -> Setting {
        Setting::word("activation", "what hidden elements go through", words)
    }
}

/// A value for each [`Setting`] of an architecture.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings(Vec<(&'static str, Value)>);

impl Settings {
    /// Those of `arch` where `given` are set; of two for one name the later counts.
    ///
    /// # Errors
    ///
    /// If there is no such setting, or it cannot be that.
    pub fn of(arch: &dyn Arch, given: &[(String, String)]) -> Result<Settings, ArchError> {
        let all = arch.settings();
        let mut set = Settings(all.iter().map(|s| (s.name, s.kind.default())).collect());
        for (name, text) in given {
            let known = || all.iter().map(|s| s.name.to_owned()).collect();
            let i = all.iter().position(|s| s.name == name);
            let i = i.ok_or_else(|| ArchError::unknown("setting", name, known()))?;
            let wrong =
                |expected| ArchError::Setting(format!("{name} cannot be {text:?}; expected {expected}"));
            set.0[i].1 = all[i].kind.read(text).map_err(wrong)?;
        }
        Ok(set)
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Value)> {
        self.0.iter().copied()
    }

    fn value(&self, name: &str) -> Option<Value> {
        self.iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// The number `name`; 0 if the architecture has none.
    pub(crate) fn get(&self, name: &str) -> usize {
        match self.value(name) {
            Some(Value::Number(n)) => n,
            _ => 0,
        }
    }

    /// The share `name`; 0 if the architecture has none.
    pub(crate) fn share(&self, name: &str) -> f64 {
        match self.value(name) {
            Some(Value::Share(x)) => x,
            _ => 0.0,
        }
    }

    /// The word `name`; empty if the architecture has none.
    pub(crate) fn word(&self, name: &str) -> &'static str {
        match self.value(name) {
            Some(Value::Word(word)) => word,
            _ => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resnet50::ResNet50;

    fn given(name: &str, value: &str) -> Result<Settings, ArchError> {
        Settings::of(&ResNet50, &[(name.into(), value.into())])
    }

    fn said(name: &str, value: &str) -> String {
        given(name, value).unwrap_err().to_string()
    }

    #[test]
    fn settings_are_set_by_name() {
        assert_eq!(given("classes", "10").unwrap().get("classes"), 10);
        assert_eq!(given("classes", "10").unwrap().get("height"), 224);
        assert_eq!(given("block", "standard").unwrap().word("block"), "standard");
        assert_eq!(given("dropout", "0.25").unwrap().share("dropout"), 0.25);
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_can() {
        let near = said("clases", "10");
        assert!(
            near.contains("did you mean \"classes\"") && near.contains("\"height\""),
            "{near}"
        );
        assert!(said("classes", "0").contains("expected a whole number from 1"));
        assert!(said("classes", "x").contains("cannot be \"x\""));
        assert!(said("dropout", "1").contains("below 1") && said("dropout", "NaN").contains("below 1"));
        let near = said("block", "standart");
        assert!(
            near.contains("did you mean \"standard\"") && near.contains("preactivation"),
            "{near}"
        );
    }
}
