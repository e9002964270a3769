//! What came out of it, fit to be sent to people.

use std::{collections::BTreeSet, fmt::Write as _};

use dmarig_model::text::shown;
use serde::Serialize;

use crate::{
    question::{Evidence, Question, Role},
    symptom::Verdict,
    workspace::Commit,
};

/// Version of [`Summary`] as JSON.
const SUMMARY_SCHEMA: u32 = 1;

/// Lines of evidence that are told of one commit.
const EVIDENCE: usize = 16;

/// One judgement.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// The commit.
    pub commit: Commit,
    /// Why it was judged.
    pub role: Role,
    /// What was seen.
    pub seen: Evidence,
    /// What it was taken for.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What a bisection came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "what")]
pub enum Conclusion {
    /// The first bad commit.
    Guilty {
        /// It.
        commit: Commit,
        /// What speaks against that; empty where it was confirmed.
        doubts: Vec<String>,
    },
    /// It is one of these: all but the last were skipped.
    Among {
        /// They.
        suspects: Vec<Commit>,
    },
    /// The bad end shows nothing.
    BadIsGood {
        /// It.
        commit: Commit,
    },
    /// The good end shows what the bad one does.
    GoodIsBad {
        /// It.
        commit: Commit,
    },
    /// An end can't be judged.
    EndUnusable {
        /// It.
        commit: Commit,
        /// Which end.
        end: Role,
        /// Why.
        why: String,
    },
    /// Where the ends forked is bad: good has a fix that bad lacks.
    OlderThanFork {
        /// The fork.
        base: Commit,
    },
}

/// What came out of a bisection, with all that it rests on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    schema: u32,
    /// What was asked.
    pub question: Question,
    /// What it came to.
    pub conclusion: Conclusion,
    /// Checks that fail at the bad end.
    pub symptom: BTreeSet<String>,
    /// The probability that noise did not turn any judgement; `None` where all were exact.
    pub confidence: Option<f64>,
    /// Each judgement, in order.
    pub steps: Vec<Step>,
}

impl Summary {
    pub(crate) fn new(
        question: Question,
        steps: Vec<Step>,
        symptom: BTreeSet<String>,
        conclusion: Conclusion,
    ) -> Self {
        let error: f64 = steps.iter().map(|step| step.seen.error).sum();
        let confidence = (error > 0.0).then_some((1.0 - error).max(0.0));
        Self { schema: SUMMARY_SCHEMA, question, conclusion, symptom, confidence, steps }
    }

    /// For a terminal, or the body of a mail.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{}\n\n", self.headline());
        for commit in self.blamed() {
            let Commit { id, subject, author, date } = commit;
            let _ = writeln!(
                text,
                "commit {id}\nAuthor: {}\nDate:   {}\n\n    {}\n",
                shown(author),
                shown(date),
                shown(subject)
            );
        }
        if let Conclusion::Guilty { doubts, .. } = &self.conclusion {
            doubts.iter().for_each(|doubt| {
                let _ = writeln!(text, "In doubt: {}", shown(doubt));
            });
        }
        if !self.symptom.is_empty() {
            text.push_str("What fails:\n");
            self.symptom.iter().for_each(|check| {
                let _ = writeln!(text, "  {}", shown(check));
            });
            text.push('\n');
        }
        text.push_str(&self.evidence());
        let _ = writeln!(text, "How sure: {}\n", self.sure());
        text.push_str("Steps:\n");
        for step in &self.steps {
            text.push_str(&line(step));
        }
        let _ = write!(text, "\ngit bisect log:\n{}", indented(&self.bisect_log()));
        let _ = writeln!(text, "\nTo find it again: {}", shown(&self.question.command));
        text
    }

    /// As a mail to a list, without the addresses.
    #[must_use]
    pub fn mail(&self) -> String {
        let mut text = String::from("From: \nTo: \nCc: \n");
        let _ = writeln!(text, "Subject: [REGRESSION] {}\n", self.headline());
        text.push_str(&self.text());
        if let Conclusion::Guilty { commit, .. } = &self.conclusion {
            let _ = writeln!(text, "\n#regzbot introduced: {}", commit.id);
        }
        text
    }

    /// What came out, on a line.
    #[must_use]
    pub fn headline(&self) -> String {
        let named =
            |commit: &Commit| format!("{} (\"{}\")", commit.short(), shown(&commit.subject));
        match &self.conclusion {
            Conclusion::Guilty { commit, doubts } if doubts.is_empty() => {
                format!("{} is the first bad commit", named(commit))
            }
            Conclusion::Guilty { commit, .. } => {
                format!("{} may be the first bad commit", named(commit))
            }
            Conclusion::Among { suspects } => {
                format!("one of {} commits is the first bad one", suspects.len())
            }
            Conclusion::BadIsGood { commit } => {
                format!("the bad end, {}, is good: there is nothing to look for", named(commit))
            }
            Conclusion::GoodIsBad { commit } => format!(
                "the good end, {}, is bad as well: give an older one that is good",
                named(commit)
            ),
            Conclusion::EndUnusable { commit, end, why } => {
                format!("the {}, {}, can't be judged: {}", end.name(), named(commit), shown(why))
            }
            Conclusion::OlderThanFork { base } => format!(
                "{}, where the two ends forked, is bad: it is older than both, and good has a fix that bad lacks",
                named(base)
            ),
        }
    }

    /// How sure it is, for a person.
    #[must_use]
    pub fn sure(&self) -> String {
        let twice = match &self.conclusion {
            Conclusion::Guilty { doubts, .. } if doubts.is_empty() => {
                "; the commit and what it builds upon were judged once more at the end, with the same result"
            }
            _ => "",
        };
        let clocked = |step: &Step| step.seen.clocked.intersection(&self.symptom).next().is_some();
        match self.confidence {
            None if self.steps.iter().any(clocked) => format!(
                "a clock decides some of what fails, and a busy machine may have turned it; a metric can be \
                 judged with a known error, by --metric{twice}"
            ),
            None => format!(
                "each judgement rests on checks that are exact and don't depend on the machine's load{twice}"
            ),
            Some(confidence) => format!(
                "{:.1} %: the probability that noise turned any of the judgements is at most {:.2} %{twice}",
                100.0 * confidence,
                100.0 * (1.0 - confidence)
            ),
        }
    }

    /// The log that `git bisect replay` takes.
    #[must_use]
    pub fn bisect_log(&self) -> String {
        let mut text = String::from("git bisect start\n");
        for step in &self.steps {
            // Git knows no confirmation, and takes the same verdict twice.
            if step.role == Role::Confirmation {
                continue;
            }
            let (word, id) = (step.verdict.name(), &step.commit.id);
            let subject = shown(&step.commit.subject);
            let _ = writeln!(text, "# {word}: [{id}] {subject}\ngit bisect {word} {id}");
        }
        match &self.conclusion {
            Conclusion::Guilty { commit, .. } => {
                let subject = shown(&commit.subject);
                let _ = writeln!(text, "# first bad commit: [{}] {subject}", commit.id);
            }
            Conclusion::Among { suspects } => suspects.iter().for_each(|commit| {
                let subject = shown(&commit.subject);
                let _ = writeln!(text, "# possible first bad commit: [{}] {subject}", commit.id);
            }),
            _ => {}
        }
        text
    }

    fn blamed(&self) -> &[Commit] {
        match &self.conclusion {
            Conclusion::Guilty { commit, .. } => std::slice::from_ref(commit),
            Conclusion::Among { suspects } => suspects,
            _ => &[],
        }
    }

    /// What shows it: at the oldest bad commit, and beside it at the youngest good one.
    fn evidence(&self) -> String {
        let last =
            |verdict: &Verdict| self.steps.iter().rev().find(|step| step.verdict == *verdict);
        let mut text = String::new();
        for step in [last(&Verdict::Bad), last(&Verdict::Good)].into_iter().flatten() {
            let _ = writeln!(
                text,
                "Observed at {}, which is {}:",
                step.commit.short(),
                step.verdict.name()
            );
            for line in step.seen.evidence.iter().take(EVIDENCE) {
                let _ = writeln!(text, "  {}", shown(line));
            }
            if let Some(record) = &step.seen.record {
                let _ = writeln!(text, "  record: {}", shown(record));
            }
            text.push('\n');
        }
        text
    }
}

/// One judgement on a line, with the reason of a skip or what was measured.
pub(crate) fn line(step: &Step) -> String {
    let why = match &step.verdict {
        Verdict::Skip(why) => format!(" ({})", shown(why)),
        // What noise could have turned is told with what was measured.
        _ if step.seen.error > 0.0 => step
            .seen
            .evidence
            .first()
            .map_or_else(String::new, |line| format!(" ({})", shown(line))),
        _ => String::new(),
    };
    format!(
        "  {:<12} {:<4} {} {}{why}\n",
        step.role.name(),
        step.verdict.name(),
        step.commit.short(),
        shown(&step.commit.subject)
    )
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}
