//! The embedded data set `digits`.

use secateur::Tensor;

static BYTES: &[u8] = include_bytes!("../../train/assets/digits.bin");

/// Images in the file.
const COUNT: usize = 1797;
/// Pixels of an image.
const PIXELS: usize = 64;
/// The first of the test images; those before it are for training.
const TEST: usize = 1437;

/// Images with their labels.
pub(crate) struct Digits {
    /// Pixels from 0 (paper) to 1 (ink): f32[images, 1, 8, 8].
    pub(crate) images: Tensor,
    /// The digit on each image.
    pub(crate) labels: Vec<usize>,
}

impl Digits {
    /// The 360 images that nothing was trained on.
    pub(crate) fn test() -> Digits {
        let (pixels, labels) = BYTES.split_at(COUNT * PIXELS);
        let images: Vec<f32> = pixels[TEST * PIXELS..]
            .iter()
            .map(|&p| f32::from(p) / 16.0)
            .collect();
        let labels: Vec<usize> = labels[TEST..].iter().map(|&l| l.into()).collect();
        Digits {
            images: Tensor::of(&[labels.len(), 1, 8, 8], images),
            labels,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_images_are_what_they_are_said_to_be() {
        assert_eq!(BYTES.len(), COUNT * (PIXELS + 1));
        let test = Digits::test();
        assert_eq!(test.images.dims(), [360, 1, 8, 8]);
        let most = test.images.floats().unwrap().into_iter().fold(0.0, f64::max);
        assert_eq!(most, 1.0);
        let count = |digit| test.labels.iter().filter(|&&l| l == digit).count();
        assert!((0..10).all(|d| (33..=37).contains(&count(d))));
    }
}
