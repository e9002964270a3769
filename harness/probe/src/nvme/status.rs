//! Statuses of commands (NVM Express 1.4, 4.6.1).

/// A status: type and code. All but success say that trying again doesn't help, where it doesn't.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Status code type.
    pub kind: u8,
    /// Status code.
    pub code: u8,
}

impl Status {
    /// It was done.
    pub const SUCCESS: Self = Self::generic(0x00);
    /// There is no such command.
    pub const INVALID_OPCODE: Self = Self::generic(0x01);
    /// A field has a value that it can't have.
    pub const INVALID_FIELD: Self = Self::generic(0x02);
    /// The identifier is in use.
    pub const IDENTIFIER_CONFLICT: Self = Self::generic(0x03);
    /// Its data could not be transferred.
    pub const TRANSFER_ERROR: Self = Self::generic(0x04);
    /// It was aborted by an Abort command.
    pub const ABORT_REQUESTED: Self = Self::generic(0x07);
    /// Its queue was deleted.
    pub const QUEUE_DELETED: Self = Self::generic(0x08);
    /// There is no such namespace.
    pub const INVALID_NAMESPACE: Self = Self::generic(0x0b);
    /// It comes at the wrong time.
    pub const SEQUENCE_ERROR: Self = Self::generic(0x0c);
    /// A PRP has an offset that it can't have.
    pub const PRP_OFFSET: Self = Self::generic(0x13);
    /// Blocks past the end of the namespace.
    pub const OUT_OF_RANGE: Self = Self::generic(0x80);
    /// There is no such completion queue.
    pub const INVALID_COMPLETION_QUEUE: Self = Self::specific(0x00);
    /// A queue can't have this identifier.
    pub const INVALID_QUEUE: Self = Self::specific(0x01);
    /// A queue can't have this size.
    pub const INVALID_QUEUE_SIZE: Self = Self::specific(0x02);
    /// There are as many event requests as there can be.
    pub const EVENT_LIMIT: Self = Self::specific(0x05);
    /// There is no such interrupt vector.
    pub const INVALID_VECTOR: Self = Self::specific(0x08);
    /// There is no such log page.
    pub const INVALID_LOG_PAGE: Self = Self::specific(0x09);
    /// Submission queues still use it.
    pub const INVALID_DELETION: Self = Self::specific(0x0c);
    /// It can't be saved.
    pub const NOT_SAVEABLE: Self = Self::specific(0x0d);
    /// It can't be changed.
    pub const NOT_CHANGEABLE: Self = Self::specific(0x0e);

    const fn generic(code: u8) -> Self {
        Self { kind: 0, code }
    }

    const fn specific(code: u8) -> Self {
        Self { kind: 1, code }
    }

    /// The upper half of a completion's last dword, with a phase tag of zero.
    #[must_use]
    pub fn bits(self) -> u16 {
        // Who was aborted or whose transfer failed may try again; the others are the host's error.
        let again = matches!(
            self,
            Self::SUCCESS | Self::ABORT_REQUESTED | Self::QUEUE_DELETED | Self::TRANSFER_ERROR
        );
        u16::from(self.code) << 1 | u16::from(self.kind) << 9 | u16::from(!again) << 15
    }
}
