//! Builds that are killed: what they were writing is never believed by the next one.

use std::{fs, fs::File, io::Read as _};

use dmarig_fake_qemu::QemuScript;
use rustix::{
    fs::{CWD, Mode, mknodat},
    process::{Pid, Signal, kill_process_group},
};

use crate::place::{EM_X86_64, Place, vmlinux};

/// Objects of the source below; a build is killed while each of them is written.
const OBJECTS: usize = 6;

/// The cell whose plan tells of the image.
const CELL: &str = "smoke/caching-mode=on,policy=lazy";

/// A kernel's makefile, as far as a build needs it: an object is its source, of which it writes one half,
/// tells of it, and writes the other. What is linked was looked at: half an object breaks the build.
const MAKEFILE: &str = "\
SRC := $(CURDIR)
OBJECTS := $(patsubst $(SRC)/%.c,$(O)/%.o,$(sort $(wildcard $(SRC)/*.c)))
allnoconfig:
\t@cp $(KCONFIG_ALLCONFIG) $(O)/.config
\t@mkdir -p $(O)/include/config
\t@echo 6.1.0-fake > $(O)/include/config/kernel.release
vmlinux: $(O)/vmlinux
$(O)/vmlinux: $(OBJECTS) $(SRC)/image
\t@echo '  LD      vmlinux'
\t@for object in $(OBJECTS); do \\
\t\tcmp $$object $(SRC)/$$(basename $$object .o).c || { echo \"$$object:1:1: error: half\" >&2; exit 1; }; \\
\tdone
\t@cat $(SRC)/image $(OBJECTS) > $@
$(O)/%.o: $(SRC)/%.c
\t@echo '  CC      $*.o'
\t@head -c 100 $< > $@; test ! -p $(NOTES)-$* || echo $$PPID > $(NOTES)-$*; tail -c +101 $< >> $@
";

/// The source of the objects, all of them another one in each round.
fn write(place: &Place, round: usize) {
    for object in 0..OBJECTS {
        let text = format!("// object {object} of round {round}{:200}// end\n", "");
        place.file(&format!("source/o{object}.c"), text);
    }
}

#[test]
fn rebuilds_objects_cut_short_by_kill() {
    let place = Place::new();
    let notes = place.path("notes");
    place.file("source/Makefile", MAKEFILE.replace("$(NOTES)", notes.to_str().unwrap()));
    place.file("source/Kconfig", "");
    place.file("source/image", vmlinux(EM_X86_64));
    let tree = place.path("source").display().to_string();
    let words = ["kernel", "build", "--tree", &tree, "--name", "mine", "--jobs", "1"];
    for round in 0..2 * OBJECTS {
        write(&place, round);
        // One for each object: of one for all, a reader could be given two notes at once.
        let notes: Vec<_> =
            (0..OBJECTS).map(|object| place.path(&format!("notes-o{object}"))).collect();
        for note in &notes {
            mknodat(CWD, note, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        }
        let build = place.start(place.dmarig(&words));
        let mut make = 0;
        for note in &notes[..=round / 2] {
            let mut text = String::new();
            // Ends with the writer, who waits for a reader: an object is half there.
            File::open(note).unwrap().read_to_string(&mut text).unwrap();
            make = text.trim().parse().unwrap();
        }
        build.signal(Signal::KILL);
        if round % 2 == 1 {
            // Make can't clean up either.
            let _ = kill_process_group(Pid::from_raw(make).unwrap(), Signal::KILL);
        }
        assert_eq!(build.wait().code, None);
        // Whoever would open one finds none.
        notes.iter().for_each(|note| fs::remove_file(note).unwrap());
        let again = place.run(&words);
        again.exits(0);
        let ours = format!("of round {round} ");
        assert_eq!(image(&place).matches(&ours).count(), OBJECTS, "{again:?}");
    }
}

/// What is in the image that the name stands for now.
fn image(place: &Place) -> String {
    let qemu = place.qemu(QemuScript::Passes);
    let plan = place.run(&["plan", CELL, "--kernel", "mine", "--qemu", &qemu]);
    let path = plan.stdout.split_whitespace().skip_while(|word| *word != "-kernel").nth(1);
    let bytes = fs::read(path.unwrap_or_else(|| panic!("{plan:?}"))).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn rejects_invalid_options_before_fetching() {
    let place = Place::new();
    let rejected = [
        &["kernel", "build", "linux-6.12", "--name", "a/b"][..],
        &["kernel", "build", "linux-6.12", "--name", "debian-6.1"],
        &["prove", "--case", "nope"],
        &["prove", "--qemu", "nope"],
    ];
    // The whole output: no build was begun.
    insta::assert_snapshot!(place.run_all(2, &rejected));
}
