//! The embedded data set `digits`.

use std::path::Path;

use secateur_engine::ir::Bytes;

use super::options::{Options, Task};
use super::store::{Cells, Column, Labels, Parts, Store};
use super::{DataError, classes};

static BYTES: &[u8] = include_bytes!("../../assets/digits.bin");

/// Images in the file.
const COUNT: usize = 1797;
/// Pixels of an image.
const PIXELS: usize = 64;
/// The first of the test images; those before it are for training.
const TEST: usize = 1437;

/// Whether the embedded data set is meant.
pub(super) fn takes(path: &Path) -> bool {
    path == Path::new("digits")
}

/// 1,437 images for training and 360 for testing, of other writers: `[1, 8, 8]`, from 0 (paper) to 1 (ink).
pub(super) fn read(_: &Path, options: &Options) -> Result<Parts, DataError> {
    if options.task == Task::Values {
        return Err(DataError::choice("digits are classes, no numbers"));
    }
    Ok(Parts {
        train: part(0, TEST),
        validation: None,
        test: Some(part(TEST, COUNT)),
    })
}

fn part(from: usize, to: usize) -> Store {
    let (pixels, labels) = BYTES.split_at(COUNT * PIXELS);
    let bytes = Bytes::of(&pixels[from * PIXELS..to * PIXELS]);
    Store {
        source: "digits".into(),
        columns: vec![Column {
            name: "image".into(),
            dims: vec![1, 8, 8],
            cells: Cells::Pixels { bytes, unit: 16.0 },
        }],
        labels: Labels::Classes(labels[from..to].iter().map(|&l| l.into()).collect()),
        names: classes::numbers(10),
        vocabulary: vec![].into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_images_are_what_they_are_said_to_be() {
        assert_eq!(BYTES.len(), COUNT * (PIXELS + 1));
        let Labels::Classes(labels) = part(TEST, COUNT).labels else {
            unreachable!()
        };
        let count = |digit| labels.iter().filter(|&&l| l == digit).count();
        assert_eq!(labels.len(), 360);
        assert!((0..10).all(|d| (33..=37).contains(&count(d))));
    }
}
