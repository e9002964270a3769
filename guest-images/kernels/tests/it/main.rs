//! Whole builds of a source that is as small as one can be: a Makefile that knows the kernel's
//! targets, an option or two, and an image that passes for a kernel.

mod building;
mod interrupted;
mod small_source;
mod trees;
