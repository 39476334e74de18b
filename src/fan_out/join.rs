//! How a node joins the relays of a run: its relay starts, tries others, and gets its place.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prepull_relay::protocol::{Peer, Probe, Secret as Wire, Start, Stats, ToRelay};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

use super::hub::{Hub, Joined, random};
use super::planner::Reached;
use super::programs::architecture;
use super::relay::{self, Here, LEASE, impossible};
use super::state::{Heard, Relay, Tunnel, What, image_parts};
use crate::model::text::{escape_line, format_bytes, format_count};
use crate::model::{Failure, RegistryLogin, Secret};
use crate::ports::{ImageServer, Session};

/// How much is fetched from a node to find out whether it is reached, and how fast.
const PROBE_BYTES: u64 = 1 << 20;
/// How long that may take for all nodes that are tried.
const PROBE_LIMIT: Duration = Duration::from_secs(10);
/// What a disk keeps free beside what is passed on, in bytes.
const RESERVE: u64 = 64 << 20;
/// The user of every node's login; the password is its own.
const USER: &str = "prepull";

impl Hub {
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
            let why =
                format!("{spool} has room for {free} to pass on, and the images take {bytes}");
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
                let tried = format_count(tried.len(), "node");
                let why = format!(
                    "it reached no other node (tried {tried}), so it fetched the image itself"
                );
                state.fell_back(node, why);
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
}
