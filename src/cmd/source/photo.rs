//! Photos as inputs.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use secateur::Tensor;
use secateur::engine::ir::DType;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// Where the channels of an image stand.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Layout {
    /// [batch, channels, height, width]
    Nchw,
    /// [batch, height, width, channels]
    Nhwc,
}

/// How the pixels of photos become numbers: (pixel × scale − mean) ÷ std, the pixels being 0 to 255.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct PhotoFlags {
    /// Photos: subtract this after scaling, one number or one a channel
    #[arg(
        long,
        value_name = "X,…",
        value_delimiter = ',',
        default_value = "0",
        allow_hyphen_values = true
    )]
    pub(crate) mean: Vec<f64>,
    /// Photos: divide by this at last, one number or one a channel
    #[arg(long, value_name = "X,…", value_delimiter = ',', default_value = "1")]
    pub(crate) std: Vec<f64>,
    /// Photos: multiply pixels, which are 0 to 255, by this [default: 1/255, and 1 for integer inputs]
    #[arg(long, value_name = "X")]
    pub(crate) scale: Option<f64>,
    /// Photos: the order of the axes [default: from the input's shape]
    #[arg(long, value_enum)]
    pub(crate) layout: Option<Layout>,
}

impl Default for PhotoFlags {
    fn default() -> PhotoFlags {
        PhotoFlags {
            mean: vec![0.0],
            std: vec![1.0],
            scale: None,
            layout: None,
        }
    }
}

/// Pixels, row by row, `channels` bytes each.
pub(crate) struct Photo {
    pub(crate) width: usize,
    pub(crate) height: usize,
    channels: usize,
    pixels: Vec<u8>,
}

/// More pixels than this are refused.
const MAX_SIDE: usize = 1 << 14;

impl Photo {
    /// Reads a PNG or JPEG file.
    ///
    /// # Errors
    ///
    /// If it is neither, or broken.
    pub(crate) fn read(path: &Path) -> Result<Photo> {
        let bytes = fs::read(path)?;
        let photo = if bytes.starts_with(b"\x89PNG") {
            png(bytes)?
        } else {
            jpeg(bytes)?
        };
        ensure!(photo.width > 0 && photo.height > 0, "the photo is empty");
        Ok(photo)
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

    /// Channel `c` of `channels`, resized to `height` × `width`: bilinear, weighing all pixels covered where it shrinks.
    fn plane(&self, c: usize, channels: usize, (height, width): (usize, usize)) -> Vec<f64> {
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

    /// The photo as a tensor of `dims`, which have three axes or four.
    ///
    /// # Errors
    ///
    /// If `dims` are not those of an image, or `flags` do not fit them.
    pub(crate) fn tensor(&self, dtype: DType, dims: &[usize], flags: &PhotoFlags) -> Result<Tensor> {
        let (axes, layout) = axes(dims, flags.layout)?;
        let (channels, height, width) = match layout {
            Layout::Nchw => (axes[0], axes[1], axes[2]),
            Layout::Nhwc => (axes[2], axes[0], axes[1]),
        };
        ensure!(
            height > 0 && width > 0 && height.max(width) <= MAX_SIDE,
            "{height}×{width} is no size of a photo"
        );
        let whole = if dtype.is_int() { 1.0 } else { 1.0 / 255.0 };
        let scale = flags.scale.unwrap_or(whole);
        let planes: Vec<Vec<f64>> = (0..channels)
            .map(|c| {
                let (mean, std) = (of(&flags.mean, c, channels)?, of(&flags.std, c, channels)?);
                let plane = self.plane(c, channels, (height, width));
                Ok(plane.iter().map(|p| (p * scale - mean) / std).collect())
            })
            .collect::<Result<_>>()?;
        let data: Vec<f64> = match layout {
            Layout::Nchw => planes.concat(),
            Layout::Nhwc => (0..height * width)
                .flat_map(|i| planes.iter().map(move |p| p[i]))
                .collect(),
        };
        let data = if dtype.is_int() {
            data.iter().map(|x| x.round()).collect()
        } else {
            data
        };
        Tensor::rounded(dtype, dims, &data).with_context(|| format!("no photo of {dtype}, one at a time"))
    }
}

/// One number for channel `c`: the only one, or its own.
fn of(numbers: &[f64], c: usize, channels: usize) -> Result<f64> {
    match numbers {
        [x] => Ok(*x),
        xs if xs.len() == channels => Ok(xs[c]),
        xs => bail!(
            "expected 1 or {channels} numbers, one a channel, found {}",
            xs.len()
        ),
    }
}

/// The three axes of one image, and their order.
fn axes(dims: &[usize], layout: Option<Layout>) -> Result<([usize; 3], Layout)> {
    let axes = match *dims {
        [1, a, b, c] | [a, b, c] => [a, b, c],
        _ => bail!("expected an input for one image, [1, channels, height, width] or alike, found {dims:?}"),
    };
    let found = match axes {
        [1 | 3 | 4, _, _] => Layout::Nchw,
        [_, _, 1 | 3 | 4] => Layout::Nhwc,
        _ => bail!("no axis of {dims:?} has 1, 3 or 4 channels"),
    };
    let layout = layout.unwrap_or(found);
    let channels = if layout == Layout::Nchw { axes[0] } else { axes[2] };
    ensure!(
        (1..=4).contains(&channels) && channels != 2,
        "{channels} channels are no photo"
    );
    Ok((axes, layout))
}

/// The axes of height and width in `dims` of the given rank, and of the channels.
pub(crate) fn spatial(dims: &[Option<usize>], layout: Option<Layout>) -> Option<[usize; 2]> {
    let first = dims.len().checked_sub(3).filter(|&f| f <= 1)?;
    let nhwc = matches!(dims[first + 2], Some(1 | 3 | 4)) && !matches!(dims[first], Some(1 | 3 | 4));
    match layout.unwrap_or(if nhwc { Layout::Nhwc } else { Layout::Nchw }) {
        Layout::Nchw => Some([first + 1, first + 2]),
        Layout::Nhwc => Some([first, first + 1]),
    }
}

fn png(bytes: Vec<u8>) -> Result<Photo> {
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info()?;
    let mut pixels = vec![0; reader.output_buffer_size().context("the photo is too large")?];
    let frame = reader.next_frame(&mut pixels)?;
    pixels.truncate(frame.buffer_size());
    Ok(Photo {
        width: frame.width as usize,
        height: frame.height as usize,
        channels: frame.color_type.samples(),
        pixels,
    })
}

fn jpeg(bytes: Vec<u8>) -> Result<Photo> {
    let options = DecoderOptions::default().jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(Cursor::new(bytes), options);
    let pixels = decoder.decode().context("neither PNG nor JPEG")?;
    let (width, height) = decoder.dimensions().context("the photo has no size")?;
    Ok(Photo {
        width,
        height,
        channels: 3,
        pixels,
    })
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

    fn flags() -> PhotoFlags {
        PhotoFlags {
            mean: vec![0.0],
            std: vec![1.0],
            scale: Some(1.0),
            layout: None,
        }
    }

    fn two_by_two() -> Photo {
        Photo {
            width: 2,
            height: 2,
            channels: 3,
            pixels: vec![10, 0, 0, 20, 0, 0, 30, 0, 0, 40, 0, 255],
        }
    }

    #[test]
    fn channels_go_where_the_shape_has_them() {
        let nchw = two_by_two().tensor(DType::F32, &[1, 3, 2, 2], &flags()).unwrap();
        assert_eq!(nchw.floats().unwrap()[..4], [10.0, 20.0, 30.0, 40.0]);
        assert_eq!(nchw.floats().unwrap()[8..], [0.0, 0.0, 0.0, 255.0]);
        let nhwc = two_by_two().tensor(DType::U8, &[1, 2, 2, 3], &flags()).unwrap();
        assert_eq!(nhwc.bytes(), two_by_two().pixels);
        assert!(two_by_two().tensor(DType::F32, &[1, 7, 2, 2], &flags()).is_err());
    }

    #[test]
    fn resizing_keeps_what_is_even_and_averages() {
        let one = two_by_two().tensor(DType::F32, &[3, 1, 1], &flags()).unwrap();
        assert_eq!(one.floats().unwrap()[0], 25.0);
        let even = Photo {
            pixels: vec![7; 12],
            ..two_by_two()
        };
        let big = even.tensor(DType::F32, &[1, 1, 5, 9], &flags()).unwrap();
        assert!(big.floats().unwrap().iter().all(|x| (x - 7.0).abs() < 1e-5));
    }
}
