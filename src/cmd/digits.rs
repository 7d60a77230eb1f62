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
    /// None: they are embedded.
    pub(crate) fn test() -> Result<Digits> {
        let test = data::open("digits", &Options::default())?.test;
        let test = test.context("no test images")?;
        let batch = test.batch(&(0..test.len()).collect::<Vec<_>>())?;
        let labels = batch.labels.ints().unwrap_or_default();
        let images = batch.inputs.into_iter().next().context("no images")?.1;
        Ok(Digits {
            images,
            labels: labels.into_iter().map(|l| l as usize).collect(),
        })
    }
}

impl Digits {
    /// The first image, by itself.
    ///
    /// # Errors
    ///
    /// None: it is there.
    pub(crate) fn first(&self) -> Result<Tensor> {
        let pixels = self.images.floats().context("images are of floats")?;
        let size: usize = self.images.dims()[1..].iter().product();
        let dims = [&[1], &self.images.dims()[1..]].concat();
        let image = Tensor::rounded(self.images.dtype(), &dims, &pixels[..size]);
        image.context("images are of floats")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_of_ink_on_paper() {
        let test = Digits::test().unwrap();
        assert_eq!(
            (test.images.dims(), test.labels.len()),
            (&[360, 1, 8, 8][..], 360)
        );
        let most = test.images.floats().unwrap().into_iter().fold(0.0, f64::max);
        assert_eq!(most, 1.0);
    }
}
