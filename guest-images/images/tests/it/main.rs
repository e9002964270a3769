//! The crate from outside, on kernels, modules and packages that are made here.

mod initramfs;
mod kernels;
mod modules;
mod network;
mod packages;
mod qemus;
mod repository;
mod sources;
mod synthetic;
