//! Ranges of I/O virtual addresses.

/// A range of I/O virtual addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub iova: u64,
    /// Bytes.
    pub size: u64,
}
