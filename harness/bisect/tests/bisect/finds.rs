//! What is found, and what is not.

use dmarig_bisect::{Conclusion, Error, Role};

use crate::history::{Fake, History, Made};

/// The numbers of those that are blamed, by the number in their subject.
fn blamed(conclusion: &Conclusion) -> Vec<usize> {
    let number =
        |subject: &str| subject.rsplit(' ').next().and_then(|word| word.parse().ok()).unwrap();
    match conclusion {
        Conclusion::Guilty { commit, doubts } => {
            assert_eq!(doubts, &[""; 0]);
            vec![number(&commit.subject)]
        }
        Conclusion::Among { suspects } => {
            let mut all: Vec<usize> =
                suspects.iter().map(|commit| number(&commit.subject)).collect();
            all.sort_unstable();
            all
        }
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn check(words: &str, guilty: &[usize]) {
    let history = History::line(words);
    let last = words.split_ascii_whitespace().count() - 1;
    let mut judge = Fake::default();
    let summary = history.bisect(0, last, &mut judge).unwrap();
    assert_eq!(blamed(&summary.conclusion), guilty, "{words}: {}", summary.text());
}

#[test]
fn every_place_in_a_line_is_found() {
    for size in 2..8 {
        for guilty in 1..size {
            let words: Vec<&str> =
                (0..size).map(|at| if at < guilty { "good" } else { "bad" }).collect();
            check(&words.join(" "), &[guilty]);
        }
    }
}

#[test]
fn what_can_not_be_judged_is_never_blamed() {
    check("good nobuild good noboot bad bad", &[3, 4]);
    check(
        "good good nobuild nobuild bad good_ bad".replace("good_", "nobuild").as_str(),
        &[2, 3, 4],
    );
    check("good nobuild good bad noboot bad", &[3]);
    check("good nobuild nobuild nobuild nobuild bad", &[1, 2, 3, 4, 5]);
    check("good nobuild nobuild good bad nobuild nobuild nobuild nobuild nobuild bad", &[4]);
    // Another bug that hides the symptom, and one that doesn't.
    check("good hidden good beside bad bad", &[4]);
    check("good beside beside bad beside_".replace(" beside_", "").as_str(), &[3]);
    check("good good hidden bad", &[2, 3]);
}

#[test]
fn a_side_branch_is_followed() {
    // 0 - 1 - 2 ----- 6 - 7
    //      \ 3 - 4 - 5 /
    let branch: &[Made<'_>] = &[
        ("good", &[]),
        ("good", &[0]),
        ("good", &[1]),
        ("good", &[1]),
        ("bad", &[3]),
        ("bad", &[4]),
        ("bad", &[2, 5]),
        ("bad", &[6]),
    ];
    let history = History::of(branch, false);
    let summary = history.bisect(0, 7, &mut Fake::default()).unwrap();
    assert_eq!(blamed(&summary.conclusion), [4]);
    // A merge of two good sides that is bad itself is guilty, and both its parents are judged.
    let mut merge = branch.to_vec();
    (merge[4].0, merge[5].0) = ("good", "good");
    let history = History::of(&merge, true);
    let mut judge = Fake::default();
    let summary = history.bisect(0, 7, &mut judge).unwrap();
    assert_eq!(blamed(&summary.conclusion), [6]);
    let confirmed: Vec<usize> = judge
        .asked
        .borrow()
        .iter()
        .filter(|(_, role)| *role == Role::Confirmation)
        .map(|(number, _)| *number)
        .collect();
    assert_eq!(confirmed, [6, 2, 5]);
}

#[test]
fn ends_on_two_branches_are_judged_where_they_forked() {
    // 0 - 1 - 2 (good)
    //      \ 3 - 4 (bad)
    let mut fork: Vec<Made<'_>> =
        vec![("good", &[]), ("good", &[0]), ("good", &[1]), ("good", &[1]), ("bad", &[3])];
    let history = History::of(&fork, true);
    assert_eq!(blamed(&history.bisect(2, 4, &mut Fake::default()).unwrap().conclusion), [4]);
    fork[1].0 = "bad";
    let history = History::of(&fork, true);
    let summary = history.bisect(2, 4, &mut Fake::default()).unwrap();
    let Conclusion::OlderThanFork { base } = &summary.conclusion else { panic!("{summary:?}") };
    assert_eq!(base.id, history.id(1));
}

#[test]
fn wrong_ends_are_told_at_once() {
    for (words, judgements, told) in [
        ("bad bad bad bad bad bad", 2, "is bad as well: give an older one"),
        ("good good good good", 1, "is good: there is nothing to look for"),
        ("good bad nobuild", 1, "can't be judged: does not build: x.c:1: error: y"),
        ("noboot bad bad", 2, "can't be judged: does not boot"),
        // What does not boot may be the very fault: no "there is nothing to look for".
        ("good bad half", 1, "can't be judged: does not boot"),
        ("hidden bad bad", 2, "psi could not be judged; failed at log"),
    ] {
        let history = History::line(words);
        let mut judge = Fake::default();
        let last = words.split(' ').count() - 1;
        let summary = history.bisect(0, last, &mut judge).unwrap();
        assert!(summary.headline().contains(told), "{words}: {}", summary.headline());
        assert_eq!(judge.asked.borrow().len(), judgements, "{words}");
    }
    let history = History::line("good bad");
    let unrelated: &[Made<'_>] = &[("good", &[]), ("bad", &[])];
    for (result, told) in [
        (history.bisect(1, 0, &mut Fake::default()), "swap them"),
        (history.bisect(1, 1, &mut Fake::default()), "the same commit"),
        (History::of(unrelated, true).bisect(0, 1, &mut Fake::default()), "no common ancestor"),
    ] {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
}

/// A history that goes back and forth has several first bad commits: one of them is named, and its parent
/// is good.
#[test]
fn in_a_history_that_is_not_monotonic_a_true_border_is_named() {
    let words = "good bad bad good good bad good bad bad bad";
    let history = History::line(words);
    let summary = history.bisect(0, 9, &mut Fake::default()).unwrap();
    let [found] = blamed(&summary.conclusion)[..] else { panic!("{summary:?}") };
    let words: Vec<&str> = words.split(' ').collect();
    assert_eq!((words[found - 1], words[found]), ("good", "bad"), "{found}");
}

#[test]
fn a_parent_that_is_bad_itself_is_a_doubt() {
    // 4 is bad and a parent of the guilty merge 5, but good 3 has it for an ancestor.
    let history =
        History::of(&[("good", &[]), ("bad", &[0]), ("good", &[1]), ("bad", &[2, 1])], true);
    let summary = history.bisect(2, 3, &mut Fake::default()).unwrap();
    let Conclusion::Guilty { commit, doubts } = &summary.conclusion else { panic!("{summary:?}") };
    assert_eq!(commit.id, history.id(3));
    assert!(doubts[0].contains("more than once between good and bad"), "{doubts:?}");
    assert!(summary.headline().contains("may be the first bad commit"));
}

#[test]
fn what_does_not_come_again_is_a_doubt() {
    let history = History::line("good good bad bad");
    let mut judge = Fake { fickle: true, ..Fake::default() };
    let summary = history.bisect(0, 3, &mut judge).unwrap();
    let Conclusion::Guilty { doubts, .. } = &summary.conclusion else { panic!("{summary:?}") };
    assert!(doubts[0].contains("was good when it was judged once more"), "{doubts:?}");
}

#[test]
fn trouble_is_tried_once_more_then_stops_and_blames_nobody() {
    let history = History::line("good good bad bad bad");
    let mut judge = Fake { troubles: vec![0, 3], ..Fake::default() };
    let summary = history.bisect(0, 4, &mut judge).unwrap();
    assert_eq!(blamed(&summary.conclusion), [2]);
    let mut judge = Fake { troubles: vec![2, 3], ..Fake::default() };
    let error = history.bisect(0, 4, &mut judge).unwrap_err();
    assert!(matches!(&error, Error::Host { said, .. } if said == "the disk is full"), "{error}");
    assert!(error.to_string().contains("--resume b1"), "{error}");
    assert_eq!(blamed(&history.resume(&mut Fake::default()).unwrap().conclusion), [2]);
}

#[test]
fn errors_never_add_up_to_more_than_was_allowed() {
    for size in [2, 3, 9, 40] {
        let words: Vec<&str> = (0..size)
            .map(|at| match at {
                0 => "good",
                _ if at + 1 == size => "bad",
                _ if at % 3 == 0 => "nobuild",
                _ if at < size / 2 => "good",
                _ => "bad",
            })
            .collect();
        let history = History::line(&words.join(" "));
        let mut judge = Fake { error: 1.0, ..Fake::default() };
        let summary = history.bisect(0, size - 1, &mut judge).unwrap();
        let confidence = summary.confidence.unwrap();
        assert!((0.98 - 1e-9..1.0).contains(&confidence), "{size}: {confidence}");
    }
}

#[test]
fn steps_are_told_with_what_was_measured() {
    let history = History::line("good good bad");
    let mut judge = Fake { error: 1.0, ..Fake::default() };
    let text = history.bisect(0, 2, &mut judge).unwrap().text();
    let id = history.id(2);
    // The words of the one who judged it.
    let told = format!("  bad end      bad  {} bad 2 (bad)\n", &id[..12]);
    assert!(text.contains(&told), "no `{told}` in\n{text}");
}

#[test]
fn a_summary_has_what_a_mail_needs() {
    let history = History::line("good good nobuild good good bad bad bad");
    let summary = history.bisect(0, 7, &mut Fake::default()).unwrap();
    let mail = summary.mail();
    let id = history.id(5);
    for text in [
        &format!("Subject: [REGRESSION] {} (\"bad 5\") is the first bad commit", &id[..12]),
        &format!("commit {id}"),
        "Author: A <a@b>",
        "What fails:\n  psi",
        "Observed at ",
        "How sure: each judgement rests on checks that are exact",
        "judged once more at the end, with the same result",
        &format!("# first bad commit: [{id}] bad 5"),
        &format!("#regzbot introduced: {id}"),
        "To find it again: dmarig bisect",
    ] {
        assert!(mail.contains(text), "no `{text}` in\n{mail}");
    }
    assert_eq!(serde_json::to_value(&summary).unwrap()["conclusion"]["what"], "guilty");
    // Git itself comes to the same by that log.
    let clone = history.root.path().join("clone");
    crate::history::git(
        history.root.path(),
        &["clone", "-q", history.tree.to_str().unwrap(), "clone"],
    );
    std::fs::write(clone.join(".git/log"), summary.bisect_log()).unwrap();
    let replay = std::process::Command::new("git")
        .args(["bisect", "replay", ".git/log"])
        .current_dir(&clone)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&replay.stdout).into_owned();
    assert!(
        said.contains(&format!("{id} is the first bad commit")),
        "{said}\n{}",
        summary.bisect_log()
    );
}
