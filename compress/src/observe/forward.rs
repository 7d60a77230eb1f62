//! What weights are multiplied by.

use std::sync::Arc;

use secateur_engine::ir::{DType, Dim, Model, Node, Opset, Type, ValueId};
use secateur_engine::ops;
use secateur_engine::{Session, Tensor};

use super::rows::Rows;
use super::taps::{self, Tap};
use super::{Examples, Stats, Watched, finite};
use crate::error::MethodError;
use crate::math::layout::Layout;

/// What each column of a weight is multiplied by, `[groups, columns]`; see [`Layout`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inputs {
    /// Values seen of each column.
    pub rows: u64,
    /// The mean magnitude.
    pub mean: Vec<f64>,
    /// The share of zeros.
    pub zeros: Vec<f64>,
    /// The sum of squares.
    pub squares: Vec<f64>,
    /// The sum.
    pub sums: Vec<f64>,
}

/// The sums of products of all pairs of columns, `[groups, columns, columns]`; shared by weights that are multiplied by the same.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Products(pub Arc<Vec<f64>>);

/// One way in which a value is multiplied: weights that share it are observed once.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Source {
    tap: Tap,
    pub(crate) layout: Layout,
    /// Sums, not means.
    pub(crate) inputs: Inputs,
    pub(crate) products: Arc<Vec<f64>>,
}

impl Source {
    /// What is seen.
    pub(crate) fn value(&self) -> ValueId {
        self.tap.value
    }

    fn same(&self, tap: &Tap, layout: &Layout) -> bool {
        let shape = |l: &Layout| (l.groups, l.columns, l.inputs);
        self.tap == *tap && shape(&self.layout) == shape(layout)
    }
}

/// Numbers that are put together as rows at a time.
const CHUNK: usize = 1 << 21;

const GIB: f64 = (1u64 << 30) as f64;

/// Bytes that the products of a weight may take.
const MOST: f64 = 4.0 * GIB;

/// Observes what `weights` are multiplied by, with products of pairs if they are wanted.
pub(super) fn observe(
    model: &Model,
    watched: &[Watched],
    products: bool,
    examples: &Examples,
    stats: &mut Stats,
) -> Result<(), MethodError> {
    let mut sources: Vec<Source> = vec![];
    let mut of = vec![];
    for w in watched {
        let why = |why| MethodError::run(format!("{:?}: {why}", w.weight.name));
        let taps = taps::of(model, w.weight, w.value).map_err(why)?;
        let Some(layout) = w.weight.matrix.as_ref().map(Layout::of) else {
            continue;
        };
        if products {
            bounded(&w.weight.name, &layout)?;
        }
        of.push(
            taps.into_iter()
                .map(|tap| find(&mut sources, tap, &layout))
                .collect::<Vec<_>>(),
        );
    }
    watch(model, &mut sources, products, examples)?;
    for (w, sources_of) in watched.iter().zip(of) {
        let name = &w.weight.name;
        let seen = stats.seen.entry(name.clone()).or_default();
        let all = || sources_of.iter().map(|&i| &sources[i]);
        seen.inputs = all()
            .map(|s| s.inputs.clone())
            .reduce(Inputs::and)
            .map(Inputs::means);
        let sum = |a: Arc<Vec<f64>>, b: Arc<Vec<f64>>| {
            let each = a.iter().zip(b.iter());
            Arc::new(each.map(|(a, b)| a + b).collect())
        };
        seen.products = all()
            .map(|s| s.products.clone())
            .filter(|_| products)
            .reduce(sum)
            .map(Products);
        let squares = seen.inputs.iter().flat_map(|i| &i.squares).map(|&x| x as f32);
        finite(&squares.collect::<Vec<_>>(), name)?;
    }
    Ok(())
}

/// Runs `model` on all examples and takes in what `sources` are, with products of pairs if they are wanted.
pub(crate) fn watch(
    model: &Model,
    sources: &mut [Source],
    products: bool,
    examples: &Examples,
) -> Result<(), MethodError> {
    let g = &model.graph;
    let mut names: Vec<_> = sources.iter().map(|s| g[s.tap.value].name.clone()).collect();
    names.sort();
    names.dedup();
    let ports = |v: &str| g.inputs.iter().chain(&g.outputs).any(|p| &*g[p.value].name == v);
    let builder = Session::builder(model).threads(examples.effort.threads);
    let tapped = names
        .iter()
        .filter(|n| !ports(n) && g.find(n).is_some_and(|v| g.konst(v).is_none()));
    let session = tapped.fold(builder, |b, n| b.tap(&**n)).build()?;
    let square = products.then(|| square(examples.effort.threads)).transpose()?;
    for run in examples.runs {
        let outputs = session.run(run.inputs.iter().map(|(n, x)| (n, x)))?;
        for source in sources.iter_mut() {
            let name = &*g[source.tap.value].name;
            let fed = || run.inputs.iter().find(|(n, _)| n == name).map(|(_, x)| x);
            let seen = outputs
                .get(name)
                .or_else(fed)
                .or_else(|| g.konst(source.tap.value));
            let seen = seen.ok_or_else(|| MethodError::run(format!("value {name:?} is not seen")))?;
            let see = source.see(seen, square.as_ref());
            see.map_err(|e| MethodError::run(format!("value {name:?}: {e}")))?;
        }
        examples.effort.watch.advance(1);
    }
    Ok(())
}

/// Refuses products of a weight that need more than [`MOST`].
pub(crate) fn bounded(name: &str, layout: &Layout) -> Result<(), MethodError> {
    let (groups, n) = (layout.groups as f64, layout.columns as f64);
    let bytes = 8.0 * groups * n * n;
    match bytes <= MOST {
        true => Ok(()),
        false => Err(MethodError::run(format!(
            "{name:?} has {n} columns, of all pairs of which products would take {:.1} GiB; leave it out with --keep",
            bytes / GIB
        ))),
    }
}

/// The place in `sources` of `tap` with such columns, where it is put if it is not there.
pub(crate) fn find(sources: &mut Vec<Source>, tap: Tap, layout: &Layout) -> usize {
    let found = sources.iter().position(|s| s.same(&tap, layout));
    found.unwrap_or_else(|| {
        let n = layout.groups * layout.columns;
        let zeros = || vec![0.0; n];
        let inputs = Inputs {
            rows: 0,
            mean: zeros(),
            zeros: zeros(),
            squares: zeros(),
            sums: zeros(),
        };
        sources.push(Source {
            tap,
            layout: layout.clone(),
            inputs,
            products: Arc::default(),
        });
        sources.len() - 1
    })
}

impl Inputs {
    /// The sums of both.
    fn and(mut self, other: Inputs) -> Inputs {
        self.rows += other.rows;
        let add = |a: &mut Vec<f64>, b: Vec<f64>| a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        add(&mut self.mean, other.mean);
        add(&mut self.zeros, other.zeros);
        add(&mut self.squares, other.squares);
        add(&mut self.sums, other.sums);
        self
    }

    /// Means in the place of sums.
    fn means(mut self) -> Inputs {
        let n = self.rows.max(1) as f64;
        self.mean.iter_mut().chain(&mut self.zeros).for_each(|x| *x /= n);
        self
    }
}

impl Source {
    /// Takes in `x`, what the value is in one run.
    fn see(&mut self, x: &Tensor, square: Option<&Session>) -> Result<(), String> {
        let dims = x.dims().to_vec();
        let x: Vec<f32> = match x.elements::<f32>() {
            Some(x) => x.into_owned(),
            None => x
                .floats()
                .ok_or("it is no tensor of floats")?
                .into_iter()
                .map(|x| x as f32)
                .collect(),
        };
        for group in 0..self.layout.groups {
            let rows = Rows::of(&self.tap.how, &dims, &self.layout)?;
            let step = (CHUNK / self.layout.columns.max(1)).max(64);
            for at in (0..rows.count()).step_by(step) {
                let end = rows.count().min(at + step);
                let mut chunk = vec![];
                rows.put(&x, group, at..end, &mut chunk);
                self.sum(group, &chunk);
                if let Some(square) = square {
                    self.multiply(group, chunk, square)?;
                }
            }
            if group == 0 {
                self.inputs.rows += rows.count() as u64;
            }
        }
        Ok(())
    }

    fn sum(&mut self, group: usize, rows: &[f32]) {
        let n = self.layout.columns;
        let own = group * n..(group + 1) * n;
        let (mean, zeros) = (
            &mut self.inputs.mean[own.clone()],
            &mut self.inputs.zeros[own.clone()],
        );
        let squares = &mut self.inputs.squares[own.clone()];
        let sums = &mut self.inputs.sums[own];
        for row in rows.chunks_exact(n) {
            for (c, &x) in row.iter().enumerate() {
                let x = f64::from(x);
                mean[c] += x.abs();
                zeros[c] += f64::from(u8::from(x == 0.0));
                squares[c] += x * x;
                sums[c] += x;
            }
        }
    }

    fn multiply(&mut self, group: usize, rows: Vec<f32>, square: &Session) -> Result<(), String> {
        let n = self.layout.columns;
        let x = Tensor::of(&[rows.len() / n, n], rows);
        let made = square.run([("x", x)]).map_err(|e| e.to_string())?.into_first();
        let made = made
            .as_ref()
            .and_then(|t| t.elements::<f32>())
            .ok_or("no products")?;
        let sums = Arc::make_mut(&mut self.products);
        sums.resize(self.layout.groups * n * n, 0.0);
        let own = &mut sums[group * n * n..][..n * n];
        own.iter_mut()
            .zip(made.iter())
            .for_each(|(sum, &x)| *sum += f64::from(x));
        Ok(())
    }
}

/// A model that multiplies its input, turned, by itself.
fn square(threads: usize) -> Result<Session, MethodError> {
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
    let free = |s: &str| Dim::Symbol(s.into());
    let x = g.input("x", Type::tensor(DType::F32, [free("rows"), free("columns")]));
    let [turned, y] = ["turned", "y"].map(|n| g.value(n));
    g.node(Node::new("Transpose", vec![Some(x)], vec![Some(turned)]));
    g.node(Node::new("MatMul", vec![Some(turned), Some(x)], vec![Some(y)]));
    g.output(y, None);
    Ok(Session::builder(&model).threads(threads).build()?)
}
