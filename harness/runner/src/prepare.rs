//! Turns cells into launches: finds kernels, QEMUs and accelerators, packs initramfs images, plans.
//!
//! What a cell lacks becomes that cell's outcome and harms no other.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use dmarig_digest::{sha256_file, short_id};
use dmarig_images::{AddedFile, Cache, InitramfsSpec, KernelImage, ModuleFile};
use dmarig_model::{
    axes::{Accelerator, Axes, DEFAULT_QEMU, Device, Passthrough},
    case::Case,
    judge::attacks_of,
    kernel::{Kernel, KernelBuild},
    matrix::Cell,
    observation::{PlannedWindow, Setup},
    plan::{LaunchPlan, Parts},
    probe::{Attack, Knobs},
    qemu::Qemu,
    skip::SkipReason,
};
use dmarig_rig::{
    accelerator::{self, Finding},
    deadlines::Deadlines,
    guest, inspect,
    launch::Launch,
    probe::ProbeLaunch,
};
use dmarig_wire::Job;
use tokio::sync::watch;

use self::facts::{added_files, kernel_facts, setup};
use crate::{
    error::PrepareError,
    event::{Event, Reporter},
    host_device::HostDevice,
    nested,
    request::Selection,
};

mod facts;
mod outer;

/// Why a cell is not launched.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NotLaunched {
    /// The cell does not apply to this kernel or QEMU: it is skipped.
    #[error("{0}")]
    Skipped(String),
    /// Something that the cell needs is missing or broken: it is errored.
    #[error(transparent)]
    Failed(#[from] PrepareError),
}

impl From<SkipReason> for NotLaunched {
    fn from(reason: SkipReason) -> Self {
        Self::Skipped(reason.to_string())
    }
}

/// A cell that is ready to be launched, or can't be.
#[derive(Debug)]
pub struct Prepared {
    /// The cell.
    pub cell: Cell,
    /// What its launch needs, or why it is not launched.
    pub launch: Result<Ready, NotLaunched>,
    /// Whether no other guest may run at the same time.
    pub quiet: bool,
    /// Time spent on this cell alone.
    pub planned_in: Duration,
}

/// What a launch needs.
#[derive(Debug)]
pub struct Ready {
    /// Arguments of QEMU and of the kernel.
    pub plan: LaunchPlan,
    /// Kernel, QEMU and host, for the record.
    pub setup: Setup,
    /// Properties of the virtual IOMMU to read back.
    pub iommu_properties: Vec<String>,
    /// The workload.
    pub job: Job,
    /// The planned windows, in their order.
    pub windows: Vec<PlannedWindow>,
    /// Deadlines of all waits.
    pub deadlines: Deadlines,
    /// The probe of the device under test.
    pub probe: Option<ProbeLaunch>,
    /// DMA that must fault.
    pub attacks: Vec<Attack>,
    /// The settings of the outer guest, where the launch is one's.
    pub outer: Option<Axes>,
}

impl Ready {
    /// The launch of `cell`, whose logs go to `artifacts`.
    pub fn launch<'a>(
        &'a self,
        cell: &'a Cell,
        artifacts: Option<PathBuf>,
        planned_in: Duration,
    ) -> Launch<'a> {
        let outer = self.outer.as_ref();
        Launch {
            cell: &cell.id,
            case: &cell.case,
            axes: outer.unwrap_or(&cell.axes),
            plan: &self.plan,
            setup: self.setup.clone(),
            iommu_properties: self.iommu_properties.clone(),
            job: self.job.clone(),
            windows: self.windows.clone(),
            deadlines: self.deadlines,
            probe: self.probe.clone(),
            attacks: self.attacks.clone(),
            guest_files: outer.and_then(|_| artifacts.as_deref().map(nested::guest_files)),
            artifacts,
            planned_in,
        }
    }
}

/// A kernel with all that is known of it.
#[derive(Debug)]
struct FoundKernel {
    kernel: Kernel,
    image: KernelImage,
}

/// What was found so far; each thing is looked for once.
pub struct Preparer<'a> {
    cache: &'a Cache,
    selection: &'a Selection,
    device: Option<&'a HostDevice>,
    interrupt: watch::Receiver<bool>,
    reporter: &'a dyn Reporter,
    /// Time spent on what several cells share: it belongs to none of them.
    shared: Duration,
    kernels: HashMap<String, Result<FoundKernel, PrepareError>>,
    qemus: HashMap<String, Result<Qemu, PrepareError>>,
    findings: HashMap<(String, Accelerator), Result<Finding, PrepareError>>,
    initramfs: HashMap<(String, Device), Result<dmarig_images::Initramfs, PrepareError>>,
}

impl<'a> Preparer<'a> {
    /// Prepares what `selection` requests; notes go to `reporter`.
    pub fn new(
        cache: &'a Cache,
        selection: &'a Selection,
        device: Option<&'a HostDevice>,
        interrupt: watch::Receiver<bool>,
        reporter: &'a dyn Reporter,
    ) -> Self {
        Self {
            cache,
            selection,
            device,
            interrupt,
            reporter,
            shared: Duration::ZERO,
            kernels: HashMap::new(),
            qemus: HashMap::new(),
            findings: HashMap::new(),
            initramfs: HashMap::new(),
        }
    }

    /// Makes a cell ready.
    pub async fn prepare(&mut self, case: &Case, cell: &Cell) -> Prepared {
        let start = Instant::now();
        let shared_before = self.shared;
        let launch = match cell.axes.passthrough {
            Passthrough::Nested => self.launch_outer(case, &cell.axes).await,
            _ => self.launch(case, cell).await,
        };
        // There is one device of the host, so its cells run one at a time.
        let quiet = case.quiet || cell.axes.passthrough == Passthrough::Host;
        let cell = cell.clone();
        let planned_in = start.elapsed().saturating_sub(self.shared - shared_before);
        Prepared { cell, launch, quiet, planned_in }
    }

    async fn launch(&mut self, case: &Case, cell: &Cell) -> Result<Ready, NotLaunched> {
        let axes = &cell.axes;
        let qemu = self.qemu(&axes.qemu).await?;
        let kernel = self.kernel(&axes.kernel)?.kernel.clone();
        // What can't be planned needs neither an accelerator nor an initramfs.
        self.plan(axes, &case.probe, &qemu, &kernel, "", Accelerator::Tcg)?;
        let packed = self.initramfs(&kernel, axes.device)?;
        let finding = self.accelerator(&qemu, axes.accelerator, &kernel).await?;
        let initramfs = packed.path.display().to_string();
        let plan = self.plan(axes, &case.probe, &qemu, &kernel, &initramfs, finding.accelerator)?;
        let limits = case.time_limits;
        Ok(Ready {
            setup: setup(&plan, &qemu, &kernel, &packed, finding.accelerator),
            iommu_properties: qemu.proving_properties(),
            job: case.job(axes),
            windows: case.planned_windows(axes, kernel.version),
            deadlines: Deadlines::new(
                finding.accelerator,
                limits.boot(),
                limits.workload(),
                self.selection.patience,
            ),
            probe: self.probe(&plan)?,
            attacks: attacks_of(case, axes),
            outer: None,
            plan,
        })
    }

    /// The probe of a plan: this very program, unless another one is named.
    fn probe(&self, plan: &LaunchPlan) -> Result<Option<ProbeLaunch>, PrepareError> {
        let Some(settings) = plan.probe.clone() else { return Ok(None) };
        let program = match &self.selection.probe_program {
            Some(program) => program.clone(),
            None => std::env::current_exe().map_err(|source| PrepareError::OwnProgram {
                what: "file is",
                source: Arc::new(source),
            })?,
        };
        Ok(Some(ProbeLaunch { program, settings }))
    }

    fn plan(
        &self,
        axes: &Axes,
        probe: &Knobs,
        qemu: &Qemu,
        kernel: &Kernel,
        initramfs: &str,
        accelerator: Accelerator,
    ) -> Result<LaunchPlan, NotLaunched> {
        let host_device = match (axes.passthrough, self.device) {
            (Passthrough::Host, Some(device)) => match device.arguments(qemu) {
                Ok(arguments) => arguments,
                // The device is bound; that this QEMU cannot have it is no fault of the host.
                Err(error) => return Err(NotLaunched::Skipped(error.to_string())),
            },
            _ => Vec::new(),
        };
        let parts = self.parts(probe, qemu, kernel, &host_device);
        LaunchPlan::new(axes, &Parts { initramfs, accelerator, ..parts }).map_err(NotLaunched::from)
    }

    /// Parts of a plan under TCG that lacks its initramfs.
    fn parts<'p>(
        &'p self,
        probe: &'p Knobs,
        qemu: &'p Qemu,
        kernel: &'p Kernel,
        host_device: &'p [String],
    ) -> Parts<'p> {
        Parts {
            host_device,
            qemu,
            kernel,
            initramfs: "",
            accelerator: Accelerator::Tcg,
            stock_boot: self.selection.stock_boot,
            append: &self.selection.append,
            probe,
        }
    }

    /// Asks a QEMU what it is, once.
    pub async fn qemu(&mut self, name: &str) -> Result<Qemu, PrepareError> {
        if !self.qemus.contains_key(name) {
            let (start, before) = (Instant::now(), self.shared);
            let directory = self.cache.dir().join("qemu");
            let deadline = Deadlines::qmp_answer(self.selection.patience);
            let found = match qemu_program(self.cache, name) {
                Ok((path, binary)) => {
                    inspect::inspect_cached(name, &path, &binary, &directory, deadline)
                        .await
                        .map_err(PrepareError::from)
                }
                Err(error) => Err(error),
            };
            self.qemus.insert(name.to_owned(), found);
            self.shared = before + start.elapsed();
        }
        self.qemus[name].clone()
    }

    fn kernel(&mut self, name: &str) -> Result<&FoundKernel, PrepareError> {
        if !self.kernels.contains_key(name) {
            let (start, before) = (Instant::now(), self.shared);
            let modules = self.selection.modules.as_deref();
            let found = self
                .cache
                .resolve(name, modules)
                .map(|image| {
                    let kernel = kernel_facts(name, &image, self.selection.stock_boot);
                    FoundKernel {
                        kernel: Kernel { build: self.build(name, &image), ..kernel },
                        image,
                    }
                })
                .map_err(PrepareError::from);
            if let Ok(found) = &found {
                for note in &found.image.notes {
                    self.note(&format!("kernel {name}: {note}"));
                }
            }
            self.kernels.insert(name.to_owned(), found);
            self.shared = before + start.elapsed();
        }
        self.kernels[name].as_ref().map_err(Clone::clone)
    }

    /// What a kernel was built from, as far as the cache knows it.
    fn build(&self, name: &str, image: &KernelImage) -> KernelBuild {
        let built = self.cache.built_named(name).ok().flatten();
        let about = built.map(|built| built.about).unwrap_or_default();
        let config = image.config_file.as_deref().and_then(|path| sha256_file(path).ok());
        KernelBuild::new(&about, &config.unwrap_or_default())
    }

    fn note(&self, text: &str) {
        self.reporter.report(&Event::Note(text));
    }

    fn initramfs(
        &mut self,
        kernel: &Kernel,
        device: Device,
    ) -> Result<dmarig_images::Initramfs, PrepareError> {
        let key = (kernel.name.clone(), device);
        if let Some(packed) = self.initramfs.get(&key) {
            return packed.clone();
        }
        let (start, before) = (Instant::now(), self.shared);
        let packed = self.pack(kernel, device);
        self.shared = before + start.elapsed();
        self.initramfs.insert(key, packed.clone());
        packed
    }

    fn pack(
        &mut self,
        kernel: &Kernel,
        device: Device,
    ) -> Result<dmarig_images::Initramfs, PrepareError> {
        let modules = self.closure(kernel, device)?;
        self.pack_with(&modules, &added_files(&self.selection.adds)?)
    }

    fn pack_with(
        &self,
        modules: &[ModuleFile],
        files: &[AddedFile],
    ) -> Result<dmarig_images::Initramfs, PrepareError> {
        let spec = InitramfsSpec { agent: dmarig_images::AGENT, modules, files };
        Ok(self.cache.pack(&spec)?)
    }

    /// The modules that the guest under test loads.
    fn closure(
        &mut self,
        kernel: &Kernel,
        device: Device,
    ) -> Result<Vec<ModuleFile>, PrepareError> {
        let asked_for = &self.selection.load;
        let mut wanted: Vec<&str> = kernel.modules(device);
        wanted.extend(asked_for.iter().map(String::as_str));
        // Without a configuration nobody knows whether they are built in: the guest will show. What
        // the user asks for is not left to that.
        let needed = kernel.config.is_some() || !asked_for.is_empty();
        self.modules(&kernel.name, &wanted, needed)
    }

    /// The modules to load so that all of `wanted` are there; none where they are not `needed` and
    /// not to be found.
    fn modules(
        &mut self,
        kernel: &str,
        wanted: &[&str],
        needed: bool,
    ) -> Result<Vec<ModuleFile>, PrepareError> {
        match (wanted.is_empty(), &self.kernel(kernel)?.image.modules.clone()) {
            (true, _) => Ok(Vec::new()),
            (false, Some(directory)) => Ok(self.cache.closure(directory, wanted)?),
            (false, None) if !needed => Ok(Vec::new()),
            (false, None) => Err(PrepareError::NoModules {
                kernel: kernel.to_owned(),
                modules: wanted.join(", "),
            }),
        }
    }

    /// The accelerator to use for `wanted`, with its evidence.
    pub async fn accelerator(
        &mut self,
        qemu: &Qemu,
        wanted: Accelerator,
        kernel: &Kernel,
    ) -> Result<Finding, PrepareError> {
        let key = (qemu.path.clone(), wanted);
        if !self.findings.contains_key(&key) {
            // What it packs for its guest is part of the same time.
            let (start, before) = (Instant::now(), self.shared);
            let finding = self.find_accelerator(qemu, wanted, kernel).await;
            self.shared = before + start.elapsed();
            if let (Ok(finding), Accelerator::Auto) = (&finding, wanted)
                && finding.accelerator == Accelerator::Tcg
            {
                self.note(&format!("TCG, not KVM: {}", finding.evidence));
            }
            self.findings.insert(key.clone(), finding);
        }
        self.findings[&key].clone()
    }

    async fn find_accelerator(
        &mut self,
        qemu: &Qemu,
        wanted: Accelerator,
        kernel: &Kernel,
    ) -> Result<Finding, PrepareError> {
        let forced = |name| Finding::new(qemu, name, "forced by --accel or the case".to_owned());
        match (wanted, accelerator::obstacle(qemu)) {
            (Accelerator::Tcg, _) => Ok(forced(Accelerator::Tcg)),
            (Accelerator::Kvm, None) => Ok(forced(Accelerator::Kvm)),
            (Accelerator::Kvm, Some(why)) => Err(PrepareError::NoKvm { why }),
            (Accelerator::Auto, Some(why)) => Ok(Finding::new(qemu, Accelerator::Tcg, why)),
            (Accelerator::Auto, None) => {
                let path = self.cache.dir().join("accelerator").join(file_name(&qemu.path));
                if let Some(finding) = Finding::load(&path, qemu) {
                    return Ok(finding);
                }
                self.note("trying a guest under KVM (once for this QEMU and boot of the host)");
                let finding = self.prove_kvm(qemu, kernel).await?;
                // An interrupted proof proves nothing.
                if !*self.interrupt.borrow()
                    && let Err(error) = finding.save(&path)
                {
                    tracing::warn!("the accelerator's finding can't be kept: {error}");
                }
                Ok(finding)
            }
        }
    }

    async fn prove_kvm(&mut self, qemu: &Qemu, kernel: &Kernel) -> Result<Finding, PrepareError> {
        let axes = Axes::default();
        let packed = self.initramfs(kernel, axes.device)?;
        let initramfs = packed.path.display().to_string();
        let plan = self
            .plan(&axes, &Knobs::default(), qemu, kernel, &initramfs, Accelerator::Kvm)
            .map_err(|error| PrepareError::NoPlan(error.to_string()))?;
        let launch = Launch {
            cell: "kvm-proof",
            case: "kvm-proof",
            axes: &axes,
            setup: setup(&plan, qemu, kernel, &packed, Accelerator::Kvm),
            plan: &plan,
            iommu_properties: Vec::new(),
            job: Job::Idle,
            windows: Vec::new(),
            deadlines: accelerator::proof_deadlines(),
            probe: None,
            attacks: Vec::new(),
            artifacts: None,
            guest_files: None,
            planned_in: Duration::ZERO,
        };
        let observation = guest::run(&launch, self.interrupt.clone(), &|_| ()).await;
        Ok(accelerator::conclude(qemu, &observation))
    }

    /// What is known of a kernel, for `dmarig doctor`.
    pub fn kernel_facts(&mut self, name: &str) -> Result<Kernel, PrepareError> {
        self.kernel(name).map(|found| found.kernel.clone())
    }
}

/// A name for a file about `path`.
fn file_name(path: &str) -> String {
    format!("{}.json", short_id([path], 16))
}

/// The file to run for a fetched QEMU's name, or for a binary, and the binary itself.
pub fn qemu_program(cache: &Cache, name: &str) -> Result<(PathBuf, PathBuf), PrepareError> {
    if let Some(tree) = cache.qemu(name)? {
        // What is run is a script that starts this one.
        let binary = tree.root.join("usr/bin").join(DEFAULT_QEMU);
        return Ok((tree.program, binary));
    }
    match which::which(name) {
        Ok(path) => Ok((path.clone(), path)),
        Err(source) => {
            let known = cache.recipes().qemus().map(|recipe| recipe.name.clone()).collect();
            Err(PrepareError::NoQemu { name: name.to_owned(), known, source })
        }
    }
}
