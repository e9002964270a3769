//! What dmarig makes of bad input, of QEMUs and guests that misbehave, and of being interrupted:
//! one clear message, the right end state, the documented exit code, nothing left behind, and no
//! other cell harmed.

mod analyzing;
mod bisecting;
mod building;
mod cases;
mod compare;
mod dashboards;
mod disks;
mod guests;
mod hand_over;
mod histories;
mod kernels;
mod night;
mod place;
mod probes;
mod qemus;
mod results;
mod scripts;
mod signals;
mod standing;
mod trees;
