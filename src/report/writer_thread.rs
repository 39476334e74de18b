//! A writer on a thread of its own, so that a slow terminal or pipe never holds anyone up.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Where output goes.
pub type Output = Box<dyn Write + Send>;

/// So many bytes may wait before dispensable output is left out.
const BEHIND: usize = 1 << 20;

/// Something to be written: a text of this length, or what is only made then.
type Piece = (
    usize,
    Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send>,
);

/// An unbounded queue in front of an output.
pub struct WriterThread {
    /// The bytes in the queue.
    waiting: Arc<AtomicUsize>,
    queue: Option<Sender<Piece>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl WriterThread {
    /// Starts the thread.
    pub fn new(output: Output) -> Self {
        Self::with_pulse(output, None, String::new)
    }

    /// Starts the thread, which also writes what `pulse` returns from time to time.
    pub fn with_pulse(
        mut output: Output,
        every: Option<Duration>,
        pulse: impl Fn() -> String + Send + 'static,
    ) -> Self {
        let (queue, pieces) = channel::<Piece>();
        let waiting = Arc::new(AtomicUsize::new(0));
        let queued = Arc::clone(&waiting);
        let thread = std::thread::spawn(move || {
            let mut first = Ok(());
            let mut due = every.map(|every| Instant::now() + every);
            while let Some(piece) = next(&pieces, due) {
                let (was_queued, write) = piece.unwrap_or_else(|| {
                    due = every.map(|every| Instant::now() + every);
                    (0, text(pulse()).1)
                });
                if first.is_ok() {
                    first = write(&mut output).and_then(|()| output.flush());
                }
                queued.fetch_sub(was_queued, Ordering::Relaxed);
            }
            first
        });
        Self {
            waiting,
            queue: Some(queue),
            thread: Some(thread),
        }
    }

    /// Queues a text; never blocks.
    pub fn write(&self, line: String) {
        self.queue(text(line));
    }

    /// Queues what is written by `write`, and made only then: for what is too long to wait in memory.
    pub fn write_later(
        &self,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
    ) {
        self.queue((0, Box::new(write)));
    }

    fn queue(&self, piece: Piece) {
        if let Some(queue) = &self.queue {
            self.waiting.fetch_add(piece.0, Ordering::Relaxed);
            // The thread ends only after this sender is gone.
            let _ = queue.send(piece);
        }
    }

    /// Whether the reader has been away for so long that dispensable output should not be queued: progress, which comes
    /// again and again, would fill the memory.
    pub fn is_behind(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > BEHIND
    }

    /// Waits until everything is written and tells the first error.
    pub fn finish(&mut self) -> io::Result<()> {
        self.queue = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("the writer crashed")),
            None => Ok(()),
        }
    }
}

fn text(text: String) -> Piece {
    let length = text.len();
    (
        length,
        Box::new(move |out: &mut dyn Write| out.write_all(text.as_bytes())),
    )
}

/// The next piece, or `Some(None)` when it is `due` before one comes; `None` when no more will come.
fn next(pieces: &Receiver<Piece>, due: Option<Instant>) -> Option<Option<Piece>> {
    let Some(due) = due else {
        return pieces.recv().ok().map(Some);
    };
    match pieces.recv_timeout(due.saturating_duration_since(Instant::now())) {
        Ok(piece) => Some(Some(piece)),
        Err(RecvTimeoutError::Timeout) => Some(None),
        Err(RecvTimeoutError::Disconnected) => None,
    }
}
