//! The probe from outside: a client that speaks vfio-user as QEMU does, and a small NVMe driver.

mod attacks;
mod client;
mod doorbells;
mod driver;
mod fuzz_bodies;
mod hostile;
mod io;
mod protocol;
mod shadow;
mod stale;
