//! Names chosen by patterns.

/// Whether all of `name` fits `pattern`, in which `*` stands for any characters or none and `?` for one. Everything else
/// stands for itself, in the same case.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Behind the last star, and where in the name what follows it is tried.
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p + 1, n));
                p += 1;
            }
            Some(&c) if c == '?' || c == name[n] => (p, n) = (p + 1, n + 1),
            _ => {
                let Some((behind, tried)) = star else { return false };
                star = Some((behind, tried + 1));
                (p, n) = (behind, tried + 1);
            }
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks() {
        let yes = [
            ("*", ""),
            ("a*c", "abbc"),
            ("*head*", "model/head.weight"),
            ("?*b", "aab"),
            ("a?", "aé"),
            ("**", "x"),
            ("*a*b", "aaab"),
            ("w[0]", "w[0]"),
        ];
        let no = [
            ("", "a"),
            ("a", "A"),
            ("a?", "a"),
            ("*b", "ba"),
            ("a*a", "a"),
            ("head", "my head"),
        ];
        assert!(yes.iter().all(|(p, n)| matches(p, n)));
        assert!(!no.iter().any(|(p, n)| matches(p, n)));
    }

    #[test]
    fn a_hostile_pattern_ends() {
        let pattern = "*a".repeat(200) + "b";
        assert!(!matches(&pattern, &"a".repeat(10_000)));
    }
}
