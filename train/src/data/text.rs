//! Texts as numbers of words.

use std::collections::HashMap;
use std::sync::Arc;

use super::store::{Cells, Column};

/// The id where a text has ended.
const PADDING: i64 = 0;
/// The id of words that are not in the vocabulary.
const OTHER: i64 = 1;

/// The words of a text: stretches of letters and digits, in lower case.
fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let parts = lower.split(|c: char| !c.is_alphanumeric());
    parts.filter(|w| !w.is_empty()).map(str::to_owned).collect()
}

/// The words that have an id.
pub(super) struct Vocabulary {
    ids: HashMap<String, i64>,
    pub(super) words: Arc<[String]>,
}

impl Vocabulary {
    /// The most frequent words of `texts`, with two ids more `size` at most; of equally frequent ones the first in order.
    pub(super) fn of<'a>(texts: impl Iterator<Item = &'a str>, size: usize) -> Vocabulary {
        let mut counts: HashMap<String, usize> = HashMap::new();
        for word in texts.flat_map(words) {
            *counts.entry(word).or_default() += 1;
        }
        let mut found: Vec<(String, usize)> = counts.into_iter().collect();
        found.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let named = ["[PAD]", "[UNK]"].map(str::to_owned).into_iter();
        let all: Arc<[String]> = named
            .chain(found.into_iter().map(|(w, _)| w))
            .take(size.max(2))
            .collect();
        let ids = all.iter().cloned().zip(0..).skip(2).collect();
        Vocabulary { ids, words: all }
    }

    /// `input_ids`, `attention_mask` and `token_type_ids` (0) of texts, each the first `length` words. A text without words is one unknown one,
    /// since nothing can be learned from nothing.
    pub(super) fn columns(&self, texts: &[String], length: usize) -> Vec<Column> {
        let mut ids = Vec::with_capacity(texts.len() * length);
        let mut mask = Vec::with_capacity(texts.len() * length);
        for (i, text) in texts.iter().enumerate() {
            let id = |w: String| self.ids.get(&w).copied().unwrap_or(OTHER);
            ids.extend(words(text).into_iter().take(length).map(id));
            if ids.len() == i * length {
                ids.push(OTHER);
            }
            mask.resize(ids.len(), 1);
            ids.resize((i + 1) * length, PADDING);
            mask.resize((i + 1) * length, 0);
        }
        let column = |name: &str, all| Column {
            name: name.into(),
            dims: vec![length],
            cells: Cells::Whole(all),
        };
        // Each text is a first sentence; there is no second.
        let kinds = vec![0; ids.len()];
        vec![
            column("input_ids", ids),
            column("attention_mask", mask),
            column("token_type_ids", kinds),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequent_words_have_ids() {
        let texts = ["The cat, the DOG.", "a dog the", "", "zebra's cat dog cat"].map(str::to_owned);
        let vocabulary = Vocabulary::of(texts.iter().map(String::as_str), 6);
        assert_eq!(*vocabulary.words, ["[PAD]", "[UNK]", "cat", "dog", "the", "a"]);
        let columns = vocabulary.columns(&texts, 3);
        let whole = |c: &Column| match &c.cells {
            Cells::Whole(all) => all.clone(),
            _ => vec![],
        };
        assert_eq!(whole(&columns[0]), [4, 2, 4, 5, 3, 4, 1, 0, 0, 1, 1, 2]);
        assert_eq!(whole(&columns[1]), [1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1]);
    }
}
