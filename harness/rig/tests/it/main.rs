//! The rig's channels and processes, each tested without a QEMU.

mod agent;
mod console;
mod deadlines;
mod process;
mod qmp;
mod trace;
mod workdir;
