//! Dimensions that may be symbols, and arithmetic on them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::Name;

/// The size of one axis.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dim {
    /// A number. Negative only as the value of an integer tensor, never as a size.
    Known(i64),
    /// A name that stands for the same size wherever it occurs.
    Symbol(Name),
    /// A combination of symbols, in normal form: equal expressions are equal values.
    Expr(Arc<DimExpr>),
    /// Nothing is known, not even whether it equals another unknown size.
    Unknown,
}

/// A combination of symbols.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DimExpr {
    /// A sum of products with integer coefficients, sorted; the product without factors is the constant.
    Sum(Vec<(Vec<Dim>, i64)>),
    /// The quotient, rounded down.
    Floor(Dim, Dim),
    /// The lesser.
    Min(Dim, Dim),
    /// The greater.
    Max(Dim, Dim),
}

type Terms = BTreeMap<Vec<Dim>, i64>;

/// A combination of more symbols and numbers than this is taken for unknown: what is squared again and again soon is
/// larger than memory.
const WEIGHT: usize = 256;

impl Dim {
    /// A symbol.
    pub fn symbol(name: impl Into<Name>) -> Dim {
        Dim::Symbol(name.into())
    }

    /// The same, but unknown where the symbol is one that exporters write for sizes they do not know, which stands for
    /// another size each time.
    pub fn named(&self) -> Dim {
        match self {
            Dim::Symbol(s) if ["", "?", "-1", "None"].contains(&&**s) => Dim::Unknown,
            other => other.clone(),
        }
    }

    /// The number, where it is one.
    pub fn known(&self) -> Option<i64> {
        match self {
            Dim::Known(n) => Some(*n),
            _ => None,
        }
    }

    /// The number as a size: `None` where it is not known or negative.
    pub fn size(&self) -> Option<usize> {
        self.known().and_then(|n| usize::try_from(n).ok())
    }

    /// Whether both are surely the same size.
    pub fn same(&self, other: &Dim) -> bool {
        self == other && *self != Dim::Unknown
    }

    /// The quotient, rounded down. Unknown where `by` is 0.
    pub fn floor_div(&self, by: &Dim) -> Dim {
        match (self, by) {
            (Dim::Unknown, _) | (_, Dim::Unknown | Dim::Known(0)) => Dim::Unknown,
            (_, Dim::Known(1)) => self.clone(),
            (Dim::Known(a), Dim::Known(b)) => {
                let down = a.checked_rem(*b).is_some_and(|r| r != 0 && (r < 0) != (*b < 0));
                a.checked_div(*b)
                    .map_or(Dim::Unknown, |q| Dim::Known(q - i64::from(down)))
            }
            _ => self
                .exact_quotient(by)
                .unwrap_or_else(|| Dim::of(DimExpr::Floor(self.clone(), by.clone()))),
        }
    }

    /// The quotient, rounded up. Unknown where `by` is 0.
    pub fn ceil_div(&self, by: &Dim) -> Dim {
        let up = self.clone() + by.clone() - Dim::Known(1);
        match self.exact_quotient(by) {
            Some(q) => q,
            None => up.floor_div(by),
        }
    }

    /// The lesser of the two.
    pub fn lesser(&self, other: &Dim) -> Dim {
        self.extreme(other, i64::min, DimExpr::Min)
    }

    /// The greater of the two.
    pub fn greater(&self, other: &Dim) -> Dim {
        self.extreme(other, i64::max, DimExpr::Max)
    }

    /// The same with each symbol replaced by what `value` gives for it.
    pub fn substitute(&self, value: &dyn Fn(&str) -> Option<Dim>) -> Dim {
        match self {
            Dim::Symbol(s) => value(s).unwrap_or_else(|| self.clone()),
            Dim::Expr(e) => match &**e {
                DimExpr::Sum(terms) => terms.iter().fold(Dim::Known(0), |sum, (factors, k)| {
                    let product = factors
                        .iter()
                        .fold(Dim::Known(*k), |p, f| p * f.substitute(value));
                    sum + product
                }),
                DimExpr::Floor(a, b) => a.substitute(value).floor_div(&b.substitute(value)),
                DimExpr::Min(a, b) => a.substitute(value).lesser(&b.substitute(value)),
                DimExpr::Max(a, b) => a.substitute(value).greater(&b.substitute(value)),
            },
            _ => self.clone(),
        }
    }

    fn extreme(&self, other: &Dim, pick: fn(i64, i64) -> i64, expr: fn(Dim, Dim) -> DimExpr) -> Dim {
        match (self, other) {
            (Dim::Unknown, _) | (_, Dim::Unknown) => Dim::Unknown,
            (Dim::Known(a), Dim::Known(b)) => Dim::Known(pick(*a, *b)),
            (a, b) if a == b => a.clone(),
            (a, b) => {
                let (a, b) = if a <= b { (a, b) } else { (b, a) };
                Dim::of(expr(a.clone(), b.clone()))
            }
        }
    }

    /// `self / by` where that leaves no remainder whatever the symbols are.
    fn exact_quotient(&self, by: &Dim) -> Option<Dim> {
        let (of, by) = (self.terms()?, by.terms()?);
        let mut one = by.into_iter();
        let (factors, k) = one.next().filter(|_| one.len() == 0)?;
        let divide = |(mut have, n): (Vec<Dim>, i64)| {
            for f in &factors {
                have.remove(have.iter().position(|h| h == f)?);
            }
            (k != 0 && n % k == 0).then(|| (have, n / k))
        };
        let terms = of.into_iter().map(divide).collect::<Option<Terms>>()?;
        Some(Dim::sum(terms))
    }

    fn terms(&self) -> Option<Terms> {
        Some(match self {
            Dim::Unknown => return None,
            Dim::Known(0) => Terms::new(),
            Dim::Known(n) => Terms::from([(vec![], *n)]),
            Dim::Expr(e) => match &**e {
                DimExpr::Sum(terms) => terms.iter().cloned().collect(),
                _ => Terms::from([(vec![self.clone()], 1)]),
            },
            Dim::Symbol(_) => Terms::from([(vec![self.clone()], 1)]),
        })
    }

    fn sum(mut terms: Terms) -> Dim {
        terms.retain(|_, k| *k != 0);
        let mut all = terms.iter();
        match (all.next(), all.next()) {
            (None, _) => Dim::Known(0),
            (Some((factors, k)), None) if factors.is_empty() => Dim::Known(*k),
            (Some((factors, 1)), None) if factors.len() == 1 => factors[0].clone(),
            _ => Dim::of(DimExpr::Sum(terms.into_iter().collect())),
        }
    }

    /// The combination, unless it is too large to work with.
    fn of(expr: DimExpr) -> Dim {
        match expr.weight() <= WEIGHT {
            true => Dim::Expr(Arc::new(expr)),
            false => Dim::Unknown,
        }
    }

    fn weight(&self) -> usize {
        match self {
            Dim::Expr(e) => e.weight(),
            _ => 1,
        }
    }

    fn combine(self, other: Dim, sign: i64) -> Dim {
        let (Some(mut a), Some(b)) = (self.terms(), other.terms()) else {
            return Dim::Unknown;
        };
        for (factors, k) in b {
            let slot = a.entry(factors).or_insert(0);
            match k.checked_mul(sign).and_then(|k| slot.checked_add(k)) {
                Some(sum) => *slot = sum,
                None => return Dim::Unknown,
            }
        }
        Dim::sum(a)
    }
}

impl DimExpr {
    fn weight(&self) -> usize {
        match self {
            DimExpr::Sum(terms) => terms.iter().fold(0, |n, (factors, _)| {
                n + 1 + factors.iter().map(Dim::weight).sum::<usize>()
            }),
            DimExpr::Floor(a, b) | DimExpr::Min(a, b) | DimExpr::Max(a, b) => 1 + a.weight() + b.weight(),
        }
    }
}

impl std::ops::Add for Dim {
    type Output = Dim;
    fn add(self, other: Dim) -> Dim {
        self.combine(other, 1)
    }
}

impl std::ops::Sub for Dim {
    type Output = Dim;
    fn sub(self, other: Dim) -> Dim {
        self.combine(other, -1)
    }
}

impl std::ops::Mul for Dim {
    type Output = Dim;
    fn mul(self, other: Dim) -> Dim {
        let (Some(a), Some(b)) = (self.terms(), other.terms()) else {
            let zero = [&self, &other].contains(&&Dim::Known(0));
            return if zero { Dim::Known(0) } else { Dim::Unknown };
        };
        let mut terms = Terms::new();
        for (fa, ka) in &a {
            for (fb, kb) in &b {
                if terms.len() > WEIGHT || fa.len() + fb.len() > WEIGHT {
                    return Dim::Unknown;
                }
                let mut factors = [&fa[..], &fb[..]].concat();
                factors.sort();
                let slot = terms.entry(factors).or_insert(0);
                match ka.checked_mul(*kb).and_then(|k| slot.checked_add(k)) {
                    Some(sum) => *slot = sum,
                    None => return Dim::Unknown,
                }
            }
        }
        Dim::sum(terms)
    }
}

impl From<usize> for Dim {
    fn from(n: usize) -> Dim {
        i64::try_from(n).map_or(Dim::Unknown, Dim::Known)
    }
}

impl From<i64> for Dim {
    fn from(n: i64) -> Dim {
        Dim::Known(n)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Dim::Known(n) => write!(f, "{n}"),
            Dim::Symbol(s) => f.write_str(s),
            Dim::Unknown => f.write_str("?"),
            Dim::Expr(e) => match &**e {
                DimExpr::Floor(a, b) => write!(f, "floor({a}/{b})"),
                DimExpr::Min(a, b) => write!(f, "min({a}, {b})"),
                DimExpr::Max(a, b) => write!(f, "max({a}, {b})"),
                DimExpr::Sum(terms) => write_sum(f, terms),
            },
        }
    }
}

fn write_sum(f: &mut fmt::Formatter, terms: &[(Vec<Dim>, i64)]) -> fmt::Result {
    f.write_str("(")?;
    for (i, (factors, k)) in terms.iter().enumerate() {
        match (i, *k < 0) {
            (0, false) => {}
            (0, true) => f.write_str("-")?,
            (_, false) => f.write_str(" + ")?,
            (_, true) => f.write_str(" - ")?,
        }
        let mut parts: Vec<_> = factors.iter().map(Dim::to_string).collect();
        if k.unsigned_abs() != 1 || factors.is_empty() {
            parts.insert(0, k.unsigned_abs().to_string());
        }
        f.write_str(&parts.join("*"))?;
    }
    f.write_str(")")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(name: &str) -> Dim {
        Dim::symbol(name)
    }

    #[test]
    fn equal_expressions_are_equal_values() {
        let (a, b) = (s("a"), s("b"));
        assert_eq!(
            (a.clone() + b.clone()) * Dim::Known(2),
            b.clone() * Dim::Known(2) + a.clone() + a.clone()
        );
        assert_eq!(a.clone() + b.clone() - a.clone(), b);
        assert_eq!(
            (a.clone() * Dim::Known(4)).floor_div(&Dim::Known(2)),
            a.clone() * Dim::Known(2)
        );
        assert_eq!((a.clone() * b.clone()).floor_div(&a), b);
        assert_eq!(Dim::Known(-3).floor_div(&Dim::Known(2)), Dim::Known(-2));
        assert_eq!(Dim::Known(7).ceil_div(&Dim::Known(2)), Dim::Known(4));
    }

    #[test]
    fn substitution_reaches_into_expressions() {
        let half = (s("h") - Dim::Known(1)).floor_div(&Dim::Known(2)) + Dim::Known(1);
        let at = |n| half.substitute(&move |name| (name == "h").then_some(Dim::Known(n)));
        assert_eq!(at(320), Dim::Known(160));
        assert_eq!(at(7), Dim::Known(4));
        assert_eq!(half.to_string(), "(1 + floor((-1 + h)/2))");
    }

    #[test]
    fn a_placeholder_is_no_symbol() {
        assert_eq!(s("?").named(), Dim::Unknown);
        assert_eq!(s("n").named(), s("n"));
    }

    #[test]
    fn the_unknown_stays_unknown_and_overflow_becomes_it() {
        assert_eq!(Dim::Unknown + Dim::Known(1), Dim::Unknown);
        assert!(!Dim::Unknown.same(&Dim::Unknown));
        assert_eq!(Dim::Known(i64::MAX) * Dim::Known(2), Dim::Unknown);
        assert_eq!(Dim::Known(0) * Dim::Unknown, Dim::Known(0));
    }
}
