//! The way through jump hosts. A few sessions to each are shared by all nodes behind it: one for all
//! would be a bottleneck, one for each would overrun the host.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use russh::ChannelOpenFailure;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::Inner;
use super::channel_stream::{ChannelStream, Origin};
use super::connect::{self, Authenticated};
use super::dial;
use super::queue::QUEUE_BYTES;
use super::stream::RawStream;
use super::target::Target;
use crate::model::{Failure, FailureKind, Hop, Stage};

/// Nodes that share one session to a jump host; OpenSSH's MaxSessions is 10.
const CHANNELS: usize = 8;
/// Sessions of one route that are dialled at a time; OpenSSH's MaxStartups begins to refuse at 10.
const DIALS: usize = 4;
/// How often a session that is full or gone is changed for another one before a node gives up.
const CHANGES: usize = 4;

/// A chain of hops, and the identities that the node behind it names: nodes that name other keys
/// do not share a login.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Route {
    hops: Vec<Hop>,
    identities: Vec<PathBuf>,
}

type Dial = Shared<BoxFuture<'static, Result<Arc<Bastion>, Failure>>>;

/// The sessions to jump hosts.
#[derive(Default)]
pub(super) struct Pool(Mutex<HashMap<Route, Sessions>>);

struct Sessions {
    live: Vec<Arc<Bastion>>,
    /// Those that are being dialled, and how many nodes wait for each.
    dialing: Vec<(Dial, usize)>,
    /// How many channels the host is known to allow in one session.
    room: usize,
    /// The refusal of a login, where no other one has worked. It holds for the run: to try again for each node would
    /// lock the account.
    refused: Option<Failure>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            live: Vec::new(),
            dialing: Vec::new(),
            room: CHANNELS,
            refused: None,
        }
    }
}

/// A session to a jump host, and the right to one channel in it.
type HopChannel = (Arc<Bastion>, OwnedSemaphorePermit);

/// A session to a jump host.
pub(super) struct Bastion {
    live: Authenticated,
    slots: Arc<Semaphore>,
    /// How many channels it holds at most.
    room: AtomicUsize,
    hop: Hop,
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, HashMap<Route, Sessions>> {
        // Nothing in here panics half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session has refused a channel: it has room for one less, and others of its route have no more.
    fn shrink(&self, route: &Route, bastion: &Bastion) {
        let room = bastion.room.fetch_sub(1, Ordering::Relaxed) - 1;
        if let Some(sessions) = self.lock().get_mut(route) {
            sessions.room = sessions.room.min(room.max(1));
        }
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
    wait: Duration,
) -> BoxFuture<'static, Result<ChannelStream, Failure>> {
    let route = Route {
        hops: hops.to_vec(),
        identities: identities.to_vec(),
    };
    let host = host.to_owned();
    // Boxed because it calls itself for every hop.
    async move {
        let mut changes = CHANGES;
        loop {
            let (bastion, slot) = lease(&inner, route.clone()).await?;
            let opening = bastion.live.handle.channel_open_direct_tcpip(
                host.as_str(),
                port.into(),
                "127.0.0.1",
                0,
            );
            let failure = match timeout(wait, opening).await {
                Ok(Ok(channel)) => {
                    let link = bastion.live.link.0.clone();
                    let origin = Origin::JumpHost(bastion.hop.clone());
                    return Ok(ChannelStream::new(
                        channel,
                        link,
                        origin,
                        QUEUE_BYTES,
                        Box::new((bastion, slot)),
                    ));
                }
                Ok(Err(russh::Error::ChannelOpenFailure(reason))) => {
                    let failure = unreachable(&bastion.hop, &refusal(&reason, &host, port));
                    if reason != ChannelOpenFailure::ResourceShortage {
                        return Err(failure);
                    }
                    // It holds fewer channels than we thought.
                    inner.pool.shrink(&route, &bastion);
                    slot.forget();
                    failure
                }
                Ok(Err(_)) => lost(&bastion.hop, &bastion.live.link.0.cause().await),
                Err(_) => {
                    return Err(unreachable(
                        &bastion.hop,
                        &format!("it did not reach {host}:{port} within {wait:?}"),
                    ));
                }
            };
            if changes == 0 {
                return Err(failure);
            }
            changes -= 1;
        }
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
async fn lease(inner: &Arc<Inner>, route: Route) -> Result<HopChannel, Failure> {
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
            if let Some(refused) = &sessions.refused {
                return Err(refused.clone());
            }
            let dial = match sessions.joined() {
                Some(dial) => dial,
                None => {
                    let dial = reach(Arc::clone(inner), route.clone(), sessions.room);
                    let dial = dial.boxed().shared();
                    sessions.dialing.push((dial.clone(), 1));
                    dial
                }
            };
            Waiting {
                pool: &inner.pool,
                route: &route,
                dial,
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
            && let Some(number) = sessions.number_of(&self.dial)
        {
            drop(sessions.dialing.swap_remove(number));
            sessions.live.extend(answer.iter().cloned());
            if let Err(failure) = answer
                && failure.kind == FailureKind::SshAuth
                && sessions.live.is_empty()
            {
                sessions.refused = Some(failure.clone());
            }
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut abandoned = None;
        if let Some(sessions) = self.pool.lock().get_mut(self.route)
            && let Some(number) = sessions.number_of(&self.dial)
        {
            sessions.dialing[number].1 -= 1;
            if sessions.dialing[number].1 == 0 {
                abandoned = Some(sessions.dialing.swap_remove(number));
            }
        }
        // Dropped outside the lock: it may hold a lease of another route.
        drop(abandoned);
    }
}

impl Sessions {
    /// A dial to wait for, if another one is not better: nodes are spread over several.
    fn joined(&mut self) -> Option<Dial> {
        let (is_full, room) = (self.dialing.len() >= DIALS, self.room);
        let (dial, waiting) = self
            .dialing
            .iter_mut()
            .min_by_key(|(_, waiting)| *waiting)?;
        if *waiting >= room && !is_full {
            return None;
        }
        *waiting += 1;
        Some(dial.clone())
    }

    fn number_of(&self, dial: &Dial) -> Option<usize> {
        let mut dials = self.dialing.iter();
        dials.position(|(other, _)| other.ptr_eq(dial))
    }
}

/// Connects to the last hop of a route, through the ones before it.
async fn reach(inner: Arc<Inner>, route: Route, room: usize) -> Result<Arc<Bastion>, Failure> {
    let Some((hop, before)) = route.hops.split_last() else {
        return Err(Failure::new(
            FailureKind::Internal,
            Stage::Connect,
            "a way through no jump host",
        ));
    };
    let settings = &inner.host(hop.ssh_settings)?.settings;
    let target = Target {
        host: &hop.host,
        port: hop.port,
        user: &hop.user,
        identities: if hop.identities.is_empty() {
            &route.identities
        } else {
            &hop.identities
        },
        password: inner.jump_passwords.get(&hop.to_string()),
        route: before,
        is_jump_host: true,
        settings: hop.ssh_settings,
    };
    let (inner, identities) = (&inner, &route.identities);
    let dial = || {
        async move {
            if before.is_empty() {
                let carrier = dial::carrier(&hop.host, hop.port, settings).await;
                return carrier.map_err(|failure| at_hop(hop, &failure));
            }
            let (host, port, wait) = (&hop.host, hop.port, settings.connect_timeout);
            let stream = through(Arc::clone(inner), before, identities, host, port, wait);
            stream.await.map(RawStream::Jump)
        }
        .boxed()
    };
    let live = connect::open(inner, &target, &|_| {}, &dial).await;
    let live = live.map_err(|failure| match failure.stage {
        // Named already, by the hop where it happened.
        Stage::Connect => failure,
        _ => at_hop(hop, &failure),
    })?;
    Ok(Arc::new(Bastion {
        live,
        slots: Arc::new(Semaphore::new(room)),
        room: AtomicUsize::new(room),
        hop: hop.clone(),
    }))
}
