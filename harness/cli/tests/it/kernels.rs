//! Kernels that are none, or lack what a cell needs: told by cell, while the others go on.

use dmarig_fake_qemu::QemuScript;

use crate::place::{CASE, EM_AARCH64, EM_X86_64, Place, came_out, vmlinux};

/// Runs these kernels beside a good one, asserts that each has this outcome, and gives their verdicts.
#[track_caller]
fn beside_a_good_one(place: &Place, bad: &[String], outcome: &str, code: i32) -> String {
    let (case, qemu, good) =
        (place.file("case.yaml", CASE), place.qemu(QemuScript::Passes), place.kernel());
    let mut words = vec!["run", &case, "--format", "json", "--qemu", &qemu, "--kernel", &good];
    bad.iter().for_each(|path| words.extend(["--kernel", path]));
    let ended = place.run(&words);
    ended.exits(code);
    came_out(&ended.cell("kernel_name", &good), "passed");
    assert_eq!(place.record().len(), 1 + bad.len());
    let verdicts = bad.iter().map(|path| {
        let cell = ended.cell("kernel_name", path);
        came_out(&cell, outcome);
        place.redact(&format!("{path}: ")) + &place.verdict(&cell)
    });
    verdicts.collect::<Vec<_>>().join("\n")
}

#[test]
fn errors_on_invalid_kernels_and_runs_other_cells() {
    let place = Place::new();
    std::fs::create_dir(place.path("nothing")).unwrap();
    let whole = vmlinux(EM_X86_64);
    let mut arm_image = b"MZ\0\0".to_vec();
    arm_image.resize(4096, 0);
    arm_image[56..60].copy_from_slice(b"ARM\x64");
    let bad = [
        place.path("nothing").display().to_string(),
        place.file("empty", ""),
        place.file("truncated", &whole[..whole.len() / 2]),
        place.file("arm64", vmlinux(EM_AARCH64)),
        place.file("arm64-image", arm_image),
        place.file("letter", "Dear kernel,\n"),
        place.path("missing").display().to_string(),
    ];
    insta::assert_snapshot!(
        "files_that_are_no_kernel",
        beside_a_good_one(&place, &bad, "errored", 3)
    );
    // Alone it is a misspelt name: nothing is run or recorded.
    let missing = bad.last().unwrap();
    let recorded = place.record().len();
    let rejected = place.run_all(2, &[&["run", "smoke", "--kernel", missing]]);
    insta::assert_snapshot!("missing_kernel", rejected);
    assert_eq!(place.record().len(), recorded);
}

#[test]
fn skips_kernels_without_required_options() {
    let place = Place::new();
    let without = |name: &str, option: &str| place.kernel_without(name, &[option]);
    let bad = [
        without("a", "CONFIG_SERIAL_8250_CONSOLE"),
        without("b", "CONFIG_INTEL_IOMMU"),
        without("c", "CONFIG_BLK_DEV_NVME"),
        without("d", "CONFIG_BLK_DEV_INITRD"),
    ];
    insta::assert_snapshot!(beside_a_good_one(&place, &bad, "skipped", 0));
    let case = place.file("case.yaml", CASE);
    let qemu = place.qemu(QemuScript::Passes);
    // Alone it leaves nothing to run.
    place.run(&["run", &case, "--qemu", &qemu, "--kernel", &bad[0]]).exits(4);
}

#[test]
fn names_fetch_command_of_missing_kernel() {
    let place = Place::new();
    let qemu = place.qemu(QemuScript::Passes);
    let ended = place.run(&["run", "boot", "--qemu", &qemu, "--format", "json"]);
    ended.exits(3);
    came_out(&ended.cells()[0], "errored");
    insta::assert_snapshot!(place.verdict(&ended.cells()[0]));
}
