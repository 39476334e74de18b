//! The images of a run, and what of them may be read.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::blob::{Blob, Supply};
use crate::limit::UploadLimit;
use crate::manifest::{self, Content, MOST_BYTES, Manifest};
use crate::{Access, ConnectionError, Digest, Error, Platform, Reference, Source, Store, server};

/// Blobs that are fetched at a time, from all sources together.
const FETCHES: usize = 6;
/// Tries for a manifest.
const TRIES: u32 = 4;
/// An index, and the indexes in it, may name so many manifests. Those beyond are not looked at for the blobs that they
/// name, and [`PullThrough::contents`] fails.
const MOST_MANIFESTS: usize = 256;
/// Bytes of an image's manifests together. They are kept in memory, and those of real images have some ten thousand.
const MOST_KEPT: usize = 2 * MOST_BYTES;

/// A read-only registry of the images that were added to it. Cheap to clone: all clones are one.
///
/// Fetches stop when the last clone is dropped.
#[derive(Clone)]
pub struct PullThrough(Arc<Inner>);

struct Inner {
    supply: Arc<Supply>,
    limit: UploadLimit,
    images: Mutex<Vec<Arc<Added>>>,
    blobs: Mutex<HashMap<(Digest, u64), Arc<Blob>>>,
    served: AtomicU64,
}

/// An image that is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The repository that it is served under: `/v2/SERVED_AS/manifests/DIGEST`.
    pub served_as: String,
    /// Its manifest or index.
    pub digest: Digest,
    /// The media type of that.
    pub media_type: String,
}

/// What one platform of an image is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// The platform as the index states it; `None` for an image without an index.
    pub platform: Option<Platform>,
    /// The manifest.
    pub manifest: Digest,
    /// The configuration. Docker names images by its digest.
    pub config: crate::manifest::Blob,
    /// The layers, lowest first.
    pub layers: Vec<crate::manifest::Blob>,
}

/// What went in and out so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes of blobs that sources sent. What was read from the cache or from an archive does not count.
    pub fetched: u64,
    /// Bytes of manifests and blobs that were sent to all nodes.
    pub served: u64,
}

struct Added {
    image: Image,
    tag: Option<String>,
    source: Arc<dyn Source>,
    known: Mutex<HashMap<Digest, Known>>,
    /// One manifest at a time, so that each is fetched once.
    reading: tokio::sync::Mutex<()>,
    whole: OnceCell<()>,
}

/// What an image consists of.
#[derive(Clone)]
enum Known {
    /// An index names it, and it has not been read.
    Unread,
    Manifest(Arc<(Manifest, Bytes)>),
    Blob(u64),
}

/// What a request asks for.
pub(crate) enum Found {
    Manifest { media_type: String, bytes: Bytes },
    Blob { size: u64 },
}

impl PullThrough {
    /// Serves from this cache. `upload_limit` is in bytes per second, for all connections together.
    pub fn new(store: Store, upload_limit: Option<u64>) -> Self {
        Self(Arc::new(Inner {
            supply: Arc::new(Supply {
                store,
                fetches: Semaphore::new(FETCHES),
                fetched: AtomicU64::new(0),
            }),
            limit: UploadLimit::new(upload_limit),
            images: Mutex::default(),
            blobs: Mutex::default(),
            served: AtomicU64::new(0),
        }))
    }

    /// Resolves an image, and serves it from now on: its index and manifests, and the blobs that those name. Nothing else
    /// can be read, whatever the cache holds.
    ///
    /// `served_as` is a repository name as registries have them (`library/nginx`). A tag is asked of the source; a digest
    /// that the cache has is not. Beside its digest the image can be asked for by the tag given here.
    pub async fn add(
        &self,
        served_as: &str,
        source: Arc<dyn Source>,
        reference: &Reference,
    ) -> Result<Image, Error> {
        let (digest, bytes, tag) = match reference {
            Reference::Digest(digest) => (*digest, self.load(&source, digest).await?, None),
            Reference::Tag(tag) => {
                let bytes = retried(|| source.manifest(reference)).await?;
                let digest = Digest::of(&bytes);
                self.keep(digest, &bytes).await?;
                (digest, bytes, Some(tag.clone()))
            }
        };
        let manifest = manifest::read(digest, &bytes)?;
        let image = Image {
            served_as: served_as.to_string(),
            digest,
            media_type: manifest.media_type.clone(),
        };
        let added = Added {
            image: image.clone(),
            tag,
            source,
            known: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
            whole: OnceCell::new(),
        };
        added.learn(digest, manifest, bytes);
        locked(&self.0.images).push(Arc::new(added));
        Ok(image)
    }

    /// What an image is made of, for each platform that `is_wanted` accepts. Manifests are fetched where need be. An
    /// image without an index has one manifest, which is always among them. A manifest that is named several times is
    /// there once.
    pub async fn contents(
        &self,
        image: &Image,
        is_wanted: impl Fn(&Platform) -> bool + Send,
    ) -> Result<Vec<Contents>, Error> {
        let Some(added) = self.added(&image.served_as, |added| added.image == *image) else {
            return Ok(Vec::new());
        };
        let mut contents = Vec::new();
        let mut next = vec![(image.digest, None)];
        let mut seen = HashSet::from([image.digest]);
        while let Some((digest, platform)) = next.pop() {
            let read = self.manifest(&added, digest).await?;
            match &read.0.content {
                Content::Image { config, layers } => contents.push(Contents {
                    platform,
                    manifest: digest,
                    config: *config,
                    layers: layers.clone(),
                }),
                Content::Index(children) => {
                    let mut wanted = Vec::new();
                    for (child, platform) in children {
                        if platform.as_ref().is_none_or(&is_wanted) && seen.insert(*child) {
                            wanted.push((*child, platform.clone()));
                        }
                        if seen.len() > MOST_MANIFESTS {
                            let problem = format!("it names more than {MOST_MANIFESTS} manifests");
                            let digest = image.digest;
                            return Err(Error::Manifest { digest, problem });
                        }
                    }
                    next.extend(wanted.into_iter().rev());
                }
            }
        }
        Ok(contents)
    }

    /// A manifest or index of an image that was added: its media type, and its bytes.
    pub async fn read_manifest(
        &self,
        image: &Image,
        digest: Digest,
    ) -> Result<(String, Bytes), Error> {
        match self.find(&image.served_as, digest).await? {
            Some(Found::Manifest { media_type, bytes }) => Ok((media_type, bytes)),
            Some(Found::Blob { .. }) | None => Err(Error::Manifest {
                digest,
                problem: "its image does not name it".into(),
            }),
        }
    }

    /// Serves one connection until its client closes it. What the client sent that was wrong is no error of this side; it
    /// was answered.
    ///
    /// Drop the future to cut the connection.
    pub async fn serve<S>(&self, stream: S, access: Arc<Access>) -> Result<(), ConnectionError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        server::serve(self.clone(), stream, access).await
    }

    /// What went in and out so far.
    pub fn counters(&self) -> Counters {
        Counters {
            fetched: self.0.supply.fetched.load(Ordering::Relaxed),
            served: self.0.served.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.added(name, |_| true).is_some()
    }

    /// A manifest by the tag that its image was added with.
    pub(crate) fn tagged(&self, name: &str, tag: &str) -> Option<Digest> {
        let added = self.added(name, |added| added.tag.as_deref() == Some(tag))?;
        Some(added.image.digest)
    }

    /// What a digest is in the images of this name.
    pub(crate) async fn find(&self, name: &str, digest: Digest) -> Result<Option<Found>, Error> {
        let knows = |added: &Added| locked(&added.known).contains_key(&digest);
        if self.added(name, knows).is_none() {
            // A client that has the manifest from an earlier pull asks for its blobs at once.
            let images = locked(&self.0.images).clone();
            for added in images.iter().filter(|added| added.image.served_as == name) {
                added.whole.get_or_init(|| self.read_all(added)).await;
            }
        }
        let Some(added) = self.added(name, knows) else {
            return Ok(None);
        };
        let known = locked(&added.known).get(&digest).cloned();
        Ok(match known {
            None => None,
            Some(Known::Blob(size)) => Some(Found::Blob { size }),
            Some(Known::Manifest(_) | Known::Unread) => {
                let read = self.manifest(&added, digest).await?;
                Some(Found::Manifest {
                    media_type: read.0.media_type.clone(),
                    bytes: read.1.clone(),
                })
            }
        })
    }

    /// A blob that [`Self::find`] has found: the one that is there or under way, else a new fetch.
    pub(crate) fn blob(&self, name: &str, digest: Digest, size: u64) -> Result<Arc<Blob>, Error> {
        let mut blobs = locked(&self.0.blobs);
        if let Some(blob) = blobs.get(&(digest, size)).filter(|blob| !blob.has_failed()) {
            return Ok(Arc::clone(blob));
        }
        let knows = |added: &Added| locked(&added.known).contains_key(&digest);
        let source = self
            .added(name, knows)
            .map(|added| Arc::clone(&added.source));
        let source = source.ok_or_else(|| Error::Manifest {
            digest,
            problem: "its image is not served".into(),
        })?;
        let blob = Blob::start(digest, size, source, Arc::clone(&self.0.supply))?;
        let blob = Arc::new(blob);
        blobs.insert((digest, size), Arc::clone(&blob));
        Ok(blob)
    }

    /// Returns when so many bytes may be sent to a node, and counts them.
    pub(crate) async fn upload(&self, access: &Access, bytes: usize) {
        self.0.limit.wait(&access.turn, bytes).await;
        access.sent(bytes as u64);
        self.0.served.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn added(&self, name: &str, is_it: impl Fn(&Added) -> bool) -> Option<Arc<Added>> {
        let images = locked(&self.0.images);
        let mut of_name = images.iter().filter(|added| added.image.served_as == name);
        of_name.find(|added| is_it(added)).cloned()
    }

    async fn manifest(
        &self,
        added: &Added,
        digest: Digest,
    ) -> Result<Arc<(Manifest, Bytes)>, Error> {
        if let Some(read) = added.manifest(digest) {
            return Ok(read);
        }
        let _one = added.reading.lock().await;
        if let Some(read) = added.manifest(digest) {
            return Ok(read);
        }
        let bytes = self.load(&added.source, &digest).await?;
        if added.kept() + bytes.len() > MOST_KEPT {
            let problem = format!("its image has more than {MOST_KEPT} bytes of manifests");
            return Err(Error::Manifest { digest, problem });
        }
        let manifest = manifest::read(digest, &bytes)?;
        Ok(added.learn(digest, manifest, bytes))
    }

    /// Reads all manifests of an image, so that all its blobs are known. One that cannot be had is left out.
    async fn read_all(&self, added: &Added) {
        let mut tried = Vec::new();
        while tried.len() < MOST_MANIFESTS {
            let unread = locked(&added.known).iter().find_map(|(digest, known)| {
                let is_next = matches!(known, Known::Unread) && !tried.contains(digest);
                is_next.then_some(*digest)
            });
            let Some(digest) = unread else { return };
            tried.push(digest);
            let _ = self.manifest(added, digest).await;
        }
    }

    /// A manifest by digest, from the cache or else from its source.
    async fn load(&self, source: &Arc<dyn Source>, digest: &Digest) -> Result<Bytes, Error> {
        let (store, wanted) = (self.0.supply.store.clone(), *digest);
        let cached = spawn_blocking(move || store.manifest(&wanted)).await;
        if let Ok(Some(bytes)) = cached {
            return Ok(bytes);
        }
        let reference = Reference::Digest(wanted);
        let bytes = retried(|| source.manifest(&reference)).await?;
        let got = Digest::of(&bytes);
        if got != wanted {
            return Err(Error::WrongDigest { wanted, got });
        }
        self.keep(wanted, &bytes).await?;
        Ok(bytes)
    }

    async fn keep(&self, digest: Digest, bytes: &Bytes) -> Result<(), Error> {
        if bytes.len() > MOST_BYTES {
            let problem = format!("{} bytes are too many for a manifest", bytes.len());
            return Err(Error::Manifest { digest, problem });
        }
        let (store, bytes) = (self.0.supply.store.clone(), bytes.clone());
        let keeping = spawn_blocking(move || store.keep_manifest(&digest, &bytes));
        // It panics nowhere, and is not aborted.
        keeping.await.unwrap_or(Ok(()))
    }
}

impl Added {
    fn manifest(&self, digest: Digest) -> Option<Arc<(Manifest, Bytes)>> {
        match locked(&self.known).get(&digest) {
            Some(Known::Manifest(read)) => Some(Arc::clone(read)),
            _ => None,
        }
    }

    fn kept(&self) -> usize {
        let known = locked(&self.known);
        let lengths = known.values().map(|known| match known {
            Known::Manifest(read) => read.1.len(),
            Known::Unread | Known::Blob(_) => 0,
        });
        lengths.sum()
    }

    /// A manifest was read: what it names may be asked for.
    fn learn(&self, digest: Digest, manifest: Manifest, bytes: Bytes) -> Arc<(Manifest, Bytes)> {
        let mut known = locked(&self.known);
        match &manifest.content {
            Content::Index(children) => {
                for (child, _) in children {
                    known.entry(*child).or_insert(Known::Unread);
                }
            }
            Content::Image { config, layers } => {
                for blob in layers.iter().chain([config]) {
                    known.entry(blob.digest).or_insert(Known::Blob(blob.size));
                }
            }
        }
        let read = Arc::new((manifest, bytes));
        known.insert(digest, Known::Manifest(Arc::clone(&read)));
        read
    }
}

/// The answer, after new tries where an error may pass.
async fn retried<T, F>(ask: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, crate::SourceError>>,
{
    let mut tries = 1;
    loop {
        match ask().await {
            Err(error) if error.is_temporary && tries < TRIES => {
                sleep(Duration::from_millis(250) * 2_u32.pow(tries)).await;
                tries += 1;
            }
            answer => return Ok(answer?),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
