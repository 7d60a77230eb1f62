//! Rounding to bytes, as ONNX Runtime's LSTM with weights of bytes rounds what it multiplies.

/// Takes each number for the nearest of the 256 that `DynamicQuantizeLinear` tells apart in the range of all of them and 0: how
/// many steps it lies above 0. The size of a step.
pub(super) fn count(x: &mut [f32]) -> f32 {
    let (low, high) = x
        .iter()
        .fold((0.0f32, 0.0f32), |(low, high), &x| (low.min(x), high.max(x)));
    let step = (high - low) / 255.0;
    if step == 0.0 {
        x.fill(0.0);
        return 1.0;
    }
    let zero = (-low / step).round_ties_even().clamp(0.0, 255.0);
    for x in x {
        *x = ((*x / step).round_ties_even() + zero).clamp(0.0, 255.0) - zero;
    }
    step
}

/// Rounds each number to whole steps, as [`count`] has them: in single precision, which decides where one in the middle goes.
pub(super) fn round(x: &mut [f64]) {
    let mut single: Vec<f32> = x.iter().map(|&x| x as f32).collect();
    let step = f64::from(count(&mut single));
    x.iter_mut()
        .zip(single)
        .for_each(|(x, s)| *x = f64::from(s) * step);
}

#[cfg(test)]
mod tests {
    use super::{count, round};

    #[test]
    fn counts_255_steps_from_the_least_to_the_greatest() {
        let x = [-1.0, 0.0, 4.1, 0.011, 0.009];
        let mut steps = x;
        assert!((count(&mut steps) - 0.02).abs() < 1e-6);
        assert_eq!(steps, [-50.0, 0.0, 205.0, 1.0, 0.0]);
        let mut rounded = x.map(f64::from);
        round(&mut rounded);
        let want = [-1.0, 0.0, 4.1, 0.02, 0.0];
        assert!(
            rounded.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6),
            "{rounded:?}"
        );
        let mut zeros = [0.0; 3];
        assert_eq!((count(&mut zeros), zeros), (1.0, [0.0; 3]));
    }
}
