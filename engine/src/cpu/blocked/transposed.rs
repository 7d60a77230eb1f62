//! Transposed convolutions: pixels of the output that are whole strides apart are those of a convolution, with the elements
//! of the window that fall on them, in the opposite order.

use std::sync::Arc;

use super::{BLOCK, Convolution, Depthwise, Direct, Origin, Panels, Spread};
use crate::cpu::Order;
use crate::cpu::conv::Shape;
use crate::cpu::sparse::{Plan, Zeros};
use crate::cpu::window::Window;

/// Pixels of the output that are whole strides apart.
pub struct Phase {
    shape: Shape,
    /// The first element of the window that falls on them, and how many do, along each axis.
    taps: Vec<(usize, usize)>,
    spread: Spread,
    /// As in the whole.
    size: Vec<usize>,
    strides: Vec<usize>,
}

/// Whether along `axis` each phase has pixels, on which elements of the window fall from the first pixel of the input on, or
/// none do.
fn whole(w: &Window, axis: usize) -> bool {
    let (stride, size) = (w.strides[axis], w.size[axis]);
    let meets = |at: usize| {
        let count = size.saturating_sub(at % stride).div_ceil(stride);
        count > at / stride || count == 0
    };
    let mut ahead = w.pads[axis]..w.pads[axis].saturating_add(stride);
    w.dilations[axis] == 1 && w.input[axis] >= stride && ahead.all(meets)
}

impl Phase {
    /// The phases of a transposed convolution of `shape`, whose window lies over the output, one position for each pixel of the
    /// input; empty where it is not made of convolutions that fit.
    pub fn all(shape: &Shape) -> Vec<Phase> {
        let some = Phase::some(shape);
        match some.len() == shape.window.strides.iter().product() {
            true => some,
            false => vec![],
        }
    }

    /// The same without those on which nothing falls, whose pixels are zero.
    pub fn some(shape: &Shape) -> Vec<Phase> {
        let w = &shape.window;
        let axes = w.size.len();
        if !(1..=2).contains(&axes) || shape.inputs < BLOCK || !(0..axes).all(|a| whole(w, a)) {
            return vec![];
        }
        let phases = (0..w.strides.iter().product()).filter_map(|p| Phase::new(shape, p));
        let all: Vec<_> = phases.collect();
        match all.iter().all(|p: &Phase| Direct::fits(&p.shape)) {
            true => all,
            false => vec![],
        }
    }

    /// The one phase of a transposed convolution of each channel by itself, without steps.
    pub fn depthwise(shape: &Shape) -> Option<Phase> {
        let w = &shape.window;
        let one = Depthwise::fits(shape) && w.strides == [1, 1];
        (one && (0..2).all(|a| whole(w, a)))
            .then(|| Phase::new(shape, 0))
            .flatten()
    }

    /// `None` where no element of the window falls on its pixels.
    fn new(shape: &Shape, mut number: usize) -> Option<Phase> {
        let w = &shape.window;
        let axes = w.size.len();
        let (mut first, mut pitch, mut step) = (0, 1, [0; 2]);
        let (mut taps, mut pads, mut output) = (vec![(0, 0); axes], vec![0; axes], vec![0; axes]);
        for axis in (0..axes).rev() {
            let stride = w.strides[axis];
            let (at, ahead) = (number % stride, number % stride + w.pads[axis]);
            number /= stride;
            let count = w.size[axis].saturating_sub(ahead % stride).div_ceil(stride);
            if count == 0 {
                return None;
            }
            taps[axis] = (ahead % stride, count);
            output[axis] = (w.input[axis] - at).div_ceil(stride);
            pads[axis] = count - 1 - ahead / stride;
            first += at * pitch;
            step[axis + 2 - axes] = stride * pitch;
            pitch *= w.input[axis];
        }
        let window = Window {
            input: w.output.clone(),
            output,
            size: taps.iter().map(|t| t.1).collect(),
            strides: vec![1; axes],
            dilations: vec![1; axes],
            pads,
        };
        Some(Phase {
            shape: Shape {
                window,
                ..shape.clone()
            },
            taps,
            spread: Spread {
                plane: pitch,
                first,
                step,
            },
            size: w.size.clone(),
            strides: w.strides.clone(),
        })
    }

    /// The order of its weights.
    pub fn order(&self) -> Order {
        let Order { name, parts, .. } = Panels::order(&self.shape);
        let name = format!(
            "{name} of {:?} from {:?} by {:?}",
            self.size, self.taps, self.strides
        );
        Order {
            name,
            parts,
            ..Order::default()
        }
    }

    /// Packs those of the weights `[groups * inputs, outputs, window]` that fall on its pixels.
    pub fn pack(&self, w: &[f32]) -> Panels {
        Panels::new(&self.own(w), &self.shape)
    }

    /// Those of the weights that fall on its pixels, as the weights of a convolution.
    pub fn own(&self, w: &[f32]) -> Vec<f32> {
        let s = &self.shape;
        let (whole, places) = (self.size.iter().product::<usize>(), self.places());
        let mut own = Vec::with_capacity(s.groups * s.outputs * s.inputs * places.len());
        for group in 0..s.groups {
            for output in 0..s.outputs {
                for input in group * s.inputs..(group + 1) * s.inputs {
                    let window = &w[(input * s.outputs + output) * whole..][..whole];
                    own.extend(places.iter().map(|&p| window[p]));
                }
            }
        }
        own
    }

    /// Where its elements of the window stand, from the last to the first.
    fn places(&self) -> Vec<usize> {
        let mut places = vec![0];
        for (axis, &(first, count)) in self.taps.iter().enumerate() {
            let inner: usize = self.size[axis + 1..].iter().product();
            let along = |t: usize| (first + (count - 1 - t) * self.strides[axis]) * inner;
            places = (places.iter())
                .flat_map(|&p| (0..count).map(move |t| p + along(t)))
                .collect();
        }
        places
    }

    /// Where its weights stand among all, as the weights of a convolution of [its shape](Phase::shape).
    pub fn origin(&self) -> Origin {
        let (s, whole) = (&self.shape, self.size.iter().product());
        Origin {
            steps: [s.inputs * s.outputs * whole, whole, s.outputs * whole],
            places: self.places(),
            whole,
        }
    }

    /// The convolution that it is.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// What convolves with packed weights, or else with those that come with each run.
    pub fn dense(&self, w: Option<Arc<Panels>>) -> Convolution {
        Convolution::Direct(Box::new(Direct::spread(self.shape.clone(), w, Some(self.spread))))
    }

    /// How it is computed without weights that are zero, of which there is such a share.
    pub fn sparse(&self, share: f64) -> Option<Plan> {
        let s = &self.shape;
        let len = s.groups * s.outputs * s.depth();
        let zeros = Zeros {
            len,
            live: (len as f64 * (1.0 - share)) as usize,
            // Not known: rows go by pairs.
            quads: len,
            ..Zeros::default()
        };
        Plan::conv(s, &zeros, Some(self.spread))
    }

    /// The order of its weights without zeros.
    pub fn order_of(&self, plan: &Plan) -> Order {
        let order = plan.cut().order();
        Order {
            name: format!(
                "{} of {:?} from {:?} by {:?}",
                order.name, self.size, self.taps, self.strides
            ),
            ..order
        }
    }

    /// Multiply-adds, lanes that are not used among them.
    pub fn work(&self) -> f64 {
        let s = &self.shape;
        let whole = |c: usize| c.next_multiple_of(BLOCK) as f64;
        let each = s.groups as f64 * whole(s.inputs) * whole(s.outputs);
        each * (s.images * s.window.positions() * s.window.taps()) as f64
    }
}
