//! Decision trees, as the attributes of the three operators describe them.

use std::collections::HashMap;

use crate::ir::Tensor;
use crate::ops::ml::{misfit, widened};
use crate::ops::{NodeRef, OpError};

/// What is asked at a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Mode {
    Leq,
    Lt,
    Gte,
    Gt,
    Eq,
    Neq,
    /// Whether the value is one of a set.
    Member,
    Leaf,
}

/// In the order of the numbers that `TreeEnsemble` gives them.
const MODES: [(&str, Mode); 8] = [
    ("BRANCH_LEQ", Mode::Leq),
    ("BRANCH_LT", Mode::Lt),
    ("BRANCH_GTE", Mode::Gte),
    ("BRANCH_GT", Mode::Gt),
    ("BRANCH_EQ", Mode::Eq),
    ("BRANCH_NEQ", Mode::Neq),
    ("BRANCH_MEMBER", Mode::Member),
    ("LEAF", Mode::Leaf),
];

/// A node of a tree.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) mode: Mode,
    pub(super) feature: usize,
    pub(super) value: f64,
    /// The nodes that follow a yes and a no.
    pub(super) yes: usize,
    pub(super) no: usize,
    /// Whether NaN is a yes.
    pub(super) missing: bool,
    /// Of the set of [`Mode::Member`], or of the votes of a leaf: the first, and the one behind the last.
    pub(super) range: (usize, usize),
}

/// Trees whose leaves vote for targets.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Forest {
    pub(super) nodes: Vec<Node>,
    pub(super) roots: Vec<usize>,
    /// Targets with weights, those of one leaf together.
    pub(super) votes: Vec<(usize, f64)>,
    members: Vec<f64>,
    /// One more than the greatest feature that a node asks for.
    pub(super) features: usize,
}

/// The numbers in a list of floats, or in a tensor.
pub(super) fn reals(n: &NodeRef, name: &str) -> Result<Vec<f64>, OpError> {
    let wide = format!("{name}_as_tensor");
    match (n.floats(name)?, n.tensor(&wide)?) {
        (None, Some(t)) => numbers(&wide, t),
        (list, _) => Ok(widened(list)),
    }
}

fn numbers(name: &str, t: &Tensor) -> Result<Vec<f64>, OpError> {
    t.floats()
        .ok_or_else(|| misfit(format_args!("{name:?} is no tensor of numbers")))
}

fn list<'a>(n: &NodeRef<'a>, name: &str) -> Result<&'a [i64], OpError> {
    Ok(n.ints(name)?.unwrap_or(&[]))
}

fn index(name: &str, i: i64) -> Result<usize, OpError> {
    usize::try_from(i).map_err(|_| misfit(format_args!("{i} in {name:?}")))
}

/// Checks that a list has `len` elements.
fn long(name: &str, found: usize, len: usize) -> Result<(), OpError> {
    match found == len {
        true => Ok(()),
        false => Err(misfit(format_args!(
            "{found} elements in {name:?}; expected {len}"
        ))),
    }
}

/// Where the votes of leaves stand: `target` or `class`.
pub(super) struct Votes {
    pub(super) prefix: &'static str,
    /// How targets are named.
    pub(super) ids: &'static str,
}

impl Votes {
    fn name(&self, what: &str) -> String {
        format!("{}_{what}", self.prefix)
    }

    /// The lists of trees, nodes, targets and weights.
    fn read<'a>(&self, n: &NodeRef<'a>) -> Result<([&'a [i64]; 3], Vec<f64>), OpError> {
        let lists = [
            list(n, &self.name("treeids"))?,
            list(n, &self.name("nodeids"))?,
            list(n, self.ids)?,
        ];
        let weights = reals(n, &self.name("weights"))?;
        lists
            .iter()
            .try_for_each(|l| long(self.ids, l.len(), weights.len()))?;
        Ok((lists, weights))
    }
}

impl Forest {
    /// The trees of `TreeEnsembleClassifier` and `TreeEnsembleRegressor`.
    pub(super) fn old(n: &NodeRef, votes: &Votes) -> Result<Forest, OpError> {
        let modes = n.strings("nodes_modes")?.unwrap_or(&[]);
        let len = modes.len();
        let lists = [
            "nodes_treeids",
            "nodes_nodeids",
            "nodes_featureids",
            "nodes_truenodeids",
            "nodes_falsenodeids",
        ];
        let mut found = vec![];
        for name in lists {
            found.push(list(n, name)?);
            long(name, found[found.len() - 1].len(), len)?;
        }
        let values = reals(n, "nodes_values")?;
        long("nodes_values", values.len(), len)?;
        let missing = list(n, "nodes_missing_value_tracks_true")?;
        let [trees, ids, features, yes, no] = found[..] else {
            return Err(misfit("lists of nodes"));
        };
        let mut at = HashMap::with_capacity(len);
        for i in 0..len {
            if at.insert((trees[i], ids[i]), i).is_some() {
                return Err(misfit(format_args!(
                    "node {} of tree {} stands twice",
                    ids[i], trees[i]
                )));
            }
        }
        let find = |tree: i64, id: i64| {
            let found = at.get(&(tree, id)).copied();
            found.ok_or_else(|| misfit(format_args!("tree {tree} has no node {id}")))
        };
        let mut nodes = vec![];
        for i in 0..len {
            let name = String::from_utf8_lossy(&modes[i]);
            let mode = MODES.iter().find(|(n, m)| *n == name && *m != Mode::Member);
            let mode = mode
                .ok_or_else(|| misfit(format_args!("there is no mode {name:?}")))?
                .1;
            let leaf = mode == Mode::Leaf;
            nodes.push(Node {
                mode,
                feature: if leaf {
                    0
                } else {
                    index("nodes_featureids", features[i])?
                },
                value: values[i],
                yes: if leaf { i } else { find(trees[i], yes[i])? },
                no: if leaf { i } else { find(trees[i], no[i])? },
                missing: missing.get(i).is_some_and(|&m| m != 0),
                range: (0, 0),
            });
        }
        let mut forest = Forest {
            roots: roots(&nodes, trees)?,
            nodes,
            votes: vec![],
            members: vec![],
            features: 0,
        };
        let ([of_trees, of_nodes, targets], weights) = votes.read(n)?;
        let mut all = vec![];
        for (i, &weight) in weights.iter().enumerate() {
            let leaf = find(of_trees[i], of_nodes[i])?;
            all.push((leaf, (index(votes.ids, targets[i])?, weight)));
        }
        // The votes of a leaf stay in order.
        all.sort_by_key(|v| v.0);
        for (i, &(leaf, vote)) in all.iter().enumerate() {
            let range = &mut forest.nodes[leaf].range;
            *range = (if range.1 == 0 { i } else { range.0 }, i + 1);
            forest.votes.push(vote);
        }
        forest.checked()
    }

    /// The trees of `TreeEnsemble`.
    pub(super) fn new(n: &NodeRef) -> Result<Forest, OpError> {
        let tensor = |name: &str| {
            let t = n.tensor(name)?;
            let t = t.ok_or_else(|| misfit(format_args!("attribute {name:?} is missing")))?;
            numbers(name, t)
        };
        let (modes, values, weights) = (
            tensor("nodes_modes")?,
            tensor("nodes_splits")?,
            tensor("leaf_weights")?,
        );
        let targets = list(n, "leaf_targetids")?;
        long("leaf_targetids", targets.len(), weights.len())?;
        let len = modes.len();
        long("nodes_splits", values.len(), len)?;
        let of_nodes = |name: &str| {
            let found = list(n, name)?;
            long(name, found.len(), len).map(|()| found)
        };
        let features = of_nodes("nodes_featureids")?;
        let (yes, yes_leaf) = (of_nodes("nodes_truenodeids")?, of_nodes("nodes_trueleafs")?);
        let (no, no_leaf) = (of_nodes("nodes_falsenodeids")?, of_nodes("nodes_falseleafs")?);
        let missing = list(n, "nodes_missing_value_tracks_true")?;
        let members = match n.tensor("membership_values")? {
            Some(t) => numbers("membership_values", t)?,
            None => vec![],
        };
        let mut sets = sets(&members).into_iter();
        let vote = |(&t, &w): (&i64, _)| Ok((index("leaf_targetids", t)?, w));
        let votes = targets
            .iter()
            .zip(&weights)
            .map(vote)
            .collect::<Result<_, OpError>>()?;
        let (mut nodes, mut leaves) = (vec![], vec![]);
        // A leaf that two nodes lead to becomes two.
        let mut next = |id: i64, leaf: i64| -> Result<usize, OpError> {
            let id = index("nodes_truenodeids", id)?;
            match leaf != 0 {
                true if id < weights.len() => {
                    leaves.push(Node {
                        mode: Mode::Leaf,
                        feature: 0,
                        value: 0.0,
                        yes: len + leaves.len(),
                        no: len + leaves.len(),
                        missing: false,
                        range: (id, id + 1),
                    });
                    Ok(len + leaves.len() - 1)
                }
                false if id < len => Ok(id),
                _ => Err(misfit(format_args!("there is no node or leaf {id}"))),
            }
        };
        for i in 0..len {
            let mode = MODES.get(modes[i] as usize).filter(|m| m.1 != Mode::Leaf);
            let mode = mode
                .ok_or_else(|| misfit(format_args!("there is no mode {}", modes[i])))?
                .1;
            let range = match mode {
                Mode::Member => sets
                    .next()
                    .ok_or_else(|| misfit("there are too few sets of members"))?,
                _ => (0, 0),
            };
            nodes.push(Node {
                mode,
                feature: index("nodes_featureids", features[i])?,
                value: values[i],
                yes: next(yes[i], yes_leaf[i])?,
                no: next(no[i], no_leaf[i])?,
                missing: missing.get(i).is_some_and(|&m| m != 0),
                range,
            });
        }
        nodes.append(&mut leaves);
        let root = |&r: &i64| {
            let root = index("tree_roots", r)?;
            let there = root < len;
            there
                .then_some(root)
                .ok_or_else(|| misfit(format_args!("there is no root {root}")))
        };
        let forest = Forest {
            nodes,
            roots: list(n, "tree_roots")?
                .iter()
                .map(root)
                .collect::<Result<_, OpError>>()?,
            votes,
            members,
            features: 0,
        };
        forest.checked()
    }

    /// The same, if no path runs in a circle.
    fn checked(mut self) -> Result<Forest, OpError> {
        let inner = self.nodes.iter().filter(|n| n.mode != Mode::Leaf);
        self.features = inner.map(|n| n.feature.saturating_add(1)).max().unwrap_or(0);
        // 0: not seen; 1: on the path; 2: done.
        let mut seen = vec![0u8; self.nodes.len()];
        for &root in &self.roots {
            let mut path = vec![(root, 0)];
            while let Some((at, child)) = path.pop() {
                let node = &self.nodes[at];
                if node.mode == Mode::Leaf || child == 2 || (child == 0 && seen[at] == 2) {
                    seen[at] = 2;
                    continue;
                }
                if child == 0 && seen[at] == 1 {
                    return Err(misfit("a path through a tree runs in a circle"));
                }
                seen[at] = 1;
                path.push((at, child + 1));
                path.push((if child == 0 { node.yes } else { node.no }, 0));
            }
        }
        Ok(self)
    }

    /// The answer at `node` for the feature `x`.
    fn asks(&self, node: &Node, x: f64) -> bool {
        let v = node.value;
        let yes = match node.mode {
            Mode::Leq => x <= v,
            Mode::Lt => x < v,
            Mode::Gte => x >= v,
            Mode::Gt => x > v,
            Mode::Eq => x == v,
            // NaN differs from everything, whatever is said of missing values; ONNX Runtime has it so too.
            Mode::Neq => x != v,
            Mode::Member => self.members[node.range.0..node.range.1].contains(&x),
            Mode::Leaf => false,
        };
        yes || (node.missing && x.is_nan())
    }

    /// The leaf of the tree at `root` to which the features `x` lead.
    pub(super) fn leaf(&self, root: usize, x: &[f64]) -> &Node {
        let mut node = &self.nodes[root];
        while node.mode != Mode::Leaf {
            let yes = self.asks(node, x[node.feature]);
            node = &self.nodes[if yes { node.yes } else { node.no }];
        }
        node
    }
}

/// The first node of each tree that no node of it leads to; trees in the order in which they come.
fn roots(nodes: &[Node], trees: &[i64]) -> Result<Vec<usize>, OpError> {
    let mut reached = vec![false; nodes.len()];
    for n in nodes.iter().filter(|n| n.mode != Mode::Leaf) {
        reached[n.yes] = true;
        reached[n.no] = true;
    }
    let (mut all, mut seen) = (vec![], HashMap::new());
    for (i, &tree) in trees.iter().enumerate() {
        let root = seen.entry(tree).or_insert(false);
        if !reached[i] && !*root {
            *root = true;
            all.push(i);
        }
    }
    match seen.values().all(|&r| r) {
        true => Ok(all),
        false => Err(misfit("a path through a tree runs in a circle")),
    }
}

/// The stretches between NaNs.
fn sets(members: &[f64]) -> Vec<(usize, usize)> {
    let (mut all, mut start) = (vec![], 0);
    for (i, m) in members.iter().enumerate() {
        if m.is_nan() {
            all.push((start, i));
            start = i + 1;
        }
    }
    if start < members.len() {
        all.push((start, members.len()));
    }
    all
}
