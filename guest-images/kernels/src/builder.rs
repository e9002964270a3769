//! From what is asked for to a kernel in the cache.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use dmarig_digest::short_id;
use dmarig_images::{BuiltKernel, Cache, Progress, Unit};

use crate::config::{RequestedConfig, settings};
use crate::dir_source::DirSource;
use crate::git_source::{GitSource, is_git, short};
use crate::kconfig::Kconfig;
use crate::make::Make;
use crate::tools::Tools;
use crate::workspace::{Origin, Workspace};
use crate::{Edits, Error, Fragment, ID_DIGITS, Result, edit, workspace};

/// Raised whenever the same source, configuration, edits and compiler come to be built otherwise.
const LAYOUT: &str = "1";

/// Where a source is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A package that was fetched by the recipe of this name.
    Package(String),
    /// A user's own tree. Nothing is written to it.
    Tree {
        /// The directory: a git repository, bare or not, or a plain directory.
        dir: PathBuf,
        /// The revision; without one it is what the user's files are now.
        rev: Option<String>,
    },
}

/// A kernel that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// What it is built from.
    pub source: Source,
    /// What its configuration has besides what every kernel of ours has; of two fragments that set
    /// an option the later one counts.
    pub config: Vec<Fragment>,
    /// Changes of its source, in this order.
    pub edits: Vec<Edits>,
}

/// A kernel that is in the cache now.
#[derive(Clone, Debug)]
pub struct Built {
    /// What it is, and where.
    pub kernel: BuiltKernel,
    /// Whether there was nothing to do.
    pub already_cached: bool,
    /// Files that were made for it.
    pub made: u32,
    /// How long each phase took, in order.
    pub phases: Vec<Phase>,
}

/// A stretch of wall-clock time of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase {
    /// `source`, `configure`, `compile` or `keep`.
    pub name: &'static str,
    /// How long it took.
    pub took: Duration,
}

/// Builds kernels into a cache. Builders of other processes wait for each other where they must.
#[derive(Clone, Debug)]
pub struct Builder {
    cache: Cache,
    jobs: usize,
}

impl Spec {
    /// A kernel of this source, without edits and further configuration.
    pub fn new(source: Source) -> Spec {
        Spec { source, config: Vec::new(), edits: Vec::new() }
    }

    /// A name that tells it from others of the same source: `linux-5.10+kasan+fix-reverted`.
    pub fn name(&self) -> String {
        let mut name = match &self.source {
            Source::Package(name) => name.clone(),
            Source::Tree { dir, rev } => {
                let dir = dir.file_name().unwrap_or_default().to_string_lossy();
                let rev = rev.as_ref().map(|rev| format!("-{}", short(rev)));
                format!("{}{}", dir.trim_end_matches(".git"), rev.unwrap_or_default())
            }
        };
        for fragment in &self.config {
            let path = Path::new(&fragment.path);
            name.push('+');
            name.push_str(&path.file_stem().unwrap_or_default().to_string_lossy());
        }
        for edits in &self.edits {
            name.push('+');
            name.push_str(&edits.name);
        }
        let plain = |c: char| if c.is_ascii_alphanumeric() || ".+-_".contains(c) { c } else { '-' };
        let name: String = name.chars().map(plain).collect();
        let name = name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
        if name.is_empty() { "kernel".to_owned() } else { name.to_owned() }
    }
}

/// Times the phases of a build, each a step of its progress.
struct PhaseClock<'a> {
    progress: &'a dyn Progress,
    phases: Vec<Phase>,
    running: Option<(&'static str, Instant)>,
}

impl PhaseClock<'_> {
    /// Ends the running phase and starts the next, which makes `total` files at most.
    fn begin(&mut self, name: &'static str, total: Option<u32>) {
        self.end();
        self.progress.begin(name, Unit::Files, total.map(u64::from));
        self.running = Some((name, Instant::now()));
    }

    fn end(&mut self) {
        if let Some((name, since)) = self.running.take() {
            self.phases.push(Phase { name, took: since.elapsed() });
            self.progress.end();
        }
    }

    /// Ends the last phase, and describes the kernel that came out.
    fn built(mut self, kernel: BuiltKernel, already_cached: bool, made: u32) -> Built {
        self.end();
        Built { kernel, already_cached, made, phases: std::mem::take(&mut self.phases) }
    }
}

impl Drop for PhaseClock<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

impl Builder {
    /// A builder into `cache`, with as many compilers at once as there are processors.
    pub fn new(cache: &Cache) -> Builder {
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        Builder { cache: cache.clone(), jobs }
    }

    /// So many compilers at once, at least one.
    pub fn with_jobs(self, jobs: usize) -> Builder {
        Builder { jobs: jobs.max(1), ..self }
    }

    /// Whether there is a source to build, as far as it can be told without unpacking or building.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, source: &Source) -> Result<()> {
        self.open(source).map(drop)
    }

    /// Builds a kernel, or finds it.
    ///
    /// # Errors
    /// Whatever [`Error`] has; [`Error::fault`] tells whose fault it is.
    pub fn build(&self, spec: &Spec, progress: &dyn Progress) -> Result<Built> {
        let mut clock = PhaseClock { progress, phases: Vec::new(), running: None };
        clock.begin("source", None);
        let origin = self.open(&spec.source)?;
        let fragments: Vec<_> =
            std::iter::once(Fragment::base()).chain(spec.config.iter().cloned()).collect();
        let wanted = RequestedConfig::merge(&fragments)?;
        let tools = Tools::find()?;
        let files = files(&origin, &spec.edits)?;
        let id = |source: &str| identity(source, &files, &wanted, &tools);
        if let Some(source) = origin.id()
            && let Some(kernel) = self.cache.built(&id(&source))?
        {
            return Ok(clock.built(kernel, true, 0));
        }
        let work = Workspace::open(self.cache.dir(), &origin, progress)?;
        let source = work.fill(&origin)?;
        // Somebody may have built it while we waited.
        let id = id(&source);
        if let Some(kernel) = self.cache.built(&id)? {
            return Ok(clock.built(kernel, true, 0));
        }
        work.put(&origin, &files)?;
        let (tree, lock) = (work.tree(), work.lock());
        // By the fragments' names: where one's text changes, make knows what depends on it.
        let names = fragments.iter().map(|fragment| fragment.path.as_bytes());
        let key = short_id(names.chain([tools.compiler.as_bytes()]), ID_DIGITS);
        let objects = work.objects(&key)?;
        let make =
            Make { tree: &tree, objects: &objects, tools: &tools, jobs: self.jobs, lock, progress };
        make.clean_up()?;
        clock.begin("configure", None);
        configure(&make, &wanted, &source, &files)?;
        let total = known_count(&objects);
        clock.begin("compile", total);
        let made = compile(&make, total)?;
        clock.begin("keep", None);
        let about = about(&origin, spec, &tools);
        let kernel = self.keep(&objects, id, about)?;
        Ok(clock.built(kernel, false, made))
    }

    /// The bytes that trees and objects of all builds take; built kernels need none of them.
    pub fn work_size(&self) -> u64 {
        let entries = walkdir::WalkDir::new(self.cache.dir().join("work")).into_iter().flatten();
        let own = entries.filter_map(|entry| entry.metadata().ok());
        // Second names of the source's files take nothing.
        own.filter(|meta| !meta.is_file() || std::os::unix::fs::MetadataExt::nlink(meta) == 1)
            .map(|meta| std::os::unix::fs::MetadataExt::blocks(&meta) * 512)
            .sum()
    }

    /// Removes trees and objects of builds that nobody is at, and gives the bytes freed. The next
    /// build from each source starts from nothing.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove_work(&self) -> Result<u64> {
        let before = self.work_size();
        workspace::remove_all(self.cache.dir())?;
        Ok(before.saturating_sub(self.work_size()))
    }

    fn open(&self, source: &Source) -> Result<Origin> {
        match source {
            Source::Package(name) => match self.cache.source(name)? {
                Some(tree) => Ok(Origin::Package(tree)),
                None => Err(Error::UnknownSource {
                    name: name.clone(),
                    known: self
                        .cache
                        .recipes()
                        .sources()
                        .map(|recipe| recipe.name.as_str())
                        .collect::<Vec<_>>()
                        .join(", "),
                }),
            },
            Source::Tree { dir, rev } => {
                let dir = dir.canonicalize().map_err(|e| Error::named(dir, e))?;
                match (is_git(&dir), rev) {
                    (true, rev) => GitSource::open(&dir, rev.as_deref()).map(Origin::Git),
                    (false, None) => DirSource::open(&dir).map(Origin::Dir),
                    (false, Some(rev)) => Err(Error::NoRevision {
                        path: dir,
                        rev: rev.clone(),
                        output: "it is not the top of a git tree".to_owned(),
                    }),
                }
            }
        }
    }

    /// Takes what was made into the cache, once it has proved to be a kernel that QEMU can start:
    /// what is in the cache is not looked at again.
    fn keep(&self, objects: &Path, id: String, about: Vec<String>) -> Result<BuiltKernel> {
        let path = objects.join("include/config/kernel.release");
        let release = fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
        // Symbols are for debuggers; the kernel has its own.
        let (whole, vmlinux) = (objects.join("vmlinux"), objects.join("vmlinux.dmarig"));
        let status = Command::new("strip").arg("-o").arg(&vmlinux).arg(&whole).status();
        let stripped = status.map_err(|e| Error::io("run", Path::new("strip"), e))?;
        let vmlinux = if stripped.success() { vmlinux } else { whole };
        let (release, config) = (release.trim().to_owned(), objects.join(".config"));
        self.cache.resolve(&vmlinux.display().to_string(), None).map_err(Error::image)?;
        Ok(self.cache.add_built(&BuiltKernel { id, release, vmlinux, config, about })?)
    }
}

/// The files that are other than in the source: by what the user changed, and by edits.
fn files(origin: &Origin, edits: &[Edits]) -> Result<BTreeMap<String, Option<Vec<u8>>>> {
    let mut files = origin.changed().cloned().unwrap_or_default();
    let edited = edit::apply(edits, |file| origin.current(file))?;
    files.extend(edited.into_iter().map(|(name, content)| (name, Some(content))));
    Ok(files)
}

fn identity(
    source: &str,
    files: &BTreeMap<String, Option<Vec<u8>>>,
    wanted: &RequestedConfig,
    tools: &Tools,
) -> String {
    let wanted = wanted.text();
    let fixed =
        [LAYOUT.as_bytes(), source.as_bytes(), wanted.as_bytes(), tools.compiler.as_bytes()];
    let files = files.iter().flat_map(|(name, content)| {
        let gone: &[u8] = b"gone";
        let kind: &[u8] = if content.is_some() { b"file" } else { gone };
        [name.as_bytes(), kind, content.as_deref().unwrap_or_default()]
    });
    short_id(fixed.into_iter().chain(files), ID_DIGITS)
}

fn about(origin: &Origin, spec: &Spec, tools: &Tools) -> Vec<String> {
    let names =
        |names: Vec<&str>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let config = spec.config.iter().map(|fragment| fragment.path.as_str()).collect();
    let edits = spec.edits.iter().map(|edits| edits.name.as_str()).collect();
    vec![
        format!("source: {}", origin.describe()),
        format!("more configuration: {}", names(config)),
        format!("edits: {}", names(edits)),
        format!("compiler: {}", tools.compiler),
    ]
}

/// Makes the configuration, unless it was made of the very same before.
fn configure(
    make: &Make<'_>,
    wanted: &RequestedConfig,
    source: &str,
    files: &BTreeMap<String, Option<Vec<u8>>>,
) -> Result<()> {
    let (config, done) = (make.objects.join(".config"), make.objects.join(".dmarig-configured"));
    let read = |path: &Path| fs::read(path).unwrap_or_default();
    let text = wanted.text();
    let state = |config: &[u8]| {
        let rules = files.iter().filter(|(name, _)| name.contains("Kconfig"));
        let rules = rules
            .flat_map(|(name, content)| [name.as_bytes(), content.as_deref().unwrap_or_default()]);
        short_id([source.as_bytes(), text.as_bytes(), config].into_iter().chain(rules), ID_DIGITS)
    };
    let now = read(&config);
    if !now.is_empty() && read(&done) == state(&now).as_bytes() {
        return Ok(());
    }
    let asked = make.objects.join("dmarig.config");
    fs::write(&asked, &text).map_err(|e| Error::io("write", &asked, e))?;
    make.run("allnoconfig", &[format!("KCONFIG_ALLCONFIG={}", asked.display())])?;
    let now = fs::read(&config).map_err(|e| Error::io("read", &config, e))?;
    let came_out = settings(&String::from_utf8_lossy(&now));
    let lost = wanted.lost(&came_out);
    if !lost.is_empty() {
        let kconfig = Kconfig::read(make.tree);
        let explained = lost.into_iter().map(|(name, value)| {
            let why = kconfig.why_not(name.trim_start_matches("CONFIG_"), value, &came_out);
            match value {
                "n" => format!("  {name} should be off: {why}"),
                value => format!("  {name}={value}: {why}"),
            }
        });
        return Err(Error::LostOptions { lost: explained.collect() });
    }
    fs::write(&done, state(&now)).map_err(|e| Error::io("write", &done, e))
}

/// The file that holds the highest number of files that a build has made.
const COUNT: &str = "dmarig.count";

/// How many files a whole kernel takes, as far as earlier builds show.
fn known_count(objects: &Path) -> Option<u32> {
    fs::read_to_string(objects.join(COUNT)).ok()?.trim().parse().ok()
}

/// Makes the kernel, and remembers how many files a whole one takes.
fn compile(make: &Make<'_>, known: Option<u32>) -> Result<u32> {
    let path = make.objects.join(COUNT);
    let made = make.run("vmlinux", &[])?;
    if known.is_none_or(|known| made > known) {
        fs::write(&path, made.to_string()).map_err(|e| Error::io("write", &path, e))?;
    }
    Ok(made)
}
