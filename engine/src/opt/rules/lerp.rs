//! Convex combinations.

use crate::expr::{Builder, Call, Ex};
use crate::ir::{DType, Tensor, ValueId};
use crate::ops::lerp::is_share;
use crate::opt::{Match, Pattern, Rule, Scope, Site, Why};

/// How far two weights may be from adding up to 1, being rounded both.
const ROUNDING: f64 = 1.2e-7;

/// `λ a + (1 - λ) b` becomes `secateur.Lerp`, in the spellings of exporters: as it stands; as `b + λ (a - b)`; as
/// `b - λ (b - a)`; by cases of `λ < 1/2`, as PyTorch writes `lerp`; and with two constants that add up to 1.
///
/// The forms with a difference are the same only where `λ` is within `[0, 1]`: beyond, the products may cancel and leave
/// an error as large as `λ`. It has to be a constant or what a sigmoid, softmax or clip makes.
pub(super) struct Lerp;

/// Of two names for one place, because a sum or product by itself is matched as the whole chain.
const ADD: &str = "Add|Add";
const MUL: &str = "Mul|Mul";

fn one_minus(x: Ex<'_>) -> Ex<'_> {
    x.constant(1.0) - x
}

fn by_cases<'a>([w, a, b]: [Ex<'a>; 3]) -> Ex<'a> {
    let d = a - b;
    let (low, high) = (b.op(ADD, &[w.op(MUL, &[d])]), a - d.op(MUL, &[one_minus(w)]));
    w.op("Less", &[w.constant(0.5)]).op("Where", &[low, high])
}

impl Rule for Lerp {
    fn name(&self) -> &'static str {
        "lerp"
    }

    fn scope(&self) -> Scope {
        Scope::Engine
    }

    /// Inputs 0 to 2 are the weight and what it mixes. The last pattern has the second weight as input 3. The parts that
    /// tell the weight come first: what an open input has been taken for is not taken back.
    fn patterns(&self) -> Vec<Pattern> {
        vec![
            Pattern::loose(3, |x| {
                one_minus(x[0]).op(MUL, &[x[2]]).op(ADD, &[x[0].op(MUL, &[x[1]])])
            }),
            Pattern::loose(3, |x| by_cases([x[0], x[1], x[2]])),
            Pattern::loose(3, |x| x[2].op(ADD, &[(x[1] - x[2]).op(MUL, &[x[0]])])),
            Pattern::loose(3, |x| x[2] - (x[2] - x[1]).op(MUL, &[x[0]])),
            Pattern::loose(4, |x| x[0].op(MUL, &[x[1]]).op(ADD, &[x[3].op(MUL, &[x[2]])])),
        ]
    }

    fn rewrite<'a>(&self, m: &Match, site: &Site, b: &'a Builder) -> Result<Ex<'a>, Why> {
        let found = match m.inputs[..] {
            [weight, x, y, other] => constants(site, [weight, x], [other, y])?,
            [weight, x, y] => [weight, x, y],
            _ => return Err(Why::NoEffect),
        };
        let float = |&v: &ValueId| site.facts.of(v).ty.dtype() == Some(DType::F32);
        if !found.iter().all(float) {
            return Err(Why::No("the element type is not float"));
        }
        if difference(m, site) && !within(site, found[0]) {
            return Err(Why::No("the weight is not known to lie between 0 and 1"));
        }
        let call = Call {
            domain: "secateur",
            op: "Lerp",
            inputs: &found.map(Some),
            attrs: vec![],
            outputs: 1,
        };
        Ok(b.at(found[0]).call(call)[0])
    }
}

/// Weight and inputs where the factors of both products are constants that add up to 1. The weight is the smaller of them,
/// from which the other follows exactly; 1 - 0.999 would be wrong in the fifth digit.
fn constants(site: &Site, a: [ValueId; 2], b: [ValueId; 2]) -> Result<[ValueId; 3], Why> {
    let weighed = |[v, w]: [ValueId; 2]| match (site.facts.konst(v), site.facts.konst(w)) {
        (Some(t), None) => Some((v, t.clone(), w)),
        (None, Some(t)) => Some((w, t.clone(), v)),
        _ => None,
    };
    let (Some((v, s, x)), Some((w, t, y))) = (weighed(a), weighed(b)) else {
        return Err(Why::NoEffect);
    };
    let (p, q) = (s.floats().unwrap_or_default(), t.floats().unwrap_or_default());
    let fit = s.dims() == t.dims() && p.iter().zip(&q).all(|(p, q)| (p + q - 1.0).abs() <= ROUNDING);
    let smaller = p.iter().zip(&q).all(|(p, q)| p <= q);
    match fit && is_share(&s) && is_share(&t) {
        true if smaller => Ok([v, x, y]),
        true => Ok([w, y, x]),
        false => Err(Why::No("the constant weights are no shares that add up to 1")),
    }
}

/// Whether the formula takes the difference of what it mixes.
fn difference(m: &Match, site: &Site) -> bool {
    let [_, a, b] = m.inputs[..] else { return false };
    let takes = |n: &crate::ir::Node| n.is("Sub") && [[a, b], [b, a]].iter().any(|p| n.inputs == p.map(Some));
    m.nodes.iter().any(|&n| takes(&site.graph[n]))
}

/// Whether `v` is known to lie between 0 and 1.
fn within(site: &Site, v: ValueId) -> bool {
    if let Some(t) = site.facts.konst(v) {
        return is_share(t);
    }
    let Some((at, _)) = site.links.producer(v) else {
        return false;
    };
    let node = &site.graph[at];
    match (node.domain(), &*node.op) {
        ("", "Sigmoid" | "HardSigmoid" | "Softmax" | "Hardmax") => true,
        ("", "Clip") => (1..3).all(|i| {
            let bound = node.inputs.get(i).copied().flatten();
            bound.is_some_and(|v| {
                site.facts
                    .konst(v)
                    .is_some_and(|t: &std::sync::Arc<Tensor>| is_share(t))
            })
        }),
        _ => false,
    }
}
