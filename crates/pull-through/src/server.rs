//! The distribution API over one connection: `/v2/`, manifests and blobs, to be read only.

use std::error::Error as _;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use futures::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{self, HeaderMap};
use hyper::http::response::Builder;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::range::{self, Unsatisfiable};
use crate::through::Found;
use crate::{Access, ConnectionError, Digest, Error, PullThrough};

/// How long a client may take for a request's head, and how long it may be silent between requests.
const HEAD_LIMIT: Duration = Duration::from_secs(60);
/// How long a client may take until it has shown the login.
const LOGIN_LIMIT: Duration = Duration::from_secs(5);
/// Bytes of a request's head, and of what waits to be written beside one chunk.
const BUFFER: usize = 16 << 10;
/// Runtimes use a handful. Together with what a connection buffers this bounds a node's memory here.
const MOST_CONNECTIONS: usize = 32;
/// Connections that have not shown the login, beside those: anyone on the node can open them.
const MOST_STRANGERS: usize = 16;

type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

pub(crate) async fn serve<S>(
    through: PullThrough,
    stream: S,
    access: Arc<Access>,
) -> Result<(), ConnectionError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let guest = Arc::new(Guest::new(access));
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let (through, guest) = (through.clone(), Arc::clone(&guest));
        async move {
            let login = request.headers().get(header::AUTHORIZATION);
            if !guest.access.allows(login) {
                let builder = Response::builder()
                    .status(StatusCode::UNAUTHORIZED)
                    .header(header::WWW_AUTHENTICATE, "Basic realm=\"prepull\"");
                return Ok(error(builder, "UNAUTHORIZED", "a login is required"));
            }
            guest.enter()?;
            Ok::<_, ConnectionError>(answer(&through, &guest.access, &request).await)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let pushed_out = pin!(timeout(LOGIN_LIMIT, guest.pushed_out.notified()));
    let ended = match select(connection.as_mut(), pushed_out).await {
        Either::Left((ended, _)) => ended,
        Either::Right(_) if guest.has_entered() => connection.await,
        Either::Right((Ok(()), _)) => return Err(ConnectionError::PushedOut(MOST_STRANGERS)),
        Either::Right((Err(_), _)) => return Err(ConnectionError::NoLogin(LOGIN_LIMIT)),
    };
    ended.map_err(|error| {
        match error
            .source()
            .map(<dyn std::error::Error>::is::<ConnectionError>)
        {
            // Nothing else in the service fails.
            Some(true) => ConnectionError::TooMany(MOST_CONNECTIONS),
            _ => error.into(),
        }
    })
}

/// One of a node's connections: a stranger's until it has shown the login.
struct Guest {
    access: Arc<Access>,
    has_entered: AtomicBool,
    pushed_out: Arc<Notify>,
}

impl Guest {
    /// A new stranger. It takes the place of the oldest where there are too many: a client with the login shows it at
    /// once, so those that stay are rarely such.
    fn new(access: Arc<Access>) -> Self {
        let pushed_out = Arc::new(Notify::new());
        let mut strangers = access
            .strangers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if strangers.len() >= MOST_STRANGERS
            && let Some(oldest) = strangers.pop_front()
        {
            oldest.notify_one();
        }
        strangers.push_back(Arc::clone(&pushed_out));
        drop(strangers);
        Self {
            access,
            has_entered: AtomicBool::new(false),
            pushed_out,
        }
    }

    fn has_entered(&self) -> bool {
        self.has_entered.load(Ordering::Relaxed)
    }

    /// The login was shown.
    fn enter(&self) -> Result<(), ConnectionError> {
        if self.has_entered.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        self.forget_stranger();
        let others = self.access.connections.fetch_add(1, Ordering::Relaxed);
        match others < MOST_CONNECTIONS {
            true => Ok(()),
            false => Err(ConnectionError::TooMany(MOST_CONNECTIONS)),
        }
    }

    fn forget_stranger(&self) {
        let strangers = self.access.strangers.lock();
        let mut strangers = strangers.unwrap_or_else(PoisonError::into_inner);
        strangers.retain(|other| !Arc::ptr_eq(other, &self.pushed_out));
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.forget_stranger();
        if self.has_entered() {
            self.access.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

async fn answer<B>(through: &PullThrough, access: &Arc<Access>, request: &Request<B>) -> Answer {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let builder = Response::builder()
            .status(StatusCode::METHOD_NOT_ALLOWED)
            .header(header::ALLOW, "GET, HEAD");
        return error(builder, "UNSUPPORTED", "this registry is read-only");
    }
    let mut answer = read(through, access, request).await;
    if request.method() == Method::HEAD {
        *answer.body_mut() = full(Bytes::new());
    }
    answer
}

async fn read<B>(through: &PullThrough, access: &Arc<Access>, request: &Request<B>) -> Answer {
    let path = request.uri().path();
    let is_head = request.method() == Method::HEAD;
    if path == "/v2/" || path == "/v2" {
        return finish(
            Response::builder(),
            "application/json",
            full("{}".into()),
            2,
        );
    }
    let Some((name, kind, reference)) = split(path) else {
        return not_found("UNSUPPORTED", "this registry has manifests and blobs only");
    };
    if !through.has(name) {
        return not_found("NAME_UNKNOWN", "no image is served under this name");
    }
    let digest = match kind {
        Kind::Manifest if !reference.contains(':') => through.tagged(name, reference),
        _ => match reference.parse::<Digest>() {
            Ok(digest) => Some(digest),
            Err(_) => {
                let builder = Response::builder().status(StatusCode::BAD_REQUEST);
                return error(builder, "DIGEST_INVALID", "not a sha256 digest");
            }
        },
    };
    let found = match digest {
        Some(digest) => through
            .find(name, digest)
            .await
            .map(|found| found.map(|found| (digest, found))),
        None => Ok(None),
    };
    match (kind, found) {
        (Kind::Manifest, Ok(Some((digest, Found::Manifest { media_type, bytes })))) => {
            if !is_head {
                through.upload(access, bytes.len()).await;
            }
            let builder = Response::builder().header("Docker-Content-Digest", digest.to_string());
            let length = bytes.len() as u64;
            finish(builder, &media_type, full(bytes), length)
        }
        (Kind::Blob, Ok(Some((digest, Found::Blob { size })))) => {
            let range = wanted(request.headers(), size);
            let sent = blob(through, access, name, digest, size, range, is_head).await;
            sent.unwrap_or_else(|why| failed(access, why))
        }
        (_, Err(why)) => failed(access, why),
        (Kind::Manifest, Ok(_)) => not_found("MANIFEST_UNKNOWN", "not a manifest of this image"),
        (Kind::Blob, Ok(_)) => not_found("BLOB_UNKNOWN", "not a blob of this image"),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Manifest,
    Blob,
}

/// `/v2/NAME/manifests/REFERENCE` or `/v2/NAME/blobs/DIGEST`. Names are compared and never become paths.
fn split(path: &str) -> Option<(&str, Kind, &str)> {
    let (rest, reference) = path.strip_prefix("/v2/")?.rsplit_once('/')?;
    let (name, kind) = rest.rsplit_once('/')?;
    let kind = match kind {
        "manifests" => Kind::Manifest,
        "blobs" => Kind::Blob,
        _ => return None,
    };
    Some((name, kind, reference))
}

type Wanted = Option<Result<(u64, u64), Unsatisfiable>>;

/// The range that a request asks for. With `If-Range` the client may hold another version, so it gets the whole.
fn wanted(headers: &HeaderMap, size: u64) -> Wanted {
    let range = headers.get(header::RANGE)?.to_str().ok()?;
    let is_plain = !headers.contains_key(header::IF_RANGE);
    is_plain.then(|| range::wanted(range, size)).flatten()
}

async fn blob(
    through: &PullThrough,
    access: &Arc<Access>,
    name: &str,
    digest: Digest,
    size: u64,
    range: Wanted,
    is_head: bool,
) -> Result<Answer, Error> {
    let builder = Response::builder()
        .header("Docker-Content-Digest", digest.to_string())
        .header(header::ACCEPT_RANGES, "bytes");
    let (builder, start, end) = match range {
        None => (builder, 0, size),
        Some(Ok((start, end))) => {
            let part = format!("bytes {start}-{}/{size}", end - 1);
            let builder = builder.status(StatusCode::PARTIAL_CONTENT);
            (builder.header(header::CONTENT_RANGE, part), start, end)
        }
        Some(Err(Unsatisfiable)) => {
            let builder = builder
                .status(StatusCode::RANGE_NOT_SATISFIABLE)
                .header(header::CONTENT_RANGE, format!("bytes */{size}"));
            return Ok(error(
                builder,
                "SIZE_INVALID",
                "the range is not within the blob",
            ));
        }
    };
    let body = if is_head || start == end {
        full(Bytes::new())
    } else {
        let blob = through.blob(name, digest, size)?;
        // A source that has nothing is told by the status, not by a connection that breaks.
        blob.wait(start).await?;
        let (through, access) = (through.clone(), Arc::clone(access));
        let chunks = stream::try_unfold(start, move |at| {
            let (through, access, blob) = (through.clone(), Arc::clone(&access), Arc::clone(&blob));
            async move {
                if at == end {
                    return Ok(None);
                }
                match blob.read(at, end - at).await {
                    Ok(bytes) => {
                        through.upload(&access, bytes.len()).await;
                        let next = at + bytes.len() as u64;
                        Ok(Some((Frame::data(bytes), next)))
                    }
                    Err(why) => {
                        access.failed(why);
                        Err(io::Error::other("the blob cannot be read to its end"))
                    }
                }
            }
        });
        StreamBody::new(chunks).boxed_unsync()
    };
    let kind = "application/octet-stream";
    Ok(finish(builder, kind, body, end - start))
}

/// The operator can read why (`Access::failure`); the node learns no more than that it failed.
fn failed(access: &Access, why: Error) -> Answer {
    access.failed(why);
    let builder = Response::builder().status(StatusCode::BAD_GATEWAY);
    error(builder, "UNKNOWN", "the source of the image failed")
}

fn not_found(code: &str, message: &str) -> Answer {
    let builder = Response::builder().status(StatusCode::NOT_FOUND);
    error(builder, code, message)
}

/// An error as the distribution specification writes it. Codes and messages are constants without quotes.
fn error(builder: Builder, code: &str, message: &str) -> Answer {
    let text = format!("{{\"errors\":[{{\"code\":\"{code}\",\"message\":\"{message}\"}}]}}\n");
    let length = text.len() as u64;
    finish(builder, "application/json", full(text.into()), length)
}

fn finish(
    builder: Builder,
    kind: &str,
    body: UnsyncBoxBody<Bytes, io::Error>,
    length: u64,
) -> Answer {
    let built = builder
        .header("Docker-Distribution-Api-Version", "registry/2.0")
        .header(header::CONTENT_TYPE, kind)
        .header(header::CONTENT_LENGTH, length)
        .body(body);
    built.unwrap_or_else(|_| {
        let mut answer = Response::new(full(Bytes::new()));
        *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        answer
    })
}

fn full(bytes: Bytes) -> UnsyncBoxBody<Bytes, io::Error> {
    Full::new(bytes)
        .map_err(|never| match never {})
        .boxed_unsync()
}
