//! A site of runs, series and alerts. It needs no network and, to be read, no script.
//!
//! [`build_dashboard()`] reads a history and records into a [`Site`]; a [`Dashboard`] renders its pages, and is
//! either written as files ([`write_site`]) or served ([`serve()`]). Pages read no disk and no clock.
//!
//! What comes from a guest may be meant to break out of a page. It is shown as text alone, bounded and
//! escaped; addresses and names of files are made of letters, digits, dots and dashes.

mod assets;
mod chart;
mod checks;
mod comparison_page;
mod dashboard;
mod error;
mod index;
mod names;
mod nights;
mod noise;
mod outcomes;
mod output;
mod page;
mod pages;
mod serve;
mod site;
mod site_builder;
mod text;

pub use self::{
    comparison_page::comparison_page,
    dashboard::{Dashboard, Details, Written},
    error::DashboardError,
    output::write_site,
    serve::{Address, serve},
    site::{
        Alert, AlertState, Better, Cell, CellDetails, CellResult, Change, Check, Checked, EVENTS,
        Environment, JudgedNumber, JudgedNumbers, Point, Run, RunDetails, Series, Site, Subject,
        Sweep,
    },
    site_builder::{Sources, add_records, build_dashboard, why_not_added},
};
