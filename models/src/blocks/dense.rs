//! Densely connected convolutions (Huang et al. 2017).

use secateur_engine::expr::Ex;

use super::{concat, dropout, relu};
use crate::net::{Conv, Net};

/// `layers` layers, each of which reads what came in and all that the layers before it made, and makes `growth` channels:
/// BatchNormalization, rectifier, 3×3 convolution. All of it side by side: `from + layers · growth` channels of
/// `x: [batch, from, height, width]`. Weights are called `NAME.i.norm…` and `NAME.i.conv…`.
pub fn dense_block<'a>(
    n: &Net<'a>,
    x: Ex<'a>,
    name: &str,
    [from, growth, layers]: [usize; 3],
    share: f64,
) -> Ex<'a> {
    (0..layers).fold(x, |x, i| {
        let channels = from + i * growth;
        let y = relu(n.batch_norm(x, &format!("{name}.{i}.norm"), channels, 1.0));
        let y = n.conv(y, &format!("{name}.{i}.conv"), Conv::new(channels, growth, 3));
        concat(x, &[dropout(y, share)], 1)
    })
}
