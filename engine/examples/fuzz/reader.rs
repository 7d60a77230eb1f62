//! Files, changed.

use std::path::Path;

use secateur_engine::ir::{Bytes, DType, Datum, Model, Tensor, Type};
use secateur_engine::onnx;
use secateur_engine::run::{Feed, Session};

use crate::chance::Chance;
use crate::{Found, MEMORY, Target};

/// Small files of a folder.
pub(crate) struct Reader {
    corpus: Vec<Vec<u8>>,
}

impl Reader {
    pub(crate) fn new(dir: &Path) -> Reader {
        let mut corpus = vec![];
        collect(dir, &mut corpus);
        corpus.sort();
        corpus.dedup();
        println!("{} files", corpus.len());
        Reader { corpus }
    }
}

fn collect(dir: &Path, corpus: &mut Vec<Vec<u8>>) {
    for path in std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
    {
        if path.is_dir() {
            collect(&path, corpus);
        } else if path.extension().is_some_and(|e| e == "onnx") {
            corpus.extend(std::fs::read(&path).ok().filter(|b| b.len() < 6000));
        }
    }
}

impl Target for Reader {
    fn attempt(&mut self, seed: u64, loud: bool) -> Found {
        let mut c = Chance::new(seed);
        let mut file = c.pick(&self.corpus).clone();
        let other = c.pick(&self.corpus).clone();
        for _ in 0..=c.below(3) {
            match c.once_in(3) {
                true => blind(&mut file, &other, &mut c),
                false => file = structural(&file, &other, &mut c),
            }
        }
        if loud {
            std::fs::write("/tmp/fuzz.onnx", &file).unwrap();
            println!("written to /tmp/fuzz.onnx");
        }
        let Ok(model) = onnx::parse(Bytes::new(file), None) else {
            return Ok("not read");
        };
        let once = onnx::to_bytes(&model);
        let Ok(again) = onnx::parse(Bytes::new(once.clone()), None) else {
            return match once.is_empty() {
                true => Ok("empty"),
                false => Err(("rewrite".into(), "what was written cannot be read".into())),
            };
        };
        if onnx::to_bytes(&again) != once {
            return Err(("rewrite".into(), "written differently the second time".into()));
        }
        let to = 7 + c.below(21) as i64;
        let _ = secateur_engine::opt::convert(&mut model.clone(), "", to);
        run(&again, &mut c, loud)
    }
}

/// Runs the model on whatever fits its declared inputs.
fn run(model: &Model, c: &mut Chance, loud: bool) -> Found {
    let session = Session::builder(model).threads(1).memory(MEMORY).build();
    let session = match session {
        Ok(s) => s,
        Err(e) => {
            if loud {
                println!("{e}");
            }
            return Ok("not built");
        }
    };
    let mut feeds = vec![];
    for (name, ty) in session.inputs() {
        let Type::Tensor { dtype, shape } = ty else {
            return Ok("input of another kind");
        };
        let dims: Vec<usize> = shape.iter().flatten().map(|d| d.size().unwrap_or(2)).collect();
        let count = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        if count.is_none_or(|n| n > 1 << 16) {
            return Ok("large input");
        }
        let dtype = dtype.unwrap_or(DType::F32);
        let like = Tensor::scalar(1.5f32);
        let Some(t) = c.tensor(dtype, &dims, &like) else {
            return Ok("input of another type");
        };
        feeds.push((name.to_owned(), Datum::Tensor(t)));
    }
    let done = session.run(feeds.iter().map(|(n, d)| (n, Feed::from(d))));
    match done {
        Ok(_) => Ok("run"),
        Err(e) => {
            if loud {
                println!("{e}");
            }
            Ok("refused")
        }
    }
}

fn blind(file: &mut Vec<u8>, other: &[u8], c: &mut Chance) {
    let n = file.len();
    if n < 4 {
        return;
    }
    let at = c.below(n);
    let len = 1 + c.below(16.min(n - at));
    match c.below(7) {
        0 => file[at] ^= 1 << c.below(8),
        1 => file[at] = *c.pick(&[0, 1, 0x7f, 0x80, 0xff]),
        2 => drop(file.drain(at..at + len)),
        3 => {
            let copy = file[at..at + len].to_vec();
            let to = c.below(n);
            file.splice(to..to, copy);
        }
        4 => {
            let from = c.below(other.len());
            let len = c.below(64).min(other.len() - from);
            file.splice(at..at, other[from..from + len].iter().copied());
        }
        5 => file.truncate(at),
        _ => (at..at + len).for_each(|i| file[i] = c.next() as u8),
    }
}

/// A field of a message.
#[derive(Clone)]
enum Value {
    Varint(u64),
    Fixed(Vec<u8>),
    Bytes(Vec<u8>),
    Message(Vec<(u32, Value)>),
}

fn varint(data: &mut &[u8]) -> Option<u64> {
    let mut x = 0u64;
    for shift in (0..64).step_by(7) {
        let (&b, rest) = data.split_first()?;
        *data = rest;
        x |= u64::from(b & 0x7f) << shift;
        if b < 0x80 {
            return Some(x);
        }
    }
    None
}

fn message(mut data: &[u8], depth: usize) -> Option<Vec<(u32, Value)>> {
    let mut fields = vec![];
    while !data.is_empty() {
        let tag = varint(&mut data)?;
        let number = u32::try_from(tag >> 3).ok().filter(|&n| n > 0 && n < 64)?;
        let fixed = |data: &mut &[u8], n: usize| {
            let (head, rest) = data.split_at_checked(n)?;
            *data = rest;
            Some(head.to_vec())
        };
        let value = match tag & 7 {
            0 => Value::Varint(varint(&mut data)?),
            1 => Value::Fixed(fixed(&mut data, 8)?),
            5 => Value::Fixed(fixed(&mut data, 4)?),
            2 => {
                let len = varint(&mut data)? as usize;
                let bytes = fixed(&mut data, len)?;
                let text = bytes.iter().all(|b| (32..127).contains(b));
                match message(&bytes, depth + 1).filter(|m| depth < 12 && !text && !m.is_empty()) {
                    Some(m) => Value::Message(m),
                    None => Value::Bytes(bytes),
                }
            }
            _ => return None,
        };
        fields.push((number, value));
    }
    Some(fields)
}

fn put_varint(out: &mut Vec<u8>, mut x: u64) {
    while x >= 0x80 {
        out.push(x as u8 | 0x80);
        x >>= 7;
    }
    out.push(x as u8);
}

fn write(fields: &[(u32, Value)]) -> Vec<u8> {
    let mut out = vec![];
    for (number, value) in fields {
        let tag = |wire: u64| u64::from(*number) << 3 | wire;
        match value {
            Value::Varint(x) => {
                put_varint(&mut out, tag(0));
                put_varint(&mut out, *x);
            }
            Value::Fixed(b) => {
                put_varint(&mut out, tag(if b.len() == 8 { 1 } else { 5 }));
                out.extend(b);
            }
            Value::Bytes(b) => {
                put_varint(&mut out, tag(2));
                put_varint(&mut out, b.len() as u64);
                out.extend(b);
            }
            Value::Message(m) => {
                let inner = write(m);
                put_varint(&mut out, tag(2));
                put_varint(&mut out, inner.len() as u64);
                out.extend(inner);
            }
        }
    }
    out
}

fn count(fields: &[(u32, Value)]) -> usize {
    fields
        .iter()
        .map(|(_, v)| match v {
            Value::Message(m) => 1 + count(m),
            _ => 1,
        })
        .sum()
}

/// The list that field `at`, in reading order, stands in, and where.
fn find(fields: &mut Vec<(u32, Value)>, mut at: usize) -> Option<(&mut Vec<(u32, Value)>, usize)> {
    for i in 0..fields.len() {
        if at == 0 {
            return Some((fields, i));
        }
        at -= 1;
        if let Value::Message(m) = &fields[i].1 {
            let inside = count(m);
            if at < inside {
                let Value::Message(m) = &mut fields[i].1 else {
                    return None;
                };
                return find(m, at);
            }
            at -= inside;
        }
    }
    None
}

fn structural(file: &[u8], other: &[u8], c: &mut Chance) -> Vec<u8> {
    let (Some(mut all), Some(mut donor)) = (message(file, 0), message(other, 0)) else {
        return file.to_vec();
    };
    let total = count(&all);
    let from = c.below(count(&donor));
    let given = find(&mut donor, from).map(|(list, i)| list[i].clone());
    let second = c.below(total);
    let own = find(&mut all, second).map(|(list, i)| list[i].clone());
    let (Some(given), Some(own)) = (given, own) else {
        return file.to_vec();
    };
    let at = c.below(total);
    let Some((list, i)) = find(&mut all, at) else {
        return file.to_vec();
    };
    match c.below(8) {
        0 => drop(list.remove(i)),
        1 => {
            let copy = list[i].clone();
            list.insert(i, copy);
        }
        2 => list[i] = given,
        3 => list.insert(i, own),
        4 => list[i].1 = own.1,
        5 => {
            let j = c.below(list.len());
            list.swap(i, j);
        }
        _ => match &mut list[i].1 {
            Value::Varint(x) => *x = c.odd() as u64,
            Value::Fixed(b) => b.iter_mut().for_each(|b| *b = c.next() as u8),
            Value::Bytes(b) if b.len() < 12 && c.once_in(2) => {
                *b = [b"x", b"y", b"a", b"b"][c.below(4)].to_vec()
            }
            Value::Bytes(b) => match c.below(3) {
                0 => drop(b.pop()),
                1 => b.extend([0x80, 0x01]),
                _ => {
                    let at = c.below(b.len());
                    b.iter_mut().skip(at).take(1).for_each(|b| *b = c.next() as u8);
                }
            },
            Value::Message(m) => {
                m.truncate(m.len() / 2);
            }
        },
    }
    write(&all)
}
