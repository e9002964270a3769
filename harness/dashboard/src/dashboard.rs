//! Which files a site has, and what stands in each.

use std::{collections::BTreeMap, fmt};

use dmarig_report::sweep_picture;

use crate::{
    assets,
    names::{names, readable},
    nights::{self, Night, nights},
    noise::{Segment, segments},
    pages,
    site::{AlertState, RunDetails, Series, Site, Sweep},
};

/// Where a served site tells of news: a stream of server-sent events, each with the version of what
/// is served. A page that was made from another version loads itself again.
pub const EVENTS: &str = "events";

/// Looks up what is told of a run on its own page, by the run's index.
pub type Details = Box<dyn Fn(&Site, usize) -> RunDetails + Send + Sync>;

/// A site, ready to be written or served.
pub struct Dashboard {
    pub(crate) site: Site,
    details: Details,
    pub(crate) nights: Vec<Night>,
    pub(crate) run_names: Vec<String>,
    pub(crate) series_names: Vec<String>,
    sweep_names: Vec<String>,
    pub(crate) segments: Vec<Vec<Segment>>,
    /// Of each run, its points: series and point.
    pub(crate) points: Vec<Vec<(usize, usize)>>,
    /// What a path without its extension leads to.
    places: BTreeMap<String, Place>,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Run(usize),
    RunData(usize),
    Series(usize),
    Sweep(usize),
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Files.
    pub files: usize,
    /// Bytes in them.
    pub bytes: u64,
}

impl fmt::Debug for Dashboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dashboard").field("files", &self.paths().len()).finish_non_exhaustive()
    }
}

impl Dashboard {
    /// Of a site whose indices all lead to something; a point, a result or an alert that leads nowhere is
    /// left out.
    #[must_use]
    pub fn new(site: Site, details: Details) -> Self {
        let run_names = names(site.runs.iter().map(|run| run.id.as_str()));
        let series_names = names(site.series.iter().map(|series| series.key.as_str()));
        let sweeps: Vec<String> = site.sweeps.iter().map(|sweep| key(&site, sweep)).collect();
        let sweep_names: Vec<String> = names(sweeps.iter().map(String::as_str));
        let mut places = BTreeMap::new();
        for (at, name) in run_names.iter().enumerate() {
            places.insert(format!("runs/{name}.html"), Place::Run(at));
            places.insert(format!("data/{name}.js"), Place::RunData(at));
        }
        for (at, name) in series_names.iter().enumerate() {
            places.insert(format!("series/{name}.html"), Place::Series(at));
        }
        for (at, name) in sweep_names.iter().enumerate() {
            places.insert(format!("sweeps/{name}.svg"), Place::Sweep(at));
        }
        let mut points = vec![Vec::new(); site.runs.len()];
        for (series, of) in site.series.iter().enumerate() {
            for (at, point) in of.points.iter().enumerate() {
                if let Some(run) = points.get_mut(point.run) {
                    run.push((series, at));
                }
            }
        }
        Self {
            nights: nights(&site),
            segments: site.series.iter().map(segments).collect(),
            site,
            details,
            run_names,
            series_names,
            sweep_names,
            points,
            places,
        }
    }

    /// What it was made of.
    #[must_use]
    pub const fn site(&self) -> &Site {
        &self.site
    }

    pub(crate) fn details(&self, run: usize) -> RunDetails {
        (self.details)(&self.site, run)
    }

    /// The paths of all files, each below the site's root and without anything that leads out of it.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        let fixed = [
            "index.html",
            "series.html",
            "runs.html",
            "alerts.html",
            "compare.html",
            "sweeps.html",
            "assets/site.css",
            "assets/site.js",
            "data/series.js",
        ];
        fixed.map(str::to_owned).into_iter().chain(self.places.keys().cloned()).collect()
    }

    /// What stands in a file; `None` where there is no such path.
    #[must_use]
    pub fn render(&self, path: &str) -> Option<String> {
        let markup = match path {
            "index.html" => pages::overview::page(self),
            "series.html" => pages::series_list::page(self),
            "runs.html" => pages::runs::page(self),
            "alerts.html" => pages::alerts::page(self),
            "compare.html" => pages::compare::page(self),
            "sweeps.html" => pages::sweeps::page(self),
            "assets/site.css" => return Some(assets::STYLE.to_owned()),
            "assets/site.js" => return Some(assets::SCRIPT.to_owned()),
            "data/series.js" => return Some(pages::compare::series_data(self)),
            path => match *self.places.get(path)? {
                Place::Run(run) => pages::run::page(self, run),
                Place::RunData(run) => return Some(pages::compare::run_data(self, run)),
                Place::Series(series) => pages::series::page(self, series),
                Place::Sweep(sweep) => {
                    return Some(sweep_picture(&self.site.sweeps[sweep].cells));
                }
            },
        };
        Some(markup.into_string())
    }

    /// Hands every file to `put`, by its path.
    ///
    /// # Errors
    /// What `put` says.
    pub fn write<E>(
        &self,
        mut put: impl FnMut(&str, &[u8]) -> Result<(), E>,
    ) -> Result<Written, E> {
        let mut written = Written::default();
        for path in self.paths() {
            let Some(text) = self.render(&path) else { continue };
            put(&path, text.as_bytes())?;
            written.files += 1;
            written.bytes += text.len() as u64;
        }
        Ok(written)
    }

    pub(crate) fn run_path(&self, run: usize) -> String {
        self.run_names.get(run).map_or_else(String::new, |name| format!("runs/{name}.html"))
    }

    pub(crate) fn series_path(&self, series: usize) -> String {
        self.series_names.get(series).map_or_else(String::new, |name| format!("series/{name}.html"))
    }

    pub(crate) fn sweep_path(&self, sweep: usize) -> String {
        format!("sweeps/{}.svg", self.sweep_names[sweep])
    }

    /// Times of a series' points, in seconds since 1970.
    pub(crate) fn times(&self, series: &Series) -> Vec<i64> {
        let started = |run: usize| self.site.runs.get(run).map_or(0, |run| run.started);
        series.points.iter().map(|point| started(point.run)).collect()
    }

    /// What an environment is called; nothing where it is not known.
    pub(crate) fn environment(&self, environment: usize) -> &str {
        self.site.environments.get(environment).map_or("", |one| &one.name)
    }

    /// The night that a run is of.
    pub(crate) fn night_of(&self, run: usize) -> Option<&Night> {
        self.nights.iter().find(|night| night.runs.contains(&run))
    }

    /// The runs that a run is held against: those of the night before, and where it came after a night that its
    /// machine has runs in, those.
    pub(crate) fn before(&self, run: usize) -> Option<&[usize]> {
        let at = self.nights.iter().position(|night| night.runs.contains(&run))?;
        let night = &self.nights[at];
        let machine = |run: &usize| &self.site.runs[*run].machine;
        let later = night.later().contains(&run);
        if later && night.own().iter().any(|own| machine(own) == machine(&run)) {
            return Some(night.own());
        }
        nights::before(&self.site, &self.nights, at).map(|before| &*self.nights[before].runs)
    }

    pub(crate) fn new_alerts(&self) -> usize {
        self.site.alerts.iter().filter(|alert| alert.state == AlertState::New).count()
    }
}

/// What tells a sweep from all others, and stays the same.
fn key(site: &Site, sweep: &Sweep) -> String {
    let environment = site.environments.get(sweep.environment).map_or("", |one| &one.key);
    format!("{} {environment}", sweep.title)
}

/// Where a cell is told on its run's page.
pub(crate) fn anchor(cell: usize, id: &str) -> String {
    format!("cell-{cell}-{}", readable(id))
}
