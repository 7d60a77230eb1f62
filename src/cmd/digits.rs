//! The test images of the embedded data set `digits`.

use anyhow::{Context, Result};
use secateur::Tensor;
use secateur::train::data::{self, Options};

/// Images with their labels.
pub(crate) struct Digits {
    /// Pixels from 0 (paper) to 1 (ink): f32[images, 1, 8, 8].
    pub(crate) images: Tensor,
    /// The digit on each image.
    pub(crate) labels: Vec<usize>,
}

impl Digits {
    /// The 360 images that nothing was trained on.
    ///
    /// # Errors
    ///
    /// None: they are built in.
    pub(crate) fn test() -> Result<Digits> {
        let splits = data::open("digits", &Options::default())?;
        let test = splits.test.context("digits has no test images")?;
        let batch = test.batch(&(0..test.len()).collect::<Vec<_>>())?;
        let labels = batch.labels.ints().context("labels are no classes")?;
        let images = batch.inputs.into_iter().next().context("no images")?.1;
        Ok(Digits {
            images,
            labels: labels.into_iter().map(|l| l as usize).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_images_are_what_they_are_said_to_be() {
        let test = Digits::test().unwrap();
        assert_eq!(test.images.dims(), [360, 1, 8, 8]);
        let most = test.images.floats().unwrap().into_iter().fold(0.0, f64::max);
        assert_eq!(most, 1.0);
        let count = |digit| test.labels.iter().filter(|&&l| l == digit).count();
        assert!((0..10).all(|d| (33..=37).contains(&count(d))));
    }
}
