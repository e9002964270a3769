//! Trials of seeded bugs, as a matrix of bugs and checks and as a document.

use std::collections::BTreeSet;

use dmarig_runner::trial::{Trial, Verdict};
use serde::Serialize;

use crate::folded;

/// Lines of evidence that are told of one bug.
const EVIDENCE: usize = 6;
/// Width of the longest verdict.
const VERDICT: usize = 9;
/// What stands between columns.
const GAP: &str = "  ";

/// The JSON document of a proof.
#[derive(Debug, Serialize)]
pub struct TrialsDocument {
    schema: u32,
    trials: Vec<Row>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Row {
    kernel: String,
    /// The bug's id; none for the good kernel.
    bug: Option<String>,
    what: Option<String>,
    verdict: String,
    /// Why it could not be tried.
    error: Option<String>,
    /// The checks that had to fail.
    caught_by: Vec<String>,
    /// Those that did.
    failed: Vec<Failed>,
    cells: usize,
    build_seconds: f64,
    run_seconds: f64,
}

#[derive(Debug, Serialize)]
struct Failed {
    check: String,
    /// Whether it is among those that had to.
    own: bool,
    /// The first cell on which it did, of how many.
    cell: String,
    cells: usize,
    found: String,
}

/// The JSON document of trials.
#[must_use]
pub fn trials_document(trials: &[Trial]) -> TrialsDocument {
    let row = |trial: &Trial| Row {
        kernel: trial.kernel.clone(),
        bug: trial.bug.as_ref().map(|bug| bug.id.clone()),
        what: trial.bug.as_ref().map(|bug| bug.what.clone()),
        verdict: trial.verdict.name().to_lowercase(),
        error: match &trial.verdict {
            Verdict::Errored(why) => Some(why.clone()),
            _ => None,
        },
        caught_by: trial.bug.as_ref().map_or_else(Vec::new, |bug| bug.caught_by.clone()),
        failed: trial
            .failed
            .iter()
            .map(|(check, finding)| Failed {
                check: check.clone(),
                own: trial.owns(check),
                cell: finding.cell.clone(),
                cells: finding.cells,
                found: finding.what.clone(),
            })
            .collect(),
        cells: trial.cells,
        build_seconds: trial.built.as_secs_f64(),
        run_seconds: trial.ran.as_secs_f64(),
    };
    TrialsDocument { schema: 1, trials: trials.iter().map(row).collect() }
}

/// The matrix of each kernel, then the evidence, for a terminal of `width` columns.
#[must_use]
pub fn trials_text(trials: &[Trial], width: u16) -> String {
    let mut page = Page { text: String::new(), width };
    let mut kernels: Vec<&str> = trials.iter().map(|trial| trial.kernel.as_str()).collect();
    kernels.dedup();
    for kernel in kernels {
        let of_kernel: Vec<&Trial> = trials.iter().filter(|trial| trial.kernel == kernel).collect();
        page.kernel(kernel, &of_kernel);
    }
    page.line("", "");
    page.line(&totals(trials), "  ");
    page.text
}

/// What is written, line by line.
struct Page {
    text: String,
    width: u16,
}

impl Page {
    /// A line, wrapped with this indentation where it is too long.
    fn line(&mut self, line: &str, indent: &str) {
        self.text.push_str(&folded(line, self.width, indent));
        self.text.push('\n');
    }

    fn kernel(&mut self, kernel: &str, trials: &[&Trial]) {
        let all: BTreeSet<&str> =
            trials.iter().flat_map(|trial| trial.failed.keys()).map(String::as_str).collect();
        let all: Vec<&str> = all.into_iter().collect();
        self.line("", "");
        self.line(&format!("{kernel}: bugs by the checks that catch them"), "  ");
        self.line("", "");
        let columns = Columns::new(trials, self.width);
        // A good kernel alone has no checks that failed, and a row all the same.
        let parts = all.chunks(columns.marks).chain(all.is_empty().then_some(&[][..]));
        for checks in parts {
            self.part(&columns, checks, trials);
        }
        let signs = "X one of the bug's own checks failed, as it must; ! did not; x another failed, as it may";
        self.line(&format!("  {signs}"), "    ");
        self.line("  s seconds to build, and to run", "    ");
        self.line("", "");
        self.line(&format!("{kernel}: evidence"), "  ");
        self.line("", "");
        for trial in trials {
            self.evidence(trial);
        }
    }

    /// The rows of as many checks as there is room for, and what their letters stand for.
    fn part(&mut self, columns: &Columns, checks: &[&str], trials: &[&Trial]) {
        let gap = if 2 * checks.len() <= columns.marks { " " } else { "" };
        let letters: Vec<String> = (0..checks.len()).map(letter).collect();
        self.line(&columns.row("bug", "verdict", &letters.join(gap), "s"), "  ");
        for trial in trials {
            let mark = |check: &&str| match (trial.failed.contains_key(*check), trial.owns(check)) {
                (true, true) => "X",
                (true, false) => "x",
                (false, true) => "!",
                (false, false) => ".",
            };
            let marks = checks.iter().map(mark).collect::<Vec<_>>().join(gap);
            if trial.id().len() > columns.id {
                self.line(trial.id(), "  ");
            }
            let row = columns.row(trial.id(), trial.verdict.name(), &marks, &seconds(trial));
            self.line(&row, "  ");
        }
        self.line("", "");
        for (letter, check) in letters.iter().zip(checks) {
            self.line(&format!("  {letter}  {check}"), "     ");
        }
        self.line("", "");
    }

    fn evidence(&mut self, trial: &Trial) {
        let what = trial.bug.as_ref().map_or_else(String::new, |bug| format!(": {}", bug.what));
        self.line(&format!("  {}{what}", trial.id()), "    ");
        if let Verdict::Errored(why) = &trial.verdict {
            self.line(&format!("      could not be tried: {why}"), "        ");
        }
        let own = trial.failed.iter().filter(|(check, _)| trial.owns(check));
        let others = trial.failed.iter().filter(|(check, _)| !trial.owns(check));
        for (check, finding) in own.chain(others).take(EVIDENCE) {
            let more = match finding.cells {
                1 => String::new(),
                cells => format!(" (and on {} more)", cells - 1),
            };
            let cell = finding.cell.split(",kernel=").next().unwrap_or(&finding.cell);
            self.line(&format!("      {check}: {}", finding.what), "        ");
            self.line(&format!("          on {cell}{more}"), "            ");
        }
        if trial.failed.is_empty() && !matches!(trial.verdict, Verdict::Errored(_)) {
            self.line(&format!("      nothing failed on {} cells", trial.cells), "        ");
        }
    }
}

/// Where the columns of a matrix are.
struct Columns {
    /// Width of the bugs' names; one that is longer has a line of its own.
    id: usize,
    /// Width of all marks.
    marks: usize,
}

impl Columns {
    fn new(trials: &[&Trial], width: u16) -> Self {
        let longest = |of: &dyn Fn(&Trial) -> usize| trials.iter().map(|trial| of(trial)).max();
        let seconds = longest(&|trial| seconds(trial).len()).unwrap_or(1);
        let room = usize::from(width).saturating_sub(VERDICT + seconds + 3 * GAP.len());
        let id = longest(&|trial| trial.id().len()).unwrap_or(3).clamp(3, room.max(6) / 3 * 2);
        // A letter stands for one check.
        Self { id, marks: room.saturating_sub(id).clamp(1, 52) }
    }

    fn row(&self, id: &str, verdict: &str, marks: &str, seconds: &str) -> String {
        let Self { id: width, .. } = *self;
        let id = if id.len() > width { "" } else { id };
        format!("{id:width$}{GAP}{verdict:VERDICT$}{GAP}{marks}{GAP}{seconds}")
    }
}

fn seconds(trial: &Trial) -> String {
    format!("{:.0}+{:.0}", trial.built.as_secs_f64(), trial.ran.as_secs_f64())
}

fn totals(trials: &[Trial]) -> String {
    let count = |name: &str| trials.iter().filter(|trial| trial.verdict.name() == name).count();
    let bugs = trials.iter().filter(|trial| trial.bug.is_some()).count();
    let good = trials.len() - bugs;
    let cells: usize = trials.iter().map(|trial| trial.cells).sum();
    format!(
        "{bugs} bugs: {} caught, {} missed, {} caught otherwise; {good} good kernels: {} blamed; {} errored; \
         {cells} cells",
        count("caught"),
        count("MISSED"),
        count("OTHERWISE"),
        count("BLAMED"),
        count("errored"),
    )
}

/// a to z, then A to Z.
fn letter(at: usize) -> String {
    let first = if at % 52 < 26 { b'a' } else { b'A' };
    char::from(first + (at % 26) as u8).to_string()
}

/// The outcome of a trial on one line, or on several if the terminal is narrower.
#[must_use]
pub fn trial_line(trial: &Trial, width: u16) -> String {
    let failed: Vec<&str> = trial.failed.keys().map(String::as_str).collect();
    let found = match &trial.verdict {
        Verdict::Errored(why) => why.clone(),
        Verdict::CaughtByOthers { lacking } => {
            format!("{}; not by {}", failed.join(", "), lacking.join(", "))
        }
        _ if failed.is_empty() => format!("{} cells passed", trial.cells),
        _ => failed.join(", "),
    };
    let line = format!(
        "{:>9}  {} {}: {found} (built in {:.0} s, {} cells in {:.0} s)",
        trial.verdict.name(),
        trial.kernel,
        trial.id(),
        trial.built.as_secs_f64(),
        trial.cells,
        trial.ran.as_secs_f64()
    );
    folded(&line, width, &" ".repeat(11))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use dmarig_kernels::Bugs;
    use dmarig_runner::trial::Finding;

    #[test]
    fn the_matrix_tells_what_caught_what() {
        let bugs = Bugs::builtin("linux-5.10").unwrap();
        let mut caught = Trial::new("linux-5.10", Some(bugs.get("warning-twice").unwrap()));
        let finding = Finding { cell: "prove/a=b,kernel=k".into(), what: "found".into(), cells: 2 };
        caught.failed.insert("warning".into(), finding.clone());
        caught.failed.insert("psi".into(), finding);
        caught.verdict = Verdict::Caught;
        let mut missed = Trial::new("linux-5.10", Some(bugs.get("warning-misworded").unwrap()));
        missed.verdict = Verdict::Missed;
        let trials = [caught, missed];
        let text = trials_text(&trials, 80);
        for part in [
            "warning-twice      caught     x X",
            "warning-misworded  MISSED     . !",
            "  a  psi\n  b  warning\n",
            "warning: found\n          on prove/a=b (and on 1 more)",
            "2 bugs: 1 caught, 1 missed",
        ] {
            assert!(text.contains(part), "`{part}` isn't in: {text}");
        }
        let document = serde_json::to_value(trials_document(&trials)).unwrap();
        assert_eq!(document["trials"][0]["failed"][1]["own"], true);
        assert_eq!(document["trials"][1]["verdict"], "missed");
        assert_eq!((letter(0), letter(25), letter(26)), ("a".into(), "z".into(), "A".into()));
    }

    /// The built-in bugs and the good kernel, each found by all that can be found.
    fn many() -> Vec<Trial> {
        let bugs = Bugs::builtin("linux-5.10").unwrap();
        let all = std::iter::once(None).chain(bugs.bugs.iter().map(Some));
        let trial = |bug| {
            let mut trial = Trial::new("linux-5.10", bug);
            for check in 0..18 {
                let finding = Finding {
                    cell: "prove/caching-mode=on,policy=lazy,device=virtio-blk,passthrough=none,\
                           device-iotlb=on,kernel=linux-5.10"
                        .into(),
                    what:
                        "0.0213 after 1043 unmaps, expected at least 1 and at most 1 of them all: "
                            .repeat(2),
                    cells: 6,
                };
                trial.failed.insert(format!("check-number-{check}-of-them"), finding);
            }
            trial.verdict = match bug {
                None => Verdict::FalsePositive,
                Some(bug) => Verdict::CaughtByOthers { lacking: bug.caught_by.clone() },
            };
            (trial.built, trial.ran) = (Duration::from_secs(1234), Duration::from_secs(567));
            trial
        };
        all.map(trial).collect()
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let mut trials = many();
        assert!(trials.len() > 20, "{}", trials.len());
        trials[3].verdict = Verdict::Errored("not built: it ends at line 7 of a file ".repeat(5));
        for width in [60, 80, 132] {
            let lines = trials.iter().map(|trial| trial_line(trial, width));
            let text =
                format!("{}{}", trials_text(&trials, width), lines.collect::<Vec<_>>().join("\n"));
            let wide = text.lines().find(|line| line.chars().count() > width.into());
            assert_eq!(wide, None, "{text}");
            // Nothing is cut: every check and every bug is there with its mark.
            let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(words.contains(" check-number-9-of-them"), "{text}");
            let of_bug = |line: &&str| line.starts_with("identity-instead-of-translated");
            assert!(text.lines().any(|line| of_bug(&line)), "{text}");
        }
    }
}
