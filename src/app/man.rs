//! `prepull man`: manual pages out of the same definitions as the help.

use std::io;

use anyhow::{Context, Result, bail};
use clap::{Command, CommandFactory};
use clap_mangen::{Man, roff};

use super::exit::Exit;
use super::man_text;
use crate::cli::Cli;
use crate::inventory;
use crate::model::text::escape_line;
use crate::report;

/// Prints the page of prepull, or of the command with this path.
pub(super) fn print(path: &[String]) -> Result<Exit> {
    if path == ["inventory"] {
        report::print_stdout(&inventory_page()?)?;
        return Ok(Exit::Success);
    }
    let mut command = built();
    for word in path {
        command = match command.find_subcommand(word) {
            Some(inner) => inner.clone(),
            None => bail!("{}", unknown(&command, word)),
        };
    }
    report::print_stdout(&page(&command).context("cannot write the page")?)?;
    Ok(Exit::Success)
}

/// What to say of a command that does not exist.
fn unknown(command: &Command, word: &str) -> String {
    let mut known: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
    if command.get_name() == "prepull" {
        known.push("inventory");
    }
    let hint = match (inventory::nearest(word, &known), known.is_empty()) {
        (Some(meant), _) => format!("did you mean {meant:?}?"),
        (None, false) => format!("there are pages of {}", known.join(", ")),
        (None, true) => format!("{} has no commands of its own", command.get_name()),
    };
    format!("no manual page of {:?}: {hint}", escape_line(word))
}

/// All pages with their file names, such as `prepull-pull.1`: for packages.
///
/// # Errors
/// What the writer of pages answers; it writes to memory.
pub fn pages() -> io::Result<Vec<(String, String)>> {
    fn add(command: &Command, pages: &mut Vec<(String, String)>) -> io::Result<()> {
        pages.push((Man::new(command.clone()).get_filename(), page(command)?));
        command
            .get_subcommands()
            .try_for_each(|inner| add(inner, pages))
    }
    let mut pages = vec![("prepull-inventory.5".to_string(), inventory_page()?)];
    add(&built(), &mut pages)?;
    Ok(pages)
}

/// The format of inventories: prepull-inventory(5).
fn inventory_page() -> io::Result<String> {
    let mut page = Vec::new();
    let mut title = roff::Roff::default();
    title.control("TH", ["prepull-inventory", "5", "", "", "prepull"]);
    title.to_writer(&mut page)?;
    for (heading, text) in man_text::INVENTORY {
        section(heading, text, &mut page)?;
    }
    String::from_utf8(page).map_err(io::Error::other)
}

/// The definitions with every command's full name.
fn built() -> Command {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    command
}

fn page(command: &Command) -> io::Result<String> {
    let mut command = command.clone();
    let examples = command.get_before_long_help().or(command.get_before_help());
    let examples = examples.map(ToString::to_string);
    let exit = command.get_after_long_help().or(command.get_after_help());
    let exit = exit
        .map(ToString::to_string)
        .filter(|text| !text.is_empty());
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim().to_owned();
    let has_options = command.get_arguments().any(|option| !option.is_hide_set());
    let has_commands = command.has_subcommands();
    let is_about_all = command.get_name() == "prepull";
    let man = Man::new(command.override_usage(usage)).manual("prepull");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    literal("EXAMPLES", examples, &mut page)?;
    if has_commands {
        man.render_subcommands_section(&mut page)?;
    }
    if has_options {
        man.render_options_section(&mut page)?;
    }
    literal("EXIT STATUS", exit, &mut page)?;
    if is_about_all {
        for (heading, text) in [man_text::FILES, man_text::ENVIRONMENT] {
            section(heading, text, &mut page)?;
        }
    }
    String::from_utf8(page).map_err(io::Error::other)
}

/// A section that keeps its lines, without its first, which is the help's heading.
fn literal(heading: &str, text: Option<String>, page: &mut Vec<u8>) -> io::Result<()> {
    let Some(text) = text else {
        return Ok(());
    };
    let lines = text.split_once('\n').map_or("", |(_, lines)| lines);
    section(heading, lines, page)
}

/// A section that keeps its lines.
fn section(heading: &str, text: &str, page: &mut Vec<u8>) -> io::Result<()> {
    let mut section = roff::Roff::default();
    section.control("SH", [heading]);
    section.control("nf", []);
    for line in text.lines() {
        section.text([roff::roman(line)]);
    }
    section.control("fi", []);
    section.to_writer(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_options() {
        let pages = pages().unwrap();
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for name in [
            "prepull.1",
            "prepull-pull.1",
            "prepull-runs-show.1",
            "prepull-inventory.5",
        ] {
            assert!(names.contains(&name), "{names:?}");
        }
        let page = |name: &str| {
            let found = pages.iter().find(|(known, _)| known == name);
            &found.unwrap().1
        };
        for (name, part) in [
            ("prepull.1", ".SH FILES"),
            ("prepull.1", ".SH ENVIRONMENT"),
            ("prepull.1", ".SH EXAMPLES"),
            ("prepull-inventory.5", "gpu[01\\-16].dc1.example"),
        ] {
            assert!(page(name).contains(part), "{part}: {}", page(name));
        }
        let pull = page("prepull-pull.1");
        for part in [
            ".SH EXAMPLES",
            ".SH FLEET",
            ".SH \"EXIT STATUS\"",
            "max\\-failures",
        ] {
            assert!(pull.contains(part), "{part}: {pull}");
        }
        let error = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            print(&words).unwrap_err().to_string()
        };
        for (words, wanted) in [
            (
                &["pul"][..],
                "no manual page of \"pul\": did you mean \"pull\"?",
            ),
            (
                &["runs", "shwo"],
                "no manual page of \"shwo\": did you mean \"show\"?",
            ),
            (
                &["runs", "delete"],
                "no manual page of \"delete\": there are pages of list, show, report",
            ),
            (
                &["pull", "x"],
                "no manual page of \"x\": pull has no commands of its own",
            ),
        ] {
            assert_eq!(error(words), wanted);
        }
    }
}
