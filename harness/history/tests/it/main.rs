//! The history: what goes in, what comes out, and what becomes of it when things go wrong.

mod alerts;
mod exports;
mod failures;
mod killed;
mod made;
mod merging;
mod reading;
mod recorded;
mod records;
mod standing;
mod synthetic;
mod versions;
