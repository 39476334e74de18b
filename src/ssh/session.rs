//! A session that is logged in, and the commands that run in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use russh::client::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Disconnect, Sig};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::connect::Authenticated;
use super::forward::ADDRESS;
use super::link::ConnectionHandle;
use super::queue::{CLOSE_WAIT, QUEUE_BYTES, cost};
use crate::model::text::truncate_bytes;
use crate::model::{ExitStatus, Failure, FailureKind, Passwords, Stage};
use crate::ports::{Channel, ChannelEvent, ForwardedPort, Session};

/// How long a server may refuse our input. What we write is small, so one that works never does for long.
const WRITE_WAIT: Duration = Duration::from_secs(60);
/// The most that is given to the session in one piece, in bytes. It copies a piece twice, and keeps the room of the
/// biggest for as long as it lives.
const PIECE: usize = 2 << 10;
/// The longest signal name that is kept.
const SIGNAL_NAME: usize = 40;

/// A connection to one node over SSH. Dropping it closes the socket at once.
pub struct SshSession {
    live: Authenticated,
    /// The most that opening a channel may take.
    wait: Duration,
    root_passwords: Arc<Passwords>,
}

impl SshSession {
    pub(super) fn new(live: Authenticated, wait: Duration, root_passwords: Arc<Passwords>) -> Self {
        Self {
            live,
            wait,
            root_passwords,
        }
    }
}

impl Session for SshSession {
    type Channel = SshChannel;

    async fn exec(&mut self, line: &str) -> Result<SshChannel, Failure> {
        let lost = |detail: String| Failure::new(FailureKind::ConnectionLost, Stage::Start, detail);
        let link = &self.live.link.0;
        let opening = async {
            let channel = self.live.handle.channel_open_session().await?;
            // The answer comes with the output: waiting for it here would cost a round trip.
            channel.exec(true, line).await?;
            Ok::<_, russh::Error>(channel)
        };
        match timeout(self.wait, opening).await {
            Ok(Ok(channel)) => Ok(SshChannel::new(channel, link.clone())),
            Ok(Err(russh::Error::ChannelOpenFailure(reason))) => Err(lost(format!(
                "the server opened no channel for a command: {reason:?}"
            ))),
            Ok(Err(_)) => Err(lost(link.cause().await)),
            Err(_) => {
                link.kill("the server did not open a channel");
                Err(lost(format!(
                    "the server opened no channel for a command within {:?}",
                    self.wait
                )))
            }
        }
    }

    async fn forward_port(&mut self) -> Result<ForwardedPort, Failure> {
        let failure = |kind, detail| Failure::new(kind, Stage::Start, detail);
        let refused = |detail: String| failure(FailureKind::NodeSetup, detail);
        if self.live.forwarding.is_open() {
            let detail = "a second port was asked for on one connection";
            return Err(failure(FailureKind::Internal, detail.to_owned()));
        }
        // 0: the node chooses one that is free.
        let asking = self.live.handle.tcpip_forward(ADDRESS, 0);
        match timeout(self.wait, asking).await {
            Ok(Ok(port)) => match u16::try_from(port) {
                Ok(port @ 1..) => Ok(self.live.forwarding.open(port)),
                _ => Err(refused(format!(
                    "the SSH server forwards port {port}, which is none"
                ))),
            },
            Ok(Err(russh::Error::RequestDenied)) => Err(refused(
                "the SSH server forwards no port: see AllowTcpForwarding and DisableForwarding in its sshd_config, and the \
                 options of the key in authorized_keys"
                    .to_owned(),
            )),
            Ok(Err(_)) => Err(failure(
                FailureKind::ConnectionLost,
                self.live.link.0.cause().await,
            )),
            Err(_) => Err(refused(format!(
                "the SSH server did not answer within {:?} whether it forwards a port",
                self.wait
            ))),
        }
    }

    fn host_key_changed(&self) -> bool {
        self.live.has_changed
    }

    fn root_passwords(&self) -> Option<&Passwords> {
        Some(&self.root_passwords)
    }

    async fn close(self) {
        farewell(&self.live).await;
    }
}

/// Says goodbye and waits a moment for the end.
pub(super) async fn farewell(live: &Authenticated) {
    let _ = timeout(CLOSE_WAIT, async {
        let goodbye = live
            .handle
            .disconnect(Disconnect::ByApplication, "done", "");
        // An error means that the session has ended already.
        if goodbye.await.is_ok() {
            live.link.0.ended().await;
        }
    })
    .await;
}

/// A command that runs on a node. Dropping it closes its channel; the command may live on.
pub struct SshChannel {
    events: UnboundedReceiver<Result<ChannelEvent, Failure>>,
    writing: Arc<ChannelWriteHalf<Msg>>,
    state: Arc<DrainState>,
    /// Its other end is dropped when nothing more can be written.
    open: watch::Receiver<()>,
    link: ConnectionHandle,
}

#[derive(Default)]
struct DrainState {
    queued: AtomicUsize,
    discarded: AtomicU64,
}

impl SshChannel {
    fn new(channel: russh::Channel<Msg>, link: ConnectionHandle) -> Self {
        let (reading, writing) = channel.split();
        let writing = Arc::new(writing);
        let (sender, events) = unbounded_channel();
        let (alive, open) = watch::channel(());
        let state = Arc::new(DrainState::default());
        let drain = Drain {
            sender,
            state: Arc::clone(&state),
            writing: Arc::clone(&writing),
            link: link.clone(),
            alive,
        };
        tokio::spawn(drain.run(reading));
        Self {
            events,
            writing,
            state,
            open,
            link,
        }
    }

    /// The bytes of output that were dropped because they were not read in time. What was kept
    /// has no holes: it is the beginning of the output.
    pub fn discarded(&self) -> u64 {
        self.state.discarded.load(Ordering::Relaxed)
    }
}

impl Channel for SshChannel {
    /// Writes; when the node has closed the channel already, the bytes go nowhere and the end of the
    /// command tells more than an error here would.
    async fn write(&mut self, mut bytes: Bytes) -> Result<(), Failure> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PIECE));
            let is_written = tokio::select! {
                // russh waits for ever for the window of a channel that is gone.
                _ = self.open.changed() => false,
                written = self.writing.data_bytes(piece) => written.is_ok(),
                () = sleep(WRITE_WAIT) => {
                    self.link.kill("the server took no input");
                    let detail = format!("the server took no input for {WRITE_WAIT:?}");
                    return Err(lost(detail));
                }
            };
            if !is_written {
                return match self.link.has_ended() {
                    true => Err(lost(self.link.cause().await)),
                    false => Ok(()),
                };
            }
            if !bytes.is_empty() {
                // The session sends it meanwhile.
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<ChannelEvent>, Failure> {
        let event = self.events.recv().await.transpose()?;
        if let Some(ChannelEvent::Stdout(bytes) | ChannelEvent::Stderr(bytes)) = &event {
            let cost = cost(bytes.len());
            self.state.queued.fetch_sub(cost, Ordering::Relaxed);
        }
        Ok(event)
    }
}

fn lost(detail: String) -> Failure {
    Failure::new(FailureKind::ConnectionLost, Stage::Run, detail)
}

/// Takes everything out of the session as it comes: a channel that is not drained stops the whole
/// session, and neither keep-alives nor time-outs would notice.
struct Drain {
    sender: UnboundedSender<Result<ChannelEvent, Failure>>,
    state: Arc<DrainState>,
    writing: Arc<ChannelWriteHalf<Msg>>,
    link: ConnectionHandle,
    alive: watch::Sender<()>,
}

impl Drain {
    async fn run(self, mut reading: ChannelReadHalf) {
        let (mut exited, mut output_ended) = (false, false);
        loop {
            let message = tokio::select! {
                message = reading.wait() => message,
                () = self.sender.closed() => break,
            };
            let event = match message {
                Some(ChannelMsg::Data { data }) => self.keep(&data).map(ChannelEvent::Stdout),
                // 1 is standard error, RFC 4254 section 5.2; there are no others.
                Some(ChannelMsg::ExtendedData { data, ext: 1 }) => {
                    self.keep(&data).map(ChannelEvent::Stderr)
                }
                // A command ends once.
                Some(ChannelMsg::ExitStatus { .. } | ChannelMsg::ExitSignal { .. }) if exited => {
                    None
                }
                Some(ChannelMsg::ExitStatus { exit_status }) => {
                    exited = true;
                    Some(ChannelEvent::Exited(ExitStatus::Code(exit_status)))
                }
                Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                    exited = true;
                    Some(ChannelEvent::Exited(ExitStatus::Signal(signal(
                        signal_name,
                    ))))
                }
                Some(ChannelMsg::Eof) => {
                    output_ended = true;
                    None
                }
                Some(ChannelMsg::Failure) => {
                    let _ = self.sender.send(Err(Failure::new(
                        FailureKind::ConnectionLost,
                        Stage::Start,
                        "the server refused to run a command",
                    )));
                    break;
                }
                Some(ChannelMsg::Close) => break,
                // All was said before the connection went.
                None if exited && output_ended => break,
                None => {
                    let _ = self.sender.send(Err(lost(self.link.cause().await)));
                    break;
                }
                Some(_) => None,
            };
            if let Some(event) = event {
                // An error means that the receiver is gone; the next turn sees it.
                let _ = self.sender.send(Ok(event));
            }
        }
        drop((reading, self.alive, self.sender));
        let _ = timeout(CLOSE_WAIT, self.writing.close()).await;
    }

    /// The bytes, unless too many wait already. Once some were thrown away, all that follow are.
    fn keep(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        if bytes.is_empty() {
            return None;
        }
        let queued = self.state.queued.load(Ordering::Relaxed);
        let cost = cost(bytes.len());
        if queued + cost > QUEUE_BYTES || self.state.discarded.load(Ordering::Relaxed) > 0 {
            self.state
                .discarded
                .fetch_add(bytes.len() as u64, Ordering::Relaxed);
            return None;
        }
        self.state.queued.fetch_add(cost, Ordering::Relaxed);
        Some(bytes.to_vec())
    }
}

/// A signal's name without `SIG`.
fn signal(signal: Sig) -> String {
    match signal {
        Sig::Custom(name) => truncate_bytes(name.as_bytes(), SIGNAL_NAME),
        known => format!("{known:?}"),
    }
}
