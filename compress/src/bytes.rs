//! Bytes that plans hold, as base64 (RFC 4648) where they are text.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// Bytes; base64 as text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Raw(pub Vec<u8>);

impl From<Raw> for String {
    fn from(raw: Raw) -> String {
        STANDARD.encode(raw.0)
    }
}

impl TryFrom<String> for Raw {
    type Error = String;

    fn try_from(text: String) -> Result<Raw, String> {
        let wrong = |e| format!("expected base64, found {e}");
        STANDARD.decode(text).map(Raw).map_err(wrong)
    }
}

/// One bit for each element, the first in the lowest bit of the first byte.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bits(Raw);

impl Bits {
    /// These bits.
    pub fn of(bits: impl IntoIterator<Item = bool>) -> Bits {
        let mut bytes = vec![];
        for (i, bit) in bits.into_iter().enumerate() {
            if i % 8 == 0 {
                bytes.push(0);
            }
            bytes[i / 8] |= u8::from(bit) << (i % 8);
        }
        Bits(Raw(bytes))
    }

    /// How many are one.
    pub fn ones(&self) -> u64 {
        self.0.0.iter().map(|b| u64::from(b.count_ones())).sum()
    }

    /// Whether these are bits of so many elements.
    pub fn fits(&self, elements: usize) -> bool {
        self.0.0.len() == elements.div_ceil(8) && self.places().last().is_none_or(|at| at < elements)
    }

    /// Where there is a one, ascending.
    pub fn places(&self) -> impl Iterator<Item = usize> {
        let byte = |(i, &b): (usize, &u8)| (0..8).filter(move |j| b >> j & 1 == 1).map(move |j| 8 * i + j);
        self.0.0.iter().enumerate().flat_map(byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_found_again() {
        for n in [0, 1, 7, 8, 9, 30] {
            let bits: Vec<bool> = (0..n).map(|i| i * i % 7 < 3).collect();
            let packed = Bits::of(bits.iter().copied());
            let places: Vec<_> = packed.places().collect();
            assert!(places.iter().copied().eq((0..n).filter(|&i| bits[i])));
            assert_eq!(packed.ones(), places.len() as u64);
            assert!(packed.fits(n) && !packed.fits(n + 8) && (n == 0 || !packed.fits(0)));
        }
        assert!(!Bits::of([false, true]).fits(1));
    }

    #[test]
    fn text_that_is_no_base64_is_refused() {
        assert_eq!(Raw::try_from("AAE=".to_owned()), Ok(Raw(vec![0, 1])));
        assert!(Raw::try_from("A".to_owned()).unwrap_err().contains("base64"));
        assert_eq!(String::from(Raw(vec![0, 1])), "AAE=");
    }
}
