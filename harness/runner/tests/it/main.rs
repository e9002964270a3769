//! Runs and preparations on a fake QEMU.

mod cells;
mod preparation;
