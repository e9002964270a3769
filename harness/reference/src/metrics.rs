//! The page of metrics and checks.

use std::fmt::Write;

use dmarig_model::metrics::{Better, Entry, Family, REGISTRY, Source};

const INTRODUCTION: &str = "\
# Metrics and checks

A *metric* is a number with a unit. `bounds`, `ratios`, `growth`, `limits` and `history` take its name, and so do
`--limit` and the history. A *check* is judged in every cell to which it applies.

Checks that are named after a metric judge that metric. A metric with the prefix `control/` was measured in a
control window, in which the kernel is made to batch. A check with the suffix `-growth` judges how a metric grows
with `live-mappings`. Each attack on the IOMMU has a check whose name begins with `attack-`.

This page is generated from the program's registry.
";

/// One table of metrics per way of measuring, then the other checks by family.
pub(crate) fn page() -> String {
    let mut text = INTRODUCTION.to_owned();
    add_metrics(&mut text, "Times", |entry| entry.is_time());
    add_metrics(&mut text, "Counts", |entry| entry.is_count());
    text.push_str(
        "\n## Other checks\n\n| check | family | measured | judges |\n|---|---|---|---|\n",
    );
    for family in Family::ALL {
        for entry in REGISTRY.iter().filter(|entry| entry.family == family) {
            if entry.unit.is_none() {
                add_row(&mut text, entry, family.name());
            }
        }
    }
    text
}

fn add_metrics(text: &mut String, title: &str, belongs: impl Fn(&Entry) -> bool) {
    writeln!(text, "\n## {title}\n").expect("a String takes everything");
    text.push_str("| metric | unit, better | measured | meaning |\n|---|---|---|---|\n");
    for entry in REGISTRY.iter().filter(|entry| belongs(entry)) {
        let better = match entry.better {
            Some(Better::Lower) => "lower",
            Some(Better::Higher) => "higher",
            None => "",
        };
        add_row(text, entry, &format!("{}, {better}", entry.unit.unwrap_or_default()));
    }
}

fn add_row(text: &mut String, entry: &Entry, second: &str) {
    let Entry { name, explanation, .. } = entry;
    writeln!(text, "| `{name}` | {second} | {} | {explanation} |", measured(entry.source))
        .expect("a String takes everything");
}

const fn measured(source: Source) -> &'static str {
    match source {
        Source::CountingWindow => "QEMU's trace, counting window",
        Source::CountingProbe => "probe, counting window",
        Source::TimingWindow => "clock, timing window",
        Source::TimingProbe => "probe, timing window",
        Source::Log => "kernel log",
        Source::Guest => "guest",
        Source::Workload => "workload",
        Source::Outside => "QEMU, host or outer guest",
    }
}
