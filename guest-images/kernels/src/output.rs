//! What a kernel's build says: how far it is, its first error, and whether that is the host's.

/// Signs that the host broke the build, whatever else is said.
const HOST: [&str; 21] = [
    "No space left on device",
    "Disk quota exceeded",
    "Read-only file system",
    "Input/output error",
    "Too many open files",
    "Cannot allocate memory",
    // Of the compiler's and the linker's own allocators.
    "memory exhausted",
    "out of memory allocating ",
    "std::bad_alloc",
    // Of gcc, whose cc1, as or ld was killed.
    "Killed signal terminated program",
    "Terminated signal terminated program",
    "terminated with signal 9",
    "terminated with signal 15",
    "internal compiler error: Killed",
    "internal compiler error: Terminated",
    "internal compiler error: Segmentation fault",
    "fork: Resource temporarily unavailable",
    // Headers and libraries of the programs that a build makes for itself.
    "fatal error: gelf.h",
    "fatal error: openssl/",
    "ld: cannot find -l",
    "ld.bfd: cannot find -l",
];
/// How make ends the line of a command that was killed, by itself or within a shell. Who kills for
/// lack of memory sends the one signal or the other.
const KILLED: [&str; 4] = ["Error 137", "Killed", "Error 143", "Terminated"];
/// Signs of a program that is missing, where no error explains more.
const MISSING: [&str; 2] = [": command not found", ": not found"];
/// Signs of an error in the source.
const ERRORS: [&str; 22] = [
    ": error: ",
    ": fatal error: ",
    ": Error: ",
    ": undefined reference to ",
    "multiple definition of ",
    "relocation truncated to fit",
    " overlaps section ",
    "image bigger than ",
    "Invalid absolute R_X86_64_",
    ": syntax error",
    ": Syntax error",
    "error: objtool",
    // The configuration's own language.
    "recursive dependency detected",
    "ecursive inclusion detected",
    ": can't open file ",
    ": unknown statement ",
    ": unknown option ",
    ": invalid statement",
    ": invalid option",
    ": missing end statement",
    ": unexpected end statement",
    "in different file than",
];
/// Signs of what may be an error, by programs that say more than make.
const LIKELY: [&str; 4] =
    ["ERROR: ", "FAILED: ", "FAILED unresolved symbol", "Inconsistent kallsyms data"];
/// What make says that is no error, but what it does about one.
const AFTERWARDS: [&str; 2] = ["*** Deleting ", "*** Waiting for "];
/// Lines that belong to an error: the place in the source, and where in it.
const CONTEXT: usize = 2;
/// What is shown of a line.
const MAX_LINE: usize = 300;

/// How much a line tells of what is wrong, the most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// An error, with what it is.
    Error,
    /// An error, by the look of it.
    Likely,
    /// A complaint of make's own, such as of a missing rule.
    Make,
    /// That a command failed, and no more.
    Vague,
}

/// What was learnt of the output so far.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// Files that were made.
    pub(crate) made: u32,
    host: Option<String>,
    missing: Option<String>,
    /// Of the lines that tell the most, the first, with those that belong to it.
    error: Option<(Rank, Vec<String>)>,
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
        if self.host.is_none() && (has(&HOST) || is_killed(&line)) {
            self.host = Some(line.clone());
        }
        let rank = rank(&line);
        match (&mut self.error, rank) {
            (Some((Rank::Error, lines)), _) if lines.len() <= CONTEXT && line.starts_with(' ') => {
                lines.push(line.clone());
            }
            (known, Some(rank)) if known.as_ref().is_none_or(|(known, _)| rank < *known) => {
                *known = Some((rank, vec![line.clone()]));
            }
            _ => {}
        }
        if self.missing.is_none() && has(&MISSING) {
            self.missing = Some(line.clone());
        }
        self.last = Some(line);
        false
    }

    /// What the host did, where it was the host.
    pub(crate) fn host_fault(&self) -> Option<&str> {
        let explained = self.error.as_ref().is_some_and(|(rank, _)| *rank <= Rank::Likely);
        let missing = self.missing.as_ref().filter(|_| !explained);
        self.host.as_ref().or(missing).map(String::as_str)
    }

    /// The first error, with the lines that show its place.
    pub(crate) fn first_error(&self) -> String {
        let error = self.error.as_ref().map(|(_, lines)| lines.join("\n  "));
        error.or_else(|| self.last.clone()).unwrap_or_else(|| "it printed nothing".to_owned())
    }
}

/// What a line tells of an error, if it is of one.
fn rank(line: &str) -> Option<Rank> {
    let has = |signs: &[&str]| signs.iter().any(|sign| line.contains(sign));
    if has(&ERRORS) {
        Some(Rank::Error)
    } else if has(&LIKELY) || is_linkers(line) {
        Some(Rank::Likely)
    } else if !line.contains("*** ") || has(&AFTERWARDS) {
        None
    } else {
        Some(if line.contains("*** [") { Rank::Vague } else { Rank::Make })
    }
}

/// Whether the linker says it and it is no warning, such as an ASSERT of the linker's script.
fn is_linkers(line: &str) -> bool {
    let Some((program, said)) = line.split_once(": ") else { return false };
    let program = program.strip_suffix(".bfd").unwrap_or(program);
    let is_ld = program == "ld" || program.ends_with("/ld") || program.ends_with("-ld");
    let harmless = ["warning: ", "NOTE: ", "skipping incompatible "];
    // Where an error is stands before it.
    let is_place = said.contains(": in function ") || said.ends_with(':');
    is_ld && !is_place && !harmless.iter().any(|sign| said.contains(sign))
}

/// Whether a line says that a program was killed, which none of the build's own does to another.
fn is_killed(line: &str) -> bool {
    let line = line.trim_end();
    // make: *** [Makefile:1: a.o] Error 137
    if line.contains("*** [") {
        return KILLED.iter().any(|end| line.strip_suffix(end).is_some_and(|l| l.ends_with("] ")));
    }
    // dash says no more than this.
    if line == "Killed" || line == "Terminated" {
        return true;
    }
    // bash: `link-vmlinux.sh: line 113: 12345 Killed                  ${LD} ...`
    let words: Vec<&str> = line.split_whitespace().collect();
    words.windows(3).any(|words| {
        let is_number = words[1].bytes().all(|c| c.is_ascii_digit());
        words[0].ends_with(':') && is_number && matches!(words[2], "Killed" | "Terminated")
    })
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
    fn reports_the_compilers_first_error() {
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
    fn reports_errors_of_the_linker_and_make() {
        let text = "ld: drivers/a.o: in function `f':\na.c:(.text+0x1): undefined reference to `g'\n\
            make[1]: *** [Makefile:1: vmlinux] Error 1\n";
        assert!(read(text).first_error().contains("undefined reference to `g'"));
        let text = "make[1]: *** No rule to make target 'a.o'.  Stop.\nmake: *** [all] Error 2\n";
        assert!(read(text).first_error().contains("No rule to make target"));
        assert_eq!(read("").first_error(), "it printed nothing");
    }

    #[track_caller]
    fn check_first(text: &str, expected: &str) {
        let reading = read(text);
        assert_eq!(reading.host_fault(), None);
        assert!(reading.first_error().starts_with(expected), "{}", reading.first_error());
    }

    #[test]
    fn prefers_the_cause_to_makes_own_line() {
        let late = "make[1]: *** [../Makefile:1171: vmlinux] Error 1\n\
            make[1]: *** Deleting file 'vmlinux'\nmake: *** [Makefile:185: __sub-make] Error 2\n";
        let init = "init/main.o: in function `start_kernel':";
        let truncated = "main.c:(.init.text+0x1f): relocation truncated to fit: R_X86_64_PC32 \
            against symbol `jiffies' defined in .data section in vmlinux.o";
        check_first(&format!("ld: {init}\n{truncated}\n{late}"), truncated);
        for error in [
            "ld: section .init.data LMA [0000000001a00000,0000000001a3ffff] overlaps section \
             .data LMA [0000000001900000,0000000001a00fff]",
            "ld: kernel image bigger than KERNEL_IMAGE_SIZE",
            "x86_64-linux-gnu-ld: per-CPU data too large - reduce CONFIG_PHYSICAL_START",
            "/usr/bin/ld.bfd: drivers/iommu/iova.o: file not recognized: file format not recognized",
            "ERROR: modpost: \"iova_magazine\" [drivers/iommu/iova.ko] undefined!",
            "drivers/iommu/Kconfig:12: unknown statement \"confg\"",
            "drivers/iommu/Kconfig:12: syntax error",
            "drivers/iommu/Kconfig:9: missing end statement for this entry",
            "../scripts/Makefile.build:44: *** missing separator.  Stop.",
        ] {
            check_first(&format!("{error}\n{late}"), error);
            // With several jobs make may be first.
            check_first(&format!("{late}{error}\n"), error);
        }
        let harmless = "ld: warning: a.o: missing .note.GNU-stack section implies executable stack\n\
            ld: NOTE: This behaviour is deprecated and will be removed\n";
        check_first(&format!("{harmless}{late}"), "make[1]: *** [../Makefile:1171");
        // What is certain is told before what only looks like an error.
        let last = "ld: final link failed: bad value\n";
        check_first(&format!("{last}{truncated}\n"), truncated);
    }

    #[test]
    fn blames_the_host_for_killed_processes() {
        for text in [
            // cc1, by gcc's word.
            "gcc: fatal error: Killed signal terminated program cc1\ncompilation terminated.\n\
             make[3]: *** [../scripts/Makefile.build:286: mm/slub.o] Error 1\n",
            // As earlyoom does it at first.
            "gcc: fatal error: Terminated signal terminated program cc1\n",
            "collect2: fatal error: ld terminated with signal 9 [Killed]\ncompilation terminated.\n",
            // gcc itself, objtool or ld, in a shell of make's: dash says the first line or nothing.
            "Killed\nmake[3]: *** [../scripts/Makefile.build:286: mm/slub.o] Error 137\n",
            "make[3]: *** [../scripts/Makefile.build:286: mm/slub.o] Error 137\n\
             make[3]: *** Deleting file 'mm/slub.o'\n",
            "make[1]: *** [../Makefile:1171: vmlinux] Killed\n",
            "make[3]: *** [../scripts/Makefile.build:286: mm/slub.o] Error 143\n",
            "../scripts/link-vmlinux.sh: line 113: 12345 Killed                  ${ld} ${ldflags}\n\
             make[1]: *** [../Makefile:1171: vmlinux] Error 1\n",
            "/bin/bash: line 1: 12345 Killed                  ./tools/objtool/objtool orc generate x.o\n",
            "cc1: out of memory allocating 65536 bytes after a total of 135168 bytes\n",
            "ld: final link failed: memory exhausted\n",
            "ld: cannot find -lelf: No such file or directory\n",
        ] {
            // An error of the source beside it may be one more consequence.
            let both = format!("{FAILED}{text}");
            assert!(read(text).host_fault().is_some(), "{text}");
            assert!(read(&both).host_fault().is_some(), "{both}");
        }
    }

    #[test]
    fn ignores_text_that_mentions_killing() {
        for text in [
            "../mm/oom_kill.c:137:9: error: 'Killed' undeclared (first use in this function)\n  \
             137 |         pr_err(\"Killed\");\n",
            "make[3]: *** [../scripts/Makefile.build:286: mm/Killed] Error 1\n",
            "make[3]: [../Makefile:1: x] Error 137 (ignored)\n",
            "make[3]: *** [../Makefile:1: x] Error 1371\n",
        ] {
            assert_eq!(read(text).host_fault(), None, "{text}");
        }
    }

    #[test]
    fn distinguishes_host_faults_from_source_faults() {
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
    fn distinguishes_steps_from_similar_lines() {
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
