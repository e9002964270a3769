//! Rules that nothing could be judged by, each with the very message.

use crate::case_files::{NO_PROBE, SOUND, check, parse};

/// The sound case with this rule and these windows, and what is wrong with the rule.
#[track_caller]
fn check_rule(rule: &str, windows: &str, message: &str) {
    let text = format!("{SOUND}windows: {windows}\nexpect:\n  - name: x\n    {rule}\n");
    check(&text, &[message]);
}

#[test]
fn bounds_that_are_never_judged_are_mistakes() {
    let bound = |bounds: &str, windows: &str, message: &str| {
        check_rule(&format!("bounds: [{bounds}]"), windows, &format!("a.yaml:10:{message}"));
    };
    let timed = "{time: 1}";
    bound(
        "{metric: iops, min: 1, accelerators: auto}",
        timed,
        "51: expect[0].bounds[0].accelerators: unknown value `auto`; there are kvm, tcg",
    );
    bound(
        "{metric: iops, min: 1, accelerators: [kvm, auto]}",
        timed,
        "57: expect[0].bounds[0].accelerators[1]: unknown value `auto`; there are kvm, tcg",
    );
    bound(
        "{metric: iops, min: 1, accelerators: kvm}",
        "{time: 0}",
        "15: expect[0].bounds[0].metric: `iops` is timed, and the case has no windows for that: `windows: {time: 5}`",
    );
    bound(
        "{metric: stale-p50, max: 1, accelerators: kvm}",
        timed,
        &format!("15: expect[0].bounds[0].metric: {NO_PROBE}"),
    );
    bound(
        "{metric: iops, min: 1, accelerators: [kvm, tcg]}, {metric: iops, min: 2, accelerators: tcg}",
        timed,
        "65: expect[0].bounds[1].metric: `iops` stands before it",
    );
    let each = "bounds: [{metric: iops, min: 2, accelerators: kvm}, {metric: iops, min: 1, accelerators: tcg}]";
    parse(&format!("{SOUND}windows: {timed}\nexpect: [{{name: x, {each}}}]\n")).unwrap();
}

#[test]
fn counts_that_are_never_judged_are_mistakes() {
    check_rule(
        "psi: 0",
        "{count: false, time: 1}",
        "a.yaml:10:5: expect[0].psi: `psi` is counted, and the case has no window for that: `windows: {count: true}`",
    );
    check_rule(
        "stale-share: 0",
        "{}",
        "a.yaml:10:5: expect[0].stale-share: no cell has `stale-share`: it is of a probe's alone, with `axes: {passthrough: probe}`",
    );
    check(
        "case: a\nworkload: {idle: {}}\nexpect: [{name: x, psi: 0}]\n",
        &["a.yaml:3:20: expect[0].psi: the workload does nothing that could be measured"],
    );
    // By the cells that the rule speaks of.
    let probed = SOUND.replace("axes:", "axes:\n  passthrough: [none, probe]");
    let rule =
        |when: &str| format!("{probed}expect: [{{name: x, when: {when}, stale-share: 0}}]\n");
    assert!(parse(&rule("{passthrough: probe}")).is_ok());
    assert!(parse(&rule("{policy: lazy}")).is_ok());
    assert!(parse(&rule("{passthrough: none}")).is_err());
    let fresh = |when: &str| {
        let rule = format!("expect: [{{name: x, when: {when}, new-ranges-per-unmap: 0}}]\n");
        parse(&format!("{SOUND}{rule}"))
    };
    assert!(fresh("{policy: lazy}").is_ok() && fresh("{caching-mode: off}").is_err());
    // Nobody sees a guest run under `auto`.
    check_rule(
        "when: {accelerator: auto}\n    psi: 0",
        "{}",
        "a.yaml:10:12: expect[0].when.accelerator: `auto` never holds: a guest runs under kvm or tcg, whatever was asked for",
    );
}

#[test]
fn ratios_that_are_never_judged_are_mistakes() {
    let ratio = |ratio: &str, message: &str| {
        check_rule(&format!("ratios: [{ratio}]"), "{time: 4}", &format!("a.yaml:10:{message}"));
    };
    ratio(
        "{metric: psi, to: {policy: strict}, max: -1}",
        "50: expect[0].ratios[0].max: -1 never holds: every ratio is above it",
    );
    ratio(
        "{metric: elapsed, to: {policy: strict}, max: 0}",
        "54: expect[0].ratios[0].max: 0 never holds: every ratio is above it",
    );
    ratio(
        "{metric: psi, to: {policy: strict}, min: 0}",
        "50: expect[0].ratios[0].min: 0 always holds: no ratio is below it",
    );
    ratio(
        "{metric: psi, to: {policy: strict}, max: 1}, {metric: psi, to: {policy: strict}, max: 2}",
        "60: expect[0].ratios[1].metric: `psi` to that cell stands before it",
    );
    ratio(
        "{metric: stale-p50, to: {policy: strict}, max: 1}",
        &format!("15: expect[0].ratios[0].metric: {NO_PROBE}"),
    );
    check_rule(
        "ratios: [{metric: elapsed, to: {policy: strict}, max: 1}]",
        "{time: 3}",
        "a.yaml:10:15: expect[0].ratios[0].metric: of 3 timing windows no ratio can be told from their noise: at least 4, as in `windows: {time: 5}`",
    );
    check_rule(
        "when: {policy: strict}\n    ratios: [{metric: psi, to: {policy: strict}, max: 1}]",
        "{}",
        "a.yaml:11:28: expect[0].ratios[0].to: the rule speaks of that cell alone: name others by `when`",
    );
    check_rule(
        "when: {caching-mode: on}\n    ratios: [{metric: psi, to: {policy: strict}, max: 1}]\nexclude: [{when: {policy: strict, caching-mode: on}, reason: no}]",
        "{}",
        "a.yaml:11:28: expect[0].ratios[0].to: the case leaves out that cell of each that the rule speaks of",
    );
    // One cell of both has it, and the other has not.
    let probed = SOUND.replace("axes:", "axes:\n  passthrough: [none, probe]");
    let to_none = "{metric: stale-p50, to: {passthrough: none}, max: 1}";
    check(
        &format!("{probed}windows: {{time: 4}}\nexpect: [{{name: x, ratios: [{to_none}]}}]\n"),
        &[&format!("a.yaml:9:49: expect[0].ratios[0].to: {NO_PROBE}")],
    );
    let sound = |ratio: &str| {
        let rule = format!("expect: [{{name: x, ratios: [{ratio}]}}]\n");
        parse(&format!("{SOUND}windows: {{time: 4}}\n{rule}"))
    };
    for ratio in [
        "{metric: psi, to: {policy: strict}, max: 0}",
        "{metric: elapsed, to: {policy: strict}, min: 0, max: 2}",
        "{metric: elapsed, to: {kernel: debian-6.1}, max: 2}",
        "{metric: psi, to: {policy: strict}, max: 1}, {metric: psi, to: {caching-mode: on}, max: 1}",
    ] {
        assert!(sound(ratio).is_ok(), "{ratio}: {}", sound(ratio).unwrap_err());
    }
}
