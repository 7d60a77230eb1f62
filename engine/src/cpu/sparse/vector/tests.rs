use super::*;

/// A matrix of `len` elements of which a share `zeros` is zero, each row of 7 with another share.
fn weights(len: usize, zeros: f64, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f64 / f64::from(1 << 24)
    };
    let uneven = |i: usize| zeros.powf(0.7 + 0.1 * (i / 5 % 7) as f64);
    (0..len)
        .map(|i| {
            let (there, x) = (next() >= uneven(i), next() as f32 - 0.5);
            if there { x } else { [0.0, -0.0][i % 2] }
        })
        .collect()
}

/// `x w + bias` as the packed matrix has it, and as it is.
fn products(v: &Vector, w: Matrix, x: &[f32], rows: usize, threads: usize) -> (Vec<f32>, Vec<f64>) {
    let (k, n) = v.size;
    let bias: Vec<f32> = (0..n).map(|j| j as f32 * 0.01).collect();
    let mut y = vec![f32::NAN; rows * n];
    let tokens = Tokens {
        x: x.as_ptr(),
        rows,
        pitch: k,
        y: y.as_mut_ptr(),
        add: [
            Addend {
                ptr: bias.as_ptr(),
                row: 0,
                col: 1,
                scale: 2.0,
            },
            Addend::NONE,
        ],
        post: Post::NONE,
    };
    // SAFETY: all has these sizes.
    unsafe { v.run(tokens, &Pool::new(threads)) };
    let product = |r: usize, j: usize| {
        let terms = (0..k).filter(|&i| w.at(i, j) != 0.0);
        terms
            .map(|i| f64::from(x[r * k + i]) * f64::from(w.at(i, j)))
            .sum::<f64>()
    };
    let want = (0..rows * n).map(|at| product(at / n, at % n) + 2.0 * f64::from(bias[at % n]));
    (y, want.collect())
}

fn close(got: &[f32], want: &[f64], what: &str) {
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        let near = (f64::from(g) - w).abs() <= 1e-5 + 1e-4 * w.abs();
        assert!(
            near || g.is_nan() && w.is_nan(),
            "{what}: element {i}: {g}, expected {w}"
        );
    }
}

const SIZES: [(usize, usize); 9] = [
    (1, 1),
    (3, 40),
    (4, 16),
    (17, 5),
    (64, 64),
    (131, 97),
    (300, 33),
    (700, 9),
    (90, 700),
];

#[test]
fn products_are_those_of_all_weights() {
    for (k, n) in SIZES {
        for zeros in [0.0, 0.2, 0.5, 0.8, 0.9, 0.97, 0.999, 1.0] {
            let all = weights(k * n, zeros, (k * 1000 + n) as u64);
            let x: Vec<f32> = weights(5 * k, 0.0, 5).iter().map(|x| x + 0.1).collect();
            for strides in [Strides::rows(n), Strides::rows(k).transposed()] {
                let v = Vector::new(&all, (k, n), strides);
                let w = Matrix { w: &all, k, strides };
                let what = format!("{k}x{n}, {zeros} zeros, {strides:?}");
                let (five, want) = products(&v, w, &x, 5, 1);
                close(&five, &want, &what);
                for rows in 1..5 {
                    let (few, _) = products(&v, w, &x, rows, 3);
                    assert_eq!(few, five[..rows * n], "{what}: {rows} rows, three threads");
                }
                let live = all.iter().filter(|x| **x != 0.0).count();
                let cost = Vector::cost(live, (k, n), 1);
                assert!(
                    cost.flops >= 0.0 && cost.bytes <= (16 * k * n + 8 * (k + n)) as f64,
                    "{what}"
                );
            }
        }
    }
}

#[test]
fn there_may_be_nothing_to_add_or_to_write() {
    for (k, n) in [(0, 5), (5, 0), (0, 0)] {
        let v = Vector::new(&[], (k, n), Strides::rows(n));
        let w = Matrix {
            w: &[],
            k,
            strides: Strides::rows(n),
        };
        let (y, want) = products(&v, w, &[1.0; 10], 2, 2);
        close(&y, &want, "nothing");
    }
}

#[test]
fn weights_far_apart_and_long_sums_are_found() {
    let (k, n) = (70_000, 18);
    let mut all = vec![0f32; k * n];
    for (at, x) in [
        (0, 1.0),
        (299 * n + 3, 2.0),
        (66_000 * n + 3, 3.0),
        (k * n - 1, 4.0),
    ] {
        all[at] = x;
    }
    let x: Vec<f32> = (0..k).map(|i| i as f32).collect();
    let v = Vector::new(&all, (k, n), Strides::rows(n));
    assert!(matches!(v.form, Form::Steps(_)));
    let w = Matrix {
        w: &all,
        k,
        strides: Strides::rows(n),
    };
    let (y, want) = products(&v, w, &x, 1, 1);
    close(&y, &want, "far apart");
}

#[test]
fn what_meets_a_zero_is_not_looked_at() {
    let (k, n) = (50, 40);
    for zeros in [0.3, 0.95] {
        let mut all = weights(k * n, zeros, 3);
        // The first column has it all, the second nothing.
        for i in 0..k {
            (all[i * n], all[i * n + 1]) = (1.0, 0.0);
        }
        let mut x = vec![1.0; k];
        (x[7], x[20]) = (f32::NAN, f32::INFINITY);
        let v = Vector::new(&all, (k, n), Strides::rows(n));
        let w = Matrix {
            w: &all,
            k,
            strides: Strides::rows(n),
        };
        let (y, want) = products(&v, w, &x, 1, 1);
        assert!(y[0].is_nan() && y[1].is_finite());
        let same = y
            .iter()
            .zip(&want)
            .all(|(&a, &b)| f64::from(a).is_finite() == b.is_finite());
        assert!(same, "{y:?}, expected {want:?}");
        let mut all = all.clone();
        all[2] = f32::NAN;
        let v = Vector::new(&all, (k, n), Strides::rows(n));
        let w = Matrix { w: &all, ..w };
        assert!(products(&v, w, &vec![1.0; k], 1, 1).0[2].is_nan());
    }
}

#[test]
fn blocks_are_of_about_equal_weight() {
    let counts: Vec<usize> = (0..3000).map(|j| if j < 1000 { 300 } else { 30 }).collect();
    let all = blocks(&counts);
    let (mut end, mut most) = (0, 0);
    for b in &all {
        assert!(b.start == end && b.start.is_multiple_of(lanes()) && (1..=BLOCK).contains(&b.len()));
        end = b.end;
        most = most.max(counts[b.clone()].iter().sum::<usize>());
    }
    assert_eq!(end, 3000);
    assert!(
        all.len() >= TASKS && most <= counts.iter().sum::<usize>() / TASKS * 5 / 4,
        "{most}"
    );
}

/// The parts of `v` as a file has them, in words of four bytes.
fn stored(v: &Vector) -> Vec<Vec<u32>> {
    v.parts().into_iter().map(bytemuck::pod_collect_to_vec).collect()
}

fn loaded(parts: &[Vec<u32>]) -> Option<Vector> {
    let aligned = |p: &Vec<u32>| {
        let mut lines = vec![0u64; p.len().div_ceil(2)];
        bytemuck::cast_slice_mut(&mut lines)[..p.len()].copy_from_slice(p);
        Bytes::new(lines).slice(0..4 * p.len())
    };
    Vector::from_parts(&parts.iter().map(aligned).collect::<Option<Vec<_>>>()?)
}

#[test]
fn a_file_gives_back_what_was_packed() {
    for (zeros, (k, n)) in [(0.5, (131, 97)), (0.95, (300, 33)), (0.4, (1, 1)), (1.0, (9, 3))] {
        let all = weights(k * n, zeros, 11);
        let v = Vector::new(&all, (k, n), Strides::rows(n));
        let back = loaded(&stored(&v)).expect("it is as it was");
        assert!(back.keeps(&[k, n]) && !back.keeps(&[k + 1, n]) && back.bytes() == v.bytes());
        let w = Matrix {
            w: &all,
            k,
            strides: Strides::rows(n),
        };
        let x = vec![0.5; 2 * k];
        assert_eq!(products(&back, w, &x, 2, 1).0, products(&v, w, &x, 2, 1).0);
    }
}

/// What must be refused, lest memory that is not there is read.
#[test]
fn a_file_is_not_believed() {
    type Damage = (&'static str, fn(&mut Vec<Vec<u32>>));
    let any: [Damage; 9] = [
        ("no parts", |p| p.clear()),
        ("no weights", |p| p.truncate(2)),
        ("no head", |p| p[0].clear()),
        ("half a number", |p| _ = p[0].pop()),
        ("more outputs", |p| p[0][2] += 16),
        ("a block too many", |p| p[0].extend([u32::MAX, 0])),
        ("a block of the other end of memory", |p| {
            *p[0].last_mut().unwrap() = u32::MAX
        }),
        ("a block that ends within a vector", |p| p[0][6] -= 1),
        ("another form", |p| p[0][4] ^= 1),
    ];
    let masks: [Damage; 3] = [
        ("more inputs", |p| p[0][0] += 64),
        ("inputs without end", |p| p[0][1] = u32::MAX),
        ("more bits", |p| p[1].fill(u32::MAX)),
    ];
    let steps: [Damage; 5] = [
        ("fewer inputs", |p| p[0][0] -= 1),
        ("more steps", |p| p[1][0] += 1 << 20),
        ("a group too many", |p| p[1].push(0)),
        ("fewer weights", |p| p[2].truncate(64)),
        ("far inputs", |p| p[3].fill(u32::MAX)),
    ];
    for (zeros, own) in [(0.2, &masks[..]), (0.9, &steps)] {
        let mut all = weights(300 * 700, zeros, 2);
        all[300 * 700 - 1] = 1.0;
        let good = stored(&Vector::new(&all, (300, 700), Strides::rows(700)));
        assert!(loaded(&good).is_some());
        for (what, damage) in any.iter().chain(own) {
            let mut bad = good.clone();
            damage(&mut bad);
            assert!(loaded(&bad).is_none(), "{zeros}: {what}");
        }
    }
}
