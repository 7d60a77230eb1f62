//! Examples of tree ensembles.

use crate::ir::{AttrValue, DType, Tensor};
use crate::ops::{Case, case};

/// Numbers that look random.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn real(&mut self) -> f32 {
        self.roll(1 << 16) as f32 / (1 << 14) as f32 - 2.0
    }
}

/// The lists that describe trees.
#[derive(Default)]
struct Lists {
    trees: Vec<i64>,
    ids: Vec<i64>,
    features: Vec<i64>,
    values: Vec<f32>,
    modes: Vec<Vec<u8>>,
    yes: Vec<i64>,
    no: Vec<i64>,
    missing: Vec<i64>,
    leaf_trees: Vec<i64>,
    leaf_ids: Vec<i64>,
    targets: Vec<i64>,
    weights: Vec<f32>,
}

/// `count` trees of up to `depth` questions of the kinds `modes`, whose leaves vote for some of the `targets`.
fn trees(count: i64, depth: usize, modes: &[&str], targets: &[i64], features: u64) -> Lists {
    let (mut all, mut dice) = (Lists::default(), Dice(count as u64 + 17 * depth as u64));
    for tree in 0..count {
        let (mut open, mut next) = (vec![(0, 0)], 1);
        while let Some((id, at)) = open.pop() {
            let leaf = at == depth || (at > 0 && dice.roll(5) == 0);
            all.trees.push(tree);
            all.ids.push(id);
            all.features.push(dice.roll(features) as i64);
            // Few values, so that some are met exactly.
            all.values.push(if leaf {
                0.0
            } else {
                (dice.real() * 2.0).round() / 2.0
            });
            all.missing.push(dice.roll(2) as i64);
            let mode = modes[dice.roll(modes.len() as u64) as usize];
            all.modes.push(if leaf { "LEAF" } else { mode }.into());
            all.yes.push(if leaf { 0 } else { next });
            all.no.push(if leaf { 0 } else { next + 1 });
            if !leaf {
                open.extend([(next, at + 1), (next + 1, at + 1)]);
                next += 2;
                continue;
            }
            for &t in targets {
                if targets.len() > 1 && dice.roll(4) == 0 {
                    continue;
                }
                all.leaf_trees.push(tree);
                all.leaf_ids.push(id);
                all.targets.push(t);
                all.weights.push(dice.real());
            }
        }
    }
    all
}

impl Lists {
    fn case(self, name: &'static str, x: Tensor, prefix: &str) -> Case {
        let votes = match prefix {
            "class" => ["class_treeids", "class_nodeids", "class_ids", "class_weights"],
            _ => ["target_treeids", "target_nodeids", "target_ids", "target_weights"],
        };
        Case::new(name, [x])
            .attr("nodes_treeids", self.trees)
            .attr("nodes_nodeids", self.ids)
            .attr("nodes_featureids", self.features)
            .attr("nodes_values", self.values)
            .attr("nodes_modes", AttrValue::Strings(self.modes))
            .attr("nodes_truenodeids", self.yes)
            .attr("nodes_falsenodeids", self.no)
            .attr("nodes_missing_value_tracks_true", self.missing)
            .attr(votes[0], self.leaf_trees)
            .attr(votes[1], self.leaf_ids)
            .attr(votes[2], self.targets)
            .attr(votes[3], self.weights)
            .opset(1)
            .within(1e-6, 1e-6)
    }
}

const COMMON: &[&str] = &["BRANCH_LEQ"];
const ORDER: &[&str] = &["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT"];
const EVERY: &[&str] = &[
    "BRANCH_LEQ",
    "BRANCH_LT",
    "BRANCH_GTE",
    "BRANCH_GT",
    "BRANCH_EQ",
    "BRANCH_NEQ",
];

/// Rows with NaN and with values that trees ask for.
fn x(rows: usize, columns: usize) -> Tensor {
    let all = case::odd_floats(&[rows, columns], 3)
        .elements::<f32>()
        .map_or(vec![], |x| x.into_owned());
    let half = |(i, x): (usize, f32)| if i % 3 == 0 { (x * 2.0).round() / 2.0 } else { x };
    Tensor::of(&[rows, columns], all.into_iter().enumerate().map(half).collect())
}

pub(super) fn regressors() -> Vec<Case> {
    let one = |name, modes| trees(7, 5, modes, &[0], 4).case(name, x(150, 4), "target");
    let doubles = Tensor::rounded(DType::F64, &[9, 4], &x(9, 4).floats().unwrap_or_default());
    let ints = Tensor::of(&[3, 4], vec![1i64, 2, -3, 4, 0, 1, -1, 2, 0, 0, 0, 0]);
    let mut all = vec![
        one("one target", COMMON),
        one("greater and less", ORDER),
        one("every question", EVERY).attr("base_values", vec![0.5f32]),
        trees(3, 2, ORDER, &[0], 4).case("one row", x(1, 4), "target"),
        trees(3, 2, ORDER, &[0], 4).case("no rows", x(0, 4), "target"),
        trees(3, 2, ORDER, &[0], 4).case("integers", ints, "target"),
        trees(3, 0, ORDER, &[0], 4).case("leaves only", x(3, 4), "target"),
    ];
    all.extend(doubles.map(|x| trees(4, 4, ORDER, &[0], 4).case("doubles", x, "target")));
    for join in ["SUM", "AVERAGE", "MIN", "MAX"] {
        let case = trees(5, 4, ORDER, &[0, 1, 2], 4).case("three targets", x(21, 4), "target");
        all.push(
            case.attr("n_targets", 3)
                .attr("aggregate_function", join)
                .attr("base_values", vec![0.5f32, 0.0, -1.0]),
        );
    }
    let wide = trees(5, 4, COMMON, &[0, 1], 4).case("softmax", x(5, 4), "target");
    all.push(wide.attr("n_targets", 2).attr("post_transform", "SOFTMAX"));
    all
}

pub(super) fn classifiers() -> Vec<Case> {
    let case = |name, targets: &[i64], labels: &[i64]| {
        let all = trees(6, 4, ORDER, targets, 5);
        all.case(name, x(77, 5), "class")
            .attr("classlabels_int64s", labels)
            .outputs(2)
    };
    let positive = {
        let mut all = trees(4, 3, COMMON, &[0], 5);
        all.weights.iter_mut().for_each(|w| *w = w.abs() / 8.0);
        all.case("two classes, positive votes", x(30, 5), "class")
    };
    let texts = AttrValue::Strings(["a", "b", "c"].map(|t| t.as_bytes().to_vec()).to_vec());
    let strings = trees(6, 4, COMMON, &[0, 1, 2], 5).case("strings", x(9, 5), "class");
    vec![
        case("three classes", &[0, 1, 2], &[5, 6, 7]),
        case("two classes", &[0, 1], &[5, 7]).attr("post_transform", "SOFTMAX"),
        case("two classes, one vote", &[0], &[5, 7]).attr("post_transform", "LOGISTIC"),
        case("two classes, votes for the second", &[1], &[5, 7]),
        case("one class", &[0], &[5]),
        case("base values", &[0, 1, 2], &[5, 6, 7])
            .attr("base_values", vec![0.1f32, 0.2, 0.3])
            .attr("post_transform", "SOFTMAX_ZERO"),
        positive.attr("classlabels_int64s", vec![0i64, 1]).outputs(2),
        strings.attr("classlabels_strings", texts).outputs(2),
    ]
}

pub(super) fn ensembles() -> Vec<Case> {
    let bytes = |l: &[u8]| Tensor::of(&[l.len()], l.to_vec());
    let floats = |l: &[f32]| Tensor::of(&[l.len()], l.to_vec());
    let sets = Case::new(
        "sets",
        [Tensor::of(&[6, 1], vec![1.2f32, 3.4, -0.12, f32::NAN, 12.0, 7.0])],
    )
    .attr("n_targets", 4)
    .attr(
        "membership_values",
        floats(&[1.2, 3.7, 8.0, 9.0, f32::NAN, 12.0, 7.0, f32::NAN]),
    )
    .attr("nodes_missing_value_tracks_true", vec![0i64, 0, 0])
    .attr("nodes_hitrates", floats(&[1.0, 1.0, 1.0]))
    .attr("nodes_splits", floats(&[11.0, 232344.0, f32::NAN]))
    .attr("nodes_featureids", vec![0i64, 0, 0])
    .attr("nodes_modes", bytes(&[0, 6, 6]))
    .attr("nodes_truenodeids", vec![1i64, 0, 1])
    .attr("nodes_trueleafs", vec![0i64, 1, 1])
    .attr("nodes_falsenodeids", vec![2i64, 2, 3])
    .attr("nodes_falseleafs", vec![0i64, 1, 1])
    .attr("leaf_targetids", vec![0i64, 1, 2, 3])
    .attr("leaf_weights", floats(&[1.0, 10.0, 1000.0, 100.0]))
    .attr("tree_roots", vec![0i64])
    .opset(5);
    let two = |dtype, join: i64| {
        let tensor = |x: &[f64]| Tensor::rounded(dtype, &[x.len()], x);
        let x = Tensor::rounded(dtype, &[3, 2], &[1.2, 3.4, -0.12, 1.66, 4.14, f64::NAN])?;
        let case = Case::new("two trees", [x])
            .attr("n_targets", 2)
            .attr("aggregate_function", join)
            .attr("nodes_missing_value_tracks_true", vec![1i64, 0])
            .attr("nodes_splits", tensor(&[3.25, 1.5])?)
            .attr("nodes_featureids", vec![0i64, 1])
            .attr("nodes_modes", bytes(&[0, 3]))
            .attr("nodes_truenodeids", vec![0i64, 2])
            .attr("nodes_trueleafs", vec![1i64, 1])
            .attr("nodes_falsenodeids", vec![1i64, 0])
            .attr("nodes_falseleafs", vec![1i64, 1])
            .attr("leaf_targetids", vec![0i64, 1, 0])
            .attr("leaf_weights", tensor(&[5.25, 12.5, -4.0])?)
            .attr("tree_roots", vec![0i64, 1])
            .opset(5);
        Some(case)
    };
    let mut all = vec![sets];
    all.extend(two(DType::F32, 1));
    all.extend(two(DType::F64, 0));
    all.extend(two(DType::F16, 3));
    all
}
