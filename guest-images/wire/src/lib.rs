//! Messages between the rig and the agent inside a guest, and their frames.
//!
//! The two ends share a byte stream (the guest's second UART). A frame carries one JSON message,
//! deflated where that makes it smaller, behind a header with a CRC-32 over both. Whatever is read
//! is bounded before memory is spent on it: the guest is hostile until parsed. Without a rig, a job is
//! passed to the agent as a word of the kernel's command line.

mod frame;
mod job_word;
mod message;

pub use frame::{Decoder, FrameError, MAX_MESSAGE, MAX_PAYLOAD, MAX_SKIPPED, encode};
pub use job_word::{JOB_PARAMETER, decode_job, encode_job};
pub use message::*;
