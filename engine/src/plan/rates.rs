//! What kernels are predicted to take: for each a cost of its own, fitted by measurement, or else a guess.

use std::collections::BTreeMap;

use super::built_in::built_in;
use crate::cpu::sparse::Sparsity;
use crate::cpu::{Candidate, Cost};

/// What a kernel takes on one number of threads.
///
/// Arithmetic and traffic overlap: of `a` nanoseconds of the one and `b` of the other a run takes the fourth root of `a⁴ + b⁴`,
/// which is hardly more than the greater. To that comes what every run takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Microseconds of each run.
    pub fixed_us: f64,
    /// Nanoseconds for an arithmetic operation.
    pub ns_per_flop: f64,
    /// Nanoseconds for a byte read or written.
    pub ns_per_byte: f64,
    /// Bytes of a run beyond which the nearer caches hold no more.
    pub near_bytes: f64,
    /// Nanoseconds that each byte beyond these takes in addition.
    pub ns_per_far_byte: f64,
}

impl Rate {
    /// Milliseconds for `cost`.
    pub fn ms(&self, cost: &Cost) -> f64 {
        self.fixed_us * 1e-3 + self.parts(cost).0 * 1e-6
    }

    /// Nanoseconds without what is fixed, and how these grow with those of arithmetic and of traffic.
    pub(super) fn parts(&self, cost: &Cost) -> (f64, [f64; 2]) {
        let far = (cost.bytes - self.near_bytes).max(0.0);
        let both = [
            self.ns_per_flop * cost.flops,
            self.ns_per_byte * cost.bytes + self.ns_per_far_byte * far,
        ];
        let ns = both.iter().map(|x| x.powi(4)).sum::<f64>().powf(0.25);
        (ns, both.map(|x| if ns > 0.0 { (x / ns).powi(3) } else { 1.0 }))
    }
}

/// What a kernel takes on one thread, and on as many as were measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scaling {
    /// On one thread.
    pub one: Rate,
    /// On [`Rates::threads`] threads.
    pub all: Rate,
}

/// Milliseconds by which a kernel that is to be taken is taken to be faster.
const FORCED: f64 = 1e9;

/// What predictions of sparse kernels err by, as a factor.
const DOUBT: f64 = 1.08;

/// What kernels take, by their names ([`Candidate::name`](crate::cpu::Candidate::name)). What is not there is predicted as
/// on the machine that the built-in table was fitted on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rates {
    threads: usize,
    kernels: BTreeMap<String, Scaling>,
    forced: Option<Forced>,
}

/// Kernels that are chosen whatever they cost.
#[derive(Clone, Debug, PartialEq)]
enum Forced {
    Kernel(String),
    Sparse,
    Dense,
}

impl Rates {
    /// The rates of `kernels`, measured on one thread and on `threads`.
    pub fn new(threads: usize, kernels: BTreeMap<String, Scaling>) -> Rates {
        Rates {
            threads,
            kernels,
            forced: None,
        }
    }

    /// The same, but the kernel `name` is taken wherever it is offered, whatever it costs.
    pub fn force(self, name: impl Into<String>) -> Rates {
        Rates {
            forced: Some(Forced::Kernel(name.into())),
            ..self
        }
    }

    /// The same, but kernels that leave out zeros are taken wherever they are offered, or nowhere.
    pub fn force_sparse(self, sparse: bool) -> Rates {
        Rates {
            forced: Some(if sparse { Forced::Sparse } else { Forced::Dense }),
            ..self
        }
    }

    /// The greater number of threads that kernels were measured on; 0 where none were.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// What was measured.
    pub fn kernels(&self) -> &BTreeMap<String, Scaling> {
        &self.kernels
    }

    /// Predicted milliseconds of a run of the kernel `name` on `threads` threads.
    pub fn ms(&self, name: &str, cost: &Cost, threads: usize) -> f64 {
        match self.kernels.get(name) {
            Some(s) => self.between(s.one.ms(cost), s.all.ms(cost), threads),
            None => built_in(name, cost, threads).ms(cost),
        }
    }

    /// What choices compare: the time on one thread, so that no choice, and no result, depends on the number of threads.
    pub(super) fn price(&self, c: &Candidate) -> f64 {
        let worth = c.sparse.as_ref().is_none_or(Sparsity::is_worth);
        match &self.forced {
            Some(Forced::Kernel(name)) if *name == c.name => f64::NEG_INFINITY,
            Some(Forced::Dense) if c.sparse.is_some() => f64::INFINITY,
            _ if !worth => f64::INFINITY,
            // Of several kernels for zeros the cheapest.
            Some(Forced::Sparse) if c.sparse.is_some() => self.sparse_price(&c.name, &c.cost) - FORCED,
            _ if c.sparse.is_some() => self.sparse_price(&c.name, &c.cost),
            _ => self.ms(&c.name, &c.cost, 1),
        }
    }

    /// That of a kernel that leaves out zeros: where it is no faster than the predictions err, there is nothing to win.
    pub(super) fn sparse_price(&self, name: &str, cost: &Cost) -> f64 {
        DOUBT * self.ms(name, cost, 1)
    }

    /// Between (and beyond) what was measured a time is a part that threads share, and a part that they do not.
    fn between(&self, one: f64, all: f64, threads: usize) -> f64 {
        if threads <= 1 || self.threads <= 1 {
            return one;
        }
        let (t, most) = (threads.min(self.threads) as f64, self.threads as f64);
        let alone = (all * most - one) / (most - 1.0);
        alone + (one - alone) / t
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(us: f64) -> Rate {
        Rate {
            fixed_us: us,
            ..Rate::default()
        }
    }

    #[test]
    fn times_lie_between_those_measured() {
        let scaling = Scaling {
            one: fixed(8.0),
            all: fixed(3.5),
        };
        let rates = Rates::new(4, BTreeMap::from([("k".to_owned(), scaling)]));
        let us = |threads| 1e3 * rates.ms("k", &Cost::default(), threads);
        // 2 µs alone and 6 shared.
        for (threads, expected) in [(1, 8.0), (2, 5.0), (3, 4.0), (4, 3.5), (64, 3.5)] {
            assert!(
                (us(threads) - expected).abs() < 1e-9,
                "{threads}: {}",
                us(threads)
            );
        }
    }
}
