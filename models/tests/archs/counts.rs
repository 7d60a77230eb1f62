//! Parameters as the literature states them, shapes, and values in range.

use secateur_engine::ir::Type;

use super::*;

/// Checks that the first output has the shape `want` for a batch of 2, is finite, neither vanishes nor explodes, and depends on the
/// inputs.
fn sane(m: &Model, want: &[usize]) {
    let see = |seed| {
        let y = run(m, &inputs(m, 2, seed), &[]).swap_remove(0);
        assert_eq!(y.dims(), want);
        y.floats().unwrap()
    };
    let y = see(1);
    let mean = y.iter().sum::<f64>() / y.len() as f64;
    let std = (y.iter().map(|y| (y - mean).powi(2)).sum::<f64>() / y.len() as f64).sqrt();
    assert!(
        (0.05..20.0).contains(&std),
        "mean {mean}, standard deviation {std}"
    );
    assert_ne!(y, see(2));
    let declared = &m.graph.outputs[0].ty.as_ref().unwrap().ty;
    assert!(
        matches!(declared, Type::Tensor { shape: Some(s), .. } if s.len() == want.len()),
        "{declared}"
    );
}

/// Weights and biases of the three layers at the end of AlexNet and VGG.
fn layers([first, hidden, classes]: [usize; 3]) -> usize {
    (first + 1) * hidden + (hidden + 1) * hidden + (hidden + 1) * classes
}

#[test]
fn lenet_300_100() {
    let m = build("lenet-300-100", &[]);
    assert_eq!(parameters(&m), 266_610);
    sane(&m, &[2, 10]);
}

#[test]
fn layers_of_everything_have_many_parameters() {
    let m = build(
        "mlp",
        &[("features", "30000"), ("layers", "1"), ("hidden", "100")],
    );
    assert_eq!(weight(&m, "fc1.weight").len(), 3_000_000);
    let conv = small(
        "conv4",
        &[("height", "100"), ("width", "100"), ("filters", "100")],
    );
    assert_eq!(weight(&conv, "conv1.weight").len(), 2_700);
    assert_eq!(parameters(&build("linear", &[])), 2);
    let deep = build("highway", &[]);
    assert_eq!(parameters(&deep), 785 * 50 + 10 * 2 * 51 * 50 + 51 * 10);
    sane(&deep, &[2, 10]);
}

#[test]
fn lenet5() {
    let m = build("lenet5", &[]);
    assert_eq!(parameters(&m), 61_706);
    sane(&m, &[2, 10]);
}

#[test]
fn conv4() {
    let m = build("conv4", &[]);
    assert_eq!(parameters(&m), 106_538);
    sane(&m, &[2, 10]);
}

#[test]
fn alexnet() {
    let m = build("alexnet", &[("hidden", "100"), ("dropout", "0.5")]);
    let all = 61_100_840 - layers([9216, 4096, 1000]) + layers([9216, 100, 1000]);
    assert_eq!(parameters(&m), all);
    sane(&m, &[2, 1000]);
    let drops = |m: &Model| m.graph.iter().filter(|(_, n)| &*n.op == "Dropout").count();
    assert_eq!((drops(&m), drops(&small("alexnet", &[]))), (2, 0));
}

#[test]
fn vgg() {
    for (name, batchnorm, all) in [
        ("vgg11", "no", 132_863_336),
        ("vgg16", "no", 138_357_544),
        ("vgg16", "yes", 138_365_992),
    ] {
        let m = build(name, &[("hidden", "4"), ("batchnorm", batchnorm)]);
        let ends = layers([25_088, 4096, 1000]) - layers([25_088, 4, 1000]);
        assert_eq!(parameters(&m) + ends, all, "{name}");
    }
    sane(&small("vgg16", &[]), &[2, 3]);
}

#[test]
fn residual_networks() {
    let m = build("resnet20", &[]);
    assert_eq!(parameters(&m), 272_474);
    sane(&m, &[2, 10]);
    for block in ["bottleneck", "preactivation"] {
        sane(&small("resnet20", &[("block", block)]), &[2, 3]);
    }
    let standard = build("resnet50", &[("block", "standard")]);
    assert_eq!(parameters(&standard), 21_797_672);
}

#[test]
fn resnet50() {
    let m = build("resnet50", &[("height", "32"), ("width", "32")]);
    assert_eq!(parameters(&m), 25_557_032);
    sane(&m, &[2, 1000]);
}

#[test]
fn densenet() {
    let m = build("densenet", &[]);
    assert_eq!(parameters(&m), 1_019_722);
    sane(&small("densenet", &[]), &[2, 3]);
}

#[test]
fn mobilenetv2() {
    let m = build(
        "mobilenetv2",
        &[("height", "64"), ("width", "64"), ("classes", "10")],
    );
    assert_eq!(parameters(&m), 3_504_872 - 990 * 1281);
    sane(&m, &[2, 10]);
}

#[test]
fn two_branches() {
    let m = build("two-branch", &[]);
    let statistics = elements(&m, &["running_mean", "running_var"]);
    assert_eq!((parameters(&m) + statistics, statistics), (20_800, 256));
    sane(&m, &[2, 64, 64, 64]);
}

#[test]
fn recurrent() {
    let set = [
        ("features", "20"),
        ("hidden", "30"),
        ("length", "9"),
        ("vocabulary", "50"),
    ];
    for (name, gates) in [("rnn", 1), ("gru", 3), ("lstm", 4)] {
        let m = build(name, &set);
        let layer = gates * 30 * (20 + 30 + 2);
        assert_eq!(parameters(&m), 50 * 20 + layer + 62, "{name}");
        sane(&m, &[2, 2]);
    }
}

#[test]
fn transformers() {
    assert_eq!(parameters(&build("transformer-encoder", &[])), 478_474);
    sane(&build("transformer-encoder", &[]), &[2, 10]);
    let base = build(
        "transformer",
        &[("layers", "1"), ("vocabulary", "10"), ("length", "4")],
    );
    let (ends, encoder, decoder) = (2 * (10 + 4) * 512 + 513 * 10, 3_152_384, 4_204_032);
    assert_eq!(parameters(&base), ends + encoder + decoder);
    sane(&base, &[2, 4, 10]);
    let m = small("transformer-decoder", &[]);
    sane(&m, &[2, 6, 20]);
}

#[test]
fn vit() {
    let m = build("vit", &[("layers", "1")]);
    assert_eq!(parameters(&m) + 11 * 7_087_872, 86_567_656);
    sane(&small("vit", &[]), &[2, 3]);
}

#[test]
fn autoencoder() {
    let m = build("autoencoder", &[]);
    assert_eq!(parameters(&m), 785 * 32 + 33 * 784);
    sane(&m, &[2, 784]);
}

#[test]
fn settings_must_fit_together() {
    let refused = |name: &str, set: (&str, &str)| {
        let set = [(set.0.to_owned(), set.1.to_owned())];
        arch(name).unwrap().build(&set, 0).unwrap_err().to_string()
    };
    assert!(refused("bert-base", ("heads", "7")).contains("multiple of heads"));
    assert!(refused("bert-base", ("length", "600")).contains("positions"));
    assert!(refused("transformer", ("heads", "7")).contains("multiple of heads"));
    assert!(refused("vit", ("height", "225")).contains("multiple of patch"));
}

#[test]
fn the_seed_decides() {
    let write = |seed| {
        let m = arch("lenet5").unwrap().build(&[], seed).unwrap();
        weight(&m, "fc1.weight")
    };
    assert_eq!(write(1), write(1));
    assert_ne!(write(1), write(2));
}
