//! Photos as inputs.

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use secateur::Tensor;
use secateur::engine::ir::DType;
use secateur::train::data::{MAX_SIDE, Photo};

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
    fn channels_go_where_the_shape_has_them() {
        let nchw = tensor(&two_by_two(), DType::F32, &[1, 3, 2, 2], &flags()).unwrap();
        assert_eq!(nchw.floats().unwrap()[..4], [10.0, 20.0, 30.0, 40.0]);
        assert_eq!(nchw.floats().unwrap()[8..], [0.0, 0.0, 0.0, 255.0]);
        let nhwc = tensor(&two_by_two(), DType::U8, &[1, 2, 2, 3], &flags()).unwrap();
        assert_eq!(nhwc.bytes(), [10, 0, 0, 20, 0, 0, 30, 0, 0, 40, 0, 255]);
        assert!(tensor(&two_by_two(), DType::F32, &[1, 7, 2, 2], &flags()).is_err());
    }
}
