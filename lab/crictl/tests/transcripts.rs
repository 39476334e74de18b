//! What the real crictl said, word for word, in the cases that need no containerd. Times are cut out of both.

use std::process::{Command, Output};

const WARNING: &str = "level=warning msg=\"Config \\\"/etc/crictl.yaml\\\" does not exist, trying next: \\\"/usr/local/bin/crictl.yaml\\\"\"";

fn crictl(endpoint: &str, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crictl"));
    command
        .env_clear()
        .env("CONTAINER_RUNTIME_ENDPOINT", endpoint)
        .args(words)
        .output()
        .unwrap()
}

/// Standard error as in the transcripts: no times, and the program where it is on a node.
fn errors(output: &Output) -> String {
    let folder = std::path::Path::new(env!("CARGO_BIN_EXE_crictl"))
        .parent()
        .unwrap()
        .display()
        .to_string();
    let text = String::from_utf8(output.stderr.clone())
        .unwrap()
        .replace(&folder, "/usr/local/bin");
    let lines: Vec<&str> = text
        .lines()
        .map(|line| line.split_once("Z\" ").map_or(line, |(_, rest)| rest))
        .collect();
    lines.join("\n")
}

fn assert_fails(endpoint: &str, words: &[&str], last: &str) -> Output {
    let output = crictl(endpoint, words);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        errors(&output),
        format!("{WARNING}\nlevel=error msg=\"{last}\"")
    );
    output
}

const SOCKET: &str = "unix:///run/containerd/containerd.sock";

#[test]
fn version_cli() {
    let output = crictl(SOCKET, &["--version"]);
    assert_eq!(
        (output.stdout.as_slice(), output.stderr.as_slice()),
        (b"crictl version unknown\n".as_slice(), b"".as_slice())
    );
    assert!(output.status.success());
}

#[test]
fn malformed_reference_empty_and_usage_no_argument() {
    assert_fails(SOCKET, &["pull", ""], "image name cannot be empty");
    assert_fails(SOCKET, &["pull"], "image name cannot be empty");
}

#[test]
fn usage_unknown_flag() {
    let output = assert_fails(
        SOCKET,
        &["pull", "--no-such-flag", "127.0.0.1:5000/team/app:v1"],
        "flag provided but not defined: -no-such-flag",
    );
    let usage = String::from_utf8(output.stdout).unwrap();
    assert!(usage.starts_with(
        "Incorrect Usage: flag provided but not defined: -no-such-flag\n\nNAME:\n   crictl pull - "
    ));
}

#[test]
fn username_flag_no_tty() {
    let output = assert_fails(
        SOCKET,
        &["pull", "-u", "ci", "127.0.0.1:5000/team/app:v1"],
        "inappropriate ioctl for device",
    );
    assert_eq!(output.stdout, b"Enter Password:\n");
}

#[test]
fn config_missing_file() {
    let output = crictl(
        SOCKET,
        &["-c", "/run/none.yaml", "pull", "127.0.0.1:5000/team/app:v1"],
    );
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        errors(&output),
        "level=warning msg=\"Config \\\"/run/none.yaml\\\" does not exist, trying next: \\\"/usr/local/bin/crictl.yaml\\\"\"\n\
         level=error msg=\"get server config: load config file: stat /usr/local/bin/crictl.yaml: no such file or directory\""
    );
}

#[test]
fn endpoint_missing_socket() {
    assert_fails(
        "unix:///run/nothere.sock",
        &["pull", "127.0.0.1:5000/team/app:v1"],
        "validate service connection: validate CRI v1 image API for endpoint \\\"unix:///run/nothere.sock\\\": rpc error: \
         code = Unavailable desc = connection error: desc = \\\"transport: Error while dialing: dial unix \
         /run/nothere.sock: connect: no such file or directory\\\"",
    );
}

#[test]
fn endpoint_bad_scheme() {
    assert_fails(
        "http://127.0.0.1:5000",
        &["pull", "127.0.0.1:5000/team/app:v1"],
        "protocol \\\"http\\\" not supported",
    );
}
