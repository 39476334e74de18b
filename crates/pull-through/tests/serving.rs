//! Blobs on their way: many readers, sources that break off or lie, crashes, and processes that share a cache.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test file: a panic is a failed test

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http_body_util::BodyExt as _;
use hyper::StatusCode;
use proptest::prelude::*;
use pull_through::{Digest, Error, PullThrough, Reference, Source, SourceError};
use support::*;

const SIZE: usize = 1 << 20;

fn cached(folder: &Path, digest: &Digest) -> PathBuf {
    folder.join("sha256").join(digest.hex())
}

#[tokio::test]
async fn a_blob_is_fetched_once_and_reaches_all_readers_while_it_arrives() {
    let folder = tempfile::tempdir().unwrap();
    let layer = noise(SIZE, 1);
    let digest = Digest::of(&layer);
    let source = Arc::new(Scripted::with_image(&[&layer]));
    let (through, _) = serving(folder.path(), &source).await;
    source.gate.send_replace(SIZE / 2);
    let mut bodies = Vec::new();
    for _ in 0..100 {
        let mut client = Client::connect(&through, &access()).await;
        let mut body = client.blob(&digest).await.into_body();
        let got = first(&mut body, SIZE / 2 - source.chunk).await;
        bodies.push((client, body, got));
    }
    source.gate.send_replace(usize::MAX);
    for (_, body, mut got) in bodies {
        got.extend_from_slice(&body.collect().await.unwrap().to_bytes());
        assert!(got == layer);
    }
    assert_eq!(source.places_asked(&digest), [0]);
    let counters = through.counters();
    assert_eq!(
        (counters.fetched, counters.served),
        (SIZE as u64, 100 * SIZE as u64)
    );
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_breaks_off_goes_on_at_the_byte_reached() {
    let folder = tempfile::tempdir().unwrap();
    let layer = noise(SIZE, 2);
    let digest = Digest::of(&layer);
    let source = Arc::new(Scripted::with_image(&[&layer]));
    let reset = || SourceError::temporary("connection reset");
    *source.breaks.lock().unwrap() = vec![(300_001, reset()), (0, reset()), (5, reset())];
    let (through, _) = serving(folder.path(), &source).await;
    let mut client = Client::connect(&through, &access()).await;
    assert!(client.whole(&digest).await.unwrap() == layer);
    assert_eq!(source.places_asked(&digest), [0, 300_001, 300_001, 300_006]);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_stays_away_is_given_up_and_asked_again_by_the_next_request() {
    let folder = tempfile::tempdir().unwrap();
    let layer = noise(SIZE, 3);
    let digest = Digest::of(&layer);
    let source = Arc::new(Scripted::with_image(&[&layer]));
    let away = (0, SourceError::temporary("r.example does not answer"));
    *source.breaks.lock().unwrap() = vec![away; 5];
    let (through, _) = serving(folder.path(), &source).await;
    let access = access();
    let mut client = Client::connect(&through, &access).await;
    let answer = client.blob(&digest).await;
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(
        !String::from_utf8_lossy(&text).contains("r.example"),
        "the node is told why"
    );
    assert_eq!(
        access.failure().unwrap().to_string(),
        "r.example does not answer"
    );
    assert_eq!(source.places_asked(&digest).len(), 5);
    assert!(client.whole(&digest).await.unwrap() == layer);
    assert_eq!(source.places_asked(&digest).len(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_lies_is_not_believed_and_nothing_of_it_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let layer = noise(SIZE, 4);
    let digest = Digest::of(&layer);
    let source = Arc::new(Scripted::with_image(&[&layer]));
    let (through, _) = serving(folder.path(), &source).await;
    let access = access();
    let mut changed = layer.clone();
    changed[SIZE / 2] ^= 1;
    let longer = [layer.as_slice(), b"x"].concat();
    for (lie, tries) in [(changed, 1), (longer, 1), (layer[1..].to_vec(), 5)] {
        let before = source.places_asked(&digest).len();
        source.blobs.lock().unwrap().insert(digest, lie.into());
        let mut client = Client::connect(&through, &access).await;
        let (_, got) = client.whole(&digest).await.unwrap_err();
        assert!(got < SIZE, "the last byte was passed on");
        assert_eq!(source.places_asked(&digest).len() - before, tries);
        let why = access.failure().unwrap();
        let is_told = matches!(why, Error::WrongDigest { .. } | Error::WrongSize { .. });
        assert!(is_told, "{why}");
        assert!(!cached(folder.path(), &digest).exists());
    }
    source
        .blobs
        .lock()
        .unwrap()
        .insert(digest, layer.clone().into());
    let mut client = Client::connect(&through, &access).await;
    assert!(client.whole(&digest).await.unwrap() == layer);
    assert!(fs::read(cached(folder.path(), &digest)).unwrap() == layer);
}

#[tokio::test]
async fn a_manifest_that_is_not_the_one_asked_for_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let source = Arc::new(Scripted::with_image(&[b"layer"]));
    let wanted = Digest::of(b"wanted");
    let other = source.manifests.lock().unwrap()["v1"].clone();
    source.tag(&wanted.to_string(), &other);
    let through = PullThrough::new(store(folder.path()), None);
    let reference = Reference::Digest(wanted);
    let error = through.add(NAME, source, &reference).await.unwrap_err();
    assert!(matches!(error, Error::WrongDigest { .. }), "{error}");
    assert!(!cached(folder.path(), &wanted).exists());
}

#[tokio::test]
async fn what_a_crash_left_is_gone_on_with_if_it_is_right() {
    let layer = noise(SIZE, 5);
    let digest = Digest::of(&layer);
    let mut wrong = layer.clone();
    wrong[7] ^= 1;
    let zeros = vec![0; SIZE];
    let too_long = [zeros.as_slice(), b"x"].concat();
    // What lies in the cache, and where the source is asked to go on: at first, and after the first failed.
    let cases: [(&[u8], Option<u64>, Option<u64>); 7] = [
        (&layer[..1], Some(1), None),
        (&layer[..SIZE - 1], Some(SIZE as u64 - 1), None),
        (&layer, None, None),
        (&wrong[..SIZE / 2], Some(SIZE as u64 / 2), Some(0)),
        (&wrong, None, Some(0)),
        (&zeros, None, Some(0)),
        (&too_long, None, Some(0)),
    ];
    for (left, at_first, then) in cases {
        let folder = tempfile::tempdir().unwrap();
        let source = Arc::new(Scripted::with_image(&[&layer]));
        let (through, _) = serving(folder.path(), &source).await;
        fs::write(cached(folder.path(), &digest), left).unwrap();
        let access = access();
        let mut client = Client::connect(&through, &access).await;
        let got = client.whole(&digest).await;
        assert_eq!(got.is_ok(), then.is_none(), "{} bytes", left.len());
        if then.is_some() {
            let mut client = Client::connect(&through, &access).await;
            assert!(client.whole(&digest).await.unwrap() == layer);
        }
        let asked: Vec<u64> = at_first.into_iter().chain(then).collect();
        assert_eq!(source.places_asked(&digest), asked, "{} bytes", left.len());
        assert!(fs::read(cached(folder.path(), &digest)).unwrap() == layer);
    }
}

/// Locks belong to open files, so two caches on one directory are to each other as those of two processes are.
#[tokio::test]
async fn a_second_process_follows_the_first_and_takes_over_when_it_dies() {
    let folder = tempfile::tempdir().unwrap();
    let layer = noise(SIZE, 6);
    let digest = Digest::of(&layer);
    let sources = [(); 2].map(|()| Arc::new(Scripted::with_image(&[&layer])));
    let (first_process, _) = serving(folder.path(), &sources[0]).await;
    let (second_process, _) = serving(folder.path(), &sources[1]).await;
    sources[0].gate.send_replace(SIZE / 2);
    let mut client = Client::connect(&first_process, &access()).await;
    let mut body = client.blob(&digest).await.into_body();
    first(&mut body, SIZE / 2 - sources[0].chunk).await;
    let mut follower = Client::connect(&second_process, &access()).await;
    let mut following = follower.blob(&digest).await.into_body();
    let mut got = first(&mut following, SIZE / 2 - sources[0].chunk).await;
    assert!(sources[1].places_asked(&digest).is_empty());
    drop((client, body, first_process));
    got.extend_from_slice(&following.collect().await.unwrap().to_bytes());
    assert!(got == layer);
    let asked = sources[1].places_asked(&digest);
    assert!(
        matches!(asked[..], [place] if place >= (SIZE / 2 - sources[0].chunk) as u64),
        "{asked:?}"
    );
    let (third_process, _) = serving(folder.path(), &sources[0]).await;
    let mut client = Client::connect(&third_process, &access()).await;
    assert!(client.whole(&digest).await.unwrap() == layer);
    assert_eq!(sources[0].places_asked(&digest), [0]);
    assert_eq!(third_process.counters().fetched, 0);
}

#[tokio::test]
async fn an_archive_is_served_in_place_and_checked_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let layer = noise(SIZE, 7);
    let digest = Digest::of(&layer);
    let scripted = Scripted::with_image(&[&layer]);
    let manifest = scripted.manifests.lock().unwrap()["v1"].clone();
    let layout = folder.path().join("layout");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"digest":"{}","size":{}}}]}}"#,
        Digest::of(&manifest),
        manifest.len(),
    );
    fs::write(layout.join("index.json"), index).unwrap();
    fs::write(blobs.join(Digest::of(&manifest).hex()), &manifest).unwrap();
    fs::write(blobs.join(digest.hex()), &layer).unwrap();
    let cache = folder.path().join("cache");
    let through = PullThrough::new(store(&cache), None);
    let archive =
        Arc::new(pull_through::Archive::open(&layout, pull_through::Form::OciDirectory).unwrap());
    let named = Reference::Tag("r.example/app:v1".into());
    through.add(NAME, archive, &named).await.unwrap();
    let mut client = Client::connect(&through, &access()).await;
    assert!(client.whole(&digest).await.unwrap() == layer);
    assert_eq!(through.counters().fetched, 0);
    assert!(!cached(&cache, &digest).exists());
    // The file is changed, and then cut.
    let mut changed = layer.clone();
    changed[1] ^= 1;
    for damaged in [changed.as_slice(), &layer[1..]] {
        fs::write(blobs.join(digest.hex()), damaged).unwrap();
        let through = PullThrough::new(store(&cache), None);
        let archive = Arc::new(
            pull_through::Archive::open(&layout, pull_through::Form::OciDirectory).unwrap(),
        );
        through.add(NAME, archive, &named).await.unwrap();
        let access = access();
        let mut client = Client::connect(&through, &access).await;
        // It may be any file, so no byte of it is passed on before the digest fits.
        let (status, _) = client.whole(&digest).await.unwrap_err();
        assert_eq!(status, StatusCode::BAD_GATEWAY);
        assert_eq!(access.usage().sent, 0);
        assert!(access.failure().is_some());
        assert!(
            blobs.join(digest.hex()).exists(),
            "an archive is never changed"
        );
    }
}

#[tokio::test]
async fn the_cache_keeps_its_size_and_what_this_run_needs() {
    let folder = tempfile::tempdir().unwrap();
    let layers = [10, 11, 12].map(|seed| noise(SIZE, seed));
    let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    let source = Arc::new(Scripted::with_image(&layers));
    let room = 2 * SIZE as u64 + SIZE as u64 / 2;
    let serve_all = async || {
        let store = pull_through::Store::open(folder.path(), room).unwrap();
        let through = PullThrough::new(store, None);
        let tag = Reference::Tag("v1".into());
        let source = Arc::clone(&source) as Arc<dyn Source>;
        through.add(NAME, source, &tag).await.unwrap();
        let mut client = Client::connect(&through, &access()).await;
        for layer in &layers {
            assert!(client.whole(&Digest::of(layer)).await.unwrap() == *layer);
        }
        through
    };
    let through = serve_all().await;
    // All three are in use, and more than there is room for.
    let are_there = || {
        let mut paths = layers
            .iter()
            .map(|layer| cached(folder.path(), &Digest::of(layer)));
        paths.all(|path| path.exists())
    };
    assert!(are_there());
    drop(through);
    let fetch_another = async |seed| {
        let other = noise(SIZE, seed);
        let source = Arc::new(Scripted::with_image(&[&other]));
        let store = pull_through::Store::open(folder.path(), room).unwrap();
        let through = PullThrough::new(store, None);
        let tag = Reference::Tag("v1".into());
        through.add(NAME, source, &tag).await.unwrap();
        let mut client = Client::connect(&through, &access()).await;
        assert!(client.whole(&Digest::of(&other)).await.unwrap() == other);
    };
    // They were in the cache already, and another process needs room while they are in use.
    let through = serve_all().await;
    assert_eq!(through.counters().fetched, 0);
    until(|| {
        layers
            .iter()
            .all(|layer| is_locked(&cached(folder.path(), &Digest::of(layer))))
    })
    .await;
    fetch_another(13).await;
    assert!(are_there());
    drop(through);
    fetch_another(14).await;
    let length = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().metadata().unwrap().len();
    let all: u64 = fs::read_dir(folder.path().join("sha256"))
        .unwrap()
        .map(length)
        .sum();
    assert!(all <= room, "{all}");
}

fn is_locked(path: &Path) -> bool {
    let file = fs::File::open(path).unwrap();
    matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock))
}

/// Waits for a condition that another task brings about.
async fn until(mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let limit = std::time::Duration::from_secs(60);
    tokio::time::timeout(limit, waiting)
        .await
        .expect("it did not come about");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn every_reader_gets_its_part_however_the_source_behaves(
        size in 1usize..300_000, chunk in 1usize..50_000, left in 0usize..300_000,
        breaks in proptest::collection::vec(0usize..200_000, 0..4),
        parts in proptest::collection::vec((0usize..300_000, 0usize..300_000), 1..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let layer = noise(size, size as u64);
            let digest = Digest::of(&layer);
            let mut source = Scripted::with_image(&[&layer]);
            source.chunk = chunk;
            let reset = |after: usize| (after, SourceError::temporary("reset"));
            *source.breaks.lock().unwrap() = breaks.into_iter().map(reset).collect();
            let source = Arc::new(source);
            let (through, _) = serving(folder.path(), &source).await;
            fs::write(cached(folder.path(), &digest), &layer[..left.min(size)]).unwrap();
            let mut reading = Vec::new();
            for (a, b) in parts {
                let (first, last) = (a.min(b).min(size - 1), a.max(b).min(size - 1));
                let mut client = Client::connect(&through, &access()).await;
                let wanted = layer[first..=last].to_vec();
                reading.push(tokio::spawn(async move {
                    let path = format!("/v2/{NAME}/blobs/{digest}");
                    let range = format!("bytes={first}-{last}");
                    let headers = [("authorization", &*login()), ("range", &range)];
                    let answer = client.ask("GET", &path, &headers).await;
                    let got = answer.into_body().collect().await.unwrap().to_bytes();
                    assert!(got == wanted);
                }));
            }
            for reader in reading {
                reader.await.unwrap();
            }
        });
    }
}
