//! What is promised, simulated, and what others say of the same numbers.

mod change_points;
mod error_rates;
mod noise;
mod peers;
mod predictions;
mod scipy;
mod sequence;
