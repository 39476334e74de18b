//! Hostile text in every place an operator can put text: it reaches the node as data, or is refused before anything is
//! touched. `tests/fixtures/hostile.txt` holds the text.

#![allow(clippy::unwrap_used, clippy::panic)] // a test file: a panic is a failed test

mod local_node;

use std::future::pending;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use local_node::runtime::FakeRuntime;
use local_node::{DASH, Place, Shells, node};
use prepull::model::{Image, PullWhen, RegistryLogin, RuntimeKind, Secret};
use prepull::node::{Layers, PullJob, StallPolicy, pull, run};
use prepull::ports::PullRequest;
use prepull::runtime;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// The shells that nodes have as `sh`.
fn shells() -> Vec<Shells> {
    let bash = Shells {
        login: "bash",
        sh: &["bash"],
    };
    let busybox = Shells {
        login: "dash",
        sh: &["busybox"],
    };
    let has_busybox = Command::new("busybox")
        .arg("true")
        .stdout(Stdio::null())
        .status()
        .is_ok();
    // The lab installs it; whoever runs without the lab may not have it.
    assert!(
        has_busybox || !cfg!(feature = "lab"),
        "busybox is not there"
    );
    [DASH, bash]
        .into_iter()
        .chain(has_busybox.then_some(busybox))
        .collect()
}

/// The hostile list; `owned` is the file that its commands would make.
fn hostile(owned: &Path) -> Vec<String> {
    let text = include_str!("fixtures/hostile.txt");
    let lines = text.lines().filter(|line| !line.starts_with("# "));
    let list: Vec<String> = lines
        .map(|line| {
            let line = line.replace("%OWNED%", owned.to_str().unwrap());
            unescaped(&line)
        })
        .collect();
    assert!(list.len() > 80);
    list
}

fn unescaped(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let (character, left) = after.split_at(1);
        rest = left;
        match character {
            "n" => out.push('\n'),
            "r" => out.push('\r'),
            "t" => out.push('\t'),
            "u" => {
                let (code, left) = left[1..].split_once('}').unwrap();
                out.push(char::from_u32(u32::from_str_radix(code, 16).unwrap()).unwrap());
                rest = left;
            }
            other => out.push_str(other),
        }
    }
    out + rest
}

/// What arrives on the node of these arguments.
async fn arrived(place: &Place, words: &[String]) -> Vec<String> {
    let program = ["/usr/bin/printf", "%s\\0"].map(String::from);
    let argv: Vec<String> = program.into_iter().chain(words.iter().cloned()).collect();
    let ended = run(
        &mut place.session(),
        &node(false),
        &argv,
        &Arc::default(),
        pending(),
    )
    .await;
    let Ok(output) = ended else {
        panic!("{ended:?}");
    };
    let text = String::from_utf8(output.stdout.read(usize::MAX).unwrap()).unwrap();
    let mut words: Vec<String> = text.split('\0').map(String::from).collect();
    assert_eq!(words.pop().as_deref(), Some(""));
    words
}

/// The text without those that no argument can be.
fn without_nul(list: Vec<String>) -> Vec<String> {
    let is_argument = |text: &String| !text.contains('\0');
    list.into_iter().filter(is_argument).collect()
}

#[tokio::test]
async fn hostile_arguments_and_passwords_reach_the_node_as_they_are() {
    for shells in shells() {
        let place = Place::new(&shells);
        let owned = place.folder.path().join("owned");
        let words = without_nul(hostile(&owned));
        assert_eq!(arrived(&place, &words).await, words, "{shells:?}");
        let password = words.join("\n");
        place.write(
            "fake/pull",
            "cat \"$DOCKER_CONFIG/config.json\" >\"$FAKE/secret\"",
        );
        let runtime = FakeRuntime {
            secret: Some(Secret::new(password.clone())),
            ..FakeRuntime::new(RuntimeKind::Docker)
        };
        let image = "reg.example/app:v1".parse().unwrap();
        let job = PullJob {
            runtime: &runtime,
            layers: None,
            request: PullRequest {
                image: &image,
                endpoint: None,
                platform: None,
                login: None,
            },
            when: PullWhen::Missing,
            timeout: None,
            patience: StallPolicy::default(),
            arrived: &Layers::default(),
            pull_token: owned.to_str().unwrap(),
            lease: std::time::Duration::from_secs(600),
            disk_credentials: false,
            hang_up: None,
        };
        let ended = pull(&mut place.session(), &node(false), &job, &|_| {}, pending()).await;
        assert!(ended.is_ok(), "{shells:?}");
        assert_eq!(place.read("fake/secret"), password.as_bytes(), "{shells:?}");
        assert!(!owned.exists(), "{shells:?}");
        place.assert_clean().await;
    }
}

#[test]
fn any_arguments_reach_the_node_as_they_are() {
    let tokio = tokio::runtime::Runtime::new().unwrap();
    for shells in shells() {
        let place = Place::new(&shells);
        let special =
            "['\"$`\\\\ \t\n\r;&|<>(){}\\[\\]*?!#~=%a-c\u{1}-\u{1f}\u{7f}-\u{ff}é日]{0,12}";
        let mut runner = TestRunner::new(Config {
            cases: 8,
            failure_persistence: None,
            ..Config::default()
        });
        let check = runner.run(&vec(special, 1..60), |words| {
            let seen = tokio.block_on(arrived(&place, &words));
            prop_assert_eq!(seen, words);
            Ok(())
        });
        check.unwrap_or_else(|error| panic!("{shells:?}: {error}"));
    }
}

/// What our parser takes for an image is one argument that no client reads as an option, with every runtime.
#[test]
fn a_hostile_image_is_refused_or_one_plain_argument() {
    let mut accepted = 0;
    for text in hostile(Path::new("/tmp/owned")) {
        for image in [
            text.clone(),
            format!("reg.example/{text}"),
            format!("reg.example/app:{text}"),
            format!("reg.example/app@{text}"),
            format!("{text}/app"),
            format!("reg.example/a{text}b:v1"),
        ] {
            let Ok(image) = image.parse::<Image>() else {
                continue;
            };
            accepted += 1;
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "./_-:@[]".contains(c);
            let name = image.to_string();
            assert!(name.chars().all(is_plain), "{name:?}");
            for runtime in runtime::all() {
                let request = PullRequest {
                    image: &image,
                    endpoint: None,
                    platform: None,
                    login: Some(&RegistryLogin::Password {
                        username: text.clone(),
                        password: Secret::new(text.as_str()),
                    }),
                };
                let command = runtime.pull(&request).unwrap();
                let argument = command.argv.last().unwrap();
                assert!(argument.starts_with(|c: char| c != '-'), "{argument}");
                assert!(argument.chars().all(is_plain), "{argument:?}");
            }
        }
    }
    assert!(
        accepted > 0,
        "nothing was let through, and so nothing tested"
    );
}

/// The binary with hostile text in one place: it refuses (2) or plans; what it prints cannot move a terminal; nothing is
/// run.
#[test]
fn hostile_options_are_refused_or_planned_and_printed_harmlessly() {
    let folder = tempfile::tempdir().unwrap();
    let owned = folder.path().join("owned");
    let list = hostile(&owned);
    let mut planned = 0;
    for text in without_nul(list) {
        let label = format!(
            "nodes: [{{name: n1, user: ops, labels: {{{0}: {0}}}}}]\n",
            serde_json::Value::from(text.as_str())
        );
        std::fs::write(folder.path().join("labels.yml"), label).unwrap();
        std::fs::write(folder.path().join("nodes.txt"), &text).unwrap();
        let image = "reg.example/app:v1";
        for arguments in [
            vec![format!("--hosts={text}"), "-uops".into(), image.into()],
            vec!["-Hn1".into(), format!("--user={text}"), image.into()],
            vec!["-Hn1".into(), "-uops".into(), "--".into(), text.clone()],
            vec![
                "-Hn1".into(),
                "-uops".into(),
                format!("--jump={text}"),
                image.into(),
            ],
            vec![
                "-Hn1".into(),
                "-uops".into(),
                format!("--runtime-endpoint={text}"),
                image.into(),
            ],
            vec![
                "-Hn1".into(),
                "-uops".into(),
                format!("--platform={text}"),
                image.into(),
            ],
            vec![
                "-Hn1".into(),
                "-uops".into(),
                format!("--registry-user={text}"),
                image.into(),
            ],
            vec![
                "-Hn1".into(),
                "-uops".into(),
                format!("--auth-file={text}"),
                image.into(),
            ],
            vec!["-ilabels.yml".into(), image.into()],
            vec!["-inodes.txt".into(), "-uops".into(), image.into()],
        ] {
            let output = Command::new(env!("CARGO_BIN_EXE_prepull"))
                .args(["pull", "-n", "-F", "none"])
                .args(&arguments)
                .current_dir(folder.path())
                .env("HOME", folder.path())
                .stdin(Stdio::null())
                .output()
                .unwrap();
            let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            match output.status.code() {
                Some(0) => planned += 1,
                Some(2) => {}
                other => panic!("{arguments:?}: {other:?}: {said}"),
            }
            let moves = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
            assert!(!said.contains(moves), "{arguments:?}: {said:?}");
            assert!(!owned.exists(), "{arguments:?}");
        }
    }
    assert!(planned > 100, "only {planned} were planned");
}
