//! Operators on strings.

use regex::Regex;

use super::binary::{broadcast_dims, stretch, two};
use super::pick::given;
use super::shape::{arity, broadcast_all, show};
use super::{Axes, Case, Fact, NodeRef, Op, OpError, OpName, onnx};
use crate::ir::{DType, Dim, Tensor};

/// Refuses inputs that are no strings.
fn strings(n: &NodeRef) -> Result<(), OpError> {
    let other = |i: &usize| n.dtype(*i).is_some_and(|d| d != DType::String);
    match (0..n.arity()).find(other) {
        Some(i) => Err(OpError::new(format!(
            "input {i} is of type {}; expected strings",
            n.dtype(i).unwrap_or(DType::String)
        ))),
        None => Ok(()),
    }
}

/// A string as text.
fn text(s: &[u8]) -> Result<&str, OpError> {
    std::str::from_utf8(s).map_err(|_| OpError::new(format!("{:?} is not UTF-8", String::from_utf8_lossy(s))))
}

/// A tensor of strings for cases.
fn words(dims: &[usize], all: &[&str]) -> Tensor {
    Tensor::texts(dims, all.iter().copied())
}

/// ONNX `StringConcat`: the strings of one tensor with those of another behind them.
pub struct StringConcat;

impl Op for StringConcat {
    fn name(&self) -> OpName {
        onnx("StringConcat")
    }

    fn since(&self) -> &'static [u16] {
        &[20]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 2, 2)?;
        strings(n)?;
        Ok(vec![Fact::tensor(Some(DType::String), broadcast_all(n)?)])
    }

    fn eval(&self, _: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let [a, b] = two(x)?;
        let out = broadcast_dims(a.dims(), b.dims())?;
        let at = stretch(a.dims(), &out).into_iter().zip(stretch(b.dims(), &out));
        let (a, b) = (a.strings(), b.strings());
        Ok(vec![Tensor::texts(
            &out,
            at.map(|(i, j)| [&a[i][..], &b[j]].concat()),
        )])
    }

    fn cases(&self) -> Vec<Case> {
        vec![
            Case::new("plain", [words(&[2], &["a", ""]), words(&[2], &["b", "ü"])]),
            Case::new(
                "broadcast",
                [words(&[2, 1], &["a", "b"]), words(&[2], &["x", "y"])],
            ),
            Case::new("nothing", [words(&[0], &[]), words(&[1], &["x"])]),
        ]
    }
}

/// ONNX `StringSplit`: the parts of each string between delimiters, filled up with empty strings, and their numbers.
pub struct StringSplit;

/// The parts of `s`, at most one more than `splits`.
fn parts<'s>(s: &'s str, delimiter: &str, splits: usize) -> Vec<&'s str> {
    if !delimiter.is_empty() {
        return s.splitn(splits.saturating_add(1), delimiter).collect();
    }
    let (mut rest, mut all) = (s.trim(), vec![]);
    while !rest.is_empty() {
        let end = rest.find(char::is_whitespace).filter(|_| all.len() < splits);
        let (part, behind) = rest.split_at(end.unwrap_or(rest.len()));
        all.push(part);
        rest = behind.trim_start();
    }
    all
}

impl Op for StringSplit {
    fn name(&self) -> OpName {
        onnx("StringSplit")
    }

    fn since(&self) -> &'static [u16] {
        &[20]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 1)?;
        strings(n)?;
        n.int("maxsplit")?;
        n.bytes("delimiter")?;
        let shape = n.shape(0).cloned();
        let longer = shape.clone().map(|mut s| {
            s.push(Dim::Unknown);
            s
        });
        Ok(vec![
            Fact::tensor(Some(DType::String), longer),
            Fact::tensor(Some(DType::I64), shape),
        ])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        Some(super::shape::tied(n.rank(0)?, |i| vec![(0, i)]))
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let x = given(x, 0)?;
        let delimiter = n.str_or("delimiter", "")?;
        // None, or a negative number, stands for as many as there are.
        let splits = n.int("maxsplit")?.and_then(|s| usize::try_from(s).ok());
        let splits = splits.unwrap_or(usize::MAX);
        let all = x.strings().iter();
        let all = all
            .map(|s| Ok(parts(text(s)?, delimiter, splits)))
            .collect::<Result<Vec<_>, OpError>>()?;
        let most = all.iter().map(Vec::len).max().unwrap_or(0);
        let filled = |p: &Vec<&str>| {
            p.iter()
                .copied()
                .chain(std::iter::repeat(""))
                .take(most)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let y = Tensor::texts(&[x.dims(), &[most]].concat(), all.iter().flat_map(filled));
        let counts = all.iter().map(|p| p.len() as i64).collect();
        Ok(vec![y, Tensor::of(x.dims(), counts)])
    }

    fn cases(&self) -> Vec<Case> {
        let x = || words(&[2, 2], &["a,b,,c", "", "d", ",x "]);
        let blank = || words(&[3], &["  a b   c ", "", " \t"]);
        vec![
            Case::new("commas", [x()]).attr("delimiter", ",").outputs(2),
            Case::new("one split", [x()])
                .attr("delimiter", ",")
                .attr("maxsplit", 1)
                .outputs(2),
            Case::new("blanks", [blank()]).outputs(2),
            Case::new("one blank", [blank()]).attr("maxsplit", 1).outputs(2),
            Case::new("nothing", [words(&[0], &[])]).outputs(2),
        ]
    }
}

/// ONNX `StringNormalizer`: strings without stop words, in lower or upper case. The locale has no effect.
pub struct StringNormalizer;

/// What becomes of the case of letters.
fn change(n: &NodeRef) -> Result<fn(&str) -> String, OpError> {
    match n.str_or("case_change_action", "NONE")? {
        "NONE" => Ok(str::to_owned),
        "LOWER" => Ok(str::to_lowercase),
        "UPPER" => Ok(str::to_uppercase),
        other => Err(OpError::new(format!(
            "case_change_action {other:?}; expected NONE, LOWER or UPPER"
        ))),
    }
}

impl Op for StringNormalizer {
    fn name(&self) -> OpName {
        onnx("StringNormalizer")
    }

    fn since(&self) -> &'static [u16] {
        &[10]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 1)?;
        strings(n)?;
        n.ignore(&["locale"]);
        change(n)?;
        n.int("is_case_sensitive")?;
        n.strings("stopwords")?;
        let shape = match n.shape(0) {
            None => None,
            Some(s) if s.len() == 1 => Some(vec![Dim::Unknown]),
            Some(s) if s.len() == 2 && s[0].known().is_none_or(|d| d == 1) => {
                Some(vec![Dim::Known(1), Dim::Unknown])
            }
            Some(s) => {
                return Err(OpError::new(format!("shape {}; expected [c] or [1, c]", show(s))));
            }
        };
        Ok(vec![Fact::tensor(Some(DType::String), shape)])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (x, change) = (given(x, 0)?, change(n)?);
        let exact = n.int_or("is_case_sensitive", 0)? != 0;
        let key = |s: &str| if exact { s.to_owned() } else { s.to_lowercase() };
        let stop = n.strings("stopwords")?.unwrap_or(&[]).iter();
        let stop = stop
            .map(|s| Ok(key(text(s)?)))
            .collect::<Result<Vec<_>, OpError>>()?;
        let mut kept = vec![];
        for s in x.strings() {
            let s = text(s)?;
            if !stop.contains(&key(s)) {
                kept.push(change(s));
            }
        }
        if kept.is_empty() {
            kept.push(String::new());
        }
        let mut dims = vec![1; x.dims().len().saturating_sub(1)];
        dims.push(kept.len());
        Ok(vec![Tensor::texts(&dims, kept)])
    }

    fn cases(&self) -> Vec<Case> {
        use crate::ir::AttrValue::Strings;
        let stop = || Strings(vec![b"monday".to_vec()]);
        let x = || words(&[4], &["Monday", "tuesday", "monday", "Ärger"]);
        vec![
            Case::new("as they are", [x()]),
            Case::new("without a day", [x()])
                .attr("stopwords", stop())
                .attr("case_change_action", "UPPER"),
            Case::new("with one of them", [x()])
                .attr("stopwords", stop())
                .attr("is_case_sensitive", 1)
                .attr("case_change_action", "LOWER")
                .attr("locale", "en_US"),
            Case::new("none left", [words(&[1, 2], &["monday", "MONDAY"])]).attr("stopwords", stop()),
        ]
    }
}

/// ONNX `RegexFullMatch`: whether a pattern matches the whole string.
pub struct RegexFullMatch;

/// RE2's `pattern` as this engine's crate for regular expressions spells it.
///
/// In RE2, `\d`, `\s`, `\w` and `\b` know ASCII only; `\Q…\E` quotes; in a class, `[` and doubled `&` and `~` stand for
/// themselves.
fn respelt(pattern: &str) -> String {
    let (mut out, mut rest, mut class) = (String::new(), pattern.chars(), None);
    while let Some(c) = rest.next() {
        let at = class.map(|at: usize| at + 1);
        class = at;
        match c {
            '\\' => match rest.next() {
                Some('d') => out.push_str("[0-9]"),
                Some('D') => out.push_str("[^0-9]"),
                Some('s') => out.push_str("[\\t\\n\\f\\r ]"),
                Some('S') => out.push_str("[^\\t\\n\\f\\r ]"),
                Some('w') => out.push_str("[0-9A-Za-z_]"),
                Some('W') => out.push_str("[^0-9A-Za-z_]"),
                Some(b @ ('b' | 'B')) => out.push_str(&format!("(?-u:\\{b})")),
                Some('Q') => {
                    let (quoted, behind) = rest.as_str().split_once("\\E").unwrap_or((rest.as_str(), ""));
                    out.push_str(&regex::escape(quoted));
                    rest = behind.chars();
                }
                Some(other) => out.extend(['\\', other]),
                None => out.push('\\'),
            },
            '[' if class.is_none() => {
                out.push('[');
                class = Some(0);
            }
            '[' if rest.as_str().starts_with(':') => {
                let (name, behind) = rest.as_str().split_once(":]").unwrap_or((rest.as_str(), ""));
                out.push_str(&format!("[{name}:]"));
                rest = behind.chars();
            }
            '^' if at == Some(1) => {
                out.push('^');
                class = Some(0);
            }
            // The first character of a class does not end it.
            ']' if at.is_some_and(|at| at > 1) => {
                out.push(']');
                class = None;
            }
            '[' | ']' | '&' | '~' if class.is_some() => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out
}

fn full(n: &NodeRef) -> Result<Regex, OpError> {
    let pattern = n.str_or("pattern", "")?;
    Regex::new(&format!(r"\A(?:{})\z", respelt(pattern)))
        .map_err(|e| OpError::new(format!("pattern {pattern:?}: {e}")))
}

impl Op for RegexFullMatch {
    fn name(&self) -> OpName {
        onnx("RegexFullMatch")
    }

    fn since(&self) -> &'static [u16] {
        &[20]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 1)?;
        strings(n)?;
        n.bytes("pattern")?;
        Ok(vec![Fact::tensor(Some(DType::Bool), n.shape(0).cloned())])
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (x, regex) = (given(x, 0)?, full(n)?);
        let all = x.strings().iter().map(|s| Ok(regex.is_match(text(s)?)));
        Ok(vec![Tensor::bools(
            x.dims(),
            all.collect::<Result<Vec<_>, OpError>>()?,
        )])
    }

    fn cases(&self) -> Vec<Case> {
        let x = || words(&[2, 2], &["www.google.com", "a.com\n", "äb", "a1"]);
        vec![
            Case::new("a name", [x()]).attr("pattern", r"www\.[\w.-]+\.\bcom\b"),
            Case::new("alternatives", [x()]).attr("pattern", "a|a1"),
            Case::new("nothing", [words(&[0], &[])]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_in_re2() {
        for (pattern, yes, no) in [
            (r"\d+", "19", "٣"),
            (r"[\d_]+", "1_", "a"),
            (r"\Qa.b\E+", "a.bb", "axb"),
            (r"[[:alpha:]&&]+", "a&&", "1"),
            (r"[]a[]+", "[]a", "b"),
            (r"[^]]", "a", "]"),
            (r"\w\W\S\s", "a-b ", "a-  "),
            (r"(?i)ä", "Ä", "a"),
        ] {
            let regex = Regex::new(&format!(r"\A(?:{})\z", respelt(pattern))).unwrap();
            assert!(regex.is_match(yes) && !regex.is_match(no), "{pattern}");
        }
    }

    #[test]
    fn the_last_part_keeps_what_is_not_split() {
        assert_eq!(parts(" a b  c ", "", 1), ["a", "b  c"]);
        assert_eq!(parts(" a b  c ", "", 9), ["a", "b", "c"]);
        assert_eq!(parts("a--b--c", "--", 1), ["a", "b--c"]);
        assert_eq!(parts("", ",", 1), [""]);
    }
}
