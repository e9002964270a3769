//! What is wrong with a case file although each of its values is well-formed.

use super::{CaseFile, WorkloadFile, never_holds};
use crate::{
    axes::{Accelerator, Axes, Device},
    conditions::AxisSets,
    expect::Rule,
    mistake::Mistake,
    mistake::Step,
    probe::{Knobs, MAX_ENTRIES, MAX_QUEUES},
    text::shown,
    version::VersionRange,
};

mod metrics;

use metrics::Known;

/// Cells that one case may have; more are a mistake.
const MAX_CELLS: usize = 10_000;

/// Collects mistakes below one path.
struct At<'a> {
    path: Vec<Step>,
    into: &'a mut Vec<Mistake>,
}

impl At<'_> {
    fn key(&mut self, key: &str) -> At<'_> {
        let mut path = self.path.clone();
        path.push(Step::Key(key.to_owned()));
        At { path, into: self.into }
    }

    fn index(&mut self, index: usize) -> At<'_> {
        let mut path = self.path.clone();
        path.push(Step::Index(index));
        At { path, into: self.into }
    }

    fn wrong(&mut self, what: impl Into<String>) {
        self.into.push(Mistake::new(what).under(&self.path));
    }
}

/// Adds what is wrong with `file` to `into`. A section that was not read whole is left alone, and
/// so is what depends on it.
pub(super) fn check(file: &CaseFile, unread: &[Mistake], into: &mut Vec<Mistake>) {
    let whole = |key: &str| {
        !unread.iter().any(|mistake| matches!(mistake.path.first(), Some(Step::Key(k)) if k == key))
    };
    let mut at = At { path: Vec::new(), into };
    if whole("case") {
        name(&file.case, &mut at.key("case"));
    }
    if whole("workload") {
        workload(&file.workload, &mut at.key("workload"));
    }
    if whole("windows") && !file.windows.count && file.windows.time == 0 {
        at.key("windows").wrong("neither counts nor times: nothing would run");
    }
    if whole("windows") && (file.windows.time > 1000 || file.windows.warm_up > 1000) {
        at.key("windows").wrong("more than 1000 repetitions");
    }
    if whole("probe") {
        probe(&file.probe, &mut at.key("probe"));
    }
    if whole("axes") {
        axes(&file.axes, &mut at.key("axes"));
    }
    let mut known = Known::of(file, whole("windows"));
    if whole("axes") && whole("exclude") && file.axes.size() <= MAX_CELLS {
        known.cells = cells(file, &mut at);
        if whole("workload") {
            devices(file, &mut at);
        }
        if whole("expect") && !known.cells.is_empty() {
            rules(file, &known, &mut at.key("expect"));
        }
    }
    if whole("limits") {
        metrics::limits(file, &known, &mut at.key("limits"));
    }
    if whole("history") {
        metrics::history(file, &known, &mut at.key("history"));
    }
}

fn name(name: &str, at: &mut At<'_>) {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !(1..=64).contains(&name.len())
        || !name.chars().all(fits)
        || !name.starts_with(|c: char| c.is_ascii_alphanumeric())
    {
        at.wrong(format!(
            "invalid name `{}`: expected up to 64 letters, digits, dots, dashes and underscores, starting with a letter or digit",
            shown(name)
        ));
    }
}

fn workload(workload: &WorkloadFile, at: &mut At<'_>) {
    let dma = workload.block.is_some() || workload.net.is_some();
    match (dma, workload.exec.is_some(), workload.idle.is_some()) {
        (false, false, false) => at.wrong("no workload; there are block, net, exec, idle"),
        (true, false, false) | (false, true, false) | (false, false, true) => {}
        _ => at.wrong("more than one workload: only block and net go together, by device"),
    }
    if let Some(block) = &workload.block {
        let at = &mut at.key("block");
        let size = block.block_size.0;
        if size == 0 || size % 4096 != 0 || size > 1 << 20 {
            at.key("block-size")
                .wrong(format!("{} is not a multiple of 4KiB up to 1MiB", block.block_size));
        }
        between(block.ops, 1, u64::MAX, at, "ops");
        between(block.queue_depth.into(), 1, 1024, at, "queue-depth");
        between(block.threads.into(), 1, 64, at, "threads");
        between(block.read_percent.into(), 0, 100, at, "read-percent");
        if let Some(linger) = block.linger.filter(|linger| linger.0.as_secs() > 60) {
            at.key("linger").wrong(format!("{} s is more than a minute", linger.0.as_secs()));
        }
        let least = size.saturating_mul(block.threads.into());
        if block.span.0 != 0 && block.span.0 < least {
            at.key("span").wrong(format!(
                "{} is too small for {} thread(s) with blocks of {}",
                block.span, block.threads, block.block_size
            ));
        }
    }
    if let Some(net) = &workload.net {
        let at = &mut at.key("net");
        between(net.frame_size.into(), 64, 1514, at, "frame-size");
        between(net.frames, 1, u64::MAX, at, "frames");
        between(net.window.into(), 1, 256, at, "window");
    }
    if let Some(exec) = &workload.exec {
        let mut at = at.key("exec");
        if exec.argv.first().is_none_or(|program| !program.starts_with('/')) {
            at.key("argv").wrong("its first word must be the program's path in the guest: /...");
        }
    }
}

fn probe(probe: &Knobs, at: &mut At<'_>) {
    let most = u64::from(MAX_QUEUES);
    between(probe.hold_back.into(), 0, 1024, at, "hold-back");
    between(probe.queue_entries.unwrap_or(2).into(), 2, MAX_ENTRIES.into(), at, "queue-entries");
    between(probe.queues.unwrap_or(1).into(), 1, most, at, "queues");
    between(probe.vectors.unwrap_or(1).into(), 1, most + 1, at, "vectors");
}

fn between(value: u64, min: u64, max: u64, at: &mut At<'_>, key: &str) {
    if !(min..=max).contains(&value) {
        at.key(key).wrong(match max {
            u64::MAX => format!("{value} is too few: at least {min}"),
            _ => format!("{value} is out of range: {min} to {max}"),
        });
    }
}

fn axes(axes: &AxisSets, at: &mut At<'_>) {
    for (axis, index) in axes.repeated() {
        let what = "a value that stands in this list already";
        at.key(axis.name()).index(index).wrong(what);
    }
    for (axis, what) in axes.out_of_range() {
        at.key(axis.name()).wrong(what);
    }
    if axes.size() > MAX_CELLS {
        at.wrong(format!("{} cells; a case has at most {MAX_CELLS}", axes.size()));
    }
}

/// The cells that are left, having checked what takes some away.
fn cells(file: &CaseFile, at: &mut At<'_>) -> Vec<Axes> {
    let all = file.axes.product();
    for (index, exclude) in file.exclude.iter().enumerate() {
        let mut at = at.key("exclude");
        let mut at = at.index(index);
        if exclude.when.given().is_empty() {
            at.key("when").wrong("no condition: it would leave out everything");
        } else if !all.iter().any(|axes| exclude.when.contains(axes)) {
            at.key("when").wrong("never holds: no cell of this case is like that");
        }
    }
    let left: Vec<Axes> = all
        .into_iter()
        .filter(|axes| !file.exclude.iter().any(|exclude| exclude.when.contains(axes)))
        .collect();
    if left.is_empty() {
        at.key("exclude").wrong("leaves out every cell: the matrix is empty");
    }
    left
}

fn devices(file: &CaseFile, at: &mut At<'_>) {
    let default = [Device::default()];
    let devices = if file.axes.device.is_empty() { &default } else { &*file.axes.device };
    let WorkloadFile { block, net, .. } = &file.workload;
    if block.is_none() && net.is_none() {
        return;
    }
    let disk = devices.iter().find(|device| !device.is_network());
    let nic = devices.iter().find(|device| device.is_network());
    let mut at = at.key("workload");
    match (disk, block) {
        (Some(disk), None) => at.wrong(format!("no `block` workload for the disk {disk}")),
        (None, Some(_)) => at.key("block").wrong("no device of this case is a disk"),
        _ => {}
    }
    match (nic, net) {
        (Some(nic), None) => at.wrong(format!("no `net` workload for the interfaces {nic}")),
        (None, Some(_)) => at.key("net").wrong("no device of this case is a network interface"),
        _ => {}
    }
}

fn rules(file: &CaseFile, known: &Known<'_>, at: &mut At<'_>) {
    for (index, rule) in file.expect.iter().enumerate() {
        let mut at = at.index(index);
        ranges(rule, &mut at);
        if never_holds(&rule.when, &known.cells) && !any_range_is_empty(rule) {
            at.key("when").wrong("never holds: no cell of this case is like that");
        }
        if rule.is_empty() {
            at.wrong("expects nothing: name at least one check");
        }
        if file.expect[..index].iter().any(|other| other.name == rule.name) {
            at.key("name").wrong(format!("a rule named `{}` stands before it", shown(&rule.name)));
        }
        metrics::rule(rule, known, &mut at);
        metrics::growths(file, rule, known, &mut at.key("growth"));
    }
}

fn any_range_is_empty(rule: &Rule) -> bool {
    [&rule.when.kernel_version, &rule.when.qemu_version]
        .into_iter()
        .flatten()
        .any(VersionRange::is_empty)
}

fn ranges(rule: &Rule, at: &mut At<'_>) {
    let asked = &rule.when.accelerator;
    if !asked.is_empty() && asked.iter().all(|accelerator| *accelerator == Accelerator::Auto) {
        let what = "`auto` never holds: a guest runs under kvm or tcg, whatever was asked for";
        at.key("when").key("accelerator").wrong(what);
    }
    let ranges =
        [("kernel-version", &rule.when.kernel_version), ("qemu-version", &rule.when.qemu_version)];
    for (key, range) in ranges {
        if let Some(range) = range.as_ref().filter(|range| range.is_empty()) {
            at.key("when").key(key).wrong(format!("`{range}` never holds: no version lies in it"));
        }
    }
}
