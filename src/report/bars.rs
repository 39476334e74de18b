//! Bars on a terminal: what every node at work does now, drawn on a thread of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::RunInfo;
use super::lines::{in_seconds, line, shown};
use crate::model::{Event, Fact, Outcome, text};

/// What the bars show; pure, so that it can be tested without a terminal.
pub struct Board {
    info: Arc<RunInfo>,
    working: BTreeMap<usize, Work>,
    /// Which try each node is at; outlives its place in the window, which it gives back between tries.
    tries: BTreeMap<usize, u32>,
    left: Vec<usize>,
    failed: Vec<bool>,
}

/// What one node does.
struct Work {
    since: Duration,
    what: String,
    /// "  12.0 MB of 80.0 MB", once something is known to arrive.
    arrived: String,
}

impl Board {
    /// A board on which nothing has happened.
    pub fn new(info: Arc<RunInfo>) -> Self {
        let nodes = info.plan.fleet.nodes().len();
        let left = vec![info.plan.work.items(); nodes];
        Self {
            info,
            working: BTreeMap::new(),
            tries: BTreeMap::new(),
            left,
            failed: vec![false; nodes],
        }
    }

    /// Takes note of a fact.
    pub fn apply(&mut self, event: &Event) {
        match &event.fact {
            Fact::NodeStarted { node } => {
                let work = Work {
                    since: event.at,
                    what: "starting".into(),
                    arrived: String::new(),
                };
                self.working.insert(*node, work);
            }
            Fact::NodeStage { node, item, stage } => {
                if let Some(state) = self.working.get_mut(node) {
                    let image = item.and_then(|item| self.info.plan.work.image(item));
                    state.arrived.clear();
                    state.what =
                        image.map_or(stage.to_string(), |image| format!("{stage} {image}"));
                }
            }
            Fact::Progress {
                node, bytes, total, ..
            } => {
                if let Some(state) = self.working.get_mut(node) {
                    let total = total.map(|total| format!(" of {}", text::bytes(total)));
                    state.arrived =
                        format!("  {}{}", text::bytes(*bytes), total.unwrap_or_default());
                }
            }
            Fact::AttemptFailed { node, attempt, .. } => {
                self.tries.insert(*node, attempt + 1);
            }
            Fact::Finished { node, record, .. } => {
                self.tries.remove(node);
                if let (Some(left), Some(failed)) =
                    (self.left.get_mut(*node), self.failed.get_mut(*node))
                {
                    *left = left.saturating_sub(1);
                    *failed |=
                        !record.outcome.is_ok() && !matches!(record.outcome, Outcome::NotRun(_));
                }
            }
            Fact::NodeLeft { node, .. } => {
                self.working.remove(node);
            }
            Fact::WaveStarted { .. } | Fact::Stopping { .. } => {}
        }
    }

    /// The lines at `now` since the start, at most `height` of them and `width` characters wide.
    pub fn render(&self, now: Duration, height: usize, width: usize) -> Vec<String> {
        let room = height.saturating_sub(2).max(1);
        let mut lines: Vec<String> = self
            .working
            .iter()
            .take(room)
            .map(|(node, work)| {
                let name = self
                    .info
                    .plan
                    .fleet
                    .nodes()
                    .get(*node)
                    .map_or("?", |node| &node.name);
                let again = if let Some(attempt) = self.tries.get(node) {
                    format!(" attempt {attempt}")
                } else {
                    String::new()
                };
                let took = in_seconds(now.saturating_sub(work.since));
                let text = format!("{name}  {}  {took}{}{again}", work.what, work.arrived);
                shown(&text, 500).into_owned()
            })
            .collect();
        if self.working.len() > room {
            lines.push(format!("+{} more at work", self.working.len() - room));
        }
        let done = self.left.iter().filter(|left| **left == 0).count();
        let failed = self.failed.iter().filter(|failed| **failed).count();
        let fleet = format!(
            "fleet: {done} of {} done, {failed} failed, {} left, {}",
            self.left.len(),
            self.left.len() - done,
            in_seconds(now),
        );
        lines.push(fleet);
        // By columns, not characters: a wide character takes two.
        for line in &mut lines {
            *line = console::truncate_str(line, width, "").into_owned();
        }
        lines
    }
}

/// Bars that are drawn on a thread of their own.
pub struct Bars {
    queue: Option<Sender<Event>>,
    thread: Option<JoinHandle<()>>,
}

impl Bars {
    /// Starts drawing on standard error.
    pub fn new(info: Arc<RunInfo>, verbose: bool) -> Self {
        let (queue, events) = channel();
        let thread = std::thread::spawn(move || draw(info, &events, verbose));
        Self {
            queue: Some(queue),
            thread: Some(thread),
        }
    }

    /// Queues an event; never blocks.
    pub fn event(&self, event: &Event) {
        if let Some(queue) = &self.queue {
            // The thread ends only after this sender is gone.
            let _ = queue.send(event.clone());
        }
    }

    /// Takes the bars away.
    pub fn finish(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A crashed drawing is only a missing bar.
            let _ = thread.join();
        }
    }
}

fn draw(info: Arc<RunInfo>, events: &Receiver<Event>, verbose: bool) {
    let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
    let plain =
        ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    let mut bars: Vec<ProgressBar> = Vec::new();
    let mut board = Board::new(Arc::clone(&info));
    let terminal = console::Term::stderr();
    let mut open = true;
    while open {
        let frame = Instant::now() + Duration::from_millis(100);
        let mut above = String::new();
        loop {
            match events.recv_timeout(frame.saturating_duration_since(Instant::now())) {
                Ok(event) => {
                    board.apply(&event);
                    if let Some(line) = line(&info, &event, verbose) {
                        above.push_str(&line);
                        above.push('\n');
                    }
                }
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => {
                    open = false;
                    break;
                }
            }
            if Instant::now() >= frame {
                break;
            }
        }
        if !above.is_empty() {
            // The bars make room first: a line wider than the terminal wraps, and would tear them.
            // A terminal that is gone shows nothing; the run goes on.
            all.suspend(|| {
                let _ = terminal.write_str(&above);
            });
        }
        let (height, width) = terminal.size();
        let lines = board.render(
            info.started.elapsed().unwrap_or_default(),
            height.into(),
            usize::from(width).saturating_sub(1),
        );
        while bars.len() > lines.len() {
            if let Some(bar) = bars.pop() {
                all.remove(&bar);
            }
        }
        for (index, line) in lines.into_iter().enumerate() {
            if index == bars.len() {
                bars.push(all.add(ProgressBar::new_spinner().with_style(plain.clone())));
            }
            bars[index].set_message(line);
            bars[index].tick();
        }
    }
    let _ = all.clear();
}
