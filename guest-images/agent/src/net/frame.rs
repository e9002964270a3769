//! What a frame holds, and whether one that arrived still does.

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
    /// What the frame at hand should be, to compare with.
    right: Vec<u8>,
}

impl Frames {
    /// Frames of so many bytes between interfaces with these addresses.
    pub(crate) fn new(seed: u64, size: usize, addresses: [[u8; 6]; 2]) -> Self {
        Self { seed, size, addresses, right: Vec::new() }
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

    /// Checks every byte of a frame and gives its number.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub(crate) fn check(&mut self, frame: &[u8]) -> Result<u64, String> {
        if frame.len() != self.size {
            return Err(format!("a frame of {} bytes instead of {}", frame.len(), self.size));
        }
        let mut sequence = [0; 8];
        sequence.copy_from_slice(&frame[SEQUENCE..SEQUENCE + 8]);
        let sequence = u64::from_le_bytes(sequence);
        let mut right = std::mem::take(&mut self.right);
        self.make(sequence, &mut right);
        let result =
            if right == frame { Ok(sequence) } else { Err(wrong(sequence, frame, &right)) };
        self.right = right;
        result
    }
}

fn wrong(sequence: u64, frame: &[u8], right: &[u8]) -> String {
    let differing = || frame.iter().zip(right).enumerate().filter(|(_, (is, should))| is != should);
    let Some((at, (is, should))) = differing().next() else { return "nothing".to_owned() };
    let bytes = differing().count();
    // A damaged number makes nearly every byte wrong; then the number itself is the suspect.
    format!(
        "byte {at} of the frame that says it is number {sequence}: expected {should:#04x}, found \
         {is:#04x} ({bytes} bytes of {} are wrong)",
        frame.len()
    )
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
    fn frames_of_every_size_are_whole() {
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
    fn they_go_both_ways_and_follow_from_the_seed() {
        let one = frames(5, 100);
        let (even, odd) = (made(&one, 0), made(&one, 1));
        assert_eq!((&even[..6], &even[6..12]), (&odd[6..12], &odd[..6]));
        assert_ne!(made(&frames(6, 100), 0)[38..], even[38..]);
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let mut frames = frames(5, 200);
        let frame = made(&frames, 77);
        for bit in (0..200 * 8).step_by(3) {
            let mut damaged = frame.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let what = frames.check(&damaged).unwrap_err();
            if !(SEQUENCE..SEQUENCE + 8).contains(&(bit / 8)) {
                assert!(what.starts_with(&format!("byte {} of", bit / 8)), "{what}");
                assert!(what.contains("(1 bytes of 200"), "{what}");
            }
        }
        assert!(frames.check(&frame[..199]).unwrap_err().contains("199 bytes"));
        assert!(frames.check(&[]).is_err());
    }
}
