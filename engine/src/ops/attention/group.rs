//! ONNX Runtime's `GroupQueryAttention`: rotary embedding, a cache written at each sequence's own place, a window.

use super::super::formula::{apply, cast, concat, count_up, given, ints, reshape, slice, zeros};
use super::super::shape::{arity, ranked};
use super::super::{Axes, Case, Fact, NodeRef, Op, OpError, OpName, case, microsoft};
use super::body::{apart, bias, together};
use super::heads::{Heads, Known, LONGEST, Sizes, heads, past, share};
use crate::expr::Ex;
use crate::ir::{Attr, DType, Dim, Tensor};

/// ONNX Runtime's `GroupQueryAttention`.
pub struct GroupQuery;

/// What the attributes say beyond the numbers of heads.
#[derive(Clone, Copy, Debug)]
struct Options {
    scale: Option<f32>,
    softcap: f32,
    causal: bool,
    /// Keys that a query sees, its own included.
    window: Option<i64>,
    rotary: bool,
    interleaved: bool,
    /// Whether the softmax has one more score, 0.
    smooth: bool,
    epsilon: f32,
}

impl Options {
    fn of(n: &NodeRef) -> Result<Options, OpError> {
        n.ignore(&["kv_cache_bit_width"]);
        for name in ["k_quant_type", "v_quant_type"] {
            if n.str_or(name, "NONE")? != "NONE" {
                return Err(OpError::new(format!(
                    "attribute {name:?}: a quantised cache is not supported"
                )));
            }
        }
        for name in ["sliding_window_cache", "qk_output"] {
            if n.int_or(name, 0)? != 0 {
                return Err(OpError::new(format!("attribute {name:?} is not supported")));
            }
        }
        Ok(Options {
            scale: n.float("scale")?.filter(|&s| s != 0.0),
            softcap: n.float_or("softcap", 0.0)?,
            causal: n.int_or("causal", 1)? != 0,
            window: Some(n.int_or("local_window_size", -1)?).filter(|&w| w > 0),
            rotary: n.int_or("do_rotary", 0)? != 0,
            interleaved: n.int_or("rotary_interleaved", 0)? != 0,
            smooth: n.int_or("smooth_softmax", 0)? == 1,
            epsilon: n.float_or("qk_norm_epsilon", 1e-6)?,
        })
    }
}

/// The new queries, keys and values.
fn known(n: &NodeRef) -> Result<Option<Known>, OpError> {
    let count = |name: &str| {
        let found = n.int(name)?.filter(|&h| h > 0);
        found.ok_or_else(|| OpError::new(format!("attribute {name:?}: expected a number above 0")))
    };
    let (many, few) = (count("num_heads")?, count("kv_num_heads")?);
    let none = Dim::Known(0);
    if n.has(1) {
        let all = [
            heads(n, 0, Some(many))?,
            heads(n, 1, Some(few))?,
            heads(n, 2, Some(few))?,
        ];
        return match all {
            [Some(q), Some(k), Some(v)] => Known::new(q, k, v, none, true).map(Some),
            _ => Ok(None),
        };
    }
    let Some(all) = ranked(n, 0, 3)? else {
        return Ok(None);
    };
    let heads = many.checked_add(few.saturating_mul(2)).unwrap_or(0);
    let size = share(&all[2], heads)?;
    let of = |heads: i64| Heads {
        batch: all[0].clone(),
        heads: Dim::Known(heads),
        length: all[1].clone(),
        size: size.clone(),
    };
    Known::new(of(many), of(few), of(few), none, true).map(Some)
}

/// The greatest number of keys of a sequence, if it is known.
fn total(n: &NodeRef) -> Result<Dim, OpError> {
    match n.ints_in(6).as_deref() {
        Some(&[t]) if t >= 0 => Ok(Dim::Known(t)),
        Some(other) => Err(OpError::new(format!("total_sequence_length is {other:?}"))),
        None => Ok(Dim::Unknown),
    }
}

/// A node's inputs on their way.
struct Parts<'a> {
    q: Ex<'a>,
    k: Ex<'a>,
    v: Ex<'a>,
    s: Sizes,
    options: Options,
    /// Keys that the cache has room for before, and the greatest number of keys in use.
    room: usize,
    total: usize,
    /// Where each sequence's new elements begin, `[batch, 1]`.
    start: Ex<'a>,
}

impl<'a> Parts<'a> {
    fn new(n: &NodeRef, x: &[Ex<'a>]) -> Option<Parts<'a>> {
        let (s, options) = (known(n).ok()??.sizes()?, Options::of(n).ok()?);
        let (room, total) = (past(n, 3).ok()?.size()?, total(n).ok()?.size()?);
        if room.max(total) > LONGEST {
            return None;
        }
        let [q, k, v] = [0, 1, 2].map(|i| part(n, x, &s, i));
        let new = s.queries as i64;
        let start = match s.queries == total {
            true => zeros(x[0], DType::I64, &[s.batch, 1])?,
            false => {
                let last = cast(*x.get(5)?, n.dtype(5)?, DType::I64);
                reshape(last + ints(last, &[1 - new]), &[s.batch, 1])
            }
        };
        let parts = Parts {
            q: q?,
            k: k?,
            v: v?,
            s,
            options,
            room,
            total,
            start,
        };
        parts.normalised(n, x).turned(n, x)
    }

    /// With queries and keys normalised, if there are weights for that.
    fn normalised(self, n: &NodeRef, x: &[Ex<'a>]) -> Parts<'a> {
        let norm = |y: Ex<'a>, i: usize| match given(n, x, i) {
            Some(w) => {
                let attrs = vec![Attr::new("axis", -1), Attr::new("epsilon", self.options.epsilon)];
                y.with("RMSNormalization", &[w], attrs)
            }
            None => y,
        };
        Parts {
            q: norm(self.q, 14),
            k: norm(self.k, 15),
            ..self
        }
    }

    /// With queries and keys turned according to their places.
    fn turned(self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Parts<'a>> {
        if !self.options.rotary {
            return Some(self);
        }
        let length = self.s.queries;
        let at = given(n, x, 9).unwrap_or_else(|| self.start + count_up(self.q, &[1, length], 0));
        let (cos, sin) = (*x.get(7)?, *x.get(8)?);
        let attrs = || {
            vec![
                Attr::new("interleaved", i64::from(self.options.interleaved)),
                Attr::new("rotary_embedding_dim", 2 * n.dims(7).map_or(0, |d| d[1]) as i64),
            ]
        };
        let turn = |y: Ex<'a>| y.with("RotaryEmbedding", &[cos, sin, at], attrs());
        Some(Parts {
            q: turn(self.q),
            k: turn(self.k),
            ..self
        })
    }

    /// Whether all sequences are as long as the cache is filled, so that new keys just follow the old ones.
    fn straight(&self) -> bool {
        self.room + self.s.keys == self.total && (self.s.batch == 1 || self.room == 0)
    }

    /// All keys, or all values.
    fn cache(&self, n: &NodeRef, x: &[Ex<'a>], i: usize) -> Option<Ex<'a>> {
        let new = [self.k, self.v][i];
        let past = given(n, x, 3 + i);
        let before = match (past, self.straight()) {
            (None, true) => return Some(new),
            (Some(p), true) => return Some(concat(p, &[new], 2)),
            (past, false) => {
                let more = self.total.saturating_sub(self.room);
                let (s, size) = (&self.s, [self.s.depth, self.s.width][i]);
                let own = n.dtype(3 + i).or(n.dtype(0))?;
                let blank = || zeros(new, own, &[s.batch, s.kv_heads, more, size]);
                match (past, more) {
                    (Some(p), 0) => p,
                    (Some(p), _) => concat(p, &[blank()?], 2),
                    (None, _) => blank()?,
                }
            }
        };
        let at = reshape(self.start, &[self.s.batch]);
        Some(before.with("TensorScatter", &[new, at], vec![Attr::new("axis", 2)]))
    }

    /// Which keys each query may see, `[batch, 1, queries, total]`.
    fn seen(&self) -> Ex<'a> {
        let (s, like) = (&self.s, self.q);
        let columns = count_up(like, &[1, 1, 1, self.total], 0);
        let start = reshape(self.start, &[s.batch, 1, 1, 1]);
        if !self.options.causal {
            return columns.op("Less", &[start + ints(like, &[s.keys as i64])]);
        }
        let rows = start + count_up(like, &[1, 1, s.queries, 1], 0);
        let below = rows.op("Less", &[columns]).op("Not", &[]);
        match self.options.window {
            None => below,
            Some(window) => {
                let near = (rows - ints(like, &[window])).op("Less", &[columns]);
                below.op("And", &[near])
            }
        }
    }

    /// Which keys are within the window of each query, where the new ones just follow the old ones; those behind the query too.
    fn near(&self) -> Option<Ex<'a>> {
        let window = self.options.window.filter(|_| self.options.causal)?;
        let columns = count_up(self.q, &[1, 1, 1, self.total], 0);
        let before = count_up(self.q, &[1, 1, self.s.queries, 1], self.room as i64 - window);
        Some(before.op("Less", &[columns]))
    }

    fn attrs(&self, causal: bool) -> Vec<Attr> {
        let mut attrs = vec![
            Attr::new("is_causal", i64::from(causal)),
            Attr::new("softcap", self.options.softcap),
        ];
        attrs.extend(self.options.scale.map(|s| Attr::new("scale", s)));
        attrs
    }

    /// The output with a further score for each head, which takes its share and gives nothing.
    fn sunk(
        &self,
        keys: Ex<'a>,
        values: Ex<'a>,
        mask: Ex<'a>,
        own: DType,
        sink: Option<Ex<'a>>,
    ) -> Option<Ex<'a>> {
        let s = &self.s;
        let more = |all: Ex<'a>, size: usize| {
            let blank = zeros(all, own, &[s.batch, s.kv_heads, 1, size])?;
            Some(concat(slice(all, 2, 0, self.total), &[blank], 2))
        };
        let spread = |x: Ex<'a>, columns: usize| {
            let to = [s.batch, s.heads, s.queries, columns].map(|d| d as i64);
            x.op("Expand", &[ints(x, &to)])
        };
        let sink = match sink {
            Some(sink) => reshape(sink, &[1, s.heads, 1, 1]),
            None => zeros(mask, own, &[1, 1, 1, 1])?,
        };
        let mask = concat(spread(mask, self.total), &[spread(sink, 1)], 3);
        let rest = [
            Some(more(keys, s.depth)?),
            Some(more(values, s.width)?),
            Some(mask),
        ];
        apply(self.q, "Attention", &rest, self.attrs(false), 1)
            .first()
            .copied()
    }
}

/// The new queries, keys or values with heads apart.
fn part<'a>(n: &NodeRef, x: &[Ex<'a>], s: &Sizes, i: usize) -> Option<Ex<'a>> {
    let heads = [s.heads, s.kv_heads, s.kv_heads];
    let size = if i == 2 { s.width } else { s.depth };
    let y = match n.has(1) {
        true => *x.get(i)?,
        false => {
            let begin: usize = heads[..i].iter().sum::<usize>() * s.depth;
            slice(x[0], 2, begin, begin + heads[i] * size)
        }
    };
    Some(apart(y, [s.batch, heads[i], s.queries, size], true))
}

impl Op for GroupQuery {
    fn name(&self) -> OpName {
        microsoft("GroupQueryAttention")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        if let Some(i) = [5, 6].into_iter().find(|&i| !n.has(i)) {
            return Err(OpError::new(format!("input {i} is missing")));
        }
        arity(n, 1, 16)?;
        super::floats(n, [0, 1, 2, 3, 4])?;
        let options = Options::of(n)?;
        if options.rotary && !(n.has(7) && n.has(8)) {
            return Err(OpError::new("the tables of cosines and sines are missing"));
        }
        if n.has(3) != n.has(4) {
            return Err(OpError::new("past keys and values: one is missing"));
        }
        let known = known(n)?;
        if let Some(known) = &known {
            let room = past(n, 3)?;
            Known {
                past: room,
                ..known.clone()
            }
            .follows(n, [3, 4])?;
        }
        let keys = past(n, 3)?.greater(&total(n)?);
        let state = |of: fn(&Known) -> &Heads| {
            known.as_ref().map(|k| {
                let h = of(k);
                vec![h.batch.clone(), h.heads.clone(), keys.clone(), h.size.clone()]
            })
        };
        let (k, v) = (state(|k| &k.k), state(|k| &k.v));
        let own = |i: usize| n.dtype(i).or(n.dtype(0));
        Ok(vec![
            Fact::tensor(n.dtype(0), known.map(|k| k.output())),
            Fact::tensor(own(3), k),
            Fact::tensor(own(4), v),
        ])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let parts = Parts::new(n, x)?;
        let (s, own) = (&parts.s, n.dtype(0)?);
        let (extra, sink) = (given(n, x, 10), given(n, x, 11));
        let sinks = sink.is_some() || parts.options.smooth;
        let plain = extra.is_none() && !sinks;
        let (y, keys, values) = if plain && parts.straight() {
            let (k, v) = (Some(parts.k), Some(parts.v));
            let rest = [k, v, parts.near(), given(n, x, 3), given(n, x, 4)];
            let outputs = if n.wants(1) || n.wants(2) { 3 } else { 1 };
            let all = apply(
                parts.q,
                "Attention",
                &rest,
                parts.attrs(parts.options.causal),
                outputs,
            );
            (all[0], all.get(1).copied(), all.get(2).copied())
        } else {
            let (keys, values) = (parts.cache(n, x, 0)?, parts.cache(n, x, 1)?);
            let float = || bias(parts.seen(), parts.q);
            let mask = match extra {
                Some(extra) => float() + extra,
                None if sinks => float(),
                None => parts.seen(),
            };
            let y = match sinks {
                true => parts.sunk(keys, values, mask, own, sink)?,
                false => apply(
                    parts.q,
                    "Attention",
                    &[Some(keys), Some(values), Some(mask)],
                    parts.attrs(false),
                    1,
                )[0],
            };
            (y, Some(keys), Some(values))
        };
        let y = together(y, [s.batch, s.heads, s.queries, s.width]);
        Some([Some(y), keys, values].into_iter().flatten().collect())
    }

    fn cases(&self) -> Vec<Case> {
        let x = |dims: &[usize], seed| Some(case::floats(dims, seed));
        let lengths = |all: Vec<i32>| Some(Tensor::of(&[all.len()], all));
        let total = |t: i32| Some(Tensor::scalar(t));
        let qkv = |b: usize, s: usize| vec![x(&[b, s, 32], 1), x(&[b, s, 16], 2), x(&[b, s, 16], 3)];
        let state = |b: usize, p: usize| vec![x(&[b, 2, p, 8], 4), x(&[b, 2, p, 8], 5)];
        let tables = || vec![x(&[16, 4], 6), x(&[16, 4], 7)];
        let of = |name, parts: Vec<Vec<Option<Tensor>>>| Case {
            inputs: parts.concat(),
            ..Case::new(name, [])
                .attr("num_heads", 4)
                .attr("kv_num_heads", 2)
                .outputs(3)
                .konst(&[6])
                .within(1e-5, 1e-5)
        };
        let none = || vec![None, None];
        vec![
            of(
                "a prompt",
                vec![qkv(2, 5), none(), vec![lengths(vec![4, 4]), total(5)]],
            ),
            of(
                "one more",
                vec![qkv(1, 1), state(1, 6), vec![lengths(vec![6]), total(7)], tables()],
            )
            .attr("do_rotary", 1),
            of(
                "a shared cache",
                vec![
                    qkv(2, 1),
                    state(2, 9),
                    vec![lengths(vec![3, 6]), total(7)],
                    tables(),
                ],
            )
            .attr("do_rotary", 1)
            .attr("rotary_interleaved", 1)
            .attr("softcap", 3.0f32),
            of(
                "a window",
                vec![qkv(1, 3), state(1, 6), vec![lengths(vec![8]), total(9)]],
            )
            .attr("local_window_size", 4)
            .attr("scale", 0.5f32),
            of(
                "sinks",
                vec![
                    qkv(2, 5),
                    none(),
                    vec![
                        lengths(vec![4, 4]),
                        total(5),
                        None,
                        None,
                        None,
                        x(&[1, 4, 5, 5], 8),
                        x(&[4], 9),
                    ],
                ],
            ),
            of(
                "packed",
                vec![
                    vec![x(&[1, 3, 64], 1), None, None],
                    none(),
                    vec![lengths(vec![2]), total(3)],
                ],
            )
            .attr("smooth_softmax", 1),
            of(
                "both ways",
                vec![qkv(2, 5), none(), vec![lengths(vec![4, 4]), total(5)]],
            )
            .attr("causal", 0),
        ]
    }
}
