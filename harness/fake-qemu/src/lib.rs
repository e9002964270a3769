//! Programs that tests start in place of QEMU and of the probe.
//!
//! A program takes its role from its file name: a link named `fake-qemu-panics` to the program `fake-qemu` is a
//! QEMU whose guest panics. So one run of dmarig can have QEMUs of different roles.
//!
//! ```no_run
//! use dmarig_fake_qemu::{QemuScript, Role};
//!
//! let qemu = QemuScript::Panics.link_in("some/directory".as_ref());
//! ```
//!
//! `hand-over` and `hold-device` have no roles: they use a host's device as dmarig does, for tests of that.
//!
//! Tests find the programs in the directory that cargo has built the tests in, see [`program`].

mod probe;
mod programs;
mod qemu;
mod role;

pub use probe::{PROBE_LAST_WORDS, ProbeScript, RelayFault};
pub use programs::program;
pub use qemu::{
    CONSOLE_FLOOD, DEVICE_TROUBLE, NOTIFY, QEMU_LAST_WORDS, QemuScript, SLOW_KERNEL, TRACE_FLOOD,
    VERSION,
};
pub use role::Role;
