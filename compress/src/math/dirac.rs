//! How near weights are to handing on what comes in.

/// The sine of the angle between the weights `w` and those that hand on what comes in, up to a factor: 0 where `w` is a multiple of
/// these, at most 1, which is also said of weights that point the other way or are zero. `op` says how `dims` are to be read: `Conv`
/// as [outputs, inputs of a group, taps…] with the same number of outputs as of inputs, `ConvTranspose` as [inputs, outputs of a
/// group, taps…], others as a matrix. `None` where that is no square.
pub fn distance(w: &[f64], dims: &[usize], op: &str) -> Option<f64> {
    let (outer, inner) = (*dims.first()?, *dims.get(1)?);
    let fits = match op {
        "Conv" | "ConvTranspose" => dims.len() > 2 && inner > 0 && outer % inner == 0,
        "Gemm" | "MatMul" => dims.len() == 2 && outer == inner,
        _ => false,
    };
    let taps: usize = dims[2..].iter().product();
    if !fits || w.len() != outer * inner * taps {
        return None;
    }
    let middle = dims[2..].iter().fold(0, |at, d| at * d + d / 2);
    let passed: f64 = (0..outer)
        .map(|o| w[(o * inner + o % inner) * taps + middle])
        .sum();
    let length = w.iter().map(|x| x * x).sum::<f64>().sqrt();
    let cosine = passed / (length * (outer as f64).sqrt());
    Some(if cosine > 0.0 {
        (1.0 - cosine * cosine).max(0.0).sqrt()
    } else {
        1.0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hands_on_is_near() {
        let scaled = [3.0, 0.0, 0.0, 3.0];
        assert!(distance(&scaled, &[2, 2], "Gemm").unwrap() < 1e-7);
        let half = [1.0, 1.0, 1.0, 1.0];
        assert!((distance(&half, &[2, 2], "MatMul").unwrap() - 0.5f64.sqrt()).abs() < 1e-12);
        let turned = [0.0, 1.0, 1.0, 0.0];
        assert_eq!(distance(&turned, &[2, 2], "MatMul"), Some(1.0));
        for bad in [[-1.0, 0.0, 0.0, -1.0], [0.0; 4]] {
            assert_eq!(distance(&bad, &[2, 2], "Gemm"), Some(1.0));
        }
        assert_eq!(distance(&[1.0; 6], &[2, 3], "MatMul"), None);
        assert_eq!(distance(&[1.0; 4], &[2, 2], "LSTM"), None);
    }

    #[test]
    fn the_middle_tap_hands_on_in_each_group() {
        // Two groups of two channels, 3 × 3.
        let mut w = vec![0.0; 4 * 2 * 9];
        for o in 0..4 {
            w[(o * 2 + o % 2) * 9 + 4] = 0.7;
        }
        assert!(distance(&w, &[4, 2, 3, 3], "Conv").unwrap() < 1e-7);
        w[0] = 0.7;
        let far = distance(&w, &[4, 2, 3, 3], "Conv").unwrap();
        assert!((far - (1.0f64 / 5.0).sqrt()).abs() < 1e-12, "{far}");
    }
}
