//! The matrix of bugs and checks, as text and as a document.

use std::{collections::BTreeSet, fmt::Write};

use comfy_table::{Table, presets};
use serde::Serialize;

use super::trial::{Trial, Verdict};

/// Lines of evidence that are told of one bug.
const EVIDENCE: usize = 6;

/// The whole matrix, for programs.
#[derive(Debug, Serialize)]
pub(crate) struct Document {
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

/// The document of all trials.
pub(crate) fn document(trials: &[Trial]) -> Document {
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
    Document { schema: 1, trials: trials.iter().map(row).collect() }
}

/// The matrix of each kernel, then the evidence.
pub(crate) fn text(trials: &[Trial]) -> String {
    let mut text = String::new();
    let mut kernels: Vec<&str> = trials.iter().map(|trial| trial.kernel.as_str()).collect();
    kernels.dedup();
    for kernel in kernels {
        let of_kernel: Vec<&Trial> = trials.iter().filter(|trial| trial.kernel == kernel).collect();
        one_kernel(&mut text, kernel, &of_kernel);
    }
    // Writing to a String can't fail.
    let _ = writeln!(text, "{}", totals(trials));
    text
}

fn one_kernel(text: &mut String, kernel: &str, trials: &[&Trial]) {
    let all: BTreeSet<&str> =
        trials.iter().flat_map(|trial| trial.failed.keys()).map(String::as_str).collect();
    let letters: Vec<String> = (0..all.len()).map(letter).collect();
    let mut table = Table::new();
    let heads = ["bug", "verdict"].into_iter().map(str::to_owned).chain(letters.iter().cloned());
    table.load_style(presets::NOTHING).set_header(heads.chain(["s".to_owned()]));
    for trial in trials {
        let mut row = vec![trial.id().to_owned(), trial.verdict.name().to_owned()];
        let mark = |check: &&str| match (trial.failed.contains_key(*check), trial.owns(check)) {
            (true, true) => "X",
            (true, false) => "x",
            (false, true) => "!",
            (false, false) => ".",
        };
        row.extend(all.iter().map(|check| mark(check).to_owned()));
        row.push(format!("{:.0}+{:.0}", trial.built.as_secs_f64(), trial.ran.as_secs_f64()));
        table.add_row(row);
    }
    let _ = writeln!(text, "\n{kernel}: bugs by the checks that catch them\n");
    for line in table.lines() {
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let _ = writeln!(
        text,
        "\n  X one of the bug's own checks failed, as it must; ! did not; x another failed, as it may\n  \
         s seconds to build, and to run\n"
    );
    for (letter, check) in letters.iter().zip(&all) {
        let _ = writeln!(text, "  {letter}  {check}");
    }
    let _ = writeln!(text, "\n{kernel}: evidence\n");
    for trial in trials {
        evidence(text, trial);
    }
}

fn evidence(text: &mut String, trial: &Trial) {
    let what = trial.bug.as_ref().map_or_else(String::new, |bug| format!(": {}", bug.what));
    let _ = writeln!(text, "  {}{what}", trial.id());
    if let Verdict::Errored(why) = &trial.verdict {
        let _ = writeln!(text, "      could not be tried: {why}");
    }
    let own = trial.failed.iter().filter(|(check, _)| trial.owns(check));
    let others = trial.failed.iter().filter(|(check, _)| !trial.owns(check));
    for (check, finding) in own.chain(others).take(EVIDENCE) {
        let more = match finding.cells {
            1 => String::new(),
            cells => format!(" (and on {} more)", cells - 1),
        };
        let cell = finding.cell.split(",kernel=").next().unwrap_or(&finding.cell);
        let _ = writeln!(text, "      {check}: {}", finding.what);
        let _ = writeln!(text, "          on {cell}{more}");
    }
    if trial.failed.is_empty() && !matches!(trial.verdict, Verdict::Errored(_)) {
        let _ = writeln!(text, "      nothing failed on {} cells", trial.cells);
    }
}

fn totals(trials: &[Trial]) -> String {
    let count = |name: &str| trials.iter().filter(|trial| trial.verdict.name() == name).count();
    let bugs = trials.iter().filter(|trial| trial.bug.is_some()).count();
    let good = trials.len() - bugs;
    let cells: usize = trials.iter().map(|trial| trial.cells).sum();
    format!(
        "\n{bugs} bugs: {} caught, {} missed, {} caught otherwise; {good} good kernels: {} blamed; {} errored; \
         {cells} cells",
        count("caught"),
        count("MISSED"),
        count("OTHERWISE"),
        count("BLAMED"),
        count("errored"),
    )
}

/// a to z, then aa.
fn letter(at: usize) -> String {
    let low = char::from(b'a' + (at % 26) as u8);
    if at < 26 { low.to_string() } else { format!("{}{low}", letter(at / 26 - 1)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::prove::trial::Finding;
    use dmarig_kernels::Bugs;

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
        let text = text(&trials);
        for part in [
            "warning-twice      caught   x  X",
            "warning-misworded  MISSED   .  !",
            "  a  psi\n  b  warning\n",
            "warning: found\n          on prove/a=b (and on 1 more)",
            "2 bugs: 1 caught, 1 missed",
        ] {
            assert!(text.contains(part), "`{part}` isn't in: {text}");
        }
        let document = serde_json::to_value(document(&trials)).unwrap();
        assert_eq!(document["trials"][0]["failed"][1]["own"], true);
        assert_eq!(document["trials"][1]["verdict"], "missed");
        assert_eq!((letter(0), letter(25), letter(26)), ("a".into(), "z".into(), "aa".into()));
    }
}
