//! From a selection to cells.

use std::{collections::BTreeSet, fs, io::Read, path::Path};

use dmarig_images::Cache;
use dmarig_model::{
    axes::{Accelerator, Axis, DEFAULT_QEMU},
    case::{Case, CaseErrors, MAX_CASE_BYTES, check_names},
    conditions::AxisSets,
    limit::Limit,
    matrix::{self, Cell},
    text::shown,
    value::OneOrMany,
};

use crate::{
    error::{Error, PrepareError, RequestError},
    prepare::qemu_program,
    request::Selection,
};

/// What a command line selects.
#[derive(Debug)]
pub struct Selected {
    /// The cases, in the order of the command line.
    pub cases: Vec<Case>,
    /// Their cells.
    pub cells: Vec<Cell>,
}

impl Selected {
    /// The case that a cell belongs to.
    pub fn case(&self, cell: &Cell) -> &Case {
        // Cells are only ever made from these cases.
        self.cases.iter().find(|case| case.name == cell.case).unwrap_or(&self.cases[0])
    }

    /// Memory of the largest guest, in MiB.
    #[must_use]
    pub fn memory_mib(&self) -> u32 {
        self.cells.iter().map(|cell| cell.axes.memory_mib).max().unwrap_or(0)
    }
}

/// Reads the cases and unfolds the cells that are selected.
pub fn select(selection: &Selection, cache: &Cache) -> Result<Selected, Error> {
    let mut cases = Vec::new();
    let mut errors = Vec::new();
    for name in &selection.cases {
        match read_case(name)? {
            Ok(case) => cases.push(case),
            Err(CaseErrors(mistakes)) => errors.extend(mistakes),
        }
    }
    if errors.is_empty()
        && let Err(CaseErrors(mistakes)) = check_names(&cases)
    {
        errors = mistakes;
    }
    if !errors.is_empty() {
        return Err(RequestError::Cases(CaseErrors(errors)).into());
    }
    let mut cells = Vec::new();
    for case in &cases {
        let given = overrides(selection, case, cache)?;
        cells.extend(matrix::cells(case, &given).map_err(RequestError::from)?);
    }
    let picked = matrix::select(&cells, &selection.cells).map_err(RequestError::from)?;
    let cells = picked.into_iter().cloned().collect();
    Ok(Selected { cases, cells })
}

/// Whether any kernel that is named can be one: where none can, a name is misspelt, and nothing would
/// run. One beside others is told by its cells, and harms no other.
pub fn check_kernels(selected: &Selected, cache: &Cache) -> Result<(), Error> {
    let kernels: BTreeSet<&str> =
        selected.cells.iter().map(|cell| cell.axes.kernel.as_str()).collect();
    let mut wrong = None;
    for kernel in kernels {
        match cache.unknown_kernel(kernel)? {
            Some(error) => wrong = Some(error),
            None => return Ok(()),
        }
    }
    match wrong {
        Some(error) => Err(RequestError::Kernel(error).into()),
        None => Ok(()),
    }
}

/// Checks that at least one of the QEMUs exists. If none does, a name is misspelt and nothing would run. A
/// missing one among others only fails its own cells.
pub fn check_qemus(selected: &Selected, cache: &Cache) -> Result<(), Error> {
    let qemus = selected.cells.iter().map(|cell| cell.axes.qemu.as_str());
    // A default QEMU that is not installed is a fault of the host, not of the request.
    let named: BTreeSet<&str> = qemus.filter(|qemu| *qemu != DEFAULT_QEMU).collect();
    let mut missing = None;
    for qemu in named {
        match qemu_program(cache, qemu) {
            Err(error @ PrepareError::NoQemu { .. }) => missing = Some(error),
            // Other faults of a QEMU are those of its cells.
            Ok(_) | Err(_) => return Ok(()),
        }
    }
    match missing {
        Some(error) => Err(RequestError::Qemu(error).into()),
        None => Ok(()),
    }
}

/// Whether a kernel that others are set in relation to can be one: without it nothing is told of them.
pub fn check_kernel(option: &'static str, kernel: &str, cache: &Cache) -> Result<(), Error> {
    match cache.unknown_kernel(kernel)? {
        Some(error) => Err(RequestError::KernelOption { option, error }.into()),
        None => Ok(()),
    }
}

/// Whether the command line's metrics can be timed, and are limited once.
pub fn check_limits(cases: &[Case], limits: &[Limit], metrics: &[String]) -> Result<(), Error> {
    let named = limits.iter().map(|limit| ("--limit", &limit.metric));
    for (option, name) in named.chain(metrics.iter().map(|name| ("--metric", name))) {
        // Of cases some of which bring their own, any may have it.
        let wrong: Option<Vec<String>> = cases.iter().map(|case| case.unknown_time(name)).collect();
        if let Some(what) = wrong.and_then(|wrong| wrong.into_iter().next()) {
            return Err(RequestError::Metric { option, what }.into());
        }
    }
    let twice = |at: &usize| limits[..*at].iter().any(|other| other.metric == limits[*at].metric);
    match (0..limits.len()).find(twice) {
        Some(at) => {
            let metric = shown(&limits[at].metric);
            Err(RequestError::LimitGivenTwice { metric }.into())
        }
        None => Ok(()),
    }
}

/// What the command line gives on each axis; kernel and QEMU have defaults that no case file can.
fn overrides(selection: &Selection, case: &Case, cache: &Cache) -> Result<AxisSets, RequestError> {
    let mut given = AxisSets::default();
    for text in &selection.sets {
        matrix::parse_override(text, &mut given)?;
    }
    selection.device.replace(&mut given);
    let here = |given: &AxisSets, axis| given.count(axis) > 0;
    let mut fill = |axis: Axis, names: &[String], default: &str| {
        let own = case.axes.count(axis) > 0;
        match (names.is_empty(), here(&given, axis)) {
            (false, true) => {
                return Err(RequestError::AxisGivenTwice { axis });
            }
            (false, false) => set(&mut given, axis, names.to_vec()),
            (true, false) if !own => set(&mut given, axis, vec![default.to_owned()]),
            (true, _) => {}
        }
        Ok(())
    };
    fill(Axis::Kernel, &selection.kernels, &cache.recipes().default_recipe().name)?;
    fill(Axis::Qemu, &selection.qemus, DEFAULT_QEMU)?;
    if let Some(reference) = &selection.reference {
        let kernels = if given.count(Axis::Kernel) > 0 { &given.kernel } else { &case.axes.kernel };
        let mut names = kernels.0.clone();
        if !names.contains(reference) {
            names.push(reference.clone());
        }
        set(&mut given, Axis::Kernel, names);
    }
    if selection.accelerator != Accelerator::Auto {
        given.accelerator = OneOrMany(vec![selection.accelerator]);
    }
    Ok(given)
}

fn set(given: &mut AxisSets, axis: Axis, names: Vec<String>) {
    match axis {
        Axis::Kernel => given.kernel = OneOrMany(names),
        _ => given.qemu = OneOrMany(names),
    }
}

fn read_case(name: &str) -> Result<Result<Case, CaseErrors>, RequestError> {
    if let Some((file, text)) = dmarig_testcases::case(name) {
        return Ok(Case::parse(file, text));
    }
    let path = Path::new(name);
    if !path.exists() {
        let known = dmarig_testcases::CASES
            .iter()
            .map(|(file, _)| file.strip_suffix(".yaml").unwrap_or(file).to_owned())
            .collect();
        return Err(RequestError::UnknownCase { name: name.to_owned(), known });
    }
    let text = read_bounded(path)
        .map_err(|source| RequestError::UnreadableCase { path: name.to_owned(), source })?;
    Ok(Case::parse(name, &text))
}

/// One byte over the limit is enough for the parser to refuse it by its size.
fn read_bounded(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(MAX_CASE_BYTES as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}

/// A case as its user names it: a built-in one by its name, another one by its file.
pub fn case_word(file: &str) -> &str {
    match file.strip_suffix(".yaml") {
        Some(name) if dmarig_testcases::case(name).is_some() => name,
        _ => file,
    }
}
