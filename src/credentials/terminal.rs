//! Reads a password from the terminal without showing what is typed. Whatever ends or stops prepull meanwhile, the
//! terminal is put back first: a shell that cannot be seen to take what is typed is hard to get out of.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{
    LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr,
};
use zeroize::{Zeroize as _, Zeroizing};

/// What ends or stops a process, and what lets it go on.
const SIGNALS: [Signal; 6] = [
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGTSTP,
    Signal::SIGCONT,
];

/// Asks on the terminal that controls this process. Returns the line without its end; of a longer one than `limit`,
/// one byte more than that.
///
/// # Errors
/// There is no terminal, it is gone, or the input was ended (`UnexpectedEof`).
pub(super) fn ask(question: &str, limit: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    let signals = HeldSignals::hold()?;
    let mut line = Line::new(limit);
    loop {
        let hidden = Hidden::hide(&terminal)?;
        terminal.write_all(question.as_bytes())?;
        let read = read_line(&mut terminal, &signals, &mut line);
        drop(hidden);
        terminal.write_all(b"\n")?;
        if read? {
            return Ok(line.typed);
        }
        // Here prepull ends or stops. When it goes on, the question is asked again from the start.
        signals.let_through()?;
        line.clear();
    }
}

/// Reads to the end of the line, or until a signal arrives: then the line is not whole.
fn read_line(terminal: &mut File, signals: &HeldSignals, line: &mut Line) -> io::Result<bool> {
    loop {
        let wait = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut ready = [wait(signals.arrived.as_fd()), wait(terminal.as_fd())];
        match poll(&mut ready, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            polled => polled?,
        };
        let is_ready = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
        if is_ready(&ready[0]) {
            return Ok(false);
        }
        if !is_ready(&ready[1]) {
            continue;
        }
        let mut byte = [0];
        // One at a time: what is typed after this line is for the next question.
        let is_end = match terminal.read(&mut byte)? {
            0 if line.typed.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            0 => true,
            _ => line.take(byte[0])?,
        };
        byte.zeroize();
        if is_end {
            return Ok(true);
        }
    }
}

/// Keeps this thread from being ended or stopped by signals until it lets them through. Questions are asked before there
/// are other threads that could take them.
struct HeldSignals {
    before: SigSet,
    /// Readable while one is waiting.
    arrived: SignalFd,
}

impl HeldSignals {
    fn hold() -> io::Result<Self> {
        let held = SIGNALS.into_iter().collect::<SigSet>();
        let arrived = SignalFd::with_flags(&held, SfdFlags::SFD_CLOEXEC)?;
        let before = held.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        Ok(Self { before, arrived })
    }

    /// Lets those that are waiting do what they would have done. Those that are ignored do nothing.
    fn let_through(&self) -> io::Result<()> {
        let held = self.before.thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        Ok(held.thread_set_mask()?)
    }
}

impl Drop for HeldSignals {
    fn drop(&mut self) {
        // It is the mask of before, which the kernel had taken already.
        let _ = self.before.thread_set_mask();
    }
}

/// A terminal that shows nothing of what is typed, and gives it at once, not by lines: those it limits to 4095 bytes.
struct Hidden {
    terminal: File,
    before: Termios,
}

impl Hidden {
    fn hide(terminal: &File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut hidden = before.clone();
        let shown = LocalFlags::ECHO | LocalFlags::ECHONL | LocalFlags::ICANON;
        hidden.local_flags.remove(shown);
        hidden.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
        hidden.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
        let this = Self {
            terminal: terminal.try_clone()?,
            before,
        };
        tcsetattr(terminal, SetArg::TCSANOW, &hidden)?;
        Ok(this)
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing any more.
        let _ = tcsetattr(&self.terminal, SetArg::TCSANOW, &self.before);
    }
}

/// A line that is being typed, with the keys that correct it.
struct Line {
    typed: Zeroizing<Vec<u8>>,
    limit: usize,
    escape: Escape,
}

/// How far an escape sequence came, such as an arrow key sends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Escape {
    None,
    Begun,
    Inside,
}

impl Line {
    fn new(limit: usize) -> Self {
        Self {
            // With its full size from the start no half-typed copy is left behind by growing.
            typed: Zeroizing::new(Vec::with_capacity(limit + 1)),
            limit,
            escape: Escape::None,
        }
    }

    fn clear(&mut self) {
        self.typed.zeroize();
        self.escape = Escape::None;
    }

    /// Takes a byte; true at the end of the line.
    fn take(&mut self, byte: u8) -> io::Result<bool> {
        match (self.escape, byte) {
            (Escape::Begun, b'[' | b'O') => self.escape = Escape::Inside,
            (Escape::Begun, _) | (Escape::Inside, b'@'..=b'~') => self.escape = Escape::None,
            (Escape::Inside, _) => {}
            (Escape::None, b'\n' | b'\r') => return Ok(true),
            (Escape::None, 0x1b) => self.escape = Escape::Begun,
            // Ctrl-D.
            (Escape::None, 0x04) if self.typed.is_empty() => {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // Backspace: a character, which may have several bytes.
            (Escape::None, 0x08 | 0x7f) => {
                let is_inner = |byte: &u8| byte & 0xc0 == 0x80;
                while self.typed.pop().as_ref().is_some_and(is_inner) {}
            }
            // Ctrl-U: the line.
            (Escape::None, 0x15) => self.typed.zeroize(),
            // Ctrl-W: a word.
            (Escape::None, 0x17) => {
                let is_blank = |byte: &u8| *byte == b' ';
                while self.typed.pop_if(|byte| is_blank(byte)).is_some() {}
                while self.typed.pop_if(|byte| !is_blank(byte)).is_some() {}
            }
            (Escape::None, 0..0x20) => {}
            (Escape::None, byte) if self.typed.len() <= self.limit => self.typed.push(byte),
            (Escape::None, _) => {}
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of these keys, and whether the line is at its end.
    fn typed(keys: &str) -> (String, bool) {
        let mut line = Line::new(20);
        for (number, byte) in keys.bytes().enumerate() {
            if line.take(byte).unwrap() {
                assert_eq!(number + 1, keys.len(), "the line ended early");
                return (String::from_utf8(line.typed.to_vec()).unwrap(), true);
            }
        }
        (String::from_utf8(line.typed.to_vec()).unwrap(), false)
    }

    #[test]
    fn keys_that_correct_a_line_do_so() {
        for (keys, expected) in [
            ("hunter2\r", "hunter2"),
            ("hunter2\n", "hunter2"),
            ("hunter3\x7f2\n", "hunter2"),
            ("pässü\x7f\x08\n", "päs"),
            ("\x7fx\n", "x"),
            ("wrong\x15right\n", "right"),
            ("two words \x17x\n", "two x"),
            ("a\x1b[Ab\x1b[3~c\x1bOPd\n", "abcd"),
            ("a\x01\x04b\n", "ab"),
            ("\n", ""),
        ] {
            assert_eq!(typed(keys), (expected.to_string(), true), "{keys:?}");
        }
        // One byte more than the limit tells that it was too long.
        assert_eq!(typed(&"x".repeat(40)), ("x".repeat(21), false));
    }

    #[test]
    fn the_input_can_be_ended() {
        let error = Line::new(20).take(0x04).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
