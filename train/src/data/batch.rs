//! Examples put together.

use secateur_engine::Tensor;

use super::augment::Augment;
use super::normalize::Normalize;
use super::store::{Column, Data, Labels, Row};
use super::{DataError, store::Cells};

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
    /// With seed and epoch.
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
        let rows: Vec<u32> = which.iter().map(|&i| self.rows[i]).collect();
        gather(self, &rows, 0, Dress::default())
    }
}

/// The rows `rows` of the store of `data`.
pub(super) fn gather(data: &Data, rows: &[u32], first: usize, dress: Dress) -> Result<Batch, DataError> {
    let mut inputs = vec![];
    for (input, &(column, _)) in data.inputs().iter().zip(&data.columns) {
        let column = &data.store.columns[column];
        let dims: Vec<usize> = [rows.len()]
            .into_iter()
            .chain(input.dims.iter().copied())
            .collect();
        let tensor = match column.cells {
            Cells::Whole(_) => Tensor::of(&dims, whole(column, rows)?),
            _ => Tensor::of(&dims, floats(column, rows, dress)?),
        };
        inputs.push((input.name.clone(), tensor));
    }
    let labels = labels(&data.store.labels, rows);
    Ok(Batch {
        inputs,
        labels,
        first,
    })
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

fn floats(column: &Column, rows: &[u32], dress: Dress) -> Result<Vec<f32>, DataError> {
    let mut out = Vec::with_capacity(rows.len() * column.width());
    for &row in rows {
        let one = match column.row(row as usize)? {
            Row::Pixels(bytes, unit) => bytes.iter().map(|&p| f32::from(p) / unit).collect(),
            Row::Floats(x) => x.to_vec(),
            Row::Whole(_) => vec![],
        };
        let mut one: Vec<f32> = one;
        if let Some(n) = dress.normalize {
            n.apply(&mut one, column.groups());
        }
        out.extend(one);
    }
    Ok(out)
}
