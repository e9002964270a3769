//! A site of runs, series and alerts that needs no server, no network and, to be read, no script: a
//! [`Site`] goes in, files come out. Nothing here reads a disk or a clock.
//!
//! What comes from a guest may be meant to break out of a page. It is shown as text alone, bounded and
//! escaped; addresses and names of files are made of letters, digits, dots and dashes.

mod assets;
mod chart;
mod checks;
mod comparison;
mod dashboard;
mod names;
mod nights;
mod noise;
mod page;
mod pages;
mod site;
mod text;

pub use self::{
    comparison::{Compared, ComparedGroup, ComparedRow, comparison_page},
    dashboard::{Dashboard, Details, EVENTS, Written},
    site::{
        Alert, AlertState, Better, Cell, CellDetails, CellResult, Change, Check, Checked,
        Environment, JudgedNumber, JudgedNumbers, Point, Run, RunDetails, Series, Site, Subject,
        Sweep,
    },
    text::quantity,
};
