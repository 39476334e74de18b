//! Runs that are on disk: listing and showing them, and going on with one.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use clap::{CommandFactory, FromArgMatches};

use super::exit::Exit;
use crate::cli::{self, Cli, Format, ListFormat, ReportFile, ReportForm, RunsCommand};
use crate::journal::{self, Claim, JournalWork, Listed, RecordedRun, Runs, State};
use crate::model::{ColorChoice, Fleet, Forecast, History, Plan, text::format_count};
use crate::report::{
    self, Earlier, FileReport, Jsonl, Layout, Reporter, RunEntry, RunInfo, RunResult,
};
use crate::settings::{self, Environment};

/// How many names a warning lists.
const NAMES: usize = 5;

/// Where runs are recorded.
pub(super) fn folder(ambient: &Environment) -> Result<PathBuf> {
    journal::folder(&|name| ambient.variable(name))
        .context("neither XDG_STATE_HOME nor HOME says where runs are recorded")
}

/// The form of a report file.
pub(super) fn form(form: ReportForm) -> report::ReportForm {
    match form {
        ReportForm::Json => report::ReportForm::Json,
        ReportForm::Junit => report::ReportForm::Junit,
        ReportForm::Html => report::ReportForm::Html,
        ReportForm::Prometheus => report::ReportForm::Prometheus,
    }
}

/// `prepull runs`.
pub(super) fn perform(command: &RunsCommand, ambient: &Environment) -> Result<Exit> {
    let folder = folder(ambient)?;
    match command {
        RunsCommand::List { output } => list(&folder, *output),
        RunsCommand::Show { run, output } => show(&folder, run, *output),
        RunsCommand::Report { run, html, report } => {
            let html = html.iter().map(|path| ReportFile {
                path: path.clone(),
                form: ReportForm::Html,
            });
            let files: Vec<_> = html.chain(report.iter().cloned()).collect();
            write_reports(&folder, run, &settings::report_files(&files, ambient)?)
        }
    }
}

fn list(folder: &Path, format: ListFormat) -> Result<Exit> {
    let mut entries = Vec::new();
    for (path, listed) in journal::list(folder)? {
        let entry =
            listed
                .map_err(|error| error.to_string())
                .and_then(|Listed { past, counts }| {
                    let entry = RunEntry::new(&result(&past)?, state(past.state));
                    Ok(match counts {
                        Some(counts) => entry.with(counts),
                        None => entry,
                    })
                });
        match entry {
            Ok(entry) => entries.push(entry),
            Err(why) => super::warn(&[format!("{} is left out: {why}", path.display())]),
        }
    }
    let text = match format {
        ListFormat::Human if entries.is_empty() => {
            format!("No run is recorded in {}.\n", folder.display())
        }
        ListFormat::Human => report::runs_table(&entries),
        ListFormat::Json => format!(
            "{:#}\n",
            serde_json::json!({ "schema": 1, "runs": entries })
        ),
    };
    report::print_stdout(&text)?;
    Ok(Exit::Success)
}

fn show(folder: &Path, run: &str, format: Format) -> Result<Exit> {
    let past = RecordedRun::read(&journal::find(folder, run, Runs::All)?)?;
    let told = result(&past).map_err(anyhow::Error::msg)?;
    match format {
        Format::Human if told.forecast.is_some() => {
            let layout = Layout::stdout(false);
            report::print_stdout(&report::forecast_text(
                &told,
                layout,
                report::terminal_width(),
            ))?;
        }
        Format::Json | Format::Jsonl if told.forecast.is_some() => {
            report::print_stdout(&super::pretty(&report::forecast_json(&told)))?;
        }
        Format::Human => report::write_stdout(|out| {
            let (run, command) = (&told.info.id, told.info.plan.work.command());
            writeln!(out, "{run} {command} ({})", state(past.state))?;
            let is_terminal = std::io::stdout().is_terminal();
            let color = report::uses_color(ColorChoice::Auto, is_terminal);
            report::write_summary(&told, out, Layout::stdout(color))
        })?,
        Format::Json => report::write_stdout(|out| report::write_document(&told, out))?,
        Format::Jsonl => {
            let output = Box::new(std::io::stdout());
            tell_again(&past, &told, Jsonl::new(Arc::clone(&told.info), output))?;
        }
    }
    Ok(Exit::Success)
}

/// `prepull runs report`.
fn write_reports(folder: &Path, run: &str, files: &[ReportFile]) -> Result<Exit> {
    let past = RecordedRun::read(&journal::find(folder, run, Runs::All)?)?;
    let told = result(&past).map_err(anyhow::Error::msg)?;
    for file in files {
        let report = FileReport::new(&told.info, file.path.clone(), form(file.form));
        tell_again(&past, &told, report).context("cannot write the report")?;
    }
    Ok(Exit::Success)
}

/// Tells a reporter what it would have heard, as far as it was recorded.
fn tell_again(
    past: &RecordedRun,
    told: &RunResult,
    mut reporter: impl Reporter,
) -> std::io::Result<()> {
    past.events.iter().for_each(|event| reporter.event(event));
    report::forgive_closed_pipe(reporter.finish(told))
}

fn state(state: State) -> &'static str {
    match state {
        State::Running => "running",
        State::Ended => "ended",
        State::CutShort => "cut-short",
    }
}

/// A recorded run as reporters know it.
fn result(past: &RecordedRun) -> Result<RunResult, String> {
    let plan = Arc::new(past.plan()?);
    let nodes = past.records(&plan);
    let forecast = past
        .end
        .and_then(|end| end.forecast)
        .map(|totals| Forecast {
            // What was foretold then, and not what would be now.
            totals,
            ..Forecast::new(&plan, &nodes, &History::default(), &|_| 0)
        });
    Ok(RunResult {
        forecast,
        nodes,
        finished: past.finished(),
        stopped: past.end.and_then(|end| end.stopped),
        fan_out: past.fan_out(),
        info: Arc::new(RunInfo {
            id: past.header.run.clone(),
            started: past.header.started,
            resume: resume_command(
                matches!(past.header.work, JournalWork::Pull(_)) && past.state != State::Running,
                &past.header.run,
            ),
            words: words(past.header.arguments.iter()),
            earlier: Earlier {
                foretold: past.header.foretold.clone(),
                ..Earlier::default()
            },
            plan,
        }),
    })
}

/// What goes on with a run.
pub(super) fn resume_command(is_pull: bool, run: &str) -> Option<String> {
    is_pull.then(|| format!("prepull pull --resume {run}"))
}

/// The words of a run's command line, to be given again. Those of the plugin of kubectl are not: their `-n` is another.
pub(super) fn words(arguments: impl Iterator<Item = impl AsRef<str>>) -> Vec<String> {
    let arguments = arguments.map(|argument| argument.as_ref().to_string());
    let words: Vec<String> = std::iter::once("prepull".to_string())
        .chain(arguments)
        .collect();
    match words.get(1).map(String::as_str) {
        Some(cli::AS_PLUGIN | "daemonset") => Vec::new(),
        _ => words,
    }
}

/// A run to go on with, and the command line that does: the run's own, then what is said now.
pub(super) struct Resumed {
    /// The command line.
    pub(super) cli: Cli,
    /// Its arguments, to be recorded.
    pub(super) arguments: Vec<OsString>,
    /// The run.
    pub(super) run: OpenRun,
}

/// A run that is gone on with, by no other prepull as long as this lives.
pub(super) struct OpenRun {
    past: RecordedRun,
    /// Whether a preflight is asked for now, and not just was when the run began.
    has_preflight: bool,
    _claim: Claim,
}

/// Finds the run that `--resume` names.
///
/// # Errors
/// There is none, or it cannot be gone on with from here.
pub(super) fn resume(wanted: &str, given: &[OsString], ambient: &Environment) -> Result<Resumed> {
    let folder = folder(ambient)?;
    let past = RecordedRun::read(&journal::find(&folder, wanted, Runs::Pulls)?)?;
    let header = &past.header;
    if past.state == State::Running {
        bail!(
            "the run {} is still going on: wait for its end, or interrupt it first",
            header.run
        );
    }
    if !matches!(header.work, JournalWork::Pull(_)) {
        bail!(
            "the run {} was not a pull, and only pulls can be resumed; `--resume last` is the last pull",
            header.run
        );
    }
    let here = std::env::current_dir().context("cannot tell the current directory")?;
    if here != header.directory {
        let there = header.directory.display();
        bail!(
            "the run {} was started in {there}, and what it names is found from there: `cd {there}` first",
            header.run
        );
    }
    let arguments = merged(&header.arguments, given);
    let (definitions, words) = match arguments.split_first() {
        Some((first, words)) if first == cli::AS_PLUGIN => (cli::plugin(), words),
        _ => (Cli::command(), &arguments[..]),
    };
    // Only here may an option stand twice: the one that is given now counts.
    let command = definitions.mut_subcommand("pull", |pull| pull.args_override_self(true));
    let program = given.first().cloned().unwrap_or_default();
    let matches = command
        .try_get_matches_from(std::iter::once(&program).chain(words))
        .map_err(|error| {
            anyhow!(
                "{error}\n(these are the arguments of the run {}, and then those given now)",
                header.run
            )
        })?;
    Ok(Resumed {
        cli: Cli::from_arg_matches(&matches)?,
        arguments,
        run: OpenRun {
            _claim: journal::claim(&folder, &past)?,
            has_preflight: given.iter().any(|word| word == "--preflight"),
            past,
        },
    })
}

/// The recorded arguments with those given now behind the options, without `--resume`.
fn merged(recorded: &[String], given: &[OsString]) -> Vec<OsString> {
    let mut now = Vec::new();
    // The program, `pull`, and what follows.
    let mut left = given.iter().skip(2);
    while let Some(argument) = left.next() {
        if argument == "--resume" {
            left.next();
        } else if !argument.to_string_lossy().starts_with("--resume=") {
            now.push(argument.clone());
        }
    }
    let mut merged: Vec<OsString> = recorded.iter().map(OsString::from).collect();
    let end_of_options = merged
        .iter()
        .position(|argument| argument == "--")
        .unwrap_or(merged.len());
    merged.splice(end_of_options..end_of_options, now);
    merged
}

impl OpenRun {
    /// Leaves in the plan what the run left open. Returns what the operator should know.
    ///
    /// # Errors
    /// No node is left.
    pub(super) fn only_what_is_open(&self, plan: &mut Plan) -> Result<Vec<String>> {
        let header = &self.past.header;
        let recorded = || header.nodes.iter().map(|node| node.name.as_str());
        let known: HashSet<&str> = recorded().collect();
        let mut warnings = Vec::new();
        let run = &header.run;
        let nodes = plan.fleet.nodes().iter().cloned();
        let (kept, new): (Vec<_>, Vec<_>) =
            nodes.partition(|node| known.contains(node.name.as_str()));
        if !new.is_empty() {
            let names: Vec<&str> = new.iter().map(|node| node.name.as_str()).collect();
            warnings.push(format!(
                "not in the run {run}, and left out: {}",
                named(&names)
            ));
        }
        let there: HashSet<&str> = kept.iter().map(|node| node.name.as_str()).collect();
        let gone: Vec<&str> = recorded().filter(|name| !there.contains(name)).collect();
        if !gone.is_empty() {
            warnings.push(format!(
                "in the run {run}, but not in the fleet any more: {}",
                named(&gone)
            ));
        }
        plan.fleet =
            Fleet::new(kept).with_context(|| format!("none of the nodes is in the run {run}"))?;
        if !self.has_preflight {
            // It was passed once, and pulls that still go on need less room than they did.
            plan.policy.preflight = None;
        }
        if !header.pull_token.is_empty() {
            plan.pull_token.clone_from(&header.pull_token);
        }
        let held = self.past.held();
        for (number, node) in plan.fleet.nodes().iter().enumerate() {
            for item in 0..plan.work.items() {
                let image = plan
                    .work
                    .image(item)
                    .map(ToString::to_string)
                    .unwrap_or_default();
                if let Some(held) = held.get(&(node.name.as_str(), image.as_str()))
                    && held.suits(plan.policy.platform.as_deref())
                {
                    plan.already_present.insert((number, item), (*held).clone());
                }
            }
        }
        Ok(warnings)
    }
}

/// Some names, and how many more there are.
pub(super) fn named(names: &[&str]) -> String {
    let shown = names[..names.len().min(NAMES)].join(", ");
    match names.len().saturating_sub(NAMES) {
        0 => shown,
        more => format!(
            "{shown} and {more} more, {} in all",
            format_count(names.len(), "node")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_now_comes_after_the_recorded_options() {
        let recorded = ["pull", "-i", "nodes.yml", "-p", "4", "--", "app:v1"].map(String::from);
        let given = [
            "prepull",
            "pull",
            "--resume",
            "last",
            "-p",
            "2",
            "--resume=x",
        ]
        .map(OsString::from);
        let expected = [
            "pull",
            "-i",
            "nodes.yml",
            "-p",
            "4",
            "-p",
            "2",
            "--",
            "app:v1",
        ];
        assert_eq!(merged(&recorded, &given), expected.map(OsString::from));
    }
}
