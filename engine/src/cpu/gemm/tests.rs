use std::time::Instant;

use super::*;
use crate::cpu::Act;
use crate::ops::case::floats;

fn data(len: usize, seed: u64) -> Vec<f32> {
    floats(&[len], seed).elements::<f32>().unwrap().into_owned()
}

/// The greatest distance from the sum in `f64`, relative to the sum of the absolute products.
fn error(g: &Gemm, b_strides: Strides, a: &[f32], b: &[f32], c: &[f32]) -> f64 {
    let mut worst = 0f64;
    for (i, j) in (0..g.m).flat_map(|i| (0..g.n).map(move |j| (i, j))) {
        let products = (0..g.k).map(|k| {
            let (x, y) = (
                a[i * g.a.row + k * g.a.col],
                b[k * b_strides.row + j * b_strides.col],
            );
            f64::from(x) * f64::from(y)
        });
        let (sum, size) = products.fold((0.0, 1e-30), |(s, t), p| (s + p, t + p.abs()));
        worst = worst.max((f64::from(c[i * g.n + j]) - sum).abs() / size);
    }
    worst
}

fn gemm(m: usize, n: usize, k: usize) -> Gemm {
    Gemm {
        m,
        n,
        k,
        a: Strides::rows(k),
        b: Rhs::Packed,
        batch: vec![Place::default()],
        alpha: 1.0,
        post: Post::NONE,
    }
}

fn run(g: &Gemm, a: &[f32], b: &[f32], add: [Addend; 2], threads: usize) -> Vec<f32> {
    let mut c = vec![f32::NAN; g.m * g.n];
    let pool = Pool::new(threads);
    let mut scratch = crate::cpu::Arena::new(g.scratch(pool.threads()));
    let x = Operands {
        a: a.as_ptr(),
        b: b.as_ptr(),
        c: c.as_mut_ptr(),
        add,
    };
    // SAFETY: the vectors are as large as the sizes say.
    unsafe { g.run(x, scratch.bytes_mut(), &pool) };
    c
}

#[test]
fn products_of_all_layouts_are_near_the_sum_in_f64() {
    for (m, n, k) in [
        (1, 1, 1),
        (1, 40, 70),
        (13, 33, 17),
        (50, 49, 1300),
        (129, 65, 96),
        (3, 5, 0),
    ] {
        let (a, b) = (data(m * k, 1), data(k * n, 2));
        for transposed in [false, true] {
            let b_strides = if transposed {
                Strides { row: 1, col: k }
            } else {
                Strides::rows(n)
            };
            let a_strides = if transposed {
                Strides { row: 1, col: m }
            } else {
                Strides::rows(k)
            };
            let packed = Gemm {
                a: a_strides,
                ..gemm(m, n, k)
            };
            let panels = Panels::new(&b, 1, (k, n), b_strides);
            let c = run(&packed, &a, panels.data.slice(), [Addend::NONE; 2], 1);
            assert!(error(&packed, b_strides, &a, &b, &c) < 1e-6, "{m} {n} {k}");
            let strided = Gemm {
                b: Rhs::Strided(b_strides),
                ..packed.clone()
            };
            assert_eq!(run(&strided, &a, &b, [Addend::NONE; 2], 3), c, "{m} {n} {k}");
            assert_eq!(run(&packed, &a, panels.data.slice(), [Addend::NONE; 2], 2), c);
        }
    }
}

#[test]
fn long_sums_are_cut_into_slices_by_their_size() {
    for (m, n, k) in [(30, 37, 2050), (64, 33, 4700)] {
        let (a, b) = (data(m * k, 1), data(k * n, 2));
        let g = Gemm {
            a: Strides { row: 1, col: m },
            b: Rhs::Strided(Strides::rows(n)),
            alpha: -0.5,
            ..gemm(m, n, k)
        };
        let c = run(&g, &a, &b, [Addend::NONE; 2], 1);
        let whole: Vec<_> = c.iter().map(|c| -2.0 * c).collect();
        assert!(error(&g, Strides::rows(n), &a, &b, &whole) < 1e-6, "{m} {n} {k}");
        assert_eq!(run(&g, &a, &b, [Addend::NONE; 2], 3), c, "{m} {n} {k}");
        assert_ne!(
            g.scratch(1),
            Gemm {
                b: Rhs::Packed,
                ..g.clone()
            }
            .scratch(1)
        );
        let add = Addend {
            ptr: c.as_ptr(),
            row: n,
            col: 1,
            scale: 1.0,
        };
        let twice = run(&g, &a, &b, [add, Addend::NONE], 2);
        let near = |(a, b): (&f32, &f32)| (a - 2.0 * b).abs() < 1e-3;
        assert!(twice.iter().zip(&c).all(near), "{m} {n} {k}");
    }
}

#[test]
fn addends_and_activations_come_last() {
    let (m, n, k) = (30, 37, 1100);
    let (a, b, z, bias) = (data(m * k, 1), data(k * n, 2), data(m * n, 3), data(m.max(n), 4));
    let plain = run(
        &Gemm {
            b: Rhs::Strided(Strides::rows(n)),
            ..gemm(m, n, k)
        },
        &a,
        &b,
        [Addend::NONE; 2],
        1,
    );
    for (act, by_row) in [(Act::None, true), (Act::Relu, false), (Act::Tanh, true)] {
        let g = Gemm {
            b: Rhs::Strided(Strides::rows(n)),
            alpha: 0.5,
            post: act.into(),
            ..gemm(m, n, k)
        };
        let add = [
            Addend {
                ptr: bias.as_ptr(),
                row: by_row.into(),
                col: (!by_row).into(),
                scale: 1.0,
            },
            Addend {
                ptr: z.as_ptr(),
                row: n,
                col: 1,
                scale: 2.0,
            },
        ];
        let got = run(&g, &a, &b, add, 2);
        for (i, (&y, &p)) in got.iter().zip(&plain).enumerate() {
            let x = 0.5 * p + bias[if by_row { i / n } else { i % n }] + 2.0 * z[i];
            let want = match act {
                Act::None => x,
                Act::Relu => x.max(0.0),
                _ => x.tanh(),
            };
            assert!((y - want).abs() < 1e-4, "{act:?} {i}: {y}, expected {want}");
        }
    }
}

#[test]
fn nothing_is_a_product_of_zeros() {
    let g = Gemm {
        post: Act::Clip { lo: 1.0, hi: 2.0 }.into(),
        ..gemm(2, 3, 0)
    };
    assert_eq!(run(&g, &[], &[], [Addend::NONE; 2], 1), [1.0; 6]);
    for (m, n) in [(0, 3), (3, 0)] {
        assert!(
            run(
                &gemm(m, n, 4),
                &data(m * 4, 1),
                &data(n * 4, 1),
                [Addend::NONE; 2],
                2
            )
            .is_empty()
        );
    }
}

/// Prints GFLOP/s of one thread.
#[test]
#[ignore = "a measurement"]
fn speed() {
    for (m, n, k) in [
        (512, 512, 512),
        (128, 768, 768),
        (128, 3072, 768),
        (128, 768, 3072),
        (49, 512, 2048),
        (49, 2048, 512),
        (3136, 64, 64),
        (1, 1000, 2048),
    ] {
        let (a, b) = (data(m * k, 1), data(k * n, 2));
        let panels = Panels::new(&b, 1, (k, n), Strides::rows(n));
        let mut c = vec![0f32; m * n];
        let pool = Pool::new(1);
        let mut time = |g: &Gemm, b: *const f32| {
            let mut scratch = crate::cpu::Arena::new(g.scratch(1));
            let x = Operands {
                a: a.as_ptr(),
                b,
                c: c.as_mut_ptr(),
                add: [Addend::NONE; 2],
            };
            let once = || {
                let begun = Instant::now();
                // SAFETY: the vectors are as large as the sizes say.
                unsafe { g.run(x, scratch.bytes_mut(), &pool) };
                begun.elapsed().as_secs_f64()
            };
            let best = std::iter::repeat_with(once).take(60).fold(1.0, f64::min);
            2.0 * (m * n * k) as f64 / best * 1e-9
        };
        let packed = time(&gemm(m, n, k), panels.data.slice().as_ptr());
        let strided = time(
            &Gemm {
                b: Rhs::Strided(Strides::rows(n)),
                ..gemm(m, n, k)
            },
            b.as_ptr(),
        );
        println!("{m} x {n} x {k}: packed {packed:.0}, not packed {strided:.0} GFLOP/s");
    }
}
