//! Examples put together.

use secateur_engine::Tensor;

use super::DataError;
use super::augment::Augment;
use super::normalize::Normalize;
use super::store::{Cells, Column, Data, Input, Labels, Row};
use super::stream::{Purpose, stream};

/// Some examples.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// What goes into the model, by name: `[batch, ...]`.
    pub inputs: Vec<(String, Tensor)>,
    /// The classes, `i64[batch]`, or numbers, `f32[batch, values]`.
    pub labels: Tensor,
    /// Where in the epoch the first example stands.
    pub first: usize,
}

impl Batch {
    /// The number of examples.
    pub fn len(&self) -> usize {
        self.labels.dims()[0]
    }

    /// Whether there is no example.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What is done to examples on their way into a batch.
#[derive(Clone, Copy, Default)]
pub(super) struct Dress<'a> {
    pub(super) normalize: Option<&'a Normalize>,
    /// With the seed and the epoch.
    pub(super) augment: Option<(&'a Augment, u64, u64)>,
}

impl Data {
    /// The examples `which` as a batch, neither changed nor standardised. Pixels go from 0 to 1.
    ///
    /// # Errors
    ///
    /// If one is in a file that cannot be read.
    ///
    /// # Panics
    ///
    /// If there is no such example.
    pub fn batch(&self, which: &[usize]) -> Result<Batch, DataError> {
        self.normalized(which, None)
    }

    /// The examples `which` as a batch, standardised by `normalize`, but not changed.
    ///
    /// # Errors
    ///
    /// If one is in a file that cannot be read, or `normalize` does not fit.
    ///
    /// # Panics
    ///
    /// If there is no such example.
    pub fn normalized(&self, which: &[usize], normalize: Option<&Normalize>) -> Result<Batch, DataError> {
        let column = &self.store.columns[0];
        let fits = normalize.map_or(Ok(()), |n| n.check(column));
        fits.map_err(|e| e.of(self.source()))?;
        let rows: Vec<u32> = which.iter().map(|&i| self.rows[i]).collect();
        let augment = None;
        gather(self, &rows, 0, Dress { normalize, augment })
    }
}

/// The rows `rows` of the store of `data`.
pub(super) fn gather(data: &Data, rows: &[u32], first: usize, dress: Dress) -> Result<Batch, DataError> {
    let mut inputs = vec![];
    for (input, &(number, last)) in data.inputs.iter().zip(&data.columns) {
        let column = &data.store.columns[number];
        let dress = if number == 0 { dress } else { Dress::default() };
        let dims: Vec<usize> = [rows.len()]
            .into_iter()
            .chain(input.dims.iter().copied())
            .collect();
        let tensor = match column.cells {
            Cells::Whole(_) => Tensor::of(&dims, whole(column, rows)?),
            _ => Tensor::of(&dims, floats(column, rows, dress, last)?),
        };
        inputs.push((input.name.clone(), typed(tensor, input)?));
    }
    let labels = labels(&data.store.labels, rows);
    Ok(Batch {
        inputs,
        labels,
        first,
    })
}

fn typed(tensor: Tensor, input: &Input) -> Result<Tensor, DataError> {
    if tensor.dtype() == input.dtype {
        return Ok(tensor);
    }
    let cast = tensor
        .floats()
        .and_then(|x| Tensor::rounded(input.dtype, tensor.dims(), &x));
    cast.ok_or_else(|| DataError::shape(format!("no input of {}", input.dtype)))
}

fn labels(labels: &Labels, rows: &[u32]) -> Tensor {
    match labels {
        Labels::Classes(all) => Tensor::of(&[rows.len()], rows.iter().map(|&r| all[r as usize]).collect()),
        Labels::Values(all, width) => {
            let row = |&r: &u32| &all[r as usize * width..][..*width];
            Tensor::of(
                &[rows.len(), *width],
                rows.iter().flat_map(row).copied().collect(),
            )
        }
    }
}

fn whole(column: &Column, rows: &[u32]) -> Result<Vec<i64>, DataError> {
    let mut out = Vec::with_capacity(rows.len() * column.width());
    for &row in rows {
        if let Row::Whole(x) = column.row(row as usize)? {
            out.extend_from_slice(x);
        }
    }
    Ok(out)
}

/// Examples of `column` with what `dress` does to them; `last` takes the channels of images to the end.
fn floats(column: &Column, rows: &[u32], dress: Dress, last: bool) -> Result<Vec<f32>, DataError> {
    let mut out = Vec::with_capacity(rows.len() * column.width());
    let (mut worth, mut scratch) = (Worth::default(), vec![]);
    for &row in rows {
        let start = out.len();
        match column.row(row as usize)? {
            Row::Pixels(bytes, unit) => worth.extend(&mut out, &bytes, unit),
            Row::Floats(x) => out.extend_from_slice(x),
            Row::Whole(_) => {}
        }
        let example = &mut out[start..];
        if let (Some((augment, seed, epoch)), Some(dims)) = (dress.augment, column.image()) {
            let mut random = stream(seed, Purpose::Augment, epoch, row.into());
            augment.apply(example, dims, &mut random, &mut scratch);
        }
        if let Some(normalize) = dress.normalize {
            normalize.apply(example, column.groups());
        }
        if last {
            channels_last(example, column.groups(), &mut scratch);
        }
    }
    Ok(out)
}

/// What each value of a byte is worth: a table is quicker than as many divisions.
#[derive(Default)]
struct Worth(Vec<f32>);

impl Worth {
    fn extend(&mut self, out: &mut Vec<f32>, bytes: &[u8], unit: f32) {
        if self.0.is_empty() {
            self.0 = (0..=u8::MAX).map(|p| f32::from(p) / unit).collect();
        }
        if let Ok(table) = <&[f32; 256]>::try_from(self.0.as_slice()) {
            out.extend(bytes.iter().map(|&p| table[usize::from(p)]));
        }
    }
}

fn channels_last(example: &mut [f32], channels: usize, scratch: &mut Vec<f32>) {
    scratch.clear();
    scratch.extend_from_slice(example);
    let pixels = example.len() / channels.max(1);
    for (i, pixel) in example.chunks_exact_mut(channels.max(1)).enumerate() {
        pixel
            .iter_mut()
            .enumerate()
            .for_each(|(c, x)| *x = scratch[c * pixels + i]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Options, open};

    #[test]
    fn examples_are_standardised_where_that_is_wanted() {
        let digits = open("digits", &Options::default()).unwrap().train;
        assert!(digits.is_pixels());
        let of = |mean: &[f32]| Normalize {
            mean: mean.into(),
            std: vec![0.25; mean.len()],
        };
        let floats = |batch: Batch| batch.inputs[0].1.floats().unwrap();
        let plain = floats(digits.batch(&[3, 5]).unwrap());
        let changed = floats(digits.normalized(&[3, 5], Some(&of(&[0.5]))).unwrap());
        let each = plain.iter().zip(&changed);
        assert!(each.clone().all(|(x, y)| ((x - 0.5) / 0.25 - y).abs() < 1e-6) && plain != changed);
        assert!(digits.normalized(&[3], Some(&of(&[0.5, 0.5]))).is_err());
    }

    #[test]
    fn channels_go_to_the_end() {
        let mut image = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        channels_last(&mut image, 2, &mut vec![]);
        assert_eq!(image, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }
}
