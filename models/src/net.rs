//! Networks of layers that have weights: each layer adds its initialisers where it is written.

use std::cell::RefCell;

use secateur_engine::Tensor;
use secateur_engine::expr::{Builder, Ex, Sink};
use secateur_engine::ir::{Attr, Dim, ValueId};

use crate::Random;
use crate::blocks::linear;

/// A network that is being written. Weights are drawn in the order in which layers are written.
pub struct Net<'a> {
    builder: &'a Builder<'a>,
    random: RefCell<Random>,
    names: RefCell<Vec<(ValueId, String)>>,
}

/// A convolution over images: what its nodes say, and how many channels it makes.
#[derive(Clone, Copy, Debug)]
pub struct Conv {
    /// Channels of the input.
    pub from: usize,
    /// Channels of the output.
    pub to: usize,
    /// Height and width of the window.
    pub size: usize,
    /// How far the window moves.
    pub stride: usize,
    /// Zeros on each side.
    pub pad: usize,
    /// Groups of channels that do not mix.
    pub groups: usize,
}

impl Conv {
    /// A window of `size` by `size` in steps of 1 that keeps height and width (`size` is odd), all channels mixed.
    pub const fn new(from: usize, to: usize, size: usize) -> Conv {
        Conv {
            from,
            to,
            size,
            stride: 1,
            pad: size / 2,
            groups: 1,
        }
    }

    /// In steps of `stride`.
    pub const fn stride(self, stride: usize) -> Conv {
        Conv { stride, ..self }
    }

    /// With `pad` zeros on each side.
    pub const fn pad(self, pad: usize) -> Conv {
        Conv { pad, ..self }
    }

    /// With each channel by itself.
    pub const fn depthwise(self) -> Conv {
        Conv {
            groups: self.from,
            ..self
        }
    }

    /// Inputs of one sum.
    fn inputs(&self) -> usize {
        self.from / self.groups * self.size * self.size
    }

    fn dims(&self) -> [usize; 4] {
        [self.to, self.from / self.groups, self.size, self.size]
    }

    fn attrs(&self) -> Vec<Attr> {
        vec![
            Attr::new("dilations", vec![1i64; 2]),
            Attr::new("group", self.groups as i64),
            Attr::new("kernel_shape", vec![self.size as i64; 2]),
            Attr::new("pads", vec![self.pad as i64; 4]),
            Attr::new("strides", vec![self.stride as i64; 2]),
        ]
    }
}

/// The standard deviation for a layer of `inputs` before a rectifier (He et al. 2015): variances neither grow nor shrink.
fn he(inputs: usize) -> f64 {
    (2.0 / inputs as f64).sqrt()
}

/// The standard deviation for a layer of `from` inputs and `to` outputs that no rectifier follows (Glorot and Bengio 2010).
fn xavier([from, to]: [usize; 2]) -> f64 {
    (2.0 / (from + to) as f64).sqrt()
}

/// The standard deviation of biases.
const BIAS: f64 = 0.01;

impl<'a> Net<'a> {
    /// A network that is written to `builder`, its weights drawn from `random`.
    pub(crate) fn new(builder: &'a Builder<'a>, random: Random) -> Net<'a> {
        Net {
            builder,
            random: RefCell::new(random),
            names: RefCell::default(),
        }
    }

    /// The names that values are to have.
    pub(crate) fn names(self) -> Vec<(ValueId, String)> {
        self.names.into_inner()
    }

    /// A value of the draft, such as an input.
    pub fn at(&self, id: ValueId) -> Ex<'a> {
        self.builder.at(id)
    }

    /// The initialiser `name`.
    pub fn tensor(&self, name: impl Into<String>, tensor: Tensor) -> Ex<'a> {
        let id = self.builder.tensor(tensor);
        self.names.borrow_mut().push((id, name.into()));
        self.at(id)
    }

    /// The initialiser `name` of normal numbers with this mean and standard deviation.
    pub fn normal(&self, name: impl Into<String>, dims: &[usize], mean: f64, std: f64) -> Ex<'a> {
        let tensor = self.random.borrow_mut().normals(dims, mean, std);
        self.tensor(name, tensor)
    }

    /// A convolution of `x: [batch, from, height, width]` without bias; its kernel is `NAME.weight`.
    pub fn conv(&self, x: Ex<'a>, name: &str, conv: Conv) -> Ex<'a> {
        x.with("Conv", &[self.kernel(name, conv)], conv.attrs())
    }

    /// The same with a bias, `NAME.bias`.
    pub fn conv_bias(&self, x: Ex<'a>, name: &str, conv: Conv) -> Ex<'a> {
        let weight = self.kernel(name, conv);
        let bias = self.normal(format!("{name}.bias"), &[conv.to], 0.0, BIAS);
        x.with("Conv", &[weight, bias], conv.attrs())
    }

    fn kernel(&self, name: &str, conv: Conv) -> Ex<'a> {
        self.normal(format!("{name}.weight"), &conv.dims(), 0.0, he(conv.inputs()))
    }

    /// The initialiser `name`, each element of which is `value`.
    pub fn filled(&self, name: impl Into<String>, dims: &[usize], value: f32) -> Ex<'a> {
        let n = dims.iter().product();
        self.tensor(name, Tensor::of(dims, vec![value; n]))
    }

    /// The initialiser `name` of numbers uniform from `-bound` to `bound`.
    pub fn uniform(&self, name: impl Into<String>, dims: &[usize], bound: f64) -> Ex<'a> {
        let n = dims.iter().product();
        let numbers = self.random.borrow_mut().between(n, -bound, bound);
        self.tensor(name, Tensor::of(dims, numbers))
    }

    /// `x`, which is called `name` from now on.
    pub fn name(&self, x: Ex<'a>, name: impl Into<String>) -> Ex<'a> {
        self.names.borrow_mut().push((x.id, name.into()));
        x
    }

    /// The elements of one example of `x: [batch, …]`; 0 if they are not known.
    pub fn elements(&self, x: Ex<'a>) -> usize {
        let ty = self.builder.fact(x.id).ty;
        let sizes = ty.shape().and_then(|s| s.iter().skip(1).map(Dim::size).product());
        sizes.unwrap_or(0)
    }

    /// BatchNormalization of `x: [batch, channels, …]` as at inference, before it has seen anything: means 0 and variances 1.
    /// Its scale is `gain`.
    pub fn batch_norm(&self, x: Ex<'a>, name: &str, channels: usize, gain: f64) -> Ex<'a> {
        let part = |part: &str, value| self.filled(format!("{name}.{part}"), &[channels], value);
        let (scale, bias) = (part("weight", gain as f32), part("bias", 0.0));
        let (mean, variance) = (part("running_mean", 0.0), part("running_var", 1.0));
        let attrs = vec![
            Attr::new("epsilon", 1e-5f32),
            Attr::new("momentum", 0.9f32),
            Attr::new("training_mode", 0i64),
        ];
        x.with("BatchNormalization", &[scale, bias, mean, variance], attrs)
    }

    /// LayerNormalization over the last axis of `x`, `width` long; `epsilon` is added to variances.
    pub fn layer_norm(&self, x: Ex<'a>, name: &str, width: usize, epsilon: f32) -> Ex<'a> {
        let scale = self.filled(format!("{name}.weight"), &[width], 1.0);
        let bias = self.filled(format!("{name}.bias"), &[width], 0.0);
        let attrs = vec![Attr::new("axis", -1i64), Attr::new("epsilon", epsilon)];
        x.with("LayerNormalization", &[scale, bias], attrs)
    }

    /// A layer of the last axis of `x: […, from]`: a product with `NAME.weight: [from, to]`, plus `NAME.bias`.
    pub fn linear(&self, x: Ex<'a>, name: &str, dims: [usize; 2]) -> Ex<'a> {
        let weight = self.normal(format!("{name}.weight"), &dims, 0.0, xavier(dims));
        let bias = self.filled(format!("{name}.bias"), &[dims[1]], 0.0);
        linear(x, weight, bias)
    }

    /// A layer of `x: [batch, from]` that reads everything: `NAME.weight: [to, from]` and `NAME.bias`.
    pub fn dense(&self, x: Ex<'a>, name: &str, [from, to]: [usize; 2]) -> Ex<'a> {
        let weight = self.normal(format!("{name}.weight"), &[to, from], 0.0, he(from));
        let bias = self.normal(format!("{name}.bias"), &[to], 0.0, BIAS);
        let attrs = vec![
            Attr::new("alpha", 1f32),
            Attr::new("beta", 1f32),
            Attr::new("transB", 1i64),
        ];
        x.with("Gemm", &[weight, bias], attrs)
    }
}
