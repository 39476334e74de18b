//! Completion in shells: the options from their definitions, nodes and groups from the inventories that are already on
//! the line, runs from the journals.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, complete};
use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};

use super::exit::Exit;
use super::runs;
use crate::cli::{self, Cli, Shell};
use crate::inventory;
use crate::journal::{self, Runs};
use crate::report;
use crate::settings::Environment;

/// Set by the shell's side: this process is to complete a line, and nothing else.
const ASKED: &str = "PREPULL_COMPLETE";
/// What stands between the parts of a pattern of `--limit`.
const OPERATORS: [char; 4] = [':', ',', '&', '!'];

/// Answers a shell that asks how a line can go on; `None` when no shell asks.
pub(super) fn answer(arguments: &[OsString]) -> Option<Exit> {
    // Looked at here because building the definitions takes a while, and most runs complete nothing.
    std::env::var_os(ASKED)?;
    let environment = CompleteEnv::with_factory(definitions).var(ASKED);
    let here = std::env::current_dir().ok();
    match environment.try_complete(arguments, here.as_deref()) {
        Ok(true) => Some(Exit::Success),
        Ok(false) => None,
        Err(error) => {
            report::print_stderr(&format!("prepull: error: cannot complete this: {error}\n"));
            Some(Exit::Usage)
        }
    }
}

/// Answers kubectl, which gives the words after `kubectl prepull` and wants one completion a line, then a directive of
/// cobra's `ShellCompDirective`.
pub(super) fn for_kubectl(arguments: &[OsString]) -> Exit {
    let mut words = arguments.to_vec();
    if words.len() < 2 {
        words.push(OsString::new());
    }
    let last = words.len() - 1;
    let here = std::env::current_dir().ok();
    let mut definitions = adorn(cli::plugin());
    // An error has nowhere to go; the operator only misses a completion.
    let found = complete(&mut definitions, words, last, here.as_deref()).unwrap_or_default();
    let mut text = String::new();
    for candidate in &found {
        text += &candidate.get_value().to_string_lossy();
        let help = candidate.get_help().map(ToString::to_string);
        if let Some(line) = help.as_deref().and_then(|help| help.lines().next()) {
            text.push('\t');
            text += line;
        }
        text.push('\n');
    }
    // NoFileComp, and NoSpace after a folder.
    let is_folder = |candidate: &CompletionCandidate| {
        let value = candidate.get_value().to_string_lossy();
        value.ends_with('/')
    };
    let directive = if !found.is_empty() && found.iter().all(is_folder) {
        6
    } else {
        4
    };
    let shown = report::print_stdout(&format!("{text}:{directive}\n"));
    shown.map_or(Exit::Incomplete, |()| Exit::Success)
}

/// `prepull completions`.
pub(super) fn registration(shell: Shell) -> Result<Exit> {
    report::print_stdout(&script(shell).context("cannot write the completions")?)?;
    Ok(Exit::Success)
}

/// What a shell reads to ask prepull for completions; for packages, too.
///
/// # Errors
/// What the writer answers; it writes to memory.
pub fn script(shell: Shell) -> std::io::Result<String> {
    let shell: &dyn EnvCompleter = match shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
    };
    let mut script = Vec::new();
    shell.write_registration(ASKED, "prepull", "prepull", "prepull", &mut script)?;
    let script = String::from_utf8(script).map_err(std::io::Error::other)?;
    // zsh reads a file of its function path only when it is first needed, as the body of a function.
    let at_once = match shell.name() {
        "zsh" => "\n[[ $funcstack[1] != _prepull ]] || _clap_dynamic_completer_prepull",
        _ => "",
    };
    Ok(format!("{}{at_once}\n", script.trim()))
}

fn definitions() -> Command {
    adorn(Cli::command())
}

/// The definitions with what only this machine knows.
fn adorn(command: Command) -> Command {
    command
        .mut_subcommands(adorn)
        .mut_args(|option| match option.get_id().as_str() {
            "limit" | "exclude" => option.add(ArgValueCompleter::new(of_pattern)),
            "run" => option.add(ArgValueCompleter::new(|typed: &OsStr| {
                runs(typed, Runs::All)
            })),
            "resume" => option.add(ArgValueCompleter::new(|typed: &OsStr| {
                runs(typed, Runs::Pulls)
            })),
            _ => option,
        })
}

/// The last part of a pattern, by the names of nodes and groups.
fn of_pattern(typed: &OsStr) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy();
    let begun = typed.rfind(OPERATORS).map_or(0, |at| at + 1);
    let (before, last) = typed.split_at(begun);
    let line: Vec<OsString> = std::env::args_os().collect();
    // kubectl gives the line alone, shells after a `--`.
    let marker = super::is_named(&line, cli::COMPLETER).then(|| "--".into());
    let line = marker.into_iter().chain(line);
    let names = inventory::names_in(&inventories(line, &Environment::of_this_process()));
    let fitting = names.iter().filter(|name| name.starts_with(last));
    fitting
        .map(|name| CompletionCandidate::new(format!("{before}{name}")))
        .collect()
}

fn runs(typed: &OsStr, wanted: Runs) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy();
    let names = runs::folder(&Environment::of_this_process())
        .and_then(|folder| Ok(journal::names(&folder, wanted)?))
        // An error has nowhere to go; the operator only misses a completion.
        .unwrap_or_default();
    let all = names.into_iter().rev().chain(["last".to_owned()]);
    all.filter(|name| name.starts_with(&*typed))
        .map(CompletionCandidate::new)
        .collect()
}

/// The files that `-i` names on the line. It is the shell's: whole words, quotes and `~` still in it.
fn inventories(line: impl Iterator<Item = OsString>, ambient: &Environment) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut line = line
        .skip_while(|word| word != "--")
        .skip(1)
        .map(|word| word.to_string_lossy().into_owned());
    while let Some(word) = line.next() {
        let value = match word.as_str() {
            "-i" | "--inventory" => line.next(),
            _ => word
                .strip_prefix("--inventory=")
                .or_else(|| word.strip_prefix("-i").filter(|_| !word.starts_with("--")))
                .map(str::to_owned),
        };
        let value = value.map(|value| value.trim_matches(['"', '\'']).to_owned());
        found.extend(value.map(|value| ambient.path(Path::new(&value))));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inventories_are_found_on_a_line() {
        let line = "prepull -- prepull pull -i a.yml --inventory=b.yml -ic.yml --inventory '~/d' --identity k --limit x";
        let found = inventories(
            line.split(' ').map(OsString::from),
            &Environment::of(&[("HOME", "/h")]),
        );
        assert_eq!(
            found,
            ["a.yml", "b.yml", "c.yml", "/h/d"].map(PathBuf::from)
        );
    }
}
