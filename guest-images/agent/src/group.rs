//! Changes the type of the IOMMU groups under test.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use dmarig_wire::Target;

/// Changes the type of each target's group to `kind`; returns whether a driver had to be unbound for
/// it, as the kernel requires for all changes but the one from `DMA` to `DMA-FQ`.
///
/// # Errors
/// Where a target has no group, or the kernel refuses; the driver is bound again first.
pub(crate) fn change_type(sys: &Path, targets: &[Target], kind: &str) -> Result<bool> {
    let mut rebound = false;
    for target in targets {
        let group = target.group.context("the device is in no IOMMU group")?;
        let path = sys.join(format!("kernel/iommu_groups/{group}/type"));
        let read = || -> Result<String> {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("can't read {}", path.display()))?;
            Ok(text.trim().to_owned())
        };
        if read()? == kind {
            continue;
        }
        if fs::write(&path, kind).is_err() {
            rebound |= while_unbound(sys, target, || {
                fs::write(&path, kind)
                    .with_context(|| format!("can't write {kind} to {}", path.display()))
            })?;
        }
        let found = read()?;
        ensure!(found == kind, "group {group} is {found} after {kind} was written");
    }
    Ok(rebound)
}

/// Unbinds the target's driver, calls `change`, and binds the driver again.
fn while_unbound(sys: &Path, target: &Target, change: impl FnOnce() -> Result<()>) -> Result<bool> {
    let driver = target.driver.as_ref().context("the device has no driver to be unbound")?;
    let file = |name: &str| sys.join("bus/pci/drivers").join(driver).join(name);
    let order = |name: &str| {
        fs::write(file(name), &target.address)
            .with_context(|| format!("can't {name} {} of {}", driver, target.address))
    };
    order("unbind")?;
    let result = change();
    order("bind")?;
    result.map(|()| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target {
            address: "0000:00:03.0".into(),
            driver: Some("nvme".into()),
            group: Some(7),
            node: Some("nvme0n1".into()),
        }
    }

    /// A tree with a group of that type and a driver.
    fn tree(kind: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("kernel/iommu_groups/7");
        let driver = root.path().join("bus/pci/drivers/nvme");
        fs::create_dir_all(&group).unwrap();
        fs::create_dir_all(&driver).unwrap();
        fs::write(group.join("type"), format!("{kind}\n")).unwrap();
        root
    }

    #[test]
    fn changes_a_type_without_unbinding_if_the_kernel_allows() {
        let root = tree("DMA");
        assert!(!change_type(root.path(), &[target()], "DMA-FQ").unwrap());
        let kind = root.path().join("kernel/iommu_groups/7/type");
        assert_eq!(fs::read_to_string(kind).unwrap(), "DMA-FQ");
        assert!(!root.path().join("bus/pci/drivers/nvme/unbind").exists());
    }

    #[test]
    fn binds_the_driver_again_if_the_kernel_refuses() {
        let root = tree("DMA");
        let kind = root.path().join("kernel/iommu_groups/7/type");
        fs::remove_file(&kind).unwrap();
        // A type that can be read and not written, whoever asks: a directory's entry that is none.
        fs::create_dir(&kind).unwrap();
        let error = change_type(root.path(), &[target()], "DMA-FQ").unwrap_err();
        assert!(format!("{error:#}").contains("can't read"), "{error:#}");
        let refused = || anyhow::bail!("the kernel says no");
        assert!(while_unbound(root.path(), &target(), refused).is_err());
        let bound = fs::read_to_string(root.path().join("bus/pci/drivers/nvme/bind")).unwrap();
        assert_eq!(bound, "0000:00:03.0");
    }
}
