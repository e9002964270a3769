//! `dmarig doctor`

use clap::Args;
use dmarig_images::CachedQemu;
use dmarig_model::{
    axes::{Accelerator, Axes, DEFAULT_QEMU, Device, ScalableMode, Toggle},
    qemu::Qemu,
    text::shown,
};
use tokio::sync::watch;

use dmarig_runner::{host, prepare::Preparer, request::Selection};

use crate::{
    exit::{Exit, Failure},
    options::Places,
    report::Notes,
};

/// The device by which another process can be a guest's hardware.
const VFIO_USER: &str = "vfio-user-pci";

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    places: Places,
    /// QEMU binaries to ask besides the one on the PATH and those that were fetched (may be
    /// repeated)
    #[arg(long = "qemu", value_name = "NAME|PATH", env = "DMARIG_QEMU", hide_env = true)]
    qemus: Vec<String>,
}

impl Doctor {
    pub(crate) fn execute(self) -> Result<Exit, Failure> {
        let cache = self.places.open_cache()?;
        let facts = host::facts();
        outln!(
            "host      Linux {}, {} CPUs, {} MiB",
            facts.kernel,
            facts.cpus,
            facts.memory_kib >> 10
        );
        outln!("          {}", facts.cpu);
        if !facts.machine.is_empty() {
            outln!("          called {}", shown(&facts.machine));
        }
        outln!("iommu     {}", host::iommu());
        outln!("vfio      {}", host::vfio());
        for candidate in dmarig_hostdev::Host::real().candidates() {
            outln!("device    {candidate}");
        }
        let selection = Selection::default();
        let (_sender, interrupted) = watch::channel(false);
        let mut preparer = Preparer::new(&cache, &selection, None, interrupted, &Notes);
        let kernels = self.kernels(&cache, &mut preparer)?;
        let fetched = cache.qemus()?;
        let ready = super::runtime()?.block_on(self.qemus(&mut preparer, &fetched, &kernels));
        outln!("cache     {}", cache.dir().display());
        outln!("records   {}", self.places.runs()?.display());
        let Some(qemu) = ready.filter(|_| !kernels.is_empty()) else {
            outln!("\nnot ready: see the lines marked with ! above");
            return Ok(Exit::Errored);
        };
        let named = if qemu == DEFAULT_QEMU { String::new() } else { format!(" --qemu {qemu}") };
        outln!("\nready: `dmarig run{named}` boots the smoke case");
        Ok(Exit::Passed)
    }

    /// Prints the kernels that are cached; gives their names, the default one first.
    fn kernels(
        &self,
        cache: &dmarig_images::Cache,
        preparer: &mut Preparer<'_>,
    ) -> Result<Vec<String>, Failure> {
        let mut cached = cache.list()?;
        cached.sort_by_key(|kernel| !kernel.is_default);
        if cached.is_empty() {
            outln!("kernels  !none cached: `dmarig images fetch` brings the default one");
        }
        let mut names = Vec::new();
        for kernel in cached {
            match preparer.kernel_facts(&kernel.name) {
                Ok(facts) => {
                    outln!(
                        "kernel    {} {} ({}), boots by {}",
                        kernel.name,
                        kernel.version,
                        kernel.release,
                        facts.boot.name()
                    );
                    for device in Device::ALL {
                        let lacks = facts.lacks(&Axes { device: *device, ..Axes::default() });
                        if !lacks.is_empty() {
                            outln!("          skips {device}: lacks {}", lacks.join(", "));
                        }
                    }
                    names.push(kernel.name);
                }
                Err(error) => outln!("kernel   !{}: {error}", kernel.name),
            }
        }
        Ok(names)
    }

    /// Prints each QEMU; gives the first that is usable.
    async fn qemus(
        &self,
        preparer: &mut Preparer<'_>,
        fetched: &[CachedQemu],
        kernels: &[String],
    ) -> Option<String> {
        let mut usable = None;
        let mut names = vec![DEFAULT_QEMU];
        let more = fetched.iter().map(|qemu| qemu.tree.name.as_str());
        for name in self.qemus.iter().map(String::as_str).chain(more) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let mut passthrough = false;
        for name in names {
            let qemu = match preparer.qemu(name).await {
                Ok(qemu) => qemu,
                Err(error) => {
                    outln!("qemu     !{error}");
                    continue;
                }
            };
            passthrough |= qemu.devices.contains(VFIO_USER);
            match fetched.iter().find(|fetched| fetched.tree.name == name) {
                Some(_) => outln!("qemu      {name} is {}, fetched", qemu.full_version),
                None => outln!("qemu      {} is {}", qemu.path, qemu.full_version),
            }
            outln!("          sandbox {}", if qemu.sandbox { "yes" } else { "no" });
            for line in skips(&qemu) {
                outln!("          skips {line}");
            }
            if usable.is_none() && qemu.refuses(&Axes::default()).is_none() {
                usable = Some(name.to_owned());
            }
            let Some(kernel) = kernels.first() else {
                outln!("          accelerator unknown: there is no kernel to try");
                continue;
            };
            let finding = match preparer.kernel_facts(kernel) {
                Ok(kernel) => preparer.accelerator(&qemu, Accelerator::Auto, &kernel).await,
                Err(error) => Err(error),
            };
            match finding {
                Ok(finding) => {
                    outln!("          accelerator {}: {}", finding.accelerator, finding.evidence);
                }
                Err(error) => outln!("         !accelerator: {error}"),
            }
        }
        if !passthrough {
            outln!(
                "          none has {VFIO_USER}: `dmarig images fetch qemu` brings one that has"
            );
        }
        usable
    }
}

/// What this QEMU can't be asked for, by axis.
fn skips(qemu: &Qemu) -> Vec<String> {
    let base = Axes::default();
    let settings = [
        ("pt=off", Axes { pt: Toggle::Off, ..base.clone() }),
        (
            "scalable-mode=second-stage",
            Axes { scalable_mode: ScalableMode::SecondStage, ..base.clone() },
        ),
        (
            "scalable-mode=first-stage",
            Axes { scalable_mode: ScalableMode::FirstStage, ..base.clone() },
        ),
        ("device-iotlb=on", Axes { device_iotlb: Toggle::On, ..base.clone() }),
    ];
    let devices = Device::ALL.iter().filter_map(|device| {
        let axes = Axes { device: *device, ..base.clone() };
        Some(format!("device={device}: {}", qemu.refuses(&axes)?))
    });
    settings
        .iter()
        .filter_map(|(name, axes)| Some(format!("{name}: {}", qemu.iommu_device(axes).err()?)))
        .chain(devices)
        .collect()
}
