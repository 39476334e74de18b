//! The reporter for people: bars or lines while it runs, the summary at the end.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::bars::Bars;
use super::document::{counts, digests_agree};
use super::lines::{beginning, line, status_line};
use super::run_state::RunState;
use super::screen::Screen;
use super::styled::Layout;
use super::summary::write_summary;
use super::writer_thread::{Output, WriterThread};
use super::{Reporter, RunInfo, RunResult};
use crate::model::{Event, ProgressStyle};

/// How often lines tell where all nodes stand.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// How a person wants to see the run.
#[derive(Debug, Clone, Copy, Default)]
pub struct HumanOptions {
    /// Bars, lines or nothing while it runs.
    pub progress: ProgressStyle,
    /// Whether the bars have colour.
    pub color_bars: bool,
    /// How the summary is laid out.
    pub layout: Layout,
    /// Nothing but the summary, and that only when something failed.
    pub quiet: bool,
    /// Lines for every stage too.
    pub verbose: bool,
}

/// Bars or lines on standard error; the summary on standard output.
pub struct Human {
    options: HumanOptions,
    results: Output,
    lines: Option<Lines>,
    bars: Option<Bars>,
}

/// What is shown where there are no bars.
struct Lines {
    info: Arc<RunInfo>,
    board: Arc<Mutex<RunState>>,
    verbose: bool,
    output: WriterThread,
}

impl Lines {
    fn new(info: Arc<RunInfo>, verbose: bool, output: Output, heartbeat: Duration) -> Self {
        let board = Arc::new(Mutex::new(RunState::new(Arc::clone(&info))));
        let seen = Arc::clone(&board);
        let output = WriterThread::with_pulse(output, Some(heartbeat), move || {
            standing_now(&seen, "running")
        });
        output.write(beginning(&info) + "\n");
        Self {
            info,
            board,
            verbose,
            output,
        }
    }

    fn event(&self, event: &Event) {
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        board.apply(event);
        drop(board);
        if event.fact.may_be_lost() && self.output.is_behind() {
            return;
        }
        if let Some(line) = line(&self.info, event, self.verbose) {
            self.output.write(line + "\n");
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        self.output.write(standing_now(&self.board, "ended"));
        self.output.finish()
    }
}

/// Where all nodes stand, as a line with its end.
fn standing_now(board: &Mutex<RunState>, status: &str) -> String {
    let board = board.lock().unwrap_or_else(PoisonError::into_inner);
    let now = board.info.started.elapsed().unwrap_or_default();
    status_line(&board, now, status) + "\n"
}

impl Human {
    /// The summary goes to `results`, lines to `lines`; bars always go to standard error.
    pub fn new(info: Arc<RunInfo>, options: HumanOptions, results: Output, lines: Output) -> Self {
        let progress = match options.progress {
            _ if options.quiet => ProgressStyle::None,
            chosen => on_standard_error(chosen),
        };
        let HumanOptions {
            color_bars,
            verbose,
            ..
        } = options;
        let bars = (progress == ProgressStyle::Bars)
            .then(|| Bars::new(Arc::clone(&info), verbose, color_bars));
        let lines =
            (progress == ProgressStyle::Lines).then(|| Lines::new(info, verbose, lines, HEARTBEAT));
        Self {
            options,
            results,
            lines,
            bars,
        }
    }
}

/// Bars or lines where that was left open, and lines where there can be no bars.
fn on_standard_error(asked: ProgressStyle) -> ProgressStyle {
    use ProgressStyle::{Auto, Bars, Lines, None};
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let draws = io::stderr().is_terminal() && set("TERM").is_some_and(|term| term != "dumb");
    match asked {
        // A log of a CI may claim to be a terminal.
        Auto if draws && set("CI").is_none() => Bars,
        Bars if draws => Bars,
        Auto | Bars | Lines => Lines,
        None => None,
    }
}

impl Reporter for Human {
    fn event(&mut self, event: &Event) {
        if let Some(bars) = &self.bars {
            bars.event(event);
        }
        if let Some(lines) = &self.lines {
            lines.event(event);
        }
    }

    fn screen(&self) -> Option<Screen> {
        self.bars.as_ref().map(Bars::screen)
    }

    fn quit(&mut self) {
        if let Some(bars) = &mut self.bars {
            bars.finish();
        }
    }

    fn finish(&mut self, result: &RunResult) -> io::Result<()> {
        if let Some(bars) = &mut self.bars {
            bars.finish();
        }
        // Lost lines are not a reason to lose the summary.
        let lines = self.lines.as_mut().map_or(Ok(()), Lines::finish);
        let counts = counts(result);
        let good = counts.ok == counts.nodes && digests_agree(result);
        if !(self.options.quiet && good) {
            let mut results = io::BufWriter::new(&mut self.results);
            write_summary(result, &mut results, self.options.layout)?;
            results.flush()?;
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Captured, pull, result};
    use super::*;
    use crate::model::{EventKind, Outcome};

    #[test]
    fn lines_have_a_heartbeat_also_when_nothing_happens() {
        assert_eq!(HEARTBEAT.as_secs(), 30, "docs/output.md says so");
        let run = result(pull(), vec![vec![Outcome::Missing]; 3]);
        let told = Captured::default();
        let beat = Duration::from_millis(20);
        let mut lines = Lines::new(Arc::clone(&run.info), false, told.output(), beat);
        lines.event(&Event {
            number: 1,
            at: Duration::ZERO,
            fact: EventKind::NodeStarted { node: 0 },
        });
        let beats = || {
            let standing = " status=running done=0 running=1 failed=0 not_run=0 left=2 waiting=0";
            told.text().matches(standing).count()
        };
        while beats() < 3 {
            std::thread::sleep(beat);
        }
        lines.finish().unwrap();
        assert_eq!(told.text().matches(" status=ended ").count(), 1);
    }
}
