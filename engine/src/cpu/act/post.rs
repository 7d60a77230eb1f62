//! What kernels of sums do in the end.

use secateur_simd::{Simd, Vectorised, dispatch};

use super::{Act, ActFn, Clip, HardSwish, WithAct};
use crate::expr::Ex;
use crate::ops::{NodeRef, OpError};

/// What a kernel makes of its sums, while they are near: `scale act(x) + shift`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Post {
    /// The activation.
    pub act: Act,
    /// Factor of the activation's result.
    pub scale: f32,
    /// What is added to that.
    pub shift: f32,
}

impl From<Act> for Post {
    fn from(act: Act) -> Post {
        Post {
            act,
            scale: 1.0,
            shift: 0.0,
        }
    }
}

impl Post {
    /// The sums as they are.
    pub const NONE: Post = Post {
        act: Act::None,
        scale: 1.0,
        shift: 0.0,
    };

    /// Attributes of private operators that say what it is; without any, it is nothing.
    pub const ATTRIBUTES: [&'static str; 4] = ["activation", "params", "scale", "shift"];

    /// What a private operator's [attributes](Post::ATTRIBUTES) ask for.
    ///
    /// # Errors
    ///
    /// If there is no activation of that name with as many parameters.
    pub fn of(n: &NodeRef) -> Result<Post, OpError> {
        let (op, params) = (n.str_or("activation", "")?, n.floats("params")?.unwrap_or(&[]));
        let act = match Act::named(op, params) {
            Some(act) => act,
            None if op.is_empty() && params.is_empty() => Act::None,
            None => {
                let what = format!("{op:?} with {} parameters is no activation", params.len());
                return Err(OpError::new(what));
            }
        };
        let (scale, shift) = (n.float_or("scale", 1.0)?, n.float_or("shift", 0.0)?);
        Ok(Post { act, scale, shift })
    }

    /// Whether it changes nothing.
    pub fn is_none(self) -> bool {
        self == Post::NONE
    }

    /// What kernels do in registers, where that is all of it; else they [apply](Post::apply_rows) it behind themselves.
    pub fn ending(self) -> Option<Ending> {
        let gate = match self.act {
            Act::None => Gate::None,
            Act::Relu => Gate::Cut(0.0, f32::INFINITY),
            Act::Clip { lo, hi } => Gate::Cut(lo, hi),
            Act::HardSwish => Gate::HardSwish,
            _ => return None,
        };
        Some(Ending {
            gate,
            affine: self.affine(),
        })
    }

    /// Operations for each element, as predictions count them: next to none in registers, else as many as what a product does
    /// in the same time.
    pub fn flops(self) -> f64 {
        match self.act {
            _ if self.ending().is_some() => 0.0,
            Act::HardSigmoid { .. } | Act::LeakyRelu { .. } | Act::ThresholdedRelu { .. } | Act::None => 20.0,
            _ => 130.0,
        }
    }

    fn affine(self) -> Option<(f32, f32)> {
        (self != Post::from(self.act)).then_some((self.scale, self.shift))
    }

    /// Applies it to `rows` rows of `cols` floats that begin `pitch` apart.
    ///
    /// # Safety
    ///
    /// They are readable and writable.
    pub unsafe fn apply_rows(self, data: *mut f32, pitch: usize, rows: usize, cols: usize) {
        self.act.with(Rows {
            data,
            pitch,
            rows,
            cols,
            affine: self.affine(),
        });
    }

    /// The same in ONNX operators.
    pub fn body<'a>(self, x: Ex<'a>) -> Ex<'a> {
        let mut y = self.act.body(x);
        if self.scale != 1.0 {
            y = y * f64::from(self.scale);
        }
        if self.shift != 0.0 {
            y = y + f64::from(self.shift);
        }
        y
    }
}

/// The end of a sum that costs only a few instructions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ending {
    gate: Gate,
    affine: Option<(f32, f32)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Gate {
    None,
    Cut(f32, f32),
    HardSwish,
}

impl Ending {
    /// The sum as it is.
    pub const NONE: Ending = Ending {
        gate: Gate::None,
        affine: None,
    };

    /// In every lane. NaN gives NaN.
    #[inline(always)]
    pub fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        let y = match self.gate {
            Gate::None => x,
            Gate::Cut(lo, hi) => Clip { lo, hi }.apply(s, x),
            Gate::HardSwish => HardSwish {}.apply(s, x),
        };
        match self.affine {
            None => y,
            Some((scale, shift)) => s.fma(y, s.splat(scale), s.splat(shift)),
        }
    }
}

struct Rows {
    data: *mut f32,
    pitch: usize,
    rows: usize,
    cols: usize,
    affine: Option<(f32, f32)>,
}

impl WithAct for Rows {
    type Out = ();
    fn call<A: ActFn>(self, act: A) {
        match self.affine {
            None => dispatch(Apply(self, act)),
            Some((scale, shift)) => dispatch(Apply(self, Scaled { act, scale, shift })),
        }
    }
}

/// `scale act(x) + shift`.
#[derive(Clone, Copy)]
struct Scaled<A> {
    act: A,
    scale: f32,
    shift: f32,
}

impl<A: ActFn> ActFn for Scaled<A> {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        s.fma(self.act.apply(s, x), s.splat(self.scale), s.splat(self.shift))
    }
}

struct Apply<A>(Rows, A);

impl<A: ActFn> Vectorised for Apply<A> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Apply(r, act) = self;
        for row in 0..r.rows {
            for col in (0..r.cols).step_by(S::LANES) {
                let n = S::LANES.min(r.cols - col);
                // SAFETY: `apply_rows` is given rows of `cols` floats, of which these are `n` from `col` on.
                unsafe {
                    let p = r.data.add(row * r.pitch + col);
                    if n == S::LANES {
                        s.store(p, act.apply(s, s.load(p)));
                    } else {
                        s.store_first(p, n, act.apply(s, s.load_first(p, n)));
                    }
                }
            }
        }
    }
}
