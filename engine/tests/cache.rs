//! Packed weights in a file: found again, never wrong, never in the way.
#![allow(clippy::unwrap_used, reason = "tests end where they cannot go on")]

mod measure;

use std::fs;
use std::path::{Path, PathBuf};

use measure::{call, model, noise};
use secateur_engine::ir::Attr;
use secateur_engine::run::CacheState;
use secateur_engine::{Model, Session, Tensor};

/// A file of its own for each test, gone afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let dir = std::env::temp_dir().join(format!("secateur-cache-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Scratch(dir)
    }

    fn file(&self) -> PathBuf {
        self.0.join("weights.cache")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Convolutions of every packing, products, and a layer with two packed matrices.
fn weighty(seed: u64) -> Model {
    model(17, [&[1, 64, 9, 9]], |[x]| {
        let w = |dims: &[usize], n| x.tensor(noise(dims, seed + n));
        let conv = |dims: [usize; 4], n, groups: i64| {
            let pads = vec![dims[2] as i64 / 2; 4];
            let attrs = vec![Attr::new("pads", pads), Attr::new("group", groups)];
            x.with("Conv", &[w(&dims, n)], attrs)
        };
        let sums = [
            conv([64, 64, 3, 3], 1, 1),
            conv([512, 64, 1, 1], 2, 1),
            conv([512, 1, 3, 3], 3, 64),
        ];
        let mut all: Vec<_> = sums.iter().map(|y| y.op("GlobalMaxPool", &[])).collect();
        let rows = all[1].op("Flatten", &[]);
        all.push(rows.matmul(w(&[512, 70], 4)));
        let steps = rows.op("Reshape", &[measure::ints(x, &[4, 2, 64])]);
        let inputs = [Some(steps), Some(w(&[1, 120, 64], 5)), Some(w(&[1, 120, 40], 6))];
        let attrs = vec![Attr::new("hidden_size", 40i64)];
        all.push(call("GRU", &inputs, attrs, 1)[0]);
        all
    })
}

fn run(m: &Model, cache: Option<&Path>) -> (Vec<Tensor>, Option<CacheState>) {
    let builder = Session::builder(m).threads(2);
    let builder = match cache {
        Some(path) => builder.cache(path),
        None => builder,
    };
    let session = builder.build().unwrap();
    let y = measure::tensors(session.run([("x0", &noise(&[1, 64, 9, 9], 99))]).unwrap());
    (y, session.cache())
}

#[test]
fn the_next_session_finds_what_was_packed() {
    let (dir, m) = (Scratch::new("again"), weighty(1));
    let (want, none) = run(&m, None);
    assert_eq!(none, None);
    let (first, state) = run(&m, Some(&dir.file()));
    let made = state.unwrap().made;
    assert!(made >= 5, "{made} weights were packed");
    let (second, state) = run(&m, Some(&dir.file()));
    let found = CacheState {
        found: made,
        ..CacheState::default()
    };
    assert_eq!(state, Some(found));
    assert_eq!(first, want);
    assert_eq!(second, want);
}

#[test]
fn sessions_share_a_file() {
    let (dir, m) = (Scratch::new("share"), weighty(1));
    let (want, _) = run(&m, None);
    for _ in 0..2 {
        std::thread::scope(|s| {
            let all: Vec<_> = (0..3).map(|_| s.spawn(|| run(&m, Some(&dir.file())))).collect();
            for one in all {
                let (got, state) = one.join().unwrap();
                assert_eq!((got, state.unwrap().refused), (want.clone(), None));
            }
        });
    }
    assert_eq!(
        fs::read_dir(&dir.0).unwrap().count(),
        1,
        "nothing is left beside it"
    );
}

#[test]
fn another_model_finds_nothing_and_takes_over() {
    let dir = Scratch::new("other");
    let (a, b) = (weighty(1), weighty(100));
    run(&a, Some(&dir.file()));
    let size = fs::metadata(dir.file()).unwrap().len();
    let (got, state) = run(&b, Some(&dir.file()));
    assert_eq!(got, run(&b, None).0);
    assert_eq!(state.unwrap().found, 0);
    assert_eq!(
        fs::metadata(dir.file()).unwrap().len(),
        size,
        "the other's are gone"
    );
    assert_eq!(run(&b, Some(&dir.file())).1.unwrap().made, 0);
}

#[test]
fn a_damaged_file_is_never_believed() {
    let (dir, m) = (Scratch::new("damaged"), weighty(1));
    let (want, _) = run(&m, None);
    run(&m, Some(&dir.file()));
    let good = fs::read(dir.file()).unwrap();
    let mut bad: Vec<Vec<u8>> = [0, 1, 7, 8, 20, 63, 64, 65, 200, good.len() / 2, good.len() - 1]
        .iter()
        .map(|&n| good[..n].to_vec())
        .collect();
    bad.push([&good[..], b"more"].concat());
    let mut places: Vec<usize> = (8..64).step_by(5).chain((64..900).step_by(97)).collect();
    places.extend((1000..good.len()).step_by(good.len() / 9));
    bad.extend(places.into_iter().map(|at| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x40;
        bytes
    }));
    for (i, bytes) in bad.into_iter().enumerate() {
        fs::remove_file(dir.file()).unwrap();
        fs::write(dir.file(), &bytes).unwrap();
        let (got, state) = run(&m, Some(&dir.file()));
        assert_eq!(got, want, "damage {i}");
        let state = state.unwrap();
        // Padding between parts means nothing.
        assert!(
            state.refused.is_some() || state.made == 0,
            "damage {i}: {state:?}"
        );
        if state.unsaved.is_none() {
            assert_eq!(
                run(&m, Some(&dir.file())).1.unwrap().made,
                0,
                "damage {i} is mended"
            );
        }
    }
}

#[test]
fn what_is_no_cache_is_kept() {
    let (dir, m) = (Scratch::new("strange"), weighty(1));
    fs::write(dir.file(), "a letter").unwrap();
    let (got, state) = run(&m, Some(&dir.file()));
    let state = state.unwrap();
    assert_eq!(got, run(&m, None).0);
    assert!(state.refused.is_some() && state.unsaved.is_some());
    assert_eq!(fs::read(dir.file()).unwrap(), b"a letter");
}

#[test]
fn a_folder_that_is_not_there_is_said() {
    let (dir, m) = (Scratch::new("nowhere"), weighty(1));
    let (got, state) = run(&m, Some(&dir.0.join("none").join("weights.cache")));
    assert_eq!(got, run(&m, None).0);
    assert!(state.unwrap().unsaved.is_some());
}
