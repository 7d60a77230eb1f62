//! Examples that come as two arrays.

use std::path::Path;

use secateur_engine::Tensor;
use secateur_engine::ir::{Bytes, DType, Data};

use super::options::{Options, Task};
use super::split::{self, Splits};
use super::store::{Cells, Column, Labels, Parts, Store};
use super::{DataError, classes};

/// Inputs and labels of all examples, along the first axes.
pub(super) struct Pair {
    pub(super) x: Tensor,
    pub(super) y: Tensor,
}

/// The examples of `pair`, read from `path`, where the labels stand at `place`.
pub(super) fn store(pair: Pair, path: &Path, place: &str, options: &Options) -> Result<Store, DataError> {
    let wrong = |e: DataError| e.in_file(path);
    let n = pair.x.dims().first().copied().unwrap_or(0);
    if pair.x.is_empty() {
        let what = format!(
            "expected examples along the first axis, found the shape {:?}",
            pair.x.dims()
        );
        return Err(wrong(DataError::missing(what)));
    }
    if pair.y.dims().first() != Some(&n) || pair.y.is_empty() {
        let what = format!(
            "expected labels of {n} examples, found the shape {:?}",
            pair.y.dims()
        );
        return Err(wrong(DataError::label(what).at(place)));
    }
    let labels = labels(&pair.y, options.task).map_err(|e| wrong(e.at(place)))?;
    Ok(Store {
        source: path.display().to_string(),
        columns: vec![column(&pair.x).map_err(wrong)?],
        names: vec![].into(),
        labels,
        vocabulary: vec![].into(),
    })
}

/// The input of all examples. Bytes are pixels, of which 255 is worth 1. Of images whose last axis can only be the
/// channels, it becomes the first.
fn column(x: &Tensor) -> Result<Column, DataError> {
    let turned;
    let mut dims = x.dims()[1..].to_vec();
    let x = match dims[..] {
        [a, b, c @ (1 | 3 | 4)] if !matches!(a, 1 | 3 | 4) && !is_whole(x.dtype()) => {
            dims = vec![c, a, b];
            turned = channels_first(x, a * b, c)?;
            &turned
        }
        _ => x,
    };
    match dims[..] {
        [] => dims = vec![1],
        [h, w] if x.dtype() == DType::U8 => dims = vec![1, h, w],
        _ => {}
    }
    Ok(Column {
        name: "x".into(),
        dims,
        cells: cells(x)?,
    })
}

/// Examples without labels, of arrays by the names of the inputs that they are for, in splits as `options` say. `source` is what
/// they come from, in words.
///
/// # Errors
///
/// If the arrays do not have one row for each example, or there are too few examples for the splits.
pub fn arrays(source: &str, inputs: &[(String, Tensor)], options: &Options) -> Result<Splits, DataError> {
    let rows = |x: &Tensor| x.dims().first().copied().unwrap_or(0);
    let n = inputs.first().map_or(0, |(_, x)| rows(x));
    if let Some((name, x)) = inputs
        .iter()
        .find(|(_, x)| rows(x) != n || x.is_empty() || x.dims().is_empty())
    {
        let what = format!(
            "expected {n} examples along the first axis, found the shape {:?}",
            x.dims()
        );
        return Err(DataError::shape(what).at(format!("input {name:?}")).of(source));
    }
    let column = |(name, x): &(String, Tensor)| {
        Ok(Column {
            name: name.clone(),
            dims: x.dims()[1..].to_vec(),
            cells: cells(x)?,
        })
    };
    let columns: Result<Vec<Column>, DataError> = inputs.iter().map(column).collect();
    let train = Store {
        source: source.to_owned(),
        columns: columns.map_err(|e| e.of(source))?,
        labels: Labels::Values(vec![0.0; n], 1),
        names: vec![].into(),
        vocabulary: vec![].into(),
    };
    let parts = Parts {
        train,
        validation: None,
        test: None,
    };
    split::splits(parts, options).map_err(|e| e.of(source))
}

fn is_whole(dtype: DType) -> bool {
    dtype.is_int() && dtype != DType::U8
}

fn cells(x: &Tensor) -> Result<Cells, DataError> {
    let none = || DataError::shape(format!("elements of type {} are no input", x.dtype()));
    Ok(match (x.dtype(), x.data()) {
        (DType::U8, Data::Bytes(bytes)) => Cells::Pixels {
            bytes: bytes.clone(),
            unit: 255.0,
        },
        (d, _) if is_whole(d) => Cells::Whole(x.ints().ok_or_else(none)?),
        _ => Cells::Floats(floats(x).ok_or_else(none)?),
    })
}

fn floats(x: &Tensor) -> Option<Vec<f32>> {
    match x.elements::<f32>() {
        Some(all) => Some(all.into_owned()),
        None => Some(x.floats()?.iter().map(|&x| x as f32).collect()),
    }
}

/// `[n, pixels, channels]` as `[n, channels, pixels]`.
fn channels_first(x: &Tensor, pixels: usize, channels: usize) -> Result<Tensor, DataError> {
    let bytes = x.bytes();
    let width = bytes.len() / x.len();
    let mut out = Vec::with_capacity(bytes.len());
    for image in bytes.chunks_exact(pixels * channels * width) {
        for c in 0..channels {
            for pixel in image.chunks_exact(channels * width) {
                out.extend_from_slice(&pixel[c * width..][..width]);
            }
        }
    }
    let data = Data::Bytes(Bytes::new(out));
    let turned = Tensor::new(
        x.dtype(),
        vec![x.len() / (channels * pixels), channels, pixels],
        data,
    );
    turned.map_err(|e| DataError::shape(e.to_string()))
}

fn labels(y: &Tensor, task: Task) -> Result<Labels, DataError> {
    let n = y.dims()[0];
    let width = y.len() / n;
    let none = || DataError::label(format!("elements of type {} are no labels", y.dtype()));
    if task != Task::Classes {
        return Ok(Labels::Values(floats(y).ok_or_else(none)?, width));
    }
    if width != 1 {
        let what = format!(
            "expected one class for each example, found the shape {:?}",
            y.dims()
        );
        return Err(DataError::label(what));
    }
    let whole = |(i, x): (usize, f64)| classes::number(x).map_err(|e| e.at(format!("example {i}")));
    let all = y.floats().ok_or_else(none)?;
    Ok(Labels::Classes(
        all.into_iter().enumerate().map(whole).collect::<Result<_, _>>()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(x: Tensor, y: Tensor, task: Task) -> Result<Store, DataError> {
        let options = Options {
            task,
            ..Options::default()
        };
        store(Pair { x, y }, Path::new("f.npz"), "array \"y\"", &options)
    }

    #[test]
    fn images_have_their_channels_first() {
        let x = Tensor::of(&[1, 2, 2, 3], (0..12u8).collect());
        let store = of(x, Tensor::of(&[1], vec![0i64]), Task::Classes).unwrap();
        assert_eq!(store.columns[0].dims, [3, 2, 2]);
        let Cells::Pixels { bytes, .. } = &store.columns[0].cells else {
            unreachable!()
        };
        assert_eq!(&**bytes, [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]);
        let grey = of(
            Tensor::of(&[2, 4, 4], vec![0u8; 32]),
            Tensor::of(&[2], vec![1u8, 0]),
            Task::Classes,
        );
        assert_eq!(grey.unwrap().columns[0].dims, [1, 4, 4]);
        let floats = of(
            Tensor::of(&[1, 4, 3], vec![0f32; 12]),
            Tensor::of(&[1, 1], vec![2f64]),
            Task::Classes,
        );
        assert_eq!(floats.unwrap().columns[0].dims, [4, 3]);
    }

    #[test]
    fn labels_are_classes_or_numbers() {
        let x = || Tensor::of(&[2, 1], vec![0f32; 2]);
        let values = of(x(), Tensor::of(&[2, 3], vec![0.5f32; 6]), Task::Values).unwrap();
        assert_eq!(values.labels, Labels::Values(vec![0.5; 6], 3));
        for (y, said) in [
            (
                Tensor::of(&[2], vec![0f32, 0.5]),
                "f.npz: example 1: expected the number of a class from 0 on, found 0.5",
            ),
            (Tensor::of(&[2], vec![-1i64, 0]), "example 0"),
            (Tensor::of(&[2], vec![0, i64::MAX]), "example 1"),
            (
                Tensor::of(&[2, 3], vec![0i64; 6]),
                "expected one class for each example, found the shape [2, 3]",
            ),
            (
                Tensor::of(&[3], vec![0i64; 3]),
                "expected labels of 2 examples, found the shape [3]",
            ),
        ] {
            let e = of(x(), y, Task::Classes).err().unwrap().to_string();
            assert!(e.contains(said), "{e}");
        }
        assert!(
            of(
                Tensor::of::<u8>(&[0, 4], vec![]),
                Tensor::of::<u8>(&[0], vec![]),
                Task::Classes
            )
            .is_err()
        );
    }
}
