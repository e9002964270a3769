//! Facts about kernels, setups and added files.

use std::{collections::BTreeMap, path::PathBuf};

use dmarig_images::{AddedFile, ConfigValue, KernelImage};
use dmarig_model::{
    axes::Accelerator,
    kernel::{Boot, Kernel, KernelBuild, Setting, options},
    observation::Setup,
    plan::LaunchPlan,
    qemu::Qemu,
};

use crate::error::PrepareError;

/// Facts about a kernel's image, for the planner.
pub(super) fn kernel_facts(name: &str, image: &KernelImage, stock_boot: bool) -> Kernel {
    // The package tells the patch level that Debian's release string hides.
    let package = image.packages.first().and_then(|package| package.version.parse().ok());
    let config = image.config.as_ref().map(|config| {
        let setting = |option: &'static str| {
            let setting = match config.get(option) {
                ConfigValue::No => return None,
                ConfigValue::Module => Setting::Module,
                ConfigValue::Yes | ConfigValue::Text(_) => Setting::BuiltIn,
            };
            Some((option.to_owned(), setting))
        };
        options().filter_map(setting).collect::<BTreeMap<_, _>>()
    });
    let stock = image.bzimage.as_deref().filter(|_| stock_boot);
    Kernel {
        name: name.to_owned(),
        version: package.or_else(|| image.release.parse().ok()),
        image: stock.unwrap_or(&image.image).display().to_string(),
        sha256: image.image_sha256.clone(),
        boot: match (stock, image.boot) {
            (None, dmarig_images::Boot::Pvh) => Boot::Pvh,
            _ => Boot::BzImage,
        },
        config,
        packages: image
            .packages
            .iter()
            .map(|package| format!("{} {} {}", package.name, package.version, package.sha256))
            .collect(),
        build: KernelBuild::default(),
    }
}

/// Facts about a launch, for the record.
pub(super) fn setup(
    plan: &LaunchPlan,
    qemu: &Qemu,
    kernel: &Kernel,
    packed: &dmarig_images::Initramfs,
    accelerator: Accelerator,
) -> Setup {
    let mut levers = plan.levers.clone();
    if kernel.boot == Boot::Pvh {
        levers.push("pvh".to_owned());
    }
    Setup {
        qemu_version: qemu.full_version.clone(),
        qemu_path: qemu.path.clone(),
        qemu_sha256: qemu.sha256.clone(),
        accelerator,
        argv: plan.argv(),
        cmdline: plan.cmdline.clone(),
        boot_levers: levers,
        boot: kernel.boot.name().to_owned(),
        kernel_image: kernel.image.clone(),
        kernel_sha256: kernel.sha256.clone(),
        packages: kernel.packages.clone(),
        build: kernel.build.clone(),
        initramfs_sha256: packed.sha256.clone(),
        modules: packed.modules.clone(),
    }
}

/// Files to add to the guest, each below `/add` by its name.
///
/// # Errors
/// [`PrepareError::NamelessFile`] or [`PrepareError::NoFile`]
pub(super) fn added_files(paths: &[PathBuf]) -> Result<Vec<AddedFile>, PrepareError> {
    let mut files = Vec::with_capacity(paths.len());
    for path in paths {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return Err(PrepareError::NamelessFile { path: path.clone() });
        };
        if !path.is_file() {
            return Err(PrepareError::NoFile { path: path.clone() });
        }
        files.push(AddedFile { guest: format!("/add/{name}"), host: path.clone() });
    }
    Ok(files)
}
