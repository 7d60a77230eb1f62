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
    ("add.f32.*", [0.231, 0.0, 29.9, 0.0, 0.0]),
    ("attention.f32.*", [39.5, 124.0, 199.0, 0.0, 0.0]),
    ("averagepool.f32.*", [12.5, 9.39, 10.2, 0.0, 0.0]),
    ("averagepool.f32.*.blocks", [0.0, 6.5, 37.8, 262144.0, 15.4]),
    ("batchnormalization.f32.*", [0.604, 0.0, 81.9, 0.0, 0.0]),
    (
        "batchnormalization.f32.*.blocks",
        [1.0, 0.0, 60.0, 262144.0, 30.0],
    ),
    (
        "batchnormalization.f32.*.blocks.training",
        [2.0, 0.0, 60.0, 1048576.0, 30.0],
    ),
    (
        "batchnormalizationgrad.f32.*.blocks",
        [2.0, 0.0, 60.0, 1048576.0, 30.0],
    ),
    ("clip.f32.*", [0.25, 0.0, 117.0, 262144.0, 73.5]),
    ("concat.blocks.f32.run", [0.252, 0.0, 78.9, 4194304.0, 13.5]),
    ("concat.f32.run", [0.125, 0.0, 64.1, 1048576.0, 24.2]),
    ("conv.f32.*", [1.32, 125.0, 10.6, 0.0, 0.0]),
    ("conv.f32.*.blocks.depthwise", [1.41, 103.0, 14.0, 0.0, 0.0]),
    ("conv.f32.*.blocks.depthwise.fresh", [1.41, 103.0, 14.0, 0.0, 0.0]),
    ("conv.f32.*.blocks.direct", [0.46, 162.0, 36.3, 0.0, 0.0]),
    ("conv.f32.*.blocks.direct.fresh", [1.5, 160.0, 37.6, 0.0, 0.0]),
    ("conv.f32.*.blocks.rows", [0.817, 149.0, 3.63, 0.0, 0.0]),
    ("conv.f32.*.blocks.rows.fresh", [1.5, 149.0, 3.63, 0.0, 0.0]),
    ("conv.f32.*.blocks.sparse", [4.0, 160.0, 0.0, 0.0, 0.0]),
    ("conv.f32.*.blocks.winograd2", [4.71, 131.0, 15.4, 0.0, 0.0]),
    ("conv.f32.*.blocks.winograd2.fresh", [6.0, 131.0, 15.4, 0.0, 0.0]),
    ("conv.f32.*.blocks.winograd4", [3.19, 110.0, 14.3, 0.0, 0.0]),
    ("conv.f32.*.blocks.winograd4.fresh", [5.0, 110.0, 14.3, 0.0, 0.0]),
    ("conv.f32.*.depthwise", [3.72, 48.4, 7.9, 0.0, 0.0]),
    ("convgradw.f32.*.blocks.depthwise", [3.0, 40.0, 14.0, 0.0, 0.0]),
    ("convgradw.f32.*.blocks.direct", [3.0, 150.0, 20.0, 0.0, 0.0]),
    ("convgradw.f32.*.blocks.rows", [3.0, 140.0, 10.0, 0.0, 0.0]),
    ("convgradw.f32.*.blocks.winograd4", [5.0, 100.0, 14.3, 0.0, 0.0]),
    ("convtranspose.f32.*", [27.9, 86.3, 13.9, 0.0, 0.0]),
    ("convtranspose.f32.*.blocks", [5.32, 150.0, 6.54, 1048576.0, 4.99]),
    (
        "convtranspose.f32.*.blocks.depthwise.fresh",
        [1.41, 103.0, 14.0, 0.0, 0.0],
    ),
    (
        "convtranspose.f32.*.blocks.fresh",
        [6.0, 150.0, 6.54, 1048576.0, 4.99],
    ),
    ("convtranspose.f32.*.blocks.sparse", [4.0, 160.0, 0.0, 0.0, 0.0]),
    (
        "convtranspose.f32.*.blocks.winograd2.fresh",
        [6.0, 131.0, 15.4, 0.0, 0.0],
    ),
    (
        "convtranspose.f32.*.blocks.winograd4.fresh",
        [5.0, 110.0, 14.3, 0.0, 0.0],
    ),
    ("div.f32.*", [0.23, 0.0, 11.6, 0.0, 0.0]),
    ("elementwise.f32.*", [0.5, 25.0, 30.0, 0.0, 0.0]),
    ("erf.f32.*", [0.2, 0.0, 20.9, 0.0, 0.0]),
    ("exp.f32.*", [0.184, 0.0, 34.2, 4194304.0, 26.8]),
    ("fusedmatmul.f32.*.values", [3.12, 133.0, 0.0, 1048576.0, 2.21]),
    ("gelu.f32.*", [0.202, 0.0, 18.2, 0.0, 0.0]),
    // Between that server's 16.2 and an EPYC's 36.6, which is 27.5 where the sparse kernels beside it take as long: else a quarter of zeros
    // would be left out there at twice the time.
    ("gemm.f32.*", [3.57, 151.0, 21.0, 0.0, 0.0]),
    ("gemm.f32.*.sparse", [6.0, 168.0, 12.5, 0.0, 0.0]),
    ("gemm.f32.*.sparse.vector", [2.4, 205.0, 17.0, 0.0, 0.0]),
    ("globalaveragepool.f32.*", [1.46, 0.0469, 875.0, 262144.0, 74.9]),
    ("globalaveragepool.f32.*.blocks", [0.0, 0.0, 58.8, 0.0, 0.0]),
    ("gru.f32.*", [16.6, 78.3, 0.0, 0.0, 0.0]),
    ("hardsigmoid.f32.*", [0.154, 0.0, 135.0, 262144.0, 68.0]),
    ("hardswish.f32.*", [0.152, 0.0, 98.4, 1048576.0, 55.0]),
    ("instancenormalization.f32.*", [1.77, 0.0, 44.7, 0.0, 0.0]),
    ("layernormalization.f32.*", [1.47, 0.0, 37.1, 0.0, 0.0]),
    ("lstm.f32.*", [27.1, 80.2, 0.0, 1048576.0, 3.21]),
    ("matmul.f32.*", [6.77, 150.0, 24.2, 0.0, 0.0]),
    ("matmul.f32.*.sparse", [6.0, 168.0, 12.5, 0.0, 0.0]),
    ("matmul.f32.*.sparse.vector", [2.4, 205.0, 17.0, 0.0, 0.0]),
    ("matmul.f32.*.values", [3.12, 133.0, 0.0, 1048576.0, 2.21]),
    ("maxpool.f32.*", [9.58, 13.6, 8.27, 0.0, 0.0]),
    ("maxpool.f32.*.blocks", [0.0496, 6.75, 18.8, 0.0, 0.0]),
    ("maxpoolgrad.f32.*.blocks", [1.0, 10.0, 25.0, 0.0, 0.0]),
    ("mul.f32.*", [0.223, 0.0, 30.9, 4194304.0, 14.8]),
    ("pad.f32", [5.14, 0.0, 32.2, 0.0, 0.0]),
    ("reducesum.f32.*.blocks", [1.0, 0.0, 60.0, 1048576.0, 30.0]),
    ("relu.f32.*", [0.151, 0.0, 149.0, 262144.0, 70.1]),
    ("reorder.f32.blocks", [0.282, 0.0, 45.2, 1048576.0, 18.8]),
    ("reorder.f32.rows", [0.427, 0.0, 41.4, 1048576.0, 22.0]),
    ("resize.blocks.f32.nearest", [0.354, 0.0, 7.46, 0.0, 0.0]),
    ("resize.f32.nearest", [27.7, 0.0, 166.0, 1048576.0, 17.7]),
    ("rmsnormalization.f32.*", [0.875, 0.0, 52.6, 1048576.0, 37.7]),
    ("sigmoid.f32.*", [0.173, 0.0, 22.8, 1048576.0, 20.9]),
    ("softmax.f32.*", [0.281, 6.71, 18.7, 0.0, 0.0]),
    ("softmax.f32.*.columns", [0.265, 0.0, 20.7, 0.0, 0.0]),
    ("split.blocks.f32.run", [0.0917, 0.0, 79.4, 0.0, 0.0]),
    ("split.f32.run", [0.0652, 0.0, 71.1, 1048576.0, 23.6]),
    ("sqrt.f32.*", [0.17, 0.0, 31.2, 0.0, 0.0]),
    ("sub.f32.*", [0.217, 0.0, 33.0, 4194304.0, 15.0]),
    ("tanh.f32.*", [0.16, 0.0, 25.2, 0.0, 0.0]),
    ("transpose.f32.turn", [0.622, 0.0, 18.1, 0.0, 0.0]),
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
