//! Of several ladders one rung each, so that the whole costs little and hurts little.

/// A rung of a ladder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rung {
    /// What it costs to stand on it.
    pub cost: f64,
    /// What it hurts.
    pub harm: f64,
}

/// A step from one rung of a ladder to another that costs less.
struct Step {
    ladder: usize,
    to: usize,
    saved: f64,
    /// Harm for what is saved.
    price: f64,
}

/// Of each ladder the rung to stand on so that all together cost at most `most`, or as little as they can where that is more:
/// no other choice that costs as little hurts less. Equal ladders give equal choices; ladders must have rungs.
///
/// Steps are taken in the order of what they hurt for what they save, along the lower convex hull of each ladder (Lagrange's
/// multipliers; Everett 1963).
pub fn allot(ladders: &[Vec<Rung>], most: f64) -> Vec<usize> {
    divide(ladders, most).into_iter().map(|p| p.to).collect()
}

/// A place on a ladder, between two rungs or on one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// The rung that it comes from.
    pub from: usize,
    /// The rung that it goes to.
    pub to: usize,
    /// The part of the way between them, above 0 and at most 1.
    pub part: f64,
}

impl Place {
    /// What lies there of something that is `of` each rung.
    pub fn at(self, of: impl Fn(usize) -> f64) -> f64 {
        match self.part < 1.0 {
            true => of(self.from) + self.part * (of(self.to) - of(self.from)),
            false => of(self.to),
        }
    }
}

/// The same as [`allot`], but that the last step goes only as far as it must.
pub fn divide(ladders: &[Vec<Rung>], most: f64) -> Vec<Place> {
    let stand = |l: &Vec<Rung>| Place {
        from: first(l),
        to: first(l),
        part: 1.0,
    };
    let mut at: Vec<Place> = ladders.iter().map(stand).collect();
    let mut cost: f64 = ladders.iter().zip(&at).map(|(l, p)| l[p.to].cost).sum();
    let hulls = ladders.iter().zip(&at).enumerate();
    let mut steps: Vec<Step> = hulls.flat_map(|(i, (l, p))| hull(i, l, p.to)).collect();
    steps.sort_by(|a, b| a.price.total_cmp(&b.price));
    for step in steps {
        if cost <= most {
            break;
        }
        at[step.ladder] = Place {
            from: at[step.ladder].to,
            to: step.to,
            part: ((cost - most) / step.saved).min(1.0),
        };
        cost -= step.saved;
    }
    at
}

/// The rung that hurts least; of several the one that costs least.
fn first(ladder: &[Rung]) -> usize {
    let key = |r: &Rung| (r.harm, r.cost);
    let less = |a: &usize, b: &usize| key(&ladder[*a]).partial_cmp(&key(&ladder[*b]));
    let order = |a: &usize, b: &usize| less(a, b).unwrap_or(std::cmp::Ordering::Equal);
    (0..ladder.len()).min_by(order).unwrap_or(0)
}

/// The steps down from rung `from`, dearer and dearer.
fn hull(i: usize, ladder: &[Rung], mut from: usize) -> Vec<Step> {
    let mut steps = vec![];
    let step = |from: usize, to: usize| {
        let saved = ladder[from].cost - ladder[to].cost;
        let price = (ladder[to].harm - ladder[from].harm) / saved;
        (saved > 0.0 && price.is_finite()).then_some(Step {
            ladder: i,
            to,
            saved,
            price,
        })
    };
    // Of equally dear ones the longest.
    let better = |a: &Step, b: &Step| a.price.total_cmp(&b.price).then(b.saved.total_cmp(&a.saved));
    while let Some(next) = (0..ladder.len()).filter_map(|to| step(from, to)).min_by(better) {
        from = next.to;
        steps.push(next);
    }
    steps
}

#[cfg(test)]
mod tests {
    use secateur_engine::random::Random;

    use super::*;

    fn rungs(all: &[(f64, f64)]) -> Vec<Rung> {
        all.iter().map(|&(cost, harm)| Rung { cost, harm }).collect()
    }

    fn sums(ladders: &[Vec<Rung>], at: &[usize]) -> (f64, f64) {
        let each = ladders.iter().zip(at).map(|(l, &i)| l[i]);
        each.fold((0.0, 0.0), |(c, h), r| (c + r.cost, h + r.harm))
    }

    #[test]
    fn what_hurts_least_for_what_it_saves_goes_first() {
        let cheap = rungs(&[(4.0, 0.0), (2.0, 0.1), (1.0, 3.0)]);
        let dear = rungs(&[(4.0, 0.0), (2.0, 1.0)]);
        let ladders = [cheap, dear];
        assert_eq!(allot(&ladders, 9.0), [0, 0]);
        assert_eq!(allot(&ladders, 7.0), [1, 0]);
        assert_eq!(allot(&ladders, 5.0), [1, 1]);
        assert_eq!(allot(&ladders, 3.0), [2, 1]);
        // Less is not to be had.
        assert_eq!(allot(&ladders, 0.0), [2, 1]);
    }

    #[test]
    fn the_last_step_goes_only_as_far_as_it_must() {
        let ladders = [rungs(&[(4.0, 0.0), (2.0, 0.1)]), rungs(&[(4.0, 0.0), (2.0, 1.0)])];
        let cost = |most| {
            let at = divide(&ladders, most);
            at.iter()
                .zip(&ladders)
                .map(|(p, l)| p.at(|i| l[i].cost))
                .sum::<f64>()
        };
        for most in [8.0, 7.5, 6.0, 5.0, 4.0] {
            assert!((cost(most) - most).abs() < 1e-12, "{most}: {}", cost(most));
        }
        assert_eq!((cost(9.0), cost(1.0)), (8.0, 4.0));
        let at = divide(&ladders, 5.0);
        assert_eq!((at[0].part, at[1].part), (1.0, 0.5));
    }

    #[test]
    fn rungs_that_cost_more_and_hurt_more_are_left_out() {
        let odd = rungs(&[(4.0, 0.0), (5.0, 0.5), (3.0, 2.0), (1.0, 0.2), (0.5, f64::NAN)]);
        let odd = std::slice::from_ref(&odd);
        assert_eq!(allot(odd, 3.5), [3]);
        assert_eq!(allot(odd, 0.1), [3]);
        let free = rungs(&[(4.0, 0.3), (3.0, 0.0), (2.0, 0.0)]);
        assert_eq!(allot(&[free], 9.0), [2]);
    }

    #[test]
    fn no_choice_that_costs_as_little_hurts_less() {
        let mut random = Random::new(5);
        for _ in 0..200 {
            let mut ladder = || {
                let mut rung = || Rung {
                    cost: random.uniform(),
                    harm: random.uniform(),
                };
                (0..4).map(|_| rung()).collect::<Vec<_>>()
            };
            let ladders: Vec<_> = (0..3).map(|_| ladder()).collect();
            for most in [0.3, 0.8, 1.5] {
                let (cost, harm) = sums(&ladders, &allot(&ladders, most));
                let all = (0..64).map(|i| [i % 4, i / 4 % 4, i / 16]);
                let least = all
                    .map(|at| sums(&ladders, &at))
                    .filter(|(c, _)| *c <= cost + 1e-12);
                assert!(least.into_iter().all(|(_, h)| h >= harm - 1e-9));
            }
        }
    }
}
