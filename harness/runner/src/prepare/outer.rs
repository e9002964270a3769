//! Nested cells: the outer guest's launch, with all that the inner one needs in it.

use dmarig_images::AddedFile;
use dmarig_model::{
    axes::{Accelerator, Axes, Device},
    case::Case,
    kernel::Kernel,
    nested::{OUTER_DEVICE, OUTER_KERNEL, inner, outer, patience},
    observation::{PlannedWindow, WindowKind},
    plan::LaunchPlan,
};
use dmarig_rig::deadlines::Deadlines;
use dmarig_wire::{ExecJob, Job};

use super::{NotLaunched, Preparer, Ready, setup};
use crate::{
    error::PrepareError,
    nested::{self, Inside, OuterGuestFiles},
};

impl Preparer<'_> {
    /// The launch of the outer guest of a nested cell.
    pub(super) async fn launch_outer(
        &mut self,
        case: &Case,
        axes: &Axes,
    ) -> Result<Ready, NotLaunched> {
        let qemu = self.qemu(&axes.qemu).await?;
        let kernel = self.kernel(&axes.kernel)?.kernel.clone();
        let named = self.selection.outer_kernel.as_deref().unwrap_or(OUTER_KERNEL).to_owned();
        let outer = outer(axes, &named);
        let around =
            self.kernel(&named).map_err(|error| PrepareError::OuterKernel(Box::new(error)))?;
        let around = around.kernel.clone();
        // What can't be planned, within or around, needs neither an accelerator nor an initramfs.
        let device = ["-device".to_owned(), format!("vfio-pci,host={OUTER_DEVICE}")];
        let inside = self.parts(&case.probe, &qemu, &kernel, &device);
        LaunchPlan::new(&inner(axes), &inside)?;
        self.plan(&outer, &case.probe, &qemu, &around, "", Accelerator::Tcg)?;
        let finding = self.accelerator(&qemu, axes.accelerator, &kernel).await?;
        let patience = self.selection.patience * patience(finding.accelerator);
        let inside = self.inside(case, axes, &kernel, patience)?;
        let packed = self.pack_outer(&around, outer.device, &inside.files)?;
        let initramfs = packed.path.display().to_string();
        let plan =
            self.plan(&outer, &case.probe, &qemu, &around, &initramfs, finding.accelerator)?;
        let limits = case.time_limits;
        let limit = |patience| {
            Deadlines::new(finding.accelerator, limits.boot(), limits.workload(), patience)
        };
        let windows = case.planned_windows(&inner(axes), kernel.version).len();
        let workload = limit(patience).total(windows);
        Ok(Ready {
            setup: setup(&plan, &qemu, &around, &packed, finding.accelerator),
            iommu_properties: qemu.proving_properties(),
            job: Job::Exec(ExecJob { argv: inside.argv, echo: true }),
            windows: vec![PlannedWindow { kind: WindowKind::Timing, group_type: None }],
            deadlines: Deadlines { workload, ..limit(self.selection.patience) },
            probe: None,
            attacks: Vec::new(),
            outer: Some(outer),
            plan,
        })
    }

    /// What the outer guest runs, with its files.
    fn inside(
        &mut self,
        case: &Case,
        axes: &Axes,
        kernel: &Kernel,
        patience: f64,
    ) -> Result<Inside, NotLaunched> {
        let tree = self.cache.qemu(&axes.qemu).map_err(PrepareError::from)?.ok_or_else(|| {
            NotLaunched::Skipped(format!(
                "the outer guest needs a QEMU with all that it runs with, and {} is a program of this \
                 host: `dmarig images fetch qemu` brings one for --qemu qemu",
                axes.qemu
            ))
        })?;
        let modules = self.closure(kernel, axes.device)?;
        let cache = self.cache;
        let image = &self.kernel(&axes.kernel)?.image;
        let export = cache.export(image, &modules, nested::GIVEN).map_err(PrepareError::from)?;
        let file = nested::case_file(case, self.cache.dir())?;
        Inside::new(&OuterGuestFiles {
            axes,
            selection: self.selection,
            qemu: &tree,
            kernel: &export,
            patience,
            case_file: &file,
        })
        .map_err(NotLaunched::Failed)
    }

    /// The initramfs of an outer guest: its own modules, and the files for what runs in it.
    fn pack_outer(
        &mut self,
        kernel: &Kernel,
        device: Device,
        files: &[AddedFile],
    ) -> Result<dmarig_images::Initramfs, PrepareError> {
        let mut wanted: Vec<&str> = kernel.modules(device);
        wanted.extend(kernel.vfio_modules());
        let modules = self.modules(&kernel.name, &wanted, true)?;
        self.pack_with(&modules, files)
    }
}
