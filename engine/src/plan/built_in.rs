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
    ("add.f32.*", [0.478, 0.0, 30.7, 4194304.0, 15.1]),
    ("attention.f32.*", [37.5, 126.0, 204.0, 0.0, 0.0]),
    ("averagepool.f32.*.blocks", [0.0, 5.91, 39.3, 262144.0, 14.4]),
    ("batchnormalization.f32.*", [0.677, 0.0, 80.5, 0.0, 0.0]),
    ("clip.f32.*", [0.296, 0.0, 115.0, 262144.0, 66.2]),
    ("concat.blocks.f32.run", [0.103, 0.0, 66.4, 4194304.0, 13.2]),
    ("concat.f32.run", [0.272, 0.0, 57.5, 1048576.0, 23.8]),
    ("conv.f32.*", [1.52, 121.0, 10.7, 0.0, 0.0]),
    ("conv.f32.*.blocks.depthwise", [5.43, 104.0, 25.9, 262144.0, 12.0]),
    ("conv.f32.*.blocks.direct", [0.724, 156.0, 35.6, 4194304.0, 4.3]),
    ("conv.f32.*.blocks.rows", [5.73, 147.0, 4.07, 0.0, 0.0]),
    ("conv.f32.*.blocks.winograd2", [18.6, 132.0, 13.8, 0.0, 0.0]),
    ("conv.f32.*.blocks.winograd4", [34.4, 120.0, 15.4, 0.0, 0.0]),
    ("conv.f32.*.depthwise", [9.36, 0.0, 6.93, 0.0, 0.0]),
    ("convtranspose.f32.*", [27.1, 82.5, 12.8, 0.0, 0.0]),
    ("convtranspose.f32.*.blocks", [5.06, 144.0, 6.72, 1048576.0, 4.45]),
    ("div.f32.*", [0.406, 0.0, 10.7, 0.0, 0.0]),
    ("erf.f32.*", [0.224, 0.0, 19.9, 0.0, 0.0]),
    ("exp.f32.*", [0.2, 0.0, 32.7, 4194304.0, 26.6]),
    ("gelu.f32.*", [0.222, 0.0, 17.2, 0.0, 0.0]),
    ("gemm.f32.*", [2.73, 137.0, 20.0, 0.0, 0.0]),
    ("globalaveragepool.f32.*", [1.82, 0.0444, 0.0, 262144.0, 74.5]),
    ("globalaveragepool.f32.*.blocks", [0.0404, 0.0, 57.3, 0.0, 0.0]),
    ("gru.f32.*", [15.6, 75.3, 0.0, 0.0, 0.0]),
    ("hardsigmoid.f32.*", [0.204, 0.0, 95.7, 1048576.0, 52.7]),
    ("hardswish.f32.*", [0.204, 0.0, 93.4, 1048576.0, 53.9]),
    ("instancenormalization.f32.*", [1.85, 0.0, 43.9, 0.0, 0.0]),
    ("layernormalization.f32.*", [1.57, 0.0, 36.9, 1048576.0, 26.1]),
    ("lstm.f32.*", [22.1, 80.1, 0.0, 1048576.0, 3.07]),
    ("matmul.f32.*", [5.44, 149.0, 23.3, 0.0, 0.0]),
    ("matmul.f32.*.values", [3.81, 152.0, 0.0, 1048576.0, 2.32]),
    ("maxpool.f32.*", [11.6, 15.1, 8.1, 0.0, 0.0]),
    ("maxpool.f32.*.blocks", [0.198, 6.3, 17.3, 0.0, 0.0]),
    ("mul.f32.*", [0.369, 0.0, 27.1, 0.0, 0.0]),
    ("relu.f32.*", [0.207, 0.0, 112.0, 262144.0, 69.8]),
    ("reorder.f32.blocks", [0.737, 0.0, 48.4, 1048576.0, 15.5]),
    ("reorder.f32.rows", [0.517, 0.0, 40.3, 1048576.0, 21.3]),
    ("resize.blocks.f32.nearest", [1.41, 0.0, 7.33, 0.0, 0.0]),
    ("resize.f32.nearest", [29.5, 0.0, 180.0, 1048576.0, 16.3]),
    ("rmsnormalization.f32.*", [1.11, 0.0, 52.3, 1048576.0, 33.4]),
    ("sigmoid.f32.*", [0.216, 0.0, 21.2, 0.0, 0.0]),
    ("softmax.f32.*", [0.327, 6.61, 18.0, 0.0, 0.0]),
    ("softmax.f32.*.columns", [0.14, 0.0, 19.4, 0.0, 0.0]),
    ("split.blocks.f32.run", [0.263, 0.0, 73.6, 0.0, 0.0]),
    ("split.f32.run", [0.154, 0.0, 71.8, 1048576.0, 23.2]),
    ("sqrt.f32.*", [0.19, 0.0, 29.5, 0.0, 0.0]),
    ("sub.f32.*", [0.466, 0.0, 30.7, 4194304.0, 14.4]),
    ("tanh.f32.*", [0.202, 0.0, 24.0, 0.0, 0.0]),
    ("transpose.f32.turn", [0.744, 0.0, 18.4, 0.0, 0.0]),
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
