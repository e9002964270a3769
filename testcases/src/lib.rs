//! The cases that dmarig brings along, as texts.

/// Each case's file name and text.
pub const CASES: &[(&str, &str)] = &[
    ("attacks.yaml", include_str!("../attacks.yaml")),
    ("boot.yaml", include_str!("../boot.yaml")),
    ("full.yaml", include_str!("../full.yaml")),
    ("nested.yaml", include_str!("../nested.yaml")),
    ("passthrough.yaml", include_str!("../passthrough.yaml")),
    ("policies.yaml", include_str!("../policies.yaml")),
    ("prove.yaml", include_str!("../prove.yaml")),
    ("prove-time.yaml", include_str!("../prove-time.yaml")),
    ("qemu-functional.yaml", include_str!("../qemu-functional.yaml")),
    ("queued.yaml", include_str!("../queued.yaml")),
    ("smoke.yaml", include_str!("../smoke.yaml")),
    ("sweep.yaml", include_str!("../sweep.yaml")),
    ("timing.yaml", include_str!("../timing.yaml")),
];

/// JSON Schema of case files.
pub const CASE_SCHEMA: &str = include_str!("../schema/case.schema.json");

/// JSON Schema of the document of results.
pub const RESULT_SCHEMA: &str = include_str!("../schema/result.schema.json");

/// The case file whose name is `name` or `name.yaml`: its full name, and its text.
#[must_use]
pub fn case(name: &str) -> Option<(&'static str, &'static str)> {
    CASES
        .iter()
        .copied()
        .find(|(file, _)| *file == name || file.strip_suffix(".yaml") == Some(name))
}
