//! What is requested: which cells, on which kernels and QEMUs, how.

use std::path::PathBuf;

use dmarig_model::axes::Accelerator;

use crate::host_device::DeviceRequest;

/// Which cells to run, and on what.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Cases: names of built-in ones, or case files.
    pub cases: Vec<String>,
    /// Patterns of cell ids: the id itself, a part of it, or a glob. Without any, all cells.
    pub cells: Vec<String>,
    /// Kernels under test: names of fetched or built ones, or paths. Without any, the default one.
    pub kernels: Vec<String>,
    /// A kernel that is run in addition, and to which the history relates the others.
    pub reference: Option<String>,
    /// Directory of the kernel's modules, if they are not beside it.
    pub modules: Option<PathBuf>,
    /// QEMUs: names of fetched ones, or programs. Without any, the one on the `PATH`.
    pub qemus: Vec<String>,
    /// The accelerator.
    pub accelerator: Accelerator,
    /// Values of axes instead of the case's, each `axis=value,...`.
    pub sets: Vec<String>,
    /// Boot without the levers that make it faster.
    pub stock_boot: bool,
    /// More words for the kernel's command line.
    pub append: Vec<String>,
    /// Files to put into the guest, below `/add`.
    pub adds: Vec<PathBuf>,
    /// A device of this host that the guests get.
    pub device: DeviceRequest,
    /// The program that serves probes. Without one, this program.
    pub probe_program: Option<PathBuf>,
    /// The kernel of the outer guest of nested cells.
    pub outer_kernel: Option<String>,
    /// More modules to load, with those that they need.
    pub load: Vec<String>,
    /// Factor by which every deadline is stretched.
    pub patience: f64,
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            cases: Vec::new(),
            cells: Vec::new(),
            kernels: Vec::new(),
            reference: None,
            modules: None,
            qemus: Vec::new(),
            accelerator: Accelerator::Auto,
            sets: Vec::new(),
            stock_boot: false,
            append: Vec::new(),
            adds: Vec::new(),
            device: DeviceRequest::default(),
            probe_program: None,
            outer_kernel: None,
            load: Vec::new(),
            patience: 1.0,
        }
    }
}
