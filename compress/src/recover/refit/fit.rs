//! One matrix of a weight, fitted to what is seen of it.

use secateur_engine::ir::{DType, Dim, Model, Node, Opset, Type};
use secateur_engine::{Session, Tensor, ops};

use super::RecoverError;
use super::site::Site;
use crate::math::ridge::{Part, Prior, Sums, Work, fitted};

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

/// Numbers that all matrices of a weight put together as rows before they are multiplied, about.
const CHUNK: usize = 1 << 21;

/// Rows whose products are added up in single precision: so many, or a quarter of the columns, where adding up the sums is much of the work.
const ROWS: usize = 64;

/// Some columns of a matrix that is to make of what it sees in the shadow what it makes in the model: what of it is kept, the others aside.
pub(super) struct Fit {
    /// The columns that are kept, among those of the matrix, and among its own.
    pub(super) columns: Vec<usize>,
    own: Vec<usize>,
    outputs: Vec<usize>,
    /// What was to be multiplied by in the model, `[columns, outputs kept]`.
    whole: Tensor,
    /// What there is of it in the shadow, `[outputs kept, columns kept]`.
    less: Vec<f64>,
    bias: bool,
    /// Whether it has all columns; only then it knows its bias alone.
    sole: bool,
    /// What is taken off inputs and what is made of them, so that sums of squares are small; where it knows its bias alone.
    middle: Option<(Vec<f64>, Vec<f64>)>,
    /// So many numbers may wait.
    chunk: usize,
    /// Rows that the sums lack yet, and whether they are held back.
    waiting: (Vec<f32>, Vec<f32>, bool),
    sums: [Sums; 2],
}

/// Rows of inputs and of what is to be made of them.
pub(super) struct Rows {
    pub(super) count: usize,
    /// Of the model, all columns.
    pub(super) before: Vec<f32>,
    /// Of the shadow, all columns.
    pub(super) now: Vec<f32>,
    /// What is to be made beyond, all outputs; may be empty.
    pub(super) more: Vec<f32>,
}

/// What fits best.
pub(super) struct Solved {
    /// The weights of each class, `[outputs kept, columns kept]`.
    pub(super) weights: Vec<Vec<f64>>,
    /// What is to be added to what they make, where there is a bias.
    pub(super) bias: Vec<f64>,
}

impl Fit {
    /// Class `class` of group `group` of `site`, whose weight has these elements in the model, `[outputs, columns]`.
    pub(super) fn new(site: &Site, (group, class): (usize, usize), matrix: &[f64]) -> Fit {
        let (stay, all) = (&site.stays[group], &site.classes[class]);
        let at = |o: usize, c: usize| matrix[o * site.layout.columns + c];
        let outputs = stay.outputs.clone();
        let kept = all.iter().enumerate();
        let kept = kept.filter(|(_, c)| stay.columns.binary_search(c).is_ok());
        let (own, columns): (Vec<usize>, Vec<usize>) = kept.unzip();
        let whole = all.iter().flat_map(|&c| outputs.iter().map(move |&o| (o, c)));
        let whole = whole.map(|(o, c)| at(o, c) as f32).collect();
        let less = outputs.iter().flat_map(|&o| columns.iter().map(move |&c| (o, c)));
        let less = less.map(|(o, c)| at(o, c)).collect();
        let bias = site.bias.is_some();
        let (n, m) = (columns.len() + usize::from(bias), outputs.len());
        Fit {
            whole: Tensor::of(&[all.len(), m], whole),
            less,
            bias,
            sole: site.classes.len() == 1,
            middle: None,
            chunk: CHUNK / (site.stays.len() * site.classes.len()).max(1),
            waiting: Default::default(),
            sums: [Sums::new(n, m), Sums::new(n, m)],
            columns,
            own,
            outputs,
        }
    }

    /// Takes in `rows`, to learn from or, `held`, to see how well it did.
    pub(super) fn see(&mut self, rows: Rows, held: bool, with: &Products) -> Result<(), RecoverError> {
        if self.is_empty() || rows.count == 0 {
            return Ok(());
        }
        if self.waiting.2 != held {
            self.settle(with)?;
            self.waiting.2 = held;
        }
        let (all, m) = (self.whole.dims()[0], self.outputs.len());
        let mut y = match all {
            0 => vec![0.0; rows.count * m],
            _ => {
                let before = Tensor::of(&[rows.count, all], rows.before);
                multiplied(&with.plain, &before, &self.whole)?
            }
        };
        self.add(&mut y, &rows.more);
        let mut a: Vec<f32> = Vec::with_capacity(rows.count * self.width());
        for i in 0..rows.count {
            let row = &rows.now[i * all..][..all];
            a.extend(self.own.iter().map(|&c| row[c]));
            a.extend(self.bias.then_some(1.0));
        }
        self.centre(&mut a, &mut y);
        self.waiting.0.append(&mut a);
        self.waiting.1.append(&mut y);
        // Sums of few rows would mostly be additions to large matrices.
        let most = self.chunk.max(self.width() * self.width() / 2);
        match self.waiting.0.len().max(self.waiting.1.len()) >= most {
            true => self.settle(with),
            false => Ok(()),
        }
    }

    /// Adds what waits to the sums.
    pub(super) fn settle(&mut self, with: &Products) -> Result<(), RecoverError> {
        let (n, m) = (self.width(), self.outputs.len());
        let (a, y, held) = std::mem::take(&mut self.waiting);
        self.waiting.2 = held;
        if a.is_empty() {
            return Ok(());
        }
        let squares: f64 = y.iter().map(|&y| f64::from(y) * f64::from(y)).sum();
        let count = a.len() / n;
        let sums = &mut self.sums[usize::from(held)];
        let add = |to: &mut Vec<f64>, x: Vec<f32>| to.iter_mut().zip(x).for_each(|(s, x)| *s += f64::from(x));
        let step = ROWS.max(n / 4);
        for (a, y) in a.chunks(step * n).zip(y.chunks(step * m)) {
            let rows = a.len() / n;
            let [a, y] = [
                Tensor::of(&[rows, n], a.to_vec()),
                Tensor::of(&[rows, m], y.to_vec()),
            ];
            add(&mut sums.inputs, multiplied(&with.turned, &a, &a)?);
            add(&mut sums.both, multiplied(&with.turned, &y, &a)?);
        }
        sums.target += squares;
        sums.rows += count as u64;
        Ok(())
    }

    /// Whether there is nothing to fit.
    fn is_empty(&self) -> bool {
        let bias = self.bias && !self.sole;
        self.outputs.is_empty() || self.own.is_empty() && !bias
    }

    /// Columns that are seen.
    pub(super) fn seen(&self) -> usize {
        self.whole.dims()[0]
    }

    /// Columns with that of the bias.
    fn width(&self) -> usize {
        self.own.len() + usize::from(self.bias)
    }

    /// Adds `more`, rows of all outputs, to rows of those that stay.
    fn add(&self, y: &mut [f32], more: &[f32]) {
        let outputs = &self.outputs;
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
        let (n, m) = (self.width(), self.outputs.len());
        if !(self.bias && self.sole) {
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

    /// What is added to weights `w` of output `i` where means are taken off: what is left of its bias.
    fn shift(&self, i: usize, w: &[f64]) -> f64 {
        self.middle.as_ref().map_or(0.0, |(of_a, of_y)| {
            w.iter().zip(of_a).map(|(w, a)| w * a).sum::<f64>() - of_y[i]
        })
    }

    /// The weights that there were, with biases.
    fn prior(&self) -> Vec<f64> {
        let kept = self.own.len();
        let row = |i: usize| {
            let w = &self.less[i * kept..][..kept];
            let bias = self.bias.then(|| self.shift(i, w));
            w.iter().copied().chain(bias)
        };
        (0..self.outputs.len()).flat_map(row).collect()
    }
}

/// The weights that fit best of all classes of a matrix together; `None` where those that there are fit as well.
pub(super) fn solved(fits: &[Fit], work: Work) -> Option<Solved> {
    let there: Vec<&Fit> = fits.iter().filter(|f| !f.is_empty()).collect();
    let priors: Vec<Vec<f64>> = there.iter().map(|f| f.prior()).collect();
    let parts: Vec<Part> = there
        .iter()
        .zip(&priors)
        .map(|(f, prior)| f.part(prior))
        .collect();
    let first = there.first()?;
    let mut found = fitted(&parts, work)?.into_iter();
    let (mut weights, mut bias) = (vec![], vec![]);
    for fit in fits {
        let w = if fit.is_empty() { vec![] } else { found.next()? };
        let kept = fit.own.len();
        if fit.bias && bias.is_empty() {
            let rows = w.chunks_exact(fit.width()).enumerate();
            bias = rows.map(|(i, w)| w[kept] - first.shift(i, &w[..kept])).collect();
        }
        let rows = w.chunks_exact(fit.width().max(1));
        weights.push(rows.flat_map(|w| w[..kept].iter().copied()).collect());
    }
    Some(Solved { weights, bias })
}

impl Fit {
    fn part<'a>(&'a self, weights: &'a [f64]) -> Part<'a> {
        Part {
            seen: &self.sums[0],
            held: &self.sums[1],
            prior: Prior {
                weights,
                columns: self.width(),
                bias: self.bias,
            },
        }
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
