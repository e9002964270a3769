//! Devices change hands, and back.

use std::fs;

use dmarig_hostdev::{Choice, Error, Interface, qemu_arguments};

use crate::fake::{DISK, DISK_GROUP, DISK_PATH, Fake, NIC};

#[test]
fn binds_a_device_and_restores_it() {
    let fake = Fake::alive();
    let bound = fake.host().bind(&fake.inspect(DISK), &[], &fake.state()).unwrap();
    assert_eq!((bound.address().to_string().as_str(), bound.group()), (DISK, DISK_GROUP));
    assert_eq!(fake.driver(DISK).as_deref(), Some("vfio-pci"));
    assert_eq!(fake.preferred(DISK), "vfio-pci");
    assert_eq!(fake.driver(NIC).as_deref(), Some("e1000e"));
    bound.restore().unwrap();
    given_back(&fake);
}

#[track_caller]
fn given_back(fake: &Fake) {
    assert_eq!(fake.driver(DISK).as_deref(), Some("nvme"));
    assert_eq!(fake.preferred(DISK), "");
    let left: Vec<_> = fs::read_dir(fake.state()).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn restores_a_device_on_drop() {
    let fake = Fake::alive();
    drop(fake.host().bind(&fake.inspect(DISK), &[], &fake.state()).unwrap());
    given_back(&fake);
}

#[test]
fn restores_driver_override_and_unbound_state() {
    let fake = Fake::alive();
    fake.file(&format!("{DISK_PATH}/driver_override"), "mine\n");
    fake.remove(&format!("{DISK_PATH}/driver"));
    let bound = fake.host().bind(&fake.inspect(DISK), &[], &fake.state()).unwrap();
    assert_eq!(fake.driver(DISK).as_deref(), Some("vfio-pci"));
    bound.restore().unwrap();
    assert_eq!((fake.driver(DISK), fake.preferred(DISK).as_str()), (None, "mine"));
}

#[test]
fn leaves_a_device_that_an_administrator_bound_to_vfio() {
    let fake = Fake::alive();
    fake.remove(&format!("{DISK_PATH}/driver"));
    fake.link(&format!("{DISK_PATH}/driver"), "sys/bus/pci/drivers/vfio-pci");
    fake.file(&format!("dev/vfio/{DISK_GROUP}"), "");
    let bound = fake.host().bind(&fake.inspect(DISK), &[], &fake.state()).unwrap();
    assert_eq!(fake.preferred(DISK), "(null)");
    bound.restore().unwrap();
    assert_eq!(fake.driver(DISK).as_deref(), Some("vfio-pci"));
}

#[test]
fn binds_and_restores_companions_together() {
    let fake = Fake::alive();
    let companions = [fake.inspect(NIC)];
    let bound = fake.host().bind(&fake.inspect(DISK), &companions, &fake.state()).unwrap();
    assert_eq!(fake.driver(NIC).as_deref(), Some("vfio-pci"));
    bound.restore().unwrap();
    assert_eq!(fake.driver(NIC).as_deref(), Some("e1000e"));
    given_back(&fake);
}

#[test]
fn fails_if_the_driver_does_not_take_the_device() {
    let fake = Fake::alive();
    fake.file("sys/bus/pci/drivers/vfio-pci/refuses", "");
    let error = fake.hasty().bind(&fake.inspect(DISK), &[], &fake.state()).unwrap_err();
    assert!(matches!(error, Error::Stuck { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("the driver vfio-pci has not taken it (its driver is none)"), "{text}");
    assert_eq!(fake.driver(DISK).as_deref(), Some("nvme"));
    // It was given back already, which mending again doesn't harm.
    fake.host().recover(&fake.state()).unwrap();
    given_back(&fake);
}

#[test]
fn fails_if_the_kernel_does_not_return_from_a_write() {
    let fake = Fake::new();
    fake.lever("sys/bus/pci/drivers/nvme/unbind");
    let error = fake.hasty().bind(&fake.inspect(DISK), &[], &fake.state()).unwrap_err().to_string();
    let text = "0000:03:00.0: the kernel has not come back from `0000:03:00.0` to \
                /sys/bus/pci/devices/0000:03:00.0/driver/unbind after ";
    assert!(error.starts_with(text), "{error}");
    // Its order may be carried out yet: the next run has to see.
    assert_eq!(fs::read_dir(fake.state()).unwrap().count(), 1);
    assert_eq!(fake.preferred(DISK), "");
}

#[test]
fn reports_the_error_of_the_kernel() {
    let fake = Fake::new();
    fake.remove(&format!("{DISK_PATH}/driver_override"));
    let error = fake.host().bind(&fake.inspect(DISK), &[], &fake.state()).unwrap_err().to_string();
    assert!(error.contains("can't write `vfio-pci` to /sys/bus/pci/devices/"), "{error}");
    assert_eq!(fake.driver(DISK).as_deref(), Some("nvme"));
}

#[test]
fn refuses_a_device_of_another_run() {
    let fake = Fake::alive();
    let first = fake.host().bind(&fake.inspect(DISK), &[], &fake.state()).unwrap();
    let error = fake.host().bind(&fake.inspect(DISK), &[], &fake.state()).unwrap_err();
    let own = format!("in use by another run of dmarig (process {})", std::process::id());
    assert!(error.to_string().contains(&own), "{error}");
    first.restore().unwrap();
    given_back(&fake);
}

#[test]
fn chooses_the_interface_that_host_and_qemu_support() {
    let fake = Fake::alive();
    let bound = fake.host().bind(&fake.inspect(DISK), &[], &fake.state()).unwrap();
    let check = |has, wanted, interface: Result<Interface, &str>| match (
        bound.interface(Choice { qemu_has_iommufd: has, wanted }),
        interface,
    ) {
        (Ok(got), Ok(interface)) => assert_eq!(got, interface),
        (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
        (got, wanted) => panic!("{got:?} is not {wanted:?}"),
    };
    let (legacy, iommufd) = (Interface::Legacy, Interface::Iommufd);
    check(true, None, Ok(legacy));
    check(true, Some(iommufd), Err("/dev/iommu can't be opened"));
    fake.file("dev/iommu", "");
    check(true, Some(iommufd), Err("CONFIG_VFIO_DEVICE_CDEV"));
    fake.file(&format!("{DISK_PATH}/vfio-dev/vfio0/dev"), "511:0\n");
    fake.file("dev/vfio/devices/vfio0", "");
    check(true, None, Ok(iommufd));
    check(true, Some(legacy), Ok(legacy));
    check(false, None, Ok(legacy));
    check(false, Some(iommufd), Err("this QEMU has no object iommufd"));
    fake.remove("dev/vfio/vfio");
    check(true, Some(legacy), Err("/dev/vfio/vfio can't be opened"));
    check(false, None, Err("and there is no other way: this QEMU has no"));
    assert_eq!(qemu_arguments(&bound, legacy, &[]), ["-device", "vfio-pci,host=0000:03:00.0"]);
    assert_eq!(
        qemu_arguments(&bound, iommufd, &["bus=port0", "x-no-mmap=on"]),
        [
            "-object",
            "iommufd,id=iommufd0",
            "-device",
            "vfio-pci,host=0000:03:00.0,iommufd=iommufd0,bus=port0,x-no-mmap=on"
        ]
    );
}
