//! Rounding to bytes, as ONNX Runtime's LSTM with weights of bytes rounds what it multiplies.

/// Rounds each number to the nearest of the 256 that `DynamicQuantizeLinear` tells apart in the range of all of them and 0.
pub(super) fn round(x: &mut [f32]) {
    let (low, high) = x
        .iter()
        .fold((0.0f32, 0.0f32), |(low, high), &x| (low.min(x), high.max(x)));
    let step = (high - low) / 255.0;
    if step == 0.0 {
        return;
    }
    let zero = (-low / step).round_ties_even().clamp(0.0, 255.0);
    for x in x {
        let byte = ((*x / step).round_ties_even() + zero).clamp(0.0, 255.0);
        *x = (byte - zero) * step;
    }
}

/// The same in single precision, which decides where a number in the middle goes.
pub(super) fn round_doubles(x: &mut [f64]) {
    let mut single: Vec<f32> = x.iter().map(|&x| x as f32).collect();
    round(&mut single);
    x.iter_mut().zip(single).for_each(|(x, s)| *x = s.into());
}

#[cfg(test)]
mod tests {
    use super::round;

    #[test]
    fn rounds_to_255_steps_from_the_least_to_the_greatest() {
        let mut x = [-1.0, 0.0, 4.1, 0.011, 0.009];
        round(&mut x);
        // A step is 0.02, and 0 is number 50.
        let want = [-1.0, 0.0, 4.1, 0.02, 0.0];
        assert!(x.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6), "{x:?}");
        let mut zeros = [0.0; 3];
        round(&mut zeros);
        assert_eq!(zeros, [0.0; 3]);
    }
}
