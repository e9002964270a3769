//! `dmarig kernel`

use std::{
    cell::{Cell, RefCell},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::anyhow;
use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use dmarig_images::{Cache, Progress, Unit};
use dmarig_kernels::{Builder, Built, Edits, Error, Fragment, Source, Spec};
use dmarig_runner::{
    builds::{build, fetch_source},
    signals::InterruptibleRuntime,
};
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};

use crate::{
    commands::images::{Bars, MirrorOptions},
    exit::{Exit, Failure},
    options::Places,
    output,
};

/// Files after which a line tells how far a build is, where there is no terminal.
const LINE_EVERY: u64 = 250;

#[derive(Debug, Args)]
pub(crate) struct Kernel {
    #[command(flatten)]
    places: Places,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Build a kernel from source, or find it built; `dmarig run --kernel NAME` then takes it
    Build(Build),
    /// List the kernels that were built, and what they were built from
    List,
    /// Remove kernels that were built
    Rm(Rm),
    /// Print the configuration of a built kernel, or one of the built-in fragments
    Config {
        /// A built kernel's name, or base, dma-debug, kasan or lockdep
        #[arg(value_name = "NAME", default_value = "base")]
        name: String,
    },
}

#[derive(Debug, Args)]
struct Build {
    /// A source's name, as `dmarig images list` shows them; it is fetched where it is not here
    #[arg(value_name = "RECIPE", required_unless_present = "tree", conflicts_with = "tree")]
    recipe: Option<String>,
    /// A source of your own: a git tree, bare or not, or a plain directory; nothing is written to it
    #[arg(long, value_name = "DIR")]
    tree: Option<PathBuf>,
    /// The revision of the tree to build [default: its files as they are now]
    #[arg(long, value_name = "REV", requires = "tree")]
    rev: Option<String>,
    /// More configuration: kasan, lockdep, dma-debug, or a file of `CONFIG_NAME=y` (may be repeated)
    #[arg(long, value_name = "FRAGMENT")]
    config: Vec<String>,
    /// Edit the source first: a file of edits, a bug of a file as FILE#ID, or the id of a built-in
    /// bug (may be repeated)
    #[arg(long = "edit", value_name = "EDITS")]
    edits: Vec<String>,
    /// The kernel's name [default: made of the source, configuration and edits]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Compilers at once [default: by processors]
    #[arg(long, short = 'j', value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    #[command(flatten)]
    mirrors: MirrorOptions,
}

#[derive(Debug, Args)]
struct Rm {
    /// Names, as `list` shows them
    #[arg(value_name = "NAME", required_unless_present = "work")]
    names: Vec<String>,
    /// Also what builds left to go on from: trees and objects
    #[arg(long)]
    work: bool,
}

impl Kernel {
    pub(crate) fn execute(self) -> Result<Exit, Failure> {
        let cache = self.places.open_cache()?;
        match self.action {
            Action::Build(build) => build.execute(&cache),
            Action::List => list(&cache),
            Action::Rm(rm) => rm.execute(&cache),
            Action::Config { name } => config(&cache, &name),
        }
    }
}

impl Build {
    fn execute(&self, cache: &Cache) -> Result<Exit, Failure> {
        let spec = self.spec()?;
        let name = self.name.clone().unwrap_or_else(|| spec.name());
        cache.check_name(&name).map_err(Error::from)?;
        if let Source::Package(name) = &spec.source {
            let fetched = fetch_source(cache, name, &self.mirrors.mirrors(), &Bars::default())?;
            if let Some(fetched) = fetched {
                errln!("{} {} fetched and verified", fetched.name, fetched.version);
            }
        }
        let mut builder = Builder::new(cache);
        if let Some(jobs) = self.jobs {
            builder = builder.with_jobs(jobs.into());
        }
        let mut runtime = InterruptibleRuntime::new(|| ())?;
        let built = build(builder, spec, &mut runtime, new_bar)?;
        cache.name_built(&name, &built.kernel.id).map_err(Error::from)?;
        tell(&name, &built);
        outln!("{}", built.kernel.vmlinux.display());
        Ok(Exit::Passed)
    }

    fn spec(&self) -> Result<Spec, Error> {
        let source = match (&self.recipe, &self.tree) {
            (_, Some(dir)) => Source::Tree { dir: dir.clone(), rev: self.rev.clone() },
            (recipe, None) => Source::Package(recipe.clone().unwrap_or_default()),
        };
        let of = self.recipe.as_deref();
        Ok(Spec {
            source,
            config: self
                .config
                .iter()
                .map(|word| Fragment::load(word))
                .collect::<Result<_, _>>()?,
            edits: self.edits.iter().map(|word| Edits::load(word, of)).collect::<Result<_, _>>()?,
        })
    }
}

fn tell(name: &str, built: &Built) {
    if built.already_cached {
        errln!("{name} ({}) is built already", built.kernel.release);
        return;
    }
    let phases: Vec<String> = built
        .phases
        .iter()
        .map(|phase| format!("{} {:.1} s", phase.name, phase.took.as_secs_f64()))
        .collect();
    errln!(
        "{name} ({}) is built: {} files made; {}",
        built.kernel.release,
        built.made,
        phases.join(", ")
    );
}

fn list(cache: &Cache) -> Result<Exit, Failure> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["name", "release", "size", "built", "from"]);
    let all = cache.all_built()?;
    for named in &all {
        let age = named.named.elapsed().unwrap_or(Duration::ZERO);
        let from = named.kernel.about.first().map(String::as_str).unwrap_or_default();
        let from = from.trim_start_matches("source: ").split(" (").next().unwrap_or_default();
        table.add_row([
            named.name.clone(),
            named.kernel.release.clone(),
            HumanBytes(named.size).to_string(),
            format!("{} ago", HumanDuration(age)),
            from.to_owned(),
        ]);
    }
    match all.is_empty() {
        true => outln!("no kernel is built yet; `dmarig kernel build linux-6.12` builds one"),
        false => table.lines().for_each(|line| outln!("{}", line.trim_end())),
    }
    let work = Builder::new(cache).work_size();
    outln!("\nto go on building from: {} (`dmarig kernel rm --work` removes it)", HumanBytes(work));
    Ok(Exit::Passed)
}

impl Rm {
    fn execute(&self, cache: &Cache) -> Result<Exit, Failure> {
        for name in &self.names {
            let bytes = cache.rm_built(name)?;
            errln!("removed {name}: {} freed", HumanBytes(bytes));
        }
        if self.work {
            let bytes = Builder::new(cache).remove_work()?;
            errln!("removed what builds left: {} freed", HumanBytes(bytes));
        }
        Ok(Exit::Passed)
    }
}

fn config(cache: &Cache, name: &str) -> Result<Exit, Failure> {
    if let Some(fragment) = Fragment::builtin(name) {
        out!("{}", fragment.text);
        return Ok(Exit::Passed);
    }
    let Some(kernel) = cache.built_named(name)? else {
        let options: Vec<&str> = Fragment::options().collect();
        return Err(Failure::usage(anyhow!(
            "{name} is neither a built kernel (`dmarig kernel list`) nor a fragment (base, {})",
            options.join(", ")
        )));
    };
    let path = kernel.config;
    let text = std::fs::read_to_string(&path)
        .map_err(|error| anyhow!("can't read {}: {error}", path.display()))?;
    out!("{text}");
    Ok(Exit::Passed)
}

/// A bar of files on standard error; where that is no terminal, a line now and then.
#[derive(Default)]
struct Bar {
    stop: Arc<AtomicBool>,
    bar: RefCell<Option<ProgressBar>>,
    files: Cell<u64>,
    total: Cell<Option<u64>>,
    /// How many files the last line reported.
    printed: Cell<u64>,
}

impl Bar {
    /// A bar of a build that ends when `stop` is set.
    fn new(stop: Arc<AtomicBool>) -> Self {
        Self { stop, ..Self::default() }
    }
}

/// A bar for the builds of a bisection.
pub(crate) fn new_bar(stop: Arc<AtomicBool>) -> Box<dyn Progress> {
    Box::new(Bar::new(stop))
}

impl Progress for Bar {
    fn begin(&self, name: &str, _unit: Unit, total: Option<u64>) {
        let bar = match output::shows_progress() {
            true => ProgressBar::new_spinner(),
            false => ProgressBar::hidden(),
        };
        let bar = bar.with_message(name.to_owned());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}  {elapsed}") {
            bar.set_style(style);
        }
        if bar.is_hidden() {
            errln!("{name}");
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        self.files.set(0);
        self.total.set(total);
        self.printed.set(0);
        *self.bar.borrow_mut() = Some(bar);
    }

    fn advance(&self, amount: u64) {
        let Some(bar) = &*self.bar.borrow() else { return };
        let files = self.files.get() + amount;
        self.files.set(files);
        // A build after an edit makes few of them all.
        let of = self.total.get().map_or_else(String::new, |total| format!(" of at most {total}"));
        bar.set_message(format!("compile: {files}{of} files"));
        if bar.is_hidden() && files >= self.printed.get() + LINE_EVERY {
            self.printed.set(files);
            errln!("  {files}{of} files");
        }
    }

    fn message(&self, text: &str) {
        match &*self.bar.borrow() {
            Some(bar) if !bar.is_hidden() => bar.println(text),
            _ => errln!("{text}"),
        }
    }

    fn end(&self) {
        if let Some(bar) = self.bar.borrow_mut().take() {
            bar.finish_and_clear();
        }
    }

    fn is_cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
