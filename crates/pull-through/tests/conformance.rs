//! Status codes and headers of the pull part of the OCI distribution specification, version 1.1.

#![allow(clippy::unwrap_used)] // a test file: a panic is a failed test

mod support;

use std::sync::Arc;

use http_body_util::BodyExt as _;
use pull_through::{Digest, PullThrough, Reference, Source};
use support::*;

/// Method, path, `Range`, and what is answered: status, body, and further headers.
type Row<'a> = (
    &'a str,
    String,
    &'a str,
    u16,
    &'a str,
    &'a [(&'a str, String)],
);

#[tokio::test]
async fn requests_are_answered_as_the_specification_says() {
    let folder = tempfile::tempdir().unwrap();
    let source = Arc::new(Scripted::with_image(&[b"0123456789", b""]));
    let (through, image) = serving(folder.path(), &source).await;
    let manifest = source.manifests.lock().unwrap()["v1"].clone();
    let manifest = std::str::from_utf8(&manifest).unwrap();
    let (layer, empty, other) = (
        Digest::of(b"0123456789"),
        Digest::of(b""),
        Digest::of(b"other"),
    );
    let top = image.digest;
    let kind = (
        "content-type",
        "application/vnd.oci.image.manifest.v1+json".to_string(),
    );
    let of_manifest = [
        kind,
        ("docker-content-digest", top.to_string()),
        ("content-length", manifest.len().to_string()),
    ];
    let of_layer = |length: &str| {
        [
            ("content-type", "application/octet-stream".to_string()),
            ("docker-content-digest", layer.to_string()),
            ("content-length", length.to_string()),
            ("accept-ranges", "bytes".to_string()),
        ]
    };
    let (whole, part) = (of_layer("10"), of_layer("3"));
    let range = |text: &str| [("content-range", text.to_string())];
    let (middle, end, none) = (
        range("bytes 2-4/10"),
        range("bytes 7-9/10"),
        range("bytes */10"),
    );
    let read_only = [("allow", "GET, HEAD".to_string())];
    let manifests = |reference: &str| format!("/v2/{NAME}/manifests/{reference}");
    let blobs = |digest: &str| format!("/v2/{NAME}/blobs/{digest}");
    let layer_path = blobs(&layer.to_string());
    let (top, other) = (top.to_string(), other.to_string());
    let rows: Vec<Row> = vec![
        ("GET", "/v2/".into(), "", 200, "{}", &[]),
        ("HEAD", "/v2/".into(), "", 200, "", &[]),
        ("GET", manifests(&top), "", 200, manifest, &of_manifest),
        ("HEAD", manifests(&top), "", 200, "", &of_manifest),
        ("GET", manifests("v1"), "", 200, manifest, &of_manifest),
        ("HEAD", manifests("v1"), "", 200, "", &of_manifest),
        (
            "GET",
            format!("{}?ns=docker.io", manifests("v1")),
            "",
            200,
            manifest,
            &of_manifest,
        ),
        ("GET", layer_path.clone(), "", 200, "0123456789", &whole),
        ("HEAD", layer_path.clone(), "", 200, "", &whole),
        ("GET", blobs(&empty.to_string()), "", 200, "", &[]),
        ("GET", layer_path.clone(), "bytes=2-4", 206, "234", &part),
        ("GET", layer_path.clone(), "bytes=2-4", 206, "234", &middle),
        ("HEAD", layer_path.clone(), "bytes=2-4", 206, "", &middle),
        ("GET", layer_path.clone(), "bytes=-3", 206, "789", &end),
        ("GET", layer_path.clone(), "bytes=7-", 206, "789", &end),
        (
            "GET",
            layer_path.clone(),
            "bytes=10-",
            416,
            "SIZE_INVALID",
            &none,
        ),
        (
            "GET",
            layer_path.clone(),
            "bytes=0-1,4-5",
            200,
            "0123456789",
            &whole,
        ),
        (
            "GET",
            layer_path.clone(),
            "lines=0-1",
            200,
            "0123456789",
            &whole,
        ),
        ("GET", manifests("v2"), "", 404, "MANIFEST_UNKNOWN", &[]),
        ("HEAD", manifests("v2"), "", 404, "", &[]),
        ("GET", manifests(&other), "", 404, "MANIFEST_UNKNOWN", &[]),
        (
            "GET",
            manifests(&layer.to_string()),
            "",
            404,
            "MANIFEST_UNKNOWN",
            &[],
        ),
        ("GET", blobs(&other), "", 404, "BLOB_UNKNOWN", &[]),
        ("HEAD", blobs(&other), "", 404, "", &[]),
        ("GET", blobs(&top), "", 404, "BLOB_UNKNOWN", &[]),
        (
            "GET",
            layer_path.replace(NAME, "team/other"),
            "",
            404,
            "NAME_UNKNOWN",
            &[],
        ),
        (
            "GET",
            manifests("sha256:00"),
            "",
            400,
            "DIGEST_INVALID",
            &[],
        ),
        ("GET", blobs("v1"), "", 400, "DIGEST_INVALID", &[]),
        (
            "GET",
            format!("/v2/{NAME}/tags/list"),
            "",
            404,
            "UNSUPPORTED",
            &[],
        ),
        ("GET", "/v2/_catalog".into(), "", 404, "UNSUPPORTED", &[]),
        ("GET", "/".into(), "", 404, "UNSUPPORTED", &[]),
        ("PUT", manifests("v1"), "", 405, "UNSUPPORTED", &read_only),
        (
            "POST",
            format!("/v2/{NAME}/blobs/uploads/"),
            "",
            405,
            "UNSUPPORTED",
            &read_only,
        ),
        (
            "DELETE",
            layer_path.clone(),
            "",
            405,
            "UNSUPPORTED",
            &read_only,
        ),
    ];
    let access = access();
    let mut client = Client::connect(&through, &access).await;
    for (method, path, range, status, body, headers) in rows {
        let row = format!("{method} {path} {range}");
        let (login, mut asked) = (login(), Vec::new());
        asked.push(("authorization", login.as_str()));
        if !range.is_empty() {
            asked.push(("range", range));
        }
        let answer = client.ask(method, &path, &asked).await;
        assert_eq!(answer.status().as_u16(), status, "{row}");
        let api = answer
            .headers()
            .get("docker-distribution-api-version")
            .unwrap();
        assert_eq!(api, "registry/2.0");
        for (name, value) in headers {
            assert_eq!(
                answer.headers().get(*name).unwrap(),
                value.as_str(),
                "{row}: {name}"
            );
        }
        let got = answer.into_body().collect().await.unwrap().to_bytes();
        let got = std::str::from_utf8(&got).unwrap();
        if status >= 400 && method != "HEAD" {
            assert!(
                got.contains(&format!("\"code\":\"{body}\"")),
                "{row}: {got}"
            );
        } else {
            assert_eq!(got, body, "{row}");
        }
    }
    assert_eq!(source.places_asked(&layer), [0]);
}

#[tokio::test]
async fn without_the_login_everything_is_401() {
    let folder = tempfile::tempdir().unwrap();
    let source = Arc::new(Scripted::with_image(&[b"layer"]));
    let (through, image) = serving(folder.path(), &source).await;
    let access = access();
    let mut client = Client::connect(&through, &access).await;
    let paths = [
        "/v2/".to_string(),
        format!("/v2/{NAME}/manifests/{}", image.digest),
        format!("/v2/{NAME}/blobs/{}", Digest::of(b"layer")),
        "/other".to_string(),
    ];
    for path in &paths {
        for method in ["GET", "HEAD", "PUT"] {
            for headers in [&[][..], &[("authorization", "Basic bm9kZTpvdGhlcg==")]] {
                let answer = client.ask(method, path, headers).await;
                assert_eq!(answer.status(), 401, "{method} {path}");
                let wanted = answer.headers().get("www-authenticate").unwrap();
                assert!(wanted.to_str().unwrap().starts_with("Basic realm="));
                answer.into_body().collect().await.unwrap();
            }
        }
    }
    let usage = access.usage();
    assert_eq!((usage.requests, usage.refused, usage.sent), (0, 12, 0));
    assert_eq!(source.asked.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn an_index_is_served_with_its_manifests_and_a_blob_may_be_asked_for_first() {
    let folder = tempfile::tempdir().unwrap();
    let source = Arc::new(Scripted::default());
    let amd = source.add_image(&[b"for amd64"]);
    let arm = source.add_image(&[b"for arm64"]);
    let child = |manifest: &[u8], machine: &str| {
        let (digest, size) = (Digest::of(manifest), manifest.len());
        format!(
            r#"{{"digest":"{digest}","size":{size},"platform":{{"os":"linux","architecture":"{machine}"}}}}"#
        )
    };
    let gone = child(b"never pushed", "s390x");
    let children = format!("{},{gone},{}", child(&amd, "amd64"), child(&arm, "arm64"));
    let index = source.add_manifest(format!(r#"{{"schemaVersion":2,"manifests":[{children}]}}"#));
    let reference = Reference::Digest(Digest::of(&index));
    let add = |through: &PullThrough| {
        let through = through.clone();
        let (source, reference) = (Arc::clone(&source) as Arc<dyn Source>, reference.clone());
        async move { through.add(NAME, source, &reference).await.unwrap() }
    };
    let through = PullThrough::new(store(folder.path()), None);
    let image = add(&through).await;
    assert_eq!(image.media_type, "application/vnd.oci.image.index.v1+json");
    let mut client = Client::connect(&through, &access()).await;
    assert_eq!(
        client.whole(&Digest::of(b"for arm64")).await.unwrap(),
        "for arm64"
    );
    let path = format!("/v2/{NAME}/manifests/{}", Digest::of(&arm));
    let answer = client.get(&path).await;
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), arm);
    let contents = through.contents(&image, |platform| platform.architecture == "amd64");
    let contents = contents.await.unwrap();
    assert_eq!(contents.len(), 1);
    assert_eq!(contents[0].manifest, Digest::of(&amd));
    assert_eq!(contents[0].layers[0].digest, Digest::of(b"for amd64"));
    // Each manifest was asked for once, and a later run finds them all in the cache.
    let asked = source.manifests_asked.lock().unwrap().len();
    assert_eq!(asked, 4);
    let later = PullThrough::new(store(folder.path()), None);
    let image = add(&later).await;
    let contents = later
        .contents(&image, |platform| platform.architecture != "s390x")
        .await;
    assert_eq!(contents.unwrap().len(), 2);
    assert_eq!(source.manifests_asked.lock().unwrap().len(), asked);
}
