//! The terminal under the bars: whole frames, each in one write, that stay where they are when the terminal is resized,
//! and begin again below when another program had it meanwhile.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use console::{Term, measure_text_width};
use indicatif::TermLike;
use nix::unistd::{getpgrp, tcgetpgrp};

/// Where frames are written to; a terminal, or what tests read.
pub trait Device: std::fmt::Debug + Send + Sync {
    /// Lines and columns, just now.
    fn size(&self) -> (u16, u16);
    /// Writes all of it at once.
    ///
    /// # Errors
    /// The terminal is gone.
    fn write(&self, text: &str) -> io::Result<()>;
    /// Whether this process may draw there, or another program does: a shell that has it in the background.
    fn is_ours(&self) -> bool {
        true
    }
}

impl Device for Term {
    fn size(&self) -> (u16, u16) {
        Term::size(self)
    }

    fn write(&self, text: &str) -> io::Result<()> {
        self.write_str(text)
    }

    fn is_ours(&self) -> bool {
        // A terminal that is not the one that controls this process has no foreground to ask for.
        !tcgetpgrp(io::stderr()).is_ok_and(|foreground| foreground != getpgrp())
    }
}

/// What indicatif draws on. It moves over what it drew before, clears and draws line by line, and fills lines up so
/// that the terminal wraps them; all that flickers, and breaks when the terminal gets narrower. So this takes its
/// lines, and puts a frame that differs from the one before over it: every line by itself, then an empty one where the
/// cursor rests and what is typed is seen.
#[derive(Debug, Clone)]
pub struct Screen(Arc<Mutex<Frames>>);

#[derive(Debug)]
struct Frames {
    device: Box<dyn Device>,
    /// The line that indicatif is at, and those of this frame before it.
    line: String,
    next: Vec<String>,
    shown: Vec<String>,
    /// The size when it was shown.
    size: (u16, u16),
    /// Lines of it that went up and out of a terminal that got lower. They come back when it grows.
    above: usize,
    /// Text that is to stand above the frame, for good.
    log: VecDeque<String>,
    /// Whether the terminal was left to another program.
    is_left: bool,
}

impl Screen {
    /// Nothing is shown yet.
    pub fn new(device: Box<dyn Device>) -> Self {
        let size = device.size();
        Self(Arc::new(Mutex::new(Frames {
            device,
            line: String::new(),
            next: Vec::new(),
            shown: Vec::new(),
            size,
            above: 0,
            log: VecDeque::new(),
            is_left: false,
        })))
    }

    fn frames(&self) -> MutexGuard<'_, Frames> {
        // Nothing panics with the lock held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lines and columns, just now.
    pub fn size(&self) -> (u16, u16) {
        self.frames().device.size()
    }

    /// Leaves the terminal to another program, as it is: the cursor below the frame, at the beginning of a line.
    pub fn leave(&self) {
        let mut frames = self.frames();
        frames.is_left = true;
        frames.forget();
    }

    /// Draws again from now on, below whatever was written meanwhile.
    pub fn come_back(&self) {
        self.frames().is_left = false;
    }

    /// Whether there is nothing to draw on just now. What was drawn before is not touched again.
    pub fn is_away(&self) -> bool {
        let mut frames = self.frames();
        let is_away = frames.is_left || !frames.device.is_ours();
        if is_away {
            frames.forget();
        }
        is_away
    }

    /// Puts lines above the next frame, which has to follow.
    pub fn log(&self, lines: impl IntoIterator<Item = String>) {
        self.frames().log.extend(lines);
    }
}

impl Frames {
    fn forget(&mut self) {
        self.shown.clear();
        self.above = 0;
    }

    /// Puts the frame on the terminal, over the one before.
    fn show(&mut self) -> io::Result<()> {
        let next = std::mem::take(&mut self.next);
        if self.is_left {
            return Ok(());
        }
        let size = self.device.size();
        if next == self.shown && self.log.is_empty() && size == self.size {
            return Ok(());
        }
        // Between these a terminal that knows them shows nothing half done.
        let mut out = String::from("\x1b[?2026h\r");
        let up = self.lines_up(size);
        if up > 0 {
            out.push_str(&format!("\x1b[{up}A"));
        }
        if size != self.size {
            // What was wrapped is in no line of ours.
            out.push_str("\x1b[J");
        }
        for line in self.log.drain(..).chain(next.iter().cloned()) {
            out.push_str(&line);
            out.push_str("\x1b[K\n");
        }
        out.push_str("\x1b[J\x1b[?2026l");
        (self.shown, self.size) = (next, size);
        self.device.write(&out)
    }

    /// How far up the frame begins that is shown, in a terminal of this size.
    fn lines_up(&mut self, (height, width): (u16, u16)) -> usize {
        let width = usize::from(width.max(1));
        // A terminal that gets narrower wraps what it shows.
        let wrapped = |line: &String| measure_text_width(line).div_ceil(width).max(1);
        let lines: usize = self.shown.iter().map(wrapped).sum();
        // The cursor's own line is below.
        let seen = usize::from(height).saturating_sub(1);
        let grown = usize::from(height.saturating_sub(self.size.0));
        let back = self.above.min(grown);
        self.above -= back;
        self.above += lines.saturating_sub(seen);
        lines.min(seen) + back
    }
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        self.size().1
    }

    fn height(&self) -> u16 {
        self.size().0
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        let mut frames = self.frames();
        // Each line, then blanks up to the terminal's edge, perhaps none. A frame has no blank lines.
        if text.trim_matches(' ').is_empty() {
            let line = std::mem::take(&mut frames.line);
            frames.next.push(line);
        } else {
            frames.line.push_str(text);
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.frames().show()
    }

    fn write_line(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        Ok(())
    }
}
