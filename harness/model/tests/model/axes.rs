//! Each axis takes part in everything that enumerates axes: a forgotten one would fail silently.

use dmarig_model::{
    axes::{Axes, Axis},
    case::Case,
    conditions::AxisSets,
    document::CellResult,
    matrix::{Cell, cells, parse_override},
    observation::{End, Observation, Outcome, Setup, Verdict},
};
use serde_json::Value;

/// Words of which each axis takes two at least. An axis whose values are none of them adds its own.
const WORDS: &[&str] = &[
    "kernel-a",
    "kernel-b",
    "1GiB",
    "2GiB",
    "39",
    "48",
    "on",
    "off",
    "strict",
    "lazy",
    "virtio-blk",
    "nvme",
    "probe",
    "none",
    "second-stage",
    "tcg",
    "kvm",
];

fn set(axis: Axis, words: &str) -> Option<AxisSets> {
    let mut sets = AxisSets::default();
    parse_override(&format!("{axis}={words}"), &mut sets).ok()?;
    Some(sets)
}

/// Two words that the axis takes.
fn two_words(axis: Axis) -> [&'static str; 2] {
    let mut taken = WORDS.iter().filter(|word| set(axis, word).is_some());
    let two = [taken.next(), taken.next()];
    two.map(|word| *word.unwrap_or_else(|| panic!("WORDS has too few values of {axis}")))
}

/// A case that varies the axis, with a rule for the first of its two values.
fn case_that_varies(axis: Axis, [one, other]: [&str; 2]) -> Case {
    let text = format!(
        "case: a\naxes: {{{axis}: [{one}, {other}]}}\nworkload: {{block: {{}}}}\n\
         expect: [{{name: first, when: {{{axis}: {one}}}, faults: 0}}]\n"
    );
    Case::parse("a.yaml", &text).unwrap_or_else(|errors| panic!("{axis}: {errors}"))
}

fn shown(cell: &Cell) -> Value {
    let end = End::Skipped { reason: "not run".to_owned() };
    let setup = Setup::unplanned(&cell.axes);
    let observation = Observation::unseen(&cell.id, &cell.case, &cell.axes, setup, end);
    let verdict = Verdict { outcome: Outcome::Skipped, reasons: Vec::new(), checks: Vec::new() };
    serde_json::to_value(CellResult::new(&observation, &verdict).axes).unwrap()
}

fn check(axis: Axis) {
    let words = two_words(axis);
    let case = case_that_varies(axis, words);
    let from_case = cells(&case, &AxisSets::default()).unwrap();
    let plain = Case::parse("a.yaml", "case: a\nworkload: {block: {}}\n").unwrap();
    let both = set(axis, &words.join(",")).unwrap();
    let from_override = cells(&plain, &both).unwrap();
    let settings =
        |cells: &[Cell]| -> Vec<Axes> { cells.iter().map(|cell| cell.axes.clone()).collect() };
    assert_eq!(settings(&from_case), settings(&from_override), "{axis}: `--set` and a case differ");
    let [one, other] = &*from_case else { panic!("{axis}: the matrix does not vary it") };

    assert_ne!(one.id, other.id, "{axis}");
    assert!(one.varied.contains(&axis), "{axis}: the id does not name it");
    assert_ne!(axis.value(&one.axes), axis.value(&other.axes), "{axis}");
    for same in Axis::ALL.into_iter().filter(|same| *same != axis) {
        assert_eq!(same.value(&one.axes), same.value(&other.axes), "{axis} changes {same}");
    }

    let when = &case.expect[0].when;
    assert!(when.holds(&one.axes, None, None), "{axis}: `when` does not match");
    assert!(!when.holds(&other.axes, None, None), "{axis}: `when` matches everything");
    assert_eq!(when.axes(), set(axis, words[0]).unwrap(), "{axis}");

    assert_eq!((both.count(axis), both.given(), both.size()), (2, vec![axis], 2));
    assert!(set(axis, &[words[0], words[0]].join(",")).is_none(), "{axis}: a value stands twice");
    assert_eq!(one.axes.with(&set(axis, words[1]).unwrap()), other.axes, "{axis}");
    for cell in [one, other] {
        assert_eq!(
            AxisSets::from(&cell.axes).product(),
            std::slice::from_ref(&cell.axes),
            "{axis}"
        );
        let json = serde_json::to_string(&cell.axes).unwrap();
        assert_eq!(serde_json::from_str::<Axes>(&json).unwrap(), cell.axes, "{axis}: {json}");
    }
    assert_ne!(shown(one), shown(other), "{axis}: the result document does not show it");
    let name = serde_json::to_value(axis).unwrap();
    assert_eq!(name, axis.name(), "the name in JSON");
}

#[test]
fn every_axis_takes_part_in_everything() {
    for axis in Axis::ALL {
        check(axis);
    }
}

/// An expected message with the names of all axes in place of `ALL AXES`.
pub(crate) fn with_axes(message: &str) -> String {
    message.replace("ALL AXES", &Axis::ALL.map(Axis::name).join(", "))
}

#[test]
fn kernel_qemu_and_accelerator_are_recorded_last_and_named_last_in_reverse() {
    let json = serde_json::to_string(&Axes::default()).unwrap();
    let last = r#","kernel":"","qemu":"qemu-system-x86_64","accelerator":"auto"}"#;
    assert!(json.ends_with(last), "{json}");
    let [.., accelerator, qemu, kernel] = Axis::ALL;
    assert_eq!([accelerator, qemu, kernel], [Axis::Accelerator, Axis::Qemu, Axis::Kernel]);
}
