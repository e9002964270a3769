//! A guest's page tables, by guest physical addresses.

/// 64-bit words in a page.
pub const PAGE_WORDS: usize = 512;
/// Bytes in a page.
pub const PAGE_BYTES: u64 = 4096;

/// Reads a guest's memory.
pub trait GuestPages {
    /// The words of the page at `address`; `None` if there is no memory.
    fn page(&self, address: u64) -> Option<[u64; PAGE_WORDS]>;
}

/// A PCI function in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PciFunction {
    /// Bus number.
    pub bus: u8,
    /// Device number, shifted by 3, and function number.
    pub devfn: u8,
}

/// A leaf entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaf {
    /// First I/O virtual address.
    pub iova: u64,
    /// Bytes that it maps.
    pub size: u64,
    /// Guest physical address.
    pub address: u64,
    /// Whether the device may read.
    pub read: bool,
    /// Whether the device may write.
    pub write: bool,
}

/// How the addresses of a function are translated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FunctionTables {
    /// By tables that a hypervisor shadows, with their leaves in order of address. A function that may
    /// do no DMA has none.
    Shadowed(Vec<Leaf>),
    /// By first-stage tables, which no hypervisor shadows.
    FirstStage,
    /// Not at all.
    PassThrough,
}

/// Why a walk failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WalkError {
    /// A table is not in the guest's memory.
    #[error("no memory at {0:#x} for a table")]
    NoMemory(u64),
    /// The root register or an entry has an unknown form.
    #[error("{what} {code}")]
    UnknownForm {
        /// The register or entry with its field, such as `a root table of mode`.
        what: &'static str,
        /// The field's value.
        code: u64,
    },
    /// There are too many tables.
    #[error("more than {0} tables")]
    TooManyTables(usize),
    /// There are too many leaves.
    #[error("more than {0} mappings")]
    TooManyLeaves(usize),
}

/// Where a guest's kernel prints page tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrintedTables {
    /// The directory in the guest.
    pub directory: &'static str,
    /// The file in it, or in a directory for each device that is named by the device's address.
    pub file: &'static str,
}

/// A line of a print that has an unknown form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown form of the line {0:?}")]
pub struct BadPrint(pub String);
