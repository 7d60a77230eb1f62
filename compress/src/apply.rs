//! Plans applied. Nothing else in this crate edits a model.

mod bypass;
mod narrow;
mod spell;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;

use secateur_engine::Tensor;
use secateur_engine::ir::{Buffer, Bytes, Constant, Data, Model};

use crate::bytes::Bits;
use crate::change::{Change, Cut, Mask, Plan, Replace};
use crate::error::{ApplyError, ApplyErrorKind};
use crate::math::float::with_float;
use crate::math::tiles::{Gone, Grid};
use crate::math::{Float, Kind, mask};
use crate::place::{Site, places};
use crate::scan::Effort;
pub(crate) use narrow::{Stays, forced_with};
pub use narrow::{Width, forced};

/// What applying a plan changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// One entry for each change of the plan that concerns the elements of one constant, in order.
    pub edits: Vec<Edit>,
    /// One entry for each group that was cut, in order.
    pub widths: Vec<Width>,
}

/// What one change did to one constant.
#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    /// The constant; see [`Weight::name`](crate::Weight::name).
    pub value: String,
    /// The number of elements.
    pub elements: u64,
    /// Elements that were zero.
    pub zeros_before: u64,
    /// Elements that are zero now.
    pub zeros_after: u64,
    /// Elements that are NaN, and stay.
    pub nans: u64,
    /// Elements that are another number now.
    pub changed: u64,
}

/// Where new tensors are kept while the model is in memory.
#[derive(Clone, Debug)]
pub struct Room {
    /// Bytes that may be ordinary memory.
    pub memory: usize,
    /// The folder for nameless files, mapped, that take what is more; best the one the model will be written to.
    pub folder: PathBuf,
}

/// Applies `plan` to `model`. Tensors of which no element changes are not copied; the others keep the form in which files
/// hold them.
///
/// # Errors
///
/// If the plan was made for another model.
pub fn apply(plan: &Plan, model: &mut Model) -> Result<Report, ApplyError> {
    apply_with(plan, model, &Effort::default(), None)
}

/// The same as [`apply`] for models that are larger than memory. The watch is told of one piece of work.
///
/// # Errors
///
/// If the plan was made for another model, or the file system refuses.
pub fn apply_with(
    plan: &Plan,
    model: &mut Model,
    effort: &Effort,
    room: Option<&Room>,
) -> Result<Report, ApplyError> {
    let mut new = model.clone();
    let edits = masked(plan, &mut new, effort, room)?;
    let mut widths = vec![];
    for change in &plan.0 {
        match change {
            Change::Mask(_) | Change::Replace(_) => {}
            Change::Narrow(n) => widths.extend(narrow::narrow(n, &mut new)?),
            Change::Bypass(b) => bypass::bypass(b, &mut new)?,
            Change::Skip(_) => {}
        }
    }
    let skips = plan.0.iter().filter_map(|change| match change {
        Change::Skip(skip) => Some(skip),
        _ => None,
    });
    bypass::skip(skips.collect(), &mut new)?;
    *model = new;
    Ok(Report { edits, widths })
}

/// Applies what `plan` says of single constants.
fn masked(
    plan: &Plan,
    model: &mut Model,
    effort: &Effort,
    room: Option<&Room>,
) -> Result<Vec<Edit>, ApplyError> {
    let sites = sites(plan, model)?;
    effort.watch.begin("pruning", bytes(model, &sites));
    let mut edited = Edited {
        model,
        new: HashMap::new(),
        left: room.map_or(usize::MAX, |r| r.memory),
        room,
    };
    let changes = edits(plan).zip(sites);
    let edits = changes
        .map(|(change, site)| match change {
            Edits::Mask(m) => edited.mask(m, site, effort),
            Edits::Replace(r) => edited.replace(r, site),
        })
        .collect::<Result<_, _>>()?;
    for (site, new) in edited.new {
        if let Some(c) = site.constant_mut(model) {
            *c = new;
        }
    }
    Ok(edits)
}

/// A change of the elements of one constant.
#[derive(Clone, Copy)]
enum Edits<'a> {
    Mask(&'a Mask),
    Replace(&'a Replace),
}

impl<'a> Edits<'a> {
    fn of(change: &'a Change) -> Option<Edits<'a>> {
        match change {
            Change::Mask(m) => Some(Edits::Mask(m)),
            Change::Replace(r) => Some(Edits::Replace(r)),
            Change::Narrow(_) | Change::Bypass(_) | Change::Skip(_) => None,
        }
    }

    fn value(self) -> &'a str {
        match self {
            Edits::Mask(m) => &m.value,
            Edits::Replace(r) => &r.value,
        }
    }
}

fn edits(plan: &Plan) -> impl Iterator<Item = Edits<'_>> {
    plan.0.iter().filter_map(Edits::of)
}

/// What [`apply`] would report, if each change were the only one.
///
/// # Errors
///
/// If the plan was made for another model.
pub fn preview(plan: &Plan, model: &Model, effort: &Effort) -> Result<Report, ApplyError> {
    let sites = sites(plan, model)?;
    effort.watch.begin("counting zeros", bytes(model, &sites));
    let edit = |(change, site): (Edits, Site)| {
        let c = site.constant(model).ok_or_else(|| unknown(change.value()))?;
        match change {
            Edits::Mask(m) => Ok(edit(m, &c.tensor, effort)?.0),
            Edits::Replace(r) => replaced(r, &c.tensor),
        }
    };
    let edits = edits(plan).zip(sites).map(edit).collect::<Result<_, _>>()?;
    let mut widths = vec![];
    let cuts = plan.0.iter().filter(|c| Edits::of(c).is_none());
    if cuts.clone().count() > 0 {
        let only = cuts.cloned();
        widths = apply(&Plan(only.collect()), &mut model.clone())?.widths;
    }
    Ok(Report { edits, widths })
}

/// Which elements of a tensor become zero.
enum Goes {
    /// Those of at most a magnitude, but the first so many that equal it.
    Small(f64, u64),
    /// Tiles, or elements of them.
    Tiles(Grid, Gone),
    /// Those with a one.
    Listed(Bits),
}

impl Goes {
    /// What `m` says of a tensor of `elements` elements, if it makes sense.
    fn of(m: &Mask, elements: usize) -> Option<Goes> {
        let grid = m.tiles.as_ref().map(|t| t.grid(elements));
        match (&m.cut, grid) {
            (&Cut::Small { threshold, .. }, _) if threshold.is_nan() || threshold < 0.0 => None,
            (&Cut::Small { threshold, ties }, None) => Some(Goes::Small(threshold, ties)),
            (&Cut::Small { threshold, ties }, Some(grid)) => {
                Some(Goes::Tiles(grid?, Gone::Small(threshold, ties)))
            }
            (Cut::Listed(bits), None) => bits.fits(elements).then(|| Goes::Listed(bits.clone())),
            (Cut::Listed(_), Some(_)) => None,
            (&Cut::AllBut(keep), grid) => {
                let keep = usize::try_from(keep).unwrap_or(usize::MAX);
                Some(Goes::Tiles(grid??, Gone::AllBut(keep)))
            }
        }
    }

    /// What it does to `t`, called `value`.
    fn edit(&self, value: &str, (t, kind): (&Tensor, Kind), effort: &Effort) -> Edit {
        let threshold = match self {
            Goes::Small(threshold, _) => *threshold,
            Goes::Tiles(..) | Goes::Listed(_) => 0.0,
        };
        let census = effort.sums(
            &[t],
            |_, bytes| with_float!(kind, F => mask::census::<F>(F::split(bytes), threshold)),
        )[0];
        let zeros_after = match self {
            Goes::Small(_, ties) => census.zeros_after(*ties),
            Goes::Tiles(grid, which) => {
                let mut new = 0;
                with_float!(kind, F => {
                    let x = F::split(t.bytes());
                    let live = |at: usize| u64::from(F::value(F::magnitude(x[at])) != 0.0);
                    grid.gone::<F>(x, *which, |at| new += live(at));
                });
                census.zeros + new
            }
            Goes::Listed(bits) => {
                let live = with_float!(kind, F => {
                    let x = F::split(t.bytes());
                    bits.places().filter(|&at| F::value(F::magnitude(x[at])) != 0.0).count()
                });
                census.zeros + live as u64
            }
        };
        Edit {
            value: value.to_owned(),
            elements: t.len() as u64,
            zeros_before: census.zeros,
            zeros_after,
            nans: census.nans,
            changed: zeros_after.saturating_sub(census.zeros),
        }
    }

    /// Writes `from` to `to` with zeros in their place.
    fn write(&self, kind: Kind, from: &[u8], to: &mut [u8]) {
        with_float!(kind, F => {
            let (from, to) = (F::split(from), F::split_mut(to));
            match self {
                Goes::Small(threshold, ties) => mask::mask::<F>(from, to, *threshold, *ties),
                Goes::Tiles(grid, which) => {
                    to.copy_from_slice(from);
                    grid.gone::<F>(from, *which, |at| to[at] = Default::default());
                }
                Goes::Listed(bits) => {
                    to.copy_from_slice(from);
                    bits.places().for_each(|at| to[at] = Default::default());
                }
            }
        });
    }
}

/// What `m` would make zero, were it made for `scores`.
pub(crate) fn gone(m: &Mask, scores: &[f32]) -> Option<Bits> {
    let bytes: Vec<u8> = scores.iter().flat_map(|x| x.to_le_bytes()).collect();
    let mut to = vec![0; bytes.len()];
    Goes::of(m, scores.len())?.write(Kind::F32, &bytes, &mut to);
    let new = to.as_chunks::<4>().0.iter().map(|&x| f32::from_le_bytes(x));
    Some(Bits::of(
        new.zip(scores).map(|(new, &old)| new == 0.0 && old != 0.0),
    ))
}

/// What `r` does to `t`.
fn replaced(r: &Replace, t: &Tensor) -> Result<Edit, ApplyError> {
    let kind = Kind::of(t.dtype()).filter(|_| t.len() as u64 == r.elements);
    let kind = kind.filter(|_| t.bytes().len() == r.data.0.len());
    let kind = kind.ok_or_else(|| misfit(&Change::Replace(r.clone()), t))?;
    with_float!(kind, F => {
        let (old, new) = (F::split(t.bytes()), F::split(&r.data.0));
        let zero = |x: &&_| F::value(F::magnitude(**x)) == 0.0;
        Ok(Edit {
            value: r.value.clone(),
            elements: r.elements,
            zeros_before: old.iter().filter(zero).count() as u64,
            zeros_after: new.iter().filter(zero).count() as u64,
            nans: mask::census::<F>(new, 0.0).nans,
            changed: old.iter().zip(new).filter(|(a, b)| a != b).count() as u64,
        })
    })
}

/// What `m` does to `t`, how, and the type of its elements.
fn edit(m: &Mask, t: &Tensor, effort: &Effort) -> Result<(Edit, Goes, Kind), ApplyError> {
    let kind = Kind::of(t.dtype()).filter(|_| t.len() as u64 == m.elements);
    let both = kind.and_then(|kind| Some((kind, Goes::of(m, t.len())?)));
    let (kind, goes) = both.ok_or_else(|| mismatch(m, t))?;
    Ok((goes.edit(&m.value, (t, kind), effort), goes, kind))
}

/// The size of all constants at `sites`.
fn bytes(model: &Model, sites: &[Site]) -> u64 {
    let constants = sites.iter().filter_map(|s| s.constant(model));
    constants.map(|c| c.tensor.bytes().len() as u64).sum()
}

/// Where the values are that the changes name.
fn sites(plan: &Plan, model: &Model) -> Result<Vec<Site>, ApplyError> {
    let all: HashMap<String, Site> = places(model).into_iter().map(|p| (p.name, p.site)).collect();
    let find = |c: Edits| all.get(c.value()).cloned().ok_or_else(|| unknown(c.value()));
    edits(plan).map(find).collect()
}

fn unknown(value: &str) -> ApplyError {
    ApplyError::new(ApplyErrorKind::Unknown, value)
}

fn mismatch(m: &Mask, t: &Tensor) -> ApplyError {
    misfit(&Change::Mask(m.clone()), t)
}

fn misfit(change: &Change, t: &Tensor) -> ApplyError {
    let found = format!("{}{:?}", t.dtype(), t.dims());
    let what = format!("{found} does not fit the change: {change}");
    ApplyError::new(ApplyErrorKind::Mismatch(what), change.value())
}

/// A model and the constants that are to replace some of its own.
struct Edited<'a> {
    model: &'a Model,
    new: HashMap<Site, Constant>,
    room: Option<&'a Room>,
    /// Bytes of ordinary memory that may still be taken.
    left: usize,
}

/// Tensors of fewer bytes are not worth a file of their own.
const SMALL: usize = 1 << 12;

impl Edited<'_> {
    fn mask(&mut self, m: &Mask, site: Site, effort: &Effort) -> Result<Edit, ApplyError> {
        let constant = self.new.get(&site).or_else(|| site.constant(self.model));
        let constant = constant.cloned().ok_or_else(|| unknown(&m.value))?;
        let t = &*constant.tensor;
        let (edit, goes, kind) = edit(m, t, effort)?;
        if edit.zeros_after > edit.zeros_before {
            let write = |to: &mut [u8]| goes.write(kind, t.bytes(), to);
            let bytes = self.make(t, write);
            let bytes = bytes.map_err(|e| ApplyError::new(ApplyErrorKind::Spill(e), &m.value))?;
            let new = Tensor::new(t.dtype(), t.dims().to_vec(), Data::Bytes(bytes));
            let new = new.map_err(|_| mismatch(m, t))?;
            self.new.insert(site, constant.with(new));
        }
        Ok(edit)
    }

    fn replace(&mut self, r: &Replace, site: Site) -> Result<Edit, ApplyError> {
        let constant = self.new.get(&site).or_else(|| site.constant(self.model));
        let constant = constant.cloned().ok_or_else(|| unknown(&r.value))?;
        let t = &*constant.tensor;
        let edit = replaced(r, t)?;
        if edit.changed > 0 {
            let bytes = self.make(t, |to| to.copy_from_slice(&r.data.0));
            let bytes = bytes.map_err(|e| ApplyError::new(ApplyErrorKind::Spill(e), &r.value))?;
            let new = Tensor::new(t.dtype(), t.dims().to_vec(), Data::Bytes(bytes));
            let new = new.map_err(|_| misfit(&Change::Replace(r.clone()), t))?;
            self.new.insert(site, constant.with(new));
        }
        Ok(edit)
    }

    /// As many bytes as `t` has.
    fn make(&mut self, t: &Tensor, fill: impl FnOnce(&mut [u8])) -> io::Result<Bytes> {
        let len = t.bytes().len();
        match self.room {
            Some(room) if len > self.left && len >= SMALL => Bytes::spilled(&room.folder, len, fill),
            _ => {
                self.left = self.left.saturating_sub(len);
                let mut buffer = Buffer::new(t.dtype(), t.len()).ok_or(io::ErrorKind::OutOfMemory)?;
                fill(buffer.bytes_mut());
                Ok(buffer.share())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::Raw;
    use crate::math::Tiles;
    use crate::methods::tests::chain;

    fn mask(value: &str, elements: u64, threshold: f64) -> Change {
        Change::Mask(Mask {
            value: value.into(),
            elements,
            tiles: None,
            cut: Cut::Small { threshold, ties: 0 },
        })
    }

    fn tiled(tile: &[usize], cut: Cut) -> Change {
        let tiles = Tiles {
            dims: vec![2, 3],
            tile: tile.to_vec(),
        };
        Change::Mask(Mask {
            value: "w0".into(),
            elements: 6,
            tiles: Some(tiles),
            cut,
        })
    }

    fn values(model: &Model, i: usize) -> Vec<f64> {
        let g = &model.graph;
        g[g.initializers[i]]
            .konst
            .as_ref()
            .unwrap()
            .tensor
            .floats()
            .unwrap()
    }

    #[test]
    fn tensors_without_a_change_are_not_copied() {
        let mut model = chain(vec![Tensor::of(&[1, 3], vec![0f32, 2.0, 3.0])]);
        let before = model.clone();
        let report = apply(&Plan(vec![mask("w0", 3, 1.0)]), &mut model).unwrap();
        assert_eq!(
            (report.edits[0].zeros_before, report.edits[0].zeros_after),
            (1, 1)
        );
        let bytes = |m: &Model| match m.graph[m.graph.initializers[0]]
            .konst
            .as_ref()
            .unwrap()
            .tensor
            .data()
        {
            Data::Bytes(b) => b.clone(),
            Data::Strings(_) => panic!("floats"),
        };
        assert!(bytes(&model).same(&bytes(&before)));
    }

    #[test]
    fn changes_of_one_value_follow_each_other() {
        let mut model = chain(vec![Tensor::of(&[1, 3], vec![1f32, 2.0, 3.0])]);
        let plan = Plan(vec![mask("w0", 3, 1.0), mask("w0", 3, 2.0)]);
        let report = apply(&plan, &mut model).unwrap();
        assert_eq!(
            (report.edits[1].zeros_before, report.edits[1].zeros_after),
            (1, 2)
        );
        assert_eq!(values(&model, 0), [0.0, 0.0, 3.0]);
    }

    #[test]
    fn tiles_go_as_a_whole() {
        let x = vec![1f32, 0.0, 3.0, -2.0, -1.0, f32::NAN];
        let after = |change| {
            let mut model = chain(vec![Tensor::of(&[2, 3], x.clone())]);
            let plan = Plan(vec![change]);
            let said = preview(&plan, &model, &Effort::default()).unwrap();
            assert_eq!(apply(&plan, &mut model).unwrap(), said);
            let zeros = values(&model, 0).iter().filter(|x| **x == 0.0).count() as u64;
            assert_eq!((said.edits[0].zeros_after, said.edits[0].nans), (zeros, 1));
            zeros
        };
        let (threshold, ties) = (1.5, 0);
        assert_eq!(after(tiled(&[2, 1], Cut::Small { threshold, ties })), 4);
        assert_eq!(after(tiled(&[1, 3], Cut::Small { threshold, ties })), 3);
        assert_eq!(after(tiled(&[1, 3], Cut::AllBut(1))), 4);
    }

    #[test]
    fn listed_elements_go_and_others_are_replaced() {
        let x = vec![1f32, 0.0, 3.0, -2.0, -1.0, f32::NAN];
        let mut model = chain(vec![Tensor::of(&[2, 3], x.clone()), Tensor::of(&[3, 2], x)]);
        let listed = Change::Mask(Mask {
            value: "w0".into(),
            elements: 6,
            tiles: None,
            cut: Cut::Listed(Bits::of([true, true, false, true, false, false])),
        });
        let new = [0f32, 0.0, 3.5, -2.0, 4.0, 5.0];
        let replace = Change::Replace(Replace {
            value: "w1".into(),
            elements: 6,
            data: Raw(new.iter().flat_map(|x| x.to_le_bytes()).collect()),
        });
        let plan = Plan(vec![listed, replace]);
        let said = preview(&plan, &model, &Effort::default()).unwrap();
        assert_eq!(apply(&plan, &mut model).unwrap(), said);
        let figures = |e: &Edit| [e.zeros_before, e.zeros_after, e.nans, e.changed];
        assert_eq!(
            said.edits.iter().map(figures).collect::<Vec<_>>(),
            [[1, 3, 1, 2], [1, 2, 0, 4]]
        );
        assert_eq!(values(&model, 0)[..5], [0.0, 0.0, 3.0, 0.0, -1.0]);
        assert_eq!(values(&model, 1), new.map(f64::from));
    }

    #[test]
    fn a_plan_for_another_model_changes_nothing() {
        let mut model = chain(vec![Tensor::of(&[1, 2], vec![1f32, 2.0])]);
        let before = model.clone();
        let threshold = 1.0;
        let tiled = tiled(&[1, 1], Cut::Small { threshold, ties: 0 });
        let cut = |cut| {
            Change::Mask(Mask {
                value: "w0".into(),
                elements: 2,
                tiles: None,
                cut,
            })
        };
        let single = cut(Cut::AllBut(1));
        let replace = |elements, bytes| {
            let (value, data) = ("w0".into(), Raw(vec![0; bytes]));
            Change::Replace(Replace {
                value,
                elements,
                data,
            })
        };
        for bad in [
            cut(Cut::Listed(Bits::of([false, false, true]))),
            replace(2, 7),
            replace(3, 12),
            mask("w1", 2, 1.0),
            mask("w0", 3, 1.0),
            mask("w0", 2, f64::NAN),
            tiled,
            single,
        ] {
            let plan = Plan(vec![mask("w0", 2, 1.0), bad]);
            assert!(apply(&plan, &mut model).is_err());
            assert_eq!(model, before);
        }
    }

    #[test]
    fn what_does_not_fit_in_memory_goes_to_the_folder() {
        let tensors: Vec<_> = (1..4)
            .map(|i| Tensor::of(&[i, 2000], vec![i as f32; i * 2000]))
            .collect();
        let (mut model, mut spilled) = (chain(tensors.clone()), chain(tensors));
        let plan = Plan(
            (0..3)
                .map(|i| mask(&format!("w{i}"), (i + 1) * 2000, 2.0))
                .collect(),
        );
        let room = Room {
            memory: 10_000,
            folder: std::env::temp_dir(),
        };
        let report = apply_with(&plan, &mut spilled, &Effort::default(), Some(&room)).unwrap();
        assert_eq!(report, apply(&plan, &mut model).unwrap());
        assert_eq!(model, spilled);
        let nowhere = Room {
            memory: 0,
            folder: "/there is no such folder".into(),
        };
        let plan = Plan(vec![mask("w2", 6000, 3.0)]);
        let error = apply_with(&plan, &mut spilled, &Effort::default(), Some(&nowhere)).unwrap_err();
        assert!(matches!(error.kind(), ApplyErrorKind::Spill(_)) && error.value() == "w2");
    }
}
