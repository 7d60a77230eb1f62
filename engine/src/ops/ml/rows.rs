//! Functions of a row of numbers that give scores, and perhaps a class.

use half::f16;

use super::{misfit, numeric, table};
use crate::cpu::moves::{chunks, short};
use crate::cpu::{Candidate, Cost, Io};
use crate::expr::{Call, Ex};
use crate::ir::{Attr, AttrValue, DType, Tensor};
use crate::ops::cast::widened;
use crate::ops::pick::{given, room};
use crate::ops::{Fact, NodeRef, OpError};

/// Arithmetic that is worth a task of its own.
const TASK: usize = 1 << 14;

/// A function of a row.
pub(super) trait Scorer: Send + Sync {
    /// The columns of the input.
    fn features(&self) -> usize;

    /// The number of scores.
    fn scores(&self) -> usize;

    /// About as many operations a row takes.
    fn work(&self) -> usize;

    /// Writes the scores of `x` and returns the number of its class.
    fn row(&self, x: &[f64], scores: &mut [f64]) -> usize;
}

/// The names of classes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Labels {
    Ints(Vec<i64>),
    Texts(Vec<Vec<u8>>),
}

impl Labels {
    /// The labels in attribute `ints` or in `classlabels_strings`.
    pub(super) fn read(n: &NodeRef, ints: &str) -> Result<Labels, OpError> {
        let ints = n.ints(ints)?.filter(|i| !i.is_empty());
        let texts = n.strings("classlabels_strings")?.filter(|t| !t.is_empty());
        match (ints, texts) {
            (Some(i), None) => Ok(Labels::Ints(i.to_vec())),
            (None, Some(t)) => Ok(Labels::Texts(t.to_vec())),
            _ => Err(misfit("expected class labels, either integers or strings")),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Labels::Ints(i) => i.len(),
            Labels::Texts(t) => t.len(),
        }
    }

    pub(super) fn dtype(&self) -> DType {
        match self {
            Labels::Ints(_) => DType::I64,
            Labels::Texts(_) => DType::String,
        }
    }

    /// The labels of the classes numbered so.
    fn of(&self, classes: &[usize]) -> Result<Tensor, OpError> {
        let wrong = || misfit("there are fewer labels than classes");
        let dims = [classes.len()];
        Ok(match self {
            Labels::Ints(l) => {
                let all = classes.iter().map(|&c| l.get(c).copied());
                Tensor::of(&dims, all.collect::<Option<Vec<_>>>().ok_or_else(wrong)?)
            }
            Labels::Texts(l) => {
                let all = classes.iter().map(|&c| l.get(c).cloned());
                Tensor::texts(&dims, all.collect::<Option<Vec<_>>>().ok_or_else(wrong)?)
            }
        })
    }
}

/// The types of the outputs of a classifier with `scores` scores.
pub(super) fn classified(n: &NodeRef, labels: &Labels, scores: usize) -> Result<Vec<Fact>, OpError> {
    numeric(n)?;
    let (rows, _) = table(n)?;
    Ok(vec![
        Fact::tensor(Some(labels.dtype()), Some(vec![rows.clone()])),
        super::floats(vec![rows, scores.into()]),
    ])
}

/// A classifier of strings as one that numbers its classes, for the kernels know no strings.
pub(super) fn numbered<'a>(n: &NodeRef, ints: &'static str, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
    let Ok(Labels::Texts(texts)) = Labels::read(n, ints) else {
        return None;
    };
    let x = *x.first()?;
    let mut attrs = n.node().attrs.clone();
    attrs.retain(|a| &*a.name != "classlabels_strings" && &*a.name != ints);
    attrs.push(Attr::new(
        ints,
        AttrValue::Ints((0..texts.len() as i64).collect()),
    ));
    let both = x.call(Call {
        domain: n.node().domain(),
        op: &n.node().op,
        inputs: &[Some(x.id)],
        attrs,
        outputs: 2,
    });
    let names = x.tensor(Tensor::texts(&[texts.len()], texts));
    Some(vec![names.op("Gather", &[both[0]]), both[1]])
}

/// The scores of rows of `x`, each behind its class.
fn scored(s: &dyn Scorer, x: &[f64], out: &mut [f64]) {
    let width = s.scores() + 1;
    for (i, row) in out.chunks_mut(width).enumerate() {
        let (class, scores) = row.split_at_mut(1);
        class[0] = s.row(&x[i * s.features()..][..s.features()], scores) as f64;
    }
}

/// The rows of a tensor `[n, c]` or `[c]`, which must have `features` columns.
fn rows_of(features: usize, dims: &[usize]) -> Result<usize, OpError> {
    match dims {
        [c] if *c == features => Ok(1),
        [r, c] if *c == features => Ok(*r),
        _ => Err(OpError::new(format!(
            "input 0 has shape {dims:?}; the attributes are for {features} columns"
        ))),
    }
}

/// The scores `[n, scores]` as elements of type `dtype` and, if `labels` are given, the labels `[n]` before them; one row
/// after the other.
pub(super) fn eval_as(
    s: &dyn Scorer,
    labels: Option<&Labels>,
    dtype: DType,
    x: &[Option<&Tensor>],
) -> Result<Vec<Tensor>, OpError> {
    let x = given(x, 0)?;
    let rows = rows_of(s.features(), x.dims())?;
    let wrong = || OpError::new(format!("elements of type {}; expected numbers", x.dtype()));
    let numbers = x.floats().ok_or_else(wrong)?;
    let width = s.scores() + 1;
    let mut all: Vec<f64> = room(rows.checked_mul(width))?;
    all.resize(rows * width, 0.0);
    scored(s, &numbers, &mut all);
    let scores: Vec<f64> = all.chunks(width).flat_map(|r| &r[1..]).copied().collect();
    let classes: Vec<usize> = all.chunks(width).map(|r| r[0] as usize).collect();
    let mut out = labels
        .map(|l| l.of(&classes))
        .transpose()?
        .map_or(vec![], |l| vec![l]);
    out.push(Tensor::rounded(dtype, &[rows, s.scores()], &scores).ok_or_else(wrong)?);
    Ok(out)
}

/// [`eval_as`] with scores that are floats.
pub(super) fn eval(
    s: &dyn Scorer,
    labels: Option<&Labels>,
    x: &[Option<&Tensor>],
) -> Result<Vec<Tensor>, OpError> {
    eval_as(s, labels, DType::F32, x)
}

/// How rows are handed out to tasks.
pub(super) struct Tiles {
    /// The columns of the input.
    pub(super) features: usize,
    /// The number of scores.
    pub(super) scores: usize,
    /// The rows of a task.
    pub(super) each: usize,
    /// What a row costs, about.
    pub(super) work: usize,
}

/// A kernel from a function that writes, for the bytes of a few rows, each row's class and scores; none where labels
/// are strings.
pub(super) fn tiled(
    n: &NodeRef,
    tiles: Tiles,
    labels: Option<Labels>,
    fill: impl Fn(&[u8], &mut [f64]) + Send + Sync + 'static,
) -> Option<Candidate> {
    let (dtype, dims) = (n.dtype(0)?, n.dims(0)?);
    let Tiles {
        features,
        scores,
        each,
        work,
    } = tiles;
    let rows = rows_of(features, &dims).ok()?;
    let ints = match labels {
        Some(Labels::Texts(_)) => return None,
        Some(Labels::Ints(l)) => Some(l),
        None => None,
    };
    let (size, width) = (dtype.bits() / 8, scores + 1);
    let cost = Cost {
        flops: 2.0 * work as f64 * rows as f64,
        bytes: (rows * features * size) as f64,
        efficiency: 0.05,
    };
    let run = move |io: &mut Io| -> Result<(), OpError> {
        let (pool, x) = (io.pool, io.input(0).bytes());
        let mut all = vec![0.0; rows * width];
        chunks(pool, &mut all, each * width, &|part, out| {
            let (first, count) = (part * each, out.len() / width);
            fill(&x[first * features * size..][..count * features * size], out);
        });
        let mut outputs = io.outputs.iter_mut();
        if let Some(ints) = &ints {
            let classes = all.chunks(width).map(|r| ints.get(r[0] as usize).copied());
            let classes = classes.collect::<Option<Vec<_>>>();
            let classes = classes.ok_or_else(|| misfit("there are fewer labels than classes"))?;
            if let Some(Some(y)) = outputs.next() {
                y.slice::<i64>().copy_from_slice(&classes);
            }
        }
        if let Some(Some(y)) = outputs.next() {
            let scores = all.chunks(width).flat_map(|r| &r[1..]);
            match y.dtype() {
                DType::F32 => y
                    .slice::<f32>()
                    .iter_mut()
                    .zip(scores)
                    .for_each(|(y, &s)| *y = s as f32),
                DType::F64 => y.slice::<f64>().iter_mut().zip(scores).for_each(|(y, &s)| *y = s),
                _ => y
                    .slice::<f16>()
                    .iter_mut()
                    .zip(scores)
                    .for_each(|(y, &s)| *y = f16::from_f64(s)),
            }
        }
        Ok(())
    };
    let name = format!("{}.{}", n.node().op.to_lowercase(), short(dtype));
    Some(Candidate::new(name, cost, run))
}

/// The kernel that scores row by row on all threads.
pub(super) fn kernel(n: &NodeRef, s: impl Scorer + 'static, labels: Option<Labels>) -> Option<Candidate> {
    let dtype = n.dtype(0)?;
    let tiles = Tiles {
        features: s.features(),
        scores: s.scores(),
        each: (TASK / s.work().max(1)).max(1),
        work: s.work(),
    };
    tiled(n, tiles, labels, move |bytes, out| {
        scored(&s, &widened(dtype, bytes), out)
    })
}

/// The place of the first greatest score; 0 where there is none.
pub(super) fn greatest(scores: &[f64]) -> usize {
    (1..scores.len()).fold(0, |best, i| if scores[i] > scores[best] { i } else { best })
}

/// A sum of products, in several sums at once.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a8, b8) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a8.0.iter().zip(b8.0) {
        (0..8).for_each(|i| sums[i] += a[i] * b[i]);
    }
    let rest: f64 = a8.1.iter().zip(b8.1).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}
