//! Queries, keys and values.

use super::input;
use crate::ir::{AttrValue, DType, Dim, Node, ValueId};
use crate::opt::rules::read::one;
use crate::opt::{Site, Why};

/// The permutation of `node`, if it swaps the last two axes and nothing else.
pub(super) fn swapping(node: &Node) -> Option<Vec<i64>> {
    let Some(AttrValue::Ints(perm)) = node.attr("perm") else {
        return None;
    };
    let n = perm.len();
    let mut same: Vec<i64> = (0..n as i64).collect();
    (n > 1).then(|| same.swap(n - 1, n - 2))?;
    (*perm == same).then_some(same)
}

/// The keys, and how they are still to be permuted.
pub(super) fn keys(site: &Site, swapped: ValueId) -> Result<(ValueId, Option<Vec<i64>>), Why> {
    let rank = site
        .shape(swapped)
        .map(Vec::len)
        .ok_or(Why::No("the rank of the keys is not known"))?;
    let swap = |mut p: Vec<i64>| {
        let n = p.len();
        p.swap(n - 1, n - 2);
        p
    };
    if rank < 2 {
        return Err(Why::NoEffect);
    }
    let same: Vec<i64> = (0..rank as i64).collect();
    if let Some(node) = site.call(swapped, "Transpose")
        && let (Some(x), Some(AttrValue::Ints(perm))) = (input(node, 0), node.attr("perm"))
        && perm.len() == rank
    {
        let left = swap(perm.clone());
        return Ok((x, (left != same).then_some(left)));
    }
    Ok(match around(site, swapped) {
        Some(k) => (k, None),
        None => (swapped, Some(swap(same))),
    })
}

/// `K` where `v` is `K` with its last two axes swapped by way of three axes, as PyTorch's exporter does it.
fn around(site: &Site, v: ValueId) -> Option<ValueId> {
    let turned = input(site.call(v, "Reshape")?, 0)?;
    let node = site.call(turned, "Transpose")?;
    if node.attr("perm") != Some(&AttrValue::Ints(vec![0, 2, 1])) {
        return None;
    }
    let flat = input(node, 0)?;
    let k = input(site.call(flat, "Reshape")?, 0)?;
    let (to, of, mid) = (site.shape(v)?, site.shape(k)?, site.shape(flat)?);
    let n = of.len();
    let fits = to.len() == n
        && n == 4
        && mid.len() == 3
        && of[n - 1].same(&mid[2])
        && of[n - 1].same(&to[n - 2])
        && of[n - 2].same(&mid[1])
        && of[n - 2].same(&to[n - 1])
        && of[1].same(&to[1]);
    fits.then_some(k)
}

/// Keys or values before they were repeated for groups of heads.
pub(super) fn ungrouped(site: &Site, v: ValueId) -> Option<ValueId> {
    let wide = input(site.call(v, "Reshape")?, 0)?;
    let thin = input(site.call(wide, "Expand")?, 0)?;
    let node = site.made(thin).filter(|n| n.is("Unsqueeze") || n.is("Reshape"))?;
    let base = input(node, 0)?;
    let [all, spread, narrow, own] = [v, wide, thin, base].map(|v| site.shape(v));
    let (all, spread, narrow, own) = (all?, spread?, narrow?, own?);
    let (&[b, heads, len, size], &[_, few, times, ..], &[_, _, gap, ..], &[b0, own_heads, len0, size0]) = (
        &all.iter().collect::<Vec<_>>()[..],
        &spread.iter().collect::<Vec<_>>()[..],
        &narrow.iter().collect::<Vec<_>>()[..],
        &own.iter().collect::<Vec<_>>()[..],
    ) else {
        return None;
    };
    let counted = few.known()?.checked_mul(times.known()?) == Some(heads.known()?) && few.same(own_heads);
    // The number of elements settles the last size that is not known.
    let fits = spread.len() == 5 && one(gap) && size.same(size0) && (b.same(b0) || len.same(len0));
    (counted && fits).then_some(base)
}

/// What is known of the types and shapes of queries, keys and values.
pub(super) struct Found {
    /// The shape of the scores, if nothing broadcasts.
    pub(super) size: Vec<Dim>,
    /// The element type of all three.
    pub(super) dtype: DType,
    /// Whether queries have just as many heads as keys.
    pub(super) heads: bool,
    /// Whether nothing broadcasts between the three.
    pub(super) sure: bool,
}

/// Checks types and shapes of queries, keys and values.
///
/// # Errors
///
/// If attention has no meaning for them.
pub(super) fn check(site: &Site, [q, k, v]: [ValueId; 3], perm: &Option<Vec<i64>>) -> Result<Found, Why> {
    let dtype = site
        .dtype(q)
        .filter(|d| matches!(d, DType::F32 | DType::F16 | DType::BF16));
    let dtype = dtype.filter(|_| [k, v].iter().all(|&x| site.dtype(x) == site.dtype(q)));
    let dtype = dtype.ok_or(Why::No("there is no fused kernel for the element type"))?;
    let [q, k, v] = [q, k, v].map(|x| site.shape(x));
    let (Some(q), Some(k), Some(v)) = (q, k, v) else {
        return Err(Why::No("the rank of queries, keys or values is not known"));
    };
    let k: Vec<Dim> = match perm {
        Some(p) => p.iter().map(|&i| k[i as usize].clone()).collect(),
        None => k.clone(),
    };
    if !(3..=4).contains(&q.len()) || k.len() != q.len() || v.len() != q.len() {
        return Err(Why::No(
            "queries, keys and values do not all have three or all four axes",
        ));
    }
    let outer = q.len() - 2;
    let mut size: Vec<Dim> = q[..=outer].to_vec();
    size.push(k[outer].clone());
    Ok(Found {
        size,
        dtype,
        heads: outer == 2 && q[1].same(&k[1]),
        sure: (0..outer).all(|i| q[i].same(&k[i]) && q[i].same(&v[i])),
    })
}
