//! What the pages read: the site, and what is derived from it once.

use crate::{
    names::{names, readable},
    nights::{self, Night, nights},
    noise::{Segment, segments},
    site::{AlertState, Series, Site, Sweep},
};

/// A site with the names of its files and all that pages look up in it.
pub(crate) struct Index {
    pub(crate) site: Site,
    pub(crate) nights: Vec<Night>,
    pub(crate) run_names: Vec<String>,
    pub(crate) series_names: Vec<String>,
    pub(crate) sweep_names: Vec<String>,
    pub(crate) segments: Vec<Vec<Segment>>,
    /// The points of each run: series and point.
    pub(crate) points: Vec<Vec<(usize, usize)>>,
}

impl Index {
    pub(crate) fn new(site: Site) -> Self {
        let sweeps: Vec<String> = site.sweeps.iter().map(|sweep| key(&site, sweep)).collect();
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
            run_names: names(site.runs.iter().map(|run| run.id.as_str())),
            series_names: names(site.series.iter().map(|series| series.key.as_str())),
            sweep_names: names(sweeps.iter().map(String::as_str)),
            segments: site.series.iter().map(segments).collect(),
            points,
            site,
        }
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
