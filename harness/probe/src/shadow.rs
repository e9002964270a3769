//! The device's view of its mappings: which I/O virtual addresses lead to which memory.
//!
//! As with a physical device's IOMMU, it is as new as the last message.

use std::collections::BTreeMap;

/// The identity of a mapping. IOVAs are used again at once; identities never are, and a later
/// mapping's is greater.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MapId(pub u64);

/// The file of a mapping's memory, as an index into the owner's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId(u8);

impl FileId {
    /// No file: memory that is mapped and that the probe can't access.
    pub const NONE: Self = Self(0);

    /// The file of an index, below 255.
    #[must_use]
    pub fn new(index: usize) -> Option<Self> {
        u8::try_from(index + 1).ok().map(Self)
    }

    /// Its index; `None` for [`FileId::NONE`].
    #[must_use]
    pub fn index(self) -> Option<usize> {
        usize::from(self.0).checked_sub(1)
    }
}

/// Kinds of access: those that a mapping allows, or those that a device wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Read it.
    pub read: bool,
    /// Write it.
    pub write: bool,
}

impl Access {
    /// Read it, and nothing else.
    pub const READ: Self = Self { read: true, write: false };
    /// Write it, and nothing else.
    pub const WRITE: Self = Self { read: false, write: true };

    fn allows(self, wanted: Self) -> bool {
        (self.read || !wanted.read) && (self.write || !wanted.write)
    }
}

/// A live mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// First I/O virtual address.
    pub iova: u64,
    /// Bytes.
    pub size: u64,
    /// The file of its memory.
    pub file: FileId,
    /// Where it begins in the file.
    pub offset: u64,
    /// What the device may do.
    pub access: Access,
    /// Which mapping it is.
    pub id: MapId,
    /// When it was made, in nanoseconds of the caller's clock.
    pub born_ns: u64,
}

impl Mapping {
    /// Its last I/O virtual address.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.iova + (self.size - 1)
    }
}

/// A part of a looked-up range that lies in one piece in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The file.
    pub file: FileId,
    /// Where it begins in the file.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
    /// First I/O virtual address of its mapping.
    pub iova: u64,
    /// Bytes of its whole mapping.
    pub mapped: u64,
    /// Whether its mapping may be written as well.
    pub writable: bool,
    /// Its mapping.
    pub id: MapId,
}

/// Why a mapping can't be made or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// It has no bytes, or exceeds the address space.
    #[error("a range of {size:#x} bytes at {iova:#x}")]
    Range {
        /// Its first address.
        iova: u64,
        /// Its bytes.
        size: u64,
    },
    /// Something is mapped there.
    #[error("{size:#x} bytes at {iova:#x} overlap a live mapping at {live:#x}")]
    Overlap {
        /// First address of the new one.
        iova: u64,
        /// Bytes of it.
        size: u64,
        /// First address of the live one.
        live: u64,
    },
    /// The range has only a part of a mapping.
    #[error("{size:#x} bytes at {iova:#x} would cut the live mapping at {live:#x} in two")]
    Split {
        /// First address to be unmapped.
        iova: u64,
        /// Bytes of it.
        size: u64,
        /// First address of the live one.
        live: u64,
    },
}

/// Why an access is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing is mapped at an address.
    #[error("nothing is mapped at {0:#x}")]
    Unmapped(u64),
    /// The mapping at this address does not allow the access.
    #[error("the mapping at {0:#x} does not allow it")]
    Denied(u64),
    /// The mapping at this address has no file.
    #[error("the memory at {0:#x} is not shared")]
    NoFile(u64),
}

/// One entry; its key is its first IOVA. Kept small: a guest can have millions.
#[derive(Debug, Clone, Copy)]
struct Entry {
    size: u64,
    offset: u64,
    born_ns: u64,
    /// Identity, file (8 bits) and permissions (2 bits), from the top.
    tag: u64,
}

impl Entry {
    fn mapping(&self, iova: u64) -> Mapping {
        Mapping {
            iova,
            size: self.size,
            file: FileId((self.tag >> 2) as u8),
            offset: self.offset,
            access: Access { read: self.tag & 1 != 0, write: self.tag & 2 != 0 },
            id: MapId(self.tag >> 10),
            born_ns: self.born_ns,
        }
    }
}

/// All live mappings.
#[derive(Debug, Default)]
pub struct Shadow {
    entries: BTreeMap<u64, Entry>,
    last: MapId,
    bytes: u64,
}

impl Shadow {
    /// Makes a mapping.
    ///
    /// # Errors
    /// Where it is empty, wraps around or overlaps a live one; then nothing is changed.
    pub fn map(
        &mut self,
        iova: u64,
        size: u64,
        (file, offset): (FileId, u64),
        access: Access,
        now_ns: u64,
    ) -> Result<MapId, MapError> {
        let last = last(iova, size)?;
        offset.checked_add(size).ok_or(MapError::Range { iova, size })?;
        if let Some((&live, entry)) = self.entries.range(..=last).next_back()
            && live + (entry.size - 1) >= iova
        {
            return Err(MapError::Overlap { iova, size, live });
        }
        self.last.0 += 1;
        let tag = self.last.0 << 10
            | u64::from(file.0) << 2
            | u64::from(access.write) << 1
            | u64::from(access.read);
        self.entries.insert(iova, Entry { size, offset, born_ns: now_ns, tag });
        // Disjoint ranges can cover all 2^64 bytes, one more than fits.
        self.bytes = self.bytes.wrapping_add(size);
        Ok(self.last)
    }

    /// Removes all mappings in a range, which may be larger than they are, and calls `removed` for
    /// each. Returns how many there were.
    ///
    /// # Errors
    /// Where the range is empty, wraps around or has only a part of a mapping; then nothing is
    /// changed.
    pub fn unmap(
        &mut self,
        iova: u64,
        size: u64,
        mut removed: impl FnMut(&Mapping),
    ) -> Result<u64, MapError> {
        let last = last(iova, size)?;
        // The usual case: the very range of one mapping.
        if let Some(entry) = self.entries.get(&iova)
            && entry.size == size
        {
            removed(&self.remove(iova));
            return Ok(1);
        }
        let ends = [self.at(iova), self.at(last)];
        if let Some(cut) =
            ends.into_iter().flatten().find(|live| live.iova < iova || live.last() > last)
        {
            return Err(MapError::Split { iova, size, live: cut.iova });
        }
        let mut count = 0;
        while let Some((&live, _)) = self.entries.range(iova..=last).next() {
            removed(&self.remove(live));
            count += 1;
        }
        Ok(count)
    }

    /// Removes all mappings, and calls `removed` for each. Returns how many there were.
    pub fn clear(&mut self, mut removed: impl FnMut(&Mapping)) -> u64 {
        let entries = std::mem::take(&mut self.entries);
        self.bytes = 0;
        let count = entries.len() as u64;
        entries.into_iter().for_each(|(iova, entry)| removed(&entry.mapping(iova)));
        count
    }

    /// The mapping that an address is in.
    #[must_use]
    pub fn at(&self, iova: u64) -> Option<Mapping> {
        let (&first, entry) = self.entries.range(..=iova).next_back()?;
        let mapping = entry.mapping(first);
        if mapping.last() >= iova { Some(mapping) } else { None }
    }

    /// Whether a mapping still lives where it was made.
    #[must_use]
    pub fn lives(&self, iova: u64, id: MapId) -> bool {
        self.entries.get(&iova).is_some_and(|entry| entry.tag >> 10 == id.0)
    }

    /// Translates a range piece by piece, one for each mapping. Pieces are added to `pieces`; those of
    /// a refused range are meaningless.
    ///
    /// # Errors
    /// Where the device must not access the whole range.
    pub fn resolve(
        &self,
        iova: u64,
        size: u64,
        access: Access,
        pieces: &mut Vec<Piece>,
    ) -> Result<(), Refusal> {
        let Ok(last) = last(iova, size) else { return Err(Refusal::Unmapped(iova)) };
        let Some(mut mapping) = self.at(iova) else { return Err(Refusal::Unmapped(iova)) };
        let mut at = iova;
        loop {
            if !mapping.access.allows(access) {
                return Err(Refusal::Denied(at));
            }
            if mapping.file == FileId::NONE {
                return Err(Refusal::NoFile(at));
            }
            let until = mapping.last().min(last);
            pieces.push(Piece {
                file: mapping.file,
                offset: mapping.offset + (at - mapping.iova),
                size: until - at + 1,
                iova: mapping.iova,
                mapped: mapping.size,
                writable: mapping.access.write,
                id: mapping.id,
            });
            if until == last {
                return Ok(());
            }
            at = until + 1;
            let Some(entry) = self.entries.get(&at) else { return Err(Refusal::Unmapped(at)) };
            mapping = entry.mapping(at);
        }
    }

    /// All of them, in order of address.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Mapping> {
        self.entries.iter().map(|(&iova, entry)| entry.mapping(iova))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of all of them.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The mapping that was made last, whether it lives or not.
    #[must_use]
    pub fn newest(&self) -> MapId {
        self.last
    }

    /// Removes a mapping that exists.
    fn remove(&mut self, iova: u64) -> Mapping {
        let entry = self.entries.remove(&iova).expect("it was just found");
        self.bytes = self.bytes.wrapping_sub(entry.size);
        entry.mapping(iova)
    }
}

/// The last address of a range.
fn last(iova: u64, size: u64) -> Result<u64, MapError> {
    let error = MapError::Range { iova, size };
    iova.checked_add(size.checked_sub(1).ok_or(error)?).ok_or(error)
}
