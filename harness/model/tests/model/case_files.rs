//! Case files with mistakes, each with the very message.

use dmarig_model::{
    axes::{Axes, Toggle},
    case::{Case, CaseErrors, MAX_CASE_BYTES, check_names},
};
use dmarig_wire::Job;

use crate::axes::with_axes;

/// A sound case, to put one mistake into.
pub(crate) const SOUND: &str = "\
case: sound
axes:
  caching-mode: [off, on]
  policy: [lazy, strict]
workload:
  block: {ops: 400}
";

pub(crate) fn parse(text: &str) -> Result<Case, CaseErrors> {
    Case::parse("a.yaml", text)
}

/// Every message of a file that is wrong.
#[track_caller]
pub(crate) fn check(text: &str, messages: &[&str]) {
    let errors = parse(text).map(|case| case.name).unwrap_err();
    let shown: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
    let expected: Vec<String> = messages.iter().map(|message| with_axes(message)).collect();
    assert_eq!(shown, expected, "\n{errors}");
}

/// The sound case with one line replaced.
#[track_caller]
fn check_line(from: &str, to: &str, message: &str) {
    assert!(SOUND.contains(from), "{from}");
    check(&SOUND.replace(from, to), &[message]);
}

#[test]
fn a_sound_case_has_its_defaults() {
    let case = parse(SOUND).unwrap();
    assert_eq!(&*case.axes.caching_mode, [Toggle::Off, Toggle::On]);
    assert!(case.standard && case.windows.count && !case.quiet);
    let Job::Block(job) = case.job(&Axes::default()) else { panic!("no block job") };
    assert_eq!((job.block_size, job.queue_depth, job.ops), (64 << 10, 4, 400));
    assert_eq!(job.device, dmarig_wire::Device::Nvme);
}

#[test]
fn one_value_and_a_list_of_one_are_the_same() {
    let one = parse(
        "case: a\naxes: {device: nvme, memory: 1GiB, aw-bits: default}\nworkload: {idle: {}}\n",
    );
    let list = parse(
        "case: a\naxes: {device: [nvme], memory: [1024MiB], aw-bits: ['default']}\nworkload: {idle: {}}\n",
    );
    assert_eq!(one.unwrap().axes, list.unwrap().axes);
}

#[test]
fn a_case_may_use_all_there_is() {
    let case = parse(
        r#"
case: all
description: everything
axes: { caching-mode: [off, on], policy: [lazy, strict], device: [nvme, e1000e], aw-bits: [39, default],
        smp: 2, memory: 512MiB, accelerator: tcg, kernel: [a, b], qemu: q }
exclude: [{ when: {caching-mode: off, policy: strict}, reason: not wanted }]
workload: { block: {block-size: 4096, ops: 10}, net: {frames: 10} }
windows: { count: true, time: 5, warm-up: 1 }
quiet: true
time-limits: { boot: 90s, workload: 2m }
standard: false
expect:
  - name: mine
    when: { policy: lazy, kernel-version: ">=5.15, <7" }
    because: I say so
    warning: any
    group-type: [DMA, DMA-FQ]
    psi-per-unmap: { min: 0.9, max: 1.1 }
    bounds: [{ metric: throughput, min: 1000000, unit: bytes/s, accelerators: [kvm] }]
    ratios: [{ metric: latency-p50, to: {policy: strict}, max: 1.5 }]
allow: [{ kind: swiotlb, pattern: 'bounce', why: known }]
"#,
    )
    .unwrap();
    assert_eq!(case.time_limits.workload().as_secs(), 120);
    assert_eq!(case.expect[0].ratios[0].max, Some(1.5));
}

#[test]
fn unknown_keys_are_named_with_the_right_ones() {
    check_line(
        "policy:",
        "polcy:",
        "a.yaml:4:3: axes.polcy: unknown key `polcy`; did you mean `policy`? (there are ALL AXES)",
    );
    check_line(
        "{ops: 400}",
        "{op: 400}",
        "a.yaml:6:11: workload.block.op: unknown key `op`; did you mean `ops`? (there are block-size, queue-depth, ops, read-percent, threads, span, seed, linger)",
    );
    check_line(
        "case: sound\n",
        "case: sound\nbananas: 1\n",
        "a.yaml:2:1: bananas: unknown key `bananas`; there are case, description, axes, exclude, workload, windows, quiet, time-limits, probe, standard, expect, limits, history, allow",
    );
}

#[test]
fn wrong_types_are_told_apart() {
    check_line(
        "{ops: 400}",
        "{ops: many}",
        "a.yaml:6:16: workload.block.ops: found string \"many\", expected a whole number",
    );
    check_line(
        "{ops: 400}",
        "[1]",
        "a.yaml:6:10: workload.block: found a list, expected a map of keys and values",
    );
    check_line(
        "[lazy, strict]",
        "{lazy: 1}",
        "a.yaml:4:11: axes.policy: a list or map, expected one of lazy, strict, passthrough",
    );
    check_line("case: sound", "case: [sound]", "a.yaml:1:7: case: found a list, expected a string");
    check_line(
        "{ops: 400}",
        "{block-size: 64kb}",
        "a.yaml:6:23: workload.block.block-size: invalid size `64kb`: expected 64KiB, 512MiB, 1GiB or a number of bytes",
    );
    check_line(
        "{ops: 400}",
        "",
        "a.yaml:5:1: workload: no workload; there are block, net, exec, idle",
    );
    check_line(
        "case: sound\n",
        "case: sound\nquiet: yes\n",
        "a.yaml:2:8: quiet: found string \"yes\", expected a boolean",
    );
    check_line(
        "case: sound\n",
        "case: sound\ntime-limits: {boot: 60}\n",
        "a.yaml:2:21: time-limits.boot: invalid time `60`: expected a number with a unit, as in 60s, 2m or 500ms",
    );
}

#[test]
fn unknown_axis_values_are_named_with_the_right_ones() {
    check_line(
        "[lazy, strict]",
        "[lazy, strickt]",
        "a.yaml:4:18: axes.policy[1]: unknown value `strickt`; did you mean `strict`? (there are lazy, strict, passthrough)",
    );
    check_line(
        "[off, on]",
        "[false, on]",
        "a.yaml:3:18: axes.caching-mode[0]: unknown value `false`; there are off, on",
    );
    check_line(
        "  policy",
        "  aw-bits: 40\n  policy",
        "a.yaml:4:12: axes.aw-bits: invalid aw-bits `40`: expected 39, 48, 57 or default",
    );
}

/// What is said of a time that only a probe sees.
pub(crate) const NO_PROBE: &str =
    "no cell has `stale-p50`: it is of a probe's alone, with `axes: {passthrough: probe}`";

#[test]
fn limits_are_of_what_is_timed() {
    let with = |limits: &str, expected: &str| {
        let text = format!("case: sound\nlimits: [{limits}]\n");
        check_line("case: sound\n", &text, &format!("a.yaml:2:{expected}"));
    };
    with(
        "{metric: elapsed, percent: 0}",
        "10: limits[0]: invalid limit of 0 % for `elapsed`: it must be above 0, and below 100 if higher is better",
    );
    with(
        "{metric: iops, better: lower, percent: 5}",
        "10: limits[0]: `iops` is better if it is higher",
    );
    let times = "throughput, iops, elapsed, latency-mean, latency-p50, latency-p90, latency-p99, latency-p999, latency-max, stale-p50, stale-p99, stale-max";
    with(
        "{metric: psi, percent: 5}",
        &format!("11: limits[0].metric: unknown metric `psi`; there are {times}"),
    );
    with(
        "{metric: elapsed, percent: 5}, {metric: elapsed, percent: 6}",
        "42: limits[1].metric: `elapsed` stands before it",
    );
    with("{metric: stale-p50, percent: 5}", &format!("11: limits[0].metric: {NO_PROBE}"));
    // Pairs bring timing windows of their own.
    let limits = "limits: [{metric: elapsed, percent: 5}]\n";
    assert!(parse(&format!("{SOUND}{limits}")).is_ok());
    check_line(
        "workload:\n  block: {ops: 400}",
        "limits: [{metric: elapsed, percent: 5}]\nworkload:\n  idle: {}",
        "a.yaml:5:1: limits: the workload does nothing that could be timed",
    );
}

#[test]
fn limits_against_history_are_of_what_is_measured() {
    let with = |limits: &str, expected: &str| {
        let text = format!("case: sound\nhistory: [{limits}]\nwindows: {{time: 1}}\n");
        check_line("case: sound\n", &text, &format!("a.yaml:2:{expected}"));
    };
    with("{metric: stale-p50, percent: 5}", &format!("12: history[0].metric: {NO_PROBE}"));
    with(
        "{metric: throughput, percent: 100}",
        "11: history[0]: invalid limit of 100 % for `throughput`: it must be above 0, and below 100 if higher is better",
    );
    with(
        "{metric: psi-per-unmap, better: higher, percent: 5}",
        "11: history[0]: `psi-per-unmap` is better if it is lower",
    );
    with(
        "{metric: elapsed, percent: 5, runs: 23}",
        "41: history[0].runs: 23 is out of range: 24 to 1000",
    );
    with(
        "{metric: elapsed, percent: 5}, {metric: elapsed, percent: 6}",
        "43: history[1].metric: `elapsed` stands before it",
    );
    with("{metric: elapsed}", "11: history[0]: `percent` is missing");
    with(
        "{metric: elapsed, percent: 5, run: 30}",
        "41: history[0].run: unknown key `run`; did you mean `runs`? (there are metric, better, percent, runs)",
    );
    let errors = parse(
        &SOUND.replace("case: sound\n", "case: a\nhistory: [{metric: elapsd, percent: 1}]\n"),
    );
    let errors = errors.unwrap_err().to_string();
    let found = "a.yaml:2:12: history[0].metric: unknown metric `elapsd`; did you mean `elapsed`?";
    assert!(errors.starts_with(found) && errors.contains("psi-per-unmap"), "{errors}");
    check_line(
        "workload:\n  block: {ops: 400}",
        "history: [{metric: psi, percent: 5}]\nworkload:\n  idle: {}",
        "a.yaml:5:1: history: the workload does nothing that could be measured",
    );
    check_line(
        "case: sound\n",
        "case: sound\nhistory: [{metric: elapsed, percent: 5}]\n",
        "a.yaml:2:12: history[0].metric: `elapsed` is timed, and the case has no windows for that: `windows: {time: 5}`",
    );
    check_line(
        "case: sound\n",
        "case: sound\nhistory: [{metric: psi, percent: 5}]\nwindows: {count: false, time: 5}\n",
        "a.yaml:2:12: history[0].metric: `psi` is counted, and the case has no window for that: `windows: {count: true}`",
    );
    // What a program prints may have any name, but comes of timing windows.
    let program = |name: &str, windows: &str| {
        let history = format!("history: [{{metric: {name}, better: lower, percent: 5}}]");
        parse(&format!("case: a\nworkload: {{exec: {{argv: [/add/x]}}}}\n{history}\n{windows}\n"))
    };
    assert!(program("stale-p50", "windows: {count: false, time: 1}").is_ok());
    assert!(program("psi", "windows: {count: false, time: 1}").is_ok());
    assert!(program("mine", "windows: {count: true}").is_err());
    let case = parse(&format!("{SOUND}history: [{{metric: dsi, percent: 5}}]\n")).unwrap();
    assert_eq!((case.history[0].runs, case.history[0].percent), (50, 5.0));
}

#[test]
fn nothing_stands_twice() {
    check_line(
        "  policy: [lazy, strict]",
        "  policy: lazy\n  policy: strict",
        "a.yaml:5:3: axes: `policy` a second time: it stands on line 4 already",
    );
    check_line(
        "[lazy, strict]",
        "[lazy, strict, lazy]",
        "a.yaml:4:26: axes.policy[2]: a value that stands in this list already",
    );
}

#[test]
fn missing_things_are_named() {
    check_line("case: sound\n", "", "a.yaml:1:1: `case` is missing");
    check("case: a\n", &["a.yaml:1:1: `workload` is missing"]);
    check("", &["a.yaml:1:1: the file is empty"]);
    check("# nothing\n", &["a.yaml:1:1: the file is empty"]);
    check("- a\n", &["a.yaml:1:1: found a list, expected a map of keys and values"]);
}

#[test]
fn an_empty_matrix_is_a_mistake() {
    check_line(
        "[lazy, strict]",
        "[]",
        "a.yaml:4:11: axes.policy: an empty list, expected at least one value (or no such key)",
    );
    check(
        &format!("{SOUND}exclude: [{{when: {{policy: [lazy, strict]}}, reason: no}}]\n"),
        &["a.yaml:7:1: exclude: leaves out every cell: the matrix is empty"],
    );
}

#[test]
fn conditions_that_never_hold_are_mistakes() {
    let rule = |when: &str| {
        format!("{SOUND}expect:\n  - name: x\n    when: {when}\n    warning: present\n")
    };
    check(
        &rule("{policy: passthrough}"),
        &["a.yaml:9:5: expect[0].when: never holds: no cell of this case is like that"],
    );
    check(
        &rule("{kernel-version: '>=6.1, <6.1'}"),
        &[
            "a.yaml:9:12: expect[0].when.kernel-version: `>=6.1, <6.1` never holds: no version lies in it",
        ],
    );
    check(
        &rule("{qemu-version: 'banana'}"),
        &[
            "a.yaml:9:26: expect[0].when.qemu-version: invalid version `banana`: expected 6.1 or 5.10.14 (in a range after >=, >, <=, < or =, joined by commas)",
        ],
    );
    // The command line decides the kernel, so these may hold.
    for when in ["{kernel-version: '>=99'}", "{kernel: debian-5.10}", "{accelerator: kvm}"] {
        assert!(parse(&rule(when)).is_ok(), "{when}");
    }
    // Unless the case does.
    check(
        &rule("{kernel: debian-5.10}").replace("axes:", "axes:\n  kernel: mine"),
        &["a.yaml:10:5: expect[0].when: never holds: no cell of this case is like that"],
    );
    check(
        &format!("{SOUND}exclude: [{{when: {{device: e1000e}}, reason: no}}]\n"),
        &["a.yaml:7:12: exclude[0].when: never holds: no cell of this case is like that"],
    );
    check(
        &format!("{SOUND}exclude: [{{when: {{}}, reason: no}}]\n"),
        &[
            "a.yaml:7:1: exclude: leaves out every cell: the matrix is empty",
            "a.yaml:7:12: exclude[0].when: no condition: it would leave out everything",
        ],
    );
}

#[test]
fn a_workload_must_fit_its_devices() {
    check_line(
        "  policy",
        "  device: [nvme, virtio-net]\n  policy",
        "a.yaml:6:1: workload: no `net` workload for the interfaces virtio-net",
    );
    check(
        &SOUND.replace("block: {ops: 400}", "net: {frames: 1}"),
        &[
            "a.yaml:5:1: workload: no `block` workload for the disk nvme",
            "a.yaml:6:3: workload.net: no device of this case is a network interface",
        ],
    );
    check_line(
        "block: {ops: 400}",
        "block: {ops: 400}\n  net: {frames: 4}",
        "a.yaml:7:3: workload.net: no device of this case is a network interface",
    );
    check_line(
        "block: {ops: 400}",
        "block: {}\n  idle: {}",
        "a.yaml:5:1: workload: more than one workload: only block and net go together, by device",
    );
}

#[test]
fn numbers_out_of_range_are_mistakes() {
    check_line("ops: 400", "ops: 0", "a.yaml:6:11: workload.block.ops: 0 is too few: at least 1");
    check_line(
        "ops: 400",
        "block-size: 5000",
        "a.yaml:6:11: workload.block.block-size: 5000 is not a multiple of 4KiB up to 1MiB",
    );
    check_line(
        "ops: 400",
        "read-percent: 101",
        "a.yaml:6:11: workload.block.read-percent: 101 is out of range: 0 to 100",
    );
    check_line(
        "ops: 400",
        "ops: -1",
        "a.yaml:6:16: workload.block.ops: found integer `-1`, expected a whole number",
    );
    check_line(
        "ops: 400",
        "span: 4KiB",
        "a.yaml:6:11: workload.block.span: 4KiB is too small for 1 thread(s) with blocks of 64KiB",
    );
    check_line("  policy", "  smp: 0\n  policy", "a.yaml:4:3: axes.smp: a guest has 1 to 255 CPUs");
    check_line(
        "  policy",
        "  memory: 1000\n  policy",
        "a.yaml:4:3: axes.memory: a guest has whole MiB of memory, 128MiB to 1TiB",
    );
    check_line(
        "case: sound\n",
        "case: sound\nwindows: {count: false}\n",
        "a.yaml:2:1: windows: neither counts nor times: nothing would run",
    );
    check_line(
        "case: sound",
        "case: ../sound",
        "a.yaml:1:1: case: invalid name `../sound`: expected up to 64 letters, digits, dots, dashes and underscores, starting with a letter or digit",
    );
}

#[test]
fn rules_are_checked() {
    let rule =
        |text: &str| format!("{SOUND}expect:\n  - name: x\n    {text}\nwindows: {{time: 4}}\n");
    check(
        &rule("because: y"),
        &["a.yaml:8:5: expect[0]: expects nothing: name at least one check"],
    );
    check(
        &rule("psi-per-unmap: {min: 2, max: 1}"),
        &["a.yaml:9:20: expect[0].psi-per-unmap: `min` is above `max`: nothing fits"],
    );
    check(&rule("psi: {}"), &["a.yaml:9:10: expect[0].psi: neither `min` nor `max` is given"]);
    check(
        &rule("ratios: [{metric: latency-p5, to: {policy: strict}, max: 1}]"),
        &[
            "a.yaml:9:15: expect[0].ratios[0].metric: unknown metric `latency-p5`; did you mean `latency-p50`? (there are throughput, iops, elapsed, latency-mean, latency-p50, latency-p90, latency-p99, latency-p999, latency-max, stale-p50, stale-p99, stale-max, psi, dsi, global, psi-per-unmap, psi-per-map, new-ranges-per-unmap, dsi-per-1000-unmaps, device-iotlb-per-unmap, page-walk-entries-per-unmap, page-walk-in-vain-per-unmap, stale-requests, stale-share, stale-bytes, leaked-requests, stale-for-requests, mappings-per-op, mappings-in-flight)",
        ],
    );
    check(
        &rule("ratios: [{metric: psi, to: {policy: passthrough}, max: 1}]"),
        &["a.yaml:9:28: expect[0].ratios[0].to: no cell of this case is like that"],
    );
    check(
        &rule("bounds: [{metric: iops, max: 1, unit: MB, accelerators: kvm}]"),
        &["a.yaml:9:37: expect[0].bounds[0].unit: iops is measured in 1/s"],
    );
    check(
        &format!("{SOUND}allow: [{{kind: swiotlb, pattern: '(', why: x}}]\n"),
        &["a.yaml:7:34: allow[0].pattern: no regular expression: error: unclosed group"],
    );
}

#[test]
fn all_mistakes_are_reported_together() {
    check(
        "\
case: a b
axes:
  polcy: lazy
  caching-mode: [on, maybe, off, perhaps]
workload:
  block: {ops: 0, queue-depth: lots}
expect:
  - name: x
    warning: sometimes
  - when: {}
    warning: present
windows: {time: -1}
",
        &[
            "a.yaml:1:1: case: invalid name `a b`: expected up to 64 letters, digits, dots, dashes and underscores, starting with a letter or digit",
            "a.yaml:3:3: axes.polcy: unknown key `polcy`; did you mean `policy`? (there are ALL AXES)",
            "a.yaml:4:22: axes.caching-mode[1]: unknown value `maybe`; there are off, on",
            "a.yaml:4:34: axes.caching-mode[3]: unknown value `perhaps`; there are off, on",
            "a.yaml:6:32: workload.block.queue-depth: found string \"lots\", expected a whole number",
            "a.yaml:9:14: expect[0].warning: unknown value `sometimes`; there are present, absent, any",
            "a.yaml:10:5: expect[1]: `name` is missing",
            "a.yaml:12:17: windows.time: found integer `-1`, expected a whole number",
        ],
    );
}

#[test]
fn what_is_no_yaml_says_where() {
    let errors = parse("case: a\n  b: c: d\n").unwrap_err();
    assert_eq!((errors.0.len(), errors.0[0].line), (1, 2), "{errors}");
    assert!(errors.0[0].what.starts_with("not YAML: "), "{errors}");
    check(
        "case: a\n---\ncase: b\n",
        &["a.yaml:2:1: a second document (`---`): one file holds one"],
    );
}

#[test]
fn bombs_are_refused() {
    let large = format!("case: a\n# {}\n", "x".repeat(10_000_000));
    check(&large, &["a.yaml: the file has 10000011; a case file has at most 1MiB"]);
    assert!(large.len() > MAX_CASE_BYTES);

    let laughs = "a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b]\n";
    check(laughs, &["a.yaml:1:7: a: an anchor (`&...`): write the value out where it is used"]);
    check("case: *x\n", &["a.yaml:1:7: not YAML: while parsing node, found unknown anchor"]);
    check("case: !!str a\n", &["a.yaml:1:13: case: a tag (`!...`): write plain values"]);
    let unknown = "a.yaml:1:1: <<: unknown key `<<`; there are case, description, axes, exclude, workload, windows, quiet, time-limits, probe, standard, expect, limits, history, allow";
    check("<<: {case: a}\n", &[unknown, "a.yaml:1:1: `case` is missing"]);

    let deep = format!("case: {}{}\n", "[".repeat(200), "]".repeat(200));
    let errors = parse(&deep).unwrap_err();
    assert_eq!(errors.0[0].what, "nested more than 16 deep");

    let wide = format!(
        "case: a\naxes: {{kernel: [{}], smp: [1,2,3,4,5,6,7,8,9,10,11]}}\nworkload: {{idle: {{}}}}\n",
        (0..1000).map(|i| format!("k{i}")).collect::<Vec<_>>().join(", ")
    );
    check(&wide, &["a.yaml:2:1: axes: 11000 cells; a case has at most 10000"]);
}

#[test]
fn hostile_names_are_shown_harmless() {
    let errors = parse("\"\\e[2J\": 1\n").unwrap_err().to_string();
    assert!(!errors.contains('\x1b') && errors.contains("\\u{1b}[2J"), "{errors}");
}

#[test]
fn two_cases_of_one_name_are_a_mistake() {
    let case = |file: &str| Case::parse(file, SOUND).unwrap();
    assert!(check_names(&[case("a.yaml")]).is_ok());
    let errors = check_names(&[case("a.yaml"), case("b.yaml"), case("c.yaml")]).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "b.yaml:1:1: case: a case named `sound` stands in a.yaml already\n\
         c.yaml:1:1: case: a case named `sound` stands in a.yaml already"
    );
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[ -~\\n]{0,200}") {
        let _ = parse(&text);
        let _ = parse(&format!("{SOUND}{text}"));
    }
}
