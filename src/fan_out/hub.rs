//! The relays of a run together: who joins, who gets what from whom, and what is done about those that are lost.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use prepull_relay::protocol::{Origin, Secret as Wire, Ticket, ToRelay};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::programs::Programs;
use super::relay::impossible;
use super::state::{Heard, State};
use crate::model::{EventKind, Failure, FanOut, FanOutTotals, RegistryLogin, Secret};
use crate::ports::{BlobOrigin, ImageServer, ServedImage};

/// What relays say and is not heard yet, at most; they wait where that is not fast enough.
const HEARD: usize = 1024;
/// How often reporters learn how the trees are.
const NEWS: Duration = Duration::from_secs(2);
/// How long relays may take to end.
const ENDING: Duration = Duration::from_secs(10);
/// Nodes that may pull from the registry in any fleet, however small, before that stops the run.
const FEW: usize = 4;

/// The relays of a run.
pub struct Hub {
    pub(super) programs: Programs,
    pub(super) options: FanOut,
    pub(super) ticket: Ticket,
    state: Mutex<State>,
    pub(super) heard: mpsc::Sender<Heard>,
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
pub(super) enum Task {
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

    /// Tells a node where it gets the images from. What has to be asked of a registry first comes back.
    pub(super) fn place<'a>(
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

    pub(super) fn done(&self, Task::Source { node, item, origin }: Task) {
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

    /// Hears what relays say and acts on it, and reports how the trees are, for as long as it is polled.
    pub async fn attend(
        &self,
        images: &dyn ImageServer,
        items: usize,
        report: impl Fn(EventKind) + Send,
    ) {
        let hearing = locked(&self.hearing).take();
        let Some(mut hearing) = hearing else {
            return std::future::pending().await;
        };
        let mut waiting = FuturesUnordered::new();
        let mut ticks = interval_at(Instant::now() + NEWS, NEWS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
                _ = ticks.tick() => self.news().into_iter().for_each(&report),
            }
        }
    }

    /// The node has its images.
    pub fn completed(&self, node: usize) {
        self.state().planner.completed(node);
    }

    /// The node pulls an image without its relay, for this reason.
    pub fn fell_back(&self, node: usize, why: String) {
        self.state().fell_back(node, why);
    }

    /// Why the node got nothing from others, if so.
    pub fn fallback(&self, node: usize) -> Option<String> {
        self.state().fallbacks.get(&node).cloned()
    }

    /// Whether so many nodes of the fleet pull from the registry that it is not to go on so: more than a tenth.
    pub fn is_failing(&self, fleet: usize) -> bool {
        self.state().fallbacks.len() > FEW.max(fleet / 10)
    }

    /// Why no relay is started any more, if so.
    pub(super) fn given_up(&self) -> Option<String> {
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
        self.state().end_all();
        let mut tasks = std::mem::take(&mut *locked(&self.tasks));
        let ending = async { while tasks.join_next().await.is_some() {} };
        // Those that do not end now do so by their lease.
        let _ = timeout(ENDING, ending).await;
        self.state().totals()
    }

    /// What changed since this was last asked, for reporters.
    pub fn news(&self) -> Vec<EventKind> {
        self.state().news()
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        locked(&self.tasks).spawn(task);
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }
}

pub(super) fn random() -> Result<[u8; 32], &'static str> {
    let mut bytes = [0; 32];
    let random = rustls::crypto::ring::default_provider().secure_random;
    match random.fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(_) => Err("this machine gives no random numbers"),
    }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
