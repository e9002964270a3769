//! Frames: `magic(4) version(1) flags(1) reserved(2) payload_len(4) message_len(4) crc32(4) payload`.
//!
//! Integers are little-endian. The CRC covers the header before it and the payload.

use std::io::{Read, Write};

use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};
use serde::{Serialize, de::DeserializeOwned};

const MAGIC: [u8; 4] = *b"\x02DMR";
const VERSION: u8 = 4;
const DEFLATED: u8 = 1;
const HEADER: usize = 20;
/// Smaller messages are sent as they are: deflate would cost more than the bytes do.
const COMPRESS_FROM: usize = 512;

/// Largest payload on the wire, in bytes.
pub const MAX_PAYLOAD: usize = 4 << 20;
/// Largest message after inflation, in bytes.
pub const MAX_MESSAGE: usize = 32 << 20;
/// Bytes outside of frames that a [`Decoder`] skips before it gives up.
pub const MAX_SKIPPED: usize = 64 << 10;

/// Why a byte stream stopped being a stream of messages.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// More than [`MAX_SKIPPED`] bytes were outside of frames.
    #[error("{skipped} bytes on the agent's channel belong to no frame")]
    Garbage {
        /// Bytes skipped so far.
        skipped: usize,
    },
    /// The other end speaks another version of this protocol.
    #[error("the other end speaks protocol version {0}, this end {VERSION}")]
    Version(u8),
    /// A header names a size beyond the limits.
    #[error(
        "a frame claims {payload} bytes of payload for {message} bytes of message, over the limit"
    )]
    TooLarge {
        /// Claimed payload length, in bytes.
        payload: usize,
        /// Claimed message length, in bytes.
        message: usize,
    },
    /// The checksum is wrong.
    #[error("the checksum of a frame is {found:#010x}, but its header has {expected:#010x}")]
    Checksum {
        /// From the header.
        expected: u32,
        /// Computed over what arrived.
        found: u32,
    },
    /// The payload does not inflate to the length that its header names.
    #[error("a frame's payload does not inflate: {0}")]
    Inflate(String),
    /// The message is not one that this version knows.
    #[error("a frame holds no message of this protocol: {0}")]
    Message(#[from] serde_json::Error),
}

/// Encodes one message as a frame.
///
/// # Errors
/// [`FrameError::TooLarge`] where the message is over the limits, [`FrameError::Message`] where it
/// can't be written as JSON.
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, FrameError> {
    let plain = serde_json::to_vec(message)?;
    let message_len = plain.len();
    let (flags, payload) = compress(plain);
    if payload.len() > MAX_PAYLOAD || message_len > MAX_MESSAGE {
        return Err(FrameError::TooLarge { payload: payload.len(), message: message_len });
    }
    let mut frame = Vec::with_capacity(HEADER + payload.len());
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&[VERSION, flags, 0, 0]);
    // Both fit: the limits above are far below 4 GiB.
    frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    frame.extend_from_slice(&(message_len as u32).to_le_bytes());
    let crc = checksum(&frame, &payload);
    frame.extend_from_slice(&crc.to_le_bytes());
    frame.extend_from_slice(&payload);
    Ok(frame)
}

/// Flags and payload of a message: deflated where that makes it smaller.
fn compress(plain: Vec<u8>) -> (u8, Vec<u8>) {
    if plain.len() < COMPRESS_FROM {
        return (0, plain);
    }
    let deflated = deflate(&plain);
    if deflated.len() < plain.len() { (DEFLATED, deflated) } else { (0, plain) }
}

fn deflate(plain: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).and_then(|()| encoder.finish()).unwrap_or_default()
}

fn checksum(header: &[u8], payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(header);
    crc.update(payload);
    crc.finalize()
}

/// Decodes messages from bytes as they arrive.
///
/// Bytes between frames are skipped, since a UART may carry a few at reset. After a damaged frame
/// nothing can be trusted, so its error is final.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    skipped: usize,
}

impl Decoder {
    /// Adds bytes that arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes so far that belonged to no frame.
    #[must_use]
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// The next whole message, or `None` until more bytes arrive.
    ///
    /// # Errors
    /// Any [`FrameError`]; the stream is not to be read further after one.
    pub fn next_message<M: DeserializeOwned>(&mut self) -> Result<Option<M>, FrameError> {
        self.skip_to_magic()?;
        if self.buffer.len() < HEADER {
            return Ok(None);
        }
        let version = self.buffer[4];
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        let deflated = self.buffer[5] & DEFLATED != 0;
        let payload_len = self.word(8) as usize;
        let message_len = self.word(12) as usize;
        let consistent = deflated || payload_len == message_len;
        if payload_len > MAX_PAYLOAD || message_len > MAX_MESSAGE || !consistent {
            return Err(FrameError::TooLarge { payload: payload_len, message: message_len });
        }
        if self.buffer.len() < HEADER + payload_len {
            return Ok(None);
        }
        let expected = self.word(16);
        let payload = &self.buffer[HEADER..HEADER + payload_len];
        let found = checksum(&self.buffer[..16], payload);
        if found != expected {
            return Err(FrameError::Checksum { expected, found });
        }
        let message = if deflated {
            serde_json::from_slice(&inflate(payload, message_len)?)?
        } else {
            serde_json::from_slice(payload)?
        };
        self.buffer.drain(..HEADER + payload_len);
        Ok(Some(message))
    }

    fn word(&self, at: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.buffer[at..at + 4]);
        u32::from_le_bytes(bytes)
    }

    fn skip_to_magic(&mut self) -> Result<(), FrameError> {
        let start = (0..self.buffer.len())
            .find(|&at| {
                let rest = &self.buffer[at..];
                let shown = rest.len().min(MAGIC.len());
                rest[..shown] == MAGIC[..shown]
            })
            .unwrap_or(self.buffer.len());
        self.buffer.drain(..start);
        self.skipped += start;
        if self.skipped > MAX_SKIPPED {
            return Err(FrameError::Garbage { skipped: self.skipped });
        }
        Ok(())
    }
}

fn inflate(payload: &[u8], message_len: usize) -> Result<Vec<u8>, FrameError> {
    let mut plain = Vec::new();
    // One byte over the promised length is enough to catch a lie without inflating a bomb.
    DeflateDecoder::new(payload)
        .take(message_len as u64 + 1)
        .read_to_end(&mut plain)
        .map_err(|error| FrameError::Inflate(error.to_string()))?;
    if plain.len() != message_len {
        let shown = plain.len();
        return Err(FrameError::Inflate(format!("{shown} bytes or more, not {message_len}")));
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode_all(bytes: &[u8], step: usize) -> Result<Vec<String>, FrameError> {
        let mut decoder = Decoder::default();
        let mut all = Vec::new();
        for chunk in bytes.chunks(step.max(1)) {
            decoder.push(chunk);
            while let Some(message) = decoder.next_message()? {
                all.push(message);
            }
        }
        Ok(all)
    }

    proptest! {
        #[test]
        fn decodes_messages_however_they_are_split(texts in prop::collection::vec(".{0,2000}", 1..6), step in 1usize..700) {
            let bytes: Vec<u8> = texts.iter().flat_map(|text| encode(text).unwrap()).collect();
            prop_assert_eq!(decode_all(&bytes, step).unwrap(), texts);
        }

        #[test]
        fn never_panics_on_hostile_bytes(bytes in prop::collection::vec(any::<u8>(), 0..4096), step in 1usize..600) {
            let mut framed = encode(&"x".repeat(600)).unwrap();
            framed.extend(bytes);
            let _ = decode_all(&framed, step);
        }

        #[test]
        fn refuses_a_frame_with_a_flipped_bit(at in 0usize..100, bit in 0u8..8) {
            let mut bytes = encode(&"abc".repeat(400)).unwrap();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(decode_all(&bytes, 64).map_or(true, |all| all.is_empty()));
        }
    }

    #[test]
    fn skips_a_little_noise_before_a_frame() {
        let mut bytes = b"\r\nnoise\x02DM ".to_vec();
        bytes.extend(encode(&"hello").unwrap());
        assert_eq!(decode_all(&bytes, 3).unwrap(), ["hello"]);
    }

    #[test]
    fn gives_up_on_endless_noise() {
        let error = decode_all(&vec![b'A'; MAX_SKIPPED + 2], 4096).unwrap_err();
        assert!(matches!(error, FrameError::Garbage { .. }), "{error}");
    }

    #[test]
    fn refuses_a_size_over_the_limit_at_once() {
        let mut bytes = encode(&"hello").unwrap();
        bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(decode_all(&bytes, 64), Err(FrameError::TooLarge { .. })));
    }

    #[test]
    fn stops_a_deflate_bomb_at_its_promised_length() {
        let bomb = deflate(&vec![0; 1 << 20]);
        let mut frame = MAGIC.to_vec();
        frame.extend_from_slice(&[VERSION, DEFLATED, 0, 0]);
        frame.extend_from_slice(&(bomb.len() as u32).to_le_bytes());
        frame.extend_from_slice(&1000u32.to_le_bytes());
        let crc = checksum(&frame, &bomb);
        frame.extend_from_slice(&crc.to_le_bytes());
        frame.extend_from_slice(&bomb);
        assert!(matches!(decode_all(&frame, 512), Err(FrameError::Inflate(_))));
    }
}
