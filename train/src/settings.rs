//! Things with a name and numbers that can be set: `adam:beta1=0.95,eps=1e-6`.

use std::fmt::Debug;

use secateur_engine::run::nearest;

/// Numbers that say how something works, by name.
pub trait Settings: Debug + Send + Sync {
    /// Their names and what they are.
    fn settings(&self) -> Vec<(&'static str, f64)>;

    /// Sets one.
    ///
    /// # Errors
    ///
    /// If there is none of that name, or it cannot be `x`.
    fn set(&mut self, name: &str, x: f64) -> Result<(), String>;
}

/// Implements [`Settings`] for fields of a struct, each with the range that it must lie in.
macro_rules! settings {
    ($ty:ty { $($field:ident: $range:expr),* $(,)? }) => {
        impl $crate::settings::Settings for $ty {
            fn settings(&self) -> Vec<(&'static str, f64)> {
                vec![$((stringify!($field), self.$field as f64)),*]
            }

            #[allow(unused_variables, reason = "some have no settings")]
            fn set(&mut self, name: &str, x: f64) -> Result<(), String> {
                match name {
                    $(stringify!($field) => {
                        self.$field = $crate::settings::within(name, x, $range)? as _;
                        $crate::settings::whole(name, x, self.$field as f64)
                    })*
                    _ => Err($crate::settings::unknown(name, &[$(stringify!($field)),*])),
                }
            }
        }
    };
}
pub(crate) use settings;

/// `x`, if it is in `range`.
pub(crate) fn within(
    name: &str,
    x: f64,
    range: impl std::ops::RangeBounds<f64> + Debug,
) -> Result<f64, String> {
    match range.contains(&x) {
        true => Ok(x),
        false => Err(format!("{name} is {x}; expected a number in {range:?}")),
    }
}

/// An error if what was kept of `x` is something else.
pub(crate) fn whole(name: &str, x: f64, kept: f64) -> Result<(), String> {
    match x == kept {
        true => Ok(()),
        false => Err(format!("{name} is {x}; expected a whole number")),
    }
}

/// What is said of a setting that is not there.
pub(crate) fn unknown(name: &str, known: &[&str]) -> String {
    missing("setting", name, known)
}

/// What is said where there is no `kind` of that name.
pub(crate) fn missing(kind: &str, name: &str, known: &[&str]) -> String {
    let owned: Vec<String> = known.iter().map(|&k| k.into()).collect();
    let there = match known.is_empty() {
        true => "there are none".into(),
        false => format!("there are: {}", known.join(", ")),
    };
    format!("no {kind} {name:?}{}; {there}", nearest(name, &owned))
}

/// The one of `all` that `text` names, with the settings that follow the name.
pub(crate) fn parse<T: Settings + ?Sized>(
    kind: &str,
    text: &str,
    all: Vec<(&'static str, Box<T>)>,
) -> Result<Box<T>, String> {
    let (name, rest) = text.split_once(':').unwrap_or((text, ""));
    let names: Vec<_> = all.iter().map(|(name, _)| *name).collect();
    let found = all.into_iter().find(|(n, _)| *n == name.trim());
    let (_, mut found) = found.ok_or_else(|| missing(kind, name, &names))?;
    for setting in rest.split(',').map(str::trim).filter(|s| !s.is_empty()) {
        let wrong = || format!("{kind} {name}: {setting:?} is no setting; expected name=number");
        let (key, x) = setting.split_once('=').ok_or_else(wrong)?;
        let x: f64 = x.trim().parse().map_err(|_| wrong())?;
        found
            .set(key.trim(), x)
            .map_err(|e| format!("{kind} {name}: {e}"))?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Some {
        share: f64,
        count: usize,
    }
    settings!(Some {
        share: 0.0..1.0,
        count: 1.0..=9.0
    });

    fn of(text: &str) -> Result<Vec<(&'static str, f64)>, String> {
        let some: Box<dyn Settings> = Box::new(Some { share: 0.5, count: 2 });
        parse("thing", text, vec![("some", some)]).map(|s| s.settings())
    }

    #[test]
    fn settings_follow_the_name() {
        assert_eq!(of("some"), Ok(vec![("share", 0.5), ("count", 2.0)]));
        assert_eq!(
            of("some:count=3, share=.25"),
            Ok(vec![("share", 0.25), ("count", 3.0)])
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        let wrong = [
            ("sone", "did you mean \"some\"?"),
            ("some:shaer=1", "did you mean \"share\"?"),
            ("some:share=1", "expected a number in 0.0..1.0"),
            ("some:share=nan", "expected a number in"),
            ("some:count=2.5", "expected a whole number"),
            ("some:count", "expected name=number"),
        ];
        for (text, part) in wrong {
            let e = of(text).unwrap_err();
            assert!(e.contains(part), "{text}: {e}");
        }
    }
}
