//! Completion of arguments in a shell.
//!
//! A shell calls the program with `COMPLETE=SHELL` in its environment. The values of an argument follow
//! from its name in the help, so that an argument of any command is completed without further code.

use std::{ffi::OsStr, path::PathBuf};

use clap::{Arg, Command, ValueHint};
use clap_complete::{
    ArgValueCompleter, CompleteEnv, CompletionCandidate, PathCompleter, engine::ValueCompleter,
};
use dmarig_images::Cache;
use dmarig_model::{
    axes::{Axis, DEFAULT_QEMU},
    case::Case,
    conditions::AxisSets,
    matrix,
    value::OneOrMany,
};

/// Answers a shell that requests completions, and ends the process in that case.
pub(crate) fn answer(command: fn() -> Command) {
    CompleteEnv::with_factory(move || with_values(command())).complete();
}

fn with_values(command: Command) -> Command {
    command.mut_args(with_value).mut_subcommands(with_values)
}

fn with_value(arg: Arg) -> Arg {
    let name = arg.get_value_names().and_then(|names| names.first()).map(|name| name.to_string());
    match (name.as_deref(), arg.get_id().as_str()) {
        (Some("CASE"), _) => arg.add(ArgValueCompleter::new(Words { names: cases, paths: true })),
        (Some("PATTERN" | "CELL"), _) => {
            arg.add(ArgValueCompleter::new(Words { names: cells, paths: false }))
        }
        (Some("NAME|PATH"), "qemu" | "qemus") => {
            arg.add(ArgValueCompleter::new(Words { names: qemus, paths: true }))
        }
        (Some("NAME|PATH" | "CANDIDATE" | "BASELINE"), _) => {
            arg.add(ArgValueCompleter::new(Words { names: kernels, paths: true }))
        }
        (Some("NAME"), "names") => {
            arg.add(ArgValueCompleter::new(Words { names: images, paths: false }))
        }
        (Some("RUN"), _) => arg.add(ArgValueCompleter::new(Words { names: runs, paths: true })),
        (Some("AXIS=VALUE,..."), _) => {
            arg.add(ArgValueCompleter::new(Words { names: axes, paths: false }))
        }
        (Some("DIR"), _) => arg.value_hint(ValueHint::DirPath),
        (Some("FILE" | "PATH"), _) => arg.value_hint(ValueHint::FilePath),
        _ => arg,
    }
}

/// Completes a word by names that begin with it, and by files if `paths`.
struct Words {
    names: fn() -> Vec<String>,
    paths: bool,
}

impl ValueCompleter for Words {
    fn complete(&self, current: &OsStr) -> Vec<CompletionCandidate> {
        let prefix = current.to_string_lossy();
        let names = (self.names)();
        let names = names.into_iter().filter(|name| name.starts_with(&*prefix));
        let mut candidates: Vec<_> = names.map(CompletionCandidate::new).collect();
        if self.paths {
            candidates.extend(PathCompleter::any().complete(current));
        }
        candidates
    }
}

fn cases() -> Vec<String> {
    let names = dmarig_testcases::CASES.iter();
    names.map(|(file, _)| file.strip_suffix(".yaml").unwrap_or(file).to_owned()).collect()
}

/// Ids of the built-in cases' cells, with the default kernel and QEMU.
fn cells() -> Vec<String> {
    let default_kernel = dmarig_images::Recipes::builtin().default_recipe().name.clone();
    let axes = AxisSets {
        kernel: OneOrMany(vec![default_kernel]),
        qemu: OneOrMany(vec![DEFAULT_QEMU.to_owned()]),
        ..AxisSets::default()
    };
    let cases = dmarig_testcases::CASES.iter();
    let cases = cases.filter_map(|(file, text)| Case::parse(file, text).ok());
    let cells = cases.filter_map(|case| matrix::cells(&case, &axes).ok()).flatten();
    cells.map(|cell| cell.id).collect()
}

/// Names of kernels that are in the cache or can be fetched.
fn kernels() -> Vec<String> {
    let Some(cache) = cache() else { return Vec::new() };
    let fetched = cache.list().unwrap_or_default().into_iter().map(|kernel| kernel.name);
    let mut names: Vec<String> = fetched.collect();
    names.extend(cache.recipes().iter().map(|recipe| recipe.name.clone()));
    sorted(names)
}

fn qemus() -> Vec<String> {
    let Some(cache) = cache() else { return Vec::new() };
    let mut names: Vec<String> =
        cache.recipes().qemus().map(|recipe| recipe.name.clone()).collect();
    names.push("qemu".to_owned());
    sorted(names)
}

/// Names that `images fetch` and `images rm` take.
fn images() -> Vec<String> {
    let Some(cache) = cache() else { return Vec::new() };
    let recipes = cache.recipes();
    let recipes = recipes.iter().chain(recipes.sources()).chain(recipes.qemus());
    let names = recipes.map(|recipe| recipe.name.clone());
    sorted(names.chain(["qemu".to_owned()]).collect())
}

/// Ids of recorded runs, the newest first.
fn runs() -> Vec<String> {
    let directory = std::env::var_os("DMARIG_RUNS").map(PathBuf::from);
    let Some(directory) = directory.or_else(dmarig_records::runs_directory) else {
        return Vec::new();
    };
    let directories = dmarig_records::run_directories(&directory).unwrap_or_default();
    let names = directories.iter().rev().filter_map(|path| path.file_name());
    let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.insert(0, "last".to_owned());
    names
}

fn axes() -> Vec<String> {
    Axis::ALL.iter().map(|axis| format!("{}=", axis.name())).collect()
}

/// The cache that the environment names. Options before the completed word are not known here.
fn cache() -> Option<Cache> {
    let directory = std::env::var_os("DMARIG_CACHE").map(PathBuf::from);
    Cache::open(directory.as_deref()).ok()
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort_unstable();
    names.dedup();
    names
}
