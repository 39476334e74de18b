//! The reporter for people: bars or lines while it runs, the summary at the end.

use std::io::{self, IsTerminal as _};
use std::sync::Arc;

use super::background::{Background, Output};
use super::bars::Bars;
use super::document::{counts, digests_agree};
use super::lines::line;
use super::{Progress, Reporter, RunInfo, RunResult, summary};
use crate::model::Event;

/// How a person wants to see the run.
#[derive(Debug, Clone, Copy, Default)]
pub struct HumanOptions {
    /// Bars, lines or nothing while it runs.
    pub progress: Progress,
    /// Whether the summary has colour.
    pub color: bool,
    /// Nothing but the summary, and that only when something failed.
    pub quiet: bool,
    /// Lines for every stage too.
    pub verbose: bool,
}

/// Bars or lines on standard error; the summary on standard output.
pub struct Human {
    info: Arc<RunInfo>,
    options: HumanOptions,
    results: Output,
    lines: Option<Background>,
    bars: Option<Bars>,
}

impl Human {
    /// The summary goes to `results`, lines to `lines`; bars always go to standard error.
    pub fn new(info: Arc<RunInfo>, options: HumanOptions, results: Output, lines: Output) -> Self {
        let progress = match options.progress {
            _ if options.quiet => Progress::None,
            Progress::Auto | Progress::Bars if io::stderr().is_terminal() => Progress::Bars,
            // Bars need a terminal; elsewhere nothing at all would be shown.
            Progress::Auto | Progress::Bars | Progress::Lines => Progress::Lines,
            Progress::None => Progress::None,
        };
        let bars =
            (progress == Progress::Bars).then(|| Bars::new(Arc::clone(&info), options.verbose));
        let lines = (progress == Progress::Lines).then(|| Background::new(lines));
        Self {
            info,
            options,
            results,
            lines,
            bars,
        }
    }
}

impl Reporter for Human {
    fn event(&mut self, event: &Event) {
        if let Some(bars) = &self.bars {
            bars.event(event);
        }
        if let Some(lines) = &self.lines
            && let Some(line) = line(&self.info, event, self.options.verbose)
        {
            lines.write(line + "\n");
        }
    }

    fn finish(&mut self, result: &RunResult) -> io::Result<()> {
        if let Some(bars) = &mut self.bars {
            bars.finish();
        }
        // Lost lines are no reason to lose the summary.
        let lines = self.lines.as_mut().map_or(Ok(()), Background::finish);
        let counts = counts(result);
        let good = counts.ok == counts.nodes && digests_agree(result);
        if !(self.options.quiet && good) {
            let style = console::Style::new()
                .force_styling(self.options.color)
                .bold();
            let style = if good { style.green() } else { style.red() };
            for line in summary(result).lines() {
                let head = line.starts_with("READY: ") || line.starts_with("NOT READY: ");
                if head {
                    writeln!(self.results, "{}", style.apply_to(line))?;
                } else {
                    writeln!(self.results, "{line}")?;
                }
            }
            self.results.flush()?;
        }
        lines
    }
}
