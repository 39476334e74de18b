//! What a hundred readers of one large blob cost. A test file of its own, as the peak of the whole process is looked at.

#![allow(clippy::unwrap_used)] // a test file: a panic is a failed test

mod support;

use std::fs;
use std::sync::Arc;

use http_body_util::BodyExt as _;
use pull_through::Digest;
use support::*;

fn kibibytes(name: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap();
    line.trim_matches([':', '\t', ' '])
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}

#[tokio::test]
async fn a_hundred_readers_cost_a_few_buffers_each() {
    let folder = tempfile::tempdir().unwrap();
    let layer = noise(8 << 20, 1);
    let digest = Digest::of(&layer);
    let source = Arc::new(Scripted::with_image(&[&layer]));
    let (through, _) = serving(folder.path(), &source).await;
    drop(layer);
    // All of them have begun, and none reads on: buffers fill up.
    let mut bodies = Vec::new();
    let before = kibibytes("VmRSS");
    for _ in 0..100 {
        let mut client = Client::connect(&through, &access()).await;
        let body = client.blob(&digest).await.into_body();
        bodies.push((client, body));
    }
    let mut reading = Vec::new();
    for (client, mut body) in bodies {
        reading.push(tokio::spawn(async move {
            let mut length = 0;
            while let Some(frame) = body.frame().await {
                length += frame.unwrap().into_data().unwrap().len();
            }
            drop(client);
            length
        }));
    }
    for reader in reading {
        assert_eq!(reader.await.unwrap(), 8 << 20);
    }
    let cost = kibibytes("VmHWM").saturating_sub(before);
    // Whole copies would be 800 MiB. Buffers are some 60 MiB, or 80 on a busy machine, where more of them wait at a time.
    assert!(cost < 128 << 10, "{cost} KiB");
}
