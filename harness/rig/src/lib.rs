//! Effects on one guest: its process, QMP, console, agent and the hypervisor's trace.
//!
//! [`guest::run`] carries out one planned launch and returns an observation; it never judges, and it
//! prints nothing: progress goes to a callback, logs go to files.

pub mod accelerator;
pub mod agent;
mod blame;
pub mod console;
pub mod deadlines;
pub mod guest;
pub mod inspect;
mod kernel_log;
pub mod launch;
pub mod probe;
pub mod process;
pub mod qmp;
mod session;
pub mod trace;
mod vitals;
pub mod workdir;
