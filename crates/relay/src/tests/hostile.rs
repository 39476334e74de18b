//! Peers that lie, break off, are silent or do not belong to the run.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use pull_through::Digest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::server::TlsStream;

use super::support::*;
use crate::Timing;
use crate::chunk::{ALIVE, CHUNK, Header, statement};
use crate::identity::{self, Identity, Proof};
use crate::protocol::*;

const MIB: usize = CHUNK as usize;

/// What a hostile parent answers to a request for a blob.
#[derive(Clone)]
enum Says {
    /// These bytes, and the end of the connection.
    Bytes(Vec<u8>),
    /// The first ones, then the second ones again and again.
    Endless(Vec<u8>, Vec<u8>),
    /// These bytes, and nothing more, with the connection held.
    Silence(Vec<u8>),
    /// No answer at all.
    Nothing,
}

struct Parent {
    peer: Peer,
    serving: JoinHandle<()>,
}

impl Drop for Parent {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Parent {
    async fn new(says: Says) -> Self {
        let identity = Identity::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let key = identity.key();
        let serving = tokio::spawn(async move {
            let identity = Arc::new(identity);
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (identity, says) = (Arc::clone(&identity), says.clone());
                tokio::spawn(async move {
                    let (stream, _) = identity.accept(stream).await?;
                    answer(stream, says).await
                });
            }
        });
        Self {
            peer: Peer { address, key },
            serving,
        }
    }
}

async fn answer(mut stream: TlsStream<TcpStream>, says: Says) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    if let Says::Nothing = says {
        return std::future::pending().await;
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    match says {
        Says::Bytes(bytes) => {
            stream.write_all(&bytes).await?;
            stream.shutdown().await
        }
        Says::Endless(first, again) => {
            stream.write_all(&first).await?;
            loop {
                stream.write_all(&again).await?;
                stream.flush().await?;
                tokio::task::yield_now().await;
            }
        }
        Says::Silence(first) => {
            stream.write_all(&first).await?;
            stream.flush().await?;
            std::future::pending().await
        }
        Says::Nothing => Ok(()),
    }
}

/// A chunk as a root would send it.
fn chunk(root: &Identity, blob: &Digest, index: u64, bytes: &[u8]) -> Vec<u8> {
    let sha256 =
        <[u8; 32]>::try_from(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref()).unwrap();
    let length = bytes.len() as u32;
    let signature = root.sign(&statement(blob, index, length, &sha256));
    let header = Header {
        length,
        sha256,
        signature,
    };
    [&header.bytes()[..], bytes].concat()
}

/// A child of a hostile parent that has an honest spare, which got all of it from a root of its own. Gives what the child
/// said; its runtime gets the right bytes.
async fn survives(
    what: &str,
    image: &TestImage,
    signer: Option<Key>,
    timing: Timing,
    parent: Parent,
) -> Vec<FromRelay> {
    let registry = Registry::new(image).await;
    let mut root = Node::new().await;
    root.image(image).await;
    root.root(&registry.base()).await;
    // The spare has all of it before it is needed, so no limit of time matters for it.
    assert!(root.pull(&image.digest(1)).end().await == image.blobs[1]);
    let mut child = Node::with(start(3600), timing).await;
    child.image(image).await;
    let signers = [root.ready.key].into_iter().chain(signer).collect();
    let peers = vec![parent.peer.clone(), root.peer()];
    let parents = Parents {
        image: REPOSITORY.into(),
        signers,
        peers,
    };
    child.say(&ToRelay::Parents(parents)).await;
    let got = child.pull(&image.digest(1)).end().await;
    assert!(
        got == image.blobs[1],
        "{what}: the runtime got something else"
    );
    child.said()
}

/// The parents that were named as liars or as lost, and why.
fn blamed(said: &[FromRelay]) -> (Vec<String>, Vec<String>) {
    let (mut lies, mut lost) = (Vec::new(), Vec::new());
    for event in said {
        match event {
            FromRelay::ParentLies { why, .. } => lies.push(why.clone()),
            FromRelay::ParentLost { why, .. } => lost.push(why.clone()),
            _ => {}
        }
    }
    (lies, lost)
}

fn image() -> TestImage {
    TestImage::new(vec![bytes(9, 1), bytes(2 * MIB + 9, 2)])
}

#[tokio::test]
async fn wrong_bytes_never_reach_a_runtime_and_the_liar_is_named() {
    let image = image();
    let (blob, digest) = (&image.blobs[1], image.digest(1));
    let root = Identity::new().unwrap();
    let right = chunk(&root, &digest, 0, &blob[..MIB]);
    let mut flipped = right.clone();
    flipped[500] ^= 1;
    let mut header = right.clone();
    header[40] ^= 1;
    let stranger = Identity::new().unwrap();
    let by_stranger = chunk(&stranger, &digest, 0, &blob[..MIB]);
    // What a root signed for another place, or for another blob.
    let replayed = [&right[..], &right[..]].concat();
    let other = chunk(&root, &image.digest(0), 0, &blob[..MIB]);
    let long = u32::MAX.to_be_bytes().to_vec();
    let short = chunk(&root, &digest, 0, &blob[..MIB - 1]);
    for (what, bytes, why) in [
        ("a flipped byte", flipped, "not what its header says"),
        ("a flipped signature", header, "no signature of a root"),
        (
            "a stranger's signature",
            by_stranger,
            "no signature of a root",
        ),
        ("a replayed chunk", replayed, "no signature of a root"),
        ("another blob's chunk", other, "no signature of a root"),
        (
            "a length of 4 GiB",
            [long, vec![7; 200]].concat(),
            "4294967295 bytes came where 1048576 were due",
        ),
        (
            "a short chunk",
            short,
            "1048575 bytes came where 1048576 were due",
        ),
    ] {
        let parent = Parent::new(Says::Bytes(bytes)).await;
        let address = parent.peer.address;
        let said = survives(what, &image, Some(root.key()), patient(), parent).await;
        let (lies, lost) = blamed(&said);
        assert!(
            lies.len() == 1 && lies[0].contains(why) && lost.is_empty(),
            "{what}: {lies:?} {lost:?}"
        );
        let names = |said: &FromRelay| matches!(said, FromRelay::ParentLies { address: named, blob, .. } if *named == address && *blob == digest.to_string());
        assert!(said.iter().any(names), "{what}: {said:?}");
    }
}

#[tokio::test]
async fn a_root_that_signs_another_blob_cannot_complete_it() {
    let image = image();
    let (digest, root) = (image.digest(1), Identity::new().unwrap());
    let mut wrong = image.blobs[1].clone();
    wrong[7] ^= 1;
    let chunks: Vec<u8> = wrong
        .chunks(MIB)
        .zip(0..)
        .flat_map(|(bytes, index)| chunk(&root, &digest, index, bytes))
        .collect();
    let parent = Parent::new(Says::Bytes(chunks)).await;
    let registry = Registry::new(&image).await;
    let mut honest = Node::new().await;
    honest.image(&image).await;
    honest.root(&registry.base()).await;
    let mut child = Node::new().await;
    child.image(&image).await;
    let signers = vec![root.key(), honest.ready.key];
    let peers = vec![parent.peer.clone(), honest.peer()];
    child
        .say(&ToRelay::Parents(Parents {
            image: REPOSITORY.into(),
            signers,
            peers,
        }))
        .await;
    // The runtime may have got wrong bytes that a root signed, but neither all of them nor a whole blob.
    let first = child.pull(&digest).end().await;
    assert!(first.len() < wrong.len() || first == image.blobs[1]);
    assert!(child.pull(&digest).end().await == image.blobs[1]);
    let (lies, lost) = blamed(&child.said());
    assert!(
        lies.is_empty() && lost.len() == 1 && lost[0].contains("as a whole"),
        "{lies:?} {lost:?}"
    );
}

#[tokio::test]
async fn silence_and_endless_words_cost_a_parent_its_child() {
    let image = image();
    let (digest, root) = (image.digest(1), Identity::new().unwrap());
    let right = chunk(&root, &digest, 0, &image.blobs[1][..MIB]);
    // The spare has everything in its spool and answers at once: these limits are far above what it needs.
    let timing = Timing {
        connect: Duration::from_secs(3),
        silence: Duration::from_secs(3),
        stall: Duration::from_secs(4),
        ..patient()
    };
    let half = [&right[..], &right[..1000]].concat();
    for (what, says, why) in [
        ("no answer", Says::Nothing, "did not answer within 3 s"),
        (
            "silence",
            Says::Silence(half.clone()),
            "sent nothing for 3 s",
        ),
        (
            "always alive",
            Says::Endless(right.clone(), ALIVE.to_vec()),
            "no chunk came for",
        ),
        ("a break", Says::Bytes(half), "it broke off"),
        ("nothing at all", Says::Bytes(Vec::new()), "it broke off"),
    ] {
        let parent = Parent::new(says).await;
        let said = survives(what, &image, Some(root.key()), timing, parent).await;
        let (lies, lost) = blamed(&said);
        assert!(
            lost.len() == 1 && lost[0].contains(why) && lies.is_empty(),
            "{what}: {lies:?} {lost:?}"
        );
    }
}

#[tokio::test]
async fn a_parent_with_another_key_or_an_endless_head_is_lost() {
    let image = image();
    let mut impostor = Parent::new(Says::Nothing).await;
    impostor.peer.key = Identity::new().unwrap().key();
    let said = survives("another key", &image, None, patient(), impostor).await;
    assert!(
        blamed(&said).1[0].contains("no TLS with its key"),
        "{said:?}"
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let identity = Identity::new().unwrap();
    let peer = Peer {
        address,
        key: identity.key(),
    };
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut stream, _) = identity.accept(stream).await.unwrap();
        while stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await.is_ok() {
            for _ in 0..1000 {
                if stream.write_all(&[b'a'; 1000]).await.is_err() {
                    return;
                }
            }
        }
    });
    let said = survives(
        "an endless head",
        &image,
        None,
        patient(),
        Parent { peer, serving },
    )
    .await;
    assert!(blamed(&said).1[0].contains("no answer"), "{said:?}");
}

/// What a relay answers to a peer that shows this.
async fn shown(node: &Node, path: &str, authorization: impl Fn(&[u8; 32]) -> String) -> String {
    let peer = node.peer();
    let stream = TcpStream::connect(peer.address).await.unwrap();
    let (mut stream, exported) = identity::connect(stream, peer.address, &peer.key)
        .await
        .unwrap();
    let authorization = authorization(&exported);
    let head = format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: {authorization}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = soon("an answer", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer)
        .lines()
        .next()
        .unwrap_or_default()
        .to_string()
}

#[tokio::test]
async fn only_peers_with_the_ticket_of_the_run_get_anything() {
    let image = image();
    let registry = Registry::new(&image).await;
    let mut node = Node::with(
        start(3600),
        Timing {
            connect: Duration::from_secs(5),
            ..patient()
        },
    )
    .await;
    node.image(&image).await;
    node.root(&registry.base()).await;
    let path = format!("/b/{}?from=0", image.digest(1));
    let (ours, others) = (Proof::new(&TICKET), Proof::new(&Ticket([8; 32])));
    let earlier = std::cell::Cell::new(String::new());
    let right = |exported: &[u8; 32]| {
        earlier.set(ours.make(exported));
        ours.make(exported)
    };
    assert_eq!(shown(&node, &path, right).await, "HTTP/1.1 200 OK");
    let replayed = earlier.take();
    for (what, wrong) in [
        ("nothing", String::new()),
        ("a replayed proof", replayed),
        (
            "the ticket itself",
            "Relay CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=".into(),
        ),
        ("no base64", "Relay !".into()),
    ] {
        assert_eq!(
            shown(&node, &path, |_| wrong.clone()).await,
            "HTTP/1.1 401 Unauthorized",
            "{what}"
        );
    }
    let another = shown(&node, &path, |exported| others.make(exported)).await;
    assert_eq!(another, "HTTP/1.1 401 Unauthorized");
    assert_eq!(registry.heads().len(), 1, "it was fetched for a stranger");
    for (path, status) in [
        (format!("/b/{}?from=3", image.digest(1)), "400 Bad Request"),
        (
            format!("/b/{}?from=18446744073709551615", image.digest(1)),
            "400 Bad Request",
        ),
        (format!("/b/{}", image.digest(1)), "400 Bad Request"),
        (
            format!("/b/{}?from=0", Digest::of(b"other")),
            "404 Not Found",
        ),
        (
            "/b/sha256:../../etc/passwd?from=0".into(),
            "400 Bad Request",
        ),
        ("/etc/passwd".into(), "400 Bad Request"),
        (
            format!("/probe?bytes={}", Probe::MOST + 1),
            "400 Bad Request",
        ),
        ("/probe?bytes=5".into(), "200 OK"),
    ] {
        let answer = shown(&node, &path, |exported| ours.make(exported)).await;
        assert_eq!(answer, format!("HTTP/1.1 {status}"), "{path}");
    }
}

#[tokio::test]
async fn strangers_that_hold_connections_keep_no_peer_out() {
    let image = image();
    let registry = Registry::new(&image).await;
    let mut root = Node::new().await;
    root.image(&image).await;
    root.root(&registry.base()).await;
    let mut strangers = Vec::new();
    for _ in 0..200 {
        strangers.push(TcpStream::connect(root.peer().address).await.unwrap());
    }
    let mut child = Node::new().await;
    child.image(&image).await;
    child.parents(&[&root], vec![root.peer()]).await;
    assert!(child.pull(&image.digest(1)).end().await == image.blobs[1]);
    // The oldest were closed.
    let mut byte = [0];
    let closed = soon("a closed connection", strangers[0].read(&mut byte)).await;
    assert!(!matches!(closed, Ok(1..)), "{closed:?}");
}
