//! Relays in this process, a registry that counts what it sends, and a runtime.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pull_through::Digest;
use tokio::io::{
    AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::protocol::*;
use crate::{Timing, run};

pub(super) const REPOSITORY: &str = "prepull/team/app";
pub(super) const TICKET: Ticket = Ticket([9; 32]);
/// How long a condition may take to come true: far longer than it does.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for something that will happen.
pub(super) async fn soon<T>(what: &str, waiting: impl Future<Output = T>) -> T {
    let waited = timeout(PATIENCE, waiting).await;
    waited.unwrap_or_else(|_| panic!("still waiting: {what}"))
}

/// Honest peers are never given up here, however busy the machine is.
pub(super) fn patient() -> Timing {
    Timing {
        connect: PATIENCE,
        alive: Duration::from_millis(50),
        silence: PATIENCE,
        stall: PATIENCE,
        source: PATIENCE,
        pause: Duration::from_millis(5),
        stats: Duration::from_millis(20),
        ..Timing::default()
    }
}

/// Bytes that differ from each other, and from those of another seed.
pub(super) fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..))
        .take(length)
        .collect()
}

pub(super) fn start(lease_seconds: u64) -> Start {
    Start {
        spool: std::env::temp_dir().to_str().unwrap().to_string(),
        lease_seconds,
        ticket: TICKET,
        user: "node".into(),
        password: Secret("s3cret".into()),
        peer_listen: "127.0.0.1:0".parse().unwrap(),
        max_upload: None,
    }
}

/// A relay, as prepull sees it. It dies when this is dropped.
pub(super) struct Node {
    input: DuplexStream,
    said: watch::Receiver<Vec<FromRelay>>,
    pub(super) running: JoinHandle<Result<(), String>>,
    pub(super) ready: Ready,
    marks: u8,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Node {
    pub(super) async fn new() -> Self {
        Self::with(start(3600), patient()).await
    }

    pub(super) async fn with(start: Start, timing: Timing) -> Self {
        let (input, theirs) = tokio::io::duplex(1 << 16);
        let (output, from) = tokio::io::duplex(1 << 16);
        let running = tokio::spawn(run(theirs, output, timing));
        let (sender, said) = watch::channel(Vec::new());
        tokio::spawn(async move {
            let mut lines = BufReader::new(from).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let event = FromRelay::read(line.as_bytes()).unwrap().unwrap();
                sender.send_modify(|said: &mut Vec<FromRelay>| said.push(event));
            }
        });
        let key = Key([0; 32]);
        let ready = Ready {
            port: 0,
            peer_port: 0,
            key,
        };
        let mut node = Self {
            input,
            said,
            running,
            ready,
            marks: 0,
        };
        node.say(&ToRelay::Start(start)).await;
        node.ready = node
            .hears("ready", |said| match said {
                FromRelay::Ready(ready) => Some(ready.clone()),
                _ => None,
            })
            .await;
        node
    }

    pub(super) async fn say(&mut self, what: &ToRelay) {
        self.input.write_all(what.line().as_bytes()).await.unwrap();
    }

    /// Writes as far as the relay reads.
    pub(super) async fn write(&mut self, bytes: &[u8]) {
        let _ = self.input.write_all(bytes).await;
    }

    pub(super) async fn hang_up(&mut self) {
        self.input.shutdown().await.unwrap();
    }

    /// The first thing said that is what is waited for, whenever it was said.
    pub(super) async fn hears<T>(&self, what: &str, is_it: impl Fn(&FromRelay) -> Option<T>) -> T {
        let mut said = self.said.clone();
        let waiting = async {
            loop {
                if let Some(found) = said.borrow_and_update().iter().find_map(&is_it) {
                    return found;
                }
                said.changed()
                    .await
                    .unwrap_or_else(|_| panic!("it ended: {what}"));
            }
        };
        soon(what, waiting).await
    }

    pub(super) fn said(&self) -> Vec<FromRelay> {
        self.said.borrow().clone()
    }

    pub(super) async fn stats(&self, what: &str, is_it: impl Fn(&Stats) -> bool) -> Stats {
        self.hears(what, |said| match said {
            FromRelay::Stats(stats) if is_it(stats) => Some(*stats),
            _ => None,
        })
        .await
    }

    pub(super) fn peer(&self) -> Peer {
        Peer {
            address: ([127, 0, 0, 1], self.ready.peer_port).into(),
            key: self.ready.key,
        }
    }

    pub(super) async fn parts(&mut self, parts: ImageParts) {
        self.say(&ToRelay::Image(parts)).await;
        // Lines are done in order: the answer to a later one shows that this one was. Port 0 cannot be reached.
        self.marks += 1;
        let address = ([127, 0, 0, self.marks], 0).into();
        let key = self.ready.key;
        let peers = vec![Peer { address, key }];
        self.say(&ToRelay::Probe(Probe { peers, bytes: 0 })).await;
        let is_mark = |said: &FromRelay| matches!(said, FromRelay::Reached { address: of, .. } if *of == address);
        self.hears("the mark", |said| is_mark(said).then_some(()))
            .await;
    }

    pub(super) async fn image(&mut self, image: &TestImage) {
        self.parts(image.parts()).await;
    }

    pub(super) async fn root(&mut self, base: &str) {
        let authorization = Some(Secret("Bearer t0ken".into()));
        self.say(&ToRelay::Source(Origin {
            image: REPOSITORY.into(),
            base: base.into(),
            authorization,
            ca: Vec::new(),
        }))
        .await;
    }

    pub(super) async fn parents(&mut self, signers: &[&Node], peers: Vec<Peer>) {
        let signers = signers.iter().map(|node| node.ready.key).collect();
        let image = REPOSITORY.into();
        self.say(&ToRelay::Parents(Parents {
            image,
            signers,
            peers,
        }))
        .await;
    }

    /// What the node's runtime does: asks for a blob, and keeps what comes.
    pub(super) fn pull(&self, digest: &Digest) -> Pull {
        let request = request(REPOSITORY, &format!("blobs/{digest}"), "node:s3cret", "");
        let (port, (sender, got)) = (self.ready.port, watch::channel(Vec::new()));
        let task = tokio::spawn(async move {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut all = Vec::new();
            let mut part = vec![0; 1 << 16];
            let mut body_at = None;
            loop {
                let read = stream.read(&mut part).await.unwrap_or(0);
                if read == 0 {
                    return;
                }
                all.extend_from_slice(&part[..read]);
                let ends = body_at.or_else(|| {
                    all.windows(4)
                        .position(|four| four == b"\r\n\r\n")
                        .map(|at| at + 4)
                });
                body_at = ends;
                if let Some(at) = ends {
                    assert!(
                        all.starts_with(b"HTTP/1.1 200"),
                        "{:?}",
                        String::from_utf8_lossy(&all[..at])
                    );
                    let body = all[at..].to_vec();
                    if sender.send(body).is_err() {
                        return;
                    }
                }
            }
        });
        Pull { got, task }
    }

    /// One request to the runtime's side, and the whole answer.
    pub(super) async fn ask(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.ready.port))
            .await
            .unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        let _ = soon("an answer", stream.read_to_end(&mut answer)).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

pub(super) fn request(repository: &str, path: &str, login: &str, headers: &str) -> String {
    let login = STANDARD.encode(login);
    format!(
        "GET /v2/{repository}/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Basic {login}\r\n{headers}\r\n"
    )
}

/// What a runtime has got so far.
pub(super) struct Pull {
    got: watch::Receiver<Vec<u8>>,
    task: JoinHandle<()>,
}

impl Drop for Pull {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Pull {
    pub(super) async fn reaches(&mut self, length: usize) {
        let reached = self.got.wait_for(|got| got.len() >= length);
        soon("bytes for the runtime", reached).await.unwrap();
    }

    /// All that came until the connection was closed.
    pub(super) async fn end(mut self) -> Vec<u8> {
        soon("the end of a pull", &mut self.task).await.unwrap();
        self.got.borrow().clone()
    }
}

/// An image of some blobs.
pub(super) struct TestImage {
    pub(super) blobs: Vec<Vec<u8>>,
    pub(super) manifest: Vec<u8>,
}

impl TestImage {
    pub(super) fn new(blobs: Vec<Vec<u8>>) -> Self {
        let described: Vec<String> = blobs
            .iter()
            .map(|blob| {
                format!(
                    "{{\"digest\":\"{}\",\"size\":{}}}",
                    Digest::of(blob),
                    blob.len()
                )
            })
            .collect();
        let (config, layers) = (&described[0], described[1..].join(","));
        let manifest = format!("{{\"schemaVersion\":2,\"config\":{config},\"layers\":[{layers}]}}");
        let manifest = manifest.into_bytes();
        Self { blobs, manifest }
    }

    pub(super) fn digest(&self, blob: usize) -> Digest {
        Digest::of(&self.blobs[blob])
    }

    pub(super) fn parts(&self) -> ImageParts {
        let blobs = self.blobs.iter().map(|blob| BlobSize {
            digest: Digest::of(blob).to_string(),
            size: blob.len() as u64,
        });
        ImageParts {
            repository: REPOSITORY.into(),
            manifests: vec![Manifest {
                digest: Digest::of(&self.manifest).to_string(),
                media_type: "application/vnd.oci.image.manifest.v1+json".into(),
                bytes: self.manifest.clone(),
            }],
            blobs: blobs.collect(),
        }
    }
}

/// A registry that counts what it sends, and sends as much as it is allowed to.
pub(super) struct Registry {
    pub(super) port: u16,
    state: Arc<State>,
    serving: JoinHandle<()>,
}

struct State {
    blobs: HashMap<String, Vec<u8>>,
    /// KiB that may be sent.
    allowed: Semaphore,
    sent: AtomicU64,
    /// Heads of all requests.
    heads: Mutex<Vec<String>>,
    /// What is answered instead, in this order.
    instead: Mutex<Vec<Instead>>,
}

/// What a registry answers for once.
pub(super) enum Instead {
    /// An answer, word for word.
    Words(String),
    /// So many bytes of the blob, and the end of the connection.
    Cut(usize),
    /// The whole blob, whatever the range.
    Whole,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Registry {
    /// One that waits until it may send.
    pub(super) async fn waiting(image: &TestImage) -> Self {
        let blobs = image.blobs.iter();
        Self::of(
            blobs
                .map(|blob| (Digest::of(blob).to_string(), blob.clone()))
                .collect(),
        )
        .await
    }

    /// One that has this under that digest, right or wrong.
    pub(super) async fn with(digest: String, blob: Vec<u8>) -> Self {
        Self::of(HashMap::from([(digest, blob)])).await
    }

    async fn of(blobs: HashMap<String, Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            blobs,
            allowed: Semaphore::new(0),
            sent: AtomicU64::new(0),
            heads: Mutex::default(),
            instead: Mutex::default(),
        });
        let shared = Arc::clone(&state);
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = Arc::clone(&shared);
                tokio::spawn(async move {
                    let _ = answer(stream, &state).await;
                });
            }
        });
        Self {
            port,
            state,
            serving,
        }
    }

    pub(super) async fn new(image: &TestImage) -> Self {
        let registry = Self::waiting(image).await;
        registry.open();
        registry
    }

    /// It may send so many KiB more.
    pub(super) fn allow(&self, kibibytes: usize) {
        self.state.allowed.add_permits(kibibytes);
    }

    pub(super) fn open(&self) {
        self.allow(Semaphore::MAX_PERMITS / 2);
    }

    pub(super) fn instead(&self, answers: Vec<Instead>) {
        *self.state.instead.lock().unwrap() = answers;
    }

    pub(super) fn base(&self) -> String {
        format!("http://127.0.0.1:{}/v2/team/app/blobs/", self.port)
    }

    pub(super) fn sent(&self) -> u64 {
        self.state.sent.load(Ordering::SeqCst)
    }

    pub(super) fn heads(&self) -> Vec<String> {
        self.state.heads.lock().unwrap().clone()
    }
}

async fn answer(mut stream: TcpStream, state: &State) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    state.heads.lock().unwrap().push(head.clone());
    let instead = {
        let mut answers = state.instead.lock().unwrap();
        (!answers.is_empty()).then(|| answers.remove(0))
    };
    if let Some(Instead::Words(words)) = &instead {
        return stream.write_all(words.as_bytes()).await;
    }
    let path = head.split(' ').nth(1).unwrap();
    let Some(blob) = state.blobs.get(path.rsplit('/').next().unwrap()) else {
        return stream
            .write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            .await;
    };
    let range = head.to_ascii_lowercase();
    let range = range
        .split("range: bytes=")
        .nth(1)
        .map(|rest| rest.split('-').next().unwrap().parse::<usize>().unwrap());
    let size = blob.len();
    let (status, from) = match range {
        Some(from) if !matches!(instead, Some(Instead::Whole)) => (
            format!(
                "206 Partial Content\r\ncontent-range: bytes {from}-{}/{size}",
                size - 1
            ),
            from,
        ),
        _ => ("200 OK".to_string(), 0),
    };
    let length = size - from;
    stream
        .write_all(format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n").as_bytes())
        .await?;
    let end = match instead {
        Some(Instead::Cut(most)) => (from + most).min(size),
        _ => size,
    };
    for part in blob[from..end].chunks(1024) {
        state.allowed.acquire().await.unwrap().forget();
        stream.write_all(part).await?;
        state.sent.fetch_add(part.len() as u64, Ordering::SeqCst);
    }
    stream.shutdown().await
}
