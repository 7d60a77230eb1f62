//! Branches run side by side, and make the same as one after the other.
#![allow(clippy::unwrap_used, reason = "tests end where they cannot go on")]

mod measure;

use std::collections::BTreeMap;
use std::sync::Arc;

use measure::{model, noise};
use secateur_engine::expr::Ex;
use secateur_engine::ir::Attr;
use secateur_engine::plan::{Rate, Rates, Scaling};
use secateur_engine::{Model, Session};

fn conv(x: Ex<'_>, size: usize, seed: u64) -> Ex<'_> {
    let w = x.tensor(noise(&[16, 16, size, size], seed));
    let pad = vec![(size / 2) as i64; 4];
    x.with("Conv", &[w], vec![Attr::new("pads", pad)]).op("Relu", &[])
}

/// Four branches of convolutions and sums that are put together, again and again.
fn branches() -> Model {
    model(17, [&[1, 16, 9, 7]], |[x]| {
        let mut y = x;
        for block in 0..3 {
            let a = conv(y, 1, block * 10 + 1);
            let b = conv(conv(y, 1, block * 10 + 2), 3, block * 10 + 3);
            let c = conv(conv(y, 3, block * 10 + 4), 3, block * 10 + 5).op("Sigmoid", &[]) * y;
            let d = conv(y.op("Exp", &[]).op("Tanh", &[]), 1, block * 10 + 6);
            y = (a + b * 0.1) + (c + d) * 0.25;
        }
        vec![y]
    })
}

/// Rates of a machine on which more threads do not help any kernel of `m`.
fn slow(m: &Model) -> Arc<Rates> {
    let session = Session::builder(m).threads(2).build().unwrap();
    let plan = session.plan(&[vec![1, 16, 9, 7]]).unwrap();
    let fixed = Rate {
        fixed_us: 50.0,
        ..Rate::default()
    };
    let both = Scaling {
        one: fixed,
        all: fixed,
    };
    let kernels: BTreeMap<_, _> = plan.steps().iter().map(|s| (s.kernel.clone(), both)).collect();
    Arc::new(Rates::new(2, kernels))
}

#[test]
fn branches_make_the_same_side_by_side() {
    let m = branches();
    let rates = slow(&m);
    let x = noise(&[1, 16, 9, 7], 99);
    let run = |threads, rates: &Arc<Rates>| {
        let builder = Session::builder(&m).threads(threads).rates(rates.clone());
        let session = builder.build().unwrap();
        let plan = session.plan(&[vec![1, 16, 9, 7]]).unwrap();
        let outputs: Vec<_> = (0..50)
            .map(|_| session.run([("x0", &x)]).unwrap()[0].bytes().to_vec())
            .collect();
        assert!(outputs.iter().all(|y| *y == outputs[0]));
        (plan.forks().count(), outputs[0].clone())
    };
    let (none, alone) = run(1, &rates);
    let (forks, together) = run(2, &rates);
    assert_eq!(none, 0);
    assert!(forks >= 3, "{forks} forks");
    assert!(alone == together);
    // Steps that are fast enough are not worth it.
    assert_eq!(run(2, &Arc::default()).0, 0);
}
