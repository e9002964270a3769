//! What all pages have in common.

use dmarig_model::observation::Outcome;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::{
    chart::Way,
    index::Index,
    site::{AlertState, EVENTS},
    text::{Safe, minute},
};

/// Nothing is loaded but what lies beside the page. Attributes may have a style, for places in charts.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    style-src-attr 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; form-action 'none'";
/// An IOMMU between two blocks, on any background.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E\
    %3Crect width='16' height='16' rx='4' fill='%230b5cad'/%3E%3Cpath d='M3 8h2l1.5-4 3 8L11 8h2' \
    fill='none' stroke='white' stroke-width='1.6' stroke-linejoin='round' stroke-linecap='round'/%3E%3C/svg%3E";

/// A page.
pub(crate) struct Page {
    /// What stands in the window's title.
    pub(crate) title: String,
    /// The entry of the menu that it belongs to.
    pub(crate) entry: &'static str,
    /// What leads from it to the site's root: empty, or `../`.
    pub(crate) root: &'static str,
    /// Scripts with data that it needs.
    pub(crate) data: &'static [&'static str],
    /// All that is not common.
    pub(crate) body: Markup,
}

const MENU: &[(&str, &str)] = &[
    ("Overview", "index.html"),
    ("Series", "series.html"),
    ("Runs", "runs.html"),
    ("Alerts", "alerts.html"),
    ("Compare", "compare.html"),
    ("Sweeps", "sweeps.html"),
];

impl Page {
    pub(crate) fn render(self, of: &Index) -> Markup {
        let site = &of.site;
        let root = self.root;
        let policy =
            if site.live { format!("{POLICY}; connect-src 'self'") } else { POLICY.into() };
        let alerts = of.new_alerts();
        html! {
            (DOCTYPE)
            html
                lang="en"
                data-root=(root)
                data-live=[site.live.then(|| format!("{root}{EVENTS}"))]
            {
                head {
                    meta charset="utf-8";
                    meta http-equiv="Content-Security-Policy" content=(policy);
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    meta name="referrer" content="no-referrer";
                    title { (Safe(&self.title)) " \u{b7} dmarig" }
                    link rel="icon" href=(PreEscaped(ICON));
                    link rel="stylesheet" href={ (root) "assets/site.css" };
                    // Before anything is drawn: it knows whether the reader prefers dark.
                    script src={ (root) "assets/site.js" } {}
                    @for data in self.data {
                        script defer src={ (root) (data) } {}
                    }
                }
                body {
                    a.skip href="#main" { "Skip to the content" }
                    header.top {
                        a.brand href={ (root) "index.html" } { (logo()) "dmarig" }
                        nav aria-label="Site" {
                            @for (name, path) in MENU {
                                @if *name != "Sweeps" || !site.sweeps.is_empty() {
                                    a   href={ (root) (path) }
                                        aria-current=[(*name == self.entry).then_some("page")]
                                    {
                                        (name)
                                        @if *name == "Alerts" && alerts > 0 {
                                            span.count aria-label={ (alerts) " new" } { (alerts) }
                                        }
                                    }
                                }
                            }
                        }
                        button
                            .theme
                            type="button"
                            hidden
                            aria-label="Light or dark"
                            title="Light or dark"
                        {
                            span aria-hidden="true" { "\u{25d0}" }
                        }
                    }
                    main #main { (self.body) }
                    footer {
                        "Made "
                        time { (minute(site.generated)) }
                        " by dmarig. Nothing on these pages is loaded from elsewhere."
                    }
                }
            }
        }
    }
}

fn logo() -> Markup {
    html! {
        svg viewBox="0 0 16 16" width="20" height="20" aria-hidden="true" {
            rect.logo width="16" height="16" rx="4" {}
            path.pulse d="M3 8h2l1.5-4 3 8L11 8h2" {}
        }
    }
}

/// How something ended, as a sign and a word.
pub(crate) fn outcome(outcome: Outcome) -> Markup {
    html! {
        span.state.(class(outcome)) { (sign(outcome)) (outcome.name()) }
    }
}

/// The sign alone, which readers of screens need not hear.
pub(crate) fn sign(outcome: Outcome) -> Markup {
    html! {
        span.sign.(class(outcome)) aria-hidden="true" { (symbol(outcome)) }
    }
}

pub(crate) const fn symbol(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "\u{2713}",
        Outcome::Failed => "\u{2717}",
        Outcome::Skipped => "\u{2013}",
        Outcome::TimedOut => "\u{2026}",
        Outcome::Errored => "!",
    }
}

pub(crate) const fn class(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "passed",
        Outcome::Failed => "failed",
        Outcome::Skipped => "skipped",
        Outcome::TimedOut => "timedout",
        Outcome::Errored => "errored",
    }
}

/// The state of an alert, as a sign and a word.
pub(crate) fn alert_state(state: AlertState) -> Markup {
    let (class, sign) = match state {
        AlertState::New => ("new", "\u{25cf}"),
        AlertState::Confirmed => ("failed", "\u{2717}"),
        AlertState::Invalid => ("skipped", "\u{2013}"),
        AlertState::Fixed | AlertState::Improved => ("passed", "\u{2713}"),
    };
    html! {
        span.state.(class) {
            span.sign.(class) aria-hidden="true" { (sign) }
            (state.name())
        }
    }
}

/// A change with its sign.
pub(crate) fn changed(way: Way, text: &str) -> Markup {
    html! {
        span.change.(way.class()) {
            span aria-hidden="true" { (way.symbol()) " " }
            (text)
            span.unseen { ", " (way.word()) }
        }
    }
}

/// A table that scrolls by itself where the screen is too narrow, by keyboard as well.
pub(crate) fn scrolling(label: &str, table: &Markup) -> Markup {
    html! {
        div.scroll tabindex="0" role="group" aria-label=(label) { (table) }
    }
}
