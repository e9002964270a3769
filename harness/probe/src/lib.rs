//! The probe: a software NVMe controller that a guest gets passed through over vfio-user.
//!
//! It stands where a physical device stands behind a physical IOMMU: QEMU tells it each mapping that
//! the guest makes and takes away, and it uses the guest's memory through these alone. It is also
//! the attacker, which remembers where buffers of finished requests were and whether they can still
//! be reached.
//!
//! Threads: one for the socket, which answers the client and is never behind I/O; one for the
//! controller, which carries commands out; and the caller's, which takes requests.

mod attack;
pub mod device;
pub mod follow;
pub mod irqs;
pub mod memory;
pub mod nvme;
pub mod pci;
pub mod protocol;
mod run;
pub mod server;
pub mod shadow;
mod store;

pub use run::{Error, run};
