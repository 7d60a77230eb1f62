//! Blocks and layers left out as a whole, by their number, by what they cost, and by the time that they take.

use std::sync::Arc;

use secateur_compress::budget::{self, Costs, Quantity};
use secateur_compress::groups::{Of, Sizes};
use secateur_compress::trim::{First, Frame, Rank, Trim, Unit};
use secateur_compress::{Change, Effort, Piece, Plan, Scope, apply, apply_with, layers};
use secateur_engine::Model;
use secateur_engine::ir::{Bytes, Data, NodeId};
use secateur_engine::plan::Rates;
use secateur_engine::{Tensor, onnx};

use super::archs::arch;
use super::sketch::{Sketch, elements, list, outputs};

fn trim(piece: Piece, share: f64, of: Of) -> Trim {
    Trim {
        piece,
        share,
        of,
        scope: Scope::Layer,
        round_to: 8,
        keep: vec![],
    }
}

/// `model` after `trim` in one go, and the share that is left.
fn cut(model: &Model, trim: &Trim, frame: &Frame) -> (Model, Plan, f64) {
    let first = trim.first(model, frame).unwrap();
    let plan = trim
        .decide(model, (trim.share, &first), &Rank::Squares, frame)
        .unwrap();
    let mut new = model.clone();
    apply_with(&plan, &mut new, &Effort::default(), None).unwrap();
    let left = trim.left(&new, &first, frame).unwrap();
    (new, plan, left)
}

/// Sets every element of the constant `name` by its place.
fn set(model: &mut Model, name: &str, of: impl Fn(usize) -> f32) {
    let v = model.graph.find(name).unwrap();
    let konst = model.graph.values[v.0 as usize].konst.as_mut().unwrap();
    let bytes = (0..konst.tensor.len()).flat_map(|i| of(i).to_le_bytes());
    let data = Data::Bytes(Bytes::new(bytes.collect::<Vec<u8>>()));
    *konst = konst.with(Tensor::new(konst.tensor.dtype(), konst.tensor.dims().to_vec(), data).unwrap());
}

const SMALL: &[(&str, &str)] = &[("layers", "3"), ("hidden", "48"), ("heads", "4"), ("ffn", "96")];

#[test]
fn attention_and_what_follows_it_are_one_layer() {
    for (name, more, expected) in [
        ("bert-base", &[("vocabulary", "40")][..], 3),
        ("vit", &[], 3),
        ("transformer-encoder", &[], 2),
        ("transformer-decoder", &[], 2),
    ] {
        let set = [if expected == 3 { SMALL } else { &[] }, more].concat();
        let model = arch(name, &set);
        let found = layers(&model, &Sizes::new()).unwrap();
        assert_eq!(found.len(), expected, "{name}: {found:?}");
        let nodes = found[0].nodes.len();
        assert!(found.iter().all(|l| l.nodes.len().abs_diff(nodes) <= 1), "{name}");
        assert!(found.windows(2).all(|w| w[0].value == w[1].stays), "{name}");
        for layer in &found {
            let mut new = model.clone();
            apply(&Plan(vec![Change::Skip(layer.skip())]), &mut new).unwrap();
            assert_eq!(
                new.graph.order.len(),
                model.graph.order.len() - layer.nodes.len() + usize::from(is_output(&model, &layer.value)),
                "{name}"
            );
            assert_eq!(elements(&new), elements(&model) - layer.parameters, "{name}");
            assert_eq!(layers(&new, &Sizes::new()).unwrap().len(), expected - 1, "{name}");
            let bytes = onnx::to_bytes(&new);
            let read = onnx::parse(Bytes::new(bytes.clone()), None).unwrap();
            assert_eq!(onnx::to_bytes(&read), bytes);
            assert!(
                outputs(&new, &Sizes::new())
                    .iter()
                    .flatten()
                    .all(|x| x.is_finite())
            );
        }
    }
}

/// Layers that follow each other go together, whatever the order in which the plan names them.
#[test]
fn neighbouring_layers_go_together() {
    for name in ["vit", "bert-base"] {
        let model = arch(name, SMALL);
        let found = layers(&model, &Sizes::new()).unwrap();
        let skips = |at: &[usize]| {
            let changes = at.iter().map(|&i| Change::Skip(found[i].skip()));
            let mut new = model.clone();
            apply(&Plan(changes.collect()), &mut new).unwrap();
            new
        };
        let two = skips(&[0, 1]);
        assert_eq!(two, skips(&[1, 0]), "{name}");
        let parameters = found[0].parameters + found[1].parameters;
        assert_eq!(elements(&two), elements(&model) - parameters, "{name}");
        // One after the other is the same.
        let mut one = skips(&[0]);
        let next = layers(&one, &Sizes::new()).unwrap();
        apply(&Plan(vec![Change::Skip(next[0].skip())]), &mut one).unwrap();
        assert_eq!(
            outputs(&one, &Sizes::new()),
            outputs(&two, &Sizes::new()),
            "{name}"
        );
    }
}

fn is_output(model: &Model, name: &str) -> bool {
    let g = &model.graph;
    g.outputs.iter().any(|p| &*g[p.value].name == name)
}

/// Where a layer adds nothing, leaving it out changes nothing.
#[test]
fn a_layer_that_adds_nothing_goes_without_a_trace() {
    let mut model = arch("vit", SMALL);
    let found = layers(&model, &Sizes::new()).unwrap();
    let dead = found[1].clone();
    for name in &dead.constants {
        set(&mut model, name, |_| 0.0);
    }
    let (new, plan, left) = cut(&model, &trim(Piece::Layer, 0.34, Of::Channels), &Frame::default());
    assert_eq!(plan, Plan(vec![Change::Skip(dead.skip())]));
    assert!((left - 2.0 / 3.0).abs() < 1e-12);
    let [a, b] = [&model, &new].map(|m| outputs(m, &Sizes::new()).concat());
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?} {b:?}");
}

/// Three convolutions of four channels, of which the second hands on what it gets.
fn convolutions() -> Model {
    let mut s = Sketch::new(21);
    let mut at = s.input("x", &[1, 4, 8, 8]);
    for i in 0..3 {
        let w = match i {
            1 => {
                let place = |i: usize| f32::from(u8::from(i % 9 == 4 && i / 36 == i / 9 % 4));
                s.constant("dirac", Tensor::of(&[4, 4, 3, 3], (0..144).map(place).collect()))
            }
            _ => s.weight(&[4, 4, 3, 3]),
        };
        let pads = ("pads", list(&[1, 1, 1, 1]));
        at = s.op("Conv", &[at, w], &[pads]);
        at = s.op("Relu", &[at], &[]);
        if i == 1 {
            let two = [("kernel_shape", list(&[2, 2])), ("strides", list(&[2, 2]))];
            at = s.op("MaxPool", &[at], &two);
        }
    }
    let w = s.weight(&[5, 4, 1, 1]);
    at = s.op("Conv", &[at, w], &[]);
    s.done(&[at])
}

#[test]
fn a_plain_layer_goes_up_to_where_its_shape_ends() {
    let model = convolutions();
    let found = layers(&model, &Sizes::new()).unwrap();
    let nodes: Vec<usize> = found.iter().map(|l| l.nodes.len()).collect();
    // The pooling behind the second stays; the last convolution makes other channels.
    assert_eq!(nodes, [2, 2, 2]);
    assert!(found[1].score < 1e-6 && found[0].score > 0.5, "{found:?}");
    let (new, _, _) = cut(&model, &trim(Piece::Layer, 0.3, Of::Channels), &Frame::default());
    assert_eq!(outputs(&model, &Sizes::new()), outputs(&new, &Sizes::new()));
    assert_eq!(new.graph.order.len(), model.graph.order.len() - 2);
    // Layers inside of residual blocks are the blocks' own; where a projection takes the place of what comes in there is none.
    let resnet = layers(&arch("resnet20", &[]), &Sizes::new()).unwrap();
    assert_eq!(resnet.len(), 2, "{resnet:?}");
    let error = trim(Piece::Layer, 0.5, Of::Channels)
        .first(&arch("lenet5", &[]), &Frame::default())
        .unwrap_err();
    assert!(
        error.to_string().contains("residual blocks are pattern block"),
        "{error}"
    );
}

#[test]
fn blocks_go_by_what_they_cost() {
    let model = arch("resnet20", &[]);
    let units = Unit::all(&model, Piece::Block, &Sizes::new()).unwrap();
    for of in [Of::Parameters, Of::Macs] {
        for share in [0.1, 0.4, 0.6] {
            let (_, plan, left) = cut(&model, &trim(Piece::Block, share, of), &Frame::default());
            assert!(left <= 1.0 - share + 1e-9, "{of:?} {share}: {left}");
            // Without any of those that go it would be too little.
            let first = trim(Piece::Block, share, of)
                .first(&model, &Frame::default())
                .unwrap();
            for change in &plan.0 {
                let unit = units.iter().find(|u| u.change == *change).unwrap();
                let cost = if of == Of::Macs {
                    unit.macs
                } else {
                    unit.parameters
                };
                assert!(left + cost as f64 / first.whole > 1.0 - share, "{of:?} {share}");
            }
        }
    }
}

const IMAGES: &[(&str, &str)] = &[("channels", "3"), ("height", "32"), ("width", "32")];

/// What times are predicted by.
fn timed(rates: &Arc<Rates>) -> budget::Sizes<'_> {
    budget::Sizes {
        shapes: vec![vec![1, 3, 32, 32]],
        threads: 1,
        rates,
    }
}

#[test]
fn what_goes_by_time_saves_as_much_as_is_asked() {
    let model = arch("resnet20", IMAGES);
    let rates = Arc::<Rates>::default();
    let times = timed(&rates);
    let frame = Frame {
        times: Some(&times),
        ..Frame::default()
    };
    let ms = |m: &Model| Costs::new(m, Quantity::Ms, &times).unwrap().whole;
    for piece in [Piece::Channel, Piece::Structured, Piece::Block] {
        let how = Trim {
            scope: Scope::Global,
            ..trim(piece, 0.3, Of::Ms)
        };
        let (new, plan, left) = cut(&model, &how, &frame);
        assert!(ms(&new) <= 0.7 * ms(&model), "{piece}: {left}");
        assert!((left - ms(&new) / ms(&model)).abs() < 1e-9, "{piece}");
        // No more goes than is needed, as far as steps are small enough.
        assert!(left > 0.45, "{piece}: {left}");
        let blocks = plan.0.iter().filter(|c| matches!(c, Change::Bypass(_))).count();
        assert_eq!(blocks == 0, piece == Piece::Channel, "{piece}: {plan}");
        let again = cut(&model, &how, &frame);
        assert_eq!(plan, again.1);
        // What is gone counts for the next round.
        let first: First = how.first(&model, &frame).unwrap();
        let none = how.decide(&new, (0.3, &first), &Rank::Squares, &frame).unwrap();
        assert_eq!(none, Plan::default());
    }
    let lost = trim(Piece::Channel, 0.3, Of::Ms)
        .first(&model, &Frame::default())
        .unwrap_err();
    assert!(lost.to_string().contains("shapes of the inputs"), "{lost}");
}

/// A block that adds next to nothing is the first to go, whatever it costs to leave channels out instead. (What adds nothing at all is left
/// out of plans, so that it saves nothing.)
#[test]
fn a_block_that_does_little_goes_before_channels() {
    let mut model = arch("resnet20", IMAGES);
    let units = Unit::all(&model, Piece::Block, &Sizes::new()).unwrap();
    let dead = &units[2];
    for name in dead
        .constants
        .iter()
        .filter(|n| bn_scale(&arch("resnet20", IMAGES), n))
    {
        set(&mut model, name, |_| 1e-3);
    }
    let rates = Arc::<Rates>::default();
    let times = timed(&rates);
    let frame = Frame {
        times: Some(&times),
        ..Frame::default()
    };
    let how = Trim {
        scope: Scope::Global,
        keep: vec![units[0].name.clone()],
        ..trim(Piece::Structured, 0.05, Of::Ms)
    };
    let (_, plan, _) = cut(&model, &how, &frame);
    assert_eq!(plan, Plan(vec![dead.change.clone()]));
    let wrong = Trim {
        keep: vec!["nothing*".into()],
        ..how
    };
    let error = wrong.first(&model, &frame).unwrap_err();
    assert!(error.to_string().contains("fits no"), "{error}");
}

/// Whether `name` is the scale of a normalisation.
fn bn_scale(model: &Model, name: &str) -> bool {
    let v = model.graph.find(name).unwrap();
    let readers: Vec<NodeId> = model.graph.links().readers(v).to_vec();
    readers.iter().any(|n| {
        let node = &model.graph[*n];
        node.is("BatchNormalization") && node.inputs.get(1).copied().flatten() == Some(v)
    })
}
