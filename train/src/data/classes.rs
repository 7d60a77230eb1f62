//! Classes and their names.

use std::collections::BTreeSet;
use std::sync::Arc;

use secateur_engine::run::nearest;

use super::DataError;
use super::store::{Labels, Parts, Store};

/// More classes than this are no classes.
const MAX: usize = 1 << 20;

/// `0`, `1`, … as names of `n` classes.
pub(super) fn numbers(n: usize) -> Arc<[String]> {
    (0..n).map(|i| i.to_string()).collect()
}

/// The class that a number stands for.
pub(super) fn number(x: f64) -> Result<i64, DataError> {
    let fits = x >= 0.0 && x < MAX as f64 && x.fract() == 0.0;
    let wrong = || DataError::label(format!("expected the number of a class from 0 on, found {x}"));
    fits.then_some(x as i64).ok_or_else(wrong)
}

/// The names of the classes that `labels` name: as they are if all are whole numbers from 0 on, else each name once,
/// sorted.
pub(super) fn names<'a>(labels: impl Iterator<Item = &'a str>) -> Arc<[String]> {
    let all: BTreeSet<&str> = labels.collect();
    let whole = all.iter().map(|l| l.parse().ok().filter(|&n: &usize| n < MAX));
    match whole.collect::<Option<Vec<usize>>>() {
        Some(found) => numbers(found.iter().max().map_or(0, |m| m + 1)),
        None => all.into_iter().map(str::to_owned).collect(),
    }
}

/// The number of the class `name`.
pub(super) fn find(names: &[String], name: &str) -> Result<i64, DataError> {
    let same = |&n: &usize| names.get(n).and_then(|m| m.parse().ok()) == Some(n);
    let by_name = names.binary_search_by(|n| n.as_str().cmp(name)).ok();
    let found = by_name.or_else(|| name.parse().ok().filter(same));
    let few = &names[..names.len().min(10)];
    let wrong = || {
        DataError::label(format!(
            "expected one of {few:?}, found {name:?}{}",
            nearest(name, few)
        ))
    };
    found.map(|n| n as i64).ok_or_else(wrong)
}

impl Parts {
    /// The same with the numbers of classes as their names, as many in each part as the greatest number of all asks for.
    pub(super) fn named(mut self) -> Parts {
        let most = |s: &Store| match &s.labels {
            Labels::Classes(all) => all.iter().max().map_or(0, |&m| m as usize + 1),
            Labels::Values(..) => 0,
        };
        let parts = [
            Some(&mut self.train),
            self.validation.as_mut(),
            self.test.as_mut(),
        ];
        let mut parts: Vec<&mut Store> = parts.into_iter().flatten().collect();
        let names = numbers(parts.iter().map(|s| most(s)).max().unwrap_or(0));
        parts.iter_mut().for_each(|s| s.names = names.clone());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_numbers_or_sorted() {
        let of = |labels: &[&str]| names(labels.iter().copied()).to_vec();
        assert_eq!(of(&["2", "0", "2"]), ["0", "1", "2"]);
        assert_eq!(of(&["b", "a", "b", "10"]), ["10", "a", "b"]);
        assert_eq!(of(&["-1", "1"]), ["-1", "1"]);
        assert_eq!(find(&of(&["2", "0"]), "02"), Ok(2));
        assert_eq!(find(&of(&["b", "a"]), "b"), Ok(1));
        let e = find(&of(&["cat", "dog"]), "dgo").unwrap_err().to_string();
        assert!(e.contains("did you mean \"dog\""), "{e}");
        assert!(find(&of(&["0", "1"]), "2").is_err());
    }
}
