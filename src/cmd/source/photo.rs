//! Photos as inputs.

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use secateur::Tensor;
use secateur::compress::recipe::Photos;
use secateur::engine::ir::DType;
use secateur::train::data::{Data, MAX_SIDE, Normalize, Photo};

/// Where the channels of an image stand.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Layout {
    /// [batch, channels, height, width]
    Nchw,
    /// [batch, height, width, channels]
    Nhwc,
}

/// How the pixels of photos become numbers: (pixel × scale − mean) ÷ std, the pixels being 0 to 255.
#[derive(clap::Args, Clone, Debug, PartialEq)]
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

impl PhotoFlags {
    /// As recipes have it; none where all is as usual.
    pub(crate) fn said(&self) -> Option<Photos> {
        let usual = PhotoFlags::default();
        (*self != usual).then(|| Photos {
            mean: self.mean.clone(),
            std: self.std.clone(),
            scale: self.scale,
            layout: self.layout.map(|l| l.name().to_owned()),
        })
    }

    /// What a recipe says.
    pub(crate) fn of(photos: &Photos) -> PhotoFlags {
        let usual = PhotoFlags::default();
        let or = |said: &[f64], usual| if said.is_empty() { usual } else { said.to_vec() };
        PhotoFlags {
            mean: or(&photos.mean, usual.mean),
            std: or(&photos.std, usual.std),
            scale: photos.scale,
            layout: photos
                .layout
                .as_deref()
                .and_then(|l| Layout::from_str(l, true).ok()),
        }
    }

    /// The same for examples whose pixels are from 0 to 1 already; none where nothing is to be done, or `data` are no pixels.
    pub(crate) fn normalize(&self, data: &Data) -> Option<Normalize> {
        let one = 255.0 * self.scale.unwrap_or(1.0 / 255.0);
        let n = self.mean.len().max(self.std.len());
        let all = |xs: &[f64]| -> Vec<f32> {
            let each = xs.iter().map(|x| (x / one) as f32);
            let n = if xs.len() == 1 { n } else { xs.len() };
            each.cycle().take(n).collect()
        };
        let usual = Normalize {
            mean: vec![0.0],
            std: vec![1.0],
        };
        let found = Normalize {
            mean: all(&self.mean),
            std: all(&self.std),
        };
        (data.is_pixels() && found != usual).then_some(found)
    }
}

impl Layout {
    fn name(self) -> &'static str {
        match self {
            Layout::Nchw => "nchw",
            Layout::Nhwc => "nhwc",
        }
    }
}

/// `photo` as a tensor of `dims`, which have three axes or four.
///
/// # Errors
///
/// If `dims` are not those of an image, or `flags` do not fit them.
pub(crate) fn tensor(photo: &Photo, dtype: DType, dims: &[usize], flags: &PhotoFlags) -> Result<Tensor> {
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
            let plane = photo.plane(c, channels, [height, width]);
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
        Photo::new(2, 2, 3, vec![10, 0, 0, 20, 0, 0, 30, 0, 0, 40, 0, 255]).unwrap()
    }

    #[test]
    fn what_recipes_say_comes_back() {
        assert_eq!(PhotoFlags::default().said(), None);
        let all = PhotoFlags {
            mean: vec![0.1, 0.2, 0.3],
            std: vec![0.5],
            scale: None,
            layout: Some(Layout::Nhwc),
        };
        assert_eq!(PhotoFlags::of(&all.said().unwrap()), all);
        assert_eq!(PhotoFlags::of(&Photos::default()), PhotoFlags::default());
    }

    #[test]
    fn examples_become_the_numbers_that_photos_do() {
        let digits = secateur::train::data::open("digits", &Default::default())
            .unwrap()
            .train;
        assert_eq!(PhotoFlags::default().normalize(&digits), None);
        let all = PhotoFlags {
            mean: vec![51.0, 102.0],
            std: vec![2.0],
            ..flags()
        };
        let found = all.normalize(&digits).unwrap();
        // (255 p − 51) ÷ 2 is (p − 0.2) ÷ (2 ÷ 255).
        assert_eq!(found.mean, [0.2, 0.4]);
        assert_eq!(found.std, [(2.0 / 255.0) as f32; 2]);
    }

    #[test]
    fn channels_go_where_the_shape_has_them() {
        let nchw = tensor(&two_by_two(), DType::F32, &[1, 3, 2, 2], &flags()).unwrap();
        assert_eq!(nchw.floats().unwrap()[..4], [10.0, 20.0, 30.0, 40.0]);
        assert_eq!(nchw.floats().unwrap()[8..], [0.0, 0.0, 0.0, 255.0]);
        let nhwc = tensor(&two_by_two(), DType::U8, &[1, 2, 2, 3], &flags()).unwrap();
        assert_eq!(nhwc.bytes(), [10, 0, 0, 20, 0, 0, 30, 0, 0, 40, 0, 255]);
        assert!(tensor(&two_by_two(), DType::F32, &[1, 7, 2, 2], &flags()).is_err());
    }
}
