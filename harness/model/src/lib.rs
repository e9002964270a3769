//! Cases, the cells they unfold into, the plan to launch one, what was seen of it, and what is
//! thought of that. Everything here is a pure function of its arguments: no files, no processes,
//! no clock.

pub mod analysis;
pub mod axes;
pub mod case;
pub mod coherence;
pub mod conditions;
pub mod disk;
pub mod document;
pub mod expect;
pub mod judge;
pub mod kernel;
pub mod limit;
pub mod log;
pub mod matrix;
pub mod measure;
pub mod metrics;
mod mistake;
pub mod nested;
pub mod observation;
pub mod pattern;
pub mod plan;
pub mod probe;
pub mod qemu;
pub mod skip;
pub mod sweep;
pub mod text;
pub mod trace;
pub mod value;
pub mod viommu;
pub mod windows;
mod yaml_de;
mod yaml_tree;

pub use dmarig_viommu::version;
