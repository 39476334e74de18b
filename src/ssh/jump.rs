//! The way through jump hosts. A few sessions to each are shared by all nodes behind it: one for all
//! would be a bottleneck, one for each would overrun the host.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use futures::task::AtomicWaker;
use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelOpenFailure, ChannelReadHalf, ChannelWriteHalf};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::Inner;
use super::connect::{self, Live, Target};
use super::link::{Carrier, Link};
use super::session::{CLOSE_WAIT, QUEUE_BYTES};
use crate::model::{Failure, FailureKind, Hop, Stage};

/// Nodes that share one session to a jump host; OpenSSH's MaxSessions is 10.
const CHANNELS: usize = 8;

/// A chain of hops, and the identities that the node behind it names: nodes that name other keys
/// do not share a login.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Route {
    hops: Vec<Hop>,
    identities: Vec<PathBuf>,
}

type Dial = Shared<BoxFuture<'static, Result<Arc<Bastion>, Failure>>>;

/// The sessions to jump hosts. One is dialled at a time for each route: hosts throttle logins.
#[derive(Default)]
pub(super) struct Pool(Mutex<HashMap<Route, Sessions>>);

#[derive(Default)]
struct Sessions {
    live: Vec<Arc<Bastion>>,
    dialing: Option<Dial>,
}

/// A session to a jump host.
pub(super) struct Bastion {
    live: Live,
    slots: Arc<Semaphore>,
    hop: Hop,
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, HashMap<Route, Sessions>> {
        // Nothing in here panics half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets all sessions and gives them back, to be closed.
    pub(super) fn clear(&self) -> Vec<Arc<Bastion>> {
        self.lock()
            .drain()
            .flat_map(|(_, sessions)| sessions.live)
            .collect()
    }
}

impl Bastion {
    /// Ends the session politely.
    pub(super) async fn close(&self) {
        super::session::farewell(&self.live).await;
    }
}

/// Opens a stream to a host behind a chain of hops.
///
/// # Errors
/// Whatever went wrong, at stage connect, with the hop in the detail.
pub(super) fn through(
    inner: Arc<Inner>,
    hops: &[Hop],
    identities: &[PathBuf],
    host: &str,
    port: u16,
) -> BoxFuture<'static, Result<JumpStream, Failure>> {
    let route = Route {
        hops: hops.to_vec(),
        identities: identities.to_vec(),
    };
    let host = host.to_owned();
    // Boxed because it calls itself for every hop.
    async move {
        let (bastion, slot) = lease(&inner, route).await?;
        let wait = inner.options.connect_timeout;
        let opening = bastion.live.handle.channel_open_direct_tcpip(
            host.as_str(),
            port.into(),
            "127.0.0.1",
            0,
        );
        let channel = match timeout(wait, opening).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(russh::Error::ChannelOpenFailure(reason))) => {
                return Err(unreachable(&bastion.hop, &refusal(&reason, &host, port)));
            }
            Ok(Err(_)) => {
                let cause = bastion.live.link.0.cause().await;
                return Err(lost(&bastion.hop, &cause));
            }
            Err(_) => {
                return Err(unreachable(
                    &bastion.hop,
                    &format!("it did not reach {host}:{port} within {wait:?}"),
                ));
            }
        };
        Ok(JumpStream::new(channel, bastion, slot))
    }
    .boxed()
}

fn refusal(reason: &ChannelOpenFailure, host: &str, port: u16) -> String {
    match reason {
        ChannelOpenFailure::ConnectFailed => format!("it cannot reach {host}:{port}"),
        ChannelOpenFailure::AdministrativelyProhibited => {
            format!(
                "it does not allow forwarding to {host}:{port} (AllowTcpForwarding, PermitOpen)"
            )
        }
        other => format!("it opened no way to {host}:{port}: {other:?}"),
    }
}

fn unreachable(hop: &Hop, detail: &str) -> Failure {
    Failure::new(
        FailureKind::Unreachable,
        Stage::Connect,
        format!("jump host {hop}: {detail}"),
    )
}

fn lost(hop: &Hop, cause: &str) -> Failure {
    Failure::new(
        FailureKind::ConnectionLost,
        Stage::Connect,
        format!("jump host {hop}: {cause}"),
    )
}

/// A failure of the hop itself, told as one on the way.
fn at_hop(hop: &Hop, failure: &Failure) -> Failure {
    Failure::new(
        failure.kind,
        Stage::Connect,
        format!("jump host {hop} ({}): {}", failure.stage, failure.detail),
    )
}

/// A session of the route with a free slot: one that is there, or a new one.
async fn lease(
    inner: &Arc<Inner>,
    route: Route,
) -> Result<(Arc<Bastion>, OwnedSemaphorePermit), Failure> {
    loop {
        let waiting = {
            let mut routes = inner.pool.lock();
            let sessions = routes.entry(route.clone()).or_default();
            sessions
                .live
                .retain(|bastion| !bastion.live.handle.is_closed());
            for bastion in &sessions.live {
                if let Ok(slot) = Arc::clone(&bastion.slots).try_acquire_owned() {
                    return Ok((Arc::clone(bastion), slot));
                }
            }
            let dial = sessions
                .dialing
                .get_or_insert_with(|| reach(Arc::clone(inner), route.clone()).boxed().shared());
            Waiting {
                pool: &inner.pool,
                route: &route,
                dial: dial.clone(),
            }
        };
        // All who wait share the answer: a dead jump host costs its time-out once, not once a node.
        let answer = waiting.dial.clone().await;
        waiting.settle(&answer);
        drop(waiting);
        let bastion = answer?;
        if bastion.live.handle.is_closed() {
            return Err(lost(&bastion.hop, &bastion.live.link.0.cause().await));
        }
    }
}

/// Someone who waits for a dial. The last one to give up takes the dial with it.
struct Waiting<'a> {
    pool: &'a Pool,
    route: &'a Route,
    dial: Dial,
}

impl Waiting<'_> {
    /// The first to see the answer puts it in its place.
    fn settle(&self, answer: &Result<Arc<Bastion>, Failure>) {
        if let Some(sessions) = self.pool.lock().get_mut(self.route)
            && sessions
                .dialing
                .as_ref()
                .is_some_and(|dial| dial.ptr_eq(&self.dial))
        {
            sessions.dialing = None;
            sessions.live.extend(answer.iter().cloned());
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut abandoned = None;
        if let Some(sessions) = self.pool.lock().get_mut(self.route)
            && sessions.dialing.as_ref().is_some_and(|dial| dial.ptr_eq(&self.dial))
            // The pool's own and this one.
            && self.dial.strong_count() == Some(2)
        {
            abandoned = sessions.dialing.take();
        }
        // Dropped outside the lock: it may hold a lease of another route.
        drop(abandoned);
    }
}

/// Connects to the last hop of a route, through the ones before it.
async fn reach(inner: Arc<Inner>, route: Route) -> Result<Arc<Bastion>, Failure> {
    let Some((hop, before)) = route.hops.split_last() else {
        return Err(Failure::new(
            FailureKind::Internal,
            Stage::Connect,
            "a way through no jump host",
        ));
    };
    let carrier = if before.is_empty() {
        let wait = inner.options.connect_timeout;
        let stream = connect::dial(&hop.host, hop.port, wait).await;
        Carrier::Tcp(stream.map_err(|failure| at_hop(hop, &failure))?)
    } else {
        let stream = through(
            Arc::clone(&inner),
            before,
            &route.identities,
            &hop.host,
            hop.port,
        );
        Carrier::Jump(stream.await?)
    };
    let target = Target {
        host: &hop.host,
        port: hop.port,
        user: &hop.user,
        identities: &route.identities,
    };
    let live = connect::open(&inner, carrier, &target, &|_| {})
        .await
        .map_err(|failure| at_hop(hop, &failure))?;
    Ok(Arc::new(Bastion {
        live,
        slots: Arc::new(Semaphore::new(CHANNELS)),
        hop: hop.clone(),
    }))
}

/// A channel of a jump host's session, as a stream for the session inside it.
pub(super) struct JumpStream {
    incoming: UnboundedReceiver<Vec<u8>>,
    /// What arrived last, and how much of it was read.
    current: (Vec<u8>, usize),
    writer: Pin<Box<dyn AsyncWrite + Send>>,
    state: Arc<DrainState>,
    // Given back after the channel.
    _slot: OwnedSemaphorePermit,
    _bastion: Arc<Bastion>,
}

#[derive(Default)]
struct DrainState {
    queued: AtomicUsize,
    /// Set when nothing more will arrive.
    end: OnceLock<String>,
    /// A writer would wait for ever on a session that is gone.
    writer: AtomicWaker,
}

impl JumpStream {
    fn new(channel: Channel<Msg>, bastion: Arc<Bastion>, slot: OwnedSemaphorePermit) -> Self {
        let (reading, writing) = channel.split();
        let writer = Box::pin(writing.make_writer());
        let (sender, incoming) = unbounded_channel();
        let state = Arc::new(DrainState::default());
        tokio::spawn(drain(
            reading,
            writing,
            sender,
            Arc::clone(&state),
            bastion.live.link.0.clone(),
            bastion.hop.clone(),
        ));
        Self {
            incoming,
            current: (Vec::new(), 0),
            writer,
            state,
            _slot: slot,
            _bastion: bastion,
        }
    }
}

/// Takes everything that arrives for one node out of the jump host's session, at once: whatever
/// stays in there stops all nodes behind it.
async fn drain(
    mut reading: ChannelReadHalf,
    writing: ChannelWriteHalf<Msg>,
    sender: UnboundedSender<Vec<u8>>,
    state: Arc<DrainState>,
    link: Link,
    hop: Hop,
) {
    let end = loop {
        let message = tokio::select! {
            message = reading.wait() => message,
            () = sender.closed() => break None,
        };
        match message {
            Some(ChannelMsg::Data { data }) => {
                // The flow control of the session inside keeps an honest node far below this.
                let queued = state.queued.fetch_add(data.len(), Ordering::Relaxed);
                if queued + data.len() > QUEUE_BYTES {
                    break Some("it sends more than it may".to_owned());
                }
                if sender.send(data.to_vec()).is_err() {
                    break None;
                }
            }
            Some(ChannelMsg::Eof | ChannelMsg::Close) => {
                break Some(format!("jump host {hop} closed the way to it"));
            }
            None => {
                break Some(format!(
                    "the connection to jump host {hop} was lost: {}",
                    link.cause().await
                ));
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

impl AsyncRead for JumpStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.current.1 == self.current.0.len() {
            match self.incoming.poll_recv(context) {
                Poll::Ready(Some(bytes)) => {
                    self.state.queued.fetch_sub(bytes.len(), Ordering::Relaxed);
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

impl AsyncWrite for JumpStream {
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
