//! What is lost as columns of products go, one index after the other, each time with the columns that stay set right: Optimal Brain Surgeon
//! for structures (Hassibi and Stork 1993; Kurtic, Frantar and Alistarh 2023, arXiv:2302.04089).

use super::factor::{dot, inverse_factor};

/// Removals that are put together before the inverse is brought up to date.
const PENDING: usize = 32;

/// A matrix of which columns are to go.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Of each column its elements, `[columns, outputs]`, an output being multiplied by the root of what its errors weigh.
    pub turned: Vec<f64>,
    /// The sums of products of what columns are multiplied by, `[columns, columns]`.
    pub products: Vec<f64>,
    /// The columns of each index; some may have none, and some columns may be of none.
    pub columns: Vec<Vec<usize>>,
}

/// In which order indices go, and what has been lost by then.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// All indices, the first to go first.
    pub order: Vec<usize>,
    /// What is lost with each of them and all before it; rising.
    pub lost: Vec<f64>,
}

impl Curve {
    /// What is lost where the first `gone` have gone.
    pub fn at(&self, gone: usize) -> f64 {
        match gone.checked_sub(1) {
            Some(last) => self
                .lost
                .get(last.min(self.lost.len().saturating_sub(1)))
                .copied()
                .unwrap_or(0.0),
            None => 0.0,
        }
    }

    /// For each index what has been lost when it goes.
    pub fn scores(&self) -> Vec<f64> {
        let mut scores = vec![0.0; self.order.len()];
        self.order
            .iter()
            .zip(&self.lost)
            .for_each(|(&i, &lost)| scores[i] = lost);
        scores
    }
}

/// Takes out all indices, each time the one with whose columns least is lost over all `layers`, when the columns that stay are
/// set right by least squares; of equal ones the last. `fixed` is what is lost with each index beside. `None` where products are not
/// positive definite.
pub fn eliminate(layers: Vec<Layer>, fixed: &[f64]) -> Option<Curve> {
    let layers: Option<Vec<State>> = layers.into_iter().map(State::new).collect();
    let mut layers = layers?;
    let mut alive: Vec<usize> = (0..fixed.len()).collect();
    let (mut curve, mut lost) = (Curve::default(), 0.0);
    while !alive.is_empty() {
        let cost = |&i: &usize| fixed[i] + layers.iter().map(|l| l.costs[i]).sum::<f64>();
        let costs: Vec<f64> = alive.iter().map(cost).collect();
        let least = (0..alive.len()).min_by(|&a, &b| costs[a].total_cmp(&costs[b]).then(b.cmp(&a)))?;
        lost += costs[least].max(0.0);
        let i = alive.remove(least);
        curve.order.push(i);
        curve.lost.push(lost);
        for layer in &mut layers {
            layer.remove(i, &alive)?;
        }
    }
    Some(curve)
}

/// A layer from which columns have gone.
struct State {
    n: usize,
    outputs: usize,
    /// What the matrix has become, `[columns, outputs]`.
    turned: Vec<f64>,
    /// The inverse of the products of the columns that are there, but for what is pending.
    inverse: Vec<f64>,
    /// Rows whose products with themselves are still to be taken off the inverse.
    pending: Vec<Vec<f64>>,
    columns: Vec<Vec<usize>>,
    /// Of each index the inverse at its columns.
    blocks: Vec<Vec<f64>>,
    costs: Vec<f64>,
    gone: Vec<bool>,
}

impl State {
    fn new(layer: Layer) -> Option<State> {
        let Layer {
            turned,
            products,
            columns,
        } = layer;
        let n = products.len().isqrt();
        let inverse = inverse(products, n)?;
        let block = |of: &Vec<usize>| -> Vec<f64> {
            let row = |&r: &usize| of.iter().map(move |&c| r * n + c);
            of.iter().flat_map(row).map(|at| inverse[at]).collect()
        };
        let mut state = State {
            n,
            outputs: turned.len() / n.max(1),
            turned,
            pending: vec![],
            blocks: columns.iter().map(block).collect(),
            costs: vec![0.0; columns.len()],
            gone: vec![false; n],
            columns,
            inverse,
        };
        for i in 0..state.columns.len() {
            state.costs[i] = state.cost(i)?;
        }
        Some(state)
    }

    fn column(&self, c: usize) -> &[f64] {
        &self.turned[c * self.outputs..][..self.outputs]
    }

    /// What is lost with index `i`: the sum of squares of what its columns are worth beyond the others.
    fn cost(&self, i: usize) -> Option<f64> {
        match self.columns[i][..] {
            [] => Some(0.0),
            [c] => {
                let (w, d) = (self.column(c), self.blocks[i][0]);
                (d > 0.0).then(|| dot(w, w) / d)
            }
            _ => Some(self.parts(i)?.1.iter().map(|q| dot(q, q)).sum()),
        }
    }

    /// The factor of the block of index `i`, and its columns divided by it.
    fn parts(&self, i: usize) -> Option<(Vec<f64>, Vec<Vec<f64>>)> {
        let of = &self.columns[i];
        let mut l = self.blocks[i].clone();
        if !factored(&mut l, of.len()) {
            return None;
        }
        let rows = of.iter().map(|&c| self.column(c).to_vec()).collect();
        let rows = divided(&l, rows);
        Some((l, rows))
    }

    /// Takes out index `i` and sets the columns of `alive` and of no index right.
    fn remove(&mut self, i: usize, alive: &[usize]) -> Option<()> {
        if self.columns[i].is_empty() {
            return Some(());
        }
        let (l, q) = self.parts(i)?;
        let rows = self.columns[i].iter().map(|&c| self.row(c)).collect();
        let p = divided(&l, rows);
        self.columns[i].iter().for_each(|&c| self.gone[c] = true);
        let outputs = self.outputs;
        for (c, w) in self.turned.chunks_exact_mut(outputs.max(1)).enumerate() {
            if !self.gone[c] {
                p.iter().zip(&q).for_each(|(p, q)| less(w, p[c], q));
            }
        }
        for &j in alive {
            let of = &self.columns[j];
            let pairs = of.iter().flat_map(|&r| of.iter().map(move |&c| (r, c)));
            let block = self.blocks[j].iter_mut().zip(pairs);
            block.for_each(|(x, (r, c))| *x -= p.iter().map(|p| p[r] * p[c]).sum::<f64>());
            self.costs[j] = self.cost(j)?;
        }
        self.pending.extend(p);
        if self.pending.len() >= PENDING {
            self.settle();
        }
        Some(())
    }

    /// Row `r` of the inverse.
    fn row(&self, r: usize) -> Vec<f64> {
        let mut row = self.inverse[r * self.n..][..self.n].to_vec();
        self.pending.iter().for_each(|p| less(&mut row, p[r], p));
        row
    }

    /// Brings the inverse up to date.
    fn settle(&mut self) {
        for (r, row) in self.inverse.chunks_exact_mut(self.n.max(1)).enumerate() {
            if !self.gone[r] {
                self.pending.iter().for_each(|p| less(row, p[r], p));
            }
        }
        self.pending.clear();
    }
}

/// The lower triangular `l` with `l · lᵀ = a`, a small matrix, in its place; `false` where that is not positive definite.
fn factored(a: &mut [f64], n: usize) -> bool {
    for i in 0..n {
        for j in 0..=i {
            let rest = a[i * n + j] - (0..j).map(|k| a[i * n + k] * a[j * n + k]).sum::<f64>();
            if j < i {
                a[i * n + j] = rest / a[j * n + j];
            } else if rest > 0.0 {
                a[i * n + i] = rest.sqrt();
            } else {
                return false;
            }
        }
    }
    true
}

/// Takes `x · y` off `to`.
fn less(to: &mut [f64], x: f64, y: &[f64]) {
    to.iter_mut().zip(y).for_each(|(to, y)| *to -= x * y);
}

/// `l⁻¹ · rows`, where `l` is lower triangular.
fn divided(l: &[f64], mut rows: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let n = rows.len();
    for i in 0..n {
        let (before, rest) = rows.split_at_mut(i);
        let row = &mut rest[0];
        before
            .iter()
            .enumerate()
            .for_each(|(j, b)| less(row, l[i * n + j], b));
        row.iter_mut().for_each(|x| *x /= l[i * n + i]);
    }
    rows
}

/// The inverse of `a`.
fn inverse(mut a: Vec<f64>, n: usize) -> Option<Vec<f64>> {
    if !inverse_factor(&mut a, n) {
        return None;
    }
    // With a⁻¹ = uᵀ · u: rows of u, each of which begins at its diagonal.
    let mut inverse = vec![0.0; n * n];
    for k in 0..n {
        let u = &a[k * n + k..(k + 1) * n];
        for (i, &x) in u.iter().enumerate() {
            let row = &mut inverse[(k + i) * n + k + i..(k + i + 1) * n];
            row.iter_mut().zip(&u[i..]).for_each(|(y, u)| *y += x * u);
        }
    }
    for r in 0..n {
        (0..r).for_each(|c| inverse[r * n + c] = inverse[c * n + r]);
    }
    Some(inverse)
}

#[cfg(test)]
mod tests {
    use super::super::chance::Stream;
    use super::super::factor::tests::definite;
    use super::*;

    fn noise(n: usize, seed: u64) -> Vec<f64> {
        let s = Stream::new(seed, "damage");
        (0..n).map(|i| s.at(i as u64) - 0.5).collect()
    }

    /// What is left of `|| W x - W' x ||²` for the best `W'` of the columns that stay, by normal equations.
    fn residual(layer: &Layer, gone: &[usize]) -> f64 {
        let n = layer.products.len().isqrt();
        let m = layer.turned.len() / n;
        let lost: Vec<usize> = gone.iter().flat_map(|&i| layer.columns[i].clone()).collect();
        let stay: Vec<usize> = (0..n).filter(|c| !lost.contains(c)).collect();
        let mut l: Vec<f64> = stay
            .iter()
            .flat_map(|&r| stay.iter().map(move |&c| r * n + c))
            .map(|at| layer.products[at])
            .collect();
        assert!(factored(&mut l, stay.len()));
        let mut all = 0.0;
        for o in 0..m {
            let w: Vec<f64> = (0..n).map(|c| layer.turned[c * m + o]).collect();
            let gw: Vec<f64> = (0..n).map(|r| dot(&layer.products[r * n..][..n], &w)).collect();
            let right: Vec<f64> = stay.iter().map(|&c| gw[c]).collect();
            // Of G = l lᵀ: bᵀ G⁻¹ b is the square of l⁻¹ b.
            let best = divided(&l, right.iter().map(|&x| vec![x]).collect());
            all += dot(&w, &gw) - best.iter().map(|x| x[0] * x[0]).sum::<f64>();
        }
        all
    }

    fn layer(n: usize, m: usize, columns: Vec<Vec<usize>>, seed: u64) -> Layer {
        Layer {
            turned: noise(n * m, seed),
            products: definite(n, seed),
            columns,
        }
    }

    #[test]
    fn what_is_lost_is_what_a_fit_leaves() {
        // Heads of three columns, columns of no index, an index of none, and more columns than are put together.
        let heads = || (0..5).map(|i| (3 * i..3 * i + 3).collect()).collect();
        let apart = (0..7)
            .map(|i| if i == 4 { vec![] } else { vec![i, 16 - i] })
            .collect();
        let single = |n: usize| (0..n).map(|i| vec![i]).collect();
        for (n, m, columns) in [
            (15, 4, heads()),
            (17, 3, apart),
            (9, 1, single(9)),
            (PENDING + 13, 2, single(PENDING + 13)),
        ] {
            let layers = [layer(n, m, columns, 3)];
            let size = layers[0].columns.len();
            let curve = eliminate(layers.to_vec(), &vec![0.0; size]).unwrap();
            for gone in 1..=size {
                let left = residual(&layers[0], &curve.order[..gone]);
                assert!((curve.at(gone) - left).abs() < 1e-8 * (1.0 + left), "{n}: {gone}");
            }
            assert_eq!(curve.at(0), 0.0);
        }
    }

    #[test]
    fn several_layers_and_what_is_fixed_add_up() {
        let columns = || (0..6).map(|i| vec![2 * i, 2 * i + 1]).collect::<Vec<_>>();
        let single = (0..6).map(|i| vec![i]).collect();
        let layers = [layer(13, 3, columns(), 5), layer(6, 5, single, 6)];
        let fixed = [0.1, 0.0, 0.3, 0.2, 0.0, 0.5];
        let curve = eliminate(layers.to_vec(), &fixed).unwrap();
        for gone in 0..=6 {
            let order = &curve.order[..gone];
            let own: f64 = order.iter().map(|&i| fixed[i]).sum();
            let left = own + layers.iter().map(|l| residual(l, order)).sum::<f64>();
            assert!((curve.at(gone) - left).abs() < 1e-8, "{gone}");
        }
        // The first to go is the one with which least is lost.
        let one = |i: usize| fixed[i] + layers.iter().map(|l| residual(l, &[i])).sum::<f64>();
        assert!((0..6).all(|i| one(i) >= one(curve.order[0])));
    }

    #[test]
    fn doubles_go_first_and_for_nothing() {
        let n = 8;
        let mut layer = layer(n, 3, (0..n).map(|i| vec![i]).collect(), 7);
        // Column 6 is twice column 1, but for next to nothing.
        let g = layer.products.clone();
        let of = |c: usize| if c == 6 { (1, 2.0) } else { (c, 1.0) };
        for r in 0..n {
            for c in 0..n {
                let ((a, x), (b, y)) = (of(r), of(c));
                layer.products[r * n + c] = x * y * g[a * n + b] + if r == c { 1e-9 } else { 0.0 };
            }
        }
        let curve = eliminate(vec![layer], &[0.0; 8]).unwrap();
        assert!([1, 6].contains(&curve.order[0]), "{:?}", curve.order);
        assert!(curve.at(1) < 1e-7 && curve.at(2) > 1e-3, "{:?}", curve.lost);
    }

    #[test]
    fn what_has_no_inverse_is_refused() {
        let mut bad = layer(3, 2, vec![vec![0], vec![1], vec![2]], 8);
        bad.products[4] = f64::NAN;
        assert_eq!(eliminate(vec![bad], &[0.0; 3]), None);
        assert_eq!(eliminate(vec![], &[2.0, 1.0, 1.0]).unwrap().order, [2, 1, 0]);
    }

    #[test]
    fn scores_are_in_the_order_of_going() {
        let curve = Curve {
            order: vec![2, 0, 1],
            lost: vec![0.5, 1.0, 4.0],
        };
        assert_eq!(curve.scores(), [1.0, 4.0, 0.5]);
        assert_eq!([0, 1, 3, 9].map(|n| curve.at(n)), [0.0, 0.5, 4.0, 4.0]);
    }
}
