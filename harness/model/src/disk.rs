//! The disk under test.

/// Size of the disk under test, in bytes: sparse, so it costs what is written.
pub const DISK_BYTES: u64 = 256 << 20;

/// Name of the disk in the guest's directory.
pub const DISK_FILE: &str = "disk.img";
