//! Examples to learn from: where they come from, how they are split, and how batches are made of them.
//!
//! ```
//! use secateur_train::data::{self, Loader, LoaderOptions, Normalize, Options};
//!
//! let splits = data::open("digits", &Options::default())?;
//! let test = splits.test.ok_or("no test examples")?;
//! assert_eq!((test.len(), test.classes()), (360, Some(10)));
//! assert_eq!(test.inputs()[0].dims, [1, 8, 8]);
//!
//! let normalize = Some(Normalize::of(&splits.train)?);
//! let options = LoaderOptions { batch: 32, seed: 1, normalize, ..LoaderOptions::default() };
//! let loader = Loader::new(splits.train, options)?;
//! for batch in loader.epoch(0, 0).take(2) {
//!     let batch = batch?;
//!     assert_eq!(batch.inputs[0].1.dims(), [32, 1, 8, 8]);
//!     assert_eq!(batch.labels.dims(), [32]);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod array;
mod augment;
mod batch;
mod classes;
mod digits;
mod error;
mod file;
mod fit;
mod folder;
mod idx;
mod loader;
mod normalize;
pub mod npy;
pub mod npz;
mod options;
mod photo;
mod records;
mod source;
mod split;
mod store;
mod stream;
mod table;
mod text;

pub use array::arrays;
pub use augment::Augment;
pub use batch::Batch;
pub use error::{DataError, DataErrorKind};
pub use loader::{Epoch, Loader, LoaderOptions, Position};
pub use normalize::Normalize;
pub use options::{Options, Part, Task};
pub use photo::{MAX_SIDE, Photo};
pub use source::{SOURCES, Source, open};
pub use split::Splits;
pub use store::{Data, Input, Wanted};
