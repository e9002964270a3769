//! What a record says about its run.

use dmarig_records::{CaseText, RECORD_SCHEMA, RunMeta, rules};

use crate::{host, select::Selected};

/// The description of a run of the selected cells. `command` is the command line that started it.
#[must_use]
pub fn run_meta(selected: &Selected, command: Vec<String>) -> RunMeta {
    let cases = selected
        .cases
        .iter()
        .map(|case| CaseText { file: case.file.clone(), text: case.text.clone() });
    RunMeta {
        schema: RECORD_SCHEMA,
        id: String::new(),
        started: 0,
        dmarig: dmarig_version::VERSION.to_owned(),
        command,
        host: host::facts(),
        cases: cases.collect(),
        rules: rules(),
        reference: None,
        planned: u32::try_from(selected.cells.len()).ok(),
        options: None,
    }
}
