//! Every operator, and the table that lists them.
//!
//! An operator is a unit struct: it holds no state, it states facts. What to conclude from the facts (fuse, prune,
//! schedule) belongs to the passes.

pub mod activation;
pub mod after;
mod along;
pub mod argmax;
pub mod arith;
pub mod attention;
pub mod batchnorm;
mod between;
pub(crate) mod binary;
pub mod bitcast;
pub mod bitwise;
pub mod boxes;
pub mod case;
pub mod cast;
pub mod classify;
pub mod clip;
pub mod col2im;
pub mod compare;
pub mod compress;
pub mod concat;
pub mod constant;
pub mod contrib;
pub mod control;
pub mod conv;
pub mod conv_transpose;
pub mod crop;
pub mod cumsum;
pub mod deform;
pub mod depth;
pub mod det;
pub mod dropout;
pub mod einsum;
pub mod elementwise;
pub mod expand;
pub(crate) mod formula;
pub mod fused;
pub mod gather;
pub mod gelu;
pub mod gemm;
mod grad;
pub mod grid;
pub mod group_norm;
pub mod hardmax;
pub mod identity;
pub mod image;
pub mod lerp;
pub mod loss;
pub mod lrn;
pub mod matmul;
pub mod ml;
pub mod nbits;
mod node;
pub mod norm;
pub mod norm_grad;
pub mod onehot;
pub mod pad;
pub mod parts;
pub mod pick;
pub mod pointwise;
pub mod pool;
pub mod pow;
pub mod prelu;
pub mod qconv;
pub mod qlinear;
pub mod qmatmul;
pub mod quant;
pub mod random;
pub mod range;
pub mod recurrent;
pub mod reduce;
pub mod reshape;
pub mod resize;
pub mod reverse_sequence;
pub mod roi;
pub mod scatter;
pub mod select;
pub mod sequence;
pub mod shape;
pub mod shape_of;
pub mod shrink;
pub mod signal;
pub mod skip;
pub mod slice;
pub mod softmax;
pub mod split;
pub mod squeeze;
#[cfg(test)]
mod tests;
pub mod text;
pub mod tfidf;
pub mod topk;
pub mod training;
pub mod transpose;
pub mod trig;
pub mod trilu;
mod turns;
pub mod unary;
pub mod unique;
pub mod unit_norm;
pub mod variadic;
mod window;

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::cpu::{Act, Candidate, act};
use crate::expr::Ex;
use crate::ir::{Datum, Dim, Tensor};
pub use case::Case;
pub use node::{Fact, Input, NodeRef, OpError};
use pointwise::Pointwise;

/// All operators, sorted by domain and name.
pub static OPS: &[&dyn Op] = &[
    &Pointwise::<unary::Abs>::new(),
    &Pointwise::<trig::Acos>::new(),
    &Pointwise::<trig::Acosh>::new(),
    &arith::Binary(arith::Add),
    &grid::AffineGrid,
    &compare::Compare(compare::And),
    &argmax::ArgMax,
    &argmax::ArgMin,
    &Pointwise::<trig::Asin>::new(),
    &Pointwise::<trig::Asinh>::new(),
    &Pointwise::<trig::Atan>::new(),
    &Pointwise::<trig::Atanh>::new(),
    &attention::Attention,
    &pool::AveragePool,
    &batchnorm::BatchNormalization,
    &random::Bernoulli,
    &bitcast::BitCast,
    &bitwise::BitShift,
    &bitwise::Bitwise(bitwise::And),
    &bitwise::Not,
    &bitwise::Bitwise(bitwise::Or),
    &bitwise::Bitwise(bitwise::Xor),
    &signal::BLACKMAN,
    &cast::Cast,
    &cast::CastLike,
    &attention::conv::CausalConvWithState,
    &Pointwise::<unary::Ceil>::new(),
    &Pointwise::<act::Celu>::new(),
    &crop::CenterCropPad,
    &clip::Clip,
    &col2im::Col2Im,
    &compress::Compress,
    &concat::Concat,
    &sequence::ConcatFromSequence,
    &constant::Constant,
    &constant::ConstantOfShape,
    &conv::Conv,
    &qconv::ConvInteger,
    &conv_transpose::ConvTranspose,
    &Pointwise::<unary::Cos>::new(),
    &Pointwise::<trig::Cosh>::new(),
    &cumsum::Cumulative::<true>,
    &cumsum::Cumulative::<false>,
    &signal::DFT,
    &deform::DeformConv,
    &depth::DepthToSpace,
    &quant::Dequantize::<false>,
    &det::Det,
    &arith::Binary(arith::Div),
    &dropout::Dropout,
    &quant::DynamicQuantizeLinear,
    &einsum::Einsum,
    &Pointwise::<act::Elu>::new(),
    &compare::Compare(compare::Equal),
    &Pointwise::<unary::Erf>::new(),
    &Pointwise::<unary::Exp>::new(),
    &expand::Expand,
    &trilu::EyeLike,
    &reshape::Flatten,
    &Pointwise::<unary::Floor>::new(),
    &recurrent::GRU,
    &gather::Gather,
    &gather::GatherElements,
    &gather::GatherND,
    &Pointwise::<activation::Gelu>::new(),
    &gemm::Gemm,
    &pool::GLOBAL_AVERAGE,
    &pool::GlobalLpPool,
    &pool::GLOBAL_MAX,
    &compare::Compare(compare::Greater),
    &compare::Compare(compare::GreaterOrEqual),
    &grid::GridSample,
    &group_norm::GroupNormalization,
    &signal::HAMMING,
    &signal::HANN,
    &Pointwise::<act::HardSigmoid>::new(),
    &Pointwise::<act::HardSwish>::new(),
    &hardmax::Hardmax,
    &identity::Identity,
    &control::If,
    &image::ImageDecoder,
    &group_norm::InstanceNormalization,
    &classify::IsInf,
    &classify::IsNaN,
    &lrn::LRN,
    &recurrent::LSTM,
    &norm::LayerNormalization,
    &Pointwise::<act::LeakyRelu>::new(),
    &compare::Compare(compare::Less),
    &compare::Compare(compare::LessOrEqual),
    &attention::linear::LinearAttention,
    &Pointwise::<unary::Log>::new(),
    &softmax::Softmax::<true>,
    &control::Loop,
    &unit_norm::LpNormalization,
    &pool::LpPool,
    &matmul::MatMul,
    &qmatmul::MatMulInteger,
    &variadic::Variadic(variadic::Max),
    &pool::MaxPool,
    &roi::MaxRoiPool,
    &pool::MaxUnpool,
    &variadic::Variadic(variadic::Mean),
    &unit_norm::MeanVarianceNormalization,
    &signal::MelWeightMatrix,
    &variadic::Variadic(variadic::Min),
    &Pointwise::<act::Mish>::new(),
    &arith::Mod,
    &arith::Binary(arith::Mul),
    &random::Multinomial,
    &Pointwise::<unary::Neg>::new(),
    &loss::NegativeLogLikelihoodLoss,
    &boxes::NonMaxSuppression,
    &onehot::NonZero,
    &classify::Not,
    &onehot::OneHot,
    &sequence::Optional,
    &sequence::OptionalGetElement,
    &sequence::OptionalHasElement,
    &compare::Compare(compare::Or),
    &prelu::PRelu,
    &pad::Pad,
    &pow::Pow,
    &qconv::QLinearConv,
    &qmatmul::QLinearMatMul,
    &quant::Quantize::<false>,
    &norm::RMSNormalization,
    &recurrent::RNN,
    &random::NORMAL,
    &random::NORMAL_LIKE,
    &random::UNIFORM,
    &random::UNIFORM_LIKE,
    &range::Range,
    &Pointwise::<unary::Reciprocal>::new(),
    &reduce::Reduce(reduce::L1),
    &reduce::Reduce(reduce::L2),
    &reduce::Reduce(reduce::LogSum),
    &reduce::Reduce(reduce::LogSumExp),
    &reduce::Reduce(reduce::Max),
    &reduce::Reduce(reduce::Mean),
    &reduce::Reduce(reduce::Min),
    &reduce::Reduce(reduce::Prod),
    &reduce::Reduce(reduce::Sum),
    &reduce::Reduce(reduce::SumSquare),
    &text::RegexFullMatch,
    &Pointwise::<act::Relu>::new(),
    &reshape::Reshape,
    &resize::Resize,
    &reverse_sequence::ReverseSequence,
    &roi::RoiAlign,
    &attention::rotary::RotaryEmbedding,
    &Pointwise::<unary::Round>::new(),
    &signal::STFT,
    &control::Scan,
    &scatter::Scatter,
    &scatter::ScatterElements,
    &scatter::ScatterND,
    &Pointwise::<act::Selu>::new(),
    &sequence::SequenceAt,
    &sequence::SequenceConstruct,
    &sequence::SequenceEmpty,
    &sequence::SequenceErase,
    &sequence::SequenceInsert,
    &sequence::SequenceLength,
    &control::SequenceMap,
    &shape_of::ShapeOf,
    &shrink::Shrink,
    &Pointwise::<act::Sigmoid>::new(),
    &Pointwise::<unary::Sign>::new(),
    &skip::SimplifiedLayerNormalization,
    &Pointwise::<unary::Sin>::new(),
    &Pointwise::<trig::Sinh>::new(),
    &shape_of::Size,
    &slice::Slice,
    &softmax::Softmax::<false>,
    &loss::SoftmaxCrossEntropyLoss,
    &Pointwise::<act::Softplus>::new(),
    &Pointwise::<act::Softsign>::new(),
    &depth::SpaceToDepth,
    &split::Split,
    &sequence::SplitToSequence,
    &Pointwise::<unary::Sqrt>::new(),
    &squeeze::Squeeze,
    &text::StringConcat,
    &text::StringNormalizer,
    &text::StringSplit,
    &arith::Binary(arith::Sub),
    &variadic::Variadic(variadic::Sum),
    &Pointwise::<act::Silu>::new(),
    &Pointwise::<trig::Tan>::new(),
    &Pointwise::<act::Tanh>::new(),
    &attention::scatter::TensorScatter,
    &tfidf::TfIdfVectorizer,
    &Pointwise::<act::ThresholdedRelu>::new(),
    &expand::Tile,
    &topk::TopK,
    &transpose::Transpose,
    &trilu::Trilu,
    &unique::Unique,
    &squeeze::Unsqueeze,
    &resize::Upsample,
    &select::Where,
    &compare::Compare(compare::Xor),
    &ml::arrays::ArrayFeatureExtractor,
    &ml::arrays::Binarizer,
    &ml::maps::CastMap,
    &ml::labels::CategoryMapper,
    &ml::maps::DictVectorizer,
    &ml::arrays::FeatureVectorizer,
    &ml::arrays::Imputer,
    &ml::labels::LabelEncoder,
    &ml::linear::LinearClassifier,
    &ml::linear::LinearRegressor,
    &ml::arrays::Normalizer,
    &ml::arrays::OneHotEncoder,
    &ml::svm::SVMClassifier,
    &ml::svm::SVMRegressor,
    &ml::arrays::Scaler,
    &ml::tree::TreeEnsemble,
    &ml::tree::TreeEnsembleClassifier,
    &ml::tree::TreeEnsembleRegressor,
    &ml::maps::ZipMap,
    &attention::flex::FlexAttention,
    &training::Adagrad,
    &training::Adam,
    &training::Momentum,
    &attention::multi::Projected,
    &gelu::BiasGelu,
    &fused::BiasSoftmax,
    &attention::conv::Causal,
    &conv_transpose::DynamicPads,
    &attention::multi::MaskedStep,
    &quant::Dequantize::<true>,
    &qlinear::LSTM,
    &qlinear::DYNAMIC_MATMUL,
    &skip::EmbedLayerNormalization,
    &gelu::FastGelu,
    &conv::FusedConv,
    &fused::FusedGemm,
    &fused::FusedMatMul,
    &nbits::GatherBlockQuantized,
    &gelu::Gelu,
    &attention::group::GroupQuery,
    &det::Inverse,
    &qlinear::MATMUL_TO_FLOAT,
    &nbits::MatMulNBits,
    &attention::multi::MultiHead,
    &qlinear::NHWC_MAX_POOL,
    &contrib::Pad,
    &qlinear::ATTENTION,
    &qlinear::GEMM,
    &qlinear::ADD,
    &qlinear::AVERAGE_POOL,
    &qlinear::CONCAT,
    &qlinear::GLOBAL_AVERAGE_POOL,
    &qlinear::LEAKY_RELU,
    &qlinear::MUL,
    &qlinear::SIGMOID,
    &qlinear::SOFTMAX,
    &quant::Quantize::<true>,
    &gelu::QuickGelu,
    &attention::rotary::Rotary,
    &skip::SkipLayerNormalization,
    &skip::SkipSimplifiedLayerNormalization,
    &fused::SparseToDenseMatMul,
    &contrib::Unique,
    &after::After,
    &attention::spread::Spread,
    &pool::AveragePoolGrad,
    &batchnorm::BatchNormalizationGrad,
    &conv::Fused,
    &conv::GradW,
    &elementwise::Elementwise,
    &gemm::Fused,
    &norm_grad::LayerNormalizationGrad,
    &lerp::Lerp,
    &matmul::Fused,
    &pool::MaxPoolGrad,
    &recurrent::ROUNDED_LSTM,
];

/// The newest version of ONNX's own operators that is known here.
pub const OPSET: i64 = 27;

/// The full name of an operator. Names sort by domain, then name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpName {
    /// The domain; `""` is ONNX's own.
    pub domain: &'static str,
    /// The name within the domain.
    pub name: &'static str,
}

/// The name of one of ONNX's own operators.
pub const fn onnx(name: &'static str) -> OpName {
    OpName { domain: "", name }
}

/// The name of an operator of ONNX's classical machine learning.
pub const fn ml(name: &'static str) -> OpName {
    OpName {
        domain: "ai.onnx.ml",
        name,
    }
}

/// The name of one of the operators that ONNX Runtime adds and exporters emit. Each has one meaning only.
pub const fn microsoft(name: &'static str) -> OpName {
    OpName {
        domain: "com.microsoft",
        name,
    }
}

/// The name of one of secateur's private operators. Each that a rewrite makes has a body in ONNX's own.
pub const fn private(name: &'static str) -> OpName {
    OpName {
        domain: "secateur",
        name,
    }
}

/// The version of ONNX's own operators by which the body of an operator of `domain` is written, which is read by version
/// `opset` of its domain.
///
/// Domains with versions of their own do not say it: their bodies use what means the same in all versions that broadcast
/// (from 7 on).
pub fn body_opset(domain: &str, opset: i64) -> i64 {
    match domain {
        "" | "com.microsoft" | "secateur" => opset,
        _ => OPSET,
    }
}

/// How an operator's axes hang together, as an einsum equation would say it.
///
/// Layout changes, slicing, per-channel quantisation, structured pruning and cost follow from this one fact.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Axes(pub Vec<Tie>);

/// One letter of the equation: axes that have the same size for one reason.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tie {
    /// The axis of output 0; `None` if the letter is summed over.
    pub output: Option<usize>,
    /// Pairs of input and axis.
    pub inputs: Vec<(usize, usize)>,
}

/// Algebra and memory behaviour of an operator.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Laws {
    /// Equal inputs may give different results: neither folded, merged nor dropped.
    pub impure: bool,
    /// The first two inputs may change places.
    pub commutes: bool,
    /// `(a∘b)∘c = a∘(b∘c)`, up to rounding.
    pub associates: bool,
    /// It takes or makes values that are no tensors, or runs subgraphs: [`Op::apply`] is what it is.
    pub any: bool,
    /// Output 0 has the elements of input 0 in the same order, so that no copy is needed.
    pub view: bool,
    /// Output 0 is input 0 where both are of one type.
    pub still: bool,
    /// Each element of an output follows from those at its place in the inputs, which are broadcast.
    pub elementwise: bool,
    /// It has kernels for images in blocks of channels, which are faster than others.
    pub blocks: bool,
    /// Inputs whose memory output 0 may take over where both have the same size.
    pub in_place: &'static [usize],
}

/// Runs the subgraph that is the attribute of the given name on values for its inputs.
pub type Bodies<'r> = &'r mut dyn FnMut(&str, Vec<Datum>) -> Result<Vec<Datum>, OpError>;

/// Expressions for the inputs or outputs of a node; `None` where one is left out.
pub type Exs<'e, 'a> = &'e [Option<Ex<'a>>];

/// The gradients of the inputs of a node; see [`Op::vjp`].
pub type Grads<'a> = Option<Vec<Option<Ex<'a>>>>;

/// What an operator is. Everything but the name has a default.
pub trait Op: Sync {
    /// Domain and name.
    fn name(&self) -> OpName;

    /// The opsets at which its meaning changed, ascending. The first is where it came to be.
    fn since(&self) -> &'static [u16] {
        &[1]
    }

    /// Types of all outputs, from what is known of the inputs.
    ///
    /// The default is one output of the first input's element type and the inputs' broadcast shape.
    ///
    /// # Errors
    ///
    /// If the inputs do not fit the operator or each other.
    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        shape::elementwise(n)
    }

    /// Which axes run along together and which are summed over.
    ///
    /// The default is elementwise with trailing axes aligned; `None` where an equation cannot say it.
    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        shape::aligned(n)
    }

    /// Multiply-adds, where they are not the product of the sizes of all letters of the equation; a size may be unknown.
    fn macs(&self, _n: &NodeRef) -> Option<Dim> {
        None
    }

    /// Algebra and memory behaviour.
    fn laws(&self) -> Laws {
        Laws::default()
    }

    /// The operator in terms of simpler ones; `None` for a primitive.
    ///
    /// This is the definition: what the operator is recognised by, what it expands to, and how it is run where nothing
    /// better is given. A pattern is recorded with a node that has no attributes.
    fn body<'a>(&self, _n: &NodeRef, _x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        None
    }

    /// What is differentiated where the operator has no gradient of its own: its body, or another form, which may run subgraphs.
    fn spelled<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        self.body(n, x)
    }

    /// The number of inputs that the body is recognised with.
    fn arity(&self) -> usize {
        1
    }

    /// Reference result of a primitive, written to be obviously right. `x` are the inputs, `None` where left out.
    ///
    /// # Errors
    ///
    /// If the inputs do not fit, or the operator has a body instead.
    fn eval(&self, _n: &NodeRef, _x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        Err(OpError::no_reference())
    }

    /// Reference result of an operator that takes or makes values that are no tensors, or runs subgraphs; `None` where
    /// the operator only knows tensors, and [`Op::eval`] or [`Op::body`] says what it is.
    ///
    /// # Errors
    ///
    /// If the inputs do not fit, or a subgraph fails.
    fn apply(
        &self,
        _n: &NodeRef,
        _x: &[Option<&Datum>],
        _bodies: Bodies,
    ) -> Option<Result<Vec<Datum>, OpError>> {
        None
    }

    /// The gradients of the inputs, from inputs `x`, outputs `y` and the gradients `dy` of the outputs (vector-Jacobian
    /// product); `None` where the operator has no rule, and its [body](Op::body) is differentiated instead.
    ///
    /// An entry is `None` where an input has no gradient: it is no float, is left out, or moves the outputs nowhere (as in
    /// `Floor`). Of `y` those are `None` that the node does not make, of `dy` those on which nothing depends. Where inputs
    /// are broadcast, a gradient may have the shape of the output: the caller sums it. The rule is written in the operators
    /// of version [`OPSET`], and so is the node.
    fn vjp<'a>(&self, _n: &NodeRef, _x: Exs<'_, 'a>, _y: Exs<'_, 'a>, _dy: Exs<'_, 'a>) -> Grads<'a> {
        None
    }

    /// The function that an activation with constant parameters applies to every element of its first input.
    fn activation(&self, _n: &NodeRef) -> Option<Act> {
        None
    }

    /// Kernels for a node whose shapes are all known, best guess first. The node has been [lowered](NodeRef::lowered).
    fn cpu(&self, _n: &NodeRef) -> Vec<Candidate> {
        vec![]
    }

    /// Examples.
    fn cases(&self) -> Vec<Case> {
        vec![]
    }
}

/// The operator `name` of `domain` (`""` is ONNX's own).
pub fn find(domain: &str, name: &str) -> Option<&'static dyn Op> {
    static PLACES: OnceLock<HashMap<(&str, &str), usize>> = OnceLock::new();
    let all = || {
        OPS.iter()
            .enumerate()
            .map(|(i, op)| ((op.name().domain, op.name().name), i))
    };
    let at = PLACES.get_or_init(|| all().collect()).get(&(domain, name))?;
    OPS.get(*at).copied()
}
