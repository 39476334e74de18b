//! The board on a terminal, drawn on a thread of its own: a terminal that does not read holds nothing else up.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::RunInfo;
use super::frame::{View, frame};
use super::lines::line;
use super::run_state::RunState;
use super::screen::{Device, Screen};
use super::styled::is_utf8_locale;
use crate::model::Event;

/// The pause between two frames.
const PAUSE: Duration = Duration::from_millis(100);
/// How many lines wait for a terminal that does not read.
const LINES: usize = 1000;

/// What the facts change and the frames show.
struct State {
    board: RunState,
    /// Lines that are to stand above the frame.
    lines: VecDeque<String>,
    /// How many were given up.
    lost: usize,
}

/// Bars that are drawn on a thread of their own.
pub struct Bars {
    info: Arc<RunInfo>,
    verbose: bool,
    state: Arc<Mutex<State>>,
    screen: Screen,
    /// Dropped to end the thread.
    going_on: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // A crashed drawing is only a missing bar.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bars {
    /// Starts drawing on standard error.
    pub fn new(info: Arc<RunInfo>, verbose: bool, color: bool) -> Self {
        Self::on(Box::new(Term::stderr()), info, verbose, color)
    }

    pub(super) fn on(
        device: Box<dyn Device>,
        info: Arc<RunInfo>,
        verbose: bool,
        color: bool,
    ) -> Self {
        let state = Arc::new(Mutex::new(State {
            board: RunState::new(Arc::clone(&info)),
            lines: VecDeque::new(),
            lost: 0,
        }));
        let (going_on, end) = channel();
        let drawn = Arc::clone(&state);
        let screen = Screen::new(device);
        let drawn_on = screen.clone();
        let thread = std::thread::spawn(move || draw(&drawn_on, &drawn, &end, color));
        Self {
            info,
            verbose,
            state,
            screen,
            going_on: Some(going_on),
            thread: Some(thread),
        }
    }

    /// Takes note of a fact; waits for no terminal.
    pub fn event(&self, event: &Event) {
        // Without being asked to, what the frame and the summary show is not shown a third time.
        let line = self
            .verbose
            .then(|| line(&self.info, event, true))
            .flatten();
        let mut state = locked(&self.state);
        state.board.apply(event);
        state.lines.extend(line);
        if state.lines.len() > LINES {
            state.lines.pop_front();
            state.lost += 1;
        }
    }

    /// What they are drawn on.
    pub fn screen(&self) -> Screen {
        self.screen.clone()
    }

    /// Takes the bars away.
    pub fn finish(&mut self) {
        self.going_on = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Draws until the other end of `end` is dropped, and takes away what was drawn.
fn draw(screen: &Screen, state: &Mutex<State>, end: &Receiver<()>, color: bool) {
    let bar = ProgressBar::with_draw_target(
        None,
        ProgressDrawTarget::term_like(Box::new(screen.clone())),
    );
    if let Ok(plain) = ProgressStyle::with_template("{msg}") {
        bar.set_style(plain);
    }
    let unicode = is_utf8_locale();
    loop {
        let is_over = end.recv_timeout(PAUSE) == Err(RecvTimeoutError::Disconnected);
        if screen.is_away() {
            if is_over {
                return;
            }
            continue;
        }
        let (height, width) = screen.size();
        let view = View {
            // The cursor has a line of its own, and the last column would wrap.
            height: usize::from(height).saturating_sub(1).max(1),
            width: usize::from(width).saturating_sub(1).max(1),
            color,
            unicode,
        };
        let lines = {
            let mut state = locked(state);
            let lost = std::mem::take(&mut state.lost);
            if lost > 0 {
                screen.log([format!("[{lost} lines are not shown]")]);
            }
            screen.log(state.lines.drain(..));
            let now = state.board.info.started.elapsed().unwrap_or_default();
            frame(&state.board, now, view)
        };
        if is_over {
            bar.finish_and_clear();
            return;
        }
        // A terminal that is gone shows nothing; the run goes on.
        bar.set_message(lines.join("\n"));
    }
}
