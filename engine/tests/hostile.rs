//! Files that lie: read without panic, without much memory, and refused with the place.
//!
//! Everything is one test, as the allocator counts for the whole process.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod greedy;
mod proto;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use proto::{everything, int, len, text};
use secateur_engine::ir::{Bytes, DType, Model};
use secateur_engine::onnx::{ErrorKind, OnnxError, parse, to_bytes};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(LIVE.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const LIMIT: usize = 256 << 20;

/// Reads `file`, and looks at the error if there is one.
fn read(file: Vec<u8>) -> Result<Model, OnnxError> {
    parse(Bytes::new(file), None).inspect_err(|e| {
        assert!(!e.place().is_empty() && e.to_string().starts_with(&e.place()));
        assert!(e.to_string().len() < 2000, "{e}");
    })
}

/// Checks that what could be read does not change any more when it is written and read again.
fn settles(model: &Model) {
    let once = to_bytes(model);
    if !once.is_empty() {
        let twice = to_bytes(&read(once.clone()).unwrap());
        assert!(once == twice, "written differently the second time");
    }
}

fn truncations(whole: &[u8]) {
    let read = |n| read(whole[..n].to_vec());
    let accepted: Vec<_> = (0..whole.len()).filter_map(|n| read(n).ok()).collect();
    assert!(accepted.len() < whole.len() / 10);
    accepted.iter().for_each(settles);
}

fn flips(whole: &[u8]) {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut refused = 0;
    for i in 0..100_000 {
        let mut file = whole.to_vec();
        for _ in 0..=random() % 3 {
            let at = random() as usize % file.len();
            file[at] ^= 1 << (random() % 8);
        }
        match read(file) {
            Ok(model) if i % 8 == 0 => settles(&model),
            Ok(_) => {}
            Err(_) => refused += 1,
        }
    }
    assert!((1..100_000).contains(&refused));
}

/// A model whose main graph has `fields`.
fn with(fields: &[Vec<u8>]) -> Vec<u8> {
    len(7, fields)
}

fn tensor(number: u32, dims: &[i64], dtype: i64, data: Vec<u8>) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|&d| int(1, d)).collect();
    len(number, &[dims, int(2, dtype), text(8, "w"), data])
}

fn sparse(dims: &[i64], indices: Vec<u8>) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|&d| int(3, d)).collect();
    let values = tensor(1, &[1], 1, len(9, &[vec![0, 0, 128, 63]]));
    with(&[len(15, &[values, indices, dims])])
}

fn nested(depth: usize) -> Vec<u8> {
    let mut graph = vec![];
    for _ in 0..depth {
        let attribute = len(5, &[text(1, "body"), len(6, &[graph]), int(20, 5)]);
        graph = len(1, &[text(3, "n"), text(4, "If"), attribute]);
    }
    with(&[graph])
}

fn deep_type(depth: usize) -> Vec<u8> {
    let ty = (0..depth).fold(vec![], |ty, _| len(4, &[len(1, &[ty])]));
    with(&[len(11, &[text(1, "x"), len(2, &[ty])])])
}

fn refused(file: Vec<u8>, kind: ErrorKind, parts: &[&str]) {
    let e = read(file).unwrap_err();
    assert_eq!(e.kind(), kind, "{e}");
    for part in parts {
        assert!(e.to_string().contains(part), "{e} lacks {part:?}");
    }
}

fn crafted() {
    use ErrorKind::{External, Invalid, Malformed, TooLarge};
    let one = || tensor(2, &[1], 7, len(7, &[vec![5]]));
    let w = "graph → initializer \"w\"";
    let raw = |n| len(9, &[vec![0; n]]);
    refused(vec![], Malformed, &["model"]);
    refused(b"version https://git-lfs".to_vec(), Malformed, &["model"]);
    refused(
        with(&[tensor(5, &[2, 2], 1, raw(12))]),
        Invalid,
        &[w, "float[2, 2]", "16", "12"],
    );
    refused(with(&[tensor(5, &[-1], 1, raw(4))]), Invalid, &[w, "-1"]);
    refused(
        with(&[tensor(5, &[i64::MAX, 3], 1, raw(4))]),
        Invalid,
        &[w, "more data than memory"],
    );
    refused(with(&[tensor(5, &[2], 8, raw(4))]), Invalid, &[w, "string_data"]);
    refused(
        with(&[tensor(5, &[2], 7, len(7, &[vec![1, 0x80]]))]),
        Malformed,
        &[w, "int64_data"],
    );
    let twice = with(&[tensor(5, &[1], 1, raw(4)), tensor(5, &[1], 1, raw(4))]);
    refused(twice, Invalid, &[w, "two initializers"]);
    refused(with(&[tensor(5, &[1], 1, int(14, 1))]), External, &[w, "\"\""]);
    let located = len(13, &[text(1, "location"), text(2, "w.bin")]);
    refused(
        with(&[tensor(5, &[1], 1, [located, int(14, 1)].concat())]),
        External,
        &["w.bin"],
    );
    refused(
        with(&[text(2, "g"), len(2, &[vec![0xff]])]),
        Malformed,
        &["graph", "UTF-8"],
    );
    let attribute = len(
        5,
        &[text(1, "value"), len(5, &[int(1, 2), int(2, 1)]), int(20, 4)],
    );
    let node = len(1, &[text(3, "conv1"), text(4, "Conv"), attribute]);
    refused(
        with(&[node]),
        Invalid,
        &["node 0 \"conv1\" (Conv) → attribute \"value\""],
    );
    refused(sparse(&[1 << 32], one()), TooLarge, &["sparse initializer \"w\""]);
    refused(sparse(&[1 << 62, 1 << 62, 0], one()), Invalid, &["beyond"]);
    refused(sparse(&[5], one()), Invalid, &["index [5] is beyond"]);
    refused(sparse(&[9], vec![]), Invalid, &["expected indices"]);
    read(sparse(&[6], one())).unwrap();
    let many: Vec<_> = (0..4).map(|_| sparse(&[10 << 20], one())).collect();
    assert_eq!(read(many.concat()).unwrap_err().kind(), Invalid);
    read(with(&[tensor(5, &[1 << 62, 1 << 62, 0], 1, vec![])])).unwrap();
    read(nested(30)).unwrap();
    refused(nested(1000), TooLarge, &["nested"]);
    refused(
        nested(5000),
        TooLarge,
        &["node 0 \"n\" (If) → attribute \"body\" → graph", "nested"],
    );
    read(deep_type(40)).unwrap();
    refused(deep_type(5000), TooLarge, &["input \"x\" → type"]);
    let groups = [vec![0x0b; 5000], vec![0x0c; 5000]].concat();
    refused(groups, Malformed, &["groups"]);
}

/// Has `case` refused: soon, in little memory, with all of `parts` in what is said.
fn refuses(name: &str, case: &(Model, greedy::Feeds), parts: &[&str]) {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let start = std::time::Instant::now();
    let said = greedy::answer(case);
    let (took, peak) = (start.elapsed(), PEAK.load(Relaxed) - before);
    let said = said.expect_err(name);
    for part in parts {
        assert!(said.contains(part), "{name}: {said} lacks {part:?}");
    }
    assert!(said.len() < 4000, "{name}: {} bytes of text", said.len());
    assert!(peak < LIMIT, "{name}: {peak} bytes");
    assert!(took.as_secs_f64() < SOON, "{name}: {took:?}");
}

/// Seconds; builds without optimisation only show what never ends.
const SOON: f64 = if cfg!(debug_assertions) { 60.0 } else { 1.0 };

fn greedy_graphs() {
    for asking in greedy::asking() {
        let (op, version, _) = asking.clone();
        for known in [true, false] {
            let name = |what: &str| format!("{op} {what}{}", if known { " known" } else { "" });
            refuses(&name("alone"), &greedy::alone(&asking, known), &["the_", op]);
            if version > 11 {
                refuses(&name("in If"), &greedy::inside(&asking, known, None), &[op]);
                refuses(&name("in Loop"), &greedy::inside(&asking, known, Some(2)), &[op]);
            }
        }
    }
    for known in [true, false] {
        refuses("doubling", &greedy::doubling(known), &["Concat"]);
        refuses("indexing", &greedy::indexing(known), &["Gather"]);
    }
    refuses("folding", &greedy::folding(), &["bytes"]);
    refuses("piling", &greedy::piling(), &["the_Loop", "bytes"]);
    refuses("growing", &greedy::growing(false), &["Concat", "bytes"]);
    refuses("growing list", &greedy::growing(true), &["the_Loop", "bytes"]);
    refuses("endless", &greedy::endless(), &["the_Loop", "never ends"]);
    use greedy::loops;
    refuses("outside", &loops::outside(None), &["the_Loop", "never ends"]);
    refuses(
        "outside",
        &loops::outside(Some(i64::MAX)),
        &["the_Loop", "would run"],
    );
    refuses(
        "still",
        &loops::returning("Identity"),
        &["the_Loop", "what it carries"],
    );
    refuses(
        "swinging",
        &loops::returning("Neg"),
        &["the_Loop", "what it carries"],
    );
    refuses("stacking", &loops::stacking(), &["the_Loop", "bytes"]);
    refuses("counting", &loops::counting(), &["the_Loop", "bytes"]);
    refuses("two borders", &greedy::two_borders(), &["the_Pad", "2 constant"]);
    refuses(
        "foreign keys",
        &greedy::foreign_keys(),
        &["the_Attention", "input 5"],
    );
    refuses("selfish", &greedy::selfish(), &["v1"]);
    refuses("circle", &greedy::circle(), &["Add", "v2"]);
    refuses("twice", &greedy::twice(), &["v1", "twice"]);
    refuses("nested", &greedy::nested(100), &["nested"]);
    refuses("cyclic functions", &greedy::functions(3, true), &["f", "circle"]);
    refuses(
        "exponential functions",
        &greedy::functions(40, false),
        &["functions", "nodes"],
    );
    refuses(
        "deep functions",
        &greedy::functions(1000, false),
        &["function", "deep"],
    );
    refuses("long axes", &greedy::long_axes(), &["the_Transpose"]);
    refuses("overflowing", &greedy::overflowing(), &["the_Reshape"]);
    refuses("no input", &greedy::inputs("Not", 0), &["the_Not", "input 0"]);
    refuses("three inputs", &greedy::inputs("And", 3), &["the_And", "inputs"]);
    greedy::answer(&greedy::nothing_in_place()).unwrap();
    greedy::answer(&greedy::first_left_out()).unwrap();
    greedy::answer(&greedy::own_bound()).unwrap();
    greedy::answer(&greedy::unread_indices()).unwrap();
    greedy::answer(&loops::ending_by_turn()).unwrap();
    greedy::answer(&loops::ending_by_state()).unwrap();
    let start = std::time::Instant::now();
    greedy::answer(&greedy::squaring()).unwrap();
    assert!(start.elapsed().as_secs_f64() < SOON);
    let mut wrong = greedy::alone(&greedy::asking()[2], false);
    wrong.1[0].1 = secateur_engine::Tensor::of(&[1, 1, 1], vec![0.0f32]);
    refuses("wrong rank", &wrong, &["\"a\"", "1"]);
}

/// A model with a weight in the file `location`, in a folder of its own.
fn external(dir: &std::path::Path, location: &str, offset: &str, length: &str) -> Result<Model, OnnxError> {
    let entry = |key, value| len(13, &[text(1, key), text(2, value)]);
    let entries = [
        entry("location", location),
        entry("offset", offset),
        entry("length", length),
        int(14, 1),
    ];
    let file = with(&[tensor(5, &[2], 1, entries.concat())]);
    parse(Bytes::new(file), Some(dir))
}

fn external_paths() {
    let dir = std::env::temp_dir().join(format!("secateur-hostile-{}", std::process::id()));
    let inner = dir.join("model");
    std::fs::create_dir_all(&inner).unwrap();
    std::fs::write(dir.join("secret.bin"), [0u8; 64]).unwrap();
    std::fs::write(inner.join("w.bin"), [0u8; 16]).unwrap();
    let secret = dir.join("secret.bin").display().to_string();
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(dir.join("secret.bin"), inner.join("link.bin")).unwrap();
        std::os::unix::fs::symlink(&dir, inner.join("up")).unwrap();
    }
    external(&inner, "w.bin", "8", "8").unwrap();
    let huge = u64::MAX.to_string();
    for (location, offset, length) in [
        ("../../../../../../etc/passwd", "0", "8"),
        ("../secret.bin", "0", "8"),
        ("./../model/../secret.bin", "0", "8"),
        (&*secret, "0", "8"),
        ("link.bin", "0", "8"),
        ("up/secret.bin", "0", "8"),
        ("w.bin", "12", "8"),
        ("w.bin", "16", "8"),
        ("w.bin", &*huge, "8"),
        ("w.bin", "8", &*huge),
        ("w.bin", "-8", "8"),
        ("w.bin", "0", "4"),
        (".", "0", "8"),
        ("", "0", "8"),
        ("w.bin\0", "0", "8"),
        ("nothing.bin", "0", "8"),
    ] {
        let e = external(&inner, location, offset, length).expect_err(location);
        let said = e.to_string();
        assert!(said.contains("initializer \"w\"") && said.len() < 2000, "{said}");
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn hostile_files_are_read_or_refused() {
    use DType::*;
    let whole = to_bytes(&everything(&[
        F32, I8, I64, Bool, F16, F64, U32, F8E4M3FN, I4, U2,
    ]));
    assert!((1900..2400).contains(&whole.len()), "{} bytes", whole.len());
    truncations(&whole);
    flips(&whole);
    crafted();
    external_paths();
    let peak = PEAK.load(Relaxed);
    assert!(peak < LIMIT, "{peak} bytes");
    println!("{} bytes of model, at most {peak} bytes held", whole.len());
    greedy_graphs();
}
