//! What kernels take where nothing was measured.

use super::rates::Rate;
use crate::cpu::{Cost, isa};

/// Billions of operations, and of bytes, that one thread is taken to do in a second by kernels that are not in the table.
const PEAK: (f64, f64) = (170.0, 16.0);

/// Threads that together move more bytes than one; further ones share.
const CHANNELS: usize = 4;

/// What `calibrate` fitted on one thread of a Sapphire Rapids server with AVX-512, at [`PEAK`]: microseconds a run, billions of
/// operations and of bytes a second, bytes that the nearer caches hold, and billions of bytes a second beyond; 0 where
/// a time does not grow. Sorted; `*` stands for the instruction set.
static TABLE: &[(&str, [f64; 5])] = &[
    ("add.f32.*", [0.431, 0.0, 29.9, 0.0, 0.0]),
    ("attention.f32.*", [48.7, 101.0, 0.0, 0.0, 0.0]),
    ("averagepool.f32.*", [12.9, 7.42, 9.79, 0.0, 0.0]),
    ("averagepool.f32.*.blocks", [0.0, 6.12, 33.3, 262144.0, 15.1]),
    ("batchnormalization.f32.*", [0.645, 0.0, 80.9, 0.0, 0.0]),
    ("clip.f32.*", [0.282, 0.0, 93.0, 1048576.0, 52.0]),
    ("concat.blocks.f32.run", [0.601, 0.0, 70.9, 4194304.0, 10.1]),
    ("concat.f32.run", [0.66, 0.0, 68.1, 1048576.0, 14.3]),
    ("conv.f32.*", [1.28, 126.0, 11.0, 0.0, 0.0]),
    (
        "conv.f32.*.blocks.depthwise",
        [3.84, 105.0, 13.2, 1048576.0, 8.35],
    ),
    ("conv.f32.*.blocks.direct", [0.4, 158.0, 32.2, 4194304.0, 4.52]),
    ("conv.f32.*.blocks.winograd2", [5.18, 137.0, 14.0, 0.0, 0.0]),
    ("conv.f32.*.blocks.winograd4", [30.5, 124.0, 15.0, 0.0, 0.0]),
    ("conv.f32.*.depthwise", [60.9, 0.0, 0.0, 262144.0, 6.93]),
    ("convtranspose.f32.*", [28.5, 86.7, 17.0, 0.0, 0.0]),
    ("div.f32.*", [0.345, 0.0, 11.2, 4194304.0, 2.63]),
    ("erf.f32.*", [0.219, 0.0, 19.8, 0.0, 0.0]),
    ("exp.f32.*", [0.203, 0.0, 32.6, 4194304.0, 22.4]),
    ("gelu.f32.*", [0.223, 0.0, 17.2, 0.0, 0.0]),
    ("gemm.f32.*", [3.54, 147.0, 15.9, 0.0, 0.0]),
    ("globalaveragepool.f32.*", [2.27, 0.0449, 0.0, 262144.0, 75.7]),
    ("globalaveragepool.f32.*.blocks", [0.45, 0.0, 58.7, 0.0, 0.0]),
    ("gru.f32.*", [16.1, 67.1, 0.0, 0.0, 0.0]),
    ("hardsigmoid.f32.*", [0.212, 0.0, 97.5, 1048576.0, 53.6]),
    ("hardswish.f32.*", [0.214, 0.0, 107.0, 262144.0, 72.0]),
    ("instancenormalization.f32.*", [1.89, 0.0, 43.6, 0.0, 0.0]),
    ("layernormalization.f32.*", [1.36, 0.0, 36.0, 1048576.0, 24.0]),
    ("lstm.f32.*", [22.4, 80.8, 0.0, 1048576.0, 3.17]),
    ("matmul.f32.*", [5.11, 150.0, 43.2, 1048576.0, 15.4]),
    ("matmul.f32.*.values", [3.6, 130.0, 0.0, 0.0, 0.0]),
    ("maxpool.f32.*", [10.6, 14.5, 7.87, 0.0, 0.0]),
    ("maxpool.f32.*.blocks", [0.176, 6.47, 18.1, 0.0, 0.0]),
    ("mul.f32.*", [0.374, 0.0, 28.6, 0.0, 0.0]),
    ("relu.f32.*", [0.205, 0.0, 119.0, 262144.0, 69.3]),
    ("reorder.f32.blocks", [0.452, 0.0, 15.6, 1048576.0, 3.13]),
    ("reorder.f32.rows", [0.232, 0.0, 20.3, 1048576.0, 10.5]),
    ("resize.blocks.f32.nearest", [2.98, 0.0, 7.48, 0.0, 0.0]),
    ("resize.f32.nearest", [29.1, 0.0, 120.0, 1048576.0, 12.0]),
    ("rmsnormalization.f32.*", [0.75, 0.0, 47.3, 1048576.0, 33.2]),
    ("sigmoid.f32.*", [0.22, 0.0, 21.1, 0.0, 0.0]),
    ("softmax.f32.*", [0.349, 6.35, 18.0, 0.0, 0.0]),
    ("split.blocks.f32.run", [0.803, 0.0, 78.6, 0.0, 0.0]),
    ("split.f32.run", [0.532, 0.0, 69.1, 1048576.0, 16.7]),
    ("sqrt.f32.*", [0.194, 0.0, 29.5, 0.0, 0.0]),
    ("sub.f32.*", [0.384, 0.0, 30.7, 4194304.0, 15.0]),
    ("tanh.f32.*", [0.203, 0.0, 24.1, 0.0, 0.0]),
    ("transpose.f32.turn", [0.761, 0.0, 17.9, 0.0, 0.0]),
];

/// The peak of the instruction set in use, relative to that of AVX-512.
fn speed() -> f64 {
    match isa() {
        "avx512" => 1.0,
        "avx2" => 0.5,
        "neon" => 0.25,
        _ => 0.05,
    }
}

/// The rate of the kernel `name` on `threads` threads.
pub(super) fn built_in(name: &str, cost: &Cost, threads: usize) -> Rate {
    let any = name.replacen(isa(), "*", 1);
    let row = TABLE.binary_search_by(|(kernel, _)| (*kernel).cmp(&any));
    let [fixed, gflops, gbytes, near, far] = match row {
        Ok(i) => TABLE[i].1,
        Err(_) => [0.0, PEAK.0 * cost.efficiency, PEAK.1, 0.0, 0.0],
    };
    let inverse = |rate: f64, parts: f64| if rate > 0.0 { 1.0 / (rate * parts) } else { 0.0 };
    let moving = threads.min(CHANNELS) as f64;
    let (near_byte, far_byte) = (inverse(gbytes, moving), inverse(far, moving));
    Rate {
        fixed_us: fixed,
        ns_per_flop: inverse(gflops, speed() * threads as f64),
        ns_per_byte: near_byte,
        near_bytes: near,
        ns_per_far_byte: (far_byte - near_byte).max(0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_found() {
        assert!(TABLE.is_sorted_by(|a, b| a.0 < b.0));
        let (name, [fixed, ..]) = TABLE[0];
        let rate = built_in(&name.replace('*', isa()), &Cost::default(), 1);
        assert_eq!(rate.fixed_us, fixed);
        assert!(
            TABLE
                .iter()
                .all(|(_, row)| row.iter().all(|x| x.is_finite() && *x >= 0.0))
        );
    }

    #[test]
    fn what_is_not_in_the_table_is_guessed() {
        let cost = Cost {
            flops: 1e9,
            bytes: 0.0,
            efficiency: 0.5,
        };
        let ms = |threads| built_in("unheard.of", &cost, threads).ms(&cost) * speed();
        assert!((ms(1) - 1e3 / 85.0).abs() < 1e-9 && (ms(2) - ms(1) / 2.0).abs() < 1e-9);
    }
}
