//! What attention does with queries, keys and values, one method a variant.
//!
//! Shapes: `q: [batch, heads, queries, size]`, `k: [batch, heads, keys, size]`, `v: [batch, heads, keys, width]`; the result is
//! `[batch, heads, queries, width]`.

use secateur_engine::Tensor;
use secateur_engine::expr::Ex;
use secateur_engine::ir::{Attr, ValueId};

use crate::blocks::{
    concat, int, ints, reshape, slice, softmax, split, squeeze, sum, transpose, turn, unsqueeze,
};

/// What the scores of pairs outside a mask are replaced by. Not infinity, so that a query without a key gets equal
/// weights instead of NaN; in `float16`, whose largest number is 65504, it becomes that when it is cast with saturation.
pub const FLOOR: f64 = -1e9;

/// Queries, keys and values on their way to the result.
#[derive(Clone, Copy)]
pub struct Heads<'a> {
    /// The queries.
    pub q: Ex<'a>,
    /// The keys.
    pub k: Ex<'a>,
    /// The values.
    pub v: Ex<'a>,
    /// The elements of a query and of a key.
    pub size: usize,
}

/// A sum weighted by kernels, and the sum of the weights: `numerator / denominator` is the mean.
#[derive(Clone, Copy)]
pub struct Ratio<'a> {
    /// `φ(q) (φ(k)ᵀ v)`
    pub numerator: Ex<'a>,
    /// `φ(q) · Σ φ(k)`, with a last axis of size 1.
    pub denominator: Ex<'a>,
}

impl<'a> Ratio<'a> {
    /// The weighted mean.
    pub fn mean(self) -> Ex<'a> {
        self.numerator / self.denominator
    }
}

impl<'a> Heads<'a> {
    /// The value `id` of the same graph.
    pub fn at(self, id: ValueId) -> Ex<'a> {
        Ex { id, ..self.q }
    }

    /// `q kᵀ / √size`, `[…, queries, keys]`. `rank` is that of the queries.
    fn scores(self, rank: usize) -> Ex<'a> {
        self.q.matmul(turn(self.k, rank)) * (1.0 / (self.size as f64).sqrt())
    }

    /// The weight of each key for each query: the softmax of the scores, over the pairs that `mask` has. Where a query has
    /// none, all its weights are equal.
    pub fn weights(self, mask: Option<Ex<'a>>) -> Ex<'a> {
        weights(self.scores(4), mask)
    }

    /// Scaled dot-product attention (Vaswani et al. 2017): each result is the mean of the values by [`Heads::weights`].
    pub fn attend(self, mask: Option<Ex<'a>>) -> Ex<'a> {
        self.weights(mask).matmul(self.v)
    }

    /// Attention along the last axis but one of tensors of rank 5, `[batch, heads, group, n, size]`: within each group.
    fn attend_groups(self) -> Ex<'a> {
        weights(self.scores(5), None).matmul(self.v)
    }

    fn map(self, f: impl Fn(Ex<'a>) -> Ex<'a>) -> Heads<'a> {
        Heads {
            q: f(self.q),
            k: f(self.k),
            v: f(self.v),
            size: self.size,
        }
    }

    /// Attention within blocks of `block` consecutive tokens, of which there are `blocks`. No other pair is computed.
    pub fn blocks(self, blocks: usize, block: usize) -> Ex<'a> {
        let dims = [0, 0, blocks as i64, block as i64, -1];
        let y = self.map(|x| reshape(x, &dims)).attend_groups();
        reshape(y, &[0, 0, (blocks * block) as i64, -1])
    }

    /// Attention within the columns of an image of `height × width` tokens. No other pair is computed.
    pub fn columns(self, height: usize, width: usize) -> Ex<'a> {
        let dims = [0, 0, height as i64, width as i64, -1];
        let across = |x| transpose(x, &[0, 1, 3, 2, 4]);
        let y = self.map(|x| across(reshape(x, &dims))).attend_groups();
        reshape(across(y), &[0, 0, (height * width) as i64, -1])
    }

    /// Attention within clusters, where token `i` is in cluster `of[i]`: tokens are brought in the order of their clusters
    /// and back, and no pair of two clusters is computed.
    pub fn clusters(self, of: &[usize]) -> Ex<'a> {
        let mut order: Vec<usize> = (0..of.len()).collect();
        order.sort_by_key(|&i| of[i]);
        let mut back = vec![0; of.len()];
        order
            .iter()
            .enumerate()
            .for_each(|(to, &from)| back[from] = to as i64);
        let order_: Vec<i64> = order.iter().map(|&i| i as i64).collect();
        let sizes: Vec<usize> = order
            .chunk_by(|&i, &j| of[i] == of[j])
            .map(<[usize]>::len)
            .collect();
        let gather = |x: Ex<'a>, at: &[i64]| x.with("Gather", &[ints(x, at)], vec![Attr::new("axis", 2i64)]);
        let parts = |x: Ex<'a>| split(gather(x, &order_), &sizes, 2);
        let (q, k, v) = (parts(self.q), parts(self.k), parts(self.v));
        let part = |i: usize| {
            Heads {
                q: q[i],
                k: k[i],
                v: v[i],
                size: self.size,
            }
            .attend(None)
        };
        let done: Vec<_> = (0..sizes.len()).map(part).collect();
        match &done[..] {
            [first, rest @ ..] => gather(concat(*first, rest, 2), &back),
            [] => self.v,
        }
    }

    /// Attention to the keys at most `radius` positions away, of `n` tokens: `n (2 radius + 1)` pairs are computed. `inside` is
    /// [`Mask::inside`](super::Mask::inside), which keeps the weights of positions before the first and after the last
    /// token at 0. The softmax runs over each window.
    pub fn local(self, n: usize, radius: usize, inside: Ex<'a>) -> Ex<'a> {
        let windows = |x: Ex<'a>| {
            let (r, n) = (radius as i64, n as i64);
            let padded = x.op("Pad", &[ints(x, &[0, 0, r, 0, 0, 0, r, 0])]);
            let shifted: Vec<_> = (0..=2 * r)
                .map(|o| unsqueeze(slice(padded, o, o + n, 2), 3))
                .collect();
            concat(shifted[0], &shifted[1..], 3)
        };
        let scores = squeeze(windows(self.k).matmul(unsqueeze(self.q, -1)), -1);
        let weights = weights(scores * (1.0 / (self.size as f64).sqrt()), Some(inside));
        squeeze(unsqueeze(weights, -2).matmul(windows(self.v)), -2)
    }

    /// Linear attention (Katharopoulos et al. 2020): weights `φ(q)·φ(k)` with `φ(x) = elu(x) + 1 > 0`, normalised. The product
    /// `φ(k)ᵀ v` comes first, so that time and memory grow with the number of tokens, not its square. Another function than
    /// [`Heads::attend`].
    pub fn linear(self) -> Ratio<'a> {
        kernel(self.map_qk(elu_plus_1))
    }

    /// [`Heads::linear`] over keys up to the query's own position, by running sums of `φ(k)ᵀ v` and `φ(k)`.
    pub fn linear_causal(self) -> Ratio<'a> {
        let Heads { q, k, v, .. } = self.map_qk(elu_plus_1);
        let running = |x: Ex<'a>| x.op("CumSum", &[int(x, 2)]);
        let kv = running(unsqueeze(k, -1) * unsqueeze(v, -2));
        Ratio {
            numerator: squeeze(unsqueeze(q, -2).matmul(kv), -2),
            denominator: sum(q * running(k), -1),
        }
    }

    /// Attention by positive random features (Choromanski et al. 2021): `φ(x) = exp(wᵀx - |x|²/2)` of queries and keys divided
    /// by the fourth root of their size. `w: [size, features]` is normal; with more features the result comes nearer to
    /// [`Heads::attend`].
    pub fn features(self, w: Ex<'a>) -> Ratio<'a> {
        let scale = (self.size as f64).powf(-0.25);
        kernel(self.map_qk(|x| {
            let x = x * scale;
            (x.matmul(w) - sum(x * x, -1) * 0.5).exp()
        }))
    }

    fn map_qk(self, f: impl Fn(Ex<'a>) -> Ex<'a>) -> Heads<'a> {
        Heads {
            q: f(self.q),
            k: f(self.k),
            ..self
        }
    }

    /// Attention to `e k` and `f v`, with `e` and `f: [fewer, keys]` (Linformer; Wang et al. 2020).
    pub fn projected(self, e: Ex<'a>, f: Ex<'a>) -> Ex<'a> {
        let (k, v) = (e.matmul(self.k), f.matmul(self.v));
        Heads { k, v, ..self }.attend(None)
    }

    /// Attention with weights below `least` set to 0 and the others normalised again. The largest weight of a query stays
    /// whatever it is. All scores are computed.
    pub fn threshold(self, mask: Option<Ex<'a>>, least: f64) -> Ex<'a> {
        let w = self.weights(mask);
        let most = w.with("ReduceMax", &[], vec![Attr::new("axes", vec![-1i64])]);
        keep(w, most.op("Min", &[w.constant(least)])).matmul(self.v)
    }

    /// Attention with the `count` largest weights of each query, normalised again; more where several equal the last of
    /// them. All scores are computed.
    pub fn top_k(self, mask: Option<Ex<'a>>, count: usize) -> Ex<'a> {
        let w = self.weights(mask);
        let count = count as i64;
        let top = w.call(secateur_engine::expr::Call {
            domain: "",
            op: "TopK",
            inputs: &[Some(w.id), Some(ints(w, &[count]).id)],
            attrs: vec![],
            outputs: 2,
        })[0];
        keep(w, slice(top, count - 1, count, -1)).matmul(self.v)
    }

    /// Attention between tokens whose keys fall in the same bucket (Reformer; Kitaev, Kaiser and Levskaya 2020): that of the
    /// largest of the projections on `r: [size, directions]` and their opposites. A token shares its own bucket, so no query
    /// is without a key.
    pub fn hashed(self, r: Ex<'a>) -> Ex<'a> {
        let along = self.k.matmul(r);
        self.same(largest(concat(along, &[-along], -1)))
    }

    /// Attention between tokens whose keys are nearest to the same of the centroids `c: [clusters, size]` (Routing
    /// Transformer; Roy et al. 2021).
    pub fn routed(self, c: &Tensor) -> Ex<'a> {
        let size = self.size.max(1);
        let c_: Vec<f32> = c.elements::<f32>().map(|c| c.into_owned()).unwrap_or_default();
        let half: Vec<f32> = c_
            .chunks(size)
            .map(|c| c.iter().map(|x| x * x / 2.0).sum())
            .collect();
        let (c, half) = (
            self.k.tensor(c.clone()),
            self.k.tensor(Tensor::of(&[half.len()], half)),
        );
        // |k - c|² is least where k·c - |c|²/2 is largest.
        self.same(largest(self.k.matmul(turn(c, 2)) - half))
    }

    /// Attention between tokens of equal `ids: [batch, heads, n]`.
    fn same(self, ids: Ex<'a>) -> Ex<'a> {
        let mask = unsqueeze(ids, -1).op("Equal", &[unsqueeze(ids, -2)]);
        self.attend(Some(mask))
    }

    /// Attention to `keys` and `values: [1, heads, prefix, size]` as well, which are the same for all of the batch (prefix
    /// tuning; Li and Liang 2021).
    pub fn prefixed(self, keys: &Tensor, values: &Tensor) -> Ex<'a> {
        let front = |x: Ex<'a>, p: &Tensor| {
            let rest: Vec<i64> = p.dims().iter().skip(1).map(|&d| d as i64).collect();
            let dims = concat(slice(x.op("Shape", &[]), 0, 1, 0), &[ints(x, &rest)], 0);
            concat(x.tensor(p.clone()).op("Expand", &[dims]), &[x], 2)
        };
        let (k, v) = (front(self.k, keys), front(self.v, values));
        Heads { k, v, ..self }.attend(None)
    }
}

fn weights<'a>(scores: Ex<'a>, mask: Option<Ex<'a>>) -> Ex<'a> {
    softmax(match mask {
        Some(mask) => mask.op("Where", &[scores, scores.constant(FLOOR)]),
        None => scores,
    })
}

/// The weights that are at least `least`, normalised again.
fn keep<'a>(w: Ex<'a>, least: Ex<'a>) -> Ex<'a> {
    let kept = w
        .op("GreaterOrEqual", &[least])
        .op("Where", &[w, w.constant(0.0)]);
    kept / sum(kept, -1)
}

/// The index of the largest along the last axis, the first where several are.
fn largest(x: Ex<'_>) -> Ex<'_> {
    let attrs = vec![Attr::new("axis", -1i64), Attr::new("keepdims", 0i64)];
    x.with("ArgMax", &[], attrs)
}

fn elu_plus_1(x: Ex<'_>) -> Ex<'_> {
    x.op("Elu", &[]) + 1.0
}

/// Attention whose weights are products of features, which queries and keys are already.
fn kernel(Heads { q, k, v, .. }: Heads<'_>) -> Ratio<'_> {
    Ratio {
        numerator: q.matmul(turn(k, 4).matmul(v)),
        denominator: sum(q * sum(k, 2), -1),
    }
}

/// Additive attention (Bahdanau, Cho and Bengio 2015) of one `query: [batch, query size]` to `keys: [batch, n, key size]`:
/// energies `w · tanh(w_q q + w_k k)` with `w_q: [query size, units]`, `w_k: [key size, units]`, `w: [units, 1]`. Gives the
/// mean of `values: [batch, n, width]` as `[batch, width]`, and the weights as `[batch, n]`. `mask` is `[batch, n]`.
pub fn additive<'a>(
    query: Ex<'a>,
    keys: Ex<'a>,
    values: Ex<'a>,
    [w_q, w_k, w]: [Ex<'a>; 3],
    mask: Option<Ex<'a>>,
) -> (Ex<'a>, Ex<'a>) {
    let hidden = (unsqueeze(query.matmul(w_q), 1) + keys.matmul(w_k)).tanh();
    let weights = weights(squeeze(hidden.matmul(w), -1), mask);
    (squeeze(unsqueeze(weights, 1).matmul(values), 1), weights)
}
