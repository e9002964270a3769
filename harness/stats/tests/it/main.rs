//! Simulated error rates, and comparisons with other programs.

mod change_points;
mod error_rates;
mod noise;
mod peers;
mod predictions;
mod scipy;
mod sequence;
