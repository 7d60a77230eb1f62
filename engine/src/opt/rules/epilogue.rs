//! What follows a convolution or a matrix product, done by its kernel while the result is still in registers.

use crate::cpu::{Act, Post};
use crate::expr::{Builder, Call, Ex};
use crate::ir::{Attr, AttrValue, DType, Dim, Node, NodeId, ValueId};
use crate::ops;
use crate::opt::{Match, Pattern, Rule, Scope, Site, Why};

const HEAVY: &str = "Conv|Gemm|MatMul|secateur.Conv|secateur.Gemm|secateur.MatMul";

const ACTIVATIONS: &str = "Celu|Clip|Elu|Gelu|HardSigmoid|HardSwish|LeakyRelu|Mish|Relu|Selu|Sigmoid|Softplus|Swish|Tanh|ThresholdedRelu";

/// Index of the residual among the inputs of the private operators; the bias comes before it.
const RESIDUAL: usize = 3;

/// `MatMul(x, w) + b` with a row `b` becomes the private `MatMul`.
pub(super) struct LinearBias;

impl Rule for LinearBias {
    fn name(&self) -> &'static str {
        "linear-bias"
    }

    fn scope(&self) -> Scope {
        Scope::Engine
    }

    fn patterns(&self) -> Vec<Pattern> {
        vec![Pattern::loose(3, |x| {
            x[0].op("MatMul|secateur.MatMul", &[x[1]]) + x[2]
        })]
    }

    fn rewrite<'a>(&self, m: &Match, site: &Site, b: &'a Builder) -> Result<Ex<'a>, Why> {
        let node = heavy(m, site)?;
        let bias = site
            .facts
            .of(m.inputs[2])
            .ty
            .dims()
            .ok_or(Why::No("the bias has no known shape"))?;
        let columns = site
            .facts
            .of(m.inputs[1])
            .ty
            .shape()
            .and_then(|s| s.last())
            .and_then(Dim::size);
        let long = site
            .facts
            .of(m.inputs[1])
            .ty
            .shape()
            .is_some_and(|s| s.len() >= 2);
        if bias.len() != 1 || columns != Some(bias[0]) || !long {
            return Err(Why::No("what is added is no row of one element a column"));
        }
        if ends(node) || node.inputs.len() > 2 {
            return Err(Why::No("the product has a bias already"));
        }
        floats(site, m)?;
        let inputs = [m.inputs[0], m.inputs[1], m.inputs[2]].map(Some);
        Ok(fused(b, node, &inputs, node.attrs.clone()))
    }
}

/// `Conv(x, w, b) + z`, and the same with `Gemm` and `MatMul`, where `z` has the shape of the result.
pub(super) struct Residual;

impl Rule for Residual {
    fn name(&self) -> &'static str {
        "residual"
    }

    fn scope(&self) -> Scope {
        Scope::Engine
    }

    fn patterns(&self) -> Vec<Pattern> {
        vec![Pattern::loose(3, |x| x[0].op(HEAVY, &[x[1]]) + x[2])]
    }

    fn rewrite<'a>(&self, m: &Match, site: &Site, b: &'a Builder) -> Result<Ex<'a>, Why> {
        let node = heavy(m, site)?;
        if ends(node) || node.inputs.get(RESIDUAL).is_some_and(Option::is_some) {
            return Err(Why::No("the kernel has an activation or a residual already"));
        }
        floats(site, m)?;
        let out = node.outputs[0].ok_or(Why::NoEffect)?;
        if m.inputs[2] == out {
            return Err(Why::No("what is added is the result itself"));
        }
        let (y, z) = (
            site.facts.of(out).ty.shape(),
            site.facts.of(m.inputs[2]).ty.shape(),
        );
        let same = |(a, b): (&Dim, &Dim)| a.same(b);
        match (y, z) {
            (Some(y), Some(z)) if y.len() == z.len() && y.iter().zip(z).all(same) => {}
            _ => return Err(Why::No("what is added is not surely of the same shape")),
        }
        if site.facts.konst(m.inputs[2]).is_some() {
            return Err(Why::No("what is added is constant"));
        }
        let mut inputs = node.inputs.clone();
        inputs.resize(RESIDUAL, None);
        inputs.push(Some(m.inputs[2]));
        Ok(fused(b, node, &inputs, node.attrs.clone()))
    }
}

/// An activation of a convolution or a matrix product.
pub(super) struct Activation;

impl Rule for Activation {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn scope(&self) -> Scope {
        Scope::Engine
    }

    fn patterns(&self) -> Vec<Pattern> {
        vec![Pattern::loose(2, |x| {
            x[0].op(HEAVY, &[x[1]]).op(ACTIVATIONS, &[])
        })]
    }

    fn rewrite<'a>(&self, m: &Match, site: &Site, b: &'a Builder) -> Result<Ex<'a>, Why> {
        let node = heavy(m, site)?;
        if ends(node) {
            return Err(Why::No("the kernel has an activation already"));
        }
        floats(site, m)?;
        let root = &site.graph[m.nodes[0]];
        let n = site.facts.view(root, site.opset.max(first(root)));
        let op = ops::find(root.domain(), &root.op).ok_or(Why::NoEffect)?;
        let act = op.activation(&n).and_then(Act::name);
        let (name, params) = act.ok_or(Why::No("the activation's parameters are not constant"))?;
        if !n.unread().is_empty() {
            return Err(Why::No("the activation has an attribute that is not understood"));
        }
        let mut attrs = node.attrs.clone();
        attrs.push(Attr::new("activation", name));
        attrs.push(Attr::new("params", params));
        Ok(fused(b, node, &node.inputs, attrs))
    }
}

/// A factor of, or a number added to, the activation that a convolution or a matrix product ends in.
pub(super) struct Scaled;

impl Rule for Scaled {
    fn name(&self) -> &'static str {
        "scaled"
    }

    fn scope(&self) -> Scope {
        Scope::Engine
    }

    fn patterns(&self) -> Vec<Pattern> {
        // Of two names for one place, because a sum or product by itself is matched as the whole chain.
        let after = |op: &'static str| Pattern::loose(3, move |x| x[0].op(HEAVY, &[x[1]]).op(op, &[x[2]]));
        vec![after("Mul|Mul"), after("Add|Add")]
    }

    fn rewrite<'a>(&self, m: &Match, site: &Site, b: &'a Builder) -> Result<Ex<'a>, Why> {
        let node = heavy(m, site)?;
        if node.attr("activation").is_none() {
            return Err(Why::No("there is no activation before"));
        }
        floats(site, m)?;
        let rank = |v: ValueId| site.facts.of(v).ty.shape().map(|s| s.len());
        let out = node.outputs[0].ok_or(Why::NoEffect)?;
        if rank(m.inputs[2]) > rank(out) || rank(out).is_none() {
            return Err(Why::No("the result may have more axes"));
        }
        let konst = site.facts.konst(m.inputs[2]);
        let numbers = konst.and_then(|t| t.floats()).unwrap_or_default();
        let &[number] = &numbers[..] else {
            return Err(Why::No("what it is combined with is no single constant"));
        };
        let of = |name: &str, default| match node.attr(name) {
            Some(&AttrValue::Float(Some(x))) => f64::from(x),
            _ => default,
        };
        let (scale, shift) = (of("scale", 1.0), of("shift", 0.0));
        let (scale, shift) = match &*site.graph[m.nodes[0]].op {
            "Mul" => (scale * number, shift * number),
            _ => (scale, shift + number),
        };
        if !scale.is_finite() || !shift.is_finite() {
            return Err(Why::No("a number is not finite"));
        }
        let own = |name: &str| ["scale", "shift"].contains(&name);
        let mut attrs = node.attrs.clone();
        attrs.retain(|a| !own(&a.name));
        attrs.push(Attr::new("scale", scale as f32));
        attrs.push(Attr::new("shift", shift as f32));
        Ok(fused(b, node, &node.inputs, attrs))
    }
}

/// Whether the kernel has anything after its sum already.
fn ends(node: &Node) -> bool {
    Post::ATTRIBUTES.iter().any(|name| node.attr(name).is_some())
}

/// The version that first had the node's operator.
fn first(node: &Node) -> i64 {
    let op = ops::find(node.domain(), &node.op);
    op.and_then(|op| op.since().first().copied()).unwrap_or(1).into()
}

/// The convolution or product of the match.
fn heavy<'a>(m: &Match, site: &'a Site) -> Result<&'a Node, Why> {
    let is_heavy = |n: &&NodeId| ["Conv", "Gemm", "MatMul"].contains(&&*site.graph[**n].op);
    m.nodes
        .iter()
        .find(is_heavy)
        .map(|&n| &site.graph[n])
        .ok_or(Why::NoEffect)
}

fn floats(site: &Site, m: &Match) -> Result<(), Why> {
    match m
        .inputs
        .iter()
        .all(|&v| site.facts.of(v).ty.dtype() == Some(DType::F32))
    {
        true => Ok(()),
        false => Err(Why::No("the element type is not float")),
    }
}

/// The private operator that does what `node` does, and more.
fn fused<'a>(b: &'a Builder, node: &Node, inputs: &[Option<ValueId>], attrs: Vec<Attr>) -> Ex<'a> {
    let call = Call {
        domain: "secateur",
        op: &node.op,
        inputs,
        attrs,
        outputs: 1,
    };
    let any = b.at(inputs.iter().flatten().next().copied().unwrap_or(ValueId(0)));
    any.call(call)[0]
}
