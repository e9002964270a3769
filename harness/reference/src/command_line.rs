//! The page of commands and their options.

use std::fmt::Write;

use clap::Command;

/// Every visible command's long help, subcommands after their parent.
pub(crate) fn page(mut command: Command) -> String {
    let mut text = String::from("# Command line\n\nThis page is generated from `--help`.\n");
    command.build();
    add_command(&mut text, &command, &mut Vec::new());
    text
}

fn add_command(text: &mut String, command: &Command, parents: &mut Vec<String>) {
    parents.push(command.get_name().to_owned());
    let help = command.clone().term_width(100).render_long_help().to_string();
    let help = help.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    write!(text, "\n## `{}`\n\n```text\n{}\n```\n", parents.join(" "), help.trim_end())
        .expect("a String takes everything");
    for subcommand in command.get_subcommands() {
        if !subcommand.is_hide_set() && subcommand.get_name() != "help" {
            add_command(text, subcommand, parents);
        }
    }
    parents.pop();
}
