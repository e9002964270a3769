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
fn recover(fake: &Fake) -> Vec<String> {
    fake.host().recover(&fake.state()).unwrap().iter().map(ToString::to_string).collect()
}

#[test]
fn recovers_the_device_of_a_killed_run() {
    let fake = Fake::alive();
    assert_eq!(recover(&fake), [""; 0]);
    killed(&fake);
    assert_eq!(recover(&fake), ["gave 0000:03:00.0, which a killed run had left, back to nvme"]);
    assert_eq!((fake.driver(DISK).as_deref(), &*fake.preferred(DISK)), (Some("nvme"), ""));
    assert_eq!(recover(&fake), [""; 0]);
    assert_eq!(fs::read_dir(fake.state()).unwrap().count(), 0);
}

#[test]
fn leaves_the_device_of_a_live_run() {
    let fake = Fake::alive();
    let mut child = run(&fake);
    assert_eq!(recover(&fake), [format!("0000:03:00.0 is in use by process {}", child.id())]);
    assert_eq!(fake.driver(DISK).as_deref(), Some("vfio-pci"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(recover(&fake)[0].ends_with("back to nvme"));
}

#[test]
fn recovers_a_device_before_it_binds_it() {
    let fake = Fake::alive();
    killed(&fake);
    let bound = fake.host().bind(&fake.inspect(DISK), &[], &fake.state()).unwrap();
    assert_eq!(fake.driver(DISK).as_deref(), Some("vfio-pci"));
    bound.restore().unwrap();
    // Not to the driver that the killed one had left it to.
    assert_eq!(fake.driver(DISK).as_deref(), Some("nvme"));
}

#[test]
fn recovers_nothing_after_another_boot() {
    let fake = Fake::alive();
    killed(&fake);
    fake.file("proc/sys/kernel/random/boot_id", "second-boot\n");
    assert_eq!(recover(&fake), ["0000:03:00.0 needs no mending: the host was booted since"]);
    assert_eq!(fake.driver(DISK).as_deref(), Some("vfio-pci"));
    assert_eq!(recover(&fake), [""; 0]);
}

#[test]
fn recovers_after_any_step() {
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
        assert!(recover(&fake)[0].ends_with("back to nvme"));
        assert_eq!((fake.driver(DISK).as_deref(), &*fake.preferred(DISK)), (Some("nvme"), ""));
    }
    // What somebody else has done since is theirs.
    let fake = Fake::alive();
    levers(&fake, Some("e1000e"), "vfio-pci\n");
    recover(&fake);
    assert_eq!((fake.driver(DISK).as_deref(), &*fake.preferred(DISK)), (Some("e1000e"), ""));
}

#[test]
fn keeps_the_entry_of_a_failed_recovery() {
    let fake = Fake::alive();
    killed(&fake);
    fake.file("sys/bus/pci/drivers/nvme/refuses", "");
    let mended = fake.hasty().recover(&fake.state()).unwrap();
    assert!(matches!(mended[0].outcome, Outcome::Failed(_)), "{}", mended[0]);
    fake.remove("sys/bus/pci/drivers/nvme/refuses");
    assert!(recover(&fake)[0].ends_with("back to nvme"));
}

#[test]
fn does_not_unbind_a_device_that_is_open() {
    let fake = Fake::alive();
    killed(&fake);
    fake.process(77, "qemu", "/dev/vfio/5");
    let mended = fake.hasty().recover(&fake.state()).unwrap();
    let said = mended[0].to_string();
    assert!(said.contains("process 77 (qemu) has it open after "), "{said}");
    assert_eq!(fake.driver(DISK).as_deref(), Some("vfio-pci"));
    fake.remove("proc/77");
    assert!(recover(&fake)[0].ends_with("back to nvme"));
}

#[test]
fn recovers_if_driver_or_device_is_gone() {
    let fake = Fake::alive();
    killed(&fake);
    fs::rename(fake.path("sys/bus/pci/drivers/nvme"), fake.path("away")).unwrap();
    assert!(recover(&fake)[0].contains("`modprobe nvme`"));
    fs::rename(fake.path("away"), fake.path("sys/bus/pci/drivers/nvme")).unwrap();
    fake.remove(&format!("sys/bus/pci/devices/{DISK}"));
    assert_eq!(recover(&fake).len(), 1);
    assert_eq!(recover(&fake), [""; 0]);
}

#[test]
fn handles_incomplete_and_foreign_entries() {
    let fake = Fake::alive();
    let entry = format!("state/device-{DISK}.json");
    for half in ["", "{\"version\":1,\"address\""] {
        fake.file(&entry, half);
        let said = recover(&fake);
        assert_eq!(said, ["0000:03:00.0 needs no mending: that run had changed nothing yet"]);
    }
    fake.file(&entry, "{\"version\":2}\n");
    assert!(recover(&fake)[0].contains("was written by another version of dmarig"));
    let error = fake.host().bind(&fake.inspect(DISK), &[], &fake.state()).unwrap_err().to_string();
    assert!(error.contains("another version"), "{error}");
    fake.file("state/notes.txt", "not an entry\n");
    fake.file("state/device-nonsense.json", "neither\n");
    assert_eq!(recover(&fake).len(), 1);
    assert_eq!(fake.driver(NIC).as_deref(), Some("e1000e"));
}

#[test]
fn changes_nothing_without_a_journal() {
    let fake = Fake::alive();
    fake.file("state", "a file where the directory would be");
    let error = fake.host().bind(&fake.inspect(DISK), &[], &fake.state()).unwrap_err().to_string();
    assert!(error.contains("can't make") && error.contains("state"), "{error}");
    assert_eq!((fake.driver(DISK).as_deref(), &*fake.preferred(DISK)), (Some("nvme"), "(null)"));
}
