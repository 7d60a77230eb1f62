//! `NonMaxSuppression`: of boxes that overlap, the one with the best score.

use super::pick::{given, room};
use super::shape::{arity, ranked, show};
use super::{Case, Fact, NodeRef, Op, OpError, OpName, onnx};
use crate::ir::{DType, Dim, Tensor};

/// The indices `[batch, class, box]` of boxes, best scores first, none of which overlaps a better one too much.
pub struct NonMaxSuppression;

/// The only element of input `i`, `default` where it is left out.
fn scalar(x: &[Option<&Tensor>], i: usize, default: f64) -> Result<f64, OpError> {
    match x.get(i).copied().flatten() {
        None => Ok(default),
        // An empty tensor says nothing.
        Some(t) if t.is_empty() => Ok(default),
        Some(t) => t
            .item()
            .ok_or_else(|| OpError::new(format!("input {i} has shape {:?}; expected a scalar", t.dims()))),
    }
}

/// A box by its corners: `[top, left, bottom, right]`.
fn corners(b: &[f32], centred: bool) -> [f32; 4] {
    match *b {
        [x, y, w, h] if centred => [y - h / 2.0, x - w / 2.0, y + h / 2.0, x + w / 2.0],
        [a, b, c, d] => [a.min(c), b.min(d), a.max(c), b.max(d)],
        _ => [0.0; 4],
    }
}

/// The part of the union of two boxes that they share.
fn overlap(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let (height, width) = (a[2].min(b[2]) - a[0].max(b[0]), a[3].min(b[3]) - a[1].max(b[1]));
    let area = |b: &[f32; 4]| (b[2] - b[0]) * (b[3] - b[1]);
    if height <= 0.0 || width <= 0.0 || area(a) <= 0.0 || area(b) <= 0.0 {
        return 0.0;
    }
    let shared = height * width;
    shared / (area(a) + area(b) - shared)
}

impl Op for NonMaxSuppression {
    fn name(&self) -> OpName {
        onnx("NonMaxSuppression")
    }

    fn since(&self) -> &'static [u16] {
        &[10, 11]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 2, 5)?;
        n.int("center_point_box")?;
        let (boxes, scores) = (ranked(n, 0, 3)?, ranked(n, 1, 3)?);
        for i in 0..2 {
            if let Some(d) = n.dtype(i).filter(|d| *d != DType::F32) {
                return Err(OpError::new(format!("input {i} is of type {d}; expected floats")));
            }
        }
        let differ = |a: &Dim, b: &Dim| matches!((a.known(), b.known()), (Some(a), Some(b)) if a != b);
        if let Some(b) = boxes.filter(|b| differ(&b[2], &Dim::Known(4))) {
            return Err(OpError::new(format!(
                "boxes of shape {}; expected four numbers for each",
                show(b)
            )));
        }
        if let (Some(b), Some(s)) = (boxes, scores)
            && (differ(&b[0], &s[0]) || differ(&b[1], &s[2]))
        {
            return Err(OpError::new(format!(
                "boxes of shape {} and scores of shape {}",
                show(b),
                show(s)
            )));
        }
        Ok(vec![Fact::tensor(
            Some(DType::I64),
            Some(vec![Dim::Unknown, Dim::Known(3)]),
        )])
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let centred = n.int_or("center_point_box", 0)? != 0;
        let (boxes, scores) = (given(x, 0)?, given(x, 1)?);
        let most = scalar(x, 2, 0.0)?.max(0.0) as usize;
        let share = scalar(x, 3, 0.0)? as f32;
        let least = scalar(x, 4, f64::NEG_INFINITY)? as f32;
        let bounded = x.get(4).is_some_and(|t| t.is_some_and(|t| !t.is_empty()));
        let (&[batch, count, 4], &[_, classes, _]) = (boxes.dims(), scores.dims()) else {
            return Err(OpError::new(
                "expected boxes [batch, boxes, 4] and scores of three axes",
            ));
        };
        if scores.dims() != [batch, classes, count] {
            return Err(OpError::new(format!(
                "scores of shape {:?}; expected {:?}",
                scores.dims(),
                [batch, classes, count]
            )));
        }
        let wrong = || OpError::new("expected floats");
        let (b, s) = (
            boxes.elements::<f32>().ok_or_else(wrong)?,
            scores.elements::<f32>().ok_or_else(wrong)?,
        );
        let all: Vec<_> = b.chunks(4).map(|b| corners(b, centred)).collect();
        let mut chosen: Vec<i64> = room(Some(0))?;
        for class in 0..batch * classes {
            let own = &s[class * count..(class + 1) * count];
            let boxes = &all[class / classes * count..][..count];
            let mut order: Vec<usize> = (0..count).filter(|&i| !bounded || own[i] > least).collect();
            // Stable: of equal scores the first box.
            order.sort_by(|&i, &j| own[j].total_cmp(&own[i]));
            let mut kept: Vec<usize> = vec![];
            for i in order {
                if kept.len() >= most {
                    break;
                }
                if kept.iter().all(|&k| overlap(&boxes[k], &boxes[i]) <= share) {
                    kept.push(i);
                }
            }
            let rows = kept.iter().map(|&i| [class / classes, class % classes, i]);
            chosen.extend(rows.flatten().map(|i| i as i64));
        }
        Ok(vec![Tensor::of(&[chosen.len() / 3, 3], chosen)])
    }

    fn cases(&self) -> Vec<Case> {
        let boxes = || {
            let all = [
                0.0f32, 0.0, 1.0, 1.0, 0.0, 0.1, 1.0, 1.1, 0.0, -0.1, 1.0, 0.9, 0.0, 10.0, 1.0, 11.0, 1.0,
                10.1, 0.0, 11.1, 0.0, 100.0, 1.0, 101.0,
            ];
            Tensor::of(&[1, 6, 4], all.to_vec())
        };
        let scores = || {
            Tensor::of(
                &[1, 2, 6],
                vec![0.9f32, 0.75, 0.6, 0.95, 0.5, 0.3, 0.1, 0.9, 0.9, 0.2, 0.3, 0.4],
            )
        };
        let limits = || {
            [
                Tensor::scalar(3i64),
                Tensor::scalar(0.5f32),
                Tensor::scalar(0.2f32),
            ]
        };
        vec![
            Case::new("two classes", [boxes(), scores()].into_iter().chain(limits())),
            Case::new("centres", [boxes(), scores()].into_iter().chain(limits()))
                .attr("center_point_box", 1)
                .opset(10),
            Case::new(
                "no score is too low",
                [boxes(), scores(), Tensor::of(&[1], vec![2i64])],
            ),
            Case::new("no number", [boxes(), scores()]),
        ]
    }
}
