//! Figures measured earlier, to compare with.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// How the figures have changed.
pub(super) struct Verdict {
    pub(super) text: String,
    pub(super) json: Value,
    pub(super) pass: bool,
}

/// What an earlier run printed.
///
/// # Errors
///
/// If the file is not such a thing.
pub(super) fn read(path: &Path) -> Result<Value> {
    let place = || path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(place)?;
    let value: Value = serde_json::from_str(&text).with_context(place)?;
    match value["results"].is_array() {
        true => Ok(value),
        false => bail!("{}: no \"results\"; expected what bench --json prints", place()),
    }
}

fn medians(report: &Value) -> impl Iterator<Item = (&str, f64)> {
    let results = report["results"].as_array().into_iter().flatten();
    results.filter_map(|r| Some((r["engine"].as_str()?, r["median_ms"].as_f64()?)))
}

/// Compares the medians of `new` with those of `old`; passes if none is more than `limit` percent greater.
///
/// # Errors
///
/// If no engine is in both.
pub(super) fn compare(old: &Value, new: &Value, limit: Option<f64>) -> Result<Verdict> {
    let mut verdict = Verdict {
        text: String::new(),
        json: json!([]),
        pass: true,
    };
    let mut rows = vec![];
    for (engine, ms) in medians(new) {
        let Some((_, was)) = medians(old).find(|(e, ms)| *e == engine && *ms > 0.0) else {
            continue;
        };
        let slower = 100.0 * (ms / was - 1.0);
        let pass = limit.is_none_or(|limit| slower <= limit);
        let failed = if pass { "" } else { ": too slow" };
        rows.push(format!(
            "{engine}: {ms:.3} ms, was {was:.3} ms ({slower:+.1} %{failed})"
        ));
        verdict.pass &= pass;
        if let Some(all) = verdict.json.as_array_mut() {
            all.push(json!({"engine": engine, "median_ms": was, "slower_percent": slower, "pass": pass}));
        }
    }
    if rows.is_empty() {
        bail!("the baseline has none of the engines");
    }
    verdict.text = rows.join("\n");
    Ok(verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slower_by_more_than_the_limit_fails() {
        let of = |ms: f64| json!({"results": [{"engine": "self", "median_ms": ms}]});
        let pass = |new, limit| compare(&of(10.0), &of(new), limit).unwrap().pass;
        assert!(pass(10.2, Some(3.0)) && !pass(10.4, Some(3.0)));
        assert!(pass(99.0, None) && pass(1.0, Some(0.0)));
        let other = json!({"results": [{"engine": "ort", "median_ms": 1.0}]});
        assert!(compare(&other, &of(1.0), None).is_err());
    }
}
