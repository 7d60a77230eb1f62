//! Highway layers (Srivastava, Greff and Schmidhuber 2015).

use secateur_engine::expr::Ex;

use super::relu;
use crate::net::Net;

/// The bias of the gate: at first a layer lets most of its input pass.
const CLOSED: f32 = -1.0;

/// `T h + (1 - T) x` for `x: [batch, width]`, where `h` is a layer of `x` with a rectifier, `NAME.transform`, and `T` one with a
/// logistic function, `NAME.gate`. The weights of both are `[width, width]`.
pub fn highway<'a>(n: &Net<'a>, x: Ex<'a>, name: &str, width: usize) -> Ex<'a> {
    let h = relu(n.dense(x, &format!("{name}.transform"), [width; 2]));
    let std = (1.0 / width as f64).sqrt();
    let weight = n.normal(format!("{name}.gate.weight"), &[width; 2], 0.0, std);
    let bias = n.filled(format!("{name}.gate.bias"), &[width], CLOSED);
    let gate = super::linear(x, weight, bias).sigmoid();
    h * gate + x * (gate.constant(1.0) - gate)
}
