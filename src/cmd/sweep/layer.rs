//! One layer by its shape: `conv:64x64x3x3@56x56`, `matmul:128x768x3072`.

use anyhow::{Context, Result, bail, ensure};
use secateur::Model;
use secateur::engine::ir::{Attr, Dim};
use secateur::models::{Draft, Random};

/// How a layer is spelled.
pub(super) const SPELLING: &str =
    "conv:OUTPUTSxINPUTSxHxW[,stride=N][,pad=N][,group=N]@HEIGHTxWIDTH or matmul:ROWSxINPUTSxOUTPUTS";

/// A layer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Layer {
    /// A convolution whose weight is [outputs, inputs of a group, height, width].
    Conv {
        weight: [usize; 4],
        stride: usize,
        /// Zeros on each side; half the window where nothing is said.
        pad: Option<usize>,
        group: usize,
        image: [usize; 2],
    },
    /// `[batch, rows, inputs]` times `[inputs, outputs]`.
    MatMul([usize; 3]),
}

impl Layer {
    /// What `text` spells.
    ///
    /// # Errors
    ///
    /// If it is no layer.
    pub(super) fn parse(text: &str) -> Result<Layer, String> {
        let layer = match text.split_once(':') {
            Some(("conv", rest)) => conv(rest),
            Some(("matmul", rest)) => sizes(rest).map(Layer::MatMul),
            _ => Err(anyhow::anyhow!("{text:?} is no layer")),
        };
        layer.map_err(|e| format!("{e}; expected {SPELLING}"))
    }

    /// A model of this layer alone, its weight drawn as He et al. 2015 do.
    ///
    /// # Errors
    ///
    /// If its sizes do not fit together.
    pub(super) fn model(&self, seed: u64) -> Result<Model> {
        let (input, op, attrs) = match self {
            Layer::Conv {
                weight, group, image, ..
            } => {
                let shape = [weight[1] * group, image[0], image[1]];
                (shape.to_vec(), "Conv", self.attrs())
            }
            Layer::MatMul([rows, inputs, _]) => (vec![*rows, *inputs], "MatMul", vec![]),
        };
        let (dims, fan_in): (Vec<usize>, usize) = match self {
            Layer::Conv { weight, .. } => (weight.to_vec(), weight[1..].iter().product()),
            Layer::MatMul([_, inputs, outputs]) => (vec![*inputs, *outputs], *inputs),
        };
        let mut d = Draft::new("layer");
        let x = d.input(
            "x",
            [Dim::symbol("batch")]
                .into_iter()
                .chain(input.into_iter().map(Dim::from)),
        );
        let spread = (2.0 / fan_in as f64).sqrt();
        let w = d.weight("weight", Random::new(seed).tensor(&dims, spread));
        let model = d.finish(|b| vec![("y".into(), b.at(x).with(op, &[b.at(w)], attrs))]);
        model.context("the layer's sizes do not fit together")
    }

    fn attrs(&self) -> Vec<Attr> {
        let Layer::Conv {
            weight,
            stride,
            pad,
            group,
            ..
        } = self
        else {
            return vec![];
        };
        let [h, w] = [weight[2], weight[3]];
        let pads = [h, w].map(|size| pad.unwrap_or(size / 2) as i64);
        vec![
            Attr::new("group", *group as i64),
            Attr::new("kernel_shape", vec![h as i64, w as i64]),
            Attr::new("pads", [pads, pads].concat()),
            Attr::new("strides", vec![*stride as i64; 2]),
        ]
    }
}

fn conv(text: &str) -> Result<Layer> {
    let (head, image) = text.rsplit_once('@').context("the image's size is missing")?;
    let mut parts = head.split(',');
    let weight = sizes(parts.next().unwrap_or_default())?;
    let (mut stride, mut pad, mut group) = (1, None, 1);
    for part in parts {
        match part.split_once('=') {
            Some(("stride", n)) => stride = size(n)?,
            Some(("pad", n)) => pad = Some(n.parse().with_context(|| format!("{n:?} is no number"))?),
            Some(("group", n)) => group = size(n)?,
            _ => bail!("{part:?} is neither stride=N, pad=N nor group=N"),
        }
    }
    let image = sizes(image)?;
    Ok(Layer::Conv {
        weight,
        stride,
        pad,
        group,
        image,
    })
}

fn size(text: &str) -> Result<usize> {
    let n = text.parse().ok().filter(|n| (1..=1 << 24).contains(n));
    n.with_context(|| format!("{text:?} is no size"))
}

fn sizes<const N: usize>(text: &str) -> Result<[usize; N]> {
    let all = text.split('x').map(size).collect::<Result<Vec<_>>>()?;
    let found = all.len();
    ensure!(found == N, "{text:?} has {found} sizes and not {N}");
    Ok(std::array::from_fn(|i| all[i]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use secateur::engine::ir::Type;

    fn types(text: &str) -> String {
        let model = Layer::parse(text).unwrap().model(0).unwrap();
        let g = &model.graph;
        let ty = |p: &secateur::engine::ir::Port| p.ty.as_ref().map_or(Type::Unknown, |d| d.ty.clone());
        let weight = g[g.find("weight").unwrap()].konst.as_ref().unwrap();
        format!(
            "{} {:?} {}",
            ty(&g.inputs[0]),
            weight.tensor.dims(),
            ty(&g.outputs[0])
        )
    }

    #[test]
    fn layers_have_the_shapes_they_say() {
        let cases = [
            (
                "conv:64x32x3x3@56x56",
                "[batch, 32, 56, 56] [64, 32, 3, 3] float[batch, 64, 56, 56]",
            ),
            (
                "conv:96x3x11x11,stride=4,pad=2@224x224",
                "[batch, 3, 224, 224] [96, 3, 11, 11] float[batch, 96, 55, 55]",
            ),
            (
                "conv:8x1x3x3,group=8,pad=0@9x7",
                "[batch, 8, 9, 7] [8, 1, 3, 3] float[batch, 8, 7, 5]",
            ),
            (
                "matmul:128x768x3072",
                "[batch, 128, 768] [768, 3072] float[batch, 128, 3072]",
            ),
        ];
        for (text, expected) in cases {
            assert!(types(text).ends_with(expected), "{text}: {}", types(text));
        }
    }

    #[test]
    fn what_is_no_layer_is_refused() {
        let wrong = [
            "conv",
            "conv:1x2x3x4",
            "conv:1x2x3@4x5",
            "conv:1x2x3x4,dilate=2@5x5",
            "gemm:1x2x3",
        ];
        for text in wrong
            .into_iter()
            .chain(["matmul:1x2", "matmul:0x1x2", "conv:1x2x3x4,pad=x@5x5"])
        {
            assert!(Layer::parse(text).unwrap_err().contains("matmul:ROWSx"), "{text}");
        }
        let odd = Layer::parse("conv:3x1x1x1,group=2@5x5").unwrap();
        assert!(odd.model(0).is_err());
    }
}
