//! The index space of an axis as sums and products of letters, and letters made one like types in type inference.
//!
//! `Concat` adds spaces, `Reshape` multiplies and factors them, `Split` cuts a sum. A letter that turns out to be a sum or a
//! product is bound to it, wherever it stands. What remains free is a *group*: axes that can only be cut together.

use std::collections::BTreeSet;
use std::rc::Rc;

/// A letter, which may be bound to a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Letter(u32);

/// What the indices of an axis consist of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Space {
    /// The indices of a letter.
    Letter(Letter),
    /// Segments one after the other.
    Sum(Vec<Space>),
    /// Digits, the outermost first; of none the space of one index.
    Product(Vec<Space>),
}

/// The space of one index.
pub(crate) const ONE: Space = Space::Product(vec![]);

#[derive(Clone, Debug)]
struct Info {
    size: usize,
    bound: Option<Space>,
    pinned: Option<Rc<str>>,
}

/// All letters of a model.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spaces {
    letters: Vec<Info>,
}

/// Two spaces cannot be made one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unlike;

type Made<T = ()> = Result<T, Unlike>;

impl Spaces {
    /// A new space of `size` indices.
    pub(crate) fn fresh(&mut self, size: usize) -> Space {
        if size == 1 {
            return ONE;
        }
        self.letters.push(Info {
            size,
            bound: None,
            pinned: None,
        });
        Space::Letter(Letter(self.letters.len() as u32 - 1))
    }

    /// The number of indices.
    pub(crate) fn size(&self, space: &Space) -> usize {
        match space {
            Space::Letter(l) => self.info(*l).size,
            Space::Sum(parts) => parts.iter().map(|p| self.size(p)).sum(),
            Space::Product(parts) => parts.iter().map(|p| self.size(p)).product(),
        }
    }

    fn info(&self, l: Letter) -> &Info {
        &self.letters[l.0 as usize]
    }

    /// `space` with bound letters replaced, in normal form: no sum in a sum, no product in a product, none of one part.
    pub(crate) fn resolve(&self, space: &Space) -> Space {
        match space {
            Space::Letter(l) => match &self.info(*l).bound {
                Some(bound) => self.resolve(bound),
                None => space.clone(),
            },
            Space::Sum(parts) => {
                let parts = parts.iter().flat_map(|p| match self.resolve(p) {
                    Space::Sum(inner) => inner,
                    other => vec![other],
                });
                single(parts.filter(|p| self.size(p) > 0).collect(), Space::Sum)
            }
            Space::Product(parts) => {
                let parts = parts.iter().flat_map(|p| match self.resolve(p) {
                    Space::Product(inner) => inner,
                    other => vec![other],
                });
                single(parts.collect(), Space::Product)
            }
        }
    }

    /// The free letters of `space`, the outermost and first first; some may be there more than once.
    pub(crate) fn leaves(&self, space: &Space) -> Vec<Letter> {
        fn walk(space: &Space, to: &mut Vec<Letter>) {
            match space {
                Space::Letter(l) => to.push(*l),
                Space::Sum(parts) | Space::Product(parts) => parts.iter().for_each(|p| walk(p, to)),
            }
        }
        let mut found = vec![];
        walk(&self.resolve(space), &mut found);
        found
    }

    /// Why `letter` cannot be cut, if it cannot.
    pub(crate) fn pinned(&self, letter: Letter) -> Option<&str> {
        self.info(letter).pinned.as_deref()
    }

    /// Notes that nothing of `space` can be cut; the first reason counts.
    pub(crate) fn pin(&mut self, space: &Space, why: &Rc<str>) {
        for l in self.leaves(space) {
            self.letters[l.0 as usize]
                .pinned
                .get_or_insert_with(|| why.clone());
        }
    }

    /// Makes two spaces one.
    ///
    /// # Errors
    ///
    /// If their sizes or their parts do not fit. Some parts may be one already.
    pub(crate) fn unify(&mut self, a: &Space, b: &Space) -> Made {
        let (a, b) = (self.resolve(a), self.resolve(b));
        if self.size(&a) != self.size(&b) {
            return Err(Unlike);
        }
        match (&a, &b) {
            _ if a == b => Ok(()),
            // The younger to the older, so that letters along a graph do not become a chain as long as it.
            (&Space::Letter(x), &Space::Letter(y)) => self.bind(x.max(y), &Space::Letter(x.min(y))),
            (&Space::Letter(l), other) | (other, &Space::Letter(l)) => self.bind(l, other),
            (Space::Sum(x), Space::Sum(y)) => self.sums(x, y),
            (Space::Product(x), Space::Product(y)) => self.products(x.clone(), y.clone()),
            (Space::Sum(x), _) => self.unify_parts(x, &b),
            (_, Space::Sum(y)) => self.unify_parts(y, &a),
        }
    }

    fn bind(&mut self, l: Letter, space: &Space) -> Made {
        if self.leaves(space).contains(&l) {
            return Err(Unlike);
        }
        if let Some(why) = self.info(l).pinned.clone() {
            self.pin(space, &why);
        }
        self.letters[l.0 as usize].bound = Some(space.clone());
        Ok(())
    }

    /// Makes `space` a sum of `parts`.
    fn unify_parts(&mut self, parts: &[Space], space: &Space) -> Made {
        let sizes: Vec<_> = parts.iter().map(|p| self.size(p)).collect();
        let found = self.split(space, &sizes)?;
        parts.iter().zip(&found).try_for_each(|(a, b)| self.unify(a, b))
    }

    /// Two sums, cut at the borders of both.
    fn sums(&mut self, a: &[Space], b: &[Space]) -> Made {
        let borders = |parts: &[Space]| -> Vec<usize> {
            let sizes = parts.iter().map(|p| self.size(p));
            let sum = |at: &mut usize, size| {
                *at += size;
                Some(*at)
            };
            sizes.scan(0, sum).collect()
        };
        let all: BTreeSet<usize> = borders(a).into_iter().chain(borders(b)).collect();
        let sizes: Vec<usize> = all
            .iter()
            .scan(0, |at, &border| Some(border - std::mem::replace(at, border)))
            .collect();
        let a = self.split(&Space::Sum(a.to_vec()), &sizes)?;
        let b = self.split(&Space::Sum(b.to_vec()), &sizes)?;
        a.iter().zip(&b).try_for_each(|(a, b)| self.unify(a, b))
    }

    /// Two products, from the innermost digit outwards.
    fn products(&mut self, mut a: Vec<Space>, mut b: Vec<Space>) -> Made {
        loop {
            let (x, y) = match (a.pop(), b.pop()) {
                (Some(x), Some(y)) => (x, y),
                (None, None) => return Ok(()),
                _ => return Err(Unlike),
            };
            let (sx, sy) = (self.size(&x), self.size(&y));
            if sx == sy {
                self.unify(&x, &y)?;
            } else if sx < sy {
                let (outer, inner) = self.factor(&y, sx)?;
                self.unify(&x, &inner)?;
                b.push(outer);
            } else {
                let (outer, inner) = self.factor(&x, sy)?;
                self.unify(&inner, &y)?;
                a.push(outer);
            }
        }
    }

    /// `space` as consecutive segments of `sizes`.
    ///
    /// # Errors
    ///
    /// If a border runs through an outer digit.
    pub(crate) fn split(&mut self, space: &Space, sizes: &[usize]) -> Made<Vec<Space>> {
        if let [_] = sizes {
            return Ok(vec![space.clone()]);
        }
        match self.resolve(space) {
            Space::Letter(l) => {
                let parts: Vec<_> = sizes.iter().map(|&s| self.fresh(s)).collect();
                self.bind(l, &Space::Sum(parts.clone()))?;
                Ok(parts)
            }
            Space::Sum(parts) => self.split_sum(parts, sizes),
            Space::Product(parts) => {
                let (outer, rest) = parts.split_first().ok_or(Unlike)?;
                let rest = Space::Product(rest.to_vec());
                let inner = self.size(&rest);
                if sizes.iter().any(|s| s % inner != 0) {
                    return Err(Unlike);
                }
                let outer_sizes: Vec<_> = sizes.iter().map(|s| s / inner).collect();
                let outer = self.split(outer, &outer_sizes)?;
                let both = |o| Space::Product(vec![o, rest.clone()]);
                Ok(outer.into_iter().map(both).collect())
            }
        }
    }

    fn split_sum(&mut self, parts: Vec<Space>, sizes: &[usize]) -> Made<Vec<Space>> {
        let mut left: Vec<Space> = parts.into_iter().rev().collect();
        let mut made = vec![];
        for &size in sizes {
            let (mut taken, mut missing) = (vec![], size);
            while missing > 0 {
                let part = left.pop().ok_or(Unlike)?;
                let has = self.size(&part);
                if has <= missing {
                    missing -= has;
                    taken.push(part);
                } else {
                    let halves = self.split(&part, &[missing, has - missing])?;
                    let [first, second] = &halves[..] else {
                        return Err(Unlike);
                    };
                    taken.push(first.clone());
                    left.push(second.clone());
                    missing = 0;
                }
            }
            made.push(Space::Sum(taken));
        }
        Ok(made)
    }

    /// `space` as an outer digit and an inner one of `size`.
    ///
    /// # Errors
    ///
    /// If it has no such digit.
    pub(crate) fn factor(&mut self, space: &Space, size: usize) -> Made<(Space, Space)> {
        let space = self.resolve(space);
        let all = self.size(&space);
        match space {
            _ if size == 0 || !all.is_multiple_of(size) => Err(Unlike),
            _ if size == 1 => Ok((space, ONE)),
            _ if size == all => Ok((ONE, space)),
            Space::Letter(l) => {
                let (outer, inner) = (self.fresh(all / size), self.fresh(size));
                self.bind(l, &Space::Product(vec![outer.clone(), inner.clone()]))?;
                Ok((outer, inner))
            }
            Space::Product(parts) => self.factor_product(parts, size),
            Space::Sum(parts) => {
                let mut outers = vec![];
                let mut common: Option<Space> = None;
                for part in &parts {
                    let (outer, inner) = self.factor(part, size)?;
                    match &common {
                        Some(first) => self.unify(first, &inner)?,
                        None => common = Some(inner),
                    }
                    outers.push(outer);
                }
                Ok((Space::Sum(outers), common.ok_or(Unlike)?))
            }
        }
    }

    fn factor_product(&mut self, mut parts: Vec<Space>, size: usize) -> Made<(Space, Space)> {
        let (mut inner, mut missing) = (vec![], size);
        while missing > 1 {
            let part = parts.pop().ok_or(Unlike)?;
            let has = self.size(&part);
            if missing % has == 0 {
                missing /= has;
                inner.push(part);
            } else {
                let (outer, last) = self.factor(&part, missing)?;
                inner.push(last);
                parts.push(outer);
                missing = 1;
            }
        }
        inner.reverse();
        Ok((Space::Product(parts), Space::Product(inner)))
    }

    /// For each index of `space` whether it stays where of each letter only those stay that `keeps` says.
    pub(crate) fn mask(&self, space: &Space, keeps: &dyn Fn(Letter) -> Option<Rc<[bool]>>) -> Vec<bool> {
        match space {
            Space::Letter(l) => match &self.info(*l).bound {
                Some(bound) => self.mask(bound, keeps),
                None => keeps(*l).map_or_else(|| vec![true; self.size(space)], |k| k.to_vec()),
            },
            Space::Sum(parts) => parts.iter().flat_map(|p| self.mask(p, keeps)).collect(),
            Space::Product(parts) => parts.iter().fold(vec![true], |outer, p| {
                let inner = self.mask(p, keeps);
                let row = |o: &bool| inner.iter().map(|i| *o && *i).collect::<Vec<_>>();
                outer.iter().flat_map(row).collect()
            }),
        }
    }

    /// For each index of `space` the index of `letter` that it has, the first where there is more than one; `usize::MAX` where it
    /// has none.
    pub(crate) fn digits(&self, space: &Space, letter: Letter) -> Vec<usize> {
        match space {
            Space::Letter(l) => match &self.info(*l).bound {
                Some(bound) => self.digits(bound, letter),
                None if *l == letter => (0..self.size(space)).collect(),
                None => vec![usize::MAX; self.size(space)],
            },
            Space::Sum(parts) => parts.iter().flat_map(|p| self.digits(p, letter)).collect(),
            Space::Product(parts) => parts.iter().fold(vec![usize::MAX], |outer, p| {
                let inner = self.digits(p, letter);
                let row = |&o: &usize| inner.iter().map(|&i| o.min(i)).collect::<Vec<_>>();
                outer.iter().flat_map(row).collect()
            }),
        }
    }

    /// The number of indices of `space` that are left if each letter has as many as `width` says.
    pub(crate) fn kept(&self, space: &Space, width: &dyn Fn(Letter) -> Option<usize>) -> usize {
        match space {
            Space::Letter(l) => match &self.info(*l).bound {
                Some(bound) => self.kept(bound, width),
                None => width(*l).unwrap_or_else(|| self.size(space)),
            },
            Space::Sum(parts) => parts.iter().map(|p| self.kept(p, width)).sum(),
            Space::Product(parts) => parts.iter().map(|p| self.kept(p, width)).product(),
        }
    }
}

fn single(mut parts: Vec<Space>, many: fn(Vec<Space>) -> Space) -> Space {
    match parts.len() {
        1 => parts.remove(0),
        _ => many(parts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn widths(s: &Spaces, space: &Space) -> Vec<usize> {
        s.leaves(space)
            .into_iter()
            .map(|l| s.size(&Space::Letter(l)))
            .collect()
    }

    #[test]
    fn merged_projections_are_one_letter_for_heads() {
        // A merged [3, heads, width] that is split in three, and each seen as [heads, width].
        let mut s = Spaces::default();
        let merged = s.fresh(3 * 4 * 8);
        let parts: Vec<_> = (0..3).map(|_| s.fresh(32)).collect();
        s.unify(&merged, &Space::Sum(parts.clone())).unwrap();
        let seen: Vec<[Space; 2]> = (0..3).map(|_| [s.fresh(4), s.fresh(8)]).collect();
        for (p, [h, d]) in parts.iter().zip(&seen) {
            s.unify(p, &Space::Product(vec![h.clone(), d.clone()])).unwrap();
        }
        s.unify(&seen[0][0], &seen[1][0]).unwrap();
        s.unify(&seen[0][1], &seen[1][1]).unwrap();
        assert_eq!(widths(&s, &merged), [4, 8, 4, 8, 4, 8]);
        let heads = s.leaves(&seen[0][0])[0];
        let keeps = move |l: Letter| (l == heads).then(|| Rc::from([true, false, true, true]));
        let mask = s.mask(&merged, &keeps);
        let gone: Vec<_> = (0..96).filter(|&i| !mask[i]).collect();
        let expected: Vec<_> = (8..16).chain(40..48).collect();
        assert_eq!(gone, expected, "the second head of the first two parts");
        assert_eq!(s.kept(&merged, &|l| (l == heads).then_some(3)), 80);
    }

    #[test]
    fn sums_are_cut_at_the_borders_of_both() {
        let mut s = Spaces::default();
        let [a, b, c, d] = [5, 3, 2, 6].map(|n| s.fresh(n));
        s.unify(
            &Space::Sum(vec![a.clone(), b.clone()]),
            &Space::Sum(vec![c.clone(), d.clone()]),
        )
        .unwrap();
        assert_eq!(widths(&s, &a), [2, 3]);
        assert_eq!(widths(&s, &d), [3, 3]);
        assert_eq!(s.leaves(&a)[0], s.leaves(&c)[0]);
    }

    #[test]
    fn a_product_is_a_sum_of_equal_parts() {
        let mut s = Spaces::default();
        let [three, rest, x, y, z] = [3, 4, 4, 4, 4].map(|n| s.fresh(n));
        s.unify(
            &Space::Product(vec![three, rest.clone()]),
            &Space::Sum(vec![x.clone(), y.clone(), z.clone()]),
        )
        .unwrap();
        assert!([x, y, z].iter().all(|p| s.leaves(p) == s.leaves(&rest)));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut s = Spaces::default();
        let [a, b, c, d, e] = [4, 6, 3, 8, 5].map(|n| s.fresh(n));
        let product = |x: &Space, y: &Space| Space::Product(vec![x.clone(), y.clone()]);
        assert_eq!(s.unify(&a, &e), Err(Unlike));
        assert_eq!(s.unify(&product(&a, &b), &product(&c, &d)), Err(Unlike));
        let [h, w] = [4, 8].map(|n| s.fresh(n));
        let [x, y] = [5, 27].map(|n| s.fresh(n));
        assert_eq!(s.unify(&product(&h, &w), &Space::Sum(vec![x, y])), Err(Unlike));
    }

    #[test]
    fn letters_along_a_graph_make_no_chain() {
        let mut s = Spaces::default();
        let all: Vec<_> = (0..200_000).map(|_| s.fresh(4)).collect();
        s.pin(&all[1], &Rc::from("inside"));
        all.windows(2).for_each(|w| s.unify(&w[0], &w[1]).unwrap());
        let first = s.leaves(&all[0])[0];
        assert_eq!(s.leaves(&all[199_999]), [first]);
        assert_eq!(s.pinned(first), Some("inside"));
    }

    #[test]
    fn pins_go_with_the_letters() {
        let mut s = Spaces::default();
        let [a, h, d] = [12, 3, 4].map(|n| s.fresh(n));
        s.pin(&a, &Rc::from("first"));
        s.unify(&a, &Space::Product(vec![h.clone(), d.clone()])).unwrap();
        s.pin(&h, &Rc::from("second"));
        assert!([h, d].iter().all(|x| s.pinned(s.leaves(x)[0]) == Some("first")));
    }
}
