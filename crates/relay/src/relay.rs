//! A relay's life: from the first line of prepull to the end of the lease.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use pull_through::{Digest, PullThrough, Reference, Store};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, MissedTickBehavior, interval, sleep_until, timeout};

use crate::blob::Blob;
use crate::identity::Identity;
use crate::image::{Image, trust};
use crate::lines::Lines;
use crate::origin::Registry;
use crate::protocol::{
    FromRelay, ImageParts, MOST_TO_RELAY, Ready, Start, Stats, ToRelay, Words as _,
};
use crate::runtime::Spooled;
use crate::shared::{Shared, Timing, locked};
use crate::spool::Spool;
use crate::{children, parent, runtime};

/// What waits to be said. What does not fit is not said: prepull does not read then.
const UNSAID: usize = 1024;
/// How long the last words may take.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Works as a relay until prepull ends it or the lease is over. An error is why it could not work; prepull was told.
///
/// Drop the future to end the relay at once.
pub async fn run<R, W>(input: R, output: W, timing: Timing) -> Result<(), String>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let (said, unsaid) = mpsc::channel(UNSAID);
    let saying = tokio::spawn(say(output, unsaid));
    let ended = work(input, &said, timing).await;
    if let Err(why) = &ended {
        let why = why.clone();
        let _ = said.try_send(FromRelay::Failed { why });
    }
    drop(said);
    let _ = timeout(LAST_WORDS, saying).await;
    ended
}

async fn say<W: AsyncWrite + Unpin>(mut output: W, mut unsaid: mpsc::Receiver<FromRelay>) {
    while let Some(what) = unsaid.recv().await {
        let written = async {
            output.write_all(what.line().as_bytes()).await?;
            output.flush().await
        };
        if written.await.is_err() {
            return;
        }
    }
}

async fn work<R: AsyncRead + Unpin>(
    input: R,
    said: &mpsc::Sender<FromRelay>,
    timing: Timing,
) -> Result<(), String> {
    let mut lines = Lines::new(BufReader::new(input), MOST_TO_RELAY);
    let first = timeout(timing.start, lines.next()).await;
    let first =
        first.map_err(|_| format!("no line came within {} s", timing.start.as_secs_f32()))?;
    let Some(first) = first.map_err(broken)? else {
        return Ok(());
    };
    let Some(ToRelay::Start(start)) = ToRelay::read(first).map_err(|error| unreadable(&error))?
    else {
        return Err("the first line is not \"start\"".into());
    };
    let lease = Duration::from_secs(start.lease_seconds);
    let relay = Relay::start(start, said.clone(), timing).await?;
    let ended = relay.listen(&mut lines, lease).await;
    relay.shared.say(FromRelay::Stats(relay.shared.stats()));
    ended
}

fn broken(error: io::Error) -> String {
    format!("cannot read what prepull says: {error}")
}

/// serde_json quotes at most a word of the line, and says where it is.
fn unreadable(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    format!(
        "cannot read what prepull says: {:?} error at line {line}, column {column}",
        error.classify()
    )
}

struct Relay {
    shared: Arc<Shared>,
    registry: PullThrough,
}

/// Whatever was begun ends with the relay.
impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl Relay {
    async fn start(
        start: Start,
        said: mpsc::Sender<FromRelay>,
        timing: Timing,
    ) -> Result<Self, String> {
        let directory = Path::new(&start.spool);
        let spool = Spool::open(directory)
            .map_err(|error| format!("cannot spool in {}: {error}", directory.display()))?;
        let identity = Identity::new()?;
        let (runtimes, port) = listen("127.0.0.1:0".to_string()).await?;
        let (peers, peer_port) = listen(start.peer_listen.to_string()).await?;
        let key = identity.key();
        let shared = Arc::new(Shared::new(timing, identity, &start, spool, said));
        let registry = PullThrough::new(Store::none(), None);
        shared.spawn(runtime::serve(
            runtimes,
            registry.clone(),
            Arc::clone(&shared),
        ));
        shared.spawn(children::serve(peers, Arc::clone(&shared)));
        shared.say(FromRelay::Ready(Ready {
            port,
            peer_port,
            key,
        }));
        Ok(Self { shared, registry })
    }

    /// Does what prepull says.
    async fn listen<R>(&self, lines: &mut Lines<R>, lease: Duration) -> Result<(), String>
    where
        R: tokio::io::AsyncBufRead + Unpin,
    {
        let mut ticks = interval(self.shared.timing.stats);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut told, mut is_open) = (Stats::default(), true);
        let mut end = Instant::now() + lease;
        loop {
            tokio::select! {
                line = lines.next(), if is_open => match line.map_err(broken)? {
                    // The connection to prepull may be lost: others may still need what is here.
                    None => is_open = false,
                    Some(line) => {
                        let asked = ToRelay::read(line).map_err(|error| unreadable(&error))?;
                        if let Some(ToRelay::End {}) = asked {
                            return Ok(());
                        }
                        if let Some(asked) = asked {
                            self.take(asked).await?;
                        }
                        end = Instant::now() + lease;
                    }
                },
                () = sleep_until(end) => return Ok(()),
                _ = ticks.tick() => {
                    let stats = self.shared.stats();
                    if stats != told {
                        told = stats;
                        self.shared.say(FromRelay::Stats(stats));
                    }
                }
            }
        }
    }

    async fn take(&self, asked: ToRelay) -> Result<(), String> {
        let shared = &self.shared;
        let unknown = |image: &str| format!("the image {image:?} was not named before");
        match asked {
            ToRelay::Start(_) => return Err("\"start\" came twice".into()),
            ToRelay::Image(parts) => self.add(parts).await?,
            ToRelay::Source(origin) => {
                let image = shared
                    .image(&origin.image)
                    .ok_or_else(|| unknown(&origin.image))?;
                image.take_source(Registry::new(&origin)?);
            }
            ToRelay::Parents(parents) => {
                let image = shared
                    .image(&parents.image)
                    .ok_or_else(|| unknown(&parents.image))?;
                trust(&shared.signers, &parents.signers);
                image.take_parents(parents.peers);
            }
            ToRelay::Probe(probe) => {
                shared.spawn(parent::probe(Arc::clone(shared), probe));
            }
            ToRelay::Beat {} | ToRelay::End {} => {}
        }
        Ok(())
    }

    async fn add(&self, parts: ImageParts) -> Result<(), String> {
        let shared = &self.shared;
        let digest = |text: &str| text.parse::<Digest>().map_err(|error| error.to_string());
        let image = {
            let mut images = locked(&shared.images);
            let new = || Arc::new(Image::new(&parts.repository));
            Arc::clone(images.entry(parts.repository.clone()).or_insert_with(new))
        };
        for named in &parts.blobs {
            let (digest, size) = (digest(&named.digest)?, named.size);
            let mut blobs = locked(&shared.blobs);
            match blobs.get(&digest) {
                Some(blob) if blob.size != size => {
                    return Err(format!(
                        "{digest} was named with {} and with {size} bytes",
                        blob.size
                    ));
                }
                Some(_) => {}
                None => {
                    let offset = shared
                        .spool
                        .reserve(size)
                        .ok_or("the blobs are too large for a file")?;
                    let blob = Blob::new(digest, size, offset, Arc::clone(&image));
                    blobs.insert(digest, Arc::new(blob));
                }
            }
            drop(blobs);
            image.add(digest);
        }
        let mut manifests = HashMap::new();
        for manifest in parts.manifests {
            manifests.insert(digest(&manifest.digest)?, manifest.bytes.into());
        }
        let digests: Vec<Digest> = manifests.keys().copied().collect();
        locked(&image.manifests).extend(manifests);
        let source = Arc::new(Spooled {
            image,
            shared: Arc::clone(shared),
        });
        for digest in digests {
            // Compared with its digest there.
            let reference = Reference::Digest(digest);
            let added = self
                .registry
                .add(&parts.repository, source.clone(), &reference);
            added.await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

async fn listen(address: String) -> Result<(TcpListener, u16), String> {
    let trouble = |error: io::Error| format!("cannot listen on {address}: {error}");
    let listener = TcpListener::bind(&address).await.map_err(trouble)?;
    let port = listener.local_addr().map_err(trouble)?.port();
    Ok((listener, port))
}
