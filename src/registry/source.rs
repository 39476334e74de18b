//! Images of registries for `pull_through`: manifests, and blobs from any byte on.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream;
use http_body_util::BodyExt as _;
use hyper::StatusCode;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::http::uri::Authority;
use pull_through::{BlobStream, Digest, Reference, Source, SourceError};
use tokio::time::timeout;

use super::RegistryError;
use super::client::RegistryClient;
use super::http::{Answer, Body, Http, Wanted};
use crate::model::{Image, Mirror, RegistryLogin, Secret};
use crate::ports::{BlobOrigin, OriginSource};

/// The longest silence within a blob.
const SILENCE: Duration = Duration::from_secs(60);

/// Gives an image's login again, where a registry refused the one that was shown: it may have expired.
pub trait LoginRenewal: Send + Sync {
    /// The login as it is now; `None` where none is known.
    ///
    /// # Errors
    /// Why it cannot be had, for the operator.
    fn instead_of<'a>(
        &'a self,
        refused: &'a RegistryLogin,
    ) -> BoxFuture<'a, Result<Option<RegistryLogin>, String>>;
}

/// Connections to registries, shared by the sources that are made here.
#[derive(Clone)]
pub struct Registries(Arc<Http>);

impl Registries {
    /// `certificates` is [`super::DOCKER_CERTIFICATES`] but in tests.
    pub fn new(certificates: &Path) -> Self {
        Self(Arc::new(Http::patient(certificates)))
    }

    /// An image's repository, with the login for its registry and what renews it. Mirrors are asked first, in order and
    /// without the login; the registry is asked for what none of them has.
    pub fn source(
        &self,
        image: &Image,
        login: Option<RegistryLogin>,
        renewal: Option<Arc<dyn LoginRenewal>>,
        mirrors: &[Mirror],
    ) -> RegistrySource {
        let mirrors = Mirror::hosts(mirrors, image.registry()).map(|host| Some(host.to_string()));
        let hosts = mirrors.chain([None]).map(|mirror| Host {
            mirror,
            authorization: Mutex::default(),
        });
        RegistrySource {
            http: Arc::clone(&self.0),
            registry: image.registry().to_string(),
            repository: image.repository().to_string(),
            login: Mutex::new(login),
            renewal,
            hosts: hosts.collect(),
        }
    }
}

/// One repository of a registry, and of its mirrors.
pub struct RegistrySource {
    http: Arc<Http>,
    registry: String,
    repository: String,
    login: Mutex<Option<RegistryLogin>>,
    renewal: Option<Arc<dyn LoginRenewal>>,
    /// In the order in which they are asked; the registry comes last.
    hosts: Vec<Host>,
}

struct Host {
    /// Nothing for the registry itself.
    mirror: Option<String>,
    /// What the host wants to see, for the next question.
    authorization: Mutex<Option<(Authority, HeaderValue)>>,
}

impl RegistrySource {
    /// Asks one host after the other; with the answer comes how many bytes of it are before those that are wanted. The
    /// error is that of the last one, the registry itself.
    async fn ask(&self, path: &str, wanted: Wanted) -> Result<(Answer, u64), SourceError> {
        let mut failed = RegistryError::lasting("no host");
        for host in &self.hosts {
            let login = lock(&self.login).clone();
            let mut answer = self.ask_host(host, login.as_ref(), path, wanted).await;
            if let (Err(error), Some(refused), None) = (&mut answer, login, &host.mirror)
                && error.is_login_refused
                && let Some(renewed) = self.renewed(&refused, error).await
            {
                *lock(&host.authorization) = None;
                answer = self.ask_host(host, Some(&renewed), path, wanted).await;
            }
            let skipped = |answer: Answer| Ok((skipped(&answer, wanted)?, answer));
            match answer.and_then(skipped) {
                Ok((skipped, answer)) => return Ok((answer, skipped)),
                Err(error) => failed = error,
            }
        }
        Err(failed.into())
    }

    async fn ask_host(
        &self,
        host: &Host,
        login: Option<&RegistryLogin>,
        path: &str,
        wanted: Wanted,
    ) -> Result<Answer, RegistryError> {
        let (http, registry, repository) = (&*self.http, &*self.registry, &*self.repository);
        let mut client = match &host.mirror {
            Some(mirror) => RegistryClient::of_mirror(http, mirror, registry, repository),
            None => RegistryClient::new(http, registry, repository, login),
        };
        client.authorization = lock(&host.authorization).clone();
        let answer = client.get(path, wanted).await;
        *lock(&host.authorization) = client.authorization;
        answer
    }

    /// Another login than the one that was refused. Why there is none is added to the error.
    async fn renewed(
        &self,
        refused: &RegistryLogin,
        error: &mut RegistryError,
    ) -> Option<RegistryLogin> {
        match self.renewal.as_ref()?.instead_of(refused).await {
            Ok(Some(login)) if login != *refused => {
                *lock(&self.login) = Some(login.clone());
                Some(login)
            }
            Ok(_) => None,
            Err(why) => {
                let why = format!("; a new login cannot be had: {why}");
                error.why.push_str(&why);
                None
            }
        }
    }

    /// A body is left to be read if it is a blob's, so this does not happen.
    fn unexpected(&self) -> SourceError {
        SourceError::temporary(format!("{} sent an answer of another kind", self.registry))
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl From<RegistryError> for SourceError {
    fn from(error: RegistryError) -> Self {
        Self {
            message: error.why,
            is_temporary: error.is_temporary,
        }
    }
}

impl Source for RegistrySource {
    fn manifest<'a>(
        &'a self,
        reference: &'a Reference,
    ) -> BoxFuture<'a, Result<Bytes, SourceError>> {
        Box::pin(async move {
            match self
                .ask(&format!("manifests/{reference}"), Wanted::Manifest)
                .await?
                .0
                .body
            {
                Body::Whole(bytes) => Ok(bytes),
                Body::Blob(_) => Err(self.unexpected()),
            }
        })
    }

    fn blob<'a>(
        &'a self,
        digest: &'a Digest,
        from: u64,
    ) -> BoxFuture<'a, Result<BlobStream, SourceError>> {
        Box::pin(async move {
            let (answer, skipped) = self
                .ask(&format!("blobs/{digest}"), Wanted::Blob(from))
                .await?;
            match answer.body {
                Body::Blob(body) => Ok(chunks(self.registry.clone(), body, skipped)),
                Body::Whole(_) => Err(self.unexpected()),
            }
        })
    }
}

impl OriginSource for RegistrySource {
    fn origin<'a>(&'a self, manifest: &'a str) -> BoxFuture<'a, Result<BlobOrigin, String>> {
        Box::pin(async move {
            let login = lock(&self.login).clone();
            let (registry, login) = (&*self.registry, login.as_ref());
            let mut client = RegistryClient::new(&self.http, registry, &self.repository, login);
            let asked = client.manifest(manifest).await;
            asked.map_err(|error| error.to_string())?;
            let host = client.host().to_string();
            let shown = client.authorization.as_ref();
            let shown = shown.filter(|(authority, _)| authority.as_str() == host);
            Ok(BlobOrigin {
                base: client.blobs(),
                authorization: shown.map(|(_, value)| Secret::new(value.as_bytes())),
                authorities: self.http.authorities(&host),
            })
        })
    }
}

/// How many bytes an answer begins before those that are wanted. A server may ignore a range.
fn skipped(answer: &Answer, wanted: Wanted) -> Result<u64, RegistryError> {
    let Wanted::Blob(from) = wanted else {
        return Ok(0);
    };
    if answer.status != StatusCode::PARTIAL_CONTENT {
        return Ok(from);
    }
    let range = answer.headers.get(header::CONTENT_RANGE);
    let range = range
        .and_then(|range| range.to_str().ok())
        .unwrap_or_default();
    let first = range
        .trim_start_matches("bytes")
        .trim_start()
        .split('-')
        .next();
    match first.and_then(|first| first.parse::<u64>().ok()) {
        Some(first) if first <= from => Ok(from - first),
        _ => {
            let why = format!("the registry answers {range:?} to a question for bytes {from}-");
            Err(RegistryError::lasting(why))
        }
    }
}

fn chunks(registry: String, body: Incoming, skipped: u64) -> BlobStream {
    Box::pin(stream::try_unfold(
        (body, skipped),
        move |(mut body, mut skipped)| {
            let registry = registry.clone();
            async move {
                loop {
                    let frame = timeout(SILENCE, body.frame()).await.map_err(|_| {
                        let seconds = SILENCE.as_secs();
                        SourceError::temporary(format!("{registry} sent nothing for {seconds} s"))
                    })?;
                    let Some(frame) = frame else { return Ok(None) };
                    let frame = frame.map_err(|error| {
                        SourceError::temporary(format!("{registry} broke off a blob: {error}"))
                    })?;
                    let Ok(mut bytes) = frame.into_data() else {
                        continue;
                    };
                    // No more than there are.
                    let before = skipped.min(bytes.len() as u64) as usize;
                    skipped -= before as u64;
                    let bytes = bytes.split_off(before);
                    if !bytes.is_empty() {
                        return Ok(Some((bytes, (body, skipped))));
                    }
                }
            }
        },
    ))
}
