//! Effects on one guest: its process, QMP, console, agent and the hypervisor's trace.
//!
//! [`guest::run`] carries out one planned launch and gives what was seen; it never judges.

pub mod accelerator;
pub mod agent;
pub mod console;
pub mod deadlines;
pub mod guest;
pub mod inspect;
mod kernel_log;
pub mod probe;
pub mod process;
pub mod qmp;
mod session;
pub mod trace;
mod vitals;
pub mod workdir;
