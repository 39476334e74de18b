//! The stream below an SSH session, with a kill switch: russh has no time-outs, and a session that
//! is only dropped in the middle of its key exchange would live on with its socket.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::jump_stream::JumpStream;
use super::proxy_command::ProxyStream;

/// How long the end of a connection is waited for before its cause is read.
const CAUSE_WAIT: Duration = Duration::from_secs(1);

/// What carries a session: the network, a channel of a jump host's session, or a command.
pub(super) enum RawStream {
    Tcp(TcpStream),
    Jump(JumpStream),
    Proxy(Box<ProxyStream>),
}

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
    /// A link and the stream that obeys it.
    pub(super) fn new(carrier: RawStream) -> (Self, LinkStream) {
        let link = Self(Arc::new(Shared {
            cause: Mutex::default(),
            task: AtomicWaker::new(),
            ended: watch::Sender::new(false),
        }));
        let stream = LinkStream {
            carrier,
            link: link.clone(),
        };
        (link, stream)
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

    fn killed(&self) -> bool {
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

/// The stream itself, given to russh.
pub(super) struct LinkStream {
    carrier: RawStream,
    link: ConnectionHandle,
}

impl LinkStream {
    /// Whether the switch was pulled; remembers the task, so that pulling it later wakes it.
    fn check(&self, context: &Context<'_>) -> io::Result<()> {
        self.link.0.task.register(context.waker());
        if self.link.killed() {
            Err(io::ErrorKind::ConnectionAborted.into())
        } else {
            Ok(())
        }
    }

    fn noting<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &result {
            self.link.note_fault(|| plain(error));
        }
        result
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

impl Drop for LinkStream {
    fn drop(&mut self) {
        self.link.0.ended.send_replace(true);
    }
}

impl AsyncRead for LinkStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        let before = buffer.filled().len();
        let result = match &mut self.carrier {
            RawStream::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            RawStream::Jump(stream) => Pin::new(stream).poll_read(context, buffer),
            RawStream::Proxy(stream) => Pin::new(stream).poll_read(context, buffer),
        };
        if matches!(result, Poll::Ready(Ok(()))) && buffer.filled().len() == before {
            self.link
                .note_fault(|| plain(&io::ErrorKind::UnexpectedEof.into()));
        }
        self.noting(result)
    }
}

impl AsyncWrite for LinkStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let result = match &mut self.carrier {
            RawStream::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            RawStream::Jump(stream) => Pin::new(stream).poll_write(context, bytes),
            RawStream::Proxy(stream) => Pin::new(stream).poll_write(context, bytes),
        };
        self.noting(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        let result = match &mut self.carrier {
            RawStream::Tcp(stream) => Pin::new(stream).poll_flush(context),
            RawStream::Jump(stream) => Pin::new(stream).poll_flush(context),
            RawStream::Proxy(stream) => Pin::new(stream).poll_flush(context),
        };
        self.noting(result)
    }

    /// Never fails and never waits: russh would otherwise lose the cause, or hang on a dead peer.
    /// Dropping the stream right afterwards closes it.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (ConnectionHandle, LinkStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (link, stream) = ConnectionHandle::new(RawStream::Tcp(ours));
        (link, stream, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn killing_the_link_wakes_a_reader_that_waits() {
        let (link, mut stream, _peer) = pair().await;
        let reader = tokio::spawn(async move { stream.read_u8().await });
        tokio::task::yield_now().await;
        link.kill("tired of waiting");
        assert!(reader.await.unwrap().is_err());
        link.ended().await;
        assert_eq!(link.cause().await, "tired of waiting");
    }

    #[tokio::test]
    async fn a_closed_peer_is_the_cause_unless_it_said_goodbye() {
        let (link, mut stream, peer) = pair().await;
        drop(peer);
        assert!(stream.read_u8().await.is_err());
        drop(stream);
        assert_eq!(link.cause().await, "the other side closed the connection");
        link.note_farewell("too many users".into());
        assert_eq!(link.cause().await, "too many users");
    }
}
