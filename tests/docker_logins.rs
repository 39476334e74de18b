//! docker itself as the oracle: which login its client sends for an image, and which one prepull finds.
//!
//! The daemon is made up: it answers a pull with success and keeps the login that came with it.

#![allow(clippy::unwrap_used, clippy::panic)] // a test file: a panic is a failed test

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use proptest::prelude::*;
use proptest::sample::subsequence;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

/// User, password, identity token and registry token; what is not there is empty.
type Login = [String; 4];

struct Daemon {
    address: SocketAddr,
    seen: Arc<Mutex<Option<Login>>>,
}

impl Daemon {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(None));
        let kept = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that hangs up has what it wants.
                let _ = answer(&stream.unwrap(), &kept);
            }
        });
        Self { address, seen }
    }

    /// The login that docker's client sends with a pull.
    fn login(&self, folder: &Path, image: &str) -> Login {
        *self.seen.lock().unwrap() = None;
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
        let output = Command::new("docker")
            .args([
                "-H",
                &format!("tcp://{}", self.address),
                "pull",
                "-q",
                image,
            ])
            .env("DOCKER_CONFIG", folder)
            .env("PATH", path)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let seen = self.seen.lock().unwrap().take();
        seen.unwrap_or_else(|| panic!("docker did not ask for {image}: {output:?}"))
    }
}

fn answer(stream: &TcpStream, seen: &Mutex<Option<Login>>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap_or(Ok(String::new()))?;
    let mut auth = String::new();
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("x-registry-auth")
        {
            auth = value.to_string();
        }
    }
    let mut body = "OK";
    if first.contains("/images/create") {
        let sent: Value =
            serde_json::from_slice(&URL_SAFE.decode(auth).unwrap()).unwrap_or_default();
        let field = |name: &str| sent[name].as_str().unwrap_or_default().to_string();
        *seen.lock().unwrap() =
            Some(["username", "password", "identitytoken", "registrytoken"].map(field));
        body = "{\"status\":\"done\"}\n";
    }
    let body = if first.starts_with("HEAD") { "" } else { body };
    let head = "HTTP/1.1 200 OK\r\nApi-Version: 1.40\r\nOstype: linux\r\nContent-Type: application/json\r\nConnection: close\r\n";
    write!(
        &*stream,
        "{head}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The user that prepull finds for an image, and whether it finds a login at all.
fn ours(folder: &Path, image: &str) -> (String, bool) {
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let output = Command::new(env!("CARGO_BIN_EXE_prepull"))
        .args([
            "pull", "-n", "-o", "json", "-F", "none", "-H", "n1", "-u", "ops", image,
        ])
        .env_clear()
        .env("PATH", path)
        .env("HOME", folder)
        .env("DOCKER_CONFIG", folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{image}: {output:?}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = &document["images"][0];
    (
        found["user"].as_str().unwrap_or_default().to_string(),
        !found["login"].is_null(),
    )
}

/// Both read the same folder.
fn compare(daemon: &Daemon, config: &Value, image: &str) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    // Another process makes it executable under its name: ours may not hold it open for writing meanwhile.
    fs::write(folder.path().join("helper"), HELPER).unwrap();
    let install = "cp helper docker-credential-fake && chmod +x docker-credential-fake";
    let installed = Command::new("sh")
        .args(["-c", install])
        .current_dir(&folder)
        .status();
    assert!(installed.unwrap().success());
    let theirs = daemon.login(folder.path(), image);
    let has_login = theirs.iter().any(|field| !field.is_empty());
    let [user, ..] = theirs;
    assert_eq!(
        ours(folder.path(), image),
        (user, has_login),
        "{image} with {config}"
    );
}

/// Knows three registries, one of them by a token.
const HELPER: &str = r#"#!/bin/sh
read -r server
case $server in
    https://index.docker.io/v1/) echo '{"Username":"helped-hub","Secret":"x"}' ;;
    reg.example:5000) echo '{"Username":"helped","Secret":"x"}' ;;
    token.example) echo '{"Username":"<token>","Secret":"x"}' ;;
    *) echo 'credentials not found in native keychain'; exit 1 ;;
esac
"#;

const IMAGES: [&str; 6] = [
    "nginx",
    "docker.io/team/app:v1",
    "reg.example/app",
    "reg.example:5000/team/app",
    "token.example/app",
    "other.example/app",
];

/// Keys as docker and its older versions write them; no two of one registry, between which docker chooses by chance.
const KEYS: [&str; 4] = [
    "https://index.docker.io/v1/",
    "reg.example",
    "https://reg.example:5000/v2/",
    "http://token.example/v1/",
];

fn entry(user: &str) -> Value {
    json!({"auth": STANDARD.encode(format!("{user}:secret"))})
}

#[test]
fn entries_of_every_form_are_found_as_docker_finds_them() {
    let daemon = Daemon::start();
    for (config, images) in [
        (json!({}), &IMAGES[..1]),
        (
            json!({"auths": {"reg.example": {"username": "u", "password": "p"}}}),
            &IMAGES[2..4],
        ),
        (
            json!({"auths": {"reg.example": {"auth": STANDARD.encode("u:"), "identitytoken": "t"}}}),
            &IMAGES[2..3],
        ),
        (
            json!({"auths": {"reg.example": {"identitytoken": "t"}}}),
            &IMAGES[2..3],
        ),
        (
            json!({"auths": {"reg.example": {"registrytoken": "t"}}}),
            &IMAGES[2..3],
        ),
        (json!({"credsStore": "fake"}), &IMAGES[..]),
        (
            json!({"credHelpers": {"reg.example:5000": "fake"}}),
            &IMAGES[2..4],
        ),
        // A helper that knows nothing has the last word.
        (
            json!({"auths": {"reg.example": entry("u")}, "credsStore": "fake"}),
            &IMAGES[2..3],
        ),
        (
            json!({"auths": {"reg.example": entry("u")}, "credHelpers": {"reg.example": "fake"}}),
            &IMAGES[2..3],
        ),
        (
            json!({"auths": {"reg.example": entry("u")}, "credHelpers": {"token.example": "fake"}}),
            &IMAGES[2..5],
        ),
    ] {
        for image in images {
            compare(&daemon, &config, image);
        }
    }
}

#[test]
fn generated_files_are_read_as_docker_reads_them() {
    let daemon = Daemon::start();
    let keys = subsequence(KEYS.to_vec(), 0..=KEYS.len());
    let helped = subsequence(
        vec!["https://index.docker.io/v1/", "reg.example:5000"],
        0..=2,
    );
    let cases = (keys, helped, any::<bool>(), 0..IMAGES.len());
    let mut runner = TestRunner::new(Config {
        cases: 40,
        failure_persistence: None,
        ..Config::default()
    });
    let check = runner.run(&cases, |(keys, helped, has_store, image)| {
        let mut config = json!({"auths": {}, "credHelpers": {}});
        for (number, key) in keys.into_iter().enumerate() {
            config["auths"][key] = entry(&format!("user{number}"));
        }
        for key in helped {
            config["credHelpers"][key] = "fake".into();
        }
        if has_store {
            config["credsStore"] = "fake".into();
        }
        compare(&daemon, &config, IMAGES[image]);
        Ok(())
    });
    check.unwrap();
}
