//! Nested cells: what the outer guest is given, and what it hands out.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use dmarig_images::{AddedFile, Export, QemuTree};
use dmarig_model::{
    axes::Axes,
    case::Case,
    matrix::Cell,
    nested::{OUTER_DEVICE, words},
    observation::{End, Observation, Setup},
    text::shown_end,
};
use dmarig_records::{RecordError, StoredRun};
use dmarig_rig::launch::GuestFiles;

use crate::{error::PrepareError, request::Selection};

/// The directory of the outer guest with all that it is given.
pub(crate) const GIVEN: &str = "/given";
/// Where the dmarig in it records.
const RUNS: &str = "/runs";
/// The directory of a cell's logs that the record from inside goes to.
const INNER: &str = "inner";

/// What runs within the outer guest.
#[derive(Debug)]
pub(crate) struct Inside {
    /// Files that it needs.
    pub(crate) files: Vec<AddedFile>,
    /// The command.
    pub(crate) argv: Vec<String>,
}

/// The parts that are found elsewhere.
#[derive(Debug)]
pub(crate) struct OuterGuestFiles<'a> {
    pub(crate) axes: &'a Axes,
    pub(crate) selection: &'a Selection,
    pub(crate) qemu: &'a QemuTree,
    pub(crate) kernel: &'a Export,
    pub(crate) patience: f64,
    /// A file with the case's text.
    pub(crate) case_file: &'a Path,
}

impl Inside {
    /// Puts together what the outer guest needs to run the inner one.
    pub(crate) fn new(given: &OuterGuestFiles<'_>) -> Result<Self, PrepareError> {
        let own = OwnProgram::find()?;
        let selection = given.selection;
        let mut files = given.qemu.files()?;
        files.extend(given.kernel.files.iter().cloned());
        let mut argv = own.argv();
        files.extend(own.files);
        argv.push("run".to_owned());
        let case = format!("{GIVEN}/case.yaml");
        files.push(AddedFile { guest: case.clone(), host: given.case_file.to_owned() });
        argv.push(case);
        argv.extend(words(given.axes));
        let patience = given.patience.to_string();
        let device = format!("host={OUTER_DEVICE}");
        let options = [
            ("--kernel", given.kernel.spec.as_str()),
            ("--qemu", QemuTree::IN_A_GUEST),
            ("--accel", given.axes.accelerator.name()),
            ("--device", &device),
            ("--cache", &given.kernel.cache),
            ("--runs", RUNS),
            ("--timeout-factor", &patience),
            ("--jobs", "1"),
        ];
        let mut option = |name: &str, value: &str| {
            argv.extend([name.to_owned(), value.to_owned()]);
        };
        options.into_iter().for_each(|(name, value)| option(name, value));
        if let Some(modules) = &given.kernel.modules {
            option("--modules", modules);
        }
        selection.append.iter().for_each(|words| option("--append", words));
        selection.load.iter().for_each(|module| option("--module", module));
        for host in &selection.adds {
            let name = host.file_name().unwrap_or_default().to_string_lossy();
            let guest = format!("{GIVEN}/add/{name}");
            option("--add", &guest);
            files.push(AddedFile { guest, host: host.clone() });
        }
        argv.push("--stages".to_owned());
        argv.extend(selection.stock_boot.then(|| "--stock-boot".to_owned()));
        Ok(Self { files, argv })
    }
}

/// A file of the cache with the text of a case, the same one for the same text: so that an
/// initramfs with it is packed once.
pub(crate) fn case_file(case: &Case, cache: &Path) -> Result<PathBuf, PrepareError> {
    let directory = cache.join("cases");
    let hash = dmarig_digest::short_id([case.text.as_str()], 16);
    let path = directory.join(format!("{}-{hash}.yaml", case.name));
    if fs::read_to_string(&path).is_ok_and(|text| text == case.text) {
        return Ok(path);
    }
    let write = || {
        fs::create_dir_all(&directory)?;
        let file = tempfile::NamedTempFile::new_in(&directory)?;
        fs::write(file.path(), &case.text)?;
        file.persist(&path).map_err(|error| error.error)
    };
    match write() {
        Ok(_) => Ok(path),
        Err(source) => Err(PrepareError::Write { path, source: Arc::new(source) }),
    }
}

/// This very program with the libraries that it runs with: the outer guest may have others.
struct OwnProgram {
    program: String,
    loader: Option<String>,
    files: Vec<AddedFile>,
}

impl OwnProgram {
    fn find() -> Result<Self, PrepareError> {
        let unknown = |source: std::io::Error| PrepareError::OwnProgram {
            what: "files are",
            source: Arc::new(source),
        };
        let program = std::env::current_exe().map_err(unknown)?;
        let maps = fs::read_to_string("/proc/self/maps").map_err(unknown)?;
        let directory = format!("{GIVEN}/dmarig");
        let mut own = Self { program: format!("{directory}/dmarig"), loader: None, files: vec![] };
        own.files.push(AddedFile { guest: own.program.clone(), host: program });
        for library in libraries(&maps) {
            let name = library.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let guest = format!("{directory}/{name}");
            if name.starts_with("ld-linux") {
                own.loader = Some(guest.clone());
            }
            own.files.push(AddedFile { guest, host: library });
        }
        Ok(own)
    }

    fn argv(&self) -> Vec<String> {
        let program = self.program.clone();
        match &self.loader {
            Some(loader) => {
                let directory = format!("{GIVEN}/dmarig");
                vec![loader.clone(), "--library-path".to_owned(), directory, program]
            }
            // A static program.
            None => vec![program],
        }
    }
}

/// The libraries in a process' list of mappings (proc_pid_maps(5)).
fn libraries(maps: &str) -> BTreeSet<PathBuf> {
    let paths = maps.lines().filter_map(|line| Some(&line[line.find('/')?..]));
    let library = |path: &&str| {
        let name = path.rsplit('/').next().unwrap_or_default();
        name.ends_with(".so") || name.contains(".so.")
    };
    paths.filter(library).map(PathBuf::from).collect()
}

/// Records of the inner run, copied from the outer guest to the directory of the cell's logs.
pub(crate) fn guest_files(artifacts: &Path) -> GuestFiles {
    GuestFiles { guest: RUNS.to_owned(), host: artifacts.join(INNER) }
}

/// The observation of the cell, from the outer guest's and from the record that it handed out.
pub(crate) fn hand_out(cell: &Cell, artifacts: &Path, outer: Observation) -> Observation {
    let fault = |what: String| {
        let end = End::HostFault { what };
        Observation::unseen(&cell.id, &cell.case, &cell.axes, Setup::unplanned(&cell.axes), end)
    };
    let said = || {
        let output = outer.windows.iter().filter_map(|window| window.report.output.as_deref());
        shown_end(&output.collect::<String>())
    };
    let inner = match &outer.end {
        End::Interrupted => return Observation { end: End::Interrupted, ..fault(String::new()) },
        End::Completed => record(artifacts),
        end => Err(InnerRunError::Ended(end.in_words())),
    };
    match inner {
        Ok(inner) => Observation::nested(inner, &cell.id, &cell.axes, outer),
        Err(why) => {
            let said = said();
            let what = format!("the outer guest returned no record: {why}; its output: {said}");
            // What is known of the outer guest is kept all the same.
            Observation::nested(fault(what), &cell.id, &cell.axes, outer)
        }
    }
}

/// The reason why an outer guest returned no observation of the inner one.
#[derive(Debug, thiserror::Error)]
enum InnerRunError {
    #[error("it ended early: {0}")]
    Ended(String),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("it contains {0} cells instead of one")]
    Cells(usize),
}

/// The observation of the one cell that was recorded inside.
fn record(artifacts: &Path) -> Result<Observation, InnerRunError> {
    let run = StoredRun::load("last", &artifacts.join(INNER))?;
    match <[_; 1]>::try_from(run.cells) {
        Ok([cell]) => Ok(cell.observation),
        Err(cells) => Err(InnerRunError::Cells(cells.len())),
    }
}

#[cfg(test)]
mod tests {
    use dmarig_model::{
        conditions::AxisSets,
        observation::{Outcome, Phase, Verdict},
    };
    use dmarig_records::{CellRecord, HostFacts, RECORD_SCHEMA, Recorder, RunMeta};

    use super::*;

    #[test]
    fn a_process_has_its_libraries_and_nothing_else() {
        let maps = "55d0-55d1 r--p 00000000 fe:00 1 /usr/bin/dmarig\n\
                    7f00-7f01 r-xp 00000000 fe:00 2 /usr/lib/x86_64-linux-gnu/libc.so.6\n\
                    7f01-7f02 r--p 00000000 fe:00 2 /usr/lib/x86_64-linux-gnu/libc.so.6\n\
                    7f03-7f04 r--p 00000000 fe:00 3 /opt/my libs/libfoo.so\n\
                    7f05-7f06 rw-p 00000000 00:00 0 [heap]\n\
                    7f07-7f08 r--p 00000000 fe:00 4 /usr/lib64/ld-linux-x86-64.so.2\n";
        let found: Vec<_> = libraries(maps).into_iter().collect();
        let expected = [
            "/opt/my libs/libfoo.so",
            "/usr/lib/x86_64-linux-gnu/libc.so.6",
            "/usr/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(found, expected.map(PathBuf::from));
    }

    fn cell(passthrough: &str) -> Cell {
        let text =
            format!("case: n\naxes: {{passthrough: {passthrough}}}\nworkload: {{block: {{}}}}\n");
        let case = Case::parse("n.yaml", &text).unwrap();
        dmarig_model::matrix::cells(&case, &AxisSets::default()).unwrap().remove(0)
    }

    fn seen(cell: &Cell, end: End) -> Observation {
        let setup = Setup::unplanned(&cell.axes);
        let mut seen = Observation::unseen(&cell.id, &cell.case, &cell.axes, setup, end);
        seen.release = Some(format!("of {}", cell.axes.passthrough));
        seen.phases = vec![Phase { name: "kernel".into(), us: 10 }];
        seen
    }

    /// What comes of a cell whose outer guest ended so, with a record of so many inner cells.
    fn handed(end: End, inner: usize) -> Observation {
        let artifacts = tempfile::tempdir().unwrap();
        if inner > 0 {
            let mut meta = RunMeta {
                schema: RECORD_SCHEMA,
                id: String::new(),
                started: 0,
                dmarig: String::new(),
                command: Vec::new(),
                host: HostFacts::default(),
                cases: Vec::new(),
                rules: String::new(),
                reference: None,
                planned: None,
                options: None,
            };
            let mut recorder =
                Recorder::create(&guest_files(artifacts.path()).host, &mut meta).unwrap();
            for _ in 0..inner {
                let observation = seen(&cell("host"), End::Completed);
                let verdict =
                    Verdict { outcome: Outcome::Passed, reasons: Vec::new(), checks: Vec::new() };
                recorder.add(&CellRecord::new(observation, verdict)).unwrap();
            }
        }
        let cell = cell("nested");
        let mut outer = seen(&cell, end);
        outer.release = Some("of the outer guest".into());
        outer.phases[0].us = 100;
        hand_out(&cell, artifacts.path(), outer)
    }

    #[test]
    fn the_inner_guest_is_what_the_cell_is_about() {
        let handed = handed(End::Completed, 1);
        assert_eq!((handed.end, handed.axes), (End::Completed, cell("nested").axes));
        assert_eq!((handed.cell, handed.release), (cell("nested").id, Some("of host".into())));
        // The time that it took is the outer one's.
        assert_eq!(handed.phases.iter().map(|phase| phase.us).sum::<u64>(), 100);
        assert_eq!(handed.outer.unwrap().release.as_deref(), Some("of the outer guest"));
    }

    #[test]
    fn an_outer_guest_without_a_record_is_the_rigs_trouble() {
        let check = |end: End, inner: usize, expected: &str| match handed(end, inner).end {
            End::HostFault { what } => assert!(what.contains(expected), "{what}"),
            other => panic!("{other:?}"),
        };
        check(End::Completed, 0, "there is no run `last`");
        check(End::Completed, 2, "it contains 2 cells");
        let panicked = End::Panicked { message: "oh".into() };
        check(panicked, 1, "it ended early: the guest's kernel panicked: oh");
        assert_eq!(handed(End::Interrupted, 0).end, End::Interrupted);
    }

    #[test]
    fn this_program_is_found_with_its_loader() {
        let own = OwnProgram::find().unwrap();
        assert!(own.files.iter().all(|file| file.host.is_file()), "{:?}", own.files);
        assert_eq!(own.argv().last(), Some(&own.program));
    }
}
