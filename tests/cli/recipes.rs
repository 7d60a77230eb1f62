//! What a recipe holds, and what is said before it is followed.

use std::fs;

use super::*;

/// A folder of grey images of 8 × 8 pixels in two classes, dark and bright, so many of each.
fn images(folder: &Folder, name: &str, n: usize) -> String {
    for (class, base) in [("dark", 20), ("bright", 140)] {
        let path = folder.0.join(name).join(class);
        fs::create_dir_all(&path).unwrap();
        for i in 0..n {
            let pixel = |at: usize| (base + (at * (i + 3) * 7) % 90) as u8;
            let bytes = b"P5 8 8 255\n".iter().copied().chain((0..64).map(pixel));
            fs::write(path.join(format!("{i}.pgm")), bytes.collect::<Vec<u8>>()).unwrap();
        }
    }
    folder.file(name)
}

/// What `args` write, whether it is as small as was wanted or not.
fn written(args: &[&str]) -> Value {
    let (said, status) = json(args);
    assert!(status != 2 && said["output"].is_string(), "{args:?}: {said}");
    said
}

/// The weights that `verb` makes with `flags`, which are those that it makes by the recipe that was saved.
fn again(folder: &Folder, verb: &str, flags: &[&str]) -> Vec<Vec<u8>> {
    let [x, y, recipe] = ["x.onnx", "y.onnx", "r.toml"].map(|f| folder.file(f));
    let said = written(
        &[
            &[verb, DIGITS, &x, "--force", "--save-recipe", &recipe][..],
            flags,
        ]
        .concat(),
    );
    let replayed = written(&[verb, DIGITS, &y, "--force", "--recipe", &recipe]);
    assert_eq!(said["recipe"], replayed["recipe"]);
    assert!(weights(&x) == weights(&y), "{verb} {flags:?}");
    weights(&x)
}

const PIXELS: [&str; 4] = ["--mean", "0.6", "--std", "0.3"];

#[test]
fn photos_that_methods_see_become_the_same_numbers() {
    let folder = Folder::new("recipe-photo");
    let source = format!("image={}", folder.write("white.png", WHITE));
    let flags = ["--method", "wanda", "-i", &source];
    let plain = again(&folder, "prune", &flags);
    let other = again(&folder, "prune", &[&flags[..], &PIXELS].concat());
    assert!(
        fs::read_to_string(folder.file("r.toml"))
            .unwrap()
            .contains("mean = [0.6]")
    );
    assert!(plain != other);
}

#[test]
fn photos_that_are_learned_from_become_the_same_numbers() {
    let folder = Folder::new("recipe-photos");
    let data = images(&folder, "photos", 20);
    let flags = ["--data", &data, "--finetune", "1", "--batch", "8"];
    let plain = again(&folder, "prune", &flags);
    let other = again(&folder, "prune", &[&flags[..], &PIXELS].concat());
    assert!(plain != other);
    // What is kept of one is not gone on with by the other.
    let [out, state] = ["o.onnx", "state"].map(|f| folder.file(f));
    let kept = ["--checkpoint", &state, "--resume"];
    done(&[&["prune", DIGITS, &out][..], &flags, &kept, &PIXELS].concat());
    let error = refused(&[&["prune", DIGITS, &out, "--force"][..], &flags, &kept].concat());
    assert!(error.contains("what pixels become was"), "{error}");
    // Accuracy is that of the numbers that the model was trained on.
    let accuracy = |more: &[&str]| {
        let verify = ["verify", &*out, &*out, "--data", &*data, "--test", "20"];
        done(&[&verify[..], more].concat())["metric"]["a"].clone()
    };
    assert_ne!(accuracy(&["--mean", "40"]), accuracy(&[]));
}

/// A search that takes one step.
const SEARCH: [&str; 8] = [
    "--max-drop",
    "100",
    "--target",
    "0.02M",
    "--finetune",
    "1",
    "--tries",
    "1",
];

#[test]
fn made_up_inputs_are_part_of_a_recipe_and_of_what_is_gone_on_with() {
    let folder = Folder::new("recipe-inputs");
    let flags = ["-i", "image=rand:0:2", "--samples", "200"];
    again(&folder, "compress", &[&flags[..], &SEARCH].concat());
    let text = fs::read_to_string(folder.file("r.toml")).unwrap();
    assert!(text.contains("inputs = [\"image=rand:0:2\"]"), "{text}");
    let [out, state] = ["o.onnx", "state"].map(|f| folder.file(f));
    let kept = ["--checkpoint", &state, "--resume", "--force"];
    let args = [&["compress", DIGITS, &out][..], &SEARCH, &kept].concat();
    let with = |source| [&args[..], &["--samples", "200", "-i", source]].concat();
    written(&with("image=rand:0:2"));
    written(&with("image=rand:0:2"));
    let error = refused(&with("image=rand:0:3"));
    assert!(error.contains("the inputs of -i was"), "{error}");
}

/// The names of what is in the folder and begins so.
fn begins(folder: &Folder, start: &str) -> Vec<String> {
    let all = fs::read_dir(&folder.0).unwrap();
    let names = all.map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter(|n| n.starts_with(start)).collect()
}

#[test]
fn what_could_not_be_measured_is_not_trained() {
    let folder = Folder::new("recipe-early");
    let (data, [out, state]) = (
        images(&folder, "photos", 12),
        ["o.onnx", "state"].map(|f| folder.file(f)),
    );
    let tuned = |data: &str, task: &str| {
        format!(
            "[[step]]\nprune = {{ rounds = 2, finetune = {{ data = '{data}', epochs = 2, task = '{task}' }} }}\n"
        )
    };
    for (steps, more, part) in [
        (
            tuned(&data, "none"),
            &["--max-drop", "1"][..],
            "a budget measures agreement",
        ),
        (
            "[[step]]\nprune = {}\n".to_owned(),
            &["--max-drop", "1"],
            "looks at no test examples",
        ),
        (
            tuned(&data, "classes") + &tuned("nowhere", "classes"),
            &[],
            "step 2",
        ),
        (
            tuned("digits", "none") + &tuned(&data, "values"),
            &[],
            "the labels of folders are classes",
        ),
    ] {
        let recipe = folder.write("r.toml", steps.as_bytes());
        let args = [
            "compress",
            DIGITS,
            &out,
            "--recipe",
            &recipe,
            "--checkpoint",
            &state,
        ];
        let error = refused(&[&args[..], more].concat());
        assert!(error.contains(part), "{error}");
        assert_eq!(begins(&folder, "state"), [""; 0], "{part}");
    }
    // The same with nothing wrong keeps its state.
    let recipe = folder.write("r.toml", tuned(&data, "classes").as_bytes());
    let args = [
        "compress",
        DIGITS,
        &out,
        "--recipe",
        &recipe,
        "--checkpoint",
        &state,
    ];
    json(&[&args[..], &["--max-drop", "100"]].concat());
    assert!(!begins(&folder, "state").is_empty());
}

#[test]
fn test_examples_without_labels_are_halved_too() {
    let folder = Folder::new("recipe-halves");
    images(&folder, "photos/train", 20);
    images(&folder, "photos/test", 9);
    let (data, out) = (folder.file("photos"), folder.file("o.onnx"));
    let said = written(
        &[
            &["compress", DIGITS, &out, "--data", &data, "--task", "none"][..],
            &SEARCH,
        ]
        .concat(),
    );
    let examples = |x: &Value| x["examples"].as_u64();
    assert_eq!(
        [examples(&said["budget"]["validation"]), examples(&said["metric"])],
        [Some(9), Some(9)],
        "{said}"
    );
}

#[test]
fn shares_of_the_time_are_cut_by_both_verbs() {
    let folder = Folder::new("recipe-time");
    let step = b"[[step]]\nprune = { pattern = 'structured', of = 'ms', sparsity = 0.3 }\n";
    let recipe = folder.write("r.toml", step);
    let made = ["prune", "compress"].map(|verb| {
        let out = folder.file(verb);
        done(&[verb, DIGITS, &out, "--recipe", &recipe]);
        weights(&out)
    });
    assert!(made[0] == made[1] && made[0] != weights(DIGITS));
}
