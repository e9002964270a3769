//! Completion of arguments in a shell.

use rstest::rstest;

use crate::place::Place;

/// Candidates for the last word.
fn complete(place: &Place, words: &[&str]) -> Vec<String> {
    let mut arguments = vec!["--", "dmarig"];
    arguments.extend(words);
    let mut command = place.dmarig(&arguments);
    command
        .env("COMPLETE", "bash")
        .env("_CLAP_IFS", "\n")
        .env("_CLAP_COMPLETE_INDEX", words.len().to_string());
    let output = command.output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[rstest]
#[case::command(&["bisect-"], "bisect-step")]
#[case::option(&["run", "--stock"], "--stock-boot")]
#[case::built_in_case(&["run", "smo"], "smoke")]
#[case::case_file(&["run", "my"], "my.yaml")]
#[case::cell(&["run", "-c", "smoke/caching-mode=on,policy=l"], "smoke/caching-mode=on,policy=lazy,kernel=debian-6.1")]
#[case::kernel(&["run", "-k", "debian-6.1"], "debian-6.12")]
#[case::qemu(&["run", "--qemu", "qemu-11"], "qemu-11.1")]
#[case::axis(&["run", "--set", "caching"], "caching-mode=")]
#[case::image(&["images", "fetch", "qemu-7"], "qemu-7.2")]
#[case::recorded_run(&["judge", "2026"], "20260102T030405.000000Z-abcdef")]
fn completes(#[case] words: &[&str], #[case] expected: &str) {
    let place = Place::new();
    place.file("my.yaml", "");
    place.file("runs/20260102T030405.000000Z-abcdef/run.json", "{}");
    let candidates = complete(&place, words);
    assert!(candidates.iter().any(|candidate| candidate == expected), "{candidates:?}");
}

#[rstest]
#[case::case(&["run", "nothing-begins-so"])]
#[case::recorded_run(&["judge", "1999"])]
fn offers_only_values_with_the_prefix(#[case] words: &[&str]) {
    assert_eq!(complete(&Place::new(), words), Vec::<String>::new());
}

#[rstest]
#[case("bash")]
#[case("zsh")]
#[case("fish")]
fn registers_with_a_shell(#[case] shell: &str) {
    let place = Place::new();
    let output = place.dmarig(&[]).env("COMPLETE", shell).output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().contains("COMPLETE"));
}
