//! What kernels are made of: their interface, memory, threads, and the loops that several operators share.

pub mod act;
pub mod affine;
pub mod arg;
pub mod blocked;
pub mod blocks;
mod cache;
pub mod chain;
pub mod conv;
pub mod copy;
pub mod elementwise;
mod frame;
pub mod gemm;
pub mod indices;
pub mod int8;
mod io;
pub mod lrn;
pub mod moves;
pub mod norm;
pub mod norm_grad;
pub mod number;
mod packs;
pub(crate) mod plane;
pub mod pool;
pub mod program;
pub mod reduce;
pub mod rows;
pub mod rowwise;
pub mod softmax;
pub mod sparse;
mod threads;
pub mod trig;
pub mod walk;
pub mod window;

use crate::ops::OpError;
pub use act::{Act, Ending, Post};
pub use cache::{Cache, CacheState, Order, Packed};
pub use frame::{Frame, Job, Outside, Place, Slot};
pub use io::{Arena, Io, View, ViewMut};
pub use packs::Packs;
pub use secateur_simd::isa;
use sparse::Sparsity;
pub use threads::{Pool, default_threads};

/// Bytes of a cache line, at whose multiples values, scratch memory and packed weights begin.
pub(crate) const LINE: usize = 64;

/// A computation made for one node with known shapes. Attributes were read when it was made; it sees only memory.
pub trait Kernel: Send + Sync {
    /// Bytes of scratch memory it wants, aligned to 64, when it runs on `threads` threads.
    fn scratch(&self, _threads: usize) -> usize {
        0
    }

    /// Whether it reads the memory of input `i` when it runs; not so where it has packed a constant.
    fn reads(&self, _i: usize) -> bool {
        true
    }

    /// Whether it wants the memory of input `i` aligned for its elements; not so where it only copies bytes.
    fn aligned(&self, _i: usize) -> bool {
        true
    }

    /// Computes every output. The result does not depend on the number of threads.
    ///
    /// # Errors
    ///
    /// If the elements of an input are not what the operator accepts, such as an index out of bounds. The outputs then
    /// hold anything.
    fn run(&self, io: &mut Io) -> Result<(), OpError>;
}

/// What a kernel that is a closure may return: nothing, where it accepts every input.
pub trait Outcome {
    /// The same as a result.
    fn result(self) -> Result<(), OpError>;
}

impl Outcome for () {
    fn result(self) -> Result<(), OpError> {
        Ok(())
    }
}

impl Outcome for Result<(), OpError> {
    fn result(self) -> Result<(), OpError> {
        self
    }
}

impl<R: Outcome, F: Fn(&mut Io) -> R + Send + Sync> Kernel for F {
    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        self(io).result()
    }
}

/// What a kernel costs, for choosing between candidates and for prediction.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Arithmetic operations; a multiply-add counts as two.
    pub flops: f64,
    /// Bytes read and written.
    pub bytes: f64,
    /// The share of the machine's arithmetic peak that it is guessed to reach, above 0; read only where it was not
    /// [measured](crate::plan::Rates).
    pub efficiency: f64,
}

impl Cost {
    /// The cost of a pass over memory.
    pub fn bytes(bytes: usize) -> Cost {
        Cost {
            flops: 0.0,
            bytes: bytes as f64,
            efficiency: 1.0,
        }
    }
}

/// What makes a kernel.
pub type Build = Box<dyn FnOnce() -> Box<dyn Kernel> + Send>;

/// A kernel that fits a node, not made yet.
pub struct Candidate {
    /// `op.dtype.isa.variant`, as `explain` shows it.
    pub name: String,
    /// What it costs.
    pub cost: Cost,
    /// What it reads and writes otherwise than row by row.
    pub layouts: Layouts,
    /// What is to be said of zeros, where it leaves them out.
    pub sparse: Option<Sparsity>,
    /// Makes it, packing weights where it needs to.
    pub build: Build,
}

/// Which values a kernel takes and makes otherwise than row by row: in [blocks](blocked) of channels, or with the two
/// middle axes of four exchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Layouts {
    /// The inputs, as bits.
    pub inputs: u64,
    /// All outputs, or output 0 where axes are exchanged.
    pub outputs: bool,
    /// Whether axes are exchanged; else channels stand in blocks.
    pub turned: bool,
}

impl Candidate {
    /// A kernel whose making takes effort, such as packing weights.
    pub fn later<K: Kernel + 'static>(
        name: impl Into<String>,
        cost: Cost,
        build: impl FnOnce() -> K + Send + 'static,
    ) -> Candidate {
        Candidate {
            name: name.into(),
            cost,
            layouts: Layouts::default(),
            sparse: None,
            build: Box::new(|| Box::new(build())),
        }
    }

    /// The same, leaving out zeros.
    pub fn sparse(self, sparsity: Sparsity) -> Candidate {
        Candidate {
            sparse: Some(sparsity),
            ..self
        }
    }

    /// The same where these inputs, and perhaps all outputs, stand in blocks of channels.
    pub fn blocked(self, inputs: &[usize], outputs: bool) -> Candidate {
        let inputs = inputs.iter().fold(0, |bits, i| bits | 1 << i);
        Candidate {
            layouts: Layouts {
                inputs,
                outputs,
                turned: false,
            },
            ..self
        }
    }

    /// The same where these inputs, and perhaps all outputs, have their two middle axes exchanged.
    pub fn turned(self, inputs: u64, outputs: bool) -> Candidate {
        Candidate {
            layouts: Layouts {
                inputs,
                outputs,
                turned: true,
            },
            ..self
        }
    }

    /// A kernel that is made without effort.
    pub fn new(name: impl Into<String>, cost: Cost, kernel: impl Kernel + 'static) -> Candidate {
        Candidate {
            name: name.into(),
            cost,
            layouts: Layouts::default(),
            sparse: None,
            build: Box::new(move || Box::new(kernel)),
        }
    }
}
