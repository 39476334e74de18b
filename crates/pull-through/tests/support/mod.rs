//! A source that does what a test tells it, and a client over a connection in memory.

#![allow(dead_code)] // each test file uses a part of it

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, stream};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use pull_through::{
    Access, BlobStream, Digest, Image, PullThrough, Reference, Source, SourceError, Store,
};
use tokio::sync::watch;

pub const NAME: &str = "team/app";

/// Answers from memory.
pub struct Scripted {
    pub manifests: Mutex<HashMap<String, Bytes>>,
    pub blobs: Mutex<HashMap<Digest, Bytes>>,
    /// Digests and places that were asked for.
    pub asked: Mutex<Vec<(Digest, u64)>>,
    /// References of manifests that were asked for.
    pub manifests_asked: Mutex<Vec<String>>,
    /// Answers for blobs, first first: how many bytes come before the error.
    pub breaks: Mutex<Vec<(usize, SourceError)>>,
    /// No byte after this one comes before it grows.
    pub gate: watch::Sender<usize>,
    pub chunk: usize,
}

impl Default for Scripted {
    fn default() -> Self {
        Self {
            manifests: Mutex::default(),
            blobs: Mutex::default(),
            asked: Mutex::default(),
            manifests_asked: Mutex::default(),
            breaks: Mutex::default(),
            gate: watch::channel(usize::MAX).0,
            chunk: 10_000,
        }
    }
}

impl Scripted {
    pub fn with_image(layers: &[&[u8]]) -> Self {
        let scripted = Self::default();
        let manifest = scripted.add_image(layers);
        scripted.tag("v1", &manifest);
        scripted
    }

    /// Blobs and a manifest for them, under its digest.
    pub fn add_image(&self, layers: &[&[u8]]) -> Bytes {
        let config = Bytes::from_static(b"{\"config\":true}");
        let descriptor = |bytes: &[u8]| {
            self.blobs
                .lock()
                .unwrap()
                .insert(Digest::of(bytes), Bytes::copy_from_slice(bytes));
            format!(
                r#"{{"digest":"{}","size":{}}}"#,
                Digest::of(bytes),
                bytes.len()
            )
        };
        let config = descriptor(&config);
        let layers: Vec<String> = layers.iter().map(|layer| descriptor(layer)).collect();
        let layers = layers.join(",");
        let text = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layers}]}}"#);
        self.add_manifest(text)
    }

    pub fn add_manifest(&self, text: String) -> Bytes {
        let bytes = Bytes::from(text);
        self.tag(&Digest::of(&bytes).to_string(), &bytes);
        bytes
    }

    pub fn tag(&self, tag: &str, manifest: &Bytes) {
        self.manifests
            .lock()
            .unwrap()
            .insert(tag.into(), manifest.clone());
    }

    pub fn places_asked(&self, digest: &Digest) -> Vec<u64> {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .filter(|(of, _)| of == digest)
            .map(|(_, from)| *from)
            .collect()
    }
}

impl Source for Scripted {
    fn manifest<'a>(
        &'a self,
        reference: &'a Reference,
    ) -> BoxFuture<'a, Result<Bytes, SourceError>> {
        let name = reference.to_string();
        self.manifests_asked.lock().unwrap().push(name.clone());
        let found = self.manifests.lock().unwrap().get(&name).cloned();
        async { found.ok_or_else(|| SourceError::permanent("no such manifest: s3cret detail")) }
            .boxed()
    }

    fn blob<'a>(
        &'a self,
        digest: &'a Digest,
        from: u64,
    ) -> BoxFuture<'a, Result<BlobStream, SourceError>> {
        self.asked.lock().unwrap().push((*digest, from));
        let found = self.blobs.lock().unwrap().get(digest).cloned();
        let mut breaks = self.breaks.lock().unwrap();
        let (most, error) = match breaks.is_empty() {
            true => (usize::MAX, None),
            false => {
                let (most, error) = breaks.remove(0);
                (most, Some(error))
            }
        };
        let (gate, chunk) = (self.gate.subscribe(), self.chunk);
        async move {
            let bytes =
                found.ok_or_else(|| SourceError::permanent("no such blob: s3cret detail"))?;
            let from = from as usize;
            let end = bytes.len().min(from.saturating_add(most));
            let mut at = from.min(bytes.len());
            let mut error = error;
            let body = stream::repeat(()).then(move |()| {
                // One chunk, the error, or the end.
                let next = if at < end {
                    let start = at;
                    at = end.min(at + chunk);
                    Some(Ok((start, bytes.slice(start..at))))
                } else {
                    error.take().map(Err)
                };
                let mut gate = gate.clone();
                async move {
                    match next? {
                        Ok((start, bytes)) => {
                            let _ = gate.wait_for(|open| start + bytes.len() <= *open).await;
                            Some(Ok(bytes))
                        }
                        Err(error) => Some(Err(error)),
                    }
                }
            });
            let body: BlobStream = Box::pin(take_some(body));
            Ok(body)
        }
        .boxed()
    }
}

use futures::stream::{Stream, StreamExt as _};

fn take_some<T>(items: impl Stream<Item = Option<T>>) -> impl Stream<Item = T> {
    items
        .take_while(|item| std::future::ready(item.is_some()))
        .filter_map(std::future::ready)
}

pub fn store(folder: &Path) -> Store {
    Store::open(folder, 1 << 30).unwrap()
}

/// One image, added by its tag `v1`.
pub async fn serving(folder: &Path, source: &Arc<Scripted>) -> (PullThrough, Image) {
    let through = PullThrough::new(store(folder), None);
    let source = Arc::clone(source) as Arc<dyn Source>;
    let image = through
        .add(NAME, source, &Reference::Tag("v1".into()))
        .await
        .unwrap();
    (through, image)
}

pub fn access() -> Arc<Access> {
    Arc::new(Access::new("node", "pw"))
}

pub fn login() -> String {
    format!("Basic {}", STANDARD.encode("node:pw"))
}

/// A client on a connection of its own.
pub struct Client(SendRequest<Empty<Bytes>>);

impl Client {
    pub async fn connect(through: &PullThrough, access: &Arc<Access>) -> Self {
        let (near, far) = tokio::io::duplex(64 << 10);
        let (through, access) = (through.clone(), Arc::clone(access));
        tokio::spawn(async move { through.serve(far, access).await });
        let (send, connection) = handshake(TokioIo::new(near)).await.unwrap();
        tokio::spawn(connection);
        Self(send)
    }

    pub async fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Response<Incoming> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "x");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.0.ready().await.unwrap();
        self.0
            .send_request(request.body(Empty::new()).unwrap())
            .await
            .unwrap()
    }

    pub async fn get(&mut self, path: &str) -> Response<Incoming> {
        self.ask("GET", path, &[("authorization", &login())]).await
    }

    pub async fn blob(&mut self, digest: &Digest) -> Response<Incoming> {
        self.get(&format!("/v2/{NAME}/blobs/{digest}")).await
    }

    /// A blob, or how many bytes of it came.
    pub async fn whole(&mut self, digest: &Digest) -> Result<Bytes, (StatusCode, usize)> {
        let answer = self.blob(digest).await;
        let status = answer.status();
        let mut body = answer.into_body();
        let mut got = Vec::new();
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => got.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Err(_) => return Err((status, got.len())),
            }
        }
        if status != StatusCode::OK {
            return Err((status, got.len()));
        }
        Ok(got.into())
    }
}

/// At least so many bytes of a body.
pub async fn first(body: &mut Incoming, length: usize) -> Vec<u8> {
    let mut got = Vec::new();
    while got.len() < length {
        let frame = body.frame().await.unwrap().unwrap();
        got.extend_from_slice(&frame.into_data().unwrap());
    }
    got
}

/// Bytes that differ from place to place.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..))
        .take(length)
        .collect()
}
