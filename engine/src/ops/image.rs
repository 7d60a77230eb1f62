//! `ImageDecoder`: pixels of an image file.

use image::DynamicImage;

use super::pick::given;
use super::shape::{arity, ranked};
use super::{Case, Fact, NodeRef, Op, OpError, OpName, onnx};
use crate::ir::{DType, Dim, Tensor};

/// The pixels `[height, width, channels]` of a file in BMP, JPEG, PNG, PNM, TIFF or WebP; none where it cannot be decoded.
pub struct ImageDecoder;

/// Which channels there are, in which order.
#[derive(Clone, Copy, PartialEq)]
enum Format {
    Rgb,
    Bgr,
    Grey,
}

impl Format {
    fn of(n: &NodeRef) -> Result<Format, OpError> {
        match n.str_or("pixel_format", "RGB")? {
            "RGB" => Ok(Format::Rgb),
            "BGR" => Ok(Format::Bgr),
            "Grayscale" => Ok(Format::Grey),
            other => Err(OpError::new(format!("attribute \"pixel_format\" is {other:?}"))),
        }
    }

    fn channels(self) -> usize {
        if self == Format::Grey { 1 } else { 3 }
    }

    fn pixels(self, image: DynamicImage) -> Vec<u8> {
        let luma = matches!(image, DynamicImage::ImageLuma8(_) | DynamicImage::ImageLuma16(_));
        if self == Format::Grey && luma {
            return image.into_luma8().into_raw();
        }
        let mut rgb = image.into_rgb8().into_raw();
        match self {
            Format::Rgb => {}
            Format::Bgr => rgb.as_chunks_mut::<3>().0.iter_mut().for_each(|p| p.reverse()),
            Format::Grey => {
                // The weights of ITU-R 601-2, in 1/65536.
                let grey = |&[r, g, b]: &[u8; 3]| {
                    let sum = 19595 * u32::from(r) + 38470 * u32::from(g) + 7471 * u32::from(b);
                    ((sum + 0x8000) >> 16) as u8
                };
                rgb = rgb.as_chunks::<3>().0.iter().map(grey).collect();
            }
        }
        rgb
    }
}

impl Op for ImageDecoder {
    fn name(&self) -> OpName {
        onnx("ImageDecoder")
    }

    fn since(&self) -> &'static [u16] {
        &[20]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 1)?;
        ranked(n, 0, 1)?;
        if let Some(d) = n.dtype(0).filter(|d| *d != DType::U8) {
            return Err(OpError::new(format!("a file of {d}; expected bytes")));
        }
        let channels = Dim::from(Format::of(n)?.channels());
        let shape = vec![Dim::Unknown, Dim::Unknown, channels];
        Ok(vec![Fact::tensor(Some(DType::U8), Some(shape))])
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let format = Format::of(n)?;
        let y = match image::load_from_memory(given(x, 0)?.bytes()) {
            Ok(image) => {
                let dims = [image.height() as usize, image.width() as usize, format.channels()];
                Tensor::of(&dims, format.pixels(image))
            }
            Err(_) => Tensor::of::<u8>(&[0, 0, format.channels()], vec![]),
        };
        Ok(vec![y])
    }

    fn cases(&self) -> Vec<Case> {
        let file = || {
            let mut bytes = b"P6 2 1 255\n".to_vec();
            bytes.extend([250, 0, 7, 1, 2, 3]);
            Tensor::of(&[bytes.len()], bytes)
        };
        vec![
            Case::new("colours", [file()]),
            Case::new("colours backwards", [file()]).attr("pixel_format", "BGR"),
            Case::new("grey", [file()]).attr("pixel_format", "Grayscale"),
            Case::new("no image", [Tensor::of(&[3], vec![1u8, 2, 3])]),
        ]
    }
}
