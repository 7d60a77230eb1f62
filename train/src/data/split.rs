//! Which examples are for what.

use std::sync::Arc;

use super::DataError;
use super::options::{Options, Part};
use super::store::{Data, Parts, Store};
use super::stream::{Purpose, permutation, stream};

/// Disjoint sets of examples: train on the first, choose by the second, and look at the third once.
#[derive(Clone, Debug)]
pub struct Splits {
    /// Examples to learn from.
    pub train: Arc<Data>,
    /// Examples to choose by, such as when to stop.
    pub validation: Option<Arc<Data>>,
    /// Examples that nothing was learned from or chosen by.
    pub test: Option<Arc<Data>>,
}

/// Numbers of examples for training, validation and testing.
#[derive(Debug, PartialEq)]
pub(super) struct Rows {
    pub(super) train: Vec<u32>,
    pub(super) validation: Vec<u32>,
    pub(super) test: Vec<u32>,
}

/// What is set apart of the `n` examples for training where the source sets apart `published` for validation and testing.
///
/// # Errors
///
/// If there are not as many, or `options` want a test split where the source has its own.
pub(super) fn rows(n: usize, published: (bool, bool), options: &Options) -> Result<Rows, DataError> {
    if u32::try_from(n).is_err() {
        return Err(DataError::choice(format!(
            "expected fewer than 2³² examples, found {n}"
        )));
    }
    if published.1 && options.test.is_some() {
        return Err(DataError::choice(
            "has test examples of its own: no others can be set apart",
        ));
    }
    let test = match published.1 {
        true => 0,
        false => options.test.unwrap_or(Part::Share(0.1)).of(n),
    };
    let validation = if published.0 { 0 } else { options.validation.of(n) };
    let apart = test.saturating_add(validation);
    if apart >= n {
        let what = format!(
            "{validation} examples for validation and {test} for testing leave none of {n} for training"
        );
        return Err(DataError::choice(what));
    }
    let mut all = permutation(n, &mut stream(options.seed, Purpose::Split, 0, 0));
    let mut take = |count: usize| {
        let mut some = all.split_off(all.len() - count);
        some.sort_unstable();
        some
    };
    Ok(Rows {
        test: take(test),
        validation: take(validation),
        train: take(n - apart),
    })
}

/// The parts as splits: what the source sets apart stays apart, and what is missing is taken from the training examples.
pub(super) fn splits(parts: Parts, options: &Options) -> Result<Splits, DataError> {
    let whole = |p| Arc::new(Data::whole(Arc::new(p)));
    let (validation, test) = match (parts.validation, parts.test) {
        (None, Some(test)) if options.halve && test.len() > 1 => halves(test, options.seed),
        (validation, test) => (validation.map(whole), test.map(whole)),
    };
    let rows = rows(parts.train.len(), (validation.is_some(), test.is_some()), options)?;
    let train = Arc::new(parts.train);
    let some = |rows: Vec<u32>| (!rows.is_empty()).then(|| Arc::new(Data::some(train.clone(), rows)));
    Ok(Splits {
        validation: validation.or_else(|| some(rows.validation)),
        test: test.or_else(|| some(rows.test)),
        train: Arc::new(Data::some(train.clone(), rows.train)),
    })
}

/// The examples of `store` in two halves, drawn at random.
fn halves(store: Store, seed: u64) -> (Option<Arc<Data>>, Option<Arc<Data>>) {
    let (n, store) = (store.len(), Arc::new(store));
    let mut one = permutation(n, &mut stream(seed, Purpose::Split, 1, 0));
    let mut other = one.split_off(n / 2);
    let half = |rows: &mut Vec<u32>| {
        rows.sort_unstable();
        Some(Arc::new(Data::some(store.clone(), std::mem::take(rows))))
    };
    (half(&mut one), half(&mut other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(validation: Part, test: Option<Part>, seed: u64) -> Options {
        Options {
            validation,
            test,
            seed,
            ..Options::default()
        }
    }

    #[test]
    fn splits_are_disjoint_and_add_up() {
        let of = |seed| {
            rows(
                1000,
                (false, false),
                &options(Part::Share(0.2), Some(Part::Count(150)), seed),
            )
            .unwrap()
        };
        let found = of(3);
        assert_eq!(
            (found.train.len(), found.validation.len(), found.test.len()),
            (650, 200, 150)
        );
        assert_eq!(found, of(3));
        assert_ne!(found, of(4));
        let mut all = [found.train, found.validation, found.test].concat();
        all.sort_unstable();
        assert_eq!(all, (0..1000).collect::<Vec<u32>>());
    }

    #[test]
    fn test_examples_are_halved_where_none_are_for_validation() {
        let whole = crate::data::open("digits", &Options::default()).unwrap();
        let halve = Options {
            halve: true,
            ..Options::default()
        };
        let halved = crate::data::open("digits", &halve).unwrap();
        let (train, test) = (
            whole.train.len() + whole.validation.unwrap().len(),
            whole.test.unwrap(),
        );
        let (one, other) = (halved.validation.unwrap(), halved.test.unwrap());
        assert_eq!((halved.train.len(), one.len() + other.len()), (train, test.len()));
        let pixels = |data: &Data| {
            let all: Vec<usize> = (0..data.len()).collect();
            let batch = data.batch(&all).unwrap();
            let sum = |x: &secateur_engine::Tensor| x.floats().unwrap().iter().sum::<f64>();
            sum(&batch.inputs[0].1)
        };
        assert!((pixels(&one) + pixels(&other) - pixels(&test)).abs() < 1e-6);
    }

    #[test]
    fn what_is_published_stays() {
        let found = rows(100, (false, true), &options(Part::Share(0.1), None, 0)).unwrap();
        assert_eq!(
            (found.train.len(), found.validation.len(), found.test.len()),
            (90, 10, 0)
        );
        assert!(
            rows(
                100,
                (false, true),
                &options(Part::Share(0.1), Some(Part::Count(5)), 0)
            )
            .is_err()
        );
    }

    #[test]
    fn something_must_be_left() {
        let e = rows(
            10,
            (false, false),
            &options(Part::Count(5), Some(Part::Count(5)), 0),
        )
        .unwrap_err();
        assert!(e.to_string().contains("none of 10"), "{e}");
        assert!(
            rows(
                10,
                (false, false),
                &options(Part::Count(usize::MAX), Some(Part::Count(9)), 0)
            )
            .is_err()
        );
        assert!(rows(0, (true, true), &Options::default()).is_err());
    }
}
