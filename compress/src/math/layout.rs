//! Where the elements of a weight stand in its matrices [outputs, columns].

use crate::pattern::{Matrix, Role};

/// A weight as `groups` matrices of `outputs` rows. Columns are the inputs, and at each place of a window again: the column of
/// input `i` at place `t` is `t · inputs + i`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Matrices.
    pub groups: usize,
    /// Rows of each.
    pub outputs: usize,
    /// Columns of each.
    pub columns: usize,
    /// Columns of one place of the window.
    pub inputs: usize,
    axes: Vec<Axis>,
}

/// An element of a weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// The matrix.
    pub group: usize,
    /// Its row.
    pub output: usize,
    /// Its column.
    pub column: usize,
}

/// An axis: its size, and what a step along it adds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Axis {
    dim: usize,
    step: Cell,
}

impl Layout {
    /// One without a weight: matrices of so many outputs and (columns, columns of one place).
    pub(crate) fn plain(groups: usize, outputs: usize, (columns, inputs): (usize, usize)) -> Layout {
        let axes = vec![];
        Layout {
            groups,
            outputs,
            columns,
            inputs,
            axes,
        }
    }

    /// The layout of `matrix`.
    pub fn of(matrix: &Matrix) -> Layout {
        let size = |role| {
            let axes = matrix.dims.iter().zip(&matrix.roles);
            axes.filter(|(_, r)| **r == role)
                .map(|(&d, _)| d)
                .product::<usize>()
        };
        let inputs = size(Role::Input);
        let mut next = [1, 1, 1, inputs];
        let mut axes = vec![];
        for (&dim, &role) in matrix.dims.iter().zip(&matrix.roles).rev() {
            let mut step = Cell::default();
            let (to, of) = match role {
                Role::Each => (&mut step.group, &mut next[0]),
                Role::Output => (&mut step.output, &mut next[1]),
                Role::Input => (&mut step.column, &mut next[2]),
                Role::Tap => (&mut step.column, &mut next[3]),
            };
            *to = *of;
            *of *= dim;
            axes.push(Axis { dim, step });
        }
        axes.reverse();
        let columns = inputs * size(Role::Tap);
        Layout {
            groups: size(Role::Each),
            outputs: size(Role::Output),
            columns,
            inputs,
            axes,
        }
    }

    /// The cell of each element, in row-major order.
    pub fn cells(&self) -> Vec<Cell> {
        let mut cells = vec![Cell::default()];
        for Axis { dim, step } in &self.axes {
            let along = |c: Cell| {
                (0..*dim).map(move |i| Cell {
                    group: c.group + i * step.group,
                    output: c.output + i * step.output,
                    column: c.column + i * step.column,
                })
            };
            cells = cells.into_iter().flat_map(along).collect();
        }
        cells
    }

    /// Where `cell` stands among all cells, matrix by matrix and row by row.
    pub fn place(&self, cell: Cell) -> usize {
        (cell.group * self.outputs + cell.output) * self.columns + cell.column
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(axes: &[(usize, Role)]) -> Layout {
        let (dims, roles) = axes.iter().copied().unzip();
        Layout::of(&Matrix { dims, roles })
    }

    #[test]
    fn a_matrix_product_is_turned() {
        let l = layout(&[(2, Role::Input), (3, Role::Output)]);
        assert_eq!((l.groups, l.outputs, l.columns), (1, 3, 2));
        let places: Vec<_> = l.cells().into_iter().map(|c| l.place(c)).collect();
        assert_eq!(places, [0, 2, 4, 1, 3, 5]);
    }

    #[test]
    fn a_convolution_has_its_inputs_at_each_place() {
        // Two groups of 3 outputs, 2 inputs and a window of 2.
        let l = layout(&[
            (2, Role::Each),
            (3, Role::Output),
            (2, Role::Input),
            (2, Role::Tap),
        ]);
        assert_eq!((l.groups, l.outputs, l.columns, l.inputs), (2, 3, 4, 2));
        let columns: Vec<_> = l.cells().iter().take(4).map(|c| c.column).collect();
        assert_eq!(columns, [0, 2, 1, 3]);
        let last = l.cells()[23];
        assert_eq!((last.group, last.output, last.column), (1, 2, 3));
        let mut places: Vec<_> = l.cells().into_iter().map(|c| l.place(c)).collect();
        places.sort();
        assert!(places.into_iter().eq(0..24));
    }
}
