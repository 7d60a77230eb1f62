//! Units left out, by their number or by what they cost.

use secateur_engine::Model;

use super::unit::{Unit, importance};
use super::{First, Frame, Rank, Trim, widths};
use crate::change::Plan;
use crate::groups::Of;
use crate::recover::RecoverError;

/// How many of the first are still there.
pub(super) fn number(trim: &Trim, model: &Model, first: &First, frame: &Frame) -> Result<f64, RecoverError> {
    Ok(free(trim, model, first, frame)?.len() as f64)
}

fn free(trim: &Trim, model: &Model, first: &First, frame: &Frame) -> Result<Vec<Unit>, RecoverError> {
    let mut found = Unit::all(model, trim.piece, frame.sizes)?;
    found.retain(|u| first.sizes.contains_key(&u.name));
    Ok(found)
}

pub(super) fn decide(
    trim: &Trim,
    model: &Model,
    (share, first): (f64, &First),
    rank: &Rank,
    frame: &Frame,
) -> Result<Plan, RecoverError> {
    let free = free(trim, model, first, frame)?;
    let scores = importance(&free, model, rank);
    let gone = match trim.of {
        Of::Channels => {
            let all = (first.sizes.len() as f64 * share).round() as usize;
            least(&scores, all.saturating_sub(first.sizes.len() - free.len()))
        }
        of => {
            let there = widths::amount(&super::followed(model, frame)?, of, first)?;
            let costs: Vec<f64> = free.iter().map(|u| cost(u, of)).collect();
            cheapest(&scores, &costs, there - first.whole * (1.0 - share))
        }
    };
    Ok(Plan(gone.into_iter().map(|i| free[i].change.clone()).collect()))
}

/// What goes with `unit`.
fn cost(unit: &Unit, of: Of) -> f64 {
    match of {
        Of::Parameters => unit.parameters as f64,
        _ => unit.macs as f64,
    }
}

/// The places of the `n` least of `scores`, of equal ones the last, ascending.
fn least(scores: &[f64], n: usize) -> Vec<usize> {
    let mut order = by(scores);
    order.truncate(n);
    order.sort_unstable();
    order
}

/// The places of those that together cost `enough`, or all: those of the least score for what they cost first, without those that
/// are not needed after all.
fn cheapest(scores: &[f64], costs: &[f64], enough: f64) -> Vec<usize> {
    let prices: Vec<f64> = scores.iter().zip(costs).map(|(s, c)| s / c.max(1.0)).collect();
    let (mut gone, mut sum) = (vec![], 0.0);
    for i in by(&prices) {
        if sum >= enough {
            break;
        }
        gone.push(i);
        sum += costs[i];
    }
    // The last may have made some before it needless: the dearest of those come back.
    for i in by(&prices).into_iter().rev() {
        if gone.contains(&i) && sum - costs[i] >= enough {
            gone.retain(|g| *g != i);
            sum -= costs[i];
        }
    }
    gone.sort_unstable();
    gone
}

/// The places of `prices`, the least first; of equal ones the last.
fn by(prices: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..prices.len()).collect();
    order.sort_by(|&a, &b| prices[a].total_cmp(&prices[b]).then(b.cmp(&a)));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_ones_the_last_goes() {
        assert_eq!(least(&[1.0, 0.5, 0.5, 2.0], 1), [2]);
        assert_eq!(least(&[1.0, 0.5, 0.5, 2.0], 9), [0, 1, 2, 3]);
    }

    #[test]
    fn what_costs_much_and_does_little_goes_first() {
        let (scores, costs) = ([1.0, 1.0, 3.0, 0.1], [10.0, 40.0, 50.0, 5.0]);
        assert_eq!(cheapest(&scores, &costs, 30.0), [1]);
        assert_eq!(cheapest(&scores, &costs, 41.0), [1, 3]);
        assert_eq!(cheapest(&scores, &costs, 60.0), [1, 2]);
        assert_eq!(cheapest(&scores, &costs, 0.0), [0usize; 0]);
        assert_eq!(cheapest(&scores, &costs, 1e9), [0, 1, 2, 3]);
    }
}
