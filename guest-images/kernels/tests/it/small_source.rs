//! A source that builds in a moment by the real make and the real compiler.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use dmarig_images::{Cache, Progress, Unit};
use dmarig_kernels::{Builder, Built, Edit, Edits, Error, Fragment, Source, Spec};

/// What the real one does in ten thousand lines: takes the options that its Kconfig knows, and makes
/// an image of every .c file. `slow` takes until somebody ends it.
const MAKEFILE: &str = r#"
SRC := $(CURDIR)
allnoconfig:
	@grep -v -e MISSING -e '^CONFIG_LOST' $(KCONFIG_ALLCONFIG) > $(O)/.config
	@mkdir -p $(O)/include/config
	@echo 9.9.9-small > $(O)/include/config/kernel.release
OBJECTS := $(patsubst $(SRC)/%.c,$(O)/%.o,$(wildcard $(SRC)/*.c))
vmlinux: $(O)/vmlinux
$(O)/vmlinux: $(OBJECTS)
	@echo '  LD      vmlinux'
	@ld -e start -o $@ $(OBJECTS)
$(O)/%.o: $(SRC)/%.c
	@echo '  CC      $*.o'
	@$(CC) -O1 -ffreestanding -fno-pic -fno-stack-protector -c -o $@ $<
"#;

/// The PVH note, and the banner that tells the release.
const KERNEL: &str = r#"
asm(".pushsection .note.Xen,\"a\",@note\n.align 4\n.long 4, 4, 18\n.asciz \"Xen\"\n.long 0x100000\n.popsection");
__attribute__((used)) const char banner[] = "Linux version 9.9.9-small (a@b)";
int a(void);
void start(void) { a(); }
"#;

const KCONFIG: &str = "config OUTER\n\tbool\nconfig MISSING\n\tbool \"m\"\n\tdepends on OUTER\n";

/// A place with a source and a cache.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) cache: Cache,
}

/// Remembers the progress of a build.
#[derive(Default)]
pub(crate) struct ProgressLog {
    pub(crate) made: Cell<u64>,
    /// The total of the step `compile`.
    pub(crate) total: Cell<Option<u64>>,
    pub(crate) messages: RefCell<Vec<String>>,
    /// Names of the steps that began, and how many have ended.
    pub(crate) steps: RefCell<Vec<String>>,
    pub(crate) ended: Cell<usize>,
    /// Whether to stop once something was made.
    pub(crate) stop: bool,
}

impl Progress for ProgressLog {
    fn begin(&self, step: &str, unit: Unit, total: Option<u64>) {
        assert_eq!(unit, Unit::Files);
        self.steps.borrow_mut().push(step.to_owned());
        self.made.set(0);
        if step == "compile" {
            self.total.set(total);
        }
    }
    fn advance(&self, amount: u64) {
        self.made.set(self.made.get() + amount);
    }
    fn end(&self) {
        self.ended.set(self.ended.get() + 1);
    }
    fn message(&self, text: &str) {
        self.messages.borrow_mut().push(text.to_owned());
    }
    fn is_cancelled(&self) -> bool {
        self.stop && self.made.get() > 0
    }
}

impl Place {
    pub(crate) fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(&dir.path().join("cache"))).unwrap();
        let place = Place { dir, cache };
        fs::create_dir(place.source()).unwrap();
        place.write("Makefile", MAKEFILE);
        place.write("Kconfig", KCONFIG);
        place.write("kernel.c", KERNEL);
        place.write("a.c", "int a(void) { return 1; }\n");
        place
    }

    pub(crate) fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    /// Writes a file of the source, as its user does.
    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.source().join(name), text).unwrap();
    }

    pub(crate) fn git(&self, words: &[&str]) -> String {
        let output = Command::new("git")
            .arg("-C")
            .arg(self.source())
            .args(["-c", "user.name=a", "-c", "user.email=a@b.test", "-c", "commit.gpgsign=false"])
            .args(words)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .unwrap();
        assert!(output.status.success(), "git {words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Commits everything, and gives the commit.
    pub(crate) fn commit(&self) -> String {
        if !self.source().join(".git").exists() {
            self.git(&["init", "--quiet"]);
        }
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", "c"]);
        self.git(&["rev-parse", "HEAD"])
    }

    pub(crate) fn spec(&self, rev: Option<&str>) -> Spec {
        Spec::new(Source::Tree { dir: self.source(), rev: rev.map(str::to_owned) })
    }

    pub(crate) fn build(&self, spec: &Spec) -> Result<Built, Error> {
        self.build_logged(spec, &ProgressLog::default())
    }

    pub(crate) fn build_logged(&self, spec: &Spec, log: &ProgressLog) -> Result<Built, Error> {
        Builder::new(&self.cache).with_jobs(1).build(spec, log)
    }
}

/// A spec with an edit of a file.
pub(crate) fn edited(spec: &Spec, name: &str, file: &str, find: &str, replace: &str) -> Spec {
    let edit = Edit { file: file.into(), find: find.into(), replace: replace.into() };
    let mut spec = spec.clone();
    spec.edits.push(Edits { name: name.into(), edits: vec![edit] });
    spec
}

pub(crate) fn configured(spec: &Spec, text: &str) -> Spec {
    let mut spec = spec.clone();
    spec.config.push(Fragment { path: "mine.config".into(), text: text.into() });
    spec
}

/// Every file below a directory with its content and time, but for those of git's own that say when
/// something was looked at.
pub(crate) fn snapshot(dir: &Path) -> Vec<(PathBuf, Vec<u8>, std::time::SystemTime)> {
    let mut files: Vec<_> = walkdir::WalkDir::new(dir)
        .into_iter()
        .map(Result::unwrap)
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| {
            let modified = entry.metadata().unwrap().modified().unwrap();
            (entry.path().to_owned(), fs::read(entry.path()).unwrap(), modified)
        })
        .collect();
    files.sort();
    files
}
