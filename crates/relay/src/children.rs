//! The peers' side: hands chunks to relays that prove that they belong to the run.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::AUTHORIZATION;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use pull_through::Digest;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::blob::{Blob, State};
use crate::chunk::{self, ALIVE, CHUNK};
use crate::protocol::Probe;
use crate::shared::{Shared, locked};

/// Connections that have not shown the proof: anyone can open them. The oldest makes room for a new one.
const MOST_STRANGERS: usize = 64;
/// Connections that have. A relay has a few children, and each fetches a few blobs at a time.
const MOST_CHILDREN: u64 = 256;
/// Bytes of a request's head.
const BUFFER: usize = 16 << 10;
/// How long a connection may be idle.
const IDLE: Duration = Duration::from_secs(60);
/// What is read and sent at a time.
const PART: usize = 128 << 10;
/// The same under a limit: no child waits for long.
const LIMITED_PART: usize = 16 << 10;
/// How often a relay looks for a blob that prepull may be about to name.
const LOOK: Duration = Duration::from_millis(100);

type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;
type Strangers = Mutex<VecDeque<Arc<Notify>>>;

/// Accepts peers until the relay ends.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let strangers = Arc::new(Strangers::default());
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let child = Child::new(Arc::clone(&shared), Arc::clone(&strangers));
                shared.spawn(child.serve(stream));
            }
            // No file is left for a connection, most likely.
            Err(_) => sleep(LOOK).await,
        }
    }
}

struct Child {
    shared: Arc<Shared>,
    strangers: Arc<Strangers>,
    pushed_out: Arc<Notify>,
    has_entered: AtomicBool,
    /// For the upload limit.
    turn: tokio::sync::Mutex<()>,
}

impl Child {
    fn new(shared: Arc<Shared>, strangers: Arc<Strangers>) -> Self {
        let pushed_out = Arc::new(Notify::new());
        let mut waiting = locked(&strangers);
        if waiting.len() >= MOST_STRANGERS
            && let Some(oldest) = waiting.pop_front()
        {
            oldest.notify_one();
        }
        waiting.push_back(Arc::clone(&pushed_out));
        drop(waiting);
        Self {
            shared,
            strangers,
            pushed_out,
            has_entered: AtomicBool::new(false),
            turn: tokio::sync::Mutex::default(),
        }
    }

    async fn serve(self, stream: TcpStream) {
        let child = Arc::new(self);
        let mut talking = std::pin::pin!(Arc::clone(&child).talk(stream));
        let limit = child.shared.timing.connect;
        tokio::select! {
            () = talking.as_mut() => return,
            () = child.pushed_out.notified() => return,
            () = sleep(limit) => {}
        }
        if child.has_entered.load(Ordering::Relaxed) {
            talking.await;
        }
    }

    async fn talk(self: Arc<Self>, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let Ok((stream, exported)) = self.shared.identity.accept(stream).await else {
            return;
        };
        let service = service_fn(|request: Request<Incoming>| {
            let child = Arc::clone(&self);
            async move { Ok::<_, Infallible>(child.answer(&request, &exported).await) }
        });
        let _ = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .max_buf_size(BUFFER)
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }

    /// The proof was shown. Refused where too many are connected.
    fn enter(&self) -> bool {
        if self.has_entered.load(Ordering::Relaxed) {
            return true;
        }
        let children = &self.shared.counters.children;
        if children.fetch_add(1, Ordering::Relaxed) >= MOST_CHILDREN {
            children.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        self.forget_stranger();
        self.has_entered.store(true, Ordering::Relaxed);
        true
    }

    fn forget_stranger(&self) {
        locked(&self.strangers).retain(|other| !Arc::ptr_eq(other, &self.pushed_out));
    }

    async fn answer(self: Arc<Self>, request: &Request<Incoming>, exported: &[u8; 32]) -> Answer {
        let shown = request.headers().get(AUTHORIZATION);
        let is_right = |shown: &hyper::header::HeaderValue| {
            self.shared.proof.is_right(shown.as_bytes(), exported)
        };
        if !shown.is_some_and(is_right) {
            return status(StatusCode::UNAUTHORIZED);
        }
        if !self.enter() {
            return status(StatusCode::SERVICE_UNAVAILABLE);
        }
        if request.method() != Method::GET {
            return status(StatusCode::METHOD_NOT_ALLOWED);
        }
        let (path, query) = (
            request.uri().path(),
            request.uri().query().unwrap_or_default(),
        );
        if path == "/probe" {
            let bytes = query
                .strip_prefix("bytes=")
                .and_then(|bytes| bytes.parse::<u64>().ok());
            return match bytes {
                Some(bytes) if bytes <= Probe::MOST => self.probe(bytes),
                _ => status(StatusCode::BAD_REQUEST),
            };
        }
        let digest = path
            .strip_prefix("/b/")
            .and_then(|digest| digest.parse::<Digest>().ok());
        let from = query
            .strip_prefix("from=")
            .and_then(|from| from.parse::<u64>().ok());
        let (Some(digest), Some(from)) = (digest, from) else {
            return status(StatusCode::BAD_REQUEST);
        };
        match self.find(&digest).await {
            None => status(StatusCode::NOT_FOUND),
            Some(blob) if from >= chunk::count(blob.size) => status(StatusCode::BAD_REQUEST),
            Some(blob) => {
                blob.demand(&self.shared);
                self.chunks(blob, from)
            }
        }
    }

    /// A blob. The child may have heard of it a moment earlier than this relay.
    async fn find(&self, digest: &Digest) -> Option<Arc<Blob>> {
        let patience = self.shared.timing.connect / 2;
        let finding = timeout(patience, async {
            loop {
                match self.shared.blob(digest) {
                    Some(blob) => return blob,
                    None => sleep(LOOK).await,
                }
            }
        });
        finding.await.ok()
    }

    /// The frames of a blob from this chunk on, as they arrive.
    fn chunks(self: Arc<Self>, blob: Arc<Blob>, from: u64) -> Answer {
        let arrived = blob.arrived();
        let attempt = arrived.borrow().attempt;
        let sending = Sending {
            child: self,
            blob,
            arrived,
            attempt,
            index: from,
            sent: None,
        };
        let frames = stream::try_unfold(sending, |mut sending| async move {
            let part = sending.next().await?;
            Ok(part.map(|bytes| (Frame::data(bytes), sending)))
        });
        Response::new(StreamBody::new(frames).boxed_unsync())
    }

    fn probe(self: Arc<Self>, bytes: u64) -> Answer {
        let zeros = Bytes::from_static(&[0; LIMITED_PART]);
        let parts = stream::try_unfold((self, bytes), move |(child, left)| {
            let part = zeros.slice(..zeros.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
            async move {
                if part.is_empty() {
                    return Ok(None);
                }
                child.shared.upload.wait(&child.turn, part.len()).await;
                let left = left - part.len() as u64;
                Ok::<_, io::Error>(Some((Frame::data(part), (child, left))))
            }
        });
        Response::new(StreamBody::new(parts).boxed_unsync())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.forget_stranger();
        if self.has_entered.load(Ordering::Relaxed) {
            self.shared
                .counters
                .children
                .fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Frames on their way to one child.
struct Sending {
    child: Arc<Child>,
    blob: Arc<Blob>,
    arrived: tokio::sync::watch::Receiver<crate::blob::Arrived>,
    attempt: u64,
    index: u64,
    /// Bytes of this chunk that were sent; nothing before its header was.
    sent: Option<usize>,
}

impl Sending {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let length = chunk::length(self.blob.size, self.index);
        let Some(sent) = self.sent else {
            return self.header().await;
        };
        let shared = &self.child.shared;
        let most = if shared.is_upload_limited {
            LIMITED_PART
        } else {
            PART
        };
        let part = most.min(length - sent);
        let bytes = self
            .blob
            .read(shared, self.index * CHUNK + sent as u64, part)
            .await?;
        shared.upload.wait(&self.child.turn, part).await;
        shared
            .counters
            .to_peers
            .fetch_add(part as u64, Ordering::Relaxed);
        self.sent = Some(sent + part);
        if sent + part == length {
            self.sent = None;
            self.index += 1;
        }
        Ok(Some(bytes))
    }

    async fn header(&mut self) -> io::Result<Option<Bytes>> {
        if self.index == chunk::count(self.blob.size) {
            return Ok(None);
        }
        let (index, attempt) = (self.index as usize, self.attempt);
        let is_news = |arrived: &crate::blob::Arrived| {
            arrived.attempt != attempt
                || arrived.chunks.len() > index
                || arrived.state == State::Idle
        };
        let header = match timeout(
            self.child.shared.timing.alive,
            self.arrived.wait_for(is_news),
        )
        .await
        {
            Err(_) => return Ok(Some(Bytes::from_static(&ALIVE))),
            Ok(Ok(arrived)) if arrived.attempt == attempt => arrived.chunks.get(index).copied(),
            Ok(_) => None,
        };
        let header = header.ok_or_else(|| io::Error::other("the blob turned out wrong"))?;
        self.sent = Some(0);
        Ok(Some(Bytes::copy_from_slice(&header.bytes())))
    }
}

fn status(status: StatusCode) -> Answer {
    let mut answer = Response::new(
        Empty::new()
            .map_err(|never: Infallible| match never {})
            .boxed_unsync(),
    );
    *answer.status_mut() = status;
    answer
}
