//! ONNX `TfIdfVectorizer`: how often known sequences of tokens occur.

use std::collections::HashMap;

use super::pick::given;
use super::shape::{arity, show};
use super::{Axes, Case, Fact, NodeRef, Op, OpError, OpName, onnx};
use crate::ir::{DType, Dim, Tensor};

/// ONNX `TfIdfVectorizer`.
pub struct TfIdfVectorizer;

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Tf,
    Idf,
    TfIdf,
}

fn mode(n: &NodeRef) -> Result<Mode, OpError> {
    match n.str_or("mode", "")? {
        "TF" => Ok(Mode::Tf),
        "IDF" => Ok(Mode::Idf),
        "TFIDF" => Ok(Mode::TfIdf),
        other => Err(OpError::new(format!("mode {other:?}; expected TF, IDF or TFIDF"))),
    }
}

fn required<T>(name: &str, found: Option<T>) -> Result<T, OpError> {
    found.ok_or_else(|| OpError::new(format!("attribute {name:?} is missing")))
}

fn positive(n: &NodeRef, name: &str) -> Result<usize, OpError> {
    let found = required(name, n.int(name)?)?;
    usize::try_from(found).map_err(|_| OpError::new(format!("attribute {name:?} is {found}")))
}

/// The size of the output's last axis.
fn width(n: &NodeRef) -> Result<usize, OpError> {
    let all = required("ngram_indexes", n.ints("ngram_indexes")?)?;
    match (all.iter().min(), all.iter().max()) {
        (Some(&least), _) if least < 0 => Err(OpError::new(format!("an index of {least} in ngram_indexes"))),
        (_, Some(&most)) => Ok((most as usize).saturating_add(1)),
        _ => Ok(0),
    }
}

/// What the input is made of.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Token<'a> {
    Text(&'a [u8]),
    Int(i64),
}

fn pool<'a>(n: &NodeRef<'a>) -> Result<Vec<Token<'a>>, OpError> {
    match (n.strings("pool_strings")?, n.ints("pool_int64s")?) {
        (Some(s), None) => Ok(s.iter().map(|s| Token::Text(s)).collect()),
        (None, Some(i)) => Ok(i.iter().copied().map(Token::Int).collect()),
        _ => Err(OpError::new("expected one of pool_strings and pool_int64s")),
    }
}

/// For each sequence in the pool, where it is counted.
fn known<'a>(n: &NodeRef<'a>) -> Result<HashMap<Vec<Token<'a>>, usize>, OpError> {
    let (pool, to) = (pool(n)?, required("ngram_indexes", n.ints("ngram_indexes")?)?);
    let starts = required("ngram_counts", n.ints("ngram_counts")?)?;
    let wrong = || {
        OpError::new(format!(
            "ngram_counts {starts:?} do not fit a pool of {}",
            pool.len()
        ))
    };
    let mut ends = starts.iter().skip(1).copied().chain([pool.len() as i64]);
    let (mut all, mut to) = (HashMap::new(), to.iter());
    for (len, &start) in (1..).zip(starts) {
        let end = ends.next().ok_or_else(wrong)?;
        let (start, end) = (
            usize::try_from(start).map_err(|_| wrong())?,
            usize::try_from(end).map_err(|_| wrong())?,
        );
        for gram in pool.get(start..end).ok_or_else(wrong)?.chunks(len) {
            let &at = to.next().ok_or_else(wrong)?;
            all.insert(gram.to_vec(), usize::try_from(at).map_err(|_| wrong())?);
        }
    }
    Ok(all)
}

impl Op for TfIdfVectorizer {
    fn name(&self) -> OpName {
        onnx("TfIdfVectorizer")
    }

    fn since(&self) -> &'static [u16] {
        &[9]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 1)?;
        mode(n)?;
        for name in ["max_skip_count", "min_gram_length", "max_gram_length"] {
            positive(n, name)?;
        }
        n.floats("weights")?;
        n.ints("ngram_counts")?;
        let text = n.strings("pool_strings")?.is_some();
        n.ints("pool_int64s")?;
        let fits = |d: DType| {
            if text {
                d == DType::String
            } else {
                matches!(d, DType::I32 | DType::I64)
            }
        };
        if let Some(d) = n.dtype(0).filter(|d| !fits(*d)) {
            return Err(OpError::new(format!(
                "tokens of type {d} are not those of the pool"
            )));
        }
        let wide = Dim::from(width(n)?);
        let shape = match n.shape(0) {
            None => None,
            Some(s) if s.len() == 1 => Some(vec![wide]),
            Some(s) if s.len() == 2 => Some(vec![s[0].clone(), wide]),
            Some(s) => return Err(OpError::new(format!("shape {}; expected [c] or [n, c]", show(s)))),
        };
        Ok(vec![Fact::tensor(Some(DType::F32), shape)])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let x = given(x, 0)?;
        let (known, width, mode) = (known(n)?, width(n)?, mode(n)?);
        let weights = n.floats("weights")?.filter(|w| !w.is_empty());
        if weights.is_some_and(|w| w.len() < width) {
            return Err(OpError::new("there are fewer weights than outputs"));
        }
        let ints = x.ints().unwrap_or_default();
        let tokens: Vec<Token> = match x.dtype() {
            DType::String => x.strings().iter().map(|s| Token::Text(s)).collect(),
            _ => ints.into_iter().map(Token::Int).collect(),
        };
        let len = x.dims().last().copied().unwrap_or(1);
        let rows = if x.dims().len() < 2 { 1 } else { x.dims()[0] };
        let lengths = positive(n, "min_gram_length")?.max(1)..=positive(n, "max_gram_length")?.min(len);
        let skips = positive(n, "max_skip_count")?.min(len);
        let mut all = super::pick::room(rows.checked_mul(width))?;
        all.resize(rows * width, 0f32);
        for row in 0..rows {
            let (tokens, counts) = (&tokens[row * len..][..len], &mut all[row * width..][..width]);
            for size in lengths.clone() {
                // Sequences of one token have nothing to skip.
                for step in 1..=if size == 1 { 1 } else { skips + 1 } {
                    let last = (size - 1).saturating_mul(step);
                    for start in 0..len.saturating_sub(last) {
                        let gram: Vec<_> = (0..size).map(|k| tokens[start + k * step].clone()).collect();
                        if let Some(&at) = known.get(&gram) {
                            counts[at] += 1.0;
                        }
                    }
                }
            }
            let weight = |i: usize| weights.map_or(1.0, |w| w[i]);
            for (i, count) in counts.iter_mut().enumerate() {
                match mode {
                    Mode::Tf => {}
                    Mode::Idf => *count = if *count > 0.0 { weight(i) } else { 0.0 },
                    Mode::TfIdf => *count *= weight(i),
                }
            }
        }
        let mut dims = x.dims().to_vec();
        dims.pop();
        dims.push(width);
        Ok(vec![Tensor::of(&dims, all)])
    }

    fn cases(&self) -> Vec<Case> {
        let case = |name, x: Tensor| {
            Case::new(name, [x])
                .attr("min_gram_length", 1)
                .attr("max_gram_length", 2)
                .attr("ngram_counts", vec![0, 4])
                .attr("ngram_indexes", vec![0, 1, 2, 3, 4, 5, 6])
        };
        let pool = || vec![2i64, 3, 5, 4, 5, 6, 7, 8, 6, 7];
        let rows = || Tensor::of(&[2, 6], vec![1i32, 1, 3, 3, 3, 7, 8, 6, 7, 5, 6, 8]);
        let names = |s: &[&str]| s.iter().map(|s| s.as_bytes().to_vec()).collect::<Vec<_>>();
        let words = crate::ir::AttrValue::Strings(names(&["a", "b", "c", "d", "a", "b", "c", "d", "b", "a"]));
        vec![
            case("counts", rows())
                .attr("mode", "TF")
                .attr("max_skip_count", 5)
                .attr("pool_int64s", pool()),
            case("weights", Tensor::of(&[4], vec![5i64, 6, 7, 8]))
                .attr("mode", "TFIDF")
                .attr("max_skip_count", 0)
                .attr("weights", vec![1f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
                .attr("pool_int64s", pool()),
            case("strings", Tensor::texts(&[3], ["a", "b", "a"]))
                .attr("mode", "IDF")
                .attr("max_skip_count", 1)
                .attr("pool_strings", words),
        ]
    }
}
