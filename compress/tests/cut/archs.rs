//! Architectures cut to 70 % of every width.

use secateur_compress::Scope;
use secateur_compress::groups::{Kind, Of, Sizes};
use secateur_engine::Model;

use super::sketch::{ALL, agrees, elements, to_70};

pub(crate) fn arch(name: &str, set: &[(&str, &str)]) -> Model {
    let set: Vec<_> = set.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let arch = secateur_models::arch(name).unwrap();
    arch.build(&set, 5).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Architectures, settings that make them small, and how many groups of each kind (channel, head, head-width, neuron) they have.
type Row = (&'static str, &'static [(&'static str, &'static str)], [usize; 4]);

static ARCHS: &[Row] = &[
    ("autoencoder", &[], [0, 0, 0, 1]),
    (
        "bert-base",
        &[
            ("layers", "2"),
            ("hidden", "48"),
            ("heads", "4"),
            ("ffn", "96"),
            ("vocabulary", "40"),
        ],
        [0, 2, 4, 2],
    ),
    ("conv4", &[], [4, 0, 0, 0]),
    ("densenet", &[], [39, 0, 0, 0]),
    ("gru", &[], [0, 0, 0, 2]),
    ("highway", &[], [0, 0, 0, 1]),
    ("lenet-300-100", &[], [0, 0, 0, 2]),
    ("lenet5", &[], [2, 0, 0, 2]),
    ("lstm", &[], [0, 0, 0, 2]),
    ("mlp", &[], [0, 0, 0, 2]),
    ("mobilenetv2", &[], [25, 0, 0, 0]),
    ("resnet20", &[], [12, 0, 0, 0]),
    ("rnn", &[], [0, 0, 0, 2]),
    ("transformer-decoder", &[], [0, 2, 4, 2]),
    ("transformer-encoder", &[], [0, 2, 4, 2]),
    ("two-branch", &[], [1, 0, 0, 0]),
    (
        "vit",
        &[("layers", "2"), ("hidden", "48"), ("heads", "4"), ("ffn", "96")],
        [0, 2, 4, 2],
    ),
];

#[test]
fn every_architecture_is_cut_to_70_percent() {
    for (name, set, counts) in ARCHS {
        let model = arch(name, set);
        let found = secateur_compress::groups(&model, &Sizes::new()).unwrap();
        let of = |k: Kind| found.groups.iter().filter(|g| g.kind == k).count();
        assert_eq!(ALL.map(of), *counts, "{name}");
        let (_, cut) = agrees(name, &model, &to_70(&ALL), &Sizes::new());
        assert!(
            cut.graph.order.len() == model.graph.order.len(),
            "{name}: the same nodes"
        );
    }
}

#[test]
fn widths_are_multiples_where_they_are_larger() {
    let model = arch("resnet20", &[]);
    let how = secateur_compress::groups::Shrink {
        round_to: 8,
        ..to_70(&ALL)
    };
    let (change, _) = agrees("resnet20", &model, &how, &Sizes::new());
    assert!(change.groups.iter().all(|k| k.keep.len() % 8 == 0), "{change}");
    let heads = arch("transformer-encoder", &[]);
    let (change, _) = agrees(
        "encoder",
        &heads,
        &secateur_compress::groups::Shrink {
            round_to: 8,
            ..to_70(&[Kind::Head])
        },
        &Sizes::new(),
    );
    assert!(
        change.groups.iter().all(|k| k.keep.len() < k.size),
        "heads go one by one: {change}"
    );
}

#[test]
fn a_share_of_parameters_or_of_multiply_adds_is_reached() {
    let model = arch("resnet20", &[]);
    let found = secateur_compress::groups(&model, &Sizes::new()).unwrap();
    let none = secateur_compress::Narrow::default();
    for scope in [Scope::Global, Scope::Layer] {
        for of in [Of::Channels, Of::Parameters, Of::Macs] {
            let how = secateur_compress::groups::Shrink {
                share: 0.4,
                of,
                scope,
                ..to_70(&ALL)
            };
            let (change, cut) = agrees("resnet20", &model, &how, &Sizes::new());
            let left = match of {
                Of::Parameters => elements(&cut) as f64 / elements(&model) as f64,
                Of::Macs => found.macs(&change) as f64 / found.macs(&none) as f64,
                _ => {
                    let (kept, gone): (usize, usize) = change
                        .groups
                        .iter()
                        .map(|k| (k.keep.len(), k.size))
                        .fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
                    let rest: usize = found.groups.iter().map(|g| g.size).sum::<usize>() - gone;
                    (kept + rest) as f64 / (gone + rest) as f64
                }
            };
            assert!((0.55..=0.61).contains(&left), "{of:?} {scope:?}: {left} left");
        }
    }
}
