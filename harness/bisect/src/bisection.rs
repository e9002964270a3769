//! The bisection: both ends first, then halves, then the guilty one and its parents once more.

use std::{collections::BTreeSet, path::Path, time::Instant};

use crate::{
    Error, Result,
    journal::{Entry, Journal},
    question::{Evidence, Judge, JudgeError, JudgeRequest, Question, Role},
    search::{Next, Verdicts, next},
    summary::{Conclusion, Step, Summary},
    symptom::{Verdict, classify},
    workspace::{Commit, Workspace},
};

/// Judgements beside the steps: two ends, the guilty one and a parent once more, and one to spare.
const BESIDES: u32 = 5;

/// What a person sees while it goes on.
pub trait Events {
    /// A commit is about to be judged; so many may be guilty, and about so many steps are left.
    fn judging(&self, commit: &Commit, role: Role, left: Option<(u64, u32)>);
    /// It was; `again` where the answer is an earlier run's.
    fn judged(&self, step: &Step, again: bool);
    /// It could not be, and is tried once more.
    fn trouble(&self, commit: &Commit, said: &str);
}

/// A bisection under way.
pub struct Bisection<'a> {
    journal: Journal,
    workspace: Workspace,
    judge: &'a mut dyn Judge,
    events: &'a dyn Events,
    symptom: BTreeSet<String>,
    steps: Vec<Step>,
    good: Commit,
    /// Of the error that may be made in all: what is left.
    error_left: f64,
    /// Judgements to come, at a guess.
    to_come: u32,
}

/// An end of the bisection before it could begin, or the way on.
type StepResult<T> = Result<std::result::Result<T, Conclusion>>;

impl<'a> Bisection<'a> {
    /// Begins one, or goes on with one, whose journal is in a directory of its own.
    ///
    /// # Errors
    /// What is wrong with the two ends, with git, or with the place.
    pub fn new(journal: Journal, judge: &'a mut dyn Judge, events: &'a dyn Events) -> Result<Self> {
        let question = journal.question().clone();
        let workspace = Workspace::open(&journal.directory().join("work"), &question.tree)?;
        check_ends(&workspace, &question)?;
        let good = workspace.commit(&question.good.1)?;
        let many =
            workspace.candidates(&question.bad.1, std::slice::from_ref(&question.good.1))?.len();
        Ok(Self {
            to_come: steps_for(many as u64) + BESIDES,
            error_left: question.error,
            symptom: question.only.clone(),
            steps: Vec::new(),
            journal,
            workspace,
            judge,
            events,
            good,
        })
    }

    /// The probability with which noise may turn one judgement, in the first of them: no later one is
    /// held to less, unless more have to be made than halving takes.
    #[must_use]
    pub fn error_of_each(&self) -> f64 {
        self.error_left / f64::from(self.to_come.max(1))
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// [`Error::Host`] and [`Error::Interrupted`], after which it can be gone on with; what git says.
    pub fn run(mut self) -> Result<Summary> {
        let conclusion = match self.ends()? {
            Err(conclusion) => conclusion,
            Ok(known) => self.halve(known)?,
        };
        let question = self.journal.question().clone();
        let summary = Summary::new(question, self.steps, self.symptom, conclusion);
        self.workspace.discard()?;
        Ok(summary)
    }

    /// Both ends, and where they forked.
    fn ends(&mut self) -> StepResult<Verdicts> {
        let question = self.journal.question().clone();
        let bad = self.workspace.commit(&question.bad.1)?;
        let (seen, again) = self.seen(&bad, Role::BadEnd, None)?;
        if let Some(obstacle) = &seen.obstacle {
            let why = obstacle.told();
            self.note(bad.clone(), Role::BadEnd, seen, Verdict::Skip(why.clone()), again);
            return Ok(Err(Conclusion::EndUnusable { commit: bad, end: Role::BadEnd, why }));
        }
        if self.symptom.is_empty() {
            self.symptom = seen.failed.clone();
        }
        let verdict = match (&seen.unclear, self.symptom.is_empty()) {
            (_, false) => classify(&self.symptom, &seen),
            // What is open in one cell may be the very fault.
            (Some(unclear), true) => Verdict::Skip(unclear.told()),
            (None, true) => Verdict::Good,
        };
        self.note(bad.clone(), Role::BadEnd, seen, verdict.clone(), again);
        match verdict {
            Verdict::Bad => {}
            Verdict::Good => return Ok(Err(Conclusion::BadIsGood { commit: bad })),
            Verdict::Skip(why) => {
                return Ok(Err(Conclusion::EndUnusable { commit: bad, end: Role::BadEnd, why }));
            }
        }
        let good = self.good.clone();
        match self.verdict(&good, Role::GoodEnd, None)? {
            Verdict::Good => {}
            Verdict::Bad => return Ok(Err(Conclusion::GoodIsBad { commit: good })),
            Verdict::Skip(why) => {
                return Ok(Err(Conclusion::EndUnusable { commit: good, end: Role::GoodEnd, why }));
            }
        }
        let mut known =
            Verdicts { good: vec![good.id], bad: bad.id.clone(), skipped: Default::default() };
        for base in self.workspace.merge_bases(&known.bad, &self.good.id)? {
            if base == self.good.id {
                continue;
            }
            let base = self.workspace.commit(&base)?;
            match self.verdict(&base, Role::MergeBase, None)? {
                Verdict::Good => known.good.push(base.id),
                // Good must have a fix that bad lacks: what broke it lies before both.
                Verdict::Bad => return Ok(Err(Conclusion::OlderThanFork { base })),
                // As git does: the ends were judged themselves.
                Verdict::Skip(_) => {}
            }
        }
        Ok(Ok(known))
    }

    fn halve(&mut self, mut known: Verdicts) -> Result<Conclusion> {
        loop {
            let (commit, left) = match next(&self.workspace, &known)? {
                Next::Judge { commit, left } => (self.workspace.commit(&commit)?, left),
                Next::Guilty(id) => return self.confirm(&id),
                Next::Among(ids) => {
                    let suspects = ids.iter().map(|id| self.workspace.commit(id));
                    return Ok(Conclusion::Among { suspects: suspects.collect::<Result<_>>()? });
                }
            };
            let steps = steps_for(left);
            self.to_come = steps + 3;
            match self.verdict(&commit, Role::Step, Some((left, steps)))? {
                Verdict::Good => known.good.push(commit.id),
                Verdict::Bad => known.bad = commit.id,
                Verdict::Skip(why) => {
                    known.skipped.insert(commit.id, why);
                }
            }
        }
    }

    /// The guilty one and its parents once more: a verdict that does not come again is worth nothing, and
    /// a parent that came in by a merge may never have been judged itself.
    fn confirm(&mut self, id: &str) -> Result<Conclusion> {
        let commit = self.workspace.commit(id)?;
        let parents = self.workspace.parents(id)?;
        self.to_come = 1 + parents.len() as u32;
        let mut doubts = Vec::new();
        match self.verdict(&commit, Role::Confirmation, None)? {
            Verdict::Bad => {}
            Verdict::Good => {
                doubts.push(format!("{} was good when it was judged once more", commit.short()))
            }
            Verdict::Skip(why) => doubts.push(format!("{} once more: {why}", commit.short())),
        }
        for parent in parents {
            let parent = self.workspace.commit(&parent)?;
            match self.verdict(&parent, Role::Confirmation, None)? {
                Verdict::Good => {}
                Verdict::Bad => doubts.push(format!(
                    "its parent {} is bad as well: the history goes more than once between good and bad",
                    parent.short()
                )),
                Verdict::Skip(why) => doubts.push(format!("its parent {}: {why}", parent.short())),
            }
        }
        Ok(Conclusion::Guilty { commit, doubts })
    }

    fn verdict(
        &mut self,
        commit: &Commit,
        role: Role,
        left: Option<(u64, u32)>,
    ) -> Result<Verdict> {
        let (seen, again) = self.seen(commit, role, left)?;
        let verdict = classify(&self.symptom, &seen);
        self.note(commit.clone(), role, seen, verdict.clone(), again);
        Ok(verdict)
    }

    fn note(&mut self, commit: Commit, role: Role, seen: Evidence, verdict: Verdict, again: bool) {
        self.error_left = (self.error_left - seen.error).max(0.0);
        self.to_come = self.to_come.saturating_sub(1).max(1);
        let step = Step { commit, role, seen, verdict };
        self.events.judged(&step, again);
        self.steps.push(step);
    }

    /// What is to be seen of a commit: what an earlier run saw (then true), or what the judge sees now.
    fn seen(
        &mut self,
        commit: &Commit,
        role: Role,
        left: Option<(u64, u32)>,
    ) -> Result<(Evidence, bool)> {
        if let Some(seen) = self.journal.recall(&commit.id, role) {
            return Ok((seen, true));
        }
        self.events.judging(commit, role, left);
        let mut tried = false;
        loop {
            let begun = Instant::now();
            let asked = JudgeRequest {
                commit,
                role,
                good: &self.good,
                workspace: &self.workspace,
                error: self.error_of_each(),
            };
            let id = || {
                let name = self.journal.directory().file_name().unwrap_or_default();
                name.to_string_lossy().into_owned()
            };
            match self.judge.judge(&asked) {
                Ok(seen) => {
                    let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                    let entry =
                        Entry::Judged { commit: commit.clone(), role, seen: seen.clone(), took_ms };
                    self.journal.add(&entry)?;
                    return Ok((seen, false));
                }
                Err(JudgeError::Interrupted) => return Err(Error::Interrupted(id())),
                Err(JudgeError::Host(said)) => {
                    let (commit_id, id) = (commit.id.clone(), id());
                    let entry =
                        Entry::JudgeError { commit: commit_id.clone(), role, said: said.clone() };
                    self.journal.add(&entry)?;
                    if tried {
                        return Err(Error::Host { commit: commit_id, said, id });
                    }
                    self.events.trouble(commit, &said);
                    tried = true;
                }
            }
        }
    }
}

/// Steps that halving takes.
fn steps_for(candidates: u64) -> u32 {
    candidates.max(1).next_power_of_two().trailing_zeros()
}

fn check_ends(workspace: &Workspace, question: &Question) -> Result<()> {
    let told = |(name, id): &(String, String)| match name == id {
        true => id.clone(),
        false => format!("{name}, {}", &id[..id.len().min(12)]),
    };
    let (good, bad) = (&question.good, &question.bad);
    if good.1 == bad.1 {
        return Err(Error::SameEnds(told(good)));
    }
    let bases = workspace.merge_bases(&bad.1, &good.1)?;
    if bases.is_empty() {
        return Err(Error::Unrelated { good: told(good), bad: told(bad) });
    }
    if bases.contains(&bad.1) {
        return Err(Error::Reversed { good: told(good), bad: told(bad) });
    }
    Ok(())
}

impl Journal {
    /// The journal of that name in `place`, or of the newest bisection there for `last`.
    ///
    /// # Errors
    /// [`Error::Unknown`], or what is wrong with it.
    pub fn find(place: &Path, name: &str) -> Result<Self> {
        let unknown = || Error::Unknown { name: name.to_owned(), place: place.to_owned() };
        let directory = if name == "last" {
            let entries = std::fs::read_dir(place).map_err(|_| unknown())?;
            // What begins with a dot is none.
            let named = |path: &std::path::PathBuf| {
                !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
            };
            entries.flatten().map(|entry| entry.path()).filter(named).max().ok_or_else(unknown)?
        } else {
            // A name, not a path: it came from our own messages.
            let plain = !name.is_empty() && !name.contains('/') && name != ".." && name != ".";
            plain.then(|| place.join(name)).filter(|path| path.is_dir()).ok_or_else(unknown)?
        };
        Self::open(&directory)
    }
}
