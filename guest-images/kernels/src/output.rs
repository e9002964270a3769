//! What a kernel's build says: how far it is, its first error, and whether that is the host's.

/// Signs that the host broke the build, whatever else is said.
const HOST: [&str; 12] = [
    "No space left on device",
    "Disk quota exceeded",
    "Read-only file system",
    "Input/output error",
    "Too many open files",
    "Cannot allocate memory",
    "virtual memory exhausted",
    "Killed signal terminated program",
    "internal compiler error: Killed",
    "internal compiler error: Segmentation fault",
    "fork: Resource temporarily unavailable",
    "fatal error: gelf.h",
];
/// Signs of a program that is missing, where no error explains more.
const MISSING: [&str; 2] = [": command not found", ": not found"];
/// Signs of an error in the source.
const ERRORS: [&str; 9] = [
    ": error: ",
    ": fatal error: ",
    ": Error: ",
    ": undefined reference to ",
    "multiple definition of ",
    ": syntax error",
    "error: objtool",
    "recursive dependency detected",
    ": can't open file ",
];
/// Signs of an error, without what it is.
const VAGUE: [&str; 4] = ["*** [", "*** No rule", "ERROR: ", "*** "];
/// Lines that belong to an error: the place in the source, and where in it.
const CONTEXT: usize = 2;
/// What is shown of a line.
const MAX_LINE: usize = 300;

/// What was learnt of the output so far.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// Files that were made.
    pub(crate) made: u32,
    host: Option<String>,
    missing: Option<String>,
    error: Option<Vec<String>>,
    vague: Option<String>,
    last: Option<String>,
}

impl Reading {
    /// Takes a line; tells whether a file was made.
    pub(crate) fn line(&mut self, line: &str) -> bool {
        if is_step(line) {
            self.made += 1;
            return true;
        }
        let line = shown(line);
        if line.trim().is_empty() {
            return false;
        }
        let has = |signs: &[&str]| signs.iter().any(|sign| line.contains(sign));
        if self.host.is_none() && has(&HOST) {
            self.host = Some(line.clone());
        }
        match &mut self.error {
            Some(lines) if lines.len() <= CONTEXT && line.starts_with(' ') => {
                lines.push(line.clone());
            }
            Some(_) => {}
            None if has(&ERRORS) => self.error = Some(vec![line.clone()]),
            None => {}
        }
        if self.vague.is_none() && has(&VAGUE) {
            self.vague = Some(line.clone());
        }
        if self.missing.is_none() && has(&MISSING) {
            self.missing = Some(line.clone());
        }
        self.last = Some(line);
        false
    }

    /// What the host did, where it was the host.
    pub(crate) fn host_fault(&self) -> Option<&str> {
        let missing = self.missing.as_ref().filter(|_| self.error.is_none());
        self.host.as_ref().or(missing).map(String::as_str)
    }

    /// The first error, with the lines that show its place.
    pub(crate) fn first_error(&self) -> String {
        let error = self.error.as_ref().map(|lines| lines.join("\n  "));
        error
            .or_else(|| self.vague.clone())
            .or_else(|| self.last.clone())
            .unwrap_or_else(|| "it says nothing".to_owned())
    }
}

/// Whether a line says that a file is made, as `  CC      init/main.o` does.
fn is_step(line: &str) -> bool {
    let Some(rest) = line.strip_prefix("  ") else { return false };
    let Some((what, file)) = rest.split_once(' ') else { return false };
    let is_word = what.len() >= 2
        && what.starts_with(|c: char| c.is_ascii_uppercase())
        && what
            .bytes()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || b"_-[]".contains(&c));
    is_word && !file.trim().is_empty()
}

/// A line without what would confuse a terminal.
fn shown(line: &str) -> String {
    let plain = line.chars().map(|c| if c.is_control() && c != '\t' { '?' } else { c });
    plain.take(MAX_LINE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Reading {
        let mut reading = Reading::default();
        for line in text.lines() {
            reading.line(line);
        }
        reading
    }

    const FAILED: &str = "  CC      drivers/iommu/iova.o
  HOSTCC  scripts/mod/sumversion.o
In file included from ../a.h:1:
../drivers/iommu/intel/iommu.c: In function 'f':
../drivers/iommu/intel/iommu.c:100:9: error: 'x' undeclared (first use in this function)
  100 |         x = 1;
      |         ^
../drivers/iommu/intel/iommu.c:101:9: error: 'y' undeclared
make[4]: *** [../scripts/Makefile.build:286: drivers/iommu/intel/iommu.o] Error 1
  CC      drivers/base/core.o
make: *** [Makefile:1810: drivers] Error 2
";

    #[test]
    fn the_first_error_is_the_compilers() {
        let reading = read(FAILED);
        assert_eq!(reading.made, 3);
        assert_eq!(reading.host_fault(), None);
        assert_eq!(
            reading.first_error(),
            "../drivers/iommu/intel/iommu.c:100:9: error: 'x' undeclared (first use in this function)\n\
             \x20   100 |         x = 1;\n\x20       |         ^"
        );
    }

    #[test]
    fn the_linkers_and_makes_own_count_too() {
        let text = "ld: drivers/a.o: in function `f':\na.c:(.text+0x1): undefined reference to `g'\n\
            make[1]: *** [Makefile:1: vmlinux] Error 1\n";
        assert!(read(text).first_error().contains("undefined reference to `g'"));
        let text = "make[1]: *** No rule to make target 'a.o'.  Stop.\nmake: *** [all] Error 2\n";
        assert!(read(text).first_error().contains("No rule to make target"));
        assert_eq!(read("").first_error(), "it says nothing");
    }

    #[test]
    fn the_host_is_told_from_the_source() {
        for text in [
            "{standard input}: Fatal error: can't write 9 bytes to section .text of a.o: 'No space left on device'",
            "gcc: fatal error: Killed signal terminated program cc1",
            "/bin/sh: 1: flex: not found\nmake[2]: *** [a] Error 127",
            "a.c:1:10: fatal error: gelf.h: No such file or directory",
        ] {
            assert!(read(text).host_fault().is_some(), "{text}");
        }
        // Many builds say so of what they can do without.
        let text = format!("/bin/sh: 1: pahole: not found\n{FAILED}");
        assert_eq!(read(&text).host_fault(), None);
    }

    #[test]
    fn steps_are_told_from_what_looks_like_them() {
        for step in [
            "  CC      a.o",
            "  LD [M]  a.ko",
            "  AR      built-in.a",
            "  MKCAP   x",
            "  SYSHDR  a.h",
        ] {
            assert!(is_step(step), "{step}");
        }
        for other in ["  100 | int x;", "      | ^", "  CC", "make: x", " CC a.o", "  note: words"]
        {
            assert!(!is_step(other), "{other}");
        }
    }
}
