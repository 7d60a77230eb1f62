//! `secateur explain`.

use secateur::engine::ir::{DType, Model, Node, Opset, Type};
use secateur::engine::onnx;

use super::*;

#[test]
fn every_node_has_a_kernel_and_every_rewrite_a_verdict() {
    let v = done(&["explain", DIGITS]);
    let nodes = v["nodes"].as_array().unwrap();
    assert!(!nodes.is_empty());
    for n in nodes {
        for key in ["name", "op", "kernel", "reason"] {
            assert!(n[key].is_string(), "{key}: {n}");
        }
        assert!(n["measured_ms"].as_f64().is_some_and(|ms| ms >= 0.0), "{n}");
        assert!(n["predicted_ms"].as_f64().is_some_and(|ms| ms >= 0.0), "{n}");
        let offers = n["offers"].as_array().unwrap();
        let own = offers.iter().find(|o| o["kernel"] == n["kernel"]);
        assert_eq!(own.is_some(), n["op"] != "Reorder", "{n}");
        if let Some(own) = own {
            assert_eq!(own["predicted_ms"], n["predicted_ms"]);
            assert!(own["moves_ms"].as_f64() >= Some(0.0), "{n}");
        }
        assert!(
            n["zeros"].is_null() || n["zeros"].as_f64().is_some_and(|z| (0.0..=1.0).contains(&z)),
            "{n}"
        );
    }
    for key in ["predicted_ms", "measured_ms", "median_error"] {
        assert!(v[key].as_f64() > Some(0.0), "{key}: {v}");
    }
    assert_eq!(v["rates"], "built-in");
    let said = secateur(&["explain", DIGITS]).out;
    assert!(
        said.contains("median error of a step") && said.contains("built-in rates"),
        "{said}"
    );
    let rules = v["rules"].as_array().unwrap();
    let fired = |name: &str| {
        rules
            .iter()
            .find(|r| r["name"] == name)
            .and_then(|r| r["fired"].as_u64())
    };
    assert!(fired("activation") > Some(0), "{v}");
    assert_eq!(fired("attention"), Some(0));
    for r in rules {
        let refused = r["refused"].as_array().unwrap();
        assert!(
            refused
                .iter()
                .all(|r| r["node"].is_string() && r["why"].is_string()),
            "{r}"
        );
        let silent = r["fired"] == 0 && refused.is_empty();
        assert_eq!(silent, r["why"].is_string(), "{r}");
    }
}

#[test]
fn what_becomes_of_zeros_is_said() {
    let folder = Folder::new("explain");
    let pruned = folder.file("pruned.onnx");
    done(&["prune", DIGITS, &pruned, "--sparsity", "0.9"]);
    let v = done(&["explain", &pruned]);
    let nodes = v["nodes"].as_array().unwrap();
    let sparse: Vec<_> = nodes.iter().filter(|n| n["zeros"].as_f64() > Some(0.5)).collect();
    assert!(!sparse.is_empty(), "{v}");
    assert!(sparse.iter().all(|n| n["reason"] != ""), "{sparse:?}");
    let offered: Vec<_> = sparse
        .iter()
        .filter(|n| n["sparse"]["predicted_ms"].is_number())
        .collect();
    assert!(!offered.is_empty(), "{sparse:?}");
    for n in offered {
        assert_eq!(n["pattern"], "unstructured", "{n}");
        for kind in ["dense", "sparse"] {
            assert!(
                n[kind]["predicted_ms"].is_number() && n[kind]["measured_ms"].is_number(),
                "{n}"
            );
        }
        // What is predicted to be cheaper is what runs.
        let even = n["break_even"].as_f64().unwrap_or(2.0);
        let runs = n["kernel"].as_str().unwrap().contains(".sparse");
        assert_eq!(runs, n["zeros"].as_f64().unwrap() >= even, "{n}");
    }
}

#[test]
fn copies_say_why_and_nodes_without_names_are_told_apart() {
    let folder = Folder::new("copies");
    let file = folder.file("lenet5.onnx");
    done(&["new", "lenet5", &file]);
    let v = done(&["explain", &file]);
    let nodes = v["nodes"].as_array().unwrap();
    let copies: Vec<_> = nodes.iter().filter(|n| n["op"] == "Reorder").collect();
    assert!(!copies.is_empty(), "{v}");
    assert!(
        copies
            .iter()
            .all(|n| n["reason"].as_str().unwrap().contains("wants"))
    );
    let others = nodes.iter().filter(|n| n["op"] != "Reorder");
    for n in others {
        let weights = n["zeros"].is_number();
        let reason = n["reason"].as_str().unwrap();
        assert_eq!(weights, reason.contains("zeros"), "{n}");
    }
}

#[test]
fn nodes_that_no_plan_holds_say_why() {
    let opset = Opset {
        domain: None,
        version: Some(17),
        extra: Default::default(),
    };
    let mut model = Model {
        ir_version: Some(8),
        opsets: vec![opset],
        ..Model::default()
    };
    let g = &mut model.graph;
    g.name = Some("places".into());
    // Small inputs would be known to the next plan.
    let x = g.input("x", Type::tensor(DType::F32, [40usize, 40]));
    let y = g.value("y");
    g.node(Node::new("NonZero", vec![Some(x)], vec![Some(y)]));
    g.output(y, None);
    let folder = Folder::new("explain-alone");
    let path = folder.write("places.onnx", &onnx::to_bytes(&model));
    let v = done(&["explain", &path]);
    assert_eq!(v["nodes"][0]["kernel"], "alone", "{v}");
    assert_eq!(v["nodes"][0]["reason"], "its shapes depend on values");
}

#[test]
fn what_is_no_model_is_refused() {
    refused(&["explain", "nothing.onnx"]);
}
