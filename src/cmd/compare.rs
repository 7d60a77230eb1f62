//! How far apart two tensors are.

use secateur::Tensor;
use serde_json::{Value, json};

/// |a − b| ≤ `atol` + `rtol`·|b|, for every element.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Tolerance {
    /// Relative tolerance: |a − b| ≤ ATOL + RTOL·|b|
    #[arg(long, value_name = "RTOL", default_value_t = 1e-3)]
    pub(crate) rtol: f64,
    /// Absolute tolerance
    #[arg(long, value_name = "ATOL", default_value_t = 1e-4)]
    pub(crate) atol: f64,
}

/// One element that differs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Element {
    pub(crate) index: Vec<usize>,
    pub(crate) a: f64,
    pub(crate) b: f64,
}

/// How far a tensor is from another.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Distance {
    /// The greatest |a − b|; infinite where one is NaN or infinite and the other is not the same.
    pub(crate) max_abs: f64,
    /// The greatest |a − b| ÷ |b| where |b| exceeds the absolute tolerance.
    pub(crate) max_rel: f64,
    /// Elements out of tolerance.
    pub(crate) outside: usize,
    /// The element that exceeds its tolerance most, or else differs most.
    pub(crate) worst: Option<Element>,
    /// Why the tensors cannot be compared at all.
    pub(crate) mismatch: Option<String>,
}

impl Distance {
    /// The distance of `a` from `b`. NaN equals NaN.
    pub(crate) fn of(a: &Tensor, b: &Tensor, within: Tolerance) -> Distance {
        let same_type = (a.dtype(), a.dims()) == (b.dtype(), b.dims());
        let (Some(x), Some(y), true) = (a.floats(), b.floats(), same_type) else {
            let ty = |t: &Tensor| format!("{}{:?}", t.dtype(), t.dims());
            return Distance {
                max_abs: f64::INFINITY,
                max_rel: f64::INFINITY,
                outside: a.len().max(1),
                mismatch: Some(format!("{} cannot be compared with {}", ty(a), ty(b))),
                ..Distance::default()
            };
        };
        let mut d = Distance::default();
        let mut most = (0.0, 0);
        for (i, (&p, &q)) in x.iter().zip(&y).enumerate() {
            let excess = d.element(p, q, within);
            if excess > most.0 {
                most = (excess, i);
            }
        }
        d.worst = (most.0 > 0.0).then(|| Element {
            index: index(most.1, a.dims()),
            a: x[most.1],
            b: y[most.1],
        });
        d
    }

    /// Takes one pair in; how often the difference exceeds its tolerance.
    fn element(&mut self, a: f64, b: f64, within: Tolerance) -> f64 {
        if a == b || (a.is_nan() && b.is_nan()) {
            return 0.0;
        }
        let apart = match (a - b).abs() {
            d if d.is_finite() => d,
            _ => f64::INFINITY,
        };
        self.max_abs = self.max_abs.max(apart);
        if b.abs() > within.atol {
            self.max_rel = self.max_rel.max(apart / b.abs());
        }
        let allowed = within.atol + within.rtol * b.abs();
        // Infinite expectations allow nothing but themselves.
        let inside = apart <= allowed && apart.is_finite();
        self.outside += usize::from(!inside);
        match inside || allowed > 0.0 {
            true if apart.is_finite() => apart / allowed.max(f64::MIN_POSITIVE),
            _ => f64::INFINITY,
        }
    }

    /// Whether all elements are within tolerance.
    pub(crate) fn pass(&self) -> bool {
        self.outside == 0
    }

    /// The greater of both distances.
    pub(crate) fn merge(&mut self, other: Distance) {
        if self.worst.is_none() || other.max_abs > self.max_abs {
            self.worst = other.worst.or(self.worst.take());
        }
        self.max_abs = self.max_abs.max(other.max_abs);
        self.max_rel = self.max_rel.max(other.max_rel);
        self.outside += other.outside;
        self.mismatch = self.mismatch.take().or(other.mismatch);
    }

    /// What `--json` says of it.
    pub(crate) fn json(&self) -> Value {
        let worst = self.worst.as_ref();
        json!({
            "max_abs": self.max_abs,
            "max_rel": self.max_rel,
            "outside": self.outside,
            "worst": worst.map(|w| json!({"index": w.index, "a": w.a, "b": w.b})),
            "mismatch": self.mismatch,
            "pass": self.pass(),
        })
    }
}

fn index(mut flat: usize, dims: &[usize]) -> Vec<usize> {
    let mut index: Vec<usize> = dims
        .iter()
        .rev()
        .map(|&d| {
            let i = flat % d;
            flat /= d;
            i
        })
        .collect();
    index.reverse();
    index
}

/// The position of the greatest element of each row along the last axis; empty where there is no choice.
pub(crate) fn argmax(t: &Tensor) -> Vec<usize> {
    let (Some(&width), Some(x)) = (t.dims().last(), t.floats()) else {
        return vec![];
    };
    if width < 2 {
        return vec![];
    }
    let greatest = |row: &[f64]| {
        let better = |best: usize, i: usize| if row[i] > row[best] { i } else { best };
        (0..row.len()).fold(0, better)
    };
    x.chunks_exact(width).map(greatest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Tolerance = Tolerance {
        rtol: 1e-3,
        atol: 1e-4,
    };

    fn t(data: &[f32]) -> Tensor {
        Tensor::of(&[data.len()], data.to_vec())
    }

    #[test]
    fn equal_is_equal_even_where_it_is_no_number() {
        let x = t(&[1.0, f32::NAN, f32::INFINITY, -0.0]);
        assert_eq!(Distance::of(&x, &x, WITHIN), Distance::default());
    }

    #[test]
    fn both_tolerances_count() {
        let d = Distance::of(&t(&[1000.5, 0.00005]), &t(&[1000.0, 0.0]), WITHIN);
        assert!(d.pass() && d.max_abs == 0.5, "{d:?}");
        let d = Distance::of(&t(&[1000.0, 0.01]), &t(&[1000.0, 0.0]), WITHIN);
        assert_eq!((d.outside, d.worst.unwrap().index), (1, vec![1]));
    }

    #[test]
    fn no_number_is_far_from_every_number() {
        for (a, b) in [
            (f32::NAN, 1.0),
            (1.0, f32::NAN),
            (1.0, f32::INFINITY),
            (f32::INFINITY, f32::NEG_INFINITY),
        ] {
            let d = Distance::of(&t(&[a]), &t(&[b]), WITHIN);
            assert!(
                !d.pass() && d.max_abs == f64::INFINITY && d.worst.is_some(),
                "{a} {b} {d:?}"
            );
        }
    }

    #[test]
    fn other_shapes_do_not_pass() {
        let d = Distance::of(&t(&[1.0]), &t(&[1.0, 2.0]), WITHIN);
        assert!(!d.pass() && d.mismatch.is_some());
    }

    #[test]
    fn argmax_is_along_the_last_axis() {
        let x = Tensor::of(&[2, 3], vec![1f32, 3.0, 2.0, 9.0, 0.0, 9.0]);
        assert_eq!(argmax(&x), [1, 0]);
        assert!(argmax(&Tensor::of(&[3, 1], vec![1f32; 3])).is_empty());
    }
}
