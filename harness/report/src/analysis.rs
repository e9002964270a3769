//! What a kernel log says, for a person.

use std::fmt::Write as _;

use dmarig_model::{
    analysis::{Analysis, Power, Presence},
    log::LogKind,
    text::shown,
};

/// Columns of the labels.
const LABEL: usize = 11;

/// Groups that are told one by one.
const GROUPS: usize = 12;

/// Devices and splats that are told in full.
const TOLD: usize = 8;

/// One boot.
pub fn analysis(name: &str, found: &Analysis, width: usize, colour: bool) -> String {
    let mut page = Page { text: String::new(), width, colour };
    let (first, last) = found.lines;
    page.heading(&format!("{} (lines {first} to {last})", shown(name)));
    kernel(&mut page, found);
    let power = match found.iommu.power {
        Power::On => "on",
        Power::Off => "off",
        Power::Untold => "unknown",
    };
    page.line("IOMMU", &format!("{power}: {}", found.iommu.why));
    for unit in &found.units {
        page.line(&unit.name, &unit.offers.join("; "));
        if let (Some(cap), Some(ecap)) = (&unit.cap, &unit.ecap) {
            page.line("", &format!("cap {cap}, ecap {ecap}"));
        }
        if let Some(invalidation) = &unit.invalidation {
            page.line("", &format!("invalidation: {}", invalidation.to_lowercase()));
        }
    }
    mode(&mut page, found);
    warning(&mut page, found);
    if let Some(mode) = &found.interrupt_remapping {
        page.line("interrupts", &format!("remapped, {mode}"));
    }
    groups(&mut page, found);
    faults(&mut page, found);
    splats(&mut page, found);
    let nothing = ["nothing".to_owned()];
    let odd = if found.odd.is_empty() { &nothing[..] } else { &found.odd };
    page.list("odd", odd);
    page.list("notes", &found.notes);
    page.list("next", &found.hints);
    page.text
}

fn kernel(page: &mut Page, found: &Analysis) {
    let kernel = &found.kernel;
    let told = match (&kernel.version, &kernel.release) {
        (Some(version), Some(release)) => format!("{version} ({release})"),
        (None, Some(release)) => release.clone(),
        _ => "unknown: the log does not have its line".to_owned(),
    };
    page.line("kernel", &told);
    if let Some(doubt) = &kernel.doubt {
        page.line("", &format!("to be taken with care: {doubt}"));
    }
    if let Some(words) = &found.command_line {
        page.line("", &format!("parameters `{words}`"));
    }
}

fn mode(page: &mut Page, found: &Analysis) {
    let mode = &found.mode;
    let domain = mode.default_domain.as_deref().unwrap_or("unknown");
    let by = if mode.chosen_by_user { " (by the command line)" } else { "" };
    if found.iommu.power == Power::Off {
        page.line("domains", "none: the IOMMU is off");
    } else {
        page.line("domains", &format!("{domain}{by}"));
    }
    page.line("policy", &mode.policy);
}

fn warning(page: &mut Page, found: &Analysis) {
    let warning = &found.warning;
    let here = |present| if present { "present" } else { "absent" };
    let wanted = |presence| match presence {
        Presence::Present => "present",
        Presence::Absent => "absent",
        Presence::Any => "either",
    };
    let told = match (warning.present, warning.expected) {
        (Some(present), Some(expected)) if present == (expected == Presence::Present) => {
            format!("{}, as expected ({})", here(present), warning.rule)
        }
        (Some(present), Some(expected)) => {
            format!("{}, expected {} ({})", here(present), wanted(expected), warning.rule)
        }
        (Some(present), None) => format!("{}; the expected value is unknown", here(present)),
        (None, Some(expected)) => {
            format!("unknown; expected {} ({})", wanted(expected), warning.rule)
        }
        (None, None) => "unknown, and so is the expected value".to_owned(),
    };
    page.line("warning", &told);
    for why in &warning.untold {
        page.line("", why);
    }
    for line in &warning.lines {
        page.line("", line);
    }
}

fn groups(page: &mut Page, found: &Analysis) {
    if found.groups.is_empty() {
        return;
    }
    let devices: usize = found.groups.values().map(Vec::len).sum();
    page.line("groups", &format!("{} with {devices} devices", found.groups.len()));
    for (number, devices) in found.groups.iter().take(GROUPS) {
        page.line("", &format!("{number}: {}", devices.join(" ")));
    }
    if found.groups.len() > GROUPS {
        page.line("", "...");
    }
}

fn faults(page: &mut Page, found: &Analysis) {
    let faults = &found.faults;
    let swallowed = match faults.suppressed {
        0 => String::new(),
        number => format!(", {number} more suppressed by the kernel's rate limit"),
    };
    page.line("faults", &format!("{}{swallowed}", faults.told));
    for of in faults.devices.iter().take(TOLD) {
        let accesses: Vec<String> =
            of.accesses.iter().map(|(access, count)| format!("{count} {access}")).collect();
        let (low, high) = &of.addresses;
        let range = if low == high { low.clone() } else { format!("{low} to {high}") };
        page.line("", &format!("{}: {}, at {range}", of.device, accesses.join(", ")));
        for reason in &of.reasons {
            let found = match (reason.found, reason.says.as_str()) {
                (Some(found), "" | "Unknown") => found.to_owned(),
                (Some(found), says) => format!("{found} ({says})"),
                (None, says) => says.to_owned(),
            };
            page.line("", &format!("  {}x reason {:#04x}: {found}", reason.count, reason.number));
            if let Some(mostly) = reason.mostly {
                page.line("", &format!("     mostly: {mostly}"));
            }
        }
        page.line("", &format!("  first: {}", of.first));
    }
}

fn splats(page: &mut Page, found: &Analysis) {
    let splats: Vec<_> =
        found.splats.iter().filter(|splat| splat.kind != LogKind::DmaFault).collect();
    for splat in splats.iter().take(TOLD) {
        page.line(&splat.kind.name(), &format!("line {}: {}", splat.at, splat.line));
        for line in &splat.context {
            page.line("", &format!("  {line}"));
        }
    }
}

/// Labelled, wrapped lines.
struct Page {
    text: String,
    width: usize,
    colour: bool,
}

impl Page {
    fn heading(&mut self, text: &str) {
        self.text.push_str(&self.bold(text));
        self.text.push('\n');
    }

    fn bold(&self, text: &str) -> String {
        if self.colour { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A label and its text, which is wrapped at blanks; lines of a log, which may be long, too.
    fn line(&mut self, label: &str, text: &str) {
        let room = self.width.saturating_sub(LABEL + 1).max(20);
        let indent = text.len() - text.trim_start().len();
        let mut rows = vec![" ".repeat(indent)];
        for word in text.split_ascii_whitespace() {
            let row = rows.last().map_or(0, |row| row.chars().count());
            if row > indent && row + 1 + word.chars().count() > room {
                rows.push(format!("{}  {word}", " ".repeat(indent)));
            } else if let Some(row) = rows.last_mut() {
                if row.len() > indent {
                    row.push(' ');
                }
                row.push_str(word);
            }
        }
        for (at, row) in rows.iter().enumerate() {
            let label = if at == 0 { label } else { "" };
            // A label that is too long stands for itself.
            let gap = LABEL.saturating_sub(label.chars().count()).max(1);
            let _ = writeln!(self.text, "{}{}{row}", self.bold(label), " ".repeat(gap));
        }
    }

    fn list(&mut self, label: &str, items: &[String]) {
        for (at, item) in items.iter().enumerate() {
            self.line(if at == 0 { label } else { "" }, item);
        }
    }
}
