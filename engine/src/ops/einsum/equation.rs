//! The equation of an `Einsum`.

use crate::ops::{NodeRef, OpError};

/// A letter, or from 256 on an axis that an ellipsis stands for, counted from the last.
pub(super) type Letter = u16;

/// The first letter of those that an ellipsis stands for.
const DOTS: Letter = 256;

/// An equation with its ellipses written out.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Equation {
    /// A letter for each axis of each input.
    pub(super) terms: Vec<Vec<Letter>>,
    /// A letter for each axis of the output.
    pub(super) out: Vec<Letter>,
}

/// The letters of a term before and behind its ellipsis, if it has one.
#[derive(Debug, PartialEq)]
struct Term {
    before: Vec<Letter>,
    behind: Option<Vec<Letter>>,
}

fn wrong(equation: &str, what: impl std::fmt::Display) -> OpError {
    OpError::new(format!("equation {equation:?}: {what}"))
}

fn term(equation: &str, text: &str) -> Result<Term, OpError> {
    let letters = |part: &str| -> Result<Vec<Letter>, OpError> {
        let one = |c: u8| match c.is_ascii_alphabetic() {
            true => Ok(c.into()),
            false => Err(wrong(equation, format_args!("{:?} is no letter", char::from(c)))),
        };
        part.bytes().filter(|&c| c != b' ').map(one).collect()
    };
    Ok(match text.split_once("...") {
        Some((a, b)) => Term {
            before: letters(a)?,
            behind: Some(letters(b)?),
        },
        None => Term {
            before: letters(text)?,
            behind: None,
        },
    })
}

impl Term {
    /// The axes that the ellipsis of a tensor of rank `rank` stands for.
    fn dots(&self, equation: &str, rank: usize) -> Result<usize, OpError> {
        let named = self.before.len() + self.behind.as_ref().map_or(0, Vec::len);
        match self.behind {
            None if named != rank => Err(wrong(
                equation,
                format_args!("{named} letters for a tensor of {rank} axes"),
            )),
            _ => rank.checked_sub(named).ok_or_else(|| {
                wrong(
                    equation,
                    format_args!("{named} letters for a tensor of {rank} axes"),
                )
            }),
        }
    }

    /// The letters, with `dots` of them for the ellipsis.
    fn spelt(self, dots: usize) -> Vec<Letter> {
        let mut all = self.before;
        if let Some(behind) = self.behind {
            all.extend(
                (0..dots)
                    .rev()
                    .filter_map(|i| Some(DOTS + Letter::try_from(i).ok()?)),
            );
            all.extend(behind);
        }
        all
    }
}

/// The equation of a node; `None` where a rank that it depends on is not known.
///
/// # Errors
///
/// If it does not fit the inputs.
pub(super) fn read(n: &NodeRef) -> Result<Option<Equation>, OpError> {
    if n.bytes("equation")?.is_none() {
        return Err(OpError::new("attribute \"equation\" is missing"));
    }
    let text = n.str_or("equation", "")?;
    let (left, right) = match text.split_once("->") {
        Some((left, right)) => (left, Some(term(text, right)?)),
        None => (text, None),
    };
    let terms = left
        .split(',')
        .map(|t| term(text, t))
        .collect::<Result<Vec<_>, _>>()?;
    if terms.len() != n.arity() {
        return Err(wrong(
            text,
            format_args!("{} terms for {} inputs", terms.len(), n.arity()),
        ));
    }
    let mut spelt = vec![];
    let mut most = 0;
    for (i, t) in terms.into_iter().enumerate() {
        let dots = match n.rank(i) {
            Some(rank) => t.dots(text, rank)?,
            None if t.behind.is_some() => return Ok(None),
            None => 0,
        };
        if dots > 1 << 10 {
            return Err(wrong(text, format_args!("input {i} has too many axes")));
        }
        most = most.max(dots);
        spelt.push(t.spelt(dots));
    }
    let out = match right {
        Some(t) => t.spelt(most),
        None => implicit(&spelt, most),
    };
    let eq = Equation { terms: spelt, out };
    let unknown = eq.out.iter().find(|l| !eq.terms.iter().any(|t| t.contains(l)));
    let twice = (1..eq.out.len()).find(|&i| eq.out[..i].contains(&eq.out[i]));
    match (unknown, twice) {
        (None, None) => Ok(Some(eq)),
        _ => Err(wrong(
            text,
            "a letter of the output stands there twice or in no input",
        )),
    }
}

/// The axes of the ellipsis, and the letters that occur once, in alphabetical order.
fn implicit(terms: &[Vec<Letter>], dots: usize) -> Vec<Letter> {
    let all: Vec<Letter> = terms.concat();
    let once = |l: &Letter| all.iter().filter(|m| *m == l).count() == 1;
    let mut named: Vec<Letter> = all.iter().copied().filter(|l| *l < DOTS && once(l)).collect();
    named.sort_unstable();
    let dots = (0..dots)
        .rev()
        .filter_map(|i| Some(DOTS + Letter::try_from(i).ok()?));
    dots.chain(named).collect()
}

impl Equation {
    /// All letters, each once.
    pub(super) fn letters(&self) -> Vec<Letter> {
        let mut all = self.terms.concat();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The equation as an attribute says it, with other letters; `None` where there are not enough of them.
    pub(super) fn text(&self) -> Option<String> {
        let letters = self.letters();
        let names: Vec<char> = ('a'..='z').chain('A'..='Z').collect();
        let name = |l: &Letter| names.get(letters.binary_search(l).ok()?).copied();
        let spell = |t: &Vec<Letter>| t.iter().map(name).collect::<Option<String>>();
        let terms = self.terms.iter().map(spell).collect::<Option<Vec<_>>>()?;
        Some(format!("{}->{}", terms.join(","), spell(&self.out)?))
    }

    /// Whether an input has a letter twice.
    pub(super) fn repeats(&self) -> bool {
        let twice = |t: &Vec<Letter>| (1..t.len()).any(|i| t[..i].contains(&t[i]));
        self.terms.iter().any(twice)
    }
}
