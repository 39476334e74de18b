//! Reporters: turn the facts of a run into what people and programs read. Nothing else prints.

mod background;
mod bars;
mod document;
mod human;
mod json;
mod lines;
mod plan;
mod print;
mod summary;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc::Receiver;

use crate::model::{Event, Fact, NodeRecord, Plan, StopReason};

pub use document::{Document, digests_agree, document};
pub use human::{Human, HumanOptions};
pub use json::{Json, Jsonl};
pub use plan::{fleet_json, fleet_table, plan_json, plan_text};
pub use print::{error_text, print_stderr, print_stdout};
pub use summary::summary;

/// What is known of a run before it starts.
#[derive(Debug, Clone)]
pub struct RunInfo {
    /// The run's own name.
    pub id: String,
    /// When it started.
    pub started: SystemTime,
    /// What it does.
    pub plan: Arc<Plan>,
}

/// A finished run.
#[derive(Debug, Clone)]
pub struct RunResult {
    /// What was known before.
    pub info: Arc<RunInfo>,
    /// When it ended.
    pub finished: SystemTime,
    /// One for each node, in the fleet's order.
    pub nodes: Vec<NodeRecord>,
    /// Why it stopped early.
    pub stopped: Option<StopReason>,
}

/// Shows a run to somebody.
pub trait Reporter: Send {
    /// Takes note of a fact. Never blocks on a terminal, a pipe or a disk.
    fn event(&mut self, event: &Event);

    /// Shows the end.
    ///
    /// # Errors
    /// What writing answered, now or earlier in the run.
    fn finish(&mut self, result: &RunResult) -> io::Result<()>;
}

/// How a run is shown while it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Progress {
    /// Bars on a terminal, lines elsewhere.
    #[default]
    Auto,
    /// Bars.
    Bars,
    /// Lines.
    Lines,
    /// Nothing until the end.
    None,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ColorChoice {
    /// On a terminal, without `NO_COLOR` and where `TERM` is not `dumb`.
    #[default]
    Auto,
    /// In any case.
    Always,
    /// Never.
    Never,
}

impl ColorChoice {
    /// Whether to use colour on an output that is, or is not, a `terminal`.
    pub fn enabled(self, terminal: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                terminal
                    && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
                    && std::env::var_os("TERM").is_none_or(|value| value != "dumb")
            }
        }
    }
}

/// The reporters at work.
#[derive(Debug)]
pub struct Running(JoinHandle<Vec<Box<dyn Reporter>>>);

impl std::fmt::Debug for dyn Reporter {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Reporter")
    }
}

/// Numbers the facts and hands them to every reporter, on a thread of its own, until all senders
/// are gone.
pub fn start(
    _info: Arc<RunInfo>,
    mut facts: Receiver<(Duration, Fact)>,
    mut reporters: Vec<Box<dyn Reporter>>,
) -> Running {
    Running(std::thread::spawn(move || {
        let mut number = 0;
        while let Some((at, fact)) = facts.blocking_recv() {
            number += 1;
            let event = Event { number, at, fact };
            for reporter in &mut reporters {
                reporter.event(&event);
            }
        }
        reporters
    }))
}

impl Running {
    /// Waits for the last fact and lets every reporter, in order, show the end.
    ///
    /// Blocks: every sender of facts must be gone before, and the caller be no async task.
    ///
    /// # Errors
    /// The first error of a reporter; the others show the end all the same. A reader that went away is none.
    pub fn finish(self, result: &RunResult) -> io::Result<()> {
        let mut reporters = self
            .0
            .join()
            .map_err(|_| io::Error::other("a reporter crashed: this is a fault in prepull"))?;
        let mut first = Ok(());
        for reporter in &mut reporters {
            let ended = print::forgive_closed_pipe(reporter.finish(result));
            if first.is_ok() {
                first = ended;
            }
        }
        first
    }
}
