//! What nodes pull through their SSH connections: the images of a run, served by the crate `pull-through`.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use pull_through::{Access, PullThrough, Reference, Source, Store};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::model::{Failure, FailureKind, Image, RegistryLogin, Secret, Stage};
use crate::ports::{
    BlobOrigin, ImageReader, ImageServer, NodeStream, OriginSource, ServedImage, ServedParts,
};

/// The user of every node's login; the password is its own.
const USER: &str = "prepull";
/// How long a source that did not give an image is left alone, so that it is not asked once for each node.
const LEFT_ALONE: Duration = Duration::from_secs(5);

/// Why images cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The cache cannot be opened.
    #[error(transparent)]
    Cache(#[from] pull_through::Error),
    /// Logins could be guessed.
    #[error("this machine gives no random numbers for the logins of nodes")]
    Random,
}

/// The images of a run, each with its source.
pub struct ServedImages {
    through: PullThrough,
    items: Vec<Item>,
    /// What the passwords of nodes are made of.
    secret: Zeroizing<[u8; 32]>,
    nodes: AtomicU64,
}

struct Item {
    image: Image,
    source: Arc<dyn Source>,
    /// What its source is asked for.
    reference: Reference,
    /// The registry that nodes can be led to, where the source is one.
    origin: Option<Arc<dyn OriginSource>>,
    /// What is served, once it is known.
    added: std::sync::OnceLock<pull_through::Image>,
    /// What its source said, and when.
    known: Mutex<Option<(Instant, Result<ServedImage, Failure>)>>,
}

/// How many bytes of this blob are in the cache in this folder already.
pub fn cached(cache: &Path, digest: &str) -> u64 {
    let digest = digest.parse();
    digest.map_or(0, |digest| Store::held(cache, &digest))
}

impl ServedImages {
    /// Serves the images of the plan, in its order, each from its source; what was sent is kept in this folder.
    /// `upload_limit` is in bytes a second.
    ///
    /// # Errors
    /// The cache cannot be opened, or there are no random numbers.
    pub fn new(
        cache: &Path,
        cache_limit: u64,
        upload_limit: Option<u64>,
        images: Vec<(Image, Arc<dyn Source>, Reference)>,
    ) -> Result<Self, ServeError> {
        let mut secret = Zeroizing::new([0; 32]);
        rustls::crypto::ring::default_provider()
            .secure_random
            .fill(&mut *secret)
            .map_err(|_| ServeError::Random)?;
        let item = |(image, source, reference)| Item {
            image,
            source,
            reference,
            origin: None,
            added: std::sync::OnceLock::new(),
            known: Mutex::default(),
        };
        Ok(Self {
            through: PullThrough::new(Store::open(cache, cache_limit)?, upload_limit),
            items: images.into_iter().map(item).collect(),
            secret,
            nodes: AtomicU64::new(0),
        })
    }

    /// The registries that nodes can be led to, in the order of the images.
    #[must_use]
    pub fn with_origins(mut self, origins: Vec<Option<Arc<dyn OriginSource>>>) -> Self {
        for (item, origin) in self.items.iter_mut().zip(origins) {
            item.origin = origin;
        }
        self
    }

    /// What an image is made of on one architecture.
    async fn parts_of(
        &self,
        image: ServedImage,
        added: &pull_through::Image,
        architecture: &str,
    ) -> Result<ServedParts, pull_through::Error> {
        let is_wanted = |platform: &pull_through::Platform| {
            platform.os == "linux" && platform.architecture == architecture
        };
        let contents = self.through.contents(added, is_wanted).await?;
        let mut digests = vec![added.digest];
        let mut blobs = BTreeSet::new();
        for content in &contents {
            if !digests.contains(&content.manifest) {
                digests.push(content.manifest);
            }
            let all = content.layers.iter().chain([&content.config]);
            blobs.extend(all.map(|blob| (blob.digest.to_string(), blob.size)));
        }
        let mut manifests = Vec::new();
        for digest in digests {
            let (media_type, bytes) = self.through.read_manifest(added, digest).await?;
            manifests.push((digest.to_string(), media_type, bytes));
        }
        Ok(ServedParts {
            image,
            manifests,
            blobs: blobs.into_iter().collect(),
        })
    }

    async fn resolve(&self, item: &Item) -> Result<ServedImage, Failure> {
        let image = &item.image;
        let (source, name) = (Arc::clone(&item.source), served_as(image));
        let added = self.through.add(&name, source, &item.reference).await;
        let added = added.map_err(|error| {
            let kind = match &error {
                pull_through::Error::Source(error) if error.is_temporary => {
                    FailureKind::RegistryUnavailable
                }
                pull_through::Error::Source(_) => FailureKind::RegistryRefused,
                _ => FailureKind::Corrupt,
            };
            let detail = format!("prepull cannot serve {image}: {error}");
            Failure::new(kind, Stage::Pull, detail)
        })?;
        let served = ServedImage {
            repository: added.served_as.clone(),
            digest: added.digest.to_string(),
        };
        // It is resolved once.
        let _ = item.added.set(added);
        Ok(served)
    }
}

/// The repository that an image is served under. The first part tells its names on a node from all others.
fn served_as(image: &Image) -> String {
    format!("prepull/{}", image.repository())
}

impl ImageServer for ServedImages {
    fn image(&self, item: usize) -> BoxFuture<'_, Result<ServedImage, Failure>> {
        Box::pin(async move {
            let Some(item) = self.items.get(item) else {
                let detail = format!("no image number {item} is served");
                return Err(Failure::new(FailureKind::Internal, Stage::Pull, detail));
            };
            // The first asks, the others wait.
            let mut known = item.known.lock().await;
            match &*known {
                Some((_, Ok(served))) => return Ok(served.clone()),
                Some((at, Err(failure))) if at.elapsed() < LEFT_ALONE => {
                    return Err(failure.clone());
                }
                Some((_, Err(_))) | None => {}
            }
            let resolved = self.resolve(item).await;
            *known = Some((Instant::now(), resolved.clone()));
            resolved
        })
    }

    fn parts(
        &self,
        item: usize,
        architecture: &'static str,
    ) -> BoxFuture<'_, Result<ServedParts, Failure>> {
        Box::pin(async move {
            let image = self.image(item).await?;
            let failure = |kind, detail| Failure::new(kind, Stage::Pull, detail);
            let Some((this, added)) = self.items.get(item).and_then(|i| Some((i, i.added.get()?)))
            else {
                let detail = format!("image number {item} is not served");
                return Err(failure(FailureKind::Internal, detail));
            };
            let (name, registry) = (image.repository.as_str(), this.image.registry());
            let is_another = |other: &&Item| {
                served_as(&other.image) == name && other.image.registry() != registry
            };
            if let Some(other) = self.items[..item].iter().find(is_another) {
                let detail = format!(
                    "nodes cannot pass it on beside {}, whose repository has the same name in another registry",
                    other.image
                );
                return Err(failure(FailureKind::NodeSetup, detail));
            }
            let parts = self.parts_of(image, added, architecture).await;
            let parts = parts.map_err(|error| {
                let detail = format!(
                    "prepull cannot tell what {} is made of: {error}",
                    this.image
                );
                failure(FailureKind::RegistryUnavailable, detail)
            })?;
            match parts.blobs.is_empty() {
                true => {
                    let detail = format!("{} has nothing for linux/{architecture}", this.image);
                    Err(failure(FailureKind::RegistryRefused, detail))
                }
                false => Ok(parts),
            }
        })
    }

    fn origin(&self, item: usize) -> BoxFuture<'_, Result<BlobOrigin, Failure>> {
        Box::pin(async move {
            let served = self.image(item).await?;
            let failure = |detail| Failure::new(FailureKind::RegistryRefused, Stage::Pull, detail);
            let origin = self.items.get(item).and_then(|item| item.origin.as_ref());
            let Some(origin) = origin else {
                let detail = "no registry has it that nodes could be led to".to_string();
                return Err(failure(detail));
            };
            origin.origin(&served.digest).await.map_err(failure)
        })
    }

    fn admit(&self) -> Arc<dyn ImageReader> {
        let number = self.nodes.fetch_add(1, Ordering::Relaxed);
        let mut hash = Sha256::new();
        hash.update(*self.secret);
        hash.update(number.to_be_bytes());
        let mut password = String::with_capacity(64);
        for byte in hash.finalize() {
            password.push_str(&format!("{byte:02x}"));
        }
        Arc::new(Reader {
            access: Arc::new(Access::new(USER, &password)),
            login: RegistryLogin::Password {
                username: USER.to_string(),
                password: Secret::new(password),
            },
            through: self.through.clone(),
        })
    }
}

struct Reader {
    login: RegistryLogin,
    access: Arc<Access>,
    through: PullThrough,
}

impl ImageReader for Reader {
    fn login(&self) -> &RegistryLogin {
        &self.login
    }

    fn serve(&self, stream: Box<dyn NodeStream>) -> BoxFuture<'static, ()> {
        let (through, access) = (self.through.clone(), Arc::clone(&self.access));
        Box::pin(async move {
            // What a client does wrong is answered, and what fails here is kept by the access.
            let _ = through.serve(stream, access).await;
        })
    }

    fn requests(&self) -> u64 {
        self.access.usage().requests
    }

    fn failure(&self) -> Option<String> {
        self.access.failure().map(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use bytes::Bytes;
    use pull_through::{BlobStream, Digest, SourceError};

    use super::*;

    /// Has nothing, and counts how often it is asked.
    #[derive(Default)]
    struct Empty(AtomicUsize);

    impl Source for Empty {
        fn manifest<'a>(
            &'a self,
            reference: &'a Reference,
        ) -> BoxFuture<'a, Result<Bytes, SourceError>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            let missing = SourceError::permanent(format!("no {reference} here"));
            Box::pin(std::future::ready(Err(missing)))
        }

        fn blob<'a>(
            &'a self,
            _: &'a Digest,
            _: u64,
        ) -> BoxFuture<'a, Result<BlobStream, SourceError>> {
            Box::pin(std::future::ready(Err(SourceError::permanent("no blob"))))
        }
    }

    fn served(folder: &Path, source: Arc<Empty>) -> ServedImages {
        let image = "reg.example/app:v1".parse().unwrap();
        let images: Vec<(Image, Arc<dyn Source>, Reference)> =
            vec![(image, source, Reference::Tag("v1".into()))];
        ServedImages::new(&folder.join("cache"), 1 << 20, None, images).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_without_the_image_is_not_asked_once_for_each_node() {
        let folder = tempfile::tempdir().unwrap();
        let source = Arc::new(Empty::default());
        let served = served(folder.path(), Arc::clone(&source));
        let asked = || source.0.load(Ordering::Relaxed);
        for _ in 0..3 {
            let failure = served.image(0).await.unwrap_err();
            assert_eq!(failure.kind, FailureKind::RegistryRefused);
            for part in ["reg.example/app:v1", "no v1 here"] {
                assert!(failure.detail.contains(part), "{failure}");
            }
        }
        assert_eq!(asked(), 1);
        tokio::time::advance(LEFT_ALONE).await;
        served.image(0).await.unwrap_err();
        assert_eq!(asked(), 2);
        let none = served.image(1).await.unwrap_err();
        assert_eq!(none.kind, FailureKind::Internal);
    }

    #[test]
    fn each_node_has_a_login_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let password = |served: &ServedImages| match served.admit().login() {
            RegistryLogin::Password { password, .. } => password.expose().to_vec(),
            other => panic!("{other:?}"),
        };
        let (one, two) = (
            served(folder.path(), Arc::default()),
            served(folder.path(), Arc::default()),
        );
        let passwords = [&one, &one, &two].map(password);
        assert!(passwords.iter().all(|password| password.len() == 64));
        assert!(passwords[0] != passwords[1], "two nodes of a run");
        assert!(passwords[0] != passwords[2], "two runs");
    }
}
