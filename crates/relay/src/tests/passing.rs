//! Honest relays: what reaches whom, when, and at what cost for the registry.

use super::support::*;
use crate::chunk::CHUNK;
use crate::protocol::*;

const MIB: usize = CHUNK as usize;

/// Relays that know the image, the first of which is the root.
async fn relays(count: usize, image: &TestImage, registry: &Registry) -> Vec<Node> {
    let mut nodes = Vec::new();
    for _ in 0..count {
        let mut node = Node::new().await;
        node.image(image).await;
        nodes.push(node);
    }
    nodes[0].root(&registry.base()).await;
    nodes
}

/// Makes a node the child of another, with spares.
async fn adopt(nodes: &mut [Node], child: usize, parents: &[usize]) {
    let peers = parents.iter().map(|parent| nodes[*parent].peer()).collect();
    let key = nodes[0].ready.key;
    let image = REPOSITORY.into();
    let signers = vec![key];
    nodes[child]
        .say(&ToRelay::Parents(Parents {
            image,
            signers,
            peers,
        }))
        .await;
}

#[tokio::test]
async fn one_copy_is_passed_on_while_it_arrives() {
    let image = TestImage::new(vec![bytes(700, 1), bytes(4 * MIB + 77, 2)]);
    let size = image.blobs[1].len();
    let registry = Registry::waiting(&image).await;
    let mut nodes = relays(7, &image, &registry).await;
    for (child, parent) in [(1, 0), (2, 0), (3, 1), (4, 1), (5, 3), (6, 5)] {
        adopt(&mut nodes, child, &[parent]).await;
    }
    let mut pulls: Vec<Pull> = nodes
        .iter()
        .map(|node| node.pull(&image.digest(1)))
        .collect();
    // The deepest of them have two chunks while the registry has not sent half of the blob.
    registry.allow(2 << 10);
    for pull in &mut pulls {
        pull.reaches(2 * MIB).await;
    }
    assert_eq!(registry.sent(), 2 << 20);
    // All but the last chunk.
    registry.allow(2 << 10);
    for pull in &mut pulls {
        pull.reaches(4 * MIB).await;
    }
    registry.open();
    for pull in pulls {
        assert!(pull.end().await == image.blobs[1]);
    }
    assert_eq!(registry.sent(), size as u64);
    let root = nodes[0]
        .stats("the root's", |stats| stats.to_peers == 2 * size as u64)
        .await;
    assert_eq!((root.from_registry, root.from_peers), (size as u64, 0));
    for (node, children) in [(1, 2), (2, 0), (3, 1), (4, 0), (5, 1), (6, 0)] {
        let stats = nodes[node].stats("a child's", |stats| {
            stats.to_runtime == size as u64 && stats.to_peers == children * size as u64
        });
        let stats = stats.await;
        assert_eq!(
            (stats.from_registry, stats.from_peers, stats.requests),
            (0, size as u64, 1)
        );
    }
    // The configuration has not been asked for yet.
    for node in &nodes {
        assert!(
            !node
                .said()
                .iter()
                .any(|said| matches!(said, FromRelay::Complete { .. }))
        );
    }
    assert!(nodes[6].pull(&image.digest(0)).end().await == image.blobs[0]);
    nodes[6]
        .hears("complete", |said| {
            matches!(said, FromRelay::Complete { image } if image == REPOSITORY).then_some(())
        })
        .await;
    assert_eq!(registry.sent(), size as u64 + 700);
}

#[tokio::test]
async fn a_relay_sends_no_faster_than_it_may() {
    let image = TestImage::new(vec![bytes(9, 1), bytes(3 * MIB, 2)]);
    let registry = Registry::new(&image).await;
    let limited = Start {
        max_upload: Some(2 << 20),
        ..start(3600)
    };
    let mut nodes = vec![Node::with(limited, patient()).await, Node::new().await];
    for node in &mut nodes {
        node.image(&image).await;
    }
    nodes[0].root(&registry.base()).await;
    adopt(&mut nodes, 1, &[0]).await;
    let began = std::time::Instant::now();
    assert!(nodes[1].pull(&image.digest(1)).end().await == image.blobs[1]);
    // 1.5 s, less what may be sent at once. How much longer is the machine's affair.
    assert!(began.elapsed().as_secs_f64() > 1.0, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_blob_of_whole_chunks_and_an_empty_one_arrive() {
    let image = TestImage::new(vec![Vec::new(), bytes(2 * MIB, 3), bytes(1, 4)]);
    let registry = Registry::new(&image).await;
    let mut nodes = relays(2, &image, &registry).await;
    adopt(&mut nodes, 1, &[0]).await;
    for blob in 0..3 {
        assert!(nodes[1].pull(&image.digest(blob)).end().await == image.blobs[blob]);
    }
    nodes[1]
        .hears("complete", |said| {
            matches!(said, FromRelay::Complete { .. }).then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_dead_parent_is_replaced_by_its_spare_at_the_same_chunk() {
    let image = TestImage::new(vec![bytes(9, 1), bytes(5 * MIB, 2)]);
    let registry = Registry::waiting(&image).await;
    let mut nodes = relays(4, &image, &registry).await;
    adopt(&mut nodes, 1, &[0]).await;
    adopt(&mut nodes, 2, &[0]).await;
    adopt(&mut nodes, 3, &[1, 2]).await;
    let mut pull = nodes[3].pull(&image.digest(1));
    registry.allow(2 << 10);
    pull.reaches(2 * MIB).await;
    let dead = nodes.remove(1);
    let address = dead.peer().address;
    drop(dead);
    let lost = |said: &FromRelay| match said {
        FromRelay::ParentLost { address, .. } => Some(*address),
        _ => None,
    };
    assert_eq!(nodes[2].hears("a lost parent", lost).await, address);
    registry.open();
    assert!(pull.end().await == image.blobs[1]);
    assert_eq!(registry.sent(), 5 << 20);
    let stats = nodes[2]
        .stats("all of it", |stats| stats.to_runtime == 5 << 20)
        .await;
    assert_eq!(stats.from_peers, 5 << 20, "a chunk came twice");
}

#[tokio::test]
async fn an_orphan_says_so_and_goes_on_with_new_parents_or_as_a_root() {
    let image = TestImage::new(vec![bytes(9, 1), bytes(4 * MIB, 2)]);
    let registry = Registry::waiting(&image).await;
    let mut nodes = relays(3, &image, &registry).await;
    adopt(&mut nodes, 1, &[0]).await;
    adopt(&mut nodes, 2, &[0]).await;
    let mut pulls = [
        nodes[1].pull(&image.digest(1)),
        nodes[2].pull(&image.digest(1)),
    ];
    registry.allow(1 << 10);
    for pull in &mut pulls {
        pull.reaches(MIB).await;
    }
    let root = nodes.remove(0);
    let root_key = root.ready.key;
    drop(root);
    for node in &nodes {
        node.hears("orphaned", |said| {
            matches!(said, FromRelay::Orphaned { .. }).then_some(())
        })
        .await;
    }
    // What the dead root signed is still passed on, beside what the new one signs.
    nodes[0].root(&registry.base()).await;
    let signers = vec![nodes[0].ready.key, root_key];
    let peers = vec![nodes[0].peer()];
    let parents = Parents {
        image: REPOSITORY.into(),
        signers,
        peers,
    };
    nodes[1].say(&ToRelay::Parents(parents)).await;
    registry.open();
    for pull in pulls {
        assert!(pull.end().await == image.blobs[1]);
    }
    // The new root asked for the rest only.
    assert!(
        registry.heads()[1]
            .to_ascii_lowercase()
            .contains("range: bytes=1048576-"),
        "{:?}",
        registry.heads()
    );
    let orphaned = nodes[1]
        .said()
        .iter()
        .filter(|said| matches!(said, FromRelay::Orphaned { .. }))
        .count();
    assert_eq!(orphaned, 1);
}

#[tokio::test]
async fn a_parent_that_is_not_named_again_is_left_at_once() {
    let image = TestImage::new(vec![bytes(9, 1), bytes(3 * MIB, 2)]);
    let (slow, fast) = (Registry::waiting(&image).await, Registry::new(&image).await);
    let mut nodes = relays(3, &image, &slow).await;
    nodes[1].root(&fast.base()).await;
    adopt(&mut nodes, 2, &[0]).await;
    let mut pull = nodes[2].pull(&image.digest(1));
    slow.allow(1 << 10);
    pull.reaches(MIB).await;
    let signers = vec![nodes[0].ready.key, nodes[1].ready.key];
    let peers = vec![nodes[1].peer()];
    let parents = Parents {
        image: REPOSITORY.into(),
        signers,
        peers,
    };
    nodes[2].say(&ToRelay::Parents(parents)).await;
    assert!(pull.end().await == image.blobs[1]);
    assert!(
        !nodes[2]
            .said()
            .iter()
            .any(|said| matches!(said, FromRelay::ParentLost { .. }))
    );
}

#[tokio::test]
async fn images_that_share_a_blob_have_it_once() {
    let image = TestImage::new(vec![bytes(9, 1), bytes(MIB, 2)]);
    let registry = Registry::new(&image).await;
    let mut nodes = relays(1, &image, &registry).await;
    let mut other = image.parts();
    other.repository = "prepull/other".into();
    nodes[0].parts(other).await;
    assert!(nodes[0].pull(&image.digest(1)).end().await == image.blobs[1]);
    let path = format!("blobs/{}", image.digest(1));
    let answer = nodes[0]
        .ask(request("prepull/other", &path, "node:s3cret", "").as_bytes())
        .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(registry.sent(), MIB as u64);
}

#[tokio::test]
async fn probes_say_who_is_reached_and_how_fast() {
    let nodes = [Node::new().await, Node::new().await];
    let mut asking = Node::new().await;
    let mut impostor = nodes[1].peer();
    impostor.key = nodes[0].ready.key;
    let closed = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let closed_peer = Peer {
        address: closed,
        key: nodes[0].ready.key,
    };
    let peers = vec![nodes[0].peer(), impostor.clone(), closed_peer];
    asking
        .say(&ToRelay::Probe(Probe {
            peers,
            bytes: 4 << 20,
        }))
        .await;
    let reached = |address| {
        move |said: &FromRelay| match said {
            FromRelay::Reached {
                address: of,
                bytes_per_second,
                error,
            } if *of == address => Some((*bytes_per_second, error.clone())),
            _ => None,
        }
    };
    let (rate, error) = asking
        .hears("the first", reached(nodes[0].peer().address))
        .await;
    assert!(rate.is_some_and(|rate| rate > 0) && error.is_none());
    let (rate, error) = asking
        .hears("the impostor", reached(impostor.address))
        .await;
    assert!(rate.is_none() && error.unwrap().contains("TLS"));
    let (rate, error) = asking.hears("the closed port", reached(closed)).await;
    assert!(rate.is_none() && error.unwrap().contains("connect"));
    let peers = vec![nodes[1].peer()];
    asking.say(&ToRelay::Probe(Probe { peers, bytes: 0 })).await;
    let is_reached = |said: &FromRelay| match said {
        FromRelay::Reached {
            bytes_per_second: None,
            error: None,
            ..
        } => Some(()),
        _ => None,
    };
    asking.hears("without bytes", is_reached).await;
}
