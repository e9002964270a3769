//! The probe: a software NVMe controller that a guest gets passed through over vfio-user.
//!
//! It is in the place of a physical device behind a physical IOMMU: QEMU reports each mapping and
//! unmapping of the guest, and the probe accesses the guest's memory through its mappings alone. It is
//! also the attacker: it tracks the buffers of finished requests, and whether they can still be
//! accessed.
//!
//! Threads: one for the socket, which answers the client and never waits for I/O; one for the
//! controller, which executes commands; and the caller's, which takes requests.

mod attack;
mod counting;
pub mod device;
pub mod irqs;
pub mod memory;
pub mod nvme;
pub mod pci;
pub mod protocol;
pub mod range;
mod run;
pub mod server;
pub mod shadow;
pub mod stale;
mod store;

pub use run::{Error, run};
