//! The client against a scripted registry on this machine, without TLS. `tests/pull_through.rs` has a real one.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use futures::TryStreamExt as _;
use futures::future::BoxFuture;
use pull_through::{Digest, Reference, Source as _, SourceError};

use super::{LoginRenewal, Registries, RegistrySource, contents};
use crate::model::{
    Credential, LoginSource, Manifest, Mirror, PlannedImage, RegistryLogin, Secret,
};

const IMAGE: &str = r#"{"schemaVersion":2,"config":{"digest":"sha256:c","size":9},
    "layers":[{"digest":"sha256:a","size":100},{"digest":"sha256:b","size":20}]}"#;
const INDEX: &str = r#"{"schemaVersion":2,"manifests":[
    {"digest":"sha256:1","size":5,"platform":{"os":"linux","architecture":"amd64"}},
    {"digest":"sha256:2","size":5,"platform":{"os":"linux","architecture":"arm64","variant":"v8"}},
    {"digest":"sha256:3","size":5,"platform":{"os":"unknown","architecture":"unknown"}}]}"#;

/// A request's path and login, and the answer: status line, headers, body.
type Script = HashMap<(&'static str, Option<&'static str>), (&'static str, String, &'static str)>;

/// What was asked: each path, with the login that came along.
type Asked = Arc<Mutex<Vec<String>>>;

async fn registry(script: impl FnOnce(&str) -> Script) -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let asked = Asked::default();
    let (script, seen) = (Arc::new(script(&host)), Arc::clone(&asked));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(answer(stream, Arc::clone(&script), Arc::clone(&seen)));
        }
    });
    (host, asked)
}

async fn answer(mut stream: TcpStream, script: Arc<Script>, asked: Asked) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        // A TLS greeting is not understood here.
        if stream.read(&mut byte).await.unwrap_or(0) == 0 || byte[0] == 0x16 {
            return;
        }
        request.push(byte[0]);
    }
    let request = String::from_utf8(request).unwrap();
    let path = request.split(' ').nth(1).unwrap();
    let login = request
        .lines()
        .find_map(|line| line.strip_prefix("authorization: "));
    let length = request
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut form = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut form).await.unwrap();
    let form = String::from_utf8(form).unwrap();
    let shown = format!("{path} {}{form}", login.unwrap_or("-"));
    asked.lock().unwrap().push(shown);
    let times = asked.lock().unwrap().len();
    let missing = ("404 Not Found", String::new(), "");
    let range = request
        .lines()
        .find_map(|line| line.strip_prefix("range: "));
    let part = format!("{path} {}", range.unwrap_or_default());
    let found = script.get(&(&*part, login));
    let mut found = found.or(script.get(&(path, login))).unwrap_or(&missing);
    if times > 1 && found.0.starts_with("429") {
        found = &script[&("again", None)];
    }
    let (status, headers, body) = found;
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).await.unwrap();
}

async fn ask(
    host: &str,
    password: Option<&str>,
    platform: Option<&str>,
) -> Result<Vec<Manifest>, String> {
    let login = password.map(|password| RegistryLogin::Password {
        username: "ci".into(),
        password: Secret::new(password),
    });
    ask_with(host, login, platform, &[]).await
}

async fn ask_with(
    host: &str,
    login: Option<RegistryLogin>,
    platform: Option<&str>,
    mirrors: &[Mirror],
) -> Result<Vec<Manifest>, String> {
    let planned = PlannedImage {
        image: format!("{host}/team/app:v1").parse().unwrap(),
        login: login.map(|login| Credential {
            login,
            source: LoginSource::Prompt,
        }),
    };
    let limit = Duration::from_secs(60);
    let nowhere = Path::new("/nonexistent");
    let answers = contents(&[planned], platform, mirrors, nowhere, limit, false).await;
    let [answer] = answers.try_into().unwrap();
    answer.map_err(|error| error.to_string())
}

fn ok(body: &'static str) -> (&'static str, String, &'static str) {
    ("200 OK", String::new(), body)
}

const BASIC: &str = "Basic Y2k6cHc=";

#[tokio::test]
async fn a_registry_with_a_plain_login_is_shown_it_once_it_asks() {
    let (host, asked) = registry(|_| {
        let challenge = "WWW-Authenticate: Basic realm=\"lab\"\r\n".to_string();
        Script::from([
            (
                ("/v2/team/app/manifests/v1", None),
                ("401 Unauthorized", challenge, "{}"),
            ),
            (("/v2/team/app/manifests/v1", Some(BASIC)), ok(IMAGE)),
        ])
    })
    .await;
    let manifests = ask(&host, Some("pw"), None).await.unwrap();
    let sizes: Vec<u64> = manifests[0]
        .layers
        .iter()
        .map(|layer| layer.bytes)
        .collect();
    assert_eq!((manifests.len(), sizes), (1, vec![100, 20]));
    assert_eq!(asked.lock().unwrap().len(), 2);
    let error = ask(&host, None, None).await.unwrap_err();
    assert_eq!(error, format!("{host} wants a login, and none was given"));
    let error = ask(&host, Some("other"), None).await.unwrap_err();
    assert!(error.ends_with("answers 404 Not Found"), "{error}");
}

#[tokio::test]
async fn the_digests_of_unpacked_layers_are_asked_for_where_they_are_wanted() {
    let configuration = r#"{"rootfs":{"type":"layers","diff_ids":["sha256:x","sha256:y"]}}"#;
    let (host, asked) = registry(|_| {
        Script::from([
            (("/v2/team/app/manifests/v1", None), ok(IMAGE)),
            (("/v2/team/app/blobs/sha256:c", None), ok(configuration)),
        ])
    })
    .await;
    let planned = PlannedImage {
        image: format!("{host}/team/app:v1").parse().unwrap(),
        login: None,
    };
    let limit = Duration::from_secs(60);
    for (wanted, found, requests) in [(false, 0, 1), (true, 2, 3)] {
        let images = std::slice::from_ref(&planned);
        let asking = contents(images, None, &[], Path::new("/nonexistent"), limit, wanted);
        let answer = asking.await.remove(0).unwrap();
        assert_eq!(answer[0].diff_ids.len(), found);
        assert_eq!(asked.lock().unwrap().len(), requests);
    }
}

#[tokio::test]
async fn a_token_is_fetched_once_and_serves_for_all_manifests_of_an_image() {
    let (host, asked) = registry(|host| {
        let challenge = format!(
            "WWW-Authenticate: Bearer realm=\"http://{host}/token\",service=\"a b\",scope=\"repository:team/app:pull\"\r\n"
        );
        let token = "/token?service=a%20b&scope=repository%3Ateam%2Fapp%3Apull";
        Script::from([
            (("/v2/team/app/manifests/v1", None), ("401 Unauthorized", challenge, "{}")),
            ((token, Some(BASIC)), ok(r#"{"access_token":"t0k"}"#)),
            (("/v2/team/app/manifests/v1", Some("Bearer t0k")), ok(INDEX)),
            (("/v2/team/app/manifests/sha256:1", Some("Bearer t0k")), ok(IMAGE)),
            (("/v2/team/app/manifests/sha256:2", Some("Bearer t0k")), ok(r#"{"layers":[]}"#)),
        ])
    })
    .await;
    let manifests = ask(&host, Some("pw"), None).await.unwrap();
    let platforms: Vec<String> = manifests
        .iter()
        .map(|manifest| manifest.platform.as_ref().unwrap().1.clone())
        .collect();
    assert_eq!(platforms, ["amd64", "arm64"]);
    assert_eq!(
        asked.lock().unwrap().len(),
        5,
        "{:?}",
        asked.lock().unwrap()
    );
    let one = ask(&host, Some("pw"), Some("linux/arm64/v8"))
        .await
        .unwrap();
    assert_eq!(one.len(), 1);
    let none = ask(&host, Some("pw"), Some("linux/s390x")).await.unwrap();
    assert_eq!(none, []);
}

#[tokio::test]
async fn a_redirect_is_followed_without_the_login() {
    let (other, asked_there) = registry(|_| {
        let challenge = "WWW-Authenticate: Basic realm=\"thief\"\r\n".to_string();
        Script::from([
            (("/here", None), ok(IMAGE)),
            (("/thief", None), ("401 Unauthorized", challenge, "")),
        ])
    })
    .await;
    let (host, _) = registry(|_| {
        let challenge = "WWW-Authenticate: Basic realm=\"lab\"\r\n".to_string();
        Script::from([
            (
                ("/v2/team/app/manifests/v1", None),
                ("401 Unauthorized", challenge, ""),
            ),
            (
                ("/v2/team/app/manifests/v1", Some(BASIC)),
                (
                    "307 Temporary Redirect",
                    format!("Location: http://{other}/here\r\n"),
                    "",
                ),
            ),
        ])
    })
    .await;
    assert_eq!(ask(&host, Some("pw"), None).await.unwrap().len(), 1);
    let (host, _) = registry(|_| {
        let location = format!("Location: http://{other}/thief\r\n");
        Script::from([(
            ("/v2/team/app/manifests/v1", None),
            ("302 Found", location, ""),
        )])
    })
    .await;
    let error = ask(&host, Some("pw"), None).await.unwrap_err();
    assert!(
        error.contains("wants a login, and none was given"),
        "{error}"
    );
    assert_eq!(*asked_there.lock().unwrap(), ["/here -", "/thief -"]);
}

#[tokio::test]
async fn a_pause_that_is_asked_for_is_kept_and_a_long_one_is_told() {
    let (host, asked) = registry(|_| {
        let short = "Retry-After: 1\r\n".to_string();
        Script::from([
            (
                ("/v2/team/app/manifests/v1", None),
                ("429 Too Many Requests", short, ""),
            ),
            (("again", None), ok(IMAGE)),
        ])
    })
    .await;
    let began = Instant::now();
    assert_eq!(ask(&host, None, None).await.unwrap().len(), 1);
    assert!(began.elapsed().as_millis() >= 1000);
    assert_eq!(asked.lock().unwrap().len(), 2);
    let (host, _) = registry(|_| {
        let long = "Retry-After: 7200\r\n".to_string();
        Script::from([(
            ("/v2/team/app/manifests/v1", None),
            ("429 Too Many Requests", long, ""),
        )])
    })
    .await;
    let error = ask(&host, None, None).await.unwrap_err();
    assert!(
        error.ends_with("answers 429 Too Many Requests and wants to be left alone for 2h"),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_no_manifest_is_told_and_nothing_else_happens() {
    for (body, expected) in [
        ("<html>", "it answered no manifest"),
        (
            r#"{"schemaVersion":1,"fsLayers":[]}"#,
            "a format before docker 1.10",
        ),
    ] {
        let (host, _) =
            registry(|_| Script::from([(("/v2/team/app/manifests/v1", None), ok(body))])).await;
        let error = ask(&host, None, None).await.unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    let error = ask("127.0.0.1:1", None, None).await.unwrap_err();
    assert!(
        error.contains("cannot reach 127.0.0.1:1 from here: "),
        "{error}"
    );
}

#[tokio::test]
async fn what_a_log_in_left_buys_a_token_and_an_access_token_is_one() {
    let (host, asked) = registry(|host| {
        let challenge =
            format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\",service=\"s\"\r\n");
        Script::from([
            (
                ("/v2/team/app/manifests/v1", None),
                ("401 Unauthorized", challenge, "{}"),
            ),
            (("/token", None), ok(r#"{"token":"t0k"}"#)),
            (("/v2/team/app/manifests/v1", Some("Bearer t0k")), ok(IMAGE)),
        ])
    })
    .await;
    let bought = RegistryLogin::IdentityToken {
        username: String::new(),
        token: Secret::new("left+over"),
    };
    assert_eq!(
        ask_with(&host, Some(bought), None, &[])
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        asked.lock().unwrap()[1],
        "/token -grant_type=refresh_token&client_id=prepull&refresh_token=left%2Bover&service=s"
    );
    let ready = RegistryLogin::RegistryToken(Secret::new("t0k"));
    assert_eq!(
        ask_with(&host, Some(ready), None, &[]).await.unwrap().len(),
        1
    );
    assert_eq!(
        asked.lock().unwrap().len(),
        5,
        "{:?}",
        asked.lock().unwrap()
    );
}

/// Images of one registry, asked for within `limit`.
async fn ask_for_many(host: &str, images: usize, limit: Duration) -> Vec<String> {
    let planned = |number| PlannedImage {
        image: format!("{host}/app{number}:v1").parse().unwrap(),
        login: None,
    };
    let planned: Vec<PlannedImage> = (0..images).map(planned).collect();
    let nowhere = Path::new("/nonexistent");
    let answers = contents(&planned, None, &[], nowhere, limit, false).await;
    let why = |answer: Result<_, super::RegistryError>| answer.unwrap_err().to_string();
    answers.into_iter().map(why).collect()
}

/// A listener that counts who connects and hands each connection to `serve`.
async fn counted(serve: fn(TcpStream, &mut Vec<TcpStream>)) -> (String, Arc<Mutex<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let connections = Arc::new(Mutex::new(0));
    let seen = Arc::clone(&connections);
    tokio::spawn(async move {
        let mut kept = Vec::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            *seen.lock().unwrap() += 1;
            serve(stream, &mut kept);
        }
    });
    (host, connections)
}

#[tokio::test]
async fn a_registry_that_cannot_be_reached_is_asked_once_for_all_its_images() {
    let (host, connections) = counted(|stream, _| drop(stream)).await;
    let answers = ask_for_many(&host, 32, Duration::from_secs(60)).await;
    let unreached = |why: &String| why.starts_with(&format!("cannot reach {host} from here: "));
    assert!(answers.iter().all(unreached), "{answers:?}");
    // Once with TLS and once without, as it is on this machine.
    assert_eq!(*connections.lock().unwrap(), 2);
    // An unknown name is looked up once: a resolver may take seconds for each.
    let began = Instant::now();
    let answers = ask_for_many("registry.invalid", 32, Duration::from_secs(60)).await;
    let unknown = |why: &String| why.starts_with("cannot reach registry.invalid from here: ");
    assert!(answers.iter().all(unknown), "{answers:?}");
    assert!(began.elapsed() < Duration::from_secs(50));
}

#[tokio::test]
async fn a_registry_that_wants_to_be_left_alone_is_left_alone() {
    let (host, asked) = registry(|_| {
        let long = "Retry-After: 7200\r\n".to_string();
        let refusal = ("429 Too Many Requests", long, "");
        let paths = (0..32).map(|number| format!("/v2/app{number}/manifests/v1").leak() as &str);
        let paths = paths.chain(["again"]);
        paths.map(|path| ((path, None), refusal.clone())).collect()
    })
    .await;
    let answers = ask_for_many(&host, 32, Duration::from_secs(60)).await;
    let refused = |why: &String| why.ends_with("wants to be left alone for 2h");
    assert!(answers.iter().all(refused), "{answers:?}");
    let times = asked.lock().unwrap().len();
    assert!(
        times <= 4,
        "asked {times} times, though it was known after those that were asked at once"
    );
}

#[tokio::test]
async fn silence_costs_no_more_than_the_limit_for_all_images_together() {
    let (host, connections) = counted(|stream, kept| kept.push(stream)).await;
    let began = Instant::now();
    let answers = ask_for_many(&host, 32, Duration::from_millis(300)).await;
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    let silent = format!("{host} did not tell within 0.3s");
    assert_eq!(answers, vec![silent; 32]);
    assert!(
        *connections.lock().unwrap() <= 4,
        "those that were asked about when the time was up"
    );
}

#[tokio::test]
async fn a_login_goes_to_a_token_service_without_tls_on_this_machine_only() {
    let (host, asked) = registry(|host| {
        // An address that leads here and does not belong to this machine alone.
        let port = host.rsplit(':').next().unwrap();
        let challenge =
            format!("WWW-Authenticate: Bearer realm=\"http://0.0.0.0:{port}/token\"\r\n");
        Script::from([
            (
                ("/v2/team/app/manifests/v1", None),
                ("401 Unauthorized", challenge, "{}"),
            ),
            (("/token", None), ok(r#"{"token":"t0k"}"#)),
            (("/v2/team/app/manifests/v1", Some("Bearer t0k")), ok(IMAGE)),
        ])
    })
    .await;
    assert_eq!(ask(&host, Some("pw"), None).await.unwrap().len(), 1);
    assert_eq!(asked.lock().unwrap()[1], "/token -");
}

fn source(host: &str, password: Option<&str>, mirrors: &[Mirror]) -> RegistrySource {
    let image = format!("{host}/team/app:v1").parse().unwrap();
    let registries = Registries::new(Path::new("/nonexistent"));
    registries.source(&image, password.map(login), None, mirrors)
}

fn login(password: &str) -> RegistryLogin {
    RegistryLogin::Password {
        username: "ci".into(),
        password: Secret::new(password),
    }
}

/// A blob from this byte on.
async fn blob(source: &RegistrySource, digest: &Digest, from: u64) -> Result<String, SourceError> {
    let chunks = source.blob(digest, from).await?;
    let bytes: Vec<bytes::Bytes> = chunks.try_collect().await?;
    Ok(String::from_utf8(bytes.concat()).unwrap())
}

#[tokio::test]
async fn a_source_reads_blobs_from_any_byte_with_a_token_and_through_redirects() {
    let digest = Digest::of(b"0123456789");
    let path: &str = format!("/v2/team/app/blobs/{digest}").leak();
    let (store, asked_there) = registry(|_| {
        let part = "Content-Range: bytes 4-9/10\r\n".to_string();
        let other = "Content-Range: bytes 8-9/10\r\n".to_string();
        Script::from([
            (("/stored", None), ok("0123456789")),
            (
                ("/stored bytes=4-", None),
                ("206 Partial Content", part, "456789"),
            ),
            (("/stored bytes=5-", None), ok("0123456789")),
            (
                ("/stored bytes=6-", None),
                ("206 Partial Content", other, "89"),
            ),
        ])
    })
    .await;
    let (host, asked) = registry(|host| {
        let challenge = format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\"\r\n");
        let location = format!("Location: http://{store}/stored\r\n");
        let moved = ("307 Temporary Redirect", location, "");
        Script::from([
            ((path, None), ("401 Unauthorized", challenge, "{}")),
            (("/token", Some(BASIC)), ok(r#"{"token":"t0k"}"#)),
            ((path, Some("Bearer t0k")), moved),
            (("/v2/team/app/manifests/v1", Some("Bearer t0k")), ok(IMAGE)),
        ])
    })
    .await;
    let source = source(&host, Some("pw"), &[]);
    for (from, rest) in [(0, "0123456789"), (4, "456789"), (5, "56789")] {
        assert_eq!(
            blob(&source, &digest, from).await.unwrap(),
            rest,
            "from {from}"
        );
    }
    let error = blob(&source, &digest, 6).await.unwrap_err();
    assert!(error.message.contains("bytes 8-9/10"), "{error}");
    let tag = Reference::Tag("v1".into());
    assert_eq!(source.manifest(&tag).await.unwrap(), IMAGE);
    // The token was bought once, and the store never saw it.
    let tokens = asked
        .lock()
        .unwrap()
        .iter()
        .filter(|one| one.starts_with("/token"))
        .count();
    assert_eq!(tokens, 1);
    assert!(
        asked_there
            .lock()
            .unwrap()
            .iter()
            .all(|one| one == "/stored -")
    );
}

#[tokio::test]
async fn mirrors_are_asked_first_without_the_login_and_the_registry_for_what_they_lack() {
    let digest = Digest::of(b"blob");
    let blob_path = format!("/v2/team/app/blobs/{digest}");
    let (host, asked) = registry(|_| {
        let challenge = "WWW-Authenticate: Basic realm=\"lab\"\r\n".to_string();
        let path: &str = blob_path.clone().leak();
        Script::from([
            ((path, None), ("401 Unauthorized", challenge, "")),
            ((path, Some(BASIC)), ok("blob")),
        ])
    })
    .await;
    let ns = format!("?ns={}", host.replace(':', "%3A"));
    let (mirror, asked_there) = registry(|_| {
        let path: &str = format!("/v2/team/app/manifests/v1{ns}").leak();
        Script::from([((path, None), ok(IMAGE))])
    })
    .await;
    let elsewhere = format!("other.example={host}");
    let mirrors = ["127.0.0.1:1", &elsewhere, &mirror].map(|given| given.parse().unwrap());
    let source = source(&host, Some("pw"), &mirrors);
    let tag = Reference::Tag("v1".into());
    assert_eq!(source.manifest(&tag).await.unwrap(), IMAGE);
    assert!(asked.lock().unwrap().is_empty());
    assert_eq!(blob(&source, &digest, 0).await.unwrap(), "blob");
    let there = [
        format!("/v2/team/app/manifests/v1{ns} -"),
        format!("{blob_path}{ns} -"),
    ];
    assert_eq!(*asked_there.lock().unwrap(), there);

    // Sizes for a preflight come from there too.
    let manifests = ask_with(&host, Some(login("pw")), None, &mirrors).await;
    assert_eq!(manifests.unwrap().len(), 1);
    assert_eq!(asked.lock().unwrap().len(), 2);
}

/// Logins that are handed out one after the other.
struct Renewal(Mutex<Vec<RegistryLogin>>);

impl LoginRenewal for Renewal {
    fn instead_of<'a>(
        &'a self,
        _: &'a RegistryLogin,
    ) -> BoxFuture<'a, Result<Option<RegistryLogin>, String>> {
        let next = self.0.lock().unwrap().pop();
        let next = next.ok_or_else(|| "the helper is gone".to_string());
        Box::pin(std::future::ready(next.map(Some)))
    }
}

#[tokio::test]
async fn a_login_that_expires_while_a_source_is_read_is_renewed() {
    let digest = Digest::of(b"blob");
    let path: &str = format!("/v2/team/app/blobs/{digest}").leak();
    let (host, asked) = registry(|host| {
        let basic = "WWW-Authenticate: Basic realm=\"lab\"\r\n".to_string();
        let bearer = format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\"\r\n");
        let expired = ("403 Forbidden", String::new(), "{}");
        Script::from([
            // Behind a plain login, as in ECR.
            (
                ("/v2/team/app/manifests/v1", None),
                ("401 Unauthorized", basic, "{}"),
            ),
            (
                ("/v2/team/app/manifests/v1", Some("Basic Y2k6b2xk")),
                expired,
            ),
            (("/v2/team/app/manifests/v1", Some(BASIC)), ok(IMAGE)),
            (
                ("/v2/team/app/manifests/v1", Some("Bearer t0k")),
                ("403 Forbidden", String::new(), "{}"),
            ),
            // Behind a token service.
            ((path, None), ("401 Unauthorized", bearer.clone(), "{}")),
            ((path, Some(BASIC)), ("401 Unauthorized", bearer, "{}")),
            (
                ("/token", Some(BASIC)),
                ("401 Unauthorized", String::new(), "{}"),
            ),
            (("/token", Some("Basic Y2k6bmV3")), ok(r#"{"token":"t0k"}"#)),
            ((path, Some("Bearer t0k")), ok("blob")),
        ])
    })
    .await;
    let image = format!("{host}/team/app:v1").parse().unwrap();
    let renewal = Arc::new(Renewal(Mutex::new(vec![login("new"), login("pw")])));
    let registries = Registries::new(Path::new("/nonexistent"));
    let source = registries.source(&image, Some(login("old")), Some(renewal), &[]);
    let tag = Reference::Tag("v1".into());
    assert_eq!(source.manifest(&tag).await.unwrap(), IMAGE);
    assert_eq!(blob(&source, &digest, 0).await.unwrap(), "blob");
    // The last one is refused as well.
    let before = asked.lock().unwrap().len();
    let error = source
        .manifest(&Reference::Tag("v2".into()))
        .await
        .unwrap_err();
    assert!(error.message.ends_with("answers 404 Not Found"), "{error}");
    assert_eq!(asked.lock().unwrap().len(), before + 1);
    let error = source.manifest(&tag).await.unwrap_err();
    assert!(
        error
            .message
            .contains("a new login cannot be had: the helper is gone"),
        "{error}"
    );
}

#[tokio::test]
async fn a_source_tells_what_may_pass_from_what_does_not_and_asks_a_host_again() {
    let digest = Digest::of(b"blob");
    let (host, _) = registry(|_| {
        let busy = ("503 Service Unavailable", String::new(), "");
        let broken = ("200 OK", String::new(), "");
        let path: &str = format!("/v2/team/app/blobs/{digest}").leak();
        Script::from([
            (("/v2/team/app/manifests/busy", None), busy),
            (("/v2/team/app/manifests/v1", None), ok(IMAGE)),
            ((path, None), broken),
        ])
    })
    .await;
    let here = source(&host, None, &[]);
    let manifest = async |source: &RegistrySource, tag: &str| {
        source.manifest(&Reference::Tag(tag.into())).await
    };
    assert!(manifest(&here, "busy").await.unwrap_err().is_temporary);
    assert!(!manifest(&here, "missing").await.unwrap_err().is_temporary);
    assert_eq!(manifest(&here, "v1").await.unwrap(), IMAGE);
    let away = source("127.0.0.1:1", None, &[]);
    assert!(manifest(&away, "v1").await.unwrap_err().is_temporary);
    assert_eq!(blob(&here, &digest, 0).await.unwrap(), "");
}
