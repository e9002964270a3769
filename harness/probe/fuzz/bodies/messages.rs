//! Messages of a hostile client: they are understood or refused, and never more.

use dmarig_probe::protocol::{Command, HEADER_BYTES, Header, IrqData, MAX_DATA_BYTES, decode};
use zerocopy::IntoBytes;

/// Reads bytes as a header and a body.
pub(crate) fn check(bytes: &[u8]) {
    let Some((first, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return };
    let Ok(header) = Header::decode(first) else { return };
    assert_eq!(header.as_bytes(), first);
    for command in 0..=16u16 {
        // Each input is tried as every command; the one that it names would rarely be one.
        let header = Header { command: command.into(), ..header };
        match decode(&header, body) {
            Ok(Command::RegionRead { count, .. }) => assert!(count as usize <= MAX_DATA_BYTES),
            Ok(Command::RegionWrite { data, .. }) => assert!(data.len() + 16 <= body.len()),
            Ok(Command::SetIrqs(set)) => {
                if let IrqData::Bool(which) = set.data {
                    assert_eq!(which.len(), set.count as usize);
                }
            }
            Ok(_) => {}
            Err(error) => {
                let reply = header.failure(error);
                assert!(reply.is_reply() && reply.failed().is_some() && reply.error.get() != 0);
            }
        }
    }
}
