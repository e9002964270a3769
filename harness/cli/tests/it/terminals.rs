//! Conventions of terminals: colours and widths.

use std::process::Stdio;

use rstest::rstest;

use crate::place::Place;

const LOG: &str = "[    0.1] Linux version 6.1.0 (x) #1\n[    1.0] DMAR: IOMMU enabled\n";

/// Standard output of `dmarig analyze` with these settings and no others.
fn analysis(settings: &[(&str, &str)]) -> String {
    let place = Place::new();
    let mut command = place.dmarig(&["analyze", &place.file("dmesg.txt", LOG)]);
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS"] {
        command.env_remove(name);
    }
    let output = command.envs(settings.iter().copied()).stdout(Stdio::piped()).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[rstest]
#[case::a_pipe(&[], false)]
#[case::force(&[("CLICOLOR_FORCE", "1")], true)]
#[case::no_force(&[("CLICOLOR_FORCE", "0")], false)]
#[case::no_color_before_force(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], false)]
#[case::force_in_a_dumb_terminal(&[("CLICOLOR_FORCE", "1"), ("TERM", "dumb")], true)]
fn prints_colours_by_convention(#[case] settings: &[(&str, &str)], #[case] expected: bool) {
    let text = analysis(settings);
    assert_eq!(text.contains('\x1b'), expected, "{text:?}");
}

#[test]
fn fits_columns() {
    let lines = |columns| analysis(&[("COLUMNS", columns)]).lines().count();
    assert!(lines("60") > lines("300"));
}
