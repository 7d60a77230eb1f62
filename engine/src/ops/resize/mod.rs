//! Images made larger or smaller.

mod cases;
mod coords;
mod cpu;

use super::along::{Matrix, along};
use super::grad::at;
use super::pick::{given, knowing, pick, place};
use super::shape::{arity, distinct_axes, ranked, show, tied};
use super::{Axes, Case, Exs, Fact, Grads, Laws, NodeRef, Op, OpError, OpName, onnx};
use crate::cpu::Candidate;
use crate::expr::Ex;
use crate::ir::{DType, Dim, Shape, Tensor, count};
use coords::{Mode, Nearest, Stretch, Style, Taps, Transformation};

/// ONNX `Resize`.
pub struct Resize;

/// ONNX `Upsample`, which `Resize` has replaced.
pub struct Upsample;

fn unknown<T>(attr: &str, value: &str) -> Result<T, OpError> {
    Err(OpError::new(format!(
        "attribute {attr:?} is {value:?}, which has no meaning"
    )))
}

fn is_upsample(n: &NodeRef) -> bool {
    &*n.node().op == "Upsample"
}

fn mode(n: &NodeRef, nearest: Nearest, cubic: f32) -> Result<Mode, OpError> {
    match n.str_or("mode", "nearest")? {
        "nearest" => Ok(Mode::Nearest(nearest)),
        "linear" | "bilinear" => Ok(Mode::Linear),
        "cubic" => Ok(Mode::Cubic(cubic)),
        other => unknown("mode", other),
    }
}

fn style(n: &NodeRef) -> Result<Style, OpError> {
    if is_upsample(n) || n.opset() < 11 {
        return Ok(Style {
            mode: mode(n, Nearest::Simple, 0.0)?,
            transformation: Transformation::Asymmetric,
            exclude_outside: false,
            antialias: false,
            extrapolation: 0.0,
        });
    }
    let nearest = match n.str_or("nearest_mode", "round_prefer_floor")? {
        "round_prefer_floor" => Nearest::RoundPreferFloor,
        "round_prefer_ceil" => Nearest::RoundPreferCeil,
        "floor" => Nearest::Floor,
        "ceil" => Nearest::Ceil,
        other => return unknown("nearest_mode", other),
    };
    let transformation = match n.str_or("coordinate_transformation_mode", "half_pixel")? {
        "half_pixel" => Transformation::HalfPixel,
        "half_pixel_symmetric" => Transformation::HalfPixelSymmetric,
        "pytorch_half_pixel" => Transformation::PytorchHalfPixel,
        "tf_half_pixel_for_nn" => Transformation::TfHalfPixel,
        "align_corners" => Transformation::AlignCorners,
        "asymmetric" => Transformation::Asymmetric,
        "tf_crop_and_resize" => Transformation::TfCropAndResize,
        other => return unknown("coordinate_transformation_mode", other),
    };
    Ok(Style {
        mode: mode(n, nearest, n.float_or("cubic_coeff_a", -0.75)?)?,
        transformation,
        exclude_outside: n.int_or("exclude_outside", 0)? != 0,
        antialias: n.opset() >= 18 && n.int_or("antialias", 0)? != 0,
        extrapolation: n.float_or("extrapolation_value", 0.0)?,
    })
}

/// How sizes that would change the aspect ratio are understood.
#[derive(Clone, Copy, PartialEq)]
enum Policy {
    Stretch,
    NotLarger,
    NotSmaller,
}

fn policy(n: &NodeRef) -> Result<Policy, OpError> {
    if n.opset() < 18 {
        return Ok(Policy::Stretch);
    }
    match n.str_or("keep_aspect_ratio_policy", "stretch")? {
        "stretch" => Ok(Policy::Stretch),
        "not_larger" => Ok(Policy::NotLarger),
        "not_smaller" => Ok(Policy::NotSmaller),
        other => unknown("keep_aspect_ratio_policy", other),
    }
}

/// The axes that the node speaks of, in its order.
fn axes(n: &NodeRef, rank: usize) -> Result<Vec<usize>, OpError> {
    let list = if n.opset() >= 18 { n.ints("axes")? } else { None };
    match list {
        None => Ok((0..rank).collect()),
        Some(list) => {
            distinct_axes(list, rank)?;
            list.iter().map(|&a| NodeRef::axis(a, rank)).collect()
        }
    }
}

/// What the node asks of the axes that it speaks of.
enum Asked {
    Scales(Vec<f32>),
    Sizes(Vec<Dim>),
    Hidden,
}

fn asked(n: &NodeRef) -> Result<Asked, OpError> {
    let floats = |t: &Tensor| t.floats().map(|x| x.iter().map(|&x| x as f32).collect());
    if is_upsample(n) && n.opset() < 9 {
        if n.opset() < 7 {
            let [h, w] = ["height_scale", "width_scale"].map(|name| n.float(name));
            let missing = || OpError::new("height_scale or width_scale is missing");
            let (h, w) = (h?.ok_or_else(missing)?, w?.ok_or_else(missing)?);
            return Ok(Asked::Scales(vec![1.0, 1.0, h, w]));
        }
        let scales = n.floats("scales")?;
        return Ok(Asked::Scales(
            scales.ok_or_else(|| OpError::new("scales are missing"))?.to_vec(),
        ));
    }
    let old = is_upsample(n) || n.opset() < 11;
    let (scales, sizes) = if old { (1, usize::MAX) } else { (2, 3) };
    let there = |i: usize| n.has(i) && n.dims(i).is_none_or(|d| !d.contains(&0));
    match (there(scales), there(sizes)) {
        (true, false) => Ok(n
            .konst(scales)
            .and_then(floats)
            .map_or(Asked::Hidden, Asked::Scales)),
        (false, true) => {
            ranked(n, sizes, 1)?;
            let len = n.dims(sizes).and_then(|d| count(&d));
            let unknown = len.map(|len| vec![Dim::Unknown; len.min(64)]);
            Ok(n.data(sizes).or(unknown).map_or(Asked::Hidden, Asked::Sizes))
        }
        // Both may be declared, one of them empty when the model runs.
        (true, true) if n.konst(scales).is_none() && n.data(sizes).is_none() => Ok(Asked::Hidden),
        _ => Err(OpError::new("expected either scales or sizes")),
    }
}

fn one_each(found: usize, axes: &[usize]) -> Result<(), OpError> {
    match found == axes.len() {
        true => Ok(()),
        false => Err(OpError::new(format!(
            "{found} scales or sizes; expected one for each of {} axes",
            axes.len()
        ))),
    }
}

/// `size` times `scale`, rounded down.
fn scaled(size: &Dim, scale: f32) -> Result<Dim, OpError> {
    if !(scale > 0.0 && scale.is_finite()) {
        return Err(OpError::new(format!(
            "a scale of {scale}; expected a number above 0"
        )));
    }
    let back = (1.0 / scale).round();
    Ok(match size {
        Dim::Known(d) => {
            let exact = (*d as f32 * scale).floor();
            if exact < 9e15 {
                Dim::Known(exact as i64)
            } else {
                Dim::Unknown
            }
        }
        d if scale.fract() == 0.0 && scale < 1e6 => d.clone() * Dim::Known(scale as i64),
        d if 1.0 / back == scale && back < 1e6 => d.floor_div(&Dim::Known(back as i64)),
        _ => Dim::Unknown,
    })
}

/// The one scale of all axes that keeps the aspect ratio.
fn one_scale(policy: Policy, of: &[usize], sizes: &[usize]) -> f32 {
    let scales = of.iter().zip(sizes).map(|(&of, &to)| to as f32 / of as f32);
    match policy {
        Policy::NotLarger => scales.fold(f32::INFINITY, f32::min),
        _ => scales.fold(0.0, f32::max),
    }
}

/// The shape of the result; `None` where the rank is not known.
fn result(n: &NodeRef) -> Result<Option<Shape>, OpError> {
    style(n)?;
    let policy = policy(n)?;
    let Some(of) = n.shape(0) else {
        n.ignore(&["axes"]);
        return Ok(None);
    };
    let axes = axes(n, of.len())?;
    let mut shape = of.clone();
    match asked(n)? {
        Asked::Hidden => axes.iter().for_each(|&a| shape[a] = Dim::Unknown),
        Asked::Scales(scales) => {
            one_each(scales.len(), &axes)?;
            for (&a, &s) in axes.iter().zip(&scales) {
                shape[a] = scaled(&of[a], s)?;
            }
        }
        Asked::Sizes(sizes) => {
            one_each(sizes.len(), &axes)?;
            if sizes.iter().any(|d| d.known().is_some_and(|d| d < 0)) {
                return Err(OpError::new(format!("{} are no sizes", show(&sizes))));
            }
            let from: Option<Vec<_>> = axes.iter().map(|&a| of[a].size()).collect();
            let to: Option<Vec<_>> = sizes.iter().map(Dim::size).collect();
            for (i, &a) in axes.iter().enumerate() {
                shape[a] = match (policy, &from, &to) {
                    (Policy::Stretch, ..) => sizes[i].clone(),
                    (_, Some(from), Some(to)) if !from.contains(&0) => {
                        let scale = one_scale(policy, from, to);
                        Dim::from((scale * from[i] as f32 + 0.5).floor() as usize)
                    }
                    _ => Dim::Unknown,
                };
            }
        }
    }
    Ok(Some(shape))
}

/// How every axis changes; `None` where that is not known.
fn stretches(n: &NodeRef) -> Result<Option<Vec<Stretch>>, OpError> {
    let (Some(of), Some(shape)) = (n.dims(0), result(n)?) else {
        return Ok(None);
    };
    let to: Option<Vec<_>> = shape.iter().map(Dim::size).collect();
    let Some(to) = to.or_else(|| n.out_dims(0)) else {
        return Ok(None);
    };
    let axes = axes(n, of.len())?;
    let scale = |a: usize| to[a] as f32 / of[a] as f32;
    let mut scales: Vec<_> = (0..of.len()).map(scale).collect();
    let mut rois = vec![(0.0, 1.0); of.len()];
    match (asked(n)?, policy(n)?) {
        (Asked::Scales(s), _) => axes.iter().zip(s).for_each(|(&a, s)| scales[a] = s),
        (Asked::Hidden, _) => return Ok(None),
        (Asked::Sizes(_), Policy::Stretch) => {}
        (Asked::Sizes(sizes), policy) => {
            let sizes: Option<Vec<_>> = sizes.iter().map(Dim::size).collect();
            let Some(sizes) = sizes else { return Ok(None) };
            let from: Vec<_> = axes.iter().map(|&a| of[a]).collect();
            let one = one_scale(policy, &from, &sizes);
            axes.iter().for_each(|&a| scales[a] = one);
        }
    }
    if style(n)?.transformation == Transformation::TfCropAndResize {
        let Some(roi) = n.konst(1).and_then(Tensor::floats) else {
            return if n.has(1) {
                Ok(None)
            } else {
                Err(OpError::new("roi is missing"))
            };
        };
        if roi.len() != 2 * axes.len() {
            return Err(OpError::new(format!(
                "roi has {} elements; expected two for each of {} axes",
                roi.len(),
                axes.len()
            )));
        }
        for (i, &a) in axes.iter().enumerate() {
            rois[a] = (roi[i] as f32, roi[axes.len() + i] as f32);
        }
    }
    let stretch = |a: usize| Stretch {
        from: of[a],
        to: to[a],
        scale: scales[a],
        roi: rois[a],
    };
    Ok(Some((0..of.len()).map(stretch).collect()))
}

/// The axes that change, and how.
struct Plan {
    style: Style,
    to: Vec<usize>,
    axes: Vec<(usize, Taps)>,
}

fn plan(n: &NodeRef) -> Result<Option<Plan>, OpError> {
    let style = style(n)?;
    let Some(stretches) = stretches(n)? else {
        return Ok(None);
    };
    let to: Vec<_> = stretches.iter().map(|s| s.to).collect();
    let changing = stretches.iter().enumerate().filter(|(_, s)| !style.keeps(s));
    let axes = match to.contains(&0) {
        true => vec![],
        false => changing
            .map(|(a, s)| Ok((a, style.taps(s)?)))
            .collect::<Result<_, OpError>>()?,
    };
    Ok(Some(Plan { style, to, axes }))
}

/// The pixels that are nearest, of any type.
fn nearest(x: &Tensor, plan: &Plan) -> Result<Tensor, OpError> {
    let outside = Tensor::rounded(x.dtype(), &[], &[plan.style.extrapolation.into()]);
    let sources: Vec<_> = [x].into_iter().chain(&outside).collect();
    pick(x.dtype(), &plan.to, &sources, |at| {
        let mut source = at.to_vec();
        for (a, taps) in &plan.axes {
            if taps.outside[at[*a]] {
                return Ok((1, 0));
            }
            source[*a] = taps.index[at[*a]];
        }
        Ok((0, place(source, x.dims())))
    })
}

/// Weighted sums of pixels, along one axis after the other.
fn weighted(x: &Tensor, plan: &Plan) -> Result<Tensor, OpError> {
    let refuse = || OpError::new(format!("pixels of type {} cannot be weighted", x.dtype()));
    let (mut dims, mut all) = (x.dims().to_vec(), x.floats().ok_or_else(refuse)?);
    for (a, taps) in &plan.axes {
        let mut next = dims.clone();
        next[*a] = plan.to[*a];
        let mut sums = super::pick::room(count(&next))?;
        super::pick::indices(&next, |at| {
            let first = at[*a] * taps.taps;
            let sum = (first..first + taps.taps).map(|t| {
                let source = at
                    .iter()
                    .enumerate()
                    .map(|(b, &i)| if b == *a { taps.index[t] } else { i });
                f64::from(taps.weight[t]) * all[place(source, &dims)]
            });
            let value = match taps.outside[at[*a]] {
                true => plan.style.extrapolation.into(),
                false => sum.sum(),
            };
            sums.push(value);
            Ok(())
        })?;
        (dims, all) = (next, sums);
    }
    if plan.to.contains(&0) {
        all.clear();
    }
    pixels(x.dtype(), &plan.to, all).ok_or_else(refuse)
}

/// Sums as pixels: integers are rounded to nearest, ties to even.
fn pixels(dtype: DType, dims: &[usize], mut all: Vec<f64>) -> Option<Tensor> {
    if dtype.is_int() {
        all.iter_mut().for_each(|x| *x = x.round_ties_even());
    }
    Tensor::rounded(dtype, dims, &all)
}

fn eval(n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let data = given(x, 0)?;
    let plan = knowing(n, x, plan)?.ok_or_else(|| OpError::new("scales or sizes are not known"))?;
    Ok(vec![match plan.style.mode {
        Mode::Nearest(_) => nearest(data, &plan)?,
        _ => weighted(data, &plan)?,
    }])
}

/// The axes that change, and how. Sizes of those that stay need not be known, as that of a batch is not; `None` where others are not.
fn changes(n: &NodeRef) -> Result<Option<Vec<(usize, Stretch)>>, OpError> {
    let style = style(n)?;
    if let Some(all) = stretches(n)? {
        let all = all.into_iter().enumerate();
        return Ok(Some(all.filter(|(_, s)| !style.keeps(s)).collect()));
    }
    let (Some(of), Some(to)) = (n.shape(0), result(n)?) else {
        return Ok(None);
    };
    if style.transformation == Transformation::TfCropAndResize || policy(n)? != Policy::Stretch {
        return Ok(None);
    }
    let axes = axes(n, of.len())?;
    let scales = match asked(n)? {
        Asked::Scales(scales) => axes.into_iter().zip(scales).collect(),
        Asked::Sizes(_) => vec![],
        Asked::Hidden => return Ok(None),
    };
    let mut changes = vec![];
    for (a, (of, to)) in of.iter().zip(&to).enumerate() {
        let scale = scales.iter().find(|(axis, _)| *axis == a).map(|(_, s)| *s);
        match (of.size(), to.size()) {
            (Some(from), Some(to)) => {
                let scale = scale.unwrap_or(to as f32 / from as f32);
                let roi = (0.0, 1.0);
                changes.push((a, Stretch { from, to, scale, roi }));
            }
            _ if of.same(to) && scale.is_none_or(|s| s == 1.0) => {}
            _ => return Ok(None),
        }
    }
    changes.retain(|(_, s)| !style.keeps(s));
    Ok(Some(changes))
}

/// Each axis times the weights of its pixels.
fn vjp<'a>(n: &NodeRef, inputs: usize, dy: Ex<'a>) -> Grads<'a> {
    let (style, changes) = (style(n).ok()?, changes(n).ok()??);
    let mut dx = dy;
    for (a, stretch) in &changes {
        let taps = style.taps(stretch).ok()?;
        let mut m = Matrix::new(stretch.to, stretch.from);
        for i in (0..stretch.to).filter(|&i| !taps.outside[i]) {
            let here = i * taps.taps..(i + 1) * taps.taps;
            here.for_each(|t| m.add(i, taps.index[t], taps.weight[t].into()));
        }
        dx = along(n, dx, *a, m)?;
    }
    let mut all = vec![None; inputs];
    *all.first_mut()? = Some(dx);
    Some(all)
}

/// The axes that stay.
fn kept(n: &NodeRef) -> Option<Axes> {
    let (of, to) = (n.shape(0)?, result(n).ok()??);
    Some(tied(of.len(), |a| match of[a].same(&to[a]) {
        true => vec![(0, a)],
        false => vec![],
    }))
}

impl Op for Resize {
    fn name(&self) -> OpName {
        onnx("Resize")
    }

    fn since(&self) -> &'static [u16] {
        &[10, 11, 13, 18, 19]
    }

    fn laws(&self) -> Laws {
        Laws {
            blocks: true,
            ..Laws::default()
        }
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 4)?;
        Ok(vec![Fact::tensor(n.dtype(0), result(n)?)])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        kept(n)
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        eval(n, x)
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        vjp(n, x.len(), at(dy, 0)?)
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        cpu::resize(n).unwrap_or_default()
    }

    fn cases(&self) -> Vec<Case> {
        let mut cases = cases::styles();
        cases.extend(cases::forms());
        cases
    }
}

impl Op for Upsample {
    fn name(&self) -> OpName {
        onnx("Upsample")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 7, 9]
    }

    fn laws(&self) -> Laws {
        Laws {
            blocks: true,
            ..Laws::default()
        }
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 2)?;
        Ok(vec![Fact::tensor(n.dtype(0), result(n)?)])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        kept(n)
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        eval(n, x)
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        vjp(n, x.len(), at(dy, 0)?)
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        cpu::resize(n).unwrap_or_default()
    }

    fn cases(&self) -> Vec<Case> {
        cases::upsample()
    }
}

/// Whether the kernels have pixels of this type.
fn weighable(d: DType) -> bool {
    Tensor::rounded(d, &[0], &[]).is_some() && d != DType::Bool
}
