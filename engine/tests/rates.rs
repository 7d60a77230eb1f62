//! Kernels are chosen by what they are said to take, and can be forced.
#![allow(clippy::unwrap_used, reason = "tests end where they cannot go on")]

mod measure;

use std::collections::BTreeMap;
use std::sync::Arc;

use measure::{model, noise};
use secateur_engine::ir::Attr;
use secateur_engine::plan::{Plan, Rate, Rates, Scaling};
use secateur_engine::{Model, Session};

const IMAGE: [usize; 4] = [1, 16, 12, 12];

/// One convolution that several kernels can do.
fn convolution() -> Model {
    model(17, [&IMAGE], |[x]| {
        let w = x.tensor(noise(&[16, 16, 3, 3], 1));
        vec![x.with("Conv", &[w], vec![Attr::new("pads", vec![1i64; 4])])]
    })
}

fn planned(m: &Model, rates: Rates) -> (Session, Arc<Plan>) {
    let builder = Session::builder(m).threads(2).rates(Arc::new(rates));
    let session = builder.build().unwrap();
    let plan = session.plan(&[IMAGE.to_vec()]).unwrap();
    (session, plan)
}

fn chosen(plan: &Plan) -> &str {
    &plan.steps().iter().find(|s| s.op == "Conv").unwrap().kernel
}

/// The kernels that the convolution is offered.
fn offers(m: &Model) -> Vec<String> {
    let (_, plan) = planned(m, Rates::default());
    let step = plan.steps().iter().find(|s| s.op == "Conv").unwrap();
    assert!(step.offers.iter().all(|o| o.ms > 0.0 && o.moves_ms >= 0.0));
    step.offers.iter().map(|o| o.kernel.clone()).collect()
}

#[test]
fn a_forced_kernel_runs_and_agrees() {
    let m = convolution();
    let x = noise(&IMAGE, 2);
    let reference = Session::builder(&m).reference().build().unwrap();
    let want = reference.run([("x0", &x)]).unwrap()[0].floats().unwrap();
    let names = offers(&m);
    assert!(names.len() > 2, "{names:?}");
    for name in names {
        let (session, plan) = planned(&m, Rates::default().force(&*name));
        assert_eq!(chosen(&plan), name);
        let got = session.run([("x0", &x)]).unwrap()[0].floats().unwrap();
        let off = got.iter().zip(&want).map(|(a, b)| (a - b).abs());
        assert!(off.fold(0.0, f64::max) < 1e-3, "{name}");
    }
}

#[test]
fn the_cheapest_is_chosen_by_what_was_measured() {
    let m = convolution();
    let names = offers(&m);
    // Its weights have no zeros.
    for cheap in names.iter().filter(|n| !n.contains("sparse")) {
        let rate = |name: &String| Rate {
            fixed_us: if name == cheap { 1.0 } else { 1e6 },
            ..Rate::default()
        };
        let both = |name: &String| Scaling {
            one: rate(name),
            all: rate(name),
        };
        let kernels: BTreeMap<_, _> = names.iter().map(|n| (n.clone(), both(n))).collect();
        let (_, plan) = planned(&m, Rates::new(2, kernels));
        assert_eq!(chosen(&plan), cheap);
        let step = plan.steps().iter().find(|s| s.op == "Conv").unwrap();
        assert_eq!(step.ms, 1e-3);
    }
}
