//! The history: what goes in, what comes out, and what becomes of it when things go wrong.

mod made;
mod reading;
mod synthetic;
