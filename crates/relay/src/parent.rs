//! Fetches from another relay: chunks of a blob, or bytes that show how fast it is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::chunk::{ALIVE, HEADER, Header};
use crate::fill::{Trouble, Writer};
use crate::identity;
use crate::protocol::{FromRelay, Peer, Probe};
use crate::shared::{Shared, Timing};

/// Bytes of an answer's head.
const BUFFER: usize = 64 << 10;
/// What a probe may take, once the peer has answered.
const PROBE: Duration = Duration::from_secs(10);

/// Chunks of a blob, until it is whole.
pub(crate) async fn fetch(peer: &Peer, writer: &mut Writer) -> Result<(), Trouble> {
    let (blob, shared) = (Arc::clone(&writer.blob), Arc::clone(&writer.shared));
    let path = format!("/b/{}?from={}", blob.digest, writer.index);
    let dismissed = blob.image.dismissed(peer);
    tokio::pin!(dismissed);
    let answer = tokio::select! {
        answer = ask(&shared, peer, &path) => answer.map_err(Trouble::Lost)?,
        () = &mut dismissed => return Err(Trouble::Replaced),
    };
    // What was begun from a registry is not used.
    writer.part = Vec::new();
    let mut frames = Frames::new(answer.into_body(), Arc::clone(&shared));
    while !writer.is_done() {
        let (header, bytes) = tokio::select! {
            frame = frames.next(writer.due()) => frame?,
            () = &mut dismissed => return Err(Trouble::Replaced),
        };
        writer.accept(bytes, Some(header)).await?;
    }
    Ok(())
}

/// Says for each peer whether it can be reached, and how fast it is.
pub(crate) async fn probe(shared: Arc<Shared>, probe: Probe) {
    let bytes = probe.bytes.min(Probe::MOST);
    for peer in probe.peers {
        let (bytes_per_second, error) = match rate(&shared, &peer, bytes).await {
            Ok(rate) => (rate, None),
            Err(why) => (None, Some(why)),
        };
        shared.say(FromRelay::Reached {
            address: peer.address,
            bytes_per_second,
            error,
        });
    }
}

/// How fast a peer sends; after the time for a probe, by what has come.
async fn rate(shared: &Arc<Shared>, peer: &Peer, bytes: u64) -> Result<Option<u64>, String> {
    let answer = ask(shared, peer, &format!("/probe?bytes={bytes}")).await?;
    let mut body = answer.into_body();
    let (began, mut got) = (Instant::now(), 0);
    while got < bytes && began.elapsed() < PROBE {
        match timeout(shared.timing.silence, body.frame()).await {
            Ok(Some(Ok(frame))) => got += frame.data_ref().map_or(0, Bytes::len) as u64,
            Ok(Some(Err(error))) => return Err(format!("it broke off: {error}")),
            Ok(None) => return Err("it broke off".into()),
            Err(_) => return Err(silent(shared.timing.silence)),
        }
    }
    let seconds = began.elapsed().as_secs_f64().max(1e-6);
    Ok((bytes > 0).then_some((got as f64 / seconds) as u64))
}

async fn ask(shared: &Arc<Shared>, peer: &Peer, path: &str) -> Result<Response<Incoming>, String> {
    let limit = shared.timing.connect;
    let late = |what: &str| format!("it did not {what} within {} s", limit.as_secs_f32());
    let connected = timeout(limit, TcpStream::connect(peer.address)).await;
    let stream = connected
        .map_err(|_| late("accept a connection"))?
        .map_err(|error| format!("cannot connect: {error}"))?;
    let _ = stream.set_nodelay(true);
    let talking = timeout(limit, talk(shared, stream, peer, path)).await;
    let answer = talking.map_err(|_| late("answer"))??;
    match answer.status() {
        StatusCode::OK => Ok(answer),
        StatusCode::NOT_FOUND => Err("it does not have this blob".into()),
        StatusCode::UNAUTHORIZED => Err("it does not take this run's ticket".into()),
        status => Err(format!("it answered {}", status.as_u16())),
    }
}

async fn talk(
    shared: &Arc<Shared>,
    stream: TcpStream,
    peer: &Peer,
    path: &str,
) -> Result<Response<Incoming>, String> {
    let address: SocketAddr = peer.address;
    let connected = identity::connect(stream, address, &peer.key).await;
    let (stream, exported) = connected.map_err(|error| format!("no TLS with its key: {error}"))?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| format!("no HTTP: {error}"))?;
    shared.spawn(async {
        let _ = connection.await;
    });
    let request = Request::get(path)
        .header(HOST, address.to_string())
        .header(AUTHORIZATION, shared.proof.make(&exported))
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await;
    answer.map_err(|error| format!("no answer: {error}"))
}

/// Reads frames from a body.
struct Frames {
    body: Incoming,
    shared: Arc<Shared>,
    timing: Timing,
    rest: Bytes,
    began: Instant,
    chunks: u32,
}

impl Frames {
    fn new(body: Incoming, shared: Arc<Shared>) -> Self {
        Self {
            body,
            timing: shared.timing,
            shared,
            rest: Bytes::new(),
            began: Instant::now(),
            chunks: 0,
        }
    }

    /// The next chunk, which must be this long.
    async fn next(&mut self, due: usize) -> Result<(Header, Vec<u8>), Trouble> {
        let usual = self
            .began
            .elapsed()
            .checked_div(self.chunks)
            .unwrap_or_default();
        let limit = self.timing.stall.max(usual * 8);
        let chunk = timeout(limit, self.read(due)).await;
        let seconds = limit.as_secs_f32();
        let chunk =
            chunk.map_err(|_| Trouble::Lost(format!("no chunk came for {seconds} s")))??;
        self.chunks += 1;
        Ok(chunk)
    }

    async fn read(&mut self, due: usize) -> Result<(Header, Vec<u8>), Trouble> {
        let mut head = Vec::with_capacity(HEADER);
        loop {
            head.clear();
            self.take(&mut head, ALIVE.len()).await?;
            if head != ALIVE {
                break;
            }
        }
        self.take(&mut head, HEADER).await?;
        let mut bytes = [0; HEADER];
        bytes.copy_from_slice(&head);
        let header = Header::read(&bytes);
        if header.length as usize != due {
            let length = header.length;
            return Err(Trouble::Lies(format!(
                "a chunk of {length} bytes came where {due} were due"
            )));
        }
        let mut chunk = Vec::with_capacity(due);
        self.take(&mut chunk, due).await?;
        let counter = &self.shared.counters.from_peers;
        counter.fetch_add(due as u64, Ordering::Relaxed);
        Ok((header, chunk))
    }

    /// Fills up to this length.
    async fn take(&mut self, into: &mut Vec<u8>, length: usize) -> Result<(), Trouble> {
        while into.len() < length {
            if self.rest.is_empty() {
                self.rest = self.more().await?;
            }
            let part = self.rest.split_to(self.rest.len().min(length - into.len()));
            into.extend_from_slice(&part);
        }
        Ok(())
    }

    async fn more(&mut self) -> Result<Bytes, Trouble> {
        let silence = self.timing.silence;
        let frame = timeout(silence, self.body.frame()).await;
        match frame.map_err(|_| Trouble::Lost(silent(silence)))? {
            Some(Ok(frame)) => Ok(frame.into_data().unwrap_or_default()),
            Some(Err(error)) => Err(Trouble::Lost(format!("it broke off: {error}"))),
            None => Err(Trouble::Lost("it broke off".into())),
        }
    }
}

fn silent(limit: Duration) -> String {
    format!("it sent nothing for {} s", limit.as_secs_f32())
}
