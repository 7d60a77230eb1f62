//! Names chosen by patterns.

use secateur_engine::glob::matches;
use secateur_engine::run::distance;

use crate::error::MethodError;
use crate::weights::{Exempt, Weight};

/// What the caller says of which weights to prune, by patterns for the names of weights and of the nodes that read them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choice {
    /// What to leave as it is.
    pub keep: Vec<String>,
    /// What to prune although it would be left as it is: embeddings, biases. `keep` comes first.
    pub include: Vec<String>,
}

impl Choice {
    /// Marks `weights` accordingly.
    ///
    /// # Errors
    ///
    /// If a pattern fits no name.
    pub fn mark(&self, weights: &mut [Weight]) -> Result<(), MethodError> {
        for (patterns, exempt) in [(&self.include, None), (&self.keep, Some(Exempt::Kept))] {
            for pattern in patterns {
                let mut found = false;
                for w in weights
                    .iter_mut()
                    .filter(|w| names(w).any(|n| matches(pattern, n)))
                {
                    found = true;
                    w.exempt = exempt.clone();
                }
                if !found {
                    return Err(MethodError::unmatched(
                        pattern,
                        nearest(pattern, weights.iter().flat_map(names)),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Those of its patterns that fit one of `weights`.
    pub(crate) fn fitting(&self, weights: &[Weight]) -> Choice {
        let fits = |pattern: &&String| weights.iter().flat_map(names).any(|n| matches(pattern, n));
        let those = |patterns: &[String]| patterns.iter().filter(fits).cloned().collect();
        Choice {
            keep: those(&self.keep),
            include: those(&self.include),
        }
    }
}

pub(crate) fn names(w: &Weight) -> impl Iterator<Item = &str> {
    let own = [&*w.name, &*w.value].into_iter();
    own.chain(w.nodes.iter().map(String::as_str))
}

/// Names that an error lists.
const NEAREST: usize = 5;

/// The names that are most like `pattern`.
pub(crate) fn nearest<'a>(pattern: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let letters = pattern.replace(['*', '?'], "");
    let mut names: Vec<&str> = names.filter(|n| !n.is_empty()).collect();
    names.sort();
    names.dedup();
    let within = |name: &str| name.to_lowercase().contains(&letters.to_lowercase());
    names.sort_by_cached_key(|name| (!within(name), distance(&letters, name)));
    names.into_iter().take(NEAREST).map(String::from).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use secateur_engine::Tensor;

    use super::*;
    use crate::math::Kind;

    fn weight(name: &str, node: &str) -> Weight {
        Weight {
            name: name.into(),
            value: name.into(),
            nodes: vec![node.into()],
            tensor: Arc::new(Tensor::of(&[1, 1], vec![1f32])),
            kind: Kind::F32,
            matrix: None,
            exempt: None,
        }
    }

    #[test]
    fn keep_wins_over_include_and_nodes_have_names_too() {
        let mut weights = [
            weight("a.w", "conv1"),
            weight("b.w", "conv2"),
            weight("c.w", "fc"),
        ];
        weights[2].exempt = Some(Exempt::Vector);
        let choice = Choice {
            keep: vec!["conv?".into()],
            include: vec!["*.w".into()],
        };
        choice.mark(&mut weights).unwrap();
        let exempt: Vec<_> = weights.iter().map(|w| w.exempt.clone()).collect();
        assert_eq!(exempt, [Some(Exempt::Kept), Some(Exempt::Kept), None]);
    }

    #[test]
    fn a_pattern_without_a_name_is_refused_with_near_names() {
        let mut weights = [weight("encoder.weight", "mm"), weight("head.weight", "mm2")];
        let choice = Choice {
            keep: vec!["*haed*".into()],
            include: vec![],
        };
        let error = choice.mark(&mut weights).unwrap_err().to_string();
        assert!(
            error.contains("\"*haed*\"") && error.contains("\"head.weight\""),
            "{error}"
        );
    }
}
