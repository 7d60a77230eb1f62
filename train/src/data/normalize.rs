//! Standardisation: mean 0 and variance 1.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::DataError;
use super::store::{Column, Data, Row};

/// What is subtracted from each feature, or each channel of an image, and by what it is divided then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Normalize {
    /// One for all, or one for each feature or channel.
    pub mean: Vec<f32>,
    /// As many; none is 0.
    pub std: Vec<f32>,
}

impl Normalize {
    /// The means and standard deviations (of the population) of the first input of `data`; 1 in place of deviations of 0.
    ///
    /// # Errors
    ///
    /// If that holds no numbers to take a mean of, or an example cannot be read.
    pub fn of(data: &Data) -> Result<Normalize, DataError> {
        let column = &data.store.columns[0];
        let mut sums = vec![Sum::default(); column.groups()];
        for &row in &*data.rows {
            let example = example(column, row).map_err(|e| e.of(data.source()))?;
            let width = example.len() / sums.len().max(1);
            let groups = example.chunks_exact(width.max(1));
            sums.iter_mut().zip(groups).for_each(|(s, group)| s.add(group));
        }
        Ok(Normalize {
            mean: sums.iter().map(|s| s.mean() as f32).collect(),
            std: sums.iter().map(Sum::deviation).collect(),
        })
    }

    /// # Errors
    ///
    /// If this cannot be applied to `column`.
    pub(super) fn check(&self, column: &Column) -> Result<(), DataError> {
        let (groups, n) = (column.groups(), self.mean.len());
        if n != self.std.len() || (n != 1 && n != groups) {
            let found = format!("{n} means and {} deviations", self.std.len());
            return Err(DataError::choice(format!(
                "expected 1 or {groups} of both for standardisation, found {found}"
            )));
        }
        let numbers = self.mean.iter().chain(&self.std).all(|x| x.is_finite());
        match numbers && !self.std.contains(&0.0) && column.is_numeric() {
            true => Ok(()),
            false => Err(DataError::choice(
                "expected finite numbers and no deviation of 0 for standardisation of numbers",
            )),
        }
    }

    /// Standardises an example of so many `groups` of elements.
    pub(super) fn apply(&self, example: &mut [f32], groups: usize) {
        let width = example.len() / groups.max(1);
        for (group, part) in example.chunks_mut(width.max(1)).enumerate() {
            let (mean, std) = self.group(group);
            part.iter_mut().for_each(|x| *x = (*x - mean) / std);
        }
    }

    fn group(&self, group: usize) -> (f32, f32) {
        let at = if self.mean.len() == 1 { 0 } else { group };
        (self.mean[at], self.std[at])
    }
}

/// An example as numbers.
fn example(column: &Column, row: u32) -> Result<Cow<'_, [f32]>, DataError> {
    Ok(match column.row(row as usize)? {
        Row::Pixels(bytes, unit) => bytes.iter().map(|&p| f32::from(p) / unit).collect(),
        Row::Floats(all) => Cow::Borrowed(all),
        Row::Whole(_) => return Err(DataError::choice("whole numbers cannot be standardised")),
    })
}

/// Sums of what is above the first number, so that little is lost where the mean is far from 0.
#[derive(Clone, Default)]
struct Sum {
    first: Option<f64>,
    count: f64,
    sum: f64,
    squares: f64,
}

impl Sum {
    fn add(&mut self, all: &[f32]) {
        let first = *self.first.get_or_insert(all.first().map_or(0.0, |&x| x.into()));
        for &x in all {
            let above = f64::from(x) - first;
            self.sum += above;
            self.squares += above * above;
        }
        self.count += all.len() as f64;
    }

    fn mean(&self) -> f64 {
        self.first.unwrap_or(0.0) + self.sum / self.count.max(1.0)
    }

    fn deviation(&self) -> f32 {
        let n = self.count.max(1.0);
        let variance = self.squares / n - (self.sum / n).powi(2);
        match variance.max(0.0).sqrt() as f32 {
            0.0 => 1.0,
            std => std,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::file::tests::Folder;
    use crate::data::{Options, Part, open};

    fn table(text: &str) -> Data {
        let folder = Folder::new();
        let path = folder.file("x.csv", text);
        let all = Options {
            validation: Part::Count(0),
            test: Some(Part::Count(0)),
            ..Options::default()
        };
        (*open(path.to_str().unwrap(), &all).unwrap().train).clone()
    }

    #[test]
    fn features_have_mean_0_and_variance_1_after_it() {
        let data = table("100,7,1e6,0\n200,7,1e6,0\n300,7,1000001,1\n");
        let found = Normalize::of(&data).unwrap();
        assert_eq!(found.mean[..2], [200.0, 7.0]);
        assert!((found.std[0] - (20_000f32 / 3.0).sqrt()).abs() < 1e-4 && found.std[1] == 1.0);
        assert!(
            (found.std[2] - (2f32 / 9.0).sqrt()).abs() < 1e-6,
            "{:?}",
            found.std
        );
        let mut row = [100.0, 7.0, 1e6];
        found.apply(&mut row, 3);
        assert!((row[0] + 1.224_745).abs() < 1e-6 && row[1] == 0.0);
        assert_eq!(found.check(&data.store.columns[0]), Ok(()));
        let wrong = Normalize {
            mean: vec![0.0; 2],
            std: vec![1.0; 2],
        };
        assert!(wrong.check(&data.store.columns[0]).is_err());
        let zero = Normalize {
            mean: vec![0.0],
            std: vec![0.0],
        };
        assert!(zero.check(&data.store.columns[0]).is_err());
    }

    #[test]
    fn images_are_standardised_by_channel() {
        let data = open("digits", &Options::default()).unwrap().train;
        let found = Normalize::of(&data).unwrap();
        let all = data.batch(&(0..data.len()).collect::<Vec<_>>()).unwrap();
        let all = all.inputs[0].1.floats().unwrap();
        let n = all.len() as f64;
        let mean = all.iter().sum::<f64>() / n;
        let variance = all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        assert_eq!(
            found,
            Normalize {
                mean: vec![mean as f32],
                std: vec![variance.sqrt() as f32]
            }
        );
    }
}
