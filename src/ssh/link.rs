//! One side's view of a connection: when and why it ended, and a kill switch. russh has no time-outs, and a session
//! that is only dropped in the middle of its key exchange would live on with its socket.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Context;
use std::time::Duration;

use futures::task::AtomicWaker;
use tokio::sync::watch;

/// How long the end of a connection is waited for before its cause is read.
const CAUSE_WAIT: Duration = Duration::from_secs(1);

/// Why a connection ended, from the most to the least telling.
#[derive(Debug, Clone, Default)]
struct Cause {
    /// Ended from this side, and why.
    killed: Option<String>,
    /// The server's own farewell.
    farewell: Option<String>,
    /// What the protocol or the stream said.
    fault: Option<String>,
}

struct Shared {
    cause: Mutex<Cause>,
    /// Woken when the kill switch is pulled.
    task: AtomicWaker,
    /// True once the stream is dropped: no task and no socket are left.
    ended: watch::Sender<bool>,
}

/// One side's view of a connection: knows when and why it ended, and can end it.
#[derive(Clone)]
pub(super) struct ConnectionHandle(Arc<Shared>);

impl ConnectionHandle {
    pub(super) fn new() -> Self {
        Self(Arc::new(Shared {
            cause: Mutex::default(),
            task: AtomicWaker::new(),
            ended: watch::Sender::new(false),
        }))
    }

    /// Has `context` woken when the connection is killed.
    pub(super) fn wake_when_killed(&self, context: &Context<'_>) {
        self.0.task.register(context.waker());
    }

    /// The stream is gone: no task and no socket are left.
    pub(super) fn end(&self) {
        self.0.ended.send_replace(true);
    }

    /// Ends the connection at once.
    pub(super) fn kill(&self, why: &str) {
        self.note(|cause| {
            cause.killed.get_or_insert_with(|| why.to_owned());
        });
        self.0.task.wake();
    }

    /// The server said goodbye in these words.
    pub(super) fn note_farewell(&self, words: String) {
        self.note(|cause| cause.farewell = Some(words));
    }

    /// What went wrong below; the first word counts.
    pub(super) fn note_fault(&self, words: impl FnOnce() -> String) {
        self.note(|cause| {
            cause.fault.get_or_insert_with(words);
        });
    }

    fn note(&self, change: impl FnOnce(&mut Cause)) {
        change(&mut self.0.cause.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn is_killed(&self) -> bool {
        self.cause_now().killed.is_some()
    }

    fn cause_now(&self) -> Cause {
        self.0
            .cause
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The server's farewell, if it sent one.
    pub(super) fn farewell(&self) -> Option<String> {
        self.cause_now().farewell
    }

    /// Whether nothing is left of the connection.
    pub(super) fn has_ended(&self) -> bool {
        *self.0.ended.borrow()
    }

    /// Returns once nothing is left of the connection: no task, no socket.
    pub(super) async fn ended(&self) {
        // An error would mean that the sender is gone, but this link holds it.
        let _ = self.0.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// Why the connection ended; waits a moment for the end, since the cause comes with it.
    pub(super) async fn cause(&self) -> String {
        let _ = tokio::time::timeout(CAUSE_WAIT, self.ended()).await;
        let cause = self.cause_now();
        cause
            .killed
            .or(cause.farewell)
            .or(cause.fault)
            .unwrap_or_else(|| "the connection ended without a word".to_owned())
    }
}

/// Ends a connection when it is dropped.
pub(super) struct KillOnDrop(pub(super) ConnectionHandle);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.kill("prepull gave the connection up");
    }
}

/// An I/O error in words that do not name the system's error number.
pub(super) fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionReset => "connection reset by the other side".to_owned(),
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::TimedOut => "timed out".to_owned(),
        io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
        io::ErrorKind::UnexpectedEof => "the other side closed the connection".to_owned(),
        _ => error.to_string(),
    }
}
