//! What the workload's data looks like, for those who write it and those who check it on its way:
//! the agent in the guest and the probe, which is its disk.
//!
//! Everything follows from a job's seed, so that no one needs to be told what was written.

mod mix;
mod stamp;

pub use mix::{Words, mix, mix_all};
pub use stamp::{MAGIC, Mismatch, SECTOR, SECTOR_WORDS, Stamp, check_stamped, explain, is_zero};
