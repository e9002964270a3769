//! The dashboard's other side: what its pages are made of comes from the history and from records, and
//! where they go.

mod alerts;
mod comparison;
mod details;
mod environments;
mod gather;
mod judged;
mod output;
mod serve;
mod sweeps;

pub(crate) use self::{
    comparison::comparison_html,
    gather::{Sources, add, gather, left_alone},
    output::write,
    serve::{Address, serve},
};
