//! The stream below an SSH session, which ends when its [`ConnectionHandle`] is killed.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::channel_stream::ChannelStream;
use super::link::{ConnectionHandle, plain};
use super::proxy_command::ProxyStream;

/// What carries a session: the network, a channel of a jump host's session, or a command.
pub(super) enum RawStream {
    Tcp(TcpStream),
    Jump(ChannelStream),
    Proxy(Box<ProxyStream>),
}

/// A link and the stream that obeys it.
pub(super) fn link(carrier: RawStream) -> (ConnectionHandle, LinkStream) {
    let link = ConnectionHandle::new();
    let stream = LinkStream {
        carrier,
        link: link.clone(),
    };
    (link, stream)
}

/// The stream itself, given to russh.
pub(super) struct LinkStream {
    carrier: RawStream,
    link: ConnectionHandle,
}

impl LinkStream {
    /// Whether the switch was pulled; remembers the task, so that pulling it later wakes it.
    fn check(&self, context: &Context<'_>) -> io::Result<()> {
        self.link.wake_when_killed(context);
        if self.link.is_killed() {
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

impl Drop for LinkStream {
    fn drop(&mut self) {
        self.link.end();
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
        let (link, stream) = super::link(RawStream::Tcp(ours));
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
