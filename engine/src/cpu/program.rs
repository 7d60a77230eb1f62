//! Many steps element by element in one pass over memory.
//!
//! The result is made in pieces that stay in the nearest cache: each step of a program goes over the piece before the next begins,
//! and values that only the program reads never leave that cache. All is rounded as by kernels of their own.

use secateur_simd::{Simd, Vectorised, dispatch, math};

use super::act::{self, ActFn};
use super::elementwise::{Ptr, raw_source, raw_target};
use super::gemm::Scratch;
use super::norm::{load, store};
use super::{Io, Kernel};
use crate::ir::count;
use crate::ops::OpError;

/// Elements that a step goes over before the next begins.
const PIECE: usize = 512;

/// Pieces of a task.
const PIECES: usize = 8;

/// The most axes along which an input goes on unevenly.
const AXES: usize = 8;

macro_rules! codes {
    ($($name:ident $arity:literal $weight:literal |$s:ident, $x:ident, $y:ident, $z:ident| $body:expr;)*) => {
        /// What a step computes, by its operator. Truth values are 1 and 0.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the names are those of ONNX")]
        pub enum Code {
            $($name),*
        }

        impl Code {
            /// All there are.
            pub const ALL: &[Code] = &[$(Code::$name),*];

            /// The operator's name.
            pub fn name(self) -> &'static str {
                match self { $(Code::$name => stringify!($name)),* }
            }

            /// The number of operands.
            pub fn arity(self) -> usize {
                match self { $(Code::$name => $arity),* }
            }

            /// Arithmetic operations for an element, about.
            pub fn weight(self) -> f64 {
                match self { $(Code::$name => $weight),* }
            }

            /// # Safety
            ///
            /// `n` floats are readable at each operand and writable at `to`, which may be an operand.
            #[inline(always)]
            unsafe fn run<S: Simd>(self, s: S, x: [*const f32; 3], to: *mut f32, n: usize) {
                match self {
                    $(Code::$name => {
                        let $s = s;
                        for i in (0..n).step_by(S::LANES) {
                            // SAFETY: as the caller says; what a vector has beyond `n` is not touched.
                            unsafe {
                                let [$x, $y, $z] = operands::<S, $arity>(s, x, i, n - i);
                                store(s, to.add(i), S::LANES.min(n - i), $body);
                            }
                        }
                    })*
                }
            }
        }
    };
}

codes! {
    Abs 1 1.0 |s, x, _y, _z| s.abs(x);
    Add 2 1.0 |s, x, y, _z| s.add(x, y);
    And 2 1.0 |s, x, y, _z| s.mul(x, y);
    Cast 1 1.0 |_s, x, _y, _z| x;
    Ceil 1 1.0 |s, x, _y, _z| s.neg(s.floor(s.neg(x)));
    Clip 3 2.0 |s, x, y, z| s.min(z, s.max(y, x));
    Div 2 6.0 |s, x, y, _z| s.div(x, y);
    Equal 2 2.0 |s, x, y, _z| truth(s, s.eq(x, y));
    Erf 1 25.0 |s, x, _y, _z| math::erf(s, x);
    Exp 1 16.0 |s, x, _y, _z| math::exp(s, x);
    Floor 1 1.0 |s, x, _y, _z| s.floor(x);
    Gelu 1 30.0 |s, x, _y, _z| act::Gelu {}.apply(s, x);
    Greater 2 2.0 |s, x, y, _z| truth(s, s.lt(y, x));
    GreaterOrEqual 2 3.0 |s, x, y, _z| s.add(truth(s, s.lt(y, x)), truth(s, s.eq(x, y)));
    Lerp 3 4.0 |s, x, y, z| s.add(s.mul(x, y), s.mul(s.sub(s.splat(1.0), x), z));
    Less 2 2.0 |s, x, y, _z| truth(s, s.lt(x, y));
    LessOrEqual 2 3.0 |s, x, y, _z| s.add(truth(s, s.lt(x, y)), truth(s, s.eq(x, y)));
    Log 1 20.0 |s, x, _y, _z| math::log(s, x);
    Max 2 2.0 |s, x, y, _z| math::max_nan(s, x, y);
    Min 2 2.0 |s, x, y, _z| math::min_nan(s, x, y);
    Mul 2 1.0 |s, x, y, _z| s.mul(x, y);
    Neg 1 1.0 |s, x, _y, _z| s.neg(x);
    Not 1 1.0 |s, x, _y, _z| s.sub(s.splat(1.0), x);
    Or 2 2.0 |s, x, y, _z| s.max(x, y);
    Reciprocal 1 6.0 |s, x, _y, _z| s.div(s.splat(1.0), x);
    Relu 1 1.0 |s, x, _y, _z| s.max(s.splat(0.0), x);
    Round 1 1.0 |s, x, _y, _z| s.round(x);
    Sigmoid 1 25.0 |s, x, _y, _z| math::sigmoid(s, x);
    Sqrt 1 6.0 |s, x, _y, _z| s.sqrt(x);
    Sub 2 1.0 |s, x, y, _z| s.sub(x, y);
    Tanh 1 25.0 |s, x, _y, _z| math::tanh(s, x);
    Where 3 2.0 |s, x, y, z| s.select(s.lt(s.splat(0.0), x), y, z);
}

/// 1 where `m`, else 0.
#[inline(always)]
fn truth<S: Simd>(s: S, m: S::Mask) -> S::F32 {
    s.select(m, s.splat(1.0), s.splat(0.0))
}

/// The vectors of `N` operands from place `i` on, where `left` floats are left.
///
/// # Safety
///
/// These are readable.
#[inline(always)]
unsafe fn operands<S: Simd, const N: usize>(s: S, x: [*const f32; 3], i: usize, left: usize) -> [S::F32; 3] {
    let mut all = [s.splat(0.0); 3];
    for (v, x) in all.iter_mut().zip(x).take(N) {
        // SAFETY: as the caller says.
        *v = unsafe { load(s, x.add(i), left.min(S::LANES)) };
    }
    all
}

/// A step of a program.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// What it computes.
    pub code: Code,
    /// Of which values: first come the inputs, then the results of the steps.
    pub args: [usize; 3],
}

/// An input or an output: its dimensions, and whether it is of truth values.
pub type Operand = (Vec<usize>, bool);

/// Where a value is.
#[derive(Clone, Copy, Debug)]
enum Seat {
    Input(usize),
    Register(usize),
    Output(usize),
}

/// An input that is brought into a register, since it is broadcast or of truth values.
struct Fill {
    input: usize,
    register: usize,
    spread: Spread,
    truth: bool,
    /// Whether every piece of a task sees the same.
    steady: bool,
}

/// A program with the shapes and places of its values; either kind of floats and truth values only.
pub struct Program {
    len: usize,
    inputs: Vec<(usize, bool)>,
    outputs: Vec<bool>,
    fills: Vec<Fill>,
    /// What is computed of what, and where to.
    steps: Vec<(Code, [Seat; 3], Seat)>,
    /// Registers that are copied to outputs in the end.
    ends: Vec<(usize, usize)>,
    registers: usize,
}

impl Program {
    /// The program that makes `outputs`, results of steps, each with dimensions `dims` and perhaps of truth values; `None` where
    /// an input does not broadcast.
    pub fn new(
        dims: &[usize],
        inputs: &[Operand],
        steps: &[Step],
        outputs: &[(usize, bool)],
    ) -> Option<Program> {
        let len = count(dims)?;
        let mut fills = vec![];
        let mut seats: Vec<Seat> = vec![];
        for (input, (own, truth)) in inputs.iter().enumerate() {
            let spread = Spread::new(dims, own)?;
            if !*truth && spread.whole() {
                seats.push(Seat::Input(input));
                continue;
            }
            let (register, steady) = (
                fills.len(),
                spread.period().is_some_and(|p| PIECE.is_multiple_of(p)),
            );
            seats.push(Seat::Register(register));
            fills.push(Fill {
                input,
                register,
                spread,
                truth: *truth,
                steady,
            });
        }
        let last = last_reads(inputs.len(), steps, outputs);
        let direct = |v: &usize| matches!(seats.get(*v), Some(Seat::Input(_)));
        let reads = |s: &Step| s.args[..s.code.arity()].iter().any(direct);
        // Before that step an output might overwrite an input that is yet to be read.
        let safe = steps.iter().rposition(reads).unwrap_or(0);
        let (mut made, mut ends, mut registers, mut free) = (vec![], vec![], fills.len(), vec![]);
        for (i, step) in steps.iter().enumerate() {
            let args = step
                .args
                .map(|v| seats.get(v).copied().unwrap_or(Seat::Register(0)));
            for &v in step.args[..step.code.arity()].iter().filter(|v| last[**v] == i) {
                match seats[v] {
                    Seat::Register(r) if v >= inputs.len() && !free.contains(&r) => free.push(r),
                    _ => {}
                }
            }
            let output = outputs.iter().position(|o| o.0 == i);
            let to = match output {
                Some(o) if i >= safe && !outputs[o].1 => Seat::Output(o),
                _ => Seat::Register(free.pop().unwrap_or_else(|| {
                    registers += 1;
                    registers - 1
                })),
            };
            if let (Some(o), Seat::Register(r)) = (output, to) {
                ends.push((r, o));
            }
            seats.push(to);
            made.push((step.code, args, to));
        }
        let lens = inputs.iter().map(|(own, truth)| Some((count(own)?, *truth)));
        Some(Program {
            len,
            inputs: lens.collect::<Option<_>>()?,
            outputs: outputs.iter().map(|o| o.1).collect(),
            fills,
            steps: made,
            ends,
            registers,
        })
    }
}

/// For each value the step that reads it last; that which makes it where none does.
fn last_reads(inputs: usize, steps: &[Step], outputs: &[(usize, bool)]) -> Vec<usize> {
    let mut last: Vec<usize> = (0..inputs + steps.len())
        .map(|v| v.saturating_sub(inputs))
        .collect();
    for (i, step) in steps.iter().enumerate() {
        step.args[..step.code.arity()].iter().for_each(|&v| last[v] = i);
    }
    outputs.iter().for_each(|o| last[inputs + o.0] = usize::MAX);
    last
}

impl Kernel for Program {
    fn scratch(&self, threads: usize) -> usize {
        threads * self.registers * PIECE * size_of::<f32>()
    }

    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        let bytes = |truth: bool| if truth { 1 } else { size_of::<f32>() };
        let inputs = self.inputs.iter().enumerate();
        let x: Vec<_> = inputs
            .map(|(i, &(len, truth))| raw_source(io, i, len, bytes(truth)))
            .collect();
        let outputs = self.outputs.iter().enumerate();
        let y: Vec<_> = outputs
            .map(|(i, &truth)| raw_target(io, i, self.len, bytes(truth)))
            .collect();
        let (scratch, pool) = (Scratch::new(io.scratch), io.pool);
        pool.run_with(self.len.div_ceil(PIECE * PIECES), &|thread, task| {
            dispatch(Part {
                program: self,
                x: &x,
                y: &y,
                registers: scratch.of(thread, self.registers * PIECE),
                start: task * PIECE * PIECES,
            });
        });
        Ok(())
    }
}

/// A task of a program.
struct Part<'a> {
    program: &'a Program,
    x: &'a [Ptr<u8>],
    y: &'a [Ptr<u8>],
    registers: *mut f32,
    start: usize,
}

impl Vectorised for Part<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Program {
            len,
            fills,
            steps,
            ends,
            ..
        } = self.program;
        let end = (self.start + PIECE * PIECES).min(*len);
        for at in (self.start..end).step_by(PIECE) {
            let n = PIECE.min(end - at);
            for fill in fills.iter().filter(|f| !f.steady || at == self.start) {
                // SAFETY: the input has the elements that its spread meets, and the register room for a piece.
                unsafe { fill.run(self.x[fill.input], self.register(fill.register), at, n) };
            }
            for &(code, args, to) in steps {
                let args = args.map(|a| self.seat(a, at).cast_const());
                // SAFETY: the piece is within inputs and outputs, whose sizes were checked, and registers hold one. Where an
                // output takes the place of an input, nothing of the piece is read after it was written.
                unsafe { code.run(s, args, self.seat(to, at), n) };
            }
            for &(register, output) in ends {
                // SAFETY: as above.
                unsafe { self.finish(register, output, at, n) };
            }
        }
    }
}

impl Part<'_> {
    #[inline(always)]
    fn register(&self, r: usize) -> *mut f32 {
        self.registers.wrapping_add(r * PIECE)
    }

    #[inline(always)]
    fn seat(&self, seat: Seat, at: usize) -> *mut f32 {
        match seat {
            Seat::Input(i) => self.x[i].get().cast::<f32>().wrapping_add(at),
            Seat::Output(i) => self.y[i].get().cast::<f32>().wrapping_add(at),
            Seat::Register(r) => self.register(r),
        }
    }

    /// Copies a register to an output.
    ///
    /// # Safety
    ///
    /// `n` elements from place `at` on are within the output.
    #[inline(always)]
    unsafe fn finish(&self, register: usize, output: usize, at: usize, n: usize) {
        let (from, to) = (self.register(register), self.y[output].get());
        // SAFETY: as the caller says; a register is no part of an output.
        unsafe {
            match self.program.outputs[output] {
                true => (0..n).for_each(|i| *to.add(at + i) = u8::from(*from.add(i) != 0.0)),
                false => to.cast::<f32>().add(at).copy_from_nonoverlapping(from, n),
            }
        }
    }
}

impl Fill {
    /// Brings the elements for `n` places from `at` on to `to`; a whole piece of those that are the same in each.
    ///
    /// # Safety
    ///
    /// `x` has all elements that the spread meets, and `to` room for a piece.
    #[inline(always)]
    unsafe fn run(&self, x: Ptr<u8>, to: *mut f32, at: usize, n: usize) {
        let n = if self.steady { PIECE } else { n };
        self.spread.runs(at, n, |i, from, n, step| {
            // SAFETY: as the caller says; the runs are as long as the piece together.
            unsafe {
                let (to, floats) = (
                    to.add(i),
                    x.get().cast::<f32>().add(from * usize::from(!self.truth)),
                );
                match (self.truth, step) {
                    (true, _) => {
                        (0..n).for_each(|i| {
                            *to.add(i) = f32::from(u8::from(*x.get().add(from + i * step) != 0))
                        });
                    }
                    (false, 0) => std::slice::from_raw_parts_mut(to, n).fill(*floats),
                    (false, _) => to.copy_from_nonoverlapping(floats, n),
                }
            }
        });
    }
}

/// How an input goes along while the result is made row by row: sizes and steps of axes, the innermost first.
struct Spread(Vec<(usize, usize)>);

impl Spread {
    /// That of an input with dimensions `own` along a result with dimensions `dims`; `None` if it does not broadcast.
    fn new(dims: &[usize], own: &[usize]) -> Option<Spread> {
        let mut axes: Vec<(usize, usize)> = vec![];
        let mut ahead = 1;
        for (back, &size) in dims.iter().rev().enumerate() {
            let here = own.len().checked_sub(back + 1).map_or(1, |axis| own[axis]);
            if here != 1 && here != size {
                return None;
            }
            let step = if here == 1 { 0 } else { ahead };
            ahead *= here;
            match axes.last_mut() {
                _ if size == 1 => {}
                Some((inner, s)) if step == *s * *inner => *inner *= size,
                _ => axes.push((size, step)),
            }
        }
        (own.len() <= dims.len() && axes.len() <= AXES).then_some(Spread(axes))
    }

    /// Whether it has an element of its own for each place.
    fn whole(&self) -> bool {
        matches!(self.0[..], [] | [(_, 1)])
    }

    /// After how many places it begins again; `None` if never.
    fn period(&self) -> Option<usize> {
        match self.0.split_last() {
            Some(((_, 0), inner)) => Some(inner.iter().map(|a| a.0).product()),
            _ => None,
        }
    }

    /// Calls `each` for stretches that go on evenly, together `n` places from `at` on: with the place relative to `at`, the
    /// element there, the number of places, and the step from each to the next.
    #[inline(always)]
    fn runs(&self, at: usize, n: usize, mut each: impl FnMut(usize, usize, usize, usize)) {
        let (axes, mut index, mut from, mut rest) = (&self.0[..], [0; AXES], 0, at);
        for (index, &(size, step)) in index.iter_mut().zip(axes) {
            (*index, rest) = (rest % size, rest / size);
            from += *index * step;
        }
        let (inner, step) = axes.first().copied().unwrap_or((n, 0));
        let mut done = 0;
        while done < n {
            let run = (inner - index[0]).min(n - done);
            each(done, from, run, step);
            done += run;
            from -= index[0] * step;
            index[0] = 0;
            for (index, &(size, step)) in index.iter_mut().zip(axes).skip(1) {
                *index += 1;
                from += step;
                if *index < size {
                    break;
                }
                from -= size * step;
                *index = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_meets_its_element() {
        for own in [
            &[5, 3, 4, 6][..],
            &[],
            &[6],
            &[4, 1],
            &[3, 1, 6],
            &[5, 1, 4, 1],
            &[1, 3, 1, 1],
        ] {
            let dims = [5, 3, 4, 6];
            let spread = Spread::new(&dims, own).expect("broadcasts");
            let want = crate::ops::binary::stretch(own, &dims);
            for at in [0, 7, 101] {
                let mut met = vec![];
                spread.runs(at, 59, |i, from, n, step| {
                    assert_eq!(i, met.len());
                    met.extend((0..n).map(|k| from + k * step));
                });
                assert_eq!(met, want[at..at + 59], "{own:?} from {at}");
            }
        }
        assert!(Spread::new(&[2], &[3]).is_none() && Spread::new(&[2], &[1, 2]).is_none());
    }
}
