//! Killed anywhere, it goes on where it was, asks nothing twice, and comes to the same end.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use dmarig_bisect::{
    Bisection, Conclusion, Error, Evidence, Journal, Judge, JudgeError, JudgeRequest, Summary,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    history::{Fake, History, Silent},
    untouched::fingerprint,
};

const WORDS: &str =
    "good good nobuild good noboot good good bad bad hidden bad nobuild bad bad bad";

/// Set for a process that judges only once its standard input has ended.
const HELD: &str = "DMARIG_BISECT_TEST_HELD";

/// Set for a process that is there to be killed: the place of its bisection.
const PLACE: &str = "DMARIG_BISECT_TEST_PLACE";

fn guilty(summary: &Summary) -> &str {
    let Conclusion::Guilty { commit, doubts } = &summary.conclusion else { panic!("{summary:?}") };
    assert_eq!(doubts, &[""; 0]);
    &commit.subject
}

#[test]
fn interrupted_after_each_judgement_it_asks_nothing_twice() {
    let history = History::line(WORDS);
    let mut whole = Fake::default();
    let summary = history.bisect(0, 14, &mut whole).unwrap();
    assert_eq!(guilty(&summary), "bad 7");
    let all = whole.asked.take();
    for at in 0..all.len() {
        fs::remove_dir_all(history.place()).unwrap();
        let mut first = Fake { patience: Some(at), ..Fake::default() };
        let error = history.bisect(0, 14, &mut first).unwrap_err();
        assert!(matches!(error, Error::Interrupted(_)), "{error}");
        let mut second = Fake::default();
        let again = history.resume(&mut second).unwrap();
        let asked = [first.asked.take(), second.asked.take()].concat();
        assert_eq!((asked, again.text()), (all.clone(), summary.text()), "interrupted after {at}");
    }
    // One that has ended is told again without any judgement.
    let mut none = Fake::default();
    assert_eq!(history.resume(&mut none).unwrap().text(), summary.text());
    assert_eq!(none.asked.take(), []);
}

#[test]
fn a_journal_cut_anywhere_goes_on() {
    let history = History::line("good good bad bad");
    let summary = history.bisect(0, 3, &mut Fake::default()).unwrap();
    let path = history.place().join("b0/journal.jsonl");
    let whole = fs::read(&path).unwrap();
    let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for cut in (first..whole.len()).step_by(37) {
        fs::write(&path, &whole[..cut]).unwrap();
        assert_eq!(
            history.resume(&mut Fake::default()).unwrap().text(),
            summary.text(),
            "at {cut}"
        );
    }
    fs::write(&path, &whole[..first - 1]).unwrap();
    let error = history.resume(&mut Fake::default()).unwrap_err().to_string();
    assert!(error.contains("does not contain the question"), "{error}");
    fs::write(&path, "{\"what\":\"asked\",\"schema\":99}\n").unwrap();
    let error = history.resume(&mut Fake::default()).unwrap_err().to_string();
    assert!(error.contains("version 99"), "{error}");
}

#[test]
fn what_a_killed_git_leaves_is_mended() {
    let history = History::line(WORDS);
    let mut judge = Fake { patience: Some(3), ..Fake::default() };
    history.bisect(0, 14, &mut judge).unwrap_err();
    let work = history.place().join("b0/work");
    let tree = work.join("tree");
    fs::write(tree.join(".git/index.lock"), "").unwrap();
    fs::write(tree.join(".git/HEAD.lock"), "").unwrap();
    fs::write(tree.join("what"), "half").unwrap();
    fs::create_dir_all(tree.join("dir/of/another")).unwrap();
    fs::write(tree.join("dir/of/another/commit"), "x").unwrap();
    fs::write(tree.join(".git/index"), "broken").unwrap_or_default();
    fs::remove_file(tree.join(".git/index")).unwrap();
    let journal = fs::read(history.place().join("b0/journal.jsonl")).unwrap();
    assert_eq!(guilty(&history.resume(&mut Fake::default()).unwrap()), "bad 7");
    // Half made, or gone altogether.
    for spoil in [
        |tree: &Path| drop(fs::remove_dir_all(tree)),
        |tree: &Path| {
            fs::create_dir_all(tree.join(".git")).unwrap();
            fs::write(tree.join(".git/config"), "half").unwrap();
        },
    ] {
        fs::write(history.place().join("b0/journal.jsonl"), &journal).unwrap();
        spoil(&tree);
        assert_eq!(guilty(&history.resume(&mut Fake::default()).unwrap()), "bad 7");
    }
}

#[test]
fn two_at_once_are_refused() {
    let history = History::line("good bad");
    Journal::create(&history.place().join("b0"), history.question(0, 1)).unwrap();
    let mut child = child(&history, true);
    let mut lines = told(&mut child);
    // It has the workspace from here on, until its standard input ends.
    assert!(lines.by_ref().any(|line| line.contains("judging ")));
    let error = history.resume(&mut Fake::default()).unwrap_err();
    assert!(matches!(&error, Error::InUse(_)), "{error}");
    drop(child.stdin.take());
    assert!(lines.any(|line| line.contains("end bad 1")));
    child.wait().unwrap();
    assert_eq!(guilty(&history.resume(&mut Fake::default()).unwrap()), "bad 1");
}

fn child(history: &History, held: bool) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "resumes::to_be_killed", "--nocapture", "--test-threads=1"])
        .env(PLACE, history.place())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if held {
        command.env(HELD, "1").stdin(Stdio::piped());
    }
    command.spawn().unwrap()
}

fn told(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    let told = ["open", "ready", "judging ", "judged ", "end "];
    BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .filter(move |line| told.iter().any(|word| line.contains(word)))
}

/// The part of the process that is killed: it tells each judgement before and after, and judges.
struct Telling(Fake);

impl Judge for Telling {
    fn judge(&mut self, asked: &JudgeRequest<'_>) -> Result<Evidence, JudgeError> {
        println!("judging {} {}", asked.commit.subject, asked.role.name());
        if std::env::var_os(HELD).is_some() {
            let _ = std::io::stdin().lines().count();
        }
        let seen = self.0.judge(asked);
        println!("judged {}", asked.commit.subject);
        seen
    }
}

/// No test of its own: what the next one starts.
#[test]
fn to_be_killed() {
    let Some(place) = std::env::var_os(PLACE) else { return };
    let journal = Journal::find(Path::new(&place), "last").unwrap();
    println!("open");
    let mut judge = Telling(Fake::default());
    let bisection = Bisection::new(journal, &mut judge, &Silent).unwrap();
    println!("ready");
    println!("end {}", guilty(&bisection.run().unwrap()));
}

/// Killed for good, a hundred times, at every line that it tells and in between, by SIGKILL.
#[test]
fn killed_a_hundred_times_it_comes_to_its_end() {
    let history = History::line(WORDS);
    let before = fingerprint(&history.tree);
    let (mut kills, mut ends) = (0, 0);
    while kills < 100 {
        let _ = fs::remove_dir_all(history.place());
        fs::create_dir_all(history.place()).unwrap();
        Journal::create(&history.place().join("b0"), history.question(0, 14)).unwrap();
        // From run to run it is let live for one line more, so that it comes to its end.
        for lines in 1.. {
            let mut child = child(&history, false);
            let mut seen = told(&mut child);
            let until = lines % 5 + 1 + usize::from(ends % 2 == 1);
            let last = seen.by_ref().take(until).last().unwrap_or_default();
            // While it goes on: in the middle of a checkout, or of a line of the journal.
            kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
            kills += 1;
            let rest: Vec<String> = seen.collect();
            child.wait().unwrap();
            assert_eq!(fingerprint(&history.tree), before);
            let end = [vec![last], rest].concat().into_iter().find(|line| line.contains("end "));
            if let Some(end) = end {
                assert!(end.contains("end bad 7"), "{end}");
                ends += 1;
                break;
            }
            assert!(lines < 500, "it comes to no end");
        }
    }
    assert!(ends > 1);
    // And what is there is told again.
    assert_eq!(guilty(&history.resume(&mut Fake::default()).unwrap()), "bad 7");
}
