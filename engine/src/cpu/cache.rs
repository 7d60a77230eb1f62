//! Packed weights in a file, so that the next session maps them instead of packing.
//!
//! Found by what they were made from: a hash of the weight's elements, its type and dimensions, and the layout. The file is of one
//! version of this library and one instruction set; of others, damaged or cut short, it is as if it were not there. All
//! numbers are little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `secateur` |
//! | 8 | version of the format |
//! | 8 | length of the table |
//! | 8 | length of the file |
//! | 16 | hash of the table |
//! | 16 | zeros |
//! | … | table: seed of all other hashes, version of the library, instruction set, entries |
//! | … | packed weights, each part at a multiple of 64 |
//!
//! An entry is the hash of the weight, the layout, the hash of the packed weights, and offset and length of each part.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use xxhash_rust::xxh3::Xxh3;

use super::LINE;
use crate::ir::{Bytes, Tensor};

const MAGIC: &[u8; 8] = b"secateur";
const FORMAT: u64 = 1;
const HEADER: usize = 64;

/// What is said of a file that is something else.
const STRANGE: &str = "it is no cache of packed weights";

/// Weights of fewer bytes are packed anew.
const WORTH: usize = 16 << 10;

/// Weights in the order that kernels read them, as stretches of memory.
pub trait Packed: Send + Sync + Sized + 'static {
    /// The memory.
    fn parts(&self) -> Vec<&[u8]>;

    /// The same from memory of these lengths, at multiples of 64.
    fn from_parts(parts: &[Bytes]) -> Option<Self>;

    /// Whether the numbers in it keep to [`Order::limits`], where it is read by them.
    fn keeps(&self, _limits: &[usize]) -> bool {
        true
    }
}

impl Packed for Vec<u8> {
    fn parts(&self) -> Vec<&[u8]> {
        vec![self]
    }

    fn from_parts(parts: &[Bytes]) -> Option<Self> {
        Some(parts.first()?.to_vec())
    }
}

/// An order of packed weights.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Order {
    /// All that the result depends on, beside the weight itself and the instruction set.
    pub name: String,
    /// Bytes of each part; none where they follow from the weights.
    pub parts: Vec<usize>,
    /// What numbers in it must keep to, where it holds such.
    pub limits: Vec<usize>,
}

impl Order {
    /// An order of one part of `floats` floats, in whole cache lines.
    pub fn floats(name: impl Into<String>, floats: usize) -> Order {
        let bytes = floats.saturating_mul(size_of::<f32>());
        Order {
            name: name.into(),
            parts: vec![bytes.checked_next_multiple_of(LINE).unwrap_or(usize::MAX)],
            ..Order::default()
        }
    }
}

/// What became of a cache of packed weights.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CacheState {
    /// Why the file that was there is not used.
    pub refused: Option<String>,
    /// Why the file could not be written.
    pub unsaved: Option<String>,
    /// Packed weights that were found in it.
    pub found: usize,
    /// Packed weights that were not, and were made.
    pub made: usize,
}

/// What packed weights are found by.
type Key = (u128, String);

/// Packed weights in the file: their hash, and where they are.
#[derive(Clone)]
struct Entry {
    sum: u128,
    parts: Vec<(usize, usize)>,
}

/// The content of a file.
struct Stock {
    seed: u64,
    file: Bytes,
    entries: HashMap<Key, Entry>,
}

/// A file of packed weights.
pub struct Cache {
    path: PathBuf,
    stock: Stock,
    news: Mutex<News>,
}

#[derive(Default)]
struct News {
    state: CacheState,
    /// Hashes of the weights that were asked for.
    weights: HashSet<u128>,
    /// What the file does not have.
    made: Vec<(Key, Arc<dyn Parts>)>,
    /// Something was made since the file was written last.
    open: bool,
    /// What is there is not ours to replace.
    strange: bool,
}

/// [`Packed`], whatever type it is.
trait Parts: Send + Sync {
    fn all(&self) -> Vec<&[u8]>;
}

impl<T: Packed> Parts for T {
    fn all(&self) -> Vec<&[u8]> {
        self.parts()
    }
}

fn hash<'a>(seed: u64, parts: impl IntoIterator<Item = &'a [u8]>) -> u128 {
    let mut h = Xxh3::with_seed(seed);
    for part in parts {
        h.update(&(part.len() as u64).to_le_bytes());
        h.update(part);
    }
    h.digest128()
}

/// The instruction set, by which packed weights differ.
fn isa() -> String {
    format!("{} {}", std::env::consts::ARCH, secateur_simd::isa())
}

impl Cache {
    /// The cache in the file `path`, which need not be there yet.
    pub fn open(path: &Path) -> Cache {
        let (stock, refused) = match read(path) {
            Ok(stock) => (stock, None),
            Err(why) => (None, Some(why)),
        };
        let strange = refused.as_deref() == Some(STRANGE);
        let empty = || Stock {
            // Nobody can make a model whose weights have the hashes of others without knowing the seed.
            seed: RandomState::new().hash_one(std::process::id()),
            file: Bytes::new(Vec::<u8>::new()),
            entries: HashMap::new(),
        };
        let state = CacheState {
            refused,
            ..CacheState::default()
        };
        let news = News {
            state,
            strange,
            ..News::default()
        };
        Cache {
            path: path.to_owned(),
            stock: stock.unwrap_or_else(empty),
            news: Mutex::new(news),
        }
    }

    /// What became of it so far.
    pub fn state(&self) -> CacheState {
        self.news().state.clone()
    }

    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// `weight` packed in `order`: as it is in the file, or else by `make`.
    pub(super) fn get<T: Packed>(&self, weight: &Tensor, order: &Order, make: impl FnOnce() -> T) -> Arc<T> {
        if weight.dtype().bits() == 0 || weight.bytes().len() < WORTH {
            return Arc::new(make());
        }
        let name = format!("{} {:?} {}", weight.dtype(), weight.dims(), order.name);
        let key = (hash(self.stock.seed, [weight.bytes()]), name);
        let found = self.found(&key, order).map(Arc::new);
        let mut news = self.news();
        news.weights.insert(key.0);
        if let Some(found) = found {
            news.state.found += 1;
            return found;
        }
        drop(news);
        let made = Arc::new(make());
        let mut news = self.news();
        news.state.made += 1;
        news.open = true;
        news.made.push((key, made.clone()));
        made
    }

    fn found<T: Packed>(&self, key: &Key, order: &Order) -> Option<T> {
        let entry = self.stock.entries.get(key)?;
        let lens = entry.parts.iter().map(|p| p.1);
        if !order.parts.is_empty() && !lens.eq(order.parts.iter().copied()) {
            return None;
        }
        let parts = self.parts(entry)?;
        let sum = hash(self.stock.seed, parts.iter().map(|b| &**b));
        if sum != entry.sum {
            let mut news = self.news();
            news.state.refused = Some("a part of it is damaged".into());
            return None;
        }
        T::from_parts(&parts).filter(|packed| packed.keeps(&order.limits))
    }

    fn parts(&self, entry: &Entry) -> Option<Vec<Bytes>> {
        let part = |&(start, len): &(usize, usize)| self.stock.file.slice(start..start.checked_add(len)?);
        entry.parts.iter().map(part).collect()
    }

    /// Writes what was made and what was there of the same weights, if anything was made.
    pub(crate) fn save(&self) {
        let mut news = self.news();
        if !std::mem::take(&mut news.open) {
            return;
        }
        if news.strange {
            news.state.unsaved = Some("what is there is no cache, and is kept".into());
            return;
        }
        let news = &mut *news;
        let made: HashSet<&Key> = news.made.iter().map(|(key, _)| key).collect();
        let kept = self.stock.entries.iter();
        let kept = kept.filter(|(key, _)| news.weights.contains(&key.0) && !made.contains(key));
        let kept: Vec<_> = kept
            .filter_map(|(key, e)| Some((key, Some(e.sum), self.parts(e)?)))
            .collect();
        let mut all: Vec<_> = kept
            .iter()
            .map(|(key, sum, parts)| (*key, *sum, parts.iter().map(|b| &**b).collect()))
            .collect();
        all.extend(news.made.iter().map(|(key, made)| (key, None, made.all())));
        match write(&self.path, self.stock.seed, &all) {
            Ok(()) => news.state.unsaved = None,
            Err(e) => news.state.unsaved = Some(e.to_string()),
        }
    }
}

/// The content of the file; `None` where there is none.
fn read(path: &Path) -> Result<Option<Stock>, String> {
    let file = match Bytes::map(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|e| e.to_string())?,
    };
    let mut head = Reader(&file);
    if head.take(8) != Some(MAGIC) {
        return Err(STRANGE.into());
    }
    if head.number() != Some(FORMAT) {
        return Err("it is of another version of the format".into());
    }
    let table = table(&file, head).ok_or("it is damaged or cut short")?;
    let mut r = Reader(table);
    let damaged = || String::from("its table is damaged");
    let seed = r.number().ok_or_else(damaged)?;
    let (version, set) = (r.text().ok_or_else(damaged)?, r.text().ok_or_else(damaged)?);
    if version != env!("CARGO_PKG_VERSION") {
        return Err(format!("it was written by version {version}"));
    }
    if set != isa() {
        return Err(format!("it is for {set}, and this runs on {}", isa()));
    }
    let mut entries = HashMap::new();
    while !r.0.is_empty() {
        let (key, entry) = r.entry().ok_or_else(damaged)?;
        entries.insert(key, entry);
    }
    Ok(Some(Stock { seed, file, entries }))
}

/// The table of a file, whose header has been read up to its length.
fn table<'a>(file: &'a [u8], mut head: Reader) -> Option<&'a [u8]> {
    let (len, whole, sum) = (head.size()?, head.size()?, head.wide()?);
    let table = file.get(HEADER..HEADER.checked_add(len)?)?;
    (whole == file.len() && hash(0, [table]) == sum).then_some(table)
}

/// What is left to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn wide(&mut self) -> Option<u128> {
        Some(u128::from_le_bytes(self.take(16)?.try_into().ok()?))
    }

    fn size(&mut self) -> Option<usize> {
        self.number()?.try_into().ok()
    }

    fn text(&mut self) -> Option<&'a str> {
        let len = self.size()?;
        std::str::from_utf8(self.take(len)?).ok()
    }

    fn entry(&mut self) -> Option<(Key, Entry)> {
        let (weight, layout, sum) = (self.wide()?, self.text()?.to_owned(), self.wide()?);
        let mut parts = vec![];
        for _ in 0..self.size()? {
            let (start, len) = (self.size()?, self.size()?);
            parts.push((start, len));
            if !start.is_multiple_of(LINE) {
                return None;
            }
        }
        Some(((weight, layout), Entry { sum, parts }))
    }
}

/// Packed weights that are to be written: their hash where it is known, and their parts.
type Item<'a> = (&'a Key, Option<u128>, Vec<&'a [u8]>);

fn write(path: &Path, seed: u64, all: &[Item]) -> io::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}-{number}.part", std::process::id()));
    let temporary = path.with_file_name(name);
    let file = File::options().write(true).create_new(true).open(&temporary)?;
    let mut out = BufWriter::new(file);
    let done = write_to(&mut out, seed, all).and_then(|()| out.flush());
    let done = done.and_then(|()| fs::rename(&temporary, path));
    if done.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    done
}

fn write_to(out: &mut impl Write, seed: u64, all: &[Item]) -> io::Result<()> {
    // Offsets follow from the table's length, which does not depend on them.
    let from = HEADER + entries(seed, all, 0).0.len();
    let (table, end) = entries(seed, all, from.next_multiple_of(LINE));
    let mut head = Vec::from(*MAGIC);
    for n in [FORMAT, table.len() as u64, end as u64] {
        head.extend(n.to_le_bytes());
    }
    head.extend(hash(0, [&table[..]]).to_le_bytes());
    head.resize(HEADER, 0);
    out.write_all(&head)?;
    out.write_all(&table)?;
    let mut at = from;
    for part in all.iter().flat_map(|(.., parts)| parts) {
        out.write_all(&[0; LINE][..at.next_multiple_of(LINE) - at])?;
        out.write_all(part)?;
        at = at.next_multiple_of(LINE) + part.len();
    }
    Ok(())
}

/// The table for parts that begin at `start`, and where they end.
fn entries(seed: u64, all: &[Item], start: usize) -> (Vec<u8>, usize) {
    let mut table = vec![];
    let mut end = start;
    let text = |table: &mut Vec<u8>, s: &str| {
        table.extend((s.len() as u64).to_le_bytes());
        table.extend(s.bytes());
    };
    table.extend(seed.to_le_bytes());
    text(&mut table, env!("CARGO_PKG_VERSION"));
    text(&mut table, &isa());
    for (key, sum, parts) in all {
        table.extend(key.0.to_le_bytes());
        text(&mut table, &key.1);
        let own = || hash(seed, parts.iter().copied());
        // Hashes are only worth the time where the offsets are known.
        let sum = if start == 0 { 0 } else { sum.unwrap_or_else(own) };
        table.extend(sum.to_le_bytes());
        table.extend((parts.len() as u64).to_le_bytes());
        for part in parts {
            let at = end.next_multiple_of(LINE);
            table.extend((at as u64).to_le_bytes());
            table.extend((part.len() as u64).to_le_bytes());
            end = at + part.len();
        }
    }
    (table, end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::gemm::Floats;

    /// A cache in memory whose table says of one weight that its parts are `parts`.
    fn stocked(weight: &Tensor, name: &str, parts: Vec<(usize, usize)>, file: Vec<u8>) -> Cache {
        let mut cache = Cache::open(Path::new("/nowhere/at/all"));
        let seed = cache.stock.seed;
        let file = Bytes::new(file);
        let key = (
            hash(seed, [weight.bytes()]),
            format!("{} {:?} {name}", weight.dtype(), weight.dims()),
        );
        let stretch = |&(start, len): &(usize, usize)| file.slice(start..start.checked_add(len)?);
        let there: Vec<_> = parts.iter().filter_map(stretch).collect();
        let sum = hash(seed, there.iter().map(|b| &**b));
        cache.stock.entries.insert(key, Entry { sum, parts });
        cache.stock.file = file;
        cache
    }

    #[test]
    fn a_table_is_not_believed() {
        let weight = Tensor::of(&[1 << 13], vec![1f32; 1 << 13]);
        let order = Order::floats("as it is", 1 << 13);
        let bytes = order.parts[0];
        let file = || vec![0u8; 2 * bytes];
        let found = |parts| {
            let cache = stocked(&weight, "as it is", parts, file());
            let got = cache.get(&weight, &order, || Floats::whole(&[2.0; 1 << 13], 1));
            (cache.state().found, got.slice().to_vec())
        };
        assert_eq!(found(vec![(0, bytes)]), (1, vec![0.0; 1 << 13]));
        let others = [
            vec![],
            vec![(0, bytes - 64)],
            vec![(0, bytes + 64)],
            vec![(bytes + 64, bytes)],
            vec![(usize::MAX - 63, bytes)],
            vec![(0, usize::MAX)],
            vec![(0, bytes), (0, bytes)],
        ];
        for parts in others {
            assert_eq!(found(parts.clone()), (0, vec![2.0; 1 << 13]), "{parts:?}");
        }
    }

    #[test]
    fn names_and_sizes_tell_weights_apart() {
        let parts = [&b"ab"[..], b"c"];
        assert_ne!(hash(0, parts), hash(0, [&b"a"[..], b"bc"]));
        assert_ne!(hash(0, parts), hash(1, parts));
    }
}
