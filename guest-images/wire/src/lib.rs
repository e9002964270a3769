//! What the rig and the agent inside a guest say to each other, and how it is framed.
//!
//! The two ends share a byte stream (the guest's second UART). A frame carries one JSON message,
//! deflated where that makes it smaller, behind a header with a CRC-32 over both. Whatever is read
//! is bounded before memory is spent on it: the guest is hostile until parsed.

mod frame;
mod message;

pub use frame::{Decoder, FrameError, MAX_MESSAGE, MAX_PAYLOAD, MAX_SKIPPED, encode};
pub use message::*;
