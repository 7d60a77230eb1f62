//! Numbers as text.

use super::{Mode, converted, refuse};
use crate::cpu::number::Numbers;
use crate::ir::{DType, Data, Tensor};
use crate::ops::OpError;

/// The numbers of `x` as text: the shortest decimals that stand for them.
pub(super) fn write(x: &Tensor, numbers: &Numbers) -> Result<Tensor, OpError> {
    let double = x.dtype() == DType::F64;
    let all: Vec<Vec<u8>> = match numbers {
        Numbers::Int(all) => all.iter().map(|x| x.to_string().into_bytes()).collect(),
        Numbers::Real(all) => all.iter().map(|&x| real(x, double).into_bytes()).collect(),
    };
    Tensor::new(DType::String, x.dims().to_vec(), Data::Strings(all.into()))
        .map_err(|e| OpError::new(e.to_string()))
}

fn real(x: f64, double: bool) -> String {
    match x {
        _ if x.is_nan() => "NaN".into(),
        f64::INFINITY => "INF".into(),
        f64::NEG_INFINITY => "-INF".into(),
        _ if double => x.to_string(),
        _ => (x as f32).to_string(),
    }
}

/// The numbers that the strings of `x` spell, as elements of type `to`.
pub(super) fn read(x: &Tensor, to: DType, mode: Mode) -> Result<Tensor, OpError> {
    let words = x.strings().iter().map(|s| {
        let text = std::str::from_utf8(s).map(str::trim);
        text.map_err(|_| OpError::new("a string that is not UTF-8 is no number"))
    });
    let words = words.collect::<Result<Vec<_>, _>>()?;
    let wrong = |w: &str| OpError::new(format!("{w:?} is no number"));
    if to == DType::F32 {
        // Rounded once.
        let all = words.iter().map(|w| w.parse::<f32>().map_err(|_| wrong(w)));
        return Ok(Tensor::of(x.dims(), all.collect::<Result<_, _>>()?));
    }
    let numbers = match to.is_int() || to == DType::Bool {
        true => {
            let all = words.iter().map(|w| whole(w).ok_or_else(|| wrong(w)));
            Numbers::Int(all.collect::<Result<_, _>>()?)
        }
        false => {
            let all = words.iter().map(|w| w.parse::<f64>().map_err(|_| wrong(w)));
            Numbers::Real(all.collect::<Result<_, _>>()?)
        }
    };
    converted(numbers, x.dims(), to, mode).ok_or_else(|| refuse(DType::String, to))
}

/// The integer that `word` spells, without its fraction; 0 and 1 for truth values.
fn whole(word: &str) -> Option<i128> {
    let truth = || match word.to_ascii_lowercase().as_str() {
        "true" => Some(1),
        "false" => Some(0),
        _ => None,
    };
    let exact = word.parse::<i128>().ok().or_else(truth);
    exact.or_else(|| Some(word.parse::<f64>().ok()? as i64 as i128))
}
