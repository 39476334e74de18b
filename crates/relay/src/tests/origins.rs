//! Roots: registries that break off, redirect, refuse, and lie.

use super::support::*;
use crate::chunk::CHUNK;
use crate::protocol::*;

const MIB: usize = CHUNK as usize;

async fn root(image: &TestImage) -> Node {
    let mut node = Node::new().await;
    node.image(image).await;
    node
}

fn redirect(to: &str) -> Instead {
    Instead::Words(format!(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n"
    ))
}

#[tokio::test]
async fn a_fetch_that_breaks_off_goes_on_at_its_byte_and_ranges_may_be_ignored() {
    let image = TestImage::new(vec![bytes(9, 1), bytes(2 * MIB + 5, 2)]);
    let registry = Registry::new(&image).await;
    registry.instead(vec![Instead::Cut(MIB + 100), Instead::Whole]);
    let mut node = root(&image).await;
    node.root(&registry.base()).await;
    assert!(node.pull(&image.digest(1)).end().await == image.blobs[1]);
    let heads = registry.heads();
    assert_eq!(heads.len(), 2);
    assert!(
        heads[1]
            .to_ascii_lowercase()
            .contains(&format!("range: bytes={}-", MIB + 100)),
        "{heads:?}"
    );
    assert!(
        heads[0].contains("authorization: Bearer t0ken"),
        "{heads:?}"
    );
}

#[tokio::test]
async fn a_redirection_is_followed_and_another_host_sees_no_authorization() {
    let image = TestImage::new(vec![bytes(9, 1), bytes(MIB + 5, 2)]);
    let (registry, store) = (Registry::new(&image).await, Registry::new(&image).await);
    let elsewhere = format!("{}{}", store.base(), image.digest(1));
    let here = format!("/v2/moved/blobs/{}", image.digest(1));
    registry.instead(vec![redirect(&here), redirect(&elsewhere)]);
    let mut node = root(&image).await;
    node.root(&registry.base()).await;
    assert!(node.pull(&image.digest(1)).end().await == image.blobs[1]);
    let heads = registry.heads();
    assert_eq!(heads.len(), 2);
    assert!(
        heads[1].starts_with("GET /v2/moved/") && heads[1].contains("Bearer t0ken"),
        "{heads:?}"
    );
    assert_eq!(store.heads().len(), 1);
    assert!(!store.heads()[0].contains("t0ken"), "{:?}", store.heads());
}

#[tokio::test]
async fn a_registry_that_redirects_for_ever_or_to_no_url_is_given_up() {
    let image = TestImage::new(vec![bytes(9, 1)]);
    let registry = Registry::new(&image).await;
    let mut node = root(&image).await;
    let _pull = node.pull(&image.digest(0));
    for to in ["/again", "ftp://host/", "//host/", ""] {
        registry.instead((0..6).map(|_| redirect(to)).collect());
        let before = node.said().len();
        node.root(&registry.base()).await;
        let mut seen = 0;
        let failed = |said: &FromRelay| matches!(said, FromRelay::SourceFailed { .. });
        soon("given up", async {
            while seen <= before {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                let said = node.said();
                seen = if said.iter().skip(before).any(failed) {
                    said.len()
                } else {
                    0
                };
            }
        })
        .await;
    }
    registry.instead(Vec::new());
    node.root(&registry.base()).await;
    node.hears("complete", |said| {
        matches!(said, FromRelay::Complete { .. }).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_refused_root_asks_for_another_authorization_and_goes_on() {
    let image = TestImage::new(vec![bytes(9, 1), bytes(2 * MIB, 2)]);
    let registry = Registry::new(&image).await;
    let refused = "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer realm=\"x\"\r\ncontent-length: 0\r\n\r\n";
    registry.instead(vec![Instead::Cut(MIB), Instead::Words(refused.into())]);
    let mut node = root(&image).await;
    node.root(&registry.base()).await;
    let pull = node.pull(&image.digest(1));
    let challenge = node
        .hears("unauthorized", |said| match said {
            FromRelay::Unauthorized { challenge, .. } => Some(challenge.clone()),
            _ => None,
        })
        .await;
    assert_eq!(challenge.unwrap(), "Bearer realm=\"x\"");
    assert_eq!(registry.heads().len(), 2, "it asked again by itself");
    node.root(&registry.base()).await;
    assert!(pull.end().await == image.blobs[1]);
    assert_eq!(registry.sent(), 2 << 20);
}

#[tokio::test]
async fn errors_that_may_pass_are_tried_again_and_others_are_told() {
    let image = TestImage::new(vec![bytes(9, 1), bytes(MIB, 2)]);
    let registry = Registry::new(&image).await;
    let answer =
        |status: &str| Instead::Words(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n"));
    registry.instead(vec![answer("503 No"), answer("429 Later"), Instead::Cut(0)]);
    let mut node = root(&image).await;
    node.root(&registry.base()).await;
    assert!(node.pull(&image.digest(1)).end().await == image.blobs[1]);
    registry.instead(vec![answer("404 Not Found")]);
    let pull = node.pull(&image.digest(0));
    let failed = |said: &FromRelay| match said {
        FromRelay::SourceFailed { why, .. } => Some(why.clone()),
        _ => None,
    };
    let why = node.hears("the source failed", failed).await;
    assert_eq!(why, format!("127.0.0.1:{} answered 404", registry.port));
    node.root(&registry.base()).await;
    assert!(pull.end().await == image.blobs[0]);
}

#[tokio::test]
async fn a_registry_that_sends_another_blob_is_found_out_before_the_last_chunk() {
    let image = TestImage::new(vec![bytes(9, 1), bytes(2 * MIB, 2)]);
    let mut changed = image.blobs[1].clone();
    changed[5] ^= 1;
    let liar = Registry::with(image.digest(1).to_string(), changed).await;
    liar.open();
    let registry = Registry::new(&image).await;
    let mut node = root(&image).await;
    node.root(&liar.base()).await;
    let got = node.pull(&image.digest(1)).end().await;
    assert!(got.len() < 2 * MIB, "the runtime got all of it");
    let failed = node
        .hears("the blob failed", |said| match said {
            FromRelay::BlobFailed { blob, .. } => Some(blob.clone()),
            _ => None,
        })
        .await;
    assert_eq!(failed, image.digest(1).to_string());
    // A registry that has it mends that.
    node.root(&registry.base()).await;
    assert!(node.pull(&image.digest(1)).end().await == image.blobs[1]);
}

#[tokio::test]
async fn what_is_no_source_ends_the_relay_with_a_reason() {
    let image = TestImage::new(vec![bytes(9, 1)]);
    for (base, word) in [
        ("ftp://x/", "ftp://x/"),
        ("http://x", "http://x"),
        ("", "URL"),
    ] {
        let mut node = root(&image).await;
        node.root(base).await;
        let ended = soon("the end", &mut node.running).await.unwrap();
        assert!(ended.unwrap_err().contains(word));
        node.hears("failed", |said| match said {
            FromRelay::Failed { why } if why.contains(word) => Some(()),
            _ => None,
        })
        .await;
    }
}
