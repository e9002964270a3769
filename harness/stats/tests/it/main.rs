//! What is promised, simulated, and what others say of the same numbers.

mod error_rates;
mod noise;
mod scipy;
mod sequence;
