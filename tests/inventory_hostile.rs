//! Inventories that are too large, never end or are built to hurt: each is a clear error, soon, in bounded memory.

#![allow(clippy::unwrap_used)] // a test file: a panic is a failed test

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// All the address space that prepull gets, in KiB: the largest file that is read (64 MiB) and copies of it fit.
const MEMORY: u32 = 640 * 1024;
/// Far more than any of this takes: a bound, not a measurement.
const PATIENCE: Duration = Duration::from_secs(120);

struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, text: &[u8]) {
        fs::write(self.path(name), text).unwrap();
    }

    /// A file of this many bytes that takes no room on the disk: all of them are NUL.
    fn sparse(&self, name: &str, bytes: u64) {
        let file = File::create(self.path(name)).unwrap();
        file.set_len(bytes).unwrap();
    }

    fn program(&self, name: &str, script: &str) {
        self.file(name, script.as_bytes());
        fs::set_permissions(self.path(name), Permissions::from_mode(0o755)).unwrap();
    }

    /// What `prepull nodes` with these arguments complains about, its memory limited. `input` is a command of
    /// the shell that writes its standard input.
    fn refused(&self, arguments: &str, input: &str) -> String {
        let prepull = env!("CARGO_BIN_EXE_prepull");
        let line = format!(
            "{input} | (ulimit -v {MEMORY}; exec {prepull} nodes -F none -u me {arguments})"
        );
        let started = Instant::now();
        let output = Command::new("sh")
            .args(["-c", &line])
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).to_string();
        assert_eq!(output.status.code(), Some(2), "{arguments}: {said}");
        assert!(output.stdout.is_empty(), "{arguments}");
        assert!(said.len() < 8_000, "{arguments}: {} bytes", said.len());
        assert!(
            started.elapsed() < PATIENCE,
            "{arguments}: {:?}",
            started.elapsed()
        );
        said
    }

    fn assert_refused(&self, arguments: &str, input: &str, parts: &[&str]) {
        let said = self.refused(arguments, input);
        for part in parts {
            assert!(
                said.contains(part),
                "{arguments}: {part:?} is not in: {said}"
            );
        }
    }
}

#[test]
fn a_gigabyte_is_refused_wherever_a_file_can_be_named() {
    let desk = Desk::new();
    desk.sparse("big", 1 << 30);
    desk.file("hosts", b"a\n");
    for arguments in [
        "-i big",
        "-H ^big",
        "-i hosts --limit @big",
        "-i hosts --exclude @big",
    ] {
        desk.assert_refused(arguments, "true", &["big: this is larger than 64 MiB"]);
    }
    fs::create_dir_all(desk.path("group_vars")).unwrap();
    desk.sparse("group_vars/all", 1 << 30);
    desk.file("inventory.ini", b"[g]\na\n");
    desk.assert_refused(
        "-i inventory.ini",
        "true",
        &["group_vars/all: this is larger than 64 MiB"],
    );
}

#[test]
fn what_never_ends_is_refused() {
    let desk = Desk::new();
    let larger = "this is larger than 64 MiB";
    desk.assert_refused("-i -", "yes host", &["standard input: ", larger]);
    desk.assert_refused(
        "-i -",
        "yes ' - {a: &b [*b]}'",
        &["standard input: ", larger],
    );
    desk.assert_refused("-i /dev/zero", "true", &["/dev/zero: ", larger]);
    desk.assert_refused("-H ^/dev/zero", "true", &["/dev/zero: ", larger]);
    desk.assert_refused("-i /dev/stdin", "cat /dev/zero", &["/dev/stdin: ", larger]);
}

/// A scalar within the limit on files is read, and refused as what it is not.
#[test]
fn a_scalar_of_twelve_megabytes_is_refused_in_each_format() {
    let desk = Desk::new();
    let long = "a".repeat(12 << 20);
    for (name, text) in [
        ("native.yml", format!("nodes: [{long}]\n")),
        ("quoted.yml", format!("nodes: [\"{long}\"]\n")),
        ("block.yml", format!("nodes: |\n  {long}\n")),
        (
            "ansible.yml",
            format!("all:\n  hosts:\n    x: {{ansible_host: {long}}}\n"),
        ),
        ("host.ini", format!("[g]\n{long}\n")),
        ("value.ini", format!("[g]\nx ansible_user={long}\n")),
        ("section.ini", format!("[{long}]\nx\n")),
        ("lines", format!("a,{long}\n")),
        (
            "listing.json",
            format!("{{\"_meta\": {{}}, \"g\": {{\"hosts\": [\"{long}\"]}}}}"),
        ),
    ] {
        desk.file(name, text.as_bytes());
        desk.assert_refused(&format!("-i {name}"), "true", &[&format!("{name}:")]);
        fs::remove_file(desk.path(name)).unwrap();
    }
}

#[test]
fn bombs_rings_and_depth_are_refused_with_the_file_named() {
    let desk = Desk::new();
    let mut laughs = String::from("all:\n  vars:\n    a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..10 {
        let below = format!("*a{}, ", level - 1).repeat(10);
        laughs.push_str(&format!("    a{level}: &a{level} [{below}]\n"));
    }
    let deep_list = format!("nodes: {}", "[".repeat(200_000));
    let deep_map = format!("all: {}", "{children: ".repeat(200_000));
    let deep_json = format!("{{\"_meta\": {}", "{\"a\": ".repeat(200_000));
    let wide = format!("all:\n  hosts:\n{}", "    ? x\n".repeat(200_000));
    let many = (0..1_200_000).fold(String::from("nodes:\n"), |mut text, _| {
        text.push_str("- x\n");
        text
    });
    let groups = (0..20_000).fold(String::new(), |text, group| {
        text + &format!("[g{group}]\nx\n")
    });
    for (name, text, part) in [
        ("laughs.yml", laughs.as_str(), "too large or too deep"),
        ("ring.yml", "all: &a {children: {g: *a}}\n", ""),
        ("merged.yml", "all: &a {<<: *a, hosts: {x: }}\n", ""),
        ("deep.yml", &deep_list, "too large or too deep"),
        ("maps.yml", &deep_map, "too large or too deep"),
        ("deep.json", &deep_json, ""),
        ("wide.yml", &wide, ""),
        ("many.yml", &many, "too large or too deep"),
        (
            "twice.yml",
            "all:\n  hosts: {a: }\n  hosts: {b: }\n",
            "twice.yml:3:3: ",
        ),
        (
            "twice.json",
            "{\"_meta\": {}, \"g\": [\"a\"],\n \"g\": [\"b\"]}",
            "twice.json:2:2: ",
        ),
        (
            "ring.ini",
            "[a:children]\nb\n[b:children]\na\n",
            "is its own parent",
        ),
        ("groups.ini", &groups, "more than 10000 groups"),
        (
            "range.ini",
            "[g]\nw[0:999999999999]\n",
            "more than 100000 nodes",
        ),
        (
            "square.ini",
            "[g]\nw[0:99999][0:99999][0:99999]\n",
            "more than 100000 nodes",
        ),
        ("range", "w[0-99999].x[0-99999]\n", "more than 100000 nodes"),
        ("nul", "a\0b\n", "nul:1:"),
    ] {
        desk.file(name, text.as_bytes());
        desk.assert_refused(&format!("-i {name}"), "true", &[&format!("{name}:"), part]);
    }
}

#[test]
fn programs_that_print_too_much_or_nonsense_are_refused() {
    let desk = Desk::new();
    for (name, script, part) in [
        ("endless", "exec yes '{'", "printed more than 64 MiB"),
        (
            "huge",
            "exec head -c 1000000000 /dev/zero",
            "printed more than 64 MiB",
        ),
        (
            "deep",
            "yes '{\"a\":' | head -n 100000",
            "this is not JSON: EOF",
        ),
        (
            "noisy",
            "yes mist | head -n 1000000 >&2; exit 4",
            "failed: exit status: 4; it said: mist",
        ),
        ("silent", "exit 0", "this is not JSON: EOF"),
        ("list", "echo '[1]'", "must be a map"),
        (
            "twice",
            "echo '{\"_meta\": {}, \"_meta\": {}}'",
            "stands here twice",
        ),
        ("escapes", "printf '\\033[2J' >&2; exit 1", "\\u{1b}[2J"),
    ] {
        desk.program(name, &format!("#!/bin/sh\n{script}\n"));
        desk.assert_refused(
            &format!("-i ./{name}"),
            "true",
            &[&format!("./{name}"), part],
        );
    }
    desk.program("text", "no program\n");
    desk.file("script", b"#!/bin/sh\necho '{}'\n");
    desk.assert_refused("-i script", "true", &["script: ", "chmod +x"]);
}

/// A pipe can be read only once: its writer must not be lost by looking at it first.
#[test]
fn a_named_pipe_is_an_inventory() {
    let desk = Desk::new();
    let pipe = desk.path("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    assert_eq!(nodes_of(&pipe, b"a\nb\n"), "a\nb\n");
    assert_eq!(nodes_of(&pipe, b"[g]\nc\n"), "c\n");
}

fn nodes_of(pipe: &Path, text: &[u8]) -> String {
    let child = Command::new(env!("CARGO_BIN_EXE_prepull"))
        .args(["nodes", "-F", "none", "-u", "me", "-o", "json", "-i"])
        .arg(pipe)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Opens once prepull reads.
    let mut writer = File::options().write(true).open(pipe).unwrap();
    writer.write_all(text).unwrap();
    drop(writer);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let nodes = document["nodes"].as_array().unwrap().iter();
    nodes
        .map(|node| format!("{}\n", node["name"].as_str().unwrap()))
        .collect()
}
