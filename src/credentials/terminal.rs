//! Reads a password from the terminal without showing what is typed. Whatever ends or stops prepull meanwhile, the
//! terminal is put back first: a shell that cannot be seen to take what is typed is hard to get out of.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{
    LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr,
};
use rpassword::ConfigBuilder;
use zeroize::Zeroizing;

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
    loop {
        let keys = Keys {
            terminal: terminal.try_clone()?,
            signals: signals.arrived.as_fd().try_clone_to_owned()?,
            room: limit + 1,
        };
        let hidden = Hidden::hide(&terminal)?;
        terminal.write_all(question.as_bytes())?;
        // What the terminal shows is ours to restore, so it is handed to rpassword as a plain reader.
        let config = ConfigBuilder::new().input_reader(keys).output_discard();
        let typed = rpassword::read_password_with_config(config.build());
        drop(hidden);
        terminal.write_all(b"\n")?;
        match typed {
            // Here prepull ends or stops. When it continues, the question is asked again from the start.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => signals.let_through()?,
            typed => return typed.map(|line| Zeroizing::new(line.into_bytes())),
        }
    }
}

/// The keys that are typed, until a signal arrives (`Interrupted`).
struct Keys {
    terminal: File,
    /// Readable while a signal is waiting.
    signals: OwnedFd,
    /// How many more bytes are taken. The rest of a longer line is dropped.
    room: usize,
}

impl Read for Keys {
    /// One byte at a time: what is typed after this line is for the next question.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let buffer = buffer.get_mut(..1).unwrap_or_default();
        loop {
            let wait = |fd| PollFd::new(fd, PollFlags::POLLIN);
            let mut ready = [wait(self.signals.as_fd()), wait(self.terminal.as_fd())];
            match poll(&mut ready, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                polled => polled?,
            };
            let is_ready = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
            if is_ready(&ready[0]) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            if !is_ready(&ready[1]) {
                continue;
            }
            if self.terminal.read(buffer)? == 0 {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if self.room > 0 || matches!(buffer, [b'\n' | b'\r']) {
                self.room = self.room.saturating_sub(1);
                return Ok(1);
            }
        }
    }
}

/// Keeps this thread from being ended or stopped by signals until it lets them through. Questions are asked before
/// there are other threads that could take them.
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
