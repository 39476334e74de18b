//! The relays of a run together: who joins, who gets what from whom, and what is done about those that are lost.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use prepull_relay::protocol::{Origin, Peer, Probe, Secret as Wire, Start, Stats, Ticket, ToRelay};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::planner::Reached;
use super::programs::{Programs, architecture};
use super::relay::{self, Here, LEASE, impossible};
use super::state::{Heard, Relay, State, Tunnel, What, image_parts};
use crate::model::text::{escape_line, format_bytes};
use crate::model::{Failure, FanOut, FanOutTotals, RegistryLogin, Secret};
use crate::ports::{BlobOrigin, ImageServer, ServedImage, Session};

/// What relays say and is not heard yet, at most; they wait where that is not fast enough.
const HEARD: usize = 1024;
/// How much is fetched from a node to find out whether it is reached, and how fast.
const PROBE_BYTES: u64 = 1 << 20;
/// How long that may take for all nodes that are tried.
const PROBE_LIMIT: Duration = Duration::from_secs(10);
/// How long relays may take to end.
const ENDING: Duration = Duration::from_secs(10);
/// What a disk keeps free beside what is passed on, in bytes.
const RESERVE: u64 = 64 << 20;
/// Nodes that may pull from the registry in any fleet, however small, before that stops the run.
const FEW: usize = 4;
/// The user of every node's login; the password is its own.
const USER: &str = "prepull";

/// The relays of a run.
pub struct Hub {
    programs: Programs,
    options: FanOut,
    ticket: Ticket,
    state: Mutex<State>,
    heard: mpsc::Sender<Heard>,
    hearing: Mutex<Option<mpsc::Receiver<Heard>>>,
    /// What lasts as long as relays do.
    tasks: Mutex<JoinSet<()>>,
}

/// What a node needs to pull from its relay.
#[derive(Debug, Clone)]
pub struct Joined {
    /// The relay's port on 127.0.0.1.
    pub port: u16,
    /// The login that it wants.
    pub login: RegistryLogin,
}

/// Something to do that waits for a registry.
enum Task {
    /// The node is a root for these items: where from?
    Source {
        node: usize,
        item: usize,
        origin: Result<BlobOrigin, Failure>,
    },
}

impl Hub {
    /// The relays of a run, none of which is there yet.
    ///
    /// # Errors
    /// There are no random numbers.
    pub fn new(programs: Programs, options: FanOut) -> Result<Self, Failure> {
        let (heard, hearing) = mpsc::channel(HEARD);
        Ok(Self {
            programs,
            options,
            ticket: Ticket(random().map_err(impossible)?),
            state: Mutex::default(),
            heard,
            hearing: Mutex::new(Some(hearing)),
            tasks: Mutex::default(),
        })
    }

    /// The node's relay, if it is there.
    pub fn joined(&self, node: usize) -> Option<Joined> {
        let state = self.state();
        let relay = state.relays.get(&node)?;
        Some(Joined {
            port: relay.port,
            login: relay.login.clone(),
        })
    }

    /// Whether the node fetches from the source.
    pub fn is_root(&self, node: usize) -> bool {
        self.state().planner.is_root(node)
    }

    /// What this node's relay serves an item as; else why it does not.
    pub fn served(&self, node: usize, item: usize) -> Result<ServedImage, Failure> {
        let state = self.state();
        let relay = state.relays.get(&node);
        let relay = relay.ok_or_else(|| impossible("it ended"))?;
        match state.parts.get(&(item, relay.architecture)) {
            Some(Ok(parts)) => Ok(parts.image.clone()),
            Some(Err(why)) => Err(impossible(why)),
            None => Err(impossible("it was not told what the image is made of")),
        }
    }

    /// Starts a relay on a node and gives it its place.
    ///
    /// # Errors
    /// Of kind node-setup where this node cannot have one, else of the connection.
    pub async fn join<S: Session>(
        &self,
        node: usize,
        session: &mut S,
        images: &dyn ImageServer,
        items: usize,
        tunnel: Option<Tunnel>,
    ) -> Result<Joined, Failure> {
        if let Some(why) = self.given_up() {
            return Err(impossible(&why));
        }
        let password = random().map_err(impossible)?;
        let password: String = password.iter().map(|byte| format!("{byte:02x}")).collect();
        let told = |here: &Here| {
            architecture(&here.machine).ok_or_else(|| format!("it is a {}", here.machine))?;
            Ok(Start {
                spool: here.spool.clone(),
                lease_seconds: LEASE.as_secs(),
                ticket: self.ticket.clone(),
                user: USER.to_string(),
                password: Wire(password.clone()),
                peer_listen: SocketAddr::new(here.address, self.options.port.unwrap_or(0)),
                max_upload: self.options.max_upload,
            })
        };
        let (relay, here) = relay::start(session, &self.programs, told).await?;
        let architecture =
            architecture(&here.machine).ok_or_else(|| impossible("an unknown machine"))?;
        let bytes = self.learn(images, items, architecture).await;
        if here.free < bytes.saturating_add(RESERVE) {
            let (free, bytes) = (format_bytes(here.free), format_bytes(bytes));
            let spool = escape_line(&here.spool);
            let why = format!("{spool} has {free} free, and the images take {bytes}");
            return Err(impossible(&why));
        }
        let (orders, ordered) = mpsc::unbounded_channel();
        let (tried, mut trying) = mpsc::unbounded_channel();
        let (ending, ended) = watch::channel(String::new());
        let sent = Arc::new(Mutex::new(Stats::default()));
        let ready = relay.ready.clone();
        let peer = Peer {
            address: SocketAddr::new(here.address, ready.peer_port),
            key: ready.key,
        };
        let login = RegistryLogin::Password {
            username: USER.to_string(),
            password: Secret::new(password),
        };
        let (number, candidates) = {
            let mut state = self.state();
            state.last += 1;
            state.sent.push((node, Arc::clone(&sent)));
            let number = state.last;
            let relay = Relay {
                number,
                orders,
                port: ready.port,
                login: login.clone(),
                peer,
                architecture,
                tunnel,
                from_registry: 0,
                counted: Instant::now(),
                repairs: 0,
                lost: Vec::new(),
                tried,
                ended,
            };
            state.forget(node);
            state.relays.insert(node, relay);
            let candidates = state.planner.candidates(architecture);
            if candidates.is_empty() {
                state.planner.join(node, architecture, &[]);
            }
            for parts in state.parts_of(architecture, items) {
                state.order(node, ToRelay::Image(image_parts(&parts)));
            }
            (number, candidates)
        };
        let heard = self.heard.clone();
        self.spawn(async move {
            let wrap = |said| Heard {
                node,
                number,
                what: What::Said(said),
            };
            let why = relay.attend(ordered, &heard, wrap, &sent).await;
            let what = What::Ended;
            // The hub is gone only when nothing matters any more.
            let _ = heard.send(Heard { node, number, what }).await;
            // Only now, so that no connection is closed before its relay has ended.
            ending.send_replace(why);
        });
        if !candidates.is_empty() {
            let tried = self.probe(node, &candidates, &mut trying).await;
            let mut state = self.state();
            if !state.relays.contains_key(&node) {
                return Err(impossible("it ended"));
            }
            if tried.iter().all(|reached| reached.rate.is_none()) {
                state.fallbacks.insert(node);
            }
            state.planner.join(node, architecture, &tried);
        }
        for task in self.place(node, images, items) {
            self.done(task.await);
        }
        Ok(Joined {
            port: ready.port,
            login,
        })
    }

    /// What the items are made of, for this architecture: the bytes of all that is known.
    async fn learn(
        &self,
        images: &dyn ImageServer,
        items: usize,
        architecture: &'static str,
    ) -> u64 {
        let mut bytes = 0;
        for item in 0..items {
            let known = self.state().parts.get(&(item, architecture)).cloned();
            let known = match known {
                Some(known) => known,
                None => {
                    let asked = images.parts(item, architecture).await;
                    let known = asked.map(Arc::new).map_err(|failure| failure.detail);
                    let mut state = self.state();
                    state.parts.insert((item, architecture), known.clone());
                    known
                }
            };
            bytes += known.map_or(0, |parts| parts.bytes());
        }
        bytes
    }

    /// Has a relay try these nodes.
    async fn probe(
        &self,
        node: usize,
        candidates: &[usize],
        trying: &mut mpsc::UnboundedReceiver<(SocketAddr, Option<u64>)>,
    ) -> Vec<Reached> {
        let peers: Vec<(usize, Peer)> = {
            let state = self.state();
            let peer = |other: &usize| Some((*other, state.relays.get(other)?.peer.clone()));
            let peers: Vec<(usize, Peer)> = candidates.iter().filter_map(peer).collect();
            let probe = Probe {
                peers: peers.iter().map(|(_, peer)| peer.clone()).collect(),
                bytes: PROBE_BYTES,
            };
            state.order(node, ToRelay::Probe(probe));
            peers
        };
        let mut reached: Vec<Reached> = Vec::new();
        let until = Instant::now() + PROBE_LIMIT;
        while reached.len() < peers.len()
            && let Ok(Some((address, rate))) = timeout_at(until, trying.recv()).await
        {
            let asked = peers.iter().find(|(_, peer)| peer.address == address);
            if let Some((node, _)) = asked
                && !reached.iter().any(|known| known.node == *node)
            {
                reached.push(Reached { node: *node, rate });
            }
        }
        for (node, _) in peers {
            if !reached.iter().any(|known| known.node == node) {
                reached.push(Reached { node, rate: None });
            }
        }
        reached
    }

    /// Tells a node whom it gets the images from. What has to be asked of a registry first comes back.
    fn place<'a>(
        &self,
        node: usize,
        images: &'a dyn ImageServer,
        items: usize,
    ) -> Vec<impl Future<Output = Task> + use<'a>> {
        let mut state = self.state();
        if !state.planner.is_root(node) {
            state.tell_parents(node, items);
            return Vec::new();
        }
        let Some(relay) = state.relays.get(&node) else {
            return Vec::new();
        };
        let (key, architecture, tunnel) =
            (relay.peer.key, relay.architecture, relay.tunnel.clone());
        if !state.signers.contains(&key) {
            state.signers.push(key);
            // What the new root signs counts for all.
            let all: Vec<usize> = state.relays.keys().copied().collect();
            for other in all.into_iter().filter(|other| *other != node) {
                state.tell_parents(other, items);
            }
        }
        let known = (0..items).filter(|item| {
            let parts = state.parts.get(&(*item, architecture));
            parts.is_some_and(Result::is_ok)
        });
        known
            .map(|item| {
                let own = tunnel.clone().and_then(|tunnel| {
                    let parts = state.parts.get(&(item, architecture))?.as_ref().ok()?;
                    let (port, name) = (tunnel.port, &parts.image.repository);
                    Some(BlobOrigin {
                        base: format!("http://127.0.0.1:{port}/v2/{name}/blobs/"),
                        authorization: Some(tunnel.authorization),
                        authorities: Vec::new(),
                    })
                });
                async move {
                    let origin = match own {
                        Some(own) => Ok(own),
                        None => images.origin(item).await,
                    };
                    Task::Source { node, item, origin }
                }
            })
            .collect()
    }

    fn done(&self, Task::Source { node, item, origin }: Task) {
        let mut state = self.state();
        let Some(relay) = state.relays.get(&node) else {
            return;
        };
        let Some(Ok(parts)) = state.parts.get(&(item, relay.architecture)) else {
            return;
        };
        let image = parts.image.repository.clone();
        match origin {
            Ok(origin) => {
                let shown = |secret: &Secret| {
                    let text = String::from_utf8_lossy(secret.expose()).into_owned();
                    Wire(text)
                };
                let origin = Origin {
                    image,
                    authorization: origin.authorization.as_ref().map(shown),
                    base: origin.base,
                    ca: origin.authorities,
                };
                state.order(node, ToRelay::Source(origin));
            }
            Err(failure) => state.source_failed(node, failure.detail),
        }
    }

    /// Hears what relays say and acts on it, for as long as it is polled.
    pub async fn attend(&self, images: &dyn ImageServer, items: usize) {
        let hearing = locked(&self.hearing).take();
        let Some(mut hearing) = hearing else {
            return std::future::pending().await;
        };
        let mut waiting = FuturesUnordered::new();
        loop {
            tokio::select! {
                heard = hearing.recv() => {
                    // This side holds a sender.
                    let Some(heard) = heard else { return };
                    let placed = self.state().hear(heard, items);
                    for node in placed {
                        waiting.extend(self.place(node, images, items));
                    }
                }
                Some(task) = waiting.next(), if !waiting.is_empty() => self.done(task),
            }
        }
    }

    /// The node has its images.
    pub fn completed(&self, node: usize) {
        self.state().planner.completed(node);
    }

    /// The node pulls an image from its registry.
    pub fn fell_back(&self, node: usize) {
        self.state().fallbacks.insert(node);
    }

    /// Whether so many nodes of the fleet pull from the registry that it is not to go on so: more than a tenth.
    pub fn is_failing(&self, fleet: usize) -> bool {
        self.state().fallbacks.len() > FEW.max(fleet / 10)
    }

    /// Why no relay is started any more, if so.
    fn given_up(&self) -> Option<String> {
        let last = self.state().given_up()?.to_string();
        Some(format!(
            "the relays before it got nothing from the registry: {last}"
        ))
    }

    /// Does this once the node's relay has ended.
    pub fn after(&self, node: usize, then: impl Future<Output = ()> + Send + 'static) {
        let ended = self.ended(node);
        self.spawn(async move {
            drop(ended.await);
            then.await;
        });
    }

    /// Resolves once the node's relay has ended, with the reason.
    pub fn ended(&self, node: usize) -> impl Future<Output = String> + Send + use<> {
        let relay = self
            .state()
            .relays
            .get(&node)
            .map(|relay| relay.ended.clone());
        async move {
            let Some(mut ended) = relay else {
                return "there is none".to_string();
            };
            let why = ended.wait_for(|why| !why.is_empty()).await;
            why.map_or_else(|_| "it was given up".into(), |why| why.clone())
        }
    }

    /// Whether a node that has no relay any more may get another: it had one before.
    pub fn may_join_again(&self, node: usize) -> bool {
        let state = self.state();
        let had = state
            .sent
            .iter()
            .filter(|(other, _)| *other == node)
            .count();
        had == 1 && !state.relays.contains_key(&node) && state.given_up().is_none()
    }

    /// Ends all relays, and waits until they have.
    pub async fn finish(&self) -> FanOutTotals {
        let shape = {
            let mut state = self.state();
            state.relays.clear();
            state.planner.shape()
        };
        let mut tasks = std::mem::take(&mut *locked(&self.tasks));
        let ending = async { while tasks.join_next().await.is_some() {} };
        // Those that do not end now do so by their lease.
        let _ = timeout(ENDING, ending).await;
        let state = self.state();
        let sum = |bytes: fn(&Stats) -> u64| {
            let sent = state.sent.iter().map(|(_, sent)| bytes(&locked(sent)));
            sent.fold(0, u64::saturating_add)
        };
        let nodes: BTreeSet<usize> = state.sent.iter().map(|(node, _)| *node).collect();
        // Images may share layers.
        let parts = state.parts.iter();
        let blobs: BTreeMap<(&str, &str), u64> = parts
            .filter_map(|((_, architecture), parts)| Some((*architecture, parts.as_ref().ok()?)))
            .flat_map(|(architecture, parts)| {
                let blobs = parts.blobs.iter();
                blobs.map(move |(digest, size)| ((architecture, digest.as_str()), *size))
            })
            .collect();
        FanOutTotals {
            nodes: nodes.len(),
            roots: shape.roots,
            depth: shape.depth,
            from_source: sum(|sent| sent.from_registry),
            from_peers: sum(|sent| sent.from_peers),
            image_bytes: blobs.values().copied().fold(0, u64::saturating_add),
            fallbacks: state.fallbacks.len(),
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        locked(&self.tasks).spawn(task);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }
}

fn random() -> Result<[u8; 32], &'static str> {
    let mut bytes = [0; 32];
    let random = rustls::crypto::ring::default_provider().secure_random;
    match random.fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(_) => Err("this machine gives no random numbers"),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
