//! `Col2Im`: blocks added up to an image.

use super::case::floats;
use super::formula::ints;
use super::grad::shaped;
use super::matmul::matrices::check_size;
use super::pick::{given, integers};
use super::shape::{arity, ranked, show, spelt};
use super::{Case, Exs, Fact, Grads, NodeRef, Op, OpError, OpName, onnx};
use crate::cpu::number::Numbers;
use crate::cpu::window::Window;
use crate::ir::{AttrValue, Dim, Tensor, count};

/// The image of which the columns of the input are the windows; where they overlap, they add up.
pub struct Col2Im;

/// Elements of the largest block.
const MOST: usize = 1 << 24;

/// The window that slides over an image of sizes `image` in blocks of sizes `block`.
fn window(n: &NodeRef, image: &[usize], block: &[usize]) -> Result<Window, OpError> {
    let axes = image.len();
    let list = |name: &str, default: i64, len: usize, least: i64| -> Result<Vec<usize>, OpError> {
        let given = n.ints(name)?.filter(|l| !l.is_empty());
        let list = given.map_or(vec![default; len], <[i64]>::to_vec);
        let fits = |&x: &i64| (least..=i64::from(i32::MAX)).contains(&x);
        match list.len() == len && list.iter().all(fits) {
            true => Ok(list.iter().map(|&x| x as usize).collect()),
            false => Err(OpError::new(format!(
                "attribute {name:?} is {list:?}; expected {len} numbers of at least {least}"
            ))),
        }
    };
    let (strides, dilations) = (list("strides", 1, axes, 1)?, list("dilations", 1, axes, 1)?);
    let pads = list("pads", 0, 2 * axes, 0)?;
    let wrong = || OpError::new(format!("blocks of {block:?} in an image of {image:?}"));
    if block.len() != axes || block.contains(&0) || count(block).is_none_or(|n| n > MOST) {
        return Err(wrong());
    }
    let positions = |a: usize| {
        let reach = (block[a] - 1).checked_mul(dilations[a])? + 1;
        let whole = image[a].checked_add(pads[a] + pads[a + axes])?;
        Some(whole.checked_sub(reach)? / strides[a] + 1)
    };
    Ok(Window {
        output: (0..axes)
            .map(positions)
            .collect::<Option<_>>()
            .ok_or_else(wrong)?,
        input: image.to_vec(),
        size: block.to_vec(),
        strides,
        dilations,
        pads: pads[..axes].to_vec(),
    })
}

fn numbers(shape: &Option<Vec<Dim>>) -> Option<Vec<usize>> {
    shape.as_ref()?.iter().map(Dim::size).collect()
}

impl Op for Col2Im {
    fn name(&self) -> OpName {
        onnx("Col2Im")
    }

    fn since(&self) -> &'static [u16] {
        &[18]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 3, 3)?;
        n.ignore(&["strides", "pads", "dilations"]);
        let x = ranked(n, 0, 3)?;
        let (image, block) = (spelt(n, 1)?, spelt(n, 2)?);
        let mut channels = Dim::Unknown;
        if let Some(b) = numbers(&block) {
            let taps = count(&b).filter(|&t| t > 0 && t <= MOST);
            let taps = taps.ok_or_else(|| OpError::new(format!("blocks of {b:?}")))?;
            if let Some(x) = x {
                if x[1].size().is_some_and(|c| c % taps != 0) {
                    return Err(OpError::new(format!(
                        "columns of shape {}; expected a multiple of {taps} on axis 1",
                        show(x)
                    )));
                }
                channels = x[1].floor_div(&Dim::from(taps));
            }
            if let Some(i) = numbers(&image) {
                let positions = window(n, &i, &b)?.positions();
                if let Some(found) = x.and_then(|x| x[2].size()).filter(|&l| l != positions) {
                    return Err(OpError::new(format!("{found} blocks; expected {positions}")));
                }
            }
        }
        let Some(rank) = image.as_ref().or(block.as_ref()).map(Vec::len) else {
            return Ok(vec![Fact::tensor(n.dtype(0), None)]);
        };
        let mut shape = vec![x.map_or(Dim::Unknown, |x| x[0].clone()), channels];
        shape.extend(image.unwrap_or_else(|| vec![Dim::Unknown; rank]));
        Ok(vec![Fact::tensor(n.dtype(0), Some(shape))])
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let t = given(x, 0)?;
        let sizes = |i: usize| -> Result<Vec<usize>, OpError> {
            let all = integers(given(x, i)?, i)?;
            let sizes: Option<_> = all.iter().map(|&s| usize::try_from(s).ok()).collect();
            sizes.ok_or_else(|| OpError::new(format!("sizes {all:?}; expected 0 or more")))
        };
        let w = window(n, &sizes(1)?, &sizes(2)?)?;
        let wrong = || OpError::new(format!("no blocks in columns of {}{:?}", t.dtype(), t.dims()));
        let (taps, positions) = (w.taps(), w.positions());
        let &[images, rows, columns] = t.dims() else {
            return Err(wrong());
        };
        if columns != positions || rows % taps != 0 {
            return Err(wrong());
        }
        let mut dims = vec![images, rows / taps];
        dims.extend(&w.input);
        check_size(&dims)?;
        // From each element of the input to one of the result, unless it is beside the image.
        let to = (0..t.len()).map(|i| {
            let (row, at) = (i / positions, i % positions);
            Some(row / taps * w.plane() + w.under(at, row % taps)?)
        });
        let y = match Numbers::of(t).ok_or_else(wrong)? {
            Numbers::Real(v) => Numbers::Real(added(&v, to, &dims, |a, b| a + b)),
            Numbers::Int(v) => Numbers::Int(added(&v, to, &dims, i128::wrapping_add)),
        };
        Ok(vec![y.tensor(t.dtype(), &dims).ok_or_else(wrong)?])
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let (x0, dy) = (x[0]?, dy[0]?);
        let (image, block) = (n.ints_in(1)?, n.ints_in(2)?);
        let taps: i64 = block.iter().product();
        // Each tap of a block is a filter that sees one element.
        let own: Vec<_> = [taps, 1].into_iter().chain(block.iter().copied()).collect();
        let mut filters = vec![0.0; usize::try_from(taps * taps).ok()?];
        (0..taps as usize).for_each(|i| filters[i * taps as usize + i] = 1.0);
        let dims: Vec<_> = own.iter().map(|&d| d as usize).collect();
        let filters = dy.tensor(Tensor::rounded(n.dtype(0)?, &dims, &filters)?);
        let planes: Vec<_> = [-1, 1].into_iter().chain(image).collect();
        let attrs = n
            .node()
            .attrs
            .iter()
            .filter(|a| !matches!(&a.value, AttrValue::Ints(l) if l.is_empty()));
        let seen = dy
            .op("Reshape", &[ints(dy, &planes)])
            .with("Conv", &[filters], attrs.cloned().collect());
        Some(vec![Some(shaped(n, 0, x0, seen))])
    }

    fn cases(&self) -> Vec<Case> {
        let sizes = |s: &[i64]| Tensor::of(&[s.len()], s.to_vec());
        let ints = Tensor::of(&[1, 4, 2], (0..8i64).collect::<Vec<_>>());
        vec![
            Case::new(
                "two axes",
                [floats(&[2, 12, 20], 1), sizes(&[5, 6]), sizes(&[2, 2])],
            )
            .konst(&[1, 2])
            .within(1e-6, 1e-6),
            Case::new(
                "steps and holes",
                [floats(&[1, 4, 9], 1), sizes(&[5, 5]), sizes(&[2, 2])],
            )
            .attr("strides", vec![2i64, 2])
            .attr("dilations", vec![2i64, 1])
            .attr("pads", vec![1i64, 0, 1, 1])
            .within(1e-6, 1e-6),
            Case::new(
                "three axes",
                [floats(&[1, 10, 12], 1), sizes(&[3, 4, 5]), sizes(&[1, 1, 5])],
            )
            .konst(&[2])
            .within(1e-6, 1e-6),
            Case::new("integers", [ints, sizes(&[3, 2]), sizes(&[2, 2])]),
        ]
    }
}

fn added<T: Copy + Default>(
    v: &[T],
    to: impl Iterator<Item = Option<usize>>,
    dims: &[usize],
    add: impl Fn(T, T) -> T,
) -> Vec<T> {
    let mut y = vec![T::default(); count(dims).unwrap_or(0)];
    for (x, to) in v.iter().zip(to) {
        if let Some(to) = to {
            y[to] = add(y[to], *x);
        }
    }
    y
}
