//! A blob on its way: a file that grows, is checked as it grows, and is read meanwhile.

use std::fs::{File, TryLockError};
use std::future::Future;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, spawn_blocking};
use tokio::time::{sleep, timeout};

use crate::store::Store;
use crate::{Arriving, Digest, Error, LocalBlob, Progress, Source, SourceError};

/// What is written, and then passed on, at a time.
const CHUNK: usize = 128 << 10;
/// What a reader takes at a time, and so its memory.
const READ: u64 = 64 << 10;
/// How long a part of a chunk waits for the rest of it.
const LINGER: Duration = Duration::from_millis(100);
/// What is read back from a file at a time to be checked.
const CHECKED_AT_ONCE: u64 = 1 << 20;
/// How often a file that another process fills is looked at.
const FOLLOW: Duration = Duration::from_millis(100);
/// Tries without a single byte before a fetch fails.
const TRIES: u32 = 5;

/// A blob that may be read as far as it has arrived.
pub(crate) struct Blob {
    file: Arc<File>,
    offset: u64,
    progress: watch::Receiver<Progress>,
    /// What fills the file, unless the source does.
    task: Option<AbortHandle>,
}

/// What the blobs of a run share.
pub(crate) struct Supply {
    pub(crate) store: Store,
    /// How many blobs are fetched at a time.
    pub(crate) fetches: Semaphore,
    pub(crate) fetched: AtomicU64,
}

impl Drop for Blob {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Blob {
    /// Starts to fill the blob's file from what is there and from the source.
    pub(crate) fn start(
        digest: Digest,
        size: u64,
        source: Arc<dyn Source>,
        supply: Arc<Supply>,
    ) -> Result<Self, Error> {
        if let Some(arriving) = source.arriving(&digest) {
            let Arriving {
                file,
                offset,
                progress,
            } = arriving;
            return Ok(Self {
                file,
                offset,
                progress,
                task: None,
            });
        }
        let local = source.local(&digest);
        let (file, offset) = match &local {
            Some(LocalBlob { file, offset, .. }) => (Arc::clone(file), *offset),
            None => (Arc::new(supply.store.file(&digest)?), 0),
        };
        let (sender, progress) = watch::channel(Progress::default());
        let filling = Filling {
            digest,
            size,
            file: Arc::clone(&file),
            offset,
            local: local.map(|local| local.size),
            hasher: Sha256::new(),
            hashed: 0,
            progress: sender,
            source,
            supply,
        };
        let task = tokio::spawn(filling.run()).abort_handle();
        Ok(Self {
            file,
            offset,
            progress,
            task: Some(task),
        })
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.progress.borrow().failed.is_some()
    }

    /// Waits until there is something after this byte, or the whole blob.
    pub(crate) async fn wait(&self, at: u64) -> Result<u64, Error> {
        let mut progress = self.progress.clone();
        let reached = |progress: &Progress| progress.ready > at || progress.failed.is_some();
        match progress.wait_for(reached).await {
            Ok(progress) => match &progress.failed {
                Some(error) if progress.ready <= at => Err(error.clone()),
                _ => Ok(progress.ready),
            },
            Err(_) => Err(SourceError::temporary("the fetch was stopped").into()),
        }
    }

    /// Up to `most` bytes from here on: waits for the first of them.
    pub(crate) async fn read(&self, at: u64, most: u64) -> Result<Bytes, Error> {
        let ready = self.wait(at).await?;
        // A chunk fits into memory, so its length does.
        let length = (ready - at).min(most).min(READ) as usize;
        let (file, place) = (Arc::clone(&self.file), self.offset + at);
        let reading = blocking(move || {
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, place).map(|()| bytes)
        });
        let bytes = reading
            .await
            .map_err(|error| local_trouble("read", &error))?;
        Ok(bytes.into())
    }
}

struct Filling {
    digest: Digest,
    size: u64,
    file: Arc<File>,
    offset: u64,
    /// The size of a blob that is read in place.
    local: Option<u64>,
    hasher: Sha256,
    hashed: u64,
    progress: watch::Sender<Progress>,
    source: Arc<dyn Source>,
    supply: Arc<Supply>,
}

impl Filling {
    async fn run(mut self) {
        match self.fill().await {
            Ok(()) => {
                let size = self.size;
                self.progress.send_modify(|progress| progress.ready = size);
                if self.local.is_none() {
                    self.keep_locked().await;
                }
            }
            Err(error) => {
                let is_wrong = matches!(error, Error::WrongDigest { .. } | Error::WrongSize { .. });
                if is_wrong && self.local.is_none() {
                    self.supply.store.remove(&self.digest);
                }
                // Another process may go on with the file.
                let _ = self.file.unlock();
                self.progress
                    .send_modify(|progress| progress.failed = Some(error));
            }
        }
    }

    async fn fill(&mut self) -> Result<(), Error> {
        if let Some(size) = self.local.filter(|size| *size != self.size) {
            return Err(self.wrong_size(size));
        }
        loop {
            self.check_present().await?;
            if self.hashed == self.size {
                break;
            }
            if self.local.is_some() {
                return Err(self.wrong_size(self.hashed));
            }
            match self.file.try_lock() {
                // What another process has written before it let go is checked first.
                Ok(()) if self.present()? > self.hashed => {}
                Ok(()) => self.fetch().await?,
                Err(TryLockError::WouldBlock) => sleep(FOLLOW).await,
                Err(TryLockError::Error(error)) => return Err(self.cache("lock")(error)),
            }
        }
        let got = Digest::from_hash(std::mem::take(&mut self.hasher));
        if got != self.digest {
            let wanted = self.digest;
            return Err(Error::WrongDigest { wanted, got });
        }
        Ok(())
    }

    /// Keeps other processes from removing the file while this one needs it.
    async fn keep_locked(&self) {
        while let Err(TryLockError::WouldBlock) = self.file.try_lock_shared() {
            sleep(FOLLOW).await;
        }
    }

    fn present(&self) -> Result<u64, Error> {
        if let Some(size) = self.local {
            return Ok(size);
        }
        let found = self.file.metadata().map_err(self.cache("read"))?;
        Ok(found.len())
    }

    /// Checks what is in the file already, and passes it on.
    async fn check_present(&mut self) -> Result<(), Error> {
        loop {
            let present = self.present()?;
            if present > self.size {
                return Err(self.wrong_size(present));
            }
            let length = (present - self.hashed).min(CHECKED_AT_ONCE);
            if length == 0 {
                return Ok(());
            }
            let (file, place) = (Arc::clone(&self.file), self.offset + self.hashed);
            let mut hasher = self.hasher.clone();
            let checking = blocking(move || {
                let mut bytes = vec![0; length as usize];
                file.read_exact_at(&mut bytes, place)?;
                hasher.update(&bytes);
                Ok(hasher)
            });
            self.hasher = checking.await.map_err(self.cache("read"))?;
            self.advance(length);
        }
    }

    /// Fetches the rest, with pauses and new tries where the source breaks off.
    async fn fetch(&mut self) -> Result<(), Error> {
        let supply = Arc::clone(&self.supply);
        // The semaphore is never closed.
        let _permit = supply.fetches.acquire().await;
        let (room, missing) = (supply.store.clone(), self.size - self.hashed);
        blocking(move || Ok(room.make_room(missing)))
            .await
            .map_err(self.cache("make room for"))??;
        let mut tries = 0;
        while self.hashed < self.size {
            let before = self.hashed;
            let error = match self.fetch_once().await {
                Ok(()) if self.hashed == self.size => return Ok(()),
                Ok(()) => Error::WrongSize {
                    digest: self.digest,
                    wanted: self.size,
                    got: self.hashed,
                },
                Err(error) => error,
            };
            tries = if self.hashed > before { 1 } else { tries + 1 };
            let may_pass = match &error {
                Error::Source(error) => error.is_temporary,
                // A connection that was cut may look like an end.
                Error::WrongSize { got, .. } => *got < self.size,
                _ => false,
            };
            if !may_pass || tries >= TRIES {
                return Err(error);
            }
            sleep(Duration::from_millis(250) * 2_u32.pow(tries)).await;
        }
        Ok(())
    }

    async fn fetch_once(&mut self) -> Result<(), Error> {
        let source = Arc::clone(&self.source);
        let mut stream = source.blob(&self.digest, self.hashed).await?;
        let mut chunk = Vec::new();
        let mut length = 0;
        loop {
            let next = match chunk.is_empty() {
                true => Ok(stream.next().await),
                false => timeout(LINGER, stream.next()).await,
            };
            let end = match next {
                Ok(Some(Ok(bytes))) => {
                    length += bytes.len();
                    chunk.push(bytes);
                    if length < CHUNK {
                        continue;
                    }
                    None
                }
                Ok(Some(Err(error))) => Some(Err(error.into())),
                Ok(None) => Some(Ok(())),
                Err(_) => None,
            };
            self.append(std::mem::take(&mut chunk), length as u64)
                .await?;
            length = 0;
            if let Some(end) = end {
                return end;
            }
        }
    }

    async fn append(&mut self, chunk: Vec<Bytes>, length: u64) -> Result<(), Error> {
        if length == 0 {
            return Ok(());
        }
        if length > self.size - self.hashed {
            return Err(self.wrong_size(self.hashed + length));
        }
        let (file, mut place) = (Arc::clone(&self.file), self.hashed);
        let mut hasher = self.hasher.clone();
        let writing = blocking(move || {
            for bytes in chunk {
                file.write_all_at(&bytes, place)?;
                hasher.update(&bytes);
                place += bytes.len() as u64;
            }
            Ok(hasher)
        });
        self.hasher = writing.await.map_err(self.cache("write"))?;
        self.supply.fetched.fetch_add(length, Ordering::Relaxed);
        self.advance(length);
        Ok(())
    }

    /// So many bytes more are in the file and in the hash.
    fn advance(&mut self, length: u64) {
        self.hashed += length;
        if self.local.is_some() {
            // No byte of a local file is released before its digest has been checked.
            return;
        }
        let ready = self.hashed.min(self.size.saturating_sub(1));
        self.progress.send_modify(|progress| progress.ready = ready);
    }

    fn wrong_size(&self, got: u64) -> Error {
        Error::WrongSize {
            digest: self.digest,
            wanted: self.size,
            got,
        }
    }

    fn cache(&self, action: &'static str) -> impl FnOnce(io::Error) -> Error + 'static {
        let path = self.supply.store.path(&self.digest);
        move |error| Error::cache(action, &path)(error)
    }
}

fn local_trouble(action: &'static str, error: &io::Error) -> Error {
    SourceError::permanent(format!("cannot {action} a blob's file: {error}")).into()
}

/// Work on files, which may block, on a thread for that.
fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> impl Future<Output = io::Result<T>> {
    let running = spawn_blocking(work);
    async {
        running
            .await
            .unwrap_or_else(|stopped| Err(io::Error::other(stopped)))
    }
}
