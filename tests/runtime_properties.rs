//! Properties of the runtimes' readers: no bytes make them panic, and no name of an image, registry or tag
//! changes the kind of a failure.

#![allow(clippy::unwrap_used)] // a test file: a panic is a failed test

use std::sync::LazyLock;

use prepull::model::{CommandOutput, ExitStatus, FailureKind, Image, RuntimeKind, Stage};
use prepull::runtime::{all, of_kind};
use proptest::prelude::*;

/// Error texts of other versions, all about `reg.example/team/app:v1`.
fn messages() -> Vec<(RuntimeKind, u32, String)> {
    include_str!("fixtures/runtime-messages.tsv")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let cells: Vec<&str> = line.split('\t').collect();
            (
                // What ctr says is containerd's; crictl shows the same.
                match cells[0] {
                    "ctr" => RuntimeKind::Ctr,
                    other => other.parse().unwrap(),
                },
                cells[1].parse().unwrap(),
                cells[4].replace("\\n", "\n"),
            )
        })
        .collect()
}

/// A name's part made of words that mean something elsewhere.
fn hostile_part() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "denied",
        "429",
        "503",
        "unauthorized",
        "not-found",
        "toomanyrequests",
        "x509",
        "eof",
        "no-such-host",
        "forbidden",
        "html",
        "tar",
        "archive",
        "blobs",
        "httpreadseeker",
        "no.space.left",
        "sudo",
        "connection_refused",
        "status",
        "manifest-unknown",
        "latest",
        "tls",
        "for",
        "schema",
        "unknown",
        "invalid",
    ])
    .prop_map(str::to_string)
}

fn kind_and_detail(
    runtime: RuntimeKind,
    exit: u32,
    image: &Image,
    text: &str,
) -> (FailureKind, String) {
    let output = CommandOutput {
        exit: ExitStatus::Code(exit),
        stdout: b"v1: Pulling from x\nc5a04032aca7: Pulling fs layer\n".to_vec(),
        stderr: text.into(),
        truncated: false,
    };
    let failure = of_kind(runtime).read_pull(image, &output).unwrap_err();
    (failure.kind, failure.detail)
}

/// The messages, and the kind of each about the image that it is about.
static KNOWN: LazyLock<Vec<(RuntimeKind, u32, String, FailureKind)>> = LazyLock::new(|| {
    let usual: Image = "reg.example/team/app:v1".parse().unwrap();
    let with_kind = |(runtime, exit, text): (RuntimeKind, u32, String)| {
        let (kind, _) = kind_and_detail(runtime, exit, &usual, &text);
        (runtime, exit, text, kind)
    };
    messages().into_iter().map(with_kind).collect()
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_kind_does_not_depend_on_any_name(
        host in hostile_part(),
        port in prop::sample::select(vec!["", ":429", ":5000", ":403"]),
        path in prop::collection::vec(hostile_part(), 1..4),
        tag in hostile_part(),
    ) {
        let host = host.replace('_', "-");
        let registry = format!("{host}.example{port}");
        let repository = path.join("/");
        let image: Image = format!("{registry}/{repository}:{tag}").parse().unwrap();
        for (runtime, exit, text, expected) in &*KNOWN {
            let renamed = text
                .replace("manifest v1 in", &format!("manifest {tag} in"))
                .replace("manifests v1", &format!("manifests {tag}"))
                .replace("manifests/v1", &format!("manifests/{tag}"))
                .replace("Tag v1 not", &format!("Tag {tag} not"))
                .replace("app:v1", &format!("app:{tag}"))
                .replace("team/app", &repository)
                .replace("reg.example", &registry);
            let (found, _) = kind_and_detail(*runtime, *exit, &image, &renamed);
            prop_assert_eq!(found, *expected, "{} / {}", renamed, text);
        }
    }

    #[test]
    fn a_short_hub_name_changes_nothing(name in hostile_part()) {
        let image: Image = name.parse().unwrap();
        for (text, expected) in [
            (
                format!("Error response from daemon: manifest for {name}:latest not found: manifest unknown: manifest unknown"),
                "image-not-found",
            ),
            (
                format!("Error response from daemon: pull access denied for {name}, repository does not exist or may require 'docker login': denied: requested access to the resource is denied"),
                "registry-auth",
            ),
            (
                format!("Error response from daemon: Get \"https://registry-1.docker.io/v2/library/{name}/manifests/latest\": EOF"),
                "registry-unavailable",
            ),
        ] {
            let (kind, _) = kind_and_detail(RuntimeKind::Docker, 1, &image, &text);
            prop_assert_eq!(kind.as_str(), expected, "{}", text);
        }
    }

    #[test]
    fn no_bytes_make_a_reader_panic(
        stdout in prop::collection::vec(any::<u8>(), 0..400),
        stderr in prop::collection::vec(any::<u8>(), 0..400),
        exit in prop_oneof![Just(0u32), Just(1), Just(125), Just(127), Just(137), any::<u32>()],
        truncated: bool,
    ) {
        let output = CommandOutput { exit: ExitStatus::Code(exit), stdout, stderr, truncated };
        read_all(&output)?;
    }

    #[test]
    fn no_text_that_looks_familiar_makes_a_reader_panic(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "level=error msg=\"", "\\", "\"", "rpc error: code = ", "503 ", "status ", "{\"status\":{\"id\":\"x\"}}",
                "[\"a@b\"] ", "null linux/amd64 1 x", "Login prior to pull:", "Status: ", "\n", "\u{1b}[", "é", "://", "?", "@",
                "ERRO[0000] ", "{\"errors\":[", "https://u:p@h/x?y", "Image is up to date for ", "\u{1b}", "~", "*", "(", ":",
                "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 404 \r\n", "0\r\n", "{\"errorDetail\":{\"message\":\"", "\"}}\r\n",
            ]),
            0..30,
        ),
        code in 0u32..3,
    ) {
        let text = words.concat();
        let output = CommandOutput {
            exit: ExitStatus::Code(code),
            stdout: text.clone().into_bytes(),
            stderr: text.into_bytes(),
            truncated: false,
        };
        read_all(&output)?;
    }
}

fn read_all(output: &CommandOutput) -> Result<(), TestCaseError> {
    let image: Image = "reg.example/team/app:v1".parse().unwrap();
    for runtime in all() {
        let failures = [
            runtime.read_pull(&image, output).err(),
            runtime.check_alive(output).err(),
            runtime.read_inspect(&image, output, Stage::Inspect).err(),
        ];
        for failure in failures.into_iter().flatten() {
            prop_assert!(!failure.detail.is_empty());
            prop_assert!(failure.detail.len() < 2200, "{}", failure.detail.len());
        }
    }
    Ok(())
}
