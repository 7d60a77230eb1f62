//! Cases as models.

use anyhow::{Context, Result, bail};
use secateur::engine::ir::{AttrValue, DType, Node, Opset, Type, ValueId};
use secateur::{Model, Tensor};

/// One case of a line of the table: a model around one node, and its inputs.
pub(super) struct Case {
    /// The line, with one operator.
    pub(super) line: String,
    pub(super) model: Model,
    pub(super) inputs: Vec<(String, Tensor)>,
}

/// What a line says of an input.
enum Given {
    Nothing,
    Fed(Vec<usize>),
    Constant(Tensor),
}

/// The node that is measured.
pub(super) const NODE: &str = "measured";

/// The cases of a line, each with one operator in the place of several.
pub(super) fn split(line: &str) -> impl Iterator<Item = String> {
    let (ops, rest) = line.split_once(' ').unwrap_or((line, ""));
    ops.split(',').map(move |op| format!("{op} {rest}"))
}

/// The model of `line`: its inputs are made just before the node, as in the middle of a network, and one element of the
/// result is taken, so that the result itself is no output.
///
/// # Errors
///
/// If the line is not as the table's head says.
pub(super) fn case(line: &str) -> Result<Case> {
    let mut words = line.split_whitespace();
    let op = words.next().context("an empty line")?;
    let (domain, op) = op
        .split_once('.')
        .map_or((None, op), |(domain, op)| (Some(domain), op));
    let mut model = Model {
        ir_version: Some(10),
        opsets: vec![Opset {
            domain: None,
            version: Some(OPSET),
            extra: Default::default(),
        }],
        ..Model::default()
    };
    let g = &mut model.graph;
    g.name = Some("case".into());
    let mut node = Node {
        name: Some(NODE.into()),
        domain: domain.map(Into::into),
        ..Node::new(op, vec![], vec![])
    };
    let (mut inputs, mut outputs) = (vec![], 1);
    for word in words {
        if let Some((name, value)) = word.split_once('=') {
            node.set(name, attribute(value)?);
        } else if let Some(n) = word.strip_prefix('>') {
            outputs = n.parse()?;
        } else {
            let name = format!("x{}", node.inputs.len());
            node.inputs
                .push(match given(word).with_context(|| line.to_owned())? {
                    Given::Nothing => None,
                    Given::Constant(t) => Some(g.constant(name, t)),
                    Given::Fed(dims) => {
                        let x = g.input(&*name, Type::tensor(DType::F32, dims.iter().copied()));
                        let made = g.value(format!("made{}", node.inputs.len()));
                        g.node(Node::new("Neg", vec![Some(x)], vec![Some(made)]));
                        inputs.push((name, noise(&dims)));
                        Some(made)
                    }
                });
        }
    }
    let made: Vec<ValueId> = (0..outputs).map(|i| g.value(format!("y{i}"))).collect();
    node.outputs = made.iter().copied().map(Some).collect();
    g.node(node);
    for (i, y) in made.into_iter().enumerate() {
        let one = first(&mut model, y, i)?;
        model.graph.output(one, None);
    }
    Ok(Case {
        line: line.to_owned(),
        model,
        inputs,
    })
}

const OPSET: i64 = 23;

/// The first element of `y`.
fn first(model: &mut Model, y: ValueId, i: usize) -> Result<ValueId> {
    let facts = secateur::engine::opt::infer::infer(model, &Default::default())?;
    let rank = facts.of(y).ty.dims().context("no shape")?.len();
    let g = &mut model.graph;
    let mut ints = |name: &str, x: i64| g.constant(format!("{name}{i}"), Tensor::of(&[rank], vec![x; rank]));
    let (starts, ends) = (ints("starts", 0), ints("ends", 1));
    let one = g.value(format!("first{i}"));
    let inputs = [y, starts, ends].map(Some).to_vec();
    g.node(Node::new("Slice", inputs, vec![Some(one)]));
    Ok(one)
}

fn dims(text: &str) -> Result<Vec<usize>> {
    let sizes = text.split('x').map(str::parse);
    sizes
        .collect::<Result<_, _>>()
        .with_context(|| format!("{text:?} is no shape"))
}

fn given(word: &str) -> Result<Given> {
    let rest = &word[1..];
    Ok(match word.as_bytes().first() {
        Some(b'-') => Given::Nothing,
        Some(b'w') => Given::Constant(noise(&dims(rest)?)),
        Some(b'z') => {
            let (percent, sizes) = rest.split_once(':').context("zeros without their share")?;
            Given::Constant(thinned(noise(&dims(sizes)?), percent.parse()?))
        }
        Some(b'f') => Given::Constant(Tensor::of(&[], vec![rest.parse::<f32>()?])),
        Some(b'i') => {
            let all = rest.split(',').map(str::parse).collect::<Result<Vec<i64>, _>>()?;
            Given::Constant(Tensor::of(&[all.len()], all))
        }
        _ => Given::Fed(dims(word)?),
    })
}

fn attribute(text: &str) -> Result<AttrValue> {
    let whole = || {
        text.split(',')
            .map(str::parse::<i64>)
            .collect::<Result<Vec<_>, _>>()
            .ok()
    };
    Ok(match (text.parse::<i64>(), text.parse::<f32>()) {
        (Ok(n), _) => AttrValue::Int(Some(n)),
        (_, Ok(x)) => AttrValue::Float(Some(x)),
        _ => match whole() {
            Some(all) => AttrValue::Ints(all),
            None if text.is_empty() => bail!("an attribute without a value"),
            None => AttrValue::Bytes(Some(text.as_bytes().to_vec())),
        },
    })
}

/// Numbers from -1 to 1 that no kernel can take for simple.
fn noise(dims: &[usize]) -> Tensor {
    let mut state = 0x2545_f491_u32;
    let mut next = || {
        // Marsaglia, "Xorshift RNGs", 2003.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / (1u32 << 31) as f32 - 1.0
    };
    let n = dims.iter().product();
    Tensor::of(dims, (0..n).map(|_| next()).collect::<Vec<f32>>())
}

/// The same with zeros in so many of a hundred places that follow no pattern.
fn thinned(t: Tensor, percent: u64) -> Tensor {
    // Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
    let place = |i: usize| {
        let z = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (z ^ (z >> 27)) >> 32
    };
    let all = t.elements::<f32>().unwrap_or_default().into_owned();
    let some = all
        .into_iter()
        .enumerate()
        .map(|(i, x)| match place(i).wrapping_mul(100) >> 32 {
            p if p < percent => 0.0,
            _ => x,
        });
    Tensor::of(t.dims(), some.collect::<Vec<f32>>())
}

#[cfg(test)]
mod tests {
    use super::super::table::CASES;
    use super::*;

    #[test]
    fn every_line_is_a_model_that_runs() {
        for line in CASES.iter().flat_map(|l| split(l)) {
            let case = case(&line).unwrap();
            let build = secateur::Session::builder(&case.model)
                .unoptimized()
                .threads(1)
                .build();
            let shapes: Vec<_> = case.inputs.iter().map(|(_, t)| t.dims().to_vec()).collect();
            let plan = build
                .unwrap()
                .plan(&shapes)
                .unwrap_or_else(|e| panic!("{line}: {e}"));
            assert!(plan.is_whole(), "{line}");
            let own = plan.steps().iter().find(|s| s.node == NODE);
            assert!(own.is_none_or(|s| s.kernel != "reference"), "{line}");
        }
    }

    #[test]
    fn lines_say_what_they_cannot_mean() {
        assert!(case("Relu 1xsx2").is_err());
        assert!(case("Relu").is_err());
    }
}
