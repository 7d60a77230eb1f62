//! Looks for files and graphs that break the engine.
//!
//! `fuzz reader CORPUS [MINUTES] [SEED]` changes files of the folder CORPUS, byte by byte and field by field, and reads,
//! writes, reads and runs them. `fuzz graphs [MINUTES] [SEED]` chains operators' cases with other shapes, attributes and
//! opsets, and compares the engine with the reference interpreter, before and after a conversion to another opset.
//! `fuzz reader CORPUS one SEED` and `fuzz graphs one SEED` do one seed and say what happens.
//!
//! A finding is a panic, an abort, a disagreement, more memory than [`MEMORY`] allows by far, or more than two seconds;
//! each is printed once with its seed.

#![allow(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

mod chance;
mod graphs;
mod reader;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bytes that sessions may work in.
const MEMORY: usize = 64 << 20;

/// Bytes that one seed may hold at once.
const PEAK: usize = 8 * MEMORY;

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        MOST.fetch_max(LIVE.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
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

static PANIC: Mutex<String> = Mutex::new(String::new());

/// What one seed came to: nothing, or a finding with what it is counted under.
type Found = Result<&'static str, (String, String)>;

/// Something that is tried with seeds.
trait Target {
    fn attempt(&mut self, seed: u64, loud: bool) -> Found;
}

fn guarded(target: &mut dyn Target, seed: u64, loud: bool) -> Found {
    let (start, before) = (Instant::now(), LIVE.load(Relaxed));
    MOST.store(before, Relaxed);
    let done = catch_unwind(AssertUnwindSafe(|| target.attempt(seed, loud)));
    let took = start.elapsed();
    let most = MOST.load(Relaxed).saturating_sub(before);
    let found = done.unwrap_or_else(|_| {
        let text = PANIC.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let place = text.split(": ").next().unwrap_or_default().to_owned();
        Err((format!("panic {place}"), text))
    });
    match found {
        Ok(_) if most > PEAK => Err(("memory".into(), format!("held {} MB", most >> 20))),
        Ok(what) if took > Duration::from_secs(2) => {
            Err((format!("slow {what}"), format!("took {took:.1?}")))
        }
        other => other,
    }
}

fn target(args: &[String]) -> (Box<dyn Target>, &[String]) {
    match args {
        [kind, corpus, rest @ ..] if kind == "reader" => {
            (Box::new(reader::Reader::new(&PathBuf::from(corpus))), rest)
        }
        [kind, rest @ ..] if kind == "graphs" => (Box::new(graphs::Graphs::new()), rest),
        _ => {
            eprintln!("usage: fuzz reader CORPUS|graphs [MINUTES] [SEED]");
            std::process::exit(2)
        }
    }
}

fn quiet() {
    std::panic::set_hook(Box::new(|info| {
        let place = info
            .location()
            .map(|l| format!("{}:{}", l.file(), l.line()))
            .unwrap_or_default();
        let payload = info.payload();
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| Some((*payload.downcast_ref::<&str>()?).to_owned()));
        *PANIC.lock().unwrap_or_else(PoisonError::into_inner) =
            format!("{place}: {}", text.unwrap_or_default());
    }));
}

/// Tries seeds until the time is over; each is noted in `note` before it is tried, for the parent to see where a child died.
fn work(target: &mut dyn Target, minutes: f64, first: u64, note: &str) {
    use std::os::unix::fs::FileExt;
    quiet();
    let end = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    let file = std::fs::File::create(note).unwrap();
    let (mut counts, mut seen): (HashMap<&str, usize>, HashMap<String, usize>) = Default::default();
    let mut seed = first;
    while Instant::now() < end {
        file.write_all_at(&seed.to_le_bytes(), 0).unwrap();
        match guarded(target, seed, false) {
            Ok(what) => *counts.entry(what).or_default() += 1,
            Err((kind, what)) => {
                let times = seen.entry(kind.clone()).or_default();
                *times += 1;
                if *times <= 3 {
                    println!("FOUND seed {seed}: {kind}: {what}");
                }
            }
        }
        seed += 1;
    }
    println!("seeds {first}..{seed}: {counts:?}; found {seen:?}");
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|a| a == "worker") {
        let (note, minutes, seed) = (&args[1], args[2].parse().unwrap(), args[3].parse().unwrap());
        let (mut target, _) = target(&args[4..]);
        return work(&mut *target, minutes, seed, note);
    }
    let (mut one, rest) = target(&args);
    if let [first, seed] = rest
        && first == "one"
    {
        match guarded(&mut *one, seed.parse().unwrap(), true) {
            Ok(what) => println!("{what}"),
            Err((kind, what)) => println!("FOUND {kind}: {what}"),
        }
        return;
    }
    let minutes: f64 = rest.first().map_or(20.0, |m| m.parse().unwrap());
    let mut seed: u64 = rest.get(1).map_or(1, |s| s.parse().unwrap());
    let end = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    let note = std::env::temp_dir().join(format!("fuzz-{}.seed", std::process::id()));
    let own: Vec<_> = args[..args.len() - rest.len()].to_vec();
    loop {
        let left = end.saturating_duration_since(Instant::now()).as_secs_f64() / 60.0;
        let status = Command::new(std::env::current_exe().unwrap())
            .args([
                "worker",
                &note.display().to_string(),
                &left.to_string(),
                &seed.to_string(),
            ])
            .args(&own)
            .status()
            .unwrap();
        if status.success() || left <= 0.0 {
            break;
        }
        let died = std::fs::read(&note).unwrap_or_default();
        seed = u64::from_le_bytes(died[..8].try_into().unwrap());
        println!("FOUND seed {seed}: abort: {status}");
        seed += 1;
    }
    let _ = std::fs::remove_file(note);
}
