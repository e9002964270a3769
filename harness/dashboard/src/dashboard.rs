//! Which files a site has, and what stands in each.

use std::{collections::BTreeMap, fmt};

use dmarig_report::sweep_picture;

use crate::{
    assets,
    index::Index,
    pages,
    site::{RunDetails, Site},
};

/// Looks up what is told of a run on its own page, by the run's index.
pub type Details = Box<dyn Fn(&Site, usize) -> RunDetails + Send + Sync>;

/// A site, ready to be written or served.
pub struct Dashboard {
    index: Index,
    details: Details,
    /// What a path leads to.
    places: BTreeMap<String, PagePath>,
}

#[derive(Debug, Clone, Copy)]
enum PagePath {
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
        let index = Index::new(site);
        let mut places = BTreeMap::new();
        for (at, name) in index.run_names.iter().enumerate() {
            places.insert(format!("runs/{name}.html"), PagePath::Run(at));
            places.insert(format!("data/{name}.js"), PagePath::RunData(at));
        }
        for (at, name) in index.series_names.iter().enumerate() {
            places.insert(format!("series/{name}.html"), PagePath::Series(at));
        }
        for (at, name) in index.sweep_names.iter().enumerate() {
            places.insert(format!("sweeps/{name}.svg"), PagePath::Sweep(at));
        }
        Self { index, details, places }
    }

    /// What it was made of.
    #[must_use]
    pub const fn site(&self) -> &Site {
        &self.index.site
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
        let index = &self.index;
        let markup = match path {
            "index.html" => pages::overview::page(index),
            "series.html" => pages::series_list::page(index),
            "runs.html" => pages::runs::page(index),
            "alerts.html" => pages::alerts::page(index),
            "compare.html" => pages::compare::page(index),
            "sweeps.html" => pages::sweeps::page(index),
            "assets/site.css" => return Some(assets::STYLE.to_owned()),
            "assets/site.js" => return Some(assets::SCRIPT.to_owned()),
            "data/series.js" => return Some(pages::compare::series_data(index)),
            path => match *self.places.get(path)? {
                PagePath::Run(run) => {
                    let details = (self.details)(&index.site, run);
                    pages::run::page(index, run, &details)
                }
                PagePath::RunData(run) => return Some(pages::compare::run_data(index, run)),
                PagePath::Series(series) => pages::series::page(index, series),
                PagePath::Sweep(sweep) => {
                    return Some(sweep_picture(&index.site.sweeps[sweep].cells));
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
}
