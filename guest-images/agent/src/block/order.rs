//! Which operation comes when: a function of the seed alone.

use dmarig_pattern::{mix, mix_all};

const ROUNDS: usize = 4;

/// The order of one thread's operations: passes over its blocks, each pass in an order of its own.
#[derive(Debug)]
pub(crate) struct Order {
    seed: u64,
    blocks: u64,
    read_percent: u8,
    pass: u64,
    keys: [u64; ROUNDS],
}

impl Order {
    /// The order for a thread with so many blocks, which must be more than none.
    pub(crate) fn new(seed: u64, thread: u64, blocks: u64, read_percent: u8) -> Self {
        let seed = mix_all([seed, thread]);
        Self { seed, blocks, read_percent, pass: 0, keys: keys(seed, 0) }
    }

    /// Block and direction (`true`: write) of an operation.
    pub(crate) fn operation(&mut self, index: u64) -> (u64, bool) {
        let pass = index / self.blocks;
        if pass != self.pass {
            self.pass = pass;
            self.keys = keys(self.seed, pass);
        }
        let block = permute(index % self.blocks, self.blocks, &self.keys);
        let write = mix_all([self.seed, !index]) % 100 >= u64::from(self.read_percent);
        (block, write)
    }
}

fn keys(seed: u64, pass: u64) -> [u64; ROUNDS] {
    std::array::from_fn(|round| mix_all([seed, pass, round as u64]))
}

/// A permutation of `0..count` that needs no memory: a Feistel network over the next power of
/// four, walked along until it is back below `count` (at most four steps on average).
fn permute(index: u64, count: u64, keys: &[u64; ROUNDS]) -> u64 {
    let half = (u64::BITS - (count - 1).leading_zeros()).div_ceil(2).max(1);
    let mask = (1 << half) - 1;
    let mut value = index;
    loop {
        let (mut left, mut right) = (value >> half, value & mask);
        for key in keys {
            (left, right) = (right, left ^ mix(right ^ key) & mask);
        }
        value = left << half | right;
        if value < count {
            return value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(seed: u64, blocks: u64, number: u64) -> Vec<u64> {
        let mut order = Order::new(seed, 0, blocks, 50);
        (number * blocks..(number + 1) * blocks).map(|index| order.operation(index).0).collect()
    }

    #[test]
    fn visits_each_block_once_per_pass() {
        for blocks in [1, 2, 3, 4, 5, 16, 17, 100, 1000, 4097] {
            for number in 0..3 {
                let mut visited = pass(9, blocks, number);
                visited.sort_unstable();
                assert!(visited.into_iter().eq(0..blocks), "{blocks}");
            }
        }
    }

    #[test]
    fn derives_the_order_from_the_seed() {
        assert_eq!(pass(1, 1000, 2), pass(1, 1000, 2));
        assert_ne!(pass(1, 1000, 0), pass(2, 1000, 0));
        assert_ne!(pass(1, 1000, 0), pass(1, 1000, 1));
        assert_ne!(pass(1, 1000, 0), (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn keeps_the_share_of_reads() {
        for percent in [0, 30, 100] {
            let mut order = Order::new(4, 1, 64, percent);
            let reads = (0..10_000).filter(|&index| !order.operation(index).1).count();
            assert!(reads.abs_diff(usize::from(percent) * 100) < 200, "{percent}: {reads}");
        }
    }
}
