//! What all parts of a relay share.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pull_through::{Access, Digest, UploadLimit};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::blob::Blob;
use crate::identity::{Identity, Proof};
use crate::image::Image;
use crate::protocol::{FromRelay, Key, Stats};
use crate::spool::Spool;

/// Blobs that arrive at a time: each has a chunk in memory.
const FETCHES: usize = 16;
/// A limit below this would make a parent look dead to its children.
const LEAST_UPLOAD: u64 = 128 << 10;

/// How long a relay waits for what.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// For the first line, before there is a lease.
    pub start: Duration,
    /// For a peer to accept a connection and to answer.
    pub connect: Duration,
    /// A peer that has nothing to send says so this often.
    pub alive: Duration,
    /// A parent that sends nothing at all for so long is given up.
    pub silence: Duration,
    /// So is one that sends no chunk for so long, or for eight times as long as its chunks took.
    pub stall: Duration,
    /// A source that sends nothing for so long is asked again.
    pub source: Duration,
    /// The first pause before a source is asked again; the next ones are longer.
    pub pause: Duration,
    /// How often it is said what went in and out.
    pub stats: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            start: Duration::from_secs(30),
            connect: Duration::from_secs(5),
            alive: Duration::from_millis(500),
            silence: Duration::from_secs(5),
            stall: Duration::from_secs(30),
            source: Duration::from_secs(30),
            pause: Duration::from_millis(500),
            stats: Duration::from_secs(1),
        }
    }
}

pub(crate) struct Shared {
    pub(crate) timing: Timing,
    pub(crate) identity: Arc<Identity>,
    pub(crate) proof: Proof,
    pub(crate) spool: Spool,
    pub(crate) images: Mutex<HashMap<String, Arc<Image>>>,
    /// All that may be asked for.
    pub(crate) blobs: Mutex<HashMap<Digest, Arc<Blob>>>,
    pub(crate) signers: Mutex<Vec<Key>>,
    pub(crate) liars: Mutex<HashSet<Key>>,
    pub(crate) fetches: Semaphore,
    pub(crate) upload: UploadLimit,
    pub(crate) is_upload_limited: bool,
    pub(crate) access: Arc<Access>,
    pub(crate) counters: Counters,
    said: mpsc::Sender<FromRelay>,
    ended: watch::Sender<bool>,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) from_registry: AtomicU64,
    pub(crate) from_peers: AtomicU64,
    pub(crate) to_peers: AtomicU64,
    pub(crate) children: AtomicU64,
}

impl Shared {
    pub(crate) fn new(
        timing: Timing,
        identity: Identity,
        start: &crate::protocol::Start,
        spool: Spool,
        said: mpsc::Sender<FromRelay>,
    ) -> Self {
        Self {
            timing,
            identity: Arc::new(identity),
            proof: Proof::new(&start.ticket),
            spool,
            images: Mutex::default(),
            blobs: Mutex::default(),
            signers: Mutex::default(),
            liars: Mutex::default(),
            fetches: Semaphore::new(FETCHES),
            upload: UploadLimit::new(start.max_upload.map(|most| most.max(LEAST_UPLOAD))),
            is_upload_limited: start.max_upload.is_some(),
            access: Arc::new(Access::new(&start.user, &start.password.0)),
            counters: Counters::default(),
            said,
            ended: watch::channel(false).0,
        }
    }

    /// Says something to prepull. Where it does not listen, it misses what was said.
    pub(crate) fn say(&self, what: FromRelay) {
        let _ = self.said.try_send(what);
    }

    /// Work that goes on until it is done or the relay ends.
    pub(crate) fn spawn(
        &self,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> tokio::task::AbortHandle {
        let mut ended = self.ended.subscribe();
        let task = tokio::spawn(async move {
            tokio::select! {
                () = work => {}
                _ = ended.wait_for(|ended| *ended) => {}
            }
        });
        task.abort_handle()
    }

    pub(crate) fn end(&self) {
        self.ended.send_replace(true);
    }

    pub(crate) fn image(&self, repository: &str) -> Option<Arc<Image>> {
        locked(&self.images).get(repository).cloned()
    }

    pub(crate) fn blob(&self, digest: &Digest) -> Option<Arc<Blob>> {
        locked(&self.blobs).get(digest).cloned()
    }

    pub(crate) fn stats(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let usage = self.access.usage();
        Stats {
            from_registry: read(&self.counters.from_registry),
            from_peers: read(&self.counters.from_peers),
            to_peers: read(&self.counters.to_peers),
            to_runtime: usage.sent,
            requests: usage.requests,
            children: read(&self.counters.children),
        }
    }
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
