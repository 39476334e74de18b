//! A channel of a session as a stream: what carries the session to a node behind a jump host, and what a program on a
//! node sent to a forwarded port.

use std::any::Any;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use super::link::ConnectionHandle;
use super::queue::{CLOSE_WAIT, cost};
use crate::model::Hop;

/// What a channel leads to, for the words about its end.
pub(super) enum Origin {
    /// A node behind this jump host.
    JumpHost(Hop),
    /// A program on the node.
    ForwardedPort,
}

impl Origin {
    fn closed(&self) -> String {
        match self {
            Self::JumpHost(hop) => format!("jump host {hop} closed the way to it"),
            Self::ForwardedPort => "the program on the node closed its connection".to_owned(),
        }
    }

    fn lost(&self, cause: &str) -> String {
        match self {
            Self::JumpHost(hop) => format!("the connection to jump host {hop} was lost: {cause}"),
            Self::ForwardedPort => format!("the connection to the node was lost: {cause}"),
        }
    }
}

/// The stream. Dropping it closes the channel.
pub(super) struct ChannelStream {
    incoming: UnboundedReceiver<Vec<u8>>,
    /// What arrived last, and how much of it was read.
    current: (Vec<u8>, usize),
    writer: Pin<Box<dyn AsyncWrite + Send>>,
    state: Arc<DrainState>,
    /// Keeps the session that the channel belongs to, and its place there.
    _lease: Box<dyn Any + Send + Sync>,
}

#[derive(Default)]
struct DrainState {
    queued: AtomicUsize,
    /// Set when nothing more will arrive.
    end: OnceLock<String>,
    /// A writer would wait for ever on a session that is gone.
    writer: AtomicWaker,
}

impl ChannelStream {
    /// Takes the channel over; `link` is that of the session that it belongs to. No more than `limit` bytes wait to be
    /// read: beyond it the channel is closed.
    pub(super) fn new(
        channel: Channel<Msg>,
        link: ConnectionHandle,
        origin: Origin,
        limit: usize,
        lease: Box<dyn Any + Send + Sync>,
    ) -> Self {
        let (reading, writing) = channel.split();
        let writer = Box::pin(writing.make_writer());
        let (sender, incoming) = unbounded_channel();
        let state = Arc::new(DrainState::default());
        tokio::spawn(drain(
            reading,
            writing,
            sender,
            Arc::clone(&state),
            link,
            origin,
            limit,
        ));
        Self {
            incoming,
            current: (Vec::new(), 0),
            writer,
            state,
            _lease: lease,
        }
    }
}

/// Takes everything that arrives out of the session, at once: whatever stays in there stops the session's other channels,
/// such as those to all nodes behind a jump host.
async fn drain(
    mut reading: ChannelReadHalf,
    writing: ChannelWriteHalf<Msg>,
    sender: UnboundedSender<Vec<u8>>,
    state: Arc<DrainState>,
    link: ConnectionHandle,
    origin: Origin,
    limit: usize,
) {
    let end = loop {
        let message = tokio::select! {
            message = reading.wait() => message,
            () = sender.closed() => break None,
        };
        match message {
            Some(ChannelMsg::Data { data }) if data.is_empty() => {}
            Some(ChannelMsg::Data { data }) => {
                // An honest node stays far below this: the session inside has flow control, and requests are small.
                let cost = cost(data.len());
                let queued = state.queued.fetch_add(cost, Ordering::Relaxed);
                if queued + cost > limit {
                    break Some("it sends more than it may".to_owned());
                }
                if sender.send(data.to_vec()).is_err() {
                    break None;
                }
            }
            Some(ChannelMsg::Eof | ChannelMsg::Close) => {
                break Some(origin.closed());
            }
            None => {
                break Some(origin.lost(&link.cause().await));
            }
            Some(_) => {}
        }
    };
    // Set once, here.
    let _ = state.end.set(end.unwrap_or_default());
    state.writer.wake();
    drop((reading, sender));
    let _ = timeout(CLOSE_WAIT, writing.close()).await;
}

fn ended(words: &str) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, words.to_owned())
}

impl AsyncRead for ChannelStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.current.1 == self.current.0.len() {
            match self.incoming.poll_recv(context) {
                Poll::Ready(Some(bytes)) => {
                    let cost = cost(bytes.len());
                    self.state.queued.fetch_sub(cost, Ordering::Relaxed);
                    self.current = (bytes, 0);
                }
                Poll::Ready(None) => {
                    let words = self.state.end.get().map_or("", String::as_str);
                    return Poll::Ready(Err(ended(words)));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        let (bytes, read) = &mut self.current;
        let length = buffer.remaining().min(bytes.len() - *read);
        buffer.put_slice(&bytes[*read..*read + length]);
        *read += length;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ChannelStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.state.writer.register(context.waker());
        if let Some(words) = self.state.end.get() {
            return Poll::Ready(Err(ended(words)));
        }
        self.writer.as_mut().poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer.as_mut().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer.as_mut().poll_shutdown(context)
    }
}
