//! How deadlines scale.

use std::time::Duration;

use dmarig_model::axes::Accelerator;
use dmarig_rig::deadlines::Deadlines;

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn emulation_stretches_boot_and_workload_alone() {
    let kvm = Deadlines::new(Accelerator::Kvm, MINUTE, MINUTE, 1.0);
    let tcg = Deadlines::new(Accelerator::Tcg, MINUTE, MINUTE, 1.0);
    assert_eq!((kvm.boot, kvm.workload), (MINUTE, MINUTE));
    assert_eq!((tcg.boot, tcg.workload), (4 * MINUTE, 4 * MINUTE));
    assert_eq!((tcg.spawn, tcg.qmp, tcg.end), (kvm.spawn, kvm.qmp, kvm.end));
}

#[test]
fn the_factor_stretches_all_deadlines() {
    let usual = Deadlines::new(Accelerator::Kvm, MINUTE, MINUTE, 1.0);
    let slow = Deadlines::new(Accelerator::Kvm, MINUTE, MINUTE, 2.0);
    assert_eq!(slow.boot, 2 * usual.boot);
    assert_eq!(slow.spawn, 2 * usual.spawn);
    assert_eq!(slow.qmp, 2 * usual.qmp);
    assert_eq!(slow.request, 2 * usual.request);
    assert_eq!(slow.end, 2 * usual.end);
}

#[test]
fn the_total_exceeds_the_sum_of_its_parts() {
    let deadlines = Deadlines::new(Accelerator::Tcg, MINUTE, MINUTE, 20.0);
    let parts = deadlines.spawn + deadlines.boot + deadlines.workload * 3;
    assert!(deadlines.total(3) > parts);
    assert!(deadlines.total(0) > deadlines.boot + deadlines.workload);
}
