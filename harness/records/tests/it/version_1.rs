//! Records of version 1, which lack ratios in verdicts and have boots in cell ids.

use std::path::Path;

use dmarig_model::observation::Outcome;
use dmarig_records::{CellName, PairedBoot, StoredRun, judge_boot};
use dmarig_stats::paired::Arm;

fn read(name: &str) -> StoredRun {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    StoredRun::read(&data).unwrap()
}

#[test]
fn judges_across_cells_on_reading() {
    let run = read("version-1-ratio");
    let outcomes: Vec<(&str, Outcome)> = run
        .cells
        .iter()
        .map(|record| (record.observation.cell.as_str(), record.verdict.outcome))
        .collect();
    // In the file both passed: the ratio was judged only for the terminal.
    assert_eq!(
        outcomes,
        [
            ("ratio/policy=passthrough,kernel=debian-5.10", Outcome::Failed),
            ("ratio/policy=lazy,kernel=debian-5.10", Outcome::Passed),
        ]
    );
    let reasons = &run.cells[0].verdict.reasons;
    assert_eq!(*reasons, ["psi-ratio: 0, expected at least 0.5 to policy=lazy"]);
    assert!(!run.is_comparison());
}

#[test]
fn takes_the_rerun_command_from_the_command_line() {
    let run = read("version-1-ratio");
    let cell = &run.cells[0].observation;
    let name = CellName {
        case: &cell.case,
        id: &cell.cell,
        kernel: &cell.axes.kernel,
        qemu: &cell.axes.qemu,
    };
    assert_eq!(
        run.meta.rerun_command(&name),
        "dmarig run ratio.yaml --cell ratio/policy=passthrough,kernel=debian-5.10 \
         --kernel debian-5.10"
    );
}

#[test]
fn takes_the_boots_of_a_comparison_from_ids() {
    let run = read("version-1-comparison");
    assert!(run.is_comparison());
    let boots: Vec<PairedBoot> = run.cells.iter().map(|cell| cell.boot.clone().unwrap()).collect();
    let boot = |arm, pair, warm_up| PairedBoot { arm, pair, warm_up };
    assert_eq!(
        boots,
        [
            boot(Arm::Baseline, None, true),
            boot(Arm::Candidate, None, true),
            boot(Arm::Baseline, Some(0), false),
            boot(Arm::Candidate, Some(0), false),
        ]
    );
}

#[test]
fn judges_boots_by_the_windows_that_ran() {
    let run = read("version-1-comparison");
    let cases = run.cases();
    for record in &run.cells {
        let case = cases.iter().find(|case| case.name == record.observation.case).unwrap();
        let planned = record.planned_windows.as_deref();
        assert_eq!(planned, None);
        let verdict = judge_boot(case, planned, &record.observation);
        assert_eq!(verdict.outcome, record.verdict.outcome, "{}", record.observation.cell);
    }
}
