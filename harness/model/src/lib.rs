//! Cases, the cells they unfold into, the plan to launch one, what was seen of it, and what is
//! thought of that. Everything here is a pure function of its arguments: no files, no processes,
//! no clock.

pub mod axes;
pub mod kernel;
pub mod observation;
pub mod plan;
pub mod qemu;
pub mod trace;
pub mod version;
