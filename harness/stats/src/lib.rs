//! What noisy numbers say: a sequential test of pairs with promised error rates, comparisons of what
//! was not paired, a number beside earlier ones, change points of a series. Everything here is a pure
//! function of numbers and a seed: no files, no clock, and the same answer on every machine.

pub mod change_points;
pub mod paired;
pub mod prediction;
mod random;
pub mod sequence;
pub mod signed_rank;
pub mod unpaired;

pub use signed_rank::median;

/// The significance levels, looks and sizes that judged are part of a stored judgement: this changes
/// whenever the same numbers could be judged otherwise.
pub const RULE_VERSION: u32 = 1;
