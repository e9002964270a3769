//! Deterministic pseudo-random numbers, for everything that follows from a job's seed.

/// The finalizer of splitmix64 (Steele, Lea, Flood 2014): a bijection in which every bit of the
/// input changes half of the output.
pub fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

/// Mixes several values to one, in their order.
pub fn mix_all<const N: usize>(values: [u64; N]) -> u64 {
    values.into_iter().fold(0, |state, value| mix(state ^ value))
}

/// A stream of words for the bodies of blocks and frames: four instructions a word, since an
/// emulated CPU makes each of them. It need not be unpredictable, only unlike its neighbours'.
#[derive(Debug)]
pub struct Words(u64);

impl Words {
    /// A stream that follows from a well-mixed key.
    pub fn new(key: u64) -> Self {
        Self(key)
    }

    /// The next word.
    #[inline]
    pub fn word(&mut self) -> u64 {
        // Knuth's MMIX constants. The low bits of such a generator have short periods: fold the
        // high ones in.
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        self.0 ^ self.0 >> 32
    }
}
