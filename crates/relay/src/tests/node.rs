//! The relay on its node: the runtime's port, the lease, and what prepull may say.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;

use super::support::*;
use crate::Timing;
use crate::protocol::*;

#[tokio::test]
async fn the_runtime_needs_the_login_and_gets_this_runs_digests_only() {
    let image = TestImage::new(vec![bytes(9, 1), bytes(3000, 2)]);
    let registry = Registry::new(&image).await;
    let mut node = Node::new().await;
    node.image(&image).await;
    node.root(&registry.base()).await;
    let blob = format!("blobs/{}", image.digest(1));
    let manifest = format!("manifests/{}", pull_through::Digest::of(&image.manifest));
    for login in ["node:wrong", "other:s3cret", ""] {
        for path in [&blob, &manifest] {
            let answer = node
                .ask(request(REPOSITORY, path, login, "").as_bytes())
                .await;
            assert!(answer.starts_with("HTTP/1.1 401 "), "{login}: {answer}");
        }
    }
    assert_eq!(registry.heads().len(), 0);
    let asked = |repository: &'static str, path: String, headers: &'static str| {
        let node = &node;
        async move {
            node.ask(request(repository, &path, "node:s3cret", headers).as_bytes())
                .await
        }
    };
    let answer = asked(REPOSITORY, manifest, "").await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("}"),
        "{answer}"
    );
    let other = format!("blobs/{}", pull_through::Digest::of(b"other"));
    assert!(
        asked(REPOSITORY, other, "")
            .await
            .starts_with("HTTP/1.1 404 ")
    );
    assert!(
        asked("team/app", blob.clone(), "")
            .await
            .starts_with("HTTP/1.1 404 ")
    );
    let part = asked(REPOSITORY, blob.clone(), "Range: bytes=2998-\r\n").await;
    assert!(part.starts_with("HTTP/1.1 206 "), "{part}");
    assert!(
        part.to_ascii_lowercase()
            .contains("content-range: bytes 2998-2999/3000"),
        "{part}"
    );
    // Clients that try TLS first take such an answer for plain HTTP.
    let answer = node
        .ask(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        .await;
    assert!(answer.starts_with("HTTP/"), "{answer}");
    let stats = node
        .stats("requests", |stats| {
            stats.requests == 4 && stats.from_registry == 3000
        })
        .await;
    assert_eq!(
        (stats.from_registry, stats.from_peers, stats.to_peers),
        (3000, 0, 0)
    );
}

#[tokio::test]
async fn a_relay_ends_when_told_and_when_its_lease_is_over() {
    let never = Timing {
        stats: Duration::from_secs(3600),
        ..patient()
    };
    let mut node = Node::with(start(3600), never).await;
    let asked = request(REPOSITORY, "manifests/x", "node:s3cret", "");
    node.ask(asked.as_bytes()).await;
    node.say(&ToRelay::End {}).await;
    assert_eq!(soon("the end", &mut node.running).await.unwrap(), Ok(()));
    // Its last words are what went in and out.
    node.stats("the last stats", |stats| stats.requests == 1)
        .await;
    // Its ports accept no connections.
    assert!(
        tokio::net::TcpStream::connect(("127.0.0.1", node.ready.port))
            .await
            .is_err()
    );
    let mut silent = Node::with(start(1), patient()).await;
    assert_eq!(
        soon("the end of the lease", &mut silent.running)
            .await
            .unwrap(),
        Ok(())
    );
    // Without a line, and without a connection to prepull.
    let mut alone = Node::with(start(1), patient()).await;
    alone.hang_up().await;
    assert_eq!(
        soon("the end of the lease", &mut alone.running)
            .await
            .unwrap(),
        Ok(())
    );
}

#[tokio::test]
async fn beats_and_words_of_newer_versions_renew_the_lease() {
    let mut node = Node::with(start(20), patient()).await;
    let began = tokio::time::Instant::now();
    tokio::time::pause();
    for _ in 0..10 {
        tokio::time::advance(Duration::from_secs(15)).await;
        node.say(&ToRelay::Beat {}).await;
        node.write(b"{\"newer\":{\"a\":[1]}}\n").await;
        // An answer shows that it was read.
        node.say(&ToRelay::Probe(Probe {
            peers: Vec::new(),
            bytes: 0,
        }))
        .await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!node.running.is_finished());
    }
    assert!(began.elapsed().as_secs() >= 150);
    tokio::time::advance(Duration::from_secs(21)).await;
    tokio::time::resume();
    assert_eq!(
        soon("the end of the lease", &mut node.running)
            .await
            .unwrap(),
        Ok(())
    );
}

#[tokio::test]
async fn a_connection_to_prepull_that_is_lost_leaves_the_children_served() {
    let image = TestImage::new(vec![bytes(9, 1), bytes(3 << 20, 2)]);
    let registry = Registry::waiting(&image).await;
    let mut root = Node::new().await;
    root.image(&image).await;
    root.root(&registry.base()).await;
    let mut child = Node::new().await;
    child.image(&image).await;
    child.parents(&[&root], vec![root.peer()]).await;
    let mut pull = child.pull(&image.digest(1));
    registry.allow(1 << 10);
    pull.reaches(1 << 20).await;
    root.hang_up().await;
    registry.open();
    assert!(pull.end().await == image.blobs[1]);
}

#[tokio::test]
async fn what_cannot_be_right_ends_it_with_a_reason_and_without_a_secret() {
    let image = TestImage::new(vec![bytes(9, 1)]);
    let mut wrong_manifest = image.parts();
    wrong_manifest.manifests[0].bytes.push(b' ');
    let mut other_size = image.parts();
    other_size.blobs[0].size = 8;
    let source = Origin {
        image: "prepull/unknown".into(),
        base: "http://x/".into(),
        authorization: Some(Secret("s3cret".into())),
        ca: Vec::new(),
    };
    let line = |what: &ToRelay| what.line();
    for (said, why) in [
        ("s3cret\n".to_string(), "cannot read what prepull says"),
        (
            "{\"start\":\"s3cret\"}\n".into(),
            "cannot read what prepull says",
        ),
        (
            "{\"source\":{\"s3cret\":1}}\n".into(),
            "cannot read what prepull says",
        ),
        (line(&ToRelay::Start(start(5))), "twice"),
        (line(&ToRelay::Source(source)), "prepull/unknown"),
        (line(&ToRelay::Image(wrong_manifest)), "the source sent"),
        (
            line(&ToRelay::Image(image.parts())) + &line(&ToRelay::Image(other_size)),
            "9 and with 8 bytes",
        ),
        ("7".repeat(MOST_TO_RELAY + 1), "more than"),
    ] {
        let mut node = Node::new().await;
        node.write(said.as_bytes()).await;
        let ended = soon("the end", &mut node.running)
            .await
            .unwrap()
            .unwrap_err();
        assert!(ended.contains(why) && !ended.contains("s3cret"), "{ended}");
        node.hears("failed", |said| {
            matches!(said, FromRelay::Failed { why } if *why == ended).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_start_that_cannot_be_done_says_why() {
    let missing = Start {
        spool: "/nowhere/at/all".into(),
        ..start(5)
    };
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = Start {
        peer_listen: taken.local_addr().unwrap(),
        ..start(5)
    };
    for (start, why) in [
        (missing, "cannot spool in /nowhere/at/all"),
        (taken, "cannot listen on 127.0.0.1:"),
    ] {
        let input = ToRelay::Start(start).line();
        let (output, mut said) = tokio::io::duplex(1 << 16);
        let ended = crate::run(input.as_bytes(), output, patient())
            .await
            .unwrap_err();
        assert!(ended.contains(why), "{ended}");
        let mut text = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut said, &mut text)
            .await
            .unwrap();
        assert!(
            text.starts_with("{\"failed\":") && text.contains(why),
            "{text}"
        );
    }
    let (mut open, input) = tokio::io::duplex(1 << 10);
    open.write_all(b"{\"beat\":{}}\n").await.unwrap();
    let ended = crate::run(input, tokio::io::sink(), patient()).await;
    assert!(ended.unwrap_err().contains("not \"start\""));
    // No line at all: prepull is gone.
    assert_eq!(
        crate::run(&b""[..], tokio::io::sink(), patient()).await,
        Ok(())
    );
}
