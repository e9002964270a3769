//! Runs that are killed, and the next that mends.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use dmarig_fake_qemu::program;
use dmarig_hostdev::Outcome;

use crate::fake::{DISK, DISK_PATH, Fake, NIC};

/// Starts another run on this host and waits until it has bound the disk.
fn run(fake: &Fake) -> Child {
    let mut child = Command::new(program("hold-device"))
        .arg(fake.path(""))
        .arg(DISK)
        .arg(fake.state())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let bound = lines.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("bound ")));
    assert!(bound.is_some(), "the other run has ended");
    child
}

/// A run that was killed.
fn killed(fake: &Fake) {
    let mut child = run(fake);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(fake.driver(DISK).as_deref(), Some("vfio-pci"));
}

/// Mends, and gives what was said.
fn mend(fake: &Fake) -> Vec<String> {
    fake.host().mend(&fake.state()).unwrap().iter().map(ToString::to_string).collect()
}

#[test]
fn a_killed_run_is_mended_by_the_next() {
    let fake = Fake::alive();
    assert_eq!(mend(&fake), [""; 0]);
    killed(&fake);
    assert_eq!(mend(&fake), ["gave 0000:03:00.0, which a killed run had left, back to nvme"]);
    assert_eq!((fake.driver(DISK).as_deref(), &*fake.preferred(DISK)), (Some("nvme"), ""));
    assert_eq!(mend(&fake), [""; 0]);
    assert_eq!(fs::read_dir(fake.state()).unwrap().count(), 0);
}

#[test]
fn a_live_run_is_let_alone() {
    let fake = Fake::alive();
    let mut child = run(&fake);
    assert_eq!(mend(&fake), [format!("0000:03:00.0 is in use by process {}", child.id())]);
    assert_eq!(fake.driver(DISK).as_deref(), Some("vfio-pci"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(mend(&fake)[0].ends_with("back to nvme"));
}

#[test]
fn to_bind_mends_first() {
    let fake = Fake::alive();
    killed(&fake);
    let bound = fake.host().bind(&fake.inspect(DISK), &[], &fake.state()).unwrap();
    assert_eq!(fake.driver(DISK).as_deref(), Some("vfio-pci"));
    bound.restore().unwrap();
    // Not to the driver that the killed one had left it to.
    assert_eq!(fake.driver(DISK).as_deref(), Some("nvme"));
}

#[test]
fn another_boot_starts_afresh() {
    let fake = Fake::alive();
    killed(&fake);
    fake.file("proc/sys/kernel/random/boot_id", "second-boot\n");
    assert_eq!(mend(&fake), ["0000:03:00.0 needs no mending: the host was booted since"]);
    assert_eq!(fake.driver(DISK).as_deref(), Some("vfio-pci"));
    assert_eq!(mend(&fake), [""; 0]);
}

#[test]
fn any_part_of_the_way_is_mended() {
    let levers = |fake: &Fake, driver: Option<&str>, preferred: &str| {
        killed(fake);
        fake.remove(&format!("{DISK_PATH}/driver"));
        if let Some(driver) = driver {
            fake.link(&format!("{DISK_PATH}/driver"), &format!("sys/bus/pci/drivers/{driver}"));
        }
        fake.file(&format!("{DISK_PATH}/driver_override"), preferred);
    };
    for (driver, preferred) in
        [(Some("nvme"), "vfio-pci\n"), (None, "vfio-pci\n"), (None, "\n"), (Some("nvme"), "\n")]
    {
        let fake = Fake::alive();
        levers(&fake, driver, preferred);
        assert!(mend(&fake)[0].ends_with("back to nvme"));
        assert_eq!((fake.driver(DISK).as_deref(), &*fake.preferred(DISK)), (Some("nvme"), ""));
    }
    // What somebody else has done since is theirs.
    let fake = Fake::alive();
    levers(&fake, Some("e1000e"), "vfio-pci\n");
    mend(&fake);
    assert_eq!((fake.driver(DISK).as_deref(), &*fake.preferred(DISK)), (Some("e1000e"), ""));
}

#[test]
fn what_can_not_be_mended_stays_for_the_next() {
    let fake = Fake::alive();
    killed(&fake);
    fake.file("sys/bus/pci/drivers/nvme/refuses", "");
    let mended = fake.hasty().mend(&fake.state()).unwrap();
    assert!(matches!(mended[0].outcome, Outcome::Failed(_)), "{}", mended[0]);
    fake.remove("sys/bus/pci/drivers/nvme/refuses");
    assert!(mend(&fake)[0].ends_with("back to nvme"));
}

#[test]
fn what_is_open_is_not_waited_for_in_the_kernel() {
    let fake = Fake::alive();
    killed(&fake);
    fake.process(77, "qemu", "/dev/vfio/5");
    let mended = fake.hasty().mend(&fake.state()).unwrap();
    let said = mended[0].to_string();
    assert!(said.contains("process 77 (qemu) has it open after "), "{said}");
    assert_eq!(fake.driver(DISK).as_deref(), Some("vfio-pci"));
    fake.remove("proc/77");
    assert!(mend(&fake)[0].ends_with("back to nvme"));
}

#[test]
fn a_driver_or_a_device_that_is_gone() {
    let fake = Fake::alive();
    killed(&fake);
    fs::rename(fake.path("sys/bus/pci/drivers/nvme"), fake.path("away")).unwrap();
    assert!(mend(&fake)[0].contains("`modprobe nvme`"));
    fs::rename(fake.path("away"), fake.path("sys/bus/pci/drivers/nvme")).unwrap();
    fake.remove(&format!("sys/bus/pci/devices/{DISK}"));
    assert_eq!(mend(&fake).len(), 1);
    assert_eq!(mend(&fake), [""; 0]);
}

#[test]
fn entries_that_were_never_whole_or_are_not_ours() {
    let fake = Fake::alive();
    let entry = format!("state/device-{DISK}.json");
    for half in ["", "{\"version\":1,\"address\""] {
        fake.file(&entry, half);
        let said = mend(&fake);
        assert_eq!(said, ["0000:03:00.0 needs no mending: that run had changed nothing yet"]);
    }
    fake.file(&entry, "{\"version\":2}\n");
    assert!(mend(&fake)[0].contains("was written by another version of dmarig"));
    let error = fake.host().bind(&fake.inspect(DISK), &[], &fake.state()).unwrap_err().to_string();
    assert!(error.contains("another version"), "{error}");
    fake.file("state/notes.txt", "not an entry\n");
    fake.file("state/device-nonsense.json", "neither\n");
    assert_eq!(mend(&fake).len(), 1);
    assert_eq!(fake.driver(NIC).as_deref(), Some("e1000e"));
}

#[test]
fn without_a_journal_nothing_is_changed() {
    let fake = Fake::alive();
    fake.file("state", "a file where the directory would be");
    let error = fake.host().bind(&fake.inspect(DISK), &[], &fake.state()).unwrap_err().to_string();
    assert!(error.contains("can't make") && error.contains("state"), "{error}");
    assert_eq!((fake.driver(DISK).as_deref(), &*fake.preferred(DISK)), (Some("nvme"), "(null)"));
}
