//! Invalid case files and arguments: exit code 2, and a message that names the place.

use rstest::rstest;

use crate::place::Place;

/// A document whose anchors expand to 10^12 words.
fn billion_laughs() -> String {
    let mut text = "a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]\n".to_owned();
    for level in 1..12 {
        let inner = format!("*a{}, ", level - 1).repeat(10);
        text.push_str(&format!("a{level}: &a{level} [{inner}]\n"));
    }
    text
}

#[rstest]
#[case::several_mistakes(
    "several_mistakes",
    "case: bad\nbananas: 1\naxes:\n  policy: [lazy, layz]\nworkload:\n  block: {ops: many}\n"
)]
#[case::repeated_axis(
    "repeated_axis",
    "case: bad\naxes:\n  policy: lazy\n  policy: strict\nworkload: {idle: {}}\n"
)]
#[case::axis_without_values(
    "axis_without_values",
    "case: bad\naxes: {policy: []}\nworkload: {idle: {}}\n"
)]
#[case::empty_matrix(
    "empty_matrix",
    "case: bad\nexclude: [{when: {policy: lazy}, reason: all of it}]\nworkload: {idle: {}}\n"
)]
#[case::condition_that_never_holds(
    "condition_that_never_holds",
    "case: bad\naxes: {policy: lazy}\nworkload: {idle: {}}\nexpect:\n  - name: never\n    \
     when: {policy: strict}\n    warning: absent\n"
)]
#[case::ten_megabytes("ten_megabytes", &format!("case: bad\n#{}\n", "x".repeat(10 << 20)))]
#[case::billion_laughs("billion_laughs", &billion_laughs())]
#[case::deep_nesting("deep_nesting", &format!("case: {}\n", "[".repeat(100_000)))]
fn rejects_case_file_with(#[case] name: &str, #[case] text: &str) {
    let place = Place::new();
    place.file("bad.yaml", text);
    let ended = place.run(&["run", "bad.yaml"]);
    ended.exits(2);
    assert_eq!(ended.stdout, "");
    assert!(std::fs::read_dir(place.path("runs")).unwrap().next().is_none(), "it left a record");
    insta::assert_snapshot!(format!("case_file_{name}"), place.transcript([&ended]));
}

#[test]
fn rejects_two_cases_with_one_name() {
    let place = Place::new();
    for name in ["a.yaml", "b.yaml"] {
        place.file(name, "case: same\nworkload: {idle: {}}\n");
    }
    let ended = place.run(&["run", "a.yaml", "b.yaml"]);
    ended.exits(2);
    insta::assert_snapshot!(place.transcript([&ended]));
}

#[rstest]
#[case::unknown_case("unknown_case", &["run", "nosuch"])]
#[case::unknown_axis("unknown_axis", &["run", "--set", "polcy=lazy"])]
#[case::unknown_axis_value("unknown_axis_value", &["run", "--set", "policy=layz"])]
#[case::unknown_accelerator("unknown_accelerator", &["run", "--accel", "magic"])]
#[case::zero_jobs("zero_jobs", &["run", "--jobs", "0"])]
#[case::unknown_cell("unknown_cell", &["run", "--cell", "nothing-like-it"])]
#[case::ambiguous_cell("ambiguous_cell", &["plan", "smoke/"])]
#[case::unknown_run("unknown_run", &["judge", "nosuch"])]
#[case::unknown_command("unknown_command", &["walk"])]
fn rejects_arguments_with(#[case] name: &str, #[case] arguments: &[&str]) {
    let place = Place::new();
    let ended = place.run(arguments);
    ended.exits(2);
    insta::assert_snapshot!(format!("arguments_{name}"), place.transcript([&ended]));
}
