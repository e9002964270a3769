//! Sweeps over live mappings: what an unmap costs by the mappings beside it, and from where on batching
//! loses.

use dmarig_model::{
    metrics::SWEPT,
    metrics::unit_of,
    sweep::{Point, Sweep as Cells},
    windows::Side,
};
use dmarig_report::{number::quantity, safe, sweep_crossovers, sweep_growth};
use maud::{Markup, html};

use crate::{
    index::Index,
    page::{Page, scrolling},
    site::Sweep,
    text::{Safe, minute},
};

pub(crate) fn page(of: &Index) -> Markup {
    let body = html! {
        h1 { "Sweeps over live mappings" }
        p {
            "A batched flush invalidates a whole domain, and the hypervisor walks every entry to find what changed: "
            "the more live mappings there are, the more entries it walks in vain. Where the lines cross, batching becomes the slower choice."
        }
        @if of.site.sweeps.is_empty() {
            p.quiet {
                "There are none yet: "
                code { "dmarig run sweep --qemu qemu" }
                " makes one."
            }
        }
        @for (at, sweep) in of.site.sweeps.iter().enumerate() { (one(of, at, sweep)) }
    };
    Page { title: "Sweeps".into(), entry: "Sweeps", root: "", data: &[], body }.render(of)
}

fn one(of: &Index, at: usize, sweep: &Sweep) -> Markup {
    let several = of.site.sweeps.iter().any(|other| other.environment != sweep.environment);
    let alt =
        format!("Growth by live mappings of {}; the numbers are in the table", safe(&sweep.title));
    let growth = sweep_growth(&sweep.cells);
    html! {
        section.sweep aria-labelledby={ "sweep-" (at) } {
            h2 id={ "sweep-" (at) } {
                (Safe(&sweep.title))
                " "
                @if several {
                    small { (Safe(of.environment(sweep.environment))) }
                    " "
                }
                @if let Some(run) = of.site.runs.get(sweep.run) {
                    small {
                        a href=(of.run_path(sweep.run)) { (minute(run.started)) }
                    }
                }
            }
            div.beside {
                figure {
                    img src=(of.sweep_path(at)) width="760" height="600" alt=(alt);
                }
                ul {
                    @for line in &growth {
                        li { (Safe(line)) ", per 1,000 live mappings more" }
                    }
                    @for line in sweep_crossovers(&sweep.cells) {
                        li { (Safe(&line)) }
                    }
                }
            }
            (scrolling("Numbers of the sweep", &table(&sweep.cells)))
        }
    }
}

/// A metric on one side.
struct Column {
    index: usize,
    metric: &'static str,
    side: Side,
}

impl Column {
    /// The columns of which a cell has a number.
    fn measured(sweep: &Cells) -> Vec<Self> {
        let all = SWEPT.iter().enumerate().flat_map(|(index, metric)| {
            [Side::Own, Side::Control].map(|side| Self { index, metric, side })
        });
        let has_number =
            |column: &Self| sweep.points.iter().any(|point| column.value(point).is_some());
        all.filter(has_number).collect()
    }

    fn value(&self, point: &Point) -> Option<f64> {
        *point.values.get(self.index)?.get(self.side as usize)?
    }

    fn head(&self) -> String {
        match self.side {
            Side::Own => self.metric.to_owned(),
            Side::Control => format!("{}, made to batch", self.metric),
        }
    }

    fn text(&self, point: &Point) -> String {
        let unit = unit_of(self.metric).unwrap_or("1");
        self.value(point).map_or_else(|| "-".to_owned(), |value| quantity(value, unit))
    }
}

fn table(sweep: &Cells) -> Markup {
    let columns = Column::measured(sweep);
    html! {
        table {
            thead {
                tr {
                    th scope="col" { "live mappings" }
                    @for column in &columns {
                        th.number scope="col" { (column.head()) }
                    }
                }
            }
            tbody {
                @for point in &sweep.points {
                    tr {
                        td { (point.live) }
                        @for column in &columns {
                            td.number { (column.text(point)) }
                        }
                    }
                }
            }
        }
    }
}
