//! Models that ask for more than there is.

use secateur::engine::onnx::to_bytes;

use super::*;

#[path = "../../engine/tests/greedy/mod.rs"]
#[allow(dead_code, reason = "the engine's tests run all of it")]
mod greedy;

#[test]
fn greedy_models_are_refused_under_a_bound() {
    let folder = Folder::new("greedy");
    let run = |case: &(secateur::Model, greedy::Feeds), parts: &[&str]| {
        let file = folder.write("greedy.onnx", &to_bytes(&case.0));
        let said = refused(&["run", &file, "--max-memory", "64M", "-q"]);
        for part in parts {
            assert!(said.contains(part), "{parts:?}: {said}");
        }
    };
    for asking in greedy::asking() {
        run(&greedy::alone(&asking, true), &[asking.0]);
    }
    run(&greedy::piling(), &["the_Loop", "bytes"]);
    run(&greedy::endless(), &["the_Loop", "never ends"]);
    run(&greedy::loops::outside(None), &["the_Loop", "never ends"]);
    run(&greedy::loops::stacking(), &["the_Loop", "bytes"]);
    run(&greedy::functions(3, true), &["circle"]);
    run(&greedy::selfish(), &["v1"]);
    run(&greedy::twice(), &["twice"]);
}

#[test]
fn the_bound_has_units() {
    done(&["run", DIGITS, "--max-memory", "64MiB", "-q"]);
    assert!(refused(&["run", DIGITS, "--max-memory", "1K"]).contains("bytes"));
    assert!(refused(&["run", DIGITS, "--max-memory", "plenty"]).contains("not a size"));
}

#[test]
fn inputs_that_are_made_up_keep_to_the_bound() {
    let said = refused(&["run", DIGITS, "-s", "batch=99999999999", "-q"]);
    assert!(said.contains("bytes to make"), "{said}");
}
