//! Each method of each set against its meaning for one lane.

use super::Simd;
use crate::dispatch::{Vectorised, each_isa};

const ODD: [f32; 30] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    0.49999997,
    -0.7,
    1.5,
    2.5,
    -2.5,
    1.1754942e-38, // the greatest denormal
    -1e-40,
    1e-45,
    -1e-45,
    f32::MIN_POSITIVE,
    8388607.5,
    -8388607.5,
    8388608.0,
    8388609.0,
    -16777216.0,
    1e9,
    -1e9,
    1e19,
    -1e30,
    f32::MAX,
    f32::MIN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
];

const ODD_INTEGERS: [i32; 12] = [
    0,
    1,
    -1,
    2,
    255,
    -256,
    8388607,
    16777217,
    -16777219,
    0x5555_5555,
    i32::MAX,
    i32::MIN,
];

/// Every pair `(x, y)` as two columns, of a length that every number of lanes divides.
fn pairs<T: Copy>(of: &[T]) -> (Vec<T>, Vec<T>) {
    let mut pairs: Vec<_> = of.iter().flat_map(|&x| of.iter().map(move |&y| (x, y))).collect();
    pairs.resize(pairs.len().next_multiple_of(16), pairs[0]);
    pairs.into_iter().unzip()
}

#[track_caller]
fn assert_same(isa: &str, what: &str, of: &dyn std::fmt::Debug, got: f32, want: f32) {
    let same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
    assert!(same, "{isa}: {what}{of:?} = {got:e}, not {want:e}");
}

/// `f` on all lanes of `x` and `y`.
fn zip<S: Simd>(s: S, x: &[f32], y: &[f32], f: impl Fn(S::F32, S::F32) -> S::F32) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    for i in (0..x.len()).step_by(S::LANES) {
        assert!(i + S::LANES <= x.len().min(y.len()));
        // SAFETY: just asserted.
        unsafe {
            let v = f(s.load(x.as_ptr().add(i)), s.load(y.as_ptr().add(i)));
            s.store(out.as_mut_ptr().add(i), v);
        }
    }
    out
}

#[derive(Clone)]
struct Floats {
    x: Vec<f32>,
    y: Vec<f32>,
}

type Meaning = (&'static str, fn(f32, f32) -> f32);

const FLOATS: [Meaning; 14] = [
    ("add", |a, b| a + b),
    ("sub", |a, b| a - b),
    ("mul", |a, b| a * b),
    ("div", |a, b| a / b),
    ("min", |a, b| if a < b { a } else { b }),
    ("max", |a, b| if a > b { a } else { b }),
    ("abs", |a, _| f32::from_bits(a.to_bits() & 0x7fff_ffff)),
    ("neg", |a, _| -a),
    ("sqrt", |a, _| a.sqrt()),
    ("round", |a, _| a.round_ties_even()),
    ("floor", |a, _| a.floor()),
    ("lt", |a, b| f32::from(a < b)),
    ("eq", |a, b| f32::from(a == b)),
    ("splat", |_, _| 3.5),
];

impl Vectorised for Floats {
    type Out = [Vec<f32>; FLOATS.len()];

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Out {
        let (x, y) = (&self.x[..], &self.y[..]);
        let truth = |m| s.select(m, s.splat(1.0), s.splat(0.0));
        [
            zip(s, x, y, |a, b| s.add(a, b)),
            zip(s, x, y, |a, b| s.sub(a, b)),
            zip(s, x, y, |a, b| s.mul(a, b)),
            zip(s, x, y, |a, b| s.div(a, b)),
            zip(s, x, y, |a, b| s.min(a, b)),
            zip(s, x, y, |a, b| s.max(a, b)),
            zip(s, x, y, |a, _| s.abs(a)),
            zip(s, x, y, |a, _| s.neg(a)),
            zip(s, x, y, |a, _| s.sqrt(a)),
            zip(s, x, y, |a, _| s.round(a)),
            zip(s, x, y, |a, _| s.floor(a)),
            zip(s, x, y, |a, b| truth(s.lt(a, b))),
            zip(s, x, y, |a, b| truth(s.eq(a, b))),
            zip(s, x, y, |_, _| s.splat(3.5)),
        ]
    }
}

#[test]
fn float_methods_mean_what_they_say() {
    let (x, y) = pairs(&ODD);
    each_isa(
        Floats {
            x: x.clone(),
            y: y.clone(),
        },
        |isa, out| {
            for ((name, meaning), out) in FLOATS.iter().zip(&out) {
                for ((&a, &b), &got) in x.iter().zip(&y).zip(out) {
                    assert_same(isa, name, &(a, b), got, meaning(a, b));
                }
            }
        },
    );
}

#[derive(Clone)]
struct Fma {
    x: Vec<f32>,
    y: Vec<f32>,
    z: f32,
}

impl Vectorised for Fma {
    type Out = Vec<f32>;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<f32> {
        zip(s, &self.x, &self.y, |a, b| s.fma(a, b, s.splat(self.z)))
    }
}

#[test]
fn fma_rounds_once_where_it_is_fused() {
    let mut of = ODD.to_vec();
    of.extend([1.0000001, 0.99999994, 3e-20]);
    let (x, y) = pairs(&of);
    for z in of {
        each_isa(
            Fma {
                x: x.clone(),
                y: y.clone(),
                z,
            },
            |isa, out| {
                for ((&a, &b), got) in x.iter().zip(&y).zip(out) {
                    let want = if isa == "scalar" {
                        a * b + z
                    } else {
                        a.mul_add(b, z)
                    };
                    assert_same(isa, "fma", &(a, b, z), got, want);
                }
            },
        );
    }
}

#[derive(Clone)]
struct Integers {
    x: Vec<i32>,
    y: Vec<i32>,
}

type IntegerMeaning = (&'static str, fn(i32, i32) -> i32);

const INTEGERS: [IntegerMeaning; 12] = [
    ("add", i32::wrapping_add),
    ("sub", i32::wrapping_sub),
    ("and", |a, b| a & b),
    ("or", |a, b| a | b),
    ("shl 1", |a, _| a << 1),
    ("shl 23", |a, _| a << 23),
    ("shl 31", |a, _| a << 31),
    ("shr 1", |a, _| a >> 1),
    ("shr 23", |a, _| a >> 23),
    ("shr 31", |a, _| a >> 31),
    ("splat", |_, _| -7),
    ("to_f32", |a, _| (a as f32).to_bits().cast_signed()),
];

impl Vectorised for Integers {
    type Out = [Vec<i32>; INTEGERS.len()];

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Out {
        let floats = |v: &[i32]| {
            v.iter()
                .map(|x| f32::from_bits(x.cast_unsigned()))
                .collect::<Vec<_>>()
        };
        let (x, y) = (&floats(&self.x), &floats(&self.y));
        let (i, f) = (|v| s.bits(v), |v| s.from_bits(v));
        [
            zip(s, x, y, |a, b| f(s.add_i32(i(a), i(b)))),
            zip(s, x, y, |a, b| f(s.sub_i32(i(a), i(b)))),
            zip(s, x, y, |a, b| f(s.and_i32(i(a), i(b)))),
            zip(s, x, y, |a, b| f(s.or_i32(i(a), i(b)))),
            zip(s, x, y, |a, _| f(s.shl_i32::<1>(i(a)))),
            zip(s, x, y, |a, _| f(s.shl_i32::<23>(i(a)))),
            zip(s, x, y, |a, _| f(s.shl_i32::<31>(i(a)))),
            zip(s, x, y, |a, _| f(s.shr_i32::<1>(i(a)))),
            zip(s, x, y, |a, _| f(s.shr_i32::<23>(i(a)))),
            zip(s, x, y, |a, _| f(s.shr_i32::<31>(i(a)))),
            zip(s, x, y, |_, _| f(s.splat_i32(-7))),
            zip(s, x, y, |a, _| s.to_f32(i(a))),
        ]
        .map(|out| out.into_iter().map(|x| x.to_bits().cast_signed()).collect())
    }
}

#[test]
fn integer_methods_mean_what_they_say() {
    let (x, y) = pairs(&ODD_INTEGERS);
    each_isa(
        Integers {
            x: x.clone(),
            y: y.clone(),
        },
        |isa, out| {
            for ((name, meaning), out) in INTEGERS.iter().zip(&out) {
                for ((&a, &b), &got) in x.iter().zip(&y).zip(out) {
                    assert_eq!(got, meaning(a, b), "{isa}: {name} ({a}, {b})");
                }
            }
        },
    );
}

#[derive(Clone)]
struct ToI32(Vec<f32>);

impl Vectorised for ToI32 {
    type Out = Vec<f32>;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<f32> {
        zip(s, &self.0, &self.0, |a, _| s.from_bits(s.to_i32(a)))
    }
}

#[test]
fn to_i32_is_nearest_with_ties_to_even() {
    let mut x: Vec<_> = ODD.into_iter().filter(|x| x.abs() < 2147483648.0).collect();
    x.extend([2147483520.0, 0.50000006, -3.5, -4.5]);
    x.resize(x.len().next_multiple_of(16), -2147483648.0);
    each_isa(ToI32(x.clone()), |isa, out| {
        for (x, got) in x.iter().zip(out) {
            assert_eq!(
                got.to_bits().cast_signed(),
                x.round_ties_even() as i32,
                "{isa}: {x}"
            );
        }
    });
}

/// The sum and the greatest of one vector, which `lane` makes of each lane's index.
#[derive(Clone)]
struct Reduce(fn(usize) -> f32);

impl Vectorised for Reduce {
    type Out = (f32, f32, usize);

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Out {
        let lanes: Vec<_> = (0..S::LANES).map(self.0).collect();
        // SAFETY: there are `LANES`.
        let v = unsafe { s.load(lanes.as_ptr()) };
        (s.sum(v), s.greatest(v), S::LANES)
    }
}

#[test]
fn reductions_take_in_every_lane() {
    each_isa(Reduce(|i| (1 << i) as f32), |isa, (sum, greatest, lanes)| {
        assert_eq!(sum, ((1 << lanes) - 1) as f32, "{isa}");
        assert_eq!(greatest, (1 << (lanes - 1)) as f32, "{isa}");
    });
    each_isa(Reduce(|i| -(i as f32) - 2.0), |isa, (_, greatest, _)| {
        assert_eq!(greatest, -2.0, "{isa}")
    });
    each_isa(Reduce(|_| f32::NEG_INFINITY), |isa, (sum, greatest, _)| {
        assert_eq!((sum, greatest), (f32::NEG_INFINITY, f32::NEG_INFINITY), "{isa}");
    });
    each_isa(
        Reduce(|i| if i == 2 { f32::NAN } else { 1.0 }),
        |isa, (sum, _, _)| {
            assert!(sum.is_nan(), "{isa}");
        },
    );
}

/// Both halves of 0, 1, 2 … and 100, 101, 102 … in turn.
#[derive(Clone)]
struct Zip;

impl Vectorised for Zip {
    type Out = (Vec<f32>, usize);

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Out {
        let lanes = |from: usize| -> Vec<f32> { (0..S::LANES).map(|i| (from + i) as f32).collect() };
        let mut out = vec![0.0; 2 * S::LANES];
        // SAFETY: there are `LANES` of each, and of both in `out`.
        unsafe {
            let (a, b) = (s.load(lanes(0).as_ptr()), s.load(lanes(100).as_ptr()));
            s.store(out.as_mut_ptr(), s.zip_first(a, b));
            s.store(out.as_mut_ptr().add(S::LANES), s.zip_last(a, b));
        }
        (out, S::LANES)
    }
}

#[test]
fn lanes_are_taken_in_turn() {
    each_isa(Zip, |isa, (out, lanes)| {
        let want = (0..lanes).flat_map(|i| [i as f32, (100 + i) as f32]);
        assert!(out.iter().copied().eq(want), "{isa}: {out:?}");
    });
}

/// Loads `n` lanes and stores them, both between guards, for each `n`; what the store left and what the load gave.
#[derive(Clone)]
struct Partial;

const GUARD: f32 = -77.0;

impl Vectorised for Partial {
    type Out = Vec<(Vec<f32>, Vec<f32>)>;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Out {
        (0..=S::LANES)
            .map(|n| {
                let mut from = vec![GUARD; S::LANES + 2];
                from[1..=n].fill(1.0);
                let mut stored = vec![GUARD; S::LANES + 2];
                let mut loaded = vec![f32::NAN; S::LANES];
                // SAFETY: one guard and `LANES` other floats follow the first, `n <= LANES`.
                unsafe {
                    let v = s.load_first(from.as_ptr().add(1), n);
                    s.store(loaded.as_mut_ptr(), v);
                    s.store_first(stored.as_mut_ptr().add(1), n, s.add(v, s.splat(1.0)));
                }
                (stored, loaded)
            })
            .collect()
    }
}

#[test]
fn partial_loads_and_stores_keep_to_their_lanes() {
    each_isa(Partial, |isa, out| {
        for (n, (stored, loaded)) in out.into_iter().enumerate() {
            for (i, x) in loaded.into_iter().enumerate() {
                assert_eq!(
                    x,
                    if i < n { 1.0 } else { 0.0 },
                    "{isa}: load_first of {n}, lane {i}"
                );
            }
            for (i, x) in stored.into_iter().enumerate() {
                let want = if (1..=n).contains(&i) { 2.0 } else { GUARD };
                assert_eq!(x, want, "{isa}: store_first of {n}, lane {i} - 1");
            }
        }
    });
}

/// What must not fault: no lanes, and prefetches, at an address where nothing is mapped.
#[derive(Clone)]
struct Nowhere;

impl Vectorised for Nowhere {
    type Out = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let nowhere = std::ptr::NonNull::<f32>::dangling().as_ptr();
        s.prefetch(nowhere);
        s.prefetch(std::ptr::null());
        s.prefetch_near(nowhere);
        s.prefetch_near(std::ptr::null());
        // SAFETY: no lanes are asked for.
        unsafe {
            s.store_first(nowhere, 0, s.splat(1.0));
            s.sum(s.load_first(nowhere, 0))
        }
    }
}

#[test]
fn no_lanes_touch_no_memory() {
    each_isa(Nowhere, |isa, sum| assert_eq!(sum, 0.0, "{isa}"));
}

/// Products of pairs, as the lanes' memory.
#[derive(Clone)]
struct Pairs {
    a: i32,
    b: Vec<i8>,
}

impl Vectorised for Pairs {
    type Out = Vec<i32>;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<i32> {
        let mut out = vec![0f32; S::LANES];
        // SAFETY: both have at least `LANES` lanes.
        unsafe {
            let b = s.load_pairs(self.b.as_ptr());
            let sums = s.dot_pairs(s.splat_i32(1), s.splat_i32(self.a), b);
            s.store(out.as_mut_ptr(), s.from_bits(sums));
        }
        out.into_iter().map(|x| x.to_bits().cast_signed()).collect()
    }
}

#[test]
fn pairs_of_halves_are_multiplied_and_added() {
    let b: Vec<i8> = (0..64).map(|i| (i * 37 - 128) as u8 as i8).collect();
    for (low, high) in [(1i16, -1i16), (255, -255), (i16::MAX, i16::MIN), (-3, 0)] {
        let a = i32::from(low) & 0xffff | i32::from(high) << 16;
        each_isa(Pairs { a, b: b.clone() }, |isa, out| {
            for (i, x) in out.into_iter().enumerate() {
                let want =
                    1 + i32::from(low) * i32::from(b[2 * i]) + i32::from(high) * i32::from(b[2 * i + 1]);
                assert_eq!(x, want, "{isa}: lane {i}");
            }
        });
    }
}

/// Floats brought into the lanes of each set of bits, and ones selected by it; bits from `LANES` on are all set.
#[derive(Clone)]
struct Expand;

impl Vectorised for Expand {
    type Out = (Vec<[Vec<f32>; 2]>, usize);

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Out {
        let from: Vec<f32> = (1..=S::LANES).map(|i| i as f32).collect();
        let all = (0..1u32 << S::LANES).map(|bits| {
            let bits = bits | u32::MAX << S::LANES;
            let mut out = [vec![GUARD; S::LANES], vec![GUARD; S::LANES]];
            // SAFETY: there are `LANES` floats of each.
            unsafe {
                s.store(out[0].as_mut_ptr(), s.expand(from.as_ptr(), bits));
                let ones = s.select(s.mask(bits), s.splat(1.0), s.splat(0.0));
                s.store(out[1].as_mut_ptr(), ones);
            }
            out
        });
        (all.collect(), S::LANES)
    }
}

#[test]
fn floats_expand_to_the_lanes_of_bits() {
    each_isa(Expand, |isa, (out, lanes)| {
        for (bits, [expanded, ones]) in out.into_iter().enumerate() {
            let mut next = 0.0;
            for lane in 0..lanes {
                let there = f32::from(bits >> lane & 1 == 1);
                next += there;
                let want = (next * there, there);
                assert_eq!((expanded[lane], ones[lane]), want, "{isa}: {bits:b}, lane {lane}");
            }
        }
    });
}

/// Floats at places far apart, without those whose lanes are a multiple of 3, which are nowhere.
#[derive(Clone)]
struct Gather;

impl Vectorised for Gather {
    type Out = Vec<f32>;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<f32> {
        let from: Vec<f32> = (0..256).map(|i| i as f32).collect();
        let index: Vec<u8> = (0..S::LANES).map(|lane| (255 - 13 * lane) as u8).collect();
        let mut out = vec![GUARD; S::LANES];
        // SAFETY: every byte is the place of a float; nothing is read where all is skipped.
        unsafe {
            let some = s.gather(from.as_ptr(), index.as_ptr(), s.mask(0b1001_0010_0100_1001));
            let none = s.gather(std::ptr::dangling(), index.as_ptr(), s.mask(u32::MAX));
            s.store(out.as_mut_ptr(), s.add(some, none));
        }
        out
    }
}

#[test]
fn gathered_floats_are_where_bytes_say() {
    each_isa(Gather, |isa, out| {
        for (lane, x) in out.into_iter().enumerate() {
            let want = if lane % 3 == 0 {
                0.0
            } else {
                (255 - 13 * lane) as f32
            };
            assert_eq!(x, want, "{isa}: lane {lane}");
        }
    });
}

#[derive(Clone, Copy)]
struct Turn;

impl Vectorised for Turn {
    type Out = (Vec<Vec<f32>>, Vec<Vec<f32>>);
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Out {
        let x: Vec<f32> = (0..16 * 19).map(|i| i as f32).collect();
        let rows = std::array::from_fn(|r| x[r * 19..].as_ptr());
        let written = |all: [S::F32; 16]| {
            let mut out = vec![vec![0f32; S::LANES]; S::LANES];
            for (out, v) in out.iter_mut().zip(all) {
                // SAFETY: it has as many floats.
                unsafe { s.store(out.as_mut_ptr(), v) };
            }
            out
        };
        // SAFETY: each row has 16 floats.
        let loaded = unsafe { s.load_turned(&rows) };
        // SAFETY: as above.
        let given = std::array::from_fn(|r| unsafe { s.load(rows[r]) });
        (written(loaded), written(s.turned(given)))
    }
}

#[test]
fn squares_are_turned() {
    each_isa(Turn, |isa, (loaded, turned)| {
        for (c, vector) in loaded.iter().enumerate() {
            for (r, &x) in vector.iter().enumerate() {
                assert_eq!(x, (r * 19 + c) as f32, "{isa}: {r}, {c}");
            }
        }
        assert_eq!(loaded, turned, "{isa}");
    });
}
