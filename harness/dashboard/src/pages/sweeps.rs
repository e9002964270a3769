//! Sweeps over live mappings: what an unmap costs by the mappings beside it, and from where on batching
//! loses.

use dmarig_report::safe;
use maud::{Markup, html};

use crate::{
    dashboard::Dashboard,
    page::{Page, scrolling},
    site::Sweep,
    text::{Safe, minute},
};

pub(crate) fn page(of: &Dashboard) -> Markup {
    let body = html! {
        h1 { "Sweeps over live mappings" }
        p { "A batched flush invalidates a whole domain, and the hypervisor walks every entry to find what changed: "
            "the more mappings live beside the workload, the more it walks in vain. Where the lines cross, batching begins to lose." }
        @if of.site.sweeps.is_empty() { p.quiet { "There are none yet: " code { "dmarig run sweep --qemu qemu" } " makes one." } }
        @for (at, sweep) in of.site.sweeps.iter().enumerate() { (one(of, at, sweep)) }
    };
    Page { title: "Sweeps".into(), entry: "Sweeps", root: "", data: &[], body }.render(of)
}

fn one(of: &Dashboard, at: usize, sweep: &Sweep) -> Markup {
    let several = of.site.sweeps.iter().any(|other| other.environment != sweep.environment);
    html! { section.sweep aria-labelledby={ "sweep-" (at) } {
        h2 id={ "sweep-" (at) } { (Safe(&sweep.title)) " "
            @if several { small { (Safe(of.environment(sweep.environment))) } " " }
            @if let Some(run) = of.site.runs.get(sweep.run) { small { a href=(of.run_path(sweep.run)) { (minute(run.started)) } } } }
        div.beside {
            figure { img src=(of.sweep_path(at)) width="760" height="600" alt={ "Growth by live mappings of " (safe(&sweep.title)) "; the numbers are in the table" }; }
            ul { @for finding in &sweep.findings { li { (Safe(finding)) } } }
        }
        (scrolling("Numbers of the sweep", &html! { table {
            thead { tr { @for (at, head) in sweep.heads.iter().enumerate() { th.number[at > 0] scope="col" { (Safe(head)) } } } }
            tbody { @for row in &sweep.rows { tr { @for (at, field) in row.iter().enumerate() { td.number[at > 0] { (Safe(field)) } } } } }
        } }))
    } }
}
