//! Case files and words that are wrong: exit code 2, and a message that names the place.

use crate::place::Place;

/// Runs one case file, which must be refused with each of these texts.
#[track_caller]
fn refused(text: &str, expected: &[&str]) {
    let place = Place::new();
    let file = place.file("bad.yaml", text);
    let ended = place.run(&["run", &file]);
    ended.exits(2).says(expected);
    assert_eq!(ended.stdout, "");
    assert!(std::fs::read_dir(place.path("runs")).unwrap().next().is_none(), "it left a record");
}

#[test]
fn mistakes_are_told_together_with_their_places() {
    refused(
        "case: bad\nbananas: 1\naxes:\n  policy: [lazy, layz]\nworkload:\n  block: {ops: many}\n",
        &[
            "bad.yaml:2:1: bananas: unknown key `bananas`",
            "bad.yaml:4:18: axes.policy[1]: ",
            "did you mean `lazy`?",
            "bad.yaml:6:16: workload.block.ops: found string \"many\", expected a whole number",
        ],
    );
}

#[test]
fn an_axis_twice_is_refused() {
    refused(
        "case: bad\naxes:\n  policy: lazy\n  policy: strict\nworkload: {idle: {}}\n",
        &["bad.yaml:4:3: axes: `policy` a second time: it stands on line 3 already"],
    );
}

#[test]
fn a_matrix_of_nothing_is_refused() {
    refused(
        "case: bad\naxes: {policy: []}\nworkload: {idle: {}}\n",
        &["bad.yaml:2:16: axes.policy: "],
    );
    refused(
        "case: bad\nexclude: [{when: {policy: lazy}, reason: all of it}]\nworkload: {idle: {}}\n",
        &["bad.yaml:2:1: exclude: leaves out every cell: the matrix is empty"],
    );
}

#[test]
fn two_cases_of_one_name_are_refused() {
    let place = Place::new();
    let text = "case: same\nworkload: {idle: {}}\n";
    let (one, other) = (place.file("a.yaml", text), place.file("b.yaml", text));
    place.run(&["run", &one, &other]).exits(2).says(&["a.yaml", "b.yaml", "same"]);
}

#[test]
fn a_condition_that_never_holds_is_refused() {
    refused(
        "case: bad\naxes: {policy: lazy}\nworkload: {idle: {}}\nexpect:\n  - name: never\n    when: {policy: strict}\n    warning: absent\n",
        &["bad.yaml:6:", "expect[0].when"],
    );
}

#[test]
fn a_case_file_of_ten_megabytes_is_refused() {
    refused(&format!("case: bad\n#{}\n", "x".repeat(10 << 20)), &["bad.yaml: ", "at most 1MiB"]);
}

#[test]
fn bombs_are_refused() {
    let mut laughs = "a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]\n".to_owned();
    for level in 1..12 {
        let inner = format!("*a{}, ", level - 1).repeat(10);
        laughs.push_str(&format!("a{level}: &a{level} [{inner}]\n"));
    }
    refused(&laughs, &["bad.yaml"]);
    refused(&format!("case: {}\n", "[".repeat(100_000)), &["bad.yaml"]);
}

#[test]
fn words_that_are_wrong_are_refused() {
    let place = Place::new();
    for (words, text) in [
        (&["run", "nosuch"][..], "there is no case file nosuch"),
        (&["run", "--set", "polcy=lazy"], "polcy"),
        (&["run", "--set", "policy=layz"], "layz"),
        (&["run", "--accel", "magic"], "magic"),
        (&["run", "--jobs", "0"], "--jobs"),
        (&["run", "--cell", "nothing-like-it"], "no cell is named `nothing-like-it`"),
        (&["plan", "smoke/"], "fits 6 cells"),
        (&["judge", "nosuch"], "there is no run `nosuch`"),
        (&["walk"], "walk"),
    ] {
        place.run(words).exits(2).says(&[text]);
    }
}
