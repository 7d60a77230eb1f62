//! MobileNetV2 (Sandler et al. 2018), width 1.0.

use secateur_engine::Model;
use secateur_engine::expr::Ex;

use crate::arch::images;
use crate::blocks::{dropout, flatten, mean_pool, relu6};
use crate::net::{Conv, Net};
use crate::{Arch, ArchError, Draft, Random, Setting, Settings};

/// `logits: [batch, classes]` of `image: [batch, channels, height, width]`.
pub(crate) struct MobileNetV2;

/// Of each stage: how much wider its blocks are inside, their channels, how many there are, the stride of the first.
const STAGES: [[usize; 4]; 7] = [
    [1, 16, 1, 1],
    [6, 24, 2, 2],
    [6, 32, 3, 2],
    [6, 64, 4, 2],
    [6, 96, 3, 1],
    [6, 160, 3, 2],
    [6, 320, 1, 1],
];

/// The mean scale after a convolution that reads what no rectifier has cut, and so gives twice the variance.
const LINEAR: f64 = std::f64::consts::FRAC_1_SQRT_2;

impl Arch for MobileNetV2 {
    fn name(&self) -> &'static str {
        "mobilenetv2"
    }

    fn about(&self) -> &'static str {
        "inverted residual blocks, width 1.0, BatchNormalization and Clip as nodes"
    }

    fn settings(&self) -> &'static [Setting] {
        const {
            &[
                Setting::classes(1000),
                Setting::channels(3),
                Setting::height(224, 32),
                Setting::width(224, 32),
                Setting::dropout(),
            ]
        }
    }

    fn write(&self, set: &Settings, random: Random) -> Result<Model, ArchError> {
        let mut d = Draft::new(self.name());
        let image = d.input("image", images(set));
        let model = d.network(random, |n| {
            let stem = Conv::new(set.get("channels"), 32, 3).stride(2);
            let mut x = relu6(norm(n, n.at(image), "features.0", stem, 1.0));
            let (mut from, mut i) = (32, 1);
            for [inside, to, blocks, stride] in STAGES {
                for first in (0..blocks).map(|b| b == 0) {
                    let stride = if first { stride } else { 1 };
                    x = block(
                        n,
                        x,
                        &format!("features.{i}.conv"),
                        [from, from * inside, to, stride],
                    );
                    (from, i) = (to, i + 1);
                }
            }
            let x = relu6(norm(n, x, "features.18", Conv::new(from, 1280, 1), LINEAR));
            let x = dropout(flatten(mean_pool(x)), set.share("dropout"));
            let logits = n.dense(x, "classifier.1", [1280, set.get("classes")]);
            vec![("logits".into(), logits)]
        })?;
        Ok(model)
    }
}

/// More channels, 3×3 within each, fewer channels; the input added where it has the same shape.
fn block<'a>(n: &Net<'a>, x: Ex<'a>, name: &str, [from, inside, to, stride]: [usize; 4]) -> Ex<'a> {
    let part = |i: usize| format!("{name}.{i}");
    let (mut y, mut i) = (x, 0);
    if inside != from {
        y = relu6(norm(n, y, &part(i), Conv::new(from, inside, 1), LINEAR));
        i += 1;
    }
    let each = Conv::new(inside, inside, 3).stride(stride).depthwise();
    y = relu6(norm(n, y, &part(i), each, 1.0));
    y = norm(n, y, &part(i + 1), Conv::new(inside, to, 1), 1.0);
    match stride == 1 && from == to {
        true => x + y,
        false => y,
    }
}

fn norm<'a>(n: &Net<'a>, x: Ex<'a>, name: &str, conv: Conv, gain: f64) -> Ex<'a> {
    let x = n.conv(x, &format!("{name}.0"), conv);
    n.batch_norm(x, &format!("{name}.1"), conv.to, gain)
}
