//! Reads what our program prints on a node: frames behind whatever start-up files print.
//!
//! A frame is one line, `prepull-NONCE WORD ARGUMENTS`; `output CODE STDOUT STDERR CUT` is followed by
//! that many bytes of each stream. Nothing that is announced is believed: sizes have limits of our own,
//! and a line out of place is an error, never a guess.

use std::fmt;
use std::sync::Arc;

use super::transfer::Part;
use crate::model::{CommandOutput, ExecOutput, ExitStatus, Spool, SpoolWriter};

/// The most bytes of one call, frames and output together; more where it has many commands.
const CALL_LIMIT: usize = 4 << 20;
const COMMAND_LIMIT: usize = 256 << 10;
/// The most bytes that start-up files may print before our program begins.
const NOISE_LIMIT: usize = 1 << 20;
/// How much of that noise is kept, to be shown when our program never begins.
const WORDS_KEPT: usize = 4 << 10;
/// The longest line of a frame.
const LINE_LIMIT: usize = 4096;
/// The largest manifest that is taken.
const MANIFEST_LIMIT: usize = 64 << 10;

/// What the node tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// How `escalate.sh` gets on, up to `begun`.
    Root(String),
    /// Our program runs.
    Hello,
    /// It begins this part.
    Stage(String),
    /// The operator's command ended; its output follows once nothing writes to it any more.
    Exited,
    /// A command's end and output.
    Output(CommandOutput),
    /// The same where there is a spool, which has what was printed.
    Ran(ExecOutput),
    /// It can see what arrives, and tells from here on.
    ProgressAvailable,
    /// What is on its way.
    Progress(Vec<Part>),
    /// The manifest of the image on its way, as the registry has it.
    Manifest(Vec<u8>),
    /// What the node is: clock, kernel, machine, system.
    Host(String),
    /// What is free where images live: kilobytes, and the place.
    Disk(String),
    /// A layer that was there before the pull: its digest without `sha256:`, or the first digits of it.
    LayerComplete(String),
    /// A layer that came, all of it.
    Came(Vec<Part>),
    /// Every layer of a pull that succeeded has been named.
    Counted,
    /// The pull cannot leave the session: the login manager ends it with the connection.
    SessionBound,
    /// The pull was there already: so many bytes of its frames come first.
    Replay(usize),
    /// The node itself keeps the limits of the pull from here on.
    Guarded,
    /// The node ended the pull, which exceeded this limit.
    Late(LateFor),
    /// It will not go on, and why.
    Refused(String),
    /// It has cleaned up and ends.
    End,
}

/// A limit that a node keeps by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LateFor {
    /// Nothing arrived for too long.
    Stall,
    /// The pull took too long.
    Limit,
    /// It took too long for one of which nothing is seen.
    Unseen,
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
    /// The most bytes of all.
    limit: usize,
    buffer: Vec<u8>,
    received: usize,
    /// All bytes that were ever taken.
    taken: usize,
    words: Vec<u8>,
    begun: bool,
    ended: bool,
    /// A frame whose bytes are still to come: their number, and what its line said.
    pending: Option<Announced>,
    /// Where output goes as it comes, instead of memory.
    spool: Option<Arc<Spool>>,
}

#[derive(Debug)]
enum Announced {
    Output(Output),
    Spooled(Output, Box<[SpoolWriter; 2]>),
    Manifest(usize),
}

#[derive(Debug, Clone)]
struct Output {
    exit: ExitStatus,
    stdout: usize,
    stderr: usize,
    truncated: bool,
}

impl Reader {
    pub(super) fn new(nonce: &str, limits: (usize, usize), commands: usize) -> Self {
        Self {
            mark: ["prepull-", nonce, " "].concat().into_bytes(),
            limits,
            limit: CALL_LIMIT.max(commands * COMMAND_LIMIT),
            buffer: Vec::new(),
            received: 0,
            taken: 0,
            words: Vec::new(),
            begun: false,
            ended: false,
            pending: None,
            spool: None,
        }
    }

    /// Output goes there as it comes.
    pub(super) fn spool_into(&mut self, spool: Arc<Spool>) {
        self.spool = Some(spool);
    }

    /// Whether our program's first frame was seen.
    pub(super) fn begun(&self) -> bool {
        self.begun
    }

    /// How many bytes have been read, up to the last frame that was returned.
    pub(super) fn position(&self) -> usize {
        self.taken - self.buffer.len()
    }

    /// What start-up files printed, as far as it was kept.
    pub(super) fn words(&self) -> Vec<u8> {
        // What may be the beginning of the mark is not when nothing follows.
        let rest: &[u8] = if self.begun { &[] } else { &self.buffer };
        [&self.words, rest].concat()
    }

    /// Something else may print until our next frame, as start-up files do before the first.
    pub(super) fn expect_noise(&mut self) -> Result<(), Broken> {
        self.begun = false;
        self.received = 0;
        self.words.clear();
        let rest = std::mem::take(&mut self.buffer);
        self.taken -= rest.len();
        self.push(&rest)
    }

    /// Takes what arrived.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        if self.ended {
            return Ok(());
        }
        self.taken += bytes.len();
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
        if self.received > self.limit {
            return Err(Broken(format!("it sent more than {} bytes", self.limit)));
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
                Some(Line::Announced(announced)) => self.pending = Some(announced),
            }
        }
        Ok(self.payload())
    }

    fn payload(&mut self) -> Option<Frame> {
        if let Some(Announced::Spooled(_, writers)) = &mut self.pending {
            for writer in writers.iter_mut() {
                let here = writer.left().min(self.buffer.len());
                writer.write(&self.buffer[..here]);
                self.buffer.drain(..here);
            }
        }
        let size = |announced: &Announced| match announced {
            Announced::Output(output) => output.stdout + output.stderr,
            Announced::Spooled(_, writers) => writers.iter().map(SpoolWriter::left).sum(),
            Announced::Manifest(size) => *size,
        };
        let there = self.buffer.len();
        let announced = self.pending.take_if(|announced| there >= size(announced))?;
        Some(match announced {
            Announced::Output(output) => Frame::Output(CommandOutput {
                exit: output.exit,
                stdout: self.buffer.drain(..output.stdout).collect(),
                stderr: self.buffer.drain(..output.stderr).collect(),
                truncated: output.truncated,
            }),
            Announced::Spooled(output, writers) => {
                let [stdout, stderr] = (*writers).map(SpoolWriter::finish);
                Frame::Ran(ExecOutput {
                    exit: output.exit,
                    stdout,
                    stderr,
                    truncated: output.truncated,
                })
            }
            Announced::Manifest(size) => Frame::Manifest(self.buffer.drain(..size).collect()),
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
        let text = window[..end]
            .strip_prefix(self.mark.as_slice())
            .and_then(|rest| std::str::from_utf8(rest).ok())
            .ok_or_else(|| Broken("something else wrote between its lines".into()))?;
        let parsed = self.parse(text)?;
        self.buffer.drain(..=end);
        if matches!(parsed, Line::Frame(Frame::Progress(_))) {
            // There is one a second for as long as a pull takes, and none is kept.
            self.received -= end.min(self.received);
        }
        Ok(Some(parsed))
    }

    fn parse(&self, text: &str) -> Result<Line, Broken> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let frame = match word {
            "root" => Frame::Root(rest.to_string()),
            "hello" => Frame::Hello,
            "stage" => Frame::Stage(rest.to_string()),
            "exited" => Frame::Exited,
            "refused" => Frame::Refused(rest.to_string()),
            "end" => Frame::End,
            "measured" => Frame::ProgressAvailable,
            "host" => Frame::Host(rest.to_string()),
            "disk" => Frame::Disk(rest.to_string()),
            "tied" => Frame::SessionBound,
            "there" => Frame::LayerComplete(rest.to_string()),
            "counted" => Frame::Counted,
            "guarded" => Frame::Guarded,
            "replay" => {
                let size = rest.parse().ok().map(Frame::Replay);
                size.ok_or_else(|| Broken("it announced frames that cannot be".into()))?
            }
            "late" => Frame::Late(match rest {
                "stall" => LateFor::Stall,
                "limit" => LateFor::Limit,
                "unseen" => LateFor::Unseen,
                _ => return Err(Broken("it ended a pull for an unknown reason".into())),
            }),
            "progress" | "came" => {
                let parts = parts(rest);
                let parts =
                    parts.ok_or_else(|| Broken("it told of progress that cannot be".into()))?;
                match word {
                    "came" => Frame::Came(parts),
                    _ => Frame::Progress(parts),
                }
            }
            "manifest" => {
                let size = rest.parse().ok().filter(|size| *size <= MANIFEST_LIMIT);
                let size =
                    size.ok_or_else(|| Broken("it announced a manifest that cannot be".into()))?;
                return Ok(Line::Announced(Announced::Manifest(size)));
            }
            "output" => {
                let announced = announced(rest, self.limits)
                    .ok_or_else(|| Broken("it announced an output that cannot be".into()))?;
                return Ok(Line::Announced(match &self.spool {
                    None => Announced::Output(announced),
                    Some(spool) => {
                        let places = [announced.stdout, announced.stderr];
                        let places = places.map(|length| spool.place_for(length));
                        Announced::Spooled(announced, Box::new(places))
                    }
                }));
            }
            _ => return Err(Broken("it sent a line that is unknown".into())),
        };
        Ok(Line::Frame(frame))
    }
}

enum Line {
    Frame(Frame),
    Announced(Announced),
}

/// `NAME:BYTES:TOTAL NAME:BYTES:TOTAL ...`; the last may be the disk's use, which is not a layer.
fn parts(text: &str) -> Option<Vec<Part>> {
    let part = |word: &str| {
        let mut fields = word.split(':');
        let part = Part {
            name: fields.next()?.to_string(),
            bytes: fields.next()?.parse().ok()?,
            total: fields.next()?.parse().ok()?,
        };
        fields.next().is_none().then_some(part)
    };
    let mut parts = text
        .split_whitespace()
        .map(part)
        .collect::<Option<Vec<_>>>()?;
    parts.retain(|part| part.name != "disk");
    Some(parts)
}

/// `CODE STDOUT STDERR CUT`, within the limits.
fn announced(text: &str, limits: (usize, usize)) -> Option<Output> {
    let mut fields = text.split(' ').map(|field| field.parse::<u32>().ok());
    let mut field = || fields.next().flatten();
    let (code, stdout, stderr, cut) = (field()?, field()?, field()?, field()?);
    let (stdout, stderr) = (usize::try_from(stdout).ok()?, usize::try_from(stderr).ok()?);
    if fields.next().is_some() || code > 255 || cut > 1 || stdout > limits.0 || stderr > limits.1 {
        return None;
    }
    Some(Output {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: (usize, usize) = (1000, 100);

    /// Gives the pieces to a reader, asking for frames after each.
    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Frame>, Option<Broken>) {
        let mut reader = Reader::new("n", LIMITS, 1);
        let mut frames = vec![];
        for piece in pieces {
            if let Err(broken) = reader.push(piece) {
                return (frames, Some(broken));
            }
            loop {
                match reader.next() {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(broken) => return (frames, Some(broken)),
                }
            }
        }
        (frames, None)
    }

    fn broken(bytes: &[u8]) -> String {
        read([bytes]).1.unwrap().to_string()
    }

    fn output(code: u32, stdout: &[u8], stderr: &[u8], truncated: bool) -> Frame {
        Frame::Output(CommandOutput {
            exit: exit_status(code),
            stdout: stdout.to_vec(),
            stderr: stderr.to_vec(),
            truncated,
        })
    }

    const TALK: &[u8] = b"Welcome!\nprepull-m hello\nno newlineprepull-n hello\nprepull-n stage inspect\n\
        prepull-n output 1 2 3 0\na\0\nerprepull-n output 0 17 0 1\nprepull-n output \nprepull-n exited\n\
        prepull-n refused tool a b\nprepull-n end\nlogged out\n";

    fn protocol() -> Vec<Frame> {
        vec![
            Frame::Hello,
            Frame::Stage("inspect".into()),
            output(1, b"a\0", b"\ner", false),
            output(0, b"prepull-n output ", b"", true),
        ]
    }

    #[test]
    fn output_goes_to_its_spool_as_it_comes() {
        let spool = Arc::new(Spool::for_nodes(1));
        let mut reader = Reader::new("n", (1 << 20, 1 << 20), 1);
        reader.spool_into(Arc::clone(&spool));
        let mut sent = b"prepull-n hello\nprepull-n output 3 1000000 3 1\n".to_vec();
        sent.extend(vec![b'x'; 1_000_000]);
        sent.extend(b"errprepull-n end\n");
        let mut frames = Vec::new();
        for piece in sent.chunks(32 << 10) {
            reader.push(piece).unwrap();
            while let Some(frame) = reader.next().unwrap() {
                frames.push(frame);
            }
            assert!(
                reader.buffer.len() < 100,
                "{} bytes wait",
                reader.buffer.len()
            );
            assert!(reader.buffer.capacity() < 100 << 10);
        }
        let [Frame::Hello, Frame::Ran(output), Frame::End] = &frames[..] else {
            panic!("{frames:?}");
        };
        assert_eq!(output.exit, ExitStatus::Code(3));
        assert_eq!(
            output.stdout.read(usize::MAX).unwrap(),
            vec![b'x'; 1_000_000]
        );
        assert_eq!(output.stderr.read(usize::MAX).unwrap(), b"err");
        assert!(output.truncated);
    }

    #[test]
    fn output_is_cut_by_its_length_alone() {
        let (frames, broken) = read([TALK]);
        assert_eq!(frames, protocol());
        assert_eq!(
            broken.unwrap().to_string(),
            "something else wrote between its lines",
            "the newline after 17 bytes is out of place"
        );
    }

    #[test]
    fn what_is_out_of_place_is_refused() {
        for (bytes, what) in [
            (&b"prepull-n hello\n\n"[..], "something else wrote"),
            (b"prepull-n hello\nprepull-m end\n", "something else wrote"),
            (b"prepull-n hello\nprepull-n what\n", "unknown"),
            (b"prepull-n output 0 1001 0 0\n", "cannot be"),
            (b"prepull-n output 0 0 101 0\n", "cannot be"),
            (b"prepull-n output 256 0 0 0\n", "cannot be"),
            (b"prepull-n output 0 -1 0 0\n", "cannot be"),
            (
                b"prepull-n output 0 99999999999999999999 0 0\n",
                "cannot be",
            ),
            (b"prepull-n output 0 0 0\n", "cannot be"),
            (b"prepull-n progress a:b:c\n", "cannot be"),
            (b"prepull-n progress a:1\n", "cannot be"),
            (b"prepull-n manifest 65537\n", "cannot be"),
            (b"prepull-n manifest -1\n", "cannot be"),
            (b"prepull-n output 0 0 0 0 0\n", "cannot be"),
        ] {
            let told = broken(bytes);
            assert!(told.contains(what), "{told}: {}", bytes.escape_ascii());
        }
        assert!(
            broken(&[b"prepull-n hello\n", [b'a'; 5000].as_slice()].concat()).contains("too long")
        );
    }

    #[test]
    fn a_shell_reports_a_signal_as_128_and_its_number() {
        assert_eq!(exit_status(143), ExitStatus::Signal("TERM".into()));
        assert_eq!(exit_status(137), ExitStatus::Signal("KILL".into()));
        assert_eq!(exit_status(127), ExitStatus::Code(127));
        assert_eq!(exit_status(255), ExitStatus::Code(255));
    }

    #[test]
    fn progress_is_read_and_does_not_count_for_the_size_of_a_call() {
        let part = |name: &str, bytes, total| Part {
            name: name.into(),
            bytes,
            total,
        };
        let (frames, broken) = read([
            &b"prepull-n measured\nprepull-n progress ab:5:10 GetImageBlob7:3:0 disk:123:0\n\
            prepull-n manifest 3\n{\n}prepull-n there ab\nprepull-n progress\n"[..],
        ]);
        assert_eq!(
            frames,
            [
                Frame::ProgressAvailable,
                Frame::Progress(vec![part("ab", 5, 10), part("GetImageBlob7", 3, 0)]),
                Frame::Manifest(b"{\n}".to_vec()),
                Frame::LayerComplete("ab".into()),
                Frame::Progress(vec![]),
            ]
        );
        assert_eq!(broken, None);
        let line = format!("prepull-n progress {}:1:2\n", "a".repeat(2000));
        let (frames, broken) = read(std::iter::repeat_n(line.as_bytes(), 5000));
        assert_eq!((frames.len(), broken), (5000, None));
    }

    #[test]
    fn noise_and_output_without_end_are_given_up_and_never_kept() {
        for first in [&b""[..], b"prepull-n hello\nprepull-n output 0 1000 0 0\n"] {
            let mut reader = Reader::new("n", LIMITS, 1);
            reader.push(first).unwrap();
            let noise = vec![b'x'; 64 << 10];
            let pushes = (0..1000)
                .take_while(|_| reader.push(&noise).is_ok())
                .count();
            assert!(pushes < 100, "{pushes}");
            assert!(reader.buffer.len() < 5 << 20);
            assert!(reader.words.len() <= WORDS_KEPT);
        }
    }

    #[test]
    fn words_are_whole_when_the_program_never_begins() {
        let mut reader = Reader::new("0123456789abcdef", LIMITS, 1);
        reader.push(b"not ").unwrap();
        reader.push(b"available").unwrap();
        assert_eq!(reader.words(), b"not available");
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(cuts in proptest::collection::vec(0..TALK.len(), 0..20)) {
            let mut cuts = cuts;
            cuts.extend([0, TALK.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|pair| &TALK[pair[0]..pair[1]]);
            prop_assert_eq!(read(pieces), read([TALK]));
        }

        #[test]
        fn any_output_comes_through(
            stdout in proptest::collection::vec(any::<u8>(), 0..1000),
            stderr in proptest::collection::vec(any::<u8>(), 0..100),
            piece in 1..50usize,
        ) {
            let mut bytes = b"prepull-n hello\n".to_vec();
            bytes.extend(format!("prepull-n output 0 {} {} 0\n", stdout.len(), stderr.len()).bytes());
            bytes.extend(&stdout);
            bytes.extend(&stderr);
            bytes.extend(b"prepull-n end\nnoise");
            let frames = vec![Frame::Hello, output(0, &stdout, &stderr, false), Frame::End];
            prop_assert_eq!(read(bytes.chunks(piece)), (frames, None));
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..500),
            lines in proptest::collection::vec("prepull-n (output [0-9]{1,4} [0-9]{1,4} [0-9] [01]|hello|end|x)\n", 0..5),
            piece in 1..50usize,
        ) {
            let mut protocol = lines.concat().into_bytes();
            protocol.extend(bytes);
            read(protocol.chunks(piece));
        }
    }
}
