//! What kernels take on this machine, as `secateur calibrate` has measured it and written into the user's cache.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, ensure};
use secateur::engine::cpu::isa;
use secateur::engine::plan::{Rate, Rates, Scaling};
use serde_json::{Map, Value, json};

use crate::cmd::stderr;

/// What was measured on this machine; nothing, and a warning if there is a file, where that cannot be read.
pub(crate) fn cached() -> Arc<Rates> {
    static CACHED: OnceLock<Arc<Rates>> = OnceLock::new();
    let load = || {
        let rates = read().unwrap_or_else(|e| {
            let why = crate::cmd::chain(&e);
            stderr(&format!(
                "warning: {why}; built-in rates are used (secateur calibrate measures anew)\n"
            ));
            None
        });
        Arc::new(rates.unwrap_or_default())
    };
    CACHED.get_or_init(load).clone()
}

/// What the cache has of this machine, if anything.
///
/// # Errors
///
/// If it holds something else.
fn read() -> Result<Option<Rates>> {
    let Some(path) = file().ok().filter(|p| p.exists()) else {
        return Ok(None);
    };
    let place = || path.display().to_string();
    let text = fs::read_to_string(&path).with_context(place)?;
    let value: Value = serde_json::from_str(&text).with_context(place)?;
    from_json(&value).with_context(place).map(Some)
}

/// Where the rates of this machine are kept.
///
/// # Errors
///
/// If the user has no folder for such things.
pub(crate) fn file() -> Result<PathBuf> {
    let folder = |name: &str| {
        let path = PathBuf::from(std::env::var_os(name)?);
        path.is_absolute().then_some(path)
    };
    let cache = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    let cache = cache.context("neither XDG_CACHE_HOME nor HOME names a folder for the cache")?;
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    let cpu: String = cpu().chars().map(plain).collect();
    let words: Vec<&str> = cpu.split('-').filter(|w| !w.is_empty()).collect();
    let name = format!(
        "rates-{}-{}-{}.json",
        words.join("-"),
        isa(),
        env!("CARGO_PKG_VERSION")
    );
    Ok(cache.join("secateur").join(name))
}

/// The name of the processor; where Linux does not say, its architecture.
pub(crate) fn cpu_name() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let fields = text.lines().filter_map(|l| l.split_once(':'));
    let mut names = fields.filter(|(k, _)| k.trim() == "model name");
    names
        .next()
        .map_or(std::env::consts::ARCH.into(), |(_, name)| name.trim().into())
}

/// The processor, as Linux describes it; elsewhere its architecture.
pub(crate) fn cpu() -> String {
    const KEYS: [&str; 6] = [
        "model name",
        "cpu family",
        "model",
        "stepping",
        "CPU implementer",
        "CPU part",
    ];
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let first = |key: &str| {
        let lines = text.lines().filter_map(|l| l.split_once(':'));
        let mut values = lines.filter(|(k, _)| k.trim() == key).map(|(_, v)| v.trim());
        values.next().map(str::to_owned)
    };
    let words: Vec<String> = KEYS.iter().filter_map(|k| first(k)).collect();
    match words.is_empty() {
        true => std::env::consts::ARCH.into(),
        false => words.join(" "),
    }
}

/// The figures of one number of threads: billions of operations and of bytes a second, `null` where they cost nothing; and of
/// the bytes beyond `near_bytes`, where these take longer.
pub(crate) fn rate_json(rate: &Rate) -> Map<String, Value> {
    let inverse = |ns: f64| if ns > 0.0 { json!(1.0 / ns) } else { Value::Null };
    let mut map = Map::new();
    map.insert("fixed_us".into(), json!(rate.fixed_us));
    map.insert("gflops".into(), inverse(rate.ns_per_flop));
    map.insert("gbytes_per_s".into(), inverse(rate.ns_per_byte));
    if rate.ns_per_far_byte > 0.0 {
        map.insert("near_bytes".into(), json!(rate.near_bytes));
        let far = rate.ns_per_byte + rate.ns_per_far_byte;
        map.insert("far_gbytes_per_s".into(), inverse(far));
    }
    map
}

fn rate(value: &Value) -> Option<Rate> {
    let inverse = |v: &Value| match v {
        Value::Null => Some(0.0),
        v => v.as_f64().filter(|x| *x > 0.0).map(|x| 1.0 / x),
    };
    let ns_per_byte = inverse(&value["gbytes_per_s"])?;
    let far = inverse(&value["far_gbytes_per_s"])?;
    Some(Rate {
        fixed_us: value["fixed_us"].as_f64().filter(|x| *x >= 0.0)?,
        ns_per_flop: inverse(&value["gflops"])?,
        ns_per_byte,
        near_bytes: value["near_bytes"].as_f64().unwrap_or(0.0),
        ns_per_far_byte: (far - ns_per_byte).max(0.0),
    })
}

/// The rates that `calibrate --json` prints.
///
/// # Errors
///
/// If it is not that.
pub(crate) fn from_json(value: &Value) -> Result<Rates> {
    let threads = value["threads"].as_u64().context("no \"threads\"")?;
    let kernels = value["kernels"].as_array().context("no \"kernels\"")?;
    let one = |k: &Value| -> Option<(String, Scaling)> {
        let one = rate(k)?;
        let all = if threads > 1 {
            rate(&k["all_threads"])?
        } else {
            one
        };
        Some((k["kernel"].as_str()?.to_owned(), Scaling { one, all }))
    };
    let all: Option<BTreeMap<_, _>> = kernels.iter().map(one).collect();
    let all = all.context("\"kernels\" are not what calibrate writes")?;
    ensure!(!all.is_empty(), "\"kernels\" is empty");
    Ok(Rates::new(threads as usize, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(name: &str, one: Rate, all: Rate) -> Value {
        let mut map = rate_json(&one);
        map.insert("kernel".into(), json!(name));
        map.insert("all_threads".into(), rate_json(&all).into());
        map.into()
    }

    #[test]
    fn rates_come_back_from_json() {
        let one = Rate {
            fixed_us: 1.5,
            ns_per_flop: 0.0078125,
            ..Rate::default()
        };
        let all = Rate {
            ns_per_byte: 0.25,
            near_bytes: 1024.0,
            ns_per_far_byte: 0.25,
            ..one
        };
        let text = json!({"threads": 2, "kernels": [kernel("conv", one, all)]}).to_string();
        let rates = from_json(&serde_json::from_str(&text).unwrap()).unwrap();
        let expected = BTreeMap::from([("conv".to_owned(), Scaling { one, all })]);
        assert_eq!(rates, Rates::new(2, expected));
    }

    #[test]
    fn what_calibrate_did_not_write_is_refused() {
        let good = kernel("a", Rate::default(), Rate::default());
        let mut negative = good.clone();
        negative["fixed_us"] = json!(-1.0);
        let mut silent = good.clone();
        silent["gflops"] = json!("many");
        for kernels in [
            json!([negative]),
            json!([silent]),
            json!([]),
            json!({}),
            json!([1]),
        ] {
            let value = json!({"threads": 2, "kernels": kernels});
            assert!(from_json(&value).is_err(), "{value}");
        }
        assert!(from_json(&json!({"kernels": [good]})).is_err());
    }
}
