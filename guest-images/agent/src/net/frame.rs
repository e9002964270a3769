//! Makes frames and checks those that arrived.

use dmarig_pattern::{Words, mix_all};

/// Local Experimental EtherType 1 (IEEE 802): nothing else in a guest speaks it.
pub(crate) const ETHERTYPE: u16 = 0x88b5;
/// Addresses and EtherType.
const ETHERNET: usize = 14;
/// Where the frame's number is: behind the magic.
const SEQUENCE: usize = ETHERNET + 8;
const MAGIC: [u8; 8] = *b"DMARIGNT";

/// The frames of one job. Those with even numbers go from the first interface to the second, the
/// others back.
#[derive(Debug)]
pub(crate) struct Frames {
    seed: u64,
    size: usize,
    addresses: [[u8; 6]; 2],
    /// The frame that should have arrived, for comparison.
    expected: Vec<u8>,
}

impl Frames {
    /// Frames of `size` bytes between interfaces with these addresses.
    pub(crate) fn new(seed: u64, size: usize, addresses: [[u8; 6]; 2]) -> Self {
        Self { seed, size, addresses, expected: Vec::new() }
    }

    /// The interface that sends a frame; the other one receives it.
    pub(crate) fn sender(sequence: u64) -> usize {
        (sequence & 1) as usize
    }

    /// Makes a frame.
    pub(crate) fn make(&self, sequence: u64, frame: &mut Vec<u8>) {
        let sender = Self::sender(sequence);
        frame.clear();
        frame.extend_from_slice(&self.addresses[1 - sender]);
        frame.extend_from_slice(&self.addresses[sender]);
        frame.extend_from_slice(&ETHERTYPE.to_be_bytes());
        frame.extend_from_slice(&MAGIC);
        frame.extend_from_slice(&sequence.to_le_bytes());
        frame.extend_from_slice(&self.seed.to_le_bytes());
        let mut body = Words::new(mix_all([self.seed, sequence]));
        while frame.len() < self.size {
            frame.extend_from_slice(&body.word().to_le_bytes());
        }
        frame.truncate(self.size);
    }

    /// Checks every byte of a frame and returns its number.
    ///
    /// # Errors
    /// [`DamagedFrame`]
    pub(crate) fn check(&mut self, frame: &[u8]) -> Result<u64, DamagedFrame> {
        if frame.len() != self.size {
            return Err(DamagedFrame::Size { found: frame.len(), expected: self.size });
        }
        let mut sequence = [0; 8];
        sequence.copy_from_slice(&frame[SEQUENCE..SEQUENCE + 8]);
        let sequence = u64::from_le_bytes(sequence);
        let mut expected = std::mem::take(&mut self.expected);
        self.make(sequence, &mut expected);
        let result = compare(sequence, frame, &expected);
        self.expected = expected;
        result
    }
}

/// Why a frame that arrived is not the one that was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DamagedFrame {
    /// Its size differs.
    #[error("a frame of {found} bytes instead of {expected}")]
    Size {
        /// Its bytes.
        found: usize,
        /// Bytes of all frames of the job.
        expected: usize,
    },
    /// Some bytes differ. A damaged number makes nearly all of them differ.
    #[error(
        "byte {at} of the frame that says it is number {sequence}: expected {expected:#04x}, found \
         {found:#04x} ({bytes} bytes of {size} are wrong)"
    )]
    Content {
        /// The number in the frame.
        sequence: u64,
        /// Offset of the first byte that differs.
        at: usize,
        /// What that byte should be.
        expected: u8,
        /// What that byte is.
        found: u8,
        /// How many bytes differ.
        bytes: usize,
        /// Bytes of the frame.
        size: usize,
    },
}

fn compare(sequence: u64, frame: &[u8], expected: &[u8]) -> Result<u64, DamagedFrame> {
    let differing = || frame.iter().zip(expected).enumerate().filter(|(_, (is, want))| is != want);
    let Some((at, (found, expected))) = differing().next() else { return Ok(sequence) };
    let (bytes, size) = (differing().count(), frame.len());
    let (found, expected) = (*found, *expected);
    Err(DamagedFrame::Content { sequence, at, expected, found, bytes, size })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(seed: u64, size: usize) -> Frames {
        Frames::new(seed, size, [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]])
    }

    fn made(frames: &Frames, sequence: u64) -> Vec<u8> {
        let mut frame = Vec::new();
        frames.make(sequence, &mut frame);
        frame
    }

    #[test]
    fn makes_frames_of_every_size() {
        for size in [64, 65, 71, 1000, 1514] {
            let mut frames = frames(5, size);
            for sequence in [0, 1, 2, 1 << 40] {
                let frame = made(&frames, sequence);
                assert_eq!(frame.len(), size);
                assert_eq!(frames.check(&frame), Ok(sequence));
            }
        }
    }

    #[test]
    fn derives_direction_and_contents_from_number_and_seed() {
        let one = frames(5, 100);
        let (even, odd) = (made(&one, 0), made(&one, 1));
        assert_eq!((&even[..6], &even[6..12]), (&odd[6..12], &odd[..6]));
        assert_ne!(made(&frames(6, 100), 0)[38..], even[38..]);
    }

    #[test]
    fn finds_every_flipped_bit() {
        let mut frames = frames(5, 200);
        let frame = made(&frames, 77);
        for bit in (0..200 * 8).step_by(3) {
            let mut damaged = frame.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let error = frames.check(&damaged).unwrap_err();
            if !(SEQUENCE..SEQUENCE + 8).contains(&(bit / 8)) {
                let DamagedFrame::Content { at, bytes, size, .. } = error else {
                    panic!("{error}");
                };
                assert_eq!((at, bytes, size), (bit / 8, 1, 200));
            }
        }
        let short = DamagedFrame::Size { found: 199, expected: 200 };
        assert_eq!(frames.check(&frame[..199]), Err(short));
        assert!(frames.check(&[]).is_err());
    }
}
