use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::SystemTime,
};

/// All programs of this package.
const PROGRAMS: [&str; 5] =
    ["fake-probe", "fake-qemu", "hand-over", "hold-device", "relayed-probe"];

/// The path of a program of this package.
///
/// Cargo names a package's programs only to tests of the same package, so this looks in the directory that the
/// test itself was built in. Where a program is missing there, or older than its source, cargo builds it once.
///
/// # Panics
/// If this package has no program of that name, or if cargo fails to build it.
pub fn program(name: &str) -> PathBuf {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    assert!(PROGRAMS.contains(&name), "dmarig-fake-qemu has no program {name}");
    DIRECTORY.get_or_init(up_to_date_directory).join(name)
}

/// The directory of the programs, all of which are built and as new as their source.
fn up_to_date_directory() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let directory = output_directory(&test);
    if PROGRAMS.iter().all(|name| is_up_to_date(&directory.join(name))) {
        return directory.to_owned();
    }
    // Tests that run at the same time wait for the one that builds.
    let lock_path = directory.join(".fake-qemu.lock");
    let lock = File::create(&lock_path)
        .unwrap_or_else(|error| panic!("can't make {}: {error}", lock_path.display()));
    lock.lock().unwrap_or_else(|error| panic!("can't lock {}: {error}", lock_path.display()));
    if !PROGRAMS.iter().all(|name| is_up_to_date(&directory.join(name))) {
        build(directory);
    }
    directory.to_owned()
}

/// The directory that cargo puts programs into, of a test that it has put below.
fn output_directory(test: &Path) -> &Path {
    let directory = test.parent().expect("a test is in a directory");
    match directory.file_name() {
        Some(name) if name == "deps" || name == "examples" => {
            directory.parent().expect("cargo puts no test into the root directory")
        }
        _ => directory,
    }
}

/// Whether a program is there and as new as each file that cargo has built it from. `cargo build` lists them in
/// a makefile next to the program: its own and those of all packages of the workspace that it depends on. `cargo
/// test` builds programs without that list, so that nothing is known about them.
fn is_up_to_date(program: &Path) -> bool {
    let makefile = fs::read_to_string(program.with_extension("d"));
    match (modified(program), makefile) {
        (Some(built), Ok(makefile)) => {
            sources(&makefile).all(|path| modified(&path).is_some_and(|time| time <= built))
        }
        _ => false,
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

/// The files after the colon of a makefile's only rule. A backslash stands before a blank in a name.
fn sources(makefile: &str) -> impl Iterator<Item = PathBuf> {
    let (_, names) = makefile.split_once(": ").unwrap_or_default();
    let names = names.replace("\\ ", "\0");
    let paths: Vec<_> =
        names.split_whitespace().map(|name| PathBuf::from(name.replace('\0', " "))).collect();
    paths.into_iter()
}

/// Has cargo build the programs into a directory.
///
/// The package of the running test is built as well: with its features, dependencies that both have in common are
/// already there.
fn build(directory: &Path) {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target = directory.parent().expect("cargo puts no program into the root directory");
    let profile = match directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let mut command = Command::new(cargo);
    command.args(["build", "--locked", "--bins", "--tests", "--profile", profile]);
    command.args(["--package", env!("CARGO_PKG_NAME"), "--manifest-path", manifest]);
    command.arg("--target-dir").arg(target);
    if let Some(package) = std::env::var_os("CARGO_PKG_NAME") {
        command.arg("--package").arg(package);
    }
    let output =
        command.output().unwrap_or_else(|error| panic!("can't run {command:?}: {error}; {ADVICE}"));
    let built =
        output.status.success() && PROGRAMS.iter().all(|name| directory.join(name).exists());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(built, "{command:?} made no programs in {}: {ADVICE}\n{stderr}", directory.display());
}

const ADVICE: &str =
    "build them by `cargo build -p dmarig-fake-qemu --bins`, with the options of the tests";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn finds_the_directory_above_that_of_tests() {
        for test in ["/target/debug/deps/it-0123", "/target/debug/examples/e", "/target/debug/bin"]
        {
            assert_eq!(output_directory(test.as_ref()), Path::new("/target/debug"), "{test}");
        }
    }

    #[test]
    fn reads_names_with_blanks() {
        let sources: Vec<_> = sources("/a/b: /a/one\\ two.rs /a/three.rs\n").collect();
        assert_eq!(sources, ["/a/one two.rs", "/a/three.rs"].map(PathBuf::from));
    }

    #[test]
    fn notices_a_program_that_is_older_than_its_source() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let write = |name: &str, text: &str, age: u64| {
            let time = SystemTime::now() - Duration::from_secs(age);
            fs::write(path(name), text).unwrap();
            File::options().write(true).open(path(name)).unwrap().set_modified(time).unwrap();
        };
        let program = path("program");
        assert!(!is_up_to_date(&program));
        write("source.rs", "", 30);
        write("program", "", 20);
        assert!(!is_up_to_date(&program), "without a list of sources");
        write("program.d", &format!("program: {}\n", path("source.rs").display()), 20);
        assert!(is_up_to_date(&program));
        write("source.rs", "changed", 10);
        assert!(!is_up_to_date(&program));
        fs::remove_file(path("source.rs")).unwrap();
        assert!(!is_up_to_date(&program));
    }
}
