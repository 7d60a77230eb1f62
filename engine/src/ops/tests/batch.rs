//! One kernel on a batch and on each of its rows.

use super::*;

/// Rows of a batch.
const ROWS: usize = 5;

/// `t` with the elements `rows` of axis `axis`, each modulo its size.
fn gathered(t: &Tensor, axis: usize, rows: &[usize]) -> Tensor {
    let mut dims = t.dims().to_vec();
    let (size, bytes) = (dims[axis], t.bytes());
    let outer: usize = dims[..axis].iter().product();
    let each = bytes.len() / (outer * size);
    let mut all = vec![];
    for (o, &row) in (0..outer).flat_map(|o| rows.iter().map(move |r| (o, r))) {
        all.extend_from_slice(&bytes[(o * size + row % size) * each..][..each]);
    }
    dims[axis] = rows.len();
    Tensor::new(
        t.dtype(),
        dims,
        crate::ir::Data::Bytes(crate::ir::Bytes::new(all)),
    )
    .unwrap()
}

/// Whether elements of this type begin at bytes.
fn whole(t: &Tensor) -> bool {
    t.dtype().bits() >= 8 && !t.is_empty()
}

/// Operators whose rows have to do with each other: chance, or one range for all.
const MIXED: [&str; 3] = ["Dropout", "DynamicQuantizeLinear", "RoundedLSTM"];

impl Bench {
    /// The axis of output 0 that counts the rows of a batch, and the inputs and axes that it runs along.
    fn batch(&self) -> Option<(usize, Vec<(usize, usize)>)> {
        let name = self.op.name().name;
        let n = self.view(false);
        let recurrent = ["GRU", "LSTM", "RNN"].contains(&name);
        let (from, to) = match n.int_or("layout", 0) {
            Ok(0) if recurrent => (1, 2),
            _ => (0, 0),
        };
        let axes = self.op.axes(&n).filter(|_| !MIXED.contains(&name))?;
        let tie = axes.0.into_iter().find(|t| t.output == Some(to))?;
        tie.inputs.iter().find(|(_, axis)| *axis == from)?;
        let own = |&(i, axis): &(usize, usize)| self.case.inputs[i].as_ref().map(|t| t.dims()[axis]);
        let size = tie.inputs.iter().filter_map(own).max()?;
        let tied = tie.inputs.iter().filter(|p| own(p) == Some(size));
        (size > 0).then(|| (to, tied.copied().collect()))
    }

    /// The same with `rows` of the inputs along `axes`.
    fn of_rows(&self, axes: &[(usize, usize)], rows: &[usize]) -> Option<Bench> {
        let mut case = self.case.clone();
        for &(i, axis) in axes {
            let t = case.inputs[i].as_ref().filter(|t| whole(t))?;
            case.inputs[i] = Some(gathered(t, axis, rows));
        }
        let facts = case.inputs.iter().map(|x| x.as_ref().map(Fact::of)).collect();
        let node = self.node.clone();
        Some(Bench {
            op: self.op,
            case,
            node,
            facts,
        })
    }

    /// What the reference makes, if this is a case at all.
    fn made(&self) -> Option<Vec<Tensor>> {
        let n = self.view(true);
        let y = reference::eval(self.op, &n, &self.x()).ok()?;
        self.op.infer(&n).ok()?;
        Some(y).filter(|y| y.iter().all(whole))
    }

    fn kernels(&self, made: &[Tensor]) -> Vec<crate::cpu::Candidate> {
        let facts: Vec<_> = made.iter().map(Fact::of).collect();
        self.op.cpu(&self.view(false).lowered(&facts, &Packs::default()))
    }
}

#[test]
fn rows_of_a_batch_are_what_they_are_alone() {
    let (mut wrong, mut checked) = (vec![], std::collections::BTreeSet::new());
    for b in benches().filter(|b| !b.op.laws().impure) {
        let Some((axis, axes)) = b.batch() else { continue };
        let Some(many) = b.of_rows(&axes, &std::array::from_fn::<_, ROWS, _>(|i| i)) else {
            continue;
        };
        let Some(all) = many.made().filter(|y| y[0].dims().get(axis) == Some(&ROWS)) else {
            continue;
        };
        let kernels = many.kernels(&all);
        let kernels = kernels.into_iter().map(|c| (c.name, c.layouts, (c.build)()));
        let kernels: Vec<_> = kernels.collect();
        for row in [0, ROWS - 1] {
            let Some(one) = many.of_rows(&axes, &[row]) else {
                continue;
            };
            let Some(like) = one.made() else { continue };
            for c in one.kernels(&like) {
                let same = kernels.iter().find(|k| (&k.0, k.1) == (&c.name, c.layouts));
                let Some((name, layouts, kernel)) = same else {
                    continue;
                };
                let together = run(&many, (&**kernel, *layouts), &all, 2, None);
                let alone = run(&one, (&*(c.build)(), *layouts), &like, 1, None);
                checked.insert(b.op.name());
                if gathered(&together[0], axis, &[row]).bytes() != alone[0].bytes() {
                    wrong.push(format!("{}, {name}: row {row}", b.place()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked.len() > 100, "only {} operators", checked.len());
}
