//! What happens to gradients before the optimiser sees them, and to parameters after.

use secateur_engine::Tensor;
use secateur_engine::expr::Ex;

use crate::group::Group;
use crate::optim::{Optimizer, Slot};
use crate::words::{either, sqrt, sum, total};

/// Bounds for gradients.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Clip {
    /// No element is further from 0.
    pub value: Option<f64>,
    /// All gradients together, as one vector, are no longer: what is too long is scaled down as a whole, after `value`. The
    /// length before is an output of the step; with infinity it is only measured.
    pub norm: Option<f64>,
}

/// A parameter on its way through a step.
pub(crate) struct Trained<'s, 'a> {
    pub(crate) slot: Slot<'a>,
    pub(crate) group: &'s Group,
    /// Where it is not held at 0.
    pub(crate) mask: Option<Ex<'a>>,
}

/// Parameters and states after a step, and the length of all gradients where it was wanted.
pub(crate) struct Updated<'a> {
    pub(crate) each: Vec<(Ex<'a>, Vec<Ex<'a>>)>,
    pub(crate) norm: Option<Ex<'a>>,
}

/// Which elements of `t` are not 0: the mask that holds its zeros.
pub fn zeros_held(t: &Tensor) -> Option<Tensor> {
    let x = t.floats()?;
    Some(Tensor::bools(t.dims(), x.iter().map(|&x| x != 0.0)))
}

fn masked<'a>(mask: Option<Ex<'a>>, x: Ex<'a>) -> Ex<'a> {
    mask.map_or(x, |m| either(m, x, x.constant(0.0)))
}

/// `x`, no element further than `far` from 0. What is not a number stays to be seen.
fn within<'a>(x: Ex<'a>, far: Ex<'a>) -> Ex<'a> {
    x.op("Clip", &[-far, far])
}

/// The gradients as the optimiser is to see them.
fn prepare<'a>(all: &mut [Trained<'_, 'a>], clip: Clip) -> Option<Ex<'a>> {
    for p in all.iter_mut() {
        let g = masked(p.mask, p.slot.gradient);
        p.slot.gradient = clip.value.map_or(g, |far| within(g, g.constant(far)));
    }
    let norm = clip.norm.and_then(|longest| {
        let squares = all.iter().map(|p| total(p.slot.gradient * p.slot.gradient));
        let norm = sqrt(sum(squares)?);
        if longest.is_finite() {
            let longest = norm.constant(longest);
            let scale = longest / norm.op("Max", &[longest]);
            let scaled = |p: &mut Trained<'_, 'a>| p.slot.gradient = p.slot.gradient * scale;
            all.iter_mut().for_each(scaled);
        }
        Some(norm)
    });
    for p in all.iter_mut().filter(|p| p.group.l2 != 0.0) {
        p.slot.gradient = p.slot.gradient + p.slot.value * p.group.l2;
    }
    norm
}

/// The parameter after a step `along`.
fn moved<'a>(p: &Trained<'_, 'a>, along: Ex<'a>, decay: f64, rate: Ex<'a>) -> Ex<'a> {
    let (old, group) = (p.slot.value, p.group);
    let rate = match group.rate {
        1.0 => rate,
        factor => rate * factor,
    };
    let mut new = old - along * rate;
    let decay = group.decay.unwrap_or(decay);
    if decay != 0.0 {
        new = new - old * (rate * decay);
    }
    if group.l1 != 0.0 {
        // Within reach of 0 this is exactly 0.
        new = new - within(new, rate * group.l1);
    }
    masked(p.mask, new)
}

/// One step in all parameters, by `rate`, a scalar of their type; it is step `t`, counted from 1.
pub(crate) fn update<'a>(
    mut all: Vec<Trained<'_, 'a>>,
    optimizer: &dyn Optimizer,
    clip: Clip,
    (rate, t): (Ex<'a>, Ex<'a>),
) -> Updated<'a> {
    let norm = prepare(&mut all, clip);
    let (slots, rest): (Vec<_>, Vec<_>) = all.into_iter().map(|p| (p.slot, (p.group, p.mask))).unzip();
    let moves = optimizer.step(&slots, t);
    let all = slots.into_iter().zip(rest).zip(moves);
    let each = all.map(|((slot, (group, mask)), made)| {
        let state = made.state.into_iter().map(|s| masked(mask, s)).collect();
        let p = Trained { slot, group, mask };
        (moved(&p, made.along, optimizer.decay(), rate), state)
    });
    Updated {
        each: each.collect(),
        norm,
    }
}
