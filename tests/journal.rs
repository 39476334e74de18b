//! Runs on disk as a user meets them: what is recorded, shown and gone on with. Nobody answers on the nodes' port.

#![allow(clippy::unwrap_used)] // a test file: a panic is a failed test

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

struct Desk {
    home: TempDir,
    /// On which nobody listens.
    port: u16,
}

fn said(output: &Output) -> String {
    let code = output.status.code().unwrap();
    let text = String::from_utf8([output.stdout.as_slice(), &output.stderr].concat()).unwrap();
    format!("{code}\n{text}")
}

impl Desk {
    fn new() -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let home = TempDir::new().unwrap();
        let node = |name: &str| {
            format!("- {{name: {name}, address: 127.0.0.1, port: {port}, runtime: docker}}\n")
        };
        std::fs::write(
            home.path().join("two.yml"),
            format!("nodes:\n{}{}", node("a"), node("b")),
        )
        .unwrap();
        std::fs::write(
            home.path().join("one.yml"),
            format!("nodes:\n{}", node("a")),
        )
        .unwrap();
        Self { home, port }
    }

    fn prepull(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_prepull"))
            .args(arguments)
            .current_dir(self.home.path())
            .env_clear()
            .env("HOME", self.home.path())
            .output()
            .unwrap()
    }

    fn pull(&self, more: &[&str]) -> Output {
        let usual = [
            "pull",
            "-i",
            "two.yml",
            "-F",
            "none",
            "--retries",
            "0",
            "reg.example/app:v1",
        ];
        self.prepull(&[&usual, more].concat())
    }

    fn journals(&self) -> Vec<PathBuf> {
        let folder = self.home.path().join(".local/state/prepull/runs");
        let mut paths: Vec<_> = std::fs::read_dir(folder)
            .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
            .unwrap_or_default();
        paths.sort();
        paths
    }
}

#[test]
fn a_run_is_recorded_and_shown_as_it_was_told() {
    let desk = Desk::new();
    let ran = desk.pull(&[]);
    assert_eq!(ran.status.code(), Some(1));
    let told = String::from_utf8(ran.stdout).unwrap();
    let shown = desk.prepull(&["runs", "show", "last"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    let (head, body) = shown.split_once('\n').unwrap();
    assert!(head.ends_with(" pull (ended)"), "{head}");
    assert_eq!(body, told);
    let run = head.split(' ').next().unwrap();
    assert!(
        told.ends_with(&format!(": prepull pull --resume {run}\n")),
        "{told}"
    );

    let listed = said(&desk.prepull(&["runs", "list"]));
    let cells: Vec<&str> = listed.lines().last().unwrap().split_whitespace().collect();
    assert_eq!(cells, [run, "pull", "ended", "2", "0", "2", "0"]);
    let json = desk.prepull(&["runs", "show", run, "-o", "json"]);
    let document: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(
        document["nodes"][1]["outcomes"][0]["failure"]["kind"],
        "unreachable"
    );
    let json = desk.prepull(&["runs", "list", "-o", "json"]);
    let list: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(list["runs"][0]["summary"]["failed"], 2);
}

#[test]
fn a_run_need_not_be_recorded_and_cannot_be_where_there_is_no_home() {
    let desk = Desk::new();
    desk.pull(&["--no-journal"]);
    assert!(desk.journals().is_empty());
    assert!(said(&desk.prepull(&["runs", "list"])).starts_with("0\nNo run is recorded in "));
    std::fs::write(desk.home.path().join(".local"), "in the way").unwrap();
    let ran = desk.pull(&[]);
    let text = said(&ran);
    assert!(
        text.contains("warning: this run is not recorded and cannot be resumed: cannot make"),
        "{text}"
    );
    assert!(
        text.starts_with("1\n") && !text.contains("--resume"),
        "{text}"
    );
}

/// Makes the last journal say that this node holds the image.
fn succeed(desk: &Desk, node: usize) {
    let listed = desk.prepull(&["runs", "list", "-o", "json"]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let last = listed["runs"].as_array().unwrap().last().unwrap()["run"]
        .as_str()
        .unwrap();
    let path = desk
        .journals()
        .into_iter()
        .find(|path| path.file_stem().unwrap() == last)
        .unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
        let finished = line.pointer_mut("/event/fact/finished");
        if let Some(finished) = finished.filter(|finished| finished["node"] == node) {
            let held = serde_json::json!({"digest": "sha256:ab", "image_id": null, "bytes": 7, "platform": null});
            finished["record"]["outcome"] = serde_json::json!({ "pulled": held });
        }
        lines.push(line.to_string() + "\n");
    }
    std::fs::write(path, lines.concat()).unwrap();
}

#[test]
fn resuming_does_what_is_open_and_nothing_else() {
    let desk = Desk::new();
    desk.pull(&[]);
    succeed(&desk, 0);
    let resumed = desk.prepull(&["pull", "--resume", "last", "-o", "json"]);
    assert_eq!(resumed.status.code(), Some(1), "{}", said(&resumed));
    let document: serde_json::Value = serde_json::from_slice(&resumed.stdout).unwrap();
    let outcome = |node: usize| document["nodes"][node]["outcomes"][0].clone();
    assert_eq!(
        (&outcome(0)["status"], &outcome(0)["digest"]),
        (&"present".into(), &"sha256:ab".into())
    );
    assert_eq!(outcome(0)["attempts"], serde_json::json!([]));
    assert_eq!(outcome(1)["failure"]["kind"], "unreachable");
    assert_eq!(
        outcome(1)["attempts"].as_array().unwrap().len(),
        1,
        "--retries 0 holds again"
    );

    // What was resumed can be resumed again, and once all is there nothing is left to do.
    succeed(&desk, 1);
    let again = desk.prepull(&["pull", "--resume", "last", "-o", "human"]);
    let text = said(&again);
    assert!(text.starts_with("0\nREADY: 2 of 2 nodes ok"), "{text}");
    assert_eq!(desk.journals().len(), 3);
}

#[test]
fn resuming_says_what_has_changed_and_what_it_cannot_do() {
    let desk = Desk::new();
    desk.pull(&[]);
    let with = said(&desk.pull(&["--resume", "last"]));
    assert!(
        with.starts_with("2\n") && with.contains("cannot be used with"),
        "{with}"
    );
    let unknown = said(&desk.prepull(&["pull", "--resume", "2001"]));
    assert!(
        unknown.contains("there is no run \"2001\"") && unknown.contains("prepull runs list"),
        "{unknown}"
    );
    std::fs::copy(
        desk.home.path().join("one.yml"),
        desk.home.path().join("two.yml"),
    )
    .unwrap();
    let changed = said(&desk.prepull(&["pull", "--resume", "last"]));
    assert!(
        changed.contains("but not in the fleet any more: b\n"),
        "{changed}"
    );
    let elsewhere = Command::new(env!("CARGO_BIN_EXE_prepull"))
        .args(["pull", "--resume", "last"])
        .current_dir("/")
        .env_clear()
        .env("HOME", desk.home.path())
        .output()
        .unwrap();
    assert!(said(&elsewhere).contains("`cd "), "{}", said(&elsewhere));
    let port = desk.port.to_string();
    desk.prepull(&[
        "exec",
        "-F",
        "none",
        "-H",
        "127.0.0.1",
        "--port",
        &port,
        "--retries",
        "0",
        "--",
        "true",
    ]);
    let no_pull = said(&desk.prepull(&["pull", "--resume", "last"]));
    assert!(no_pull.contains("was no pull"), "{no_pull}");
}
