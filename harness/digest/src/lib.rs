#![doc = "SHA-256 digests as lower-case hexadecimal text."]
//!
//! The digests name files of the cache and are keys of the history, so each function returns the
//! same text for the same input in every release.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

/// Bytes that [`sha256_file`] reads at once.
const BUFFER_SIZE: usize = 1 << 18;

/// Computes a SHA-256 digest of bytes that arrive piece by piece.
#[derive(Clone, Debug, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Appends bytes to the hashed text.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the digest as 64 hexadecimal digits.
    #[must_use]
    pub fn finish(self) -> String {
        let mut digits = String::with_capacity(64);
        for byte in self.0.finalize() {
            let _ = write!(digits, "{byte:02x}");
        }
        digits
    }
}

/// Returns the SHA-256 of some bytes as 64 hexadecimal digits.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    hasher.finish()
}

/// Returns the SHA-256 of a file's content as 64 hexadecimal digits.
///
/// # Errors
/// The file cannot be opened or read.
pub fn sha256_file(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; BUFFER_SIZE];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Returns the first `digits` hexadecimal digits (at most 64) of the SHA-256 of several parts. The
/// length of each part is hashed before the part, so that `["ab", "c"]` and `["a", "bc"]` differ.
pub fn short_id(parts: impl IntoIterator<Item = impl AsRef<[u8]>>, digits: usize) -> String {
    let mut hasher = Hasher::default();
    for part in parts {
        let part = part.as_ref();
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut id = hasher.finish();
    id.truncate(digits);
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the empty text and of "abc", from FIPS 180-4.
    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn digests_are_those_of_the_standard() {
        assert_eq!(sha256_hex(b""), EMPTY);
        assert_eq!(sha256_hex(b"abc"), ABC);
        let mut pieces = Hasher::default();
        pieces.update(b"a");
        pieces.update(b"bc");
        assert_eq!(pieces.finish(), ABC);
    }

    #[test]
    fn a_file_has_the_digest_of_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let content = vec![7; BUFFER_SIZE + 1];
        std::fs::write(&path, &content).unwrap();
        assert_eq!(sha256_file(&path).unwrap(), sha256_hex(&content));
        let missing = sha256_file(&dir.path().join("missing")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn short_ids_stay_the_same_across_releases() {
        // `printf '\2\0\0\0\0\0\0\0ab\1\0\0\0\0\0\0\0c' | sha256sum`
        assert_eq!(short_id(["ab", "c"], 20), "43ee655579de01ca739b");
        assert_eq!(short_id(["ab", "c"], 16), &short_id([&b"ab"[..], b"c"], 20)[..16]);
        assert_ne!(short_id(["ab", "c"], 20), short_id(["a", "bc"], 20));
        let no_parts: [&str; 0] = [];
        assert_eq!(short_id(no_parts, 64), EMPTY);
    }
}
