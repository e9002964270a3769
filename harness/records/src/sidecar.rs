//! Documents about a run as a whole, in its directory.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{error::LoadError, recorder::write_synced};

/// A document of which a record has at most one. It is written once and never changed.
pub trait RecordFile: Serialize + DeserializeOwned {
    /// Its file.
    const FILE: &str;
    /// What it is called.
    const WHAT: &str;
    /// The newest version of it that can be read, which is the one that is written.
    const SCHEMA: u32;

    /// Puts it into a record, where it may not be yet.
    ///
    /// # Errors
    /// What the system says, with the place.
    fn put(&self, directory: &Path) -> io::Result<()> {
        let path = directory.join(Self::FILE);
        write_synced(&path, &serde_json::to_vec_pretty(self)?).map_err(|error| {
            io::Error::new(error.kind(), format!("can't write {}: {error}", path.display()))
        })
    }

    /// Reads it; `None` where the record has none.
    ///
    /// # Errors
    /// Where it can't be read, is damaged, or was written by a newer dmarig.
    fn get(directory: &Path) -> Result<Option<Self>, LoadError> {
        let path = directory.join(Self::FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(LoadError::Io { path: path.display().to_string(), error });
            }
        };
        let path = path.display().to_string();
        // A newer layout may well not parse.
        if let Ok(Version { schema }) = serde_json::from_slice(&text)
            && schema > Self::SCHEMA
        {
            let known = Self::SCHEMA;
            return Err(LoadError::Newer { path, what: Self::WHAT, found: schema, known });
        }
        let damaged = |error: serde_json::Error| {
            let line = error.line();
            LoadError::Damaged { path, line, error: error.to_string() }
        };
        serde_json::from_slice(&text).map(Some).map_err(damaged)
    }
}

#[derive(Deserialize)]
struct Version {
    schema: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Known {
        schema: u32,
        value: u8,
    }

    impl RecordFile for Known {
        const FILE: &str = "known.json";
        const WHAT: &str = "known";
        const SCHEMA: u32 = 2;
    }

    #[test]
    fn what_is_newer_is_refused_by_name_and_what_is_damaged_by_line() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        assert_eq!(Known::get(at).unwrap(), None);
        Known { schema: 2, value: 7 }.put(at).unwrap();
        assert_eq!(Known::get(at).unwrap(), Some(Known { schema: 2, value: 7 }));
        // Nothing that was recorded is overwritten.
        let again = Known { schema: 2, value: 8 }.put(at).unwrap_err().to_string();
        assert!(again.contains("known.json"), "{again}");
        fs::write(at.join("known.json"), r#"{ "schema": 3, "shape": [] }"#).unwrap();
        let newer = Known::get(at).unwrap_err().to_string();
        assert!(newer.contains("has known version 3, this dmarig reads up to 2"), "{newer}");
        fs::write(at.join("known.json"), "{ \"schema\": 2,\n \"value\": -").unwrap();
        let damaged = Known::get(at).unwrap_err();
        assert!(matches!(damaged, LoadError::Damaged { line: 2, .. }), "{damaged}");
    }
}
