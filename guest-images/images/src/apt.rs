//! A private apt root: apt verifies signatures and downloads, without the system's configuration,
//! without its state, and without privilege.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, SystemTime};

use dmarig_digest::sha256_hex;

use crate::progress::{Progress, step};
use crate::store::ScratchDir;
use crate::{Cache, Error, Recipe, Result, deb822, store};

/// How long an index is taken as current.
const FRESH: Duration = Duration::from_secs(6 * 3600);
/// How often a download is looked at.
const POLL: Duration = Duration::from_millis(100);
/// How much of apt's output an error shows.
const OUTPUT_LINES: usize = 12;

/// A package as the signed index has it.
#[derive(Clone, Debug)]
pub(crate) struct IndexEntry {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) depends: String,
    pub(crate) size: u64,
    pub(crate) sha256: String,
}

/// Fails on a host without apt.
pub(crate) fn require() -> Result<()> {
    let missing = ["apt-get", "apt-cache", "apt-config"].into_iter().find(|p| in_path(p).is_none());
    missing.map_or(Ok(()), |program| Err(Error::NoApt { program: program.to_owned() }))
}

/// A suite, and the mirror that has it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AptSource<'a> {
    pub(crate) mirror: String,
    pub(crate) suite: &'a str,
}

/// An apt root for the suites that one recipe takes packages from.
pub(crate) struct AptRoot<'a> {
    dir: PathBuf,
    suite: &'a str,
    keyring: &'a Path,
    has_base: bool,
    work: ScratchDir,
}

impl<'a> AptRoot<'a> {
    /// Prepares the root's configuration.
    pub(crate) fn open(
        cache: &Cache,
        recipe: &'a Recipe,
        sources: &[AptSource<'_>],
    ) -> Result<AptRoot<'a>> {
        let keyring = &recipe.keyring;
        if !keyring.exists() {
            return Err(Error::NoKeyring { path: keyring.clone() });
        }
        let signed_by = keyring.display();
        let lines: String = sources
            .iter()
            .map(|AptSource { mirror, suite }| {
                format!("deb [arch=amd64 signed-by={signed_by}] {mirror} {suite} main\n")
            })
            .collect();
        let key = &sha256_hex(lines.as_bytes())[..12];
        let dir = cache.dir().join("apt").join(format!("{}-{key}", recipe.suite));
        for part in ["etc/parts", "state/lists/partial", "archives/partial"] {
            store::create_dir(&dir.join(part))?;
        }
        let conf = configuration(&dir)?;
        let files = [("status", ""), ("etc/sources.list", &lines), ("apt.conf", &conf)];
        for (name, text) in files {
            // apt parses the index again when one of these is newer, which takes a second.
            if fs::read_to_string(dir.join(name)).ok().as_deref() != Some(text) {
                cache.scratch.write(&dir.join(name), text.as_bytes())?;
            }
        }
        let (suite, has_base) = (recipe.suite.as_str(), recipe.base.is_some());
        Ok(AptRoot { dir, suite, keyring, has_base, work: cache.scratch.dir()? })
    }

    /// Fetches the suite's index, unless there is one that isn't old.
    pub(crate) fn update(&self, refresh: bool, progress: &dyn Progress) -> Result<()> {
        let done = self.dir.join("updated");
        let age = fs::metadata(&done).and_then(|meta| meta.modified()).ok();
        if !refresh && age.and_then(|t| t.elapsed().ok()).is_some_and(|age| age < FRESH) {
            return Ok(());
        }
        let what = format!("index of {}", self.suite);
        // apt takes a missing network for a warning, as long as it has an old index.
        let args = ["update", "-q", "-o", "APT::Update::Error-Mode=any"];
        step(progress, &what, None, || self.run("apt-get", &args, |_| ()))?;
        fs::write(&done, "").map_err(|e| Error::io("write", &done, e))
    }

    /// When the index was fetched last.
    pub(crate) fn updated(&self) -> Option<SystemTime> {
        fs::metadata(self.dir.join("updated")).and_then(|meta| meta.modified()).ok()
    }

    /// The newest version of a package, or `None` when the suite has none.
    pub(crate) fn show(&self, package: &str) -> Result<Option<IndexEntry>> {
        let args = ["show", "--no-all-versions", package];
        let text = match self.run("apt-cache", &args, |_| ()) {
            Err(Error::Apt { output, .. }) if output.contains("No packages found") => {
                return Ok(None);
            }
            result => result?,
        };
        Ok(paragraphs(&text).next().and_then(|lines| listed(&lines)))
    }

    /// A package and everything that it depends on, in the versions that apt would install on a
    /// system that has nothing; `None` when the suite has no such package.
    pub(crate) fn with_dependencies(&self, package: &str) -> Result<Option<Vec<IndexEntry>>> {
        let mut args = vec!["install", "--simulate", "-q", "--no-install-recommends", package];
        if self.has_base {
            // apt would take from backports only what the base has not at all.
            args.extend(["-t", self.suite]);
        }
        let text = match self.run("apt-get", &args, |_| ()) {
            Err(Error::Apt { output, .. }) if output.contains("Unable to locate package") => {
                return Ok(None);
            }
            result => result?,
        };
        let wanted: Vec<_> = text.lines().filter_map(installed).collect();
        let names: Vec<_> =
            wanted.iter().map(|(name, version)| format!("{name}={version}")).collect();
        let mut args = vec!["show", "--no-all-versions"];
        args.extend(names.iter().map(String::as_str));
        let text = self.run("apt-cache", &args, |_| ())?;
        let shown: Vec<_> = paragraphs(&text).filter_map(|lines| listed(&lines)).collect();
        let find = |(name, version): &(&str, &str)| {
            let same = |listed: &&IndexEntry| listed.name == *name && listed.version == *version;
            shown.iter().find(same).cloned().ok_or_else(|| Error::Apt {
                command: "apt-cache show".to_owned(),
                status: "no such package in its answer".to_owned(),
                suite: self.suite.to_owned(),
                output: format!("{name}={version}"),
            })
        };
        wanted.iter().map(find).collect::<Result<_>>().map(Some)
    }

    /// Downloads packages into a directory that lives as long as this; `what` is shown meanwhile.
    pub(crate) fn download(
        &self,
        what: &str,
        packages: &[IndexEntry],
        progress: &dyn Progress,
    ) -> Result<&Path> {
        let names: Vec<_> = packages.iter().map(|p| format!("{}={}", p.name, p.version)).collect();
        let archives = format!("Dir::Cache::archives={}", self.work.path().display());
        let mut args = vec!["download", "-q", "-o", &archives];
        args.extend(names.iter().map(String::as_str));
        let total = packages.iter().map(|p| p.size).sum();
        let mut seen = 0;
        step(progress, what, Some(total), || {
            self.run("apt-get", &args, |dir| {
                let size = downloaded(dir).min(total);
                progress.advance(size.saturating_sub(seen));
                seen = seen.max(size);
            })?;
            progress.advance(total - seen);
            Ok(self.work.path())
        })
    }

    /// Runs a program of apt to its end and returns its output; `poll` is called meanwhile.
    fn run(&self, program: &str, args: &[&str], mut poll: impl FnMut(&Path)) -> Result<String> {
        let (out, err) = (self.work.path().join("stdout"), self.work.path().join("stderr"));
        let create = |path: &Path| File::create(path).map_err(|e| Error::io("write", path, e));
        let mut child = self
            .command(program, args)
            .stdin(Stdio::null())
            .stdout(create(&out)?)
            .stderr(create(&err)?)
            .spawn()
            .map_err(|e| Error::io("run", Path::new(program), e))?;
        let status = wait(&mut child, || poll(self.work.path()))
            .map_err(|e| Error::io("wait for", Path::new(program), e))?;
        let read = |path: &Path| fs::read(path).map_err(|e| Error::io("read", path, e));
        let text = String::from_utf8_lossy(&read(&out)?).into_owned();
        let complaints = String::from_utf8_lossy(&read(&err)?).into_owned();
        // apt before 2.1 knows no Error-Mode.
        let ignored = args[0] == "update" && complaints.contains("Failed to fetch");
        if status.success() && !ignored {
            return Ok(text);
        }
        if complaints.contains("No space left on device") {
            return Err(Error::DiskFull { path: self.work.path().to_owned() });
        }
        if ["NO_PUBKEY", "is not signed", "GPG error"].iter().any(|t| complaints.contains(t)) {
            let (suite, keyring) = (self.suite.to_owned(), self.keyring.to_owned());
            return Err(Error::BadSignature { suite, keyring, output: last_lines(&complaints) });
        }
        Err(Error::Apt {
            command: format!("{program} {}", args.join(" ")),
            status: status.to_string(),
            suite: self.suite.to_owned(),
            output: last_lines(&complaints),
        })
    }

    /// apt must not outlive this process, or it would go on writing into a directory that was
    /// swept. setpriv is on each Debian and Ubuntu; without it only a kill -9 lets apt live on.
    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = match in_path("setpriv") {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL", "--", program]);
                command
            }
            None => Command::new(program),
        };
        command
            .args(args)
            .current_dir(self.work.path())
            .env("APT_CONFIG", self.dir.join("apt.conf"))
            .env("LC_ALL", "C");
        command
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(OUTPUT_LINES)..].join("\n")
}

fn wait(child: &mut Child, mut poll: impl FnMut()) -> io::Result<ExitStatus> {
    // Short programs are soon done; later the interval is that of a progress bar.
    let mut interval = Duration::from_millis(5);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(interval);
        interval = (interval * 2).min(POLL);
        poll();
    }
}

/// The bytes of packages that are there, whole or in part.
fn downloaded(dir: &Path) -> u64 {
    let files = walkdir::WalkDir::new(dir).into_iter().flatten();
    let debs = files.filter(|f| f.file_name().to_string_lossy().contains(".deb"));
    debs.filter_map(|f| f.metadata().ok()).filter(fs::Metadata::is_file).map(|m| m.len()).sum()
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// The configuration of a root in `dir`. apt reads `$APT_CONFIG` first and then the files that it
/// names, so nothing of /etc/apt is read.
fn configuration(dir: &Path) -> Result<String> {
    let root = dir.display().to_string();
    if root.contains(['"', '\n', '\\']) {
        let reason = "apt can't work below a path with quotes or backslashes in it";
        return Err(Error::io("use", dir, io::Error::other(reason)));
    }
    // Without root there is nothing to drop privileges from, and with root the sandbox's user
    // can't enter a cache in a home directory.
    Ok(format!(
        "Dir \"{root}\";\n\
         Dir::Etc \"{root}/etc\";\n\
         Dir::Etc::main \"/dev/null\";\n\
         Dir::Etc::parts \"{root}/etc/parts\";\n\
         Dir::Etc::sourcelist \"{root}/etc/sources.list\";\n\
         Dir::Etc::sourceparts \"/dev/null\";\n\
         Dir::Etc::preferences \"/dev/null\";\n\
         Dir::Etc::preferencesparts \"{root}/etc/parts\";\n\
         Dir::Etc::trusted \"/dev/null\";\n\
         Dir::Etc::trustedparts \"{root}/etc/parts\";\n\
         Dir::State \"{root}/state\";\n\
         Dir::State::status \"{root}/status\";\n\
         Dir::Cache \"{root}\";\n\
         Dir::Cache::archives \"archives\";\n\
         Dir::Cache::srcpkgcache \"\";\n\
         Acquire::GzipIndexes \"true\";\n\
         APT::Architecture \"amd64\";\n\
         APT::Architectures {{ \"amd64\"; }};\n\
         APT::Sandbox::User \"root\";\n\
         Acquire::Languages \"none\";\n\
         {}",
        transport(&system_settings())
    ))
}

/// What the host's own apt is set to.
fn system_settings() -> String {
    let output = Command::new("apt-config").arg("dump").env_remove("APT_CONFIG").output();
    output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default()
}

/// Of a dump of apt's settings those that say how to reach a mirror (proxies, certificates), and
/// whether its age is checked, as it can't be for a snapshot.
fn transport(dump: &str) -> String {
    const KEPT: [&str; 6] = [
        "acquire::http::",
        "acquire::https::",
        "acquire::force",
        "acquire::check-valid-until",
        "acquire::check-date",
        "acquire::retries",
    ];
    let kept = dump.lines().filter(|line| {
        let line = line.to_lowercase();
        KEPT.iter().any(|start| line.starts_with(start)) && !line.ends_with(" \"\";")
    });
    let defaults = ["Acquire::Retries \"2\";", "Acquire::http::Timeout \"30\";"];
    defaults.into_iter().chain(kept).map(|line| format!("{line}\n")).collect()
}

/// What apt shows of several packages, with empty lines between them.
fn paragraphs(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines: Vec<_> = text.lines().collect();
    let paragraphs: Vec<_> =
        lines.split(|line| line.trim().is_empty()).map(<[_]>::to_vec).collect();
    paragraphs.into_iter().filter(|lines| !lines.is_empty())
}

/// Name and version from a line of a simulation, `Inst libc6 (2.41-12 Debian:13.5/stable [amd64])`.
fn installed(line: &str) -> Option<(&str, &str)> {
    let mut words = line.strip_prefix("Inst ")?.split_whitespace();
    // A foreign architecture would be behind a colon.
    let name = words.next()?.split(':').next()?;
    Some((name, words.find_map(|word| word.strip_prefix('('))?))
}

fn listed(lines: &[&str]) -> Option<IndexEntry> {
    let field = |key| deb822::field(lines, key);
    let (name, version) = (field("Package")?, field("Version")?);
    Some(IndexEntry {
        depends: field("Depends").unwrap_or_default(),
        size: field("Size")?.parse().ok()?,
        sha256: field("SHA256")?,
        name,
        version,
    })
}

/// Whether a file's name is that of a package.
pub(crate) fn is_deb(path: &Path) -> bool {
    path.extension() == Some(OsStr::new("deb"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_only_transport_settings() {
        let dump = "Acquire \"\";\nAcquire::http \"\";\nAcquire::http::Proxy \"http://p.test:3128\";\n\
            Acquire::https::Proxy::m.test \"DIRECT\";\nAcquire::Languages:: \"fr\";\n\
            Acquire::Check-Valid-Until \"false\";\nDir::Etc \"etc/apt\";\nAcquire::http::User \"\";\n";
        let kept = transport(dump);
        assert!(kept.contains("http::Proxy \"http://p.test:3128\";\n"));
        assert!(kept.contains("m.test \"DIRECT\";\n"));
        assert!(kept.contains("Valid-Until"));
        assert!(!kept.contains("Languages") && !kept.contains("Dir") && !kept.contains("User"));
    }

    #[test]
    fn parses_lines_of_a_simulation() {
        let line = "Inst libgcc-s1 (12.2.0-14+deb12u1 Debian:12.15/oldstable [amd64]) []";
        assert_eq!(installed(line), Some(("libgcc-s1", "12.2.0-14+deb12u1")));
        let line = "Inst a:amd64 [1:1-1] (1:2~b1 D [all])";
        assert_eq!(installed(line), Some(("a", "1:2~b1")));
        for line in ["Conf a (1 D [all])", "Inst a", "Inst ", "NOTE: This is only a simulation!"] {
            assert_eq!(installed(line), None, "{line}");
        }
    }

    #[test]
    fn splits_paragraphs_at_empty_lines() {
        let text = "Package: a\nVersion: 1\nSize: 5\nSHA256: x\n\n\nPackage: b\nSize: no\n";
        let shown: Vec<_> = paragraphs(text).collect();
        assert_eq!(shown.len(), 2);
        assert_eq!(listed(&shown[0]).unwrap().version, "1");
        assert!(listed(&shown[1]).is_none());
    }

    #[test]
    fn refuses_a_path_that_apt_cannot_quote() {
        assert!(configuration(Path::new("/tmp/a\"b")).is_err());
    }
}
