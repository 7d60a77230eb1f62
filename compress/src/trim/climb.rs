//! Ladders climbed until enough is saved.

use crate::math::allot::{Rung, allot};
use crate::recover::RecoverError;

/// Of each of `ladders` the rung to stand on, so that `reached` says that it is enough and little more than needed is lost; where savings add
/// up, that is where costs come to `most`. All that can go where that is not enough. What is needed is looked for in `steps` steps.
///
/// # Errors
///
/// Those of `reached`.
pub(super) fn climb(
    ladders: &[Vec<Rung>],
    most: f64,
    steps: u32,
    reached: &dyn Fn(&[usize]) -> Result<bool, RecoverError>,
) -> Result<Vec<usize>, RecoverError> {
    let lowest = |l: &Vec<Rung>| l.iter().map(|r| r.cost).reduce(f64::min);
    let least: f64 = ladders.iter().filter_map(lowest).sum();
    let mut at = allot(ladders, most);
    if least >= most || reached(&at)? {
        return Ok(at);
    }
    // What goes together may save less than the sum of what each saves.
    let (mut low, mut high) = (least, most);
    at = allot(ladders, least);
    for _ in 0..steps {
        let middle = (low + high) / 2.0;
        let found = allot(ladders, middle);
        if reached(&found)? {
            (at, low) = (found, middle);
        } else {
            high = middle;
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ladder(costs: &[f64]) -> Vec<Rung> {
        let rung = |(i, &cost): (usize, &f64)| Rung {
            cost,
            harm: (i * i) as f64,
        };
        costs.iter().enumerate().map(rung).collect()
    }

    #[test]
    fn more_goes_where_savings_do_not_add_up() {
        let ladders = [ladder(&[0.0, -1.0, -2.0]), ladder(&[0.0, -1.0, -2.0, -3.0])];
        let all = |at: &[usize]| at.iter().sum::<usize>();
        let enough = |n: usize| move |at: &[usize]| Ok(all(at) >= n);
        assert_eq!(all(&climb(&ladders, -2.0, 12, &enough(2)).unwrap()), 2);
        assert_eq!(all(&climb(&ladders, -2.0, 12, &enough(4)).unwrap()), 4);
        assert_eq!(climb(&ladders, -9.0, 12, &enough(9)).unwrap(), [2, 3]);
        assert_eq!(climb(&ladders, 0.0, 12, &enough(0)).unwrap(), [0, 0]);
    }
}
