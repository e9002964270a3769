//! The programs that a kernel's build needs.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::{Error, Result};

/// What is looked for, with Debian's package of it.
const PROGRAMS: [(&str, &str); 8] = [
    ("make", "make"),
    ("gcc", "gcc"),
    ("ld", "binutils"),
    ("strip", "binutils"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("perl", "perl"),
];

/// What is here to build with.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    /// Compiler and linker with their versions: others make another kernel of the same source.
    pub(crate) compiler: String,
    /// Whether compilations can be taken from ccache.
    pub(crate) ccache: bool,
}

impl Tools {
    /// Looks for them all.
    ///
    /// # Errors
    /// [`Error::MissingTools`] with everything that is missing.
    pub(crate) fn find() -> Result<Tools> {
        let mut missing: Vec<(&str, &str)> =
            PROGRAMS.into_iter().filter(|(program, _)| in_path(program).is_none()).collect();
        // objtool, which goes over each object of a kernel for x86, reads them with it.
        if in_path("gcc").is_some() && !has_header("gelf.h") {
            missing.push(("gelf.h", "libelf-dev"));
        }
        if !missing.is_empty() {
            let mut packages: Vec<_> =
                missing.iter().map(|(_, package)| package.to_string()).collect();
            packages.dedup();
            let what = missing.iter().map(|(what, _)| what.to_string()).collect();
            return Err(Error::MissingTools { what, packages });
        }
        let compiler = format!("{}; {}", version("gcc"), version("ld"));
        Ok(Tools { compiler, ccache: in_path("ccache").is_some() })
    }
}

pub(crate) fn in_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// The first line of what a program says of its version.
fn version(program: &str) -> String {
    let output = Command::new(program).arg("--version").env("LC_ALL", "C").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.unwrap_or_default().lines().next().unwrap_or("unknown").to_owned()
}

fn has_header(name: &str) -> bool {
    let check = format!("__has_include(<{name}>)");
    let program = format!("#if !{check}\n#error missing\n#endif\n");
    let mut gcc = Command::new("gcc");
    gcc.args(["-E", "-x", "c", "-", "-o", "/dev/null"]);
    let child = gcc.stdin(Stdio::piped()).stderr(Stdio::null()).spawn();
    child.is_ok_and(|mut child| {
        let written = child.stdin.take().is_some_and(|mut pipe| {
            std::io::Write::write_all(&mut pipe, program.as_bytes()).is_ok()
        });
        child.wait().is_ok_and(|status| status.success()) && written
    })
}
