//! Random numbers with a stream that never changes: a stored seed must reproduce the same numbers.

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64;

/// A stream of random numbers. Only the generator is from another crate, since its definition fixes
/// its output; a crate's shuffling may change between versions.
#[derive(Debug, Clone)]
pub(crate) struct Stream(Pcg64);

impl Stream {
    /// Starts the stream of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(Pcg64::seed_from_u64(seed))
    }

    /// True with a probability of a half.
    pub(crate) fn coin(&mut self) -> bool {
        self.0.next_u64() >> 63 == 1
    }

    /// A uniform number below `n` (Lemire 2019).
    fn below(&mut self, n: u32) -> u32 {
        let mut draw = || u64::from(self.0.next_u32()) * u64::from(n);
        let mut product = draw();
        // Number of draws that are rejected, so that each number has the same share.
        let rejected = n.wrapping_neg() % n;
        while (product as u32) < rejected {
            product = draw();
        }
        (product >> 32) as u32
    }

    /// Shuffles items into a uniformly random order (Fisher and Yates).
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u32 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_of_a_seed_never_changes() {
        let mut stream = Stream::new(1);
        let coins: String = (0..32).map(|_| if stream.coin() { '1' } else { '0' }).collect();
        assert_eq!(coins, "10011000110110001101100111110110");
        let mut items: Vec<u32> = (0..12).collect();
        stream.shuffle(&mut items);
        assert_eq!(items, [4, 1, 3, 8, 9, 5, 10, 6, 0, 11, 2, 7]);
    }

    #[test]
    fn shuffles_uniformly() {
        let mut stream = Stream::new(1);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..24_000 {
            let mut items = [0, 1, 2, 3];
            stream.shuffle(&mut items);
            *counts.entry(items).or_insert(0_i32) += 1;
        }
        assert_eq!(counts.len(), 24);
        // Five standard deviations.
        assert!(counts.values().all(|count| (count - 1000).abs() < 155), "{counts:?}");
    }
}
