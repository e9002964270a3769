//! `dmarig images`

use std::{
    cell::RefCell,
    sync::Mutex,
    time::{Duration, SystemTime},
};

use anyhow::anyhow;
use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use dmarig_images::{Cache, FetchOptions, Mirrors, Progress, Recipe, Unit};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::{
    exit::{Exit, Failure},
    options::Places,
    output,
};

#[derive(Debug, Args)]
pub(crate) struct Images {
    #[command(flatten)]
    places: Places,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Fetch kernels, sources and QEMUs, verified by their distribution's signed index
    Fetch(Fetch),
    /// List the kernels, sources and QEMUs there are recipes for, and which are in the cache
    List,
    /// Remove kernels, sources and QEMUs from the cache
    Rm {
        /// Names, as `list` shows them
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct Fetch {
    /// Names, as `list` shows them; `qemu` is the default QEMU [default: the default kernel]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// All kernels and QEMUs that there are recipes for
    #[arg(long, conflicts_with = "names")]
    all: bool,
    /// Leave what is here as it is, whatever newer version there may be
    #[arg(long, conflicts_with = "refresh")]
    missing: bool,
    /// Ask the archive for news even where its index was read in the last hours
    #[arg(long)]
    refresh: bool,
    #[command(flatten)]
    mirrors: MirrorOptions,
}

/// Where packages come from.
#[derive(Debug, Clone, Args)]
pub(crate) struct MirrorOptions {
    /// Mirror of the distribution's archive [default: the system's own apt configuration]
    #[arg(long, value_name = "URL", env = "DMARIG_MIRROR", hide_env = true)]
    mirror: Option<String>,
    /// Mirror of its security archive [default: the system's own apt configuration]
    #[arg(long, value_name = "URL", env = "DMARIG_SECURITY_MIRROR", hide_env = true)]
    security_mirror: Option<String>,
}

impl MirrorOptions {
    pub(crate) fn mirrors(&self) -> Mirrors {
        Mirrors { debian: self.mirror.clone(), security: self.security_mirror.clone() }
    }
}

impl Images {
    pub(crate) fn execute(self) -> Result<Exit, Failure> {
        let cache = self.places.open_cache()?;
        match self.action {
            Action::Fetch(fetch) => fetch.execute(&cache),
            Action::List => list(&cache),
            Action::Rm { names } => {
                for name in names {
                    let bytes = cache.rm(&name)?;
                    errln!("removed {name}: {} freed", HumanBytes(bytes));
                }
                Ok(Exit::Passed)
            }
        }
    }
}

impl Fetch {
    fn execute(self, cache: &Cache) -> Result<Exit, Failure> {
        let recipes = cache.recipes();
        let mut wanted = Vec::new();
        for name in &self.names {
            let recipe = recipes.get(name).or_else(|| recipes.source(name));
            let recipe = recipe.or_else(|| recipes.qemu(name)).ok_or_else(|| {
                let names: Vec<&str> = all(cache).map(|recipe| recipe.name.as_str()).collect();
                Failure::usage(anyhow!(
                    "there is no recipe for `{name}`; there are {}",
                    names.join(", ")
                ))
            })?;
            wanted.push(recipe);
        }
        if self.all {
            wanted = recipes.iter().chain(recipes.qemus()).collect();
        } else if wanted.is_empty() {
            wanted.push(recipes.default_recipe());
        }
        let options = FetchOptions { mirrors: self.mirrors.mirrors(), refresh: self.refresh };
        let here = if self.missing { rows(cache)? } else { Vec::new() };
        for recipe in wanted {
            if let Some(row) = here.iter().find(|row| row.name == recipe.name) {
                errln!("{} {} stays as it is", row.name, row.version);
                continue;
            }
            let fetched = cache.fetch(recipe, &options, &Bars::default())?;
            let how =
                if fetched.already_cached { "is here already" } else { "fetched and verified" };
            let release = fetched.release.map(|release| format!(" ({release})"));
            let release = release.unwrap_or_default();
            errln!("{} {}{release} {how}", fetched.name, fetched.version);
        }
        Ok(Exit::Passed)
    }
}

/// Kernels first.
fn all(cache: &Cache) -> impl Iterator<Item = &Recipe> {
    let recipes = cache.recipes();
    recipes.iter().chain(recipes.sources()).chain(recipes.qemus())
}

/// What the list tells of something that is in the cache.
struct Row {
    name: String,
    version: String,
    newest: Option<String>,
    release: String,
    size: u64,
    fetched: SystemTime,
}

/// All that is in the cache.
fn rows(cache: &Cache) -> Result<Vec<Row>, Failure> {
    let mut rows: Vec<Row> = Vec::new();
    rows.extend(cache.list()?.into_iter().map(|kernel| Row {
        name: kernel.name,
        version: kernel.version,
        newest: kernel.newest,
        release: kernel.release,
        size: kernel.size,
        fetched: kernel.fetched,
    }));
    rows.extend(cache.sources()?.into_iter().map(|source| Row {
        name: source.tree.name,
        version: source.tree.version,
        newest: source.newest,
        release: "source".to_owned(),
        size: source.size,
        fetched: source.fetched,
    }));
    rows.extend(cache.qemus()?.into_iter().map(|qemu| Row {
        name: qemu.tree.name,
        version: qemu.tree.version,
        newest: qemu.newest,
        release: "-".to_owned(),
        size: qemu.size,
        fetched: qemu.fetched,
    }));
    Ok(rows)
}

fn list(cache: &Cache) -> Result<Exit, Failure> {
    let rows = rows(cache)?;
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(["name", "version", "release", "size", "fetched"]);
    let defaults = [cache.recipes().default_recipe(), cache.recipes().default_qemu()];
    for recipe in all(cache) {
        let mark = if defaults.contains(&recipe) { " (default)" } else { "" };
        let name = format!("{}{mark}", recipe.name);
        match rows.iter().find(|row| row.name == recipe.name) {
            Some(row) => {
                let age = row.fetched.elapsed().unwrap_or(Duration::ZERO);
                let newest = row.newest.as_ref().filter(|newest| **newest != row.version);
                let news = newest.map(|newest| format!(" ({newest} is out)")).unwrap_or_default();
                table.add_row([
                    name,
                    format!("{}{news}", row.version),
                    row.release.clone(),
                    HumanBytes(row.size).to_string(),
                    format!("{} ago", indicatif::HumanDuration(age)),
                ]);
            }
            None => {
                let hint = format!("dmarig images fetch {}", recipe.name);
                table.add_row([name, "-".into(), hint, String::new(), String::new()]);
            }
        }
    }
    for line in table.lines() {
        outln!("{}", line.trim_end());
    }
    outln!("\ncache: {}", cache.dir().display());
    Ok(Exit::Passed)
}

/// Progress bars on standard error; where that is no terminal, a line a step.
#[derive(Default)]
pub(crate) struct Bars {
    bar: Mutex<RefCell<Option<ProgressBar>>>,
}

impl Bars {
    fn with(&self, act: impl FnOnce(&mut Option<ProgressBar>)) {
        let bar = self.bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        act(&mut bar.borrow_mut());
    }
}

impl Progress for Bars {
    fn begin(&self, what: &str, _unit: Unit, total: Option<u64>) {
        let bar = match total {
            _ if !output::shows_progress() => ProgressBar::hidden(),
            Some(total) => ProgressBar::new(total),
            None => ProgressBar::new_spinner(),
        };
        let template = match total {
            Some(_) => "{msg}  {bar:24} {bytes}/{total_bytes}  {bytes_per_sec}  {eta}",
            None => "{spinner} {msg}  {elapsed}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        if bar.is_hidden() {
            errln!("{what}");
        }
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        self.with(|slot| *slot = Some(bar));
    }

    fn advance(&self, bytes: u64) {
        self.with(|slot| {
            if let Some(bar) = slot {
                bar.inc(bytes);
            }
        });
    }

    fn message(&self, text: &str) {
        self.with(|slot| match slot {
            Some(bar) if !bar.is_hidden() => bar.println(text),
            _ => errln!("{text}"),
        });
    }

    fn end(&self) {
        self.with(|slot| {
            if let Some(bar) = slot.take() {
                bar.finish_and_clear();
            }
        });
    }
}
