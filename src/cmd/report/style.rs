//! What the page and its charts look like.

/// Colours by name, on a light and on a dark ground. Blue and vermilion are told apart by people who see few colours too.
const COLOURS: &[(&str, &str, &str)] = &[
    ("ink", "#1b2320", "#e6eae7"),
    ("soft", "#5b6761", "#9aa69f"),
    ("rule", "#dfe4e0", "#2e3733"),
    ("paper", "#fcfcfa", "#151917"),
    ("live", "#0b6cab", "#62b1e8"),
    ("pale", "#b9d5e8", "#2a4d66"),
    ("warn", "#c44a06", "#f28c4e"),
];

/// Charts.
const CHART: &str = "\
svg text { font: 12px system-ui, 'Helvetica Neue', Arial, sans-serif; fill: var(--ink); }
svg .soft { fill: var(--soft); } svg .small { font-size: 11px; } svg .tiny { font-size: 9.5px; }
svg .title { font-weight: 600; } svg .figure { font-weight: 600; font-size: 11px; } svg .red { fill: var(--warn); }
svg .halo { paint-order: stroke; stroke: var(--paper); stroke-width: 4px; stroke-linejoin: round; }
svg .grid { stroke: var(--rule); } svg .axis { stroke: var(--soft); } svg .tie { stroke: var(--soft); }
svg .live { fill: var(--live); } svg .pale { fill: var(--pale); } svg .grey { fill: var(--soft); }
svg .gone { fill: none; stroke: var(--soft); stroke-dasharray: 2 2; stroke-width: .75; }
svg .hollow { fill: var(--paper); stroke: var(--soft); stroke-width: 1.5; }
svg .path { fill: none; stroke: var(--live); stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
svg .back { fill: none; stroke: var(--warn); stroke-width: 2; stroke-linecap: round; }
svg .bound { stroke: var(--warn); stroke-dasharray: 5 4; } svg .asked { fill: var(--live); opacity: .09; }
svg .harm { fill: var(--warn); }
";

/// Everything else.
const TEXT: &str = "\
:root { color-scheme: light dark; }
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, 'Helvetica Neue', Arial, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 0 auto; padding: 3rem 1.25rem 4rem; }
h1 { font-size: 2rem; line-height: 1.2; letter-spacing: -.015em; margin: .2rem 0 .4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 3.2rem 0 .3rem; letter-spacing: -.005em; }
p { margin: .3rem 0 .9rem; max-width: 44rem; } .soft { color: var(--soft); }
.over { font-size: .8rem; letter-spacing: .08em; text-transform: uppercase; color: var(--soft); margin: 0; }
code, td:first-child bdi { font-family: ui-monospace, 'SF Mono', Menlo, Consolas, monospace; font-size: .88em; }
pre { margin: .8rem 0; padding: .6rem .8rem; border: 1px solid var(--rule); border-radius: 4px; overflow-x: auto; white-space: pre-wrap;
  overflow-wrap: anywhere; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: 1.4rem 1.6rem; margin: 1.8rem 0 1.2rem; padding: 0; }
.figures div { border-top: 2px solid var(--ink); padding-top: .5rem; }
.figures dt { font-size: .85rem; color: var(--soft); } .figures dd { margin: 0; font-variant-numeric: tabular-nums; }
.figures .big { font-size: 2.1rem; line-height: 1.15; font-weight: 600; letter-spacing: -.02em; }
.figures .from { font-size: .82rem; color: var(--soft); }
.gates { list-style: none; padding: 0; margin: 1rem 0 1.6rem; } .gates li { padding-left: 1.6rem; text-indent: -1.6rem; margin: .15rem 0; }
.gates b { display: inline-block; width: 1.6rem; text-indent: 0; color: var(--live); } .gates .no b, .no { color: var(--warn); }
figure { margin: 1rem 0 1.4rem; } .scroll { overflow-x: auto; } svg { display: block; width: 100%; height: auto; }
.scroll > svg { min-width: 36rem; }
figcaption { font-size: .85rem; color: var(--soft); margin-top: .5rem; max-width: 44rem; }
.key { display: inline-block; width: .8em; height: .8em; border-radius: 1px; margin: 0 .4em 0 0; vertical-align: -.06em; }
.key.live { background: var(--live); } .key.pale { background: var(--pale); } .key.gone { border: 1px dashed var(--soft); }
table { border-collapse: collapse; min-width: min(100%, 30rem); font-size: .85rem; font-variant-numeric: tabular-nums; margin: .6rem 0; }
caption { text-align: left; color: var(--soft); padding-bottom: .3rem; }
th, td { padding: .3rem 1.3rem .3rem 0; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { font-weight: 600; color: var(--soft); vertical-align: bottom; } tbody th { font-weight: 400; color: var(--ink); text-align: left; vertical-align: baseline; }
th.word, td.word { text-align: left; } td.word { white-space: normal; overflow-wrap: break-word; max-width: 24rem; }
thead th:first-child { text-align: left; } th:last-child, td:last-child { padding-right: 0; }
details { margin: .6rem 0; } summary { cursor: pointer; font-size: .9rem; color: var(--soft); }
.notes { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; font-size: .85rem; } .notes dt { color: var(--soft); }
.notes dd { margin: 0; overflow-wrap: anywhere; }
footer { margin-top: 3rem; font-size: .82rem; color: var(--soft); }
@media print { body { max-width: none; padding: 0; font-size: 10.5pt; } h2 { break-after: avoid; } figure, tr { break-inside: avoid; }
  .scroll { overflow: visible; } details::details-content { content-visibility: visible; block-size: auto; }
  * { print-color-adjust: exact; } }
";

/// Light colours by name, or dark ones.
fn variables(dark: bool) -> String {
    let one = |(name, light, night): &(&str, &str, &str)| {
        format!("--{name}: {}; ", if dark { night } else { light })
    };
    COLOURS.iter().map(one).collect()
}

/// The style of a page; it is printed with light colours.
pub(super) fn page() -> String {
    format!(
        ":root {{ {}}}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {}}} }}\n{TEXT}{CHART}",
        variables(false),
        variables(true)
    )
}

/// The style of a chart in a file of its own, on white paper. Some programs know no variables.
pub(super) fn chart() -> String {
    COLOURS
        .iter()
        .fold(CHART.replace("svg ", ""), |style, (name, light, _)| {
            style.replace(&format!("var(--{name})"), light)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_colour_that_is_used_has_a_value() {
        let page = page();
        for used in page.split("var(--").skip(1) {
            let name = used.split(')').next().unwrap();
            assert!(COLOURS.iter().any(|c| c.0 == name), "{name}");
        }
        assert!(!chart().contains("var(") && !chart().contains("svg "));
    }
}
