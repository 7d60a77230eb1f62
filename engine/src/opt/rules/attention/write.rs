//! The operator that takes the place of what was found.

use super::operands::Found;
use super::peel::{Mask, Scores};
use crate::expr::{Builder, Call, Ex};
use crate::ir::{Attr, DType, Dim, Shape, Tensor, ValueId};
use crate::opt::rules::causal::{FAR, added_to_later, every_row, lower, square};
use crate::opt::rules::read::one;
use crate::opt::{Site, Why};

/// The same as [`FAR`] where numbers are half floats, which end at -65504.
const HALF_FAR: f64 = -6e4;

pub(super) struct Writer<'w, 'a> {
    pub(super) site: &'w Site<'w>,
    pub(super) b: &'a Builder<'a>,
    pub(super) found: Found,
    /// How values and the result are turned, if they are.
    pub(super) turned: Option<Vec<i64>>,
    /// How keys are to be turned, if they are.
    pub(super) perm: Option<Vec<i64>>,
}

impl<'a> Writer<'_, 'a> {
    pub(super) fn write(&self, scores: &Scores, [q, k, v]: [ValueId; 3]) -> Result<Ex<'a>, Why> {
        let (causal, masks) = self.split(&scores.masks);
        let sure = self.sure(&masks) && self.found.dtype == DType::F32;
        let mask = self.mask(&masks, q, causal)?;
        let [q, k, v] = [q, k, v].map(|v| self.b.at(v));
        let turn = |x: Ex<'a>, perm: &Option<Vec<i64>>| match perm {
            Some(p) => x.with("Transpose", &[], vec![Attr::new("perm", p.clone())]),
            None => x,
        };
        let flat = self.found.size.len() == 3;
        let thick = |x: Ex<'a>| if flat { self.axis(x, "Unsqueeze") } else { x };
        let all = [q, turn(k, &self.perm), turn(v, &self.turned)];
        let mut inputs: Vec<_> = all.into_iter().map(|x| Some(thick(x).id)).collect();
        inputs.extend(mask.map(|m| Some(m.id)));
        let mut attrs = vec![Attr::new("scale", scores.scale as f32)];
        if causal {
            attrs.push(Attr::new("is_causal", 1));
        }
        if scores.softcap > 0.0 {
            attrs.push(Attr::new("softcap", scores.softcap as f32));
        }
        let call = Call {
            domain: if sure { "" } else { "secateur" },
            op: "Attention",
            inputs: &inputs,
            attrs,
            outputs: 1,
        };
        let y = q.call(call)[0];
        Ok(turn(if flat { self.axis(y, "Squeeze") } else { y }, &self.turned))
    }

    /// Whether one of `masks` is a lower triangle, and the others.
    fn split(&self, masks: &[Mask]) -> (bool, Vec<Mask>) {
        let triangle = |mask: &Mask| {
            let lower = match *mask {
                Mask::Added(v) => added_to_later(self.site, v),
                Mask::Filled(c, when, fill) => self.far(fill) && lower(self.site, c) == Some(!when),
                Mask::Windows(_) => false,
            };
            lower && square(self.site, mask.value(), &self.found.size)
        };
        let (triangles, rest): (Vec<Mask>, Vec<Mask>) = masks.iter().copied().partition(triangle);
        // What another mask makes of the scores' shape decides where the diagonal is.
        match rest.iter().all(|m| self.within(m)) {
            true => (!triangles.is_empty(), rest),
            false => (false, masks.to_vec()),
        }
    }

    fn far(&self, fill: f64) -> bool {
        fill <= if self.found.dtype == DType::F32 {
            FAR
        } else {
            HALF_FAR
        }
    }

    /// Whether scores keep their shape under `mask`.
    fn within(&self, mask: &Mask) -> bool {
        let Some(shape) = self.shape(mask) else {
            return false;
        };
        let pairs = shape.iter().rev().zip(self.found.size.iter().rev());
        matches!(mask, Mask::Windows(_)) || pairs.into_iter().all(|(m, s)| one(m) || m.same(s))
    }

    /// Whether nothing broadcasts but masks, and they have a column for each key: behind the last column of a mask
    /// `Attention` sees no key, where a sum repeats a single one.
    fn sure(&self, masks: &[Mask]) -> bool {
        let keys = self.found.size.last().unwrap_or(&Dim::Unknown);
        let whole = |m: &Mask| self.shape(m).and_then(|s| s.last()).is_some_and(|d| d.same(keys));
        let all = masks.is_empty() || masks.iter().any(whole);
        self.found.sure && all && masks.iter().all(|m| self.within(m))
    }

    fn shape(&self, mask: &Mask) -> Option<&Shape> {
        self.site.shape(mask.value())
    }

    /// With an axis of one head, or without it.
    fn axis(&self, x: Ex<'a>, op: &str) -> Ex<'a> {
        match self.site.opset {
            ..13 => x.with(op, &[], vec![Attr::new("axes", vec![1i64])]),
            _ => x.op(op, &[x.tensor(Tensor::of(&[1], vec![1i64]))]),
        }
    }

    /// All masks as one.
    fn mask(&self, masks: &[Mask], q: ValueId, causal: bool) -> Result<Option<Ex<'a>>, Why> {
        let Some((&first, more)) = masks.split_first() else {
            return Ok(None);
        };
        masks.iter().try_for_each(|mask| self.fits(mask))?;
        let one = match first {
            Mask::Filled(c, when, fill) if more.is_empty() && self.hides(c, when, fill, causal) => {
                let c = self.b.at(c);
                if when { c.op("Not", &[]) } else { c }
            }
            _ => {
                let first = self.added(first, q);
                more.iter().fold(first, |sum, &mask| sum + self.added(mask, q))
            }
        };
        let rank = masks.iter().filter_map(|m| Some(self.shape(m)?.len())).max();
        Ok(Some(match (self.found.size.len(), rank) {
            (3, Some(3)) => self.axis(one, "Unsqueeze"),
            _ => one,
        }))
    }

    /// Whether `fill` where `c` is as `when` says leaves nothing of scores. What is finite leaves all where a row gets nothing
    /// else, as it may if it is `causal` too.
    fn hides(&self, c: ValueId, when: bool, fill: f64, causal: bool) -> bool {
        let near = || self.site.facts.konst(c).is_some_and(|t| every_row(t, !when));
        fill == f64::NEG_INFINITY || (!causal && self.far(fill) && near())
    }

    /// What `mask` adds to scores of the queries `q`, as floats.
    fn added(&self, mask: Mask, q: ValueId) -> Ex<'a> {
        let float = |v: ValueId| match self.site.dtype(v) {
            Some(DType::F32) => self.b.at(v),
            _ => self
                .b
                .at(v)
                .with("Cast", &[], vec![Attr::new("to", i64::from(DType::F32.code()))]),
        };
        match mask {
            Mask::Added(v) => float(v),
            Mask::Windows(v) => self.each_window(float(v), self.b.at(q)),
            Mask::Filled(c, when, fill) => {
                let c = self.b.at(c);
                let (zero, fill) = (
                    c.tensor(Tensor::scalar(0.0f32)),
                    c.tensor(Tensor::scalar(fill as f32)),
                );
                let [a, b] = if when { [fill, zero] } else { [zero, fill] };
                c.op("Where", &[a, b])
            }
        }
    }

    /// `mask` for the windows of all images, `[sequences, 1, queries, keys]`.
    fn each_window(&self, mask: Ex<'a>, q: Ex<'a>) -> Ex<'a> {
        let ints = |v: &[i64]| mask.tensor(Tensor::of(&[v.len()], v.to_vec()));
        let size = |x: Ex<'a>, axis: i64| {
            x.op("Shape", &[])
                .op("Slice", &[ints(&[axis]), ints(&[axis + 1])])
        };
        let images = size(q, 0) / size(mask, 1);
        let join = |x: Ex<'a>, rest: &[Ex<'a>]| x.with("Concat", rest, vec![Attr::new("axis", 0)]);
        let all = mask.op("Expand", &[join(images, &[ints(&[1, 1, 1, 1])])]);
        all.op(
            "Reshape",
            &[join(ints(&[-1, 1]), &[size(mask, 3), size(mask, 4)])],
        )
    }

    /// Checks the type of a mask, and that it gives the scores no axes.
    fn fits(&self, mask: &Mask) -> Result<(), Why> {
        match *mask {
            Mask::Filled(_, _, fill) if !self.far(fill) => {
                return Err(Why::No("masked scores keep some of their weight"));
            }
            Mask::Added(v) | Mask::Windows(v)
                if !matches!(self.site.dtype(v), Some(DType::F32 | DType::F16 | DType::BF16)) =>
            {
                return Err(Why::No("the mask is of another element type"));
            }
            Mask::Windows(_) => return Ok(()),
            _ => {}
        }
        let shape = self
            .shape(mask)
            .ok_or(Why::No("the rank of the mask is not known"))?;
        match (1..=self.found.size.len()).contains(&shape.len()) {
            true => Ok(()),
            false => Err(Why::No("the mask has more axes than the scores")),
        }
    }
}
