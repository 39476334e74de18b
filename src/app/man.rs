//! `prepull man`: manual pages out of the same definitions as the help.

use std::io;

use anyhow::{Context, Result, bail};
use clap::{Command, CommandFactory};
use clap_mangen::{Man, roff};

use super::exit::Exit;
use crate::cli::Cli;
use crate::report;

/// Prints the page of prepull, or of the command with this path.
pub(super) fn print(path: &[String]) -> Result<Exit> {
    let mut command = built();
    for word in path {
        command = match command.find_subcommand(word) {
            Some(inner) => inner.clone(),
            None => bail!(
                "there is no command {word:?} to print a page of; `prepull man` is about all of them"
            ),
        };
    }
    report::print_stdout(&page(&command).context("cannot write the page")?)?;
    Ok(Exit::Success)
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
    let mut pages = Vec::new();
    add(&built(), &mut pages)?;
    Ok(pages)
}

/// The definitions with every command's full name.
fn built() -> Command {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    command
}

fn page(command: &Command) -> io::Result<String> {
    let mut command = command.clone();
    let examples = command.get_before_help().map(ToString::to_string);
    let exit = command.get_after_help().map(ToString::to_string);
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim().to_owned();
    let has_options = command.get_arguments().any(|option| !option.is_hide_set());
    let has_commands = command.has_subcommands();
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
    String::from_utf8(page).map_err(io::Error::other)
}

/// A section that keeps its lines, without its first, which is the help's heading.
fn literal(heading: &str, text: Option<String>, page: &mut Vec<u8>) -> io::Result<()> {
    let Some(text) = text else {
        return Ok(());
    };
    let mut section = roff::Roff::default();
    section.control("SH", [heading]);
    section.control("nf", []);
    for line in text.lines().skip(1) {
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
        for name in ["prepull.1", "prepull-pull.1", "prepull-runs-show.1"] {
            assert!(names.contains(&name), "{names:?}");
        }
        let pull = &pages[1].1;
        for part in [
            ".SH EXAMPLES",
            ".SH FLEET",
            ".SH \"EXIT STATUS\"",
            "max\\-failures",
        ] {
            assert!(pull.contains(part), "{part}: {pull}");
        }
        assert!(print(&["pul".into()]).is_err());
    }
}
