//! Statistics of noisy numbers: a sequential test of pairs with bounded error rates, estimates
//! without pairs, predictions from earlier runs, and change points of series. All of it is a pure
//! function of numbers and a seed, with the same result on every machine.

pub mod change_points;
pub mod paired;
pub mod prediction;
mod random;
pub mod sequence;
pub mod signed_rank;
pub mod unpaired;

pub use signed_rank::median;

/// Version of the sequential test. It changes whenever the same numbers could get another
/// judgement, and is stored with each judgement.
pub const RULE_VERSION: u32 = 1;
