//! Clients that want more than they may have.

#![allow(clippy::unwrap_used)] // a test file: a panic is a failed test

mod support;

use std::fs;
use std::sync::Arc;

use http_body_util::BodyExt as _;
use pull_through::{ConnectionError, Digest};
use support::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test]
async fn no_path_leads_to_a_file_or_to_what_is_not_of_the_images() {
    let folder = tempfile::tempdir().unwrap();
    let source = Arc::new(Scripted::with_image(&[b"layer"]));
    let (through, _) = serving(&folder.path().join("cache"), &source).await;
    fs::write(folder.path().join("secret"), "secret").unwrap();
    // Of an image of another run.
    let other = Digest::of(b"private");
    fs::write(
        folder.path().join("cache/sha256").join(other.hex()),
        "private",
    )
    .unwrap();
    // The source has it, and the image does not.
    source
        .blobs
        .lock()
        .unwrap()
        .insert(Digest::of(b"more"), "more".into());
    let mut client = Client::connect(&through, &access()).await;
    for path in [
        format!("/v2/{NAME}/blobs/{other}"),
        format!("/v2/{NAME}/blobs/{}", Digest::of(b"more")),
        format!("/v2/{NAME}/manifests/{other}"),
        format!("/v2/{NAME}/blobs/../../../secret"),
        format!("/v2/{NAME}/blobs/sha256:../../secret"),
        format!("/v2/{NAME}/blobs/%2e%2e%2fsecret"),
        format!("/v2/../{NAME}/manifests/v1"),
        format!("/v2/{NAME}/../app/manifests/v1"),
        format!("//v2/{NAME}/manifests/v1"),
        format!("/v2/{NAME}/manifests/"),
        format!("/v2/{NAME}/manifests/v1/"),
        "/v2//manifests/v1".to_string(),
        "/secret".to_string(),
    ] {
        let answer = client.get(&path).await;
        let status = answer.status().as_u16();
        assert!(status == 404 || status == 400, "{path}: {status}");
        answer.into_body().collect().await.unwrap();
    }
    assert_eq!(source.asked.lock().unwrap().len(), 0);
    assert_eq!(*source.manifests_asked.lock().unwrap(), ["v1"]);
}

/// What is answered to raw bytes, until the connection is closed. The client does not wait before it writes all of them.
async fn answered(sent: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let source = Arc::new(Scripted::with_image(&[b"layer"]));
    let (through, _) = serving(folder.path(), &source).await;
    let (near, far) = tokio::io::duplex(1 << 10);
    let serving = tokio::spawn(async move { through.serve(far, access()).await });
    let (mut reading, mut writing) = tokio::io::split(near);
    let sent = sent.to_vec();
    let writer = tokio::spawn(async move {
        // The other side may close before all is written.
        let _ = writing.write_all(&sent).await;
        writing
    });
    let mut got = Vec::new();
    let _ = reading.read_to_end(&mut got).await;
    let _ = serving.await.unwrap();
    drop(writer.await.unwrap());
    String::from_utf8_lossy(&got).into_owned()
}

#[tokio::test]
async fn endless_headers_are_cut_off_and_tls_is_answered_in_http() {
    let line = format!("GET /v2/{} HTTP/1.1\r\n", "x".repeat(1 << 20));
    assert!(answered(line.as_bytes()).await.starts_with("HTTP/1.1 4"));
    let header = format!("GET /v2/ HTTP/1.1\r\nx: {}", "y".repeat(1 << 20));
    assert!(
        answered(header.as_bytes())
            .await
            .starts_with("HTTP/1.1 431")
    );
    let many = format!("GET /v2/ HTTP/1.1\r\n{}", "a: b\r\n".repeat(1_000_000));
    assert!(answered(many.as_bytes()).await.starts_with("HTTP/1.1 431"));
    // Docker and containerd try TLS first and fall back when the answer is HTTP.
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    assert!(answered(hello).await.starts_with("HTTP/"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_nothing_is_let_go() {
    assert_eq!(
        answered(b"GET /v2/ HT")
            .await
            .matches("HTTP/1.1 200")
            .count(),
        0
    );
}

#[tokio::test]
async fn a_node_has_so_many_connections_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let source = Arc::new(Scripted::with_image(&[b"layer"]));
    let (through, _) = serving(folder.path(), &source).await;
    let access = access();
    let mut clients = Vec::new();
    for _ in 0..32 {
        let mut client = Client::connect(&through, &access).await;
        client.get("/v2/").await;
        clients.push(client);
    }
    let (_near, far) = tokio::io::duplex(100);
    let refused = through.serve(far, Arc::clone(&access)).await;
    assert!(matches!(refused, Err(ConnectionError::TooMany(32))));
    let mut other = Client::connect(&through, &support::access()).await;
    assert_eq!(other.get("/v2/").await.status(), 200);
}
