//! Photos, decoded and resized.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use image::{ImageReader, Limits};

use super::DataError;
use super::error::Wrong;

/// A decoded photo: pixels row by row, some bytes each.
#[derive(Clone, Debug, PartialEq)]
pub struct Photo {
    width: usize,
    height: usize,
    channels: usize,
    pixels: Vec<u8>,
}

/// Photos with more pixels along a side are refused.
pub const MAX_SIDE: usize = 1 << 14;

impl Photo {
    /// The photo of these pixels: `pixels` has `height` rows of `width` times `channels` bytes. `None` if it has not, or
    /// there are no pixels, or others than 1 to 4 channels (grey, grey and opacity, colour, colour and opacity).
    pub fn new(width: usize, height: usize, channels: usize, pixels: Vec<u8>) -> Option<Photo> {
        let sides = 1..=MAX_SIDE;
        let fits = sides.contains(&width) && sides.contains(&height) && (1..=4).contains(&channels);
        (fits && pixels.len() == width * height * channels).then_some(Photo {
            width,
            height,
            channels,
            pixels,
        })
    }

    /// Reads an image file: BMP, JPEG, PNG, PNM, TIFF or WebP, whatever its name says.
    ///
    /// # Errors
    ///
    /// If it is none of these, or broken, or has more than [`MAX_SIDE`] pixels along a side.
    pub fn read(path: &Path) -> Result<Photo, DataError> {
        let bytes = fs::read(path).map_err(|e| DataError::from(e).in_file(path))?;
        decoded(&bytes).map_err(|e| e.in_file(path))
    }

    /// Pixels across.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Pixels down.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Whether it is grey: all colours of a pixel are one.
    pub fn is_grey(&self) -> bool {
        self.channels <= 2
    }

    /// Channel `c` of `channels` at a pixel: grey is repeated, colour is weighed to grey (ITU-R BT.601).
    fn sample(&self, pixel: usize, c: usize, channels: usize) -> f64 {
        let p = &self.pixels[pixel * self.channels..][..self.channels];
        let at = |i: usize| f64::from(p[i]);
        match (self.channels, channels) {
            (3 | 4, 1) => 0.299 * at(0) + 0.587 * at(1) + 0.114 * at(2),
            (1 | 2, 1..=3) => at(0),
            (2, 4) if c == 3 => at(1),
            (_, _) if c < self.channels => at(c),
            _ => 255.0,
        }
    }

    /// Channel `c` of `channels` in the size `[height, width]`, row by row from 0 to 255: bilinear, weighing all pixels
    /// covered where it shrinks. Grey is repeated, colour is weighed to grey, opacity only counts where there are 4.
    pub fn plane(&self, c: usize, channels: usize, size: [usize; 2]) -> Vec<f64> {
        let [height, width] = size;
        if size == [self.height, self.width] {
            return (0..height * width).map(|i| self.sample(i, c, channels)).collect();
        }
        let (across, down) = (weights(self.width, width), weights(self.height, height));
        let sample = |y: usize, x: usize| self.sample(y * self.width + x, c, channels);
        let rows: Vec<Vec<f64>> = (0..self.height)
            .map(|y| across.iter().map(|w| w.sum(|x| sample(y, x))).collect())
            .collect();
        let column = |w: &Weights, x: usize| w.sum(|y| rows[y][x]);
        down.iter()
            .flat_map(|w| (0..width).map(move |x| column(w, x)))
            .collect()
    }
}

fn decoded(bytes: &[u8]) -> Result<Photo, DataError> {
    let mut limits = Limits::default();
    let side = MAX_SIDE as u32;
    (limits.max_image_width, limits.max_image_height) = (Some(side), Some(side));
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    reader.limits(limits);
    let image = reader.decode().map_err(|e| DataError::format(e.to_string()))?;
    let (width, height) = (image.width() as usize, image.height() as usize);
    let channels = usize::from(image.color().channel_count());
    let pixels = match channels {
        1 => image.into_luma8().into_raw(),
        2 => image.into_luma_alpha8().into_raw(),
        3 => image.into_rgb8().into_raw(),
        _ => image.into_rgba8().into_raw(),
    };
    let wrong = || format!("expected 1 to {MAX_SIDE} pixels along each side, found {width} × {height}");
    Photo::new(width, height, channels, pixels).or_wrong(wrong)
}

/// Of which pixels a resized one is made.
struct Weights {
    first: usize,
    shares: Vec<f64>,
}

impl Weights {
    fn sum(&self, sample: impl Fn(usize) -> f64) -> f64 {
        self.shares
            .iter()
            .enumerate()
            .map(|(i, share)| share * sample(self.first + i))
            .sum()
    }
}

/// The triangle filter that makes `to` pixels of `from`, as wide as the pixels are apart.
fn weights(from: usize, to: usize) -> Vec<Weights> {
    let ratio = from as f64 / to as f64;
    let reach = ratio.max(1.0);
    let one = |i: usize| {
        let centre = (i as f64 + 0.5) * ratio;
        let first = (centre - reach).floor().max(0.0) as usize;
        let last = ((centre + reach).ceil() as usize).min(from);
        let weight = |x: usize| (1.0 - ((x as f64 + 0.5 - centre) / reach).abs()).max(0.0);
        let shares: Vec<f64> = (first..last).map(weight).collect();
        let sum: f64 = shares.iter().sum();
        Weights {
            first,
            shares: shares.iter().map(|s| s / sum).collect(),
        }
    };
    (0..to).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::file::tests::Folder;

    fn two_by_two() -> Photo {
        Photo::new(2, 2, 3, vec![10, 0, 0, 20, 0, 0, 30, 0, 0, 40, 0, 255]).unwrap()
    }

    #[test]
    fn resizing_keeps_what_is_even_and_averages() {
        assert_eq!(two_by_two().plane(0, 3, [1, 1]), [25.0]);
        assert_eq!(two_by_two().plane(2, 3, [2, 2]), [0.0, 0.0, 0.0, 255.0]);
        let even = Photo::new(2, 2, 3, vec![7; 12]).unwrap();
        assert!(even.plane(0, 1, [5, 9]).iter().all(|x| (x - 7.0).abs() < 1e-5));
        assert!(Photo::new(2, 2, 3, vec![7; 11]).is_none());
    }

    #[test]
    fn no_file_is_believed() {
        let folder = Folder::new();
        let mut good = Cursor::new(vec![]);
        let image = image::RgbImage::from_pixel(3, 2, image::Rgb([9, 9, 9]));
        image.write_to(&mut good, image::ImageFormat::Png).unwrap();
        let good = good.into_inner();
        let read = |bytes: &[u8]| Photo::read(&folder.file("x.png", bytes));
        assert_eq!(read(&good), Ok(Photo::new(3, 2, 3, vec![9; 18]).unwrap()));
        for n in 0..good.len() - 16 {
            assert!(read(&good[..n]).is_err(), "{n}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0xff;
            let _ = read(&bad);
        }
        let mut huge = good[..16].to_vec();
        huge.extend([0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff, 8, 2, 0, 0, 0]);
        huge.extend([0; 64]);
        assert!(read(&huge).is_err());
        assert!(read(&[0xff, 0xd8, 0xff, 0xe0, 0, 16]).is_err());
    }
}
