//! Turns cells into launches: finds kernels, QEMUs and accelerators, packs initramfs images, plans.
//!
//! What a cell lacks becomes that cell's outcome and harms no other.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use dmarig_images::{AddedFile, Cache, ConfigValue, InitramfsSpec, KernelImage, ModuleFile};
use dmarig_model::{
    axes::{Accelerator, Axes, DEFAULT_QEMU, Device, Passthrough},
    case::Case,
    judge::attacks_of,
    kernel::{Boot, Kernel, KernelBuild, Setting, options},
    matrix::Cell,
    observation::{PlannedWindow, Setup},
    plan::{LaunchPlan, Parts},
    probe::{Attack, Knobs},
    qemu::Qemu,
    windows,
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

use crate::{host_device::HostDevice, nested, options::Selection};

mod outer;

/// Why a cell is not launched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// It does not apply here: skipped.
    Skip(String),
    /// Something is wrong with what it was given: errored.
    Fault(String),
}

/// A cell that is ready to be launched, or can't be.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) cell: Cell,
    pub(crate) launch: Result<Ready, Obstacle>,
    pub(crate) quiet: bool,
    pub(crate) planned_in: Duration,
}

/// What a launch needs.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) plan: LaunchPlan,
    pub(crate) setup: Setup,
    pub(crate) iommu_properties: Vec<String>,
    pub(crate) job: Job,
    pub(crate) windows: Vec<PlannedWindow>,
    pub(crate) deadlines: Deadlines,
    pub(crate) probe: Option<ProbeLaunch>,
    pub(crate) attacks: Vec<Attack>,
    /// The settings of the outer guest, where the launch is one's.
    pub(crate) outer: Option<Axes>,
}

impl Ready {
    /// The launch of `cell`, whose logs go to `artifacts`.
    pub(crate) fn launch<'a>(
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
struct Found {
    kernel: Kernel,
    image: KernelImage,
}

/// What was found so far; each thing is looked for once.
pub(crate) struct Preparer<'a> {
    cache: &'a Cache,
    selection: &'a Selection,
    device: Option<&'a HostDevice>,
    interrupt: watch::Receiver<bool>,
    say: &'a dyn Fn(&str),
    kernels: HashMap<String, Result<Found, String>>,
    qemus: HashMap<String, Result<Qemu, String>>,
    findings: HashMap<(String, Accelerator), Result<Finding, String>>,
    initramfs: HashMap<(String, Device), Result<dmarig_images::Initramfs, String>>,
}

impl<'a> Preparer<'a> {
    /// Prepares by what the command line says; `say` shows a line to the user.
    pub(crate) fn new(
        cache: &'a Cache,
        selection: &'a Selection,
        device: Option<&'a HostDevice>,
        interrupt: watch::Receiver<bool>,
        say: &'a dyn Fn(&str),
    ) -> Self {
        Self {
            cache,
            selection,
            device,
            interrupt,
            say,
            kernels: HashMap::new(),
            qemus: HashMap::new(),
            findings: HashMap::new(),
            initramfs: HashMap::new(),
        }
    }

    /// Makes a cell ready.
    pub(crate) async fn prepare(&mut self, case: &Case, cell: &Cell) -> Prepared {
        let start = Instant::now();
        let launch = match cell.axes.passthrough {
            Passthrough::Nested => self.launch_outer(case, &cell.axes).await,
            _ => self.launch(case, cell).await,
        };
        // Of a device of the host's there is one.
        let quiet = case.quiet || cell.axes.passthrough == Passthrough::Host;
        let cell = cell.clone();
        Prepared { cell, launch, quiet, planned_in: start.elapsed() }
    }

    async fn launch(&mut self, case: &Case, cell: &Cell) -> Result<Ready, Obstacle> {
        let axes = &cell.axes;
        let qemu = self.qemu(&axes.qemu).await.map_err(Obstacle::Fault)?;
        let kernel = self.kernel(&axes.kernel).map_err(Obstacle::Fault)?.kernel.clone();
        // What can't be planned needs neither an accelerator nor an initramfs.
        self.plan(axes, &case.probe, &qemu, &kernel, "", Accelerator::Tcg)
            .map_err(Obstacle::Skip)?;
        let packed = self.initramfs(&kernel, axes.device).map_err(Obstacle::Fault)?;
        let finding =
            self.accelerator(&qemu, axes.accelerator, &kernel).await.map_err(Obstacle::Fault)?;
        let initramfs = packed.path.display().to_string();
        let plan = self
            .plan(axes, &case.probe, &qemu, &kernel, &initramfs, finding.accelerator)
            .map_err(Obstacle::Skip)?;
        let limits = case.time_limits;
        Ok(Ready {
            setup: setup(&plan, &qemu, &kernel, &packed, finding.accelerator),
            iommu_properties: qemu.proving_properties(),
            job: case.job(axes),
            windows: windows::planned(case, axes, kernel.version),
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
    fn probe(&self, plan: &LaunchPlan) -> Result<Option<ProbeLaunch>, Obstacle> {
        let Some(settings) = plan.probe.clone() else { return Ok(None) };
        let program = match &self.selection.probe_program {
            Some(program) => program.clone(),
            None => std::env::current_exe().map_err(|error| {
                Obstacle::Fault(format!("this program's own file is not known: {error}"))
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
    ) -> Result<LaunchPlan, String> {
        let host_device = match (axes.passthrough, self.device) {
            (Passthrough::Host, Some(device)) => device.arguments(qemu)?,
            _ => Vec::new(),
        };
        let parts = self.parts(probe, qemu, kernel, &host_device);
        LaunchPlan::new(axes, &Parts { initramfs, accelerator, ..parts })
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
    pub(crate) async fn qemu(&mut self, name: &str) -> Result<Qemu, String> {
        if !self.qemus.contains_key(name) {
            let directory = self.cache.dir().join("qemu");
            let deadline = Deadlines::answer(self.selection.patience);
            let found = match qemu_program(self.cache, name) {
                Ok((path, binary)) => {
                    inspect::inspect_cached(name, &path, &binary, &directory, deadline)
                        .await
                        .map_err(|error| error.to_string())
                }
                Err(error) => Err(error),
            };
            self.qemus.insert(name.to_owned(), found);
        }
        self.qemus[name].clone()
    }

    fn kernel(&mut self, name: &str) -> Result<&Found, String> {
        if !self.kernels.contains_key(name) {
            let modules = self.selection.modules.as_deref();
            let found = self
                .cache
                .resolve(name, modules)
                .map(|image| {
                    let kernel = facts(name, &image, self.stock_boot());
                    Found { kernel: Kernel { build: self.build(name, &image), ..kernel }, image }
                })
                .map_err(|error| error.to_string());
            if let Ok(found) = &found {
                for note in &found.image.notes {
                    (self.say)(&format!("kernel {name}: {note}"));
                }
            }
            self.kernels.insert(name.to_owned(), found);
        }
        self.kernels[name].as_ref().map_err(Clone::clone)
    }

    /// What a kernel was built from, as far as the cache knows it.
    fn build(&self, name: &str, image: &KernelImage) -> KernelBuild {
        let built = self.cache.built_named(name).ok().flatten();
        let about = built.map(|built| built.about).unwrap_or_default();
        let config = image.config_file.as_deref().and_then(inspect::sha256);
        KernelBuild::new(&about, &config.unwrap_or_default())
    }

    fn stock_boot(&self) -> bool {
        self.selection.stock_boot
    }

    fn initramfs(
        &mut self,
        kernel: &Kernel,
        device: Device,
    ) -> Result<dmarig_images::Initramfs, String> {
        let key = (kernel.name.clone(), device);
        if let Some(packed) = self.initramfs.get(&key) {
            return packed.clone();
        }
        let packed = self.pack(kernel, device);
        self.initramfs.insert(key, packed.clone());
        packed
    }

    fn pack(
        &mut self,
        kernel: &Kernel,
        device: Device,
    ) -> Result<dmarig_images::Initramfs, String> {
        let modules = self.closure(kernel, device)?;
        self.pack_with(&modules, &added(&self.selection.adds)?)
    }

    fn pack_with(
        &self,
        modules: &[ModuleFile],
        files: &[AddedFile],
    ) -> Result<dmarig_images::Initramfs, String> {
        let spec = InitramfsSpec { agent: dmarig_images::AGENT, modules, files };
        self.cache.pack(&spec).map_err(|error| error.to_string())
    }

    /// The modules that the guest under test loads.
    fn closure(&mut self, kernel: &Kernel, device: Device) -> Result<Vec<ModuleFile>, String> {
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
    ) -> Result<Vec<ModuleFile>, String> {
        match (wanted.is_empty(), &self.kernel(kernel)?.image.modules.clone()) {
            (true, _) => Ok(Vec::new()),
            (false, Some(directory)) => {
                self.cache.closure(directory, wanted).map_err(|error| error.to_string())
            }
            (false, None) if !needed => Ok(Vec::new()),
            (false, None) => Err(format!(
                "kernel {kernel} has {} as modules, and there are none beside it: name their \
                 directory with --modules",
                wanted.join(", ")
            )),
        }
    }

    /// The accelerator to use for `wanted`, with its evidence.
    pub(crate) async fn accelerator(
        &mut self,
        qemu: &Qemu,
        wanted: Accelerator,
        kernel: &Kernel,
    ) -> Result<Finding, String> {
        let key = (qemu.path.clone(), wanted);
        if !self.findings.contains_key(&key) {
            let finding = self.find_accelerator(qemu, wanted, kernel).await;
            if let (Ok(finding), Accelerator::Auto) = (&finding, wanted)
                && finding.accelerator == Accelerator::Tcg
            {
                (self.say)(&format!("TCG, not KVM: {}", finding.evidence));
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
    ) -> Result<Finding, String> {
        let forced = |name| Finding::new(qemu, name, "forced by --accel or the case".to_owned());
        match (wanted, accelerator::obstacle(qemu)) {
            (Accelerator::Tcg, _) => Ok(forced(Accelerator::Tcg)),
            (Accelerator::Kvm, None) => Ok(forced(Accelerator::Kvm)),
            (Accelerator::Kvm, Some(why)) => Err(format!("KVM was asked for, but {why}")),
            (Accelerator::Auto, Some(why)) => Ok(Finding::new(qemu, Accelerator::Tcg, why)),
            (Accelerator::Auto, None) => {
                let path = self.cache.dir().join("accelerator").join(file_name(&qemu.path));
                if let Some(finding) = Finding::load(&path, qemu) {
                    return Ok(finding);
                }
                (self.say)("trying a guest under KVM (once for this QEMU and boot of the host)");
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

    async fn prove_kvm(&mut self, qemu: &Qemu, kernel: &Kernel) -> Result<Finding, String> {
        let axes = Axes::default();
        let packed = self.initramfs(kernel, axes.device)?;
        let initramfs = packed.path.display().to_string();
        let plan =
            self.plan(&axes, &Knobs::default(), qemu, kernel, &initramfs, Accelerator::Kvm)?;
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
    pub(crate) fn kernel_facts(&mut self, name: &str) -> Result<Kernel, String> {
        self.kernel(name).map(|found| found.kernel.clone())
    }
}

/// A name for a file about `path`.
fn file_name(path: &str) -> String {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    format!("{:016x}.json", hasher.finish())
}

fn facts(name: &str, image: &KernelImage, stock_boot: bool) -> Kernel {
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

fn setup(
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

fn added(paths: &[PathBuf]) -> Result<Vec<AddedFile>, String> {
    paths
        .iter()
        .map(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            let name =
                name.ok_or_else(|| format!("--add {}: it has no plain name", path.display()))?;
            if !Path::new(path).is_file() {
                return Err(format!("--add {}: there is no such file", path.display()));
            }
            Ok(AddedFile { guest: format!("/add/{name}"), host: path.clone() })
        })
        .collect()
}

/// The file to run for a fetched QEMU's name, or for a binary, and the binary itself.
pub(crate) fn qemu_program(cache: &Cache, name: &str) -> Result<(PathBuf, PathBuf), String> {
    if let Some(tree) = cache.qemu(name).map_err(|error| error.to_string())? {
        // What is run is a script that starts this one.
        let binary = tree.root.join("usr/bin").join(DEFAULT_QEMU);
        return Ok((tree.program, binary));
    }
    which::which(name).map(|path| (path.clone(), path)).map_err(|error| {
        format!(
            "no QEMU `{name}`: {error}; install it (on Debian: apt-get install qemu-system-x86), fetch one \
             (`dmarig images fetch qemu`, then --qemu qemu), or name another binary with --qemu"
        )
    })
}
