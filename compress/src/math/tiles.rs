//! Tensors cut into tiles: what tiles consist of, and which of their elements go.

use serde::{Deserialize, Serialize};

use super::Float;

/// A row-major tensor cut into equal tiles, of which the last along an axis may be cut short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tiles {
    /// The size of each axis, outermost first.
    pub dims: Vec<usize>,
    /// The size of a tile along each axis.
    pub tile: Vec<usize>,
}

/// Tiles numbered in row-major order, ready to be walked through.
#[derive(Clone, Debug)]
pub struct Grid {
    axes: Vec<Axis>,
    tiles: usize,
}

#[derive(Clone, Copy, Debug)]
struct Axis {
    dim: usize,
    tile: usize,
    /// Elements from one place to the next.
    step: usize,
    /// Tiles of the axes within.
    inner: usize,
}

impl Tiles {
    /// The tiles of `elements` elements, in order; `None` where the axes have another number.
    pub fn grid(&self, elements: usize) -> Option<Grid> {
        let product = self.dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let fits = product == Some(elements) && self.dims.len() == self.tile.len();
        if !fits || self.tile.contains(&0) {
            return None;
        }
        let (mut axes, mut step, mut tiles) = (vec![], 1, 1);
        for (dim, tile) in self.merged().into_iter().rev() {
            axes.push(Axis {
                dim,
                tile,
                step,
                inner: tiles,
            });
            (step, tiles) = (step * dim, tiles * dim.div_ceil(tile));
        }
        axes.reverse();
        Some(Grid { axes, tiles })
    }

    /// Sizes of axes and tiles, with neighbours as one where that makes the same tiles in the same order.
    fn merged(&self) -> Vec<(usize, usize)> {
        let mut axes: Vec<(usize, usize)> = vec![];
        for (&dim, &tile) in self.dims.iter().zip(&self.tile) {
            let tile = tile.min(dim.max(1));
            match axes.last_mut() {
                Some((outer, high)) if tile == dim => (*outer, *high) = (*outer * dim, *high * dim),
                Some((outer, high)) if *high == 1 && dim.is_multiple_of(tile) => {
                    (*outer, *high) = (*outer * dim, tile);
                }
                _ => axes.push((dim, tile)),
            }
        }
        axes
    }
}

/// What a tile consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    /// The mean magnitude.
    pub score: f64,
    /// Elements that are not zero.
    pub live: u64,
}

/// Which elements go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Gone {
    /// Those of tiles whose mean magnitude is at most the threshold, but of those that equal it the first so many stay.
    Small(f64, u64),
    /// In each tile all but so many of the largest; of equal ones the first stay.
    AllBut(usize),
}

impl Grid {
    /// The number of tiles.
    pub fn tiles(&self) -> usize {
        self.tiles
    }

    /// Calls `f` with the place of each element of tile `i`, ascending.
    fn cells(&self, i: usize, f: &mut impl FnMut(usize)) {
        walk(&self.axes, i, 0, f);
    }

    /// What tile `i` of `x` consists of. A mean with NaN is NaN.
    pub fn seen<F: Float>(&self, x: &[F::Stored], i: usize) -> Seen {
        let (mut sum, mut cells, mut live) = (0.0, 0u64, 0);
        self.cells(i, &mut |at| {
            let magnitude = F::value(F::magnitude(x[at]));
            sum += magnitude;
            cells += 1;
            live += u64::from(magnitude != 0.0);
        });
        let score = sum / cells.max(1) as f64;
        Seen { score, live }
    }

    /// Calls `f` with the place of each element of `x` that goes, zeros among them. NaNs stay.
    pub fn gone<F: Float>(&self, x: &[F::Stored], which: Gone, mut f: impl FnMut(usize)) {
        match which {
            Gone::Small(threshold, ties) => self.small::<F>(x, (threshold, ties), &mut f),
            Gone::AllBut(keep) => self.all_but::<F>(x, keep, &mut f),
        }
    }

    fn small<F: Float>(&self, x: &[F::Stored], (threshold, ties): (f64, u64), f: &mut impl FnMut(usize)) {
        let mut spare = ties;
        for i in 0..self.tiles {
            let score = self.seen::<F>(x, i).score;
            if score == threshold && spare > 0 {
                spare -= 1;
            } else if score <= threshold {
                self.cells(i, f);
            }
        }
    }

    fn all_but<F: Float>(&self, x: &[F::Stored], keep: usize, f: &mut impl FnMut(usize)) {
        let mut tile = vec![];
        for i in 0..self.tiles {
            tile.clear();
            self.cells(i, &mut |at| tile.push((F::magnitude(x[at]), at)));
            tile.sort_by_key(|&(magnitude, _)| std::cmp::Reverse(magnitude));
            let rest = tile.iter().skip(keep).filter(|t| t.0 <= F::INFINITY);
            rest.for_each(|&(_, at)| f(at));
        }
    }
}

fn walk(axes: &[Axis], i: usize, base: usize, f: &mut impl FnMut(usize)) {
    let [axis, inner @ ..] = axes else { return f(base) };
    let start = i / axis.inner * axis.tile;
    for at in start..axis.dim.min(start + axis.tile) {
        walk(inner, i % axis.inner, base + at * axis.step, f);
    }
}

#[cfg(test)]
mod tests {
    use super::super::float::F32;
    use super::*;

    fn grid(dims: &[usize], tile: &[usize]) -> Grid {
        let tiles = Tiles {
            dims: dims.to_vec(),
            tile: tile.to_vec(),
        };
        tiles.grid(dims.iter().product()).unwrap()
    }

    /// The elements of all tiles.
    fn cells(dims: &[usize], tile: &[usize]) -> Vec<Vec<usize>> {
        let grid = grid(dims, tile);
        let of = |i| {
            let mut cells = vec![];
            grid.cells(i, &mut |at| cells.push(at));
            cells
        };
        (0..grid.tiles()).map(of).collect()
    }

    /// The same by the definition.
    fn defined(dims: &[usize], tile: &[usize]) -> Vec<Vec<usize>> {
        let mut tiles = std::collections::BTreeMap::<Vec<usize>, Vec<usize>>::new();
        for at in 0..dims.iter().product() {
            let (mut rest, mut key) = (at, vec![]);
            for (d, t) in dims.iter().zip(tile).rev() {
                key.insert(0, rest % d / t);
                rest /= d;
            }
            tiles.entry(key).or_default().push(at);
        }
        tiles.into_values().collect()
    }

    #[test]
    fn tiles_are_what_the_definition_says() {
        for dims in [[3, 4, 6], [1, 5, 2], [7, 1, 4], [2, 8, 3], [4, 4, 1]] {
            for i in 0..5usize.pow(3) {
                let tile = [
                    [1, 2, 3, 4, 9][i % 5],
                    [1, 2, 3, 4, 9][i / 5 % 5],
                    [1, 2, 3, 4, 9][i / 25],
                ];
                assert_eq!(cells(&dims, &tile), defined(&dims, &tile), "{dims:?} {tile:?}");
            }
        }
    }

    #[test]
    fn neighbouring_axes_become_one() {
        let axes = |dims: &[usize], tile: &[usize]| grid(dims, tile).axes.len();
        assert_eq!(axes(&[8, 6, 3, 3], &[4, 1, 1, 1]), 2);
        assert_eq!(axes(&[8, 8, 3, 3], &[1, 4, 1, 1]), 2);
        assert_eq!(axes(&[8, 6, 3, 3], &[1, 6, 3, 3]), 1);
    }

    #[test]
    fn axes_that_do_not_fit_are_refused() {
        let tiles = |dims: &[usize], tile: &[usize]| Tiles {
            dims: dims.to_vec(),
            tile: tile.to_vec(),
        };
        assert!(tiles(&[2, 3], &[1, 1]).grid(7).is_none());
        assert!(tiles(&[2, 3], &[1]).grid(6).is_none());
        assert!(tiles(&[2, 3], &[1, 0]).grid(6).is_none());
        assert!(tiles(&[usize::MAX, 3], &[1, 1]).grid(6).is_none());
    }

    fn stored(x: &[f32]) -> Vec<[u8; 4]> {
        x.iter().map(|x| x.to_le_bytes()).collect()
    }

    fn gone(x: &[f32], tile: usize, which: Gone) -> Vec<usize> {
        let mut gone = vec![];
        grid(&[x.len()], &[tile]).gone::<F32>(&stored(x), which, |at| gone.push(at));
        gone.sort();
        gone
    }

    #[test]
    fn small_tiles_go_and_of_equal_ones_the_last() {
        // Means 2, 1, 2, and 3 of a tile of one.
        let x = [1.0, -3.0, 2.0, 0.0, 2.0, 2.0, -3.0];
        assert_eq!(gone(&x, 2, Gone::Small(1.5, 9)), [2, 3]);
        assert_eq!(gone(&x, 2, Gone::Small(2.0, 1)), [2, 3, 4, 5]);
        assert_eq!(gone(&x, 2, Gone::Small(f64::INFINITY, 0)).len(), 7);
        let y = [f32::NAN, 0.0, f32::INFINITY, 1.0];
        assert_eq!(gone(&y, 2, Gone::Small(f64::INFINITY, 0)), [2, 3], "NaN stays");
        let seen = grid(&[7], &[2]).seen::<F32>(&stored(&x), 1);
        assert_eq!(seen, Seen { score: 1.0, live: 1 });
    }

    #[test]
    fn the_largest_stay_and_of_equal_ones_the_first() {
        let x = [1.0, -3.0, 2.0, 0.0, 5.0, 5.0, -5.0, 5.0, 1.0, 2.0];
        assert_eq!(gone(&x, 4, Gone::AllBut(2)), [0, 3, 6, 7]);
        assert_eq!(gone(&x, 4, Gone::AllBut(1)), [0, 2, 3, 5, 6, 7, 8]);
        let y = [f32::NAN, 1.0, f32::NAN, f32::INFINITY];
        assert_eq!(gone(&y, 4, Gone::AllBut(1)), [1, 3], "NaN stays");
    }
}
