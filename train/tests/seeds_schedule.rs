//! Rows F22 to F27 and F37 of the founding documents: how the rate goes, and when to stop.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should end there")]

use secateur_train::schedule::{Patience, SCHEDULES, Schedule};

fn of(text: &str) -> Schedule {
    text.parse().unwrap()
}

#[track_caller]
fn near(a: f64, b: f64) {
    assert!((a - b).abs() <= 3e-5 * b.abs(), "{a}, expected {b}");
}

#[test]
fn f22_warm_up_then_steps_down() {
    let s = of("constant:1,0.1+multi-step:29,59,0.1");
    let rates = [
        (0.0, 0.01),
        (1.0, 0.1),
        (29.0, 0.1),
        (30.0, 0.01),
        (59.0, 0.01),
        (60.0, 0.001),
    ];
    rates.into_iter().for_each(|(t, rate)| near(s.rate(0.1, t), rate));
}

#[test]
fn f23_the_inverse_root_is_largest_where_warm_up_ends() {
    let (s, base) = (of("inverse-sqrt:4000"), (512f64 * 4000.0).powf(-0.5));
    let rate = |step: f64| s.rate(base, step - 1.0);
    near(rate(1.0), 1.7469e-7);
    near(rate(2000.0), 3.4939e-4);
    near(rate(4000.0), 6.9877e-4);
    near(rate(16000.0), 3.4939e-4);
    assert!((1..20_000).all(|i| rate(i.into()) <= rate(4000.0)));
}

#[test]
fn f24_exponential() {
    near(of("exponential:0.95").rate(1.0, 10.0), 0.598737);
}

#[test]
fn f25_cosine() {
    let s = of("cosine:100,1e-6");
    let rates = [
        (0.0, 0.1),
        (25.0, 0.0853555),
        (50.0, 0.0500005),
        (75.0, 0.0146455),
        (100.0, 1e-6),
        (150.0, 1e-6),
    ];
    rates.into_iter().for_each(|(t, rate)| near(s.rate(0.1, t), rate));
}

#[test]
fn f26_a_plateau_lowers_the_rate_and_is_kept_in_files() {
    let mut s = of("plateau:10,0.1");
    s.observe(1.0);
    (0..10).for_each(|_| s.observe(1.0));
    near(s.rate(0.1, 11.0), 0.1);
    let text = serde_json::to_string(&s).unwrap();
    let mut s: Schedule = serde_json::from_str(&text).unwrap();
    s.observe(f64::NAN);
    near(s.rate(0.1, 12.0), 0.01);
    // An improvement begins the count anew.
    (0..10).for_each(|_| s.observe(1.0));
    s.observe(0.5);
    (0..10).for_each(|_| s.observe(0.5));
    near(s.rate(0.1, 40.0), 0.01);
    s.observe(0.6);
    near(s.rate(0.1, 41.0), 0.001);
}

#[test]
fn f27_every_rate_is_positive_and_finite() {
    let all = [
        "constant",
        "cosine:100",
        "exponential:0.1",
        "inverse-sqrt:10",
        "multi-step:3,5,0.01",
        "plateau:0,0.1",
        "step:3,0.1",
        "warmup:5",
    ];
    assert!(SCHEDULES.is_sorted_by(|a, b| a.0 < b.0));
    for ((name, _), text) in SCHEDULES.iter().zip(all) {
        assert!(text.starts_with(name), "{name}, {text}");
        let mut s = of(text);
        for t in 0..2000 {
            let rate = s.rate(0.1, t.into()) as f32;
            assert!(rate > 0.0 && rate <= 0.1, "{text} at {t}: {rate}");
            s.observe(1.0);
        }
    }
}

#[test]
fn phases_follow_each_other() {
    let s = of("warmup:5+cosine:90");
    let rates: Vec<f64> = (0..=95).map(|t| s.rate(1.0, t.into())).collect();
    assert!(rates[0] > 0.0 && rates[..6].is_sorted() && rates[5] == 1.0);
    assert!(rates[5..].is_sorted_by(|a, b| a > b));
    near(rates[95], 1e-3);
    near(of("step:30,0.1").rate(1.0, 59.9), 0.1);
    near(of("step:30,0.1").rate(1.0, 60.0), 0.01);
    assert_eq!(s.to_string(), "warmup:5+cosine:90");
}

#[test]
fn what_is_wrong_with_a_schedule_is_said() {
    let wrong = [
        ("cosin:100", "did you mean \"cosine\"?"),
        ("cosine", "expected cosine:length"),
        ("cosine:0", "more than 0"),
        ("step:30", "expected step:every,factor"),
        ("step:30,2", "the factor is 2"),
        ("step:a,0.1", "\"a\" is no number"),
        ("step:30,0.1+cosine:3", "must be the last"),
        ("plateau:1.5", "whole number"),
        ("exponential:nan", "the factor is NaN"),
    ];
    for (text, part) in wrong {
        let e = text.parse::<Schedule>().unwrap_err();
        assert!(e.contains(part), "{text}: {e}");
    }
}

#[test]
fn f37_early_stopping_keeps_the_best_epoch() {
    let (mut watch, mut best, mut stopped) = (Patience::default(), 0, 0);
    for (epoch, loss) in (1..).zip([3.0, 2.0, 1.0, 1.5, 1.6, 0.1]) {
        if watch.observe(loss) {
            best = epoch;
        }
        if watch.waited >= 2 {
            stopped = epoch;
            break;
        }
    }
    assert_eq!((best, stopped, watch.best), (3, 5, Some(1.0)));
}
