//! CPU time for each GiB that is served: from the cache, and while it is fetched. Clients are processes of their own.
//!
//! `cargo bench -p pull-through --profile measure`; a number after `--` is the size of the blob in MiB (256 by default).

#![allow(clippy::unwrap_used, clippy::print_stdout)] // no part of the program: a panic is a failed measurement

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};
use pull_through::{
    Access, BlobStream, Digest, PullThrough, Reference, Source, SourceError, Store,
};
use tokio::net::TcpListener;

const READERS: usize = 8;
/// `node:pw`.
const LOGIN: &str = "Basic bm9kZTpwdw==";

/// One image with one layer, from memory.
struct Memory {
    manifest: Bytes,
    layer: Bytes,
}

impl Source for Memory {
    fn manifest<'a>(
        &'a self,
        _reference: &'a Reference,
    ) -> BoxFuture<'a, Result<Bytes, SourceError>> {
        async { Ok(self.manifest.clone()) }.boxed()
    }

    fn blob<'a>(
        &'a self,
        _digest: &'a Digest,
        from: u64,
    ) -> BoxFuture<'a, Result<BlobStream, SourceError>> {
        let layer = self.layer.slice(from as usize..);
        // As much as a TLS record holds.
        let chunks = stream::unfold(layer, |mut rest| async {
            let chunk = rest.split_to(rest.len().min(16 << 10));
            (!chunk.is_empty()).then_some((Ok(chunk), rest))
        });
        async { Ok(chunks.boxed() as BlobStream) }.boxed()
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["client", address, path] => client(address, path),
        [size, ..] if size.parse::<usize>().is_ok() => measure(size.parse().unwrap()),
        _ => measure(256),
    }
}

fn client(address: &str, path: &str) {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {LOGIN}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let (mut buffer, mut length) = (vec![0; 1 << 20], 0);
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => break,
            read => length += read,
        }
    }
    println!("{length}");
}

/// What this process has used so far, in ticks of 10 ms.
fn cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    let ticks = |number: usize| rest.split(' ').nth(number).unwrap().parse::<u64>().unwrap();
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

#[tokio::main]
async fn measure(mebibytes: usize) {
    let mut random = fastrand::Rng::with_seed(1);
    let mut layer = vec![0; mebibytes << 20];
    random.fill(&mut layer);
    let (digest, size, layer) = (Digest::of(&layer), layer.len(), Bytes::from(layer));
    let config = Digest::of(b"{}");
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"digest":"{config}","size":2}},"layers":[{{"digest":"{digest}","size":{size}}}]}}"#
    );
    let folder = tempfile::tempdir().unwrap();
    let through = || PullThrough::new(Store::open(folder.path(), 1 << 40).unwrap(), None);
    let source = Arc::new(Memory {
        manifest: manifest.into(),
        layer,
    });
    let cases = [
        ("fetched and served once", 1),
        ("checked in the cache and served once", 1),
        ("served to all", READERS),
    ];
    println!("{size} bytes; CPU time of the server for each GiB served");
    let mut serving = through();
    for (what, readers) in cases {
        if what.starts_with("checked") {
            serving = through();
        }
        let reference = Reference::Tag("v1".into());
        let adding = Arc::clone(&source) as Arc<dyn Source>;
        serving.add("app", adding, &reference).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let path = format!("/v2/app/blobs/{digest}");
        let (before, began) = (cpu(), Instant::now());
        let clients: Vec<Child> = (0..readers)
            .map(|_| {
                let mut command = Command::new(std::env::current_exe().unwrap());
                let command = command.args(["client", &address, &path]);
                command.stdout(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        let mut connections = tokio::task::JoinSet::new();
        for _ in 0..readers {
            let (stream, _) = listener.accept().await.unwrap();
            let serving = serving.clone();
            let access = Arc::new(Access::new("node", "pw"));
            connections.spawn(async move { serving.serve(stream, access).await });
        }
        connections.join_all().await;
        let (used, took) = (cpu() - before, began.elapsed());
        for client in clients {
            let output = client.wait_with_output().unwrap();
            let length: usize = String::from_utf8_lossy(&output.stdout)
                .trim()
                .parse()
                .unwrap();
            assert!(length > size, "a client got {length} bytes");
        }
        let gibibytes = (size * readers) as f64 / f64::from(1 << 30);
        println!(
            "{what}: {:.2} s CPU, {:.2} GiB/s ({readers} readers)",
            used.as_secs_f64() / gibibytes,
            gibibytes / took.as_secs_f64(),
        );
    }
}
