//! What is known of a run's relays, and what follows from what they say. No I/O but the orders to them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use prepull_relay::protocol::{
    BlobSize, FromRelay, ImageParts, Key, Manifest, Parents, Peer, Stats, ToRelay,
};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::planner::{Planner, Shape};
use crate::model::text::escape_line;
use crate::model::{FanOutTotals, RegistryLogin, Secret};
use crate::ports::ServedParts;

/// How often a relay that lost all its parents gets new ones.
const REPAIRS: u32 = 5;
/// Roots that may fail at the source before no other is tried.
const SOURCE_FAILURES: usize = 2;

#[derive(Default)]
pub(super) struct State {
    pub(super) planner: Planner,
    pub(super) relays: BTreeMap<usize, Relay>,
    /// The keys of all roots that there were.
    pub(super) signers: Vec<Key>,
    /// What an item is made of, for each architecture; or why that is not known.
    pub(super) parts: BTreeMap<(usize, &'static str), Result<Arc<ServedParts>, String>>,
    /// Why roots got nothing from the source.
    pub(super) source_failures: Vec<String>,
    /// Nodes that reached no other, or did not get an image from one, and why.
    pub(super) fallbacks: BTreeMap<usize, String>,
    /// Those of them that reporters do not know of yet.
    pub(super) untold_fallbacks: Vec<usize>,
    /// The totals that reporters were told last.
    pub(super) told: FanOutTotals,
    /// What the trees looked like when the run ended.
    pub(super) last_shape: Option<Shape>,
    pub(super) last: u64,
    /// What each relay that was there says of its bytes.
    pub(super) sent: Vec<(usize, Arc<Mutex<Stats>>)>,
}

/// A relay that is there.
pub(super) struct Relay {
    /// Tells it from an earlier one of the same node.
    pub(super) number: u64,
    pub(super) orders: mpsc::UnboundedSender<ToRelay>,
    pub(super) port: u16,
    pub(super) login: RegistryLogin,
    pub(super) peer: Peer,
    pub(super) architecture: &'static str,
    /// Where its node finds a registry on its own 127.0.0.1, for the roots of a run through SSH.
    pub(super) tunnel: Option<Tunnel>,
    pub(super) from_registry: u64,
    pub(super) counted: Instant,
    pub(super) repairs: u32,
    /// Nodes that it could not get anything from.
    pub(super) lost: Vec<usize>,
    pub(super) tried: mpsc::UnboundedSender<(SocketAddr, Option<u64>)>,
    /// Why the relay ended; empty until then.
    pub(super) ended: watch::Receiver<String>,
}

/// A port of a node's 127.0.0.1 that leads to the registry inside prepull.
#[derive(Debug, Clone)]
pub struct Tunnel {
    /// Its number.
    pub port: u16,
    /// What that registry wants to see, as in the header `Authorization`.
    pub authorization: Secret,
}

pub(super) struct Heard {
    pub(super) node: usize,
    pub(super) number: u64,
    pub(super) what: What,
}

pub(super) enum What {
    Said(FromRelay),
    Ended,
}

impl State {
    /// Takes in what a relay said. Returns the nodes that have a new place.
    pub(super) fn hear(&mut self, Heard { node, number, what }: Heard, items: usize) -> Vec<usize> {
        let state = self;
        let Some(relay) = state.relays.get_mut(&node) else {
            return Vec::new();
        };
        if relay.number != number {
            return Vec::new();
        }
        match what {
            What::Ended => state.forget(node),
            What::Said(FromRelay::Reached {
                address,
                bytes_per_second,
                ..
            }) => {
                // The node that joins may have stopped waiting for it.
                let _ = relay.tried.send((address, bytes_per_second));
            }
            What::Said(FromRelay::Stats(stats)) => {
                let seconds = relay.counted.elapsed().as_secs_f64();
                let came = stats.from_registry.saturating_sub(relay.from_registry);
                (relay.from_registry, relay.counted) = (stats.from_registry, Instant::now());
                if came > 0 && seconds > 0.1 {
                    // A rate of a length fits, and what is beyond is cut.
                    state
                        .planner
                        .source_rate(node, (came as f64 / seconds) as u64);
                }
            }
            What::Said(
                FromRelay::ParentLost { address, .. } | FromRelay::ParentLies { address, .. },
            ) => {
                if let Some(lost) = state.node_at(address) {
                    state.planner.moved(node, lost);
                    if let Some(relay) = state.relays.get_mut(&node) {
                        relay.lost.push(lost);
                    }
                }
            }
            What::Said(FromRelay::Orphaned { .. }) => {
                relay.repairs += 1;
                let (repairs, lost) = (relay.repairs, relay.lost.clone());
                if repairs > REPAIRS {
                    state.end(node);
                } else if !state.planner.parents(node).is_empty() {
                    // It has new ones already, by its word about another image.
                    state.tell_parents(node, items);
                } else if state.planner.orphaned(node, &lost).is_some() {
                    return vec![node];
                }
            }
            What::Said(FromRelay::Unauthorized { .. }) => {
                relay.repairs += 1;
                match relay.repairs > REPAIRS {
                    true => {
                        let why = "the registry refused the relay's login".to_string();
                        state.source_failed(node, why);
                    }
                    false => return vec![node],
                }
            }
            What::Said(FromRelay::SourceFailed { why, .. }) => {
                state.source_failed(node, escape_line(&why).into_owned());
            }
            What::Said(FromRelay::Complete { .. }) => state.planner.completed(node),
            What::Said(
                FromRelay::Ready(_) | FromRelay::BlobFailed { .. } | FromRelay::Failed { .. },
            ) => {}
        }
        Vec::new()
    }

    pub(super) fn order(&self, node: usize, order: ToRelay) {
        if let Some(relay) = self.relays.get(&node) {
            // Its end is told on its own.
            let _ = relay.orders.send(order);
        }
    }

    /// Tells a relay to end.
    pub(super) fn end(&mut self, node: usize) {
        self.order(node, ToRelay::End {});
    }

    /// The node does not get an image from others. The first reason counts.
    pub(super) fn fell_back(&mut self, node: usize, why: String) {
        if let Entry::Vacant(place) = self.fallbacks.entry(node) {
            place.insert(why);
            self.untold_fallbacks.push(node);
        }
    }

    pub(super) fn forget(&mut self, node: usize) {
        self.planner.remove(node);
        self.relays.remove(&node);
    }

    /// A root gets nothing from the source, so it cannot go on.
    pub(super) fn source_failed(&mut self, node: usize, why: String) {
        self.source_failures.push(why);
        self.end(node);
        if self.source_failures.len() >= SOURCE_FAILURES {
            let all: Vec<usize> = self.relays.keys().copied().collect();
            for node in all {
                self.end(node);
            }
        }
    }

    pub(super) fn tell_parents(&self, node: usize, items: usize) {
        let Some(relay) = self.relays.get(&node) else {
            return;
        };
        let parents = self.planner.parents(node).iter();
        let peers: Vec<Peer> = parents
            .filter_map(|parent| Some(self.relays.get(parent)?.peer.clone()))
            .collect();
        if peers.is_empty() {
            return;
        }
        for parts in self.parts_of(relay.architecture, items) {
            let parents = Parents {
                image: parts.image.repository.clone(),
                signers: self.signers.clone(),
                peers: peers.clone(),
            };
            self.order(node, ToRelay::Parents(parents));
        }
    }

    pub(super) fn parts_of(
        &self,
        architecture: &'static str,
        items: usize,
    ) -> Vec<Arc<ServedParts>> {
        let parts = (0..items).filter_map(|item| self.parts.get(&(item, architecture)));
        parts
            .filter_map(|parts| parts.as_ref().ok().cloned())
            .collect()
    }

    pub(super) fn node_at(&self, address: SocketAddr) -> Option<usize> {
        let mut relays = self.relays.iter();
        let found = relays.find(|(_, relay)| relay.peer.address == address);
        found.map(|(node, _)| *node)
    }

    /// Why no root can get anything from the source, if so: the last one's reason.
    pub(super) fn given_up(&self) -> Option<&str> {
        let last = self.source_failures.last()?;
        (self.source_failures.len() >= SOURCE_FAILURES).then_some(last)
    }
}

pub(super) fn image_parts(parts: &ServedParts) -> ImageParts {
    let manifest = |(digest, media_type, bytes): &(String, String, bytes::Bytes)| Manifest {
        digest: digest.clone(),
        media_type: media_type.clone(),
        bytes: bytes.to_vec(),
    };
    let blob = |(digest, size): &(String, u64)| BlobSize {
        digest: digest.clone(),
        size: *size,
    };
    ImageParts {
        repository: parts.image.repository.clone(),
        manifests: parts.manifests.iter().map(manifest).collect(),
        blobs: parts.blobs.iter().map(blob).collect(),
    }
}
