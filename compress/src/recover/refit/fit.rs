//! One matrix of a weight, fitted to what is seen of it.

use secateur_engine::ir::{DType, Dim, Model, Node, Opset, Type};
use secateur_engine::{Session, Tensor, ops};

use super::RecoverError;
use super::site::{Site, Stay};
use crate::math::layout::Layout;
use crate::math::ridge::{Prior, Sums, fitted};

/// Products of matrices that are inputs.
pub(super) struct Products {
    plain: Session,
    turned: Session,
}

impl Products {
    pub(super) fn new(threads: usize) -> Result<Products, RecoverError> {
        Ok(Products {
            plain: product(threads, false)?,
            turned: product(threads, true)?,
        })
    }
}

/// A model that multiplies its inputs `a`, turned where that is wanted, and `b`.
fn product(threads: usize, turned: bool) -> Result<Session, RecoverError> {
    let opset = Opset {
        domain: None,
        version: Some(ops::OPSET),
        extra: Default::default(),
    };
    let mut model = Model {
        opsets: vec![opset],
        ..Model::default()
    };
    let g = &mut model.graph;
    let sizes = |n: [&str; 2]| n.map(|n| Dim::Symbol(n.into()));
    let (of_a, of_b) = match turned {
        true => (["rows", "n"], ["rows", "m"]),
        false => (["n", "rows"], ["rows", "m"]),
    };
    let mut a = g.input("a", Type::tensor(DType::F32, sizes(of_a)));
    let b = g.input("b", Type::tensor(DType::F32, sizes(of_b)));
    if turned {
        let other = g.value("turned");
        g.node(Node::new("Transpose", vec![Some(a)], vec![Some(other)]));
        a = other;
    }
    let y = g.value("y");
    g.node(Node::new("MatMul", vec![Some(a), Some(b)], vec![Some(y)]));
    g.output(y, None);
    Ok(Session::builder(&model).threads(threads).build()?)
}

/// The elements of the product of `a` and `b`.
fn multiplied(session: &Session, a: &Tensor, b: &Tensor) -> Result<Vec<f32>, RecoverError> {
    let made = session.run([("a", a), ("b", b)])?.into_first();
    let made = made.and_then(|t| Some(t.elements::<f32>()?.into_owned()));
    made.ok_or_else(|| RecoverError::wrong("expected floats of a product, found none"))
}

/// A matrix that is to make of what it sees in the shadow what it makes in the model: what of it is kept, the others aside.
pub(super) struct Fit {
    stay: Stay,
    /// What was to be multiplied by in the model, `[columns, outputs kept]`.
    whole: Tensor,
    /// What there is of it in the shadow, `[outputs kept, columns kept]`.
    less: Vec<f64>,
    /// What is taken off inputs and what is made of them, so that sums of squares are small; with a bias only.
    middle: Option<(Vec<f64>, Vec<f64>)>,
    centred: bool,
    sums: [Sums; 2],
}

/// Rows of inputs and of what is to be made of them.
pub(super) struct Rows {
    /// Of the model, all columns.
    pub(super) before: Vec<f32>,
    /// Of the shadow, all columns.
    pub(super) now: Vec<f32>,
    /// What is to be made beyond, all outputs; may be empty.
    pub(super) more: Vec<f32>,
}

impl Fit {
    /// Group `group` of `site`, whose weight has these elements in the model.
    pub(super) fn new(site: &Site, group: usize, elements: &[f64]) -> Fit {
        let Layout { outputs, columns, .. } = site.layout;
        let mut matrix = vec![0.0; outputs * columns];
        for (cell, x) in site.layout.cells().into_iter().zip(elements) {
            if cell.group == group {
                matrix[cell.output * columns + cell.column] = *x;
            }
        }
        let stay = site.stays[group].clone();
        let at = |o: usize, c: usize| matrix[o * columns + c];
        let all = (0..columns).flat_map(|c| stay.outputs.iter().map(move |&o| (o, c)));
        let whole = all.map(|(o, c)| at(o, c) as f32).collect();
        let kept = stay
            .outputs
            .iter()
            .flat_map(|&o| stay.columns.iter().map(move |&c| (o, c)));
        let less = kept.map(|(o, c)| at(o, c)).collect();
        let centred = site.bias.is_some();
        let (n, m) = (stay.columns.len() + usize::from(centred), stay.outputs.len());
        Fit {
            whole: Tensor::of(&[columns, m], whole),
            less,
            middle: None,
            centred,
            sums: [Sums::new(n, m), Sums::new(n, m)],
            stay,
        }
    }

    /// Takes in `rows`, to learn from or, `held`, to see how well it did.
    pub(super) fn see(&mut self, rows: Rows, held: bool, with: &Products) -> Result<(), RecoverError> {
        if self.is_empty() {
            return Ok(());
        }
        let all = self.whole.dims()[0];
        let count = rows.now.len() / all.max(1);
        let mut y = multiplied(&with.plain, &Tensor::of(&[count, all], rows.before), &self.whole)?;
        self.add(&mut y, &rows.more);
        let mut a: Vec<f32> = Vec::with_capacity(count * self.width());
        for row in rows.now.chunks_exact(all) {
            a.extend(self.stay.columns.iter().map(|&c| row[c]));
            a.extend(self.centred.then_some(1.0));
        }
        self.centre(&mut a, &mut y);
        let squares: f64 = y.iter().map(|&y| f64::from(y) * f64::from(y)).sum();
        let (n, m) = (self.width(), self.stay.outputs.len());
        let [a, y] = [Tensor::of(&[count, n], a), Tensor::of(&[count, m], y)];
        let (inputs, both) = (
            multiplied(&with.turned, &a, &a)?,
            multiplied(&with.turned, &y, &a)?,
        );
        let sums = &mut self.sums[usize::from(held)];
        let add = |to: &mut Vec<f64>, x: Vec<f32>| to.iter_mut().zip(x).for_each(|(s, x)| *s += f64::from(x));
        add(&mut sums.inputs, inputs);
        add(&mut sums.both, both);
        sums.target += squares;
        sums.rows += count as u64;
        Ok(())
    }

    /// Whether nothing is left of the matrix.
    fn is_empty(&self) -> bool {
        self.stay.columns.is_empty() || self.stay.outputs.is_empty()
    }

    /// Columns with that of the bias.
    fn width(&self) -> usize {
        self.stay.columns.len() + usize::from(self.centred)
    }

    /// Adds `more`, rows of all outputs, to rows of those that stay.
    fn add(&self, y: &mut [f32], more: &[f32]) {
        let outputs = &self.stay.outputs;
        if more.is_empty() {
            return;
        }
        let width = more.len() / (y.len() / outputs.len().max(1)).max(1);
        for (y, more) in y
            .chunks_exact_mut(outputs.len().max(1))
            .zip(more.chunks_exact(width.max(1)))
        {
            y.iter_mut().zip(outputs).for_each(|(y, &o)| *y += more[o]);
        }
    }

    /// Takes the means of the first rows off all.
    fn centre(&mut self, a: &mut [f32], y: &mut [f32]) {
        let (n, m) = (self.width(), self.stay.outputs.len());
        if !self.centred {
            return;
        }
        let (of_a, of_y) = self.middle.get_or_insert_with(|| {
            let mut middle = means(a, n);
            // The column of the bias stays 1.
            middle.iter_mut().skip(n - 1).for_each(|x| *x = 0.0);
            (middle, means(y, m))
        });
        take(a, of_a);
        take(y, of_y);
    }

    /// The weights that fit best, `[outputs kept, columns kept]`, and what is to be added to what they make, where there is a bias; `None`
    /// where those that there are fit as well.
    pub(super) fn solved(&self) -> Option<(Vec<f64>, Vec<f64>)> {
        let (n, kept) = (self.width(), self.stay.columns.len());
        if self.is_empty() {
            return None;
        }
        let rows = self.less.chunks_exact(kept.max(1));
        let (of_a, of_y) = match &self.middle {
            Some((a, y)) => (&a[..kept], &y[..]),
            None => (&[][..], &[][..]),
        };
        let shift = |w: &[f64]| w.iter().zip(of_a).map(|(w, a)| w * a).sum::<f64>();
        let mut prior = vec![];
        for (i, w) in rows.enumerate() {
            prior.extend_from_slice(w);
            prior.extend(self.centred.then(|| shift(w) - of_y.get(i).unwrap_or(&0.0)));
        }
        let prior = Prior {
            weights: &prior,
            columns: n,
            free: usize::from(self.centred),
        };
        let w = fitted(&self.sums[0], &self.sums[1], prior)?;
        let mut bias = vec![];
        for (i, w) in w.chunks_exact(n).enumerate().filter(|_| self.centred) {
            bias.push(w[kept] + of_y.get(i).unwrap_or(&0.0) - shift(&w[..kept]));
        }
        let weights = w.chunks_exact(n).flat_map(|w| w[..kept].iter().copied());
        Some((weights.collect(), bias))
    }
}

fn means(x: &[f32], n: usize) -> Vec<f64> {
    let mut sums = vec![0.0; n];
    for row in x.chunks_exact(n.max(1)) {
        sums.iter_mut().zip(row).for_each(|(s, x)| *s += f64::from(*x));
    }
    let rows = (x.len() / n.max(1)).max(1) as f64;
    sums.iter_mut().for_each(|s| *s = f64::from((*s / rows) as f32));
    sums
}

fn take(x: &mut [f32], off: &[f64]) {
    for row in x.chunks_exact_mut(off.len().max(1)) {
        row.iter_mut().zip(off).for_each(|(x, off)| *x -= *off as f32);
    }
}
