//! The command that runs one recorded cell again.

use dmarig_model::{axes::DEFAULT_QEMU, plan::shell_line};
use serde::{Deserialize, Serialize};

use crate::meta::RunMeta;

/// The options of `dmarig run` that a cell depends on, as words of its command line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct RunOptions {
    /// The cases.
    pub cases: Vec<String>,
    /// Whether kernels were named, by `--kernel` or `--reference`.
    pub kernels_named: bool,
    /// Whether QEMUs were named, by `--qemu` or its variable.
    pub qemus_named: bool,
    /// All other options, each with its value: `--set`, `smp=2`.
    pub others: Vec<String>,
}

/// Options with a value that a rerun needs.
const KEPT: [&str; 14] = [
    "--accel",
    "--add",
    "--append",
    "--cache",
    "--device",
    "--device-companion",
    "--device-interface",
    "--force-device",
    "--module",
    "--modules",
    "--outer-kernel",
    "--recipes",
    "--runs",
    "--set",
];

/// Options with a value that a rerun replaces, or that have no effect on a single cell.
const DROPPED: [&str; 11] = [
    "--baseline",
    "--cell",
    "--format",
    "--history",
    "--jobs",
    "--junit",
    "--limit",
    "--patience",
    "--probe-program",
    "--seed",
    "--shard",
];

impl RunOptions {
    /// Parses a recorded command line, which begins with the program. `None` for commands other
    /// than `run`.
    ///
    /// Records of version 1 have the command line only. Words that are not options of that version
    /// count as cases.
    #[must_use]
    pub fn from_command(command: &[String]) -> Option<Self> {
        let mut words = command.iter().skip(1);
        if words.next()? != "run" {
            return None;
        }
        let mut options = Self::default();
        while let Some(word) = words.next() {
            let Some((name, joined)) = split(word) else {
                options.cases.push(word.clone());
                continue;
            };
            if name == "--stock-boot" {
                options.others.push(name.to_owned());
                continue;
            }
            let known = KEPT.contains(&name)
                || DROPPED.contains(&name)
                || ["--kernel", "--qemu", "--reference"].contains(&name);
            if !known {
                continue;
            }
            let Some(value) = joined.map(str::to_owned).or_else(|| words.next().cloned()) else {
                break;
            };
            match name {
                "--kernel" | "--reference" => options.kernels_named = true,
                "--qemu" => options.qemus_named = true,
                _ if KEPT.contains(&name) => options.others.extend([name.to_owned(), value]),
                _ => {}
            }
        }
        Some(options)
    }

    /// The command that runs one cell again, for a shell.
    #[must_use]
    pub fn rerun_command(&self, cell: &CellName<'_>) -> String {
        let mut words = vec!["dmarig".to_owned(), "run".into()];
        words.extend(self.case_words(cell.case));
        words.extend(["--cell".to_owned(), cell.id.to_owned()]);
        if self.kernels_named {
            words.extend(["--kernel".to_owned(), cell.kernel.to_owned()]);
        }
        // Without an option or a `--set`, the environment or the case has named the QEMU.
        let set = self.others.iter().any(|word| word.starts_with("qemu="));
        if self.qemus_named || (cell.qemu != DEFAULT_QEMU && !set) {
            words.extend(["--qemu".to_owned(), cell.qemu.to_owned()]);
        }
        words.extend(self.others.iter().cloned());
        shell_line(words.iter())
    }

    /// The words for a case. If no word has the case's name, all are given, and the cell's id
    /// selects.
    fn case_words(&self, case: &str) -> Vec<String> {
        let stem = |word: &str| {
            let file = word.rsplit('/').next().unwrap_or(word);
            file.strip_suffix(".yaml").unwrap_or(file).to_owned()
        };
        match self.cases.iter().find(|word| stem(word) == case) {
            Some(word) => vec![word.clone()],
            None => self.cases.clone(),
        }
    }
}

/// The names that identify a cell on a command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CellName<'a> {
    /// Name of its case.
    pub case: &'a str,
    /// Its id.
    pub id: &'a str,
    /// Its kernel.
    pub kernel: &'a str,
    /// Its QEMU.
    pub qemu: &'a str,
}

impl RunMeta {
    /// The command that runs one cell of the run again, for a shell. Other commands than `dmarig
    /// run` can't select single cells, so they are repeated as a whole; empty if no command is
    /// recorded.
    #[must_use]
    pub fn rerun_command(&self, cell: &CellName<'_>) -> String {
        let from_command = || RunOptions::from_command(&self.command);
        match self.options.clone().or_else(from_command) {
            Some(options) => options.rerun_command(cell),
            None if self.command.is_empty() => String::new(),
            None => {
                let rest = self.command.iter().skip(1);
                shell_line(std::iter::once(&"dmarig".to_owned()).chain(rest))
            }
        }
    }
}

/// Splits an option into its long name and an attached value; `None` for a word that is not an
/// option.
fn split(word: &str) -> Option<(&str, Option<&str>)> {
    if word.starts_with("--") {
        return Some(match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        });
    }
    let short = word.strip_prefix('-').filter(|short| !short.is_empty())?;
    let (letter, rest) = short.split_at(short.chars().next().map_or(0, char::len_utf8));
    let name = match letter {
        "c" => "--cell",
        "j" => "--jobs",
        "k" => "--kernel",
        "s" => "--set",
        _ => return None,
    };
    let value = rest.strip_prefix('=').unwrap_or(rest);
    Some((name, if value.is_empty() { None } else { Some(value) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CELL: CellName<'_> =
        CellName { case: "mine", id: "mine/policy=lazy", kernel: "linux", qemu: DEFAULT_QEMU };

    fn meta(command: &str) -> RunMeta {
        let command = command.split(' ').filter(|word| !word.is_empty()).map(str::to_owned);
        RunMeta { command: command.collect(), ..RunMeta::default() }
    }

    #[track_caller]
    fn check(command: &str, cell: CellName<'_>, expected: &str) {
        assert_eq!(meta(command).rerun_command(&cell), expected);
    }

    #[test]
    fn keeps_options_of_the_cell() {
        check(
            "/opt/dmarig run my.yaml -c a --cell=b -cx -k linux --set device=virtio-blk --junit \
             x.xml --append a=b",
            CELL,
            "dmarig run my.yaml --cell mine/policy=lazy --kernel linux --set device=virtio-blk \
             --append a=b",
        );
    }

    #[test]
    fn keeps_directories_and_drops_formats() {
        check(
            "dmarig run --runs /srv/runs mine -j4 other --format json -ssmp=2 --stock-boot \
             --stages",
            CELL,
            "dmarig run mine --cell mine/policy=lazy --runs /srv/runs --set smp=2 --stock-boot",
        );
    }

    #[test]
    fn names_a_qemu_that_the_environment_named() {
        let cell = CellName { qemu: "qemu-11.1", ..CELL };
        check("dmarig run", cell, "dmarig run --cell mine/policy=lazy --qemu qemu-11.1");
    }

    #[test]
    fn names_a_qemu_by_its_option() {
        let cell = CellName { qemu: "a", ..CELL };
        let expected = "dmarig run --cell mine/policy=lazy --qemu a";
        check("dmarig run --qemu a --qemu b", cell, expected);
        check("dmarig run --qemu=a", cell, expected);
    }

    #[test]
    fn leaves_a_qemu_to_the_values_of_its_axis() {
        let cell = CellName { qemu: "a", ..CELL };
        let expected = "dmarig run --cell mine/policy=lazy --set qemu=a,b";
        check("dmarig run --set qemu=a,b", cell, expected);
        check("dmarig run -sqemu=a,b", cell, expected);
    }

    #[test]
    fn repeats_other_commands_as_a_whole() {
        let command = "dmarig compare a b --case timing";
        check(command, CELL, command);
        check("", CELL, "");
    }

    #[test]
    fn quotes_for_a_shell() {
        let cell = CellName { id: "mine/kernel=a b", ..CELL };
        check("dmarig run mine", cell, "dmarig run mine --cell 'mine/kernel=a b'");
    }
}
