//! Many relays on one machine: `cargo bench -p prepull-relay --bench relays -- [--relays 200] [--mib 16] [--rate KIB_PER_S] [--kill PERCENT]`.
//!
//! A registry that sends so much in a second, a tree of relay processes over TLS on loopback, and a runtime for each. First
//! one relay alone, then all. Says how many copies the registry sent, how long it took, and what a relay cost; with
//! `--kill`, so many of them are killed at random moments, and the others must get it all the same. `PREPULL_RELAY` names
//! another build of the relay, such as what `lab/relay` made.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a bench: a panic is a failure, and its figures are printed

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prepull_relay::protocol::*;
use pull_through::Digest;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;

/// Children of a relay.
const WIDTH: usize = 4;
const REPOSITORY: &str = "prepull/bench";

struct Options {
    relays: usize,
    mib: usize,
    rate: usize,
    kill: usize,
}

fn options() -> Options {
    let mut options = Options {
        relays: 200,
        mib: 16,
        rate: 1024,
        kill: 0,
    };
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench");
    while let Some(name) = arguments.next() {
        let value = arguments.next().and_then(|value| value.parse().ok());
        let value = value.unwrap_or_else(|| panic!("{name} wants a number"));
        match name.as_str() {
            "--relays" => options.relays = value,
            "--mib" => options.mib = value,
            "--rate" => options.rate = value,
            "--kill" => options.kill = value,
            _ => panic!("unknown option {name}"),
        }
    }
    options
}

struct Relay {
    process: Child,
    input: ChildStdin,
    ready: Ready,
}

impl Relay {
    async fn start(
        folder: &Path,
        number: usize,
        said: mpsc::UnboundedSender<(usize, FromRelay)>,
    ) -> Self {
        let program = folder.join(format!("relay-{number}"));
        let built = std::env::var("PREPULL_RELAY");
        fs::copy(
            built
                .as_deref()
                .unwrap_or(env!("CARGO_BIN_EXE_prepull-relay")),
            &program,
        )
        .unwrap();
        let mut process = Command::new(&program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut input = process.stdin.take().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let start = ToRelay::Start(Start {
            spool: folder.to_str().unwrap().into(),
            lease_seconds: 3600,
            ticket: Ticket([7; 32]),
            user: "node".into(),
            password: Secret("secret".into()),
            peer_listen: "127.0.0.1:0".parse().unwrap(),
            max_upload: None,
        });
        input.write_all(start.line().as_bytes()).await.unwrap();
        let line = lines.next_line().await.unwrap().unwrap();
        let Some(FromRelay::Ready(ready)) = FromRelay::read(line.as_bytes()).unwrap() else {
            panic!("{line}");
        };
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Ok(Some(event)) = FromRelay::read(line.as_bytes()) {
                    let _ = said.send((number, event));
                }
            }
        });
        Self {
            process,
            input,
            ready,
        }
    }

    async fn say(&mut self, what: &ToRelay) {
        // One that was killed does not hear it.
        let _ = self.input.write_all(what.line().as_bytes()).await;
    }

    fn peer(&self) -> Peer {
        Peer {
            address: ([127, 0, 0, 1], self.ready.peer_port).into(),
            key: self.ready.key,
        }
    }

    /// CPU seconds so far, and the most memory in MiB: all, and without the pages of the program and of files.
    fn cost(&self) -> Option<(f64, f64, f64)> {
        let id = self.process.id()?;
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
        let ticks = fields[11].parse::<f64>().ok()? + fields[12].parse::<f64>().ok()?;
        let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse::<f64>().ok()
        };
        Some((
            ticks / 100.0,
            field("VmHWM:")? / 1024.0,
            field("RssAnon:")? / 1024.0,
        ))
    }
}

/// A registry with one blob and a rate that all its connections share.
async fn registry(blob: Arc<Vec<u8>>, rate: usize, sent: Arc<AtomicU64>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let next = Arc::new(tokio::sync::Mutex::new(tokio::time::Instant::now()));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (blob, sent, next) = (Arc::clone(&blob), Arc::clone(&sent), Arc::clone(&next));
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await?);
                }
                let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
                let from = head
                    .split("range: bytes=")
                    .nth(1)
                    .and_then(|rest| rest.split('-').next()?.parse().ok());
                let (from, size) = (from.unwrap_or(0), blob.len());
                let head = format!(
                    "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes {from}-{}/{size}\r\ncontent-length: {}\r\n\r\n",
                    size - 1,
                    size - from
                );
                stream.write_all(head.as_bytes()).await?;
                for part in blob[from..].chunks(16 << 10) {
                    let mut next = next.lock().await;
                    tokio::time::sleep_until(*next).await;
                    let takes = Duration::from_secs_f64(part.len() as f64 / (rate * 1024) as f64);
                    *next = (*next).max(tokio::time::Instant::now() - Duration::from_millis(50))
                        + takes;
                    drop(next);
                    stream.write_all(part).await?;
                    sent.fetch_add(part.len() as u64, Ordering::Relaxed);
                }
                stream.shutdown().await
            });
        }
    });
    port
}

/// What a runtime does. An error if the relay ends.
async fn pull(port: u16, digest: Digest, blob: Arc<Vec<u8>>) -> std::io::Result<()> {
    let login = STANDARD.encode("node:secret");
    let request = format!(
        "GET /v2/{REPOSITORY}/blobs/{digest} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Basic {login}\r\n\r\n"
    );
    let mut stream = loop {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut stream = BufReader::with_capacity(64 << 10, stream);
        let (mut status, mut line) = (String::new(), String::new());
        stream.read_line(&mut status).await?;
        while line != "\r\n" {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        if status.contains(" 200 ") {
            break stream;
        }
        // The relay has not read yet what the image is made of.
        assert!(status.contains(" 404 "), "{status}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let (mut part, mut at) = (vec![0; 64 << 10], 0);
    while at < blob.len() {
        let read = stream.read(&mut part).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        assert!(part[..read] == blob[at..at + read], "wrong bytes came");
        at += read;
    }
    Ok(())
}

/// All relays pull. Gives how long it took, how many copies the registry sent, what they cost, and how many were killed.
async fn run(count: usize, options: &Options, blob: &Arc<Vec<u8>>) {
    let folder = tempfile::tempdir().unwrap();
    let digest = Digest::of(blob);
    let sent = Arc::new(AtomicU64::new(0));
    let port = registry(Arc::clone(blob), options.rate, Arc::clone(&sent)).await;
    let (said, mut events) = mpsc::unbounded_channel();
    let mut relays = Vec::new();
    let starting = Instant::now();
    for number in 0..count {
        relays.push(Relay::start(folder.path(), number, said.clone()).await);
    }
    let started = starting.elapsed();
    let config = b"{}".to_vec();
    let manifest = format!(
        "{{\"schemaVersion\":2,\"config\":{{\"digest\":\"{}\",\"size\":2}},\"layers\":[{{\"digest\":\"{digest}\",\"size\":{}}}]}}",
        Digest::of(&config),
        blob.len()
    );
    let image = ToRelay::Image(ImageParts {
        repository: REPOSITORY.into(),
        manifests: vec![Manifest {
            digest: Digest::of(manifest.as_bytes()).to_string(),
            media_type: "application/vnd.oci.image.manifest.v1+json".into(),
            bytes: manifest.into_bytes(),
        }],
        blobs: vec![BlobSize {
            digest: digest.to_string(),
            size: blob.len() as u64,
        }],
    });
    let peers: Vec<Peer> = relays.iter().map(Relay::peer).collect();
    let signers = vec![peers[0].key];
    for (number, relay) in relays.iter_mut().enumerate() {
        relay.say(&image).await;
        if number == 0 {
            let base = format!("http://127.0.0.1:{port}/v2/bench/blobs/");
            let source = Origin {
                image: REPOSITORY.into(),
                base,
                authorization: None,
                ca: Vec::new(),
            };
            relay.say(&ToRelay::Source(source)).await;
        } else {
            // The spares are nodes above, so that no circle can come about.
            let parent = (number - 1) / WIDTH;
            let mut named = vec![peers[parent].clone()];
            named.extend((parent > 0).then(|| peers[fastrand::usize(..parent)].clone()));
            let parents = Parents {
                image: REPOSITORY.into(),
                signers: signers.clone(),
                peers: named,
            };
            relay.say(&ToRelay::Parents(parents)).await;
        }
    }
    let began = Instant::now();
    let mut pulls = tokio::task::JoinSet::new();
    for (number, relay) in relays.iter().enumerate() {
        let (port, blob) = (relay.ready.port, Arc::clone(blob));
        pulls.spawn(async move { (number, pull(port, digest, blob).await) });
    }
    // Who dies, and when: of all but the root.
    let alone = blob.len() as f64 / (options.rate * 1024) as f64;
    let mut deaths = HashMap::new();
    while count > 1 && deaths.len() < count * options.kill / 100 {
        deaths.insert(
            fastrand::usize(1..count),
            Duration::from_secs_f64(fastrand::f64() * alone),
        );
    }
    let dead = Arc::new(Mutex::new(Vec::new()));
    let mut clock = tokio::time::interval(Duration::from_millis(100));
    let (mut done, mut orphans) = (0, 0);
    while done < count {
        tokio::select! {
            Some(ended) = pulls.join_next() => {
                let (number, result) = ended.unwrap();
                if let Err(error) = result {
                    assert!(dead.lock().unwrap().contains(&number), "relay {number}: {error}");
                }
                done += 1;
            }
            Some((number, event)) = events.recv() => match event {
                FromRelay::Orphaned { .. } => {
                    orphans += 1;
                    let parents = Parents { image: REPOSITORY.into(), signers: signers.clone(), peers: vec![peers[0].clone()] };
                    relays[number].say(&ToRelay::Parents(parents)).await;
                }
                FromRelay::ParentLies { .. } | FromRelay::BlobFailed { .. } | FromRelay::SourceFailed { .. } | FromRelay::Failed { .. } => {
                    panic!("relay {number}: {event:?}");
                }
                _ => {}
            },
            _ = clock.tick() => {
                let due: Vec<usize> = deaths.iter().filter(|(_, at)| **at <= began.elapsed()).map(|(number, _)| *number).collect();
                for number in due {
                    deaths.remove(&number);
                    dead.lock().unwrap().push(number);
                    relays[number].process.start_kill().unwrap();
                }
            }
        }
    }
    let took = began.elapsed().as_secs_f64();
    let costs: Vec<_> = relays.iter().filter_map(Relay::cost).collect();
    let alive = costs.len() as f64;
    let mean = |of: fn(&(f64, f64, f64)) -> f64| costs.iter().map(of).sum::<f64>() / alive;
    let most = |of: fn(&(f64, f64, f64)) -> f64| costs.iter().map(of).fold(0.0, f64::max);
    let copies = sent.load(Ordering::Relaxed) as f64 / blob.len() as f64;
    println!(
        "{count} relays, {} MiB, {} KiB/s: {took:.1} s ({:.2} x the wire), started in {:.1} s; the registry sent {copies:.2} copies; \
         a relay: CPU {:.2} s (most {:.2}), memory {:.1} MiB (most {:.1}), of it at the end {:.1} MiB its own (most {:.1}); {} killed, {orphans} orphans",
        options.mib,
        options.rate,
        took / alone,
        started.as_secs_f64(),
        mean(|cost| cost.0),
        most(|cost| cost.0),
        mean(|cost| cost.1),
        most(|cost| cost.1),
        mean(|cost| cost.2),
        most(|cost| cost.2),
        dead.lock().unwrap().len(),
    );
    assert!(copies < 1.1, "the registry sent too much");
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let options = options();
    let blob: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..))
        .take(options.mib << 20)
        .collect();
    let blob = Arc::new(blob);
    run(1, &options, &blob).await;
    run(options.relays, &options, &blob).await;
}
