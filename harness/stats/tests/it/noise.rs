//! Simulated machines: a drifting level, and the noise of a single run.

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64;

/// Distributions of the noise of a run, each with a standard deviation of about 1 without its
/// outliers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Noise {
    Gauss,
    /// Student's distribution with 3 degrees of freedom.
    T3,
    /// Gaussian, with ten times the noise in one run of twenty.
    FewOutliers,
    /// Gaussian, with ten times the noise in one run of ten.
    Outliers,
    /// Two modes with a distance of four standard deviations.
    Bimodal,
}

pub(crate) struct Machine {
    random: Pcg64,
    noise: Noise,
    /// Autocorrelation of the level between neighbouring runs.
    correlation: f64,
    level: f64,
}

impl Machine {
    pub(crate) fn new(seed: u64, noise: Noise, correlation: f64) -> Self {
        let mut machine =
            Self { random: Pcg64::seed_from_u64(seed), noise, correlation, level: 0.0 };
        machine.level = machine.gauss();
        machine
    }

    fn uniform(&mut self) -> f64 {
        ((self.random.next_u64() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    pub(crate) fn gauss(&mut self) -> f64 {
        let (a, b) = (self.uniform(), self.uniform());
        (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }

    pub(crate) fn draw(&mut self) -> f64 {
        match self.noise {
            Noise::Gauss => self.gauss(),
            Noise::T3 => {
                let square: f64 = (0..3).map(|_| self.gauss().powi(2)).sum();
                self.gauss() / square.sqrt()
            }
            Noise::FewOutliers | Noise::Outliers => {
                let part = if self.noise == Noise::Outliers { 0.1 } else { 0.05 };
                let wild = if self.uniform() < part { 10.0 } else { 1.0 };
                wild * self.gauss()
            }
            Noise::Bimodal => {
                let mode = if self.uniform() < 0.5 { 0.894 } else { -0.894 };
                mode + 0.447 * self.gauss()
            }
        }
    }

    /// The value of a run: 1, times the level, which drifts with a standard deviation of `drift`,
    /// and the noise of the run with that standard deviation.
    pub(crate) fn run(&mut self, drift: f64, noise: f64) -> f64 {
        let step = (1.0 - self.correlation.powi(2)).sqrt();
        self.level = self.correlation * self.level + step * self.gauss();
        (drift * self.level + noise * self.draw()).exp()
    }
}
