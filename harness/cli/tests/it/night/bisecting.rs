//! Bisections of a real kernel's history, with real builds and real guests, which are killed on the way.
//! An hour and more: asked for by name.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::linux::{DRIVER, FAILS, LAST, NO_BOOT, NO_BUILD, SLOW, repository, subject};
use crate::{
    bisecting::fingerprint,
    place::{Ended, Place, Running},
};

/// What a bisection takes at most, on a machine that has much else to do.
const BISECTION: Duration = Duration::from_secs(4 * 3600);

/// What it takes to come to a build or a guest at most.
const UNDER_WAY: Duration = Duration::from_secs(3600);

/// How often it is looked how far a bisection is.
const LOOK: Duration = Duration::from_millis(100);

/// What is told of a build that a killed run had begun.
const CUT_SHORT: &str = "the last build was cut short";

/// A guest whose time is that of its unmaps: with a long queue none waits for the device. The commit that
/// fails an expectation does nothing without caching mode.
const UNMAPS: &str = "\
case: unmaps
axes: {policy: strict, caching-mode: off}
workload: {block: {block-size: 4KiB, queue-depth: 64, ops: 1000, read-percent: 100, span: 64MiB}}
windows: {count: false, time: 40, warm-up: 1}
";

/// Both are of one history, so that the second one finds most kernels built.
pub(crate) fn bisect_a_real_history() {
    let place = Place::new();
    let tree = repository(&place);
    a_failed_check(&place, &tree);
    nothing_but_time(&place, &tree);
}

fn a_failed_check(place: &Place, tree: &str) {
    let cell = "smoke/caching-mode=on,policy=lazy";
    let ended = bisected(place, tree, &["--case", cell], &[Work::WholeBuild, Work::Guest]);
    found(place, &ended, FAILS);
    for check in ["warning", "psi-per-unmap"] {
        has(&ended.stdout, &format!("  {cell}: {check}"));
    }
    has(&ended.stdout, "How sure: each judgement rests on checks that are exact");
}

fn nothing_but_time(place: &Place, tree: &str) {
    let case = place.file("unmaps.yaml", UNMAPS);
    let metric = ["--case", &case, "--metric", "elapsed", "--limit", "15", "--pairs", "120"];
    let ended = bisected(place, tree, &metric, &[Work::Guest, Work::Build]);
    found(place, &ended, SLOW);
    // It was killed the second time after both ends and the middle.
    for answer in ["bad", "good", "skip"] {
        has(&ended.stderr, &format!("is {answer} (from the journal)"));
    }
    has(&ended.stdout, "What fails:\n  elapsed\n");
    has(&ended.stdout, " times the good kernel's (");
    let sure = ended.stdout.lines().find_map(|line| line.strip_prefix("How sure: ")).unwrap();
    let percent: f64 = sure.split(' ').next().unwrap().parse().unwrap();
    assert!((98.0..100.0).contains(&percent), "{sure}");
}

/// What a bisection is killed in the midst of.
#[derive(Debug, Clone, Copy)]
enum Work {
    /// The build of a whole kernel.
    WholeBuild,
    /// The build of a kernel of which little differs from the last one.
    Build,
    /// A guest whose kernel has begun to boot.
    Guest,
}

impl Work {
    /// Whether it is under way. `before` are the logs of guests that there were before.
    fn is_seen(self, place: &Place, running: &Running, before: &BTreeSet<PathBuf>) -> bool {
        match self {
            Self::WholeBuild => running.output().stderr.contains("  250 files"),
            Self::Build => place.processes().into_iter().any(|process| {
                let words = fs::read(format!("/proc/{}/cmdline", process.as_raw_pid()));
                let words = String::from_utf8_lossy(&words.unwrap_or_default()).into_owned();
                words.contains("/cc1\0") && words.contains(&format!("/{DRIVER}\0"))
            }),
            Self::Guest => consoles(place).difference(before).any(|log| {
                let text = fs::read(log).unwrap_or_default();
                String::from_utf8_lossy(&text).contains("Linux version 5.10.")
            }),
        }
    }
}

/// The logs of all guests so far.
fn consoles(place: &Place) -> BTreeSet<PathBuf> {
    let entries = |path: PathBuf| {
        fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path())
    };
    entries(place.path("runs"))
        .flat_map(|run| entries(run.join("cells")))
        .map(|cell| cell.join("console.log"))
        .filter(|log| log.exists())
        .collect()
}

/// A bisection of the whole history, killed in the midst of these.
fn bisected(place: &Place, tree: &str, more: &[&str], kills: &[Work]) -> Ended {
    let before = fingerprint(Path::new(tree));
    let untouched = || {
        assert!(fingerprint(Path::new(tree)) == before, "the user's clone is not as it was");
    };
    let last = format!("c{LAST}");
    let words = ["bisect", "--tree", tree, "--good", "c0", "--bad", &last, "--accel", "tcg"];
    let mut words = [&words[..], more].concat();
    let mut cut_short = false;
    for work in kills {
        let seen = consoles(place);
        let running = place.start(place.dmarig(&words));
        let begun = Instant::now();
        while !work.is_seen(place, &running, &seen) {
            assert!(!running.ends(LOOK), "it ended before a {work:?}: {:?}", running.output());
            assert!(begun.elapsed() < UNDER_WAY, "no {work:?}: {:?}", running.output());
        }
        running.signal(Signal::KILL);
        let ended = running.wait();
        eprintln!("{}killed in the midst of a {work:?}\n", ended.stderr);
        if cut_short {
            has(&ended.stderr, CUT_SHORT);
        }
        cut_short = !matches!(work, Work::Guest);
        place.no_process_is_left();
        untouched();
        words = vec!["bisect", "--resume"];
    }
    let ended = place.start(place.dmarig(&words)).wait_within(BISECTION);
    eprintln!("{}\n{}", ended.stderr, ended.stdout);
    ended.exits(0);
    if cut_short {
        has(&ended.stderr, CUT_SHORT);
    }
    place.nothing_is_left();
    untouched();
    ended
}

/// Asserts what each of them tells: the commit, and that those which can't be judged were skipped.
#[track_caller]
fn found(place: &Place, ended: &Ended, guilty: usize) {
    let text = &ended.stdout;
    has(text, &format!("(\"{}\") is the first bad commit\n", subject(guilty)));
    has(text, "judged once more at the end, with the same result");
    let skips: Vec<&str> =
        text.lines().filter(|line| line.starts_with("  step         skip ")).collect();
    for line in &skips {
        let (commit, why) = line.split_once(" (").unwrap_or((line, ""));
        let number = (1..=LAST).find(|number| commit.ends_with(subject(*number)));
        match number {
            Some(NO_BOOT) => assert!(why.starts_with("does not boot: "), "{line}"),
            Some(number) if NO_BUILD.contains(&number) => {
                assert!(why.starts_with("does not build: drivers/iommu/intel/"), "{line}");
                assert!(why.contains(": error: "), "{line}");
            }
            _ => panic!("skipped, and it could have been judged: {line}\n{text}"),
        }
    }
    for why in ["(does not boot: ", "(does not build: "] {
        assert!(skips.iter().any(|line| line.contains(why)), "nothing {why}\n{text}");
    }
    let mail = place.run(&["bisect", "--resume", "--format", "mail"]);
    mail.exits(0);
    for line in [
        "From: ",
        &format!(
            "Subject: [REGRESSION] {} is the first bad commit",
            text.split(" is the").next().unwrap()
        ),
        "Author: A Developer <developer@example.org>",
        "git bisect log:",
        "To find it again: ",
        "#regzbot introduced: ",
    ] {
        assert!(
            mail.stdout.lines().any(|told| told.starts_with(line) || told.trim() == line),
            "no `{line}` in\n{}",
            mail.stdout
        );
    }
}

#[track_caller]
fn has(text: &str, part: &str) {
    assert!(text.contains(part), "no `{part}` in\n{text}");
}
