//! What is wrong with a case file although each of its values is well-formed.

use super::{CaseFile, WorkloadFile, never_holds};
use crate::{
    axes::{Axes, Axis, Device},
    conditions::AxisSets,
    expect::{Rule, TIMES, metric_names, unit_of},
    limit::{LEAST_RUNS, MOST_RUNS},
    probe::{Knobs, MAX_ENTRIES, MAX_QUEUES},
    sweep::{METRICS, MIN_POINTS},
    text::{nearest, shown},
    tree::Step,
    tree_de::Mistake,
    value::Bound,
    version::VersionRange,
};

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
    if whole("limits") {
        limits(file, &mut at.key("limits"));
    }
    if whole("history") {
        history(file, &mut at.key("history"));
    }
    if whole("axes") {
        axes(&file.axes, &mut at.key("axes"));
    }
    if whole("axes") && whole("exclude") && file.axes.size() <= MAX_CELLS {
        let cells = cells(file, &mut at);
        if whole("workload") {
            devices(file, &mut at);
        }
        if whole("expect") && !cells.is_empty() {
            rules(file, &cells, &mut at.key("expect"));
        }
    }
}

fn name(name: &str, at: &mut At<'_>) {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !(1..=64).contains(&name.len())
        || !name.chars().all(fits)
        || !name.starts_with(|c: char| c.is_ascii_alphanumeric())
    {
        at.wrong(format!(
            "`{}` is no name: up to 64 letters, digits, dots, dashes and underscores, a letter or digit first",
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

fn rules(file: &CaseFile, cells: &[Axes], at: &mut At<'_>) {
    for (index, rule) in file.expect.iter().enumerate() {
        let mut at = at.index(index);
        ranges(rule, &mut at);
        if never_holds(&rule.when, cells) && !any_range_is_empty(rule) {
            at.key("when").wrong("never holds: no cell of this case is like that");
        }
        if rule.is_empty() {
            at.wrong("expects nothing: name at least one check");
        }
        if file.expect[..index].iter().any(|other| other.name == rule.name) {
            at.key("name").wrong(format!("a rule named `{}` stands before it", shown(&rule.name)));
        }
        metrics(file, rule, &mut at);
        targets(rule, cells, &mut at.key("ratios"));
        growths(file, rule, &mut at.key("growth"));
    }
}

fn any_range_is_empty(rule: &Rule) -> bool {
    [&rule.when.kernel_version, &rule.when.qemu_version]
        .into_iter()
        .flatten()
        .any(VersionRange::is_empty)
}

fn ranges(rule: &Rule, at: &mut At<'_>) {
    let ranges =
        [("kernel-version", &rule.when.kernel_version), ("qemu-version", &rule.when.qemu_version)];
    for (key, range) in ranges {
        if let Some(range) = range.as_ref().filter(|range| range.is_empty()) {
            at.key("when").key(key).wrong(format!("`{range}` never holds: no version lies in it"));
        }
    }
}

/// What is wrong with a metric's name, of those that there may be.
fn unknown<'a, I: Iterator<Item = &'a str>>(
    file: &CaseFile,
    name: &str,
    known: impl Fn() -> I,
) -> Option<String> {
    // A program brings its own.
    if file.workload.exec.is_some() || known().any(|known| known == name) {
        return None;
    }
    let all = known().collect::<Vec<_>>().join(", ");
    Some(match nearest(name, known()) {
        Some(near) => {
            format!("unknown metric `{}`; did you mean `{near}`? (there are {all})", shown(name))
        }
        None => format!("unknown metric `{}`; there are {all}", shown(name)),
    })
}

fn limits(file: &CaseFile, at: &mut At<'_>) {
    if file.workload.idle.is_some() && !file.limits.is_empty() {
        at.wrong("the workload does nothing that could be timed");
    }
    let times = || TIMES.iter().map(|(name, _)| *name);
    for (index, limit) in file.limits.iter().enumerate() {
        let mut at = at.index(index);
        if file.limits[..index].iter().any(|other| other.metric == limit.metric) {
            at.key("metric").wrong(format!("`{}` stands before it", shown(&limit.metric)));
        } else if let Some(what) = unknown(file, &limit.metric, times) {
            at.key("metric").wrong(what);
        } else if let Some(what) = limit.mistake() {
            at.wrong(what);
        }
    }
}

fn history(file: &CaseFile, at: &mut At<'_>) {
    if file.workload.idle.is_some() && !file.history.is_empty() {
        at.wrong("the workload does nothing that could be measured");
    }
    for (index, limit) in file.history.iter().enumerate() {
        let mut at = at.index(index);
        if file.history[..index].iter().any(|other| other.metric == limit.metric) {
            at.key("metric").wrong(format!("`{}` stands before it", shown(&limit.metric)));
        } else if let Some(what) = unknown(file, &limit.metric, metric_names) {
            at.key("metric").wrong(what);
        } else if let Some(what) = limit.mistake() {
            at.wrong(what);
        }
        between(limit.runs.into(), LEAST_RUNS.into(), MOST_RUNS.into(), &mut at, "runs");
    }
}

fn metrics(file: &CaseFile, rule: &Rule, at: &mut At<'_>) {
    let unknown = |name: &str| unknown(file, name, metric_names);
    for (index, bound) in rule.bounds.iter().enumerate() {
        let mut at = at.key("bounds");
        let mut at = at.index(index);
        if let Some(what) = unknown(&bound.metric) {
            at.key("metric").wrong(what);
        }
        if let (Some(unit), Some(given)) = (unit_of(&bound.metric), &bound.unit)
            && unit != given
        {
            at.key("unit").wrong(format!("{} is measured in {unit}", bound.metric));
        }
        if let Some(what) = no_bound(bound.min, bound.max) {
            at.wrong(what);
        }
    }
    for (index, ratio) in rule.ratios.iter().enumerate() {
        let mut at = at.key("ratios");
        let mut at = at.index(index);
        if let Some(what) = unknown(&ratio.metric) {
            at.key("metric").wrong(what);
        }
        if let Some(what) = no_bound(ratio.min, ratio.max) {
            at.wrong(what);
        }
    }
}

/// A growth needs a metric that is followed, and cells to follow it over.
fn growths(file: &CaseFile, rule: &Rule, at: &mut At<'_>) {
    for (index, growth) in rule.growth.iter().enumerate() {
        let mut at = at.index(index);
        let followed = || METRICS.iter().map(|(name, _)| *name);
        if !followed().any(|name| name == growth.metric) {
            let all = followed().collect::<Vec<_>>().join(", ");
            let what =
                format!("no growth of `{}` is known; there are {all}", shown(&growth.metric));
            at.key("metric").wrong(what);
        }
        if let Some(what) = no_bound(growth.min, growth.max) {
            at.wrong(what);
        }
        if growth.control && !file.windows.control {
            at.key("control").wrong("the case has no such windows: `windows: {control: true}`");
        }
        if file.axes.live_mappings.len() < MIN_POINTS {
            at.wrong(format!(
                "the case has not {MIN_POINTS} values of `live-mappings` to follow it over"
            ));
        }
    }
}

/// What is wrong with the two ends of a bound.
fn no_bound(min: Option<f64>, max: Option<f64>) -> Option<&'static str> {
    match (min, max) {
        (None, None) => Some("neither `min` nor `max` is given"),
        _ => Bound { min, max }.is_empty().then_some("`min` is above `max`: nothing fits"),
    }
}

/// A ratio needs exactly one other cell to compare with.
fn targets(rule: &Rule, cells: &[Axes], at: &mut At<'_>) {
    for (index, ratio) in rule.ratios.iter().enumerate() {
        let mut at = at.index(index);
        let given = ratio.to.given();
        let many = given.iter().find(|axis| ratio.to.count(**axis) > 1);
        if given.is_empty() {
            at.key("to").wrong("names no axis: the ratio would be that of a cell to itself");
        } else if let Some(axis) = many {
            at.key("to").key(axis.name()).wrong("several values: a ratio is to one cell");
        } else {
            let from_line = [Axis::Kernel, Axis::Qemu, Axis::Accelerator];
            let fixed = given.iter().any(|axis| !from_line.contains(axis));
            if fixed && !cells.iter().any(|axes| ratio.to.contains(axes)) {
                at.key("to").wrong("no cell of this case is like that");
            }
        }
    }
}
