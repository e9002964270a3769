//! Commands in the documentation that boot guests.

use crate::{
    documentation::{commands, documented_case},
    place::Place,
};

/// Words of commands that need something of the reader's own: a kernel, a tree, a device.
const OWN: &[&str] =
    &["bzImage", "mine", "arch/x86/boot/bzImage", "linux-image.deb", "--tree", "--device"];

#[test]
fn runs_documented_commands_that_boot_guests() {
    let place = Place::real();
    place.file("my-disk.yaml", documented_case());
    let mut ran = 0;
    for command in commands() {
        let arguments = command.arguments();
        let own = |word: &&str| OWN.contains(word) || word.starts_with('~');
        let boots = match command.subcommand() {
            "run" | "compare" => true,
            // All seeded bugs have tests of their own.
            "prove" => arguments.contains(&"--bug"),
            _ => false,
        };
        if boots && !arguments.iter().any(own) {
            command.check(&place);
            ran += 1;
        }
    }
    assert!(ran > 5, "only {ran} commands were run");
}
