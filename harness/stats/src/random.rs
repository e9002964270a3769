//! Random numbers whose stream is the same for ever: what was drawn is part of what was measured, and
//! a stored seed has to bring it back.

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64;

/// A stream of random numbers. Only the generator itself is another crate's, since its output is
/// fixed by its definition; how a crate shuffles may change with its version.
#[derive(Debug, Clone)]
pub(crate) struct Stream(Pcg64);

impl Stream {
    /// The stream of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(Pcg64::seed_from_u64(seed))
    }

    /// True in half of all draws.
    pub(crate) fn coin(&mut self) -> bool {
        self.0.next_u64() >> 63 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_of_a_seed_never_changes() {
        let mut stream = Stream::new(1);
        let coins: String = (0..32).map(|_| if stream.coin() { '1' } else { '0' }).collect();
        assert_eq!(coins, "10011000110110001101100111110110");
    }
}
