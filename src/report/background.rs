//! A writer on a thread of its own, so that a slow terminal or pipe never holds anyone up.

use std::io::{self, Write};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

/// Where output goes.
pub type Output = Box<dyn Write + Send>;

/// An unbounded queue in front of an output.
pub struct Background {
    queue: Option<Sender<String>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Background {
    /// Starts the thread.
    pub fn new(mut output: Output) -> Self {
        let (queue, texts) = channel::<String>();
        let thread = std::thread::spawn(move || {
            let mut first = Ok(());
            for text in texts {
                if first.is_ok() {
                    first = output
                        .write_all(text.as_bytes())
                        .and_then(|()| output.flush());
                }
            }
            first
        });
        Self {
            queue: Some(queue),
            thread: Some(thread),
        }
    }

    /// Queues a text; never blocks.
    pub fn write(&self, text: String) {
        if let Some(queue) = &self.queue {
            // The thread ends only after this sender is gone.
            let _ = queue.send(text);
        }
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
