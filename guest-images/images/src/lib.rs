#![doc = "Kernels for the guest, and QEMUs that run it, fetched, verified, unpacked and cached; \
          initramfs images packed."]
//!
//! Everything goes through a [`Cache`], a directory that several runs may share:
//!
//! - [`Cache::fetch`] is the only thing that uses the network. It follows a [`Recipe`] through a
//!   private apt root, so signatures are verified by apt and no privilege is needed.
//! - [`Cache::resolve`] turns a name or a path into a [`KernelImage`] that QEMU can boot. It never
//!   goes to the network, and takes a few milliseconds once a kernel has been seen.
//! - [`Cache::source`] is a kernel's source, from which another crate builds; what comes out is kept by
//!   [`Cache::add_built`], and found by the name that [`Cache::name_built`] gives it.
//! - [`Cache::qemu`] finds a fetched QEMU, which runs with its own libraries on any distribution.
//! - [`Cache::closure`] orders modules by their dependencies, and [`Cache::pack`] puts them with
//!   the agent into an initramfs.

mod apt;
mod built;
mod cache;
mod closure;
mod codec;
mod deb;
mod deb822;
mod elf;
mod error;
mod export;
mod fetch;
mod image;
mod initramfs;
mod kernel;
mod launcher;
mod mirror;
mod package_tree;
mod payload;
mod progress;
mod qemu;
mod recipe;
mod resolve;
mod source;
mod store;

pub use built::{BuiltKernel, NamedKernel};
pub use cache::{Cache, CachedKernel};
pub use closure::ModuleFile;
pub use codec::unpacked;
pub use error::{Error, did_you_mean};
pub use export::Export;
pub use fetch::{FetchOptions, Fetched};
pub use initramfs::{AddedFile, Initramfs, InitramfsSpec};
pub use kernel::{Boot, ConfigValue, KernelConfig, KernelImage, PackageId};
pub use mirror::Mirrors;
pub use progress::{Progress, Silent, Unit};
pub use qemu::{CachedQemu, QemuTree};
pub use recipe::{Archive, Kind, Recipe, Recipes, UpdateSuite};
pub use source::{CachedSource, SourceTree};

/// What every function here returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The guest's init: a static program that talks to the rig.
pub const AGENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/dmarig-agent"));
