//! A blob of the run: how far it has come, and its place in the spool.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use pull_through::{Arriving, Digest, Error, Progress, SourceError};
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::chunk::{self, CHUNK, Header};
use crate::image::Image;
use crate::shared::{Shared, locked};

pub(crate) struct Blob {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    offset: u64,
    /// The image that named it first: it is fetched from where that comes from.
    pub(crate) image: Arc<Image>,
    arrived: watch::Sender<Arrived>,
    /// What the runtime's side sees of this attempt.
    progress: Mutex<watch::Sender<Progress>>,
}

/// The chunks that were checked and may be passed on.
#[derive(Default)]
pub(crate) struct Arrived {
    /// An attempt that led to a wrong blob is followed by one that begins with nothing.
    pub(crate) attempt: u64,
    pub(crate) chunks: Vec<Header>,
    pub(crate) state: State,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It was not asked for yet, or it failed.
    #[default]
    Idle,
    Arriving,
    Whole,
}

impl Blob {
    pub(crate) fn new(digest: Digest, size: u64, offset: u64, image: Arc<Image>) -> Self {
        // Where nothing is to come, all of it is here.
        let state = match size {
            0 => State::Whole,
            _ => State::Idle,
        };
        let arrived = Arrived {
            state,
            ..Arrived::default()
        };
        Self {
            digest,
            size,
            offset,
            image,
            arrived: watch::Sender::new(arrived),
            progress: Mutex::default(),
        }
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.arrived.borrow().state == State::Whole
    }

    pub(crate) fn arrived(&self) -> watch::Receiver<Arrived> {
        self.arrived.subscribe()
    }

    /// The blob is needed: it begins to arrive, unless it did already.
    pub(crate) fn demand(self: &Arc<Self>, shared: &Arc<Shared>) {
        let is_first = self.arrived.send_if_modified(|arrived| {
            let is_idle = arrived.state == State::Idle;
            if is_idle {
                arrived.state = State::Arriving;
            }
            is_idle
        });
        if is_first {
            self.begin(None);
            shared.spawn(crate::fill::fill(Arc::clone(self), Arc::clone(shared)));
        }
    }

    /// What the runtime's side reads.
    pub(crate) fn reading(&self, shared: &Shared) -> Arriving {
        Arriving {
            file: Arc::clone(&shared.spool.file),
            offset: self.offset,
            progress: locked(&self.progress).subscribe(),
        }
    }

    /// Begins with nothing, after an attempt that failed.
    pub(crate) fn begin(&self, failed: Option<&str>) {
        let earlier = std::mem::take(&mut *locked(&self.progress));
        if let Some(why) = failed {
            fail(&earlier, why);
        }
        self.arrived.send_modify(|arrived| {
            arrived.attempt += 1;
            arrived.chunks.clear();
        });
    }

    /// The attempt failed for good. The next request for the blob begins another one.
    pub(crate) fn fail(&self, why: &str) {
        self.begin(Some(why));
        self.arrived
            .send_modify(|arrived| arrived.state = State::Idle);
    }

    /// One more chunk may be passed on.
    pub(crate) fn release(&self, chunk: Header) {
        let mut ready = 0;
        self.arrived.send_modify(|arrived| {
            arrived.chunks.push(chunk);
            let count = arrived.chunks.len() as u64;
            ready = (count * CHUNK).min(self.size);
            if count == chunk::count(self.size) {
                arrived.state = State::Whole;
            }
        });
        locked(&self.progress).send_modify(|progress| progress.ready = ready);
    }

    pub(crate) async fn read(&self, shared: &Shared, at: u64, length: usize) -> io::Result<Bytes> {
        let (file, place) = (Arc::clone(&shared.spool.file), self.offset + at);
        let reading = spawn_blocking(move || {
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, place).map(|()| bytes.into())
        });
        reading.await.map_err(io::Error::other)?
    }

    pub(crate) fn write(&self, shared: &Shared, at: u64, bytes: &[u8]) -> io::Result<()> {
        shared.spool.file.write_all_at(bytes, self.offset + at)
    }
}

fn fail(progress: &watch::Sender<Progress>, why: &str) {
    let error = Error::Source(SourceError::temporary(why));
    progress.send_modify(|progress| progress.failed = Some(error));
}
