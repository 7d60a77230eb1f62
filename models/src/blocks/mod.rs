//! Small pieces that models are made of. Axes count from the end where they are negative.

mod dense;
mod highway;
mod residual;
mod transformer;

use secateur_engine::Tensor;
use secateur_engine::expr::{Call, Ex};
use secateur_engine::ir::{Attr, DType};

pub use dense::dense_block;
pub use highway::highway;
pub(crate) use residual::{KINDS, stages};
pub use residual::{Residual, ResidualKind};
pub use transformer::{Look, Transformer};
pub(crate) use transformer::{embed, heads_fit, keys, masked_mean};

/// A constant vector of integers.
pub fn ints<'a>(x: Ex<'a>, values: &[i64]) -> Ex<'a> {
    x.tensor(Tensor::of(&[values.len()], values.to_vec()))
}

/// A constant integer.
pub fn int(x: Ex<'_>, value: i64) -> Ex<'_> {
    x.tensor(Tensor::scalar(value))
}

/// `x` in another shape; 0 keeps the size of the axis at that place.
pub fn reshape<'a>(x: Ex<'a>, dims: &[i64]) -> Ex<'a> {
    x.op("Reshape", &[ints(x, dims)])
}

/// `x` with its axes in the order `perm`.
pub fn transpose<'a>(x: Ex<'a>, perm: &[i64]) -> Ex<'a> {
    x.with("Transpose", &[], vec![Attr::new("perm", perm)])
}

/// `x` of rank `rank` with its last two axes swapped.
pub fn turn(x: Ex<'_>, rank: usize) -> Ex<'_> {
    let mut perm: Vec<i64> = (0i64..).take(rank).collect();
    perm.swap(rank - 1, rank - 2);
    transpose(x, &perm)
}

/// `x` with an axis of size 1 at `axis` of the result.
pub fn unsqueeze(x: Ex<'_>, axis: i64) -> Ex<'_> {
    x.op("Unsqueeze", &[ints(x, &[axis])])
}

/// `x` without its axis `axis`, which has size 1.
pub fn squeeze(x: Ex<'_>, axis: i64) -> Ex<'_> {
    x.op("Squeeze", &[ints(x, &[axis])])
}

/// Elements `from..to` along `axis`; beyond the end means up to the end.
pub fn slice(x: Ex<'_>, from: i64, to: i64, axis: i64) -> Ex<'_> {
    let [from, to, axis] = [from, to, axis].map(|i| ints(x, &[i]));
    x.op("Slice", &[from, to, axis])
}

/// The parts of `x` that are `sizes` long along `axis`.
pub fn split<'a>(x: Ex<'a>, sizes: &[usize], axis: i64) -> Vec<Ex<'a>> {
    let sizes: Vec<i64> = sizes.iter().map(|&s| s as i64).collect();
    x.call(Call {
        domain: "",
        op: "Split",
        inputs: &[Some(x.id), Some(ints(x, &sizes).id)],
        attrs: vec![Attr::new("axis", axis)],
        outputs: sizes.len(),
    })
}

/// `x` and then `rest` along `axis`.
pub fn concat<'a>(x: Ex<'a>, rest: &[Ex<'a>], axis: i64) -> Ex<'a> {
    x.with("Concat", rest, vec![Attr::new("axis", axis)])
}

/// The sum along `axis`, which stays with size 1.
pub fn sum(x: Ex<'_>, axis: i64) -> Ex<'_> {
    x.op("ReduceSum", &[ints(x, &[axis])])
}

/// The probabilities that the logits `x` give along the last axis.
pub fn softmax(x: Ex<'_>) -> Ex<'_> {
    x.with("Softmax", &[], vec![Attr::new("axis", -1i64)])
}

/// `x · w + b` with `w: [in, out]` and `b: [out]`.
pub fn linear<'a>(x: Ex<'a>, w: Ex<'a>, b: Ex<'a>) -> Ex<'a> {
    x.matmul(w) + b
}

/// `[batch, n, heads · size]` as `[batch, heads, n, size]`.
pub fn split_heads(x: Ex<'_>, heads: usize, size: usize) -> Ex<'_> {
    transpose(reshape(x, &[0, 0, heads as i64, size as i64]), &[0, 2, 1, 3])
}

/// `[batch, heads, n, size]` as `[batch, n, heads · size]`.
pub fn merge_heads(x: Ex<'_>, heads: usize, size: usize) -> Ex<'_> {
    reshape(transpose(x, &[0, 2, 1, 3]), &[0, 0, (heads * size) as i64])
}

/// `x`, or 0 where it is negative.
pub fn relu(x: Ex<'_>) -> Ex<'_> {
    x.op("Relu", &[])
}

/// `x` between 0 and 6.
pub fn relu6(x: Ex<'_>) -> Ex<'_> {
    x.op("Clip", &[x.constant(0.0), x.constant(6.0)])
}

/// `x Φ(x)`, spelled out with the error function, with Φ the normal distribution (Hendrycks and Gimpel 2016).
pub fn gelu(x: Ex<'_>) -> Ex<'_> {
    x * ((x / std::f64::consts::SQRT_2).erf() + 1.0) * 0.5
}

/// The names of [`activation`]s.
pub const ACTIVATIONS: &[&str] = &["relu", "elu", "gelu", "selu", "sigmoid", "tanh", "none"];

/// `x` after the function `name`, one of [`ACTIVATIONS`]; `x` itself after any other.
pub fn activation<'a>(x: Ex<'a>, name: &str) -> Ex<'a> {
    match name {
        "relu" => relu(x),
        "elu" => x.op("Elu", &[]),
        "gelu" => gelu(x),
        "selu" => x.op("Selu", &[]),
        "sigmoid" => x.sigmoid(),
        "tanh" => x.tanh(),
        _ => x,
    }
}

/// `x` as inference has it; in training this share of its elements is dropped. Where the share is 0 there is no node.
pub fn dropout(x: Ex<'_>, share: f64) -> Ex<'_> {
    match share {
        0.0 => x,
        _ => x.op("Dropout", &[x.constant(share)]),
    }
}

/// The size of `axis` of `x`, an integer.
pub fn size_of(x: Ex<'_>, axis: i64) -> Ex<'_> {
    x.op("Shape", &[])
        .with("Gather", &[int(x, axis)], vec![Attr::new("axis", 0i64)])
}

/// `x` as elements of type `dtype`.
pub fn cast(x: Ex<'_>, dtype: DType) -> Ex<'_> {
    x.with("Cast", &[], vec![Attr::new("to", i64::from(dtype.code()))])
}

/// The element at `index` along `axis`, which goes.
pub fn pick(x: Ex<'_>, index: i64, axis: i64) -> Ex<'_> {
    x.with("Gather", &[int(x, index)], vec![Attr::new("axis", axis)])
}

/// The greatest element of each window of `size` by `size` of `x: [batch, channels, height, width]`, in steps of `stride`, with
/// `pad` on each side.
pub fn max_pool(x: Ex<'_>, size: usize, stride: usize, pad: usize) -> Ex<'_> {
    let square = |n: usize| vec![n as i64; 2];
    let attrs = vec![
        Attr::new("ceil_mode", 0i64),
        Attr::new("kernel_shape", square(size)),
        Attr::new("pads", vec![pad as i64; 4]),
        Attr::new("strides", square(stride)),
    ];
    x.with("MaxPool", &[], attrs)
}

/// The mean of each window of `size` by `size` of `x: [batch, channels, height, width]`, side by side.
pub fn average_pool(x: Ex<'_>, size: usize) -> Ex<'_> {
    let square = || vec![size as i64; 2];
    let attrs = vec![
        Attr::new("kernel_shape", square()),
        Attr::new("strides", square()),
    ];
    x.with("AveragePool", &[], attrs)
}

/// The mean of each channel of `x: [batch, channels, height, width]`: `[batch, channels, 1, 1]`.
pub fn mean_pool(x: Ex<'_>) -> Ex<'_> {
    x.op("GlobalAveragePool", &[])
}

/// `x: [batch, …]` as `[batch, elements]`.
pub fn flatten(x: Ex<'_>) -> Ex<'_> {
    x.with("Flatten", &[], vec![Attr::new("axis", 1i64)])
}
