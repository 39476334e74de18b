//! Reporters: turn the facts of a run into what people and programs read. Nothing else prints.

mod bars;
mod cause;
mod document;
mod failures;
mod file;
mod forecast;
mod format;
mod frame;
mod gone;
mod groups;
mod html;
mod human;
mod json;
mod junit;
mod kept;
mod lines;
mod meter;
mod next;
mod nodes;
mod plan;
mod print;
mod prometheus;
mod run_state;
mod runs;
mod screen;
#[cfg(test)]
mod snapshot_tests;
mod styled;
mod summary;
mod table;
#[cfg(test)]
mod tests;
mod timeline;
mod writer_thread;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc::Receiver;

use crate::model::{
    ColorChoice, Event, EventKind, FanOutTotals, Forecast, Foretold, NodeRecord, Overdue, Plan,
    StopReason,
};

pub use document::{Document, counts, digests_agree};
pub use file::{FileReport, ReportForm};
pub use forecast::{forecast_json, forecast_text};
pub use human::{Human, HumanOptions};
pub use json::{Json, Jsonl, write_document};
pub use nodes::{
    fleet_json, fleet_names, fleet_table, fleet_yaml, probed_json, probed_table, probed_yaml,
};
pub use plan::{plan_json, plan_text};
pub use print::{error_text, forgive_closed_pipe, print_stderr, print_stdout, write_stdout};
pub use runs::{RunEntry, runs_table};
pub use screen::Screen;
pub use styled::Layout;
pub use summary::write_summary;
pub use table::width as terminal_width;

/// What is known of a run before it starts.
#[derive(Debug, Clone)]
pub struct RunInfo {
    /// The run's own name.
    pub id: String,
    /// When it started.
    pub started: SystemTime,
    /// What it does.
    pub plan: Arc<Plan>,
    /// The command that goes on with what this run leaves open, if there is one.
    pub resume: Option<String>,
    /// The words of the run's own command; empty where they are not known.
    pub words: Vec<String>,
    /// What earlier runs tell of it.
    pub earlier: Earlier,
}

/// What earlier runs tell of one.
#[derive(Debug, Clone, Default)]
pub struct Earlier {
    /// For a pull: the forecast that was made for it.
    pub foretold: Option<Foretold>,
    /// For a check: which run found an image on a node when one last looked, by node and image.
    pub last_held: HashMap<(String, String), String>,
    /// For a check: which of the images are kept for longer than was wanted.
    pub overdue: Vec<Overdue>,
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
    /// What came of nodes passing images on, where they were to.
    pub fan_out: Option<FanOutTotals>,
    /// For a forecast: what it says.
    pub forecast: Option<Forecast>,
}

/// Shows a run: on the terminal, as lines, or as JSON.
pub trait Reporter: Send {
    /// Takes note of a fact. Never blocks on a terminal, a pipe or a disk.
    fn event(&mut self, event: &Event);

    /// The terminal that it draws on, if it does.
    fn screen(&self) -> Option<Screen> {
        None
    }

    /// The run is given up at once: what stands half drawn somewhere is to be taken away.
    fn quit(&mut self) {}

    /// Shows the end.
    ///
    /// # Errors
    /// What writing answered, now or earlier in the run.
    fn finish(&mut self, result: &RunResult) -> io::Result<()>;
}

/// Shows nothing but the end, as one text.
pub struct AtEnd<F> {
    text: F,
    out: Box<dyn io::Write + Send>,
}

impl<F: Fn(&RunResult) -> String + Send> AtEnd<F> {
    /// What `text` makes of the result goes to `out`.
    pub fn new(out: Box<dyn io::Write + Send>, text: F) -> Self {
        Self { text, out }
    }
}

impl<F: Fn(&RunResult) -> String + Send> Reporter for AtEnd<F> {
    fn event(&mut self, _: &Event) {}

    fn finish(&mut self, result: &RunResult) -> io::Result<()> {
        self.out.write_all((self.text)(result).as_bytes())?;
        self.out.flush()
    }
}

/// Stores events where they outlive prepull, before any reporter sees them.
pub trait EventSink: Send {
    /// Takes some events, in order. May block on a disk.
    fn keep(&mut self, events: &[Event]);

    /// Takes the end.
    fn end(&mut self, result: &RunResult);
}

/// Whether to use colour on an output that is, or is not, a terminal. `CLICOLOR_FORCE` asks for it anywhere; `NO_COLOR` and
/// a `TERM` of `dumb` are against it.
pub fn uses_color(choice: ColorChoice, is_terminal: bool) -> bool {
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => {
            let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
            let is_forced = set("CLICOLOR_FORCE").is_some_and(|value| value != "0");
            let is_refused = set("CLICOLOR").is_some_and(|value| value == "0");
            let is_dumb = set("TERM").is_none_or(|value| value == "dumb");
            set("NO_COLOR").is_none() && (is_forced || is_terminal && !is_refused && !is_dumb)
        }
    }
}

/// The reporters at work.
pub struct Running {
    thread: JoinHandle<Audience>,
    screen: Option<Screen>,
}

struct Audience {
    ledger: Option<Box<dyn EventSink>>,
    reporters: Vec<Box<dyn Reporter>>,
}

/// The most events that are kept at once.
const BATCH: usize = 1024;

/// Numbers the facts and hands them to the ledger and then to every reporter, on a thread of its own, until all
/// senders are gone.
pub fn start(
    mut facts: Receiver<(Duration, EventKind)>,
    ledger: Option<Box<dyn EventSink>>,
    reporters: Vec<Box<dyn Reporter>>,
) -> Running {
    let screen = reporters.iter().find_map(|reporter| reporter.screen());
    let mut audience = Audience { ledger, reporters };
    let thread = std::thread::spawn(move || {
        let (mut number, mut arrived, mut events) = (0, Vec::new(), Vec::new());
        // What arrives while the disk is busy goes there in one piece.
        while facts.blocking_recv_many(&mut arrived, BATCH) > 0 {
            events.extend(arrived.drain(..).map(|(at, fact)| {
                number += 1;
                Event { number, at, fact }
            }));
            if let Some(ledger) = &mut audience.ledger {
                ledger.keep(&events);
            }
            for event in events.drain(..) {
                for reporter in &mut audience.reporters {
                    reporter.event(&event);
                }
            }
        }
        audience
    });
    Running { thread, screen }
}

/// How long a terminal may take to read the last of a run that is given up.
const QUIT_LIMIT: Duration = Duration::from_secs(1);

impl Running {
    /// The terminal that is drawn on, if one is.
    pub fn screen(&self) -> Option<Screen> {
        self.screen.clone()
    }

    /// Gives the run up: no end is shown, but the bars are taken away, unless their terminal does not read.
    ///
    /// Every sender of facts must be gone before.
    pub fn quit(self) {
        let (ended, wait) = std::sync::mpsc::channel::<()>();
        std::thread::spawn(move || {
            let _ends_with_this = ended;
            if let Ok(mut audience) = self.thread.join() {
                audience
                    .reporters
                    .iter_mut()
                    .for_each(|reporter| reporter.quit());
            }
        });
        // An answer never comes: the other end is dropped, or the time is up.
        let _ = wait.recv_timeout(QUIT_LIMIT);
    }

    /// Waits for the last fact and lets every reporter, in order, show the end.
    ///
    /// Blocks: every sender of facts must be gone before, and the caller be no async task.
    ///
    /// Returns what went wrong with reporters; each shows the end whatever became of the others. A reader that went
    /// away is nothing wrong.
    pub fn finish(self, result: &RunResult) -> Vec<io::Error> {
        let Ok(mut audience) = self.thread.join() else {
            let crash = "a reporter crashed: this is a fault in prepull";
            return vec![io::Error::other(crash)];
        };
        if let Some(ledger) = &mut audience.ledger {
            ledger.end(result);
        }
        let reporters = audience.reporters.iter_mut();
        reporters
            .filter_map(|reporter| print::forgive_closed_pipe(reporter.finish(result)).err())
            .collect()
    }
}
