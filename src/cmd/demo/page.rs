//! The demo's report: one HTML file that needs no other.

use super::chart::chart;
use super::{HEADS, Step};
use crate::cmd::table::thousands;

/// What every report begins with, by which the demo knows its own.
pub(super) const HEAD: &str = "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
    <meta name=\"generator\" content=\"secateur demo\">\n";

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1d2b24; --soft: #5d6b64; --paper: #fbfbf8; --rule: #dfe4df;
  --leaf: #3f8f5f; --bar: #cfe3d4; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ece8; --soft: #9aa8a0; --paper: #161b18; --rule: #2d3630;
  --leaf: #6fc48f; --bar: #2b4535; } }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 46rem;
  margin: 3rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } p { margin: .5rem 0 1.25rem; } .soft { color: var(--soft); }
svg { width: 100%; height: auto; } .grid { stroke: var(--rule); } .bar { fill: var(--bar); }
.line { fill: none; stroke: var(--leaf); stroke-width: 2.5; stroke-linejoin: round; } .dot { fill: var(--leaf); }
.axis { font-size: 12px; fill: var(--soft); } .figure { font-size: 12px; font-weight: 600; fill: var(--ink); }
.key { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin: 0 .35em 0 1em; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .92rem; margin: 1rem 0; }
th, td { padding: .4rem .5rem; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { font-weight: 600; color: var(--soft); } th:first-child, td:first-child, th:last-child, td:last-child { text-align: left; }
code { font-size: .9em; }
";

fn row<'a>(tag: &str, cells: impl Iterator<Item = &'a str>) -> String {
    let cells: String = cells.map(|c| format!("<{tag}>{c}</{tag}>")).collect();
    format!("<tr>{cells}</tr>\n")
}

/// The page about `steps`, which ran on `threads` threads.
pub(super) fn page(steps: &[Step], threads: usize) -> String {
    let head = row("th", HEADS.into_iter());
    let rows: String = steps
        .iter()
        .map(|s| row("td", s.cells().iter().map(|c| &**c)))
        .collect();
    let trained = thousands(1_437);
    let (weights, images) = (thousands(steps[0].trial.zeros.weights), steps[0].trial.images);
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "{HEAD}<meta name=\"viewport\" content=\"width=device-width\">\n<title>secateur demo</title>\n<style>{STYLE}</style>\n\
         <h1>What a digits CNN loses when its weights go</h1>\n\
         <p class=\"soft\">A network of {weights} weights was trained here, on {trained} images. The smallest weights of all \
         layers together are set to zero; what is called tuned was trained on after that, its zeros held. Accuracy is measured on {images} images that the model has not seen; one image is {:.2} %.</p>\n\
         <p class=\"soft\"><span class=\"key\" style=\"background:var(--leaf);margin-left:0\"></span>accuracy\
         <span class=\"key\" style=\"background:var(--bar)\"></span>zeros among the weights</p>\n\
         {}\n<table>\n{head}{rows}</table>\n\
         <p class=\"soft\">ms: one batch of all images on {threads} threads, median of runs in turn. zipped: the file packed as \
         ZIP archives pack it; zeros are stored in the ONNX file like all other numbers. read back: the file was read \
         again and gives the same outputs, bit for bit. secateur {version}</p>\n",
        100.0 / images as f64,
        chart(steps)
    )
}
