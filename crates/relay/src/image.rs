//! An image of the run, and where its blobs come from.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;

use bytes::Bytes;
use pull_through::Digest;
use tokio::sync::watch;

use crate::origin::Registry;
use crate::protocol::{FromRelay, Key, Peer};
use crate::shared::{Shared, locked};

pub(crate) struct Image {
    pub(crate) repository: String,
    pub(crate) manifests: Mutex<HashMap<Digest, Bytes>>,
    blobs: Mutex<Vec<Digest>>,
    upstream: watch::Sender<Upstream>,
    is_complete: Mutex<bool>,
}

#[derive(Default)]
struct Upstream {
    /// Changes with every line about it.
    version: u64,
    way: Way,
    /// Parents that failed since they were named.
    lost: Vec<Peer>,
    /// What prepull has to mend was said.
    is_told: bool,
}

#[derive(Default, Clone)]
enum Way {
    #[default]
    Unknown,
    Registry(Arc<Registry>),
    Parents(Arc<[Peer]>),
}

/// What to do for the next chunk.
pub(crate) enum Next {
    Wait,
    Registry(Arc<Registry>),
    Parent(Peer),
}

impl Image {
    pub(crate) fn new(repository: &str) -> Self {
        Self {
            repository: repository.to_string(),
            manifests: Mutex::default(),
            blobs: Mutex::default(),
            upstream: watch::Sender::default(),
            is_complete: Mutex::default(),
        }
    }

    pub(crate) fn add(&self, blob: Digest) {
        let mut blobs = locked(&self.blobs);
        if !blobs.contains(&blob) {
            blobs.push(blob);
        }
        *locked(&self.is_complete) = false;
    }

    pub(crate) fn take_source(&self, registry: Registry) {
        self.change(Way::Registry(Arc::new(registry)));
    }

    pub(crate) fn take_parents(&self, peers: Vec<Peer>) {
        self.change(Way::Parents(peers.into()));
    }

    fn change(&self, way: Way) {
        self.upstream.send_modify(|upstream| {
            *upstream = Upstream {
                version: upstream.version + 1,
                way,
                ..Upstream::default()
            };
        });
    }

    /// Where the next chunk comes from. Says once if it is from nowhere.
    pub(crate) fn next(&self, shared: &Shared) -> (u64, Next) {
        let liars = locked(&shared.liars).clone();
        let mut is_new_orphan = false;
        let mut next = (0, Next::Wait);
        self.upstream.send_if_modified(|upstream| {
            next.0 = upstream.version;
            next.1 = match &upstream.way {
                Way::Unknown => Next::Wait,
                // What it needs was said, and has not come yet.
                Way::Registry(_) if upstream.is_told => Next::Wait,
                Way::Registry(registry) => Next::Registry(Arc::clone(registry)),
                Way::Parents(peers) => {
                    let is_left =
                        |peer: &&Peer| !upstream.lost.contains(peer) && !liars.contains(&peer.key);
                    match peers.iter().find(is_left) {
                        Some(peer) => Next::Parent(peer.clone()),
                        None => {
                            is_new_orphan = !std::mem::replace(&mut upstream.is_told, true);
                            Next::Wait
                        }
                    }
                }
            };
            false
        });
        if is_new_orphan {
            let image = self.repository.clone();
            shared.say(FromRelay::Orphaned { image });
        }
        next
    }

    /// Waits until something else than this was said about where blobs come from.
    pub(crate) async fn changed(&self, version: u64) {
        let mut upstream = self.upstream.subscribe();
        // The sender lives as long as the image.
        let _ = upstream
            .wait_for(|upstream| upstream.version != version)
            .await;
    }

    /// Waits until this parent was replaced.
    pub(crate) async fn dismissed(&self, parent: &Peer) {
        let is_gone = |upstream: &Upstream| match &upstream.way {
            Way::Parents(peers) => !peers.contains(parent),
            Way::Unknown | Way::Registry(_) => true,
        };
        let mut upstream = self.upstream.subscribe();
        let _ = upstream.wait_for(is_gone).await;
    }

    /// Waits until the registry was replaced by parents.
    pub(crate) async fn demoted(&self) {
        let is_no_root = |upstream: &Upstream| !matches!(upstream.way, Way::Registry(_));
        let mut upstream = self.upstream.subscribe();
        let _ = upstream.wait_for(is_no_root).await;
    }

    /// A parent failed: it is not asked again unless it is named again.
    pub(crate) fn lose(&self, shared: &Shared, parent: &Peer, version: u64, why: String) {
        let mut is_news = false;
        self.upstream.send_if_modified(|upstream| {
            is_news = upstream.version == version && !upstream.lost.contains(parent);
            if is_news {
                upstream.lost.push(parent.clone());
            }
            false
        });
        if is_news {
            let (image, address) = (self.repository.clone(), parent.address);
            shared.say(FromRelay::ParentLost {
                image,
                address,
                why,
            });
        }
    }

    /// A parent lied: it is not asked again.
    pub(crate) fn ban(&self, shared: &Shared, parent: &Peer, blob: &Digest, why: String) {
        if locked(&shared.liars).insert(parent.key) {
            shared.say(FromRelay::ParentLies {
                image: self.repository.clone(),
                address: parent.address,
                blob: blob.to_string(),
                why,
            });
        }
    }

    /// The registry does not give it: says so once, and waits for another line.
    pub(crate) fn give_up_source(&self, shared: &Shared, version: u64, what: FromRelay) {
        let mut is_news = false;
        self.upstream.send_if_modified(|upstream| {
            is_news =
                upstream.version == version && !std::mem::replace(&mut upstream.is_told, true);
            false
        });
        if is_news {
            shared.say(what);
        }
    }

    /// Says once when all blobs are here.
    pub(crate) fn look_whether_complete(&self, shared: &Shared) {
        let is_whole = |digest: &Digest| shared.blob(digest).is_some_and(|blob| blob.is_whole());
        let is_complete = locked(&self.blobs).iter().all(is_whole);
        if is_complete && !std::mem::replace(&mut *locked(&self.is_complete), true) {
            let image = self.repository.clone();
            shared.say(FromRelay::Complete { image });
        }
    }
}

/// Adds keys that are not there yet.
pub(crate) fn trust(signers: &Mutex<Vec<Key>>, keys: &[Key]) {
    let mut signers = locked(signers);
    for key in keys {
        if !signers.contains(key) {
            signers.push(*key);
        }
    }
}
