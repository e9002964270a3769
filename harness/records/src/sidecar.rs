//! Documents about a run as a whole, in its directory.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{error::RecordError, recorder::write_synced};

/// A document that a record has at most once. It is written once and never changed.
pub trait RecordFile: Serialize + DeserializeOwned {
    /// Name of the file.
    const FILE: &str;
    /// Name of the document, for messages.
    const NAME: &str;
    /// The version that is written, and the newest that can be read.
    const SCHEMA: u32;

    /// Writes the document into the record of a run, which must not have it yet.
    ///
    /// # Errors
    /// [`RecordError::Write`]
    fn write(&self, directory: &Path) -> Result<(), RecordError> {
        let path = directory.join(Self::FILE);
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::from);
        text.and_then(|text| write_synced(&path, &text)).map_err(RecordError::writing(&path))
    }

    /// Reads the document from the record of a run; `None` if the record has none.
    ///
    /// # Errors
    /// [`RecordError::Read`], [`RecordError::Damaged`], [`RecordError::Newer`]
    fn read(directory: &Path) -> Result<Option<Self>, RecordError> {
        let path = directory.join(Self::FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(RecordError::reading(&path)(error)),
        };
        let path = path.display().to_string();
        // A newer layout may not parse at all, so the version is read first.
        if let Ok(Version { schema }) = serde_json::from_slice(&text)
            && schema > Self::SCHEMA
        {
            let (what, known) = (Self::NAME, Self::SCHEMA);
            return Err(RecordError::Newer { path, what, found: schema, known });
        }
        match serde_json::from_slice(&text) {
            Ok(document) => Ok(Some(document)),
            Err(error) => Err(RecordError::Damaged { path, line: error.line(), error }),
        }
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
    struct Document {
        schema: u32,
        value: u8,
    }

    impl RecordFile for Document {
        const FILE: &str = "document.json";
        const NAME: &str = "document";
        const SCHEMA: u32 = 2;
    }

    #[test]
    fn reads_what_was_written() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Document::read(directory.path()).unwrap(), None);
        Document { schema: 2, value: 7 }.write(directory.path()).unwrap();
        let read = Document::read(directory.path()).unwrap();
        assert_eq!(read, Some(Document { schema: 2, value: 7 }));
    }

    #[test]
    fn never_overwrites_a_document() {
        let directory = tempfile::tempdir().unwrap();
        Document { schema: 2, value: 7 }.write(directory.path()).unwrap();
        let error = Document { schema: 2, value: 8 }.write(directory.path()).unwrap_err();
        let RecordError::Write { path, error } = error else { panic!("{error}") };
        assert!(path.ends_with("document.json"), "{path}");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn rejects_a_newer_document() {
        let directory = tempfile::tempdir().unwrap();
        let text = r#"{ "schema": 3, "shape": [] }"#;
        fs::write(directory.path().join("document.json"), text).unwrap();
        let error = Document::read(directory.path()).unwrap_err();
        let expected =
            matches!(error, RecordError::Newer { what: "document", found: 3, known: 2, .. });
        assert!(expected, "{error}");
    }

    #[test]
    fn names_the_line_of_a_damaged_document() {
        let directory = tempfile::tempdir().unwrap();
        let text = "{ \"schema\": 2,\n \"value\": -";
        fs::write(directory.path().join("document.json"), text).unwrap();
        let error = Document::read(directory.path()).unwrap_err();
        assert!(matches!(error, RecordError::Damaged { line: 2, .. }), "{error}");
    }
}
