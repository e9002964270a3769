//! Kernels that are none, or lack what a cell needs: told by cell, while the others go on.

use dmarig_fake_qemu::QemuScript;

use crate::place::{CASE, EM_AARCH64, EM_X86_64, Place, came_out, vmlinux};

/// Runs these kernels beside a good one. Each is to come out as `outcome` with its reason.
#[track_caller]
fn beside_a_good_one(place: &Place, bad: &[(String, &str)], outcome: &str, code: i32) {
    let (case, qemu, good) =
        (place.file("case.yaml", CASE), place.qemu(QemuScript::Passes), place.kernel());
    let mut words = vec!["run", &case, "--format", "json", "--qemu", &qemu, "--kernel", &good];
    bad.iter().for_each(|(path, _)| words.extend(["--kernel", path]));
    let ended = place.run(&words);
    ended.exits(code);
    came_out(&ended.cell("kernel_name", &good), "passed", "");
    for (path, reason) in bad {
        came_out(&ended.cell("kernel_name", path), outcome, reason);
    }
    assert_eq!(place.record().len(), 1 + bad.len());
}

#[test]
fn what_is_no_kernel_harms_no_other_cell() {
    let place = Place::new();
    std::fs::create_dir(place.path("nothing")).unwrap();
    let whole = vmlinux(EM_X86_64);
    let mut arm_image = b"MZ\0\0".to_vec();
    arm_image.resize(4096, 0);
    arm_image[56..60].copy_from_slice(b"ARM\x64");
    let bad = [
        (place.path("nothing").display().to_string(), "a directory without a kernel"),
        (place.file("empty", ""), "the file is empty"),
        (place.file("truncated", &whole[..whole.len() / 2]), "truncated: "),
        (place.file("arm64", vmlinux(EM_AARCH64)), "a kernel for ARM64"),
        (place.file("arm64-image", arm_image), "ARM64"),
        (place.file("letter", "Dear kernel,\n"), "not a kernel"),
        (
            place.path("missing").display().to_string(),
            "neither a kernel's name nor an existing path",
        ),
    ];
    beside_a_good_one(&place, &bad, "errored", 3);
    // Alone it is a name that was spelt wrong: nothing is run or recorded.
    let missing = &bad.last().unwrap().0;
    let recorded = place.record().len();
    place.run(&["run", "smoke", "--kernel", missing]).exits(2).says(&["neither a kernel's name"]);
    assert_eq!(place.record().len(), recorded);
}

#[test]
fn what_a_kernel_lacks_is_told_by_name() {
    let place = Place::new();
    let without = |name: &str, option: &str| place.kernel_without(name, &[option]);
    let bad = [
        (
            without("a", "CONFIG_SERIAL_8250_CONSOLE"),
            "a serial console (CONFIG_SERIAL_8250_CONSOLE",
        ),
        (without("b", "CONFIG_INTEL_IOMMU"), "the Intel IOMMU driver (CONFIG_INTEL_IOMMU"),
        (without("c", "CONFIG_BLK_DEV_NVME"), "NVMe (CONFIG_BLK_DEV_NVME"),
        (without("d", "CONFIG_BLK_DEV_INITRD"), "an initramfs (CONFIG_BLK_DEV_INITRD"),
    ];
    beside_a_good_one(&place, &bad, "skipped", 0);
    let case = place.file("case.yaml", CASE);
    let qemu = place.qemu(QemuScript::Passes);
    // Alone it leaves nothing to run.
    place.run(&["run", &case, "--qemu", &qemu, "--kernel", &bad[0].0]).exits(4);
}

#[test]
fn a_kernel_that_was_not_fetched_is_told_how_to_get() {
    let place = Place::new();
    let qemu = place.qemu(QemuScript::Passes);
    let ended = place.run(&["run", "boot", "--qemu", &qemu, "--format", "json"]);
    ended.exits(3);
    came_out(&ended.cells()[0], "errored", "dmarig images fetch debian-6.1");
}
