//! Reference pages of the documentation, generated from the command line's definition, the schema of
//! case files and the registry of metrics.

mod command_line;
mod metrics;
mod schema;

/// File names and Markdown texts of the reference pages.
///
/// # Panics
/// If the schema of case files is not JSON.
#[must_use]
pub fn pages() -> [(&'static str, String); 3] {
    [
        ("cli.md", command_line::page(dmarig::command())),
        ("case-file.md", schema::page(dmarig_testcases::CASE_SCHEMA)),
        ("metrics.md", metrics::page()),
    ]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn committed_pages_are_current() {
        let book = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src/reference");
        for (name, text) in super::pages() {
            let committed = std::fs::read_to_string(book.join(name)).unwrap_or_default();
            assert!(
                committed == text,
                "{name} is out of date: cargo run -p dmarig-reference pages docs/src/reference"
            );
        }
    }
}
