//! Whole runs on a fake QEMU.

mod cells;
