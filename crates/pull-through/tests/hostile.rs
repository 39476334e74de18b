//! Clients that want more than they may have.

#![allow(clippy::unwrap_used)] // a test file: a panic is a failed test

mod support;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use pull_through::{ConnectionError, Digest, PullThrough, Reference, Source};
use support::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

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

fn request(login: &str) -> String {
    format!("GET /v2/ HTTP/1.1\r\nhost: x\r\nauthorization: {login}\r\n\r\n")
}

#[tokio::test(start_paused = true)]
async fn those_who_do_not_log_in_have_five_seconds_whatever_they_send() {
    let folder = tempfile::tempdir().unwrap();
    let source = Arc::new(Scripted::with_image(&[b"layer"]));
    let (through, _) = serving(folder.path(), &source).await;
    let access = access();
    let mut client = Client::connect(&through, &access).await;
    assert_eq!(client.get("/v2/").await.status(), 200);
    let wrong = request("Basic wrong");
    for (sent, again) in
        [("", ""), ("GET /", "x"), (&wrong, &wrong)].map(|(a, b)| (a.to_string(), b.to_string()))
    {
        let (mut near, far) = tokio::io::duplex(1 << 10);
        let asking = tokio::spawn(async move {
            let mut got = [0; 1 << 10];
            near.write_all(sent.as_bytes()).await.unwrap();
            while near.write_all(again.as_bytes()).await.is_ok() {
                let reading = near.read(&mut got);
                let _ = tokio::time::timeout(Duration::from_secs(1), reading).await;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let began = Instant::now();
        let ended = through.serve(far, Arc::clone(&access)).await;
        assert!(began.elapsed() <= Duration::from_millis(5010));
        assert!(
            matches!(ended, Err(ConnectionError::NoLogin(_))),
            "{ended:?}"
        );
        asking.abort();
    }
    // Who has logged in may be silent for longer.
    assert_eq!(client.get("/v2/").await.status(), 200);
}

#[tokio::test]
async fn strangers_take_no_place_of_those_who_log_in() {
    let folder = tempfile::tempdir().unwrap();
    let source = Arc::new(Scripted::with_image(&[b"layer"]));
    let (through, _) = serving(folder.path(), &source).await;
    let access = access();
    let mut early = Client::connect(&through, &access).await;
    assert_eq!(early.get("/v2/").await.status(), 200);
    let (mut silent, mut ends) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        let (near, far) = tokio::io::duplex(100);
        silent.push(near);
        let (through, access) = (through.clone(), Arc::clone(&access));
        ends.push(tokio::spawn(
            async move { through.serve(far, access).await },
        ));
    }
    // All but the newest 16 are closed.
    let newest = ends.split_off(200 - 16);
    for end in ends {
        let end = end.await.unwrap();
        assert!(
            matches!(end, Err(ConnectionError::PushedOut(16))),
            "{end:?}"
        );
    }
    let mut clients = vec![early];
    for _ in 1..32 {
        clients.push(Client::connect(&through, &access).await);
        assert_eq!(clients.last_mut().unwrap().get("/v2/").await.status(), 200);
    }
    for client in &mut clients {
        assert_eq!(client.get("/v2/").await.status(), 200);
    }
    drop((silent, newest));
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
    let (mut near, far) = tokio::io::duplex(1 << 10);
    near.write_all(request(&login()).as_bytes()).await.unwrap();
    let refused = through.serve(far, Arc::clone(&access)).await;
    assert!(matches!(refused, Err(ConnectionError::TooMany(32))));
    // One leaves, and the next has its place.
    drop(clients.pop());
    loop {
        let (mut near, far) = tokio::io::duplex(1 << 10);
        near.write_all(request(&login()).as_bytes()).await.unwrap();
        let serving = tokio::spawn({
            let (through, access) = (through.clone(), Arc::clone(&access));
            async move { through.serve(far, access).await }
        });
        let mut start = [0; 12];
        if near.read_exact(&mut start).await.is_ok() {
            assert_eq!(&start, b"HTTP/1.1 200");
            break;
        }
        let refused = serving.await.unwrap();
        assert!(matches!(refused, Err(ConnectionError::TooMany(32))));
    }
    let mut other = Client::connect(&through, &support::access()).await;
    assert_eq!(other.get("/v2/").await.status(), 200);
}

#[tokio::test]
async fn indexes_that_name_much_cost_no_more_than_their_manifests() {
    let folder = tempfile::tempdir().unwrap();
    let source = Arc::new(Scripted::default());
    let index_of = |children: &[Digest]| {
        let children: Vec<String> = children
            .iter()
            .map(|child| format!(r#"{{"digest":"{child}","size":1}}"#))
            .collect();
        let children = children.join(",");
        source.add_manifest(format!(r#"{{"schemaVersion":2,"manifests":[{children}]}}"#))
    };
    // Each names the next 300 times: 90,000 ways to the image.
    let image = Digest::of(&source.add_image(&[b"layer"]));
    let inner = Digest::of(&index_of(&[image; 300]));
    source.tag("nested", &index_of(&[inner; 300]));
    let many: Vec<Digest> = (0..300_u32)
        .map(|number| Digest::of(&number.to_be_bytes()))
        .collect();
    source.tag("wide", &index_of(&many));
    let large: Vec<Digest> = (0..3)
        .map(|number| {
            let mut text = format!(r#"{{"schemaVersion":2,"manifests":[],"x":{number}}}"#);
            text.push_str(&" ".repeat((4 << 20) - text.len()));
            Digest::of(&source.add_manifest(text))
        })
        .collect();
    source.tag("large", &index_of(&large));
    let through = PullThrough::new(store(folder.path()), None);
    let add = async |tag: &str| {
        let adding = Arc::clone(&source) as Arc<dyn Source>;
        through.add(tag, adding, &Reference::Tag(tag.into())).await
    };
    let nested = add("nested").await.unwrap();
    let contents = through.contents(&nested, |_| true).await.unwrap();
    assert_eq!(contents.len(), 1);
    assert_eq!(contents[0].manifest, image);
    let large = add("large").await.unwrap();
    let error = through.contents(&large, |_| true).await.unwrap_err();
    let is_told = error.to_string().contains("bytes of manifests");
    assert!(is_told, "{error}");
    let wide = add("wide").await.unwrap();
    let asked = source.manifests_asked.lock().unwrap().len();
    let error = through.contents(&wide, |_| true).await.unwrap_err();
    let is_told = error.to_string().contains("names more than 256 manifests");
    assert!(is_told, "{error}");
    assert_eq!(source.manifests_asked.lock().unwrap().len(), asked);
}
