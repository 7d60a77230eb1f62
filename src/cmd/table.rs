//! Tables of text.

/// Rows of cells under a head; columns of numbers are set flush right.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with the columns `head`.
    pub(crate) fn new(head: &[&str]) -> Table {
        Table {
            rows: vec![head.iter().map(ToString::to_string).collect()],
        }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = impl ToString>) {
        self.rows.push(cells.into_iter().map(|c| c.to_string()).collect());
    }

    fn cell(&self, row: usize, column: usize) -> &str {
        self.rows[row].get(column).map_or("", |c| c)
    }

    fn is_number(&self, column: usize) -> bool {
        let number = |c: &str| {
            c.chars()
                .next()
                .is_none_or(|c| c.is_ascii_digit() || "+-–".contains(c))
        };
        self.rows.len() > 1 && (1..self.rows.len()).all(|r| number(self.cell(r, column)))
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |c| {
            (0..self.rows.len())
                .map(|r| self.cell(r, c).chars().count())
                .max()
        };
        let widths: Vec<usize> = (0..columns).map(|c| width(c).unwrap_or(0)).collect();
        let right: Vec<bool> = (0..columns).map(|c| self.is_number(c)).collect();
        for r in 0..self.rows.len() {
            let mut line = String::new();
            for c in 0..columns {
                let (cell, width) = (self.cell(r, c), widths[c]);
                match right[c] {
                    true => line.push_str(&format!("{cell:>width$}  ")),
                    false => line.push_str(&format!("{cell:<width$}  ")),
                }
            }
            let end = if r + 1 < self.rows.len() { "\n" } else { "" };
            write!(f, "{}{end}", line.trim_end())?;
        }
        Ok(())
    }
}

/// `n` with its thousands set apart.
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_right_and_words_left() {
        let mut t = Table::new(&["name", "n"]);
        t.row(["a", "5"]);
        t.row(["long one", "1,234"]);
        assert_eq!(t.to_string(), "name          n\na             5\nlong one  1,234");
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(
            [0, 999, 1000, 1234567].map(thousands),
            ["0", "999", "1,000", "1,234,567"]
        );
    }
}
