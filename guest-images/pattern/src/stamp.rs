//! Contents of blocks: each 512-byte sector names its address and the write that it comes from.

use crate::mix::{Words, mix_all};

/// Words of one sector.
pub const SECTOR_WORDS: usize = SECTOR as usize / 8;
/// Bytes of one sector.
pub const SECTOR: u64 = 512;
/// First bytes of each sector of a workload.
pub const MAGIC: &[u8; 8] = b"DMARIGSC";
const MAGIC_WORD: u64 = u64::from_le_bytes(*MAGIC);

/// The write that data comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Seed of the job that wrote.
    pub seed: u64,
    /// Number of the write: later writes have larger ones.
    pub generation: u64,
}

impl Stamp {
    /// The words of the sector at a byte address, in order.
    #[inline]
    fn words(self, address: u64) -> ([u64; 4], Words) {
        let key = mix_all([self.seed, address, self.generation]);
        ([MAGIC_WORD, address, self.generation, self.seed], Words::new(key))
    }

    /// Fills whole sectors, the first of which is at a byte address.
    pub fn fill(self, sectors: &mut [u64], address: u64) {
        for (sector, at) in sectors.chunks_exact_mut(SECTOR_WORDS).zip(addresses(address)) {
            let (header, mut body) = self.words(at);
            let (first, rest) = sector.split_at_mut(header.len());
            first.copy_from_slice(&header);
            rest.iter_mut().for_each(|word| *word = body.word());
        }
    }

    /// Whether whole sectors are as [`Stamp::fill`] made them.
    pub fn holds(self, sectors: &[u64], address: u64) -> bool {
        sectors.chunks_exact(SECTOR_WORDS).zip(addresses(address)).all(|(sector, at)| {
            let (header, mut body) = self.words(at);
            let (first, rest) = sector.split_at(header.len());
            // One branch a sector, not one a word: differences are gathered first.
            first == header && rest.iter().fold(0, |wrong, word| wrong | (word ^ body.word())) == 0
        })
    }
}

/// Whether sectors are all zeros, as on a disk that was never written.
pub fn is_zero(sectors: &[u64]) -> bool {
    sectors.iter().fold(0, |all, word| all | word) == 0
}

/// Checks sectors of unknown origin, the first of which is at a byte address: each that has the
/// header of a write must be complete and at its address. Sectors without a header are not checked.
///
/// # Errors
/// The first difference, with its offset from the first sector in `at`.
pub fn check_stamped(sectors: &[u64], address: u64) -> Result<(), Mismatch> {
    for (sector, at) in sectors.chunks_exact(SECTOR_WORDS).zip(addresses(address)) {
        if sector[0] != MAGIC_WORD {
            continue;
        }
        let stamp = Stamp { generation: sector[2], seed: sector[3] };
        if !stamp.holds(sector, at)
            && let Some(mismatch) = explain(sector, at, Some(stamp))
        {
            return Err(Mismatch { at: mismatch.at + (at - address) as usize, ..mismatch });
        }
    }
    Ok(())
}

fn addresses(first: u64) -> impl Iterator<Item = u64> {
    (0..).map(move |index| first + index * SECTOR)
}

/// Finds the first difference between data and what was written there, and explains it.
///
/// `expected` is `None` if there should be zeros; the result is `None` if nothing differs.
pub fn explain(found: &[u64], address: u64, expected: Option<Stamp>) -> Option<Mismatch> {
    let mut right = vec![0; found.len()];
    if let Some(stamp) = expected {
        stamp.fill(&mut right, address);
    }
    let bytes = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let (is, should): (Vec<u8>, Vec<u8>) = (bytes(found), bytes(&right));
    let mut differing = (0..is.len()).filter(|&at| is[at] != should[at]);
    let at = differing.next()?;
    let sector = at / SECTOR as usize;
    let words = &found[sector * SECTOR_WORDS..][..SECTOR_WORDS];
    Some(Mismatch {
        at,
        bytes: 1 + differing.count(),
        expected: should[at],
        found: is[at],
        clue: clue(words, address + sector as u64 * SECTOR, expected),
    })
}

/// The first difference between data and its expected contents.
#[derive(Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Offset of the first wrong byte.
    pub at: usize,
    /// How many bytes are wrong.
    pub bytes: usize,
    /// Expected value of the first wrong byte.
    pub expected: u8,
    /// Found value of the first wrong byte.
    pub found: u8,
    /// Explanation of what its sector looks like.
    pub clue: String,
}

fn clue(sector: &[u64], address: u64, expected: Option<Stamp>) -> String {
    if is_zero(sector) {
        return "its sector is all zeros, as if it had never been written".to_owned();
    }
    let [magic, at, generation, seed] = [sector[0], sector[1], sector[2], sector[3]];
    let theirs = Stamp { seed, generation };
    // A header that is damaged itself still names its write.
    if magic != MAGIC_WORD && (Some(theirs), at) != (expected, address) {
        return "its sector has no header of a write".to_owned();
    }
    let mut clues = Vec::new();
    match expected {
        None => clues.push(format!("generation {generation} of seed {seed:#x}")),
        Some(own) => {
            if generation != own.generation {
                let age = if generation < own.generation { "stale " } else { "" };
                clues.push(format!("{age}generation {generation}"));
            }
            if seed != own.seed {
                clues.push(format!("seed {seed:#x}"));
            }
        }
    }
    if at != address {
        clues.push(format!("address {at:#x}"));
    }
    let state = if theirs.holds(sector, at) { "whole" } else { "damaged" };
    match clues.as_slice() {
        [] => format!("its sector comes from the right write, {state}"),
        clues => format!("its sector looks like {}, {state}", clues.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: u64 = 0x12000;
    const STAMP: Stamp = Stamp { seed: 7, generation: 3 };

    fn filled(stamp: Stamp, address: u64) -> Vec<u64> {
        let mut words = vec![0; 8 * SECTOR_WORDS];
        stamp.fill(&mut words, address);
        words
    }

    #[test]
    fn gives_each_write_its_own_bytes() {
        let words = filled(STAMP, ADDRESS);
        assert_eq!(words, filled(STAMP, ADDRESS));
        assert!(STAMP.holds(&words, ADDRESS));
        assert_eq!(explain(&words, ADDRESS, Some(STAMP)), None);
        for other in [Stamp { seed: 8, ..STAMP }, Stamp { generation: 4, ..STAMP }] {
            assert!(!other.holds(&words, ADDRESS));
            // Bodies differ too, in nearly every word.
            let theirs = filled(other, ADDRESS);
            let same = words.iter().zip(&theirs).filter(|(a, b)| a == b).count();
            assert!(same <= 8 * 3, "{same}");
        }
        assert!(!STAMP.holds(&words, ADDRESS + 512));
    }

    #[test]
    fn finds_every_flipped_bit() {
        for byte in (0..4096).step_by(37) {
            let mut words = filled(STAMP, ADDRESS);
            words[byte / 8] ^= 1 << (byte % 8 * 8 + byte % 7);
            assert!(!STAMP.holds(&words, ADDRESS), "{byte}");
            let wrong = explain(&words, ADDRESS, Some(STAMP)).unwrap();
            assert_eq!((wrong.at, wrong.bytes), (byte, 1));
            assert_eq!(wrong.expected ^ wrong.found, 1 << (byte % 7));
        }
    }

    #[test]
    fn recognizes_what_was_found_instead() {
        let check = |found: &[u64], expected: Option<Stamp>, clue: &str| {
            let wrong = explain(found, ADDRESS, expected).unwrap();
            assert!(wrong.clue.contains(clue), "{}", wrong.clue);
        };
        let stale = Stamp { generation: 2, ..STAMP };
        check(&filled(stale, ADDRESS), Some(STAMP), "stale generation 2, whole");
        check(&filled(STAMP, 0x40000), Some(STAMP), "like address 0x40000, whole");
        check(&filled(STAMP, ADDRESS), None, "generation 3 of seed 0x7, whole");
        check(&vec![0; 512], Some(STAMP), "all zeros");
        check(&vec![0xff; 512], Some(STAMP), "no header");
        let mut flipped = filled(STAMP, ADDRESS);
        flipped[0] ^= 1;
        check(&flipped, Some(STAMP), "from the right write, damaged");
        let mut torn = filled(STAMP, ADDRESS);
        torn[..16].copy_from_slice(&filled(stale, ADDRESS)[..16]);
        check(&torn, Some(STAMP), "stale generation 2, damaged");
    }

    #[test]
    fn checks_sectors_of_unknown_origin_by_their_headers() {
        let mut words = filled(STAMP, ADDRESS);
        assert_eq!(check_stamped(&words, ADDRESS), Ok(()));
        // Another's sector is no mistake, nor are zeros.
        words[SECTOR_WORDS..2 * SECTOR_WORDS].fill(0x5555);
        words[2 * SECTOR_WORDS..3 * SECTOR_WORDS].fill(0);
        assert_eq!(check_stamped(&words, ADDRESS), Ok(()));
        words[5 * SECTOR_WORDS + 9] ^= 1 << 16;
        assert_eq!(check_stamped(&words, ADDRESS).unwrap_err().at, 5 * 512 + 9 * 8 + 2);
        let misplaced = check_stamped(&filled(STAMP, 0x40000), ADDRESS).unwrap_err();
        assert!(misplaced.clue.contains("address 0x40000, whole"), "{}", misplaced.clue);
    }
}
