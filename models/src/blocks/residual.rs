//! Residual blocks (He et al. 2015 and 2016).

use secateur_engine::expr::Ex;

use super::relu;
use crate::net::{Conv, Net};

/// What a residual block adds to its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResidualKind {
    /// Two 3×3 convolutions, each with BatchNormalization; a rectifier between them and after the sum.
    Standard,
    /// 1×1 to fewer channels, 3×3, 1×1 to four times as many, each with BatchNormalization; rectifiers between them and
    /// after the sum.
    Bottleneck,
    /// Two 3×3 convolutions, BatchNormalization and rectifier before each; nothing after the sum.
    Preactivation,
}

/// The names of the kinds. The first is what ResNets of few channels are made of.
pub(crate) const KINDS: &[&str] = &["standard", "bottleneck", "preactivation"];

impl ResidualKind {
    /// The kind called `name`; [`ResidualKind::Standard`] if none is.
    pub(crate) fn named(name: &str) -> ResidualKind {
        match name {
            "bottleneck" => ResidualKind::Bottleneck,
            "preactivation" => ResidualKind::Preactivation,
            _ => ResidualKind::Standard,
        }
    }

    /// Channels that come out for each channel inside.
    fn expansion(self) -> usize {
        match self {
            ResidualKind::Bottleneck => 4,
            _ => 1,
        }
    }
}

/// A residual block over images.
#[derive(Clone, Copy, Debug)]
pub struct Residual {
    /// What it adds.
    pub kind: ResidualKind,
    /// Channels of the input.
    pub from: usize,
    /// Channels of its 3×3 convolutions.
    pub width: usize,
    /// How far windows move: height and width become so many times smaller.
    pub stride: usize,
    /// Whether convolutions have a bias of their own, which BatchNormalization behind them makes idle.
    pub bias: bool,
    /// The scale of the last BatchNormalization before the sum, at first.
    pub gain: f64,
}

impl Residual {
    /// A block of stride 1 without biases.
    pub const fn new(kind: ResidualKind, from: usize, width: usize) -> Residual {
        Residual {
            kind,
            from,
            width,
            stride: 1,
            bias: false,
            gain: 1.0,
        }
    }

    /// Channels of the output.
    pub fn to(self) -> usize {
        self.width * self.kind.expansion()
    }

    /// The block of `x: [batch, from, height, width]`. Where the output has another shape than the input, a 1×1 convolution,
    /// `NAME.downsample.0`, projects the input.
    pub fn write<'a>(self, n: &Net<'a>, x: Ex<'a>, name: &str) -> Ex<'a> {
        let (from, width, to) = (self.from, self.width, self.to());
        let strided = |from| Conv::new(from, width, 3).stride(self.stride);
        let norm = |x, i, conv, gain| self.norm(n, x, &format!("{name}.conv{i}"), conv, gain);
        let y = match self.kind {
            ResidualKind::Preactivation => return self.preactivated(n, x, name),
            ResidualKind::Standard => {
                let y = relu(norm(x, 1, strided(from), 1.0));
                norm(y, 2, Conv::new(width, to, 3), self.gain)
            }
            ResidualKind::Bottleneck => {
                let y = relu(norm(x, 1, Conv::new(from, width, 1), 1.0));
                let y = relu(norm(y, 2, strided(width), 1.0));
                norm(y, 3, Conv::new(width, to, 1), self.gain)
            }
        };
        relu(
            y + self.shortcut(x, |conv| {
                let x = self.conv(n, x, &format!("{name}.downsample.0"), conv);
                n.batch_norm(x, &format!("{name}.downsample.1"), to, 1.0)
            }),
        )
    }

    fn preactivated<'a>(self, n: &Net<'a>, x: Ex<'a>, name: &str) -> Ex<'a> {
        let active = |x, i, channels, gain| relu(n.batch_norm(x, &format!("{name}.bn{i}"), channels, gain));
        let conv = |x, i, conv| self.conv(n, x, &format!("{name}.conv{i}"), conv);
        let first = active(x, 1, self.from, 1.0);
        let y = conv(first, 1, Conv::new(self.from, self.width, 3).stride(self.stride));
        let y = conv(
            active(y, 2, self.width, self.gain),
            2,
            Conv::new(self.width, self.width, 3),
        );
        y + self.shortcut(x, |conv| {
            self.conv(n, first, &format!("{name}.downsample.0"), conv)
        })
    }

    /// `x`, or what `project` makes of it where the shapes differ.
    fn shortcut<'a>(self, x: Ex<'a>, project: impl FnOnce(Conv) -> Ex<'a>) -> Ex<'a> {
        match (self.from, self.stride) == (self.to(), 1) {
            true => x,
            false => project(Conv::new(self.from, self.to(), 1).stride(self.stride)),
        }
    }

    fn conv<'a>(self, n: &Net<'a>, x: Ex<'a>, name: &str, conv: Conv) -> Ex<'a> {
        match self.bias {
            true => n.conv_bias(x, name, conv),
            false => n.conv(x, name, conv),
        }
    }

    /// A convolution `….convI` and the BatchNormalization `….bnI`.
    fn norm<'a>(self, n: &Net<'a>, x: Ex<'a>, name: &str, conv: Conv, gain: f64) -> Ex<'a> {
        let y = self.conv(n, x, name, conv);
        n.batch_norm(y, &name.replace("conv", "bn"), conv.to, gain)
    }
}

/// Stages of blocks like `like`, for each how many there are and their width; the first block of all stages but the first
/// has stride 2. What comes out, and its channels.
pub(crate) fn stages<'a>(
    n: &Net<'a>,
    x: Ex<'a>,
    like: Residual,
    sizes: impl IntoIterator<Item = (usize, usize)>,
) -> (Ex<'a>, usize) {
    let (mut x, mut from) = (x, like.from);
    for (stage, (blocks, width)) in sizes.into_iter().enumerate() {
        for i in 0..blocks {
            let stride = if stage > 0 && i == 0 { 2 } else { 1 };
            let block = Residual {
                from,
                width,
                stride,
                ..like
            };
            x = block.write(n, x, &format!("layer{}.{i}", stage + 1));
            from = block.to();
        }
    }
    match like.kind {
        ResidualKind::Preactivation => (relu(n.batch_norm(x, "norm", from, 1.0)), from),
        _ => (x, from),
    }
}
