//! Reads what our program prints on a node: frames behind whatever start-up files print.
//!
//! A frame is one line, `prepull-NONCE WORD ARGUMENTS`; `output CODE STDOUT STDERR CUT` is followed by
//! that many bytes of each stream. Nothing that is announced is believed: sizes have limits of our own,
//! and a line out of place is an error, never a guess.

use std::fmt;

use crate::model::{CommandOutput, ExitStatus};

/// The most bytes of one call, frames and output together.
const CALL_LIMIT: usize = 4 << 20;
/// The most bytes that start-up files may print before our program begins.
const NOISE_LIMIT: usize = 1 << 20;
/// How much of that noise is kept, to be shown when our program never begins.
const WORDS_KEPT: usize = 4 << 10;
/// The longest line of a frame.
const LINE_LIMIT: usize = 256;

/// What the node tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// Our program runs.
    Hello,
    /// It begins this part.
    Stage(String),
    /// The operator's command ended; its output follows once nobody writes to it any more.
    Exited,
    /// A command's end and output.
    Output(CommandOutput),
    /// It will not go on, and why.
    Refused(String),
    /// It has cleaned up and ends.
    End,
}

/// The node did not keep to the protocol: what was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broken(String);

impl fmt::Display for Broken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Takes bytes in any pieces and gives frames.
#[derive(Debug)]
pub(super) struct Reader {
    mark: Vec<u8>,
    /// The most bytes of standard output and of standard error in one frame.
    limits: (usize, usize),
    buffer: Vec<u8>,
    received: usize,
    words: Vec<u8>,
    begun: bool,
    ended: bool,
    /// An output frame whose bytes are still to come: their number, and what its line said.
    pending: Option<Announced>,
}

#[derive(Debug, Clone)]
struct Announced {
    exit: ExitStatus,
    stdout: usize,
    stderr: usize,
    truncated: bool,
}

impl Reader {
    pub(super) fn new(nonce: &str, limits: (usize, usize)) -> Self {
        Self {
            mark: format!("prepull-{nonce} ").into_bytes(),
            limits,
            buffer: Vec::new(),
            received: 0,
            words: Vec::new(),
            begun: false,
            ended: false,
            pending: None,
        }
    }

    /// Whether our program's first frame was seen.
    pub(super) fn begun(&self) -> bool {
        self.begun
    }

    /// What start-up files printed, as far as it was kept.
    pub(super) fn words(&self) -> Vec<u8> {
        // What may be the beginning of the mark is not when nothing follows.
        let rest: &[u8] = if self.begun { &[] } else { &self.buffer };
        [&self.words, rest].concat()
    }

    /// Takes what arrived.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        if self.ended {
            return Ok(());
        }
        self.received += bytes.len();
        self.buffer.extend_from_slice(bytes);
        if self.begun {
            return self.within_limit();
        }
        match find(&self.buffer, &self.mark) {
            Some(at) => {
                self.keep_words(at);
                self.begun = true;
                self.received = self.buffer.len();
                self.within_limit()
            }
            None if self.received > NOISE_LIMIT => Err(Broken(format!(
                "its login files printed more than {NOISE_LIMIT} bytes before our program began"
            ))),
            None => {
                // The mark may have begun in the last bytes.
                self.keep_words(self.buffer.len().saturating_sub(self.mark.len() - 1));
                Ok(())
            }
        }
    }

    fn within_limit(&self) -> Result<(), Broken> {
        if self.received > CALL_LIMIT {
            return Err(Broken(format!("it sent more than {CALL_LIMIT} bytes")));
        }
        Ok(())
    }

    fn keep_words(&mut self, until: usize) {
        let room = WORDS_KEPT.saturating_sub(self.words.len());
        self.words.extend(self.buffer.drain(..until).take(room));
    }

    /// The next frame, if all of it is there.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, Broken> {
        if !self.begun || self.ended {
            return Ok(None);
        }
        if self.pending.is_none() {
            match self.line()? {
                None => return Ok(None),
                Some(Line::Frame(frame)) => {
                    self.ended = frame == Frame::End;
                    return Ok(Some(frame));
                }
                Some(Line::Output(announced)) => self.pending = Some(announced),
            }
        }
        Ok(self.payload().map(Frame::Output))
    }

    fn payload(&mut self) -> Option<CommandOutput> {
        let whole = |a: &Announced| self.buffer.len() >= a.stdout + a.stderr;
        let announced = self.pending.take_if(|announced| whole(announced))?;
        let stdout = self.buffer.drain(..announced.stdout).collect();
        let stderr = self.buffer.drain(..announced.stderr).collect();
        Some(CommandOutput {
            exit: announced.exit,
            stdout,
            stderr,
            truncated: announced.truncated,
        })
    }

    /// The next line, taken out of the buffer.
    fn line(&mut self) -> Result<Option<Line>, Broken> {
        let window = &self.buffer[..self.buffer.len().min(LINE_LIMIT)];
        let Some(end) = window.iter().position(|&byte| byte == b'\n') else {
            if window.len() == LINE_LIMIT {
                return Err(Broken("it sent a line that is too long".into()));
            }
            return Ok(None);
        };
        let line: Vec<u8> = self.buffer.drain(..=end).take(end).collect();
        let text = line
            .strip_prefix(self.mark.as_slice())
            .and_then(|rest| std::str::from_utf8(rest).ok())
            .ok_or_else(|| Broken("something else wrote between its lines".into()))?;
        self.parse(text).map(Some)
    }

    fn parse(&self, text: &str) -> Result<Line, Broken> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let frame = match word {
            "hello" => Frame::Hello,
            "stage" => Frame::Stage(rest.to_string()),
            "exited" => Frame::Exited,
            "refused" => Frame::Refused(rest.to_string()),
            "end" => Frame::End,
            "output" => {
                let announced = announced(rest, self.limits)
                    .ok_or_else(|| Broken("it announced an output that cannot be".into()))?;
                return Ok(Line::Output(announced));
            }
            _ => return Err(Broken("it sent a line that is unknown".into())),
        };
        Ok(Line::Frame(frame))
    }
}

enum Line {
    Frame(Frame),
    Output(Announced),
}

/// `CODE STDOUT STDERR CUT`, within the limits.
fn announced(text: &str, limits: (usize, usize)) -> Option<Announced> {
    let mut fields = text.split(' ').map(|field| field.parse::<u32>().ok());
    let mut field = || fields.next().flatten();
    let (code, stdout, stderr, cut) = (field()?, field()?, field()?, field()?);
    let (stdout, stderr) = (usize::try_from(stdout).ok()?, usize::try_from(stderr).ok()?);
    if fields.next().is_some() || code > 255 || cut > 1 || stdout > limits.0 || stderr > limits.1 {
        return None;
    }
    Some(Announced {
        exit: exit_status(code),
        stdout,
        stderr,
        truncated: cut == 1,
    })
}

/// A shell reports a signal as 128 and its number (POSIX, `$?`). The signals are those with the same
/// number everywhere that end a command.
fn exit_status(code: u32) -> ExitStatus {
    let name = match code.checked_sub(128) {
        Some(1) => "HUP",
        Some(2) => "INT",
        Some(3) => "QUIT",
        Some(4) => "ILL",
        Some(6) => "ABRT",
        Some(8) => "FPE",
        Some(9) => "KILL",
        Some(11) => "SEGV",
        Some(13) => "PIPE",
        Some(14) => "ALRM",
        Some(15) => "TERM",
        _ => return ExitStatus::Code(code),
    };
    ExitStatus::Signal(name.into())
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}
