//! The one place that knows which instruction sets there are and which of them this processor has.

use std::fmt;
use std::sync::OnceLock;

#[cfg(target_arch = "aarch64")]
use crate::arch::aarch64::Neon;
use crate::arch::scalar::Scalar;
#[cfg(target_arch = "x86_64")]
use crate::arch::x86::{Avx2, Avx512};
use crate::isa::Simd;

/// The environment variable that names the set to use.
const VARIABLE: &str = "SECATEUR_ISA";

/// An operation written once for all instruction sets.
pub trait Vectorised {
    /// What it returns.
    type Out;
    /// The operation. Mark it `#[inline(always)]`, and all that it calls.
    fn run<S: Simd>(self, s: S) -> Self::Out;
}

/// Runs `v` with the set that [`isa`] names.
#[inline]
pub fn dispatch<V: Vectorised>(v: V) -> V::Out {
    // SAFETY: a choice is made among the available sets only.
    unsafe { choice().set.enter(v) }
}

/// The name of the set in use: the one that `SECATEUR_ISA` names if this processor has it, else the best it has.
///
/// The choice is made once for the process.
pub fn isa() -> &'static str {
    choice().set.name()
}

/// The name of the set in use.
///
/// # Errors
///
/// `SECATEUR_ISA` is neither unset nor empty and names no set of this processor. [`dispatch()`] then uses the best.
pub fn isa_or_error() -> Result<&'static str, IsaError> {
    let choice = choice();
    match &choice.error {
        None => Ok(choice.set.name()),
        Some(error) => Err(error.clone()),
    }
}

/// `SECATEUR_ISA` names a set that this processor lacks, or none at all.
#[derive(Clone, Debug)]
pub struct IsaError {
    asked: String,
}

impl fmt::Display for IsaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VARIABLE} is {:?}, but this processor has", self.asked)?;
        for (i, set) in available().enumerate() {
            write!(f, "{} {}", if i == 0 { "" } else { "," }, set.name())?;
        }
        Ok(())
    }
}

impl std::error::Error for IsaError {}

#[derive(Clone, Copy)]
enum Set {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    Neon,
    Scalar,
}

/// Best first.
const SETS: &[Set] = &[
    #[cfg(target_arch = "x86_64")]
    Set::Avx512,
    #[cfg(target_arch = "x86_64")]
    Set::Avx2,
    #[cfg(target_arch = "aarch64")]
    Set::Neon,
    Set::Scalar,
];

impl Set {
    fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => Avx512::NAME,
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => Avx2::NAME,
            #[cfg(target_arch = "aarch64")]
            Set::Neon => Neon::NAME,
            Set::Scalar => Scalar::NAME,
        }
    }

    fn available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => Avx512::available(),
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => Avx2::available(),
            #[cfg(target_arch = "aarch64")]
            Set::Neon => Neon::available(),
            Set::Scalar => true,
        }
    }

    /// Runs `v` compiled for this set.
    ///
    /// # Safety
    ///
    /// The set is available.
    #[inline]
    unsafe fn enter<V: Vectorised>(self, v: V) -> V::Out {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the caller says that this processor has the features.
            Set::Avx512 => unsafe { Avx512::enter(v) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Set::Avx2 => unsafe { Avx2::enter(v) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Set::Neon => unsafe { Neon::enter(v) },
            Set::Scalar => Scalar::enter(v),
        }
    }
}

struct Choice {
    set: Set,
    error: Option<IsaError>,
}

#[inline]
fn choice() -> &'static Choice {
    static CHOICE: OnceLock<Choice> = OnceLock::new();
    CHOICE.get_or_init(|| {
        let asked = std::env::var_os(VARIABLE).unwrap_or_default();
        choose(&asked.to_string_lossy())
    })
}

/// The set of the name `asked`, else the best.
fn choose(asked: &str) -> Choice {
    let named = available().find(|set| set.name() == asked);
    let asked_in_vain = named.is_none() && !asked.is_empty();
    Choice {
        set: named.or(available().next()).unwrap_or(Set::Scalar),
        error: asked_in_vain.then(|| IsaError {
            asked: asked.to_owned(),
        }),
    }
}

/// The sets this processor has, best first.
fn available() -> impl Iterator<Item = Set> {
    SETS.iter().copied().filter(|set| set.available())
}

/// Runs `v` with every set this processor has and shows each result, with the set's name, to `check`.
#[cfg(test)]
pub(crate) fn each_isa<V: Vectorised + Clone>(v: V, mut check: impl FnMut(&'static str, V::Out)) {
    for set in available() {
        // SAFETY: the set is available.
        check(set.name(), unsafe { set.enter(v.clone()) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone)]
    struct Name;

    impl Vectorised for Name {
        type Out = &'static str;
        fn run<S: Simd>(self, _: S) -> &'static str {
            S::NAME
        }
    }

    #[test]
    fn dispatch_uses_the_set_that_isa_names() {
        assert_eq!(dispatch(Name), isa());
        if let Ok(name) = isa_or_error() {
            assert_eq!(name, isa());
        }
    }

    #[test]
    fn every_set_is_entered_under_its_name() {
        let mut seen = Vec::new();
        each_isa(Name, |name, ran| {
            assert_eq!(name, ran);
            seen.push(name);
        });
        assert_eq!(seen.last(), Some(&"scalar"));
        assert_eq!(seen, available().map(Set::name).collect::<Vec<_>>());
    }

    #[test]
    fn a_name_chooses() {
        for set in available() {
            let choice = choose(set.name());
            assert_eq!(choice.set.name(), set.name());
            assert!(choice.error.is_none());
        }
        assert!(choose("").error.is_none());
    }

    #[test]
    fn an_unknown_name_is_an_error_and_the_best_set() {
        let choice = choose("AVX-1024");
        assert_eq!(Some(choice.set.name()), available().next().map(Set::name));
        let text = choice.error.expect("an error").to_string();
        assert!(
            text.starts_with("SECATEUR_ISA is \"AVX-1024\", but this processor has "),
            "{text}"
        );
        assert!(text.ends_with("scalar"), "{text}");
    }
}
