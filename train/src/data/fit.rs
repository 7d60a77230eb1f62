//! Examples as a model wants them.

use secateur_engine::ir::DType;

use super::DataError;
use super::store::{Data, Input, Labels, Wanted};

impl Data {
    /// The same examples as inputs for a model: named, typed and shaped as it wants them. Inputs are matched by name, or
    /// else in order; further ones of the data are left out. Labels must be below `classes`.
    ///
    /// A shape fits if it is the same but for axes of size 1, or one of both has a single axis; images also fit with
    /// their channels at the end.
    ///
    /// # Errors
    ///
    /// If anything does not fit, with the input or example, what is expected and what there is.
    pub fn fit(&self, wanted: &[Wanted], classes: Option<usize>) -> Result<Data, DataError> {
        let whole = |e: DataError| e.of(self.source());
        if let Some(classes) = classes {
            self.check_labels(classes).map_err(whole)?;
        }
        let named = |w: &Wanted| self.inputs.iter().position(|i| i.name == w.name);
        let by_name: Vec<_> = wanted.iter().map(named).collect();
        let mut others = (0..self.inputs.len()).filter(|i| !by_name.contains(&Some(*i)));
        let chosen = by_name.iter().map(|found| found.or_else(|| others.next()));
        let Some(chosen) = chosen.collect::<Option<Vec<usize>>>() else {
            let names: Vec<&str> = wanted.iter().map(|w| w.name.as_str()).collect();
            let have: Vec<&str> = self.inputs.iter().map(|i| i.name.as_str()).collect();
            let what = format!("expected inputs {names:?}, found {have:?}");
            return Err(whole(DataError::shape(what)));
        };
        let mut fitted = self.clone();
        (fitted.inputs, fitted.columns) = (vec![], vec![]);
        for (w, i) in wanted.iter().zip(chosen) {
            let (input, last) = fitting(&self.inputs[i], w).map_err(whole)?;
            fitted.inputs.push(input);
            let (column, turned) = self.columns[i];
            fitted.columns.push((column, turned || last));
        }
        Ok(fitted)
    }

    fn check_labels(&self, classes: usize) -> Result<(), DataError> {
        let Labels::Classes(all) = &self.store.labels else {
            let what = format!("expected labels of {classes} classes, found numbers");
            return Err(DataError::label(what));
        };
        let beyond = |&(_, &row): &(usize, &u32)| all[row as usize] >= classes as i64;
        match self.rows.iter().enumerate().find(beyond) {
            Some((i, &row)) => {
                let what = format!(
                    "expected a label from 0 to {}, found {}",
                    classes as i64 - 1,
                    all[row as usize]
                );
                Err(DataError::label(what).at(format!("example {i}")))
            }
            None => Ok(()),
        }
    }
}

/// What `input` becomes, and whether its channels go to the end.
fn fitting(input: &Input, wanted: &Wanted) -> Result<(Input, bool), DataError> {
    let typed =
        wanted.dtype.is_float() || (input.dtype.is_int() && matches!(wanted.dtype, DType::I64 | DType::I32));
    // Only pixels and floats are turned.
    let turned = |last: bool| !last || !input.dtype.is_int();
    let found = shaped(&input.dims, &wanted.dims).filter(|(_, last)| typed && turned(*last));
    let wrong = || {
        let axes: Vec<String> = wanted
            .dims
            .iter()
            .map(|d| d.map_or("?".into(), |d| d.to_string()))
            .collect();
        let (want, have) = (
            format!("{}[{}]", wanted.dtype, axes.join(", ")),
            format!("{}{:?}", input.dtype, input.dims),
        );
        DataError::shape(format!("expected {want} for each example, found {have}"))
            .at(format!("input {:?}", wanted.name))
    };
    let (dims, last) = found.ok_or_else(wrong)?;
    let (name, dtype) = (wanted.name.clone(), wanted.dtype);
    Ok((Input { name, dtype, dims }, last))
}

/// `have` in a shape that agrees with `want`, and whether the first of three axes goes to the end for it.
fn shaped(have: &[usize], want: &[Option<usize>]) -> Option<(Vec<usize>, bool)> {
    if agree(have, want) {
        return Some((have.to_vec(), false));
    }
    if let [c, h, w] = *have
        && agree(&[h, w, c], want)
    {
        return Some((vec![h, w, c], true));
    }
    let dims = filled(want, have.iter().product())?;
    let long = |dims: &[usize]| dims.iter().copied().filter(|&d| d != 1).collect::<Vec<_>>();
    let (a, b) = (long(have), long(&dims));
    (a == b || a.len() <= 1 || b.len() <= 1).then_some((dims, false))
}

fn agree(have: &[usize], want: &[Option<usize>]) -> bool {
    have.len() == want.len() && have.iter().zip(want).all(|(h, w)| w.is_none_or(|w| w == *h))
}

/// `want` with its one unknown axis such that there are `n` elements.
fn filled(want: &[Option<usize>], n: usize) -> Option<Vec<usize>> {
    let known = want.iter().flatten().try_fold(1usize, |n, &d| n.checked_mul(d))?;
    let free = want.iter().filter(|d| d.is_none()).count();
    let rest = n.checked_div(known)?;
    let fits = known * rest == n && (free == 1 || (free == 0 && rest == 1));
    fits.then(|| want.iter().map(|d| d.unwrap_or(rest)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Options, open};

    fn wanted(dims: &[usize]) -> Wanted {
        Wanted {
            name: "image".into(),
            dtype: DType::F32,
            dims: dims.iter().map(|&d| Some(d)).collect(),
        }
    }

    #[test]
    fn shapes_agree_or_are_refused() {
        let of = |have: &[usize], want: &[usize]| {
            let want: Vec<Option<usize>> = want.iter().map(|&d| (d > 0).then_some(d)).collect();
            shaped(have, &want)
        };
        assert_eq!(of(&[3, 8, 9], &[3, 0, 0]), Some((vec![3, 8, 9], false)));
        assert_eq!(of(&[3, 8, 9], &[8, 9, 3]), Some((vec![8, 9, 3], true)));
        assert_eq!(of(&[3, 8, 9], &[216]), Some((vec![216], false)));
        assert_eq!(of(&[3, 8, 9], &[0]), Some((vec![216], false)));
        assert_eq!(of(&[1, 8, 9], &[8, 9]), Some((vec![8, 9], false)));
        assert_eq!(of(&[64], &[1, 8, 8]), Some((vec![1, 8, 8], false)));
        for (have, want) in [
            ([3, 8, 9], [9, 8, 3]),
            ([3, 8, 9], [3, 9, 8]),
            ([3, 8, 9], [3, 8, 8]),
            ([3, 8, 9], [0, 0, 7]),
        ] {
            assert_eq!(of(&have, &want), None, "{have:?} as {want:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let data = open("digits", &Options::default()).unwrap().train;
        let flat = data.fit(&[wanted(&[64])], Some(10)).unwrap();
        assert_eq!(flat.batch(&[0, 1]).unwrap().inputs[0].1.dims(), [2, 64]);
        let said = |wanted: &[Wanted], classes| data.fit(wanted, classes).unwrap_err().to_string();
        let shape = said(&[wanted(&[3, 8, 8])], None);
        assert_eq!(
            shape,
            "digits: input \"image\": expected float[3, 8, 8] for each example, found float[1, 8, 8]"
        );
        let label = said(&[wanted(&[64])], Some(9));
        assert!(
            label.starts_with("digits: example ") && label.ends_with("expected a label from 0 to 8, found 9"),
            "{label}"
        );
        let two = said(
            &[
                wanted(&[64]),
                Wanted {
                    name: "mask".into(),
                    ..wanted(&[64])
                },
            ],
            None,
        );
        assert!(
            two.contains("expected inputs [\"image\", \"mask\"], found [\"image\"]"),
            "{two}"
        );
        let whole = Wanted {
            dtype: DType::I64,
            ..wanted(&[64])
        };
        assert!(data.fit(&[whole], None).is_err());
    }
}
