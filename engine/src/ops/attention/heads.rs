//! Shapes of queries, keys and values.

use super::super::shape::{ranked, show};
use super::super::{NodeRef, OpError};
use crate::ir::{Dim, Shape};

/// Sequences, and their lengths, are bounded by this.
pub(super) const LONGEST: usize = 1 << 24;

/// What is known of a tensor of heads.
#[derive(Clone, Debug)]
pub(super) struct Heads {
    /// Sequences.
    pub(super) batch: Dim,
    /// Heads.
    pub(super) heads: Dim,
    /// Elements of a sequence.
    pub(super) length: Dim,
    /// Numbers of one element in one head.
    pub(super) size: Dim,
}

/// `hidden / count`
///
/// # Errors
///
/// If it leaves a remainder.
pub(super) fn share(hidden: &Dim, count: i64) -> Result<Dim, OpError> {
    match hidden.known() {
        _ if count < 1 => Err(OpError::new(format!("{count} heads; expected at least 1"))),
        Some(h) if h % count != 0 => Err(OpError::new(format!(
            "{h} numbers do not share out between {count} heads"
        ))),
        _ => Ok(hidden.floor_div(&Dim::Known(count))),
    }
}

/// Input `i`, `[batch, heads, length, size]`, or `[batch, length, heads * size]` with `count` heads.
///
/// # Errors
///
/// If it has another rank, or the number of heads is not given.
pub(super) fn heads(n: &NodeRef, i: usize, count: Option<i64>) -> Result<Option<Heads>, OpError> {
    let Some(shape) = n.shape(i) else { return Ok(None) };
    match &shape[..] {
        [batch, heads, length, size] => Ok(Some(Heads {
            batch: batch.clone(),
            heads: heads.clone(),
            length: length.clone(),
            size: size.clone(),
        })),
        [batch, length, hidden] => {
            let count = count.ok_or_else(|| OpError::new("the number of heads is missing"))?;
            Ok(Some(Heads {
                batch: batch.clone(),
                heads: Dim::Known(count),
                length: length.clone(),
                size: share(hidden, count)?,
            }))
        }
        other => Err(OpError::new(format!(
            "input {i} has shape {}; expected 3 or 4 dimensions",
            show(other)
        ))),
    }
}

/// What both are; the number where one of them is.
///
/// # Errors
///
/// If they are different numbers.
pub(super) fn agree(what: &str, a: &Dim, b: &Dim) -> Result<Dim, OpError> {
    match (a.known(), b.known()) {
        (Some(x), Some(y)) if x != y => Err(OpError::new(format!("{what}: {x} and {y} differ"))),
        (None, Some(_)) => Ok(b.clone()),
        _ => Ok(a.clone()),
    }
}

/// The shapes of an attention's inputs.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// The queries.
    pub(super) q: Heads,
    /// The keys that are new.
    pub(super) k: Heads,
    /// The values that are new.
    pub(super) v: Heads,
    /// Keys that were there before.
    pub(super) past: Dim,
    /// Whether queries and output have the heads side by side, `[batch, length, heads * size]`.
    pub(super) packed: bool,
}

impl Known {
    /// Queries, keys and values that go together.
    ///
    /// # Errors
    ///
    /// If they do not.
    pub(super) fn new(q: Heads, k: Heads, v: Heads, past: Dim, packed: bool) -> Result<Known, OpError> {
        let batch = agree("sequences", &agree("sequences", &q.batch, &k.batch)?, &v.batch)?;
        let size = agree("numbers of queries and keys", &q.size, &k.size)?;
        let length = agree("keys and values", &k.length, &v.length)?;
        let heads = agree("heads of keys and values", &k.heads, &v.heads)?;
        if let (Some(many), Some(few)) = (q.heads.known(), heads.known())
            && many != few
            && (few < 1 || many % few != 0)
        {
            return Err(OpError::new(format!(
                "{many} heads of queries do not share out between {few} of keys"
            )));
        }
        Ok(Known {
            q: Heads {
                batch: batch.clone(),
                size: size.clone(),
                ..q
            },
            k: Heads {
                batch: batch.clone(),
                heads: heads.clone(),
                length: length.clone(),
                size,
            },
            v: Heads {
                batch,
                heads,
                length,
                ..v
            },
            past,
            packed,
        })
    }

    /// Refuses keys and values that were there before, inputs `at`, unless they go together with the new ones.
    ///
    /// # Errors
    ///
    /// If they do not, or have not 4 dimensions.
    pub(super) fn follows(&self, n: &NodeRef, at: [usize; 2]) -> Result<(), OpError> {
        for (i, new) in at.into_iter().zip([&self.k, &self.v]) {
            let Some(shape) = ranked(n, i, 4)? else { continue };
            let wanted = [&new.batch, &new.heads, &self.past, &new.size];
            for (axis, (found, wanted)) in shape.iter().zip(wanted).enumerate() {
                agree(
                    &format!("axis {axis} of input {i} and what it goes with"),
                    found,
                    wanted,
                )?;
            }
        }
        Ok(())
    }

    /// All keys.
    pub(super) fn total(&self) -> Dim {
        self.past.clone() + self.k.length.clone()
    }

    /// The shape of the output.
    pub(super) fn output(&self) -> Shape {
        let Heads {
            batch, heads, length, ..
        } = self.q.clone();
        match self.packed {
            true => vec![batch, length, heads * self.v.size.clone()],
            false => vec![batch, heads, length, self.v.size.clone()],
        }
    }

    /// The shapes of all keys, all values, and the scores.
    pub(super) fn states(&self) -> [Shape; 3] {
        let all = |h: &Heads| vec![h.batch.clone(), h.heads.clone(), self.total(), h.size.clone()];
        let q = &self.q;
        let scores = vec![q.batch.clone(), q.heads.clone(), q.length.clone(), self.total()];
        [all(&self.k), all(&self.v), scores]
    }

    /// Refuses a mask that does not broadcast to the scores.
    ///
    /// # Errors
    ///
    /// If input `i` does not.
    pub(super) fn takes(&self, n: &NodeRef, i: usize) -> Result<(), OpError> {
        let Some(mask) = n.shape(i) else { return Ok(()) };
        let [_, _, scores] = self.states();
        let wrong = || {
            OpError::new(format!(
                "input {i} has shape {}; expected one that broadcasts to {}",
                show(mask),
                show(&scores)
            ))
        };
        if mask.is_empty() || mask.len() > 4 {
            return Err(wrong());
        }
        let pairs = mask.iter().rev().zip(scores.iter().rev());
        for (back, (m, s)) in pairs.enumerate() {
            let fits = match (m.known(), s.known()) {
                (Some(m), Some(s)) if back == 0 => m <= s,
                (Some(m), Some(s)) => m == s || m == 1,
                _ => true,
            };
            if !fits {
                return Err(wrong());
            }
        }
        Ok(())
    }

    /// All sizes, where they are known and not beyond all bounds.
    pub(super) fn sizes(&self) -> Option<Sizes> {
        let all = Sizes {
            batch: self.q.batch.size()?,
            heads: self.q.heads.size()?,
            kv_heads: self.k.heads.size()?,
            queries: self.q.length.size()?,
            past: self.past.size()?,
            keys: self.k.length.size()?,
            depth: self.q.size.size()?,
            width: self.v.size.size()?,
            packed: self.packed,
        };
        let shared = all.heads.checked_rem(all.kv_heads)? == 0;
        let total = all.past.checked_add(all.keys)?;
        let bounded = all.batch.max(all.queries).max(total) <= LONGEST;
        // Where an axis has no elements, the others may be of any size.
        let product = |sizes: &[usize]| sizes.iter().try_fold(1usize, |p, &n| p.checked_mul(n.max(1)));
        let size = all.depth.max(all.width).max(1);
        let counted = [all.queries, total].map(|len| product(&[all.batch, all.heads, len, size]));
        let scores = product(&[all.batch, all.heads, all.queries, total]);
        let fits = counted.iter().all(Option::is_some) && scores.is_some();
        (shared && bounded && fits).then_some(all)
    }
}

/// The sizes of an attention.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Sequences.
    pub(super) batch: usize,
    /// Heads of queries.
    pub(super) heads: usize,
    /// Heads of keys and values; it divides `heads`.
    pub(super) kv_heads: usize,
    /// Queries of a sequence.
    pub(super) queries: usize,
    /// Keys that were there before.
    pub(super) past: usize,
    /// Keys that are new.
    pub(super) keys: usize,
    /// Numbers of a query and a key.
    pub(super) depth: usize,
    /// Numbers of a value.
    pub(super) width: usize,
    /// Whether inputs and output have the heads side by side.
    pub(super) packed: bool,
}

impl Sizes {
    /// All keys.
    pub(super) fn total(&self) -> usize {
        self.past + self.keys
    }

    /// Heads of queries that share a head of keys.
    pub(super) fn group(&self) -> usize {
        self.heads / self.kv_heads
    }
}

/// The length of the earlier keys in input `i`; 0 where it is left out.
///
/// # Errors
///
/// If it has not 4 dimensions.
pub(super) fn past(n: &NodeRef, i: usize) -> Result<Dim, OpError> {
    if !n.has(i) {
        return Ok(Dim::Known(0));
    }
    Ok(ranked(n, i, 4)?.map_or(Dim::Unknown, |s| s[2].clone()))
}
