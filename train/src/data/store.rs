//! Examples in memory.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use secateur_engine::ir::{Bytes, DType};

use super::{DataError, folder};
use crate::words::{SEED, fingerprint};

/// What one kind of input is made of, for all examples one after the other.
pub(super) enum Cells {
    /// Bytes, of which `unit` is worth 1.
    Pixels { bytes: Bytes, unit: f32 },
    /// Numbers.
    Floats(Vec<f32>),
    /// Whole numbers.
    Whole(Vec<i64>),
    /// Photos, decoded whenever they are read.
    Photos(Vec<PathBuf>),
}

/// One input of all examples.
pub(super) struct Column {
    pub(super) name: String,
    /// Of one example; of an image `[channels, height, width]`.
    pub(super) dims: Vec<usize>,
    pub(super) cells: Cells,
}

/// One input of one example.
pub(super) enum Row<'a> {
    Pixels(Cow<'a, [u8]>, f32),
    Floats(&'a [f32]),
    Whole(&'a [i64]),
}

impl Column {
    /// Elements of one example.
    pub(super) fn width(&self) -> usize {
        self.dims.iter().product()
    }

    /// The size of images, `[channels, height, width]`; `None` where examples are none.
    pub(super) fn image(&self) -> Option<[usize; 3]> {
        let dims = self.dims.as_slice().try_into().ok();
        dims.filter(|_| self.is_numeric())
    }

    pub(super) fn is_numeric(&self) -> bool {
        !matches!(self.cells, Cells::Whole(_))
    }

    /// Whether elements go from 0 to 1.
    pub(super) fn is_pixels(&self) -> bool {
        matches!(self.cells, Cells::Pixels { .. } | Cells::Photos(_))
    }

    /// In how many groups, one after the other, elements are standardised: channels or features.
    pub(super) fn groups(&self) -> usize {
        match self.dims[..] {
            // A picture of one channel without an axis for it, or a sequence.
            [_, _] => 1,
            _ => self.dims.first().copied().unwrap_or(1),
        }
    }

    fn dtype(&self) -> DType {
        match self.cells {
            Cells::Whole(_) => DType::I64,
            _ => DType::F32,
        }
    }

    /// Example `i`.
    ///
    /// # Errors
    ///
    /// If it is in a file that cannot be read.
    pub(super) fn row(&self, i: usize) -> Result<Row<'_>, DataError> {
        let n = self.width();
        let range = i * n..(i + 1) * n;
        Ok(match &self.cells {
            Cells::Pixels { bytes, unit } => Row::Pixels(Cow::Borrowed(&bytes[range]), *unit),
            Cells::Floats(all) => Row::Floats(&all[range]),
            Cells::Whole(all) => Row::Whole(&all[range]),
            Cells::Photos(files) => {
                Row::Pixels(Cow::Owned(folder::decoded(&files[i], &self.dims)?), folder::UNIT)
            }
        })
    }
}

/// What is to be learned of each example.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Labels {
    Classes(Vec<i64>),
    /// So many numbers for each.
    Values(Vec<f32>, usize),
}

impl Labels {
    pub(super) fn len(&self) -> usize {
        match self {
            Labels::Classes(all) => all.len(),
            Labels::Values(all, width) => all.len() / (*width).max(1),
        }
    }
}

/// All examples of one file or folder. Every column and the labels have as many rows.
pub(super) struct Store {
    /// What it was read from.
    pub(super) source: String,
    pub(super) columns: Vec<Column>,
    pub(super) labels: Labels,
    /// Names of classes; empty where labels are numbers.
    pub(super) names: Arc<[String]>,
    /// The word of each id; empty where there are no texts.
    pub(super) vocabulary: Arc<[String]>,
}

impl Store {
    pub(super) fn len(&self) -> usize {
        self.labels.len()
    }
}

/// What a source sets apart.
pub(super) struct Parts {
    pub(super) train: Store,
    pub(super) validation: Option<Store>,
    pub(super) test: Option<Store>,
}

impl Parts {
    /// Takes labels for zeros, as examples without labels have them.
    pub(super) fn forget(&mut self) {
        let others = self.validation.iter_mut().chain(&mut self.test);
        for store in others.chain([&mut self.train]) {
            store.labels = Labels::Values(vec![0.0; store.len()], 1);
            store.names = vec![].into();
        }
    }
}

/// An input that examples have: type and shape of one example, without the axis of the batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// The element type in batches.
    pub dtype: DType,
    /// The shape of one example.
    pub dims: Vec<usize>,
}

/// An input that a model takes, without the axis of the batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// The element type.
    pub dtype: DType,
    /// The shape of one example; `None` for axes of any size.
    pub dims: Vec<Option<usize>>,
}

/// Examples with labels. Cheap to clone.
#[derive(Clone)]
pub struct Data {
    pub(super) store: Arc<Store>,
    /// Which examples of the store.
    pub(super) rows: Arc<[u32]>,
    pub(super) inputs: Vec<Input>,
    /// The column of each input, and whether its channels go to the end.
    pub(super) columns: Vec<(usize, bool)>,
}

impl Data {
    pub(super) fn whole(store: Arc<Store>) -> Data {
        let rows = (0..store.len() as u32).collect();
        Data::some(store, rows)
    }

    pub(super) fn some(store: Arc<Store>, rows: Vec<u32>) -> Data {
        let input = |c: &Column| Input {
            name: c.name.clone(),
            dtype: c.dtype(),
            dims: c.dims.clone(),
        };
        Data {
            inputs: store.columns.iter().map(input).collect(),
            columns: (0..store.columns.len()).map(|c| (c, false)).collect(),
            rows: rows.into(),
            store,
        }
    }

    /// The number of examples.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no example.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// At most `n` of the examples, spread evenly over all.
    pub fn some_of(&self, n: usize) -> Data {
        let (all, n) = (self.rows.len(), n.min(self.rows.len()));
        Data {
            rows: (0..n).map(|i| self.rows[i * all / n]).collect(),
            ..self.clone()
        }
    }

    /// What tells these examples from others: which they are of the source, and their labels.
    pub fn fingerprint(&self) -> u64 {
        let rows = self.rows.iter().map(|row| u64::from(*row));
        let rows = rows.fold(SEED, |h, row| fingerprint(h, &row.to_le_bytes()));
        match &self.store.labels {
            Labels::Classes(all) => all.iter().fold(rows, |h, x| fingerprint(h, &x.to_le_bytes())),
            Labels::Values(all, _) => all.iter().fold(rows, |h, x| fingerprint(h, &x.to_le_bytes())),
        }
    }

    /// What batches hold of each example.
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// Whether the first input is of images of bytes, whose elements batches have from 0 to 1.
    pub fn is_pixels(&self) -> bool {
        let column = &self.store.columns[0];
        column.is_pixels() && column.image().is_some()
    }

    /// How many classes there are; `None` where labels are numbers.
    pub fn classes(&self) -> Option<usize> {
        matches!(self.store.labels, Labels::Classes(_)).then(|| self.store.names.len())
    }

    /// The name of each class; empty where labels are numbers.
    pub fn names(&self) -> &[String] {
        &self.store.names
    }

    /// The word of each id; empty where there are no texts. Id 0 is padding, and 1 stands for all other words.
    pub fn vocabulary(&self) -> &[String] {
        &self.store.vocabulary
    }

    /// What the examples were read from.
    pub fn source(&self) -> &str {
        &self.store.source
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} examples of {}", self.len(), self.source())
    }
}
